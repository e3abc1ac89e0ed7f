//! Versions: the numbers of images, and what commits made of the disks of instances. A row changes only its labels, the
//! names copied into it, and its end (I5).
//!
//! The row of a deleted version stays for a week, and longer while disks that began with it, or others, still need it
//! (`old_versions.rs`). `?deleted=true` shows it for 24 hours. The sweep finds in these rows what they still need.

use std::collections::{BTreeMap, HashSet};

use muster_api::{
    CommitId, DiskId, ImageId, InstanceId, Labels, NodeId, SnapshotId, UploadId, VersionId,
    disk::ROOT,
    etag,
    firmware::{BootKind, Firmware},
    node_protocol::VersionRoot,
    version::{Version, VersionState},
};
use sqlx::any::AnyRow;
use storage_core::{Descriptor, hex_text};

use super::{
    DELETED_SHOWN_MS, StoreError, Tx, boot_orders, bulk,
    column::{self, Cell, Column as _},
    row::{Row, select, select_one},
};
use crate::domain::versions::Content;

/// What a version is a state of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Of {
    /// One of the numbered versions of an image.
    Image {
        /// The image that it belongs to.
        image: ImageId,
        /// Its number within the image, from 1.
        number: u64,
    },
    /// The disk of an instance.
    Disk {
        /// The instance that the disk belonged to then.
        instance: InstanceId,
        /// The name that it had then. The version outlives the instance.
        instance_name: String,
        /// The disk that was committed.
        disk: DiskId,
        /// The name that the disk had within the instance.
        disk_name: String,
        /// Id and name of the snapshot that it was cut for.
        snapshot: Option<(SnapshotId, String)>,
        /// The commit that made it; `None` for what a blank disk starts from. A commit is published once at most.
        commit: Option<CommitId>,
    },
}

/// A version to publish.
#[derive(Clone, Debug)]
pub struct NewVersion {
    /// Its id.
    pub id: VersionId,
    /// The project that owns it.
    pub project: String,
    /// Labels that users gave it.
    pub labels: Labels,
    /// What it is a state of.
    pub of: Of,
    /// The version that it was made from; `None` for an import and where it is not known.
    pub parent: Option<VersionId>,
    /// Its descriptor and root page.
    pub content: Content,
    /// BLAKE3 of the raw bytes, hex. Known only for imports, where all bytes pass through the controller.
    pub digest: Option<String>,
    /// Bytes that publishing it newly stored, one copy.
    pub stored_bytes: u64,
    /// Stored bytes of one copy of all objects that it reaches, if known.
    pub reached_bytes: Option<u64>,
    /// What can boot it. Known only for imports.
    pub boot: BootKind,
    /// The firmware that starts it.
    pub firmware: Firmware,
    /// The upload that stored its objects; `None` for a clone, which stored none.
    pub upload: Option<UploadId>,
}

impl NewVersion {
    /// A state of the disk of an instance, whose objects are in the pool already.
    #[must_use]
    pub fn of_disk(id: VersionId, project: String, of: Of, firmware: Firmware, content: Content) -> Self {
        Self {
            id,
            project,
            labels: Labels::default(),
            of,
            parent: None,
            content,
            digest: None,
            stored_bytes: 0,
            reached_bytes: None,
            boot: BootKind::Unknown,
            firmware,
            upload: None,
        }
    }
}

/// The row of a version, with what the API does not show.
#[derive(Clone, Debug)]
pub struct VersionRow {
    /// The version as the API shows it.
    pub version: Version,
    /// Its descriptor and root page.
    pub content: Content,
    /// The commit that made it; `None` for a version of an image.
    pub commit: Option<CommitId>,
    /// Stored bytes of one copy of all objects that it reaches, if known.
    pub reached_bytes: Option<u64>,
    /// The firmware that starts it.
    pub firmware: Firmware,
    /// Raised by each change; a save compares it.
    pub revision: i64,
    /// Its place in lists and in the order of all commits.
    pub seq: i64,
}

