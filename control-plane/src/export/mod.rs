//! Reads versions from the pool: their bytes, their extents, and the bytes that deleting them would free.
//!
//! - [`pages`] fetches the pages of a tree as they are needed.
//! - [`content`] streams a range of bytes.
//! - [`extents`] lists the ranges that have data.
//! - [`chunks`] maps which chunks are zeros and which are shared with another version.
//! - [`reach`] finds the objects that only one version reaches.
//!
//! Its share of the invariants: **I1, I4** every byte comes from an object that was checked against its name, or is a
//! zero by the tree; a read that cannot be answered ends the stream with an error and never invents bytes. **I11** each
//! reader has bounded memory and a bounded number of requests in flight.

pub mod chunks;
pub mod content;
pub mod extents;
pub mod pages;
pub mod reach;

use muster_pool::PoolError;
use storage_core::Corrupt;

/// Why a version could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The pool did not return some of its objects in time.
    #[error("objects of this version cannot be read now")]
    Pool(#[from] PoolError),
    /// An object or page does not fit the tree that names it.
    #[error("this version is damaged")]
    Corrupt(#[from] Corrupt),
    /// The operation needs more pages than its limit, which is given.
    #[error("more than {0} pages would have to be read")]
    TooLarge(usize),
    /// A thread that worked for the reader panicked.
    #[error("a thread of the reader failed")]
    Thread(#[from] tokio::task::JoinError),
}
