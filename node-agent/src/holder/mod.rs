//! The holder: a small separate process that keeps the live maps alive when the agent dies (I2).
//!
//! ```text
//! muster-agent ──spawns──> muster-agent holder --socket DATA/holder.sock     own session, no threads, no state on disk
//!      │  get(key, bytes) ─────────> memfd per key ──SCM_RIGHTS──┐
//!      └── maps it shared <──────────────────────────────────────┘
//! ```
//!
//! A live map is a memfd: memory that exists as long as some process holds its descriptor. The holder never reads or
//! writes it. It promises that the same key gives the same memory until the key is dropped, the holder is told to stop,
//! or the host reboots.
//!
//! The limit: the agent notices within two seconds that the holder has ended, starts another one and gives it the live maps
//! (`HOLDER_CHECKED_EVERY` in `mirror/disks.rs`). If both processes are killed within that window, acknowledged writes
//! that were not flushed are lost, as in a power cut. Flushed writes are in the journal.
//!
//! The holder only answers processes of its own user (peer credentials) and serves one short call per connection. It ends
//! by itself when its socket can no longer be reached at its path, because the data directory was removed or another
//! holder took over the path: nobody can call it any more then.
//!
//! It deliberately does not know what a disk is.

mod client;
mod server;
mod wire;

pub use client::{Holder, HolderError, LiveMemory};
pub use server::main;
