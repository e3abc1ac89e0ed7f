//! What this process knows of the repository of the pool.

use muster_api::node_protocol::repository::RepositoryOrder;

/// What this process knows of the repository of the pool.
#[derive(Debug, Default)]
pub struct RepositoryKnown {
    /// What nodes are told; none before the place was claimed.
    pub(super) order: Option<RepositoryOrder>,
    /// Why the settings cannot be used, in a sentence.
    pub(super) trouble: Option<String>,
}
