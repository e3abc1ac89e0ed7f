//! Counts for each object how many others reach it, so that a round of the sweep costs what changed and not what is there.
//!
//! ```text
//!  root ──► descriptor ──► root page ──► page ──► chunk, pack        count = number of distinct parents that are counted
//!
//!  begin(round) ──► enter what is new ──► pages to count ──► leave what is gone ──► pages to count ──► finish
//!                                             ▲    │ apply                              ▲    │ apply
//!                                             └────┘                                    └────┘
//! ```
//! A descriptor is entered once, whoever names it, and a page is counted once, whoever shares it: its children are counted
//! when its own count becomes 1, and taken back when that becomes 0. A name whose count becomes 0 is *dead*: the nodes may
//! drop the object in this round (I6).
//!
//! Pages are not kept here. One whose children have to be counted is noted as *work* in the same transaction that changes
//! its own count; the caller fetches it and hands it in. So a batch is as small as the caller wants, and a crash between two
//! batches repeats nothing and forgets nothing. Work of the opposite direction cancels: a page that is reached again before
//! its children were taken back needs neither.
//!
//! Everything here can be made anew from the roots and the pages, so a damaged or foreign index is thrown away. A wrong count
//! would lose data of users: what cannot be is an error ([`CensusError::Inconsistent`]) and never corrected in silence.

mod counts;
mod tables;

use std::{collections::BTreeSet, fs, io, path::Path};

use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata};

pub use self::tables::Direction;
use self::{
    counts::Shift,
    tables::{COUNTS, DEAD, META, ROOTS, WORK},
};
use crate::{Corrupt, Descriptor, ObjectName, tree::Page};

/// The state of the database that roots are of. Counts of another history are never used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History {
    /// Raised when an older copy of the database takes its place.
    pub number: u64,
    /// Drawn at random when the number is raised.
    pub random: u64,
}

/// The counts of all objects that roots reach, in a file of their own. Every call may block on the disk.
#[derive(Debug)]
pub struct Census {
    database: Database,
}

/// What is to change so that exactly the listed roots are counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Descriptors that are listed and not counted. Enter them first, so that what they share with others stays counted.
    pub entering: Vec<ObjectName>,
    /// Descriptors that are counted and not listed any more.
    pub leaving: Vec<ObjectName>,
}

/// How far a census is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The newest round of which everything is counted; 0 if there is none.
    pub finished: u64,
    /// The newest round that was begun; 0 if none was since the index was made. The dead are those of this round.
    pub begun: u64,
    /// Roots that are counted.
    pub roots: u64,
    /// Objects that they reach.
    pub objects: u64,
    /// Objects that nothing reaches since the round that was begun.
    pub dead: u64,
}

/// Why a census could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CensusError {
    /// The folder of the index failed.
    #[error("{op} the index of reached objects failed")]
    Io {
        /// What was tried, as a verb.
        op: &'static str,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The index could not be read or written.
    #[error("the index of reached objects failed")]
    Index {
        /// The error of the index's database.
        source: Box<redb::Error>,
    },
    /// A page is not of the level that its place needs.
    #[error("page {page} of a version is damaged")]
    Page {
        /// Name of the page.
        page: ObjectName,
        /// What is wrong with it.
        source: Corrupt,
    },
    /// The counts contradict themselves. The index has to be made anew.
    #[error("the index of reached objects is wrong about {name}: {what}")]
    Inconsistent {
        /// The object that shows it.
        name: ObjectName,
        /// What is wrong.
        what: &'static str,
    },
    /// Something is done out of order.
    #[error("{what} of round {round} while the index is at round {begun}")]
    Order {
        /// What was asked for.
        what: &'static str,
        /// The round that it was asked for.
        round: u64,
        /// The round that was begun last.
        begun: u64,
    },
}

impl Census {
    /// Opens the index in `file`. If it is of another history, of another format or damaged, a new one takes its place, which
    /// counts nothing.
    pub fn open(file: &Path, history: History) -> Result<Census, CensusError> {
        match tables::existing(file, history)? {
            Some(database) => Ok(Census { database }),
            None => Census::make(file, history),
        }
    }

