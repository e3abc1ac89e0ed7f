//! This node's share of the pool, the server through which its peers use it, the repair of what they lack, and what it does for the repository.

pub mod losses;
pub mod repair;
pub mod repository;
pub mod scrub;
pub mod server;
pub mod share;
