//! muster-agent: one compute node. Lazily mirrored disks, this node's share of the pool, the hypervisor.

mod fuse;
pub mod holder;
pub mod mirror;
