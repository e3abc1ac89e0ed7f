//! One page: a presence bitmap and the entries of the slots that are present, packed.

use crate::{ChunkSize, Corrupt, Kind, ObjectName, Salt, codec::Reader, tree::FAN_OUT};

const WHAT: &str = "page";
const MAGIC: [u8; 4] = *b"MSP1";
const KIND_TREE: u8 = 1;
const HEADER_BYTES: usize = 48;
/// Offset of the checksum, which covers everything before and after itself.
const CRC_AT: usize = 12;
/// Six levels hold 2^62 bytes at the smallest chunk size.
const LEVEL_MAX: u8 = 5;
const TAG_WHOLE: u8 = 1;
const TAG_PATCHED: u8 = 2;
const HAS_BASE: u8 = 1;
const PACKS_MAX: usize = 4;
const PACK_ZEROS: u8 = 255;
const RUN_BYTES: usize = 7;
const BLOCKS_MAX: u16 = ChunkSize::MAX.blocks();

/// Which of a page's 256 entries.
pub type Slot = u8;

/// A page of a segment tree. Never empty: an empty page is absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    level: u8,
    present: [u64; 4],
    entries: Entries,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Entries {
    Inner(Vec<ObjectName>),
    Leaf(Vec<Leaf>),
}

/// What a chunk of a disk is made of. Absence says zeros.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Leaf {
    /// One chunk object.
    Whole(ObjectName),
    /// A chunk with some of its blocks taken from packs.
    Patched(Box<Patched>),
}

/// The blocks of a chunk that differ from its base. Written by later releases, read by all.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Patched {
    base: Option<ObjectName>,
    packs: Vec<ObjectName>,
    runs: Vec<Run>,
}

/// Consecutive blocks of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Run {
    /// The first of them, counted within the chunk.
    pub first: u16,
    /// How many.
    pub count: u16,
    /// Where they are.
    pub source: RunSource,
}

/// Where a run's blocks are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RunSource {
    /// Nowhere: they are zeros.
    Zeros,
    /// In a pack.
    Pack {
        /// Index into [`Patched::packs`].
        pack: u8,
        /// Block of the pack where the run begins.
        block: u16,
    },
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

    /// Pages between this one and the chunks.
    pub fn level(&self) -> u8 {
        self.level
    }

    /// Entries present.
    pub fn count(&self) -> usize {
        match &self.entries {
            Entries::Inner(e) => e.len(),
            Entries::Leaf(e) => e.len(),
        }
    }

    /// The page below a slot. None for zeros, and on a page of level 0.
    pub fn child(&self, slot: Slot) -> Option<&ObjectName> {
        match &self.entries {
            Entries::Inner(e) => e.get(self.position(slot)?),
            Entries::Leaf(_) => None,
        }
    }

    /// The chunk of a slot. None for zeros, and on a page of a level above 0.
    pub fn entry(&self, slot: Slot) -> Option<&Leaf> {
        match &self.entries {
            Entries::Leaf(e) => e.get(self.position(slot)?),
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

    /// Where a slot's entry is among the packed ones.
    fn position(&self, slot: Slot) -> Option<usize> {
        let (word, bit) = (usize::from(slot / 64), slot % 64);
        let here = *self.present.get(word)?;
        if here >> bit & 1 == 0 {
            return None;
        }
        let below = here & ((1 << bit) - 1);
        let before: u32 = self.present.iter().take(word).map(|w| w.count_ones()).sum();
        usize::try_from(before + below.count_ones()).ok()
    }

    /// The canonical bytes.
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
            return Err(r.field("number of the slots present", count));
        }
        if bytes.len() as u64 != HEADER_BYTES as u64 + u64::from(len) {
            return Err(r.field("length of the entries", len));
        }
        let entries = if level == 0 {
            Entries::Leaf((0..count).map(|_| Leaf::decode(&mut r)).collect::<Result<_, _>>()?)
        } else {
            let child = |r: &mut Reader<'_>| match r.u8()? {
                TAG_WHOLE => r.name(),
                tag => Err(Corrupt::Unsupported { what: WHAT, feature: "tag", got: tag.into() }),
            };
            Entries::Inner((0..count).map(|_| child(&mut r)).collect::<Result<_, _>>()?)
        };
        r.finish()?;
        Ok(Page { level, present, entries })
    }

    /// The name of the canonical bytes.
    pub fn name(&self, salt: Salt) -> ObjectName {
        ObjectName::of(Kind::Page, salt, &self.encode())
    }
}

