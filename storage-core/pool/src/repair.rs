//! Repair: finds copies that other nodes lack, and sends them. Holders push; what nobody holds any more nobody can repair.
//!
//! ```text
//! objects of this node --by the rule of put--> the homes of each --asked (`have`)--> homes without a copy
//!                                                                                           |
//!         the best home that has a copy sends it there; a holder that is no home            |
//!         does so only while no home that answers has one                      <------------+
//! ```
//! * A copy that is made again keeps the highest stamp that is known (I6): the sweep must find it neither younger, or it
//!   would stay although nothing needs it, nor older, or it would go although an upload counts on it.
//! * Nothing is known about what a silent node has. It gets nothing, and nobody gets a copy in its place: a node that is
//!   only down comes back. A node without room is passed over as in a put, and the next in rank gets the copy.
//! * A node that gave its copy up because the repository has the object lacks nothing, unless the stamp is so young that an
//!   upload may count on the copies that nodes have.
//! * Nothing is dropped here. A copy that is too many is left to the hand-over (`handover.rs`).

use std::{
    collections::{BTreeMap, HashSet},
    sync::Mutex,
};

use futures::{StreamExt as _, stream};
use http::HeaderValue;
use storage_core::{
    ObjectName, Record, StoreId,
    cause::explain,
    lock,
    membership::Member,
    record::Wire,
    store::{ChunkStore, Listed},
    units::u64_from,
};
use tokio::time::{Instant, timeout_at};
use tracing::{debug, warn};

use crate::{
    PoolClient, checksum,
    inner::Inner,
    protocol::{EVICTED_HEADER, NAMES_MAX, OWN_ROUND, ObjectCall},
    put::{PutFailure, accepted},
    view::View,
    wire::{Held, RecordReader, decode_held, encode_names},
};

/// Questions under way at a time.
const QUESTIONS: usize = 8;
/// Stored bytes that are sent to a node at a time, unless one object has more. They are read into memory. A read that comes meanwhile
/// shares the link with them.
const PARCEL_BYTES: u64 = 256 << 10;

/// Copies for one node, to be sent together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel {
    to: StoreId,
    copies: Vec<Wanted>,
}

/// A copy that a node lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    name: ObjectName,
    stored_bytes: u64,
    /// It gets this stamp at least.
    stamp: u64,
}

impl Parcel {
    /// Number of copies.
    #[must_use]
    pub fn objects(&self) -> u64 {
        u64_from(self.copies.len())
    }

    /// Their stored bytes, without headers.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.copies.iter().map(|copy| copy.stored_bytes).sum()
    }
}

/// What other nodes lack and this one has to send.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lacking {
    /// The copies, by the nodes that lack them.
    pub parcels: Vec<Parcel>,
    /// Number of further copies for which there is no node, because too few have room.
    pub homeless_objects: u64,
    /// Their stored bytes, without headers.
    pub homeless_bytes: u64,
    /// Those of the objects that belong to other nodes. They can be dropped here once those have them
    /// ([`PoolClient::hand_over`]).
    pub surplus: Vec<Listed>,
}

/// What became of a parcel that a node took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Copies that are durable there now.
    pub objects: u64,
    /// Their stored bytes, without headers.
    pub bytes: u64,
    /// Copies that were not in it because this node's own cannot be read.
    pub unread_objects: u64,
    /// Their stored bytes, without headers.
    pub unread_bytes: u64,
}

/// Nodes that one pass of the repair leaves alone since they failed it.
#[derive(Debug, Default)]
pub struct Avoided(Mutex<AvoidedStores>);

#[derive(Debug, Default)]
struct AvoidedStores {
    silent: HashSet<StoreId>,
    full: HashSet<StoreId>,
}

impl Avoided {
    /// Number of nodes that did not answer, or refused. What they lack is not known.
    #[must_use]
    pub fn silent(&self) -> usize {
        lock(&self.0).silent.len()
    }

    /// Number of nodes that have no room.
    #[must_use]
    pub fn full(&self) -> usize {
        lock(&self.0).full.len()
    }

    pub(crate) fn is_silent(&self, store: StoreId) -> bool {
        lock(&self.0).silent.contains(&store)
    }

    /// Whether the node of this parcel is one of them.
    #[must_use]
    pub fn avoids(&self, parcel: &Parcel) -> bool {
        let stores = lock(&self.0);
        stores.silent.contains(&parcel.to) || stores.full.contains(&parcel.to)
    }

