//! Snapshots and their members: rows and SQL.

use std::collections::{BTreeMap, BTreeSet};

use muster_api::{
    CommitId, DeploymentId, DiskId, InstanceId, Labels, NodeId, OperationId, Reason, SnapshotId, Timestamp, UploadId,
    VersionId,
    node_protocol::{CutMember, StagedCommit},
    operation::Target,
    snapshot::{Consistency, SnapshotState},
};
use sqlx::any::AnyRow;

use super::{
    Filter, StoreError, Tx,
    bulk::{self, Conditions},
    column::{self, Cell},
    row::{Row, columns, select, select_one},
};

/// Row of a snapshot. Its disks are the [`MemberRow`]s.
#[derive(Clone, Debug)]
pub struct SnapshotRow {
    /// Its id.
    pub id: SnapshotId,
    /// The project that owns it.
    pub project: String,
    /// Name, unique among the project's that are not deleted.
    pub name: String,
    /// Labels that users gave it.
    pub labels: Labels,
    /// `cutting` and `saving` while it is under way. It becomes `ready` or `failed` once, and at last `deleted`.
    pub state: SnapshotState,
    /// Why it is in that state, where that needs saying.
    pub reason: Option<Reason>,
    /// The deployment it was taken of.
    pub deployment: Option<DeploymentId>,
    /// The name that the deployment had then.
    pub deployment_name: Option<String>,
    /// What the cut promises about the data in it.
    pub consistency: Consistency,
    /// Longest time that a guest's write may be held, milliseconds.
    pub max_pause_ms: u64,
    /// The instant of the cut.
    pub cut_at: Option<Timestamp>,
    /// When its versions were published, all together; `None` before.
    pub durable_at: Option<Timestamp>,
    /// How many disks are in it.
    pub members: u64,
    /// How many selected instances had no disk that could be cut.
    pub skipped: u64,
    /// How many members have no version any more, because it was deleted by itself.
    pub missing: u64,
    /// Whether the controller took it by itself to protect its deployment, and may delete it.
    pub scheduled: bool,
    /// Whether its objects are stored slowly.
    pub background: bool,
    /// Bytes that all its guests wrote since the versions before.
    pub dirty_bytes: u64,
    /// Bytes that were newly stored, one copy.
    pub stored_bytes: u64,
    /// The longest pause of a member, microseconds.
    pub pause_max_us: Option<u64>,
    /// Number of the present attempt, from 1.
    pub attempt: u64,
    /// The node that coordinates the present attempt.
    pub coordinator: Option<NodeId>,
    /// When the wait for the coordinator ends. After a refusal: when the next attempt begins.
    pub attempt_until: Option<Timestamp>,
    /// Why the coordinator refused the present attempt, a word.
    pub refused: Option<Reason>,
    /// The same in a sentence.
    pub refused_detail: Option<String>,
    /// When everything must be durable.
    pub deadline: Timestamp,
    /// The upload under which its objects are stored.
    pub upload: Option<UploadId>,
    /// The round of that upload.
    pub round: Option<u64>,
    /// The operation that made it.
    pub operation: OperationId,
    /// When somebody asked for it.
    pub created_at: Timestamp,
    /// When it was last saved.
    pub updated_at: Timestamp,
    /// Raised by each change; a save compares it.
    pub revision: i64,
    /// Its place in lists and in the order of all commits.
    pub seq: i64,
}

impl SnapshotRow {
    /// How operations and events name it.
    #[must_use]
    pub fn target(&self) -> Target {
        Target { kind: "snapshot".to_owned(), id: self.id.to_string(), name: self.name.clone() }
    }

    /// Whether it is neither published nor given up.
    #[must_use]
    pub const fn is_under_way(&self) -> bool {
        matches!(self.state, SnapshotState::Cutting | SnapshotState::Saving)
    }

    /// Whether a commit of the present attempt can still be staged.
    #[must_use]
    pub const fn takes_commits(&self) -> bool {
        self.is_under_way() && self.refused.is_none()
    }
}

