//! Objects that lost their last copy, and the versions that need them.
//!
//! Their names come from the nodes that lost them, once no other node has them either (`Heartbeat::gone`), and from reads. When they
//! change, the trees of the versions are looked through for them: pages are read, and no data. An event names each version
//! with what builds on it, and one tells when its objects are back. What a node lost without that it knows the names
//! cannot be told of a version before somebody reads it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use muster_api::{VersionId, pool::LostVersion};
use muster_pool::PoolError;
use serde_json::json;
use storage_core::{ObjectName, tree::Reach, units::u64_from};
use tokio::time::Instant;

use super::{App, AppError};
use crate::{
    domain::versions::Content,
    export::{ReadError, pages::PageSource},
    store::{
        events::{self, NewEvent},
        nodes,
        versions::{self, VersionFilter, VersionRow},
    },
};

/// Most versions that are looked through, the oldest ones.
const VERSIONS_MAX: usize = 10_000;
/// Versions that are listed at a time.
const LISTED: i64 = 200;
/// Most time for the pages of one version.
const WITHIN: Duration = Duration::from_secs(10);
/// Most time to find out whether what reads found lost is back.
const READ_WITHIN: Duration = Duration::from_secs(5);
/// Time between two such looks, milliseconds.
const READ_EVERY_MS: i64 = 60_000;

impl App {
    /// Looks which versions lack objects, if other ones are lost than at the last look. Returns how many versions lost some.
    pub(crate) async fn look_for_lost(&self) -> anyhow::Result<usize> {
        self.look_at_reads_again().await;
        let rows = self.store.read("nodes.listed", async |tx| nodes::listed(tx).await).await?;
        let told = rows.iter().filter_map(|row| self.heartbeats.last(row.id)).flat_map(|(_, beat)| beat.gone);
        let Some(names) = self.lost.to_look_for(told) else { return Ok(0) };
        let found = if names.is_empty() { Vec::new() } else { self.versions_without(&names).await? };
        let changed = self.lost.settle(names, found);
        for version in &changed.lost {
            tracing::error!(
                version.id = %version.version, version.name, version.objects,
                "no node has a copy of objects of version '{}'", version.name
            );
        }
        let lost = changed.lost.len();
        self.store
            .run_tx("versions.lost", async |tx| {
                for version in &changed.lost {
                    events::append(tx, event("version.objects_lost", version)).await?;
                }
                for version in &changed.back {
                    events::append(tx, event("version.objects_back", version)).await?;
                }
                Ok::<_, AppError>(())
            })
            .await?;
        Ok(lost)
    }

    /// Whether what reads found lost is back.
    async fn look_at_reads_again(&self) {
        let Some(names) = self.lost.read_again(self.clock.now(), READ_EVERY_MS) else { return };
        for part in names.chunks(32) {
            let missing = match self.pool.get(part, Instant::now() + READ_WITHIN).await {
                Ok(_) => Vec::new(),
                Err(PoolError::Lost { names } | PoolError::Unavailable { names, .. }) => names,
                Err(_) => part.to_vec(),
            };
            let back: Vec<ObjectName> = part.iter().filter(|name| !missing.contains(name)).copied().collect();
            self.lost.forget_read(&back);
        }
    }

    /// The versions that need some of these objects.
    async fn versions_without(&self, names: &BTreeSet<ObjectName>) -> Result<Vec<LostVersion>, AppError> {
        let mut found: Vec<(VersionRow, u64)> = Vec::new();
        // Versions with the same root lack the same.
        let mut known: BTreeMap<ObjectName, u64> = BTreeMap::new();
        let mut pages = PageSource::new(self.pool.clone());
        let (mut after, mut seen) = (0, 0);
        while seen < VERSIONS_MAX {
            let filter = VersionFilter::default();
            let rows =
                self.store.read("versions.all", async |tx| versions::list(tx, &filter, after, LISTED).await).await?;
            let Some(last) = rows.last() else { break };
            after = last.seq;
            seen += rows.len();
            for row in rows {
                let root = row.content.root();
                let lacks = match known.get(&root) {
                    Some(lacks) => *lacks,
                    None => {
                        let lacks = lacking(&mut pages, &row.content, names).await;
                        known.insert(root, lacks);
                        lacks
                    }
                };
                if lacks > 0 {
                    found.push((row, lacks));
                }
            }
        }
        let ids: Vec<VersionId> = found.iter().map(|(row, _)| row.version.id).collect();
        let (mut instances, mut deployments) = self
            .store
            .read("versions.builders", async |tx| {
                Ok::<_, AppError>((versions::instances_on(tx, &ids).await?, versions::deployments_of(tx, &ids).await?))
            })
            .await?;
        let now = self.clock.now();
        let lost = |(row, objects): (VersionRow, u64)| LostVersion {
            version: row.version.id,
            name: row.version.name,
            project: row.version.project,
            objects,
            since: now,
            instances: instances.remove(&row.version.id).unwrap_or_default(),
            deployments: deployments.remove(&row.version.id).unwrap_or_default(),
        };
        Ok(found.into_iter().map(lost).collect())
    }
}

/// How many of these objects the content needs. Below a page that is lost nothing is known, and nothing can be read.
async fn lacking(pages: &mut PageSource, content: &Content, names: &BTreeSet<ObjectName>) -> u64 {
    let mut reach = Reach::new();
    let walked = match pages.add_root(content) {
        Ok(()) => {
            let deadline = Instant::now() + WITHIN;
            pages.with(deadline, |pages| reach.add(content.descriptor(), pages)).await
        }
        Err(error) => Err(error.into()),
    };
    if let Err(error) = walked
        && !matches!(&error, ReadError::Pool(PoolError::Lost { .. }))
    {
        let error = &error as &dyn std::error::Error;
        tracing::warn!(version.root = %content.root(), error, "not all of a version could be looked through for lost objects");
    }
    u64_from(names.iter().filter(|name| reach.contains(name)).count())
}

fn event(kind: &'static str, version: &LostVersion) -> NewEvent {
    let data =
        json!({ "objects": version.objects, "instances": version.instances, "deployments": version.deployments });
    let target = super::versions::target_of(version.version, &version.name);
    NewEvent { data, ..NewEvent::new(kind, version.project.clone(), target) }
}
