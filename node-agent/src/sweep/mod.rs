//! A node's part of the sweep: it drops those of its objects that nothing needs any more, and gives its disk their space
//! back (I6). The messages are in `node_protocol/sweep.rs` of the API.
//!
//! ```text
//! a heartbeat names round s           the note says that round     what is asked
//!   of the history known here   -->   s - 1 was carried out        the dead of s; own objects of stamp s - 2; one slice of 64
//!                                     s     was carried out        nothing: the controller did not hear that it is done
//!                                     anything else, or no note    all own objects
//!
//! names that nothing needs --> removed if their stamp is below s - 1 --> durable     (pieces, a pause after each)
//!                                                     all of them --> space given back --> note --> done
//! ```
//! Nothing is dropped by a guess. Only the controller of the history that this node follows is asked, what its answer
//! lacks stays, and an answer that makes no sense ends the round. A stamp protects what an upload put or touched in the
//! last rounds, also after the controller judged it: the store compares stamps at the moment of the removal.
//!
//! A process that is killed begins the round again, and so does one whose store or controller failed. That is harmless,
//! because an object that is gone is not dropped twice. The store can bring back objects after damage; their turn comes
//! with their slice.
//!
//! A copy that another node made again may be of an object that was swept here, and has its old stamp. After such a copy
//! came, the next round asks about all. Before it comes, the note goes, so that this holds for the next process, too.
//!
//! The repository, where there is one, loses an object a round later than the nodes do ([`crate::peer::repository`]).
//!
//! Guests, other nodes and commits go first: after each step this loop rests for as long as the step took.

mod note;
mod scope;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use metrics::{counter, gauge};
use muster_api::{
    ErrorCode,
    node_protocol::{
        Incarnation,
        sweep::{NAMES_MAX, SweepDone},
    },
};
use serde::Serialize;
use storage_core::{
    Backoff, ObjectName,
    cause::explain,
    lock,
    store::{ChunkStore as _, StoreError},
};
use tokio::{sync::watch, task::spawn_blocking, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use self::{
    note::{Note, NoteFile},
    scope::Scope,
};
use crate::{
    controller::{Call, ControllerClient, ControllerError},
    latest::{Latest as _, latest_seen},
    mirror::is_no_space,
    pace::{Steps, at_low_priority},
    peer::{repository::Keeper, share::PoolShare},
    telemetry,
};

pub use scope::Named;

/// Objects that the store is asked to list at a time.
const LIST: usize = 4096;
/// Pauses between two tries of a call that did not reach the controller, and after a round that failed.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));

/// What `muster-agent status` says about the sweep.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SweepStatus {
    /// The round that this node carries out now.
    pub round: Option<u64>,
    /// The last round that it has carried out, and what that did.
    pub last: Option<LastSweep>,
    /// Why the round does not go on, in words.
    pub trouble: Option<String>,
}

/// A round that was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LastSweep {
    /// Number of the round.
    pub round: u64,
    /// What it did on this node.
    #[serde(flatten)]
    pub done: SweepDone,
}

/// Carries out the rounds that heartbeats name.
pub struct Sweeper {
    controller: Arc<dyn ControllerClient>,
    share: Arc<PoolShare>,
    /// What deletes in the repository.
    keeper: Option<Arc<Keeper>>,
    named: watch::Sender<Option<Named>>,
    file: Arc<Mutex<Filed>>,
    /// The last round that was carried out. Its note may have gone from the disk.
    noted: Mutex<Option<Note>>,
    status: Mutex<SweepStatus>,
}

/// The note on the disk.
struct Filed {
    file: NoteFile,
    /// The round that it says was carried out.
    round: Option<u64>,
}

impl Filed {
    /// Whether a process that begins with this note would not ask about an object that comes with such a stamp.
    const fn misses(round: u64, stamp: u64) -> bool {
        stamp.saturating_add(1) < round
    }

    /// Objects come with this stamp.
    fn hear_of(&mut self, stamp: u64) -> std::io::Result<()> {
        if self.round.is_some_and(|round| Self::misses(round, stamp)) {
            self.file.remove()?;
            self.round = None;
        }
        Ok(())
    }

    /// Files a note, unless objects came meanwhile that it would miss.
    fn take(&mut self, note: &Note, oldest_put: u64) -> std::io::Result<()> {
        if Self::misses(note.round, oldest_put) {
            return self.file.remove().map(|()| self.round = None);
        }
        self.file.store(note).map(|()| self.round = Some(note.round))
    }
}

