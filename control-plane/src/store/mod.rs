//! The database: everything that outlives the process. SQLite and PostgreSQL get the same SQL text (`sqlx::Any`,
//! columns of type TEXT and BIGINT only).
//!
//! - [`Store::run_tx`] is the only way to write. One transaction writes at a time on both databases, serializable. The
//!   closure runs once and does only database work, because all other writes wait for it.
//! - [`Store::read`] reads one consistent snapshot. Writing in it fails.
//! - `seq`: every listed row and every event takes one with [`Tx::next_seq`] in its write transaction. The order of
//!   `seq` is the order of commits (see `backend.rs`), so lists, page tokens, `as_of` and the event stream use it.
//! - Wakes asked for with [`Tx::wake`] or by [`events::append`] and [`nodes::bump_desired`] happen after the commit.
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
pub(crate) mod bulk;
pub mod cluster;
pub mod column;
mod copy;
pub mod deployments;
mod error;
pub mod events;
pub mod found;
pub mod idempotency;
pub mod images;
pub mod instances;
mod migrations;
pub mod nodes;
pub mod operations;
mod position;
mod row;
pub mod salvage;
pub mod snapshots;
pub mod tokens;
pub mod uploads;
pub mod versions;
pub mod words;

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Instant,
};

use muster_api::{NodeId, Timestamp};
use sqlx::{Any, AnyConnection, AnyPool, Row as _, Transaction};
use storage_core::lock;

use self::backend::Backend;
pub use self::{
    backend::DatabaseUrl,
    bulk::Filter,
    copy::copy_sqlite,
    error::{StoreError, TxError},
    position::{History, NoPosition, Position},
};
use crate::{
    clock::Clock,
    wake::{Loop, Wakes},
};

/// How long `?deleted=true` shows what was deleted, milliseconds.
pub const DELETED_SHOWN_MS: i64 = 24 * 3600 * 1000;

/// How often a transaction waits for its turn to write before the error is reported. Each time it waits for the busy
/// timeout.
const ATTEMPTS: u32 = 3;

/// The database. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    backend: Backend,
    clock: Arc<dyn Clock>,
    wakes: Wakes,
    /// The history of the database, known once the cluster's row was read. All clones share it.
    history: Arc<Mutex<History>>,
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
        Ok(Self { backend, clock, wakes, history: Arc::default() })
    }

    /// Positions belong to this history from now on.
    pub fn set_history(&self, history: History) {
        *lock(&self.history) = history;
    }

    /// The wakes that happen after commits.
    #[must_use]
    pub fn wakes(&self) -> &Wakes {
        &self.wakes
    }

    /// Runs a write transaction when it has its turn to write. `name` names it in metrics and logs.
    ///
    /// The closure runs exactly once. As one transaction writes at a time, no other can make it fail, so only waiting
    /// for the turn is retried. With `AsyncFnOnce` rather than `AsyncFn` the compiler also sees that the future is
    /// `Send` when the closure borrows from its surroundings.
    pub async fn run_tx<T, E, F>(&self, name: &'static str, work: F) -> Result<T, E>
    where
        E: TxError,
        F: AsyncFnOnce(&mut Tx) -> Result<T, E>,
    {
        let mut tx = self.turn(name).await?;
        let begun = Instant::now();
        let result = match work(&mut tx).await {
            Ok(value) => tx.commit(&self.wakes).await.map(|()| value).map_err(E::from),
            Err(error) => {
                tx.roll_back().await;
                Err(error)
            }
        };
        metrics::histogram!("muster_store_tx_seconds", "tx" => name).record(begun.elapsed().as_secs_f64());
        result
    }

    async fn turn(&self, name: &'static str) -> Result<Tx, StoreError> {
        let begun = Instant::now();
        let mut attempt = 1;
        loop {
            match self.begin().await {
                Err(error) if attempt < ATTEMPTS && error.is_transient() => {
                    metrics::counter!("muster_store_tx_retries_total", "tx" => name).increment(1);
                    tracing::debug!(tx = name, attempt, "another process is writing: waiting for the turn again");
                    attempt += 1;
                }
                other => {
                    metrics::histogram!("muster_store_turn_seconds").record(begun.elapsed().as_secs_f64());
                    return other;
                }
            }
        }
    }

    async fn begin(&self) -> Result<Tx, StoreError> {
        let mut inner = self.backend.writers.begin_with(self.backend.begin_write()).await?;
        self.backend.take_turn(&mut inner).await?;
        Ok(Tx { inner, now: self.clock.now(), history: *lock(&self.history), seq: None, after: After::default() })
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
        let mut tx =
            Tx { inner, now: self.clock.now(), history: *lock(&self.history), seq: None, after: After::default() };
        let result = work(&mut tx).await;
        tx.roll_back().await;
        metrics::histogram!("muster_store_read_seconds", "read" => name).record(begun.elapsed().as_secs_f64());
        result
    }

    /// Fails if the database does not answer.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.read("ping", async |tx| tx.position().await.map(|_| ())).await
    }

    /// Closes all connections. SQLite then writes its log into the database file.
    pub async fn close(&self) {
        self.backend.readers.close().await;
        self.backend.heartbeat_readers.close().await;
        self.backend.writers.close().await;
    }
}

