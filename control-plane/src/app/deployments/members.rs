//! Members are made: their rows, disks and events, and what their nodes are told.

use std::collections::BTreeSet;

use muster_api::{InstanceId, OperationId, VersionId};
use storage_core::Salt;

use super::{
    super::{AppError, disk_starts::insert_blank, instances as app_instances, nics::Picked},
    placing::Placing,
    source::DiskStart,
};
use crate::{
    domain::{
        instance::{Edge, Life},
        names::member_name,
    },
    store::{
        Tx,
        deployments::DeploymentRow,
        events,
        instances::{self, DiskRow, InstanceRow},
        nics,
    },
    wake::Loop,
};

/// New members of a deployment, not in the database yet.
pub(super) struct NewMembers<'a> {
    /// The deployment that they become members of.
    pub deployment: &'a DeploymentRow,
    /// Number of the first one; the others follow.
    pub first: u64,
    /// What the disks of each of them start with, boot disk first.
    pub disks: Vec<Vec<DiskStart>>,
    /// The version that blank disks start from and the salt of the project, if that version is not in the database yet.
    pub blank: Option<(VersionId, Salt)>,
    /// What was picked for their network cards.
    pub cards: Picked,
    /// Places for them, in their order. Members beyond the last place wait or fail.
    pub placing: &'a Placing,
    /// The operation that waits for them.
    pub operation: OperationId,
}

impl NewMembers<'_> {
    /// Inserts them. `actor` is the name of the token that asks for them.
    pub(super) async fn insert(self, tx: &mut Tx, actor: &str) -> Result<(), AppError> {
        let refusal = self.placing.why();
        let (mut members, mut disks) = (Vec::new(), Vec::new());
        let edges = self.placing.edges(&refusal);
        for ((number, starts), edge) in (self.first..).zip(&self.disks).zip(edges) {
            let member = self.member(tx, number, &edge).await?;
            for (number, start) in (0..).zip(starts) {
                let (seq, begin) = (tx.next_seq().await?, (start.version, start.size_bytes));
                disks.push(DiskRow::new(&member, start.name.clone(), number, begin, tx.now(), seq));
            }
            members.push(member);
        }
        instances::insert_many(tx, &members, &disks).await?;
        if let (Some(blank), Some(first)) = (self.blank, members.first()) {
            let (id, _) = blank;
            let disk = disks.iter().find(|disk| disk.version == id).expect("a blank version is made for a disk");
            insert_blank(tx, first, disk, blank).await?;
        }
        let ids: Vec<InstanceId> = members.iter().map(|member| member.id).collect();
        self.cards.give(tx, &ids).await?;
        let networks: Vec<_> = self.deployment.nics.iter().map(|plan| plan.network).collect();
        nics::tell_nodes(tx, &networks).await?;
        events::append_many(tx, members.iter().map(|member| app_instances::event(member, actor)).collect()).await?;
        for node in members.iter().filter_map(|member| member.life.node).collect::<BTreeSet<_>>() {
            tx.bump_desired(node);
        }
        tx.wake(Loop::Deployments);
        Ok(())
    }

    async fn member(&self, tx: &mut Tx, number: u64, edge: &Edge<'_>) -> Result<InstanceRow, AppError> {
        let (row, now) = (self.deployment, tx.now());
        Ok(InstanceRow {
            id: InstanceId::generate(),
            project: row.project.clone(),
            deployment: row.id,
            number,
            name: member_name(&row.name, number),
            labels: row.labels.clone(),
            life: Life::new(now).after(edge, now).expect("a new instance may be placed"),
            cpus: row.cpus,
            memory_bytes: row.memory_bytes,
            runtime: row.runtime,
            operation: Some(self.operation),
            created_at: now,
            updated_at: now,
            revision: 1,
            seq: tx.next_seq().await?,
        })
    }
}