/// Why a round ended before it was done.
enum End {
    /// The controller does not name it any more.
    Over,
    /// It cannot go on now. It is begun again while heartbeats name it.
    Trouble(String),
}

impl From<StoreError> for End {
    fn from(error: StoreError) -> Self {
        Self::Trouble(explain(&error))
    }
}

/// The history of the database that a round is of, as a word.
fn history(named: Named) -> String {
    format!("{} {}", named.incarnation.number, named.incarnation.random)
}

impl Sweeper {
    /// For this node's share of the pool. The note is in the data folder.
    #[must_use]
    pub fn new(controller: Arc<dyn ControllerClient>, share: Arc<PoolShare>, data_dir: &std::path::Path) -> Self {
        let file = NoteFile::new(data_dir);
        let noted = file.load();
        let file = Arc::new(Mutex::new(Filed { file, round: noted.map(|note| note.round) }));
        let filed = file.clone();
        share.watch_stamps(move |stamp| lock(&filed).hear_of(stamp));
        let last = noted.map(|note| LastSweep { round: note.round, done: note.done });
        let status = Mutex::new(SweepStatus { last, ..SweepStatus::default() });
        Self {
            controller,
            share,
            keeper: None,
            named: watch::Sender::new(None),
            file,
            noted: Mutex::new(noted),
            status,
        }
    }

    /// As it is, and also for what this node keeps in the repository.
    #[must_use]
    pub fn with_keeper(self, keeper: Arc<Keeper>) -> Self {
        Self { keeper: Some(keeper), ..self }
    }

    /// A heartbeat was answered: the round that it names, if it is of the history of the database that this node follows.
    pub fn heard(&self, named: Option<Named>) {
        self.named.send_replace(named);
    }

    /// Bytes of objects that the last round found by chance; `None` until a round of this history was carried out.
    #[must_use]
    pub fn unexplained_bytes(&self, of: Incarnation) -> Option<u64> {
        let noted = *lock(&self.noted);
        noted.filter(|note| note.incarnation == of).map(|note| note.done.unexplained_bytes)
    }

    /// What it does now, and did last.
    #[must_use]
    pub fn status(&self) -> SweepStatus {
        lock(&self.status).clone()
    }

    /// Carries out rounds for ever.
    pub async fn run(&self) {
        let mut heard = self.named.subscribe();
        let mut backoff = Backoff::new(PAUSE.0, PAUSE.1);
        // `self` has the sender.
        while heard.changed().await.is_ok() {
            let Some(named) = latest_seen(&mut heard) else { continue };
            let ended = self.carry_out(named).await;
            // What was heard meanwhile is as old as the round. The next heartbeat names one that is still to be done.
            heard.mark_unchanged();
            let trouble = match ended {
                Ok(()) | Err(End::Over) => None,
                Err(End::Trouble(why)) => Some(why),
            };
            let is_well = trouble.is_none();
            let before = {
                let mut status = lock(&self.status);
                status.round = None;
                std::mem::replace(&mut status.trouble, trouble.clone())
            };
            // Once for each reason: a disk that failed fails every time.
            if let Some(error) = trouble.filter(|why| before.as_ref() != Some(why)) {
                warn!(round = named.round.round, error, "the sweep does not go on; it is tried again");
            }
            if is_well {
                backoff.reset();
            } else {
                sleep(backoff.pause()).await;
            }
        }
    }

    async fn carry_out(&self, named: Named) -> Result<(), End> {
        let noted = *lock(&self.noted);
        let oldest_put = self.share.take_oldest_put();
        let scope = Scope::of(noted.as_ref(), named, oldest_put);
        let ended = self.carry_out_as(named, noted, scope).await;
        if ended.is_err() || !matches!(scope, Scope::Next | Scope::All) {
            self.share.give_oldest_put(oldest_put);
        }
        ended
    }

    async fn carry_out_as(&self, named: Named, noted: Option<Note>, scope: Scope) -> Result<(), End> {
        let done = match scope {
            Scope::Told(done) => done,
            Scope::Past => {
                let why = format!(
                    "round {} is named, but this node has carried out round {} of the same database",
                    named.round.round,
                    noted.map_or(0, |note| note.round)
                );
                return Err(End::Trouble(why));
            }
            Scope::Next | Scope::All => {
                let round = named.round.round;
                debug!(round, ?scope, "a round of the sweep begins");
                lock(&self.status).round = Some(round);
                let done = self.sweep(named, scope).await?;
                self.take_note(Note { incarnation: named.incarnation, round, done }).await?;
                if done == SweepDone::default() {
                    debug!(round, "a round of the sweep found nothing");
                } else {
                    let SweepDone { objects, bytes, reclaimed_bytes, unexplained_bytes } = done;
                    info!(
                        round,
                        objects,
                        bytes,
                        reclaimed_bytes,
                        unexplained_bytes,
                        "a round of the sweep gave back space of the pool"
                    );
                }
                done
            }
        };
        self.ask(named, || self.controller.sweep_done(named.round.round, done)).await
    }

