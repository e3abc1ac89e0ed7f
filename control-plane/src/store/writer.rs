//! One transaction writes at a time, and several of them share one commit.
//!
//! ```text
//!  caller 1 ──work──┐
//!  caller 2 ────────┴─work──┐                  one transaction of the database, one sync of its log
//!  caller 3 ────────────────┴─work──► commit ──► all three are answered
//! ```
//! A commit waits for the disk, and that takes longer than most of the work. So a caller whose work is done leaves the
//! transaction open if others are waiting, and they go on in it. Nobody is answered before the commit, and if it fails all
//! of them fail. The work of each is a savepoint: what is refused, or given up because its caller went away, is undone
//! alone. A commit is a task of its own, so no caller that goes away leaves the others in doubt.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{Mutex, OwnedMutexGuard, watch};

use super::{
    backend::ACQUIRE_TIMEOUT,
    error::StoreError,
    events, nodes, promises,
    tx::{Mark, Tx},
};
use crate::wake::Wakes;

/// Most callers whose work is in one commit.
const BATCH_MAX: usize = 64;
/// Age after which a transaction takes no more callers, so that the first does not wait long for the last.
const BATCH_AGE: Duration = Duration::from_millis(30);

/// The turn to write.
#[derive(Debug, Default)]
pub(super) struct Writer {
    open: Arc<Mutex<Option<Batch>>>,
    /// Callers that wait for their turn.
    waiting: AtomicUsize,
}

/// What became of the commit; `None` while it is not known.
type Outcome = Option<Result<(), Arc<StoreError>>>;

/// The open transaction with the work of several callers.
#[derive(Debug)]
struct Batch {
    tx: Tx,
    begun: Instant,
    /// Callers whose work is in it.
    members: usize,
    /// What to go back to if the work under way is given up; `None` if none is under way.
    before: Option<Mark>,
    outcome: watch::Sender<Outcome>,
}

type Open = OwnedMutexGuard<Option<Batch>>;

/// Somebody's turn to write. If it is dropped before [`Turn::done`], its work is undone.
pub(super) struct Turn(Option<Open>);

impl Drop for Turn {
    fn drop(&mut self) {
        if let (Some(mut open), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move { undo(&mut open).await });
        }
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Writer {
    /// Waits for the turn. With `alone` the work is not in one transaction with that of others: others do not have to wait
    /// for work that takes long.
    pub(super) async fn turn(
        &self,
        alone: bool,
        wakes: &Wakes,
        begin: impl AsyncFnOnce() -> Result<Tx, StoreError>,
        renew: impl FnOnce(&mut Tx),
    ) -> Result<Turn, StoreError> {
        let mut open = {
            self.waiting.fetch_add(1, Ordering::Relaxed);
            let _waiting = Waiting(&self.waiting);
            self.lock().await?
        };
        if alone && open.is_some() {
            let wakes = wakes.clone();
            let committed = tokio::spawn(async move {
                commit(&mut open, &wakes).await;
                open
            });
            open = committed.await.map_err(|error| StoreError::Setup(format!("a commit failed: {error}")))?;
        }
        undo(&mut open).await;
        if open.is_none() {
            let (outcome, _) = watch::channel(None);
            *open = Some(Batch { tx: begin().await?, begun: Instant::now(), members: 0, before: None, outcome });
        }
        let batch = open.as_mut().expect("it was just begun");
        renew(&mut batch.tx);
        if batch.members > 0
            && let Err(error) = sqlx::raw_sql("SAVEPOINT work").execute(batch.tx.conn()).await
        {
            return Err(fail(&mut open, error.into()).await);
        }
        batch.before = Some(batch.tx.mark());
        Ok(Turn(Some(open)))
    }

    async fn lock(&self) -> Result<Open, StoreError> {
        let turn = tokio::time::timeout(ACQUIRE_TIMEOUT, self.open.clone().lock_owned()).await;
        turn.map_err(|_| StoreError::Database(sqlx::Error::PoolTimedOut))
    }

    /// Whether somebody waits for the turn.
    pub(super) fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Gives up what is open. Nobody waits for it.
    pub(super) async fn close(&self) {
        if let Some(batch) = self.open.lock().await.take() {
            batch.tx.roll_back().await;
        }
    }
}

impl Turn {
    /// The transaction.
    pub(super) fn tx(&mut self) -> &mut Tx {
        let open = self.0.as_mut().expect("only its end takes the transaction");
        &mut open.as_mut().expect("a turn has a transaction").tx
    }

    /// The work is done. If the turn is `wanted` by others, they may go on in the same transaction. Returns when it is
    /// committed.
    pub(super) async fn done(mut self, wanted: bool, wakes: &Wakes) -> Result<(), StoreError> {
        let mut open = self.0.take().expect("only its end takes the transaction");
        let batch = open.as_mut().expect("a turn has a transaction");
        batch.before = None;
        batch.members += 1;
        let mut outcome = batch.outcome.subscribe();
        let goes_on = wanted && batch.members < BATCH_MAX && batch.begun.elapsed() < BATCH_AGE;
        let wakes = wakes.clone();
        if goes_on {
            let first = (batch.members == 1).then_some(batch.begun);
            let writer = OwnedMutexGuard::mutex(&open).clone();
            drop(open);
            if let Some(begun) = first {
                // Those that wait now get their turn first. Whatever becomes of them, the transaction is committed then.
                tokio::spawn(async move {
                    let mut open = writer.lock_owned().await;
                    if open.as_ref().is_some_and(|batch| batch.begun == begun) {
                        commit(&mut open, &wakes).await;
                    }
                });
            }
        } else {
            tokio::spawn(async move { commit(&mut open, &wakes).await });
        }
        let told = outcome.wait_for(Option::is_some).await.map(|told| told.clone());
        match told {
            Ok(Some(Ok(()))) => Ok(()),
            Ok(Some(Err(error))) => Err(StoreError::Shared(error)),
            Ok(None) | Err(_) => Err(StoreError::Setup("a commit ended without an outcome".to_owned())),
        }
    }

    /// The work is refused: it is undone, and what others did stays.
    pub(super) async fn undone(mut self) {
        let mut open = self.0.take().expect("only its end takes the transaction");
        undo(&mut open).await;
    }
}

/// Undoes the work under way.
async fn undo(open: &mut Open) {
    let Some(batch) = open.as_mut() else { return };
    let Some(before) = batch.before.take() else { return };
    if batch.members == 0 {
        if let Some(batch) = open.take() {
            batch.tx.roll_back().await;
        }
        return;
    }
    batch.tx.back_to(before);
    let undo = "ROLLBACK TO SAVEPOINT work; RELEASE SAVEPOINT work";
    if let Err(error) = sqlx::raw_sql(undo).execute(batch.tx.conn()).await {
        fail(open, error.into()).await;
    }
}

/// The transaction is broken. All whose work is in it are told.
async fn fail(open: &mut Open, error: StoreError) -> StoreError {
    let error = Arc::new(error);
    if let Some(batch) = open.take() {
        batch.tx.roll_back().await;
        batch.outcome.send_replace(Some(Err(error.clone())));
    }
    StoreError::Shared(error)
}

async fn commit(open: &mut Open, wakes: &Wakes) {
    undo(open).await;
    let Some(Batch { mut tx, outcome, .. }) = open.take() else { return };
    let done = async {
        events::insert_appended(&mut tx).await?;
        nodes::raise_bumped(&mut tx).await?;
        promises::write(&mut tx).await?;
        tx.commit(wakes).await
    };
    outcome.send_replace(Some(done.await.map_err(Arc::new)));
}
