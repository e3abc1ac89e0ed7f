//! Makes this node's instances what they should be: observe, plan (pure), apply, for each instance by itself.
//!
//! ```text
//!  Desired ---pass()---> for each assignment:  observe (disks, domain, record)
//!                           │ a step under way?  ----------------> report only
//!                           └ plan --actions--> a task of its own --done--> changed() --> pass()
//! ```
//!
//! Promises:
//! - A pass never waits for a step: steps run in tasks, one per instance at a time, so that one slow instance never
//!   delays another (I11). The caller passes again when [`Reconciler::changed`] changes, when the desired state does,
//!   and now and then.
//! - Level-triggered: nothing is concluded from messages, only from what is there. While the hypervisor does not answer,
//!   its instances are unknown and nothing is done about them.
//! - Every action can be repeated (I9). A removal is stop, unmount, remove, in this order.
//! - Starting, getting ready and stopping have deadlines (I10). A paused guest is resumed again and again, for ever.
//! - Instances without an assignment are left alone and reported as found: only the controller decides that one goes
//!   away (`gone`).
//!
//! Reading order: [`plan`] (all decisions; those about single disks of a guest are in [`guest_disks`]), [`report`] (what the
//! controller is told), [`record`] (what outlives the agent), `pulse` (guests that do nothing), `guests` (what guest agents
//! tell), `found` (instances without an assignment), `apply`.

mod apply;
mod found;
pub mod guest_disks;
mod guests;
pub mod plan;
mod pulse;
pub mod record;
pub mod report;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    io,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::future::BoxFuture;
use muster_api::{
    DiskId, InstanceId, Reason, Timestamp,
    condition::{Condition, ConditionKind},
    deployment::Runtime,
    node_protocol::{Assignment, Desired, DiskAssignment, DiskReport, InstanceReport, LeftDisk},
};
use storage_core::lock;
use tokio::{
    sync::{Semaphore, watch},
    task::JoinHandle,
    time::Instant,
};

use self::{
    apply::{DiskNeed, Needs, SeedNeed},
    guest_disks::Work,
    plan::{DiskSeen, DomainSeen, Here, Life, Phase, Seen},
    pulse::Pulse,
    record::Records,
    report::Trouble,
};
use crate::{
    helper::HelperProgram,
    hypervisor::{Domain, DomainState, Hypervisor, PauseReason, RunId, console, console::Scan},
    mirror::{DiskError, DiskStatus, DiskWant, Disks, LostContent},
    network::Networks,
    seed::{files::seed_files, store::Seeds},
};

/// Time until the next pass while something waits: a probe, a guest that stops, a retry.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// Time between two looks at whether a console log has grown too much.
const BOUND_EVERY: Duration = Duration::from_secs(10);
/// Longest wait for the list of domains in a pass. All instances wait for it (I11).
const LIST_LIMIT: Duration = Duration::from_secs(3);
/// Longest wait in a pass for a hypervisor that is known not to answer. The question goes on after the pass.
const SILENT_LIMIT: Duration = Duration::from_millis(300);
/// Longest wait for the end of a guest whose power is cut.
const POWER_LIMIT: Duration = Duration::from_secs(10);

/// What the reconciler does with disks. Made from [`Disks`]; tests have others.
pub struct DiskAccess {
    /// [`Disks::ensure`].
    pub ensure: Box<dyn Fn(DiskWant) -> BoxFuture<'static, Result<DiskStatus, DiskError>> + Send + Sync>,
    /// [`Disks::remove`].
    pub remove: Box<dyn Fn(DiskId) -> BoxFuture<'static, Result<(), DiskError>> + Send + Sync>,
    /// [`Disks::remove_saved`].
    pub remove_saved: Box<dyn Fn(DiskId) -> BoxFuture<'static, Result<(), DiskError>> + Send + Sync>,
    /// [`Disks::list`].
    pub list: Box<dyn Fn() -> Vec<DiskStatus> + Send + Sync>,
    /// [`Disks::list_of`].
    pub list_of: Box<dyn Fn(InstanceId) -> Vec<DiskStatus> + Send + Sync>,
    /// [`Disks::record_boot`].
    pub record_boot: Box<dyn Fn(DiskId, u64) + Send + Sync>,
    /// [`Disks::end_boot`].
    pub end_boot: Box<dyn Fn(DiskId, u64) + Send + Sync>,
}

