//! What the disks of a deployment's members start as.

use muster_api::{
    DeploymentId, ErrorCode, ImageId, Problem, Ref, SnapshotId, VersionId, deployment::DeploymentSource,
    image::VersionOrNumber, snapshot::SnapshotState,
};

use super::super::{AppError, Caller, at, find, images};
use crate::{
    domain::{images::Properties, order::rounded},
    store::{
        Tx, column, snapshots,
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
    /// A fork: the first member starts from the first, and so on.
    Each(Vec<VersionRow>),
}

/// The version and the size in bytes that one disk starts with.
pub(super) type DiskStart = (VersionId, u64);

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

    /// The size of the largest version, rounded up to what a disk may have.
    pub(super) fn size_bytes(&self) -> u64 {
        let versions = match &self.versions {
            StartVersions::One(version) => std::slice::from_ref(&**version),
            StartVersions::Each(versions) => versions,
        };
        let largest = versions.iter().map(|version| version.version.size_bytes).max();
        rounded(largest.expect("a start has at least one version"))
    }

    /// The version that all members start from; `None` for a fork.
    pub(super) fn version(&self) -> Option<VersionId> {
        match &self.versions {
            StartVersions::One(version) => Some(version.version.id),
            StartVersions::Each(_) => None,
        }
    }

    /// The least size of a disk that its image needs, bytes.
    pub(super) fn needed_bytes(&self) -> u64 {
        self.known.min_disk_bytes.map_or(0, rounded)
    }

    /// What the disk of each of `count` members starts with. Without `disk_bytes` disks have the sizes of their versions, at
    /// least what the image needs.
    pub(super) fn disks(&self, count: usize, disk_bytes: Option<u64>) -> Vec<DiskStart> {
        let size = |row: &VersionRow| rounded(row.version.size_bytes).max(self.needed_bytes());
        let of = |row: &VersionRow| (row.version.id, disk_bytes.unwrap_or_else(|| size(row)));
        match &self.versions {
            StartVersions::One(version) => vec![of(version); count],
            StartVersions::Each(versions) => versions.iter().map(of).collect(),
        }
    }
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
    let versions = versions::of_snapshot(tx, snapshot.id).await?;
    if versions.is_empty() {
        let missing = AppError::not_found("version", format!("{}/*", snapshot.name));
        return Err(at("/source/snapshot")(missing));
    }
    if snapshot.missing > 0 && !allow_missing {
        let detail = format!(
            "{} of the {} members of snapshot '{}' have no version any more, because somebody deleted it: a fork would have \
             {}; to start it all the same, say --allow-missing (in the API allow_missing)",
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
