//! The tokens and sessions that calls were sent with lately, and when they stop being good.
//!
//! Not every call reads its token or session from the database again. What was read counts for a second. Revoking one
//! ends that at once in this process; another controller notices within the second.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::Mutex,
    time::{Duration, Instant},
};

use storage_core::lock;

/// How long a row counts as it was read. Another controller may have deleted it since.
pub(crate) const KNOWN_FOR: Duration = Duration::from_secs(1);
/// Rows that are remembered before old ones are dropped.
const KNOWN_MAX: usize = 4096;

/// Rows of tokens or sessions as they were read lately, by id.
#[derive(Debug)]
pub struct Known<Id, Row>(Mutex<HashMap<Id, Read<Row>>>);

/// A row as it was read.
#[derive(Clone, Debug)]
pub(crate) struct Read<Row> {
    /// The row.
    pub row: Row,
    /// When the reading began.
    pub read_at: Instant,
    /// How many times tokens and sessions had been revoked in this process by then.
    pub revoked: u64,
}

impl<Id, Row> Default for Known<Id, Row> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<Id: Eq + Hash, Row: Clone> Known<Id, Row> {
    /// The row, if it was read lately and none was revoked since: `revoked` is how many have been.
    pub(crate) fn get(&self, id: Id, revoked: u64) -> Option<Row> {
        let known = lock(&self.0);
        let read = known.get(&id).filter(|read| read.revoked == revoked && read.read_at.elapsed() < KNOWN_FOR)?;
        Some(read.row.clone())
    }

    /// Remembers a row.
    pub(crate) fn put(&self, id: Id, read: Read<Row>) {
        let mut all = lock(&self.0);
        if all.len() >= KNOWN_MAX {
            all.retain(|_, read| read.read_at.elapsed() < KNOWN_FOR);
        }
        all.insert(id, read);
    }
}
