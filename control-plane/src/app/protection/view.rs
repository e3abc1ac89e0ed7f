//! The protection of a deployment as its callers see it.

use std::collections::BTreeMap;

use muster_api::{
    DeploymentId, SnapshotId,
    protection::{Protect, Protection},
};

use super::super::{AppError, Caller, sight::Sight};
use crate::store::{
    Tx,
    deployments::DeploymentRow,
    protections::{self, ProtectionRow},
    snapshots,
};

/// What is shown of each protected deployment.
pub(crate) type Shown = BTreeMap<DeploymentId, (Protect, Protection)>;

/// What this caller is shown of the protections of these deployments.
pub(crate) async fn shown(tx: &mut Tx, caller: &Caller, of: &[DeploymentRow]) -> Result<Shown, AppError> {
    let ids: Vec<DeploymentId> = of.iter().map(|row| row.id).collect();
    let rows = protections::load_many(tx, &ids).await?;
    let last: Vec<SnapshotId> = rows.values().filter_map(|row| row.last_snapshot).collect();
    let names = snapshots::names(tx, &last).await?;
    // What failed may name nodes.
    let has_text = rows.values().any(|row| row.trouble.is_some());
    let sight = if has_text { Sight::of(tx, caller.is_operator()).await? } else { Sight::All };
    let view = |row: ProtectionRow| {
        let name = row.last_snapshot.and_then(|id| names.get(&id).cloned());
        let protection = Protection {
            last_saved_at: row.saved_at,
            last_snapshot: row.last_snapshot.filter(|_| name.is_some()),
            last_snapshot_name: name,
            next_at: row.next_at,
            under_way: row.under_way,
            trouble: row.trouble.clone().map(|trouble| sight.text(trouble)),
        };
        (Protect::from(&row), protection)
    };
    Ok(rows.into_iter().map(|(id, row)| (id, view(row))).collect())
}
