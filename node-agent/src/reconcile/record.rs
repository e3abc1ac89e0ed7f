//! What an agent remembers of an instance over restarts: its [`Life`] and what the controller told of it, in
//! `DATA/instances/<instance>.json`.
//!
//! A lost record costs at worst an unneeded start (as after a restart of the host), never data: generations and
//! journals guard the disks. So a record is replaced by a rename and not synced.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use muster_api::{InstanceId, node_protocol::Assignment};
use serde::{Deserialize, Serialize};

use super::plan::Life;
use crate::sealed;

/// The record of one instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its present or last start.
    #[serde(flatten)]
    pub life: Life,
    /// Its assignment at that time. Should the controller lose its row, it learns from this what the instance was. `None` in
    /// records of older agents.
    #[serde(default)]
    pub told: Option<Assignment>,
}

/// The records of a node.
#[derive(Clone, Debug)]
pub struct Records {
    dir: PathBuf,
}

impl Records {
    /// The records below `data_dir`.
    ///
    /// # Errors
    /// The error of the file system.
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
    pub fn load(&self, instance: InstanceId) -> Option<Record> {
        let bytes = fs::read(self.path(instance)).ok()?;
        sealed::open(&bytes)
            .inspect_err(
                |error| tracing::warn!(instance.id = %instance, %error, "a record is unreadable and is ignored"),
            )
            .ok()
    }

    /// Replaces the record of an instance.
    ///
    /// # Errors
    /// The error of the file system.
    pub fn save(&self, instance: InstanceId, record: &Record) -> io::Result<()> {
        let new = self.dir.join(format!("{instance}.new"));
        fs::write(&new, sealed::seal(record)?)?;
        fs::rename(new, self.path(instance))
    }

    /// Removes the record of an instance, if there is one.
    ///
    /// # Errors
    /// The error of the file system.
    pub fn remove(&self, instance: InstanceId) -> io::Result<()> {
        match fs::remove_file(self.path(instance)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}
