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
//! * Nothing is dropped here. A copy that is too many is left to the hand-over.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Mutex,
};

use futures::{StreamExt as _, stream};
use http::HeaderValue;
use storage_core::{
    NodeId, ObjectName, Record, StoreId, lock,
    membership::Member,
    store::{Listed, StoreError},
    units::u64_from,
};
use tracing::debug;

use crate::{
    PoolClient,
    inner::Inner,
    protocol::{NAMES_MAX, OWN_ROUND},
    put::{PutFailure, accepted},
    view::View,
    wire::{decode_stamps, encode_names},
};

/// Questions under way at a time.
const QUESTIONS: usize = 8;
/// Stored bytes that are sent to a node at a time. They are read into memory.
const PARCEL_BYTES: u64 = 4 << 20;

/// Copies for one node, to be sent together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel {
    to: NodeId,
    store: StoreId,
    /// Names, and the stamps that the copies get at least.
    objects: Vec<(ObjectName, u64)>,
    bytes: u64,
}

impl Parcel {
    /// Number of copies.
    #[must_use]
    pub fn objects(&self) -> u64 {
        u64_from(self.objects.len())
    }

    /// Their stored bytes, without headers.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }
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

    fn is_silent(&self, store: StoreId) -> bool {
        lock(&self.0).silent.contains(&store)
    }

    fn contains(&self, store: StoreId) -> bool {
        let stores = lock(&self.0);
        stores.silent.contains(&store) || stores.full.contains(&store)
    }

    fn add(&self, member: &Member, failure: &PutFailure) {
        debug!(node.name = %member.name, failure.reason, "the repair leaves a node alone");
        let mut stores = lock(&self.0);
        let set = if failure.full { &mut stores.full } else { &mut stores.silent };
        set.insert(member.store);
    }
}

/// What a home said about an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Nothing,
    Absent,
    Here { stamp: u64 },
}

impl PoolClient {
    /// The copies of these objects of this node's own share that other nodes lack and this one has to send, as far as the
    /// nodes answer.
    pub async fn lacking(&self, held: &[Listed], avoided: &Avoided) -> Vec<Parcel> {
        let view = self.inner.view.load_full();
        let own = self.inner.local.as_ref().and_then(|local| view.position(local.store));
        // A node that is not a member has no place in the order of those who send.
        let Some(own) = own else { return Vec::new() };
        let homes = view.homes(held, &lock(&avoided.0).full);
        let said = self.inner.ask_homes(&view, own, held, &homes, avoided).await;
        let mut wanted: BTreeMap<usize, Vec<(&Listed, u64)>> = BTreeMap::new();
        for (at, object) in held.iter().enumerate() {
            for (node, stamp) in wanted_copies(own, object.round, &homes[at], &said[at]) {
                wanted.entry(node).or_default().push((object, stamp));
            }
        }
        wanted.into_iter().flat_map(|(node, objects)| parcels(view.member(node), &objects)).collect()
    }

    /// Sends a parcel. Returns the copies that are durable there now: objects that this node no longer holds are left out.
    /// None if the node did not take it; then it is avoided.
    pub async fn send_parcel(&self, parcel: &Parcel, avoided: &Avoided) -> Result<Option<Parcel>, StoreError> {
        let local = self.inner.local.as_ref().expect("parcels are of this node's own share");
        let view = self.inner.view.load_full();
        let Some(member) = view.position(parcel.store).map(|at| view.member(at)) else { return Ok(None) };
        if avoided.contains(parcel.store) {
            return Ok(None);
        }
        let (chunks, objects) = (local.chunks.clone(), parcel.objects.clone());
        let read = tokio::task::spawn_blocking(move || {
            let mut records = Vec::with_capacity(objects.len());
            for (name, stamp) in objects {
                // It may have been touched since it was listed.
                records.extend(chunks.get(&name)?.map(|record| {
                    let stamp = stamp.max(record.body().round);
                    record.with_round(stamp)
                }));
            }
            Ok::<Vec<Record>, StoreError>(records)
        });
        let records = match read.await {
            Ok(records) => records?,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        };
        let sent = Parcel {
            objects: records.iter().map(|record| (record.name(), record.body().round)).collect(),
            bytes: records.iter().map(|record| u64_from(record.stored().len())).sum(),
            ..*parcel
        };
        if records.is_empty() {
            return Ok(Some(sent));
        }
        let health = self.inner.health(member.store);
        let _permit = health.puts.acquire().await.expect("nobody closes it");
        let own = HeaderValue::from_static(OWN_ROUND);
        match self.inner.send(member, own, &records.iter().collect::<Vec<_>>()).await {
            Ok(()) => {
                health.well();
                Ok(Some(sent))
            }
            Err(failure) => {
                if failure.full {
                    health.full()
                } else {
                    health.failed()
                }
                avoided.add(member, &failure);
                Ok(None)
            }
        }
    }
}

