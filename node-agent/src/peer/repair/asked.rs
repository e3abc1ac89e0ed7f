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
    more: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    pass: bool,
    tell: bool,
    names: BTreeSet<ObjectName>,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// A pass over all objects.
    Pass,
    /// Tell other nodes what this one lost.
    Tell,
    /// Check these objects.
    Check(BTreeSet<ObjectName>),
}

impl Asked {
    /// Another node has lost copies.
    pub fn lost_elsewhere(&self, lost: LostCopies) {
        let mut waiting = lock(&self.waiting);
        match lost {
            LostCopies::Named(names) if waiting.names.len() + names.len() <= NAMES_MAX => waiting.names.extend(names),
            LostCopies::Named(_) | LostCopies::Unnamed => {
                waiting.names.clear();
                waiting.pass = true;
            }
        }
        self.more.notify_one();
    }

    /// This node has lost copies.
    pub fn lost_here(&self) {
        lock(&self.waiting).tell = true;
        self.more.notify_one();
    }

    /// Waits for something to do.
    pub(super) async fn next(&self) -> Work {
        loop {
            if let Some(work) = self.take() {
                return work;
            }
            self.more.notified().await;
        }
    }

    fn take(&self) -> Option<Work> {
        let mut waiting = lock(&self.waiting);
        if std::mem::take(&mut waiting.tell) {
            return Some(Work::Tell);
        }
        if std::mem::take(&mut waiting.pass) {
            waiting.names.clear();
            return Some(Work::Pass);
        }
        let names = std::mem::take(&mut waiting.names);
        (!names.is_empty()).then_some(Work::Check(names))
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
        assert_eq!(asked.take(), Some(Work::Check(names(0..5).into_iter().collect())));
        assert_eq!(asked.take(), None);
        asked.lost_elsewhere(LostCopies::Named(names(0..10_000)));
        asked.lost_here();
        asked.lost_elsewhere(LostCopies::Named(names(10_000..20_000)));
        assert_eq!([asked.take(), asked.take(), asked.take()], [Some(Work::Tell), Some(Work::Pass), None]);
    }
}
