//! Deployments, instances and snapshots through the real router, on a real SQLite file, with fake agents that speak
//! the node protocol.
#![expect(clippy::unwrap_used, reason = "tests")]

mod boots;
mod consoles;
mod contract;
mod deployments;
mod disk_life;
mod disks;
mod firmware;
mod found;
mod freed;
mod guests;
mod harness;
mod hypervisors;
mod instances;
mod lost;
mod networks;
mod node_loss;
mod old_versions;
mod on_postgres;
mod protection;
mod restart;
mod restore;
mod roots;
mod seeds;
mod snapshots;
mod sweep;
