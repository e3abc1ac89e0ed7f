//! [`PoolError`]: why the pool could not do what was asked.

use storage_core::{NodeId, ObjectName};

use crate::repository::RepositoryError;

/// Why a get, a put or a call to one node failed.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// The deadline came before all objects were found.
    #[error("{} objects could not be had in time, the first is {}; {}", names.len(), first(names), reasons.join("; "))]
    Unavailable {
        /// The objects that are still missing; at least one.
        names: Vec<ObjectName>,
        /// What went wrong, one line per node.
        reasons: Vec<String>,
    },
    /// Every node of the pool answered, and so did the repository where there is one. None has a good copy.
    #[error("no node has a good copy of {} objects, the first is {}", names.len(), first(names))]
    Lost {
        /// The objects; at least one.
        names: Vec<ObjectName>,
    },
    /// Too few nodes took the objects.
    #[error("{got} of {wanted} copies could be made; {}", reasons.join("; "))]
    NotEnoughCopies {
        /// Copies that a publish needs.
        wanted: usize,
        /// Copies there are of the object that has fewest.
        got: usize,
        /// What went wrong, one line per node.
        reasons: Vec<String>,
        /// Whether every node refused for want of room. Trying again at once is pointless then.
        full: bool,
    },
    /// The repository is written through and did not take the objects.
    #[error("nothing is published before the repository has it: {0}")]
    Repository(#[from] RepositoryError),
    /// The node is not in the membership record.
    #[error("node {0} is not a member of the pool")]
    NotAMember(NodeId),
    /// One node did not answer a call that only it can answer.
    #[error("node {node} did not answer: {reason}")]
    Peer {
        /// The node that was asked.
        node: NodeId,
        /// What happened, for people.
        reason: String,
    },
}

fn first(names: &[ObjectName]) -> String {
    names.first().map_or_else(|| "none".to_owned(), ToString::to_string)
}
