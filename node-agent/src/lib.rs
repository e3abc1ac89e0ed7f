//! muster-agent: one compute node. Lazily mirrored disks, this node's share of the pool, the hypervisor.
//!
//! Reading order: [`config`] (what it is told), [`identity`] (who it is), [`agent`] (its loops and how it ends), [`desired`]
//! (what it should be), [`controller`] (whom it asks), [`cuts`] (many disks at one instant), [`peer`] (what other nodes
//! may ask of it), [`mirror`] (disks), [`holder`] (what outlives it).
//!
//! [`build`] and [`Agent::run`] are used by `main` and by tests with several agents in one process: there is no global
//! state but logs, metrics and the cryptography provider, and `main` alone sets those up.

pub mod agent;
pub mod check;
pub mod clock;
pub mod config;
pub mod controller;
pub mod cuts;
pub mod desired;
mod fuse;
pub mod holder;
pub mod host;
pub mod hypervisor;
pub mod identity;
pub mod mirror;
pub mod peer;
mod real_host;
pub mod reconcile;
pub mod status;
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
