//! The live map of one epoch: two bits per 4 KiB block, in memory that outlives the agent.
//!
//! | owned | zeroed | the block |
//! |---|---|---|
//! | 0 | - | belongs to an older epoch or the base |
//! | 1 | 0 | is in this epoch's delta file, at its own offset |
//! | 1 | 1 | reads as zeros |
//!
//! Readers need no lock, because one bit that is flipped last makes each change visible: a first write clears `zeroed`
//! and then sets `owned`; a first punch sets `zeroed` and then `owned`. A writer sets the bits after its bytes are in the
//! delta and before it answers (I2).
//!
//! The agent's own memory records which words (of 64 blocks) have changed since the last flush, one bit for each. After a
//! crash this is restored by comparing the live map with the journal.
//!
//! ```text
//! page 0            header: magic with the version of the layout, number of blocks, tag of the epoch
//! then              owned words (u64, little-endian hosts only), padded to a page, then zeroed words
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
};

use storage_core::units::usize_from;

use crate::holder::LiveMemory;

const PAGE: u64 = 4096;
/// "MLIVEMP" and the version of this layout.
const MAGIC: u64 = u64::from_le_bytes(*b"MLIVEMP1");

enum Memory {
    /// Memory of the holder process.
    Live(LiveMemory),
    /// Memory of this process only, for tests that need no holder.
    #[cfg(test)]
    Private(memmap2::MmapRaw),
}

impl Memory {
    fn base(&self) -> *mut u8 {
        match self {
            Self::Live(live) => live.as_ptr(),
            #[cfg(test)]
            Self::Private(map) => map.as_mut_ptr(),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Live(live) => live.len(),
            #[cfg(test)]
            Self::Private(map) => map.len(),
        }
    }
}

/// The live map of one epoch.
pub(crate) struct BlockBits {
    memory: Memory,
    blocks: u64,
    /// Length of each of the two bitmaps, in words.
    words: usize,
    /// Where the second bitmap starts, in words.
    zeroed_at: usize,
    /// One bit per word of the bitmaps.
    changed: Box<[AtomicU64]>,
    owned_blocks: AtomicU64,
}

// SAFETY: the memory is only accessed through atomics, lives as long as `self`, and cannot shrink (it is sealed).
unsafe impl Send for BlockBits {}
// SAFETY: as above.
unsafe impl Sync for BlockBits {}

/// The state of one word of 64 blocks, as the journal records it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) index: u64,
    pub(crate) owned: u64,
    pub(crate) zeroed: u64,
}

impl BlockBits {
    /// Bytes of memory that the live map of a disk of `blocks` needs.
    pub(crate) fn bytes_for(blocks: u64) -> u64 {
        PAGE + 2 * Self::bitmap_bytes(blocks)
    }

    fn bitmap_bytes(blocks: u64) -> u64 {
        (blocks.div_ceil(64) * 8).next_multiple_of(PAGE)
    }

    /// Uses memory of the holder, and writes the header if it is new. Fails with a text when the memory belongs to another
    /// epoch.
    pub(crate) fn from_live(live: LiveMemory, blocks: u64, tag: u64) -> Result<(Self, Found), String> {
        let bits = Self::on(Memory::Live(live), blocks);
        match [0, 1, 2].map(|n| bits.header(n).load(Ordering::Acquire)) {
            // It is new, or the agent it was created for died before it wrote the header.
            [0, _, _] => {
                bits.header(1).store(blocks, Ordering::Relaxed);
                bits.header(2).store(tag, Ordering::Relaxed);
                bits.header(0).store(MAGIC, Ordering::Release);
                Ok((bits, Found::Fresh))
            }
            [MAGIC, b, t] if b == blocks && t == tag => {
                bits.recount();
                Ok((bits, Found::Left))
            }
            other => Err(format!("the live map has header {other:x?}, expected {blocks} blocks and epoch tag {tag:x}")),
        }
    }

    #[cfg(test)]
    pub(crate) fn private(blocks: u64) -> Self {
        let map =
            memmap2::MmapOptions::new().len(usize_from(Self::bytes_for(blocks))).map_anon().expect("anonymous memory");
        Self::on(Memory::Private(map.into()), blocks)
    }

