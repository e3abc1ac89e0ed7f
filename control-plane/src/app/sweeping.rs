//! What this process knows of the sweep: the counts, the round that nodes carry out, and what nodes told.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
};

use muster_api::{
    NodeId, Timestamp,
    node::NodeState,
    node_protocol::{
        Incarnation,
        sweep::{SweepDone, SweepRound},
    },
    pool::SweepState,
};
use storage_core::{census::Census, lock};

use crate::store::nodes::NodeRow;

/// Rounds of which the sums are kept: those of one request and some more.
const SUMS_MAX: usize = 8;

/// What this process knows of the sweep.
#[derive(Debug, Default)]
pub struct Sweeping {
    /// The counts, once they were opened.
    pub(super) census: tokio::sync::Mutex<Option<Opened>>,
    told: Mutex<Told>,
}

/// The counts of one incarnation.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) census: Arc<Census>,
    pub(super) of: Incarnation,
}

#[derive(Debug, Default)]
struct Told {
    standing: Option<Standing>,
    /// The round that nodes carry out.
    named: Option<Named>,
    /// What nodes did in the newest rounds.
    sums: BTreeMap<u64, SweepDone>,
    /// In which incarnation each node told all that it holds.
    reported: HashMap<NodeId, Incarnation>,
    /// What nodes hold and nobody knows what it consists of, in a sentence each.
    unsettled: BTreeMap<NodeId, String>,
    /// The reason for which it was last told that nothing may be swept.
    warned: Option<String>,
    /// When it was last looked whether there is something to give back.
    looked_at: Option<Timestamp>,
}

/// What the sweep does, and since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) state: SweepState,
    pub(super) reason: Option<String>,
    pub(super) since: Timestamp,
}

/// A round that nodes carry out.
#[derive(Clone, Debug)]
pub(super) struct Named {
    pub(super) round: u64,
    of: Incarnation,
    pub(super) census: Arc<Census>,
    /// Objects that something needs.
    pub(super) needed: u64,
    /// What nodes did that have carried it out.
    pub(super) done: BTreeMap<NodeId, SweepDone>,
    /// Whether it was told that all nodes are done.
    is_over: bool,
}

impl Named {
    /// A round that no node has carried out yet.
    pub(super) const fn new(round: u64, of: Incarnation, census: Arc<Census>, needed: u64) -> Self {
        Self { round, of, census, needed, done: BTreeMap::new(), is_over: false }
    }

    /// Whether a node is there and has not carried it out.
    pub(super) fn awaits(&self, node: &NodeRow) -> bool {
        node.state == NodeState::Ready && !self.done.contains_key(&node.id)
    }
}

impl Sweeping {
    /// A node told all instances that it holds, under the newest desired state; or it has just joined and holds none.
    pub(super) fn note_report(&self, node: NodeId, of: Incarnation) {
        lock(&self.told).reported.insert(node, of);
    }

    /// A node told all that it holds, or something of which nobody knows what it consists of, in a sentence.
    pub(super) fn note_unsettled(&self, node: NodeId, what: Option<String>) {
        let unsettled = &mut lock(&self.told).unsettled;
        match what {
            Some(what) => unsettled.insert(node, what),
            None => unsettled.remove(&node),
        };
    }

    /// What one of these nodes holds and nobody knows what it consists of.
    pub(super) fn unsettled(&self, nodes: impl IntoIterator<Item = NodeId>) -> Option<String> {
        let told = lock(&self.told);
        nodes.into_iter().find_map(|node| told.unsettled.get(&node).cloned())
    }

    pub(super) fn has_reported(&self, node: NodeId, of: Incarnation) -> bool {
        lock(&self.told).reported.get(&node) == Some(&of)
    }

    /// The round that a node is to carry out now, unless it has.
    pub(super) fn named_to(&self, node: NodeId, of: Incarnation) -> Option<SweepRound> {
        let told = lock(&self.told);
        let named = told.named.as_ref().filter(|named| named.of == of && !named.done.contains_key(&node))?;
        Some(SweepRound { round: named.round })
    }

    pub(super) fn named(&self, of: Incarnation) -> Option<Named> {
        lock(&self.told).named.clone().filter(|named| named.of == of)
    }

    /// Nodes are told of no round any more.
    pub(super) fn name_none(&self) {
        lock(&self.told).named = None;
    }

    pub(super) fn name(&self, named: Named) {
        lock(&self.told).named = Some(named);
    }

    /// All nodes that are there carried out a round. The answer is whether that is new.
    pub(super) fn note_over(&self, round: u64) -> bool {
        let mut told = lock(&self.told);
        let named = told.named.as_mut().filter(|named| named.round == round && !named.is_over);
        named.map(|named| named.is_over = true).is_some()
    }

    /// When it was last looked whether there is something to give back.
    pub(super) fn looked_at(&self) -> Option<Timestamp> {
        lock(&self.told).looked_at
    }

    pub(super) fn look_at(&self, now: Timestamp) {
        lock(&self.told).looked_at = Some(now);
    }

    /// Whether it was not told yet that nothing may be swept, for this reason. It counts as told from then on.
    pub(super) fn warns(&self, reason: &str) -> bool {
        let mut told = lock(&self.told);
        let is_new = told.warned.as_deref() != Some(reason);
        told.warned = Some(reason.to_owned());
        is_new
    }

    /// Says what the sweep does. The answer is whether that is new.
    pub(super) fn stand(&self, state: SweepState, reason: Option<String>, now: Timestamp) -> bool {
        metrics::gauge!("muster_sweep_held").set(f64::from(u8::from(state == SweepState::Held)));
        let mut told = lock(&self.told);
        match &mut told.standing {
            Some(standing) if standing.state == state => {
                let is_new = standing.reason != reason;
                standing.reason = reason;
                is_new
            }
            other => {
                *other = Some(Standing { state, reason, since: now });
                true
            }
        }
    }

    /// A node has carried out a round. The answer is whether that is new.
    pub(super) fn done(&self, node: NodeId, round: u64, done: SweepDone) -> bool {
        let mut told = lock(&self.told);
        let told = &mut *told;
        let Some(named) = told.named.as_mut().filter(|named| named.round == round) else { return false };
        if named.done.insert(node, done).is_some() {
            return false;
        }
        let sum = told.sums.entry(round).or_default();
        add(sum, &done);
        while told.sums.len() > SUMS_MAX {
            told.sums.pop_first();
        }
        true
    }

    /// What the sweep does, and since when; `None` before the first look.
    pub(super) fn standing(&self) -> Option<Standing> {
        lock(&self.told).standing.clone()
    }

    /// What nodes did in the rounds from this one on.
    pub(super) fn sum_from(&self, round: u64) -> SweepDone {
        let mut all = SweepDone::default();
        for done in lock(&self.told).sums.range(round..).map(|(_, done)| done) {
            add(&mut all, done);
        }
        all
    }
}

/// Nodes may tell any numbers, so these do not overflow.
fn add(sum: &mut SweepDone, done: &SweepDone) {
    sum.objects = sum.objects.saturating_add(done.objects);
    sum.bytes = sum.bytes.saturating_add(done.bytes);
    sum.reclaimed_bytes = sum.reclaimed_bytes.saturating_add(done.reclaimed_bytes);
    sum.unexplained_bytes = sum.unexplained_bytes.saturating_add(done.unexplained_bytes);
}
