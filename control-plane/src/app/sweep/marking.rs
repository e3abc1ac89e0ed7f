//! Counting what the roots of a round reach. Pages are fetched from the pool: nothing that is counted was dropped yet.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures::{StreamExt as _, TryStreamExt as _};
use muster_pool::PoolError;
use storage_core::{
    Corrupt, Descriptor, ObjectName,
    census::{Census, CensusError, Direction},
    tree::Page,
};
use tokio::time::Instant;

use super::super::App;
use crate::store::{
    StoreError,
    roots::{self, Roots},
};

/// Pages whose children are counted in one transaction of the index. They are in memory: usually some 8 KiB each, and 1 MB where
/// somebody made the largest entries that there can be.
const BATCH_PAGES: usize = 256;
/// Pages fetched in one request. The largest that there can be come in time over a slow line, too.
const FETCH_PAGES: usize = 32;
/// Requests at a time.
const FETCHES: usize = 4;
/// Longest wait for the pages of one request.
const FETCH_WITHIN: Duration = Duration::from_secs(10);
/// Roots that are entered or left in one transaction.
const BATCH_ROOTS: usize = 4096;

/// Why a round cannot be counted now. Nothing of it is named to nodes.
#[derive(Debug, thiserror::Error)]
pub(super) enum MarkError {
    /// Pages of versions cannot be had.
    #[error("pages of versions that are needed cannot be read")]
    Pages(#[source] PoolError),
    /// A page is not what its name or its place says.
    #[error("page {page} of a version is damaged")]
    Page {
        /// Its name.
        page: ObjectName,
        /// What is wrong with it.
        source: Corrupt,
    },
    /// A page of a version that is not needed any more is lost, so what it reached cannot be taken back.
    #[error("page {0} of a version that was deleted is lost: everything is counted anew")]
    LostPage(ObjectName),
    /// The index failed.
    #[error(transparent)]
    Census(#[from] CensusError),
    /// The database failed.
    #[error("the roots cannot be read")]
    Store(#[from] StoreError),
    /// A root that was listed has no row any more.
    #[error("version {0} was listed and is not there")]
    NoRoot(ObjectName),
    /// The controller ends.
    #[error("the controller ends")]
    Closing,
    /// A thread failed.
    #[error("a thread of the count failed")]
    Thread(#[from] tokio::task::JoinError),
}

impl MarkError {
    /// Whether the index has to be opened again before it answers anything.
    pub(super) const fn is_of_the_disk(&self) -> bool {
        matches!(self, Self::Census(CensusError::Index { .. } | CensusError::Io { .. }))
    }

    /// Whether the index cannot be right any more.
    pub(super) const fn needs_new_census(&self) -> bool {
        matches!(self, Self::LostPage(_) | Self::Census(CensusError::Inconsistent { .. }))
    }
}

/// Runs something on the index in a thread that may block.
pub(super) async fn with<T: Send + 'static>(
    census: &Arc<Census>,
    ask: impl FnOnce(&Census) -> Result<T, CensusError> + Send + 'static,
) -> Result<T, MarkError> {
    let census = census.clone();
    Ok(tokio::task::spawn_blocking(move || ask(&census)).await??)
}

impl App {
    /// Counts what the roots reach, as round `round`. The answer is the number of objects that something needs, and whether
    /// there are others that something needed before.
    pub(super) async fn mark(&self, census: &Arc<Census>, round: u64, roots: Roots) -> Result<(u64, bool), MarkError> {
        let Roots { names, told, .. } = roots;
        let difference = with(census, move |census| {
            census.begin(round)?;
            census.difference(&names)
        })
        .await?;
        for names in difference.entering.chunks(BATCH_ROOTS) {
            let mut found = self.descriptors(names).await?;
            found.extend(names.iter().filter_map(|name| told.get(name)));
            let had: HashSet<ObjectName> = found.iter().map(Descriptor::name).collect();
            if let Some(name) = names.iter().find(|name| !had.contains(name)) {
                return Err(MarkError::NoRoot(*name));
            }
            with(census, move |census| census.enter(&found)).await?;
        }
        // First what is new: what it shares with what is gone stays counted. A page that cannot be had ends this for now.
        let entered = self.count(census, Direction::Enter).await;
        for names in difference.leaving.chunks(BATCH_ROOTS) {
            let names = names.to_vec();
            with(census, move |census| census.leave(&names)).await?;
        }
        self.count(census, Direction::Leave).await?;
        if let Err(error) = entered {
            tracing::debug!(error = &error as &dyn std::error::Error, "pages could not be had");
            // They may be those of a version that has just left.
            self.count(census, Direction::Enter).await?;
        }
        let progress = with(census, move |census| census.finish(round)).await?;
        Ok((progress.objects, progress.dead > 0))
    }

    async fn descriptors(&self, names: &[ObjectName]) -> Result<Vec<Descriptor>, StoreError> {
        self.store.read("roots.descriptors", async |tx| roots::descriptors(tx, names).await).await
    }

    /// Counts the children of all pages, or takes them back.
    async fn count(&self, census: &Arc<Census>, direction: Direction) -> Result<(), MarkError> {
        loop {
            if self.closing.is_cancelled() {
                return Err(MarkError::Closing);
            }
            let work = with(census, move |census| census.work(direction, BATCH_PAGES)).await?;
            if work.is_empty() {
                return Ok(());
            }
            // The parts are owned: with borrowed ones, rustc does not see that the stream is `Send`.
            let parts: Vec<Vec<ObjectName>> = work.chunks(FETCH_PAGES).map(<[ObjectName]>::to_vec).collect();
            let fetches =
                futures::stream::iter(parts).map(|part| self.pages(part, direction)).buffer_unordered(FETCHES);
            let pages: Vec<(ObjectName, Page)> = fetches.try_concat().await?;
            with(census, move |census| census.apply(&pages)).await?;
        }
    }

    async fn pages(&self, names: Vec<ObjectName>, direction: Direction) -> Result<Vec<(ObjectName, Page)>, MarkError> {
        let got = self.pool.get(&names, Instant::now() + FETCH_WITHIN).await.map_err(|error| match &error {
            PoolError::Lost { names } if direction == Direction::Leave => {
                MarkError::LostPage(*names.first().expect("at least one"))
            }
            _ => MarkError::Pages(error),
        })?;
        got.iter()
            .map(|got| {
                let page = got.object.name;
                let decoded = Page::decode(&got.object.body);
                Ok((page, decoded.map_err(|source| MarkError::Page { page, source })?))
            })
            .collect()
    }
}
