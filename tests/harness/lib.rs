//! A whole Muster on this machine for tests: real daemons, free ports, own folders, and nothing left behind.
//!
//! [`Cluster`] starts a controller and agents, as tasks of the test's runtime or as processes ([`Daemons`]). [`Api`]
//! speaks REST to them, [`eventually`] waits until a condition holds, and [`Pattern`] makes image content that can be
//! checked byte for byte.

pub mod api;
pub mod ceph;
pub mod cluster;
pub mod console;
pub mod daemon;
pub mod eventually;
pub mod guest;
pub mod guest_time;
pub mod libvirtd;
pub mod links;
pub mod pattern;
pub mod stop;
pub mod tools;

pub use api::Api;
pub use cluster::{AgentOptions, Cluster, ClusterOptions};
pub use console::Console;
pub use daemon::{Daemons, binary};
pub use eventually::{eventually, eventually_for_guests};
pub use libvirtd::Libvirtd;
pub use links::Links;
pub use pattern::Pattern;
pub use stop::StopOnDrop;
pub use tools::Tools;
