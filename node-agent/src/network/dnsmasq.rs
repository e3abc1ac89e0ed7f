//! The process that serves addresses and names in one namespace.
//!
//! It goes on when the agent is killed: guests keep their leases. It is known by its command line, which
//! has the path of its configuration in it, so it is found again also without its file of the process id.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use metrics::counter;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use super::{
    commands::{CommandError, within},
    dhcp::{CONF, Files, HOSTS, LEASES, PID},
};
use crate::telemetry;

/// How long it may take to end after SIGTERM.
const END_LIMIT: Duration = Duration::from_secs(2);

/// The server of a namespace, with its files in a folder.
#[derive(Clone, Debug)]
pub(super) struct Dnsmasq {
    namespace: String,
    folder: PathBuf,
}

impl Dnsmasq {
    pub(super) fn new(namespace: String, folder: PathBuf) -> Self {
        Self { namespace, folder }
    }

    fn argument(&self) -> String {
        format!("--conf-file={}", self.folder.join(CONF).display())
    }

    fn is_ours(&self, pid: i32) -> bool {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|argument| argument == self.argument().as_bytes())
    }

    /// Whether it runs, by its file alone. That is quick.
    pub(super) fn is_alive(&self) -> bool {
        self.by_file().is_some()
    }

    fn by_file(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.folder.join(PID)).ok()?;
        let pid = text.trim().parse().ok().filter(|pid| self.is_ours(*pid))?;
        Pid::from_raw(pid)
    }

    /// All processes on this configuration.
    fn processes(&self) -> Vec<Pid> {
        if let Some(pid) = self.by_file() {
            return vec![pid];
        }
        let all = fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        all.filter(|pid| self.is_ours(*pid)).filter_map(Pid::from_raw).collect()
    }

    /// Makes it run with these files. `first` says that this process has not seen it before, so that what it has read
    /// is not known.
    pub(super) async fn ensure(&self, files: &Files, first: bool) -> Result<(), CommandError> {
        let write = || -> io::Result<(bool, bool)> {
            fs::DirBuilder::new().mode(0o711).recursive(true).create(&self.folder)?;
            let conf = replace(&self.folder.join(CONF), &files.conf)?;
            let leases = replace(&self.folder.join(LEASES), &files.leases)?;
            Ok((conf, replace(&self.folder.join(HOSTS), &files.hosts)? || leases))
        };
        let (conf, lists) = write().map_err(|error| CommandError::new("writing the files of dnsmasq", error))?;
        let running = self.processes();
        if conf && !running.is_empty() {
            self.stop().await?;
        } else if let [pid] = running[..] {
            if lists || first {
                let told = kill_process(pid, Signal::HUP);
                told.map_err(|error| CommandError::new("telling dnsmasq of new members", error))?;
            }
            return Ok(());
        } else if !running.is_empty() {
            self.stop().await?;
        }
        if !first && !conf {
            counter!(telemetry::DNSMASQ_RESTARTS).increment(1);
            tracing::warn!("dnsmasq of {} was not there any more and is started again", self.namespace);
        }
        within(&self.namespace, "dnsmasq", &[&self.argument()], "").await.map(drop)
    }

    /// Ends it.
    pub(super) async fn stop(&self) -> Result<(), CommandError> {
        let give_up = Instant::now() + END_LIMIT;
        loop {
            let running = self.processes();
            if running.is_empty() {
                return Ok(());
            }
            let late = Instant::now() >= give_up;
            for pid in running {
                // It may have ended by itself since.
                let _ended = kill_process(pid, if late { Signal::KILL } else { Signal::TERM });
            }
            if late && Instant::now() >= give_up + END_LIMIT {
                return Err(CommandError::new("ending dnsmasq", "it is still there after SIGKILL"));
            }
            sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Writes a file that others may read, unless it has this text already. Returns whether it was written.
fn replace(file: &Path, text: &str) -> io::Result<bool> {
    if fs::read_to_string(file).is_ok_and(|there| there == text) {
        return Ok(false);
    }
    let new = file.with_extension("new");
    fs::write(&new, text)?;
    // dnsmasq reads its lists again as another user.
    fs::set_permissions(&new, fs::Permissions::from_mode(0o644))?;
    fs::rename(new, file)?;
    Ok(true)
}
