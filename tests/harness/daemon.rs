//! One daemon of a cluster: a task of the test's runtime, or a process of its own.

use std::{
    ffi::OsString,
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::FutureExt as _;
use muster_controller::{Server, clock::SystemClock};
use rustix::process::{Pid, Signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How the daemons of a cluster run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Daemons {
    /// As tasks of the test's runtime, with the same arguments as processes and a real network between them. The
    /// holders of the live maps are processes all the same: they must outlive the agent.
    #[default]
    Tasks,
    /// As processes, which tests can kill, freeze and measure.
    Processes,
}

/// A daemon that was started.
pub(crate) enum Daemon {
    Process(Child),
    Task { stop: CancellationToken, running: JoinHandle<anyhow::Result<()>> },
}

impl Daemon {
    /// Starts `muster-controller serve` or `muster-agent run` as a process that appends to `log`.
    pub(crate) fn process(mut command: Command, log: &Path) -> Self {
        let file = || File::options().create(true).append(true).open(log).expect("open the log file");
        command.env("RUST_LOG", log_filter()).stdin(Stdio::null()).stdout(file()).stderr(file());
        Self::Process(command.spawn().unwrap_or_else(|e| panic!("cannot start {command:?}: {e}")))
    }

    /// Runs an agent as a task, with the arguments of `muster-agent run`.
    pub(crate) fn agent_task(arguments: &[OsString]) -> Self {
        let settings = parse::<muster_agent::config::Settings>(arguments);
        let mut config = muster_agent::config::Config::resolve(settings).expect("arguments of an agent");
        config.helper_program = Some(binary("muster-agent"));
        Self::task(async move |stop| {
            let agent = tokio::select! {
                built = muster_agent::build(config) => built?,
                () = stop.cancelled() => return Ok(()),
            };
            Ok(agent.run(stop).await?)
        })
    }

    /// Runs a controller as a task.
    pub(crate) fn controller_task(server: Server) -> Self {
        Self::task(async move |stop| server.run(stop).await)
    }

    fn task<F>(run: impl FnOnce(CancellationToken) -> F) -> Self
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let running = tokio::spawn(run(stop.clone()));
        Self::Task { stop, running }
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        match self {
            Self::Process(child) => !matches!(child.try_wait(), Ok(None)),
            Self::Task { running, .. } => running.is_finished(),
        }
    }

    /// Sends SIGTERM to a process, cancels a task.
    pub(crate) fn ask_to_end(&self) {
        match self {
            Self::Process(_) => self.signal(Signal::TERM),
            Self::Task { stop, .. } => stop.cancel(),
        }
    }

    /// Waits for its end until `until`, then kills it. An error says why the end was not a clean one.
    pub(crate) fn end_by(mut self, until: Instant) -> Result<(), String> {
        while !self.has_ended() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        match self {
            Self::Process(mut child) => {
                let late = matches!(child.try_wait(), Ok(None));
                drop(child.kill());
                match child.wait() {
                    _ if late => Err("it did not end in time and was killed".to_owned()),
                    Ok(status) if status.success() => Ok(()),
                    Ok(status) => Err(status.to_string()),
                    Err(error) => Err(error.to_string()),
                }
            }
            Self::Task { mut running, .. } => {
                running.abort();
                let limit = Instant::now() + Duration::from_secs(5);
                while !running.is_finished() && Instant::now() < limit {
                    std::thread::sleep(Duration::from_millis(5));
                }
                match (&mut running).now_or_never() {
                    Some(Ok(ended)) => ended.map_err(|e| format!("{e:#}")),
                    Some(Err(error)) if error.is_cancelled() => {
                        Err("it did not end in time and was aborted".to_owned())
                    }
                    Some(Err(panic)) => Err(panic.to_string()),
                    None => Err("it blocks a thread of the runtime and could not be aborted".to_owned()),
                }
            }
        }
    }

    /// Kills the process with SIGKILL and waits for its end.
    pub(crate) fn kill(self) {
        match self {
            Self::Process(mut child) => {
                child.kill().expect("kill it");
                child.wait().expect("reap it");
            }
            Self::Task { .. } => panic!("{NO_PROCESS}"),
        }
    }

    /// Sends a signal. Nothing happens when the process has ended.
    pub(crate) fn signal(&self, signal: Signal) {
        let _gone = rustix::process::kill_process(self.pid(), signal);
    }

    /// Id of its process.
    pub(crate) fn pid(&self) -> Pid {
        match self {
            Self::Process(child) => i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process id"),
            Self::Task { .. } => panic!("{NO_PROCESS}"),
        }
    }
}

const NO_PROCESS: &str = "this daemon is a task of the test: start its cluster with ClusterOptions::as_processes";

/// Builds a controller in this process and binds its ports.
pub(crate) async fn controller(arguments: &[OsString]) -> Server {
    let config = muster_controller::config::Config::load(None, parse(arguments)).expect("arguments of a controller");
    Box::pin(muster_controller::build(config, Arc::new(SystemClock))).await.expect("build the controller")
}

/// Parses arguments as the daemon's command line does.
fn parse<S: clap::Args>(arguments: &[OsString]) -> S {
    let command = S::augment_args(clap::Command::new("daemon").no_binary_name(true));
    let parsed = command.try_get_matches_from(arguments).and_then(|matches| S::from_arg_matches(&matches));
    parsed.unwrap_or_else(|e| panic!("{e}"))
}

fn log_filter() -> String {
    std::env::var("MUSTER_TEST_LOG").unwrap_or_else(|_| "info".into())
}

/// Sends the logs of daemons in this process to the test's output, which is shown when the test fails. Only the first
/// call of a process has an effect.
pub(crate) fn log_to_the_test() {
    let filter = tracing_subscriber::EnvFilter::new(log_filter());
    let _already = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_test_writer().try_init();
}

/// The path of a program of this workspace: in the folder that `MUSTER_BIN_DIR` names, else beside the test.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("the test's own path");
    let beside = own.ancestors().skip(1).take_while(|dir| !dir.ends_with("target")).map(Path::to_owned);
    let named = std::env::var_os("MUSTER_BIN_DIR").map(PathBuf::from);
    let mut folders: Box<dyn Iterator<Item = PathBuf>> = match named {
        Some(dir) => Box::new(std::iter::once(dir)),
        None => Box::new(beside),
    };
    let found = folders.find_map(|dir| Some(dir.join(name)).filter(|path| path.is_file()));
    found.unwrap_or_else(|| {
        panic!(
            "{name} is not built: run tests/run.sh, or cargo build -p muster-controller -p muster-agent -p muster-cli"
        )
    })
}
