//! Hand-over: a node drops its copies of objects that belong to other nodes, once those have them.
//!
//! ```text
//! objects of this node that others are the homes of --take over (name, stamp)--> nodes that rank before it, the homes first:
//!                                            each reads its copy, stamps it, and says yes if it works with the same record
//!   as many said yes as copies are wanted, and this node still works with that record --> drop, if the stamp is not above
//!                                                                                                              the one told
//! ```
//! Beside the homes a few of the nodes after them are asked, because a home may be full, and another node keeps the object in its
//! place. The order is that of [`placement::rank`] over all nodes of the record, full or not, so that all nodes agree on it.
//!
//! **No copy too few.** A node drops a copy only for as many copies as are wanted, on nodes that rank before it for this
//! object, and that said yes under the same membership record. Of all nodes that drop copies of an object under one record,
//! take the one that ranks best: the nodes that it counts on rank before it, so none of them drops its copy under this
//! record. None drops it under an older record either: each works with this one already, and neither says yes nor drops
//! under a record that it does not work with at that moment (`dropping` excludes the two from each other). And under a newer
//! record a copy is dropped only for those that the newer record wants. So the newest record under which anything was dropped
//! always has its copies. While fewer nodes own objects than copies are wanted, as after a loss during a drain, nothing is dropped
//! at all: a copy that does not belong here is better than none.
//!
//! **No stamp lost** (I6). A put that finds an object touches the nodes that its own record names, which may be an old one,
//! and counts on these copies. Each yes is a touch with the stamp of the copy to be dropped, and the copy is dropped only if its
//! stamp is still not higher than that. So what a put stamped here before is stamped so at all nodes that this one counts on; what it stamps in
//! between keeps the copy until the next pass tells the higher stamp; and what it asks for afterwards it is told to be absent,
//! and sends. The same argument as above holds for the copies that have a stamp of at least any number.
//!
//! **No copy counted that is bad.** A touch reads the copy and compares it with its checksum ([`ChunkStore::touch`]).
//!
//! **What the repository has.** A node that gave its copy up because the repository has the object says yes, too, if the stamp
//! protects nothing any more. It has no copy that could keep a younger stamp, and says no to one. Its word shows what the
//! repository had then, so whoever counts on it asks the repository before it drops its own copy.
//!
//! **An empty node stays empty.** A node that owns nothing by its own record takes no objects and no touches. What began
//! before is over when [`PoolClient::settled`] answers, so a node that has nothing then never has anything again under this
//! record or a newer one like it, and it can be taken out.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt as _, stream};
use http::HeaderValue;
use storage_core::{
    ObjectName, RecordHeader,
    cause::explain,
    membership::Member,
    store::{ChunkStore, Listed, StoreError},
    units::{u64_from, usize_from},
};
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::{
    PoolClient, checksum,
    inner::Inner,
    protocol::{NAMES_MAX, ObjectCall, RECORD_HEADER},
    put::{PutFailure, accepted},
    repair::Avoided,
    view::View,
    wire::{Stamped, encode_stamped},
};

/// Requests under way at a time.
const REQUESTS: usize = 8;
/// Nodes after the homes that are asked.
const OTHERS: usize = 3;

/// What became of objects that belong to other nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HandedOver {
    /// Copies that were dropped here.
    pub objects: u64,
    /// Their stored bytes, without headers.
    pub bytes: u64,
    /// Copies that stay on this node, which owns objects, in the place of a home that lacks them: it may be full.
    pub stand_ins: u64,
    /// Other copies that stay, because too few nodes have them yet.
    pub kept_objects: u64,
    /// Their stored bytes, without headers.
    pub kept_bytes: u64,
}

impl HandedOver {
    fn keep(&mut self, object: &Listed) {
        self.kept_objects += 1;
        self.kept_bytes += object.stored_bytes;
    }
}

/// An object that is to leave this node.
struct Leaving {
    /// Its position in the list.
    at: usize,
    /// The nodes that rank before this one, best first.
    nodes: Vec<usize>,
    /// Copies that there are to be.
    wanted: usize,
    /// Nodes that have it and keep it, or gave it up because the repository has it.
    yes: usize,
    /// One of them gave it up, so the repository has to be asked.
    is_evicted: bool,
    /// One of the homes said that it lacks it.
    is_lacked: bool,
}

/// What a node says of an object that it is asked to take over, a byte on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TakenOver {
    /// It does not keep it.
    No = 0,
    /// It keeps a good copy.
    Here = 1,
    /// It gave its copy up because the repository has the object. An earlier release takes this for a no, and keeps its copy.
    Evicted = 2,
}

impl TakenOver {
    fn of(byte: u8) -> Self {
        match byte {
            1 => Self::Here,
            2 => Self::Evicted,
            _ => Self::No,
        }
    }
}

