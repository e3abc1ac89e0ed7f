//! A disk becomes larger: an epoch of the new size becomes the current one. Nothing is copied, no write waits, and programs
//! that have the file open go on.
//!
//! ```text
//! epochs:  [ 6 (current, 8 GiB) ]  --files of 7--> --record: 7, 16 GiB--> [ 7 (current, 16 GiB) | 6 (8 GiB) ] --> told
//! ```
//!
//! The record comes before the layers, and both before anybody hears of the size: a crash leaves the old size with all
//! writes, or the new one with all writes. An epoch keeps the size that the disk had in it, and says nothing about blocks
//! beyond. So a commit that was cut before has the old size, also when it is saved afterwards.
//!
//! The older epoch has no commit. It is not merged into the next one at once, as an abandoned one is: that would copy all
//! that the disk holds. The next published commit folds both. Only when epochs run short are they merged (`fold`).

use std::sync::Arc;

use storage_core::{BLOCK_BYTES, units::DISK_BYTES_MAX};

use super::{
    cut::{EPOCHS_MAX, blocking},
    disk::{Disk, Layers},
    error::DiskError,
};

impl Disk {
    /// Makes the disk `size_bytes` large. A disk that has this size or a larger one stays as it is: it never shrinks, and
    /// whoever asks for less has not heard of its growth.
    pub(super) async fn grow(self: &Arc<Self>, size_bytes: u64) -> Result<(), DiskError> {
        let disk = self.id();
        let _changing = self.changing.lock().await;
        let have = self.size_bytes();
        if size_bytes <= have {
            return Ok(());
        }
        if size_bytes > DISK_BYTES_MAX.0 || !size_bytes.is_multiple_of(BLOCK_BYTES) {
            let what = format!(
                "it has {have} bytes and cannot have {size_bytes}: {} at most, in blocks of {BLOCK_BYTES}",
                DISK_BYTES_MAX.0
            );
            return Err(DiskError::Invalid { disk, what });
        }
        if let Some(what) = self.failed() {
            return Err(DiskError::Failed { disk, what });
        }
        self.check_next_epoch()?;
        // One stays free for a cut.
        if self.meta.load().epochs.len() >= EPOCHS_MAX - 1 {
            self.merge_in_background();
            return Err(DiskError::Busy { disk, what: "it is grown when fewer of its epochs are in use".to_owned() });
        }
        let entry = self.next_entry()?;
        let this = self.clone();
        blocking(move || {
            let epoch = this.make_epoch(entry, size_bytes, move |meta| meta.grow(size_bytes, entry))?;
            let epoch = Arc::new(epoch);
            this.change_layers(|old| {
                let epochs = std::iter::once(&epoch).chain(&old.epochs).cloned().collect();
                Layers { base: old.base.clone(), epochs }
            });
            this.set_size_bytes(size_bytes);
            Ok(())
        })
        .await?;
        tracing::info!(disk.id = %disk, from = have, to = size_bytes, "a disk has grown");
        Ok(())
    }
}
