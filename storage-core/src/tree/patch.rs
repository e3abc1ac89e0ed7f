//! How a commit changes the entry of one chunk without reading the chunk: it takes the changed blocks from a new pack and
//! leaves the others where they are.
//!
//! ```text
//!   old entry   base . . . . . . . .   pack P: blocks 1, 2         4 blocks of the chunk are dirty, 5 is zeros
//!   new entry   base . . . . . . . .   pack P: block 2   pack N: blocks 1, 4, 7   zeros: block 5
//! ```
//!
//! The bounds are kept here and nowhere else: at most [`PACKS_MAX`] packs for a chunk, and at most half of its blocks outside
//! of the base. So a version's objects are never larger than five times its chunks, however many commits made it, even if
//! each pack is kept for one block.
//!
//! A chunk that would get a fifth pack *leaves* one: the blocks that it has there are copied into the new pack. It leaves the
//! pack in which it has the fewest blocks, so that small packs are joined often and large ones seldom, as in a log-structured
//! merge tree. A chunk of which more than half would be outside of the base is written whole, which drops all its packs.

use std::ops::Range;

use super::{
    Leaf, Patched, Run, RunSource,
    leaf::{BLOCKS_MAX, PACKS_MAX},
};
use crate::{ChunkSize, ObjectName};

/// The entry of a chunk while a commit changes it.
#[derive(Clone, Debug)]
pub struct Patch {
    base: Option<ObjectName>,
    /// Packs of the old entry. The new pack has the index after them.
    packs: Vec<ObjectName>,
    /// Where each block of the chunk is; none: in the base.
    blocks: Vec<Option<RunSource>>,
}

/// A pack that a chunk leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaving {
    /// Name of the pack.
    pub pack: ObjectName,
    /// The blocks of the chunk that are in it, in order, each with its block of the pack.
    pub blocks: Vec<(u16, u16)>,
}

impl Patch {
    /// Begins with what the chunk has now (none: zeros).
    ///
    /// # Panics
    /// When the entry has blocks that chunks of this size do not have. A lookup refuses such an entry.
    pub fn new(old: Option<&Leaf>, chunk: ChunkSize) -> Patch {
        let mut blocks = vec![None; usize::from(chunk.blocks())];
        match old {
            None => Patch { base: None, packs: Vec::new(), blocks },
            Some(Leaf::Whole(name)) => Patch { base: Some(*name), packs: Vec::new(), blocks },
            Some(Leaf::Patched(patched)) => {
                for run in patched.runs() {
                    for (n, block) in (0..).zip(range_of(&mut blocks, run.first..run.first + run.count)) {
                        *block = Some(run.source.after(n));
                    }
                }
                Patch { base: patched.base().copied(), packs: patched.packs().to_vec(), blocks }
            }
        }
    }

    /// Makes blocks zeros.
    ///
    /// # Panics
    /// When the chunk does not have these blocks.
    pub fn zero(&mut self, blocks: Range<u16>) {
        // Without a base, a block that is nowhere is zeros already.
        let zeros = self.base.map(|_| RunSource::Zeros);
        range_of(&mut self.blocks, blocks).fill(zeros);
    }

    /// Takes blocks from the new pack, where they are one after the other from `block` on.
    ///
    /// # Panics
    /// When the chunk does not have these blocks.
    pub fn replace(&mut self, blocks: Range<u16>, block: u16) {
        let pack = u8::try_from(self.packs.len()).expect("an entry has at most four packs");
        for (n, place) in (0..).zip(range_of(&mut self.blocks, blocks)) {
            *place = Some(RunSource::Pack { pack, block }.after(n));
        }
    }

    /// Whether few enough blocks are outside of the base. `blocks` are those of the chunk that the disk has: fewer than a
    /// chunk's at its end.
    pub fn is_mostly_base(&self, blocks: u16) -> bool {
        self.blocks.iter().flatten().count() <= usize::from(blocks / 2)
    }

    /// The pack that the chunk has to leave, if it has too many now: the one in which it has the fewest blocks.
    pub fn to_leave(&self) -> Option<Leaving> {
        if self.used_packs().count() <= PACKS_MAX {
            return None;
        }
        let left = |(pack, name): (u8, &ObjectName)| Leaving { pack: *name, blocks: self.blocks_in(pack) };
        (0..).zip(&self.packs).map(left).min_by_key(|leaving| leaving.blocks.len())
    }

