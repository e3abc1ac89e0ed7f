//! The repository of the pool: how the controller comes to use it, and tells nodes of it.
//!
//! ```text
//! configuration and its files, read every few seconds --> something new --> client --> place claimed --> in use here
//!                                                                                                   --> told to nodes
//! ```
//! Settings that cannot be used change nothing: what was in use stays in use, here and on the nodes, and the trouble is shown.
//! Before the place is claimed for the first time nothing is written there. A pool that is written through publishes nothing
//! then.

use std::{sync::Arc, time::Duration};

use muster_api::{
    node::{ObjectAmount, RepositoryUse},
    node_protocol::repository::{NO_REPOSITORY, RepositoryOrder},
    pool::{PoolRepository, RepositoryState, RepositoryWrite},
};
use muster_pool::Repository;
use storage_core::{
    lock,
    repository::{RepositorySettings, WriteMode},
};
use tokio::time::{Instant, sleep};

use super::{App, AppError};

/// Time between two looks for new settings.
const LOOK_EVERY: Duration = Duration::from_secs(3);
/// How long it may take to claim the place.
const CLAIM_WITHIN: Duration = Duration::from_secs(30);

impl App {
    /// The client that the pool begins with: nothing is written before the place is claimed.
    ///
    /// # Errors
    /// When the configuration cannot be used at all.
    pub fn begin_repository(&self) -> anyhow::Result<()> {
        let Some(configured) = &self.config.pool.repository else { return Ok(()) };
        let settings = configured.settings().map_err(|why| anyhow::anyhow!("pool.repository: {why}"))?;
        self.pool.set_repository(Some(Arc::new(Repository::open(settings)?)));
        Ok(())
    }

    /// Follows the settings for ever.
    pub async fn keep_repository(&self) {
        if self.config.pool.repository.is_none() {
            return;
        }
        loop {
            self.follow_repository().await;
            sleep(LOOK_EVERY).await;
        }
    }

    /// Uses the settings as they are now, if they are new and can be used.
    pub async fn follow_repository(&self) {
        let Some(configured) = &self.config.pool.repository else { return };
        let followed = match configured.settings() {
            Ok(settings) => self.use_settings(settings).await,
            Err(why) => Err(why),
        };
        let mut known = lock(&self.repository);
        let trouble = followed.err();
        if trouble.is_some() && known.trouble != trouble {
            tracing::warn!(error = trouble, "the repository cannot be used; it is tried again");
        }
        known.trouble = trouble;
    }

    async fn use_settings(&self, settings: RepositorySettings) -> Result<(), String> {
        let is_told = lock(&self.repository).order.as_ref().is_some_and(|o| o.settings.as_ref() == Some(&settings));
        if is_told {
            // A call that failed is no trouble for longer than the repository does not work.
            let failed = self.pool.repository().filter(|repository| repository.trouble().is_some());
            if let Some(repository) = failed {
                repository.check(Instant::now() + CLAIM_WITHIN).await.map_err(|error| error.to_string())?;
            }
            return Ok(());
        }
        let begun = self.pool.repository().filter(|begun| *begun.settings() == settings);
        let repository = match begun {
            Some(begun) => begun,
            None => Arc::new(Repository::open(settings.clone()).map_err(|error| error.to_string())?),
        };
        repository.claim(self.cluster, Instant::now() + CLAIM_WITHIN).await.map_err(|error| error.to_string())?;
        self.pool.set_repository(Some(repository));
        let revision = self.revision_of(&settings);
        tracing::info!(url = settings.url(), write = settings.write.as_str(), "the pool has a repository");
        lock(&self.repository).order = Some(RepositoryOrder { revision, settings: Some(settings) });
        Ok(())
    }

    /// Equal settings have equal revisions, also after a restart. It tells nothing of the secrets in them.
    fn revision_of(&self, settings: &RepositorySettings) -> u64 {
        let text = serde_json::to_vec(settings).expect("settings are JSON");
        let [a, b, c, d, e, f, g, h, ..] = self.ca.derive("repository", &text);
        u64::from_le_bytes([a, b, c, d, e, f, g, h]).max(NO_REPOSITORY + 1)
    }

    /// The revision that heartbeats are answered with; `None` while the controller cannot tell.
    pub(crate) fn repository_revision(&self) -> Option<u64> {
        match self.config.pool.repository {
            None => Some(NO_REPOSITORY),
            Some(_) => lock(&self.repository).order.as_ref().map(|order| order.revision),
        }
    }

    /// What a node is told of the repository.
    ///
    /// # Errors
    /// While the controller cannot tell: then nodes go on with what they know.
    pub fn repository_order(&self) -> Result<RepositoryOrder, AppError> {
        if self.config.pool.repository.is_none() {
            return Ok(RepositoryOrder { revision: NO_REPOSITORY, settings: None });
        }
        let order = lock(&self.repository).order.clone();
        order.ok_or_else(|| AppError::Unavailable("the repository was not reached yet: ask again".to_owned()))
    }

    /// The repository as operators see it. `nodes` has what the nodes with these names said.
    pub(super) fn repository_view(&self, nodes: &[(String, RepositoryUse)]) -> Option<PoolRepository> {
        let configured = self.config.pool.repository.as_ref()?;
        let here = lock(&self.repository).trouble.clone().or_else(|| {
            let trouble = self.pool.repository().and_then(|repository| repository.trouble());
            trouble.map(|trouble| trouble.error.to_string())
        });
        let mut trouble: Vec<String> = here.into_iter().map(|why| format!("controller: {why}")).collect();
        trouble.extend(nodes.iter().filter_map(|(name, usage)| Some(format!("{name}: {}", usage.trouble.as_ref()?))));
        let sum = |of: fn(&RepositoryUse) -> u64| nodes.iter().map(|(_, usage)| of(usage)).fold(0, u64::saturating_add);
        let amount = |of: fn(&RepositoryUse) -> ObjectAmount| {
            nodes.iter().map(|(_, usage)| of(usage)).fold(ObjectAmount::default(), |sum, one| ObjectAmount {
                objects: sum.objects.saturating_add(one.objects),
                bytes: sum.bytes.saturating_add(one.bytes),
            })
        };
        let behind = amount(|usage| usage.behind);
        // Several nodes may know of the same.
        let missing_objects = nodes.iter().map(|(_, usage)| usage.missing_objects).max().unwrap_or(0);
        if missing_objects > 0 {
            trouble.push(format!("of {missing_objects} objects it has no good body, and no node has a copy"));
        }
        let unchecked_objects = sum(|usage| usage.unchecked_objects);
        let slash = if configured.prefix.is_empty() { "" } else { "/" };
        Some(PoolRepository {
            state: match (trouble.is_empty(), behind.objects + unchecked_objects) {
                (false, _) => RepositoryState::Failing,
                (true, 0) => RepositoryState::Ok,
                (true, _) => RepositoryState::Behind,
            },
            url: format!("s3://{}{slash}{}", configured.bucket, configured.prefix),
            write: match configured.write {
                WriteMode::Behind => RepositoryWrite::Behind,
                WriteMode::Through => RepositoryWrite::Through,
            },
            evict: configured.evict,
            trouble,
            behind,
            oldest_behind_s: nodes.iter().filter_map(|(_, usage)| usage.oldest_behind_s).max(),
            unchecked_objects,
            uploaded: amount(|usage| usage.uploaded),
            fetched: amount(|usage| usage.fetched),
            deleted_objects: sum(|usage| usage.deleted_objects),
            evicted: amount(|usage| usage.evicted),
            missing_objects,
        })
    }
}