const INSERT: &str = "-- versions.insert
INSERT INTO versions (id, project, labels, state, image, number, instance, instance_name, disk, disk_name,
    snapshot, snapshot_name, commit_id, size_bytes, chunk_bytes, root, descriptor, root_page, digest, stored_bytes, reached_bytes, boot,
    firmware, upload, parent, created_at, updated_at, seq)";

/// Publishes a version. I3: the caller has made sure with `uploads::live`, in this transaction, that the upload that
/// stored its objects still counts. A second version of one commit is a unique violation, so look with [`by_commit`]
/// first.
pub async fn insert(tx: &mut Tx, new: &NewVersion) -> Result<(), StoreError> {
    let (now, seq) = (tx.now(), tx.next_seq().await?);
    let mut cells = vec![new.id.cell()?, new.project.cell()?, new.labels.cell()?, VersionState::Ready.cell()?];
    match &new.of {
        Of::Image { image, number } => {
            cells.extend([image.cell()?, number.cell()?]);
            // The columns about a disk.
            cells.extend(std::iter::repeat_n(Cell::Text(None), 7));
        }
        Of::Disk { instance, instance_name, disk, disk_name, snapshot, commit } => {
            cells.extend([ImageId::NULL, u64::NULL, instance.cell()?, instance_name.cell()?]);
            cells.extend([disk.cell()?, disk_name.cell()?]);
            let (id, name) = snapshot.clone().unzip();
            cells.extend([id.cell()?, name.cell()?, commit.cell()?]);
        }
    }
    cells.extend([
        new.content.size_bytes().cell()?,
        new.content.chunk_bytes().cell()?,
        new.content.root().to_string().into(),
        hex::encode(new.content.descriptor().encode()).into(),
        new.content.root_page().map(hex_text::encode).into(),
        new.digest.cell()?,
        new.stored_bytes.cell()?,
        new.reached_bytes.cell()?,
        new.boot.cell()?,
        new.firmware.cell()?,
        new.upload.cell()?,
        new.parent.cell()?,
        now.cell()?,
        now.cell()?,
        seq.into(),
    ]);
    bulk::run(tx, INSERT, vec![cells], "").await?;
    Ok(())
}

/// The version, deleted or not.
pub async fn load(tx: &mut Tx, id: VersionId) -> Result<Option<VersionRow>, StoreError> {
    select_one(tx, "versions.load", "WHERE v.id = $1", [id.to_string().into()]).await
}

/// Those of the versions that are known, deleted or not.
pub async fn load_many(tx: &mut Tx, ids: &[VersionId]) -> Result<Vec<VersionRow>, StoreError> {
    let head = format!("-- versions.load_many\n{} WHERE v.id", VersionRow::SELECT);
    bulk::select_in(tx, &head, ids, "").await?.iter().map(VersionRow::from_row).collect()
}

const BY_COMMIT: &str = "-- versions.by_commit
SELECT id FROM versions WHERE commit_id = $1";

/// The version that a commit made, if it was published.
pub async fn by_commit(tx: &mut Tx, commit: CommitId) -> Result<Option<VersionId>, StoreError> {
    let row = sqlx::query(BY_COMMIT).bind(commit.to_string()).fetch_optional(tx.conn()).await?;
    row.map(|row| column::read(&row, "id")).transpose()
}

const SIZE_BYTES: &str = "-- versions.size_bytes
SELECT size_bytes FROM versions WHERE id = $1";

/// Bytes of the disk in this version, deleted or not; `None` if it is not known. [`load`] reads and proves the root page as well,
/// which has up to 64 KiB and more.
pub async fn size_bytes(tx: &mut Tx, id: VersionId) -> Result<Option<u64>, StoreError> {
    let row = sqlx::query(SIZE_BYTES).bind(id.to_string()).fetch_optional(tx.conn()).await?;
    row.map(|row| column::read(&row, "size_bytes")).transpose()
}

