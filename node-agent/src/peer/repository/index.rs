//! What this node knows of the repository, in a redb database, `DATA/repository.redb`.
//!
//! It holds for objects that this node wrote there, or found there, that the repository has them; and the objects that nothing
//! needs and that have yet to be deleted there. Everything in it can be found out again by asking and listing, so a database
//! that is damaged, or of another repository, is thrown away. What it says of an object that is about to be deleted is
//! durable before the repository is asked to.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};
use storage_core::ObjectName;
use tracing::warn;

/// Bytes of it that are kept in memory.
const CACHE_BYTES: usize = 4 << 20;
const FORMAT: &str = "1";

/// Object that the repository has -> length of its body.
const HAS: TableDefinition<'_, [u8; 32], u64> = TableDefinition::new("has");
/// Object that nothing needs -> the round of the sweep that told so; 0 if no round did, and any may judge it.
const DYING: TableDefinition<'_, [u8; 32], u64> = TableDefinition::new("dying");
/// The texts named format, place (whose objects it knows), history (of the rounds), listed (when all was last listed, seconds
/// since 1970).
const META: TableDefinition<'_, &str, String> = TableDefinition::new("meta");

/// Why the index cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the index of the repository failed: {0}")]
pub(super) struct IndexError(Box<redb::Error>);

macro_rules! from_redb {
    ($($error:ident),*) => {$(
        impl From<redb::$error> for IndexError {
            fn from(error: redb::$error) -> Self {
                Self(Box::new(error.into()))
            }
        }
    )*};
}

from_redb!(CommitError, DatabaseError, Error, StorageError, TableError, TransactionError);

/// The index. Every call blocks on the disk.
#[derive(Debug)]
pub(super) struct Index(Database);

