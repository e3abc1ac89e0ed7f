//! What this node knows of the repository, in a redb database, `DATA/repository.redb`.
//!
//! It holds for objects that this node wrote there, or found there, that the repository has them; and the objects that nothing
//! needs and that have yet to be deleted there. Everything in it can be found out again by asking and listing, so a database
//! that is damaged, or of another repository, is thrown away. What it says of an object that is about to be deleted is
//! durable before the repository is asked to.
//!
//! It also names the objects of which this node gave its copy up ([`super::evict`]). Where these names are lost with the
//! database, the objects count as missing here again, and the listing finds those that only the repository has.

use std::{
    collections::BTreeSet,
    io,
    ops::Bound,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Mutex,
};

use muster_api::node::ObjectAmount;
use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};
use storage_core::{ObjectName, lock, store::StoreError};
use tracing::warn;

/// Bytes of it that are kept in memory.
const CACHE_BYTES: usize = 4 << 20;
const FORMAT: &str = "1";

/// Object that the repository has -> length of its body.
const HAS: TableDefinition<'_, [u8; 32], u64> = TableDefinition::new("has");
/// Object that nothing needs -> the round of the sweep that told so; 0 if no round did, and any may judge it.
const DYING: TableDefinition<'_, [u8; 32], u64> = TableDefinition::new("dying");
/// Object of which this node gave its copy up, because the repository has it -> stored bytes of the copy.
const EVICTED: TableDefinition<'_, [u8; 32], u64> = TableDefinition::new("evicted");
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

impl From<IndexError> for StoreError {
    fn from(IndexError(source): IndexError) -> Self {
        Self::Index { source }
    }
}

from_redb!(CommitError, DatabaseError, Error, StorageError, TableError, TransactionError);

/// The index. Every call blocks on the disk.
#[derive(Debug)]
pub(super) struct Index {
    db: Database,
    place: String,
    /// What is in the table of evicted objects.
    evicted: Mutex<ObjectAmount>,
}

impl Index {
    fn over(db: Database, place: &str) -> Self {
        Self { db, place: place.to_owned(), evicted: Mutex::default() }
    }

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
        let index = Self::over(Database::builder().set_cache_size(CACHE_BYTES).create(file)?, place);
        let tx = index.db.begin_write()?;
        {
            tx.open_table(HAS)?;
            tx.open_table(DYING)?;
            tx.open_table(EVICTED)?;
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
        let index = Self::over(Database::builder().set_cache_size(CACHE_BYTES).open(file)?, place);
        let is_ours =
            index.word("format")?.as_deref() == Some(FORMAT) && index.word("place")?.as_deref() == Some(place);
        if is_ours {
            // Reads all of them once, so that damage shows now.
            index.db.begin_read()?.open_table(HAS)?.len()?;
            index.count_evicted()?;
        }
        Ok(is_ours.then_some(index))
    }

