//! Nodes.

/// What nodes said since the last flush.
#[derive(Debug, Default)]
pub struct Heartbeats;