/// The version with this number of an image, deleted or not.
pub async fn by_number(tx: &mut Tx, image: ImageId, number: u64) -> Result<Option<VersionRow>, StoreError> {
    let rest = "WHERE v.image = $1 AND v.number = $2";
    select_one(tx, "versions.by_number", rest, [image.to_string().into(), column::int(number).into()]).await
}

/// The version with the highest number of an image that is not deleted.
pub async fn newest(tx: &mut Tx, image: ImageId) -> Result<Option<VersionRow>, StoreError> {
    let rest = "WHERE v.image = $1 AND v.deleted_at IS NULL ORDER BY v.number DESC LIMIT 1";
    select_one(tx, "versions.newest", rest, [image.to_string().into()]).await
}

/// The versions of a snapshot that are not deleted, in the order in which they were published.
pub async fn of_snapshot(tx: &mut Tx, snapshot: SnapshotId) -> Result<Vec<VersionRow>, StoreError> {
    let rest = "WHERE v.snapshot = $1 AND v.deleted_at IS NULL ORDER BY v.seq";
    select(tx, "versions.of_snapshot", rest, [snapshot.to_string().into()]).await
}

const ROOTS: &str = "-- versions.roots
SELECT v.id, v.descriptor, v.commit_id, m.node FROM versions v LEFT JOIN snapshot_members m ON m.commit_id = v.commit_id
WHERE v.id";
const ROOT_PAGES: &str = "-- versions.root_pages
SELECT id, root_page FROM versions WHERE root_page IS NOT NULL AND id";

/// What an agent needs to read the versions, deleted or not: disks that began with them still read them. The root pages of those
/// that a commit of `has_own` made are left out, and not read.
pub async fn roots(
    tx: &mut Tx,
    ids: &[VersionId],
    has_own: Option<NodeId>,
) -> Result<BTreeMap<VersionId, VersionRoot>, StoreError> {
    let (mut roots, mut with_page) = (BTreeMap::new(), Vec::new());
    for row in bulk::select_in(tx, ROOTS, ids, "").await? {
        let id: VersionId = column::read(&row, "id")?;
        let made_by: Option<NodeId> = column::read(&row, "node")?;
        let root = VersionRoot {
            descriptor: column::read(&row, "descriptor")?,
            root_page: None,
            commit: column::read(&row, "commit_id")?,
        };
        roots.insert(id, root);
        if made_by.is_none() || made_by != has_own {
            with_page.push(id);
        }
    }
    for row in bulk::select_in(tx, ROOT_PAGES, &with_page, "").await? {
        if let Some(root) = roots.get_mut(&column::read(&row, "id")?) {
            root.root_page = column::read(&row, "root_page")?;
        }
    }
    Ok(roots)
}

/// Which versions to list. Every field that is set must match.
#[derive(Clone, Debug, Default)]
pub struct VersionFilter {
    /// The project that owns them; `None` for all projects (operators).
    pub project: Option<String>,
    /// Only versions of this image.
    pub image: Option<ImageId>,
    /// Only versions of this snapshot.
    pub snapshot: Option<SnapshotId>,
    /// Only versions of this instance's disks.
    pub instance: Option<InstanceId>,
    /// Also those that were deleted in the last 24 hours.
    pub deleted: bool,
}

/// Up to `limit` versions after the place `after`, oldest first.
pub async fn list(tx: &mut Tx, filter: &VersionFilter, after: i64, limit: i64) -> Result<Vec<VersionRow>, StoreError> {
    let rest = "WHERE v.seq > $1 AND (CAST($2 AS TEXT) IS NULL OR v.project = $2)
  AND (CAST($3 AS TEXT) IS NULL OR v.image = $3) AND (CAST($4 AS TEXT) IS NULL OR v.snapshot = $4)
  AND (CAST($5 AS TEXT) IS NULL OR v.instance = $5)
  AND (v.deleted_at IS NULL OR (CAST($6 AS BIGINT) = 1 AND v.deleted_at >= $7))
ORDER BY v.seq LIMIT $8";
    let since = tx.now().plus_ms(-DELETED_SHOWN_MS).micros();
    let values = [
        after.into(),
        filter.project.clone().into(),
        filter.image.cell()?,
        filter.snapshot.cell()?,
        filter.instance.cell()?,
        filter.deleted.into(),
        since.into(),
        limit.into(),
    ];
    select(tx, "versions.list", rest, values).await
}

