//! How a commit changes the entry of one chunk without reading the chunk: it takes the changed blocks from a new pack and
//! leaves the others where they are.
//!
//! ```text
//!   old entry   base . . . . . . . .   pack P: blocks 1, 2         4 blocks of the chunk are dirty, 5 is zeros
//!   new entry   base . . . . . . . .   pack P: block 2   pack N: blocks 1, 4, 7   zeros: block 5
//! ```
//!
//! The bounds are kept here and nowhere else: at most [`PACKS_MAX`] packs for a chunk, and at most half of its blocks outside
//! of the base. A chunk that would exceed them is written whole, which drops its packs. So a version's objects are never
//! larger than five times its chunks, however many commits made it, even if each pack is kept for one block.

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

    /// Whether the entry may be written. `blocks` are those of the chunk that the disk has: fewer than a chunk's at its end.
    pub fn is_within_bounds(&self, blocks: u16) -> bool {
        let patched = self.blocks.iter().flatten().count();
        patched <= usize::from(blocks / 2) && self.used_packs().count() <= PACKS_MAX
    }

    /// The new entry (none: zeros), given the name of the new pack. Packs that no block is in any more are dropped.
    ///
    /// # Panics
    /// When a block was replaced and there is no name, or the entry is out of bounds.
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
        let patched = Patched::new(self.base, packs, runs).expect("the bounds were checked, and blocks are in order");
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
        assert!(patch.is_within_bounds(BLOCKS));
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
    fn a_fifth_pack_and_more_than_half_of_the_blocks_are_out_of_bounds() {
        let four = entry(Some(1), &[2, 3, 4, 5], &[0, 1, 2, 3].map(|n| (u16::from(n), 1, pack(n, 0))));
        let mut patch = Patch::new(four.as_ref(), ChunkSize::MIN);
        patch.replace(3..4, 0);
        assert!(patch.is_within_bounds(BLOCKS), "the fourth pack is not used any more");
        let mut patch = Patch::new(four.as_ref(), ChunkSize::MIN);
        patch.replace(4..5, 0);
        assert!(!patch.is_within_bounds(BLOCKS));

        let mut patch = Patch::new(Some(&Leaf::Whole(name(1))), ChunkSize::MIN);
        patch.replace(0..4, 0);
        patch.zero(8..12);
        assert!(patch.is_within_bounds(BLOCKS));
        patch.zero(15..16);
        assert!(!patch.is_within_bounds(BLOCKS));
        assert!(!Patch::new(four.as_ref(), ChunkSize::MIN).is_within_bounds(7), "the last chunk of a disk has fewer");
    }
}
