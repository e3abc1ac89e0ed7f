//! Boot orders as nodes tell them: in which order a start first read the chunks of its disk's version.
//!
//! One is taken only from the node that has the instance, at the disk's generation, about the version that the disk builds
//! on, and only if instance and version are of one project: the reads of a guest are nobody else's business (I12). The order
//! is kept with that version and goes with it. A version of which no boot was told yet is shown with the order of the version
//! that it was made from: its guest will read the same places of the disk, whether a commit changed them or not.
//!
//! A node that starts an instance asks for the order of its disk's version, by the same rules: the instance is on it, and the version
//! whose boots it is made from is of the instance's project.
//!
//! Not all are taken, see [`Turns`]. The others are acknowledged and dropped, which is no harm: a boot order only makes later
//! starts faster.
//!
//! [`Turns`]: super::boot_turns::Turns

use muster_api::{
    DiskId, ErrorCode, InstanceId, NodeId, VersionId,
    node_protocol::{self, boot::BootReport},
    version::{Version, VersionState},
};

use super::{App, AppError};
use crate::{
    domain::boots::BootOrder,
    store::{
        Tx, boot_orders,
        instances::{self, DiskRow, InstanceRow},
        versions::{self, VersionRow},
    },
};

/// How many versions up to look for a boot order. Each is a look into the database.
const ANCESTORS_MAX: usize = 16;

/// What became of a boot order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// It is part of the version's order now.
    Merged,
    /// Its version took enough lately, is deleted, or is of another project.
    Dropped,
}

impl App {
    /// A node tells in which order a start first read the chunks of a disk.
    pub async fn boot_report(&self, node: NodeId, instance: InstanceId, report: &BootReport) -> Result<(), AppError> {
        let outcome = if self.boot_turns.take(report.version, self.clock.now()) {
            let take = async |tx: &mut Tx| merge(tx, node, instance, report).await;
            let taken = self.store.run_tx("boot_orders.take", take).await;
            if !matches!(taken, Ok(Outcome::Merged)) {
                self.boot_turns.give_back(report.version);
            }
            taken
        } else {
            Ok(Outcome::Dropped)
        };
        let word = match &outcome {
            Ok(Outcome::Merged) => "merged",
            Ok(Outcome::Dropped) => "dropped",
            Err(_) => "refused",
        };
        metrics::counter!("muster_boot_orders_total", "outcome" => word).increment(1);
        outcome.map(drop)
    }

    /// What a start of an instance of this node is likely to read of a disk; `None` if no boot is known that tells.
    pub async fn boot_order(
        &self,
        node: NodeId,
        instance: InstanceId,
        disk: DiskId,
    ) -> Result<Option<node_protocol::boot::BootOrder>, AppError> {
        let give = async |tx: &mut Tx| {
            let project = of_node(tx, node, instance).await?.project;
            let disk = disk_of(tx, instance, disk).await?;
            let row = versions::load(tx, disk.version).await?.filter(|row| row.version.project == project);
            let Some(row) = row else { return Ok(None) };
            let found = nearest(tx, |of| of == project, &row).await?;
            Ok(found.map(|(_, order)| node_protocol::boot::BootOrder {
                version: disk.version,
                chunks: order.likely().filter_map(|chunk| u32::try_from(chunk).ok()).collect(),
            }))
        };
        self.store.read("boot_orders.give", give).await
    }
}

async fn of_node(tx: &mut Tx, node: NodeId, instance: InstanceId) -> Result<InstanceRow, AppError> {
    let row = instances::load(tx, instance).await?.filter(|row| row.life.node == Some(node));
    row.ok_or_else(|| AppError::Forbidden("the instance is not on this node".to_owned()))
}

async fn disk_of(tx: &mut Tx, instance: InstanceId, disk: DiskId) -> Result<DiskRow, AppError> {
    let disks = instances::disks_of(tx, &[instance]).await?.remove(&instance).unwrap_or_default();
    let found = disks.into_iter().find(|row| row.id == disk);
    found.ok_or_else(|| AppError::invalid("/disk", "invalid", "it is no disk of the instance"))
}

async fn merge(tx: &mut Tx, node: NodeId, instance: InstanceId, report: &BootReport) -> Result<Outcome, AppError> {
    let row = of_node(tx, node, instance).await?;
    if report.generation != row.life.generation {
        let (current, got) = (row.life.generation, report.generation);
        let detail = format!("the instance is at generation {current}, the boot order at {got}");
        return Err(AppError::code(ErrorCode::Stale, detail));
    }
    let disk = disk_of(tx, instance, report.disk).await?;
    let Some(version) = versions::load(tx, report.version).await? else { return Err(not_its_base(disk.version)) };
    if disk.version != report.version && !was_base(tx, &disk, report.version).await? {
        return Err(not_its_base(disk.version));
    }
    let mut order = boot_orders::load(tx, report.version).await?.unwrap_or_default();
    let chunks = version.content.descriptor().chunks();
    order.add(report, chunks).map_err(|bad| AppError::invalid("/chunks", "invalid", bad.to_string()))?;
    if version.version.state != VersionState::Ready || version.version.project != row.project {
        return Ok(Outcome::Dropped);
    }
    boot_orders::save(tx, report.version, &order).await?;
    Ok(Outcome::Merged)
}

fn not_its_base(head: VersionId) -> AppError {
    AppError::code(ErrorCode::Stale, format!("the disk builds on version {head}"))
}

/// Whether the disk built on this version until its last snapshot, which may have been made before the boot was over.
async fn was_base(tx: &mut Tx, disk: &DiskRow, version: VersionId) -> Result<bool, AppError> {
    let head = versions::load(tx, disk.version).await?;
    Ok(head.is_some_and(|head| head.version.disk == Some(disk.id) && head.version.parent == Some(version)))
}

/// The boot order to show with a version, and the version whose boots it is made from: itself, or the nearest one that it
/// was made from. `None` if there is none in a project that `can_see` accepts.
pub(super) async fn nearest(
    tx: &mut Tx,
    can_see: impl Fn(&str) -> bool,
    row: &VersionRow,
) -> Result<Option<(VersionId, BootOrder)>, AppError> {
    let mut version = row.version.clone();
    for _ in 0..ANCESTORS_MAX {
        if let Some(order) = boot_orders::load(tx, version.id).await? {
            return Ok(Some((version.id, order)));
        }
        let Some(parent) = version.parent else { break };
        let parent = versions::load(tx, parent).await?.map(|row| row.version);
        let fits = |parent: &Version| can_see(&parent.project) && parent.chunk_bytes == row.version.chunk_bytes;
        let Some(parent) = parent.filter(fits) else { break };
        version = parent;
    }
    Ok(None)
}
