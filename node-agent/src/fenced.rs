//! The word that this node was declared dead, kept in `DATA/fenced.json`.
//!
//! An operator said so at the controller, and the instances of this node may run elsewhere since (I8). The word is
//! durable before anything is done about it, so that a restart without a controller starts no guest again. Nothing in
//! the data folder is deleted: what the disks hold and no version has can still be read from it.

use std::{
    io,
    path::{Path, PathBuf},
};

use muster_api::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{identity::replace_file, sealed};

/// When this node learned that it was declared dead, and in which words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fenced {
    /// When it learned it, by its own clock.
    pub learned_at: Timestamp,
    /// What the controller said.
    pub detail: String,
}

fn file(data_dir: &Path) -> PathBuf {
    data_dir.join("fenced.json")
}

/// The word kept in this data folder; `None` if there is none. A file that cannot be read counts as the word, because a
/// guest that runs twice does more harm than one that does not run.
#[must_use]
pub fn load(data_dir: &Path) -> Option<Fenced> {
    let file = file(data_dir);
    let unreadable = |error: &dyn std::fmt::Display| Fenced {
        learned_at: Timestamp::from_micros(0),
        detail: format!("{} is there and cannot be read: {error}", file.display()),
    };
    match std::fs::read(&file) {
        Ok(text) => Some(sealed::open(&text).unwrap_or_else(|error| unreadable(&error))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => Some(unreadable(&error)),
    }
}

/// Keeps the word durably.
///
/// # Errors
/// The error of the file system.
pub fn store(data_dir: &Path, fenced: &Fenced) -> io::Result<()> {
    replace_file(&file(data_dir), &sealed::seal(fenced)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_is_kept_and_an_unreadable_one_still_counts() {
        let data = tempfile::tempdir().expect("a folder");
        assert_eq!(load(data.path()), None);
        let fenced = Fenced { learned_at: Timestamp::from_micros(5), detail: "dead".to_owned() };
        store(data.path(), &fenced).expect("stored");
        assert_eq!(load(data.path()), Some(fenced));
        std::fs::write(file(data.path()), "{").expect("written");
        assert!(load(data.path()).is_some_and(|fenced| fenced.detail.contains("fenced.json")));
    }
}