    /// The blocks of the chunk that are in a pack, each with its block of the pack.
    fn blocks_in(&self, wanted: u8) -> Vec<(u16, u16)> {
        let places = (0..).zip(&self.blocks);
        let in_pack = places.filter_map(|(place, source)| match source {
            Some(RunSource::Pack { pack, block }) if *pack == wanted => Some((place, *block)),
            _ => None,
        });
        in_pack.collect()
    }

    /// The new entry (none: zeros), given the name of the new pack. Packs that no block is in any more are dropped.
    ///
    /// # Panics
    /// When a block was replaced and there is no name, or the chunk has too many packs ([`Patch::to_leave`]).
    pub fn finish(self, new_pack: Option<ObjectName>) -> Option<Leaf> {
        let mut packs: Vec<ObjectName> = Vec::new();
        // Where each pack is in the new entry. A pack with the bytes of an older one has its name.
        let mut places = [0; PACKS_MAX + 1];
        for pack in self.used_packs() {
            let name = self.packs.get(usize::from(pack)).copied().or(new_pack).expect("the new pack has a name");
            let place = packs.iter().position(|known| *known == name).unwrap_or(packs.len());
            if place == packs.len() {
                packs.push(name);
            }
            let place = u8::try_from(place).expect("an entry has at most four packs and the new one");
            *places.get_mut(usize::from(pack)).expect("as many as packs") = place;
        }
        let mut runs: Vec<Run> = Vec::new();
        for (first, source) in (0..BLOCKS_MAX).zip(&self.blocks) {
            let source = match *source {
                None => continue,
                Some(RunSource::Zeros) => RunSource::Zeros,
                Some(RunSource::Pack { pack, block }) => {
                    let pack = *places.get(usize::from(pack)).expect("as many as packs");
                    RunSource::Pack { pack, block }
                }
            };
            match runs.last_mut() {
                Some(run) if run.first + run.count == first && run.source.after(run.count) == source => run.count += 1,
                _ => runs.push(Run { first, count: 1, source }),
            }
        }
        if runs.is_empty() {
            return self.base.map(Leaf::Whole);
        }
        let patched = Patched::new(self.base, packs, runs)
            .expect("a pack was left if there were too many, and blocks are in order");
        Some(Leaf::Patched(Box::new(patched)))
    }

    /// Indexes of the packs that a block is in, in order.
    fn used_packs(&self) -> impl Iterator<Item = u8> {
        let mut used = [false; PACKS_MAX + 1];
        for source in self.blocks.iter().flatten() {
            if let RunSource::Pack { pack, .. } = source {
                *used.get_mut(usize::from(*pack)).expect("at most four packs and the new one") = true;
            }
        }
        (0..).zip(used).filter_map(|(pack, used)| used.then_some(pack))
    }
}

fn range_of(blocks: &mut [Option<RunSource>], range: Range<u16>) -> &mut [Option<RunSource>] {
    blocks.get_mut(usize::from(range.start)..usize::from(range.end)).expect("the chunk has these blocks")
}

#[cfg(test)]
mod tests {
    use super::{super::leaf::tests::name, *};

    const BLOCKS: u16 = ChunkSize::MIN.blocks();

    fn pack(pack: u8, block: u16) -> RunSource {
        RunSource::Pack { pack, block }
    }

    fn entry(base: Option<u8>, packs: &[u8], runs: &[(u16, u16, RunSource)]) -> Option<Leaf> {
        let runs = runs.iter().map(|(first, count, source)| Run { first: *first, count: *count, source: *source });
        let packs = packs.iter().map(|n| name(*n)).collect();
        let patched = Patched::new(base.map(name), packs, runs.collect()).expect("in order");
        Some(Leaf::Patched(Box::new(patched)))
    }

    fn patched(old: Option<&Leaf>, new_pack: u8, change: impl FnOnce(&mut Patch)) -> Option<Leaf> {
        let mut patch = Patch::new(old, ChunkSize::MIN);
        change(&mut patch);
        assert!(patch.is_mostly_base(BLOCKS));
        assert_eq!(patch.to_leave(), None);
        patch.finish(Some(name(new_pack)))
    }

