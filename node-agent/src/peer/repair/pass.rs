//! A pass over the objects of this node, in name order.

use std::{collections::BTreeSet, future::Future};

use futures::{StreamExt as _, stream};
use muster_api::node::ObjectAmount;
use muster_pool::{Avoided, Delivered, HandedOver, Lacking, Parcel};
use storage_core::{
    ObjectName,
    cause::explain,
    store::{ChunkStore, Listed, StoreError},
    units::{u64_from, usize_from},
};
use tracing::{debug, info, warn};

use super::Repair;
use crate::pace::give_way;

/// Objects that are compared with other nodes together.
const BATCH: usize = 4096;
/// Objects that are handed over together.
const HANDED_OVER: usize = 256;
/// Parcels on their way at a time, and their bytes if one has many. They are in memory.
const PARCELS: usize = 32;
const PARCELS_BYTES: u64 = 8 << 20;

/// What became of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sent {
    objects: u64,
    bytes: u64,
    /// Copies that are still missing.
    left: u64,
    /// Copies that belong to other nodes.
    surplus: u64,
    /// Those of them that are still here.
    kept: u64,
}

impl std::ops::AddAssign for Sent {
    fn add_assign(&mut self, more: Self) {
        self.objects += more.objects;
        self.bytes += more.bytes;
        self.left += more.left;
        self.surplus += more.surplus;
        self.kept += more.kept;
    }
}

impl Repair {
    /// Compares all objects of this node with other nodes and sends what they lack; then drops what they have and is theirs.
    /// Returns whether the pass was clean.
    pub async fn pass(&self) -> bool {
        let (record, epoch) = (self.pool.record(), self.pool.membership().epoch);
        let owns = self.pool.owns_objects();
        self.progress.begin(record, epoch, self.chunks.usage().objects);
        // What it took before that is found by the pass, and it takes nothing more.
        self.pool.settled().await;
        let avoided = Avoided::default();
        let mut sum = Sent::default();
        let mut whole = self.send_all(&avoided, &mut sum).await;
        if whole {
            self.progress.all_checked(avoided.silent());
            whole = self.hand_over_all(&avoided, &mut sum).await;
        }
        if whole {
            // A copy that the disk does not read now may be the last one, and the disk may read it later.
            let is_empty =
                !owns && self.with_chunks(|chunks| chunks.list_all(None, 1)).await.is_ok_and(|list| list.is_empty());
            self.progress.ended(avoided.silent(), is_empty);
        }
        let Sent { objects, bytes, left, kept, .. } = sum;
        if objects > 0 || left > 0 || kept > 0 {
            info!(
                membership.epoch = epoch,
                objects,
                bytes,
                left,
                kept,
                silent = avoided.silent(),
                "sent copies that other nodes lacked"
            );
        } else {
            debug!(membership.epoch = epoch, silent = avoided.silent(), "other nodes lack nothing");
        }
        whole && left == 0 && kept == 0 && avoided.silent() == 0
    }

    /// Sends all that other nodes lack. Returns whether it came to the end.
    async fn send_all(&self, avoided: &Avoided, sum: &mut Sent) -> bool {
        let mut last = None;
        while let Some(batch) = self.next_batch(&mut last).await {
            if batch.is_empty() {
                return true;
            }
            let (sent, surplus) = self.check(&batch, avoided).await;
            *sum += Sent { surplus: u64_from(surplus.len()), ..sent };
            self.progress.surplus(u64_from(surplus.len()), surplus.iter().map(|object| object.stored_bytes).sum());
            self.progress.checked(u64_from(batch.len()));
        }
        false
    }

    /// Drops all copies that belong to other nodes and that those have. Returns whether it came to the end: it stops when another
    /// pass is asked for, because copies that are missing somewhere go first.
    async fn hand_over_all(&self, avoided: &Avoided, sum: &mut Sent) -> bool {
        if sum.surplus == 0 {
            return true;
        }
        let (mut last, mut kept) = (None, ObjectAmount::default());
        while let Some(batch) = self.next_batch(&mut last).await {
            if batch.is_empty() {
                self.progress.kept(kept);
                return true;
            }
            for part in self.pool.surplus(&batch, avoided).chunks(HANDED_OVER) {
                if self.asked.wants_pass() {
                    return false;
                }
                let done = self.hand_over(part, avoided).await;
                kept.objects += done.kept_objects;
                kept.bytes += done.kept_bytes;
                sum.kept += done.kept_objects + done.stand_ins;
            }
        }
        false
    }

