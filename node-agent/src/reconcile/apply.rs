//! Carries out the plan, one task per instance, and remembers how far each came.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use muster_api::{
    DiskId, InstanceId, Reason, Timestamp,
    deployment::{Probe, Runtime},
    node_protocol::{Assignment, DiskAssignment, NVRAM},
};
use storage_core::cause::explain;
use tokio::time::{Instant, timeout};

use super::{
    Inner, Slot,
    guest_disks::{self, Tries, Work},
    plan::{Action, End, Life, Phase},
    record::Record,
    report::Trouble,
};
use crate::{
    hypervisor::{
        DiskSpec, Ending, Hypervisor, HypervisorError, InstanceSpec, Started, UefiSpec, console, console::Scan,
        firmware, guest_agent,
    },
    mirror::{DiskError, DiskWant},
    network::NetworkError,
    seed::files::SeedFile,
};

/// After this many refusals by the hypervisor a start has failed.
const REFUSALS_MAX: u32 = 3;
/// First and longest wait after a failure. It doubles in between.
const RETRY_FIRST_MS: i64 = 500;
const RETRY_LAST_MS: i64 = 10_000;
/// Time between two looks at a guest that is not ready yet.
const PROBE_AGAIN_MS: i64 = 100;
/// Time between two tries to resume a paused guest.
const RESUME_AGAIN_MS: i64 = 2_000;

/// How long it may take to make a disk visible to the process of a guest.
const SHOWN_WITHIN: Duration = Duration::from_secs(10);

/// How long a start or a plug that got no answer may still happen.
const MAY_COME_LATE: Duration = Duration::from_secs(300);

/// How long it may take to give a new machine the variables of its firmware.
const VARIABLES_WITHIN: Duration = Duration::from_secs(30);

/// Why a step was not done.
enum Stuck {
    /// It is tried again later.
    Later(Trouble),
    /// Repeating it under the same boot number does not help.
    Refused(Trouble),
}

impl Stuck {
    const fn trouble(&self) -> &Trouble {
        let (Self::Later(trouble) | Self::Refused(trouble)) = self;
        trouble
    }

    /// The same, as the instance says it.
    fn of_disk(self, name: &str) -> Self {
        match self {
            Self::Later(trouble) => Self::Later(trouble.of_disk(name)),
            Self::Refused(trouble) => Self::Refused(trouble.of_disk(name)),
        }
    }
}

type Step = Result<(), Stuck>;

/// A failure after which the step is tried again.
fn later(reason: Reason, detail: impl Into<String>) -> Stuck {
    Stuck::Later(Trouble { reason, detail: detail.into() })
}

/// What a disk is to be, with the root of its version; or why that is not known.
pub(super) type DiskNeed = Result<DiskWant, Trouble>;

/// The files of the seed disk; none if the controller says nothing that could be on it.
pub(super) type SeedNeed = Result<Option<Vec<SeedFile>>, Trouble>;

/// What the desired state says beside the assignment, as far as steps need it.
pub(super) struct Needs {
    /// The disks that are made, or are here.
    pub(super) disks: Vec<(DiskAssignment, DiskNeed)>,
    pub(super) seed: SeedNeed,
}

/// Runs the actions in a task of their own. The instance is busy until it ends.
pub(super) fn spawn(inner: Arc<Inner>, assignment: Assignment, needs: Needs, actions: Vec<Action>) {
    inner.slot(assignment.instance, |slot| {
        slot.busy = true;
        slot.may_get.extend(guest_disks::of_guest(&assignment).map(|disk| (disk.disk, None)));
    });
    tokio::spawn(async move {
        // Also frees the instance when the task panics.
        let _free = Free { inner: inner.clone(), instance: assignment.instance };
        let starts = actions.contains(&Action::Start);
        for action in actions {
            tracing::debug!(instance.id = %assignment.instance, ?action, "instance {}", assignment.name);
            match apply(&inner, &assignment, &needs, &action).await {
                Ok(()) => settled(&inner, assignment.instance, &action),
                Err(stuck) if action.disk().is_some() => failed_disk(&inner, &assignment, &action, stuck),
                // Nothing waits for them, and each of them has its own trouble and its own wait.
                Err(_) if action == Action::EnsureDisks && !starts => {}
                Err(stuck) => {
                    failed(&inner, &assignment, &action, stuck);
                    break;
                }
            }
        }
    });
}

