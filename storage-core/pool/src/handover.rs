//! Hand-over: a node drops its copies of objects that belong to other nodes, once those have them.
//!
//! ```text
//! objects of this node that others are the homes of --take over (name, stamp)--> each home: reads its copy, stamps it,
//!                                                                                says yes if it works with the same record
//!   all homes said yes, and this node still works with that record --> drop, if the stamp is not above the one told
//! ```
//! **No copy too few.** A node drops a copy only for as many copies as are wanted, on nodes that rank before it for this
//! object, and that said yes under the same membership record. Of all nodes that drop copies of an object under one record,
//! take the one that ranks best: the nodes that it counts on rank before it, so none of them drops its copy under this
//! record. None drops it under an older record either: each works with this one already, and neither says yes nor drops
//! under a record that it does not work with at that moment (`dropping` excludes the two from each other). And under a newer
//! record a copy is dropped only for those that the newer record wants. So the newest record under which anything was dropped
//! always has its copies. Nodes may differ in which nodes they know to be full: what counts is that the copies are there,
//! and the order.
//!
//! **No stamp lost** (I6). A put that finds an object touches the nodes that its own record names, which may be an old one,
//! and counts on these copies. Each yes is a touch with the stamp of the copy to be dropped, and the copy is dropped only if its
//! stamp is still not higher than that. So what a put stamped here before is stamped so at all homes; what it stamps in
//! between keeps the copy until the next pass tells the higher stamp; and what it asks for afterwards it is told to be absent,
//! and sends. The same argument as above holds for the copies that have a stamp of at least any number.
//!
//! **No copy counted that is bad.** A touch reads the copy and compares it with its checksum ([`ChunkStore::touch`]).
//!
//! **An empty node stays empty.** A node that owns nothing by its own record takes no objects and no touches. What began
//! before is over when [`PoolClient::settled`] answers, so a node that has nothing then never has anything again under this
//! record or a newer one like it, and it can be taken out.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt as _, stream};
use http::HeaderValue;
use storage_core::{
    ObjectName,
    cause::explain,
    lock,
    membership::Member,
    store::{ChunkStore, Listed, StoreError},
};
use tracing::{debug, warn};

use crate::{
    PoolClient,
    inner::Inner,
    protocol::{NAMES_MAX, RECORD_HEADER},
    put::{PutFailure, accepted},
    repair::Avoided,
    view::View,
    wire::{Stamped, encode_stamped},
};

/// Requests under way at a time.
const REQUESTS: usize = 8;

/// What became of objects that belong to other nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HandedOver {
    /// Copies that were dropped here.
    pub objects: u64,
    /// Their stored bytes, without headers.
    pub bytes: u64,
    /// Copies that stay, because not all of their homes have them yet.
    pub kept_objects: u64,
    /// Their stored bytes, without headers.
    pub kept_bytes: u64,
}

impl HandedOver {
    fn kept<'o>(objects: impl IntoIterator<Item = &'o Listed>) -> Self {
        objects.into_iter().fold(Self::default(), |sum, object| Self {
            kept_objects: sum.kept_objects + 1,
            kept_bytes: sum.kept_bytes + object.stored_bytes,
            ..sum
        })
    }
}

/// Why copies were not dropped.
enum Stays {
    /// This node works with another membership record by now.
    OtherRecord,
    Store(StoreError),
}

