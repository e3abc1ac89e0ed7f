//! The only file that knows which database is used: URL, session settings, how a transaction begins, which errors mean
//! that it may be run again. Everything else uses one SQL text.
//!
//! **One writer.** SQLite has one writer at a time anyway (a write pool of one connection, `BEGIN IMMEDIATE`). On
//! PostgreSQL each write transaction first locks the table `sequence` in exclusive mode. The lock takes no snapshot, so
//! the serializable snapshot begins when the transaction has its turn. Therefore the order of `seq` is the order of
//! commits on both, and a reader that has read up to a `seq` has missed nothing below it.

use std::{path::PathBuf, str::FromStr, time::Duration};

use sqlx::{
    AnyConnection, AnyPool, ConnectOptions as _,
    any::{AnyConnectOptions, AnyPoolOptions},
};

use super::StoreError;

/// Which database, and where. Its debug output hides the URL of PostgreSQL, because that may hold a password.
#[derive(Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// `sqlite:PATH`
    Sqlite(PathBuf),
    /// `postgres://…`
    Postgres(String),
}

impl std::fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Postgres(_) => f.write_str("postgres://***"),
        }
    }
}

impl FromStr for DatabaseUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() {
                Err("sqlite: needs a path".to_owned())
            } else {
                Ok(Self::Sqlite(path.into()))
            };
        }
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Ok(Self::Postgres(text.to_owned()));
        }
        Err("a database is sqlite:PATH or postgres://…".to_owned())
    }
}

/// Longest time that a statement waits for another process that has locked the SQLite file, milliseconds.
const BUSY_TIMEOUT_MS: u32 = 10_000;
/// Longest time that a caller waits for a connection. Writers queue here.
pub(super) const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(30);
/// Most readers at once. SQLite readers never wait for the writer; with more of them they only wait for the cores.
const READERS: u32 = 8;
/// Readers kept for heartbeats. They read a row or two, so few are enough for thousands of nodes.
const HEARTBEAT_READERS: u32 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flavor {
    Sqlite,
    Postgres,
}

/// The pools of one database.
#[derive(Clone, Debug)]
pub(super) struct Backend {
    flavor: Flavor,
    pub(super) writers: AnyPool,
    pub(super) readers: AnyPool,
    /// Nothing else uses these, so that no node looks silent because the controller is busy.
    pub(super) heartbeat_readers: AnyPool,
}

impl Backend {
    pub(super) async fn open(url: &DatabaseUrl) -> Result<Self, StoreError> {
        sqlx::any::install_default_drivers();
        let (flavor, text) = match url {
            DatabaseUrl::Sqlite(path) => (Flavor::Sqlite, format!("sqlite://{}?mode=rwc", escaped(path)?)),
            DatabaseUrl::Postgres(text) => (Flavor::Postgres, text.clone()),
        };
        let options = AnyConnectOptions::from_str(&text)?.disable_statement_logging();
        let (write_count, read_setting) = match flavor {
            Flavor::Sqlite => (1, Some("PRAGMA query_only = ON")),
            // One transaction writes, the second waits for its turn.
            Flavor::Postgres => (2, None),
        };
        let writers = pool(flavor, None).max_connections(write_count).connect_with(options.clone()).await?;
        let readers = pool(flavor, read_setting).max_connections(READERS).connect_with(options.clone()).await?;
        let heartbeat_readers =
            pool(flavor, read_setting).max_connections(HEARTBEAT_READERS).connect_with(options).await?;
        Ok(Self { flavor, writers, readers, heartbeat_readers })
    }

    pub(super) const fn begin_write(&self) -> &'static str {
        match self.flavor {
            Flavor::Sqlite => "BEGIN IMMEDIATE",
            Flavor::Postgres => "BEGIN ISOLATION LEVEL SERIALIZABLE",
        }
    }

    pub(super) const fn begin_read(&self) -> &'static str {
        match self.flavor {
            Flavor::Sqlite => "BEGIN",
            Flavor::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        }
    }

    /// Waits for the turn to write, as the head of this file explains.
    pub(super) async fn take_turn(&self, conn: &mut AnyConnection) -> Result<(), StoreError> {
        if self.flavor == Flavor::Postgres {
            sqlx::raw_sql("LOCK TABLE sequence IN EXCLUSIVE MODE").execute(conn).await?;
        }
        Ok(())
    }

    /// Looks up a table; each database has its own catalogue.
    pub(super) const fn table_exists(&self) -> &'static str {
        match self.flavor {
            Flavor::Sqlite => "SELECT name FROM sqlite_master WHERE type = 'table' AND name = $1",
            Flavor::Postgres => {
                "SELECT CAST(table_name AS TEXT) FROM information_schema.tables WHERE table_schema = current_schema() AND table_name = $1"
            }
        }
    }
}

fn pool(flavor: Flavor, extra: Option<&'static str>) -> AnyPoolOptions {
    // A connection to a file does not break, so it is not tested each time.
    let options = AnyPoolOptions::new().test_before_acquire(flavor == Flavor::Postgres);
    options.acquire_timeout(ACQUIRE_TIMEOUT).idle_timeout(None).max_lifetime(None).after_connect(move |conn, _| {
        Box::pin(async move {
            if flavor == Flavor::Sqlite {
                // SQLite keeps the pages that a savepoint may have to bring back. In a file (its default) they were most of what a
                // transaction of many callers wrote.
                let settings = format!(
                    "PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
                         PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY"
                );
                sqlx::raw_sql(sqlx::AssertSqlSafe(settings)).execute(&mut *conn).await?;
            }
            if let Some(setting) = extra {
                sqlx::raw_sql(setting).execute(&mut *conn).await?;
            }
            Ok(())
        })
    })
}

fn escaped(path: &std::path::Path) -> Result<String, StoreError> {
    let absolute = std::path::absolute(path).map_err(|e| StoreError::Setup(format!("{}: {e}", path.display())))?;
    let text =
        absolute.to_str().ok_or_else(|| StoreError::Setup(format!("{}: the path is not UTF-8", absolute.display())))?;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    Ok(out)
}

impl StoreError {
    /// Whether the same transaction may succeed when run again: somebody else wrote at the same time, nothing is
    /// broken.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        let error = match self {
            Self::Database(error) => error,
            Self::Shared(error) => return error.is_transient(),
            _ => return false,
        };
        match error.as_database_error().and_then(|e| e.code()) {
            // SQLITE_BUSY, _RECOVERY, _SNAPSHOT, _TIMEOUT, SQLITE_LOCKED; serialization_failure, deadlock_detected.
            Some(code) => matches!(code.as_ref(), "5" | "261" | "517" | "773" | "6" | "40001" | "40P01"),
            None => false,
        }
    }

    /// Whether the database has no room on its disk. Nothing was changed, and what is there is whole.
    #[must_use]
    pub fn is_full(&self) -> bool {
        match self {
            // SQLITE_FULL; disk_full.
            Self::Database(error) => error
                .as_database_error()
                .and_then(|e| e.code())
                .is_some_and(|code| matches!(code.as_ref(), "13" | "53100")),
            Self::Shared(error) => error.is_full(),
            _ => false,
        }
    }
}
