//! Which disks a guest is to have, and what is done about the difference. Pure.
//!
//! ```text
//!  attached (in_guest):      the disk is here, the guest runs and lacks it    --> Plug
//!  grown:                    the guest has it and was told a smaller size     --> Resize
//!  detaching (not in_guest): the guest runs and has it                        --> Unplug, asked again until it lets go
//!  left (left):              no guest has it, and it is the copy that left    --> RemoveDisk, unless it holds unsaved bytes
//! ```
//!
//! A guest that does not run gets at its next start exactly what it is to have, so nothing is done for it here. The boot disk
//! and the variables of the firmware are never plugged or unplugged. With runtime `none` a disk is a file: it is mounted while
//! it is `in_guest`, and what still has it open gets errors afterwards (`DiskWant::served`).
//!
//! Nothing here ends a guest, and a disk that fails keeps no other from its turn: each has waits and troubles of its own
//! ([`Work`]). A start waits until all disks are here, because a guest without one of them may do harm; the instance and the
//! disk say which one is missing and why. A disk that cannot grow is used as it is.

use std::collections::BTreeMap;

use muster_api::{
    DiskId, Reason, Timestamp,
    deployment::Runtime,
    node_protocol::{AbsentDisk, Assignment, DiskAssignment, GuestLacks, LeftDisk, NVRAM, Wanted},
};

use super::{
    plan::{Action, DiskSeen, DomainSeen, Here, Phase, Seen},
    report::Trouble,
};
use crate::hypervisor::{Domain, DomainState};

/// Time after which a guest that has not let go of a disk is asked again, and its instance says so.
const UNPLUG_AGAIN_MS: i64 = 30_000;

/// What this process did and heard about one disk of an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Since when the guest has been asked to let go of it, and when last.
    pub asked: Option<(Timestamp, Timestamp)>,
    /// The size that the guest knows of, bytes; `None` if that is not certain.
    pub told_bytes: Option<u64>,
    /// Making it, making it larger.
    pub made: Tries,
    /// Giving it to the guest, taking it from the guest, telling its size, removing it.
    pub given: Tries,
}

/// How a step for a disk goes that is tried until it is done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tries {
    /// It failed, and is not tried before this time.
    pub retry_at: Option<Timestamp>,
    /// Failures in a row.
    pub failures: u32,
    /// What failed last.
    pub trouble: Option<Trouble>,
}

impl Tries {
    fn is_due(&self, here: &Here) -> bool {
        self.retry_at.is_none_or(|at| at <= here.now)
    }
}

/// The disks that the guest is to have, as devices.
pub fn of_guest(assignment: &Assignment) -> impl Iterator<Item = &DiskAssignment> {
    devices(assignment).filter(|(is_boot, disk)| *is_boot || disk.in_guest).map(|(_, disk)| disk)
}

/// The disks that can be devices of the guest, and whether each is the boot disk.
fn devices(assignment: &Assignment) -> impl Iterator<Item = (bool, &DiskAssignment)> {
    assignment.disks.iter().enumerate().map(|(n, disk)| (n == 0, disk)).filter(|(_, disk)| disk.name != NVRAM)
}

/// Whether the file of a disk is mounted: the guest uses it or may, or it is the guest's that is to let go of it.
#[must_use]
pub fn is_served(assignment: &Assignment, disk: &DiskAssignment) -> bool {
    assignment.runtime == Runtime::Libvirt || disk.in_guest
}

/// Whether a disk is made if it is not here. One that the guest is not to have would only be made to be removed.
#[must_use]
pub fn is_made(assignment: &Assignment, disk: &DiskAssignment) -> bool {
    disk.in_guest || assignment.disks.first() == Some(disk)
}

/// Whether a disk that is not as it is to be may be made or made larger now.
#[must_use]
pub fn may_be_made(disk: DiskId, seen: &Seen, here: &Here) -> bool {
    seen.work.get(&disk).is_none_or(|work| work.made.is_due(here))
}

