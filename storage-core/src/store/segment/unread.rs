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

/// The marks: the place of the copy, and its stored bytes. A mark of a place at which the object is not any more says
/// nothing.
#[derive(Debug, Default)]
pub(super) struct Unread(BTreeMap<ObjectName, Place>);

impl SegmentStore {
    /// Notes how a read of a copy ended.
    pub(super) fn note_read(&self, name: &ObjectName, place: Place, error: Option<&io::Error>) {
        match error {
            None => self.forgive(name),
            Some(error) if disk::is_failure(error) => self.mark(*name, place),
            // The process lacks something, memory or open files. That says nothing about the copy.
            Some(_) => {}
        }
    }

    fn forgive(&self, name: &ObjectName) {
        lock(&self.unread).0.remove(name);
    }

    fn mark(&self, name: ObjectName, place: Place) {
        let mut marks = lock(&self.unread);
        if marks.0.len() < UNREADABLE_MAX || marks.0.contains_key(&name) {
            marks.0.insert(name, place);
        }
    }

    /// Whether the copy at this place does not count.
    pub(super) fn is_unread(&self, name: &ObjectName, place: Place) -> bool {
        lock(&self.unread).0.get(name).is_some_and(|marked| marked.at() == place.at())
    }

    pub(super) fn doubt_copies(&self, names: &[ObjectName]) {
        for name in names {
            if let Ok(Some(place)) = self.place(name) {
                self.mark(*name, place);
            }
        }
    }

    pub(super) fn unreadable_copies(&self) -> Vec<Unreadable> {
        let marks: Vec<(ObjectName, Place)> =
            lock(&self.unread).0.iter().map(|(name, place)| (*name, *place)).collect();
        let mut unreadable = Vec::with_capacity(marks.len());
        for (name, marked) in marks {
            match self.place(&name) {
                Ok(now) if now.is_none_or(|now| now.at() != marked.at()) => self.forgive(&name),
                // When the index cannot tell either, the mark stays.
                _ => unreadable.push(Unreadable { name, stored_bytes: marked.stored_len.into() }),
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
                    Some(marked) => self.place(&object.name)?.is_none_or(|now| now.at() == marked.at()),
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
