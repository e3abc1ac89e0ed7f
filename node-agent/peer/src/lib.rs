//! The pool as seen from outside a node: put, get, next copy, and the connections all daemons use for each other.
//!
//! Both daemons read and write the pool through this crate: the agents for their disks, the controller for imports and
//! exports. Reading order: [`tls`] (who is who), [`membership`] (who belongs), [`client`] (where objects go and come
//! from), [`wire`] (how they travel), [`serve`] (the accept loop).
//!
//! Invariants carried here: I3 (a put answers only once the objects are durable on the required nodes), I4 (what
//! arrives is verified before anyone sees it; a bad copy means the next copy), I10 and I11 (every wait has a limit, and
//! no node's silence delays what another node has).

pub mod client;
pub mod membership;
mod serve;
pub mod tls;
pub mod wire;

pub use client::{Got, PoolClient, PoolError, PoolLimits, PutDone};
