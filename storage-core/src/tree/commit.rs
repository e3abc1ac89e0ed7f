//! A new version out of an old one: path copying, all new pages in one batch.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::{Leaf, Lookup, MissingPages, Page, Pages, Subtree, TreeError, slot_of, span};
use crate::{ByteLen, ChunkIndex, Compression, Corrupt, Descriptor, Kind, ObjectName, Record, descriptor::levels};

/// A new version and what has to be stored before it may be published (I3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Its descriptor.
    pub descriptor: Descriptor,
    /// The name of that: the version's `root`.
    pub descriptor_name: ObjectName,
    /// Pages that the old version does not have, children before parents, with their canonical bytes.
    pub pages: Vec<(ObjectName, Bytes)>,
    /// The canonical bytes of the root page, new or not; none for a disk of zeros.
    pub root_page: Option<Bytes>,
}

impl Committed {
    /// The new pages and the descriptor, ready for the pool. The chunks are the caller's.
    pub fn records(&self) -> Vec<Record> {
        let salt = self.descriptor.salt;
        // Pages are mostly names, which do not compress: the probe would be wasted.
        let page = |(_, bytes): &(_, Bytes)| Record::encode_bytes(Kind::Page, salt, None, bytes, Compression::Off);
        let mut records: Vec<Record> = self.pages.iter().map(page).collect();
        let descriptor = self.descriptor.encode();
        records.push(Record::encode(Kind::Descriptor, salt, None, &descriptor, Compression::Off));
        records
    }
}

/// The version that differs from `base` in these chunks (none: zeros) and may be larger. No pages are written for
/// what stays the same; with no change at all the descriptor is the old one.
pub fn commit(
    base: &Descriptor,
    size_bytes: ByteLen,
    changes: &BTreeMap<ChunkIndex, Option<ObjectName>>,
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

    let changes: Vec<(u64, Option<ObjectName>)> = changes.iter().map(|(index, name)| (index.0, *name)).collect();
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
    Ok(Lookup::unless(missing, || Committed { descriptor, descriptor_name: descriptor.name(), pages: new, root_page }))
}

/// The same bytes on a larger disk: levels above the old root, where it needs them.
pub fn grow(base: &Descriptor, size_bytes: ByteLen, pages: &Pages<'_>) -> Result<Lookup<Committed>, TreeError> {
    commit(base, size_bytes, &BTreeMap::new(), pages)
}

struct Writer<'a> {
    base: &'a Descriptor,
    pages: &'a Pages<'a>,
    missing: MissingPages,
    new: Vec<(ObjectName, Bytes)>,
    seen: BTreeSet<ObjectName>,
}

impl Writer<'_> {
    /// The subtree with the changes made; all of them lie below it. What is returned while pages are missing is
    /// thrown away with the rest: going on only finds more of them.
    fn update(
        &mut self,
        old: Subtree,
        level: u8,
        changes: &[(u64, Option<ObjectName>)],
    ) -> Result<Option<ObjectName>, Corrupt> {
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
        let new_page = if level == 0 {
            leaf_page(old_page, changes)
        } else {
            let mut children: BTreeMap<u8, ObjectName> =
                old_page.into_iter().flat_map(Page::children).map(|(slot, name)| (slot, *name)).collect();
            if let Subtree::Below { root, root_level } = old
                && changes.first().is_none_or(|(index, _)| slot_of(*index, level) != 0)
            {
                children.extend(
                    self.update(Subtree::first_child(root, root_level, level), level - 1, &[])?.map(|n| (0, n)),
                );
            }
            for group in changes.chunk_by(|a, b| a.0 / span(level) == b.0 / span(level)) {
                let slot = group.first().map_or(0, |(index, _)| slot_of(*index, level));
                let child = match old {
                    Subtree::Below { root, root_level } if slot == 0 => Subtree::first_child(root, root_level, level),
                    _ => children.get(&slot).map_or(Subtree::Absent, |name| Subtree::Page(*name)),
                };
                match self.update(child, level - 1, group)? {
                    Some(name) => children.insert(slot, name),
                    None => children.remove(&slot),
                };
            }
            Page::inner(level, children)
        };
        match (page, new_page) {
            (_, None) => Ok(None),
            (Some((name, old)), Some(new)) if *old == new => Ok(Some(name)),
            (_, Some(new)) => Ok(Some(self.write(&new))),
        }
    }

    fn write(&mut self, page: &Page) -> ObjectName {
        let bytes = page.encode();
        let name = ObjectName::of(Kind::Page, self.base.salt, &bytes);
        // Equal subtrees in two places are one page.
        if self.seen.insert(name) {
            self.new.push((name, bytes.into()));
        }
        name
    }
}

fn leaf_page(old: Option<&Page>, changes: &[(u64, Option<ObjectName>)]) -> Option<Page> {
    let mut leaves: BTreeMap<u8, Leaf> =
        old.into_iter().flat_map(Page::entries).map(|(slot, leaf)| (slot, leaf.clone())).collect();
    for (index, name) in changes {
        match name {
            Some(name) => leaves.insert(slot_of(*index, 0), Leaf::Whole(*name)),
            None => leaves.remove(&slot_of(*index, 0)),
        };
    }
    Page::leaf(leaves)
}
