//! Two bits per 4 KiB block of one epoch, in memory that outlives the agent.
//!
//! | owned | zeroed | the block |
//! |---|---|---|
//! | 0 | - | is an older epoch's, or the base's |
//! | 1 | 0 | is in this epoch's delta file, at its own offset |
//! | 1 | 1 | reads as zeros |
//!
//! Each change is visible by flipping one bit last, so readers need no lock: a first write clears `zeroed` and then
//! sets `owned`; a first punch sets `zeroed` and then `owned`. A writer sets bits after its bytes are in the delta and
//! before it answers (I2). Which words changed since the last flush is kept beside, in the agent's own memory:
//! one bit per word of 64 blocks; after a crash it is found again by comparing with the journal.
//!
//! ```text
//! page 0            header: magic, version, blocks, tag of the epoch
//! then              owned words (u64, little-endian hosts only), padded to a page, then zeroed words
//! ```

use std::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::holder::LiveMemory;

const PAGE: u64 = 4096;
/// "MLIVEMAP" and the version of this layout.
const MAGIC: u64 = u64::from_le_bytes(*b"MLIVEMP1");

/// Where the bits live.
enum Memory {
    /// The holder's.
    Live(LiveMemory),
    /// This process's only: tests of pure parts.
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

/// The bits of one epoch.
pub(crate) struct BlockBits {
    memory: Memory,
    blocks: u64,
    /// Words of each of the two bitmaps.
    words: usize,
    zeroed_at: usize,
    changed: Box<[AtomicU64]>,
    owned_blocks: AtomicU64,
}

// SAFETY: the memory is only touched through atomics, lives as long as `self`, and cannot shrink (sealed).
unsafe impl Send for BlockBits {}
// SAFETY: as above.
unsafe impl Sync for BlockBits {}

/// State of one word of 64 blocks, as the journal writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) index: u64,
    pub(crate) owned: u64,
    pub(crate) zeroed: u64,
}

fn round_up(n: u64, to: u64) -> u64 {
    n.div_ceil(to) * to
}

fn index(n: u64) -> usize {
    usize::try_from(n).expect("block counts fit in memory: at most 2^32 blocks per disk")
}

impl BlockBits {
    /// Bytes of memory for a disk of `blocks`.
    pub(crate) fn bytes_for(blocks: u64) -> u64 {
        PAGE + 2 * round_up(blocks.div_ceil(64) * 8, PAGE)
    }

    /// Takes the holder's memory; `Err` with the memory's own words when it is another epoch's.
    pub(crate) fn from_live(live: LiveMemory, blocks: u64, tag: u64) -> Result<(Self, Found), String> {
        let fresh = live.fresh();
        let bits = Self::on(Memory::Live(live), blocks);
        if fresh {
            bits.header(1).store(blocks, Ordering::Relaxed);
            bits.header(2).store(tag, Ordering::Relaxed);
            bits.header(0).store(MAGIC, Ordering::Release);
            return Ok((bits, Found::Fresh));
        }
        let got = [0, 1, 2].map(|n| bits.header(n).load(Ordering::Acquire));
        match got {
            // Made for an agent that died before it wrote the header: as good as fresh.
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
            other => Err(format!("live map says {other:x?}, expected {blocks} blocks of epoch tag {tag:x}")),
        }
    }

    #[cfg(test)]
    pub(crate) fn private(blocks: u64) -> Self {
        let map = memmap2::MmapOptions::new().len(index(Self::bytes_for(blocks))).map_anon().expect("anonymous memory");
        Self::on(Memory::Private(map.into()), blocks)
    }