    /// Makes a new index in place of the one in `file`, which must not be open.
    pub fn make(file: &Path, history: History) -> Result<Census, CensusError> {
        match fs::remove_file(file) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(CensusError::Io { op: "removing", source }),
            _ => Ok(Census { database: tables::create(file, history)? }),
        }
    }

    /// How far the census is, and how much it counts.
    pub fn progress(&self) -> Result<Progress, CensusError> {
        let read = self.database.begin_read().map_err(failed)?;
        let get = || -> Result<Progress, redb::Error> {
            let meta = read.open_table(META)?;
            Ok(Progress {
                finished: tables::number(&meta, tables::FINISHED)?,
                begun: tables::number(&meta, tables::BEGUN)?,
                roots: read.open_table(ROOTS)?.len()?,
                objects: read.open_table(COUNTS)?.len()?,
                dead: read.open_table(DEAD)?.len()?,
            })
        };
        get().map_err(failed)
    }

    /// Begins a round, or goes on with it.
    ///
    /// # Errors
    /// [`CensusError::Order`] if a later round was begun.
    pub fn begin(&self, round: u64) -> Result<(), CensusError> {
        let begun = self.progress()?.begun;
        if round < begun {
            return Err(CensusError::Order { what: "the beginning", round, begun });
        }
        if round == begun {
            return Ok(());
        }
        self.change(|write| {
            // Only nodes that carried out the round before ask for the dead, so those of earlier rounds are not needed.
            write.delete_table(DEAD)?;
            write.open_table(DEAD)?;
            write.open_table(META)?.insert(tables::BEGUN, round)?;
            Ok(())
        })
    }

    /// What is to change so that exactly these roots are counted. Work that is left is not part of it.
    pub fn difference(&self, roots: &BTreeSet<ObjectName>) -> Result<Difference, CensusError> {
        let read = self.database.begin_read().map_err(failed)?;
        let get = || -> Result<Difference, redb::Error> {
            let known = read.open_table(ROOTS)?;
            let mut difference = Difference::default();
            for name in roots {
                if known.get(name.as_bytes())?.is_none() {
                    difference.entering.push(*name);
                }
            }
            for row in known.iter()? {
                let name = ObjectName::from_bytes(row?.0.value());
                if !roots.contains(&name) {
                    difference.leaving.push(name);
                }
            }
            Ok(difference)
        };
        get().map_err(failed)
    }

    /// Counts roots. Those that are counted already are left alone.
    pub fn enter(&self, roots: &[Descriptor]) -> Result<(), CensusError> {
        self.change(|write| {
            let mut shift = Shift::default();
            let mut known = write.open_table(ROOTS)?;
            for root in roots {
                let name = root.name();
                if known.insert(name.as_bytes(), root.encode())?.is_none() {
                    shift.root(root, Direction::Enter);
                }
            }
            drop(known);
            shift.apply(write)
        })
    }

    /// Counts roots no more. Those that are not counted are left alone.
    pub fn leave(&self, roots: &[ObjectName]) -> Result<(), CensusError> {
        self.change(|write| {
            let mut shift = Shift::default();
            let mut known = write.open_table(ROOTS)?;
            for name in roots {
                if let Some(bytes) = known.remove(name.as_bytes())? {
                    let root = Descriptor::decode(&bytes.value());
                    let root = root.map_err(|_| wrong(*name, "its descriptor does not decode"))?;
                    shift.root(&root, Direction::Leave);
                }
            }
            drop(known);
            shift.apply(write)
        })
    }

    /// Some of the pages whose children are still to be counted, or to be taken back; at most `count_max`. Hand them to
    /// [`Census::apply`]. None of either kind are left when all roots that were entered are counted, and all that left are
    /// taken back.
    pub fn work(&self, direction: Direction, count_max: usize) -> Result<Vec<ObjectName>, CensusError> {
        let read = self.database.begin_read().map_err(failed)?;
        let get = || -> Result<Vec<ObjectName>, Refused> {
            let mut found = Vec::new();
            for row in read.open_table(WORK)?.iter()? {
                let (name, row) = row?;
                let page = ObjectName::from_bytes(name.value());
                if tables::work(page, row.value())?.1 == direction {
                    found.push(page);
                }
                if found.len() == count_max {
                    break;
                }
            }
            Ok(found)
        };
        get().map_err(CensusError::from)
    }

    /// Counts the children of pages, or takes them back. Pages that are no work any more are left alone. They must have been
    /// checked against their names.
    pub fn apply(&self, pages: &[(ObjectName, Page)]) -> Result<(), CensusError> {
        self.change(|write| {
            let mut shift = Shift::default();
            let mut work = write.open_table(WORK)?;
            for (name, page) in pages {
                let Some(row) = work.remove(name.as_bytes())?.map(|row| row.value()) else { continue };
                let (level, direction) = tables::work(*name, row)?;
                if page.level() != level && direction == Direction::Leave {
                    return Err(wrong(*name, "it was entered at another level").into());
                }
                if page.level() != level {
                    let got = page.level().into();
                    let source = Corrupt::Field { what: "page", field: "level at this place", got };
                    return Err(CensusError::Page { page: *name, source }.into());
                }
                shift.page(page, direction);
            }
            drop(work);
            shift.apply(write)
        })
    }

    /// Everything that the roots of this round reach is counted, and nothing else.
    ///
    /// # Errors
    /// [`CensusError::Order`] if another round was begun, or work is left.
    pub fn finish(&self, round: u64) -> Result<Progress, CensusError> {
        let begun = self.progress()?.begun;
        self.change(|write| {
            if round != begun || !write.open_table(WORK)?.is_empty()? {
                return Err(CensusError::Order { what: "the end", round, begun }.into());
            }
            write.open_table(META)?.insert(tables::FINISHED, round)?;
            Ok(())
        })?;
        self.progress()
    }

    /// For each name whether something reaches it.
    pub fn needed(&self, names: &[ObjectName]) -> Result<Vec<bool>, CensusError> {
        let read = self.database.begin_read().map_err(failed)?;
        let get = || -> Result<Vec<bool>, redb::Error> {
            let counts = read.open_table(COUNTS)?;
            names.iter().map(|name| Ok(counts.get(name.as_bytes())?.is_some())).collect()
        };
        get().map_err(failed)
    }

    /// The dead of the round that was begun last, after a name, in order, at most `count_max`.
    pub fn dead(&self, after: Option<&ObjectName>, count_max: usize) -> Result<Vec<ObjectName>, CensusError> {
        use std::ops::Bound;
        let read = self.database.begin_read().map_err(failed)?;
        let get = || -> Result<Vec<ObjectName>, redb::Error> {
            let from = after.map_or(Bound::Unbounded, |name| Bound::Excluded(*name.as_bytes()));
            let mut names = Vec::new();
            for row in read.open_table(DEAD)?.range::<[u8; 32]>((from, Bound::Unbounded))?.take(count_max) {
                names.push(ObjectName::from_bytes(row?.0.value()));
            }
            Ok(names)
        };
        get().map_err(failed)
    }

    /// Changes the index in one transaction. It is as before if anything fails.
    fn change<T>(&self, work: impl FnOnce(&redb::WriteTransaction) -> Result<T, Refused>) -> Result<T, CensusError> {
        let write = self.database.begin_write().map_err(failed)?;
        let done = work(&write).map_err(CensusError::from)?;
        write.commit().map_err(failed)?;
        Ok(done)
    }
}

/// Why a change is not made. It lets the database's many error types become one.
enum Refused {
    Census(CensusError),
    Index(redb::Error),
}

impl From<CensusError> for Refused {
    fn from(error: CensusError) -> Refused {
        Refused::Census(error)
    }
}

impl<E> From<E> for Refused
where
    redb::Error: From<E>,
{
    fn from(error: E) -> Refused {
        Refused::Index(error.into())
    }
}

impl From<Refused> for CensusError {
    fn from(refused: Refused) -> CensusError {
        match refused {
            Refused::Census(error) => error,
            Refused::Index(error) => failed(error),
        }
    }
}

fn failed(source: impl Into<redb::Error>) -> CensusError {
    CensusError::Index { source: Box::new(source.into()) }
}

fn wrong(name: ObjectName, what: &'static str) -> CensusError {
    CensusError::Inconsistent { name, what }
}