struct Free {
    inner: Arc<Inner>,
    instance: InstanceId,
}

impl Drop for Free {
    fn drop(&mut self) {
        self.inner.slot(self.instance, |slot| {
            slot.busy = false;
            slot.may_get.values_mut().for_each(|until| _ = until.get_or_insert(Instant::now()));
        });
        self.inner.bump();
    }
}

fn settled(inner: &Inner, instance: InstanceId, action: &Action) {
    inner.slot(instance, |slot| {
        if let Some(disk) = action.disk() {
            slot.work.entry(disk).or_default().given = Tries::default();
            return;
        }
        // The others set their own next time and are repeated until something else happens.
        if !matches!(action, Action::Probe | Action::Resume | Action::AskToStop) {
            (slot.retry_at, slot.failures, slot.trouble) = (None, 0, None);
        }
    });
}

fn failed(inner: &Inner, assignment: &Assignment, action: &Action, stuck: Stuck) {
    let now = (inner.parts.now)();
    inner.slot(assignment.instance, |slot| {
        let (trouble, refused) = match stuck {
            Stuck::Later(trouble) => (trouble, false),
            Stuck::Refused(trouble) => (trouble, true),
        };
        slot.failures = slot.failures.saturating_add(1);
        if refused {
            slot.refusals = slot.refusals.saturating_add(1);
            if slot.refusals >= REFUSALS_MAX {
                slot.refused = Some(trouble.detail.clone());
            }
        }
        slot.retry_at = Some(now.plus_ms(wait_ms(slot.failures)));
        // Logged once, not at every retry.
        if slot.trouble.as_ref() != Some(&trouble) {
            tracing::warn!(
                instance.id = %assignment.instance, ?action,
                "instance {}: {}", assignment.name, trouble.detail
            );
        }
        slot.trouble = Some(trouble);
    });
}

/// Notes that something could not be done with one disk. The other disks and the guest go on.
fn failed_disk(inner: &Inner, assignment: &Assignment, action: &Action, stuck: Stuck) {
    let Some(disk) = action.disk() else { return };
    with_work(inner, assignment.instance, disk, |work| {
        failed_again(inner, &mut work.given, (assignment, disk), stuck.trouble().clone());
    });
}

/// Notes one more failure of a step for a disk of this instance.
fn failed_again(inner: &Inner, tries: &mut Tries, (assignment, disk): (&Assignment, DiskId), trouble: Trouble) {
    tries.failures = tries.failures.saturating_add(1);
    tries.retry_at = Some((inner.parts.now)().plus_ms(wait_ms(tries.failures)));
    // Logged once, not at every retry.
    if tries.trouble.as_ref() != Some(&trouble) {
        tracing::warn!(
            instance.id = %assignment.instance, disk.id = %disk,
            "a disk of instance {}: {}", assignment.name, trouble.detail
        );
    }
    tries.trouble = Some(trouble);
}

/// How long to wait after so many failures in a row, ms.
fn wait_ms(failures: u32) -> i64 {
    RETRY_FIRST_MS.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(RETRY_LAST_MS)
}

/// Changes the remembered start and stores it.
fn remember(inner: &Inner, instance: InstanceId, change: impl FnOnce(&mut Slot)) -> Step {
    let record = inner.slot(instance, |slot| {
        change(slot);
        slot.traces = true;
        slot.life.clone().map(|life| Record { life, told: slot.told.clone() })
    });
    let Some(record) = record else { return Ok(()) };
    inner
        .records
        .save(instance, &record)
        .map_err(|error| later(Reason::Io, format!("the record of the instance cannot be stored: {error}")))
}

fn with_life(inner: &Inner, instance: InstanceId, change: impl FnOnce(&mut Life)) -> Step {
    remember(inner, instance, |slot| {
        if let Some(life) = &mut slot.life {
            change(life);
        }
    })
}

