//! How long the steps of histories took, by kind: to find what makes histories slow.

use std::{
    collections::BTreeMap,
    sync::Mutex,
    time::{Duration, Instant},
};

use storage_core::lock;

/// For each kind of step how many there were, and their time.
static TIMES: Mutex<BTreeMap<String, (u64, Duration)>> = Mutex::new(BTreeMap::new());

fn is_asked() -> bool {
    std::env::var_os("MUSTER_TEST_MODEL_TIMES").is_some()
}

/// Counts the time that something took. `step` begins with its kind.
pub(crate) fn note(step: &str, began: Instant) {
    if is_asked() {
        let kind = step.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned();
        let mut times = lock(&TIMES);
        let (count, time) = times.entry(kind).or_default();
        *count += 1;
        *time += began.elapsed();
    }
}

/// Prints what was counted.
pub(crate) fn tell() {
    let mut times: Vec<_> = lock(&TIMES).iter().map(|(kind, (count, time))| (*time, *count, kind.clone())).collect();
    times.sort();
    for (time, count, kind) in times.into_iter().rev() {
        let each = time / u32::try_from(count).unwrap_or(u32::MAX);
        eprintln!("{time:>10.2?} {count:>7} x {each:>9.2?} {kind}");
    }
}
