//! Group commit: one data sync for all threads that wait for one.

use std::{
    io,
    sync::{Mutex, PoisonError},
};

use super::SegmentStore;
use crate::{
    lock,
    store::{StoreError, disk::DiskFile},
};

/// Syncs of one file. The system reports lost bytes only once, to the first sync after the loss. Here a sync that
/// failed stays failed, so that no later caller takes the file for synced.
#[derive(Debug, Default)]
pub(super) struct SyncOnce {
    failed: Mutex<bool>,
}

impl SyncOnce {
    pub(super) fn sync(&self, file: &dyn DiskFile) -> io::Result<()> {
        let mut failed = lock(&self.failed);
        if *failed {
            return Err(io::Error::other("an earlier sync of this file failed"));
        }
        file.sync_data().inspect_err(|_| *failed = true)
    }
}

impl SegmentStore {
    /// Returns once the first `wanted` appends are durable. One thread syncs; the others wait for it.
    pub(super) fn sync_up_to(&self, wanted: u64) -> Result<(), StoreError> {
        let mut writer = self.writer();
        loop {
            writer.check()?;
            if writer.synced >= wanted {
                return Ok(());
            }
            if writer.syncing {
                writer = self.synced.wait(writer).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            writer.syncing = true;
            let appended = writer.appended;
            let names_pending = std::mem::take(&mut writer.names_pending);
            let active = writer.active.as_ref().map(|a| (a.file.clone(), a.sync.clone()));
            drop(writer);
            let names = if names_pending { self.disk.sync_names() } else { Ok(()) };
            let synced = names.and_then(|()| active.map_or(Ok(()), |(file, sync)| sync.sync(file.as_ref())));
            writer = self.writer();
            writer.syncing = false;
            match synced {
                Ok(()) => writer.synced = writer.synced.max(appended),
                Err(source) => drop(writer.fail("sync", source)),
            }
            self.synced.notify_all();
        }
    }
}