    /// Drops what nothing needs, and gives its space back.
    async fn sweep(&self, named: Named, scope: Scope) -> Result<SweepDone, End> {
        let mut done = SweepDone::default();
        if scope == Scope::Next {
            self.drop_dead(named, &mut done).await?;
        }
        self.drop_own(named, scope, &mut done).await?;
        self.drop_evicted(named, scope, &mut done).await?;
        self.bury(named).await?;
        done.reclaimed_bytes = self.reclaim(named).await?;
        counter!(telemetry::POOL_RECLAIMED_BYTES).increment(done.reclaimed_bytes);
        Ok(done)
    }

    /// Drops the objects of which the controller says that nothing needs them since this round.
    async fn drop_dead(&self, named: Named, done: &mut SweepDone) -> Result<(), End> {
        let mut after = None;
        loop {
            let dead = self.ask(named, || self.controller.sweep_dead(named.round.round, after)).await?;
            let (Some(first), Some(last)) = (dead.first(), dead.last()) else { return Ok(()) };
            if after.is_some_and(|after| *first <= after) {
                let why = format!("the controller was asked for dead objects after {after:?} and answered {first}");
                return Err(End::Trouble(why));
            }
            after = Some(*last);
            self.drop_objects(named, dead, done).await?;
        }
    }

    /// Asks about this node's own objects, and drops those that nothing needs.
    async fn drop_own(&self, named: Named, scope: Scope, done: &mut SweepDone) -> Result<(), End> {
        let mut after = None;
        let mut asked: Vec<ObjectName> = Vec::new();
        // Those of them that an earlier round should have given up.
        let mut by_chance: BTreeSet<ObjectName> = BTreeSet::new();
        loop {
            let began = Instant::now();
            let listed = self.on_share(move |share| share.list_all(after.as_ref(), LIST)).await?;
            let is_end = listed.is_empty();
            after = listed.last().map(|object| object.name);
            let covered = listed.iter().filter(|o| scope.covers(o, named.round));
            asked.extend(covered.clone().map(|object| object.name));
            by_chance.extend(covered.filter(|o| scope.is_by_chance(o, named.round)).map(|object| object.name));
            while asked.len() >= NAMES_MAX || (is_end && !asked.is_empty()) {
                let later = asked.split_off(asked.len().min(NAMES_MAX));
                let part = std::mem::replace(&mut asked, later);
                let unneeded = self.ask(named, || self.controller.sweep_judge(named.round.round, part.clone())).await?;
                if let Some(other) = unneeded.iter().find(|name| part.binary_search(name).is_err()) {
                    let why = format!("the controller judged {other}, about which it was not asked");
                    return Err(End::Trouble(why));
                }
                let (strays, others) = unneeded.into_iter().partition(|name| by_chance.contains(name));
                part.iter().for_each(|name| _ = by_chance.remove(name));
                self.drop_objects(named, others, done).await?;
                let before = done.bytes;
                self.drop_objects(named, strays, done).await?;
                done.unexplained_bytes += done.bytes - before;
            }
            if is_end {
                return Ok(());
            }
            self.check(named)?;
            sleep(began.elapsed()).await;
        }
    }

    /// Asks about the objects of which this node gave its copy up, and forgets those that nothing needs.
    async fn drop_evicted(&self, named: Named, scope: Scope, done: &mut SweepDone) -> Result<(), End> {
        let Some(keeper) = &self.keeper else { return Ok(()) };
        let mut after = None;
        loop {
            let began = Instant::now();
            let listed = keeper.evicted_after(after, NAMES_MAX).await;
            let Some(last) = listed.last() else { return Ok(()) };
            after = Some(last.name);
            let names = listed.iter().filter(|object| scope.covers(object, named.round)).map(|object| object.name);
            let part: Vec<ObjectName> = names.collect();
            if !part.is_empty() {
                let unneeded = self.ask(named, || self.controller.sweep_judge(named.round.round, part.clone())).await?;
                self.drop_objects(named, unneeded, done).await?;
            }
            self.check(named)?;
            sleep(began.elapsed()).await;
        }
    }