async fn apply(inner: &Inner, assignment: &Assignment, needs: &Needs, action: &Action) -> Step {
    let instance = assignment.instance;
    let now = (inner.parts.now)();
    match action {
        Action::Begin => remember(inner, instance, |slot| {
            let may_get = std::mem::take(&mut slot.may_get);
            let fresh = Slot { traces: true, busy: true, bounded_at: slot.bounded_at, may_get, ..Slot::default() };
            let life = Some(Life::begin(assignment.generation, assignment.boot, now));
            *slot = Slot { life, told: Some(assignment.clone()), ..fresh };
        }),
        Action::EnsureDisks => ensure_disks(inner, assignment, &needs.disks).await,
        Action::Start => start(inner, assignment, &needs.seed).await,
        Action::Probe => probe(inner, assignment).await,
        Action::Resume => {
            let resumed = hypervisor(inner)?.resume(instance).await;
            inner.slot(instance, |slot| slot.retry_at = Some(now.plus_ms(RESUME_AGAIN_MS)));
            match resumed {
                Ok(()) | Err(HypervisorError::NotRunning(_)) => Ok(()),
                Err(error) => Err(hypervisor_failed(&error)),
            }
        }
        Action::AskToStop => {
            inner.slot(instance, |slot| {
                let since = slot.asked.map_or(now, |(since, _)| since);
                slot.asked = Some((since, now));
            });
            match hypervisor(inner)?.request_shutdown(instance).await {
                Ok(()) | Err(HypervisorError::NotRunning(_)) => Ok(()),
                Err(error) => Err(hypervisor_failed(&error)),
            }
        }
        Action::CutPower(end) => {
            let hypervisor = hypervisor(inner)?;
            hypervisor.destroy(instance).await.map_err(|error| hypervisor_failed(&error))?;
            // It may have turned itself off just before.
            let boot = inner.slot(instance, |slot| slot.life.as_ref().map(|life| life.boot));
            let obeyed = boot.and_then(|boot| hypervisor.ending(instance, boot)) == Some(Ending::Shutdown);
            note(inner, assignment, if *end == End::PowerCut && obeyed { &End::Stopped } else { end })
        }
        Action::Note(end) => note(inner, assignment, end),
        Action::Plug(disk) => plug(inner, assignment, *disk).await,
        Action::Unplug(disk) => {
            with_work(inner, instance, *disk, |work| {
                work.asked = Some((work.asked.map_or(now, |(since, _)| since), now));
            });
            hypervisor(inner)?.unplug(instance, *disk).await.map_err(|error| hypervisor_failed(&error))
        }
        Action::Resize(disk, bytes) => {
            let told = hypervisor(inner)?.resize(instance, *disk, *bytes).await;
            told.map_err(|error| hypervisor_failed(&error))?;
            with_work(inner, instance, *disk, |work| work.told_bytes = Some(*bytes));
            Ok(())
        }
        Action::RemoveDisk(disk) => {
            let removed = (inner.parts.disks.remove_saved)(*disk).await;
            removed.map_err(|error| {
                later(Reason::DiskError, format!("it left this instance and stays here: {}", explain(&error)))
            })
        }
        Action::RemoveDisks => remove_disks(inner, assignment).await,
        Action::Forget => forget(inner, assignment).await,
    }
}

/// Gives a guest that runs a disk.
async fn plug(inner: &Inner, assignment: &Assignment, disk: DiskId) -> Step {
    let instance = assignment.instance;
    let here = (inner.parts.disks.list_of)(instance);
    let found = here.into_iter().find(|here| here.disk == disk).ok_or_else(disk_gone)?;
    if let Some(pid) = hypervisor(inner)?.process(instance).await.map_err(|error| hypervisor_failed(&error))? {
        let mut command = inner.parts.helper.command("show-disk", "--pid", Path::new(&pid.to_string()));
        command.arg(&found.path);
        let shown = helped(command, SHOWN_WITHIN).await;
        shown.map_err(|error| later(Reason::Io, format!("the guest's process cannot be shown its file: {error}")))?;
    }
    let spec = DiskSpec { disk, path: found.path };
    if let Err(error) = hypervisor(inner)?.plug(instance, spec).await {
        may_come_late(inner, instance, &error, [disk]);
        return Err(hypervisor_failed(&error));
    }
    tracing::info!(instance.id = %instance, disk.id = %disk, "instance {} got a disk", assignment.name);
    with_work(inner, instance, disk, |work| work.told_bytes = Some(found.size_bytes));
    Ok(())
}