/// What to do about the disks of a guest, beside what its plan says.
#[must_use]
pub fn plan(assignment: &Assignment, seen: &Seen, here: &Here) -> Vec<Action> {
    let mut actions = Vec::new();
    let due = |disk: DiskId| seen.work.get(&disk).is_none_or(|work| work.given.is_due(here));
    if let Some(domain) = running(assignment, seen, here) {
        let wanted = devices(assignment).filter_map(|(is_boot, want)| difference(want, is_boot, domain, seen, here));
        // The controller counts these as gone, and the guest has them all the same.
        let is_it = |disk: DiskId| {
            seen.disks.iter().find(|found| found.disk == disk).is_none_or(|found| has_left(assignment, found))
        };
        let left = assignment.left.iter().map(|left| left.disk).filter(|disk| is_it(*disk));
        let left = left.filter_map(|disk| unplug(disk, domain, seen, here));
        actions.extend(wanted.chain(left).filter(|action| action.disk().is_some_and(due)));
    }
    let left = seen.disks.iter().filter(|disk| has_left(assignment, disk) && has_no_guest(disk.disk, seen));
    actions.extend(left.filter(|disk| due(disk.disk)).map(|disk| Action::RemoveDisk(disk.disk)));
    actions
}

/// The domain, if its guest runs and is the one that the assignment is about.
fn running<'a>(assignment: &Assignment, seen: &'a Seen, here: &Here) -> Option<&'a Domain> {
    let domain = started(assignment, seen, here)?;
    (domain.state == DomainState::Running && assignment.wanted == Wanted::Running).then_some(domain)
}

/// The domain, if its guest was started and is the one that the assignment is about.
fn started<'a>(assignment: &Assignment, seen: &'a Seen, here: &Here) -> Option<&'a Domain> {
    let DomainSeen::Present(domain) = &seen.domain else { return None };
    let is_this =
        domain.run == here.run && (domain.generation, domain.boot) == (assignment.generation, assignment.boot);
    let is_started = seen.life.as_ref().is_some_and(|life| {
        life.is_of(assignment) && matches!(life.phase, Phase::Started { .. }) && life.started_at.is_some()
    });
    (is_this && is_started).then_some(domain)
}

fn difference(want: &DiskAssignment, is_boot: bool, domain: &Domain, seen: &Seen, here: &Here) -> Option<Action> {
    let disk = want.disk;
    let is_plugged = domain.disks.contains(&disk);
    if !want.in_guest && !is_boot {
        return unplug(disk, domain, seen, here);
    }
    let found = seen.disks.iter().find(|found| found.disk == disk && found.mounted && found.version == want.version)?;
    if found.generation != domain.generation {
        return None;
    }
    let told_bytes = seen.work.get(&disk).and_then(|work| work.told_bytes);
    if !is_plugged {
        return (!is_boot).then_some(Action::Plug(disk));
    }
    told_bytes.is_none_or(|told| told < found.size_bytes).then_some(Action::Resize(disk, found.size_bytes))
}

fn unplug(disk: DiskId, domain: &Domain, seen: &Seen, here: &Here) -> Option<Action> {
    let last = seen.work.get(&disk).and_then(|work| work.asked).map(|(_, last)| last);
    let is_due = last.is_none_or(|last| here.now.ms_since(last) >= UNPLUG_AGAIN_MS);
    (domain.disks.contains(&disk) && is_due).then_some(Action::Unplug(disk))
}

/// Whether a disk that is here left the instance. One of a newer generation (I8) or of another version was attached again since.
fn has_left(assignment: &Assignment, disk: &DiskSeen) -> bool {
    let is_named = assignment.disks.iter().any(|named| named.disk == disk.disk);
    let left = LeftDisk { disk: disk.disk, version: disk.version };
    assignment.left.contains(&left) && !is_named && disk.generation <= assignment.generation
}

/// Whether it is certain that no guest has a disk or is about to get it.
fn has_no_guest(disk: DiskId, seen: &Seen) -> bool {
    let has = match &seen.domain {
        DomainSeen::Unknown => true,
        DomainSeen::Absent { .. } => false,
        DomainSeen::Present(domain) => domain.disks.contains(&disk),
    };
    !has && !seen.may_get.contains(&disk)
}

/// Whether a guest has a disk or may get it, for the report of it.
#[must_use]
pub fn is_in_guest(assignment: &Assignment, seen: &Seen, disk: DiskId) -> bool {
    let wanted = assignment.disks.iter().enumerate().find(|(_, want)| want.disk == disk);
    let is_taken = match wanted {
        // A guest keeps its boot disk. A file is closed whichever it is.
        Some((n, want)) => (n > 0 || assignment.runtime == Runtime::None) && !want.in_guest,
        None => seen.disks.iter().any(|found| found.disk == disk && has_left(assignment, found)),
    };
    if !is_taken {
        return true;
    }
    match assignment.runtime {
        Runtime::Libvirt => !has_no_guest(disk, seen),
        Runtime::None => {
            let is_reachable = seen.disks.iter().any(|found| found.disk == disk && found.reachable);
            is_reachable || seen.may_get.contains(&disk)
        }
    }
}

