//! The database: everything that outlives the process. SQLite and PostgreSQL get the same SQL text (`sqlx::Any`,
//! columns of type TEXT and BIGINT only).
//!
//! - [`Store::run_tx`] is the only way to write. One transaction writes at a time on both databases, serializable. The
//!   closure runs once and does only database work, because all other writes wait for it.
//! - [`Store::read`] reads one consistent snapshot. Writing in it fails.
//! - `seq`: every listed row and every event takes one with [`Tx::next_seq`] in its write transaction. The order of
//!   `seq` is the order of commits (see `backend.rs`), so lists, page tokens, `as_of` and the event stream use it.
//! - Wakes asked for with [`Tx::wake`] or by [`events::append`] and [`Tx::bump_desired`] happen after the commit.
//!   A wake says "look" and carries no data, so a lost one costs only a delay.
//! - Every mutable row has `revision`: `UPDATE … SET revision = revision + 1 WHERE id = $1 AND revision = $2`. If that
//!   changes no row, it is a [`StoreError::Conflict`].
//!
//! One file per table: SQL is a const beside its function, first line `-- table.what`, `$1 $2`. The columns of a table
//! are listed once: with `row::columns!` for a struct whose fields they are, otherwise in the `SELECT` of its `Row`.
//! `SUM` and `COUNT` are written `CAST(… AS BIGINT)`; booleans are BIGINT 0 and 1; no `EXISTS` in a select list.
//!
//! ```ignore
//! // app/images.rs
//! let image = self.store.run_tx("images.create", async |tx| {
//!     let seq = tx.next_seq().await?;
//!     images::insert(tx, &image, seq).await?;                       // &mut Tx; `tx.conn()` for sqlx, `tx.now()` for time
//!     events::append(tx, NewEvent { … }).await?;
//!     tx.wake(Loop::Deployments);
//!     Ok::<_, AppError>(image)
//! }).await?;
//! ```

mod backend;
pub mod boot_orders;
pub(crate) mod bulk;
pub mod cluster;
pub mod column;
mod copy;
pub mod deployments;
pub mod disks;
mod error;
pub mod events;
pub mod found;
pub mod guests;
pub mod idempotency;
pub mod images;
pub mod instances;
pub mod keepers;
mod migrations;
pub mod networks;
pub mod nics;
pub mod nodes;
pub mod old_versions;
pub mod operations;
pub mod pool_settings;
mod position;
pub mod promises;
pub mod protections;
pub mod readers;
pub mod restores;
pub mod roots;
mod row;
pub mod salvage;
pub mod security_groups;
pub mod seeds;
pub mod sessions;
pub mod sign_in_links;
pub mod snapshots;
pub mod sweep;
pub mod tokens;
mod tx;
pub mod uploads;
pub mod versions;
pub mod words;
mod writer;

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Instant,
};

use sqlx::{Any, AnyPool, Transaction};
use storage_core::lock;

use self::{backend::Backend, writer::Writer};
pub use self::{
    backend::DatabaseUrl,
    bulk::Filter,
    copy::copy_sqlite,
    error::{StoreError, TxError},
    position::{History, NoPosition, Position, Seal},
    tx::Tx,
};
use crate::{clock::Clock, wake::Wakes};

/// How long `?deleted=true` shows what was deleted, milliseconds.
pub const DELETED_SHOWN_MS: i64 = 24 * 3600 * 1000;

/// How often a transaction waits for its turn to write before the error is reported. Each time it waits for the busy
/// timeout.
const ATTEMPTS: u32 = 3;

