//! Backups of the database, restoring one, and old copies of it that are found at a start.
//!
//! ```text
//! backup FILE     a consistent copy of the running database (VACUUM INTO)
//! restore FILE    puts a backup in place, as a new incarnation; the database before is kept beside it
//! start           DATA/high-water.json says how far the database was; one that is behind it is an old copy, and becomes a
//!                 new incarnation before anything is assigned
//! ```
//! Everything that counts upwards (revisions, membership epochs, generations, heads of disks) is only compared within one
//! incarnation. An old database that kept its number would order nodes back to states that they left behind.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use muster_api::{ClusterId, Timestamp, node_protocol::Incarnation};
use serde::{Deserialize, Serialize};

use crate::{
    app::App,
    ca::{Authority, write_file},
    clock::Clock,
    config::Config,
    data_dir::lock_data_dir,
    store::{
        DatabaseUrl, Store,
        cluster::{self, Cluster},
        copy_sqlite, tokens,
    },
    wake::Wakes,
};

const FILE: &str = "high-water.json";
/// How often the high-water file follows the database. A copy that is behind by less than this is not noticed at start.
const EVERY: Duration = Duration::from_secs(5);

/// How far the database was when it was last looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HighWater {
    /// The cluster of the database.
    pub cluster: ClusterId,
    /// Its incarnation.
    pub incarnation: Incarnation,
    /// Its newest `seq`.
    pub seq: i64,
}

impl HighWater {
    fn read(dir: &Path) -> anyhow::Result<Option<Self>> {
        let path = dir.join(FILE);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).with_context(|| format!("read {}", path.display()))?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }

    fn write(self, dir: &Path) -> anyhow::Result<()> {
        write_file(&dir.join(FILE), &serde_json::to_vec(&self)?, 0o600)
    }

    async fn of(store: &Store, cluster: ClusterId, incarnation: Incarnation) -> anyhow::Result<Self> {
        let seq = store.read("high_water", async |tx| tx.position().await).await?;
        Ok(Self { cluster, incarnation, seq })
    }

    /// The incarnation after this one and `other`.
    fn next_incarnation(self, other: Incarnation) -> anyhow::Result<Incarnation> {
        next_incarnation(self.incarnation.number.max(other.number))
    }
}

fn next_incarnation(number: u64) -> anyhow::Result<Incarnation> {
    let random = getrandom::u64().map_err(|e| anyhow::anyhow!("no random number: {e}"))?;
    Ok(Incarnation { number: number + 1, random })
}

/// Refuses to make a new cluster where there was one: its database is gone.
pub(crate) fn check_new(dir: &Path) -> anyhow::Result<()> {
    if let Some(before) = HighWater::read(dir)? {
        bail!(
            "the database of cluster {} is gone, and a new one would be another cluster: put it back, or run \
             `muster-controller restore BACKUP`; to begin anew, use another --data-dir",
            before.cluster
        );
    }
    Ok(())
}

/// Compares the database with the high-water file. One that is behind it is an old copy, which becomes a new incarnation.
pub(crate) async fn follow(store: &Store, found: Cluster, dir: &Path) -> anyhow::Result<Cluster> {
    let now = HighWater::of(store, found.id, found.incarnation).await?;
    let mut cluster = found;
    if let Some(before) = HighWater::read(dir)?.filter(|before| before.cluster == cluster.id) {
        let behind = now.incarnation.number < before.incarnation.number
            || (now.incarnation == before.incarnation && now.seq < before.seq);
        if behind {
            cluster.incarnation = before.next_incarnation(now.incarnation)?;
            let incarnation = cluster.incarnation;
            store.run_tx("cluster.restored", async |tx| cluster::begin_incarnation(tx, incarnation).await).await?;
            tracing::warn!(
                "the database is an older copy: it is at {} of incarnation {}, it was at {} of incarnation {}; it goes on \
                 as incarnation {}, and what nodes hold beyond it is adopted",
                now.seq,
                now.incarnation.number,
                before.seq,
                before.incarnation.number,
                cluster.incarnation.number
            );
        }
    }
    HighWater { incarnation: cluster.incarnation, ..now }.write(dir)?;
    Ok(cluster)
}

/// Keeps the high-water file up with the database, until it is dropped.
pub(crate) async fn keep(app: App) {
    let mut written = None;
    loop {
        tokio::time::sleep(EVERY).await;
        let now = match HighWater::of(&app.store, app.cluster, app.incarnation()).await {
            Ok(now) => now,
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "how far the database is cannot be read");
                continue;
            }
        };
        if written == Some(now) {
            continue;
        }
        let dir = app.config.data_dir.clone();
        match tokio::task::spawn_blocking(move || now.write(&dir)).await {
            Ok(Ok(())) => written = Some(now),
            Ok(Err(error)) => tracing::warn!(error = format!("{error:#}"), "the high-water file cannot be written"),
            Err(error) => tracing::error!(%error, "writing the high-water file failed"),
        }
    }
}

fn sqlite(config: &Config) -> anyhow::Result<PathBuf> {
    match config.database_url() {
        DatabaseUrl::Sqlite(path) => Ok(path),
        DatabaseUrl::Postgres(_) => bail!("for PostgreSQL use pg_dump and pg_restore"),
    }
}

/// Copies the database to `file`, which must not exist. The controller may be running.
///
/// # Errors
/// When the database cannot be read, or the file cannot be written.
pub async fn backup(config: &Config, file: &Path) -> anyhow::Result<()> {
    let database = sqlite(config)?;
    if file.exists() {
        bail!("{} exists already: give the backup a new name", file.display());
    }
    if !database.exists() {
        bail!("there is no database at {}", database.display());
    }
    copy_sqlite(&database, file).await.with_context(|| format!("copy the database to {}", file.display()))?;
    sync(file)
}

