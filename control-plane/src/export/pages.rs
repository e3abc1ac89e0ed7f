//! Trees whose pages are in the pool: asked, fetched what is missing, asked again.

use std::{collections::HashMap, sync::Arc};

use muster_pool::PoolClient;
use storage_core::{
    Corrupt, ObjectName,
    tree::{Lookup, Page, Pages},
};
use tokio::time::Instant;

use super::ReadError;
use crate::domain::versions::Content;

/// Pages kept; each is about 9 KiB. What is dropped is fetched again.
const KEPT_MAX: usize = 2048;
/// Pages fetched at a time: a tree may miss thousands, and the pool answers batches.
const FETCH_MAX: usize = 256;

/// The pages of one or more trees, as far as they were needed.
pub struct PageSource {
    pool: PoolClient,
    pages: HashMap<ObjectName, Arc<Page>>,
    fetched: usize,
    fetched_max: Option<usize>,
}

impl PageSource {
    /// Nothing fetched yet; old pages make room for new ones. For operations that look at a part of a tree at a time.
    #[must_use]
    pub fn new(pool: PoolClient) -> Self {
        Self { pool, pages: HashMap::new(), fetched: 0, fetched_max: None }
    }

    /// Nothing fetched yet, and never more than `pages_max`. For operations that look at whole trees.
    #[must_use]
    pub fn bounded(pool: PoolClient, pages_max: usize) -> Self {
        Self { fetched_max: Some(pages_max), ..Self::new(pool) }
    }

    /// Takes the root page that a version row keeps.
    ///
    /// # Errors
    /// It does not decode.
    pub fn add_root(&mut self, content: &Content) -> Result<(), Corrupt> {
        if let (Some(name), Some(bytes)) = (content.descriptor().root, content.root_page()) {
            self.pages.insert(name, Arc::new(Page::decode(bytes)?));
        }
        Ok(())
    }

    /// Runs an operation on trees until it has all pages it needs.
    ///
    /// # Errors
    /// Pages that cannot be had by the deadline, or that are not what their place says.
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
            // Never between finding pages and using them: only what this round brings has to stay.
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
