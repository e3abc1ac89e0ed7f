//! The pool: how objects travel between the nodes' stores, and the connections that the daemons use for each other.
//!
//! Both daemons read and write the pool through this crate: the agents for their disks, the controller for imports and
//! exports. Agents also serve their share of it.
//!
//! Reading order: [`tls`] (who is who), [`transport`] (how they reach each other), [`membership`] (who belongs),
//! [`protocol`] and [`wire`] (what travels), [`checksum`] (that nothing else arrives), [`PoolClient`] (`client.rs`: the handle; `view.rs`: whom to ask; `health.rs`:
//! who failed lately; `untimely.rs`: whether a clock is wrong; `get.rs` and `put.rs`: the two ways; `repair.rs`: copies that are made again; `handover.rs`: copies that other nodes keep now; [`repository`]: the store outside of the nodes that has all objects, too; `load.rs`: what is under way, and who is slow; `demand.rs`: whether somebody waits; `own.rs`: what this node has itself; `traffic.rs`: what went where), [`server`] (a node's share), [`serve`] (the accept loop).
//!
//! Invariants kept here: I3 (a put answers only once the objects are durable on the required nodes), I4 (what arrives is
//! verified before anyone sees it; a bad copy means the next copy), I10 and I11 (every wait has a limit, and no node's
//! silence delays what another node has).

pub mod checksum;
mod client;
mod demand;
mod error;
mod get;
mod handover;
mod health;
mod inner;
mod limits;
mod load;
pub mod membership;
mod own;
pub mod protocol;
mod put;
mod repair;
pub mod repository;
mod restock;
mod serve;
pub mod server;
pub mod tls;
mod traffic;
pub mod transport;
mod untimely;
mod uploaders;
mod view;
pub mod wire;

pub use client::{Call, ClockTrouble, PoolClient, Tunnel, TunnelError};
pub use error::PoolError;
pub use get::Got;
pub use handover::HandedOver;
pub use limits::PoolLimits;
pub use put::PutDone;
pub use repair::{Avoided, Delivered, Lacking, Parcel};
pub use repository::{Repository, RepositoryError};
pub use restock::Restock;
pub use serve::{ServeLimits, serve};
pub use traffic::{PeerBytes, Traffic};