const UNLINK: &str = "-- versions.unlink
UPDATE versions SET state = 'deleted', deleted_at = $3, updated_at = $3, revision = revision + 1
WHERE id = $1 AND revision = $2 AND deleted_at IS NULL";

/// Unlinks a version, and drops its boot order. Nothing can start from it any more; disks that began with it keep it.
pub async fn unlink(tx: &mut Tx, row: &VersionRow) -> Result<(), StoreError> {
    let now = tx.now().micros();
    let id = row.version.id;
    boot_orders::drop_where(tx, "id", id).await?;
    let done = sqlx::query(UNLINK).bind(id.to_string()).bind(row.revision).bind(now).execute(tx.conn()).await?;
    StoreError::unless_saved(&done, "versions", id)
}

const UNLINK_IMAGE: &str = "-- versions.unlink_image
UPDATE versions SET state = 'deleted', deleted_at = $2, updated_at = $2, revision = revision + 1
WHERE image = $1 AND deleted_at IS NULL";

/// As [`unlink`], for all versions of an image. Returns how many.
pub async fn unlink_image(tx: &mut Tx, image: ImageId) -> Result<u64, StoreError> {
    boot_orders::drop_where(tx, "image", image).await?;
    let now = tx.now().micros();
    Ok(sqlx::query(UNLINK_IMAGE).bind(image.to_string()).bind(now).execute(tx.conn()).await?.rows_affected())
}

const UNLINK_SNAPSHOT: &str = "-- versions.unlink_snapshot
UPDATE versions SET state = 'deleted', deleted_at = $2, updated_at = $2, revision = revision + 1
WHERE snapshot = $1 AND deleted_at IS NULL";

/// As [`unlink`], for all versions of a snapshot. Returns how many.
pub async fn unlink_snapshot(tx: &mut Tx, snapshot: SnapshotId) -> Result<u64, StoreError> {
    boot_orders::drop_where(tx, "snapshot", snapshot).await?;
    let query = sqlx::query(UNLINK_SNAPSHOT).bind(snapshot.to_string()).bind(tx.now().micros());
    Ok(query.execute(tx.conn()).await?.rows_affected())
}

const SAVED: &str = "WHERE v.disk = $1 AND v.deleted_at IS NULL AND v.snapshot IS NOT NULL
    AND NOT EXISTS (SELECT 1 FROM snapshots s WHERE s.id = v.snapshot AND s.state <> 'deleted') ORDER BY v.seq";

/// As [`unlink`], for the versions of a disk that outlived their snapshots, but not `kept`. Such versions saved what it held
/// when it was to be detached.
pub async fn unlink_saved(tx: &mut Tx, disk: DiskId, kept: Option<VersionId>) -> Result<(), StoreError> {
    let saved: Vec<VersionRow> = select(tx, "versions.saved", SAVED, [disk.to_string().into()]).await?;
    for row in saved.iter().filter(|row| Some(row.version.id) != kept) {
        unlink(tx, row).await?;
    }
    Ok(())
}

const UNLINK_UNNEEDED: &str = "-- versions.unlink_unneeded
UPDATE versions SET state = 'deleted', deleted_at = $2, updated_at = $2, revision = revision + 1
WHERE snapshot = $1 AND deleted_at IS NULL
    AND NOT EXISTS (SELECT 1 FROM disks d JOIN instances i ON i.id = d.instance
        WHERE d.version = versions.id AND d.leaving_since IS NOT NULL AND i.deleted_at IS NULL)
    AND NOT EXISTS (SELECT 1 FROM detached_disks f WHERE f.version = versions.id)";