impl PoolClient {
    /// Drops those of these objects of this node's own share of which all homes have as good a copy. The caller found that
    /// they belong to other nodes ([`crate::Lacking::surplus`]); any that belongs here stays.
    pub async fn hand_over(&self, held: &[Listed], avoided: &Avoided) -> HandedOver {
        let view = self.inner.view.load_full();
        let own = self.inner.local.as_ref().and_then(|local| view.position(local.store));
        let Some(own) = own else { return HandedOver::kept(held) };
        let homes = view.homes(held, &avoided.full_stores());
        let leaves = |at: &usize| {
            let homes = &homes[*at];
            homes.len() >= view.copies(held[*at].kind).wanted && !homes.contains(&own)
        };
        let leaving: Vec<usize> = (0..held.len()).filter(leaves).collect();
        let confirmed = self.inner.ask_to_take_over(&view, held, &homes, &leaving, avoided).await;
        let mut done = HandedOver::kept((0..held.len()).filter(|at| !confirmed.contains(at)).map(|at| &held[at]));
        // Each group has one stamp, because the store compares all names of a removal with the same.
        let mut groups: BTreeMap<u64, Vec<&Listed>> = BTreeMap::new();
        for at in confirmed {
            groups.entry(held[at].round).or_default().push(&held[at]);
        }
        for (stamp, group) in groups {
            let names = group.iter().map(|object| object.name).collect();
            match self.inner.drop_copies(&view, stamp, names).await {
                Ok(dropped) => {
                    for (object, dropped) in group.iter().zip(dropped) {
                        match dropped {
                            Some(bytes) => {
                                done.objects += 1;
                                done.bytes += bytes;
                            }
                            // It was touched meanwhile, or something else has dropped it.
                            None => {
                                done.kept_objects += 1;
                                done.kept_bytes += object.stored_bytes;
                            }
                        }
                    }
                }
                Err(stays) => {
                    match stays {
                        Stays::OtherRecord => debug!("the membership changed; the hand-over begins again"),
                        Stays::Store(error) => {
                            warn!(error = explain(&error), "copies that other nodes have could not be dropped");
                        }
                    }
                    let kept = HandedOver::kept(group);
                    done.kept_objects += kept.kept_objects;
                    done.kept_bytes += kept.kept_bytes;
                }
            }
        }
        done
    }

    /// Whether objects belong on this node, by the membership record that it works with. One that is no member is on its way
    /// in.
    #[must_use]
    pub fn owns_objects(&self) -> bool {
        self.inner.owns_objects()
    }

    /// Waits for puts that this node took under an older membership record.
    pub async fn settled(&self) {
        drop(self.inner.taking.clone().write_owned().await);
    }
}

impl Inner {
    pub(crate) fn owns_objects(&self) -> bool {
        let view = self.view.load();
        let own = self.local.as_ref().and_then(|local| view.position(local.store));
        own.is_none_or(|own| view.member(own).owns_objects())
    }

    /// Asks the homes of the objects at these positions to take them over. Returns the positions of those to which all homes
    /// said yes.
    async fn ask_to_take_over(
        &self,
        view: &Arc<View>,
        held: &[Listed],
        homes: &[Vec<usize>],
        leaving: &[usize],
        avoided: &Avoided,
    ) -> BTreeSet<usize> {
        let mut questions: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for at in leaving {
            homes[*at].iter().for_each(|node| questions.entry(*node).or_default().push(*at));
        }
        let parts =
            questions.iter().flat_map(|(node, about)| about.chunks(NAMES_MAX).map(move |part| (*node, part.to_vec())));
        let asked = stream::iter(parts.collect::<Vec<_>>()).map(|(node, part)| async move {
            let objects: Vec<Listed> = part.iter().map(|at| held[*at]).collect();
            let said = self.take_over_at(view, view.member(node), &objects, avoided).await;
            (part, said)
        });
        let mut answers = asked.buffer_unordered(REQUESTS);
        let mut confirmed: BTreeSet<usize> = leaving.iter().copied().collect();
        while let Some((part, said)) = answers.next().await {
            for (place, at) in part.iter().enumerate() {
                if !said.as_ref().is_some_and(|said| said[place]) {
                    confirmed.remove(at);
                }
            }
        }
        confirmed
    }