/// One disk of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberRow {
    /// The snapshot that the disk is part of.
    pub snapshot: SnapshotId,
    /// The disk that is cut. It can be in one snapshot under way at a time.
    pub disk: DiskId,
    /// Name that the disk had within the instance.
    pub disk_name: String,
    /// The instance that the disk belongs to.
    pub instance: InstanceId,
    /// The name that the instance had then.
    pub instance_name: String,
    /// Size of the disk, bytes.
    pub size_bytes: u64,
    /// The node that it was on.
    pub node: NodeId,
    /// The generation that it had.
    pub generation: u64,
    /// Id of its commit in the present attempt.
    pub commit: CommitId,
    /// The version that it became.
    pub version: Option<VersionId>,
    /// How long its writes were held, microseconds.
    pub pause_us: Option<u64>,
    /// Bytes written since its last version.
    pub dirty_bytes: u64,
    /// Bytes that were newly stored, one copy.
    pub stored_bytes: u64,
    /// Its commit, once it is staged.
    pub staged: Option<Staged>,
    /// Its place in lists and in the order of all commits.
    pub seq: i64,
}

/// A staged commit: all its objects are durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staged {
    /// When its node told that all its objects are durable.
    pub at: Timestamp,
    /// The version it builds on.
    pub base: VersionId,
    /// Canonical bytes of the descriptor, hex.
    pub descriptor: String,
    /// Canonical bytes of the root page, hex; `None` for a disk of zeros.
    pub root_page: Option<String>,
}

columns!(
    "snapshots", SnapshotRow: id, project, name, labels, state, reason, deployment, deployment_name, consistency,
    max_pause_ms, cut_at, durable_at, members, skipped, missing, scheduled, background, dirty_bytes, stored_bytes, pause_max_us, attempt, coordinator,
    attempt_until, refused, refused_detail, deadline, upload, round, operation, created_at, updated_at, revision, seq,
);

const INSERT_MEMBERS: &str = "-- snapshot_members.insert
INSERT INTO snapshot_members (snapshot, disk, disk_name, instance, instance_name, size_bytes, node, generation, commit_id,
    seq)";

/// Inserts a snapshot under way with its members.
pub async fn insert(tx: &mut Tx, row: &SnapshotRow, members: &[MemberRow]) -> Result<(), StoreError> {
    bulk::insert(tx, std::slice::from_ref(row)).await?;
    let members = members
        .iter()
        .map(|member| {
            vec![
                member.snapshot.to_string().into(),
                member.disk.to_string().into(),
                member.disk_name.as_str().into(),
                member.instance.to_string().into(),
                member.instance_name.as_str().into(),
                column::int(member.size_bytes).into(),
                member.node.to_string().into(),
                column::int(member.generation).into(),
                member.commit.to_string().into(),
                member.seq.into(),
            ]
        })
        .collect();
    bulk::run(tx, INSERT_MEMBERS, members, "").await?;
    Ok(())
}

const SAVE: &str = "-- snapshots.save
UPDATE snapshots SET name = $2, labels = $3, state = $4, reason = $5, cut_at = $6, durable_at = $7, dirty_bytes = $8,
    stored_bytes = $9, pause_max_us = $10, attempt = $11, coordinator = $12, attempt_until = $13, refused = $14,
    refused_detail = $15, upload = $16, round = $17, scheduled = $18, updated_at = $19, deleted_at = $20,
    revision = revision + 1
WHERE id = $1 AND revision = $21";

/// Saves a snapshot. A [`StoreError::Conflict`] if somebody else saved it since it was read.
pub async fn save(tx: &mut Tx, row: &SnapshotRow) -> Result<(), StoreError> {
    let now = tx.now().micros();
    let done = sqlx::query(SAVE)
        .bind(row.id.to_string())
        .bind(&row.name)
        .bind(column::json_text(&row.labels)?)
        .bind(column::word_text(row.state)?)
        .bind(row.reason.as_ref().map(Reason::as_str))
        .bind(column::opt_micros(row.cut_at))
        .bind(column::opt_micros(row.durable_at))
        .bind(column::int(row.dirty_bytes))
        .bind(column::int(row.stored_bytes))
        .bind(column::opt_int(row.pause_max_us))
        .bind(column::int(row.attempt))
        .bind(row.coordinator.map(|id| id.to_string()))
        .bind(column::opt_micros(row.attempt_until))
        .bind(row.refused.as_ref().map(Reason::as_str))
        .bind(row.refused_detail.as_deref())
        .bind(row.upload.map(|id| id.to_string()))
        .bind(column::opt_int(row.round))
        .bind(i64::from(row.scheduled))
        .bind(now)
        .bind((row.state == SnapshotState::Deleted).then_some(now))
        .bind(row.revision)
        .execute(tx.conn())
        .await?;
    StoreError::unless_saved(&done, "snapshots", row.id)
}