impl From<Arc<Disks>> for DiskAccess {
    fn from(disks: Arc<Disks>) -> Self {
        let (ensure, remove, list, list_of) = (disks.clone(), disks.clone(), disks.clone(), disks.clone());
        let (record_boot, end_boot, remove_saved) = (disks.clone(), disks.clone(), disks);
        Self {
            ensure: Box::new(move |want| {
                let disks = ensure.clone();
                Box::pin(async move { disks.ensure(&want).await })
            }),
            remove: Box::new(move |disk| {
                let disks = remove.clone();
                Box::pin(async move { disks.remove(disk).await })
            }),
            remove_saved: Box::new(move |disk| {
                let disks = remove_saved.clone();
                Box::pin(async move { disks.remove_saved(disk).await })
            }),
            list: Box::new(move || list.list()),
            list_of: Box::new(move |instance| list_of.list_of(instance)),
            record_boot: Box::new(move |disk, boot| record_boot.record_boot(disk, boot)),
            end_boot: Box::new(move |disk, boot| end_boot.end_boot(disk, boot)),
        }
    }
}

/// What a [`Reconciler`] is made of.
pub struct ReconcilerParts {
    /// Data folder of the agent. Records of starts, console logs and seed disks are kept in it.
    pub data_dir: PathBuf,
    /// User and group that QEMU runs as. Seed disks belong to them.
    pub qemu_user: (u32, u32),
    /// Makes, removes and lists the disks of this node.
    pub disks: DiskAccess,
    /// The networks that cards of instances are in.
    pub networks: Networks,
    /// The hypervisor; none on a node that runs no virtual machines.
    pub hypervisor: Option<Arc<dyn Hypervisor>>,
    /// Starts the process that writes to a disk of a guest before it starts.
    pub helper: HelperProgram,
    /// This agent process. Domains that another process started have lost their disks.
    pub run: RunId,
    /// This boot of the host: `/proc/sys/kernel/random/boot_id`.
    pub host_boot: String,
    /// Tells the time of day. Tests have their own clock.
    pub now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
}

/// Brings the instances of a node to the state they should be in.
pub struct Reconciler {
    inner: Arc<Inner>,
    /// Asks for the next pass while something waits.
    alarm: Mutex<Option<JoinHandle<()>>>,
    listener: Option<JoinHandle<()>>,
}

struct Inner {
    parts: ReconcilerParts,
    records: Records,
    seeds: Seeds,
    slots: Mutex<HashMap<InstanceId, Slot>>,
    /// Set once the agent ends: nothing is started any more.
    draining: Mutex<bool>,
    /// Why the hypervisor did not answer in the last pass.
    silent: Mutex<Option<String>>,
    /// The question whether a silent hypervisor answers again, while it is open.
    question: tokio::sync::Mutex<Option<JoinHandle<()>>>,
    /// Bounds the questions to guest agents that are open at a time.
    questions: Arc<Semaphore>,
    changed: watch::Sender<u64>,
}

/// What this process knows about an instance besides what can be observed.
#[derive(Default)]
struct Slot {
    life: Option<Life>,
    /// The assignment that the record of it has.
    told: Option<Assignment>,
    /// A step is under way.
    busy: bool,
    asked: Option<(Timestamp, Timestamp)>,
    retry_at: Option<Timestamp>,
    /// Failures in a row. They set the wait before the next try.
    failures: u32,
    /// How often the hypervisor has refused this start.
    refusals: u32,
    refused: Option<String>,
    trouble: Option<Trouble>,
    /// What was done about single disks.
    work: BTreeMap<DiskId, Work>,
    /// Disks that a step under way may give to the guest (`None`), or may have given until this instant. A list of the
    /// domains from before that does not tell whether the guest has them.
    may_get: BTreeMap<DiskId, Option<Instant>>,
    scan: Option<Scan>,
    pulse: Pulse,
    guest: guests::Told,
    absent_since: Option<Timestamp>,
    bounded_at: Option<Instant>,
    /// Whether there may be a record, a console log or a seed disk to remove.
    traces: bool,
}

impl Inner {
    fn bump(&self) {
        self.changed.send_modify(|n| *n = n.wrapping_add(1));
    }

    fn here(&self) -> Here {
        Here { run: self.parts.run, host_boot: self.parts.host_boot.clone(), now: (self.parts.now)() }
    }

