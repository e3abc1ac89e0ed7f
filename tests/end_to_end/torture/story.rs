//! What a run did: the last steps, for the message of a failure, and how often what was done.

use std::collections::{BTreeMap, VecDeque};

/// Steps that a failure prints.
const STEPS_SHOWN: usize = 50;

/// The last steps, printed when the test fails.
pub(super) struct Story {
    seed: u64,
    steps: VecDeque<String>,
    counts: BTreeMap<String, u64>,
}

impl Story {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, steps: VecDeque::new(), counts: BTreeMap::new() }
    }

    pub(super) fn step(&mut self, text: String) {
        trace(&text);
        self.steps.push_back(text);
        if self.steps.len() > STEPS_SHOWN {
            self.steps.pop_front();
        }
    }

    /// Adds what a step picked to its line.
    pub(super) fn note(&mut self, text: &str) {
        trace(text);
        if let Some(step) = self.steps.back_mut() {
            step.push_str("; ");
            step.push_str(text);
        }
    }

    pub(super) fn count(&mut self, what: &str) {
        *self.counts.entry(what.to_owned()).or_default() += 1;
    }

    pub(super) fn counts(&self) -> &BTreeMap<String, u64> {
        &self.counts
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let steps: Vec<_> = self.steps.iter().map(String::as_str).collect();
            eprintln!("the last steps of seed {}:\n{}", self.seed, steps.join("\n"));
            eprintln!("to run them again: sudo tests/run.sh --long --seed {}", self.seed);
        }
    }
}

/// Prints a step as it begins, where that is asked for.
fn trace(text: &str) {
    if std::env::var_os("MUSTER_TEST_TORTURE_TRACE").is_some() {
        eprintln!("{text}");
    }
}
