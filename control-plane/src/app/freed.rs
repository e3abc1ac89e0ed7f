//! How many bytes would come back if something was deleted.
//!
//! The answer counts objects that only what goes reaches, one copy of each as stored, as `stored_bytes` does. For a tenant what
//! other projects have stored does not change it, because it would tell something about them (I12): bytes that another project
//! has as well count as freed. Nor is a row of theirs read for it, so it takes no longer because of them. An operator sees what really comes back. The bytes come back within the next rounds of the
//! sweep. What a disk holds beyond its version lies on its node and is not counted.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use muster_api::{DeploymentId, ImageId, InstanceId, SnapshotId, VersionId, version::Freed};
use storage_core::{Descriptor, ObjectName};
use tokio::time::Instant;

use super::{App, AppError, Caller};
use crate::{
    domain::versions::Content,
    export::reach,
    store::{
        Tx,
        keepers::{self, Keeper},
        versions::{self, VersionRow},
    },
};

/// How long a dry run may count.
const FREED_WITHIN: Duration = Duration::from_secs(2);
/// Most versions that a dry run looks at. With more the answer is that it is not known.
const ROOTS_MAX: usize = 10_000;
/// Most rows of one kind that it reads for that.
const ROWS_MAX: i64 = 100_000;

/// What would be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Going {
    Version(VersionId),
    Image(ImageId),
    Snapshot(SnapshotId),
    Instance(InstanceId),
    Deployment(DeploymentId),
}

impl Going {
    /// Whether this would keep the version no longer.
    fn takes(self, version: VersionId, keeper: Keeper) -> bool {
        match (self, keeper) {
            (Self::Version(id), Keeper::Link(..)) => version == id,
            (Self::Image(id), Keeper::Link(image, _)) => image == Some(id),
            (Self::Snapshot(id), Keeper::Link(_, snapshot)) => snapshot == Some(id),
            (Self::Instance(id), Keeper::Disk(instance, _)) => instance == id,
            (Self::Deployment(id), Keeper::Disk(_, of) | Keeper::Source(of)) => of == id,
            _ => false,
        }
    }
}

/// What goes and what stays.
struct Parted {
    gone: Vec<VersionRow>,
    kept: Vec<Descriptor>,
}

impl App {
    /// The bytes that would come back; not known if that cannot be found out in time. `project` is the one that owns it.
    pub(super) async fn freed(&self, caller: &Caller, project: &str, going: Going) -> Result<Freed, AppError> {
        let deadline = Instant::now() + FREED_WITHIN;
        // Like every walk, so that nobody keeps the others from theirs (I11).
        let Ok(_slot) = self.walks.take(project) else { return Ok(Freed { freed_bytes: None }) };
        let project = (!caller.is_operator()).then_some(project);
        let parted = self.store.read("freed.part", async |tx| part(tx, project, going).await);
        let Ok(parted) = tokio::time::timeout_at(deadline, parted).await else {
            return Ok(Freed { freed_bytes: None });
        };
        let Some(Parted { gone, kept }) = parted? else { return Ok(Freed { freed_bytes: None }) };
        let reached_bytes = match gone.as_slice() {
            [] => return Ok(Freed { freed_bytes: Some(0) }),
            [one] => one.reached_bytes,
            _ => None,
        };
        let gone: Vec<Content> = gone.into_iter().map(|row| row.content).collect();
        let counted = reach::exclusive_bytes(&self.pool, &gone, reached_bytes, &kept, deadline);
        let freed_bytes = match tokio::time::timeout_at(deadline, counted).await {
            Ok(Ok(bytes)) => Some(bytes),
            Ok(Err(_)) | Err(_) => None,
        };
        Ok(Freed { freed_bytes })
    }
}

/// Parts what is kept now into what would go and what would stay. Versions of equal content are named once. `None` if there are
/// too many.
async fn part(tx: &mut Tx, project: Option<&str>, going: Going) -> Result<Option<Parted>, AppError> {
    let Some(keepers) = keepers::list(tx, project, ROWS_MAX).await? else { return Ok(None) };
    let (mut gone, mut kept) = (BTreeSet::new(), BTreeSet::new());
    for (version, keeper) in keepers {
        if going.takes(version, keeper) {
            gone.insert(version);
        } else {
            kept.insert(version);
        }
    }
    gone.retain(|version| !kept.contains(version));
    if gone.len() + kept.len() > ROOTS_MAX {
        return Ok(None);
    }
    let kept: Vec<VersionId> = kept.into_iter().collect();
    let known = keepers::descriptors(tx, &kept).await?;
    let kept: BTreeMap<ObjectName, Descriptor> = known.into_values().map(|one| (one.name(), one)).collect();
    let rows = versions::load_many(tx, &gone.into_iter().collect::<Vec<_>>()).await?;
    let going = rows.into_iter().map(|row| (row.content.root(), row)).filter(|(name, _)| !kept.contains_key(name));
    let gone: BTreeMap<ObjectName, VersionRow> = going.collect();
    Ok(Some(Parted { gone: gone.into_values().collect(), kept: kept.into_values().collect() }))
}