/// As [`unlink_snapshot`], but not the versions of disks that are detached or being detached: these outlive the snapshot.
pub async fn unlink_unneeded(tx: &mut Tx, snapshot: SnapshotId) -> Result<(), StoreError> {
    boot_orders::drop_where(tx, "snapshot", snapshot).await?;
    let query = sqlx::query(UNLINK_UNNEEDED).bind(snapshot.to_string()).bind(tx.now().micros());
    query.execute(tx.conn()).await?;
    Ok(())
}

const RENAME_SNAPSHOT: &str = "-- versions.rename_snapshot
UPDATE versions SET snapshot_name = $2, updated_at = $3, revision = revision + 1 WHERE snapshot = $1";

/// Copies a snapshot's new name to its versions.
pub async fn rename_snapshot(tx: &mut Tx, snapshot: SnapshotId, name: &str) -> Result<(), StoreError> {
    let now = tx.now().micros();
    sqlx::query(RENAME_SNAPSHOT).bind(snapshot.to_string()).bind(name).bind(now).execute(tx.conn()).await?;
    Ok(())
}

const LIVE_ROOTS: &str = "-- versions.live_roots
SELECT v.descriptor FROM versions v
WHERE (CAST($1 AS TEXT) IS NULL OR v.project = $1) AND v.deleted_at IS NULL ORDER BY v.seq DESC LIMIT $2";

/// The descriptors of the newest `limit` versions that are not deleted, of one project or of all. Equal descriptors are
/// returned once.
pub async fn live_roots(tx: &mut Tx, project: Option<&str>, limit: i64) -> Result<Vec<Descriptor>, StoreError> {
    let rows = sqlx::query(LIVE_ROOTS).bind(project).bind(limit).fetch_all(tx.conn()).await?;
    distinct(rows.iter().map(descriptor))
}

fn distinct(descriptors: impl Iterator<Item = Result<Descriptor, StoreError>>) -> Result<Vec<Descriptor>, StoreError> {
    let mut seen = HashSet::new();
    descriptors.filter(|found| found.as_ref().map_or(true, |descriptor| seen.insert(*descriptor))).collect()
}

pub(super) fn descriptor(row: &AnyRow) -> Result<Descriptor, StoreError> {
    let bad = |why: String| StoreError::BadRow { column: "versions.descriptor".to_owned(), why };
    let bytes = hex::decode(column::read::<String>(row, "descriptor")?).map_err(|_| bad("not hex".to_owned()))?;
    Descriptor::decode(&bytes).map_err(|e| bad(e.to_string()))
}

fn content(row: &AnyRow) -> Result<Content, StoreError> {
    let root = VersionRoot {
        descriptor: column::read(row, "descriptor")?,
        root_page: column::read(row, "root_page")?,
        commit: None,
    };
    Content::from_root(&root)
        .map_err(|e| StoreError::BadRow { column: "versions.descriptor".to_owned(), why: e.to_string() })
}

/// The name of a version of a disk: `SNAPSHOT/INSTANCE`, and `/DISK` unless it is the boot disk.
#[must_use]
pub fn disk_version_name(snapshot: Option<&str>, instance: &str, disk: &str) -> String {
    [snapshot, Some(instance), Some(disk).filter(|disk| *disk != ROOT)]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join("/")
}

impl Row for VersionRow {
    const SELECT: &'static str = "SELECT v.id, v.project, v.labels, v.state, v.reason, v.image, i.name AS image_name,
    v.number, v.instance, v.instance_name, v.disk, v.disk_name, v.snapshot, v.snapshot_name, v.commit_id, v.size_bytes,
    v.chunk_bytes, v.root, v.descriptor, v.root_page, v.digest, v.stored_bytes, v.reached_bytes, v.boot,
    v.firmware, v.parent, v.created_at, v.updated_at, v.revision, v.seq FROM versions v LEFT JOIN images i ON i.id = v.image";

