//! A small file by which a disk shows that it still writes and reads.

use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

/// Its name in the data folder.
pub(super) const FILE: &str = "disk-check";

/// What the file holds. Direct writes need memory that is aligned like this.
#[repr(C, align(4096))]
struct Block([u8; 4096]);

/// Writes the file around the page cache, syncs it, and reads it back from the disk. It stays, so that a full disk need not
/// find room for it each time.
pub(super) fn write_and_read(dir: &Path) -> io::Result<()> {
    static TIMES: AtomicU64 = AtomicU64::new(1);
    let times = TIMES.fetch_add(1, Ordering::Relaxed).to_le_bytes();
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_DIRECT);
    let file = options.open(dir.join(FILE))?;
    let mut block = Box::new(Block([0; 4096]));
    block.0.chunks_exact_mut(times.len()).for_each(|part| part.copy_from_slice(&times));
    file.write_all_at(&block.0, 0)?;
    file.sync_data()?;
    block.0.fill(0);
    file.read_exact_at(&mut block.0, 0)?;
    let same = block.0.chunks_exact(times.len()).all(|part| part == times);
    if same { Ok(()) } else { Err(io::Error::other("it reads other bytes than were written and synced")) }
}