    fn console_log(&self, instance: InstanceId) -> PathBuf {
        self.console_dir().join(format!("{instance}.log"))
    }

    fn console_dir(&self) -> PathBuf {
        self.parts.data_dir.join("console")
    }

    fn slot<T>(&self, instance: InstanceId, f: impl FnOnce(&mut Slot) -> T) -> T {
        let mut slots = lock(&self.slots);
        let slot = slots.entry(instance).or_insert_with(|| {
            let (mut life, told) = self.records.load(instance).map(|record| (record.life, record.told)).unzip();
            // The time without an agent does not count as the time a start takes.
            if let Some(life) = life.as_mut().filter(|life| life.phase == Phase::New) {
                life.begun_at = (self.parts.now)();
            }
            let traces = life.is_some()
                || [self.console_log(instance), self.seeds.path(instance)].iter().any(|file| file.exists());
            Slot { life, told: told.flatten(), traces, ..Slot::default() }
        });
        f(slot)
    }

    /// All domains of this node; none when the hypervisor does not answer within `limit`.
    async fn domains(&self, limit: Duration) -> Option<HashMap<InstanceId, Domain>> {
        let Some(hypervisor) = &self.parts.hypervisor else { return Some(HashMap::new()) };
        let listed = match tokio::time::timeout(limit, hypervisor.list()).await {
            Ok(Ok(domains)) => Ok(domains.into_iter().map(|domain| (domain.instance, domain)).collect()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("the hypervisor did not list its domains within {limit:?}")),
        };
        let mut silent = lock(&self.silent);
        match listed {
            Ok(domains) => {
                if silent.take().is_some() {
                    tracing::info!("the hypervisor answers again");
                }
                Some(domains)
            }
            Err(trouble) => {
                if silent.is_none() {
                    tracing::warn!("nothing is known about virtual machines: {trouble}");
                }
                *silent = Some(trouble);
                None
            }
        }
    }

    /// Whether the hypervisor did not answer in the last pass and has not answered since. It is asked again. That takes a
    /// busy one longer than a pass may wait, so the question stays open from one pass to the next.
    async fn is_silent(self: &Arc<Self>) -> bool {
        if lock(&self.silent).is_none() {
            return false;
        }
        let mut question = self.question.lock().await;
        let inner = self.clone();
        let open = question.get_or_insert_with(|| tokio::spawn(async move { drop(inner.domains(LIST_LIMIT).await) }));
        if tokio::time::timeout(SILENT_LIMIT, open).await.is_ok() {
            *question = None;
        }
        lock(&self.silent).is_some()
    }

    fn observe(
        &self,
        assignment: &Assignment,
        domains: Option<&HashMap<InstanceId, Domain>>,
        disks: &[&DiskStatus],
        here: &Here,
        looked_at: Instant,
    ) -> Seen {
        let instance = assignment.instance;
        self.slot(instance, |slot| {
            let domain = match domains.map(|domains| domains.get(&instance)) {
                None if assignment.runtime == Runtime::None => DomainSeen::Absent { ending: None, since: here.now },
                None => DomainSeen::Unknown,
                Some(Some(domain)) => {
                    slot.absent_since = None;
                    slot.traces = true;
                    DomainSeen::Present(with_clock(domain.clone(), disks))
                }
                Some(None) => {
                    let boot = slot.life.as_ref().map(|life| life.boot);
                    let ending = self.parts.hypervisor.as_ref().zip(boot).and_then(|(h, b)| h.ending(instance, b));
                    DomainSeen::Absent { ending, since: *slot.absent_since.get_or_insert(here.now) }
                }
            };
            slot.may_get.retain(|_, until| until.is_none_or(|until| until >= looked_at));
            let is_here = |disk: DiskId| disks.iter().any(|here| here.disk == disk);
            let may_get = |disk: DiskId| slot.may_get.contains_key(&disk);
            guest_disks::tidy(&mut slot.work, assignment, &domain, is_here, may_get);
            Seen {
                life: slot.life.clone(),
                disks: disks
                    .iter()
                    .map(|disk| DiskSeen {
                        disk: disk.disk,
                        generation: disk.generation,
                        version: disk.version,
                        mounted: disk.mounted,
                        reachable: disk.reachable,
                        size_bytes: disk.size_bytes,
                    })
                    .collect(),
                domain,
                reboots: slot
                    .life
                    .as_ref()
                    .zip(self.parts.hypervisor.as_ref())
                    .map_or(0, |(life, hypervisor)| hypervisor.reboots(instance, life.boot)),
                traces: slot.traces,
                asked: slot.asked,
                retry_at: slot.retry_at,
                refused: slot.refused.clone(),
                work: slot.work.clone(),
                may_get: slot.may_get.keys().copied().collect(),
            }
        })
    }
}