impl Inner {
    /// Asks the homes of all objects, each node a bounded number of names at a time. The answer has, for each object, what
    /// its homes said, in their order.
    async fn ask_homes(
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
            let stamps = self.stamps_at(view.member(node), &names, avoided).await;
            (part, stamps)
        });
        let mut answers = asked.buffer_unordered(QUESTIONS);
        while let Some((part, stamps)) = answers.next().await {
            let Some(stamps) = stamps else { continue };
            for ((at, place), stamp) in part.iter().zip(stamps) {
                said[*at][*place] = stamp.map_or(Said::Absent, |stamp| Said::Here { stamp });
            }
        }
        said
    }

    /// Asks one node which of these objects it has, with which stamps. None: it did not answer, and is avoided.
    async fn stamps_at(&self, member: &Member, names: &[ObjectName], avoided: &Avoided) -> Option<Vec<Option<u64>>> {
        if avoided.is_silent(member.store) {
            return None;
        }
        let health = self.health(member.store);
        match self.have(member, names).await {
            Ok(stamps) => {
                health.well();
                Some(stamps)
            }
            Err(failure) => {
                health.failed();
                avoided.add(member, &failure);
                None
            }
        }
    }

    async fn have(&self, member: &Member, names: &[ObjectName]) -> Result<Vec<Option<u64>>, PutFailure> {
        let health = self.health(member.store);
        let _permit = health.puts.acquire().await.expect("nobody closes it");
        let (http, base) = self.address(member.node).map_err(|e| PutFailure::other(e.to_string()))?;
        let request = http
            .post(format!("{base}/peer/v1/objects/have"))
            .timeout(self.limits.silence)
            .body(encode_names(names.iter().copied()));
        let answer = request.send().await.inspect_err(|e| health.not_connected(e));
        let body = accepted(answer, names.len() * 8).await?;
        decode_stamps(&body, names.len()).map_err(|e| PutFailure::other(e.to_string()))
    }
}

/// The nodes that this one, at position `own`, has to send an object to, with the stamp that the copies get. It holds the
/// object with the stamp `held`.
fn wanted_copies(own: usize, held: u64, homes: &[usize], said: &[Said]) -> Vec<(usize, u64)> {
    let here = |said: &Said| if let Said::Here { stamp } = said { Some(*stamp) } else { None };
    let best = homes.iter().zip(said).find(|(_, said)| here(said).is_some());
    if best.is_some_and(|(node, _)| *node != own) {
        return Vec::new();
    }
    let stamp = said.iter().filter_map(here).max().unwrap_or(held).max(held);
    homes.iter().zip(said).filter(|(_, said)| **said == Said::Absent).map(|(node, _)| (*node, stamp)).collect()
}

/// Cuts what a node lacks into parcels.
fn parcels(member: &Member, objects: &[(&Listed, u64)]) -> Vec<Parcel> {
    let mut parcels: Vec<Parcel> = Vec::new();
    for (object, stamp) in objects {
        let fits = |parcel: &&mut Parcel| {
            parcel.objects.len() < NAMES_MAX && parcel.bytes + object.stored_bytes <= PARCEL_BYTES
        };
        match parcels.last_mut().filter(fits) {
            Some(parcel) => {
                parcel.objects.push((object.name, *stamp));
                parcel.bytes += object.stored_bytes;
            }
            None => parcels.push(Parcel {
                to: member.node,
                store: member.store,
                objects: vec![(object.name, *stamp)],
                bytes: object.stored_bytes,
            }),
        }
    }
    parcels
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Said = Said::Here { stamp: 5 };

    #[test]
    fn the_best_home_with_a_copy_sends_it_to_those_without() {
        use Said::{Absent, Nothing};
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
        ] {
            for own in [7, 3, 9, 1] {
                let has_it = own == 1 || [7, 3, 9].iter().zip(said).any(|(node, said)| *node == own && said == HERE);
                let wanted = if has_it { wanted_copies(own, 5, &[7, 3, 9], &said) } else { Vec::new() };
                let to: Vec<usize> = wanted.iter().map(|(node, _)| *node).collect();
                let expected = senders.iter().find(|(sender, _)| *sender == own).map(|(_, to)| to.clone());
                assert_eq!(to, expected.unwrap_or_default(), "node {own} after {said:?}");
            }
        }
    }

    #[test]
    fn a_copy_gets_the_highest_stamp_that_anybody_knows() {
        let said = [Said::Here { stamp: 3 }, Said::Here { stamp: 9 }, Said::Absent];
        assert_eq!(wanted_copies(0, 3, &[0, 1, 2], &said), [(2, 9)]);
        assert_eq!(wanted_copies(8, 4, &[2], &[Said::Absent]), [(2, 4)]);
    }
}
