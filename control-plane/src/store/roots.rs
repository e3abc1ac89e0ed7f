//! What the sweep must keep (I6): the descriptors of all versions that somebody needs.
//!
//! Every column that names a version was looked at. A version is needed
//! - while it is not deleted;
//! - as the newest one of a disk of an instance that still exists, whatever its state, and as the one that the disk's node
//!   knew last: until it reports another one it reads that one;
//! - as that of a disk that belongs to no instance, or of which a node has a copy yet that it is to remove;
//! - as the source of a deployment, because further members start from it: of the boot disk and of the other disks;
//! - as what a disk is to be restored to;
//! - as the base of a commit that is staged and not published yet;
//! - as what a disk of a dead node builds on, while it is awaited;
//! - as what a found instance builds on, which the database may not know;
//! - while somebody reads it under a lease.
//!
//! Boot orders, parents (they are only compared with) and members of snapshots (their versions are rows of their own) do not
//! keep a version.

use std::collections::{BTreeMap, BTreeSet};

use muster_api::VersionId;
use storage_core::{Descriptor, ObjectName};

use super::{StoreError, Tx, bulk, column, found};
use crate::domain::{disk_plan::DiskPlan, versions::Content};

/// All roots, listed in one transaction.
#[derive(Clone, Debug, Default)]
pub struct Roots {
    /// Names of their descriptors.
    pub names: BTreeSet<ObjectName>,
    /// Those of them that no row of a version has: a node told them.
    pub told: BTreeMap<ObjectName, Descriptor>,
    /// Something that is needed and of which nobody knows what it consists of, in a sentence. Then nothing may be swept.
    pub unknown: Option<String>,
}

const NEEDED: &str = "-- roots.needed
SELECT v.root FROM versions v WHERE v.deleted_at IS NULL
UNION SELECT v.root FROM versions v JOIN disks d ON d.version = v.id JOIN instances i ON i.id = d.instance
    WHERE i.deleted_at IS NULL
UNION SELECT v.root FROM versions v JOIN disks d ON d.reported_version = v.id JOIN instances i ON i.id = d.instance
    WHERE i.deleted_at IS NULL
UNION SELECT v.root FROM versions v JOIN detached_disks f ON f.version = v.id
UNION SELECT v.root FROM versions v JOIN left_disks l ON l.version = v.id
UNION SELECT v.root FROM versions v JOIN restore_disks t ON t.version = v.id
UNION SELECT v.root FROM versions v JOIN deployments p ON p.version = v.id WHERE p.deleted_at IS NULL
UNION SELECT v.root FROM versions v JOIN snapshot_members m ON m.base = v.id JOIN snapshots s ON s.id = m.snapshot
    WHERE s.state IN ('cutting', 'saving')
UNION SELECT v.root FROM versions v JOIN salvage s ON s.base = v.id WHERE s.state = 'awaited'
UNION SELECT v.root FROM versions v JOIN salvage s ON s.reported_base = v.id WHERE s.state = 'awaited'
UNION SELECT v.root FROM versions v JOIN readers r ON r.version = v.id WHERE r.until >= $1";

const UNKNOWN: &str = "-- roots.unknown
SELECT d.id, i.name FROM disks d JOIN instances i ON i.id = d.instance WHERE i.deleted_at IS NULL
    AND (NOT EXISTS (SELECT 1 FROM versions v WHERE v.id = d.version) OR (d.reported_version IS NOT NULL
        AND NOT EXISTS (SELECT 1 FROM versions v WHERE v.id = d.reported_version)))
ORDER BY d.id LIMIT 1";

const PLANS: &str = "-- roots.plans
SELECT disks FROM deployments WHERE deleted_at IS NULL AND disks <> '[]'";

/// Lists all roots.
pub async fn list(tx: &mut Tx) -> Result<Roots, StoreError> {
    let mut roots = Roots::default();
    let now = tx.now().micros();
    for row in sqlx::query(NEEDED).bind(now).fetch_all(tx.conn()).await? {
        roots.names.insert(column::parse(&row, "root")?);
    }
    if let Some(row) = sqlx::query(UNKNOWN).fetch_optional(tx.conn()).await? {
        let (disk, instance): (String, String) = (column::read(&row, "id")?, column::read(&row, "name")?);
        roots.unknown = Some(format!("disk {disk} of instance {instance} has a version that is not known here"));
    }
    let mut planned = BTreeSet::new();
    for row in sqlx::query(PLANS).fetch_all(tx.conn()).await? {
        let plans: Vec<DiskPlan> = column::read(&row, "disks")?;
        planned.extend(plans.into_iter().filter_map(|plan| plan.version));
    }
    roots.names.extend(of(tx, &planned.into_iter().collect::<Vec<_>>()).await?.into_values());
    add_found(tx, &mut roots).await?;
    Ok(roots)
}

/// Adds what found instances build on: as the database knows it, else as their nodes tell it.
async fn add_found(tx: &mut Tx, roots: &mut Roots) -> Result<(), StoreError> {
    for report in found::reports(tx).await? {
        let ids: Vec<VersionId> = report.disks.iter().map(|disk| disk.version).collect();
        let known = of(tx, &ids).await?;
        for disk in &report.disks {
            if let Some(name) = known.get(&disk.version) {
                roots.names.insert(*name);
                continue;
            }
            match disk.ahead.as_ref().map(Content::from_root) {
                Some(Ok(content)) => {
                    roots.names.insert(content.root());
                    roots.told.insert(content.root(), *content.descriptor());
                }
                Some(Err(_)) | None => {
                    roots.unknown = Some(format!(
                        "disk {} of the found instance {} has a version that is not known here",
                        disk.disk, report.instance
                    ));
                }
            }
        }
    }
    Ok(())
}

const OF: &str = "-- roots.of
SELECT id, root FROM versions WHERE id";

/// The names of the descriptors of those of the versions that exist, deleted or not.
async fn of(tx: &mut Tx, ids: &[VersionId]) -> Result<BTreeMap<VersionId, ObjectName>, StoreError> {
    let rows = bulk::select_in(tx, OF, ids, "").await?;
    rows.iter().map(|row| Ok((column::read(row, "id")?, column::parse(row, "root")?))).collect()
}

const DESCRIPTORS: &str = "-- roots.descriptors
SELECT DISTINCT root, descriptor FROM versions WHERE root";

/// The descriptors with these names. Rows of versions never change what they consist of, so this need not be the transaction that
/// listed them. One that was needed then, and is dropped since, is missing: then the roots are listed again.
pub async fn descriptors(tx: &mut Tx, names: &[ObjectName]) -> Result<Vec<Descriptor>, StoreError> {
    let rows = bulk::select_in(tx, DESCRIPTORS, names, "").await?;
    let bad = |why: String| StoreError::BadRow { column: "versions.descriptor".to_owned(), why };
    rows.iter()
        .map(|row| {
            let name: ObjectName = column::parse(row, "root")?;
            let bytes = hex::decode(column::read::<String>(row, "descriptor")?).map_err(|e| bad(e.to_string()))?;
            let descriptor = Descriptor::decode(&bytes).map_err(|e| bad(e.to_string()))?;
            if descriptor.name() == name {
                Ok(descriptor)
            } else {
                Err(bad(format!("it has the name {}, and the row says {name}", descriptor.name())))
            }
        })
        .collect()
}