/// The snapshot with this id, also a deleted one.
pub async fn load(tx: &mut Tx, id: SnapshotId) -> Result<Option<SnapshotRow>, StoreError> {
    select_one(tx, "snapshots.load", "WHERE id = $1", [id.to_string().into()]).await
}

/// The snapshot that has this name and is not deleted.
pub async fn by_name(tx: &mut Tx, project: &str, name: &str) -> Result<Option<SnapshotRow>, StoreError> {
    let rest = "WHERE project = $1 AND name = $2 AND state <> 'deleted'";
    select_one(tx, "snapshots.by_name", rest, [project.into(), name.into()]).await
}

const DEPLOYMENTS: &str = "-- snapshots.deployments
SELECT DISTINCT i.deployment FROM snapshot_members m JOIN instances i ON i.id = m.instance WHERE m.snapshot = $1 LIMIT 2";

/// The deployment that was cut: the one that the request named, else the only one that the instances belong to.
pub async fn deployment_of(tx: &mut Tx, snapshot: &SnapshotRow) -> Result<Option<DeploymentId>, StoreError> {
    if snapshot.deployment.is_some() {
        return Ok(snapshot.deployment);
    }
    let rows = sqlx::query(DEPLOYMENTS).bind(snapshot.id.to_string()).fetch_all(tx.conn()).await?;
    match rows.as_slice() {
        [only] => column::read(only, "deployment").map(Some),
        _ => Ok(None),
    }
}

/// Snapshots under way, oldest first.
pub async fn under_way(tx: &mut Tx) -> Result<Vec<SnapshotRow>, StoreError> {
    select(tx, "snapshots.under_way", "WHERE state IN ('cutting', 'saving') ORDER BY seq", []).await
}

// What is under way is found first, and then its members: a node and a disk have members in all snapshots ever taken of them,
// and what these cost must not grow with their number.

const UNDER_WAY_ON: &str = "WHERE state IN ('cutting', 'saving')
    AND EXISTS (SELECT 1 FROM snapshot_members m WHERE m.snapshot = snapshots.id AND m.node = $1) ORDER BY seq";

/// Snapshots under way that have members on the node.
pub async fn under_way_on(tx: &mut Tx, node: NodeId) -> Result<Vec<SnapshotRow>, StoreError> {
    select(tx, "snapshots.under_way_on", UNDER_WAY_ON, [node.to_string().into()]).await
}

