//! Fuzzing on stable Rust, for the decoders of all crates: [`Fuzz`] changes good inputs at random and hands them to a
//! decoder, which must answer a value or an error: no panic, no hang, no memory out of proportion.
//!
//! A target is an ordinary test whose name begins with `fuzz_`. It runs for one second and always tries the same
//! inputs in the same order, so that a test run can be repeated. Longer runs start from another place each time:
//!
//! ```text
//! MUSTER_FUZZ_SECONDS=600 cargo nextest run -E 'test(fuzz_)'
//! ```
//!
//! An input whose error is of a new kind becomes a seed of further inputs. Much deeper are runs that keep each input
//! which reaches new code. They need the compiler to count, and a target so that build scripts are left alone:
//!
//! ```text
//! RUSTFLAGS='-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=3
//!            -Cllvm-args=-sanitizer-coverage-inline-8bit-counters' MUSTER_FUZZ_SECONDS=600
//!     cargo test --target x86_64-unknown-linux-gnu --target-dir target/fuzz
//!     -p storage-core --features coverage --lib fuzz_ -- --test-threads 1
//! ```
//!
//! A failure prints its input in hex. Put those bytes into a test of their own beside the repair.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    collections::HashSet,
    fmt::{Debug, Write as _},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    time::{Duration, Instant},
};

/// Longest time for one input. Far above what any takes, also on a busy machine.
const INPUT_TIME_MAX: Duration = Duration::from_secs(20);
/// Seeds kept: each is an input that did something new.
const SEEDS_MAX: usize = 4096;
/// Most changes made to a seed for one input.
const CHANGES_MAX: u64 = 6;

/// What is thrown at one decoder.
pub struct Fuzz {
    seeds: Vec<Vec<u8>>,
    bytes_max: usize,
    reseal: fn(&mut [u8]),
    memory_max: fn(usize) -> usize,
}

impl Fuzz {
    /// Starts from inputs that the decoder accepts.
    ///
    /// # Panics
    /// When there is none.
    pub fn new(seeds: impl IntoIterator<Item = Vec<u8>>) -> Fuzz {
        let seeds: Vec<Vec<u8>> = seeds.into_iter().collect();
        let longest = seeds.iter().map(Vec::len).max().expect("a target has at least one seed");
        Fuzz { seeds, bytes_max: 2 * longest + 64, reseal: |_| (), memory_max: |bytes| (64 << 10) + 16 * bytes }
    }

    /// Writes valid checksums and lengths over a changed input, so that the code behind those checks is reached.
    /// Three of four inputs are resealed.
    #[must_use]
    pub fn reseal(self, reseal: fn(&mut [u8])) -> Fuzz {
        Fuzz { reseal, ..self }
    }

    /// Most bytes the decoder may have allocated at once for an input of the given length; default 64 KiB and 16
    /// times that length.
    #[must_use]
    pub fn memory_max(self, memory_max: fn(usize) -> usize) -> Fuzz {
        Fuzz { memory_max, ..self }
    }

    /// Runs for `MUSTER_FUZZ_SECONDS`, default 1. The decoder asserts what has to hold for the value it got.
    ///
    /// # Panics
    /// When the decoder panics, refuses a seed, takes too long or too much memory; and when the test binary does not
    /// use the [`CountingAllocator`].
    pub fn run<E: Debug>(mut self, decoder: impl Fn(&[u8]) -> Result<(), E>) {
        let before = allocated(|| drop(std::hint::black_box(vec![0u8; 100]))).1;
        assert!(before >= 100, "the crate's tests need CountingAllocator as their #[global_allocator]");
        for seed in &self.seeds {
            let answer = self.try_input(seed, &decoder);
            assert!(answer.is_ok(), "a seed is refused: {answer:?} for {}", hex(seed));
        }
        let wanted =
            std::env::var("MUSTER_FUZZ_SECONDS").ok().map(|s| s.parse().expect("MUSTER_FUZZ_SECONDS is a number"));
        let mut random = Random(wanted.map_or(1, |_| random_seed()));
        let end = Instant::now() + Duration::from_secs(wanted.unwrap_or(1));
        let mut kinds: HashSet<String> = HashSet::new();
        let mut inputs = 0u64;
        while Instant::now() < end {
            let input = self.input(&mut random);
            let answer = self.try_input(&input, &decoder);
            let new_kind = answer.is_err_and(|error| kinds.insert(kind_of(&error)));
            let new_code = coverage::take_new();
            if (new_kind || new_code) && self.seeds.len() < SEEDS_MAX {
                self.seeds.push(input);
            }
            inputs += 1;
        }
        println!("{inputs} inputs, {} kinds of errors, {} seeds", kinds.len(), self.seeds.len());
    }

