//! An entry of a page of level 0: what one chunk of a disk is made of.

use super::page::WHAT;
use crate::{BLOCK_BYTES, ChunkSize, Corrupt, Kind, ObjectName, Salt, codec::Reader, units::usize_from};

pub(super) const TAG_WHOLE: u8 = 1;
const TAG_PATCHED: u8 = 2;
const HAS_BASE: u8 = 1;
pub(super) const PACKS_MAX: usize = 4;
const PACK_ZEROS: u8 = 255;
const RUN_BYTES: usize = 7;
pub(super) const BLOCKS_MAX: u16 = ChunkSize::MAX.blocks();

/// What a chunk of a disk is made of. A chunk of zeros has no entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Leaf {
    /// The whole chunk is one object, of kind chunk.
    Whole(ObjectName),
    /// A chunk with some of its blocks taken from packs.
    Patched(Box<Patched>),
}

/// The blocks of a chunk that differ from its base. [`super::Patch`] makes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Patched {
    base: Option<ObjectName>,
    packs: Vec<ObjectName>,
    runs: Vec<Run>,
}

/// Consecutive blocks of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Run {
    /// The first block, counted from the start of the chunk.
    pub first: u16,
    /// Number of blocks, not 0.
    pub count: u16,
    /// Where the blocks' bytes are.
    pub source: RunSource,
}

/// Where a run's blocks are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RunSource {
    /// Nowhere: the blocks are zeros.
    Zeros,
    /// The blocks are in a pack, one after the other.
    Pack {
        /// Index of the pack in [`Patched::packs`].
        pack: u8,
        /// Block of the pack where the run begins.
        block: u16,
    },
}

impl Leaf {
    /// The chunk and packs that the entry refers to.
    pub fn objects(&self) -> impl Iterator<Item = &ObjectName> {
        self.parts().map(|(name, _)| name)
    }

    /// Like [`Leaf::objects`], with their kinds.
    pub fn parts(&self) -> impl Iterator<Item = (&ObjectName, Kind)> {
        let (whole, patched) = match self {
            Leaf::Whole(name) => (Some((name, Kind::Chunk)), None),
            Leaf::Patched(patched) => (None, Some(patched.objects())),
        };
        whole.into_iter().chain(patched.into_iter().flatten())
    }

    /// Refuses an entry with blocks that chunks of this size do not have.
    pub(super) fn check(&self, chunk: ChunkSize) -> Result<(), Corrupt> {
        match self {
            Leaf::Patched(p) if p.end() > chunk.blocks() => Err(Corrupt::Field {
                what: WHAT,
                field: "end of the runs in a chunk of this size",
                got: p.end().into(),
            }),
            Leaf::Whole(_) | Leaf::Patched(_) => Ok(()),
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Leaf::Whole(name) => {
                out.push(TAG_WHOLE);
                out.extend(name.as_bytes());
            }
            Leaf::Patched(patched) => patched.encode(out),
        }
    }

    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Leaf, Corrupt> {
        match r.u8()? {
            TAG_WHOLE => Ok(Leaf::Whole(r.name()?)),
            TAG_PATCHED => Ok(Leaf::Patched(Box::new(Patched::decode(r)?))),
            tag => Err(Corrupt::Unsupported { what: WHAT, feature: "tag", got: tag.into() }),
        }
    }
}

impl Patched {
    /// A chunk made of a base (none: zeros) with runs of other blocks over it.
    ///
    /// # Errors
    /// When there are no runs, they overlap or are out of order, or one leaves the largest chunk or the packs given.
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
                _ => return refuse("first block of a run", run.first.into()),
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

