//! [`Repository`]: the S3-compatible store that has the objects of the pool, too, as this process reaches it.
//!
//! ```text
//! get      pool: nodes that should have the object -> repository -> all other nodes      (`get.rs` of the pool)
//! put      write through: repository and nodes side by side, both before the answer      (`put.rs` of the pool)
//!          write behind: the nodes that hold objects upload them later                   (`node-agent/src/peer/repository`)
//! ```
//! - A body is the record as it travels between nodes. It is verified before anyone sees it (I4): a bad one is asked for once
//!   more, then it counts as absent, is told as a trouble, and is listed by [`Repository::take_bad`], so that a node that
//!   has a good copy uploads it again.
//! - Every call ends at its caller's deadline. Within it the client repeats what the store answered with 429 or 5xx, and what
//!   broke off, with growing pauses that have jitter. Refused keys are not tried again by the call; the next one tries.
//! - *Absent* is only said when the store said it of the object. A bucket that is not there is a trouble.
//! - Nobody writes or deletes before the place is *claimed*: a note below the prefix says which cluster's it is, since a sweep
//!   would drop what only another cluster needs.
//!
//! There is no trait: tests replace the store behind its HTTP interface ([`testing`]), so that the real client is tested.

mod claim;
mod error;
mod figures;
mod keys;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::{
    BackoffConfig, ClientOptions, GetOptions, ObjectStore, ObjectStoreExt as _, PutPayload, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder, Checksum},
    path::Path,
};
use storage_core::{
    ObjectName, Record, lock,
    repository::{RepositorySettings, name_of_key},
    units::u64_from,
};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};
use tracing::warn;

pub use error::RepositoryError;
pub use figures::{RepositoryCounts, RepositoryTrouble};

use self::{figures::Figures, keys::fixed_keys};

/// Reads under way at a time.
const GETS: usize = 16;
/// Writes and questions under way at a time. Each write has a record in memory.
const PUTS: usize = 8;
/// Names in one request to delete; the protocol has no more.
pub const DELETE_NAMES_MAX: usize = 1000;
/// Bad bodies, and objects that are not there, that are remembered until somebody takes them.
const REMEMBERED_MAX: usize = 4096;
/// Longest time to a connection, and between two pieces of an answer.
const SILENCE: Duration = Duration::from_secs(10);
/// Longest time of one request. A record has at most 4 MiB.
const REQUEST: Duration = Duration::from_secs(30);
/// What is repeated within a call: how often at most, and for how long.
const REPEATS: (usize, Duration) = (8, Duration::from_secs(60));

/// An object that a listing found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its name.
    pub name: ObjectName,
    /// Length of its body: the record with its header, bytes.
    pub bytes: u64,
}

/// What is under the key of an object.
enum Body {
    Good(Record),
    Bad,
    Absent,
}

/// A client of the repository.
pub struct Repository {
    store: AmazonS3,
    settings: RepositorySettings,
    claimed: AtomicBool,
    gets: Semaphore,
    puts: Semaphore,
    figures: Figures,
    bad: Mutex<BTreeSet<ObjectName>>,
    absent: Mutex<BTreeSet<ObjectName>>,
}

