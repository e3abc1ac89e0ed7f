//! Folders for what nodes keep in files. The model syncs them all the time and cuts no power below them, so they are in memory where
//! there is enough of it: a history takes a fifth of the time then.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// Where Linux has files in memory. `tests/run.sh` names a folder in it, and removes that at the end.
const MEMORY: &str = "/dev/shm";
/// Bytes that have to be free there. The folders of a history have a few MiB.
const FREE_BYTES_MIN: u64 = 1 << 30;
const PREFIX: &str = "muster-model-";

/// A new folder, which goes when it is dropped.
pub(crate) fn make() -> TempDir {
    let mut folder = tempfile::Builder::new();
    folder.prefix(PREFIX);
    let memory = std::env::var_os("MUSTER_TEST_MEMORY").map_or_else(|| PathBuf::from(MEMORY), PathBuf::from);
    if has_room(&memory)
        && let Ok(made) = folder.tempdir_in(&memory)
    {
        return made;
    }
    folder.tempdir().expect("a folder")
}

fn has_room(folder: &Path) -> bool {
    rustix::fs::statvfs(folder).is_ok_and(|of| of.f_bavail.saturating_mul(of.f_frsize) >= FREE_BYTES_MIN)
}