impl Inner {
    /// Ends the recordings of starts that are not under way any more.
    fn end_boots(&self, disks: &[&DiskStatus], is_booting: impl Fn(u64) -> bool) {
        for disk in disks {
            if let Some(boot) = disk.recorded.filter(|boot| !is_booting(*boot)) {
                (self.parts.disks.end_boot)(disk.disk, boot);
            }
        }
    }
}

/// Replaces the reason of a pause by what the disks of the domain know about it.
fn with_clock(mut domain: Domain, disks: &[&DiskStatus]) -> Domain {
    if domain.state == DomainState::Paused(PauseReason::DiskError) && disks.iter().any(|disk| disk.clock_off.is_some())
    {
        domain.state = DomainState::Paused(PauseReason::ClockOff);
    }
    domain
}

/// A disk that failed for good is told whatever its instance does: a guest may run for long before it notices.
fn disk_trouble(disk: &DiskStatus) -> Option<Trouble> {
    let what = disk.failed.as_ref()?;
    Some(Trouble { reason: Reason::DiskFailed, detail: format!("disk {} failed: {what}", disk.disk) })
}

/// A disk that needs what no node has any more: the guest gets errors wherever it reads that.
fn lost_content(disk: &DiskStatus) -> Option<Condition> {
    let LostContent { version, objects, first } = disk.lost.as_ref()?;
    let detail = format!(
        "{objects} or more objects of version {version}, on which disk {} builds, have no good copy on any node, the first \
         is {first}: reading what they hold is an error; import the image again, or restore the disk from another version",
        disk.disk
    );
    Some(Condition { kind: ConditionKind::ObjectsLost, detail })
}

/// A disk that the controller does not know as one of its instance: it was attached since the controller's database was copied.
fn unknown(disk: &DiskStatus, assignment: &Assignment) -> Option<Condition> {
    let is_named = assignment.disks.iter().any(|named| named.disk == disk.disk);
    let has_left = assignment.left.contains(&LeftDisk { disk: disk.disk, version: disk.version });
    let detail = || {
        format!(
            "disk {} with version {} is on the node and belongs to this instance, and the controller does not know that, because \
             its database is an older copy: it is kept while the instance is there; attach it to this instance, and if it \
             belongs to another one, detach it there first",
            disk.disk, disk.version
        )
    };
    (!is_named && !has_left).then(|| Condition { kind: ConditionKind::DiskUnknown, detail: detail() })
}

/// A disk that holds what the version lacks that the controller has for it.
fn diverged(disk: &DiskStatus, trouble: &Trouble) -> Option<Condition> {
    let detail = || {
        format!(
            "{}, because its database is an older copy. Nothing of the disk is given up by itself, and the controller takes its              version over if it can. Else restore a snapshot of this instance in place, which gives up what the disk holds:              `muster snapshot restore SNAPSHOT --discard-current`; before that, copy what you need from {}",
            trouble.detail,
            disk.path.display()
        )
    };
    (trouble.reason == Reason::DiskDiverged).then(|| Condition { kind: ConditionKind::DiskDiverged, detail: detail() })
}

fn disk_report(disk: &DiskStatus, assignment: Option<&Assignment>, in_guest: bool) -> DiskReport {
    let named = assignment.map(|assignment| assignment.disks.iter().find(|named| named.disk == disk.disk));
    // What the controller has, as far as it named the disk.
    let is_ahead = named.flatten().is_none_or(|named| named.version != disk.version);
    DiskReport {
        disk: disk.disk,
        path: disk.path.display().to_string(),
        version: disk.version,
        ahead: is_ahead.then(|| disk.root.clone()),
        unsaved_bytes: disk.unsaved_bytes,
        fetched_bytes: disk.fetched_bytes,
        local_bytes: disk.local_bytes,
        size_bytes: Some(disk.size_bytes),
        in_guest: Some(in_guest),
        guest_lacks: None,
        detail: None,
        generation: Some(disk.generation),
    }
}