impl std::fmt::Debug for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Repository").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Repository {
    /// A client for the place. Nothing is asked yet, and nothing may be written before it is claimed.
    ///
    /// # Errors
    /// [`RepositoryError::Settings`] when the client cannot be built from the settings.
    pub fn open(settings: RepositorySettings) -> Result<Self, RepositoryError> {
        let store = client(&settings)?;
        Ok(Self {
            store,
            settings,
            claimed: AtomicBool::new(false),
            gets: Semaphore::new(GETS),
            puts: Semaphore::new(PUTS),
            figures: Figures::default(),
            bad: Mutex::default(),
            absent: Mutex::default(),
        })
    }

    /// What it was opened with.
    #[must_use]
    pub fn settings(&self) -> &RepositorySettings {
        &self.settings
    }

    /// What it did since it was opened.
    #[must_use]
    pub fn counts(&self) -> RepositoryCounts {
        self.figures.counts()
    }

    /// Why the last calls failed; none while they work.
    #[must_use]
    pub fn trouble(&self) -> Option<RepositoryTrouble> {
        self.figures.trouble()
    }

    /// The objects whose bodies were bad since the last call. They have to be written again.
    #[must_use]
    pub fn take_bad(&self) -> BTreeSet<ObjectName> {
        std::mem::take(&mut *lock(&self.bad))
    }

    /// The objects that it was asked for since the last call and does not have. Some other place may have them.
    #[must_use]
    pub fn take_absent(&self) -> BTreeSet<ObjectName> {
        std::mem::take(&mut *lock(&self.absent))
    }

    /// Whether it may be written.
    #[must_use]
    pub fn is_claimed(&self) -> bool {
        self.claimed.load(Ordering::Acquire)
    }

    /// The object; none if the repository does not have it, or has a bad body under its key. The record is proven.
    ///
    /// # Errors
    /// When the repository cannot be asked until `deadline`.
    pub async fn get(&self, name: ObjectName, deadline: Instant) -> Result<Option<Record>, RepositoryError> {
        let looked = self.read(name, deadline).await?;
        match looked {
            Body::Good(record) => return Ok(Some(record)),
            Body::Bad => remember(&self.bad, name),
            Body::Absent => remember(&self.absent, name),
        }
        Ok(None)
    }

    /// As [`Repository::get`], and what it finds is not remembered for [`Repository::take_bad`] and
    /// [`Repository::take_absent`].
    ///
    /// # Errors
    /// As [`Repository::get`].
    pub async fn look(&self, name: ObjectName, deadline: Instant) -> Result<Option<Record>, RepositoryError> {
        let looked = self.read(name, deadline).await?;
        Ok(if let Body::Good(record) = looked { Some(record) } else { None })
    }

    async fn read(&self, name: ObjectName, deadline: Instant) -> Result<Body, RepositoryError> {
        let permit = timeout_at(deadline, self.gets.acquire()).await;
        let _permit = self.note(permit.map_err(|_| RepositoryError::busy()))?.expect("nobody closes it");
        for is_last in [false, true] {
            let body = self.note(self.body(name, deadline).await)?;
            let Some(body) = body else { return Ok(Body::Absent) };
            self.figures.fetched(u64_from(body.len()));
            match tokio::task::spawn_blocking(move || proven(name, &body)).await {
                Ok(Ok(record)) => return Ok(Body::Good(record)),
                Ok(Err(reason)) if is_last => {
                    warn!(object.name = %name, reason, "the repository has a bad body, it counts as absent");
                    self.figures.bad();
                }
                // It may have been damaged on its way.
                Ok(Err(_)) => {}
                Err(error) => return Err(RepositoryError::Unavailable(error.to_string())),
            }
        }
        Ok(Body::Bad)
    }

    async fn body(&self, name: ObjectName, deadline: Instant) -> Result<Option<Bytes>, RepositoryError> {
        let key = Path::from(self.settings.object_key(&name));
        let asked = async {
            let answer = match self.store.get_opts(&key, GetOptions::default()).await {
                Ok(answer) => answer,
                Err(error) => return RepositoryError::absent_or(error),
            };
            // A body that is too long cannot be a record, and is not read. It is told as bad like any other.
            if answer.meta.size > u64_from(Record::BYTES_MAX) {
                return Ok(Some(Bytes::new()));
            }
            answer.bytes().await.map(Some).map_err(RepositoryError::from)
        };
        timeout_at(deadline, asked).await.map_err(|_| RepositoryError::late())?
    }

    /// Length of the body of an object, bytes; none if the repository does not have it. The body is not read.
    ///
    /// # Errors
    /// As [`Repository::get`].
    pub async fn len(&self, name: ObjectName, deadline: Instant) -> Result<Option<u64>, RepositoryError> {
        let shown = self.shown_len(name, deadline).await?;
        if shown.is_some() {
            return Ok(shown);
        }
        let key = Path::from(self.settings.object_key(&name));
        let asked = async {
            let _permit = self.gets.acquire().await.expect("nobody closes it");
            match self.store.get(&key).await {
                Ok(answer) => Ok(Some(answer.meta.size)),
                Err(error) => RepositoryError::absent_or(error),
            }
        };
        self.note(timeout_at(deadline, asked).await.unwrap_or_else(|_| Err(RepositoryError::late())))
    }

    /// As [`Repository::len`] with one request less, for those to whom none means nothing but "write it". The answer to HEAD is
    /// a number without words, and a missing bucket has the number of a missing object.
    ///
    /// # Errors
    /// As [`Repository::get`].
    pub async fn shown_len(&self, name: ObjectName, deadline: Instant) -> Result<Option<u64>, RepositoryError> {
        let key = Path::from(self.settings.object_key(&name));
        let asked = async {
            let _permit = self.puts.acquire().await.expect("nobody closes it");
            match self.store.head(&key).await {
                Ok(meta) => Ok(Some(meta.size)),
                Err(error) => match RepositoryError::absent_or(error) {
                    // The answer to another question has the reason.
                    Err(refused @ RepositoryError::Refused(_)) => Err(self.owner().await.err().unwrap_or(refused)),
                    other => other,
                },
            }
        };
        let ended = timeout_at(deadline, asked).await.unwrap_or_else(|_| Err(RepositoryError::late()));
        // This may be a missing bucket: it does not show that the repository works.
        if matches!(ended, Ok(None)) { ended } else { self.note(ended) }
    }

    /// Writes an object. When it returns, the store has answered that it has all of it: it is sent with its SHA-256.
    ///
    /// # Errors
    /// When that is not certain at `deadline`. Repeating is free.
    pub async fn put(&self, record: &Record, deadline: Instant) -> Result<(), RepositoryError> {
        self.check_claimed()?;
        let key = Path::from(self.settings.object_key(&record.name()));
        let header = Bytes::copy_from_slice(&record.header().encode());
        let body = PutPayload::from_iter([header, record.stored().clone()]);
        let sent = async {
            let _permit = self.puts.acquire().await.expect("nobody closes it");
            self.store.put(&key, body).await.map(drop).map_err(RepositoryError::from)
        };
        self.note(timeout_at(deadline, sent).await.unwrap_or_else(|_| Err(RepositoryError::late())))?;
        self.figures.uploaded(u64_from(record.wire_len()));
        Ok(())
    }

    /// Writes those of the objects that the repository does not have.
    ///
    /// # Errors
    /// The first failure, when it is not certain of all of them at `deadline`.
    pub async fn put_absent(&self, records: &[Record], deadline: Instant) -> Result<(), RepositoryError> {
        let put = |record: &Record| {
            let record = record.clone();
            async move {
                if self.shown_len(record.name(), deadline).await? == Some(u64_from(record.wire_len())) {
                    return Ok(());
                }
                self.put(&record, deadline).await
            }
        };
        stream::iter(records.iter().map(put)).buffer_unordered(PUTS).try_collect().await
    }

    /// Deletes objects. Those that are not there count as deleted.
    ///
    /// # Errors
    /// When that is not certain of all of them at `deadline`. Repeating is free.
    pub async fn delete(&self, names: &[ObjectName], deadline: Instant) -> Result<(), RepositoryError> {
        self.check_claimed()?;
        for part in names.chunks(DELETE_NAMES_MAX) {
            let keys: Vec<_> = part.iter().map(|name| Ok(Path::from(self.settings.object_key(name)))).collect();
            let deleted = self.store.delete_stream(stream::iter(keys).boxed()).try_for_each(|_key| async { Ok(()) });
            let deleted = async { deleted.await.map_err(RepositoryError::from) };
            self.note(timeout_at(deadline, deleted).await.unwrap_or_else(|_| Err(RepositoryError::late())))?;
            self.figures.deleted(u64_from(part.len()));
        }
        Ok(())
    }

    /// All objects whose names begin with this byte, in no order. With all 256 of them the whole repository is listed; one has
    /// about 40 bytes in memory for each object.
    ///
    /// # Errors
    /// When the listing is not complete at `deadline`.
    pub async fn list(&self, first: u8, deadline: Instant) -> Result<Vec<Kept>, RepositoryError> {
        let shelf = Path::from(self.settings.shelf_key(first));
        let listed = self.store.list(Some(&shelf)).try_filter_map(|meta| async move {
            Ok(name_of_key(meta.location.as_ref()).map(|name| Kept { name, bytes: meta.size }))
        });
        let listed = async { listed.try_collect().await.map_err(RepositoryError::from) };
        self.note(timeout_at(deadline, listed).await.unwrap_or_else(|_| Err(RepositoryError::late())))
    }

    fn check_claimed(&self) -> Result<(), RepositoryError> {
        let why = "it is not certain yet that it belongs to this cluster";
        if self.is_claimed() { Ok(()) } else { Err(RepositoryError::Unavailable(why.to_owned())) }
    }

    /// Remembers how a call ended.
    fn note<T>(&self, ended: Result<T, RepositoryError>) -> Result<T, RepositoryError> {
        self.figures.note(ended.as_ref().err());
        ended
    }
}