    pub(crate) fn add(&self, member: &Member, failure: &PutFailure) {
        debug!(node.name = %member.name, failure.reason, "the repair leaves a node alone");
        let mut stores = lock(&self.0);
        let set = if failure.full { &mut stores.full } else { &mut stores.silent };
        set.insert(member.store);
    }
}

/// What a home said about an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Nothing,
    Absent,
    Here {
        stamp: u64,
    },
    /// It gave its copy up because the repository has the object.
    Evicted,
}

impl PoolClient {
    /// The copies of these objects of this node's own share that other nodes lack and this one has to send, as far as the
    /// nodes answer.
    pub async fn lacking(&self, held: &[Listed], avoided: &Avoided) -> Lacking {
        let view = self.inner.view.load_full();
        let own = self.inner.local.as_ref().and_then(|local| view.position(local.store));
        // A node that is not a member has no place in the order of those who send.
        let Some(own) = own else { return Lacking::default() };
        let homes = view.homes(held, &lock(&avoided.0).full);
        let said = self.inner.ask_homes(&view, own, held, &homes, avoided).await;
        let mut wanted: BTreeMap<usize, Vec<Wanted>> = BTreeMap::new();
        let mut lacking = Lacking::default();
        for (at, object) in held.iter().enumerate() {
            if !homes[at].contains(&own) {
                lacking.surplus.push(*object);
            }
            if !sends(own, &homes[at], &said[at]) {
                continue;
            }
            // An upload may count on a copy with a young stamp, so that one is to be on nodes.
            let is_young = !self.inner.is_outdated(object.round);
            for (node, stamp) in wanted_copies(object.round, &homes[at], &said[at], is_young) {
                let copy = Wanted { name: object.name, stored_bytes: object.stored_bytes, stamp };
                wanted.entry(node).or_default().push(copy);
            }
            let homeless = u64_from(view.copies(object.kind).wanted.saturating_sub(homes[at].len()));
            lacking.homeless_objects += homeless;
            lacking.homeless_bytes += homeless * object.stored_bytes;
        }
        let by_node = wanted.into_iter().map(|(node, copies)| (node, parcels(view.member(node).store, copies)));
        lacking.parcels = taking_turns(own, by_node.collect());
        lacking
    }

    /// Those of these objects of this node's own share that belong to other nodes ([`Lacking::surplus`]). Asks nobody.
    #[must_use]
    pub fn surplus(&self, held: &[Listed], avoided: &Avoided) -> Vec<Listed> {
        let view = self.inner.view.load_full();
        let own = self.inner.local.as_ref().and_then(|local| view.position(local.store));
        let Some(own) = own else { return Vec::new() };
        let homes = view.homes(held, &lock(&avoided.0).full);
        held.iter().zip(homes).filter(|(_, homes)| !homes.contains(&own)).map(|(object, _)| *object).collect()
    }

