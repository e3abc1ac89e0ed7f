//! Events: appended in the transaction of the change that they tell and inserted at its commit, streamed in `seq` order,
//! kept 7 days.

use muster_api::{DeploymentId, Labels, NodeId, OperationId, event::Event, operation::Target};
use serde_json::Value;
use sqlx::any::AnyRow;

use super::{
    StoreError, Tx,
    bulk::{self, Conditions},
    column,
};

/// Days an event is kept.
pub const KEPT_DAYS: i64 = 7;

/// An event to append. Subscribers filter by `deployment`, `node` and `labels`.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// `image.created`, `instance.state`, …
    pub kind: &'static str,
    /// The project that owns the target.
    pub project: String,
    /// The thing that it happened to.
    pub target: Target,
    /// The operation that it belongs to.
    pub operation: Option<OperationId>,
    /// Who did it: a token's name, `node:NAME`, or `muster`.
    pub actor: String,
    /// Fields of its kind: `state`, `reason`, ids.
    pub data: Value,
    /// Labels of the target at this moment. Later changes of its labels do not change the event.
    pub labels: Labels,
    /// The deployment that it concerns.
    pub deployment: Option<DeploymentId>,
    /// The node that it concerns.
    pub node: Option<NodeId>,
}

impl NewEvent {
    /// An event by `muster` itself, without labels, data and relations. Set these with struct update syntax.
    #[must_use]
    pub fn new(kind: &'static str, project: impl Into<String>, target: Target) -> Self {
        Self {
            kind,
            project: project.into(),
            target,
            operation: None,
            actor: "muster".to_owned(),
            data: Value::Object(serde_json::Map::new()),
            labels: Labels::default(),
            deployment: None,
            node: None,
        }
    }
}

/// A stored event, with what subscribers filter by.
#[derive(Clone, Debug)]
pub struct StoredEvent {
    /// Its place in the order of all commits.
    pub seq: i64,
    /// The event as it is sent. Its `id` is its position.
    pub event: Event,
    /// The labels that the target had then.
    pub labels: Labels,
    /// The deployment that it concerns.
    pub deployment: Option<String>,
    /// The node that it concerns.
    pub node: Option<String>,
}

const INSERT: &str = "-- events.insert
INSERT INTO events (seq, time, kind, project, labels, target_kind, target_id, target_name, operation, deployment,
    node, actor, data)";

/// Appends an event; subscribers are woken after the commit.
pub async fn append(tx: &mut Tx, event: NewEvent) -> Result<(), StoreError> {
    let row = vec![
        tx.next_seq().await?.into(),
        tx.now().micros().into(),
        event.kind.into(),
        event.project.into(),
        column::json_text(&event.labels)?.into(),
        event.target.kind.into(),
        event.target.id.into(),
        event.target.name.into(),
        event.operation.map(|id| id.to_string()).into(),
        event.deployment.map(|id| id.to_string()).into(),
        event.node.map(|id| id.to_string()).into(),
        event.actor.into(),
        event.data.to_string().into(),
    ];
    tx.append_event(row)
}

/// Inserts what was appended.
pub(super) async fn insert_appended(tx: &mut Tx) -> Result<(), StoreError> {
    let rows = tx.take_events();
    bulk::run(tx, INSERT, rows, "").await.map(|_| ())
}

/// As [`append`], for many events.
pub async fn append_many(tx: &mut Tx, events: Vec<NewEvent>) -> Result<(), StoreError> {
    for event in events {
        append(tx, event).await?;
    }
    Ok(())
}

const SELECT: &str =
    "SELECT seq, time, kind, project, labels, target_kind, target_id, target_name, operation, deployment,
    node, actor, data FROM events";

/// The events after the place `seq`, oldest first, of one project or of all, about these things or about all.
pub async fn after(
    tx: &mut Tx,
    seq: i64,
    project: Option<&str>,
    targets: &[String],
    limit: usize,
) -> Result<Vec<StoredEvent>, StoreError> {
    let mut conditions = Conditions::default();
    conditions.compare("seq", ">", seq);
    if let Some(project) = project {
        conditions.compare("project", "=", project);
    }
    conditions.one_of("target_id", targets);
    let limit = i64::try_from(limit).expect("nobody reads 2^63 events at once");
    let rows = conditions.rows(tx, "events.after", SELECT, limit).await?;
    rows.iter().map(|row| from_row(tx, row)).collect()
}

fn from_row(tx: &Tx, row: &AnyRow) -> Result<StoredEvent, StoreError> {
    let seq = column::read(row, "seq")?;
    Ok(StoredEvent {
        seq,
        event: Event {
            id: tx.event_id(seq),
            time: column::read(row, "time")?,
            kind: column::read(row, "kind")?,
            project: column::read(row, "project")?,
            target: Target {
                kind: column::read(row, "target_kind")?,
                id: column::read(row, "target_id")?,
                name: column::read(row, "target_name")?,
            },
            operation: column::read(row, "operation")?,
            actor: column::read(row, "actor")?,
            data: column::read(row, "data")?,
        },
        labels: column::read(row, "labels")?,
        deployment: column::read(row, "deployment")?,
        node: column::read(row, "node")?,
    })
}

const FORGET: &str = "-- events.forget
DELETE FROM events WHERE time < $1";

const FORGOTTEN: &str = "-- events.forgotten
UPDATE sequence SET events_from = (SELECT COALESCE(MIN(seq), (SELECT s.seq FROM sequence s WHERE s.id = 1) + 1) FROM events)
WHERE id = 1";

/// Drops events older than [`KEPT_DAYS`]. Returns how many.
pub async fn forget_old(tx: &mut Tx) -> Result<u64, StoreError> {
    let before = tx.now().plus_ms(-KEPT_DAYS * 24 * 3600 * 1000).micros();
    let gone = sqlx::query(FORGET).bind(before).execute(tx.conn()).await?.rows_affected();
    if gone > 0 {
        sqlx::query(FORGOTTEN).execute(tx.conn()).await?;
    }
    Ok(gone)
}

const FROM: &str = "-- events.from
SELECT events_from FROM sequence WHERE id = 1";

/// The lowest place after which all events are still kept. A subscriber that is below it has missed some.
pub async fn kept_after(tx: &mut Tx) -> Result<i64, StoreError> {
    let row = sqlx::query(FROM).fetch_one(tx.conn()).await?;
    Ok(column::read::<i64>(&row, "events_from")? - 1)
}