/// A call that timed out goes on, so its disks may come to the guest for a while.
fn may_come_late(
    inner: &Inner,
    instance: InstanceId,
    error: &HypervisorError,
    disks: impl IntoIterator<Item = DiskId>,
) {
    if matches!(error, HypervisorError::TimedOut { .. }) {
        let until = Instant::now() + MAY_COME_LATE;
        inner.slot(instance, |slot| slot.may_get.extend(disks.into_iter().map(|disk| (disk, Some(until)))));
    }
}

fn with_work(inner: &Inner, instance: InstanceId, disk: DiskId, change: impl FnOnce(&mut Work)) {
    inner.slot(instance, |slot| change(slot.work.entry(disk).or_default()));
}

/// Removes the record, the console log, the seed disk and the TPM of an instance.
async fn forget(inner: &Inner, assignment: &Assignment) -> Step {
    let instance = assignment.instance;
    if assignment.tpm {
        hypervisor(inner)?.discard(instance).await.map_err(|error| hypervisor_failed(&error))?;
    }
    let (records, seeds, log) = (inner.records.clone(), inner.seeds.clone(), inner.console_log(instance));
    // The record last: while it is there, the others are looked for.
    let removing = move || {
        console::remove(&log)?;
        seeds.remove(instance)?;
        records.remove(instance)
    };
    let removed = tokio::task::spawn_blocking(removing).await.map_err(io::Error::other).flatten();
    removed.map_err(|error| later(Reason::Io, error.to_string()))?;
    inner.slot(instance, |slot| *slot = Slot { busy: true, ..Slot::default() });
    Ok(())
}

/// Remembers how a start ended, under the start's own number, which may be older than the assignment's.
fn note(inner: &Inner, assignment: &Assignment, end: &End) -> Step {
    remember(inner, assignment.instance, |slot| {
        let now = (inner.parts.now)();
        let life = slot.life.get_or_insert_with(|| Life::begin(assignment.generation, assignment.boot, now));
        // The first end stays: a guest that was given up and then stopped counts as given up.
        let is_final = matches!(&life.phase, Phase::Ended(end) if !end.is_for_now());
        if !is_final || end.was_asked_for() {
            tracing::info!(instance.id = %assignment.instance, boot = life.boot, ?end, "instance {} ended", assignment.name);
            life.phase = Phase::Ended(end.clone());
        }
        slot.told = Some(assignment.clone());
        slot.asked = None;
        slot.scan = None;
    })
}

fn hypervisor(inner: &Inner) -> Result<&dyn Hypervisor, Stuck> {
    inner.parts.hypervisor.as_deref().ok_or_else(|| {
        Stuck::Refused(Trouble {
            reason: Reason::StartFailed,
            detail: "this node runs no virtual machines: its agent has no libvirt".to_owned(),
        })
    })
}

fn hypervisor_failed(error: &HypervisorError) -> Stuck {
    later(Reason::Hypervisor, error.to_string())
}

/// Goes on with the others when one disk cannot be had: they may have a newer version to take over. One that cannot grow can be
/// used as it is, so nothing waits for it.
async fn ensure_disks(inner: &Inner, assignment: &Assignment, wants: &[(DiskAssignment, DiskNeed)]) -> Step {
    let instance = assignment.instance;
    let mut first_failed = Ok(());
    for (named, want) in wants {
        let ensured = match want.clone() {
            Ok(want) => (inner.parts.disks.ensure)(want).await.map_err(|error| {
                let is_here = matches!(error, DiskError::NotGrown { .. });
                (disk_failed(&error), is_here)
            }),
            Err(trouble) => Err((Stuck::Later(trouble), false)),
        };
        let Err((stuck, is_here)) = ensured else {
            with_work(inner, instance, named.disk, |work| work.made = Tries::default());
            continue;
        };
        with_work(inner, instance, named.disk, |work| {
            failed_again(inner, &mut work.made, (assignment, named.disk), stuck.trouble().clone());
        });
        if !is_here {
            first_failed = first_failed.and(Err(stuck.of_disk(&named.name)));
        }
    }
    first_failed?;
    let now = (inner.parts.now)();
    let first = inner.slot(instance, |slot| slot.life.as_ref().is_some_and(|life| life.disk_at.is_none()));
    if first { with_life(inner, instance, |life| life.disk_at = Some(now)) } else { Ok(()) }
}

