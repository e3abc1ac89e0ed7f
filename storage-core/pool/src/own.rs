//! What a node can tell of its own share without asking others.

use storage_core::{Kind, ObjectName};

use crate::PoolClient;

impl PoolClient {
    /// Whether this node's own share has the object. Reads the index and not the object. False where it cannot be told.
    /// Blocks on the disk.
    #[must_use]
    pub fn own_has(&self, name: &ObjectName) -> bool {
        self.inner.local.as_ref().is_some_and(|local| local.chunks.contains(name).unwrap_or(false))
    }

    /// Whether a put gives the object to this node's own share, as long as that takes new objects.
    #[must_use]
    pub fn own_takes(&self, name: &ObjectName, kind: Kind) -> bool {
        let view = self.inner.view.load();
        let own = self.inner.local.as_ref().and_then(|local| view.position(local.store));
        let writers = view.writers(name);
        own.is_some_and(|own| writers.iter().take(view.copies(kind).wanted).any(|node| *node == own))
    }
}
