//! The objects that a disk needed and of which no node of the pool has a good copy.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use muster_api::VersionId;
use storage_core::{ObjectName, lock};

use super::error::Fault;

/// Most names kept for a disk. What is lost beyond that is found again when these are back.
const NAMES_MAX: usize = 1024;

/// What is lost of one disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostContent {
    /// The version that the disk builds on.
    pub version: VersionId,
    /// How many objects it was found to lack.
    pub objects: usize,
    /// The first of them by name.
    pub first: ObjectName,
}

/// Notes what a disk could not read because it is lost, until a read finds it again.
#[derive(Default)]
pub(super) struct Lost {
    any: AtomicBool,
    names: Mutex<BTreeSet<ObjectName>>,
}

impl Lost {
    /// Learns from the outcome of a fetch of `wanted`.
    pub(super) fn learn<'a>(&self, wanted: impl IntoIterator<Item = &'a ObjectName>, outcome: Result<(), &Fault>) {
        match outcome {
            Err(Fault::Lost(lost)) => {
                let mut names = lock(&self.names);
                let room = NAMES_MAX.saturating_sub(names.len());
                names.extend(lost.iter().take(room));
                self.any.store(!names.is_empty(), Ordering::Release);
            }
            Ok(()) if self.any.load(Ordering::Acquire) => {
                let mut names = lock(&self.names);
                for found in wanted {
                    names.remove(found);
                }
                self.any.store(!names.is_empty(), Ordering::Release);
            }
            Ok(()) | Err(_) => {}
        }
    }

    /// What is lost of a disk that builds on `version`; `None` if nothing is.
    pub(super) fn content(&self, version: VersionId) -> Option<LostContent> {
        let names = lock(&self.names);
        let first = *names.first()?;
        Some(LostContent { version, objects: names.len(), first })
    }
}
