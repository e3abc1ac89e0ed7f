//! Making a new version out of an old one. Only the pages on the way to a change are copied; all new pages come in one
//! batch.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::{Leaf, Lookup, MissingPages, Page, Pages, Slot, Subtree, TreeError, slot_of, span};
use crate::{ByteLen, ChunkIndex, Compression, Corrupt, Descriptor, Kind, ObjectName, Record, descriptor::levels};

/// A new version, and what must be stored before it may be published (I3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Descriptor of the new version, which has the name of its root page.
    pub descriptor: Descriptor,
    /// Pages that the old version does not have, children before parents, with their canonical bytes.
    pub pages: Vec<(ObjectName, Bytes)>,
    /// The canonical bytes of the root page, new or not; none for a disk of zeros.
    pub root_page: Option<Bytes>,
}

impl Committed {
    /// The new pages and the descriptor as records for the pool. The caller stores the chunks.
    pub fn records(&self) -> Vec<Record> {
        let salt = self.descriptor.salt;
        // Names do not compress. But the chunks that were patched together name the same packs, and runs of blocks are small
        // numbers: a page of such chunks is eight times as large as another one, and two thirds of it can be saved.
        let page = |(_, bytes): &(_, Bytes)| Record::encode_bytes(Kind::Page, salt, None, bytes, Compression::Auto);
        let mut records: Vec<Record> = self.pages.iter().map(page).collect();
        let descriptor = self.descriptor.encode();
        records.push(Record::encode(Kind::Descriptor, salt, None, &descriptor, Compression::Off));
        records
    }
}

/// The version that differs from `base` in these chunks (none: zeros) and may be larger. No pages are written for
/// what stays the same; without any change the descriptor is the old one.
///
/// # Errors
/// When the disk would shrink, a change lies beyond its end, or a page is not of the level that its place needs.
///
/// # Panics
/// When a change has blocks that the disk's chunks do not have.
pub fn commit(
    base: &Descriptor,
    size_bytes: ByteLen,
    changes: &BTreeMap<ChunkIndex, Option<Leaf>>,
    pages: &Pages<'_>,
) -> Result<Lookup<Committed>, TreeError> {
    if size_bytes < base.size_bytes {
        return Err(TreeError::Shrinks { from: base.size_bytes, to: size_bytes });
    }
    let chunks = size_bytes.chunks(base.chunk);
    match changes.last_key_value() {
        Some((index, _)) if index.0 >= chunks => return Err(TreeError::OutOfRange { index: *index, chunks }),
        _ => {}
    }

    for leaf in changes.values().flatten() {
        assert_eq!(leaf.check(base.chunk), Ok(()), "the readers of a page refuse such an entry");
    }
    let changes: Vec<Change<'_>> = changes.iter().map(|(index, leaf)| (index.0, leaf.as_ref())).collect();
    let mut writer = Writer { base, pages, missing: MissingPages::default(), new: Vec::new(), seen: BTreeSet::new() };
    let root = match levels(chunks).checked_sub(1) {
        Some(level) => writer.update(Subtree::of(base, level), level, &changes)?,
        None => None,
    };
    let new_root = writer.new.last().filter(|(name, _)| Some(*name) == root).map(|(_, bytes)| bytes.clone());
    let root_page = match (root, new_root, levels(chunks).checked_sub(1)) {
        (Some(_), Some(bytes), _) => Some(bytes),
        (Some(root), None, Some(level)) => {
            writer.missing.page(pages, &root, level)?.map(|page| Bytes::from(page.encode()))
        }
        (None, ..) | (_, _, None) => None,
    };
    let Writer { missing, new, .. } = writer;
    let unchanged = root == base.root && size_bytes == base.size_bytes;
    let compat = if unchanged { base.compat } else { 0 };
    let descriptor = Descriptor { size_bytes, root, compat, ..*base };
    Ok(Lookup::unless(missing, || Committed { descriptor, pages: new, root_page }))
}

