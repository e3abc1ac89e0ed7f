//! Copies that the disk does not read. They do not count as copies until it reads them again.
//!
//! A copy is marked when a read of it fails with an error of the disk, and the mark goes when a read succeeds, when the
//! object is put again (it gets a new place), or when it is removed. Marks are in memory: after a start a copy counts until
//! somebody reads it, or until the caller doubts it ([`crate::ChunkStore::doubt`]).

use std::{collections::BTreeMap, io};

use super::SegmentStore;
use crate::{
    ObjectName, lock,
    store::{Listed, StoreError, UNREADABLE_MAX, Unreadable, disk, index::Place},
};

/// The marks. A mark of a place at which the object is not any more says nothing.
#[derive(Debug, Default)]
pub(super) struct Unread(BTreeMap<ObjectName, Mark>);

/// Why a copy does not count.
#[derive(Clone, Copy, Debug)]
struct Mark {
    /// Where it is.
    place: Place,
    /// A read of it failed. Otherwise it is only doubted.
    read_failed: bool,
}

impl SegmentStore {
    /// Notes how a read of a copy ended.
    pub(super) fn note_read(&self, name: &ObjectName, place: Place, error: Option<&io::Error>) {
        match error {
            None => self.forgive(name),
            Some(error) if disk::is_failure(error) => self.mark(*name, Mark { place, read_failed: true }),
            // The process lacks something, memory or open files. That says nothing about the copy.
            Some(_) => {}
        }
    }

    fn forgive(&self, name: &ObjectName) {
        lock(&self.unread).0.remove(name);
    }

    fn mark(&self, name: ObjectName, mark: Mark) {
        let mut marks = lock(&self.unread);
        let before = marks.0.get(&name).copied();
        if marks.0.len() < UNREADABLE_MAX || before.is_some() {
            // A doubt does not undo what a read found.
            let failed_there = before.is_some_and(|b| b.read_failed && b.place.at() == mark.place.at());
            marks.0.insert(name, Mark { read_failed: mark.read_failed || failed_there, ..mark });
        }
    }

    /// Whether the copy at this place does not count.
    pub(super) fn is_unread(&self, name: &ObjectName, place: Place) -> bool {
        lock(&self.unread).0.get(name).is_some_and(|mark| mark.place.at() == place.at())
    }

    pub(super) fn doubt_copies(&self, names: &[ObjectName]) {
        for name in names {
            if let Ok(Some(place)) = self.place(name) {
                self.mark(*name, Mark { place, read_failed: false });
            }
        }
    }

    pub(super) fn unreadable_copies(&self) -> Vec<Unreadable> {
        let marks: Vec<(ObjectName, Mark)> = lock(&self.unread).0.iter().map(|(name, mark)| (*name, *mark)).collect();
        let mut unreadable = Vec::with_capacity(marks.len());
        for (name, Mark { place, read_failed }) in marks {
            match self.place(&name) {
                Ok(now) if now.is_none_or(|now| now.at() != place.at()) => self.forgive(&name),
                // When the index cannot tell either, the mark stays.
                _ => unreadable.push(Unreadable { name, stored_bytes: place.stored_len.into(), read_failed }),
            }
        }
        unreadable
    }

    /// The next objects that count.
    pub(super) fn list_counting(
        &self,
        after: Option<&ObjectName>,
        count_max: usize,
    ) -> Result<Vec<Listed>, StoreError> {
        let mut after = after.copied();
        loop {
            let part = self.list_places(after.as_ref(), count_max)?;
            let Some(last) = part.last() else { return Ok(part) };
            after = Some(last.name);
            let marks = lock(&self.unread).0.clone();
            if marks.is_empty() {
                return Ok(part);
            }
            let mut counting = Vec::with_capacity(part.len());
            for object in part {
                let is_unread = match marks.get(&object.name) {
                    None => false,
                    Some(marked) => self.place(&object.name)?.is_none_or(|now| now.at() == marked.place.at()),
                };
                if !is_unread {
                    counting.push(object);
                }
            }
            if !counting.is_empty() {
                return Ok(counting);
            }
        }
    }
}
