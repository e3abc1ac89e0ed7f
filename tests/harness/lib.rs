//! A whole Muster on this machine for the tests: real daemons as processes (so that they can be killed), free ports,
//! own folders, and nothing left behind.
//!
//! [`Cluster`] starts a controller and agents, [`Api`] speaks REST to them, [`eventually`] waits for a level,
//! [`Pattern`] makes image content that can be checked byte for byte.

pub mod api;
pub mod cluster;
pub mod eventually;
pub mod guest;
pub mod pattern;

pub use api::Api;
pub use cluster::{AgentOptions, Cluster, ClusterOptions};
pub use eventually::eventually;
pub use pattern::Pattern;
