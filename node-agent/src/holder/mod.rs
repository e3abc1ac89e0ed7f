//! The holder: a small separate process that keeps the live maps alive when the agent dies (I2).
//!
//! ```text
//! muster-agent ──spawns──> muster-agent holder --socket DATA/holder.sock     own session, no threads, no state on disk
//!      │  get(key, bytes) ─────────> memfd per key ──SCM_RIGHTS──┐
//!      └── maps it shared <──────────────────────────────────────┘
//! ```
//!
//! A live map is a memfd: pages of the kernel that live as long as somebody holds the descriptor. The holder never
//! looks inside. It promises: the same key gives the same memory until it is dropped, the holder is told to stop, or
//! the host reboots. It answers only its own user (peer credentials), serves one short call per connection, and ends
//! by itself when its socket is no longer reachable at its path (the data directory is gone, or another holder took
//! the path over), because then nobody can ever ask it again.
//!
//! It deliberately does not know what a disk is.

mod client;
mod server;
mod wire;

pub use client::{Holder, HolderError, LiveMemory, Start};
pub use server::main;
