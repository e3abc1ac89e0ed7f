//! The tables of the index, and how it is opened.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition};

use super::{CensusError, History, failed, wrong};
use crate::{Descriptor, ObjectName};

const FORMAT_VERSION: u64 = 1;
/// Bytes of the index kept in memory.
const CACHE_BYTES: usize = 64 << 20;

/// Object -> number of distinct parents that are counted, at least 1.
pub(super) const COUNTS: TableDefinition<'_, [u8; 32], u32> = TableDefinition::new("counts");
/// Name of each descriptor that is counted -> its canonical bytes.
pub(super) const ROOTS: TableDefinition<'_, [u8; 32], [u8; Descriptor::BYTES]> = TableDefinition::new("roots");
/// Page whose children are to be counted (1) or taken back (0) -> its level and which of the two.
pub(super) const WORK: TableDefinition<'_, [u8; 32], (u8, u8)> = TableDefinition::new("work");
/// Objects whose count became 0 in the round that was begun last.
pub(super) const DEAD: TableDefinition<'_, [u8; 32], ()> = TableDefinition::new("dead");
/// The numbers below.
pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const FORMAT: &str = "format";
const NUMBER: &str = "history.number";
const RANDOM: &str = "history.random";
/// The newest round that was begun.
pub(super) const BEGUN: &str = "begun";
/// The newest round of which everything is counted.
pub(super) const FINISHED: &str = "finished";

/// Whether the children of a page are to be counted or to be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Counted: something reaches the page now.
    Enter,
    /// Taken back: nothing reaches it any more.
    Leave,
}

impl Direction {
    /// What it adds to the count of each child.
    pub(super) fn step(self) -> i64 {
        match self {
            Direction::Enter => 1,
            Direction::Leave => -1,
        }
    }

    /// The row of a page of this level.
    pub(super) fn row(self, level: u8) -> (u8, u8) {
        (level, u8::from(self == Direction::Enter))
    }
}

/// What a row of [`WORK`] says.
pub(super) fn work(name: ObjectName, (level, direction): (u8, u8)) -> Result<(u8, Direction), CensusError> {
    match direction {
        1 => Ok((level, Direction::Enter)),
        0 => Ok((level, Direction::Leave)),
        _ => Err(wrong(name, "its work has no direction")),
    }
}

/// The number with this key; 0 if there is none.
pub(super) fn number(meta: &impl ReadableTable<&'static str, u64>, key: &str) -> Result<u64, redb::Error> {
    Ok(meta.get(key)?.map_or(0, |number| number.value()))
}

/// The index in `file`, if it is whole and of this history. Opening reads all of it and compares its checksums.
pub(super) fn existing(file: &Path, history: History) -> Result<Option<Database>, CensusError> {
    if !file.try_exists().map_err(|source| CensusError::Io { op: "looking for", source })? {
        return Ok(None);
    }
    // On a damaged file redb answers an error or panics. Both mean here that there is no usable index.
    let opened = catch_unwind(AssertUnwindSafe(|| -> Result<Option<Database>, redb::Error> {
        let database =
            Database::builder().set_cache_size(CACHE_BYTES).set_check_integrity_on_open(true).create(file)?;
        let meta = database.begin_read()?.open_table(META)?;
        let fits = number(&meta, FORMAT)? == FORMAT_VERSION
            && number(&meta, NUMBER)? == history.number
            && number(&meta, RANDOM)? == history.random;
        Ok(fits.then_some(database))
    }));
    match opened {
        // That the disk fails, or somebody else has it open, is no reason to throw the index away.
        Ok(Err(redb::Error::Io(source))) if !is_damage(&source) => Err(failed(StorageError::Io(source))),
        Ok(Err(redb::Error::DatabaseAlreadyOpen)) => Err(failed(DatabaseError::DatabaseAlreadyOpen)),
        Ok(Ok(found)) => Ok(found),
        Ok(Err(_)) | Err(_) => Ok(None),
    }
}

/// A new index.
pub(super) fn create(file: &Path, history: History) -> Result<Database, CensusError> {
    let make = || -> Result<Database, redb::Error> {
        let database = Database::builder().set_cache_size(CACHE_BYTES).create(file)?;
        let write = database.begin_write()?;
        {
            write.open_table(COUNTS)?;
            write.open_table(ROOTS)?;
            write.open_table(WORK)?;
            write.open_table(DEAD)?;
            let mut meta = write.open_table(META)?;
            meta.insert(FORMAT, FORMAT_VERSION)?;
            meta.insert(NUMBER, history.number)?;
            meta.insert(RANDOM, history.random)?;
        }
        write.commit()?;
        Ok(database)
    };
    make().map_err(failed)
}

/// Whether an error means a damaged file (such as a read beyond its end) and not a failing disk.
fn is_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput)
}