    fn on(memory: Memory, blocks: u64) -> Self {
        let words = usize_from(blocks.div_ceil(64));
        let zeroed_at = usize_from((PAGE + Self::bitmap_bytes(blocks)) / 8);
        assert!(memory.len() >= (zeroed_at + words) * 8, "the memory is too small for the live map");
        let changed = (0..words.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Self { memory, blocks, words, zeroed_at, changed, owned_blocks: AtomicU64::new(0) }
    }

    fn at(&self, n: usize) -> &AtomicU64 {
        assert!((n + 1) * 8 <= self.memory.len(), "word {n} is outside of the live map");
        // SAFETY: in bounds (checked above), 8-aligned (the base is page aligned), alive as long as `self`, and every
        // access in every process that maps the memory is atomic.
        unsafe { AtomicU64::from_ptr(self.memory.base().cast::<u64>().add(n)) }
    }

    fn header(&self, n: usize) -> &AtomicU64 {
        self.at(n)
    }

    fn owned(&self, word: usize) -> &AtomicU64 {
        self.at(512 + word)
    }

    fn zeroed(&self, word: usize) -> &AtomicU64 {
        self.at(self.zeroed_at + word)
    }

    /// How many blocks the disk had in this epoch. It may have grown since.
    pub(crate) fn blocks(&self) -> u64 {
        self.blocks
    }

    /// How many blocks this epoch owns.
    pub(crate) fn owned_blocks(&self) -> u64 {
        self.owned_blocks.load(Ordering::Relaxed)
    }

    /// What this epoch says about a block. It says nothing about blocks that the disk did not have yet.
    pub(crate) fn state(&self, block: u64) -> BlockState {
        if block >= self.blocks {
            return BlockState::Absent;
        }
        let (word, mask) = (usize_from(block / 64), 1u64 << (block % 64));
        if self.owned(word).load(Ordering::Acquire) & mask == 0 {
            BlockState::Absent
        } else if self.zeroed(word).load(Ordering::Acquire) & mask == 0 {
            BlockState::Data
        } else {
            BlockState::Zero
        }
    }

    /// The state of `block`, and the number of blocks from there (at most to `end`) that share it.
    pub(crate) fn run(&self, block: u64, end: u64) -> (BlockState, u64) {
        let state = self.state(block);
        let known = end.min(self.blocks);
        let mut at = block + 1;
        while at < known {
            let shift = at % 64;
            let word = usize_from(at / 64);
            let owned = self.owned(word).load(Ordering::Acquire);
            let zeroed = self.zeroed(word).load(Ordering::Acquire);
            let same = match state {
                BlockState::Absent => !owned,
                BlockState::Data => owned & !zeroed,
                BlockState::Zero => owned & zeroed,
            } >> shift;
            let run = u64::from(same.trailing_ones()).min(64 - shift);
            at += run;
            if run < 64 - shift {
                break;
            }
        }
        if state == BlockState::Absent && at >= known {
            return (state, end - block);
        }
        (state, at.min(known) - block)
    }

    /// Records that the blocks hold data. Their bytes must already be in the delta.
    pub(crate) fn set_data(&self, blocks: Range<u64>) {
        self.each_word(blocks, |bits, word, mask| {
            let was_zeroed = bits.zeroed(word).load(Ordering::Acquire) & mask != 0
                && bits.zeroed(word).fetch_and(!mask, Ordering::AcqRel) & mask != 0;
            let before = bits.own(word, mask);
            was_zeroed || before & mask != mask
        });
    }

    /// Records that the blocks read as zeros.
    pub(crate) fn set_zero(&self, blocks: Range<u64>) {
        self.each_word(blocks, |bits, word, mask| {
            let zeroed_before = bits.zeroed(word).fetch_or(mask, Ordering::AcqRel);
            let before = bits.own(word, mask);
            zeroed_before & mask != mask || before & mask != mask
        });
    }

    fn own(&self, word: usize, mask: u64) -> u64 {
        // Overwriting is the common case, and a load does not take the cache line away from other threads.
        let seen = self.owned(word).load(Ordering::Acquire);
        if seen & mask == mask {
            return seen;
        }
        let before = self.owned(word).fetch_or(mask, Ordering::AcqRel);
        self.owned_blocks.fetch_add(u64::from((mask & !before).count_ones()), Ordering::Relaxed);
        before
    }

    fn each_word(&self, blocks: Range<u64>, change: impl Fn(&Self, usize, u64) -> bool) {
        assert!(blocks.end <= self.blocks, "blocks {blocks:?} of {}", self.blocks);
        let mut at = blocks.start;
        while at < blocks.end {
            let word = at / 64;
            let end = blocks.end.min((word + 1) * 64);
            let width = end - at;
            let mask = if width == 64 { u64::MAX } else { ((1u64 << width) - 1) << (at % 64) };
            if change(self, usize_from(word), mask) {
                self.mark_changed(usize_from(word));
            }
            at = end;
        }
    }

    fn mark_changed(&self, word: usize) {
        self.changed[word / 64].fetch_or(1 << (word % 64), Ordering::AcqRel);
    }

    fn word(&self, word: usize) -> Word {
        // Load `owned` first: a block that is seen as owned then has a `zeroed` bit that is at least as new.
        let owned = self.owned(word).load(Ordering::Acquire);
        let zeroed = self.zeroed(word).load(Ordering::Acquire);
        Word { index: word as u64, owned, zeroed: zeroed & owned }
    }

    /// Takes the words that have changed since the last call. The bytes they speak of were in the delta before this call.
    pub(crate) fn take_changed(&self) -> Vec<Word> {
        let mut words = Vec::new();
        for (n, changed) in self.changed.iter().enumerate() {
            if changed.load(Ordering::Acquire) == 0 {
                continue;
            }
            let mut set = changed.swap(0, Ordering::AcqRel);
            while set != 0 {
                let bit = set.trailing_zeros() as usize;
                set &= set - 1;
                words.push(self.word(n * 64 + bit));
            }
        }
        words
    }

    /// Whether there is something to flush.
    #[cfg(test)]
    pub(crate) fn any_changed(&self) -> bool {
        self.changed.iter().any(|word| word.load(Ordering::Acquire) != 0)
    }

    /// Undoes [`Self::take_changed`] after a flush that did not reach the journal.
    pub(crate) fn put_back_changed(&self, words: &[Word]) {
        for word in words {
            self.mark_changed(usize_from(word.index));
        }
    }

    /// Every word with an owned block. That is the whole state, for rewriting the journal.
    pub(crate) fn all_words(&self) -> Vec<Word> {
        (0..self.words).map(|n| self.word(n)).filter(|word| word.owned != 0).collect()
    }

    /// Applies what the journal recorded. A fresh live map takes over its words. A live map that was left by an earlier
    /// process is newer than the journal: words that differ are marked as changed.
    ///
    /// Fails with a text when the journal has words beyond the end of the disk.
    pub(crate) fn replay(&self, journaled: &BTreeMap<u64, Word>, found: Found) -> Result<(), String> {
        if let Some((last, _)) = journaled.last_key_value()
            && usize_from(*last) >= self.words
        {
            return Err(format!("the journal has word {last}, the disk has {} words", self.words));
        }
        match found {
            Found::Fresh => {
                for word in journaled.values() {
                    self.zeroed(usize_from(word.index)).store(word.zeroed, Ordering::Release);
                    self.owned(usize_from(word.index)).store(word.owned, Ordering::Release);
                }
                self.recount();
            }
            Found::Left => {
                for n in 0..self.words {
                    let live = self.word(n);
                    let durable = journaled.get(&live.index).copied();
                    let durable = durable.unwrap_or(Word { index: live.index, owned: 0, zeroed: 0 });
                    if live != durable {
                        self.mark_changed(n);
                    }
                }
            }
        }
        Ok(())
    }

    fn recount(&self) {
        let count = (0..self.words).map(|n| u64::from(self.owned(n).load(Ordering::Acquire).count_ones())).sum();
        self.owned_blocks.store(count, Ordering::Relaxed);
    }

    /// Adds to `into` the number of each group of `group` blocks (a power of two) in which this epoch owns a block.
    pub(crate) fn owned_groups(&self, group: u64, into: &mut BTreeSet<u64>) {
        for n in 0..self.words {
            let mut owned = self.owned(n).load(Ordering::Acquire);
            let first = n as u64 * 64;
            if owned != 0 && group >= 64 {
                into.insert(first / group);
                continue;
            }
            while owned != 0 {
                let bit = u64::from(owned.trailing_zeros());
                owned &= owned - 1;
                into.insert((first + bit) / group);
            }
        }
    }

    /// How many blocks are owned by at least one of `epochs`, which are of one disk.
    pub(crate) fn union_count(epochs: &[&Self]) -> u64 {
        let words = epochs.iter().map(|bits| bits.words).max().unwrap_or(0);
        (0..words)
            .map(|n| {
                // Older epochs have fewer words if the disk was grown.
                let owned =
                    epochs.iter().filter(|bits| n < bits.words).map(|bits| bits.owned(n).load(Ordering::Acquire));
                let all = owned.fold(0, |all, owned| all | owned);
                u64::from(all.count_ones())
            })
            .sum()
    }
}

/// What one epoch says about a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlockState {
    /// The epoch does not own the block.
    Absent,
    /// The block is in the delta file.
    Data,
    /// The block reads as zeros.
    Zero,
}