    /// Those of these objects that no node of the pool has, this one included; none if not all nodes answered. The repository
    /// may have them.
    pub async fn nobody_has(&self, names: &[ObjectName]) -> Option<Vec<ObjectName>> {
        let view = self.inner.view.load_full();
        let local = self.inner.local.as_ref();
        let mut left: Vec<ObjectName> = names.to_vec();
        if let Some(local) = local {
            let (chunks, all) = (local.chunks.clone(), left.clone());
            let looked = tokio::task::spawn_blocking(move || {
                let lacks = |name: &ObjectName| chunks.contains(name).map(|here| (!here).then_some(*name));
                all.iter().map(lacks).collect::<Result<Vec<_>, _>>()
            });
            let looked = looked.await.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()));
            left = looked.ok()?.into_iter().flatten().collect();
        }
        for member in
            view.membership.members.iter().filter(|member| local.is_none_or(|local| local.store != member.store))
        {
            let mut lacked = Vec::with_capacity(left.len());
            for part in left.chunks(NAMES_MAX) {
                let held = self.inner.have(member, part).await.ok()?;
                let lacks = |held: &Held| !matches!(held, Held::Here(_));
                lacked.extend(part.iter().zip(held).filter(|(_, held)| lacks(held)).map(|(name, _)| *name));
            }
            left = lacked;
        }
        Some(left)
    }

    /// The copy of an object that some other node has, proven, with the stamp that it has there; none if no node that answers
    /// until `deadline` has a good one.
    pub async fn copy_of(&self, name: ObjectName, deadline: Instant) -> Option<Record> {
        let view = self.inner.view.load_full();
        let own = self.inner.local.as_ref().map(|local| local.store);
        let (owners, others) = view.readers(&name, own);
        for node in owners.into_iter().chain(others) {
            let member = view.member(node);
            if Some(member.store) == own {
                continue;
            }
            match timeout_at(deadline, self.inner.record_at(member, name)).await {
                Ok(Ok(Some(record))) => return Some(record),
                Ok(Ok(None)) => {}
                Ok(Err(reason)) => debug!(node.name = %member.name, reason, "a node did not give a copy"),
                Err(_elapsed) => return None,
            }
        }
        None
    }

    /// Whether somebody waits for objects, or did a moment ago, at one of the two ends of a parcel: here, or at the node that gets
    /// it as it said the last time that it was asked something.
    #[must_use]
    pub fn reads_lately(&self, parcel: &Parcel) -> bool {
        self.inner.demand.was_lately() || self.inner.health(parcel.to).has_reads()
    }

    /// Sends a parcel. Objects that this node no longer holds are left out. None if the other node did not take it; then it
    /// is avoided.
    pub async fn send_parcel(&self, parcel: &Parcel, avoided: &Avoided) -> Option<Delivered> {
        let view = self.inner.view.load_full();
        let member = view.position(parcel.to).map(|at| view.member(at))?;
        let local = self.inner.local.as_ref().expect("parcels are of this node's own share");
        let health = self.inner.health(member.store);
        let _permit = health.puts.acquire().await.expect("nobody closes it");
        let (chunks, copies) = (local.chunks.clone(), parcel.copies.clone());
        let read = tokio::task::spawn_blocking(move || read_copies(chunks.as_ref(), &copies)).await;
        let (records, delivered) = read.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()));
        if records.is_empty() {
            return Some(delivered);
        }
        let own = HeaderValue::from_static(OWN_ROUND);
        match self.inner.send(member, own, &records.iter().collect::<Vec<_>>()).await {
            Ok(()) => {
                health.well();
                Some(delivered)
            }
            Err(failure) => {
                if failure.full {
                    health.full();
                } else {
                    health.failed();
                }
                avoided.add(member, &failure);
                None
            }
        }
    }
}

/// The records to send, and what becomes of them if they arrive.
fn read_copies(chunks: &dyn ChunkStore, copies: &[Wanted]) -> (Vec<Record>, Delivered) {
    let (mut records, mut delivered) = (Vec::with_capacity(copies.len()), Delivered::default());
    for copy in copies {
        match chunks.get(&copy.name) {
            Ok(Some(record)) => {
                delivered.objects += 1;
                delivered.bytes += u64_from(record.stored().len());
                // It may have been touched since it was listed.
                let stamp = copy.stamp.max(record.body().round);
                records.push(record.with_round(stamp));
            }
            Ok(None) => {}
            Err(error) => {
                warn!(object.name = %copy.name, error = explain(&error), "a copy cannot be read, so no other node gets it");
                delivered.unread_objects += 1;
                delivered.unread_bytes += copy.stored_bytes;
            }
        }
    }
    (records, delivered)
}

impl Inner {
    /// Asks the homes of all objects, each node a bounded number of names at a time. The answer has, for each object, what
    /// its homes said, in their order.
    pub(crate) async fn ask_homes(
        &self,
        view: &View,
        own: usize,
        held: &[Listed],
        homes: &[Vec<usize>],
        avoided: &Avoided,
    ) -> Vec<Vec<Said>> {
        let mut said: Vec<Vec<Said>> = homes.iter().map(|homes| vec![Said::Nothing; homes.len()]).collect();
        // For each node the objects that it is asked about, and its place among their homes.
        let mut questions: BTreeMap<usize, Vec<(usize, usize)>> = BTreeMap::new();
        for (at, homes) in homes.iter().enumerate() {
            for (place, node) in homes.iter().enumerate() {
                if *node == own {
                    said[at][place] = Said::Here { stamp: held[at].round };
                } else {
                    questions.entry(*node).or_default().push((at, place));
                }
            }
        }
        let parts =
            questions.iter().flat_map(|(node, about)| about.chunks(NAMES_MAX).map(move |part| (*node, part.to_vec())));
        let asked = stream::iter(parts.collect::<Vec<_>>()).map(|(node, part)| async move {
            let names: Vec<ObjectName> = part.iter().map(|(at, _)| held[*at].name).collect();
            let held = self.held_at(view.member(node), &names, avoided).await;
            (part, held)
        });
        let mut answers = asked.buffer_unordered(QUESTIONS);
        while let Some((part, held)) = answers.next().await {
            for ((at, place), held) in part.iter().zip(held.into_iter().flatten()) {
                said[*at][*place] = match held {
                    Held::Absent => Said::Absent,
                    Held::Here(stamp) => Said::Here { stamp },
                    Held::Evicted => Said::Evicted,
                };
            }
        }
        said
    }