    fn on(memory: Memory, blocks: u64) -> Self {
        let words = index(blocks.div_ceil(64));
        let zeroed_at = index((PAGE + round_up(blocks.div_ceil(64) * 8, PAGE)) / 8);
        assert!(memory.len() >= (zeroed_at + words) * 8, "memory for the bits is too small");
        let changed = (0..words.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Self { memory, blocks, words, zeroed_at, changed, owned_blocks: AtomicU64::new(0) }
    }

    fn at(&self, n: usize) -> &AtomicU64 {
        assert!((n + 1) * 8 <= self.memory.len(), "word {n} is outside of the map");
        // SAFETY: in bounds (checked above), 8-aligned (page-aligned base), alive as long as `self`, and every access
        // in every process that maps it is atomic.
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

    /// How many blocks the disk has.
    pub(crate) fn blocks(&self) -> u64 {
        self.blocks
    }

    /// How many blocks are this epoch's.
    pub(crate) fn owned_blocks(&self) -> u64 {
        self.owned_blocks.load(Ordering::Relaxed)
    }

    /// What this epoch knows about a block.
    pub(crate) fn state(&self, block: u64) -> BlockState {
        debug_assert!(block < self.blocks, "block {block} of {}", self.blocks);
        let (word, mask) = (index(block / 64), 1u64 << (block % 64));
        if self.owned(word).load(Ordering::Acquire) & mask == 0 {
            BlockState::Absent
        } else if self.zeroed(word).load(Ordering::Acquire) & mask == 0 {
            BlockState::Data
        } else {
            BlockState::Zero
        }
    }

    /// The state of `block` and how many blocks from there to `end` share it.
    pub(crate) fn run(&self, block: u64, end: u64) -> (BlockState, u64) {
        let state = self.state(block);
        let mut at = block + 1;
        while at < end {
            let shift = at % 64;
            let word = index(at / 64);
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
        (state, at.min(end) - block)
    }

    /// The blocks hold data now. Call after their bytes are in the delta.
    pub(crate) fn set_data(&self, blocks: Range<u64>) {
        self.each_word(blocks, |bits, word, mask| {
            let was_zeroed = bits.zeroed(word).load(Ordering::Acquire) & mask != 0
                && bits.zeroed(word).fetch_and(!mask, Ordering::AcqRel) & mask != 0;
            let before = bits.own(word, mask);
            was_zeroed || before & mask != mask
        });
    }

    /// The blocks read as zeros now.
    pub(crate) fn set_zero(&self, blocks: Range<u64>) {
        self.each_word(blocks, |bits, word, mask| {
            let zeroed_before = bits.zeroed(word).fetch_or(mask, Ordering::AcqRel);
            let before = bits.own(word, mask);
            zeroed_before & mask != mask || before & mask != mask
        });
    }

    fn own(&self, word: usize, mask: u64) -> u64 {
        // Overwriting is the common case, and a load does not take the line away from the other thread.
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
            if change(self, index(word), mask) {
                self.mark_changed(index(word));
            }
            at = end;
        }
    }

    fn mark_changed(&self, word: usize) {
        if let Some(changed) = self.changed.get(word / 64) {
            changed.fetch_or(1 << (word % 64), Ordering::AcqRel);
        }
    }

    fn word(&self, word: usize) -> Word {
        // Owned first: a block seen as owned is then seen with a `zeroed` at least as new.
        let owned = self.owned(word).load(Ordering::Acquire);
        let zeroed = self.zeroed(word).load(Ordering::Acquire);
        Word { index: word as u64, owned, zeroed: zeroed & owned }
    }

    /// The words that changed since the last call, and forgets that they did. Everything they say is about bytes that
    /// were in the delta before this call.
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

    /// Something is to be flushed.
    #[cfg(test)]
    pub(crate) fn any_changed(&self) -> bool {
        self.changed.iter().any(|word| word.load(Ordering::Acquire) != 0)
    }

    /// Takes [`Self::take_changed`] back after a flush that did not reach the journal.
    pub(crate) fn put_back_changed(&self, words: &[Word]) {
        for word in words {
            self.mark_changed(index(word.index));
        }
    }

    /// Every word that says something: the whole state, for a journal written anew.
    pub(crate) fn all_words(&self) -> Vec<Word> {
        (0..self.words).map(|n| self.word(n)).filter(|word| word.owned != 0).collect()
    }

    /// Takes over what a journal said. Words that differ from what the memory said already are marked as changed:
    /// the live map knows more than the journal.
    pub(crate) fn replay(&self, journaled: &std::collections::BTreeMap<u64, Word>, found: Found) {
        match found {
            Found::Fresh => {
                for word in journaled.values() {
                    if index(word.index) < self.words {
                        self.zeroed(index(word.index)).store(word.zeroed, Ordering::Release);
                        self.owned(index(word.index)).store(word.owned, Ordering::Release);
                    }
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
    }

    fn recount(&self) {
        let count = (0..self.words).map(|n| u64::from(self.owned(n).load(Ordering::Acquire).count_ones())).sum();
        self.owned_blocks.store(count, Ordering::Relaxed);
    }

    /// Adds to `into` each group of `group` blocks (a power of two) that has a block of this epoch.
    pub(crate) fn owned_groups(&self, group: u64, into: &mut std::collections::BTreeSet<u64>) {
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

    /// How many blocks any of `epochs` owns.
    pub(crate) fn union_count(epochs: &[&Self]) -> u64 {
        let Some(first) = epochs.first() else { return 0 };
        (0..first.words)
            .map(|n| {
                let all = epochs.iter().fold(0, |all, bits| all | bits.owned(n).load(Ordering::Acquire));
                u64::from(all.count_ones())
            })
            .sum()
    }
}

/// What one epoch knows about a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlockState {
    /// Nothing.
    Absent,
    /// It is in the delta file.
    Data,
    /// It is all zeros.
    Zero,
}

/// What the holder had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing: a new epoch, a reboot, or a lost holder.
    Fresh,
    /// What an earlier process left: every acknowledged write.
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
        fn bits_agree_with_one_state_per_block(steps in steps(1000), cut in 0..40usize) {
            let bits = BlockBits::private(1000);
            let mut model = vec![BlockState::Absent; 1000];
            let mut journal = std::collections::BTreeMap::new();
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
            // A second map fed by the journal is the same.
            journal.extend(bits.take_changed().into_iter().map(|w| (w.index, w)));
            let again = BlockBits::private(1000);
            again.replay(&journal, Found::Fresh);
            for (n, state) in model.iter().enumerate() {
                prop_assert_eq!(again.state(n as u64), *state);
            }
            prop_assert!(!again.any_changed());
            again.replay(&std::collections::BTreeMap::new(), Found::Left);
            prop_assert_eq!(again.any_changed(), owned > 0);
        }
    }
}