/// The number of a chunk, and what it is made of now.
type Change<'a> = (u64, Option<&'a Leaf>);

struct Writer<'a> {
    base: &'a Descriptor,
    pages: &'a Pages<'a>,
    missing: MissingPages,
    new: Vec<(ObjectName, Bytes)>,
    seen: BTreeSet<ObjectName>,
}

impl Writer<'_> {
    /// Makes the changes in a subtree that all of them lie in. While pages are missing, the answer is meaningless and
    /// is thrown away at the end; going on finds more of the missing pages.
    fn update(&mut self, old: Subtree, level: u8, changes: &[Change<'_>]) -> Result<Option<ObjectName>, Corrupt> {
        let page = match old {
            Subtree::Absent if changes.is_empty() => return Ok(None),
            Subtree::Page(name) if changes.is_empty() => return Ok(Some(name)),
            Subtree::Absent | Subtree::Below { .. } => None,
            Subtree::Page(name) => match self.missing.page(self.pages, &name, level)? {
                Some(page) => Some((name, page)),
                None => return Ok(None),
            },
        };
        let old_page = page.as_ref().map(|(_, page)| page.as_ref());
        let new_page = match level {
            0 => leaf_page(old_page, changes),
            _ => Page::inner(level, self.children(old, old_page, level, changes)?),
        };
        match (page, new_page) {
            (_, None) => Ok(None),
            (Some((name, old)), Some(new)) if *old == new => Ok(Some(name)),
            (_, Some(new)) => Ok(Some(self.write(&new))),
        }
    }

    /// The pages below an inner page, with the changes made in them.
    fn children(
        &mut self,
        old: Subtree,
        old_page: Option<&Page>,
        level: u8,
        changes: &[Change<'_>],
    ) -> Result<BTreeMap<Slot, ObjectName>, Corrupt> {
        let mut children: BTreeMap<Slot, ObjectName> =
            old_page.into_iter().flat_map(Page::children).map(|(slot, name)| (slot, *name)).collect();
        if let Subtree::Below { root, root_level } = old
            && changes.first().is_none_or(|(index, _)| slot_of(*index, level) != 0)
        {
            // No change lies in the old tree, which needs levels above its root all the same.
            let first = self.update(Subtree::first_child(root, root_level, level), level - 1, &[])?;
            children.extend(first.map(|name| (0, name)));
        }
        for group in changes.chunk_by(|a, b| a.0 / span(level) == b.0 / span(level)) {
            let (index, _) = group.first().expect("chunk_by gives no empty groups");
            let slot = slot_of(*index, level);
            let child = match old {
                Subtree::Below { root, root_level } if slot == 0 => Subtree::first_child(root, root_level, level),
                _ => children.get(&slot).map_or(Subtree::Absent, |name| Subtree::Page(*name)),
            };
            match self.update(child, level - 1, group)? {
                Some(name) => children.insert(slot, name),
                None => children.remove(&slot),
            };
        }
        Ok(children)
    }

    fn write(&mut self, page: &Page) -> ObjectName {
        let bytes = page.encode();
        let name = ObjectName::of(Kind::Page, self.base.salt, &bytes);
        // Equal subtrees in two places are one page, which is listed once.
        if self.seen.insert(name) {
            self.new.push((name, bytes.into()));
        }
        name
    }
}

fn leaf_page(old: Option<&Page>, changes: &[Change<'_>]) -> Option<Page> {
    let mut leaves: BTreeMap<Slot, Leaf> =
        old.into_iter().flat_map(Page::entries).map(|(slot, leaf)| (slot, leaf.clone())).collect();
    for (index, leaf) in changes {
        match leaf {
            Some(leaf) => leaves.insert(slot_of(*index, 0), (*leaf).clone()),
            None => leaves.remove(&slot_of(*index, 0)),
        };
    }
    Page::leaf(leaves)
}
