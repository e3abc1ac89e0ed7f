//! Versioned images and the objects they are made of. This crate handles bytes only: no async, no network, no SQL.
//!
//! ```text
//!  a version names a descriptor ── root page (level 1)
//!                                      ├── page (level 0) ── chunk, chunk, …      absent entry = zeros
//!                                      └── page (level 0) ── chunk, …
//!  a new version shadows it: new chunks and the pages above them; everything else is shared
//!
//!  chunk, page, descriptor, pack = objects: named by BLAKE3 of their canonical bytes ([`ObjectName`]),
//!  stored and sent as records ([`Record`]), kept by a [`store::ChunkStore`] on the nodes [`placement`] picks
//! ```
//!
//! Invariants that this crate keeps:
//! - **I3**: only [`store::ChunkStore::sync`] promises durability, and it promises it for every earlier put and touch.
//! - **I4**: what enters a store is checked against its name unless this process hashed it itself. What leaves a store
//!   is always checked. A bad copy is dropped and reported, never served.
//! - **I5**: trees are immutable. A commit writes new pages and shares the rest; a clone writes nothing.
//! - **I6**: every put and touch stamps the object with the round of its upload, durably. [`tree::Reach`] finds what
//!   versions reach.
//!
//! Reading order: [`units`], [`object`], [`record`], [`descriptor`], [`tree`], [`store`], [`membership`],
//! [`placement`], [`repository`]. Every byte that these modules write is described in `FORMAT.md` beside this crate's manifest.
//! [`lock`], [`backoff`] and [`hex_text`] are small helpers that the daemons share.

#![warn(clippy::indexing_slicing)]

pub mod backoff;
pub mod cause;
pub mod census;
mod codec;
pub mod descriptor;
mod error;
#[cfg(feature = "testing")]
pub mod fuzz;
#[cfg(test)]
mod fuzz_tests;
pub mod hex_text;
pub mod ids;
pub mod lock;
pub mod membership;
pub mod object;
pub mod placement;
#[cfg(feature = "testing")]
pub mod power;
pub mod record;
pub mod repository;
pub mod store;
pub mod tree;
pub mod units;
pub mod zero;

pub use backoff::Backoff;
pub use descriptor::Descriptor;
pub use error::Corrupt;
pub use ids::{ClusterId, NodeId, StoreId};
pub use lock::lock;
pub use object::{Kind, ObjectName, Salt};
pub use record::{Compression, Record, RecordHeader, VerifiedObject};
#[cfg(feature = "testing")]
pub use store::MemoryStore;
pub use store::{ChunkStore, SegmentStore, StoreError};
pub use units::{BLOCK_BYTES, ByteLen, ChunkIndex, ChunkSize};
