//! What is remembered of an instance over restarts of the agent: its [`Life`], in `DATA/instances/<instance>.json`.
//!
//! A lost record costs an unneeded start at worst (as after a restart of the host), never a byte: generations and
//! journals guard the disks. So it is replaced in one rename and not synced.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use muster_api::InstanceId;

use super::plan::Life;

/// The records of a node.
#[derive(Clone, Debug)]
pub struct Records {
    dir: PathBuf,
}

impl Records {
    /// Those below `data_dir`.
    ///
    /// # Errors
    /// The file system's.
    pub fn open(data_dir: &Path) -> io::Result<Self> {
        let dir = data_dir.join("instances");
        fs::create_dir_all(&dir)?;
        Ok(Self { dir })
    }

    fn path(&self, instance: InstanceId) -> PathBuf {
        self.dir.join(format!("{instance}.json"))
    }

    /// The record of an instance; `None` when there is none that can be read.
    #[must_use]
    pub fn load(&self, instance: InstanceId) -> Option<Life> {
        let bytes = fs::read(self.path(instance)).ok()?;
        serde_json::from_slice(&bytes)
            .inspect_err(|error| tracing::warn!(instance.id = %instance, %error, "a record was unreadable, left out"))
            .ok()
    }

    /// Replaces it.
    ///
    /// # Errors
    /// The file system's.
    pub fn save(&self, instance: InstanceId, life: &Life) -> io::Result<()> {
        let new = self.dir.join(format!("{instance}.new"));
        fs::write(&new, serde_json::to_vec(life)?)?;
        fs::rename(new, self.path(instance))
    }

    /// Removes it. Fine when there is none.
    ///
    /// # Errors
    /// The file system's.
    pub fn remove(&self, instance: InstanceId) -> io::Result<()> {
        match fs::remove_file(self.path(instance)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}