/// What a guest that was started has yet to get of a disk, for the report of it. One that is to lose the disk lacks nothing.
#[must_use]
pub fn guest_lacks(assignment: &Assignment, seen: &Seen, here: &Here, disk: DiskId) -> Option<GuestLacks> {
    let domain = started(assignment, seen, here)?;
    of_guest(assignment).find(|want| want.disk == disk)?;
    let found = seen.disks.iter().find(|found| found.disk == disk)?;
    if !domain.disks.contains(&disk) {
        return Some(GuestLacks::Disk);
    }
    let told_bytes = seen.work.get(&disk).and_then(|work| work.told_bytes);
    told_bytes.is_none_or(|told| told < found.size_bytes).then_some(GuestLacks::Size)
}

/// The disks of the assignment that are not here, for the report: those that could not be made, and those that nothing will
/// make. `is_quiet` says that no step was under way when the disks were looked at.
#[must_use]
pub fn absent(assignment: &Assignment, seen: &Seen, here: &Here, is_quiet: bool) -> Vec<AbsentDisk> {
    let is_here = |want: &&DiskAssignment| seen.disks.iter().any(|found| found.disk == want.disk);
    let missing = assignment.disks.iter().filter(|want| !is_here(want));
    let said = missing.filter_map(|want| {
        let detail = trouble_of(want.disk, seen, here).map(|trouble| trouble.detail);
        let is_certain = if is_made(assignment, want) { detail.is_some() } else { is_quiet };
        is_certain.then_some(AbsentDisk { disk: want.disk, detail })
    });
    said.collect()
}

/// What people should know about the disks of an instance, if there is something.
#[must_use]
pub fn trouble(assignment: &Assignment, seen: &Seen, here: &Here) -> Option<Trouble> {
    seen.work.keys().find_map(|disk| {
        let named = assignment.disks.iter().find(|named| named.disk == *disk);
        let name = named.map_or_else(|| disk.to_string(), |named| named.name.clone());
        Some(trouble_of(*disk, seen, here)?.of_disk(&name))
    })
}

/// What people should know about one disk, if there is something.
#[must_use]
pub fn trouble_of(disk: DiskId, seen: &Seen, here: &Here) -> Option<Trouble> {
    let work = seen.work.get(&disk)?;
    let failed = work.made.trouble.as_ref().or(work.given.trouble.as_ref());
    failed.cloned().or_else(|| {
        let (since, _) = work.asked.filter(|(since, _)| here.now.ms_since(*since) >= UNPLUG_AGAIN_MS)?;
        let detail = format!(
            "the guest was asked to let it go at {since} and has not yet: unmount it there, or stop the instance; it is asked \
             again"
        );
        Some(Trouble { reason: Reason::Busy, detail })
    })
}

/// Forgets what does not count any more: about disks that are gone, why a disk could not be made that is not to be made any
/// more, and what was asked of a guest that has done it. Nothing is concluded about disks that the guest may have got since its
/// domain was looked at.
pub fn tidy(
    work: &mut BTreeMap<DiskId, Work>,
    assignment: &Assignment,
    domain: &DomainSeen,
    is_here: impl Fn(DiskId) -> bool,
    may_get: impl Fn(DiskId) -> bool,
) {
    let is_named = |disk: &DiskId| {
        let has_left = || assignment.left.iter().any(|left| left.disk == *disk);
        assignment.disks.iter().any(|named| named.disk == *disk) || has_left()
    };
    work.retain(|disk, _| is_named(disk));
    for named in assignment.disks.iter().filter(|named| !is_made(assignment, named) && !is_here(named.disk)) {
        if let Some(work) = work.get_mut(&named.disk) {
            work.made = Tries::default();
        }
    }
    let plugged: &[DiskId] = match domain {
        DomainSeen::Unknown => return,
        DomainSeen::Absent { .. } => &[],
        DomainSeen::Present(domain) => &domain.disks,
    };
    for (disk, work) in work.iter_mut().filter(|(disk, _)| !may_get(**disk)) {
        let is_plugged = plugged.contains(disk);
        if !is_plugged || of_guest(assignment).any(|want| want.disk == *disk) {
            work.asked = None;
        }
        if !is_plugged {
            work.told_bytes = None;
        }
    }
}