fn disk_failed(error: &DiskError) -> Stuck {
    let trouble = Trouble { reason: disk_reason(error), detail: explain(error) };
    match error {
        DiskError::OlderGeneration { .. } | DiskError::Diverged { .. } | DiskError::Invalid { .. } => {
            Stuck::Refused(trouble)
        }
        _ => Stuck::Later(trouble),
    }
}

/// The reason that users see. Errors that they cannot act on have one common reason.
fn disk_reason(error: &DiskError) -> Reason {
    match error.reason() {
        told @ (Reason::DiskFull | Reason::DiskFailed | Reason::DiskDiverged | Reason::Unreachable) => told,
        _ => Reason::DiskError,
    }
}

/// Removes the disks that are here, and those that the assignment names: a disk that could not be opened is not listed. One
/// that another instance has stays: a restored database may name it although it was attached there since.
async fn remove_disks(inner: &Inner, assignment: &Assignment) -> Step {
    let here = (inner.parts.disks.list)();
    let (own, of_others): (Vec<_>, Vec<_>) = here.iter().partition(|disk| disk.instance == assignment.instance);
    let named = assignment.disks.iter().map(|disk| disk.disk).chain(assignment.left.iter().map(|left| left.disk));
    let mut disks: BTreeSet<DiskId> = own.iter().map(|disk| disk.disk).chain(named).collect();
    disks.retain(|disk| of_others.iter().all(|other| other.disk != *disk));
    for disk in disks {
        (inner.parts.disks.remove)(disk).await.map_err(|error| later(Reason::DiskError, explain(&error)))?;
    }
    Ok(())
}

async fn start(inner: &Inner, assignment: &Assignment, seed: &SeedNeed) -> Step {
    let instance = assignment.instance;
    let parts = &inner.parts;
    let started = Phase::Started { run: parts.run, host_boot: parts.host_boot.clone() };
    for disk in assignment.disks.iter().filter(|disk| guest_disks::is_made(assignment, disk)) {
        (parts.disks.record_boot)(disk.disk, assignment.boot);
    }
    if assignment.runtime == Runtime::None {
        let now = (parts.now)();
        return with_life(inner, instance, |life| {
            life.phase = started;
            life.started_at.get_or_insert(now);
            life.ready_at.get_or_insert(now);
        });
    }
    let hypervisor = hypervisor(inner)?;
    // Before the guest is there: one without its network would only have to be stopped again.
    for nic in &assignment.nics {
        parts.networks.ensure(nic.network).await.map_err(|error| network_failed(&error))?;
    }
    let seed = ensure_seed(inner, instance, seed).await?;
    let uefi = ensure_variables(inner, assignment).await?;
    let spec = instance_spec(inner, assignment, seed, uefi)?;
    let sizes: Vec<_> = (parts.disks.list_of)(instance).into_iter().map(|disk| (disk.disk, disk.size_bytes)).collect();
    // Stored before the call: when the agent dies in between, the start must not look like none.
    with_life(inner, instance, |life| life.phase = started)?;
    let started = hypervisor.start(spec).await;
    if let Ok(Started::Now) = started {
        // QEMU opened them after they were looked at. They have at least these sizes.
        for (disk, bytes) in sizes {
            with_work(inner, instance, disk, |work| work.told_bytes = Some(bytes));
        }
    }
    if let Err(error) = started {
        may_come_late(inner, instance, &error, guest_disks::of_guest(assignment).map(|disk| disk.disk));
        // A call that timed out may still work. Then a repeated `start` of the same number finds the domain.
        with_life(inner, instance, |life| life.phase = Phase::New)?;
        let trouble = Trouble { reason: Reason::StartFailed, detail: explain(&error) };
        return Err(match error {
            HypervisorError::Refused { .. } | HypervisorError::Console { .. } => Stuck::Refused(trouble),
            _ => Stuck::Later(trouble),
        });
    }
    if let Err(stuck) = connect(inner, assignment).await {
        // Paused it would only wait. The next try begins anew.
        with_life(inner, instance, |life| life.phase = Phase::New)?;
        hypervisor.destroy(instance).await.map_err(|error| hypervisor_failed(&error))?;
        return Err(stuck);
    }
    let now = (parts.now)();
    remember(inner, instance, |slot| {
        slot.absent_since = None;
        if let Some(life) = &mut slot.life {
            life.started_at.get_or_insert(now);
        }
    })
}