/// Whether the holder had the live map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The live map is new: the epoch is, the host was rebooted, or the holder died.
    Fresh,
    /// An earlier process left it. It has every acknowledged write.
    Left,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Data(Range<u64>),
        Zero(Range<u64>),
    }

    fn steps(blocks: u64) -> impl Strategy<Value = Vec<Step>> {
        let range = (0..blocks, 1..200u64).prop_map(move |(at, n)| at..(at + n).min(blocks));
        proptest::collection::vec(prop_oneof![range.clone().prop_map(Step::Data), range.prop_map(Step::Zero)], 0..40)
    }

    proptest! {
        #[test]
        fn the_bits_agree_with_a_model_of_one_state_per_block(steps in steps(1000), cut in 0..40usize) {
            let bits = BlockBits::private(1000);
            let mut model = vec![BlockState::Absent; 1000];
            let mut journal = BTreeMap::new();
            for (n, step) in steps.iter().enumerate() {
                let (range, state) = match step {
                    Step::Data(range) => { bits.set_data(range.clone()); (range, BlockState::Data) }
                    Step::Zero(range) => { bits.set_zero(range.clone()); (range, BlockState::Zero) }
                };
                for block in range.clone() {
                    model[usize::try_from(block).expect("small")] = state;
                }
                if n == cut {
                    journal.extend(bits.take_changed().into_iter().map(|w| (w.index, w)));
                }
            }
            for (n, state) in model.iter().enumerate() {
                prop_assert_eq!(bits.state(n as u64), *state);
            }
            let mut at = 0u64;
            while at < 1000 {
                let (state, run) = bits.run(at, 1000);
                for n in at..at + run {
                    prop_assert_eq!(model[usize::try_from(n).expect("small")], state);
                }
                if at + run < 1000 {
                    prop_assert_ne!(model[usize::try_from(at + run).expect("small")], state);
                }
                at += run;
            }
            let owned = model.iter().filter(|s| **s != BlockState::Absent).count() as u64;
            prop_assert_eq!(bits.owned_blocks(), owned);
            // A second map that replays the journal has the same states.
            journal.extend(bits.take_changed().into_iter().map(|w| (w.index, w)));
            let again = BlockBits::private(1000);
            again.replay(&journal, Found::Fresh).expect("words of the disk");
            for (n, state) in model.iter().enumerate() {
                prop_assert_eq!(again.state(n as u64), *state);
            }
            prop_assert!(!again.any_changed());
            again.replay(&BTreeMap::new(), Found::Left).expect("no words");
            prop_assert_eq!(again.any_changed(), owned > 0);
        }
    }

    #[test]
    fn a_journal_with_words_beyond_the_disk_is_refused() {
        let journal = BTreeMap::from([(16, Word { index: 16, owned: 1, zeroed: 0 })]);
        for found in [Found::Fresh, Found::Left] {
            assert!(BlockBits::private(1000).replay(&journal, found).is_err());
            assert!(BlockBits::private(1025).replay(&journal, found).is_ok());
        }
    }
}
