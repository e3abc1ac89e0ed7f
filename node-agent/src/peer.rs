//! This node's share of the pool, and the server through which its peers use it.

pub mod losses;
pub mod server;
pub mod share;