/// What a restore did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// The new incarnation.
    pub incarnation: u64,
    /// Where the database before is kept; `None` if there was none.
    pub kept: Option<PathBuf>,
    /// Tokens that are valid now and were not in the database before: deleted since the backup, or not known to be.
    pub revived: Vec<String>,
}

/// Puts a backup in place as a new incarnation. The controller must not be running.
///
/// # Errors
/// When a controller runs on the data folder, the backup is damaged or of another cluster, or files cannot be replaced. The
/// database before stays in place then.
pub async fn restore(config: &Config, clock: Arc<dyn Clock>, file: &Path) -> anyhow::Result<Restored> {
    let database = sqlite(config)?;
    let _lock = lock_data_dir(&config.data_dir)?;
    let authority = Authority::open_or_create(&config.data_dir, clock.now())?;
    let beside = database.with_extension("restoring");
    remove_database(&beside)?;
    copy_sqlite(file, &beside).await.with_context(|| format!("{} cannot be read as a backup", file.display()))?;
    let store = open(&beside, clock.clone()).await?;
    let cluster = store.read("cluster.load", async |tx| cluster::load(tx).await).await?;
    let Some(cluster) = cluster.filter(|cluster| cluster.ca_sha256 == hex::encode(authority.sha256())) else {
        store.close().await;
        remove_database(&beside)?;
        bail!(
            "{} is no backup of the cluster with the CA in {}",
            file.display(),
            config.data_dir.join("ca.pem").display()
        );
    };
    let now = clock.now();
    let backed_up = valid_tokens(&store, now).await?;
    let high_water = HighWater::read(&config.data_dir)?.filter(|before| before.cluster == cluster.id);
    let (before, known) = state_before(&database, clock, now).await;
    let newest = [Some(cluster.incarnation), before, high_water.map(|h| h.incarnation)].into_iter().flatten();
    let incarnation = next_incarnation(newest.map(|i| i.number).max().expect("there is at least the backup's"))?;
    store.run_tx("cluster.restored", async |tx| cluster::begin_incarnation(tx, incarnation).await).await?;
    store.close().await;
    sync(&beside)?;
    let kept = keep_aside(&database, now)?;
    std::fs::rename(&beside, &database)?;
    sync(&database)?;
    let store = open(&database, Arc::new(crate::clock::SystemClock)).await?;
    HighWater::of(&store, cluster.id, incarnation).await?.write(&config.data_dir)?;
    store.close().await;
    let revived = backed_up.into_iter().filter(|token| !known.contains(token)).collect();
    Ok(Restored { incarnation: incarnation.number, kept, revived })
}

async fn open(database: &Path, clock: Arc<dyn Clock>) -> anyhow::Result<Store> {
    let url = DatabaseUrl::Sqlite(database.to_owned());
    Store::open(&url, clock, Wakes::default()).await.with_context(|| format!("open {}", database.display()))
}

/// Incarnation and valid tokens of the database that is replaced, as far as it can be read.
async fn state_before(database: &Path, clock: Arc<dyn Clock>, now: Timestamp) -> (Option<Incarnation>, Vec<String>) {
    if !database.exists() {
        return (None, Vec::new());
    }
    let read = async {
        let store = open(database, clock).await?;
        let cluster = store.read("cluster.load", async |tx| cluster::load(tx).await).await?;
        let tokens = valid_tokens(&store, now).await?;
        store.close().await;
        Ok::<_, anyhow::Error>((cluster.map(|cluster| cluster.incarnation), tokens))
    };
    read.await.unwrap_or_else(|error| {
        tracing::warn!(
            error = format!("{error:#}"),
            "the present database cannot be read; all tokens of the backup are listed"
        );
        (None, Vec::new())
    })
}

/// The tokens that are not expired, as `NAME (ROLE, ID)`.
async fn valid_tokens(store: &Store, now: Timestamp) -> anyhow::Result<Vec<String>> {
    let rows = store.read("tokens.list", async |tx| tokens::list(tx, 0, None, i64::MAX).await).await?;
    let valid = rows.iter().filter(|row| row.expires_at > now);
    Ok(valid.map(|row| format!("{} ({}, {})", row.name, row.role, row.id)).collect())
}

/// Moves a database aside, with the log that belongs to it.
fn keep_aside(database: &Path, now: Timestamp) -> anyhow::Result<Option<PathBuf>> {
    if !database.exists() {
        return Ok(None);
    }
    let kept = database.with_extension(format!("before-restore-{}", now.micros() / 1_000_000));
    for suffix in ["-wal", "-shm", ""] {
        let (from, to) = (with_suffix(database, suffix), with_suffix(&kept, suffix));
        match std::fs::rename(&from, &to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("move {} aside", from.display()));
            }
            _ => {}
        }
    }
    Ok(Some(kept))
}

fn remove_database(path: &Path) -> anyhow::Result<()> {
    for suffix in ["-wal", "-shm", ""] {
        match std::fs::remove_file(with_suffix(path, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("remove {}", path.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Makes a file and its name durable.
fn sync(file: &Path) -> anyhow::Result<()> {
    let folder = std::path::absolute(file)?.parent().context("a file has a folder")?.to_owned();
    File::open(file)?.sync_all()?;
    File::open(folder)?.sync_all()?;
    Ok(())
}
