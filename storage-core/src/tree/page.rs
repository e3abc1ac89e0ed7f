//! One page: a presence bitmap and the packed entries of the slots that are present.

use super::leaf::{Leaf, TAG_WHOLE};
use crate::{Corrupt, Kind, ObjectName, Salt, codec::Reader, tree::FAN_OUT, units::usize_from};

pub(super) const WHAT: &str = "page";
const MAGIC: [u8; 4] = *b"MSP1";
const KIND_TREE: u8 = 1;
const HEADER_BYTES: usize = 48;
/// Offset of the checksum, which covers everything before and after itself.
const CRC_AT: usize = 12;
/// Six levels hold 2^62 bytes at the smallest chunk size.
const LEVEL_MAX: u8 = 5;

/// Number of one of a page's 256 entries.
pub type Slot = u8;

/// A page of a segment tree. Never empty: an empty page is absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    level: u8,
    present: [u64; 4],
    /// One for each slot that is present, in slot order.
    entries: Entries,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Entries {
    Inner(Vec<ObjectName>),
    Leaf(Vec<Leaf>),
}

impl Page {
    /// A page of level 0. None if there is no entry.
    pub fn leaf(entries: impl IntoIterator<Item = (Slot, Leaf)>) -> Option<Page> {
        let (present, entries) = collect(entries);
        (!entries.is_empty()).then_some(Page { level: 0, present, entries: Entries::Leaf(entries) })
    }

    /// A page of a level above 0, whose entries name pages of the level below. None if there is no entry.
    ///
    /// # Panics
    /// When the level is 0 or above any that a disk needs.
    pub fn inner(level: u8, entries: impl IntoIterator<Item = (Slot, ObjectName)>) -> Option<Page> {
        assert!((1..=LEVEL_MAX).contains(&level), "level {level} of an inner page");
        let (present, entries) = collect(entries);
        (!entries.is_empty()).then_some(Page { level, present, entries: Entries::Inner(entries) })
    }

    /// Number of pages between this one and the chunks.
    pub fn level(&self) -> u8 {
        self.level
    }

    /// Number of entries present, 1 to 256.
    pub fn count(&self) -> usize {
        match &self.entries {
            Entries::Inner(e) => e.len(),
            Entries::Leaf(e) => e.len(),
        }
    }

    /// The page below a slot. None for zeros, and on a page of level 0.
    pub fn child(&self, slot: Slot) -> Option<&ObjectName> {
        match &self.entries {
            Entries::Inner(e) => self.entry_in(e, slot),
            Entries::Leaf(_) => None,
        }
    }

    /// The chunk of a slot. None for zeros, and on a page of a level above 0.
    pub fn entry(&self, slot: Slot) -> Option<&Leaf> {
        match &self.entries {
            Entries::Leaf(e) => self.entry_in(e, slot),
            Entries::Inner(_) => None,
        }
    }

    /// The pages below this one, by slot; none on level 0.
    pub fn children(&self) -> impl Iterator<Item = (Slot, &ObjectName)> {
        let entries = match &self.entries {
            Entries::Inner(e) => e.as_slice(),
            Entries::Leaf(_) => &[],
        };
        self.slots().zip(entries)
    }

    /// The chunks of a page of level 0, by slot; none above.
    pub fn entries(&self) -> impl Iterator<Item = (Slot, &Leaf)> {
        let entries = match &self.entries {
            Entries::Leaf(e) => e.as_slice(),
            Entries::Inner(_) => &[],
        };
        self.slots().zip(entries)
    }

    /// The slots that are present, in order.
    pub fn slots(&self) -> impl Iterator<Item = Slot> + '_ {
        (0..=u8::MAX).filter(|slot| self.position(*slot).is_some())
    }

    fn entry_in<'e, T>(&self, entries: &'e [T], slot: Slot) -> Option<&'e T> {
        self.position(slot).map(|position| entries.get(position).expect("one entry for each slot present"))
    }

    /// Where a slot's entry is among the packed ones; none: the slot is absent.
    fn position(&self, slot: Slot) -> Option<usize> {
        let (word, bit) = (usize::from(slot / 64), slot % 64);
        let here = *self.present.get(word).expect("256 slots are four words");
        if here >> bit & 1 == 0 {
            return None;
        }
        let below = here & ((1 << bit) - 1);
        let before: u32 = self.present.iter().take(word).map(|w| w.count_ones()).sum();
        Some(usize_from(u64::from(before + below.count_ones())))
    }

    /// The canonical bytes. The page's name is a hash of them.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES + self.count() * 33);
        out.extend(MAGIC);
        out.extend([KIND_TREE, self.level]);
        let count = u16::try_from(self.count()).expect("at most 256 slots");
        out.extend(count.to_le_bytes());
        out.extend([0; 8]); // length and checksum, below
        self.present.iter().for_each(|word| out.extend(word.to_le_bytes()));
        match &self.entries {
            Entries::Inner(names) => names.iter().for_each(|name| {
                out.push(TAG_WHOLE);
                out.extend(name.as_bytes());
            }),
            Entries::Leaf(leaves) => leaves.iter().for_each(|leaf| leaf.encode(&mut out)),
        }
        let len = u32::try_from(out.len() - HEADER_BYTES).expect("256 entries of at most 8 KiB");
        put(&mut out, 8, len);
        let crc = crc(&out);
        put(&mut out, CRC_AT, crc);
        out
    }

    /// From canonical bytes. Accepts exactly what [`Page::encode`] gives, so that a page read and written again keeps
    /// its name.
    ///
    /// # Errors
    /// When the bytes are no page, are damaged, or use something this release does not know.
    pub fn decode(bytes: &[u8]) -> Result<Page, Corrupt> {
        let mut r = Reader::new(WHAT, bytes);
        r.magic(MAGIC)?;
        let [kind, level] = r.array()?;
        let (count, len) = (r.u16()?, r.u32()?);
        let got = r.u32()?;
        let expected = crc(bytes);
        if got != expected {
            return Err(Corrupt::Checksum { what: WHAT, expected, got });
        }
        if kind != KIND_TREE {
            return Err(Corrupt::Unsupported { what: WHAT, feature: "kind", got: kind.into() });
        }
        if level > LEVEL_MAX {
            return Err(r.field("level", level));
        }
        let present = [r.u64()?, r.u64()?, r.u64()?, r.u64()?];
        let slots: u32 = present.iter().map(|w| w.count_ones()).sum();
        if count == 0 || u32::from(count) != slots {
            return Err(r.field("number of entries", count));
        }
        if bytes.len() as u64 != HEADER_BYTES as u64 + u64::from(len) {
            return Err(r.field("length of the entries", len));
        }
        let entries = match level {
            0 => Entries::Leaf((0..count).map(|_| Leaf::decode(&mut r)).collect::<Result<_, _>>()?),
            _ => Entries::Inner((0..count).map(|_| decode_child(&mut r)).collect::<Result<_, _>>()?),
        };
        r.finish()?;
        Ok(Page { level, present, entries })
    }

    /// The name of the canonical bytes.
    pub fn name(&self, salt: Salt) -> ObjectName {
        ObjectName::of(Kind::Page, salt, &self.encode())
    }
}

