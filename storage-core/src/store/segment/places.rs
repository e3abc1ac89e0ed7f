//! Where each object is: recent places in memory, older ones in the index, and the way from one to the other.

use std::{
    collections::BTreeMap,
    sync::{Arc, MutexGuard, TryLockError},
};

use super::{SegmentStore, Writer};
use crate::{
    ObjectName,
    store::{
        Listed, StoreError,
        index::{Changes, Place},
    },
};

/// Syncs between two tries to write an index that could not be written. On a full disk each try costs opening it.
const INDEX_PAUSE: u32 = 64;

/// Places that are not in the index yet.
#[derive(Debug, Default)]
pub(super) struct Recent {
    pub(super) newer: Changes,
    /// On their way into the index. `newer` overrides them.
    pub(super) older: Arc<Changes>,
}

impl SegmentStore {
    /// Where an object is; none: it is not here.
    pub(super) fn place(&self, name: &ObjectName) -> Result<Option<Place>, StoreError> {
        let recent = self.recent();
        match recent.newer.get(name).or_else(|| recent.older.get(name)) {
            Some(place) => Ok(*place),
            // The lock is still held. Otherwise a place on its way into the index could be in neither when looked at.
            None => self.index.get(name),
        }
    }

    /// Notes where an object is now, and counts it.
    pub(super) fn change(&self, writer: &mut Writer, name: ObjectName, before: Option<Place>, now: Option<Place>) {
        let totals = &mut writer.totals;
        if let Some(before) = before {
            totals.objects -= 1;
            // Nothing checks single rows of the index, so a damaged one may say more than there is.
            totals.bytes = totals.bytes.saturating_sub(before.stored_len.into());
        }
        if let Some(now) = now {
            totals.objects += 1;
            totals.bytes += u64::from(now.stored_len);
        }
        self.recent_mut().newer.insert(name, now);
    }

    pub(super) fn list_places(&self, after: Option<&ObjectName>, count_max: usize) -> Result<Vec<Listed>, StoreError> {
        let recent = self.recent();
        let wanted = |name: &&ObjectName| after.is_none_or(|after| *name > after);
        let mut merged: BTreeMap<ObjectName, Option<Place>> = BTreeMap::new();
        for changes in [recent.older.as_ref(), &recent.newer] {
            merged.extend(changes.iter().filter(|(name, _)| wanted(name)).map(|(n, p)| (*n, *p)));
        }
        // As many from the index that the answer is whole even if every recent drop is among them.
        let dropped = merged.values().filter(|p| p.is_none()).count();
        for (name, place) in self.index.list(after, count_max.saturating_add(dropped))? {
            merged.entry(name).or_insert(Some(place));
        }
        let listed = |(name, place): (ObjectName, Option<Place>)| place.map(|place| place.listed(name));
        Ok(merged.into_iter().filter_map(listed).take(count_max).collect())
    }

    /// Writes the recent places into the index and moves its watermark to the end of what is appended.
    pub(super) fn advance(&self, _advancing: &MutexGuard<'_, ()>) -> Result<(), StoreError> {
        let (segments, totals, appended) = {
            let mut writer = self.writer();
            writer.check()?;
            let mut recent = self.recent_mut();
            recent.older = Arc::new(std::mem::take(&mut recent.newer));
            let mut segments = std::mem::take(&mut writer.sealed);
            segments.extend(writer.active.as_ref().map(|a| (a.number, a.end)));
            writer.since_index = 0;
            (segments, writer.totals, writer.appended)
        };
        self.sync_up_to(appended)?;
        let changes = self.recent().older.clone();
        if let Err(error) = self.index.advance(&changes, &segments, totals) {
            self.take_back(&changes, segments);
            return Err(error);
        }
        self.recent_mut().older = Arc::default();
        Ok(())
    }

    /// Keeps in memory what could not be written into the index (the disk is full). Nothing is lost: the segments
    /// have it.
    fn take_back(&self, changes: &Changes, segments: BTreeMap<u32, u64>) {
        let mut writer = self.writer();
        let mut recent = self.recent_mut();
        for (name, place) in changes {
            recent.newer.entry(*name).or_insert(*place);
        }
        recent.older = Arc::default();
        let active = writer.active.as_ref().map(|a| a.number);
        for (number, len) in segments.into_iter().filter(|(number, _)| Some(*number) != active) {
            writer.sealed.entry(number).or_insert(len);
        }
        writer.index_pause = INDEX_PAUSE;
    }

    /// Writes the index if enough has gathered and no other thread is writing it. Who removes objects does so when half of
    /// that has (`part` 2), so that those who put seldom have to.
    pub(super) fn advance_if_due(&self, part: usize) {
        let due = {
            let objects = self.recent().newer.len();
            objects >= self.options.index_after_objects / part
                || self.writer().since_index >= self.options.index_after_bytes
        };
        if !due {
            return;
        }
        {
            let mut writer = self.writer();
            if writer.index_pause > 0 {
                writer.index_pause -= 1;
                return;
            }
        }
        let advancing = match self.advancing.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        // The caller's data is durable whatever becomes of the index.
        let _ = self.advance(&advancing);
    }
}
