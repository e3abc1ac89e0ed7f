//! [`Asked`]: what other parts of the agent, and other nodes, ask the repair for.

use std::{collections::BTreeSet, sync::Mutex};

use muster_api::peer_protocol::LostCopies;
use storage_core::{ObjectName, lock};
use tokio::sync::Notify;

/// Most names that wait for a check. When there are more, a pass over all objects does as well.
const NAMES_MAX: usize = 16_384;

/// What waits for the repair.
#[derive(Debug, Default)]
pub struct Asked {
    waiting: Mutex<Waiting>,
    more_passes: Notify,
    more_names: Notify,
    more_to_tell: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    pass: bool,
    tell: bool,
    names: BTreeSet<ObjectName>,
}

impl Asked {
    /// Another node has lost copies.
    pub fn lost_elsewhere(&self, lost: LostCopies) {
        let mut waiting = lock(&self.waiting);
        match lost {
            LostCopies::Named(names) if waiting.names.len() + names.len() <= NAMES_MAX => {
                waiting.names.extend(names);
                self.more_names.notify_one();
            }
            LostCopies::Named(_) | LostCopies::Unnamed => {
                waiting.names.clear();
                waiting.pass = true;
                self.more_passes.notify_one();
            }
        }
    }

    /// This node has lost copies.
    pub fn lost_here(&self) {
        lock(&self.waiting).tell = true;
        self.more_to_tell.notify_one();
    }

    /// Whether a pass over all objects is asked for.
    pub(super) fn wants_pass(&self) -> bool {
        lock(&self.waiting).pass
    }

    /// A pass begins.
    pub(super) fn pass_begins(&self) {
        lock(&self.waiting).pass = false;
    }

    /// Waits until a pass over all objects is asked for.
    pub(super) async fn pass(&self) {
        self.wait(&self.more_passes, Waiting::take_pass).await;
    }

    /// Waits for objects to check.
    pub(super) async fn names(&self) -> BTreeSet<ObjectName> {
        self.wait(&self.more_names, Waiting::take_names).await
    }

    /// Waits until other nodes are to be told what this one lost.
    pub(super) async fn tell(&self) {
        self.wait(&self.more_to_tell, Waiting::take_tell).await;
    }

    async fn wait<T>(&self, more: &Notify, take: fn(&mut Waiting) -> Option<T>) -> T {
        loop {
            // The lock is not held while it waits.
            let taken = take(&mut lock(&self.waiting));
            if let Some(taken) = taken {
                return taken;
            }
            more.notified().await;
        }
    }
}

impl Waiting {
    fn take_pass(&mut self) -> Option<()> {
        std::mem::take(&mut self.pass).then_some(())
    }

    fn take_tell(&mut self) -> Option<()> {
        std::mem::take(&mut self.tell).then_some(())
    }

    fn take_names(&mut self) -> Option<BTreeSet<ObjectName>> {
        (!self.names.is_empty()).then(|| std::mem::take(&mut self.names))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(numbers: std::ops::Range<usize>) -> Vec<ObjectName> {
        let name = |number: usize| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&number.to_le_bytes());
            ObjectName::from_bytes(bytes)
        };
        numbers.map(name).collect()
    }

    #[test]
    fn names_wait_once_and_too_many_become_a_pass() {
        let asked = Asked::default();
        asked.lost_elsewhere(LostCopies::Named(names(0..3)));
        asked.lost_elsewhere(LostCopies::Named(names(2..5)));
        let take = || {
            let mut waiting = lock(&asked.waiting);
            (waiting.take_tell().is_some(), waiting.take_pass().is_some(), waiting.take_names())
        };
        assert_eq!(take(), (false, false, Some(names(0..5).into_iter().collect())));
        assert_eq!(take(), (false, false, None));
        asked.lost_elsewhere(LostCopies::Named(names(0..10_000)));
        asked.lost_here();
        asked.lost_elsewhere(LostCopies::Named(names(10_000..20_000)));
        assert!(asked.wants_pass());
        assert_eq!(take(), (true, true, None));
        assert!(!asked.wants_pass());
    }
}