fn decode_child(r: &mut Reader<'_>) -> Result<ObjectName, Corrupt> {
    match r.u8()? {
        TAG_WHOLE => r.name(),
        tag => Err(Corrupt::Unsupported { what: WHAT, feature: "tag", got: tag.into() }),
    }
}

/// The bitmap and the entries in slot order; a later entry of the same slot replaces an earlier one.
fn collect<T>(entries: impl IntoIterator<Item = (Slot, T)>) -> ([u64; 4], Vec<T>) {
    let mut slots: Vec<Option<T>> = std::iter::repeat_with(|| None).take(FAN_OUT).collect();
    for (slot, entry) in entries {
        *slots.get_mut(usize::from(slot)).expect("a slot is below 256") = Some(entry);
    }
    let mut present = [0; 4];
    for (word, slots) in present.iter_mut().zip(slots.chunks(64)) {
        *word = slots.iter().enumerate().fold(0, |w, (bit, slot)| w | u64::from(slot.is_some()) << bit);
    }
    (present, slots.into_iter().flatten().collect())
}

fn put(out: &mut [u8], at: usize, field: u32) {
    out.get_mut(at..at + 4).expect("inside the header").copy_from_slice(&field.to_le_bytes());
}

/// The checksum of a page, of which at least the checksum's own field is there.
fn crc(page: &[u8]) -> u32 {
    let (before, rest) = page.split_at(CRC_AT);
    let (_own_field, after) = rest.split_at(4);
    crc32c::crc32c_append(crc32c::crc32c(before), after)
}

#[cfg(test)]
mod tests {
    use super::{
        super::leaf::tests::{name, patched},
        *,
    };

    fn reseal(bytes: &mut [u8]) {
        let crc = crc(bytes);
        put(bytes, CRC_AT, crc);
    }

    #[test]
    fn decodes_what_it_encoded() {
        let entries = [(0, Leaf::Whole(name(9))), (63, patched()), (64, Leaf::Whole(name(8))), (255, patched())];
        let leaf = Page::leaf(entries.clone()).expect("not empty");
        assert_eq!(Page::decode(&leaf.encode()), Ok(leaf.clone()));
        assert_eq!(leaf.entries().map(|(s, l)| (s, l.clone())).collect::<Vec<_>>(), entries);
        assert_eq!((leaf.entry(64), leaf.entry(65)), (Some(&Leaf::Whole(name(8))), None));
        let full = Page::inner(3, (0..=255).map(|s| (s, name(s)))).expect("not empty");
        assert_eq!(Page::decode(&full.encode()), Ok(full.clone()));
        assert_eq!(full.encode().len(), HEADER_BYTES + 256 * 33);
        assert_eq!(full.child(200), Some(&name(200)));
    }

    #[test]
    fn an_empty_page_is_no_page() {
        assert_eq!(Page::leaf([]), None);
        assert_eq!(Page::inner(1, []), None);
    }

    #[test]
    fn tags_of_later_releases_are_refused() {
        for (page, tag) in [(Page::leaf([(3, Leaf::Whole(name(1)))]), 3), (Page::inner(1, [(3, name(1))]), 2)] {
            let mut bytes = page.expect("not empty").encode();
            *bytes.get_mut(HEADER_BYTES).expect("the tag") = tag;
            reseal(&mut bytes);
            let unknown = Corrupt::Unsupported { what: WHAT, feature: "tag", got: tag.into() };
            assert_eq!(Page::decode(&bytes), Err(unknown));
        }
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let bytes = Page::leaf([(7, patched()), (8, Leaf::Whole(name(4)))]).expect("not empty").encode();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            *changed.get_mut(at).expect("inside") ^= 0x10;
            assert!(Page::decode(&changed).is_err(), "{at}");
            assert!(Page::decode(bytes.get(..at).expect("inside")).is_err(), "{at}");
        }
    }
}