    /// Drops those of the objects that their stamps do not protect.
    async fn drop_objects(&self, named: Named, names: Vec<ObjectName>, done: &mut SweepDone) -> Result<(), End> {
        self.check(named)?;
        if names.is_empty() {
            return Ok(());
        }
        let began = Instant::now();
        let below = named.round.below();
        // Noted before it is dropped here: after a crash in between the round begins again.
        if let Some(keeper) = &self.keeper {
            keeper.unneeded(&history(named), named.round.round, &names).await;
        }
        let dropped = self.on_share(move |share| share.remove(below, &names)).await?;
        let (objects, bytes) = dropped.into_iter().flatten().fold((0, 0), |(n, sum), bytes| (n + 1, sum + bytes));
        counter!(telemetry::POOL_SWEPT_OBJECTS).increment(objects);
        counter!(telemetry::POOL_SWEPT_BYTES).increment(bytes);
        done.objects += objects;
        done.bytes += bytes;
        sleep(began.elapsed()).await;
        Ok(())
    }

    /// Deletes in the repository what nothing needed in an earlier round and nothing needs now. What cannot be deleted is left
    /// to the next round: the repository does not hold up the nodes.
    async fn bury(&self, named: Named) -> Result<(), End> {
        let Some(keeper) = &self.keeper else { return Ok(()) };
        let (history, round) = (history(named), named.round.round);
        let mut after = None;
        loop {
            let due = keeper.due(&history, round, after).await;
            if !due.names.is_empty() {
                let judged = tokio::time::Instant::now();
                let unneeded = self.ask(named, || self.controller.sweep_judge(round, due.names.clone())).await?;
                if !keeper.bury(round, &due.names, &unneeded, judged).await {
                    return Ok(());
                }
            }
            if due.after.is_none() {
                return Ok(());
            }
            after = due.after;
        }
    }

    async fn reclaim(&self, named: Named) -> Result<u64, End> {
        self.check(named)?;
        // A blocking thread is not dropped with this future.
        let ended = CancellationToken::new();
        let _ends = ended.clone().drop_guard();
        let steps = Steps::begin(3);
        let go_on = move || {
            steps.rest();
            !ended.is_cancelled()
        };
        self.on_share(move |share| share.reclaim(&go_on)).await
    }

    async fn take_note(&self, note: Note) -> Result<(), End> {
        let (file, share) = (self.file.clone(), self.share.clone());
        let filed = move || {
            // An old object that comes while the file is locked waits, and finds the note.
            share.disk().while_full(is_no_space, || lock(&file).take(&note, share.oldest_put()))
        };
        match spawn_blocking(filed).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(End::Trouble(format!("the note of the sweep cannot be written: {error}"))),
            Err(error) => return Err(End::Trouble(error.to_string())),
        }
        *lock(&self.noted) = Some(note);
        lock(&self.status).last = Some(LastSweep { round: note.round, done: note.done });
        #[expect(clippy::cast_precision_loss, reason = "metrics are floating point")]
        gauge!(telemetry::SWEEP_ROUND).set(note.round as f64);
        Ok(())
    }

    /// Uses the store in a thread of low priority.
    async fn on_share<T: Send + 'static>(
        &self,
        work: impl FnOnce(&PoolShare) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, End> {
        let share = self.share.clone();
        match spawn_blocking(move || at_low_priority(|| work(&share))).await {
            Ok(out) => Ok(out?),
            Err(error) => Err(End::Trouble(error.to_string())),
        }
    }

    /// Asks the controller until it answers, or does not name the round any more.
    async fn ask<'a, T>(&self, named: Named, call: impl Fn() -> Call<'a, T>) -> Result<T, End> {
        let mut backoff = Backoff::new(PAUSE.0, PAUSE.1);
        loop {
            self.check(named)?;
            match call().await {
                Ok(answer) => return Ok(answer),
                Err(error) if error.code() == Some(ErrorCode::WrongState) => {
                    debug!(%error, "a round of the sweep is over");
                    return Err(End::Over);
                }
                Err(error @ ControllerError::Unavailable(_)) => {
                    debug!(%error, "the controller is asked again about the sweep");
                    sleep(backoff.pause()).await;
                }
                Err(error) => return Err(End::Trouble(error.to_string())),
            }
        }
    }

    /// Whether the round is still the one that heartbeats name.
    fn check(&self, named: Named) -> Result<(), End> {
        if self.named.latest() == Some(named) { Ok(()) } else { Err(End::Over) }
    }
}
