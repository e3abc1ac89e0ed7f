//! Snapshots as their callers see them.

use muster_api::{
    etag,
    snapshot::{Snapshot, SnapshotMember},
};

use crate::store::snapshots::{MemberRow, SnapshotRow};

#[expect(clippy::cast_precision_loss, reason = "a pause in microseconds is far below 2^52")]
fn millis(us: u64) -> f64 {
    us as f64 / 1000.0
}

/// A member as the API shows it, with the pause in milliseconds.
pub(super) fn member_view(member: MemberRow) -> SnapshotMember {
    SnapshotMember {
        instance: member.instance,
        instance_name: member.instance_name,
        disk: member.disk,
        disk_name: member.disk_name,
        version: member.version,
        pause_ms: member.pause_us.map(millis),
        dirty_bytes: member.dirty_bytes,
        stored_bytes: member.stored_bytes,
    }
}

/// A snapshot as the API shows it.
pub(super) fn view(row: SnapshotRow) -> Snapshot {
    Snapshot {
        id: row.id,
        name: row.name,
        project: row.project,
        labels: row.labels,
        state: row.state,
        reason: row.reason,
        created_at: row.created_at,
        updated_at: row.updated_at,
        etag: etag::of_revision(row.revision),
        deployment: row.deployment,
        deployment_name: row.deployment_name,
        consistency: row.consistency.into(),
        max_pause_ms: row.max_pause_ms,
        cut_at: row.cut_at,
        durable_at: row.durable_at,
        members: row.members,
        skipped: row.skipped,
        missing: row.missing,
        scheduled: row.scheduled,
        dirty_bytes: row.dirty_bytes,
        stored_bytes: row.stored_bytes,
        pause_max_ms: row.pause_max_us.map(millis),
    }
}