    fn try_input<E>(&self, input: &[u8], decoder: &impl Fn(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let start = Instant::now();
        let (answer, peak) = allocated(|| catch_unwind(AssertUnwindSafe(|| decoder(input))));
        let answer = answer.unwrap_or_else(|panic| {
            eprintln!("the input that made it panic: {}", hex(input));
            resume_unwind(panic)
        });
        let (took, memory_max) = (start.elapsed(), (self.memory_max)(input.len()));
        assert!(peak <= memory_max, "{peak} bytes of memory, at most {memory_max} allowed, for {}", hex(input));
        assert!(took <= INPUT_TIME_MAX, "{took:?} for {}", hex(input));
        answer
    }

    fn input(&self, random: &mut Random) -> Vec<u8> {
        let mut input = self.seed(random).to_vec();
        for _ in 0..=random.below(CHANGES_MAX) {
            self.change(&mut input, random);
        }
        input.truncate(self.bytes_max);
        if random.below(4) != 0 {
            (self.reseal)(&mut input);
        }
        input
    }

    fn seed(&self, random: &mut Random) -> &[u8] {
        self.seeds.get(random.index(self.seeds.len())).expect("an index below the length")
    }

    fn change(&self, input: &mut Vec<u8>, random: &mut Random) {
        let (from, to) = random.range(input.len());
        match random.below(10) {
            0 => input.truncate(from),
            1 => drop(input.drain(from..to)),
            2 => input.extend((0..random.below(40)).map(|_| random.byte())),
            3 => {
                let copy = input.get(from..to).expect("a range within").to_vec();
                let at = random.index(input.len() + 1);
                input.splice(at..at, copy);
            }
            4 => {
                let other = self.seed(random);
                let (other_from, other_to) = random.range(other.len());
                input.splice(from..to, other.get(other_from..other_to).expect("a range within").iter().copied());
            }
            5 | 6 => {
                if let Some(byte) = input.get_mut(from) {
                    *byte ^= 1 << random.below(8);
                }
            }
            _ => overwrite_number(input, from, random),
        }
    }
}

/// Puts a number that decoders trip over into a field of 1, 2, 4 or 8 bytes, in either byte order.
fn overwrite_number(input: &mut [u8], at: usize, random: &mut Random) {
    let bytes = 1usize << random.below(4);
    let len = input.len() as u64;
    let Some(field) = input.get_mut(at..at + bytes) else { return };
    let mut old = [0; 8];
    old.iter_mut().zip(field.iter()).for_each(|(old, byte)| *old = *byte);
    let number = match random.below(6) {
        0 => random.below(5),
        1 => u64::MAX - random.below(3),
        2 => (u64::MAX >> 1).wrapping_add(random.below(3)),
        3 => len.wrapping_add(random.below(5)).wrapping_sub(2),
        4 => 1 << random.below(64),
        _ => u64::from_le_bytes(old).wrapping_add(random.below(9)).wrapping_sub(4),
    };
    let number = number.to_le_bytes();
    let number = number.get(..bytes).expect("at most 8");
    if random.below(2) == 0 {
        field.copy_from_slice(number);
    } else {
        field.iter_mut().zip(number.iter().rev()).for_each(|(byte, digit)| *byte = *digit);
    }
}

/// The error's text without what differs between two errors of one kind: its numbers and names.
fn kind_of(error: &impl Debug) -> String {
    format!("{error:?}").chars().filter(|c| !c.is_ascii_hexdigit()).collect()
}

fn hex(input: &[u8]) -> String {
    input.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing into a string");
        text
    })
}

fn random_seed() -> u64 {
    getrandom::u64().expect("the system has random bytes")
}

/// SplitMix64: the same seed, the same inputs.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn byte(&mut self) -> u8 {
        let [byte, ..] = self.next().to_le_bytes();
        byte
    }

    /// A number below `len`; 0 if `len` is 0.
    fn index(&mut self, len: usize) -> usize {
        crate::units::usize_from(self.below(len.max(1) as u64))
    }

    /// The start and the end of a part of `len` bytes, more often a short one.
    fn range(&mut self, len: usize) -> (usize, usize) {
        let from = self.index(len);
        let most = if self.below(4) == 0 { len - from } else { 16.min(len - from) };
        (from, from + self.index(most + 1))
    }
}

