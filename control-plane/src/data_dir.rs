//! The controller's data folder: made if needed, and used by one daemon at a time.

use std::{fs::File, os::unix::fs::DirBuilderExt as _, path::Path};

use anyhow::Context as _;

pub(crate) fn make_dir(dir: &Path) -> anyhow::Result<()> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.with_context(|| format!("make the data folder {}", dir.display()))
}

/// One daemon per data folder. The kernel frees the lock when the process ends, however it ends.
pub(crate) fn lock_data_dir(dir: &Path) -> anyhow::Result<File> {
    make_dir(dir)?;
    let path = dir.join("controller.lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path)?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .with_context(|| format!("another controller uses {}", dir.display()))?;
    Ok(file)
}
