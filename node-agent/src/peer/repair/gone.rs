//! What this node lost and no other node has either: nobody can send it back. Where the pool has a repository, it is brought back
//! from there. The controller is told the names of the rest, so that it can say which versions need them.

use std::{collections::HashSet, sync::Mutex, time::Duration};

use storage_core::{ObjectName, lock};
use tokio::time::Instant;
use tracing::{info, warn};

use super::Repair;

/// Most names that a heartbeat has.
const GONE_MAX: usize = 256;

/// Longest that one object of the repository is waited for.
const REPOSITORY: Duration = Duration::from_secs(30);

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
        if let Some(gone) = self.pool.nobody_has(&names).await
            && let Some(gone) = self.bring_back(gone).await
        {
            *lock(&self.gone.0) = gone;
        }
    }

    /// Takes those of these objects from the repository that it has. Returns the others; none if it cannot be asked.
    async fn bring_back(&self, gone: Vec<ObjectName>) -> Option<Vec<ObjectName>> {
        let Some(repository) = self.pool.repository() else { return Some(gone) };
        let (mut left, mut back) = (Vec::new(), 0_usize);
        for name in gone {
            let record = match repository.get(name, Instant::now() + REPOSITORY).await {
                Ok(Some(record)) => record,
                Ok(None) => {
                    left.push(name);
                    continue;
                }
                Err(error) => {
                    warn!(%error, "what no node has is not brought back from the repository yet");
                    return None;
                }
            };
            let chunks = self.chunks.clone();
            let put = tokio::task::spawn_blocking(move || {
                chunks.put(record.body().round, &[record])?;
                chunks.sync()
            });
            match put.await {
                Ok(Ok(())) => back += 1,
                // It is not lost: whoever reads it gets it from the repository.
                Ok(Err(error)) => warn!(%error, "what the repository has is not stored here again"),
                Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
            }
        }
        if back > 0 {
            info!(objects = back, "brought back from the repository what this node lost and no other node has");
        }
        Some(left)
    }
}
