//! [`PoolLimits`]: the waits and sizes of a client.

use std::time::Duration;

/// The waits and sizes of a [`crate::PoolClient`].
#[derive(Clone, Copy, Debug)]
pub struct PoolLimits {
    /// A get without progress for this long is also asked of the next node.
    pub hedge_get: Duration,
    /// A put not answered for this long is also sent to the next node, unless this client's own link is busy (`load.rs`).
    pub hedge_put: Duration,
    /// A node that sends nothing for this long has failed the request.
    pub silence: Duration,
    /// Bytes per second a node must take or give at least, on top of `silence`.
    pub slowest_bytes_per_s: u64,
    /// How long a put tries to get enough copies. Requests that are under way then are waited for.
    pub patience_put: Duration,
    /// Names in one get. A small number lets several owners and hedges share the work.
    pub get_names: usize,
    /// Payload bytes in one put.
    pub put_bytes: usize,
    /// Gets at a time per node. Puts have half as many of their own, so that writing never starves reading.
    pub per_node: usize,
}

impl Default for PoolLimits {
    fn default() -> Self {
        Self {
            hedge_get: Duration::from_millis(400),
            hedge_put: Duration::from_secs(3),
            silence: Duration::from_secs(6),
            slowest_bytes_per_s: 1 << 20,
            patience_put: Duration::from_secs(30),
            get_names: 32,
            put_bytes: 8 << 20,
            per_node: 16,
        }
    }
}