impl Reconciler {
    /// Makes a reconciler that is ready for its first pass.
    ///
    /// # Errors
    /// When the folder of the records cannot be made.
    pub fn new(parts: ReconcilerParts) -> io::Result<Self> {
        let records = Records::open(&parts.data_dir)?;
        let seeds = Seeds::open(&parts.data_dir, parts.qemu_user, |instance| records.load(instance).is_some())?;
        let events = parts.hypervisor.as_ref().map(|hypervisor| hypervisor.watch());
        let inner = Arc::new(Inner {
            parts,
            records,
            seeds,
            slots: Mutex::default(),
            draining: Mutex::new(false),
            silent: Mutex::default(),
            question: tokio::sync::Mutex::default(),
            questions: Arc::new(Semaphore::new(guests::AT_A_TIME)),
            changed: watch::Sender::new(0),
        });
        let listener = events.map(|mut events| {
            let inner = Arc::downgrade(&inner);
            tokio::spawn(async move {
                while events.changed().await.is_ok() {
                    let Some(inner) = inner.upgrade() else { return };
                    inner.bump();
                }
            })
        });
        Ok(Self { inner, alarm: Mutex::default(), listener })
    }

    /// Changes when another pass would find something new.
    #[must_use]
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.inner.changed.subscribe()
    }

    /// Looks at every instance, starts the steps that are due, and reports. Never waits for a step.
    pub async fn pass(&self, desired: &Desired) -> Vec<InstanceReport> {
        let looked_at = Instant::now();
        let domains = if self.inner.is_silent().await { None } else { self.inner.domains(LIST_LIMIT).await };
        self.look(desired, domains.as_ref(), looked_at)
    }

    /// Why the hypervisor does not answer, as of the last pass.
    #[must_use]
    pub fn hypervisor_trouble(&self) -> Option<String> {
        lock(&self.inner.silent).clone()
    }

    fn look(
        &self,
        desired: &Desired,
        domains: Option<&HashMap<InstanceId, Domain>>,
        looked_at: Instant,
    ) -> Vec<InstanceReport> {
        let (inner, assignments) = (&self.inner, &desired.assignments);
        // Before the disks are listed: a step that ends meanwhile may have made one that the list lacks.
        let is_busy = |(instance, slot): (&InstanceId, &Slot)| slot.busy.then_some(*instance);
        let busy: HashSet<InstanceId> = lock(&inner.slots).iter().filter_map(is_busy).collect();
        let listed = (inner.parts.disks.list)();
        let mut disks: HashMap<InstanceId, Vec<&DiskStatus>> = HashMap::new();
        for disk in &listed {
            disks.entry(disk.instance).or_default().push(disk);
        }
        let draining = *lock(&inner.draining);
        let mut waiting = domains.is_none();
        let mut reports = Vec::with_capacity(assignments.len());
        for assignment in assignments {
            let here = inner.here();
            let disks = disks.get(&assignment.instance).map_or(&[][..], Vec::as_slice);
            let seen = inner.observe(assignment, domains, disks, &here, looked_at);
            inner.end_boots(disks, |boot| plan::is_booting(assignment, &seen, boot, here.now));
            let is_quiet = !busy.contains(&assignment.instance);
            if !inner.slot(assignment.instance, |slot| slot.busy) && !draining {
                let actions = plan::plan(assignment, &seen, &here);
                if !actions.is_empty() {
                    apply::spawn(inner.clone(), assignment.clone(), needs(desired, assignment, disks), actions);
                }
            }
            let trouble = disks.iter().copied().find_map(disk_trouble);
            let trouble = trouble.or_else(|| inner.slot(assignment.instance, |slot| slot.trouble.clone()));
            let trouble = trouble.or_else(|| guest_disks::trouble(assignment, &seen, &here));
            let told = |disk: &&DiskStatus| DiskReport {
                guest_lacks: guest_disks::guest_lacks(assignment, &seen, &here, disk.disk),
                detail: disk_trouble(disk)
                    .or_else(|| guest_disks::trouble_of(disk.disk, &seen, &here))
                    .map(|trouble| trouble.detail),
                ..disk_report(disk, Some(assignment), guest_disks::is_in_guest(assignment, &seen, disk.disk))
            };
            let known = disks.iter().map(told).collect();
            let absent = guest_disks::absent(assignment, &seen, &here, is_quiet);
            inner.keep_told(assignment);
            let used = disks.iter().map(|disk| disk.used_bytes).sum();
            let log = inner.console_log(assignment.instance);
            let silence = |slot: &mut Slot| slot.pulse.silence(assignment, &seen, used, &log, here.now);
            let silence = inner.slot(assignment.instance, silence);
            let unknown = disks.iter().filter_map(|disk| unknown(disk, assignment));
            let trouble_of = |disk: &DiskStatus| guest_disks::trouble_of(disk.disk, &seen, &here);
            let diverged = disks.iter().filter_map(|disk| diverged(disk, &trouble_of(disk)?));
            let conditions =
                disks.iter().copied().filter_map(lost_content).chain(unknown).chain(diverged).chain(silence);
            let conditions = conditions.collect();
            inner.ask_guest(assignment, &seen);
            let guest = inner.slot(assignment.instance, |slot| slot.guest.guest.clone());
            let guest = guest.filter(|_| matches!(seen.domain, DomainSeen::Present(_)));
            let report = report::report(assignment, &seen, &here, trouble.as_ref(), conditions, (known, absent));
            let report = InstanceReport { guest, ..report };
            waiting |= waits(assignment, &seen, &report, here.now);
            self.bound_console(assignment.instance, &seen);
            reports.push(report);
        }
        let named: HashSet<InstanceId> = assignments.iter().map(|assignment| assignment.instance).collect();
        let here = inner.here();
        let held = disks.keys().chain(domains.into_iter().flatten().map(|(instance, _)| instance)).copied();
        let found: BTreeSet<InstanceId> = held.filter(|instance| !named.contains(instance)).collect();
        for instance in &found {
            let domain = domains.map(|domains| domains.get(instance));
            let disks = disks.get(instance).map_or(&[][..], Vec::as_slice);
            inner.end_boots(disks, |_| false);
            reports.push(inner.found(*instance, domain, disks, &here));
        }
        // A slot of an instance that is not here holds nothing worth keeping.
        let is_here = |instance: &InstanceId| named.contains(instance) || found.contains(instance);
        lock(&inner.slots).retain(|instance, slot| slot.busy || is_here(instance));
        if waiting && !draining {
            self.look_again();
        }
        reports
    }

    fn look_again(&self) {
        let mut alarm = lock(&self.alarm);
        if alarm.as_ref().is_some_and(|alarm| !alarm.is_finished()) {
            return;
        }
        let inner = Arc::downgrade(&self.inner);
        *alarm = Some(tokio::spawn(async move {
            tokio::time::sleep(LOOK_AGAIN).await;
            if let Some(inner) = inner.upgrade() {
                inner.bump();
            }
        }));
    }

    fn bound_console(&self, instance: InstanceId, seen: &Seen) {
        let due = matches!(seen.domain, DomainSeen::Present(_))
            && self.inner.slot(instance, |slot| {
                let due = slot.bounded_at.is_none_or(|at| at.elapsed() >= BOUND_EVERY);
                if due {
                    slot.bounded_at = Some(Instant::now());
                }
                due
            });
        if due {
            let log = self.inner.console_log(instance);
            tokio::task::spawn_blocking(move || {
                if let Err(error) = console::bound(&log) {
                    tracing::warn!(%error, "console log {} could not be shortened", log.display());
                }
            });
        }
    }

    /// Ends every guest of this process because the agent ends: asks it to turn off, and cuts its power after `limit`.
    /// Nothing is started from then on. The next agent starts the guests again.
    pub async fn stop_guests(&self, desired: &Desired, limit: Duration) -> Vec<InstanceReport> {
        *lock(&self.inner.draining) = true;
        let deadline = Instant::now() + limit;
        // A step under way may be a start. It must be over before its guest can be stopped.
        while lock(&self.inner.slots).values().any(|slot| slot.busy) && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let domains = self.inner.domains(limit).await.unwrap_or_default();
        let ends = domains.values().filter(|domain| domain.run == self.inner.parts.run).map(|domain| {
            let inner = self.inner.clone();
            async move { apply::end_for_shutdown(&inner, domain.instance, domain.boot, deadline).await }
        });
        futures::future::join_all(ends).await;
        let looked_at = Instant::now();
        let domains = self.inner.domains(LIST_LIMIT).await;
        self.look(desired, domains.as_ref(), looked_at)
    }
}

