//! The controller.
//!
//! Reading order: [`http`] (what is said), [`app`] (what is done), [`store`] (what is kept), [`reconcile`] (what is
//! finished later).

pub mod app;
pub mod ca;
pub mod clock;
pub mod config;
pub mod domain;
pub mod http;
pub mod ingest;
pub mod reconcile;
pub mod scheduler;
pub mod store;
pub mod wake;
