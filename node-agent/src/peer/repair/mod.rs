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
//! that belongs to others. After one that was not, the next follows soon, and later each time unless it got on. A node that owns
//! nothing is *empty* when a pass found nothing after all puts had ended that it took before. Nothing is remembered but in memory: a start begins with a pass.
//!
//! Repair gives way: it sends no faster than `repair_bytes_per_s`, hands over no faster than that, since other nodes read
//! what they are to keep, and waits a moment before each parcel while somebody waits for objects.
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
use tokio::time::{Instant, sleep_until};

pub use asked::Asked;

use self::{asked::Work, gone::Gone, progress::Progress, tell::Telling};
use super::losses::Losses;
use crate::pace::Pace;

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
    progress: Progress,
    gone: Gone,
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
            progress: Progress::default(),
            gone: Gone::default(),
        }
    }

    /// How far it is; none before the first pass.
    #[must_use]
    pub fn progress(&self) -> Option<node::Repair> {
        self.progress.read()
    }

    /// Repairs. Never ends.
    pub async fn run(&self) {
        let mut again = Backoff::new(AGAIN_FIRST, AGAIN_MOST);
        let mut tell_again = Backoff::new(AGAIN_FIRST, AGAIN_MOST);
        let mut telling = Telling::default();
        let (mut pass_at, mut tell_at) = (Instant::now(), Instant::now());
        let mut epoch = self.pool.membership().epoch;
        loop {
            if Instant::now() >= tell_at {
                let done = self.tell_losses(&mut telling).await;
                self.look_for_gone().await;
                tell_at = Instant::now() + if done { EVERY } else { tell_again.pause() };
            }
            if Instant::now() >= pass_at {
                epoch = self.pool.membership().epoch;
                let before = self.progress.moved();
                let clean = self.pass().await;
                if clean || self.progress.moved() != before {
                    again.reset();
                }
                if clean {
                    pass_at = Instant::now() + EVERY;
                } else {
                    pass_at = Instant::now() + again.pause();
                }
            }
            tokio::select! {
                () = sleep_until(pass_at.min(tell_at)) => {}
                () = self.pool.membership_after(epoch) => {
                    again.reset();
                    pass_at = Instant::now();
                }
                work = self.asked.next() => match work {
                    Work::Pass => pass_at = Instant::now(),
                    Work::Check(names) => if !self.check_names(names).await {
                        pass_at = pass_at.min(Instant::now() + again.pause());
                    },
                    Work::Tell => {
                        tell_again.reset();
                        tell_at = Instant::now();
                    }
                },
            }
        }
    }
}
