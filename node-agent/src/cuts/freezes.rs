//! File systems of guests that are frozen during a cut, and thawed whatever happens.
//!
//! ```text
//!   asked: thawed? --> entry, guard, record on disk --> freeze ----(the cut)----> thaw --> record and entry removed
//!                                                         |                        ^
//!                                                         +-- refused, silent -----+-- repeated until it is answered
//!   the guard's time is over, the cut was given up, or the agent was killed and starts again: thaw -----^
//! ```
//! Promises:
//! - No guest stays frozen while its guest agent answers. An entry, a guard and a record come before the freeze. They go
//!   only when the guest agent has answered a thaw, or when the start of the guest that was frozen is over.
//! - A thaw never overtakes the freeze of the same guest ([`Entry::turn`]). A freeze whose answer did not come may happen
//!   late; a guest agent carries out commands in their order, so the thaw behind it counts.
//! - A cut counts as frozen only if the thaw after it found at least as much frozen as the freeze before it.

use std::{
    collections::{BTreeSet, HashMap},
    fs, io,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{StreamExt as _, stream};
use metrics::counter;
use muster_api::{
    InstanceId, Reason,
    condition::{Condition, ConditionKind},
    node_protocol::CutKey,
};
use serde::{Deserialize, Serialize};
use storage_core::{Backoff, lock};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::CutRefusal;
use crate::{
    hypervisor::{Domain, DomainState, Hypervisor, HypervisorError, guest_agent},
    identity::replace_file,
    sealed, telemetry,
};

/// How long a guest may take to write everything back and freeze.
const FREEZE: Duration = Duration::from_secs(10);
/// How long the answer to one thaw is waited for.
const THAW: Duration = Duration::from_secs(5);
/// When a guest is thawed although nobody asked for it. Longer than [`super::FREEZE_ALL`], the longest hold and a flip
/// together.
const GUARD: Duration = Duration::from_secs(40);
/// How long the list of domains is waited for.
const LIST: Duration = Duration::from_secs(3);
/// Guests that are frozen or thawed at a time: each takes a call to the hypervisor.
const AT_A_TIME: usize = 32;
/// Pauses between two thaws of a guest whose agent does not answer.
const THAW_FIRST: Duration = Duration::from_millis(500);
const THAW_MOST: Duration = Duration::from_secs(15);
/// How often a guest is thawed when the call to freeze it was given up before it reached the guest agent, and the pause
/// between: that call may still be made.
const LATE_THAWS: u32 = 3;
const LATE_PAUSE: Duration = Duration::from_secs(20);

/// What is written down before a guest is frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    /// The start of the instance that was frozen. Another one is not.
    boot: u64,
}

/// One guest that is, or may be, frozen.
struct Entry {
    /// The cut it is frozen for; `None` if an earlier process froze it.
    key: Option<CutKey>,
    boot: u64,
    /// Held while the guest is being frozen, so that no thaw overtakes the freeze.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// How many file systems the guest froze; `None` until it has told.
    frozen: Option<u64>,
    /// It is to be thawed, and must not be frozen any more.
    ending: bool,
    /// How many thaws must be answered before it counts as thawed.
    thaws: u32,
    /// Since the last answer of its guest agent a thaw failed: what it failed with.
    unanswered: Option<String>,
}

/// The frozen guests of this node.
pub struct Freezes {
    hypervisor: Option<Arc<dyn Hypervisor>>,
    dir: PathBuf,
    entries: Mutex<HashMap<InstanceId, Entry>>,
    /// Guests of a cut whose freeze was confirmed.
    confirmed: Mutex<HashMap<CutKey, BTreeSet<InstanceId>>>,
}

