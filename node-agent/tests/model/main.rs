//! Model tests of small clusters in one process: random reads, writes, trims, cuts, commits, clones, deletes, sweeps, joins,
//! losses and restarts, against a plain vector for each version and each disk.
//!
//! ```text
//!  seed ──> steps (op.rs) ──> nodes (cluster.rs): mirror without mounts, pool share on a simulated disk, peer server and client
//!                  │                              over loopback, repair, sweeper: the real ones
//!                  ├────────> rows (rows.rs): the database, with the controller's rules for rounds, uploads and roots
//!                  └────────> vectors: what every read must give
//! ```
//! A history is at most as harmful as the system promises to survive: whatever is lost, of each object that is needed a good copy
//! stays on a node that is on, or in the repository, which one of five clusters has. What must hold is checked after each step (`steps.rs`, `history.rs`) and at the end (`end.rs`).
//!
//! A seed that failed becomes a test here, with the name of what was wrong. `MUSTER_TEST_MODEL_SEED=0x…` runs one seed and shows
//! its steps; `MUSTER_TEST_MODEL_STEPS=N` ends it after N of them. `MUSTER_TEST_MODEL_HISTORIES=N` runs so many
//! (`tests/run.sh --long` runs 10,000), and with `MUSTER_TEST_MODEL_FIRST=N` one group of them from that seed on.
//! `MUSTER_TEST_MODEL_TIMES=1` tells at the end how long the steps of each kind took.
//!
//! Reading order: `op.rs` (what can happen), `steps.rs` (what it does), `end.rs`, `history.rs`, `rows.rs`, `cluster.rs`, `door.rs`
//! (the controller as nodes see it), `content.rs` (bytes), `folder.rs`, `times.rs`. `flips.rs` and `crashes.rs` use clusters for something else: bits that rot
//! in the files of a node, and power that fails at every single write.

mod cluster;
mod content;
mod crashes;
mod door;
mod end;
mod flips;
mod folder;
mod history;
mod op;
mod rows;
mod steps;
#[path = "../integration/support.rs"]
mod support;
mod times;

use history::History;

/// Histories of each of the two groups, when nobody asks for another number.
const HISTORIES: u64 = 160;

/// Seeds that fail before the others are not tried any more.
const FAILURES_MAX: usize = 5;

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let number = text.strip_prefix("0x").map_or_else(|| text.parse(), |hex| u64::from_str_radix(hex, 16));
    Some(number.unwrap_or_else(|_| panic!("{name} is a number, not '{text}'")))
}

/// Runs something in a runtime of its own.
fn in_runtime(work: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().expect("a runtime").block_on(work);
}

fn run(seed: u64, steps_max: usize) {
    in_runtime(History::run(seed, steps_max));
}

fn group(first: u64) {
    if let Some(seed) = setting("MUSTER_TEST_MODEL_SEED") {
        let steps = setting("MUSTER_TEST_MODEL_STEPS").unwrap_or(u64::MAX);
        // One of the groups is enough.
        return if first == 0 {
            run(seed, usize::try_from(steps).unwrap_or(usize::MAX))
        };
    }
    let mut histories = setting("MUSTER_TEST_MODEL_HISTORIES").map_or(HISTORIES, |all| all.div_ceil(2));
    let mut first = first;
    if let Some(asked) = setting("MUSTER_TEST_MODEL_FIRST") {
        if first > 0 {
            return;
        }
        (first, histories) = (asked, 2 * histories);
    }
    let began = std::time::Instant::now();
    let mut failed = Vec::new();
    for seed in first..first + histories {
        if std::panic::catch_unwind(|| run(seed, usize::MAX)).is_err() {
            eprintln!("seed {seed:#x} failed; the shortest part of it that fails:");
            shrink(seed);
            failed.push(format!("{seed:#x}"));
            assert!(failed.len() < FAILURES_MAX, "the seeds {failed:?} failed, and nobody looked further");
        }
        if (seed - first) % 100 == 99 {
            eprintln!("{} histories from {first:#x} on took {:?}", seed - first + 1, began.elapsed());
        }
    }
    eprintln!("{histories} histories from {first:#x} on took {:?}", began.elapsed());
    times::tell();
    assert!(failed.is_empty(), "the seeds {failed:?} failed");
}

/// Runs the first steps of a history that failed, in search of the shortest part that fails, too.
fn shrink(seed: u64) {
    let fails = |steps: usize| std::panic::catch_unwind(|| run(seed, steps)).is_err();
    let (mut passes, mut failed) = (0, 150);
    while failed - passes > 1 {
        let middle = (passes + failed) / 2;
        if fails(middle) { failed = middle } else { passes = middle }
    }
    eprintln!("MUSTER_TEST_MODEL_SEED={seed:#x} MUSTER_TEST_MODEL_STEPS={failed}");
}

#[test]
fn histories_of_a_cluster_lose_no_byte_and_leave_nothing() {
    group(0);
}

#[test]
fn more_histories_of_a_cluster_lose_no_byte_and_leave_nothing() {
    group(1 << 32);
}
