//! What the disks of a dead node held and no version has comes back when the node does.
//!
//! ```text
//!  fence ──► awaited ──► saved       the node asks, saves and tells, disk by disk
//!                  └───► given_up    an operator waits no longer
//! ```
//! While a disk is awaited, the key of the node is in the membership record as that of a client that may only read and
//! store objects (I8: it owns nothing, and every other call of it is refused). What it saves becomes a version of the
//! disk. If nothing was built on the disk's newest version meanwhile, the new one takes its place, and `recover` loses
//! nothing.

use muster_api::{
    CommitId, DiskId, NodeId, Page, Ref, VersionId,
    instance::InstanceState,
    node::{Salvage, SalvageState},
    node_protocol::{SalvageDisk, SalvageOrder, SalvageReport, SalvagedDisk},
    operation::Target,
    version::VersionState,
};
use serde_json::json;

use super::super::{Answer, App, AppError, Asked, Caller, find, list::ListQuery};
use crate::{
    domain::{disk_life::check_version, versions::Content},
    store::{
        Tx, deployments,
        events::{self, NewEvent},
        instances::{self, InstanceRow, NewHead},
        nodes::{self, NodeRow},
        promises,
        salvage::{self, SalvageRow},
        uploads::{self, NewUpload, Upload, UploadTarget},
        versions::{self, NewVersion, Of},
    },
};

/// Most disks in one order. The node asks again for the others.
const ORDER_MAX: i64 = 100;
/// How long a node may take to save one disk, milliseconds. It asks anew when that is over.
const LEASE_MS: i64 = 24 * 3600 * 1000;
/// Most characters of a node's trouble that are kept.
const TROUBLE_CHARS_MAX: usize = 1000;

/// A node that was declared dead, as it calls at the node door.
#[derive(Clone, Copy, Debug)]
pub struct DeadNode(pub NodeId);

impl App {
    /// The dead node that calls with this key. Its certificate must not have ended.
    pub async fn dead_node(&self, key_sha256: &str, expired: bool) -> Result<DeadNode, AppError> {
        let row = self
            .store
            .read("nodes.fenced_by_key", async |tx| Ok::<_, AppError>(nodes::fenced_by_key(tx, key_sha256).await?))
            .await?;
        match row {
            Some(row) if !expired => Ok(DeadNode(row.id)),
            Some(_) => Err(AppError::Unauthenticated("the node's certificate has ended".to_owned())),
            None => Err(AppError::Forbidden("only nodes that were declared dead salvage their disks".to_owned())),
        }
    }

    /// Whose disks are awaited of a dead node, each with an upload for what it stores; `None` if none is.
    pub async fn salvage_order(&self, DeadNode(node): DeadNode) -> Result<Option<SalvageOrder>, AppError> {
        self.store
            .run_tx("salvage.order", async |tx| {
                let mut disks = Vec::new();
                for row in salvage::awaited(tx, node, ORDER_MAX).await? {
                    let Upload { id: upload, round } = upload_of(tx, &row).await?;
                    disks.push(SalvageDisk { disk: row.disk, commit: row.commit_id, upload, round });
                }
                if disks.is_empty() {
                    return Ok(None);
                }
                let newest = nodes::membership(tx).await?;
                let (_, membership) = newest.expect("a cluster with a node has a membership record");
                Ok(Some(SalvageOrder { membership, disks }))
            })
            .await
    }

    /// A dead node tells how the saving of a disk went. A repeated call changes nothing.
    pub async fn salvaged(
        &self,
        DeadNode(node): DeadNode,
        disk: DiskId,
        report: &SalvageReport,
    ) -> Result<(), AppError> {
        self.store
            .run_tx("salvage.report", async |tx| {
                let found = salvage::load(tx, node, disk).await?;
                let mut row = found.ok_or_else(|| AppError::not_found("disk", disk))?;
                if row.state != SalvageState::Awaited {
                    return Ok(());
                }
                match report {
                    SalvageReport::Trouble(detail) => {
                        row.detail = Some(detail.chars().take(TROUBLE_CHARS_MAX).collect());
                        return Ok(salvage::save(tx, &row).await?);
                    }
                    SalvageReport::Nothing => {
                        row.detail = Some("it held nothing that its newest version lacks".to_owned());
                    }
                    SalvageReport::Saved(saved) => take(tx, &mut row, saved).await?,
                }
                row.state = SalvageState::Saved;
                salvage::save(tx, &row).await?;
                salvage::end_uploads(tx, node).await?;
                events::append(tx, event(&row)).await?;
                // The key of the node leaves the record with its last disk.
                self.refresh_membership(tx).await
            })
            .await?;
        self.follow_membership().await
    }

    /// A page of the disks of a dead node, for operators.
    pub async fn salvage(
        &self,
        caller: &Caller,
        node: &Ref<NodeId>,
        list: &ListQuery,
    ) -> Result<Page<Salvage>, AppError> {
        caller.require_operator()?;
        self.store
            .read("salvage.list", async |tx| {
                let node = find::node(tx, node).await?.id;
                let mut pager = list.pager(tx).await?;
                while let Some((after, n)) = pager.wants() {
                    pager.take(salvage::list(tx, node, after, n).await?, |row| row.seq, |row| Some(row.view()));
                }
                Ok(pager.page())
            })
            .await
    }

    /// Waits no longer for the disks of a dead node. What was saved stays; its data folder is not touched.
    pub async fn give_up_salvage(&self, asked: &Asked<Ref<NodeId>>) -> Result<Answer, AppError> {
        asked.caller.require_operator()?;
        let answer = self
            .once(&asked.once, "salvage.give_up", async |tx| {
                let row = find::node(tx, &asked.thing).await?;
                asked.check_if_match(row.revision)?;
                if salvage::give_up(tx, row.id).await? > 0 {
                    salvage::end_uploads(tx, row.id).await?;
                    self.refresh_membership(tx).await?;
                }
                Answer::ok(&self.node_view(&row, &promises::by_node(tx).await?))
            })
            .await?;
        self.follow_membership().await?;
        Ok(answer)
    }
}