impl Reconciler {
    /// Cuts the power of every guest of this node, also of those that an earlier process started. Nothing is started
    /// from then on. Their records and logs stay.
    ///
    /// # Errors
    /// A sentence about what still runs, or may.
    pub async fn cut_power(&self) -> Result<(), String> {
        *lock(&self.inner.draining) = true;
        let Some(hypervisor) = &self.inner.parts.hypervisor else { return Ok(()) };
        let silent = || "the hypervisor does not answer".to_owned();
        let domains = self.inner.domains(LIST_LIMIT).await.ok_or_else(silent)?;
        let ends = domains.into_keys().map(|instance| async move {
            match tokio::time::timeout(POWER_LIMIT, hypervisor.destroy(instance)).await {
                Ok(Ok(())) => tracing::warn!(instance.id = %instance, "the power of instance {instance} was cut"),
                Ok(Err(error)) => tracing::error!(instance.id = %instance, %error, "its power could not be cut"),
                Err(_elapsed) => {
                    tracing::error!(instance.id = %instance, "its power was not cut within {POWER_LIMIT:?}")
                }
            }
        });
        futures::future::join_all(ends).await;
        // A step that was under way may have started another one since.
        let busy = lock(&self.inner.slots).values().filter(|slot| slot.busy).count();
        let left = self.inner.domains(LIST_LIMIT).await.ok_or_else(silent)?;
        match (left.len(), busy) {
            (0, 0) => Ok(()),
            (guests, steps) => Err(format!("{guests} guests still run, {steps} steps are under way")),
        }
    }
}

