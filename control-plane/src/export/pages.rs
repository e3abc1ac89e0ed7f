//! Runs operations on trees whose pages are in the pool. An operation names the pages it lacks; they are fetched, and
//! it runs again.

use std::{collections::HashMap, sync::Arc};

use muster_pool::PoolClient;
use storage_core::{
    Corrupt, ObjectName,
    tree::{Lookup, Page, Pages},
};
use tokio::time::Instant;

use super::ReadError;
use crate::domain::versions::Content;

/// Most pages kept in memory, about 9 KiB each. A dropped page is fetched again when it is needed.
const KEPT_MAX: usize = 2048;
/// Pages fetched in one request. An operation may lack thousands.
const FETCH_MAX: usize = 256;

/// The pages of one or more trees that were needed so far.
pub struct PageSource {
    pool: PoolClient,
    pages: HashMap<ObjectName, Arc<Page>>,
    fetched: usize,
    fetched_max: Option<usize>,
}

impl PageSource {
    /// A source that drops old pages for new ones. For operations that look at one part of a tree at a time.
    #[must_use]
    pub fn new(pool: PoolClient) -> Self {
        Self { pool, pages: HashMap::new(), fetched: 0, fetched_max: None }
    }

    /// A source that fetches at most `pages_max` pages in all. For operations that look at whole trees.
    #[must_use]
    pub fn bounded(pool: PoolClient, pages_max: usize) -> Self {
        Self { fetched_max: Some(pages_max), ..Self::new(pool) }
    }

    /// Adds the root page, which is kept in the database with the version.
    ///
    /// # Errors
    /// [`Corrupt`] if it does not decode.
    pub fn add_root(&mut self, content: &Content) -> Result<(), Corrupt> {
        if let (Some(name), Some(bytes)) = (content.descriptor().root, content.root_page()) {
            self.pages.insert(name, Arc::new(Page::decode(bytes)?));
        }
        Ok(())
    }

    /// Runs `operation` until it has all pages it needs, and returns its answer.
    ///
    /// # Errors
    /// [`ReadError`] if pages cannot be read by the deadline, do not fit the tree, or are more than the limit.
    pub async fn with<T, E>(
        &mut self,
        deadline: Instant,
        mut operation: impl FnMut(&Pages<'_>) -> Result<Lookup<T>, E>,
    ) -> Result<T, ReadError>
    where
        ReadError: From<E>,
    {
        loop {
            let missing = match operation(&|name| self.pages.get(name).cloned())? {
                Lookup::Found(answer) => return Ok(answer),
                Lookup::Missing(names) => names,
            };
            self.fetched += missing.len();
            if let Some(most) = self.fetched_max.filter(|most| self.fetched > *most) {
                return Err(ReadError::TooLarge(most));
            }
            // Pages are dropped here and not after the fetch, so that the ones this round brings are all there when
            // the operation runs again.
            if self.fetched_max.is_none() && self.pages.len() + missing.len() > KEPT_MAX {
                let spare = self.pages.len() / 2;
                let names: Vec<ObjectName> = self.pages.keys().copied().take(spare).collect();
                for name in names {
                    self.pages.remove(&name);
                }
            }
            for names in missing.chunks(FETCH_MAX) {
                for got in self.pool.get(names, deadline).await? {
                    self.pages.insert(got.object.name, Arc::new(Page::decode(&got.object.body)?));
                }
            }
        }
    }
}
