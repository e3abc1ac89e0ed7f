//! What this node does for the repository, the S3-compatible store that has the objects of the pool, too.
//!
//! ```text
//! heartbeat names a revision --> order fetched --> file --> client of the pool            (`follow.rs`)
//! objects that came, a pass over all own objects --> those that this node has to write
//!                                                   --> asked for or written --> index    (`uploads.rs`)
//! all keys of the repository, now and then       --> compared with the index              (`listing.rs`)
//! the disk is near full, if that is wanted       --> copies of what the repository has go (`evict.rs`)
//! what it should have and nothing has            --> told to the controller               (`lost.rs`)
//! objects that nothing needs (sweep)             --> a round later: deleted there         (`burial.rs`)
//! ```
//! Words: the *uploader* of an object is the best node that has it, its *keeper* the best node whether it has it or not
//! (`uploaders.rs` of the pool).
//!
//! What is promised:
//! - Every object of this node that it has to write is written sooner or later, also after a crash: a start begins with a pass.
//!   Nothing is lost while the repository cannot be used; what waits is counted and told.
//! - Only what nothing needs is deleted, and never what this node has. The argument is in `burial.rs`.
//! - No copy is given up but of an object that the repository was just seen to have. The argument is in `evict.rs`.
//! - Writing and deleting never overlap on one node, so that an object that is written after a deletion stays.
//! - Right after the membership record changed another node may still take itself for the keeper. What is written then is
//!   asked for once more when that is over, and nothing is deleted before.

mod burial;
mod evict;
mod follow;
mod fresh;
mod index;
mod listing;
mod lost;
mod order;
mod recent;
mod uploads;

