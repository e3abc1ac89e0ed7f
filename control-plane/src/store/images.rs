//! Images: named, numbered lines of versions. The newest version is looked up among the versions; it is no column.

use std::collections::BTreeMap;

use muster_api::{ImageId, Labels, Timestamp, etag, firmware::Firmware, image::Image};
use sqlx::any::AnyRow;

use super::{
    DELETED_SHOWN_MS, StoreError, Tx, bulk, column,
    row::{Row, select, select_one},
};
use crate::domain::images::Properties;

/// An image to make. It begins empty, without versions.
#[derive(Clone, Debug)]
pub struct NewImage {
    /// Its id.
    pub id: ImageId,
    /// Its name, which no other image of the project has.
    pub name: String,
    /// The project that owns it.
    pub project: String,
    /// Labels that users gave it.
    pub labels: Labels,
    /// Chunk size of its versions, bytes.
    pub chunk_bytes: u64,
    /// What is known of the system on it.
    pub properties: Properties,
}

/// The row of an image, with what the API does not show.
#[derive(Clone, Debug)]
pub struct ImageRow {
    /// The image as the API shows it.
    pub image: Image,
    /// What is known of the system on it.
    pub properties: Properties,
    /// Highest number that a version of it ever had.
    pub last_number: u64,
    /// Raised by each change; a save compares it.
    pub revision: i64,
    /// Its place in lists and in the order of all commits.
    pub seq: i64,
}

const INSERT: &str = "-- images.insert
INSERT INTO images (id, name, project, labels, state, chunk_bytes, created_at, updated_at, seq, properties)
VALUES ($1, $2, $3, $4, 'empty', $5, $6, $6, $7, $8)";

