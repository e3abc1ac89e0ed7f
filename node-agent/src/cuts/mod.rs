//! Cuts of many disks at one instant, and what becomes of them.
//!
//! ```text
//! coordinator    prepare all --> (freeze all) --> hold all --> (all confirmed: the instant) --> flip each --> (thaw all) --> report Flipped
//!                    |                 |             |                                             |             |
//!                    +---- any refusal or silence ----> abort all, which thaws ----> report Failed +-------------+
//! each member    frozen epoch of a commit ----> save (objects durable) ----> stage ----> published | abandoned
//! ```
//! One node with members coordinates ([`CutOrder::coordinate`]). The steps travel over the connections between nodes, to
//! all members side by side, and each step has a limit (I10, I11). A member carries out a step only for the disks that
//! its *own* desired state names for that snapshot and attempt. It waits a moment for an order that is still on its way.
//!
//! I7: the coordinator asks for a flip only after every hold was confirmed, and a member whose hold has ended refuses the
//! flip. So when one member's version has a write, no other member's version lacks a write that was acknowledged before
//! it. A coordinator that was restarted begins again with the same attempt: members that have flipped refuse to prepare,
//! the attempt fails as a whole, and the controller orders the next one.
//!
//! I3, I9: a commit is staged only when all its objects are durable, and under an id of its own. Before the agent does
//! anything with a commit it finds at its start, it asks the controller what became of it.
//!
//! A snapshot that promises consistent file systems has two more rounds: guest agents freeze the file systems of guests
//! that run before the hold, and thaw them after the flip. The cut counts only if all were frozen until then. No guest stays
//! frozen, whatever fails (`freezes`).
//!
//! Reading order: `coordinator`, `member`, `freezes`, `settle` (what becomes of the frozen epochs), then the two seams:
//! `disks` (what a cut asks of this node's disks) and `peers` (steps on other nodes).
//!
//! [`CutOrder::coordinate`]: muster_api::node_protocol::CutOrder::coordinate

mod coordinator;
mod disks;
mod freezes;
mod member;
mod peers;
mod settle;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use muster_api::{
    CommitId, NodeId, Reason,
    node_protocol::{CutKey, CutPhase},
};
use storage_core::{cause::explain, lock};
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

pub use self::{disks::DiskCuts, freezes::Freezes, peers::PeerSteps};
use crate::{controller::ControllerClient, desired::Known, latest::latest_seen, mirror::DiskError};

/// Longest a flip or an abort takes.
const STEP: Duration = Duration::from_secs(3);
/// Longest a round of freezing takes on a node, however many guests there are.
const FREEZE_ALL: Duration = Duration::from_secs(20);
/// Longest a round of thawing is waited for. Guests that have not answered by then are thawed later.
const THAW_ALL: Duration = Duration::from_secs(12);
/// Saves of this node at a time. More than one, so that a save that waits for a node that is down does not keep the
/// others.
const SAVES: usize = 4;
/// Saves in the background at a time. They have turns of their own, so that no other save waits for them.
const BACKGROUND_SAVES: usize = 2;
/// Pauses between tries to reach the controller.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MOST: Duration = Duration::from_secs(5);

/// Why a step of a cut was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail} ({reason})")]
pub struct CutRefusal {
    /// The reason as a stable word, for programs.
    pub reason: Reason,
    /// What went wrong, in a sentence.
    pub detail: String,
}

impl CutRefusal {
    fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }
}

impl From<DiskError> for CutRefusal {
    fn from(error: DiskError) -> Self {
        Self::new(error.reason(), explain(&error))
    }
}

/// What [`Cuts`] is made of.
pub struct CutParts {
    /// Id of this node.
    pub node: NodeId,
    /// Disks of this node, which are held, flipped and committed.
    pub disks: Arc<dyn DiskCuts>,
    /// Freezes and thaws the guests of this node.
    pub freezes: Arc<Freezes>,
    /// Asks other nodes for their steps, when this node coordinates.
    pub peers: Arc<dyn PeerSteps>,
    /// Takes reports and staged commits, and knows the outcome of commits.
    pub controller: Arc<dyn ControllerClient>,
    /// The desired state, which has the orders.
    pub known: watch::Receiver<Arc<Known>>,
}