    fn from_row(row: &AnyRow) -> Result<Self, StoreError> {
        let number: Option<u64> = column::read(row, "number")?;
        let image_name: Option<String> = column::read(row, "image_name")?;
        let instance_name: Option<String> = column::read(row, "instance_name")?;
        let snapshot_name: Option<String> = column::read(row, "snapshot_name")?;
        let disk_name: Option<String> = column::read(row, "disk_name")?;
        let name = match (&image_name, number, &instance_name, &disk_name) {
            (Some(image), Some(number), _, _) => format!("{image}@{number}"),
            (_, _, Some(instance), Some(disk)) => disk_version_name(snapshot_name.as_deref(), instance, disk),
            _ => {
                return Err(StoreError::BadRow { column: "versions.instance_name".to_owned(), why: "null".to_owned() });
            }
        };
        let revision = column::read(row, "revision")?;
        let firmware: Firmware = column::read(row, "firmware")?;
        Ok(Self {
            version: Version {
                id: column::read(row, "id")?,
                name,
                project: column::read(row, "project")?,
                labels: column::read(row, "labels")?,
                state: column::read(row, "state")?,
                reason: column::read(row, "reason")?,
                created_at: column::read(row, "created_at")?,
                updated_at: column::read(row, "updated_at")?,
                etag: etag::of_revision(revision),
                image: column::read(row, "image")?,
                image_name,
                number,
                instance: column::read(row, "instance")?,
                instance_name,
                disk: column::read(row, "disk")?,
                disk_name,
                snapshot: column::read(row, "snapshot")?,
                snapshot_name,
                size_bytes: column::read(row, "size_bytes")?,
                chunk_bytes: column::read(row, "chunk_bytes")?,
                root: column::read(row, "root")?,
                digest: column::read(row, "digest")?,
                stored_bytes: column::read(row, "stored_bytes")?,
                boot: column::read(row, "boot")?,
                firmware: firmware.into(),
                parent: column::read(row, "parent")?,
                objects_lost: 0,
            },
            content: content(row)?,
            commit: column::read(row, "commit_id")?,
            reached_bytes: column::read(row, "reached_bytes")?,
            firmware,
            revision,
            seq: column::read(row, "seq")?,
        })
    }
}

/// Most names of what builds on a version.
const BUILDERS_MAX: usize = 20;

const INSTANCES_ON: &str = "-- versions.instances_on
SELECT DISTINCT d.version, i.name FROM disks d JOIN instances i ON i.id = d.instance
WHERE i.deleted_at IS NULL AND d.version";

/// The names of the instances whose disks build on each of these versions, the first of them.
pub async fn instances_on(tx: &mut Tx, ids: &[VersionId]) -> Result<BTreeMap<VersionId, Vec<String>>, StoreError> {
    builders(tx, INSTANCES_ON, ids).await
}

const DEPLOYMENTS_OF: &str = "-- versions.deployments_of
SELECT version, name FROM deployments WHERE deleted_at IS NULL AND version";

/// The names of the deployments that were made from each of these versions, the first of them.
pub async fn deployments_of(tx: &mut Tx, ids: &[VersionId]) -> Result<BTreeMap<VersionId, Vec<String>>, StoreError> {
    builders(tx, DEPLOYMENTS_OF, ids).await
}

async fn builders(
    tx: &mut Tx,
    select: &str,
    ids: &[VersionId],
) -> Result<BTreeMap<VersionId, Vec<String>>, StoreError> {
    let mut found: BTreeMap<VersionId, Vec<String>> = BTreeMap::new();
    for row in bulk::select_in(tx, select, ids, "").await? {
        found.entry(column::read(&row, "version")?).or_default().push(column::read(&row, "name")?);
    }
    for names in found.values_mut() {
        names.sort();
        names.truncate(BUILDERS_MAX);
    }
    Ok(found)
}