fn remember(names: &Mutex<BTreeSet<ObjectName>>, name: ObjectName) {
    let mut names = lock(names);
    if names.len() < REMEMBERED_MAX {
        names.insert(name);
    }
}

fn proven(name: ObjectName, body: &Bytes) -> Result<Record, String> {
    let record = Record::decode(body).and_then(Record::prove).map_err(|error| error.to_string())?;
    if record.name() == name { Ok(record) } else { Err(format!("it is the object {}", record.name())) }
}

fn client(settings: &RepositorySettings) -> Result<AmazonS3, RepositoryError> {
    let wrong = |error: object_store::Error| RepositoryError::Settings(error.to_string());
    let mut options = ClientOptions::new()
        .with_allow_http(settings.allow_http)
        .with_connect_timeout(SILENCE)
        .with_read_timeout(SILENCE)
        .with_timeout(REQUEST);
    if let Some(pem) = &settings.ca_pem {
        for certificate in object_store::Certificate::from_pem_bundle(pem.as_bytes()).map_err(wrong)? {
            options = options.with_root_certificate(certificate);
        }
    }
    let backoff =
        BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(5), base: 2.0 };
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&settings.bucket)
        .with_region(&settings.region)
        .with_credentials(Arc::new(fixed_keys(&settings.keys)))
        .with_checksum_algorithm(Checksum::SHA256)
        .with_retry(RetryConfig { backoff, max_retries: REPEATS.0, retry_timeout: REPEATS.1 })
        .with_client_options(options);
    if let Some(endpoint) = &settings.endpoint {
        builder = builder.with_endpoint(endpoint.trim_end_matches('/'));
    }
    builder.build().map_err(wrong)
}

#[cfg(test)]
mod tests;
