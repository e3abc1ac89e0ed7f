//! What the disks of a deployment's members start as.

use std::collections::{BTreeMap, HashSet};

use muster_api::{
    DeploymentId, ErrorCode, ImageId, Problem, Ref, SnapshotId, VersionId,
    deployment::{DeploymentSource, Runtime},
    disk::ROOT,
    firmware::Firmware,
    image::VersionOrNumber,
    node_protocol::NVRAM,
    snapshot::SnapshotState,
};

use super::super::{AppError, Caller, at, find, images};
use crate::{
    domain::{
        disk_plan::{DiskPlan, is_reserved},
        images::Properties,
        order::{Order, rounded},
    },
    store::{
        Tx, column,
        snapshots::{self, MemberRow},
        versions::{self, VersionRow},
    },
};

/// What the disks of the members start as.
pub(super) struct Start {
    /// As the API shows it: references are ids.
    pub source: DeploymentSource,
    /// Name of the image or snapshot, else of the version.
    pub source_name: Option<String>,
    /// The versions that the members start from.
    pub versions: StartVersions,
    /// What is known of the system on them.
    pub known: Properties,
    /// The deployment behind the snapshot, if there is one in the same project.
    pub forked: Option<DeploymentId>,
}

/// The versions that the disks start as.
pub(super) enum StartVersions {
    /// All members start from this one.
    One(Box<VersionRow>),
    /// A fork: the first member starts from the disks of the first instance, and so on. The boot disk is the first.
    Each(Vec<Vec<VersionRow>>),
}

/// What one disk of a member starts with.
#[derive(Clone, Debug)]
pub(super) struct DiskStart {
    /// Name of the disk within the instance.
    pub name: String,
    /// The version that it starts from.
    pub version: VersionId,
    /// Its size, bytes.
    pub size_bytes: u64,
}

/// Where the variables of UEFI firmware come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variables {
    /// Each member has those of a member of the snapshot.
    TakenOver,
    /// Each member begins as a new machine.
    Fresh,
}

impl Start {
    /// Resolves the references of a source.
    pub(super) async fn resolve(tx: &mut Tx, caller: &Caller, source: &DeploymentSource) -> Result<Self, AppError> {
        match (&source.image, source.version, &source.snapshot) {
            (Some(image), version, _) => of_image(tx, caller, image, version).await,
            (None, _, Some(snapshot)) => of_snapshot(tx, caller, snapshot, source.allow_missing).await,
            (None, Some(VersionOrNumber::Id(id)), None) => {
                let version = find::version(tx, caller, id).await.map_err(at("/source/version"))?;
                let source_name = Some(version.version.name.clone());
                let known = images::properties_of(tx, &version).await?;
                let versions = StartVersions::One(Box::new(version));
                Ok(Self { source: source.clone(), source_name, versions, known, forked: None })
            }
            (None, _, None) => Err(AppError::invalid("/source", "invalid", "exactly one of image, version, snapshot")),
        }
    }

    /// The size of the largest version of a boot disk, rounded up to what a disk may have.
    pub(super) fn size_bytes(&self) -> u64 {
        let largest = match &self.versions {
            StartVersions::One(version) => Some(version.version.size_bytes),
            StartVersions::Each(members) => {
                members.iter().filter_map(|disks| disks.first()).map(|disk| disk.version.size_bytes).max()
            }
        };
        rounded(largest.expect("a start has at least one version"))
    }

    /// The disks beside the boot disk that the members of a fork have from their snapshot.
    pub(super) fn disk_plans(&self) -> Vec<DiskPlan> {
        let StartVersions::Each(members) = &self.versions else { return Vec::new() };
        let mut plans: Vec<DiskPlan> = Vec::new();
        for disk in members.iter().flatten() {
            let name = name_of(disk);
            match plans.iter_mut().find(|plan| plan.name == name) {
                Some(plan) => plan.size_bytes = plan.size_bytes.max(size_of(disk)),
                None if is_reserved(name) => {}
                None => plans.push(DiskPlan {
                    name: name.to_owned(),
                    size_bytes: size_of(disk),
                    version: None,
                    source: None,
                    source_name: None,
                }),
            }
        }
        plans
    }