/// The wakes that happen once the transaction is committed.
#[derive(Debug, Default)]
struct After {
    events: bool,
    loops: Vec<Loop>,
    nodes: Vec<NodeId>,
    operations: bool,
}

/// An open transaction. It is rolled back if it is dropped without a commit.
#[derive(Debug)]
pub struct Tx {
    inner: Transaction<'static, Any>,
    now: Timestamp,
    history: History,
    seq: Option<i64>,
    after: After,
}

const POSITION: &str = "-- sequence.position
SELECT seq FROM sequence WHERE id = 1";

const ADVANCE: &str = "-- sequence.advance
UPDATE sequence SET seq = $1 WHERE id = 1";

impl Tx {
    /// For sqlx: `sqlx::query(SQL).bind(…).execute(tx.conn())`.
    pub fn conn(&mut self) -> &mut AnyConnection {
        &mut self.inner
    }

    /// The time of this transaction. All its rows have the same.
    #[must_use]
    pub const fn now(&self) -> Timestamp {
        self.now
    }

    /// The next number in the one order of all listed rows and events.
    pub async fn next_seq(&mut self) -> Result<i64, StoreError> {
        // No other transaction can change the row, so it is read once and written once, at the commit.
        let next = match self.seq {
            Some(last) => last + 1,
            None => self.position().await? + 1,
        };
        self.seq = Some(next);
        Ok(next)
    }

    /// The position of a row or event.
    #[must_use]
    pub const fn at(&self, seq: i64) -> Position {
        Position { history: self.history, seq }
    }

    /// The position at which everything that this transaction reads is true (`as_of`).
    pub async fn as_of(&mut self) -> Result<Position, StoreError> {
        let seq = self.position().await?;
        Ok(self.at(seq))
    }

    /// The newest `seq` that this transaction sees.
    pub async fn position(&mut self) -> Result<i64, StoreError> {
        if let Some(seq) = self.seq {
            return Ok(seq);
        }
        Ok(sqlx::query(POSITION).fetch_one(self.conn()).await?.try_get("seq")?)
    }

    /// Wakes a reconcile loop after the commit.
    pub fn wake(&mut self, which: Loop) {
        if !self.after.loops.contains(&which) {
            self.after.loops.push(which);
        }
    }

    pub(in crate::store) fn wake_node(&mut self, node: NodeId) {
        if !self.after.nodes.contains(&node) {
            self.after.nodes.push(node);
        }
    }

    pub(in crate::store) fn wake_events(&mut self) {
        self.after.events = true;
    }

    pub(in crate::store) fn wake_operations(&mut self) {
        self.after.operations = true;
    }

    async fn commit(mut self, wakes: &Wakes) -> Result<(), StoreError> {
        if let Some(seq) = self.seq {
            sqlx::query(ADVANCE).bind(seq).execute(self.conn()).await?;
        }
        // The wakes happen even if this future is dropped during the commit. One that comes too early costs one look.
        let _told = Told { after: std::mem::take(&mut self.after), wakes };
        self.inner.commit().await?;
        Ok(())
    }

    async fn roll_back(self) {
        if let Err(error) = self.inner.rollback().await {
            tracing::debug!(error = &error as &dyn std::error::Error, "rollback failed; the connection is given up");
        }
    }
}

struct Told<'a> {
    after: After,
    wakes: &'a Wakes,
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if self.after.events {
            self.wakes.events();
        }
        if self.after.operations {
            self.wakes.operations();
        }
        for node in &self.after.nodes {
            self.wakes.node(*node);
        }
        for which in &self.after.loops {
            self.wakes.reconcile(*which);
        }
    }
}