/// Makes an empty image. A taken name is a unique violation: look with [`by_name`] first.
pub async fn insert(tx: &mut Tx, new: &NewImage) -> Result<(), StoreError> {
    let (now, seq) = (tx.now(), tx.next_seq().await?);
    sqlx::query(INSERT)
        .bind(new.id.to_string())
        .bind(&new.name)
        .bind(&new.project)
        .bind(column::json_text(&new.labels)?)
        .bind(column::int(new.chunk_bytes))
        .bind(now.micros())
        .bind(seq)
        .bind(column::json_text(&new.properties)?)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// The image, deleted or not.
pub async fn load(tx: &mut Tx, id: ImageId) -> Result<Option<ImageRow>, StoreError> {
    select_one(tx, "images.load", "WHERE i.id = $1", [id.to_string().into()]).await
}

/// Images by state, of one project or all: for the summary.
pub async fn by_state(tx: &mut Tx, project: Option<&str>) -> Result<BTreeMap<String, u64>, StoreError> {
    bulk::by_state(tx, "images", project).await
}

/// The project's image of that name, if it is not deleted.
pub async fn by_name(tx: &mut Tx, project: &str, name: &str) -> Result<Option<ImageRow>, StoreError> {
    let rest = "WHERE i.project = $1 AND i.name = $2 AND i.deleted_at IS NULL";
    select_one(tx, "images.by_name", rest, [project.into(), name.into()]).await
}

/// Which images to list: those set must match.
#[derive(Clone, Debug, Default)]
pub struct ImageFilter {
    /// Owner; none for all projects (operators).
    pub project: Option<String>,
    /// Also the deleted ones of the last 24 hours.
    pub deleted: bool,
}

/// Up to `limit` images after position `after`, oldest first.
pub async fn list(tx: &mut Tx, filter: &ImageFilter, after: i64, limit: i64) -> Result<Vec<ImageRow>, StoreError> {
    let rest = "WHERE i.seq > $1 AND (CAST($2 AS TEXT) IS NULL OR i.project = $2)
  AND (i.deleted_at IS NULL OR (CAST($3 AS BIGINT) = 1 AND i.deleted_at >= $4))
ORDER BY i.seq LIMIT $5";
    let since = tx.now().plus_ms(-DELETED_SHOWN_MS).micros();
    let values = [after.into(), filter.project.clone().into(), filter.deleted.into(), since.into(), limit.into()];
    select(tx, "images.list", rest, values).await
}

const NUMBERED: &str = "-- images.numbered
UPDATE images SET state = 'ready', last_number = last_number + 1, updated_at = $3, revision = revision + 1
WHERE id = $1 AND revision = $2 AND deleted_at IS NULL";

/// Takes the image's next number for a version inserted in the same transaction.
pub async fn take_number(tx: &mut Tx, row: &ImageRow) -> Result<u64, StoreError> {
    let now = tx.now().micros();
    let query = sqlx::query(NUMBERED).bind(row.image.id.to_string()).bind(row.revision).bind(now);
    StoreError::unless_saved(&query.execute(tx.conn()).await?, "images", row.image.id)?;
    Ok(row.last_number + 1)
}

const SAVE: &str = "-- images.save
UPDATE images SET name = $3, labels = $4, updated_at = $5, properties = $6, revision = revision + 1
WHERE id = $1 AND revision = $2 AND deleted_at IS NULL";

/// Saves name, labels and properties. A [`StoreError::Conflict`] if the image was deleted or somebody else saved it meanwhile.
pub async fn save(tx: &mut Tx, row: &ImageRow) -> Result<(), StoreError> {
    let now = tx.now().micros();
    let query = sqlx::query(SAVE)
        .bind(row.image.id.to_string())
        .bind(row.revision)
        .bind(&row.image.name)
        .bind(column::json_text(&row.image.labels)?)
        .bind(now)
        .bind(column::json_text(&row.properties)?);
    StoreError::unless_saved(&query.execute(tx.conn()).await?, "images", row.image.id)
}

const SETTLE: &str = "-- images.settle
UPDATE images SET state = CASE WHEN (SELECT CAST(COUNT(*) AS BIGINT) FROM versions v
        WHERE v.image = images.id AND v.deleted_at IS NULL) = 0 THEN 'empty' ELSE 'ready' END,
    updated_at = $2, revision = revision + 1
WHERE id = $1 AND deleted_at IS NULL";

/// After one of its versions was deleted: empty again if it was the last.
pub async fn settle(tx: &mut Tx, id: ImageId) -> Result<(), StoreError> {
    let now = tx.now().micros();
    sqlx::query(SETTLE).bind(id.to_string()).bind(now).execute(tx.conn()).await?;
    Ok(())
}

const UNLINK: &str = "-- images.unlink
UPDATE images SET state = 'deleted', deleted_at = $3, updated_at = $3, revision = revision + 1
WHERE id = $1 AND revision = $2 AND deleted_at IS NULL";

/// Unlinks an image: its name is free at once.
pub async fn unlink(tx: &mut Tx, row: &ImageRow) -> Result<(), StoreError> {
    let now = tx.now().micros();
    let query = sqlx::query(UNLINK).bind(row.image.id.to_string()).bind(row.revision).bind(now);
    StoreError::unless_saved(&query.execute(tx.conn()).await?, "images", row.image.id)
}

impl Row for ImageRow {
    const SELECT: &'static str = "SELECT i.id, i.name, i.project, i.labels, i.state, i.reason, i.chunk_bytes,
    i.properties, i.last_number, i.created_at, i.updated_at, i.revision, i.seq, n.number AS newest_number, n.id AS newest_version,
    n.size_bytes AS newest_size, n.boot AS newest_boot, n.firmware AS newest_firmware,
    (SELECT CAST(COUNT(*) AS BIGINT) FROM versions c WHERE c.image = i.id AND c.deleted_at IS NULL) AS version_count
    FROM images i LEFT JOIN versions n ON n.image = i.id AND n.deleted_at IS NULL AND n.number =
        (SELECT MAX(m.number) FROM versions m WHERE m.image = i.id AND m.deleted_at IS NULL)";

    fn from_row(row: &AnyRow) -> Result<Self, StoreError> {
        let revision = column::read(row, "revision")?;
        let properties: Properties = column::read(row, "properties")?;
        let found: Option<Firmware> = column::read(row, "newest_firmware")?;
        Ok(Self {
            image: Image {
                id: column::read(row, "id")?,
                name: column::read(row, "name")?,
                project: column::read(row, "project")?,
                labels: column::read(row, "labels")?,
                state: column::read(row, "state")?,
                reason: column::read(row, "reason")?,
                created_at: column::read(row, "created_at")?,
                updated_at: column::read(row, "updated_at")?,
                etag: etag::of_revision(revision),
                chunk_bytes: column::read(row, "chunk_bytes")?,
                newest_number: column::read(row, "newest_number")?,
                newest_version: column::read(row, "newest_version")?,
                size_bytes: column::read(row, "newest_size")?,
                boot: column::read::<Option<_>>(row, "newest_boot")?.unwrap_or_default(),
                version_count: column::read(row, "version_count")?,
                os: properties.os.clone(),
                default_user: properties.default_user.clone(),
                min_disk_bytes: properties.min_disk_bytes,
                min_memory_bytes: properties.min_memory_bytes,
                firmware: properties.firmware.or(found).unwrap_or_default().into(),
            },
            properties,
            last_number: column::read(row, "last_number")?,
            revision,
            seq: column::read(row, "seq")?,
        })
    }
}

const FORGET: &str = "-- images.forget
DELETE FROM images WHERE deleted_at < $1 AND NOT EXISTS (SELECT 1 FROM versions v WHERE v.image = images.id)";

/// Drops images that were deleted before and of which no version is left. Returns how many.
pub async fn forget(tx: &mut Tx, before: Timestamp) -> Result<u64, StoreError> {
    Ok(sqlx::query(FORGET).bind(before.micros()).execute(tx.conn()).await?.rows_affected())
}