    /// The most disks beside the boot disk that a member of a fork has from its snapshot. Members may have different ones.
    pub(super) fn disks_max(&self) -> usize {
        let StartVersions::Each(members) = &self.versions else { return 0 };
        let of = |disks: &Vec<VersionRow>| disks.iter().filter(|disk| !is_reserved(name_of(disk))).count();
        members.iter().map(of).max().unwrap_or(0)
    }

    /// The version that all members start from; `None` for a fork.
    pub(super) fn version(&self) -> Option<VersionId> {
        match &self.versions {
            StartVersions::One(version) => Some(version.version.id),
            StartVersions::Each(_) => None,
        }
    }

    /// What starts the boot loaders of the members: what the order says, else what is known of the source.
    pub(super) fn firmware(&self, order: &Order) -> Result<Firmware, AppError> {
        if order.runtime == Runtime::None {
            return Ok(Firmware::default());
        }
        if let Some(said) = order.firmware.or(self.known.firmware) {
            return Ok(said);
        }
        let found = |row: &VersionRow| row.firmware;
        match &self.versions {
            StartVersions::One(version) => Ok(found(version)),
            StartVersions::Each(members) => {
                let all: HashSet<Firmware> = members.iter().filter_map(|disks| disks.first()).map(found).collect();
                match all.into_iter().collect::<Vec<_>>()[..] {
                    [one] => Ok(one),
                    _ => {
                        let detail = "the members of the snapshot have different firmware, and those of a deployment have \
                            one: say which, or fork a snapshot of one deployment";
                        Err(AppError::invalid("/firmware", "invalid", detail))
                    }
                }
            }
        }
    }

    /// Drops the variables of the firmware that the members of a snapshot had, unless all have them and for this firmware.
    /// Variables of firmware without Secure Boot have no keys: one with it would start everything.
    pub(super) fn keep_variables_of(&mut self, firmware: Firmware) -> Variables {
        let StartVersions::Each(members) = &mut self.versions else { return Variables::Fresh };
        let has = |disks: &Vec<VersionRow>| disks.iter().any(|row| name_of(row) == NVRAM && row.firmware == firmware);
        if firmware.has_nvram() && members.iter().all(has) {
            return Variables::TakenOver;
        }
        for disks in members {
            disks.retain(|row| name_of(row) != NVRAM);
        }
        Variables::Fresh
    }

    /// The least size of a disk that its image needs, bytes.
    pub(super) fn needed_bytes(&self) -> u64 {
        self.known.min_disk_bytes.map_or(0, rounded)
    }

    /// What the disks of each of `count` members start with. Without `disk_bytes` boot disks have the sizes of their versions,
    /// at least what the image needs. `plans` are the other disks that members get; in a fork, those that have no version of
    /// their own start as their snapshot has them.
    pub(super) fn disks(&self, count: usize, disk_bytes: Option<u64>, plans: &[DiskPlan]) -> Vec<Vec<DiskStart>> {
        let root = |row: &VersionRow| DiskStart {
            name: ROOT.to_owned(),
            version: row.version.id,
            size_bytes: disk_bytes.unwrap_or_else(|| size_of(row).max(self.needed_bytes())),
        };
        let taken_over = |row: &VersionRow| match name_of(row) {
            ROOT => root(row),
            name => DiskStart { name: name.to_owned(), version: row.version.id, size_bytes: size_of(row) },
        };
        match &self.versions {
            StartVersions::One(version) => {
                vec![std::iter::once(root(version)).chain(planned(plans)).collect(); count]
            }
            StartVersions::Each(members) => {
                members.iter().map(|disks| disks.iter().map(taken_over).chain(planned(plans)).collect()).collect()
            }
        }
    }
}

