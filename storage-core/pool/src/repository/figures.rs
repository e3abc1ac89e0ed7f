//! What a client of the repository did, and whether it works.

use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use storage_core::lock;
use tokio::time::Instant;

use super::RepositoryError;

/// What a client of the repository did since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RepositoryCounts {
    /// Objects written.
    pub uploaded_objects: u64,
    /// Bytes of their bodies.
    pub uploaded_bytes: u64,
    /// Objects read.
    pub fetched_objects: u64,
    /// Bytes of their bodies.
    pub fetched_bytes: u64,
    /// Objects deleted.
    pub deleted_objects: u64,
    /// Bodies that were not the object.
    pub bad_bodies: u64,
    /// Calls that failed.
    pub errors: u64,
}

impl RepositoryCounts {
    /// Both together.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            uploaded_objects: self.uploaded_objects + other.uploaded_objects,
            uploaded_bytes: self.uploaded_bytes + other.uploaded_bytes,
            fetched_objects: self.fetched_objects + other.fetched_objects,
            fetched_bytes: self.fetched_bytes + other.fetched_bytes,
            deleted_objects: self.deleted_objects + other.deleted_objects,
            bad_bodies: self.bad_bodies + other.bad_bodies,
            errors: self.errors + other.errors,
        }
    }
}

/// Why calls fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositoryTrouble {
    /// The newest failure.
    pub error: RepositoryError,
    /// When the first one was since the last call that worked.
    pub since: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Figures {
    uploaded_objects: AtomicU64,
    uploaded_bytes: AtomicU64,
    fetched_objects: AtomicU64,
    fetched_bytes: AtomicU64,
    deleted_objects: AtomicU64,
    bad_bodies: AtomicU64,
    errors: AtomicU64,
    trouble: Mutex<Option<RepositoryTrouble>>,
}

impl Figures {
    pub(super) fn uploaded(&self, bytes: u64) {
        self.uploaded_objects.fetch_add(1, Relaxed);
        self.uploaded_bytes.fetch_add(bytes, Relaxed);
    }

    pub(super) fn fetched(&self, bytes: u64) {
        self.fetched_objects.fetch_add(1, Relaxed);
        self.fetched_bytes.fetch_add(bytes, Relaxed);
    }

    pub(super) fn deleted(&self, objects: u64) {
        self.deleted_objects.fetch_add(objects, Relaxed);
    }

    pub(super) fn bad(&self) {
        self.bad_bodies.fetch_add(1, Relaxed);
    }

    /// A call ended.
    pub(super) fn note(&self, failed: Option<&RepositoryError>) {
        let mut trouble = lock(&self.trouble);
        match failed {
            None => *trouble = None,
            Some(error) => {
                self.errors.fetch_add(1, Relaxed);
                let since = trouble.as_ref().map_or_else(Instant::now, |trouble| trouble.since);
                *trouble = Some(RepositoryTrouble { error: error.clone(), since });
            }
        }
    }

    pub(super) fn trouble(&self) -> Option<RepositoryTrouble> {
        lock(&self.trouble).clone()
    }

    pub(super) fn counts(&self) -> RepositoryCounts {
        RepositoryCounts {
            uploaded_objects: self.uploaded_objects.load(Relaxed),
            uploaded_bytes: self.uploaded_bytes.load(Relaxed),
            fetched_objects: self.fetched_objects.load(Relaxed),
            fetched_bytes: self.fetched_bytes.load(Relaxed),
            deleted_objects: self.deleted_objects.load(Relaxed),
            bad_bodies: self.bad_bodies.load(Relaxed),
            errors: self.errors.load(Relaxed),
        }
    }
}
