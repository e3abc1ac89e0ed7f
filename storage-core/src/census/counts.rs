//! Changes of counts, and what follows from a count that becomes 1 or 0.

use std::collections::{BTreeSet, HashMap};

use redb::{ReadableTable, WriteTransaction};

use super::{
    Refused,
    tables::{self, COUNTS, DEAD, Direction, WORK},
    wrong,
};
use crate::{Descriptor, ObjectName, tree::Page};

/// What is added to the counts of objects in one transaction.
#[derive(Default)]
pub(super) struct Shift {
    added: HashMap<ObjectName, i64>,
    /// The levels of those that are pages.
    levels: HashMap<ObjectName, u8>,
}

impl Shift {
    /// The root itself and its root page.
    pub(super) fn root(&mut self, root: &Descriptor, direction: Direction) {
        self.add(root.name(), direction);
        if let (Some(page), Some(level)) = (root.root, root.height().checked_sub(1)) {
            self.add(page, direction);
            self.levels.insert(page, level);
        }
    }

    /// The children of a page, each once, however many slots lead to it.
    pub(super) fn page(&mut self, page: &Page, direction: Direction) {
        let children: BTreeSet<ObjectName> = page.children().map(|(_, child)| *child).collect();
        for child in children {
            self.add(child, direction);
            self.levels.insert(child, page.level() - 1);
        }
        let objects: BTreeSet<ObjectName> = page.entries().flat_map(|(_, leaf)| leaf.objects().copied()).collect();
        for object in objects {
            self.add(object, direction);
        }
    }

    fn add(&mut self, name: ObjectName, direction: Direction) {
        *self.added.entry(name).or_default() += direction.step();
    }

    /// Changes the counts. What is reached no more becomes dead, and what is reached again is not dead. A page of which
    /// either is so becomes work.
    pub(super) fn apply(self, write: &WriteTransaction) -> Result<(), Refused> {
        // In name order, so that each page of the index is visited once.
        let mut added: Vec<(ObjectName, i64)> = self.added.into_iter().filter(|(_, more)| *more != 0).collect();
        added.sort_unstable_by_key(|(name, _)| *name);
        let mut counts = write.open_table(COUNTS)?;
        let mut dead = write.open_table(DEAD)?;
        let mut work = write.open_table(WORK)?;
        for (name, more) in added {
            let before = counts.get(name.as_bytes())?.map_or(0, |count| i64::from(count.value()));
            let after = before + more;
            let count = u32::try_from(after).map_err(|_| wrong(name, "more parents leave it than have entered"))?;
            let turned = match (before, count) {
                (_, 0) => {
                    counts.remove(name.as_bytes())?;
                    dead.insert(name.as_bytes(), ())?;
                    Direction::Leave
                }
                (0, count) => {
                    counts.insert(name.as_bytes(), count)?;
                    dead.remove(name.as_bytes())?;
                    Direction::Enter
                }
                (_, count) => {
                    counts.insert(name.as_bytes(), count)?;
                    continue;
                }
            };
            let Some(level) = self.levels.get(&name) else { continue };
            let waiting = work.remove(name.as_bytes())?.map(|row| row.value());
            match waiting {
                None => drop(work.insert(name.as_bytes(), turned.row(*level))?),
                // The opposite was still to be done, so its children are counted as they should be.
                Some(row) if tables::work(name, row)?.1 != turned => {}
                Some(_) => return Err(wrong(name, "its children would be counted twice").into()),
            }
        }
        Ok(())
    }
}