    /// Asks one node to take objects over. None: it did not answer, or refused.
    async fn take_over_at(
        &self,
        view: &View,
        member: &Member,
        objects: &[Listed],
        avoided: &Avoided,
    ) -> Option<Vec<bool>> {
        if avoided.is_silent(member.store) {
            return None;
        }
        match self.take_over(view, member, objects).await {
            Ok(said) => Some(said),
            Err(failure) => {
                // Most often it works with another record for a moment.
                debug!(node.name = %member.name, failure.reason, "a node did not take objects over");
                None
            }
        }
    }

    async fn take_over(&self, view: &View, member: &Member, objects: &[Listed]) -> Result<Vec<bool>, PutFailure> {
        let health = self.health(member.store);
        let _permit = health.puts.acquire().await.expect("nobody closes it");
        let (http, base) = self.address(member.node).map_err(|e| PutFailure::other(e.to_string()))?;
        let bytes: u64 = objects.iter().map(|object| object.stored_bytes).sum();
        let request = http
            .post(format!("{base}/peer/v1/objects/take-over"))
            .header(RECORD_HEADER, HeaderValue::from_str(&view.record).expect("hex"))
            // The node reads its copies.
            .timeout(self.limits.silence + self.time_for(bytes))
            .body(encode_stamped(objects.iter().map(|object| Stamped { name: object.name, stamp: object.round })));
        let answer = request.send().await.inspect_err(|e| health.not_connected(e));
        let said = accepted(answer, objects.len()).await?;
        if said.len() != objects.len() {
            let reason = format!("it answered {} of {} objects to take over", said.len(), objects.len());
            return Err(PutFailure::other(reason));
        }
        Ok(said.iter().map(|byte| *byte == 1).collect())
    }

    fn time_for(&self, bytes: u64) -> Duration {
        Duration::from_millis(bytes.saturating_mul(1000) / self.limits.slowest_bytes_per_s.max(1))
    }

    /// Drops these copies if their stamps are at most `stamp` and this node still works with `view`.
    async fn drop_copies(
        self: &Arc<Self>,
        view: &Arc<View>,
        stamp: u64,
        names: Vec<ObjectName>,
    ) -> Result<Vec<Option<u64>>, Stays> {
        let alone = self.dropping.clone().write_owned().await;
        let (inner, record) = (self.clone(), view.record.clone());
        let dropped = tokio::task::spawn_blocking(move || {
            // Held by the blocking thread, which goes on if the caller is dropped.
            let _alone = alone;
            if inner.view.load().record != record {
                return Err(Stays::OtherRecord);
            }
            let chunks = &inner.local.as_ref().expect("the objects are of this node's own share").chunks;
            let dropped = chunks.remove(stamp.saturating_add(1), &names).map_err(Stays::Store)?;
            chunks.sync().map_err(Stays::Store)?;
            Ok(dropped)
        });
        dropped.await.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()))
    }

    /// Stamps the copies that another node wants to drop, which works with this record. The answer has for each whether a
    /// good copy is here; none if this node works with another record, or owns nothing. Blocks on the disk. `dropping` is
    /// to be held for reading.
    pub(crate) fn keep(
        &self,
        chunks: &dyn ChunkStore,
        record: &str,
        objects: &[Stamped],
    ) -> Result<Option<Vec<bool>>, StoreError> {
        if self.view.load().record != record || !self.owns_objects() {
            return Ok(None);
        }
        let mut groups: BTreeMap<u64, Vec<ObjectName>> = BTreeMap::new();
        for object in objects {
            groups.entry(object.stamp).or_default().push(object.name);
        }
        let mut here: BTreeSet<ObjectName> = BTreeSet::new();
        for (stamp, names) in groups {
            let touched = chunks.touch(stamp, &names)?;
            here.extend(names.iter().zip(touched).filter(|(_, touched)| *touched).map(|(name, _)| *name));
        }
        chunks.sync()?;
        Ok(Some(objects.iter().map(|object| here.contains(&object.name)).collect()))
    }
}

impl Avoided {
    pub(crate) fn full_stores(&self) -> std::collections::HashSet<storage_core::StoreId> {
        lock(&self.0).full.clone()
    }
}