use std::{
    collections::BTreeMap,
    future::Future,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use muster_api::{
    node::{ObjectAmount, RepositoryUse},
    node_protocol::repository::NO_REPOSITORY,
};
use muster_pool::{PoolClient, Repository, repository::RepositoryCounts};
use storage_core::{Backoff, ObjectName, lock, units::u64_from};
use tokio::{
    sync::{MutexGuard, watch},
    time::{Instant, sleep_until},
};
use tracing::{info, warn};

pub use fresh::Fresh;
pub use recent::Recent;

use self::{
    evict::Evicting,
    index::{Index, IndexError},
    lost::Lost,
    order::OrderFile,
    uploads::Waiting,
};
use super::share::PoolShare;
use crate::controller::ControllerClient;

/// The index, in the data folder.
const INDEX: &str = "repository.redb";
/// Time between two passes over all own objects when nothing happened.
const PASS_EVERY: Duration = Duration::from_secs(6 * 3600);
/// Pauses after the repository could not be used.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Time between two looks for bodies that turned out to be bad.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Longest time of one call to the repository.
const CALL: Duration = Duration::from_secs(60);

/// Waits of the keeper. Tests have shorter ones.
#[derive(Clone, Copy, Debug)]
pub struct KeeperWaits {
    /// How long after a change of the membership record another node may still act under the old one.
    pub settled: Duration,
    /// Time between two listings of all keys.
    pub list_every: Duration,
    /// Time between two looks at what is lost, and at a few of the objects that are here or were given up.
    pub look_every: Duration,
}

impl Default for KeeperWaits {
    fn default() -> Self {
        // A node hears of a new record with its next heartbeat, and ends what it does in the repository within a minute.
        Self {
            settled: Duration::from_secs(180),
            list_every: Duration::from_secs(7 * 86_400),
            look_every: Duration::from_secs(60),
        }
    }
}

/// What the keeper works with.
pub struct KeeperParts {
    /// The pool, with this node's share of it.
    pub pool: PoolClient,
    /// This node's share of the pool.
    pub share: Arc<PoolShare>,
    /// Whom to ask for the repository.
    pub controller: Arc<dyn ControllerClient>,
    /// Folder for what it keeps.
    pub data_dir: PathBuf,
    /// Its waits.
    pub waits: KeeperWaits,
}

/// What this node does for the repository.
pub struct Keeper {
    pool: PoolClient,
    share: Arc<PoolShare>,
    controller: Arc<dyn ControllerClient>,
    order: OrderFile,
    index_file: PathBuf,
    waits: KeeperWaits,
    /// The revision that the last heartbeat named.
    named: watch::Sender<Option<u64>>,
    /// The revision in use; none before the controller was heard for the first time.
    used: watch::Sender<Option<u64>>,
    /// Of the place in use.
    index: Mutex<Option<Arc<Index>>>,
    /// Held while the repository is written, or something is deleted there.
    writes: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

/// What is to be done, and what was done.
#[derive(Debug)]
struct State {
    /// Objects that this node has to write.
    waiting: BTreeMap<ObjectName, Waiting>,
    /// Came lately, and are first of all another node's to write.
    later: BTreeMap<ObjectName, Instant>,
    /// Written while the membership record was new.
    again: Vec<ObjectName>,
    /// Last object that the pass has seen, and how many it has seen; none while there is no pass.
    pass: Option<(Option<ObjectName>, u64)>,
    pass_at: Instant,
    /// The next first byte to be listed; none while nothing is listed.
    listing: Option<u8>,
    /// The newest membership record ([`PoolClient::record`]), and since when it is known here.
    record: (String, Instant),
    /// How far the eviction is.
    evicting: Evicting,
    /// What neither the repository nor a node has.
    lost: Lost,
    /// When a listing was begun because the repository lost something.
    doubted_at: Option<Instant>,
    /// Why the keeper itself fails, in words.
    trouble: Option<String>,
    /// Why nothing could be deleted the last time, in words.
    burial_trouble: Option<String>,
    /// What clients did that are not in use any more.
    before: RepositoryCounts,
    /// No try before this.
    try_at: Instant,
    backoff: Backoff,
}

/// Why work was broken off. It is tried again.
#[derive(Debug, thiserror::Error)]
enum KeeperError {
    #[error(transparent)]
    Repository(#[from] muster_pool::RepositoryError),
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error(transparent)]
    Store(#[from] storage_core::StoreError),
    #[error("the settings changed meanwhile")]
    OtherSettings,
    #[error("it had no turn in time, because writes to the repository took long")]
    Late,
}

impl Keeper {
    /// Of this node. What the controller said last is in use at once.
    #[must_use]
    pub fn open(parts: KeeperParts) -> Self {
        let KeeperParts { pool, share, controller, data_dir, waits } = parts;
        let now = Instant::now();
        let state = State {
            waiting: BTreeMap::new(),
            later: BTreeMap::new(),
            again: Vec::new(),
            pass: None,
            pass_at: now,
            listing: None,
            record: (pool.record(), now),
            evicting: Evicting::new(now),
            lost: Lost::new(now, waits.look_every),
            doubted_at: None,
            trouble: None,
            burial_trouble: None,
            before: RepositoryCounts::default(),
            try_at: now,
            backoff: Backoff::new(PAUSE.0, PAUSE.1),
        };
        let keeper = Self {
            pool,
            share,
            controller,
            order: OrderFile::new(&data_dir),
            index_file: data_dir.join(INDEX),
            waits,
            named: watch::Sender::new(None),
            used: watch::Sender::new(None),
            index: Mutex::default(),
            writes: tokio::sync::Mutex::default(),
            state: Mutex::new(state),
        };
        if let Some(order) = keeper.order.load() {
            keeper.use_order(order);
        }
        keeper
    }

    /// A heartbeat was answered: the revision that it names.
    pub fn heard(&self, revision: Option<u64>) {
        if revision.is_some() {
            self.named.send_if_modified(|named| std::mem::replace(named, revision) != revision);
        }
    }

    /// How it fares; none without a repository.
    #[must_use]
    pub fn usage(&self) -> Option<RepositoryUse> {
        let repository = self.pool.repository()?;
        let state = lock(&self.state);
        let counts = state.before.plus(repository.counts());
        let trouble = repository.trouble();
        let now = Instant::now();
        let seconds = |since: Instant| now.saturating_duration_since(since).as_secs();
        let behind = state.waiting.values();
        Some(RepositoryUse {
            behind: ObjectAmount {
                objects: u64_from(state.waiting.len() + self.share.fresh().waiting()),
                bytes: behind.clone().map(|waiting| waiting.stored_bytes).sum(),
            },
            oldest_behind_s: behind.map(|waiting| waiting.since).min().map(seconds),
            unchecked_objects: match state.pass {
                Some((_, seen)) => storage_core::store::ChunkStore::usage(&*self.share).objects.saturating_sub(seen),
                None => 0,
            },
            uploaded: ObjectAmount { objects: counts.uploaded_objects, bytes: counts.uploaded_bytes },
            fetched: ObjectAmount { objects: counts.fetched_objects, bytes: counts.fetched_bytes },
            deleted_objects: counts.deleted_objects,
            evicted: lock(&self.index).as_ref().map_or_else(ObjectAmount::default, |index| index.evicted_amount()),
            bad_bodies: counts.bad_bodies,
            missing_objects: state.lost.objects(),
            errors: counts.errors,
            trouble_s: trouble.as_ref().map(|trouble| seconds(trouble.since)),
            trouble: trouble
                .map(|trouble| trouble.error.to_string())
                .or_else(|| state.trouble.clone())
                .or_else(|| state.burial_trouble.clone()),
        })
    }

    /// Works for the repository. Never ends.
    pub async fn run(&self) {
        let mut used = self.used.subscribe();
        loop {
            self.share.fresh().want(self.pool.repository().is_some());
            match self.pool.repository() {
                Some(repository) => self.step(&repository).await,
                None => {
                    let _dropped = self.share.fresh().take();
                }
            }
            let next = self.next_at();
            tokio::select! {
                _ = used.changed() => {
                    let mut state = lock(&self.state);
                    state.try_at = Instant::now();
                    state.backoff.reset();
                }
                () = self.share.fresh().next() => {}
                () = sleep_until(next) => {}
            }
        }
    }

    /// Everything that can be done now. A failure ends it; what is left is tried again later.
    async fn step(&self, repository: &Arc<Repository>) {
        loop {
            self.look_at_record();
            let done = match self.index(repository).await {
                Ok(index) => self.some_work(repository, &index).await,
                Err(error) => Err(error),
            };
            let mut state = lock(&self.state);
            match done {
                Ok(Done::More) => {
                    state.trouble = None;
                    state.backoff.reset();
                }
                Ok(Done::All) => {
                    state.trouble = None;
                    state.backoff.reset();
                    return;
                }
                // The next step works with the new ones.
                Ok(Done::Resting) | Err(KeeperError::OtherSettings) => return,
                Err(error) => {
                    let text = error.to_string();
                    if state.trouble.as_ref() != Some(&text) {
                        warn!(error = text, "the repository does not get what it should have; it is tried again");
                    }
                    state.trouble = Some(text);
                    state.try_at = Instant::now() + state.backoff.pause();
                    return;
                }
            }
        }
    }

    /// One portion of work.
    async fn some_work(&self, repository: &Arc<Repository>, index: &Arc<Index>) -> Result<Done, KeeperError> {
        // What waits is found and counted also while the repository cannot be used.
        self.sort_fresh(repository, index).await?;
        let mut scanned = self.scan(index).await?;
        if Instant::now() < lock(&self.state).try_at {
            while scanned == Done::More {
                scanned = self.scan(index).await?;
            }
            return Ok(Done::Resting);
        }
        self.look_whether_it_works(repository).await?;
        self.replace_bad(repository, index).await?;
        // One of these that fails keeps none of the others from its portion.
        let uploaded = self.upload(repository, index).await;
        let listed = match uploaded {
            Ok(Done::All) => self.list(repository, index).await,
            _ => Ok(Done::All),
        };
        let evicted = self.evict(repository, index).await;
        let looked = self.look_for_lost(repository, index).await;
        let is_more = [scanned, uploaded?, listed?, evicted?, looked?].contains(&Done::More);
        Ok(if is_more { Done::More } else { Done::All })
    }

    /// After a call that failed, finds out whether the repository works again if nothing else would.
    async fn look_whether_it_works(&self, repository: &Repository) -> Result<(), KeeperError> {
        if repository.trouble().is_some() && lock(&self.state).waiting.is_empty() {
            repository.check(Instant::now() + CALL).await?;
        }
        Ok(())
    }

    fn next_at(&self) -> Instant {
        let state = lock(&self.state);
        let look = Instant::now() + LOOK_EVERY;
        match Instant::now() < state.try_at {
            true => state.try_at.min(look),
            false => look,
        }
    }

    /// Notes a new membership record. Everything is looked at again under it.
    fn look_at_record(&self) {
        let record = self.pool.record();
        let mut state = lock(&self.state);
        let now = Instant::now();
        if state.record.0 != record {
            state.record = (record, now);
            state.pass = Some((None, 0));
            state.listing = None;
        } else if now >= state.pass_at && state.pass.is_none() {
            state.pass = Some((None, 0));
        }
    }

    /// Whether all nodes that act at all act under the newest membership record.
    fn is_settled(&self) -> bool {
        let record = lock(&self.state).record.clone();
        record.0 == self.pool.record() && record.1.elapsed() >= self.waits.settled
    }

    /// Whether these are the settings in use.
    fn is_in_use(&self, repository: &Arc<Repository>) -> bool {
        self.pool.repository().is_some_and(|used| Arc::ptr_eq(&used, repository))
    }

    /// The turn to write or delete in the repository, if it still is the one in use then.
    async fn turn(&self, repository: &Arc<Repository>) -> Result<MutexGuard<'_, ()>, KeeperError> {
        let turn = self.writes.lock().await;
        if self.is_in_use(repository) { Ok(turn) } else { Err(KeeperError::OtherSettings) }
    }

    /// The index of the place in use.
    async fn index(&self, repository: &Arc<Repository>) -> Result<Arc<Index>, KeeperError> {
        let settings = repository.settings();
        let place = format!("{} {}", settings.endpoint.as_deref().unwrap_or("aws"), settings.url());
        if let Some(index) = lock(&self.index).clone().filter(|index| index.place() == place) {
            return Ok(index);
        }
        if !self.is_in_use(repository) {
            return Err(KeeperError::OtherSettings);
        }
        let file = self.index_file.clone();
        let opened = Arc::new(blocking(move || Index::open(&file, &place)).await?);
        let mut used = lock(&self.index);
        if !self.is_in_use(repository) {
            return Err(KeeperError::OtherSettings);
        }
        *used = Some(opened.clone());
        drop(used);
        // Whoever asks does not keep the file open.
        let index = Arc::downgrade(&opened);
        self.share.set_evicted(Some(Arc::new(move |names: &[ObjectName]| match index.upgrade() {
            Some(index) => Ok(index.evicted(names)?),
            None => Ok(vec![false; names.len()]),
        })));
        Ok(opened)
    }
}

/// What became of a portion of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    /// There is more of it.
    More,
    /// Nothing is left.
    All,
    /// What is left has to wait.
    Resting,
}

/// Works on a blocking thread.
fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> impl Future<Output = T> {
    let task = tokio::task::spawn_blocking(work);
    async move { task.await.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic())) }
}
