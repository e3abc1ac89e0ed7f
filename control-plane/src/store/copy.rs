//! A consistent copy of a SQLite database that may be in use.

use std::path::Path;

use sqlx::{Connection as _, Row as _, SqliteConnection, sqlite::SqliteConnectOptions};

use super::StoreError;

/// Copies the database at `from` to the new file `to`, and checks the copy. Others may use the database meanwhile: the copy
/// is its state at one instant.
///
/// # Errors
/// When `from` is no database or damaged, or `to` exists or cannot be written.
pub async fn copy_sqlite(from: &Path, to: &Path) -> Result<(), StoreError> {
    let to_text = to.to_str().ok_or_else(|| StoreError::Setup(format!("{}: the path is not UTF-8", to.display())))?;
    let mut source =
        SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(from).read_only(true)).await?;
    sqlx::query("VACUUM INTO $1").bind(to_text).execute(&mut source).await?;
    source.close().await?;
    let mut copy = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(to).read_only(true)).await?;
    let verdict: String = sqlx::query("PRAGMA integrity_check(1)").fetch_one(&mut copy).await?.try_get(0)?;
    copy.close().await?;
    if verdict == "ok" { Ok(()) } else { Err(StoreError::Setup(format!("the copy is damaged: {verdict}"))) }
}