/// Notes the disks of a node that is declared dead, before its instances lose it.
pub(super) async fn expect(tx: &mut Tx, node: &NodeRow, on_it: &[InstanceRow]) -> Result<(), AppError> {
    let (ids, now): (Vec<_>, _) = (on_it.iter().map(|row| row.id).collect(), tx.now());
    let mut disks = instances::disks_of(tx, &ids).await?;
    let mut rows = Vec::new();
    for instance in on_it.iter().filter(|row| row.life.state != InstanceState::Deleting) {
        for disk in disks.remove(&instance.id).unwrap_or_default() {
            rows.push(SalvageRow {
                node: node.id,
                disk: disk.id,
                disk_name: disk.name,
                instance: instance.id,
                instance_name: instance.name.clone(),
                project: instance.project.clone(),
                size_bytes: disk.size_bytes,
                commit_id: CommitId::generate(),
                state: SalvageState::Awaited,
                detail: None,
                version: None,
                base: Some(disk.version),
                reported_base: disk.reported_version,
                created_at: now,
                updated_at: now,
                seq: tx.next_seq().await?,
            });
        }
    }
    Ok(salvage::insert_many(tx, &rows).await?)
}

async fn upload_of(tx: &mut Tx, row: &SalvageRow) -> Result<Upload, AppError> {
    let target_id = row.commit_id.to_string();
    if let Some(upload) = uploads::live_of(tx, UploadTarget::Disk, &target_id).await? {
        if uploads::live(tx, upload.id).await?.is_some() {
            return Ok(upload);
        }
        // Its round is too old to publish under.
        uploads::end(tx, upload.id).await?;
    }
    let until = tx.now().plus_ms(LEASE_MS);
    let new = NewUpload { project: row.project.clone(), target: UploadTarget::Disk, target_id, until };
    Ok(uploads::begin(tx, &new).await?)
}

/// Makes what was saved a version of the disk, and its newest one where nothing was built on another meanwhile.
async fn take(tx: &mut Tx, row: &mut SalvageRow, saved: &SalvagedDisk) -> Result<(), AppError> {
    let invalid = |what: String| AppError::invalid("/saved/root", "invalid", what);
    let content = Content::from_root(&saved.root).map_err(|error| invalid(error.to_string()))?;
    let base = versions::load(tx, saved.base).await?;
    // I6: what the new version shares with its base was not stored anew.
    let is_live = base.as_ref().is_some_and(|base| base.version.state == VersionState::Ready);
    if !is_live && ![row.base, row.reported_base].contains(&Some(saved.base)) {
        return Err(invalid(format!("the disk builds on version {}, which may have been swept", saved.base)));
    }
    let base_bytes = base.map_or(0, |base| base.version.size_bytes);
    if let Some(detail) = check_version(base_bytes, row.size_bytes, content.size_bytes()) {
        return Err(invalid(detail));
    }
    if uploads::live(tx, saved.upload).await?.is_none() {
        return Err(AppError::code(muster_api::ErrorCode::Stale, "its upload is not live any more"));
    }
    let id = VersionId::generate();
    let of = Of::Disk {
        instance: row.instance,
        instance_name: row.instance_name.clone(),
        disk: row.disk,
        disk_name: row.disk_name.clone(),
        snapshot: None,
        commit: Some(row.commit_id),
    };
    // An instance that was deleted long ago is forgotten. Whoever starts from the version can still say its firmware.
    let firmware = deployments::firmware_of(tx, &[row.instance]).await?.remove(&row.instance).unwrap_or_default();
    let version = NewVersion {
        stored_bytes: saved.stored_bytes,
        upload: Some(saved.upload),
        parent: Some(saved.base),
        ..NewVersion::of_disk(id, row.project.clone(), of, firmware, content)
    };
    versions::insert(tx, &version).await?;
    row.version = Some(id);
    row.detail = Some(if becomes_head(tx, row, saved).await? {
        let head = NewHead { disk: row.disk, base: saved.base, version: id, dirty_bytes: saved.dirty_bytes };
        instances::advance_heads(tx, &[head]).await?;
        "the disk goes on from what was saved: `recover` loses nothing".to_owned()
    } else {
        "the disk went on from an earlier version meanwhile: deploy from this one to get at what was saved".to_owned()
    });
    Ok(())
}

/// Whether the instance still waits, without a node, with the disk as the dead node knew it.
async fn becomes_head(tx: &mut Tx, row: &SalvageRow, saved: &SalvagedDisk) -> Result<bool, AppError> {
    let Some(instance) = instances::load(tx, row.instance).await? else { return Ok(false) };
    let disks = instances::disks_of(tx, &[row.instance]).await?.remove(&row.instance).unwrap_or_default();
    // What a restore gave up does not come back by itself.
    let counts = |disk: &instances::DiskRow| saved.generation.unwrap_or(0) >= disk.since_generation;
    let is_base = disks.iter().any(|disk| disk.id == row.disk && disk.version == saved.base && counts(disk));
    Ok(is_base && instance.life.awaits_recovery())
}

fn event(row: &SalvageRow) -> NewEvent {
    let target = Target { kind: "instance".to_owned(), id: row.instance.to_string(), name: row.instance_name.clone() };
    NewEvent {
        data: json!({ "disk": row.disk, "version": row.version, "detail": row.detail }),
        ..NewEvent::new("instance.salvaged", row.project.clone(), target)
    }
}