impl Freezes {
    /// The freezes of a node, with what an earlier process has left in `dir`. Nothing is thawed yet.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub fn open(dir: PathBuf, hypervisor: Option<Arc<dyn Hypervisor>>) -> io::Result<Arc<Self>> {
        fs::create_dir_all(&dir)?;
        let mut entries = HashMap::new();
        for file in fs::read_dir(&dir)? {
            let path = file?.path();
            let named = path.file_stem().and_then(|stem| stem.to_str()?.parse::<InstanceId>().ok());
            let Some(instance) = named.filter(|_| path.extension().is_some_and(|ending| ending == "json")) else {
                continue;
            };
            // A damaged record does not tell which start was frozen. Whichever it is, a thaw does no harm.
            let boot = sealed::open::<Record>(&fs::read(&path)?).map_or(u64::MAX, |record| record.boot);
            entries.insert(instance, Entry { ending: true, ..Entry::new(None, boot) });
        }
        Ok(Arc::new(Self { hypervisor, dir, entries: Mutex::new(entries), confirmed: Mutex::default() }))
    }

    /// Tells of a guest whose thaw failed, so that it may still be frozen. It is tried again until that is known.
    #[must_use]
    pub fn condition(&self, instance: InstanceId) -> Option<Condition> {
        let entries = lock(&self.entries);
        let error = entries.get(&instance)?.unanswered.as_ref()?;
        let detail = format!(
            "its file systems may still be frozen after a snapshot, so that what writes in the guest waits: {error}; it is \
             thawed as soon as its guest agent answers; 'fsfreeze --unfreeze' in the guest, or a reboot of it, helps at once"
        );
        Some(Condition { kind: ConditionKind::GuestFrozen, detail })
    }

    /// Thaws what an earlier process has left frozen, in tasks of their own.
    pub fn thaw_left_over(self: &Arc<Self>) {
        let left: Vec<InstanceId> = lock(&self.entries).keys().copied().collect();
        for instance in left {
            warn!(instance.id = %instance, "an agent ended while the guest was frozen: it is thawed now");
            self.thaw_until_done(instance);
        }
    }

    /// Freezes the guests of these instances that run, or none. Instances that are stopped, paused or have no guest need no
    /// freeze: nothing is written to their disks.
    pub(super) async fn freeze(self: &Arc<Self>, key: CutKey, of: BTreeSet<InstanceId>) -> Result<(), CutRefusal> {
        let running = self.running(&of).await?;
        let tasks = running.into_iter().map(|(instance, boot)| {
            let this = self.clone();
            // A task of its own: given up half-way, a freeze would be made that nobody knows of.
            let task = tokio::spawn(async move { this.freeze_one(key, instance, boot).await });
            async move { task.await.unwrap_or_else(|error| Err(failed(format!("instance {instance}: {error}")))) }
        });
        let results: Vec<Result<(), CutRefusal>> = stream::iter(tasks).buffer_unordered(AT_A_TIME).collect().await;
        let refused = results.into_iter().find_map(Result::err);
        counter!(telemetry::FREEZES, "result" => if refused.is_some() { "failed" } else { "frozen" }).increment(1);
        match refused {
            None => Ok(()),
            Some(refusal) => {
                self.give_up(key);
                Err(refusal)
            }
        }
    }

    /// The instances among these that run, with the number of their start.
    async fn running(&self, of: &BTreeSet<InstanceId>) -> Result<Vec<(InstanceId, u64)>, CutRefusal> {
        let Some(hypervisor) = &self.hypervisor else { return Ok(Vec::new()) };
        let domains = match timeout(LIST, hypervisor.list()).await {
            Ok(Ok(domains)) => domains,
            Ok(Err(error)) => return Err(CutRefusal::new(Reason::HypervisorSilent, error.to_string())),
            Err(_) => {
                let detail = format!("the hypervisor did not list its domains within {LIST:?}");
                return Err(CutRefusal::new(Reason::HypervisorSilent, detail));
            }
        };
        let runs = |domain: &Domain| of.contains(&domain.instance) && domain.state == DomainState::Running;
        let ours = domains.into_iter().filter(runs);
        Ok(ours.map(|domain| (domain.instance, domain.boot)).collect())
    }

    async fn freeze_one(self: Arc<Self>, key: CutKey, instance: InstanceId, boot: u64) -> Result<(), CutRefusal> {
        let Some(hypervisor) = self.hypervisor.clone() else { return Ok(()) };
        let said = |what: &str| failed(format!("instance {instance}: {what}"));
        let _turn = {
            let mut entries = lock(&self.entries);
            if entries.contains_key(&instance) {
                return Err(said("its file systems are still being thawed after an earlier cut"));
            }
            let entry = Entry::new(Some(key), boot);
            let turn = entry.turn.clone().try_lock_owned().expect("nobody else knows this lock yet");
            entries.insert(instance, entry);
            turn
        };
        let unbegun = match guest_agent::is_frozen(&*hypervisor, instance).await {
            Ok(false) => None,
            Ok(true) => Some(said("somebody else has its file systems frozen")),
            Err(error) => Some(said(&format!("its file systems cannot be frozen: {error}"))),
        };
        if let Some(refusal) = unbegun {
            lock(&self.entries).remove(&instance);
            return Err(refusal);
        }
        if let Err(error) = self.write_down(instance, Record { boot }).await {
            lock(&self.entries).remove(&instance);
            return Err(said(&format!("that it is frozen cannot be written down: {error}")));
        }
        self.guard(instance, key);
        if lock(&self.entries).get(&instance).is_none_or(|entry| entry.ending) {
            return Err(said("the cut was given up before it was frozen"));
        }
        let begun = tokio::time::Instant::now();
        let frozen = guest_agent::freeze(&*hypervisor, instance, FREEZE).await;
        let mut entries = lock(&self.entries);
        let entry = entries.get_mut(&instance).expect("an entry stays while its turn is held");
        match frozen {
            Ok(_) if entry.ending => Err(said("the cut was given up while it was being frozen")),
            Ok(count) => {
                entry.frozen = Some(count);
                lock(&self.confirmed).entry(key).or_default().insert(instance);
                info!(instance.id = %instance, file_systems = count, took = ?begun.elapsed(), "froze a guest");
                Ok(())
            }
            Err(error) => {
                if !matches!(error, HypervisorError::NoAgent { .. } | HypervisorError::AgentRefused { .. }) {
                    entry.thaws = LATE_THAWS;
                }
                Err(said(&format!("its file systems were not frozen within {FREEZE:?}: {error}")))
            }
        }
    }

    /// Thaws the guests of a cut after its flip. Refuses if one of them may have been thawed before it.
    pub(super) async fn thaw(self: &Arc<Self>, key: CutKey) -> Result<(), CutRefusal> {
        let confirmed = lock(&self.confirmed).remove(&key).unwrap_or_default();
        let tasks = confirmed.into_iter().map(|instance| {
            let this = self.clone();
            async move {
                // A task of its own, as for a freeze: a coordinator that is killed takes its call along, and by then nobody
                // else thaws this guest.
                let task = tokio::spawn(async move { this.thaw_confirmed(key, instance).await });
                task.await.unwrap_or_else(|error| Err(failed(format!("instance {instance}: {error}"))))
            }
        });
        let results: Vec<Result<(), CutRefusal>> = stream::iter(tasks).buffer_unordered(AT_A_TIME).collect().await;
        results.into_iter().collect()
    }

    async fn thaw_confirmed(self: Arc<Self>, key: CutKey, instance: InstanceId) -> Result<(), CutRefusal> {
        let said = |what: &str| failed(format!("instance {instance}: {what}"));
        let taken = {
            let mut entries = lock(&self.entries);
            let entry = entries.get_mut(&instance).filter(|entry| entry.key == Some(key) && !entry.ending);
            entry.and_then(|entry| {
                entry.ending = true;
                entry.frozen
            })
        };
        let Some(frozen) = taken else { return Err(said("its file systems were thawed before the cut")) };
        match self.thaw_one(instance).await {
            Ok(thawed) if thawed >= frozen => Ok(()),
            Ok(thawed) => {
                let detail = format!("{frozen} of its file systems were frozen, {thawed} until the cut");
                Err(said(&detail))
            }
            Err(error) => {
                self.thaw_until_done(instance);
                let detail = format!(
                    "it is not known whether its file systems were frozen until the cut: {error}; it is thawed as soon as \
                     its guest agent answers"
                );
                Err(said(&detail))
            }
        }
    }

    /// Thaws the guests of a cut that was given up, in tasks of their own.
    pub(super) fn give_up(self: &Arc<Self>, key: CutKey) {
        lock(&self.confirmed).remove(&key);
        let mut left = Vec::new();
        for (instance, entry) in lock(&self.entries).iter_mut() {
            if entry.key == Some(key) && !std::mem::replace(&mut entry.ending, true) {
                left.push(*instance);
            }
        }
        for instance in left {
            self.thaw_until_done(instance);
        }
    }

    /// Thaws a guest when its time is over, if nobody has done so by then.
    fn guard(self: &Arc<Self>, instance: InstanceId, key: CutKey) {
        let this = self.clone();
        tokio::spawn(async move {
            sleep(GUARD).await;
            let is_left =
                lock(&this.entries).get(&instance).is_some_and(|entry| entry.key == Some(key) && !entry.ending);
            if is_left {
                warn!(instance.id = %instance, snapshot.id = %key.snapshot, "the cut did not end in time: its guest is thawed");
                this.give_up(key);
            }
        });
    }

    /// Thaws a guest in a task of its own, again and again until it is known to be thawed.
    fn thaw_until_done(self: &Arc<Self>, instance: InstanceId) {
        let this = self.clone();
        tokio::spawn(async move {
            let mut backoff = Backoff::new(THAW_FIRST, THAW_MOST);
            let mut told = false;
            while lock(&this.entries).contains_key(&instance) {
                let thawed = this.thaw_one(instance).await;
                if let Some(entry) = lock(&this.entries).get_mut(&instance) {
                    entry.unanswered = thawed.as_ref().err().map(ToString::to_string);
                }
                match thawed {
                    Ok(_) => {
                        if lock(&this.entries).contains_key(&instance) {
                            sleep(LATE_PAUSE).await;
                        }
                        continue;
                    }
                    Err(_) if this.is_over(instance).await => {
                        this.forget(instance).await;
                        info!(instance.id = %instance, "the frozen guest has ended");
                        return;
                    }
                    Err(error) if !std::mem::replace(&mut told, true) => {
                        warn!(instance.id = %instance, %error, "a guest may be frozen and is thawed as soon as its agent answers");
                    }
                    Err(_) => {}
                }
                sleep(backoff.pause()).await;
            }
        });
    }

    /// Thaws a guest once. Returns how many of its file systems were frozen.
    async fn thaw_one(&self, instance: InstanceId) -> Result<u64, HypervisorError> {
        let Some(hypervisor) = &self.hypervisor else { return Err(HypervisorError::NotRunning(instance)) };
        let turn = lock(&self.entries).get(&instance).map(|entry| entry.turn.clone());
        let Some(turn) = turn else { return Ok(0) };
        let _turn = turn.lock().await;
        let thawed = guest_agent::thaw(&**hypervisor, instance, THAW).await?;
        let is_last = lock(&self.entries).get_mut(&instance).is_none_or(|entry| {
            entry.thaws = entry.thaws.saturating_sub(1);
            entry.thaws == 0
        });
        if is_last {
            self.forget(instance).await;
            info!(instance.id = %instance, file_systems = thawed, "thawed a guest");
        }
        Ok(thawed)
    }

    /// Whether the start of the guest that was frozen has ended, so that nothing of it is frozen.
    async fn is_over(&self, instance: InstanceId) -> bool {
        let Some(hypervisor) = &self.hypervisor else { return true };
        let boot = lock(&self.entries).get(&instance).map(|entry| entry.boot);
        let Ok(Ok(domains)) = timeout(LIST, hypervisor.list()).await else { return false };
        let runs = |domain: &Domain| {
            domain.instance == instance && boot.is_some_and(|boot| boot == domain.boot || boot == u64::MAX)
        };
        !domains.iter().any(runs)
    }

    async fn forget(&self, instance: InstanceId) {
        let path = self.path(instance);
        let removed = tokio::task::spawn_blocking(move || fs::remove_file(path)).await;
        if let Ok(Err(error)) = removed
            && error.kind() != io::ErrorKind::NotFound
        {
            // The next start thaws the guest once more, which does no harm.
            warn!(instance.id = %instance, %error, "the record of a frozen guest cannot be removed");
        }
        lock(&self.entries).remove(&instance);
    }

    fn path(&self, instance: InstanceId) -> PathBuf {
        self.dir.join(format!("{instance}.json"))
    }

    /// Writes down that a guest will be frozen, so that it is on disk before the freeze.
    async fn write_down(&self, instance: InstanceId, record: Record) -> io::Result<()> {
        let path = self.path(instance);
        tokio::task::spawn_blocking(move || replace_file(&path, &sealed::seal(&record)?))
            .await
            .map_err(io::Error::other)
            .flatten()
    }
}

impl Entry {
    fn new(key: Option<CutKey>, boot: u64) -> Self {
        Self { key, boot, turn: Arc::default(), frozen: None, ending: false, thaws: 1, unanswered: None }
    }
}

fn failed(detail: String) -> CutRefusal {
    CutRefusal::new(Reason::FreezeFailed, detail)
}