/// The disks that start from a version which is the same for all members.
pub(super) fn planned(plans: &[DiskPlan]) -> impl Iterator<Item = DiskStart> {
    plans.iter().filter_map(|plan| {
        let version = plan.version?;
        Some(DiskStart { name: plan.name.clone(), version, size_bytes: plan.size_bytes })
    })
}

fn name_of(row: &VersionRow) -> &str {
    row.version.disk_name.as_deref().unwrap_or(ROOT)
}

/// The size of a disk that starts from a version and is given no other.
fn size_of(row: &VersionRow) -> u64 {
    rounded(row.version.size_bytes)
}

async fn of_image(
    tx: &mut Tx,
    caller: &Caller,
    wanted: &Ref<ImageId>,
    number: Option<VersionOrNumber>,
) -> Result<Start, AppError> {
    let number = match number {
        Some(VersionOrNumber::Number(number)) => Some(number),
        _ => None,
    };
    let (image, version) = find::source_image(tx, caller, wanted, number).await?;
    let source = DeploymentSource {
        image: Some(Ref::Id(image.image.id)),
        version: version.version.number.map(VersionOrNumber::Number),
        snapshot: None,
        allow_missing: false,
    };
    let (source_name, known) = (Some(image.image.name), image.properties);
    Ok(Start { source, source_name, versions: StartVersions::One(Box::new(version)), known, forked: None })
}

async fn of_snapshot(
    tx: &mut Tx,
    caller: &Caller,
    wanted: &Ref<SnapshotId>,
    allow_missing: bool,
) -> Result<Start, AppError> {
    let snapshot = find::snapshot(tx, caller, wanted).await.map_err(at("/source/snapshot"))?;
    if snapshot.state != SnapshotState::Ready {
        let state = column::word_text(snapshot.state)?;
        return Err(AppError::WrongState { kind: "snapshot", state, allowed: vec!["ready"] });
    }
    let versions = whole_instances(tx, snapshot.id).await?;
    if versions.is_empty() {
        let missing = AppError::not_found("version", format!("{}/*", snapshot.name));
        return Err(at("/source/snapshot")(missing));
    }
    if snapshot.missing > 0 && !allow_missing {
        let detail = format!(
            "{} of the {} disks in snapshot '{}' have no version any more, because somebody deleted it: a fork would have {} \
             members; to start it all the same, say --allow-missing (in the API allow_missing)",
            snapshot.missing,
            snapshot.members,
            snapshot.name,
            versions.len()
        );
        return Err(Problem::new(ErrorCode::WrongState, detail).with("missing", snapshot.missing).into());
    }
    let source = DeploymentSource { image: None, version: None, snapshot: Some(Ref::Id(snapshot.id)), allow_missing };
    // What the guests of one project are told must not get into another one.
    let forked =
        if snapshot.project == caller.one_project()? { snapshots::deployment_of(tx, &snapshot).await? } else { None };
    // The disks were used since they were made from images, so nothing is known of them.
    let known = Properties::default();
    Ok(Start { source, source_name: Some(snapshot.name), versions: StartVersions::Each(versions), known, forked })
}

/// The disks of each instance of a snapshot, boot disk first. Instances of which a disk has no version any more are left
/// out.
async fn whole_instances(tx: &mut Tx, snapshot: SnapshotId) -> Result<Vec<Vec<VersionRow>>, AppError> {
    let versions = versions::of_snapshot(tx, snapshot).await?.into_iter();
    let mut by_id: BTreeMap<VersionId, VersionRow> = versions.map(|row| (row.version.id, row)).collect();
    let members = snapshots::members(tx, snapshot).await?;
    // The rows of one instance follow each other.
    let instances = members.chunk_by(|a, b| a.instance == b.instance);
    let mut version = |member: &MemberRow| member.version.and_then(|id| by_id.remove(&id));
    Ok(instances.filter_map(|disks| disks.iter().map(&mut version).collect()).collect())
}
