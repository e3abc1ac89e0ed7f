//! Nodes of this cluster that the database does not know: they joined after the backup that it was restored from.
//!
//! Nobody knows what their disks build on before they have joined again, so nothing is swept while such a node calls, nor for
//! a day after its last call: its host may be repaired. They are remembered in memory only; after a start of the controller they
//! call within seconds.

use storage_core::lock;

use super::super::App;
use crate::store::nodes::NodeRow;

/// How long a node counts after its last call, milliseconds.
const COUNTS_MS: i64 = 24 * 3600 * 1000;
/// Most nodes that are remembered. Each needs a certificate of this cluster.
const NODES_MAX: usize = 4096;

impl App {
    /// A node calls with this key, the SHA-256 of its public key in hex, which the database never had.
    pub(super) fn note_unlisted(&self, key_sha256: &str) {
        let now = self.clock.now();
        let mut unlisted = lock(&self.unlisted);
        unlisted.retain(|_, at| now.ms_since(*at) < COUNTS_MS);
        if unlisted.len() < NODES_MAX && unlisted.insert(key_sha256.to_owned(), now).is_none() {
            tracing::warn!(
                key_sha256,
                "a node calls that the database does not know: nothing is swept until it has joined again"
            );
        }
    }

    /// A sentence about nodes that called lately and are not among these; none if there are none.
    pub(crate) fn unlisted_nodes(&self, listed: &[NodeRow]) -> Option<String> {
        let now = self.clock.now();
        let mut unlisted = lock(&self.unlisted);
        let is_listed = |key: &String| listed.iter().any(|node| node.key_sha256 == *key);
        unlisted.retain(|key, at| now.ms_since(*at) < COUNTS_MS && !is_listed(key));
        let count = unlisted.len();
        let nodes = if count == 1 { "a node calls".to_owned() } else { format!("{count} nodes call") };
        (count > 0).then(|| {
            format!(
                "{nodes} that the database does not know, since it was restored: give their agents a join token (`muster token \
                 create --role node`), or wait for a day after their last call if their hosts are gone"
            )
        })
    }
}
