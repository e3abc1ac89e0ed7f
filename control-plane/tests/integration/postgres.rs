//! A PostgreSQL server for one test: own folder, Unix socket only, ended by the guard.

use std::{
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use muster_controller::store::DatabaseUrl;

/// Ends the server and removes its folder when dropped.
pub(crate) struct Server {
    child: Child,
    bin: PathBuf,
    user: Option<(u32, u32)>,
    dir: tempfile::TempDir,
}

impl Server {
    /// Makes a database cluster and starts its server. It refuses to run as root, so root becomes `postgres`.
    pub(crate) fn start() -> Result<Self, String> {
        let bin = binaries().ok_or("no /usr/lib/postgresql/*/bin/postgres and none in PATH")?;
        let user = if rustix_uid() == 0 { Some((id("-u")?, id("-g")?)) } else { None };
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        if let Some((uid, gid)) = user {
            std::os::unix::fs::chown(dir.path(), Some(uid), Some(gid)).map_err(|e| e.to_string())?;
        }
        let data = dir.path().join("data");
        let made = command(&bin.join("initdb"), user)
            .args(["--auth=trust", "--username=muster", "--encoding=UTF8", "--locale=C", "--no-sync", "-D"])
            .arg(&data)
            .output()
            .map_err(|e| format!("initdb: {e}"))?;
        if !made.status.success() {
            return Err(format!("initdb failed: {}", String::from_utf8_lossy(&made.stderr)));
        }
        let child = command(&bin.join("postgres"), user)
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(dir.path())
            .args(["-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=60", "-F"])
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(dir.path().join("log")).map_err(|e| e.to_string())?)
            .spawn()
            .map_err(|e| format!("postgres: {e}"))?;
        let mut server = Self { child, bin, user, dir };
        server.wait_until_ready()?;
        Ok(server)
    }

    fn wait_until_ready(&mut self) -> Result<(), String> {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            if self.psql("postgres", "SELECT 1").is_ok() {
                return Ok(());
            }
            let ended = self.child.try_wait().map_err(|e| e.to_string())?;
            if ended.is_some() || Instant::now() > until {
                let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
                return Err(format!("the server did not come up ({ended:?}): {log}"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn psql(&self, database: &str, sql: &str) -> Result<(), String> {
        let done = command(&self.bin.join("psql"), self.user)
            .arg("-h")
            .arg(self.dir.path())
            .args(["-U", "muster", "-d", database, "-v", "ON_ERROR_STOP=1", "-qc", sql])
            .output()
            .map_err(|e| e.to_string())?;
        if done.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&done.stderr).into_owned()) }
    }

    /// A fresh, empty database.
    pub(crate) fn database(&self, name: &str) -> DatabaseUrl {
        self.psql("postgres", &format!("CREATE DATABASE {name}")).expect("a database");
        let host = self.dir.path().display().to_string().replace('/', "%2F");
        DatabaseUrl::Postgres(format!("postgres://muster@{host}/{name}"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // "Immediate": nothing in it is worth a checkpoint.
        let _ended = command(&self.bin.join("pg_ctl"), self.user)
            .args(["stop", "-m", "immediate", "-D"])
            .arg(self.dir.path().join("data"))
            .output();
        let _ended = self.child.kill();
        let _ended = self.child.wait();
    }
}

fn command(program: &Path, user: Option<(u32, u32)>) -> Command {
    let mut command = Command::new(program);
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid);
    }
    command.current_dir("/").env("LC_ALL", "C");
    command
}

fn binaries() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<_> =
        versions.map(|entry| entry.path().join("bin")).filter(|b| b.join("initdb").exists()).collect();
    found.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    found.pop().or_else(|| std::env::split_paths(&path).find(|dir| dir.join("initdb").exists()))
}

fn rustix_uid() -> u32 {
    id("-u-self").unwrap_or(u32::MAX)
}

/// `id -u postgres`, or the caller's own with `-u-self`.
fn id(what: &str) -> Result<u32, String> {
    let mut command = Command::new("id");
    if what == "-u-self" {
        command.arg("-u")
    } else {
        command.args([what, "postgres"])
    };
    let said = command.output().map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&said.stdout).trim().to_owned();
    text.parse().map_err(|_| format!("there is no user postgres to run as: {}", String::from_utf8_lossy(&said.stderr)))
}