const BUSY: &str = "-- snapshots.busy
SELECT s.operation FROM snapshots s
WHERE s.state IN ('cutting', 'saving') AND EXISTS (SELECT 1 FROM snapshot_members m WHERE m.snapshot = s.id AND m.disk";
const BUSY_TAIL: &str = ") ORDER BY s.seq LIMIT 1";

/// The operation of a snapshot under way that one of these disks is in.
pub async fn busy_with(tx: &mut Tx, disks: &[DiskId]) -> Result<Option<OperationId>, StoreError> {
    let rows = bulk::select_in(tx, BUSY, disks, BUSY_TAIL).await?;
    rows.first().map(|row| column::read(row, "operation")).transpose()
}

const SCHEDULED_WITH: &str = "-- snapshots.scheduled_with
SELECT s.id FROM snapshots s WHERE s.state IN ('cutting', 'saving') AND s.scheduled = 1
    AND EXISTS (SELECT 1 FROM snapshot_members m WHERE m.snapshot = s.id AND m.disk";

/// The scheduled snapshots under way that have one of these disks.
pub async fn scheduled_with(tx: &mut Tx, disks: &[DiskId]) -> Result<BTreeSet<SnapshotId>, StoreError> {
    let rows = bulk::select_in(tx, SCHEDULED_WITH, disks, ")").await?;
    rows.iter().map(|row| column::read(row, "id")).collect()
}

/// The scheduled snapshots of a deployment that are ready, oldest first.
pub async fn scheduled_of(tx: &mut Tx, deployment: DeploymentId) -> Result<Vec<SnapshotRow>, StoreError> {
    let rest = "WHERE deployment = $1 AND scheduled = 1 AND state = 'ready' ORDER BY seq";
    select(tx, "snapshots.scheduled_of", rest, [deployment.to_string().into()]).await
}

const NAMES: &str = "-- snapshots.names
SELECT id, name FROM snapshots WHERE state <> 'deleted' AND id";

/// The names of those of these snapshots that are not deleted.
pub async fn names(tx: &mut Tx, ids: &[SnapshotId]) -> Result<BTreeMap<SnapshotId, String>, StoreError> {
    let rows = bulk::select_in(tx, NAMES, ids, "").await?;
    rows.iter().map(|row| Ok((column::read(row, "id")?, column::read(row, "name")?))).collect()
}

/// Snapshots after the place `after`, oldest first.
pub async fn list(tx: &mut Tx, filter: &Filter, after: i64, limit: i64) -> Result<Vec<SnapshotRow>, StoreError> {
    let mut conditions = Conditions::of_list(filter, after)?;
    conditions.one_of("state", &filter.states);
    conditions.one_of("deployment", &filter.deployments);
    conditions.fetch(tx, "snapshots.list", limit).await
}

/// All members of a snapshot, in list order.
pub async fn members(tx: &mut Tx, id: SnapshotId) -> Result<Vec<MemberRow>, StoreError> {
    members_after(tx, id, -1, i64::MAX).await
}

/// Members after the place `after`, in list order.
pub async fn members_after(tx: &mut Tx, id: SnapshotId, after: i64, limit: i64) -> Result<Vec<MemberRow>, StoreError> {
    let mut conditions = Conditions::default();
    conditions.compare("snapshot", "=", id.to_string());
    conditions.compare("seq", ">", after);
    conditions.fetch(tx, "snapshot_members.after", limit).await
}

/// The member that a commit belongs to, in the present attempt or as it was published.
pub async fn member_by_commit(tx: &mut Tx, commit: CommitId) -> Result<Option<MemberRow>, StoreError> {
    select_one(tx, "snapshot_members.by_commit", "WHERE commit_id = $1", [commit.to_string().into()]).await
}

impl Row for MemberRow {
    const SELECT: &'static str =
        "SELECT snapshot, disk, disk_name, instance, instance_name, size_bytes, node, generation, commit_id,
    version, pause_us, dirty_bytes, stored_bytes, staged_at, base, descriptor, root_page, seq FROM snapshot_members";

    fn from_row(row: &AnyRow) -> Result<Self, StoreError> {
        let staged = match column::read(row, "staged_at")? {
            None => None,
            Some(at) => Some(Staged {
                at,
                base: column::read(row, "base")?,
                descriptor: column::read(row, "descriptor")?,
                root_page: column::read(row, "root_page")?,
            }),
        };
        Ok(Self {
            snapshot: column::read(row, "snapshot")?,
            disk: column::read(row, "disk")?,
            disk_name: column::read(row, "disk_name")?,
            instance: column::read(row, "instance")?,
            instance_name: column::read(row, "instance_name")?,
            size_bytes: column::read(row, "size_bytes")?,
            node: column::read(row, "node")?,
            generation: column::read(row, "generation")?,
            commit: column::read(row, "commit_id")?,
            version: column::read(row, "version")?,
            pause_us: column::read(row, "pause_us")?,
            dirty_bytes: column::read(row, "dirty_bytes")?,
            stored_bytes: column::read(row, "stored_bytes")?,
            staged,
            seq: column::read(row, "seq")?,
        })
    }
}

const STAGE: &str = "-- snapshot_members.stage
UPDATE snapshot_members SET staged_at = $3, base = $4, descriptor = $5, root_page = $6, dirty_bytes = $7,
    stored_bytes = $8, trouble = NULL
WHERE snapshot = $1 AND disk = $2";

/// Notes that a member's commit is staged. Without its root page, which is large, if the snapshot is published in this transaction:
/// the page is written to the version then.
pub async fn stage(tx: &mut Tx, staged: &StagedCommit, with_page: bool) -> Result<(), StoreError> {
    let now = tx.now().micros();
    let root_page = staged.root.root_page.as_deref().filter(|_| with_page);
    sqlx::query(STAGE)
        .bind(staged.snapshot.to_string())
        .bind(staged.disk.to_string())
        .bind(now)
        .bind(staged.base.to_string())
        .bind(&staged.root.descriptor)
        .bind(root_page)
        .bind(column::int(staged.dirty_bytes))
        .bind(column::int(staged.stored_bytes))
        .execute(tx.conn())
        .await?;
    Ok(())
}

const TROUBLE: &str = "-- snapshot_members.trouble
UPDATE snapshot_members SET trouble = $3 WHERE snapshot = $1 AND disk = $2";

/// Notes what keeps a member's commit from being saved.
pub async fn save_trouble(tx: &mut Tx, member: &MemberRow, trouble: &str) -> Result<(), StoreError> {
    let query = sqlx::query(TROUBLE).bind(member.snapshot.to_string()).bind(member.disk.to_string()).bind(trouble);
    query.execute(tx.conn()).await?;
    Ok(())
}

const UNSTAGED: &str = "-- snapshot_members.unstaged
SELECT instance_name, node, trouble FROM snapshot_members WHERE snapshot = $1 AND staged_at IS NULL
ORDER BY (trouble IS NULL), seq LIMIT $2";

/// A member whose commit is not staged yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unstaged {
    /// The name of its instance.
    pub instance_name: String,
    /// The node that saves it.
    pub node: NodeId,
    /// What keeps it from being saved, in a sentence; `None` while nothing does.
    pub trouble: Option<String>,
}

/// Members whose commits are not staged yet, those with trouble first.
pub async fn unstaged(tx: &mut Tx, id: SnapshotId, limit: i64) -> Result<Vec<Unstaged>, StoreError> {
    let rows = sqlx::query(UNSTAGED).bind(id.to_string()).bind(limit).fetch_all(tx.conn()).await?;
    let unstaged = |row: &AnyRow| {
        Ok(Unstaged {
            instance_name: column::read(row, "instance_name")?,
            node: column::read(row, "node")?,
            trouble: column::read(row, "trouble")?,
        })
    };
    rows.iter().map(unstaged).collect()
}

const MISSING: &str = "-- snapshots.missing
UPDATE snapshots SET missing = missing + 1, updated_at = $2, revision = revision + 1 WHERE id = $1";

/// Notes that the version of one member was deleted.
pub async fn note_missing(tx: &mut Tx, id: SnapshotId) -> Result<(), StoreError> {
    let now = tx.now().micros();
    sqlx::query(MISSING).bind(id.to_string()).bind(now).execute(tx.conn()).await?;
    Ok(())
}

const STAGED: &str = "-- snapshot_members.staged
SELECT CAST(COUNT(staged_at) AS BIGINT) AS staged, CAST(COUNT(*) AS BIGINT) AS members FROM snapshot_members
WHERE snapshot = $1";

/// How many members are staged, and how many there are.
pub async fn staged(tx: &mut Tx, id: SnapshotId) -> Result<(u64, u64), StoreError> {
    let row = sqlx::query(STAGED).bind(id.to_string()).fetch_one(tx.conn()).await?;
    Ok((column::read(&row, "staged")?, column::read(&row, "members")?))
}

const CUT: &str = "-- snapshot_members.cut
UPDATE snapshot_members SET pause_us = v.column3, dirty_bytes = v.column4 FROM (";

/// Notes how the cut of each member went.
pub async fn save_cut(tx: &mut Tx, id: SnapshotId, members: &[CutMember]) -> Result<(), StoreError> {
    let rows = members
        .iter()
        .map(|member| {
            vec![
                id.to_string().into(),
                member.disk.to_string().into(),
                column::int(member.pause_us).into(),
                column::int(member.dirty_bytes).into(),
            ]
        })
        .collect();
    let tail = ") AS v WHERE snapshot_members.snapshot = v.column1 AND snapshot_members.disk = v.column2";
    bulk::run(tx, CUT, rows, tail).await.map(|_| ())
}

const RETRY: &str = "-- snapshot_members.retry
UPDATE snapshot_members SET commit_id = v.column3, staged_at = NULL, base = NULL, descriptor = NULL, root_page = NULL,
    pause_us = NULL, dirty_bytes = 0, stored_bytes = 0, trouble = NULL
FROM (";

/// Begins another attempt: members get new commits and nothing is staged.
pub async fn begin_attempt(tx: &mut Tx, id: SnapshotId, members: &[(DiskId, CommitId)]) -> Result<(), StoreError> {
    let rows = members
        .iter()
        .map(|(disk, commit)| vec![id.to_string().into(), disk.to_string().into(), commit.to_string().into()])
        .collect();
    let tail = ") AS v WHERE snapshot_members.snapshot = v.column1 AND snapshot_members.disk = v.column2";
    bulk::run(tx, RETRY, rows, tail).await.map(|_| ())
}

const PUBLISHED: &str = "-- snapshot_members.published
UPDATE snapshot_members SET version = v.column3, descriptor = NULL, root_page = NULL, staged_at = NULL FROM (";

/// Notes the versions that the members became. What was staged is in them, so it is dropped here.
pub async fn save_versions(tx: &mut Tx, id: SnapshotId, versions: &[(DiskId, VersionId)]) -> Result<(), StoreError> {
    let rows: Vec<Vec<Cell>> = versions
        .iter()
        .map(|(disk, version)| vec![id.to_string().into(), disk.to_string().into(), version.to_string().into()])
        .collect();
    let tail = ") AS v WHERE snapshot_members.snapshot = v.column1 AND snapshot_members.disk = v.column2";
    bulk::run(tx, PUBLISHED, rows, tail).await.map(|_| ())
}

const LOST: &str = "-- snapshot_members.lost
SELECT m.instance_name, i.state, i.node, i.generation FROM snapshot_members m LEFT JOIN instances i ON i.id = m.instance
WHERE m.snapshot = $1 AND (i.id IS NULL OR i.state IN ('deleting', 'deleted', 'pending')
    OR i.node IS NULL OR i.node <> m.node OR i.generation <> m.generation) ORDER BY m.seq LIMIT 1";

/// A sentence about the first member that can no longer take part; `None` if all can.
pub async fn lost(tx: &mut Tx, id: SnapshotId) -> Result<Option<String>, StoreError> {
    let Some(row) = sqlx::query(LOST).bind(id.to_string()).fetch_optional(tx.conn()).await? else { return Ok(None) };
    let name: String = column::read(&row, "instance_name")?;
    let state: Option<String> = column::read(&row, "state")?;
    let state = state.as_deref().unwrap_or("deleted");
    Ok(Some(format!("{name} is {state} and no longer where it was when the snapshot began")))
}

const SILENT: &str = "-- snapshot_members.silent
SELECT m.instance_name FROM snapshot_members m JOIN instances i ON i.id = m.instance
WHERE m.snapshot = $1 AND m.staged_at IS NULL AND i.state = 'unknown' ORDER BY m.seq LIMIT 1";

/// A sentence about the first member that is not saved and whose node is silent; `None` if there is none.
pub async fn silent(tx: &mut Tx, id: SnapshotId) -> Result<Option<String>, StoreError> {
    let Some(row) = sqlx::query(SILENT).bind(id.to_string()).fetch_optional(tx.conn()).await? else { return Ok(None) };
    let name: String = column::read(&row, "instance_name")?;
    Ok(Some(format!("{name} is unknown: its node fell silent before it was saved")))
}

/// How many snapshots are in each state, in one project or in all.
pub async fn by_state(tx: &mut Tx, project: Option<&str>) -> Result<BTreeMap<String, u64>, StoreError> {
    bulk::by_state(tx, "snapshots", project).await
}

const FORGET_MEMBERS: &str = "-- snapshot_members.forget
DELETE FROM snapshot_members WHERE snapshot IN (SELECT id FROM snapshots WHERE deleted_at < $1)";
const FORGET: &str = "-- snapshots.forget
DELETE FROM snapshots WHERE deleted_at < $1";

/// Drops snapshots that were deleted before that time. Returns how many.
pub async fn forget(tx: &mut Tx, before: Timestamp) -> Result<u64, StoreError> {
    sqlx::query(FORGET_MEMBERS).bind(before.micros()).execute(tx.conn()).await?;
    Ok(sqlx::query(FORGET).bind(before.micros()).execute(tx.conn()).await?.rows_affected())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::instances::tests::plan;

    /// A disk has a member in each snapshot ever taken of it, and its node as well. Whether one is under way is asked several times
    /// for each new one: what that reads must not grow with their number.
    #[tokio::test]
    async fn what_is_under_way_is_found_without_looking_at_snapshots_that_have_ended() {
        for sql in [
            format!("{} {UNDER_WAY_ON}", SnapshotRow::SELECT).replace("$1", "'a'"),
            format!("{BUSY} IN ('a', 'b'){BUSY_TAIL}"),
            format!("{SCHEDULED_WITH} IN ('a', 'b'))"),
        ] {
            let sql: Vec<_> = sql.lines().filter(|line| !line.starts_with("--")).collect();
            let plan = plan(sql.join(" ")).await;
            let steps: Vec<_> = plan.split("; ").collect();
            assert!(steps[0].contains("USING INDEX snapshots_under_way"), "{plan}");
            let members: Vec<_> = steps.iter().filter(|step| step.contains("snapshot_members")).collect();
            assert!(members.iter().all(|step| step.contains("snapshot=?")), "{plan}");
            assert_eq!((members.len(), plan.contains("TEMP B-TREE")), (1, false), "{plan}");
        }
    }
}
