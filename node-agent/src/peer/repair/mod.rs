//! Repair: this node sends the copies that other nodes lack and that it has to send ([`muster_pool::Parcel`]). Hand-over: it
//! drops the copies that belong to other nodes and that those have ([`PoolClient::hand_over`]).
//!
//! ```text
//! start, new membership epoch, 6 h, a pass that was not clean, a node that lost copies without knowing which --> pass over
//!                                                                                                       all objects of this node
//! a node that lost copies and knows their names (`LostCopies`) ------------------------------------> check of those objects
//! copies that this node lost (`Losses`) ------------------------------------> the other nodes are told until they are back
//! ```
//! A pass is *clean* when all nodes that it asked answered, everything that they lack was sent, and nothing is here any more
//! that belongs to others. After one that was not, the next follows soon, and later each time unless it got on. It first sends what
//! others lack, over all objects, and then hands over: redundancy goes first. With a new membership record it begins anew. Checks
//! and tales of losses go on beside it, so that a pass that takes days keeps no other node from its copies. A node that owns
//! nothing is *empty* when a pass found nothing after all puts had ended that it took before. Nothing is remembered but in memory: a start begins with a pass.
//!
//! Repair gives way: it sends no faster than `repair_bytes_per_s`, and hands over no faster than that, since other nodes read
//! what they are to keep. While somebody waits for objects here or at the node that gets a parcel, one parcel goes at a
//! time, with pauses after each ([`SlowLane`]).
//!
//! Reading order: [`Repair`], `pass` (objects in name order), `tell` (what this node lost), `gone` (what nobody has), `asked` (what others lost),
//! `progress`.

mod asked;
mod gone;
mod pass;
mod progress;
mod tell;

use std::{sync::Arc, time::Duration};

use muster_api::node;
use muster_pool::PoolClient;
use storage_core::{Backoff, store::ChunkStore};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

pub use asked::Asked;

use self::{gone::Gone, progress::Progress, tell::Telling};
use super::losses::Losses;
use crate::pace::{Pace, SlowLane};

/// Time between two passes when nothing happened.
const EVERY: Duration = Duration::from_secs(6 * 3600);
/// Pause after a pass that was not clean. It doubles each time.
const AGAIN_FIRST: Duration = Duration::from_secs(5);
/// Longest such pause.
const AGAIN_MOST: Duration = Duration::from_secs(600);

/// What the repair works with.
pub struct RepairParts {
    /// The pool, with this node's share of it.
    pub pool: PoolClient,
    /// This node's share of the pool.
    pub chunks: Arc<dyn ChunkStore>,
    /// What it has lost.
    pub losses: Arc<Losses>,
    /// What it is asked for; the peer server has it, too.
    pub asked: Arc<Asked>,
    /// Most stored bytes per second that it sends; at least 1.
    pub bytes_per_s: u64,
}

/// The repair of one node.
pub struct Repair {
    pool: PoolClient,
    chunks: Arc<dyn ChunkStore>,
    losses: Arc<Losses>,
    asked: Arc<Asked>,
    pace: Pace,
    hand_over_pace: Pace,
    slow_lane: SlowLane,
    progress: Progress,
    gone: Gone,
    /// Copies that a check could not send.
    left: Notify,
}

impl Repair {
    /// A repair that has not begun.
    #[must_use]
    pub fn new(parts: RepairParts) -> Self {
        let RepairParts { pool, chunks, losses, asked, bytes_per_s } = parts;
        Self {
            pool,
            chunks,
            losses,
            asked,
            pace: Pace::new(bytes_per_s),
            hand_over_pace: Pace::new(bytes_per_s),
            slow_lane: SlowLane::default(),
            progress: Progress::default(),
            gone: Gone::default(),
            left: Notify::new(),
        }
    }

    /// How far it is; none before the first pass.
    #[must_use]
    pub fn progress(&self) -> Option<node::Repair> {
        self.progress.read()
    }

    /// Repairs. Never ends.
    pub async fn run(&self) {
        tokio::join!(self.passes(), self.checks(), self.tales());
    }

    /// Passes over all objects of this node.
    async fn passes(&self) {
        let mut again = Backoff::new(AGAIN_FIRST, AGAIN_MOST);
        let mut pass_at = Instant::now();
        let mut record = self.pool.membership();
        loop {
            if Instant::now() >= pass_at {
                record = self.pool.membership();
                self.asked.pass_begins();
                let before = self.progress.moved();
                let clean = tokio::select! {
                    clean = self.pass() => clean,
                    // What it has done stays done.
                    () = self.pool.membership_after(&record) => {
                        again.reset();
                        continue;
                    }
                };
                if clean || self.progress.moved() != before {
                    again.reset();
                }
                pass_at = Instant::now() + if clean { EVERY } else { again.pause() };
            }
            tokio::select! {
                () = sleep_until(pass_at) => {}
                () = self.pool.membership_after(&record) => {
                    again.reset();
                    pass_at = Instant::now();
                }
                () = self.asked.pass() => pass_at = Instant::now(),
                () = self.left.notified() => pass_at = pass_at.min(Instant::now() + again.pause()),
            }
        }
    }

    /// Checks of what other nodes lost.
    async fn checks(&self) {
        loop {
            let names = self.asked.names().await;
            if !self.check_names(names).await {
                self.left.notify_one();
            }
        }
    }

    /// Tells other nodes what this one lost.
    async fn tales(&self) {
        let mut again = Backoff::new(AGAIN_FIRST, AGAIN_MOST);
        let mut telling = Telling::default();
        loop {
            let done = self.tell_losses(&mut telling).await;
            self.look_for_gone().await;
            let tell_at = Instant::now() + if done { EVERY } else { again.pause() };
            tokio::select! {
                () = sleep_until(tell_at) => {}
                () = self.asked.tell() => again.reset(),
            }
        }
    }
}
