//! How far the sweep is, what makes a round worth its while, and what keeps one from beginning.

use muster_api::{Timestamp, node_protocol::Incarnation};

use super::{StoreError, Tx, column};

/// The only row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SweepRow {
    /// The incarnation in which it was last allowed; `None` if it never had to be.
    pub allowed: Option<Incarnation>,
    /// When the newest round began.
    pub begun_at: Option<Timestamp>,
    /// Whether that round had something to give back.
    pub had_work: bool,
    /// The round that an operator waits for; 0 if none ever did.
    pub asked_round: u64,
}

impl SweepRow {
    /// Whether it may run in this incarnation. After a restore an operator has to allow it.
    #[must_use]
    pub fn is_allowed_in(&self, incarnation: Incarnation) -> bool {
        match self.allowed {
            None => incarnation.number == 1,
            Some(allowed) => allowed == incarnation,
        }
    }
}

const LOAD: &str = "-- sweep.load
SELECT allowed_number, allowed_random, begun_at, had_work, asked_round FROM sweep WHERE one = 1";

/// The row.
pub async fn load(tx: &mut Tx) -> Result<SweepRow, StoreError> {
    let row = sqlx::query(LOAD).fetch_one(tx.conn()).await?;
    let number: Option<u64> = column::read(&row, "allowed_number")?;
    let allowed = match number {
        Some(number) => Some(Incarnation { number, random: column::parse(&row, "allowed_random")? }),
        None => None,
    };
    Ok(SweepRow {
        allowed,
        begun_at: column::read(&row, "begun_at")?,
        had_work: column::read(&row, "had_work")?,
        asked_round: column::read(&row, "asked_round")?,
    })
}

const ALLOW: &str = "-- sweep.allow
UPDATE sweep SET allowed_number = $1, allowed_random = $2 WHERE one = 1";

/// Allows it in this incarnation.
pub async fn allow(tx: &mut Tx, incarnation: Incarnation) -> Result<(), StoreError> {
    let (number, random) = (column::int(incarnation.number), incarnation.random.to_string());
    sqlx::query(ALLOW).bind(number).bind(random).execute(tx.conn()).await?;
    Ok(())
}

const BEGUN: &str = "-- sweep.begun
UPDATE sweep SET begun_at = $1, had_work = $2 WHERE one = 1";

/// Notes that a round begins now.
pub async fn note_round(tx: &mut Tx, had_work: bool) -> Result<(), StoreError> {
    let now = tx.now().micros();
    sqlx::query(BEGUN).bind(now).bind(i64::from(had_work)).execute(tx.conn()).await?;
    Ok(())
}

const WORK: &str = "-- sweep.note_work
UPDATE sweep SET had_work = 1 WHERE one = 1";

/// Notes that the newest round has something to give back.
pub async fn note_work(tx: &mut Tx) -> Result<(), StoreError> {
    sqlx::query(WORK).execute(tx.conn()).await?;
    Ok(())
}

const ASK: &str = "-- sweep.ask
UPDATE sweep SET asked_round = $1 WHERE one = 1";

/// Notes that an operator waits for this round; 0 if nobody does any more.
pub async fn ask(tx: &mut Tx, round: u64) -> Result<(), StoreError> {
    sqlx::query(ASK).bind(column::int(round)).execute(tx.conn()).await?;
    Ok(())
}

const WASTED: &str = "-- sweep.wasted
SELECT CAST(CASE WHEN EXISTS (SELECT 1 FROM uploads u WHERE u.ended_at >= $1
    AND NOT EXISTS (SELECT 1 FROM versions v WHERE v.upload = u.id)) THEN 1 ELSE 0 END AS BIGINT) AS wasted";

/// Whether an upload has ended since then and published nothing: what it stored is not needed.
pub async fn wasted_since(tx: &mut Tx, since: Timestamp) -> Result<bool, StoreError> {
    column::read(&sqlx::query(WASTED).bind(since.micros()).fetch_one(tx.conn()).await?, "wasted")
}

/// The upload that keeps the next round from beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its id.
    pub upload: String,
    /// `image`, `snapshot`, or `disk` for one of a dead node.
    pub target_kind: String,
    /// Name of the image, of the snapshot, or of the instance that had the disk; the target's id if it has gone.
    pub target_name: String,
    /// The project that owns the target.
    pub project: String,
    /// When it began.
    pub begun_at: Timestamp,
}

const HOLDER: &str = "-- sweep.holder
SELECT u.id, u.target_kind, COALESCE(i.name, s.name, d.instance_name, u.target_id) AS target_name, u.project, u.begun_at
FROM uploads u JOIN rounds r ON r.one = 1 LEFT JOIN images i ON i.id = u.target_id LEFT JOIN snapshots s ON s.id = u.target_id
    LEFT JOIN salvage d ON d.commit_id = u.target_id
WHERE u.ended_at IS NULL AND u.round < r.current ORDER BY u.seq LIMIT 1";

/// The oldest live upload that is older than the current round.
pub async fn holder(tx: &mut Tx) -> Result<Option<Holder>, StoreError> {
    let Some(row) = sqlx::query(HOLDER).fetch_optional(tx.conn()).await? else { return Ok(None) };
    Ok(Some(Holder {
        upload: column::read(&row, "id")?,
        target_kind: column::read(&row, "target_kind")?,
        target_name: column::read(&row, "target_name")?,
        project: column::read(&row, "project")?,
        begun_at: column::read(&row, "begun_at")?,
    }))
}