    fn encode(&self, out: &mut Vec<u8>) {
        let packs = u8::try_from(self.packs.len()).expect("at most 4");
        out.extend([TAG_PATCHED, u8::from(self.base.is_some()), packs]);
        out.extend(u16::try_from(self.runs.len()).expect("at most 1024").to_le_bytes());
        self.base.iter().chain(&self.packs).for_each(|name| out.extend(name.as_bytes()));
        for run in &self.runs {
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

    fn decode(r: &mut Reader<'_>) -> Result<Patched, Corrupt> {
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
        // All bytes of the runs must be there before memory for the runs is allocated.
        let runs = r.take(usize::from(runs) * RUN_BYTES)?.chunks_exact(RUN_BYTES);
        let runs = runs.map(Run::decode).collect::<Result<_, _>>()?;
        Patched::new(base, packs, runs)
    }

    /// The chunk below the runs; none: zeros.
    pub fn base(&self) -> Option<&ObjectName> {
        self.base.as_ref()
    }

    /// The packs the runs are in, at most four.
    pub fn packs(&self) -> &[ObjectName] {
        &self.packs
    }

    /// The base and the packs, with their kinds.
    pub fn objects(&self) -> impl Iterator<Item = (&ObjectName, Kind)> {
        let base = self.base.iter().map(|name| (name, Kind::Chunk));
        base.chain(self.packs.iter().map(|name| (name, Kind::Pack)))
    }

    /// The runs, in the order of their blocks.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Number of pieces that these blocks of the chunk consist of. A piece is blocks that follow each other in one object, or
    /// zeros.
    pub fn pieces(&self, first: u16, count: u16) -> usize {
        let (mut at, end, mut pieces) = (first, first + count, 0);
        while at < end {
            at += self.piece(at, end).1;
            pieces += 1;
        }
        pieces
    }

    /// Reads blocks of the chunk from `first` on; `into` is as long as the blocks. `read` gives bytes of the base or of a pack
    /// (as its kind says), from an offset in bytes on; the base has zeros beyond its end.
    ///
    /// # Errors
    /// Those of `read`.
    ///
    /// # Panics
    /// When `into` does not consist of whole blocks, or is longer than the largest chunk.
    pub fn read<E>(
        &self,
        first: u16,
        into: &mut [u8],
        mut read: impl FnMut(&ObjectName, Kind, usize, &mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let block_bytes = usize_from(BLOCK_BYTES);
        assert!(into.len().is_multiple_of(block_bytes), "{} bytes are not whole blocks", into.len());
        let count = u16::try_from(into.len() / block_bytes).expect("not longer than a chunk");
        let (mut at, mut rest) = (first, into);
        while at < first + count {
            let (source, blocks) = self.piece(at, first + count);
            let (part, after) = rest.split_at_mut(usize::from(blocks) * block_bytes);
            match (source, &self.base) {
                (Some(RunSource::Pack { pack, block }), _) => {
                    let name =
                        self.packs.get(usize::from(pack)).expect("Patched::new refuses a pack that is not there");
                    read(name, Kind::Pack, usize::from(block) * block_bytes, part)?;
                }
                (None, Some(base)) => read(base, Kind::Chunk, usize::from(at) * block_bytes, part)?,
                (Some(RunSource::Zeros), _) | (None, None) => part.fill(0),
            }
            (at, rest) = (at + blocks, after);
        }
        Ok(())
    }

    /// Where a block is (none: in the base), and how many blocks from there, at most to `end`, follow each other there.
    fn piece(&self, block: u16, end: u16) -> (Option<RunSource>, u16) {
        let next = self.runs.partition_point(|run| run.first + run.count <= block);
        match self.runs.get(next) {
            Some(run) if run.first <= block => {
                let skipped = block - run.first;
                (Some(run.source.after(skipped)), (run.count - skipped).min(end - block))
            }
            Some(run) => (None, run.first.min(end) - block),
            None => (None, end - block),
        }
    }

    /// A name for the chunk's assembled bytes in a cache. No object has it.
    pub fn key(&self, salt: Salt, chunk: ChunkSize) -> ObjectName {
        let mut bytes = vec![chunk.log2()];
        self.encode(&mut bytes);
        // A page begins with its magic, so no page has these bytes.
        ObjectName::of(Kind::Page, salt, &bytes)
    }

    /// The block after the last run.
    fn end(&self) -> u16 {
        let last = self.runs.last().expect("Patched::new refuses an entry without runs");
        last.first + last.count
    }
}

impl RunSource {
    /// Where the block is that is this many after the first.
    pub(super) fn after(self, blocks: u16) -> RunSource {
        match self {
            RunSource::Zeros => RunSource::Zeros,
            RunSource::Pack { pack, block } => RunSource::Pack { pack, block: block + blocks },
        }
    }
}

impl Run {
    fn decode(bytes: &[u8]) -> Result<Run, Corrupt> {
        let mut r = Reader::new(WHAT, bytes);
        let (first, count, pack, block) = (r.u16()?, r.u16()?, r.u8()?, r.u16()?);
        let source = match (pack, block) {
            (PACK_ZEROS, 0) => RunSource::Zeros,
            (PACK_ZEROS, n) => return Err(r.field("block of a run of zeros", n)),
            (pack, block) => RunSource::Pack { pack, block },
        };
        Ok(Run { first, count, source })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::tree) fn name(n: u8) -> ObjectName {
        ObjectName::from_bytes([n; 32])
    }

    pub(in crate::tree) fn patched() -> Leaf {
        let runs = vec![
            Run { first: 0, count: 2, source: RunSource::Pack { pack: 0, block: 5 } },
            Run { first: 2, count: 1, source: RunSource::Zeros },
            Run { first: 60, count: 4, source: RunSource::Pack { pack: 1, block: 0 } },
        ];
        Leaf::Patched(Box::new(Patched::new(Some(name(1)), vec![name(2), name(3)], runs).expect("in order")))
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
}
