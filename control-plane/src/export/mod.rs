//! Versions on their way out: bytes, extents, and what a delete would give back. Read from the pool alone.
//!
//! [`pages`] walks trees whose pages are elsewhere, [`content`] streams a range of bytes, [`extents`] tells where there
//! is data, [`reach`] tells which objects only one version reaches.
//!
//! Its share of the invariants: **I1, I4** every byte comes from an object that was checked against its name, or is a
//! zero that the tree promises; a read that cannot be answered breaks the stream off, it never makes bytes up.
//! **I11** memory and requests in flight are bounded per reader.

pub mod content;
pub mod extents;
pub mod pages;
pub mod reach;

use muster_pool::PoolError;
use storage_core::Corrupt;

/// Why a version could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Some of its objects could not be had in time.
    #[error("objects of this version cannot be had now")]
    Pool(#[from] PoolError),
    /// An object is not what its place says.
    #[error("this version is damaged")]
    Corrupt(#[from] Corrupt),
    /// Looking at all of it would take more memory than an answer is worth.
    #[error("more than {0} pages would have to be looked at")]
    TooLarge(usize),
    /// A thread that worked for the reader panicked.
    #[error("a thread of the reader failed")]
    Thread(#[from] tokio::task::JoinError),
}
