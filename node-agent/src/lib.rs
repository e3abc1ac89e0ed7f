//! muster-agent: one compute node. Disks that are mirrored lazily, this node's share of the pool, the hypervisor.
//!
//! Reading order: [`config`] (its settings), [`identity`] (its name, key and certificate), [`agent`] (its loops and how
//! it ends), [`desired`] (what this node should be), [`fenced`] (when it is no node any more), [`controller`] (the calls it makes), [`reconcile`] (one instance
//! from wanted to true), [`hypervisor`] (virtual machines), [`seed`] (what a guest learns about itself), [`mirror`] (disks), [`data_disk`] (whether the node's own disk is full, or fails), [`fuse`] (disks as files), [`cuts`]
//! (many disks at one instant), [`network`] (what guests have cards in), [`consoles`] (ways into guests for people), [`peer`] (what other nodes may ask of it), [`sweep`] (what it drops of its share of the pool), [`holder`] (what outlives it).
//!
//! **Agents pull.** One long-poll brings the whole desired state of the node, and reports say what is true. Both are
//! levels: a lost message costs a delay and nothing else.
//!
//! **Disks under QEMU.** A guest gets the raw file with cache `none`, io `native`, discard and detect_zeroes `unmap`,
//! logical sectors of 512 and physical ones of 4096 bytes. `error_policy` and `rerror_policy` are `stop`: a guest whose
//! disk fails or is full is paused, the instance says so, and it goes on by itself. libvirt does not relabel the file:
//! it belongs to the user of QEMU already, so every folder above it must be passable for that user. A chown of the file
//! is accepted. The name ends in `.raw` because AppArmor's profile allows that. The agent never opens or stats a disk
//! that it serves itself.
//!
//! **The agent's own end.** SIGTERM shuts guests down (30 s), writes everything back and unmounts. kill -9 ends the
//! FUSE connections; the next start unmounts what is left, replays the journals and mounts again. Guests under libvirt
//! that lost their disk are stopped and become `failed` with reason `disk_lost`; they can be started again, and nothing
//! that was acknowledged is missing (I2).
//!
//! **Trust** (I12). A node joins with a token that carries the cluster's id and the fingerprint of its CA. Peers accept
//! the keys in the signed membership record and nobody else. That record stays valid without a controller.
//!
//! [`build`] and [`Agent::run`] are used by `main` and by tests with several agents in one process. There is no global
//! state but logs, metrics and the cryptography provider, and `main` alone sets those up.

pub mod agent;
pub mod check;
pub mod clock;
pub mod config;
pub mod consoles;
pub mod controller;
pub mod cuts;
pub mod data_disk;
pub mod desired;
pub mod fenced;
pub mod fuse;
pub mod helper;
pub mod holder;
pub mod host;
pub mod hypervisor;
pub mod identity;
mod latest;
pub mod limits;
pub mod mirror;
pub mod network;
mod pace;
pub mod peer;
mod real_host;
pub mod reconcile;
pub mod run;
mod sealed;
pub mod seed;
pub mod status;
pub mod sweep;
pub mod telemetry;

pub use agent::{Agent, AgentError};
pub use holder::main as holder_main;

/// Builds the agent: takes the data folder, joins if it has not yet, opens pool and disks. Dropping the future gives up
/// waiting for the controller.
///
/// # Errors
/// When something it needs is not to be had, or the controller refuses it.
pub async fn build(config: config::Config) -> Result<Agent, AgentError> {
    Agent::build(config).await
}
