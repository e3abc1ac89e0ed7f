//! An open transaction: what it reads and writes through, the places it takes, and whom its commit wakes.
//!
//! Events, the next revisions of nodes' desired states and what nodes promise to instances are written at the commit,
//! together (`writer.rs`): a statement costs a way to the database's thread and back, and one transaction has the work of
//! many callers. Nobody reads events in a transaction that appends some; `nodes::desired_revision` and `promises` count what
//! the commit will add.

use muster_api::{NodeId, Timestamp};
use sqlx::{Any, AnyConnection, Row as _, Transaction};

use super::{
    column::Cell,
    error::StoreError,
    position::{History, Position, Seal},
};
use crate::{
    domain::promised::{Changes, Promised},
    wake::{Loop, Wakes},
};

/// The wakes that happen once the transaction is committed.
#[derive(Clone, Debug, Default)]
struct After {
    events: bool,
    loops: Vec<Loop>,
    /// The desired states of these nodes get their next revision at the commit.
    nodes: Vec<NodeId>,
    operations: bool,
    revoked: bool,
}

/// An open transaction. It is rolled back if it is dropped without a commit.
#[derive(Debug)]
pub struct Tx {
    inner: Transaction<'static, Any>,
    writes: bool,
    now: Timestamp,
    history: History,
    seal: Seal,
    /// The last place that it took; `None` if it took none.
    seq: Option<i64>,
    after: After,
    /// Rows of events to be inserted at the commit.
    events: Vec<Vec<Cell>>,
    /// What the commit changes of what nodes promise.
    promises: Changes,
}

/// What a transaction had done up to some moment, beside what the database knows.
#[derive(Debug)]
pub(super) struct Mark {
    seq: Option<i64>,
    after: After,
    events: usize,
    promises: Changes,
}

const POSITION: &str = "-- sequence.position
SELECT seq FROM sequence WHERE id = 1";

const ADVANCE: &str = "-- sequence.advance
UPDATE sequence SET seq = $1 WHERE id = 1";

impl Tx {
    pub(super) fn new(
        inner: Transaction<'static, Any>,
        writes: bool,
        now: Timestamp,
        history: History,
        seal: Seal,
    ) -> Self {
        let (after, promises) = (After::default(), Changes::default());
        Self { inner, writes, now, history, seal, seq: None, after, events: Vec::new(), promises }
    }

    /// The same transaction for the work of the next caller.
    pub(super) fn renew(&mut self, now: Timestamp, history: History, seal: Seal) {
        (self.now, self.history, self.seal) = (now, history, seal);
    }

    /// For sqlx: `sqlx::query(SQL).bind(…).execute(tx.conn())`.
    pub fn conn(&mut self) -> &mut AnyConnection {
        &mut self.inner
    }

    /// Whether it may write. What it reads is not committed then, and may never be.
    #[must_use]
    pub const fn writes(&self) -> bool {
        self.writes
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

    /// The id of the event at this place.
    #[must_use]
    pub fn event_id(&self, seq: i64) -> String {
        self.seal.event_id(self.at(seq))
    }

    /// A position as callers get it in page tokens and `as_of`.
    #[must_use]
    pub fn token(&self, position: Position) -> String {
        self.seal.token(position)
    }

    /// Writes positions as text and reads them.
    #[must_use]
    pub fn seal(&self) -> Seal {
        self.seal.clone()
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

    /// Gives the desired state of the node its next revision: its long-poll answers after the commit. Call it in every
    /// transaction that changes what is wanted of the node.
    pub fn bump_desired(&mut self, node: NodeId) {
        assert!(self.writes, "a reading transaction changed what is wanted of a node");
        if !self.after.nodes.contains(&node) {
            self.after.nodes.push(node);
        }
    }

    /// Adds the row of an event; subscribers are woken after the commit.
    pub(super) fn append_event(&mut self, row: Vec<Cell>) -> Result<(), StoreError> {
        if !self.writes {
            return Err(StoreError::Setup("a reading transaction cannot append an event".to_owned()));
        }
        self.events.push(row);
        self.after.events = true;
        Ok(())
    }

    /// The rows of events that are to be inserted now.
    pub(super) fn take_events(&mut self) -> Vec<Vec<Cell>> {
        std::mem::take(&mut self.events)
    }

    /// The nodes whose desired states get their next revision now.
    pub(super) fn bumped(&self) -> Vec<NodeId> {
        self.after.nodes.clone()
    }

    /// An instance that is promised this came from one node, or from none, to another, or to none.
    pub(super) fn move_promise(&mut self, from: Option<NodeId>, to: Option<NodeId>, promised: Promised) {
        assert!(self.writes, "a reading transaction moved an instance");
        self.promises.moved(from, to, promised);
    }

    /// What the commit changes of what nodes promise.
    pub(super) const fn promises(&self) -> &Changes {
        &self.promises
    }

    pub(super) fn mark(&self) -> Mark {
        let (after, promises) = (self.after.clone(), self.promises.clone());
        Mark { seq: self.seq, after, events: self.events.len(), promises }
    }

    /// Forgets what was done since the mark. The database is told by a savepoint.
    pub(super) fn back_to(&mut self, mark: Mark) {
        (self.seq, self.after, self.promises) = (mark.seq, mark.after, mark.promises);
        self.events.truncate(mark.events);
    }

    pub(super) fn wake_operations(&mut self) {
        self.after.operations = true;
    }

    pub(super) fn wake_revoked(&mut self) {
        self.after.revoked = true;
    }

    pub(super) async fn commit(mut self, wakes: &Wakes) -> Result<(), StoreError> {
        if let Some(seq) = self.seq {
            sqlx::query(ADVANCE).bind(seq).execute(self.conn()).await?;
        }
        // The wakes happen even if this future is dropped during the commit. One that comes too early costs one look.
        let _told = Told { after: std::mem::take(&mut self.after), wakes };
        self.inner.commit().await?;
        Ok(())
    }

    pub(super) async fn roll_back(self) {
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
        if self.after.revoked {
            self.wakes.token_revoked();
        }
        for node in &self.after.nodes {
            self.wakes.node(*node);
        }
        for which in &self.after.loops {
            self.wakes.reconcile(*which);
        }
    }
}