    #[test]
    fn changed_blocks_are_taken_from_the_new_pack_and_the_others_from_the_base() {
        let made = patched(Some(&Leaf::Whole(name(1))), 9, |patch| {
            patch.replace(2..4, 7);
            patch.zero(4..6);
            patch.replace(9..10, 9);
        });
        assert_eq!(made, entry(Some(1), &[9], &[(2, 2, pack(0, 7)), (4, 2, RunSource::Zeros), (9, 1, pack(0, 9))]));
    }

    #[test]
    fn a_pack_is_dropped_with_the_last_block_that_is_in_it() {
        let old = entry(Some(1), &[2, 3], &[(0, 2, pack(0, 4)), (5, 1, pack(1, 0))]);
        let made = patched(old.as_ref(), 9, |patch| patch.replace(0..1, 0));
        assert_eq!(made, entry(Some(1), &[2, 3, 9], &[(0, 1, pack(2, 0)), (1, 1, pack(0, 5)), (5, 1, pack(1, 0))]));
        let made = patched(old.as_ref(), 9, |patch| patch.replace(0..2, 0));
        assert_eq!(made, entry(Some(1), &[3, 9], &[(0, 2, pack(1, 0)), (5, 1, pack(0, 0))]));
        let made = patched(old.as_ref(), 9, |patch| patch.zero(0..6));
        assert_eq!(made, entry(Some(1), &[], &[(0, 6, RunSource::Zeros)]));
    }

    #[test]
    fn the_same_bytes_again_give_the_same_entry() {
        let old = entry(Some(1), &[2], &[(3, 2, pack(0, 0))]);
        assert_eq!(patched(old.as_ref(), 2, |patch| patch.replace(3..5, 0)), old);
        // A pack that has the bytes of one that is still used is that pack.
        let made = patched(old.as_ref(), 2, |patch| patch.replace(4..5, 0));
        assert_eq!(made, entry(Some(1), &[2], &[(3, 1, pack(0, 0)), (4, 1, pack(0, 0))]));
    }

    #[test]
    fn zeros_over_nothing_are_nothing() {
        assert_eq!(patched(None, 9, |patch| patch.zero(0..BLOCKS)), None);
        let old = entry(None, &[2], &[(3, 2, pack(0, 0))]);
        assert_eq!(patched(old.as_ref(), 9, |patch| patch.zero(3..5)), None);
        assert_eq!(patched(old.as_ref(), 9, |patch| patch.zero(0..4)), entry(None, &[2], &[(4, 1, pack(0, 1))]));
    }

    #[test]
    fn a_fifth_pack_takes_the_blocks_of_the_smallest() {
        let four = [(0, 2, pack(0, 0)), (4, 1, pack(1, 3)), (5, 1, pack(2, 7)), (6, 2, pack(3, 0)), (9, 1, pack(1, 8))];
        let four = entry(Some(1), &[2, 3, 4, 5], &four);
        let mut patch = Patch::new(four.as_ref(), ChunkSize::MIN);
        patch.replace(5..6, 0);
        assert_eq!(patch.to_leave(), None, "the third pack is not used any more");
        let mut patch = Patch::new(four.as_ref(), ChunkSize::MIN);
        patch.replace(1..2, 0);
        patch.replace(12..13, 3);
        // One block is left in each of the first and the third pack.
        assert_eq!(patch.to_leave(), Some(Leaving { pack: name(2), blocks: vec![(0, 0)] }));
        patch.replace(0..1, 4);
        assert_eq!(patch.to_leave(), None);
        let runs = [
            (0, 1, pack(3, 4)),
            (1, 1, pack(3, 0)),
            (4, 1, pack(0, 3)),
            (5, 1, pack(1, 7)),
            (6, 2, pack(2, 0)),
            (9, 1, pack(0, 8)),
        ];
        let runs: Vec<_> = runs.into_iter().chain([(12, 1, pack(3, 3))]).collect();
        assert_eq!(patch.finish(Some(name(9))), entry(Some(1), &[3, 4, 5, 9], &runs));
    }

    #[test]
    fn at_most_half_of_the_blocks_are_outside_of_the_base() {
        let mut patch = Patch::new(Some(&Leaf::Whole(name(1))), ChunkSize::MIN);
        patch.replace(0..4, 0);
        patch.zero(8..12);
        assert!(patch.is_mostly_base(BLOCKS));
        assert!(!patch.is_mostly_base(15), "the last chunk of a disk has fewer");
        patch.zero(15..16);
        assert!(!patch.is_mostly_base(BLOCKS));
    }
}