/// The bitmap and the entries in slot order; a later entry of the same slot replaces an earlier one.
fn collect<T>(entries: impl IntoIterator<Item = (Slot, T)>) -> ([u64; 4], Vec<T>) {
    let mut slots: Vec<Option<T>> = std::iter::repeat_with(|| None).take(FAN_OUT).collect();
    for (slot, entry) in entries {
        if let Some(place) = slots.get_mut(usize::from(slot)) {
            *place = Some(entry);
        }
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

fn crc(page: &[u8]) -> u32 {
    let before = page.get(..CRC_AT).unwrap_or(page);
    let after = page.get(CRC_AT + 4..).unwrap_or_default();
    crc32c::crc32c_append(crc32c::crc32c(before), after)
}

impl Leaf {
    /// The objects it needs.
    pub fn objects(&self) -> impl Iterator<Item = &ObjectName> {
        let (first, packs) = match self {
            Leaf::Whole(name) => (Some(name), [].as_slice()),
            Leaf::Patched(patched) => (patched.base.as_ref(), patched.packs.as_slice()),
        };
        first.into_iter().chain(packs)
    }

    /// Refuses blocks that chunks of this size do not have.
    pub(super) fn check(&self, chunk: ChunkSize) -> Result<(), Corrupt> {
        match self {
            Leaf::Patched(p) if p.end() > chunk.blocks() => {
                Err(Corrupt::Field { what: WHAT, field: "block of this chunk size", got: p.end().into() })
            }
            Leaf::Whole(_) | Leaf::Patched(_) => Ok(()),
        }
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Leaf::Whole(name) => {
                out.push(TAG_WHOLE);
                out.extend(name.as_bytes());
            }
            Leaf::Patched(p) => {
                let packs = u8::try_from(p.packs.len()).expect("at most 4");
                out.extend([TAG_PATCHED, u8::from(p.base.is_some()), packs]);
                out.extend(u16::try_from(p.runs.len()).expect("at most 1024").to_le_bytes());
                p.base.iter().chain(&p.packs).for_each(|name| out.extend(name.as_bytes()));
                for run in &p.runs {
                    let (pack, block) = match run.source {
                        RunSource::Zeros => (PACK_ZEROS, 0),
                        RunSource::Pack { pack, block } => (pack, block),
                    };
                    out.extend(run.first.to_le_bytes());
                    out.extend(run.count.to_le_bytes());
                    out.push(pack);
                    out.extend(block.to_le_bytes());
                }
            }
        }
    }

    fn decode(r: &mut Reader<'_>) -> Result<Leaf, Corrupt> {
        match r.u8()? {
            TAG_WHOLE => Ok(Leaf::Whole(r.name()?)),
            TAG_PATCHED => {
                let [flags, packs] = r.array()?;
                let runs = r.u16()?;
                if flags & !HAS_BASE != 0 {
                    return Err(Corrupt::Unsupported { what: WHAT, feature: "entry flags", got: flags.into() });
                }
                if usize::from(packs) > PACKS_MAX {
                    return Err(r.field("number of packs", packs));
                }
                if runs > BLOCKS_MAX {
                    return Err(r.field("number of runs", runs));
                }
                let base = if flags & HAS_BASE != 0 { Some(r.name()?) } else { None };
                let packs = (0..packs).map(|_| r.name()).collect::<Result<_, _>>()?;
                let run = |bytes: &[u8]| {
                    let mut r = Reader::new(WHAT, bytes);
                    let (first, count, pack, block) = (r.u16()?, r.u16()?, r.u8()?, r.u16()?);
                    let source = match (pack, block) {
                        (PACK_ZEROS, 0) => RunSource::Zeros,
                        (PACK_ZEROS, n) => return Err(r.field("block of a run of zeros", n)),
                        (pack, block) => RunSource::Pack { pack, block },
                    };
                    Ok(Run { first, count, source })
                };
                // All their bytes are there before memory for them is asked for.
                let bytes = r.take(usize::from(runs) * RUN_BYTES)?;
                let runs = bytes.chunks_exact(RUN_BYTES).map(run).collect::<Result<_, _>>()?;
                Ok(Leaf::Patched(Box::new(Patched::new(base, packs, runs)?)))
            }
            tag => Err(Corrupt::Unsupported { what: WHAT, feature: "tag", got: tag.into() }),
        }
    }
}

impl Patched {
    /// A chunk made of a base (none: zeros) and runs over it, in order, apart from each other, each within the
    /// largest chunk and taken from one of the packs.
    pub fn new(base: Option<ObjectName>, packs: Vec<ObjectName>, runs: Vec<Run>) -> Result<Patched, Corrupt> {
        let refuse = |field, got: u64| Err(Corrupt::Field { what: WHAT, field, got });
        if packs.len() > PACKS_MAX {
            return refuse("number of packs", packs.len() as u64);
        }
        if runs.is_empty() {
            return refuse("number of runs", 0);
        }
        let mut end = 0;
        for run in &runs {
            let run_end = run.first.checked_add(run.count);
            match run_end {
                Some(run_end) if run.count > 0 && run.first >= end && run_end <= BLOCKS_MAX => end = run_end,
                _ => return refuse("run after the one before", run.first.into()),
            }
            if let RunSource::Pack { pack, block } = run.source {
                if usize::from(pack) >= packs.len() {
                    return refuse("pack of this entry", pack.into());
                }
                if block.checked_add(run.count).is_none_or(|end| end > BLOCKS_MAX) {
                    return refuse("block of a pack", block.into());
                }
            }
        }
        Ok(Patched { base, packs, runs })
    }

    /// The chunk below the runs; none: zeros.
    pub fn base(&self) -> Option<&ObjectName> {
        self.base.as_ref()
    }

    /// The packs the runs are in, at most four.
    pub fn packs(&self) -> &[ObjectName] {
        &self.packs
    }

    /// The runs, in order.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    fn end(&self) -> u16 {
        self.runs.last().map_or(0, |run| run.first + run.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(n: u8) -> ObjectName {
        ObjectName::from_bytes([n; 32])
    }

    fn patched() -> Leaf {
        let runs = vec![
            Run { first: 0, count: 2, source: RunSource::Pack { pack: 0, block: 5 } },
            Run { first: 2, count: 1, source: RunSource::Zeros },
            Run { first: 60, count: 4, source: RunSource::Pack { pack: 1, block: 0 } },
        ];
        Leaf::Patched(Box::new(Patched::new(Some(name(1)), vec![name(2), name(3)], runs).expect("in order")))
    }

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
    fn runs_out_of_order_out_of_range_or_of_no_pack_are_refused() {
        let run = |first, count, pack, block| Run { first, count, source: RunSource::Pack { pack, block } };
        let new = |runs: &[Run]| Patched::new(None, vec![name(1)], runs.to_vec());
        assert!(new(&[run(0, 1024, 0, 0)]).is_ok());
        for bad in [
            vec![],
            vec![run(0, 0, 0, 0)],
            vec![run(5, 1, 0, 0), run(4, 1, 0, 0)],
            vec![run(5, 2, 0, 0), run(6, 1, 0, 0)],
            vec![run(1023, 2, 0, 0)],
            vec![run(u16::MAX, 1, 0, 0)],
            vec![run(0, 1, 1, 0)],
            vec![run(0, 1, 0, 1024)],
            vec![run(0, 2, 0, u16::MAX)],
        ] {
            assert!(new(&bad).is_err(), "{bad:?}");
        }
        assert!(Patched::new(None, vec![name(1); 5], vec![run(0, 1, 0, 0)]).is_err());
        assert!(patched().check(ChunkSize::DEFAULT).is_ok());
        assert!(patched().check(ChunkSize::MIN).is_err());
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
