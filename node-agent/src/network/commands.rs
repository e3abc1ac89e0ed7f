//! The programs `ip`, `bridge` and `nft`, and what else has to be done inside a namespace.
//!
//! Programs and not netlink: nft's rules have no other stable form than its language, `ip` is needed for namespaces
//! anyway, and one `-batch` changes as much as it takes in one process. Netlink crates would be a second way of doing
//! the same, with a dozen of dependencies. Arguments are vectors and texts go to the standard input: no shell takes
//! part. Every call ends within [`LIMIT`] (I10).

use std::{fs::File, io, os::fd::AsRawFd as _, path::PathBuf, process::Stdio, time::Duration};

use tokio::{io::AsyncWriteExt as _, process::Command, time::timeout};

/// Longest time for one program.
const LIMIT: Duration = Duration::from_secs(10);

/// Why a command did not do what it should.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {detail}")]
pub struct CommandError {
    /// The command, as far as it tells what was tried.
    pub what: String,
    /// What went wrong: the last lines that the program printed.
    pub detail: String,
}

impl CommandError {
    pub(super) fn new(what: impl Into<String>, detail: impl ToString) -> Self {
        Self { what: what.into(), detail: detail.to_string() }
    }
}

/// The file that is a namespace.
pub(super) fn namespace_file(namespace: &str) -> PathBuf {
    PathBuf::from("/run/netns").join(namespace)
}

/// Runs a program and returns what it prints.
pub(super) async fn run(program: &str, args: &[&str], input: &str) -> Result<String, CommandError> {
    let what = || [&[program], args].concat().join(" ");
    let error = |detail: String| CommandError::new(what(), detail);
    let spawned = Command::new(program)
        .args(args)
        // Debian's tools for networks are not on every path.
        .env("PATH", path())
        .env("LC_ALL", "C")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut child = spawned.map_err(|source| error(format!("it cannot be started: {source}")))?;
    let stdin = child.stdin.take();
    let write = async {
        if let Some(mut stdin) = stdin {
            // A program that ends early says why itself.
            let _ended = stdin.write_all(input.as_bytes()).await;
        }
    };
    let ended = timeout(LIMIT, async { tokio::join!(write, child.wait_with_output()).1 }).await;
    let output = ended.map_err(|_| error(format!("it did not end within {LIMIT:?}")))?;
    let output = output.map_err(|source| error(source.to_string()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).take(3).collect();
    Err(error(if said.is_empty() { output.status.to_string() } else { said.join("; ") }))
}

fn path() -> String {
    let own = std::env::var("PATH").unwrap_or_default();
    format!("{own}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin")
}

/// Runs lines of `ip -batch`, in a namespace or in the host's own. Stops at the first that fails.
pub(super) async fn ip_batch(namespace: Option<&str>, lines: &[String]) -> Result<(), CommandError> {
    batch("ip", namespace, lines).await
}

/// Runs lines of `bridge -batch` in a namespace.
pub(super) async fn bridge_batch(namespace: Option<&str>, lines: &[String]) -> Result<(), CommandError> {
    batch("bridge", namespace, lines).await
}

async fn batch(program: &str, namespace: Option<&str>, lines: &[String]) -> Result<(), CommandError> {
    if lines.is_empty() {
        return Ok(());
    }
    let args: &[&str] = &namespace.map_or(vec!["-batch", "-"], |name| vec!["-n", name, "-batch", "-"]);
    run(program, args, &(lines.join("\n") + "\n")).await.map(drop)
}

/// Loads a ruleset in one step, in a namespace or in the host's own. All of it is taken or nothing.
pub(super) async fn nft(namespace: Option<&str>, ruleset: &str) -> Result<(), CommandError> {
    match namespace {
        None => run("nft", &["-f", "-"], ruleset).await.map(drop),
        Some(name) => within(name, "nft", &["-f", "-"], ruleset).await.map(drop),
    }
}

/// Runs a program inside a namespace. Not by `ip netns exec`, which gives it a mount namespace of its own: a process
/// that stays would hold every mount there was, and with it disks that are long unmounted.
pub(super) async fn within(namespace: &str, program: &str, args: &[&str], input: &str) -> Result<String, CommandError> {
    let net = format!("--net={}", namespace_file(namespace).display());
    run("nsenter", &[&[net.as_str(), "--", program], args].concat(), input).await
}

/// Does something inside a namespace, on a thread that ends with it.
///
/// # Errors
/// When there is no such namespace, or the process may not enter it.
pub fn inside<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    let file = File::open(namespace_file(namespace))?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: the descriptor is open, and only this thread changes its namespace.
            if unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) } == 0 {
                Ok(work())
            } else {
                Err(io::Error::last_os_error())
            }
        });
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    })
}

/// Writes settings of the kernel inside a namespace; those of the host itself if there is none.
pub(super) async fn set_kernel(
    namespace: Option<&str>,
    settings: Vec<(String, &'static str)>,
) -> Result<(), CommandError> {
    let namespace = namespace.map(str::to_owned);
    let written = tokio::task::spawn_blocking(move || match namespace {
        None => write_settings(&settings),
        Some(namespace) => inside(&namespace, || write_settings(&settings)).flatten(),
    });
    let written = written.await.map_err(io::Error::other).flatten();
    written.map_err(|error| CommandError::new("setting the kernel's network", error))
}

fn write_settings(settings: &[(String, &str)]) -> io::Result<()> {
    for (key, value) in settings {
        let file = format!("/proc/sys/net/{key}");
        let fail = |error: io::Error| io::Error::new(error.kind(), format!("{file}: {error}"));
        if std::fs::read_to_string(&file).map_err(fail)?.trim() != *value {
            std::fs::write(&file, value).map_err(fail)?;
        }
    }
    Ok(())
}
