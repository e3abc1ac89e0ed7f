//! This node's share of the pool, the server through which its peers use it, and the repair of what they lack.

pub mod losses;
pub mod repair;
pub mod scrub;
pub mod server;
pub mod share;