    /// The next objects of this node after the last ones. Empty at the end; none if the store cannot list them.
    async fn next_batch(&self, last: &mut Option<ObjectName>) -> Option<Vec<Listed>> {
        let after = *last;
        match self.with_chunks(move |chunks| chunks.list(after.as_ref(), BATCH)).await {
            Ok(batch) => {
                *last = batch.last().map(|object| object.name);
                Some(batch)
            }
            Err(error) => {
                warn!(error = explain(&error), "the repair cannot list the objects of this node; it tries again");
                None
            }
        }
    }

    /// As [`Repair::pass`] for those of these objects that are here.
    pub(super) async fn check_names(&self, names: BTreeSet<ObjectName>) -> bool {
        let find = move |chunks: &dyn ChunkStore| {
            let found = names.iter().map(|name| chunks.find(name)).collect::<Result<Vec<_>, _>>()?;
            Ok(found.into_iter().flatten().collect::<Vec<Listed>>())
        };
        let held = match self.with_chunks(find).await {
            Ok(held) => held,
            Err(error) => {
                warn!(error = explain(&error), "the repair cannot look for objects that another node lost");
                return false;
            }
        };
        let avoided = Avoided::default();
        let mut left = 0;
        for batch in held.chunks(BATCH) {
            left += self.check(batch, &avoided).await.0.left;
        }
        left == 0 && avoided.silent() == 0
    }

    /// Compares some objects with other nodes and sends what they lack. Returns as well which of them belong to other nodes.
    async fn check(&self, held: &[Listed], avoided: &Avoided) -> (Sent, Vec<Listed>) {
        let mut sum = Sent::default();
        loop {
            let full = avoided.full();
            let Lacking { parcels, homeless_objects, homeless_bytes, surplus } = self.pool.lacking(held, avoided).await;
            let mut left = ObjectAmount { objects: homeless_objects, bytes: homeless_bytes };
            self.progress.missing(homeless_objects, homeless_bytes);
            for parcel in &parcels {
                self.progress.missing(parcel.objects(), parcel.bytes());
            }
            let largest = parcels.iter().map(Parcel::bytes).max().unwrap_or(0).max(1);
            let at_once = usize_from(PARCELS_BYTES / largest).clamp(2, PARCELS);
            let mut sent = stream::iter(parcels).map(|parcel| self.send(parcel, avoided)).buffer_unordered(at_once);
            while let Some((parcel, sent)) = sent.next().await {
                match sent {
                    Some(sent) => {
                        sum.objects += sent.objects;
                        sum.bytes += sent.bytes;
                        left.objects += sent.unread_objects;
                        left.bytes += sent.unread_bytes;
                    }
                    None => {
                        left.objects += parcel.objects();
                        left.bytes += parcel.bytes();
                    }
                }
            }
            if avoided.full() == full {
                return (Sent { left: left.objects, ..sum }, surplus);
            }
            // A node turned out to be full. Others get what it did not take.
            self.progress.not_missing(left.objects, left.bytes);
        }
    }

    /// Sends a parcel when its turn has come. None: it was not taken.
    async fn send(&self, parcel: Parcel, avoided: &Avoided) -> (Parcel, Option<Delivered>) {
        if avoided.avoids(&parcel) {
            return (parcel, None);
        }
        self.pace.take(parcel.bytes()).await;
        let send = self.pool.send_parcel(&parcel, avoided);
        let sent = self.slow_lane.pass(|| self.pool.reads_lately(&parcel), send).await;
        if let Some(sent) = &sent {
            self.progress.not_missing(parcel.objects() - sent.unread_objects, parcel.bytes() - sent.unread_bytes);
            self.progress.copied(sent.objects, sent.bytes);
        }
        (parcel, sent)
    }

    /// Drops copies that belong to other nodes and that those have, when their turn has come.
    async fn hand_over(&self, surplus: &[Listed], avoided: &Avoided) -> HandedOver {
        self.hand_over_pace.take(surplus.iter().map(|object| object.stored_bytes).sum()).await;
        give_way(&self.pool).await;
        let done = self.pool.hand_over(surplus, avoided).await;
        self.progress.handed_over(&done);
        done
    }

    /// Asks the store, on a blocking thread.
    fn with_chunks<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&dyn ChunkStore) -> Result<T, StoreError> + Send + 'static,
    ) -> impl Future<Output = Result<T, StoreError>> {
        let chunks = self.chunks.clone();
        let asked = tokio::task::spawn_blocking(move || ask(chunks.as_ref()));
        async move { asked.await.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic())) }
    }
}