impl Index {
    /// Opens the index of this place. Another one is thrown away.
    pub(super) fn open(file: &Path, place: &str) -> Result<Self, IndexError> {
        // On a damaged file redb answers an error or panics.
        let opened = catch_unwind(AssertUnwindSafe(|| Self::of_place(file, place)));
        match opened {
            Ok(Ok(Some(index))) => return Ok(index),
            Ok(Ok(None)) => {}
            Ok(Err(IndexError(error))) if matches!(*error, redb::Error::DatabaseAlreadyOpen) => {
                return Err(IndexError(error));
            }
            Ok(Err(error)) => warn!(%error, "what the repository has is asked for anew"),
            Err(_panic) => warn!("the index of the repository is damaged; what the repository has is asked for anew"),
        }
        match std::fs::remove_file(file) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(redb::Error::Io(error).into()),
        }
        let index = Self(Database::builder().set_cache_size(CACHE_BYTES).create(file)?);
        let tx = index.0.begin_write()?;
        {
            tx.open_table(HAS)?;
            tx.open_table(DYING)?;
            let mut meta = tx.open_table(META)?;
            meta.insert("format", FORMAT.to_owned())?;
            meta.insert("place", place.to_owned())?;
        }
        tx.commit()?;
        Ok(index)
    }

    /// None: there is none, or it is of another place or format.
    fn of_place(file: &Path, place: &str) -> Result<Option<Self>, IndexError> {
        if !file.exists() {
            return Ok(None);
        }
        let index = Self(Database::builder().set_cache_size(CACHE_BYTES).open(file)?);
        let is_ours =
            index.word("format")?.as_deref() == Some(FORMAT) && index.word("place")?.as_deref() == Some(place);
        if is_ours {
            // Reads all of them once, so that damage shows now.
            index.0.begin_read()?.open_table(HAS)?.len()?;
        }
        Ok(is_ours.then_some(index))
    }

    pub(super) fn word(&self, key: &str) -> Result<Option<String>, IndexError> {
        Ok(self.0.begin_read()?.open_table(META)?.get(key)?.map(|word| word.value()))
    }

    pub(super) fn set_word(&self, key: &str, word: &str) -> Result<(), IndexError> {
        self.change(|tx| {
            tx.open_table(META)?.insert(key, word.to_owned())?;
            Ok(())
        })
    }

    /// For each of these objects whether the repository has it, as far as this node knows.
    pub(super) fn has(&self, names: &[ObjectName]) -> Result<Vec<bool>, IndexError> {
        let has = self.0.begin_read()?.open_table(HAS)?;
        names.iter().map(|name| Ok(has.get(*name.as_bytes())?.is_some())).collect()
    }

    /// The repository has these, with bodies of these lengths.
    pub(super) fn note(&self, found: &[(ObjectName, u64)]) -> Result<(), IndexError> {
        if found.is_empty() {
            return Ok(());
        }
        self.change(|tx| {
            let mut has = tx.open_table(HAS)?;
            for (name, bytes) in found {
                has.insert(*name.as_bytes(), *bytes)?;
            }
            Ok(())
        })
    }

    /// The repository does not have these, or will not have them any more.
    pub(super) fn forget(&self, names: &[ObjectName]) -> Result<(), IndexError> {
        if names.is_empty() {
            return Ok(());
        }
        self.change(|tx| {
            let mut has = tx.open_table(HAS)?;
            for name in names {
                has.remove(*name.as_bytes())?;
            }
            Ok(())
        })
    }

    /// The objects of which this node knows that the repository has them and whose names begin with this byte, in order.
    pub(super) fn shelf(&self, first: u8) -> Result<Vec<ObjectName>, IndexError> {
        let has = self.0.begin_read()?.open_table(HAS)?;
        let (mut low, mut high) = ([0; 32], [0xff; 32]);
        (low[0], high[0]) = (first, first);
        let names = has.range(low..=high)?.map(|row| Ok(ObjectName::from_bytes(row?.0.value())));
        names.collect()
    }

    /// Nothing needs these since a round of this history, unless an earlier one said so. What is known of another history is
    /// forgotten.
    pub(super) fn dying(&self, history: &str, round: u64, names: &[ObjectName]) -> Result<(), IndexError> {
        self.follow(history)?;
        self.add_dying(round, names, false)
    }

    /// These may not be deleted in this round. A later one looks again.
    pub(super) fn postpone(&self, round: u64, names: &[ObjectName]) -> Result<(), IndexError> {
        self.add_dying(round, names, true)
    }

    /// No node is known that needs these, so that any round of any history may judge them.
    pub(super) fn leaked(&self, names: &[ObjectName]) -> Result<(), IndexError> {
        self.add_dying(0, names, false)
    }

    fn add_dying(&self, round: u64, names: &[ObjectName], replaces: bool) -> Result<(), IndexError> {
        if names.is_empty() {
            return Ok(());
        }
        self.change(|tx| {
            let mut dying = tx.open_table(DYING)?;
            for name in names {
                if replaces || dying.get(*name.as_bytes())?.is_none() {
                    dying.insert(*name.as_bytes(), round)?;
                }
            }
            Ok(())
        })
    }

    /// Those after a name that nothing needs since a round before this one of this history, in order, at most so many; and
    /// the last object that was looked at, unless it was the last of all.
    pub(super) fn due(
        &self,
        history: &str,
        round: u64,
        after: Option<ObjectName>,
        most: usize,
    ) -> Result<(Vec<ObjectName>, Option<ObjectName>), IndexError> {
        self.follow(history)?;
        let dying = self.0.begin_read()?.open_table(DYING)?;
        let mut due = Vec::new();
        let from = after.map_or(std::ops::Bound::Unbounded, |name| std::ops::Bound::Excluded(*name.as_bytes()));
        for row in dying.range::<[u8; 32]>((from, std::ops::Bound::Unbounded))? {
            let (name, since) = row?;
            let name = ObjectName::from_bytes(name.value());
            if since.value() < round {
                due.push(name);
            }
            if due.len() >= most {
                return Ok((due, Some(name)));
            }
        }
        Ok((due, None))
    }

    /// These are deleted, or needed again.
    pub(super) fn not_dying(&self, names: &[ObjectName]) -> Result<(), IndexError> {
        if names.is_empty() {
            return Ok(());
        }
        self.change(|tx| {
            let mut dying = tx.open_table(DYING)?;
            for name in names {
                dying.remove(*name.as_bytes())?;
            }
            Ok(())
        })
    }

    /// Rounds are only compared within one history of the database.
    fn follow(&self, history: &str) -> Result<(), IndexError> {
        if self.word("history")?.as_deref() == Some(history) {
            return Ok(());
        }
        self.change(|tx| {
            tx.open_table(DYING)?.retain(|_, round| round == 0)?;
            tx.open_table(META)?.insert("history", history.to_owned())?;
            Ok(())
        })
    }

    fn change(&self, work: impl FnOnce(&redb::WriteTransaction) -> Result<(), IndexError>) -> Result<(), IndexError> {
        let tx = self.0.begin_write()?;
        work(&tx)?;
        tx.commit()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(first: u8, last: u8) -> ObjectName {
        let mut bytes = [first; 32];
        bytes[31] = last;
        ObjectName::from_bytes(bytes)
    }

    #[test]
    fn what_it_knows_survives_and_another_place_or_damage_begins_anew() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("repository.redb");
        let (a, b, c) = (name(1, 1), name(1, 2), name(2, 1));
        let index = Index::open(&file, "here").expect("opens");
        index.note(&[(a, 10), (b, 20), (c, 30)]).expect("notes");
        index.forget(&[b]).expect("forgets");
        drop(index);
        let index = Index::open(&file, "here").expect("opens");
        assert_eq!(index.has(&[a, b, c]).expect("reads"), [true, false, true]);
        assert_eq!(index.shelf(1).expect("reads"), [a]);
        drop(index);
        let index = Index::open(&file, "there").expect("opens");
        assert_eq!(index.has(&[a]).expect("reads"), [false]);
        index.note(&[(a, 10)]).expect("notes");
        drop(index);
        std::fs::write(&file, b"no database").expect("writes");
        let index = Index::open(&file, "there").expect("opens");
        assert_eq!(index.has(&[a]).expect("reads"), [false]);
    }

    #[test]
    fn the_dying_are_due_in_a_later_round_of_the_same_history() {
        let dir = tempfile::tempdir().expect("a folder");
        let index = Index::open(&dir.path().join("repository.redb"), "here").expect("opens");
        let (a, b, c) = (name(1, 1), name(1, 2), name(2, 1));
        index.dying("h", 5, &[a, b]).expect("notes");
        index.dying("h", 6, &[c]).expect("notes");
        index.dying("h", 9, &[a]).expect("notes");
        assert_eq!(index.due("h", 5, None, 10).expect("reads"), (vec![], None));
        assert_eq!(index.due("h", 6, None, 10).expect("reads"), (vec![a, b], None));
        assert_eq!(index.due("h", 7, None, 2).expect("reads"), (vec![a, b], Some(b)));
        assert_eq!(index.due("h", 7, Some(b), 2).expect("reads"), (vec![c], None));
        index.not_dying(&[a]).expect("removes");
        index.postpone(7, &[c]).expect("notes");
        assert_eq!(index.due("h", 7, None, 10).expect("reads"), (vec![b], None));
        index.leaked(&[a, b]).expect("notes");
        assert_eq!(index.due("another", 1, None, 10).expect("reads"), (vec![a], None), "only what leaked");
    }
}