    /// Whose objects it knows.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    pub(super) fn word(&self, key: &str) -> Result<Option<String>, IndexError> {
        Ok(self.db.begin_read()?.open_table(META)?.get(key)?.map(|word| word.value()))
    }

    pub(super) fn set_word(&self, key: &str, word: &str) -> Result<(), IndexError> {
        self.change(|tx| {
            tx.open_table(META)?.insert(key, word.to_owned())?;
            Ok(())
        })
    }

    /// For each of these objects whether the repository has it, as far as this node knows.
    pub(super) fn has(&self, names: &[ObjectName]) -> Result<Vec<bool>, IndexError> {
        let has = self.db.begin_read()?.open_table(HAS)?;
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
        })?;
        self.not_evicted(names)
    }

    /// This node is about to give up its copies of these objects, which have so many stored bytes. Durable when it returns.
    pub(super) fn evict(&self, copies: &[(ObjectName, u64)]) -> Result<(), IndexError> {
        if copies.is_empty() {
            return Ok(());
        }
        let mut added = ObjectAmount::default();
        self.change(|tx| {
            let mut evicted = tx.open_table(EVICTED)?;
            for (name, bytes) in copies {
                if evicted.insert(*name.as_bytes(), *bytes)?.is_none() {
                    added.objects += 1;
                    added.bytes += bytes;
                }
            }
            Ok(())
        })?;
        let mut sum = lock(&self.evicted);
        sum.objects += added.objects;
        sum.bytes += added.bytes;
        Ok(())
    }

    /// These are here again, or the repository does not have them. Most of the time none of them was evicted.
    pub(super) fn not_evicted(&self, names: &[ObjectName]) -> Result<(), IndexError> {
        let evicted = self.evicted(names)?;
        let names: Vec<ObjectName> =
            names.iter().zip(evicted).filter(|(_, evicted)| *evicted).map(|(name, _)| *name).collect();
        if names.is_empty() {
            return Ok(());
        }
        let mut gone = ObjectAmount::default();
        self.change(|tx| {
            let mut evicted = tx.open_table(EVICTED)?;
            for name in &names {
                if let Some(bytes) = evicted.remove(*name.as_bytes())? {
                    gone.objects += 1;
                    gone.bytes += bytes.value();
                }
            }
            Ok(())
        })?;
        let mut sum = lock(&self.evicted);
        sum.objects = sum.objects.saturating_sub(gone.objects);
        sum.bytes = sum.bytes.saturating_sub(gone.bytes);
        Ok(())
    }

    /// For each of these objects whether this node gave its copy up.
    pub(super) fn evicted(&self, names: &[ObjectName]) -> Result<Vec<bool>, IndexError> {
        if self.evicted_amount().objects == 0 {
            return Ok(vec![false; names.len()]);
        }
        let evicted = self.db.begin_read()?.open_table(EVICTED)?;
        names.iter().map(|name| Ok(evicted.get(*name.as_bytes())?.is_some())).collect()
    }

    /// Those of these objects of which this node takes it that the repository has them.
    pub(super) fn shelved(&self, names: &[ObjectName]) -> Result<BTreeSet<ObjectName>, IndexError> {
        let (has, evicted) = (self.has(names)?, self.evicted(names)?);
        Ok(names
            .iter()
            .zip(has.iter().zip(evicted))
            .filter(|(_, (has, evicted))| **has || *evicted)
            .map(|(n, _)| *n)
            .collect())
    }

    /// The copies that this node gave up.
    pub(super) fn evicted_amount(&self) -> ObjectAmount {
        *lock(&self.evicted)
    }

    /// The objects after a name of which this node gave its copy up, in order, at most so many, with the stored bytes.
    pub(super) fn evicted_after(
        &self,
        after: Option<ObjectName>,
        most: usize,
    ) -> Result<Vec<(ObjectName, u64)>, IndexError> {
        let evicted = self.db.begin_read()?.open_table(EVICTED)?;
        let from = after.map_or(Bound::Unbounded, |name| Bound::Excluded(*name.as_bytes()));
        let rows = evicted.range::<[u8; 32]>((from, Bound::Unbounded))?.take(most);
        rows.map(|row| row.map(|(name, bytes)| (ObjectName::from_bytes(name.value()), bytes.value())))
            .map(|row| Ok(row?))
            .collect()
    }

    /// Opens the table, which an older release did not make, and adds it up.
    fn count_evicted(&self) -> Result<(), IndexError> {
        self.change(|tx| tx.open_table(EVICTED).map(drop).map_err(IndexError::from))?;
        let mut sum = ObjectAmount::default();
        for row in self.db.begin_read()?.open_table(EVICTED)?.iter()? {
            sum.objects += 1;
            sum.bytes += row?.1.value();
        }
        *lock(&self.evicted) = sum;
        Ok(())
    }

    /// The objects of which this node takes it that the repository has them and whose names begin with this byte, in order.
    pub(super) fn shelf(&self, first: u8) -> Result<BTreeSet<ObjectName>, IndexError> {
        let (mut low, mut high) = ([0; 32], [0xff; 32]);
        (low[0], high[0]) = (first, first);
        let tx = self.db.begin_read()?;
        let mut names = BTreeSet::new();
        for table in [HAS, EVICTED] {
            for row in tx.open_table(table)?.range(low..=high)? {
                names.insert(ObjectName::from_bytes(row?.0.value()));
            }
        }
        Ok(names)
    }

    /// Nothing needs these since a round of this history, unless an earlier one said so. What is known of another history is
    /// forgotten.
    pub(super) fn dying(&self, history: &str, round: u64, names: &[ObjectName]) -> Result<(), IndexError> {
        self.follow(history)?;
        self.add_dying(round, names, false)
    }

    /// Nothing needs these, and another node deletes them in the repository. It need not be asked for them before it did.
    pub(super) fn unneeded(&self, names: &[ObjectName]) -> Result<(), IndexError> {
        let has = self.has(names)?;
        let known: Vec<ObjectName> = names.iter().zip(has).filter(|(_, has)| *has).map(|(name, _)| *name).collect();
        self.forget(&known)?;
        self.not_evicted(names)
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
        let dying = self.db.begin_read()?.open_table(DYING)?;
        let mut due = Vec::new();
        let from = after.map_or(Bound::Unbounded, |name| Bound::Excluded(*name.as_bytes()));
        for row in dying.range::<[u8; 32]>((from, Bound::Unbounded))? {
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
        let tx = self.db.begin_write()?;
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
        assert_eq!(index.shelf(1).expect("reads"), BTreeSet::from([a]));
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
    fn what_was_evicted_survives_a_restart_until_it_is_here_again_or_gone_from_the_repository() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("repository.redb");
        let (a, b, c) = (name(1, 1), name(1, 2), name(2, 1));
        let index = Index::open(&file, "here").expect("opens");
        index.note(&[(a, 110)]).expect("notes");
        index.evict(&[(a, 10), (b, 20)]).expect("notes");
        index.evict(&[(b, 20), (c, 30)]).expect("notes");
        drop(index);
        let index = Index::open(&file, "here").expect("opens");
        assert_eq!(index.evicted_amount(), ObjectAmount { objects: 3, bytes: 60 });
        assert_eq!(index.shelf(1).expect("reads"), BTreeSet::from([a, b]));
        assert_eq!(index.evicted_after(Some(a), 1).expect("reads"), [(b, 20)]);
        index.not_evicted(&[b]).expect("notes");
        index.forget(&[a]).expect("forgets");
        assert_eq!(index.evicted(&[a, b, c]).expect("reads"), [false, false, true]);
        index.unneeded(&[c]).expect("forgets");
        assert_eq!(index.evicted_amount(), ObjectAmount::default());
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