/// Puts the taps of a guest that was started paused into their networks, and lets it run.
async fn connect(inner: &Inner, assignment: &Assignment) -> Step {
    if assignment.nics.is_empty() {
        return Ok(());
    }
    for nic in &assignment.nics {
        inner.parts.networks.attach(*nic).await.map_err(|error| network_failed(&error))?;
    }
    hypervisor(inner)?.resume(assignment.instance).await.map_err(|error| hypervisor_failed(&error))
}

fn network_failed(error: &NetworkError) -> Stuck {
    later(Reason::NetworkFailed, explain(error))
}

/// What the hypervisor needs to know, once all disks of the instance are here.
fn instance_spec(
    inner: &Inner,
    assignment: &Assignment,
    seed: Option<PathBuf>,
    uefi: Option<UefiSpec>,
) -> Result<InstanceSpec, Stuck> {
    let here = (inner.parts.disks.list_of)(assignment.instance);
    let found = guest_disks::of_guest(assignment).map(|want| {
        let disk = here.iter().find(|disk| disk.disk == want.disk)?;
        Some(DiskSpec { disk: disk.disk, path: disk.path.clone() })
    });
    let disks = found.collect::<Option<Vec<_>>>();
    let cards = assignment.nics.iter().map(|nic| inner.parts.networks.card(*nic));
    Ok(InstanceSpec {
        instance: assignment.instance,
        generation: assignment.generation,
        boot: assignment.boot,
        run: inner.parts.run,
        name: assignment.name.clone(),
        host_name: assignment.host_name.clone(),
        project: assignment.project.clone(),
        cpus: assignment.cpus,
        memory_bytes: assignment.memory_bytes,
        disks: disks.ok_or_else(disk_gone)?,
        uefi,
        tpm: assignment.tpm,
        seed,
        cards: cards.collect::<Result<_, _>>().map_err(|error| network_failed(&error))?,
        console_log: inner.console_log(assignment.instance),
        console_socket: console::socket(&inner.console_dir(), assignment.instance),
    })
}

fn disk_gone() -> Stuck {
    later(Reason::DiskError, "its disk is not there any more")
}

/// Gives the disk the variables of a new machine, unless it has some. A process of its own does that: an agent that is killed
/// while it uses a disk that it serves itself would wait for itself for ever (`fuse::first_reads`).
async fn begin_variables(inner: &Inner, build: &firmware::Build, disk: &Path) -> Result<(), String> {
    let mut command = inner.parts.helper.command("firmware-variables", "--template", &build.template);
    command.arg(disk);
    helped(command, VARIABLES_WITHIN).await
}

/// Runs a helper process to its end. Fails with what it says.
async fn helped(mut command: std::process::Command, limit: Duration) -> Result<(), String> {
    command.stderr(Stdio::piped());
    let ended = tokio::process::Command::from(command).kill_on_drop(true).output();
    match timeout(limit, ended).await {
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Ok(Err(error)) => Err(format!("no process for it: {error}")),
        Err(_elapsed) => Err(format!("not done within {} s", limit.as_secs())),
    }
}

