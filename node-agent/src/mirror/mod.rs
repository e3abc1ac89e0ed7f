//! The mirror: a disk is present on its node as a raw file, filled lazily, written locally, cut without copying.
//!
//! ```text
//!  guest ── fuse ──> write: delta of the current epoch, bit in the live map, reply         never waits for the network
//!              └──> read:  newest epoch that has the block ── else base ── cache ── owners  whole chunks, verified
//!
//!  DATA/disks/<disk>/meta.json   the record: generation, base, epochs            replaced as a whole
//!                    N.delta     what the guest wrote, sparse, at its own offsets
//!                    N.bits      which blocks of it count, durable: the journal
//!  DATA/cache/                   clean chunks, shared by all disks
//!  holder process                the live map of each epoch: which blocks count, now
//! ```
//!
//! Promises: **I1** a read gives the last byte written, else the version's byte ([`read`], [`write`], `Layers`).
//! **I2** acknowledged writes survive the agent (live map), acknowledged flushes survive the power (journal: data
//! before bits), a failed flush is final ([`epoch`], [`journal`], [`bits`]). **I3**, **I4** commits name only bytes
//! that were written or verified, and are durable in the pool before anybody hears of them ([`commit`]). **I7** cuts
//! hold before they flip ([`cut`]). **I10** holds, prepared cuts and reads end by themselves.
//!
//! It does not know why a disk is wanted, who placed it, or where objects are: that is the reconciler's, the
//! controller's and the pool client's.
//!
//! After a start: `Disks::open` finds what is there, `commits()` lists commits whose outcome has to be asked for,
//! `ensure` mounts.

mod base;
mod bits;
mod cache;
mod commit;
mod config;
mod cut;
pub(crate) mod disk;
mod disks;
mod epoch;
pub(crate) mod error;
mod fold;
mod journal;
mod memory;
mod meta;
#[cfg(test)]
mod power_tests;
pub(crate) mod read;
pub(crate) mod seek;
mod stable;
pub(crate) mod transfer;
pub(crate) mod write;

pub use commit::Saved;
pub use config::{Config, DeltaIo, WritePolicy};
pub use cut::CutKey;
pub use disks::{DiskStatus, DiskWant, Disks};
pub use error::{DiskError, Fault};