    /// Asks one node which of these objects it has, with which stamps. None: it did not answer, and is avoided.
    async fn held_at(&self, member: &Member, names: &[ObjectName], avoided: &Avoided) -> Option<Vec<Held>> {
        if avoided.is_silent(member.store) {
            return None;
        }
        let health = self.health(member.store);
        match self.have(member, names).await {
            Ok(held) => {
                health.well();
                Some(held)
            }
            Err(failure) => {
                health.failed();
                avoided.add(member, &failure);
                None
            }
        }
    }

    /// The record of an object as a node has it, proven.
    async fn record_at(&self, member: &Member, name: ObjectName) -> Result<Option<Record>, String> {
        let (http, base) = self.address(member.node).map_err(|e| e.to_string())?;
        let request = http
            .post(format!("{base}{}", ObjectCall::Get.path()))
            .timeout(self.limits.silence + self.time_for(u64_from(Record::BYTES_MAX)))
            .body(encode_names([name]));
        let answer = checksum::send(request).await.map_err(|e| explain(&e))?;
        if !answer.status().is_success() {
            return Err(format!("it answered {}", answer.status()));
        }
        let mut records = RecordReader::new(Box::pin(answer.bytes_stream()));
        let Some(Wire::Present(record)) = records.next().await.map_err(|e| e.to_string())? else { return Ok(None) };
        let proven = tokio::task::spawn_blocking(move || record.prove()).await.map_err(|e| e.to_string())?;
        Ok(proven.ok().filter(|record| record.name() == name))
    }

    async fn have(&self, member: &Member, names: &[ObjectName]) -> Result<Vec<Held>, PutFailure> {
        let health = self.health(member.store);
        let _permit = health.puts.acquire().await.expect("nobody closes it");
        let (http, base) = self.address(member.node).map_err(|e| PutFailure::other(e.to_string()))?;
        let request = http
            .post(format!("{base}{}", ObjectCall::Have.path()))
            .header(EVICTED_HEADER, "1")
            .timeout(self.limits.silence)
            .body(encode_names(names.iter().copied()));
        let answer = checksum::send(request).await.inspect_err(|e| health.not_connected(e));
        let answer = answer.inspect(|answer| health.hear(answer.headers()));
        let body = accepted(answer, names.len() * 8).await?;
        decode_held(&body, names.len()).map_err(|e| PutFailure::other(e.to_string()))
    }
}

/// Whether this node, at position `own`, has to send an object that it holds to homes that lack it.
pub(crate) fn sends(own: usize, homes: &[usize], said: &[Said]) -> bool {
    let best = homes.iter().zip(said).find(|(_, said)| matches!(said, Said::Here { .. }));
    best.is_none_or(|(node, _)| *node == own)
}

/// The homes that lack an object, with the stamp that the copies get. This node's own has the stamp `held`.
/// One that gave its copy up lacks it only if the object `is_young`.
fn wanted_copies(held: u64, homes: &[usize], said: &[Said], is_young: bool) -> Vec<(usize, u64)> {
    let stamp_of = |said: &Said| if let Said::Here { stamp } = said { Some(*stamp) } else { None };
    let stamp = said.iter().filter_map(stamp_of).fold(held, u64::max);
    let lacks = |said: &Said| *said == Said::Absent || (*said == Said::Evicted && is_young);
    homes.iter().zip(said).filter(|(_, said)| lacks(said)).map(|(node, _)| (*node, stamp)).collect()
}

/// Cuts what a node lacks into parcels.
fn parcels(to: StoreId, copies: Vec<Wanted>) -> Vec<Parcel> {
    let mut parcels: Vec<Parcel> = Vec::new();
    for copy in copies {
        let fits =
            |p: &&mut Parcel| p.copies.len() < NAMES_MAX && p.bytes().saturating_add(copy.stored_bytes) <= PARCEL_BYTES;
        match parcels.last_mut().filter(fits) {
            Some(parcel) => parcel.copies.push(copy),
            None => parcels.push(Parcel { to, copies: vec![copy] }),
        }
    }
    parcels
}

