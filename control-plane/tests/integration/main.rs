//! The controller's integration tests, in one binary because linking the whole stack is what takes time.
//!
//! `api`: the REST API through the real router. `fleet`: deployments, instances and snapshots with fake agents.
//! `contract`: holds every answer in these two against `/openapi.json`.
//! `modules`: arrows between modules and crates. `store`: one suite of checks on SQLite and on PostgreSQL.

mod api;
mod clock;
mod contract;
mod fleet;
mod modules;
mod postgres;
mod store;
