//! [`Demand`]: whether somebody waits for objects. Work that nobody waits for gives way meanwhile.

use std::sync::Arc;

/// The reads that are under way in this process: its own from other nodes, and those of other nodes from it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Demand(Arc<()>);

impl Demand {
    /// Counts a read until the answer is dropped.
    pub(crate) fn read(&self) -> Self {
        self.clone()
    }

    pub(crate) fn is_any(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}