/// Which of the nodes that rank before this one are asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// As many as copies are wanted.
    Homes,
    /// Some after those, for what too few of them keep.
    Others,
}

/// Why copies were not dropped.
enum Stays {
    /// This node works with another membership record by now.
    OtherRecord,
    Store(StoreError),
}

impl PoolClient {
    /// Drops those of these objects of this node's own share of which enough nodes that rank before it have as good a copy. The
    /// caller found that they belong to other nodes ([`crate::Lacking::surplus`]); any that belongs here stays.
    pub async fn hand_over(&self, held: &[Listed], avoided: &Avoided) -> HandedOver {
        let view = self.inner.view.load_full();
        let own = self.inner.local.as_ref().and_then(|local| view.position(local.store));
        let Some(own) = own else {
            let mut kept = HandedOver::default();
            held.iter().for_each(|object| kept.keep(object));
            return kept;
        };
        let owners = view.membership.members.iter().filter(|member| member.owns_objects()).count();
        let is_owner = view.member(own).owns_objects();
        // For each object the nodes that rank before this one.
        let before = |object: &Listed| {
            let mut nodes = view.writers(&object.name);
            nodes.truncate(nodes.iter().position(|node| *node == own).unwrap_or(nodes.len()));
            nodes
        };
        let mut leaving: Vec<Leaving> = Vec::new();
        let mut done = HandedOver::default();
        for (at, object) in held.iter().enumerate() {
            let (nodes, wanted) = (before(object), view.copies(object.kind).wanted);
            if nodes.len() >= wanted && owners >= usize_from(view.membership.min_copies.into()) {
                leaving.push(Leaving { at, nodes, wanted, yes: 0, is_evicted: false, is_lacked: false });
            } else {
                done.keep(object);
            }
        }
        self.inner.ask_to_take_over(&view, held, &mut leaving, Asked::Homes, avoided).await;
        self.inner.ask_to_take_over(&view, held, &mut leaving, Asked::Others, avoided).await;
        let mut confirmed: Vec<&Listed> = Vec::new();
        let asked = leaving.iter().filter(|leaving| leaving.is_evicted && leaving.yes >= leaving.wanted);
        let shelved = self.inner.in_repository(asked.map(|leaving| held[leaving.at]).collect()).await;
        for leaving in leaving {
            let object = &held[leaving.at];
            if leaving.yes >= leaving.wanted && (!leaving.is_evicted || shelved.contains(&object.name)) {
                confirmed.push(object);
            } else if is_owner && leaving.is_lacked {
                done.stand_ins += 1;
            } else {
                done.keep(object);
            }
        }
        if confirmed.is_empty() {
            return done;
        }
        match self.inner.drop_copies(&view, confirmed.iter().map(|object| (object.name, object.round)).collect()).await
        {
            Ok(dropped) => {
                for (object, dropped) in confirmed.iter().zip(dropped) {
                    match dropped {
                        Some(bytes) => {
                            done.objects += 1;
                            done.bytes += bytes;
                        }
                        // It was touched meanwhile, or something else has dropped it.
                        None => done.keep(object),
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
                confirmed.into_iter().for_each(|object| done.keep(object));
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

    /// Asks nodes to take objects over that too few have agreed to, and counts who says yes.
    async fn ask_to_take_over(
        &self,
        view: &Arc<View>,
        held: &[Listed],
        leaving: &mut [Leaving],
        asked: Asked,
        avoided: &Avoided,
    ) {
        let mut questions: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (place, leaving) in leaving.iter().enumerate().filter(|(_, leaving)| leaving.yes < leaving.wanted) {
            let nodes = match asked {
                Asked::Homes => leaving.nodes.iter().take(leaving.wanted),
                Asked::Others => leaving.nodes.get(leaving.wanted..).unwrap_or_default().iter().take(OTHERS),
            };
            nodes.for_each(|node| questions.entry(*node).or_default().push(place));
        }
        let parts = questions
            .iter()
            .flat_map(|(node, about)| about.chunks(NAMES_MAX).map(move |part| (*node, part.to_vec())))
            .map(|(node, part)| {
                let objects: Vec<Listed> = part.iter().map(|place| held[leaving[*place].at]).collect();
                (node, part, objects)
            });
        let asked_all = stream::iter(parts.collect::<Vec<_>>()).map(|(node, part, objects)| async move {
            let said = self.take_over_at(view, view.member(node), &objects, avoided).await;
            (part, said)
        });
        let mut answers = asked_all.buffer_unordered(REQUESTS);
        while let Some((part, said)) = answers.next().await {
            for (place, said) in part.iter().zip(said.into_iter().flatten()) {
                let leaving = &mut leaving[*place];
                match said {
                    TakenOver::No => leaving.is_lacked |= asked == Asked::Homes,
                    TakenOver::Here => leaving.yes += 1,
                    TakenOver::Evicted => {
                        leaving.yes += 1;
                        leaving.is_evicted = true;
                    }
                }
            }
        }
    }

    /// Asks one node to take objects over. None: it did not answer, or refused.
    async fn take_over_at(
        &self,
        view: &View,
        member: &Member,
        objects: &[Listed],
        avoided: &Avoided,
    ) -> Option<Vec<TakenOver>> {
        if avoided.is_silent(member.store) {
            return None;
        }
        match self.take_over(view, member, objects, avoided).await {
            Ok(said) => Some(said),
            Err(failure) => {
                // Most often it works with another record for a moment.
                debug!(node.name = %member.name, failure.reason, "a node did not take objects over");
                None
            }
        }
    }

    async fn take_over(
        &self,
        view: &View,
        member: &Member,
        objects: &[Listed],
        avoided: &Avoided,
    ) -> Result<Vec<TakenOver>, PutFailure> {
        let health = self.health(member.store);
        let _permit = health.puts.acquire().await.expect("nobody closes it");
        let (http, base) = self.address(member.node).map_err(|e| PutFailure::other(e.to_string()))?;
        let bytes: u64 = objects.iter().map(|object| object.stored_bytes).sum();
        let request = http
            .post(format!("{base}{}", ObjectCall::TakeOver.path()))
            .header(RECORD_HEADER, HeaderValue::from_str(&view.record).expect("hex"))
            // The node reads its copies.
            .timeout(self.limits.silence + self.time_for(bytes))
            .body(encode_stamped(objects.iter().map(|object| Stamped { name: object.name, stamp: object.round })));
        let answer = checksum::send(request).await.inspect_err(|e| health.not_connected(e));
        if let Err(error) = &answer {
            // It would keep the others waiting.
            avoided.add(member, &PutFailure::other(explain(error)));
        }
        let said = accepted(answer, objects.len()).await?;
        if said.len() != objects.len() {
            let reason = format!("it answered {} of {} objects to take over", said.len(), objects.len());
            return Err(PutFailure::other(reason));
        }
        Ok(said.iter().map(|byte| TakenOver::of(*byte)).collect())
    }

    /// Those of these objects whose bodies the repository has now, as long as they are here. A name that a node gave up shows what
    /// was there then.
    async fn in_repository(&self, objects: Vec<Listed>) -> HashSet<ObjectName> {
        let Some(repository) = self.repository().filter(|_| !objects.is_empty()) else { return HashSet::new() };
        let ask = |object: Listed| {
            let (repository, until) = (repository.clone(), Instant::now() + self.limits.silence);
            async move {
                let there = repository.shown_len(object.name, until).await;
                let whole = object.stored_bytes + u64_from(RecordHeader::BYTES);
                there.is_ok_and(|len| len == Some(whole)).then_some(object.name)
            }
        };
        stream::iter(objects).map(ask).buffer_unordered(REQUESTS).filter_map(std::future::ready).collect().await
    }

    pub(crate) fn time_for(&self, bytes: u64) -> Duration {
        Duration::from_millis(bytes.saturating_mul(1000) / self.limits.slowest_bytes_per_s.max(1))
    }

    /// Drops those of these copies whose stamps are at most those given, if this node still works with `view`. All in one
    /// removal, whatever the stamps: each removal makes this node's accounts durable, which takes as long for one object as for many.
    async fn drop_copies(
        self: &Arc<Self>,
        view: &Arc<View>,
        copies: Vec<(ObjectName, u64)>,
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
            let objects: Vec<_> = copies.into_iter().map(|(name, stamp)| (name, stamp.saturating_add(1))).collect();
            let dropped = chunks.remove_each(&objects).map_err(Stays::Store)?;
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
    ) -> Result<Option<Vec<TakenOver>>, StoreError> {
        if self.view.load().record != record || !self.owns_objects() {
            return Ok(None);
        }
        let mut groups: BTreeMap<u64, Vec<ObjectName>> = BTreeMap::new();
        for object in objects {
            groups.entry(self.stamp_of(object.stamp)).or_default().push(object.name);
        }
        let mut here: BTreeSet<ObjectName> = BTreeSet::new();
        for (stamp, names) in groups {
            let touched = chunks.touch(stamp, &names)?;
            here.extend(names.iter().zip(touched).filter(|(_, touched)| *touched).map(|(name, _)| *name));
        }
        chunks.sync()?;
        let names: Vec<ObjectName> = objects.iter().map(|object| object.name).collect();
        let evicted = chunks.evicted(&names)?;
        let keeps = |(object, evicted): (&Stamped, bool)| match here.contains(&object.name) {
            true => TakenOver::Here,
            false if evicted && self.is_outdated(object.stamp) => TakenOver::Evicted,
            false => TakenOver::No,
        };
        Ok(Some(objects.iter().zip(evicted).map(keeps).collect()))
    }
}
