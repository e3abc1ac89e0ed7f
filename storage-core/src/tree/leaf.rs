//! An entry of a page of level 0: what one chunk of a disk is made of.

use super::page::WHAT;
use crate::{ChunkSize, Corrupt, ObjectName, codec::Reader};

pub(super) const TAG_WHOLE: u8 = 1;
const TAG_PATCHED: u8 = 2;
const HAS_BASE: u8 = 1;
const PACKS_MAX: usize = 4;
const PACK_ZEROS: u8 = 255;
const RUN_BYTES: usize = 7;
const BLOCKS_MAX: u16 = ChunkSize::MAX.blocks();

/// What a chunk of a disk is made of. A chunk of zeros has no entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Leaf {
    /// The whole chunk is one object, of kind chunk.
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
        let (first, packs) = match self {
            Leaf::Whole(name) => (Some(name), [].as_slice()),
            Leaf::Patched(patched) => (patched.base.as_ref(), patched.packs.as_slice()),
        };
        first.into_iter().chain(packs)
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

    /// The runs, in the order of their blocks.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// The block after the last run.
    fn end(&self) -> u16 {
        let last = self.runs.last().expect("Patched::new refuses an entry without runs");
        last.first + last.count
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