impl Drop for Reconciler {
    fn drop(&mut self) {
        if let Some(listener) = &self.listener {
            listener.abort();
        }
        if let Some(alarm) = lock(&self.alarm).take() {
            alarm.abort();
        }
    }
}

/// What the controller sent for an instance beside its assignment.
fn needs(desired: &Desired, assignment: &Assignment, here: &[&DiskStatus]) -> Needs {
    Needs { disks: wants(desired, assignment, here), seed: seed(desired, assignment) }
}

/// The files of the seed disk of an instance.
fn seed(desired: &Desired, assignment: &Assignment) -> SeedNeed {
    let Some(of) = assignment.seed else { return Ok(None) };
    let missing = || format!("the controller sent no seed of deployment {of}");
    let seed = desired.seeds.get(&of).ok_or_else(missing);
    let files = seed.and_then(|seed| seed_files(assignment, seed, &desired.networks.networks));
    files.map(Some).map_err(|detail| Trouble { reason: Reason::StartFailed, detail })
}

/// The disks of an instance that are here or to be made, with the roots that the controller sent.
fn wants(desired: &Desired, assignment: &Assignment, here: &[&DiskStatus]) -> Vec<(DiskAssignment, DiskNeed)> {
    let want = |disk: &DiskAssignment| match desired.versions.get(&disk.version) {
        Some(root) => Ok(DiskWant {
            disk: disk.disk,
            instance: assignment.instance,
            generation: assignment.generation,
            size_bytes: disk.size_bytes,
            version: disk.version,
            root: root.clone(),
            served: guest_disks::is_served(assignment, disk),
            since_generation: disk.since_generation,
        }),
        None => Err(Trouble {
            reason: Reason::StartFailed,
            detail: format!("the controller sent no root for version {}", disk.version),
        }),
    };
    let is_meant = |disk: &&DiskAssignment| {
        guest_disks::is_made(assignment, disk) || here.iter().any(|found| found.disk == disk.disk)
    };
    assignment.disks.iter().filter(is_meant).map(|disk| (disk.clone(), want(disk))).collect()
}

/// Whether the instance must be looked at again soon although nothing tells of a change.
fn waits(assignment: &Assignment, seen: &Seen, report: &InstanceReport, now: Timestamp) -> bool {
    use muster_api::node_protocol::{Observed, Wanted};
    match (assignment.wanted, report.state) {
        (Wanted::Running, Observed::Running) => {
            // One that was not ready in time is asked at every pass, and starts none by itself.
            (report.ready_at.is_none() && report.reason != Some(Reason::NotReady))
                || matches!(seen.domain, DomainSeen::Unknown)
                || seen.retry_at.is_some_and(|at| at > now)
        }
        (Wanted::Running, Observed::Stopped | Observed::Failed)
        | (Wanted::Stopped, Observed::Stopped)
        | (Wanted::Gone, Observed::Gone) => false,
        _ => true,
    }
}
