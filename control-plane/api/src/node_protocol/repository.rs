//! What nodes are told of the repository, the S3-compatible store that has the objects of the pool, too.
//!
//! ```text
//! heartbeat  -> answered with the revision of what the controller knows of the repository
//! node       -> GET /node/v1/repository when it knows another revision, and keeps the answer in a file of mode 0600
//! ```
//! The controller tells nodes of a repository only after it found there that it is this cluster's. As long as it cannot find
//! out, it says nothing, and nodes go on with what they know. The settings have secrets: no membership record, event or log has
//! them.

use serde::{Deserialize, Serialize};
use storage_core::repository::RepositorySettings;

/// Revision of an order that says that there is no repository.
pub const NO_REPOSITORY: u64 = 0;

/// Answer of `GET /node/v1/repository`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryOrder {
    /// Follows from the settings: equal settings have equal revisions. [`NO_REPOSITORY`] without any.
    pub revision: u64,
    /// Where it is and what opens it; `None`: the pool has none.
    pub settings: Option<RepositorySettings>,
}