/// The firmware of a guest that is about to start. One that never ran gets the variables of a new machine.
async fn ensure_variables(inner: &Inner, assignment: &Assignment) -> Result<Option<UefiSpec>, Stuck> {
    let lacking = |detail: String| Stuck::Refused(Trouble { reason: Reason::StartFailed, detail });
    let Some(build) = firmware::build(assignment.firmware).map_err(lacking)? else { return Ok(None) };
    let Some(disk) = assignment.disks.iter().find(|disk| disk.name == NVRAM) else {
        return Err(lacking(format!("it has UEFI firmware and no disk '{NVRAM}' for its variables")));
    };
    let here = (inner.parts.disks.list_of)(assignment.instance);
    let variables = here.into_iter().find(|here| here.disk == disk.disk).ok_or_else(disk_gone)?.path;
    begin_variables(inner, &build, &variables)
        .await
        .map_err(|error| later(Reason::Io, format!("the variables of its firmware cannot be written: {error}")))?;
    Ok(Some(UefiSpec { build, variables }))
}

/// Writes the seed disk of a guest that is about to start.
async fn ensure_seed(inner: &Inner, instance: InstanceId, seed: &SeedNeed) -> Result<Option<PathBuf>, Stuck> {
    let Some(files) = seed.clone().map_err(Stuck::Later)? else { return Ok(None) };
    let seeds = inner.seeds.clone();
    let made = tokio::task::spawn_blocking(move || seeds.ensure(instance, &files)).await;
    let made = made.map_err(io::Error::other).flatten();
    made.map(Some).map_err(|error| later(Reason::Io, format!("its seed disk cannot be written: {error}")))
}

async fn probe(inner: &Inner, assignment: &Assignment) -> Step {
    let instance = assignment.instance;
    let ready = match assignment.ready.probe {
        Probe::Running => true,
        Probe::Console => {
            let marker = assignment.ready.marker.clone().unwrap_or_else(|| "MUSTER-READY".to_owned());
            let mut scan = inner.slot(instance, |slot| slot.scan.take()).unwrap_or_else(|| Scan::new(assignment.boot));
            let log = inner.console_log(instance);
            let scanned = tokio::task::spawn_blocking(move || {
                let found = scan.found(&log, &marker);
                (scan, found)
            });
            let io = |error: String| later(Reason::Io, format!("its console log cannot be read: {error}"));
            let (scan, found) = scanned.await.map_err(|error| io(error.to_string()))?;
            inner.slot(instance, |slot| slot.scan = Some(scan));
            found.map_err(|error| io(error.to_string()))?
        }
        Probe::GuestAgent => guest_agent::ping(hypervisor(inner)?, instance).await.is_ok(),
    };
    let now: Timestamp = (inner.parts.now)();
    if ready {
        tracing::info!(instance.id = %instance, boot = assignment.boot, "instance {} is ready", assignment.name);
        inner.slot(instance, |slot| {
            slot.retry_at = None;
            if assignment.ready.probe == Probe::GuestAgent {
                slot.guest.hurry();
            }
        });
        with_life(inner, instance, |life| {
            life.started_at.get_or_insert(now);
            life.ready_at = Some(now);
        })
    } else {
        inner.slot(instance, |slot| slot.retry_at = Some(now.plus_ms(PROBE_AGAIN_MS)));
        Ok(())
    }
}

/// Ends one guest because the agent ends: asks until `deadline`, then cuts its power.
pub(super) async fn end_for_shutdown(inner: &Inner, instance: InstanceId, boot: u64, deadline: Instant) {
    let Some(hypervisor) = &inner.parts.hypervisor else { return };
    let mut asked: Option<Instant> = None;
    while Instant::now() < deadline {
        if asked.is_none_or(|at| at.elapsed() >= Duration::from_secs(3)) {
            if let Err(HypervisorError::NotRunning(_)) = hypervisor.request_shutdown(instance).await {
                break;
            }
            asked = Some(Instant::now());
        }
        if hypervisor.ending(instance, boot).is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    if hypervisor.ending(instance, boot).is_none()
        && let Err(error) = hypervisor.destroy(instance).await
    {
        tracing::warn!(instance.id = %instance, %error, "its power could not be cut at the agent's end");
        return;
    }
    let kept = with_life(inner, instance, |life| {
        if life.boot == boot && matches!(life.phase, Phase::Started { .. }) {
            life.phase = Phase::Ended(End::AgentStopped);
            life.ended_in = Some(inner.parts.host_boot.clone());
        }
    });
    if kept.is_err() {
        tracing::warn!(instance.id = %instance, "its record could not be kept at the agent's end");
    }
}