/// All parcels in the order in which they are sent: one for each node in turn, the node after this one first. All nodes repair at
/// the same time, and if each of them served the nodes in one order, they would all wait for the link of the same node.
fn taking_turns(own: usize, mut by_node: BTreeMap<usize, Vec<Parcel>>) -> Vec<Parcel> {
    let after = by_node.split_off(&own);
    let mut queues: Vec<_> = after.into_values().chain(by_node.into_values()).map(Vec::into_iter).collect();
    let mut parcels = Vec::new();
    while !queues.is_empty() {
        queues.retain_mut(|queue| queue.next().map(|parcel| parcels.push(parcel)).is_some());
    }
    parcels
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Said = Said::Here { stamp: 5 };

    #[test]
    fn the_best_home_with_a_copy_sends_it_to_those_without() {
        use Said::{Absent, Evicted, Nothing};
        // Nodes 7, 3 and 9 are the homes. Each row: what they said, and who has to send what.
        for (said, senders) in [
            ([HERE, HERE, HERE], vec![]),
            ([HERE, Absent, Absent], vec![(7, vec![3, 9])]),
            ([HERE, HERE, Absent], vec![(7, vec![9])]),
            ([Absent, HERE, Absent], vec![(3, vec![7, 9])]),
            // The silent one may have it, and may not: it gets nothing, and the next one sends.
            ([Nothing, HERE, Absent], vec![(3, vec![9])]),
            ([Nothing, HERE, Nothing], vec![]),
            // No home has it: who holds it beside them sends it.
            ([Absent, Absent, Absent], vec![(1, vec![7, 3, 9])]),
            ([Nothing, Absent, Absent], vec![(1, vec![3, 9])]),
            // The repository has it for whoever gave its copy up, who cannot send it either.
            ([Evicted, HERE, Absent], vec![(3, vec![9])]),
            ([Evicted, Evicted, Absent], vec![(1, vec![9])]),
            ([Evicted, Evicted, Evicted], vec![]),
        ] {
            for own in [7, 3, 9, 1] {
                let has_it = own == 1 || [7, 3, 9].iter().zip(said).any(|(node, said)| *node == own && said == HERE);
                let mut to = Vec::new();
                if has_it && sends(own, &[7, 3, 9], &said) {
                    to.extend(wanted_copies(5, &[7, 3, 9], &said, false).into_iter().map(|(node, _)| node));
                }
                let expected = senders.iter().find(|(sender, _)| *sender == own).map(|(_, to)| to.clone());
                assert_eq!(to, expected.unwrap_or_default(), "node {own} after {said:?}");
            }
        }
    }

    #[test]
    fn each_node_gets_a_parcel_in_turn_and_the_one_after_the_sender_is_the_first() {
        let stores: Vec<StoreId> = (0..6).map(|_| StoreId::generate()).collect();
        let queue = |node: usize, count: u64| {
            let copies = |n| vec![Wanted { name: ObjectName::from_bytes([0; 32]), stored_bytes: n, stamp: 1 }];
            (0..count).map(|n| Parcel { to: stores[node], copies: copies(n) }).collect::<Vec<_>>()
        };
        let by_node = BTreeMap::from([(1, queue(1, 3)), (2, queue(2, 1)), (5, queue(5, 2))]);
        let order = |own| {
            let parcels = taking_turns(own, by_node.clone());
            let node =
                |parcel: &Parcel| stores.iter().position(|store| *store == parcel.to).expect("it is one of them");
            parcels.iter().map(|parcel| (node(parcel), parcel.bytes())).collect::<Vec<_>>()
        };
        assert_eq!(order(1), [(1, 0), (2, 0), (5, 0), (1, 1), (5, 1), (1, 2)]);
        assert_eq!(order(3), [(5, 0), (1, 0), (2, 0), (5, 1), (1, 1), (1, 2)]);
    }

    #[test]
    fn a_copy_gets_the_highest_stamp_that_anybody_knows() {
        let said = [Said::Here { stamp: 3 }, Said::Here { stamp: 9 }, Said::Absent];
        assert_eq!(wanted_copies(3, &[0, 1, 2], &said, true), [(2, 9)]);
        assert_eq!(wanted_copies(4, &[2], &[Said::Absent], false), [(2, 4)]);
        // An upload may count on it.
        assert_eq!(wanted_copies(4, &[2], &[Said::Evicted], true), [(2, 4)]);
    }
}