/// The system's allocator, which counts what the current thread holds. A crate with fuzz targets declares it in its
/// tests: `#[global_allocator] static ALLOCATOR: CountingAllocator = CountingAllocator;`
pub struct CountingAllocator;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// What `work` gives, and the most bytes it held at once.
fn allocated<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    PEAK.set(before);
    let done = work();
    (done, PEAK.get().saturating_sub(before).unsigned_abs())
}

fn count(change: isize) {
    // A thread that ends may free memory after its counters are gone.
    let _ = HELD.try_with(|held| held.set(held.get() + change));
    let _ = PEAK.try_with(|peak| peak.set(peak.get().max(HELD.get())));
}

fn size_of(layout: Layout) -> isize {
    isize::try_from(layout.size()).expect("a layout is at most isize::MAX bytes")
}

// SAFETY: every call is passed on unchanged; counting touches two numbers and does not allocate.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(size_of(layout));
        // SAFETY: the caller's promise is handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(size_of(layout));
        // SAFETY: the caller's promise is handed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-size_of(layout));
        // SAFETY: the caller's promise is handed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size.cast_signed() - size_of(layout));
        // SAFETY: the caller's promise is handed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Without the compiler's counters no input reaches new code.
#[cfg(not(feature = "coverage"))]
mod coverage {
    pub(super) fn take_new() -> bool {
        false
    }
}

/// Reads the counters that `-Cpasses=sancov-module` puts into each branch.
#[cfg(feature = "coverage")]
mod coverage {
    use std::sync::Mutex;

    use crate::lock;

    /// The counters of one codegen unit, and which of them were ever seen to count.
    struct Counters {
        first: usize,
        seen: Vec<bool>,
    }

    static ALL: Mutex<Vec<Counters>> = Mutex::new(Vec::new());

    /// Called by each codegen unit before `main`.
    #[unsafe(no_mangle)]
    extern "C" fn __sanitizer_cov_8bit_counters_init(first: *mut u8, end: *mut u8) {
        let (first, len) = (first.expose_provenance(), end.addr() - first.addr());
        let mut all = lock(&ALL);
        if all.iter().all(|counters| counters.first != first) {
            all.push(Counters { first, seen: vec![false; len] });
        }
    }

    /// Whether code was reached since the last call that was never reached before.
    pub(super) fn take_new() -> bool {
        let mut new = false;
        for counters in lock(&ALL).iter_mut() {
            for (at, seen) in counters.seen.iter_mut().enumerate().filter(|(_, seen)| !**seen) {
                let counter = std::ptr::with_exposed_provenance::<u8>(counters.first + at);
                // SAFETY: the counter is a static of this program; other threads only ever add to it.
                if unsafe { counter.read_volatile() } != 0 {
                    *seen = true;
                    new = true;
                }
            }
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_finds_a_panic_behind_a_length_and_a_checksum() {
        let reseal = |input: &mut [u8]| {
            let sum = input.iter().skip(1).fold(0u8, |sum, byte| sum.wrapping_add(*byte));
            if let Some(first) = input.first_mut() {
                *first = sum;
            }
        };
        let decoder = |input: &[u8]| {
            let (sum, rest) = input.split_first().ok_or("empty")?;
            if rest.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)) != *sum {
                return Err("checksum");
            }
            let (len, rest) = rest.split_first_chunk::<4>().ok_or("short")?;
            assert!(u32::from_le_bytes(*len) <= u32::MAX / 2, "found");
            if rest.is_empty() { Err("no content") } else { Ok(()) }
        };
        let seed = vec![10, 1, 2, 3, 4, 0];
        let found = catch_unwind(|| Fuzz::new([seed]).reseal(reseal).run(decoder));
        assert!(found.is_err());
    }

    #[test]
    fn a_run_finds_memory_that_only_a_length_asks_for() {
        let decoder = |input: &[u8]| {
            let len = input.first_chunk::<4>().map_or(0, |len| u32::from_le_bytes(*len));
            let memory: Vec<u8> = Vec::with_capacity(crate::units::usize_from(len.into()).min(1 << 28));
            if memory.len() == input.len() { Err(()) } else { Ok(()) }
        };
        let found = catch_unwind(|| Fuzz::new([vec![1, 0, 0, 0]]).run(decoder));
        assert!(found.is_err());
    }
}
