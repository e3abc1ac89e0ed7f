//! The note of the last round that this node has carried out, kept in `DATA/sweep.json`.
//!
//! It decides only how much the next round costs, so a note that is lost or damaged is as good as none.

use std::{
    io,
    path::{Path, PathBuf},
};

use muster_api::node_protocol::{Incarnation, sweep::SweepDone};
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::{identity::replace_file, sealed};

/// A round that was carried out: everything it dropped is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Note {
    /// The history of the database that the round is of.
    pub(super) incarnation: Incarnation,
    /// Number of the round.
    pub(super) round: u64,
    /// What it did.
    pub(super) done: SweepDone,
}

/// The file of the note.
#[derive(Clone, Debug)]
pub(super) struct NoteFile(PathBuf);

impl NoteFile {
    pub(super) fn new(data_dir: &Path) -> Self {
        Self(data_dir.join("sweep.json"))
    }

    pub(super) fn load(&self) -> Option<Note> {
        let note = match std::fs::read(&self.0) {
            Ok(bytes) => sealed::open(&bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => Err(error),
        };
        note.inspect_err(|error| {
            warn!(%error, file = %self.0.display(), "the note of the last sweep cannot be read; the next one asks about all objects");
        })
        .ok()
    }

    pub(super) fn store(&self, note: &Note) -> io::Result<()> {
        replace_file(&self.0, &sealed::seal(note)?)
    }

    /// Durable when it returns, also if there was none.
    pub(super) fn remove(&self) -> io::Result<()> {
        match std::fs::remove_file(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => std::fs::File::open(self.0.parent().unwrap_or(Path::new("/")))?.sync_all(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_kept_and_a_damaged_one_is_none() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = NoteFile::new(dir.path());
        assert_eq!(file.load(), None);
        let done = SweepDone { objects: 3, bytes: 40, reclaimed_bytes: 50, unexplained_bytes: 4 };
        let note = Note { incarnation: Incarnation { number: 2, random: 7 }, round: 12, done };
        file.store(&note).expect("stores");
        assert_eq!(file.load(), Some(note));
        let mut bytes = std::fs::read(dir.path().join("sweep.json")).expect("reads");
        let at = bytes.len() - 4;
        bytes[at] ^= 1;
        std::fs::write(dir.path().join("sweep.json"), bytes).expect("writes");
        assert_eq!(file.load(), None);
    }
}
