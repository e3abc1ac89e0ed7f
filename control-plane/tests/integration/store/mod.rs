//! The store's conformance suite: the same checks on SQLite and on a PostgreSQL that the test starts itself, so that
//! the SQL stays one. A missing PostgreSQL fails the run; `MUSTER_ALLOW_SKIP=1` lets it be skipped, loudly.
#![expect(clippy::unwrap_used, reason = "tests")]

mod checks;
mod found;
mod images;
mod sessions;

use std::sync::Arc;

use muster_api::Timestamp;
use muster_controller::{
    clock::Clock,
    store::{DatabaseUrl, Store, StoreError},
    wake::Wakes,
};

use crate::clock::ManualClock;

/// A fresh database and its clock.
pub(crate) struct Fresh {
    pub(crate) url: DatabaseUrl,
    pub(crate) clock: ManualClock,
}

impl Fresh {
    pub(crate) fn new(url: DatabaseUrl) -> Self {
        Self { url, clock: ManualClock::at(Timestamp::from_micros(1_800_000_000_000_000)) }
    }

    /// Another process, as far as the database can tell.
    pub(crate) async fn open(&self) -> Store {
        let clock: Arc<dyn Clock> = Arc::new(self.clock.clone());
        Store::open(&self.url, clock, Wakes::default()).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_conforms() {
    for (name, check) in checks::ALL.iter().chain(images::ALL).chain(found::ALL).chain(sessions::ALL) {
        let dir = tempfile::tempdir().unwrap();
        // A path with characters that are special in URLs.
        let url = DatabaseUrl::Sqlite(dir.path().join("a b%20ü?.db"));
        eprintln!("sqlite: {name}");
        check(Fresh::new(url)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_conforms() {
    let server = match crate::postgres::Server::start() {
        Ok(server) => server,
        Err(why) if std::env::var_os("MUSTER_ALLOW_SKIP").is_some_and(|v| v == "1") => {
            eprintln!("SKIPPED: the suite did not run on PostgreSQL: {why}");
            return;
        }
        Err(why) => panic!("no PostgreSQL to test with: {why}"),
    };
    for (number, (name, check)) in
        checks::ALL.iter().chain(images::ALL).chain(found::ALL).chain(sessions::ALL).enumerate()
    {
        eprintln!("postgres: {name}");
        check(Fresh::new(server.database(&format!("t{number}")))).await;
    }
}

#[tokio::test]
async fn a_database_without_room_says_so_and_goes_on_when_there_is_some() {
    let dir = tempfile::tempdir().unwrap();
    let store = Fresh::new(DatabaseUrl::Sqlite(dir.path().join("m.db"))).open().await;
    let insert = async |limit: &'static str| {
        store
            .run_tx("fill", async |tx| {
                sqlx::query(limit).fetch_all(tx.conn()).await?;
                sqlx::query("CREATE TABLE IF NOT EXISTS filler (x TEXT)").execute(tx.conn()).await?;
                sqlx::query("INSERT INTO filler VALUES (hex(randomblob(400000)))").execute(tx.conn()).await?;
                Ok::<_, StoreError>(())
            })
            .await
    };
    // SQLite raises the limit to the pages that there are.
    let full = insert("PRAGMA max_page_count = 1").await.unwrap_err();
    assert!(full.is_full() && !full.is_transient(), "{full:?}");
    insert("PRAGMA max_page_count = 100000").await.unwrap();
}
