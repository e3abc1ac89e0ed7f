//! What reports tell of found instances.

use muster_api::{NodeId, deployment::Runtime, node_protocol::InstanceReport};

use super::{super::AppError, found_event, name, told};
use crate::store::{
    Tx, cluster, events,
    found::{self, FoundRow},
    instances::InstanceRow,
};

/// News of a found instance in a report.
pub(crate) struct Noted<'a> {
    report: &'a InstanceReport,
    /// What was known of it before, perhaps from another node.
    known: Option<FoundRow>,
}

impl<'a> Noted<'a> {
    /// `None` if the report is of no found instance, or tells nothing new. `known` is what the node told before.
    pub(crate) async fn find(
        tx: &mut Tx,
        node: NodeId,
        report: &'a InstanceReport,
        known: Option<&FoundRow>,
    ) -> Result<Option<Self>, AppError> {
        if report.found.is_none() || known.is_some_and(|row| row.report == *report) {
            return Ok(None);
        }
        let known = match known {
            Some(row) => Some(row.clone()),
            None => found::load(tx, report.instance).await?,
        };
        // I8: of two nodes that hold it, the one with the older generation lost the right to write its disks.
        let is_older = |row: &FoundRow| row.node != node && row.report.generation >= report.generation;
        if known.as_ref().is_some_and(is_older) {
            tracing::warn!(instance.id = %report.instance, node.id = %node, "an older state of a found instance is ignored");
            return Ok(None);
        }
        Ok(Some(Self { report, known }))
    }

    /// What shows that the database is an older copy, in a sentence. One that was made before the present incarnation began
    /// was lost by the restore that began it; so was what an older row of it lacks.
    pub(crate) async fn evidence(&self, tx: &mut Tx, row: Option<&InstanceRow>) -> Result<Option<String>, AppError> {
        let id = self.report.instance;
        let made_at = id.uuid().get_timestamp().map_or(i64::MAX, |at| {
            let (seconds, nanos) = at.to_unix();
            i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000_000).saturating_add(i64::from(nanos / 1000))
        });
        let restored_at = cluster::restored_at(tx).await?;
        let is_explained = restored_at.is_some_and(|at| row.is_some() || made_at < at.micros());
        let is_new = self.known.is_none() && !is_explained;
        Ok(is_new.then(|| format!("a node holds instance {id}, and that is not known here")))
    }

    /// Keeps what the node `node` reports. `actor` is its name for events.
    pub(crate) async fn save(&self, tx: &mut Tx, node: NodeId, actor: &str) -> Result<(), AppError> {
        let Self { report, known } = self;
        if let Some(row) = known {
            if row.node == node {
                return Ok(found::save(tx, &FoundRow { report: (*report).clone(), ..row.clone() }).await?);
            }
            found::delete(tx, row.id).await?;
        }
        let told = told(report);
        let now = tx.now();
        let row = FoundRow {
            id: report.instance,
            project: told.map_or_else(|| "default".to_owned(), |told| told.project.clone()),
            node,
            runtime: told.map_or(Runtime::Libvirt, |told| told.runtime),
            cpus: told.map_or(0, |told| told.cpus),
            memory_bytes: told.map_or(0, |told| told.memory_bytes),
            report: (*report).clone(),
            forgotten: false,
            created_at: now,
            updated_at: now,
            revision: 1,
            seq: tx.next_seq().await?,
        };
        found::insert(tx, &row).await?;
        events::append(tx, found_event("instance.found", &row, actor)).await?;
        tracing::warn!(
            instance.id = %row.id, node.id = %node,
            "{actor} holds {}, which is not known here: `muster instance found` tells what to do", name(&row)
        );
        Ok(())
    }
}

/// A node has nothing of a found instance any more.
pub(crate) async fn gone(tx: &mut Tx, row: &FoundRow, actor: &str) -> Result<(), AppError> {
    found::delete(tx, row.id).await?;
    if row.forgotten {
        tx.bump_desired(row.node);
    }
    events::append(tx, found_event("instance.gone", row, actor)).await?;
    Ok(())
}