/// The database. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    backend: Backend,
    writer: Arc<Writer>,
    clock: Arc<dyn Clock>,
    wakes: Wakes,
    /// The history of the database and the cluster's seal, known once the cluster's row was read. All clones share them.
    positions: Arc<Mutex<(History, Seal)>>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("backend", &self.backend).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the database and brings its schema up to date. A SQLite file that does not exist is made.
    pub async fn open(url: &DatabaseUrl, clock: Arc<dyn Clock>, wakes: Wakes) -> Result<Self, StoreError> {
        let backend = Backend::open(url).await?;
        migrations::run(&backend, clock.now()).await?;
        let writer = Arc::default();
        Ok(Self {
            backend,
            writer,
            clock,
            wakes,
            positions: Arc::new(Mutex::new((History::default(), Seal::new(&[0; 32])))),
        })
    }

    /// Positions belong to this history from now on.
    pub fn set_history(&self, history: History) {
        lock(&self.positions).0 = history;
    }

    /// Positions are written and read with this seal from now on. All controllers of the cluster have the same one.
    pub fn set_seal(&self, seal: Seal) {
        lock(&self.positions).1 = seal;
    }

    /// Writes positions as text and reads them.
    #[must_use]
    pub fn seal(&self) -> Seal {
        lock(&self.positions).1.clone()
    }

    /// The wakes that happen after commits.
    #[must_use]
    pub fn wakes(&self) -> &Wakes {
        &self.wakes
    }

    /// Runs a write transaction when it has its turn to write, and returns when it is committed. `name` names it in metrics
    /// and logs. Those that wait at the same time share a commit, see `writer.rs`.
    ///
    /// The closure runs exactly once. As one transaction writes at a time, no other can make it fail, so only waiting
    /// for the turn is retried. With `AsyncFnOnce` rather than `AsyncFn` the compiler also sees that the future is
    /// `Send` when the closure borrows from its surroundings.
    pub async fn run_tx<T, E, F>(&self, name: &'static str, work: F) -> Result<T, E>
    where
        E: TxError,
        F: AsyncFnOnce(&mut Tx) -> Result<T, E>,
    {
        self.write(name, false, work).await
    }

    /// As [`Store::run_tx`], for work that may take long: nobody's commit waits for it.
    pub async fn run_tx_alone<T, E, F>(&self, name: &'static str, work: F) -> Result<T, E>
    where
        E: TxError,
        F: AsyncFnOnce(&mut Tx) -> Result<T, E>,
    {
        self.write(name, true, work).await
    }

    async fn write<T, E, F>(&self, name: &'static str, alone: bool, work: F) -> Result<T, E>
    where
        E: TxError,
        F: AsyncFnOnce(&mut Tx) -> Result<T, E>,
    {
        let waited = Instant::now();
        let renew = |tx: &mut Tx| {
            let (history, seal) = lock(&self.positions).clone();
            tx.renew(self.clock.now(), history, seal);
        };
        let mut turn = self.writer.turn(alone, &self.wakes, async || self.begin(name).await, renew).await?;
        metrics::histogram!("muster_store_turn_seconds").record(waited.elapsed().as_secs_f64());
        let begun = Instant::now();
        let result = match work(turn.tx()).await {
            Ok(value) => {
                let wanted = !alone && self.writer.is_wanted();
                turn.done(wanted, &self.wakes).await.map(|()| value).map_err(E::from)
            }
            Err(error) => {
                turn.undone().await;
                Err(error)
            }
        };
        metrics::histogram!("muster_store_tx_seconds", "tx" => name).record(begun.elapsed().as_secs_f64());
        result
    }

    async fn begin(&self, name: &'static str) -> Result<Tx, StoreError> {
        let mut attempt = 1;
        loop {
            match self.begin_once().await {
                Err(error) if attempt < ATTEMPTS && error.is_transient() => {
                    metrics::counter!("muster_store_tx_retries_total", "tx" => name).increment(1);
                    tracing::debug!(tx = name, attempt, "another process is writing: waiting for the turn again");
                    attempt += 1;
                }
                other => return other,
            }
        }
    }

    async fn begin_once(&self) -> Result<Tx, StoreError> {
        let mut inner = self.backend.writers.begin_with(self.backend.begin_write()).await?;
        self.backend.take_turn(&mut inner).await?;
        Ok(self.tx(inner, true))
    }

    /// Reads from one consistent snapshot. What the closure writes is refused or lost.
    pub async fn read<T, E, F>(&self, name: &'static str, work: F) -> Result<T, E>
    where
        E: TxError,
        F: AsyncFnOnce(&mut Tx) -> Result<T, E>,
    {
        self.read_from(&self.backend.readers, name, work).await
    }

    /// As [`Store::read`], for heartbeats: on connections that nothing else uses.
    pub async fn read_for_heartbeat<T, E, F>(&self, name: &'static str, work: F) -> Result<T, E>
    where
        E: TxError,
        F: AsyncFnOnce(&mut Tx) -> Result<T, E>,
    {
        self.read_from(&self.backend.heartbeat_readers, name, work).await
    }

    async fn read_from<T, E, F>(&self, readers: &AnyPool, name: &'static str, work: F) -> Result<T, E>
    where
        E: TxError,
        F: AsyncFnOnce(&mut Tx) -> Result<T, E>,
    {
        let begun = Instant::now();
        let inner = readers.begin_with(self.backend.begin_read()).await.map_err(StoreError::from)?;
        let mut tx = self.tx(inner, false);
        let result = work(&mut tx).await;
        tx.roll_back().await;
        metrics::histogram!("muster_store_read_seconds", "read" => name).record(begun.elapsed().as_secs_f64());
        result
    }

    fn tx(&self, inner: Transaction<'static, Any>, writes: bool) -> Tx {
        let (history, seal) = lock(&self.positions).clone();
        Tx::new(inner, writes, self.clock.now(), history, seal)
    }

    /// Fails if the database does not answer.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.read("ping", async |tx| tx.position().await.map(|_| ())).await
    }

    /// Closes all connections. SQLite then writes its log into the database file.
    pub async fn close(&self) {
        self.writer.close().await;
        self.backend.readers.close().await;
        self.backend.heartbeat_readers.close().await;
        self.backend.writers.close().await;
    }
}
