//! What this node lost and no other node has either: nobody can send it back. The controller is told the names, so that it can
//! say which versions need them.

use std::{collections::HashSet, sync::Mutex};

use storage_core::{ObjectName, lock};

use super::Repair;

/// Most names that a heartbeat has.
const GONE_MAX: usize = 256;

/// The objects that were lost here, and of which all nodes said that they have none.
#[derive(Debug, Default)]
pub(super) struct Gone(Mutex<Vec<ObjectName>>);

impl Repair {
    /// Those that are still lost.
    #[must_use]
    pub fn gone(&self) -> Vec<ObjectName> {
        let gone = lock(&self.gone.0).clone();
        if gone.is_empty() {
            return gone;
        }
        let lost: HashSet<ObjectName> = self.losses.names().0.into_iter().collect();
        gone.into_iter().filter(|name| lost.contains(name)).collect()
    }

    /// Asks all nodes for what this one lost. What is known stays so while a node does not answer.
    pub(super) async fn look_for_gone(&self) {
        let (mut names, _) = self.losses.names();
        names.truncate(GONE_MAX);
        if let Some(gone) = self.pool.nobody_has(&names).await {
            *lock(&self.gone.0) = gone;
        }
    }
}