/// This node's part in cuts: always as a member, and as the coordinator when its order says so.
pub struct Cuts {
    parts: CutParts,
    /// Tells [`Cuts::run`] that a disk was flipped, so there is a commit to save.
    flipped: Notify,
    saves: Semaphore,
    background_saves: Semaphore,
    /// Cuts prepared here and not flipped yet. They are given up when they are no longer ordered, also if nobody sends
    /// an abort (I10).
    prepared: Mutex<HashSet<CutKey>>,
}

/// One finished piece of the work in [`Cuts::run`].
enum Work {
    Coordinated(CutKey),
    GivenUp(CutKey),
    Settled(CommitId),
}

type Working<'a> = FuturesUnordered<BoxFuture<'a, Work>>;

impl Cuts {
    /// Does nothing until [`Cuts::run`] is polled or a step is asked for.
    #[must_use]
    pub fn new(parts: CutParts) -> Self {
        Self {
            parts,
            flipped: Notify::new(),
            saves: Semaphore::new(SAVES),
            background_saves: Semaphore::new(BACKGROUND_SAVES),
            prepared: Mutex::default(),
        }
    }

    /// Coordinates the cuts it is told to and settles every frozen commit, until `cancel`.
    pub async fn run(&self, cancel: CancellationToken) {
        self.parts.freezes.thaw_left_over();
        let mut known = self.parts.known.clone();
        let mut begun: HashSet<CutKey> = HashSet::new();
        let mut settling: HashSet<CommitId> = HashSet::new();
        let mut settled: HashSet<CommitId> = HashSet::new();
        let mut work = Working::new();
        loop {
            let flipped = self.flipped.notified();
            let now = latest_seen(&mut known);
            self.begin_ordered(&now, &mut begun, &work);
            for key in lock(&self.prepared).extract_if(|key| now.cut(*key).is_none()) {
                work.push(self.abort(key).map(move |()| Work::GivenUp(key)).boxed());
            }
            let commits = self.parts.disks.commits();
            settled.retain(|commit| commits.iter().any(|(_, listed)| listed == commit));
            for (disk, commit) in commits {
                if !settled.contains(&commit) && settling.insert(commit) {
                    work.push(self.settle(disk, commit).map(move |()| Work::Settled(commit)).boxed());
                }
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                () = flipped => {}
                changed = known.changed() => if changed.is_err() { return },
                Some(done) = work.next() => match done {
                    Work::Coordinated(key) => debug!(snapshot.id = %key.snapshot, attempt = key.attempt, "coordinated a cut"),
                    Work::GivenUp(key) => info!(snapshot.id = %key.snapshot, attempt = key.attempt, "a cut that is no longer ordered was given up"),
                    Work::Settled(commit) => {
                        settling.remove(&commit);
                        settled.insert(commit);
                    }
                },
            }
        }
    }

    /// Begins to coordinate the cuts that the controller ordered in this process's life: an order read from disk may be
    /// long over.
    fn begin_ordered<'a>(&'a self, now: &Known, begun: &mut HashSet<CutKey>, work: &Working<'a>) {
        begun.retain(|key| now.cut(*key).is_some());
        for order in now.desired.cuts.iter().filter(|order| now.fresh && order.phase == CutPhase::Cut) {
            let key = order.key();
            if let Some(nodes) = &order.coordinate
                && begun.insert(key)
            {
                let (order, nodes) = (order.clone(), nodes.clone());
                work.push(self.coordinate(order, nodes).map(move |()| Work::Coordinated(key)).boxed());
            }
        }
    }

    /// Gives a cut up on this node's guests and disks.
    async fn abort(&self, key: CutKey) {
        self.parts.freezes.give_up(key);
        if let Err(error) = self.parts.disks.abort(key).await {
            // The controller abandons the attempt as well, and `settle` asks for the outcome until that is recorded.
            warn!(snapshot.id = %key.snapshot, attempt = key.attempt, error = explain(&error), "a cut was not given up cleanly");
        }
    }
}
