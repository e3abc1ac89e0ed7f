//! Rounds and live uploads. They keep the sweep away from objects that no version reaches yet (I6).
//!
//! ```text
//!  begin (round = current) ──put, put, …──► publish (live, round >= current - 1) ──► end
//!                                    └──────────── broken, or its lease ran out ───► end: nothing is published
//! ```
//! No table says where an object is, and none says which objects an upload brought: each object carries its round.

use muster_api::{Timestamp, UploadId};
use sqlx::any::AnyRow;

use super::{StoreError, Tx, column};

/// What an upload is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UploadTarget {
    /// New content of an image. There is one at a time for each image.
    Image,
    /// The disks of a snapshot.
    Snapshot,
    /// One disk, of a node that was declared dead. `target_id` is its commit.
    Disk,
}

impl UploadTarget {
    const fn word(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Snapshot => "snapshot",
            Self::Disk => "disk",
        }
    }
}

/// An upload to begin.
#[derive(Clone, Debug)]
pub struct NewUpload {
    /// The project that owns the target.
    pub project: String,
    /// Kind of the thing that `target_id` names.
    pub target: UploadTarget,
    /// Id of the image, snapshot or commit, as text.
    pub target_id: String,
    /// End of the lease. Until then whoever began the upload renews it or ends it.
    pub until: Timestamp,
}

/// An upload that was begun. [`live`] tells whether versions may still be published under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upload {
    /// Drawn by [`begin`]. Nodes and publishing name the upload by it.
    pub id: UploadId,
    /// The round in which it began. Every object that it stores carries it.
    pub round: u64,
}

const CURRENT: &str = "-- rounds.current
SELECT current FROM rounds WHERE one = 1";

/// The current round, which new uploads begin in. Only [`begin_round`] raises it.
pub async fn current_round(tx: &mut Tx) -> Result<u64, StoreError> {
    column::read(&sqlx::query(CURRENT).fetch_one(tx.conn()).await?, "current")
}

const INSERT: &str = "-- uploads.insert
INSERT INTO uploads (id, project, target_kind, target_id, round, begun_at, until, seq)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";

/// Begins an upload in the current round. A second live one for the same image is a unique violation, so look with
/// [`live_of`] first.
pub async fn begin(tx: &mut Tx, new: &NewUpload) -> Result<Upload, StoreError> {
    let upload = Upload { id: UploadId::generate(), round: current_round(tx).await? };
    let (now, seq) = (tx.now(), tx.next_seq().await?);
    sqlx::query(INSERT)
        .bind(upload.id.to_string())
        .bind(&new.project)
        .bind(new.target.word())
        .bind(&new.target_id)
        .bind(column::int(upload.round))
        .bind(now.micros())
        .bind(new.until.micros())
        .bind(seq)
        .execute(tx.conn())
        .await?;
    Ok(upload)
}

const LIVE: &str = "-- uploads.live
SELECT u.id, u.round FROM uploads u JOIN rounds r ON r.one = 1
WHERE u.id = $1 AND u.ended_at IS NULL AND u.round >= r.current - 1";

/// The upload, if versions may be published under it: it is not ended and at most one round old.
pub async fn live(tx: &mut Tx, id: UploadId) -> Result<Option<Upload>, StoreError> {
    let row = sqlx::query(LIVE).bind(id.to_string()).fetch_optional(tx.conn()).await?;
    row.as_ref().map(from_row).transpose()
}

const LIVE_OF: &str = "-- uploads.live_of
SELECT id, round FROM uploads WHERE target_kind = $1 AND target_id = $2 AND ended_at IS NULL AND until >= $3
ORDER BY seq LIMIT 1";

/// The upload under way for a target whose lease has not run out.
pub async fn live_of(tx: &mut Tx, target: UploadTarget, id: &str) -> Result<Option<Upload>, StoreError> {
    let now = tx.now().micros();
    let row = sqlx::query(LIVE_OF).bind(target.word()).bind(id).bind(now).fetch_optional(tx.conn()).await?;
    row.as_ref().map(from_row).transpose()
}

const RENEW: &str = "-- uploads.renew
UPDATE uploads SET until = $2, revision = revision + 1 WHERE id = $1 AND ended_at IS NULL";

/// Extends the lease. False if the upload was ended, so that nothing of it can be published.
pub async fn renew(tx: &mut Tx, id: UploadId, until: Timestamp) -> Result<bool, StoreError> {
    let done = sqlx::query(RENEW).bind(id.to_string()).bind(until.micros()).execute(tx.conn()).await?;
    Ok(done.rows_affected() == 1)
}

const END: &str = "-- uploads.end
UPDATE uploads SET ended_at = $2, revision = revision + 1 WHERE id = $1 AND ended_at IS NULL";

/// Ends an upload, in the transaction that publishes or because nothing will be published. A repeated call changes
/// nothing.
pub async fn end(tx: &mut Tx, id: UploadId) -> Result<(), StoreError> {
    let now = tx.now().micros();
    sqlx::query(END).bind(id.to_string()).bind(now).execute(tx.conn()).await?;
    Ok(())
}

const END_OVERDUE: &str = "-- uploads.end_overdue
UPDATE uploads SET ended_at = $1, revision = revision + 1 WHERE ended_at IS NULL AND until < $1";

/// Ends the uploads whose lease ran out. Returns how many.
pub async fn end_overdue(tx: &mut Tx) -> Result<u64, StoreError> {
    let now = tx.now().micros();
    Ok(sqlx::query(END_OVERDUE).bind(now).execute(tx.conn()).await?.rows_affected())
}

const END_IMPORTS: &str = "-- uploads.end_imports
UPDATE uploads SET ended_at = $1, revision = revision + 1 WHERE ended_at IS NULL AND target_kind = 'image'";

/// Ends the uploads of image content. When the only controller starts, nobody is left who could finish one.
pub async fn end_imports(tx: &mut Tx) -> Result<u64, StoreError> {
    let now = tx.now().micros();
    Ok(sqlx::query(END_IMPORTS).bind(now).execute(tx.conn()).await?.rows_affected())
}

const NEXT_ROUND: &str = "-- rounds.advance
UPDATE rounds SET current = current + 1
WHERE one = 1 AND NOT EXISTS (SELECT u.id FROM uploads u WHERE u.ended_at IS NULL AND u.round < rounds.current)";

/// Begins the next round, unless a live upload is older than the current one. The sweep lists all roots in the same
/// transaction.
pub async fn begin_round(tx: &mut Tx) -> Result<Option<u64>, StoreError> {
    match sqlx::query(NEXT_ROUND).execute(tx.conn()).await?.rows_affected() {
        0 => Ok(None),
        _ => current_round(tx).await.map(Some),
    }
}

fn from_row(row: &AnyRow) -> Result<Upload, StoreError> {
    Ok(Upload { id: column::read(row, "id")?, round: column::read(row, "round")? })
}
