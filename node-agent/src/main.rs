//! The daemon `muster-agent`: reads arguments and configuration, sets up logs, builds the agent, runs it until a
//! signal.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use muster_agent::{
    check,
    config::{Config, DEFAULT_PORT, Settings},
    hypervisor::firmware,
    limits, status, telemetry,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

/// One compute node of a Muster cluster: lazily mirrored disks, a share of the pool, the hypervisor.
#[derive(Parser)]
#[command(name = "muster-agent", version, about, max_term_width = 80)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct Configured {
    /// TOML file with settings; flags and environment variables override it
    #[arg(long, env = "MUSTER_AGENT_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

impl Configured {
    fn resolve(self) -> anyhow::Result<Config> {
        let file = self.config.map(|file| Settings::from_file(&file)).transpose()?.unwrap_or_default();
        // RUST_LOG is common to many programs, so every setting of this daemon overrides it.
        let common = Settings { log: std::env::var("RUST_LOG").ok(), ..Settings::default() };
        Ok(Config::resolve(self.settings.or(file).or(common))?)
    }
}

#[derive(Subcommand)]
enum Command {
    /// Run the agent until SIGTERM
    Run {
        #[command(flatten)]
        configured: Configured,
        /// Take over a data folder that was moved or copied; the agent on the original must have ended
        #[arg(long)]
        adopt: bool,
    },
    /// Check what this host lacks; exit with 1 if it lacks something that is needed
    Check(Configured),
    /// Show the status of the agent that runs on a data folder
    Status(Configured),
    /// Check the configuration; exit with 0 if it can be used, else with 1
    CheckConfig(Configured),
    /// Read the first block of disks, as the agent asks on the standard input; the agent starts it
    #[command(hide = true)]
    FirstReads {
        /// Folder of the disks
        #[arg(long)]
        folder: PathBuf,
    },
    /// Give a disk of firmware variables those of a new machine, unless it has some; the agent starts it
    #[command(hide = true)]
    FirmwareVariables {
        /// File of the variables that a new machine has
        #[arg(long)]
        template: PathBuf,
        /// File of the disk
        disk: PathBuf,
    },
    /// Make a disk visible to the process of a guest; the agent starts it
    #[command(hide = true)]
    ShowDisk {
        /// Id of the process
        #[arg(long)]
        pid: u32,
        /// File of the disk
        disk: PathBuf,
    },
    /// Run the holder, a process that keeps the live maps of disks; the agent starts it
    #[command(hide = true)]
    Holder {
        /// Path of its socket
        #[arg(long)]
        socket: PathBuf,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Run { configured, adopt } => run(configured, adopt),
        Command::Check(configured) => host_check(configured),
        Command::Status(configured) => agent_status(configured),
        Command::CheckConfig(configured) => configured.resolve().map(|config| {
            println!("the configuration can be used: {config:#?}");
            ExitCode::SUCCESS
        }),
        Command::FirstReads { folder } => {
            muster_agent::fuse::first_reads::main(&folder).context("first reads").map(|()| ExitCode::SUCCESS)
        }
        Command::FirmwareVariables { template, disk } => {
            firmware::begin_variables(&template, &disk).context("firmware variables").map(|()| ExitCode::SUCCESS)
        }
        Command::ShowDisk { pid, disk } => {
            muster_agent::fuse::view::show(pid, &disk).context("the disk of a guest").map(|()| ExitCode::SUCCESS)
        }
        Command::Holder { socket } => muster_agent::holder_main(&socket).context("holder").map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| {
        eprintln!("muster-agent: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(configured: Configured, adopt: bool) -> anyhow::Result<ExitCode> {
    let config = Config { adopt, ..configured.resolve()? };
    muster_pool::tls::install_provider();
    telemetry::log(&config.log, config.log_format).context("log")?;
    limits::raise_descriptors();
    let metrics = telemetry::metrics().context("metrics")?;
    info!(?config, version = env!("CARGO_PKG_VERSION"), "muster-agent starts");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended: anyhow::Result<()> = runtime.block_on(async {
        let cancel = CancellationToken::new();
        let stop = on_signal(cancel.clone())?;
        let agent = tokio::select! {
            built = muster_agent::build(config) => built?,
            () = cancel.cancelled() => return Ok(()),
        };
        let ended = agent.with_metrics(metrics).run(cancel).await;
        stop.abort();
        Ok(ended?)
    });
    // Blocking work that is left, such as I/O on a disk that hangs, must not keep the process. Ending it is safe,
    // because even kill -9 is.
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
    if let Err(error) = &ended {
        error!(error = format!("{error:#}"), "muster-agent ends");
    }
    ended.map(|()| ExitCode::SUCCESS)
}

/// On the first SIGTERM or SIGINT, cancels the token for an orderly end. A second one ends the process at once.
fn on_signal(cancel: CancellationToken) -> anyhow::Result<tokio::task::JoinHandle<()>> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(tokio::spawn(async move {
        loop {
            tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
            if cancel.is_cancelled() {
                eprintln!("muster-agent: second signal, ending at once");
                std::process::exit(130);
            }
            cancel.cancel();
        }
    }))
}

fn host_check(mut configured: Configured) -> anyhow::Result<ExitCode> {
    // The check needs no configuration yet: it also works with these stand-ins.
    configured.settings.data_dir.get_or_insert_with(|| PathBuf::from("/var/lib/muster-agent"));
    configured.settings.advertise.get_or_insert_with(|| std::net::SocketAddr::from(([127, 0, 0, 1], DEFAULT_PORT)));
    let findings = check::host(&configured.resolve()?);
    for finding in &findings {
        let word = match (finding.ok, finding.needed) {
            (true, _) => "ok     ",
            (false, false) => "lacking",
            (false, true) => "NEEDED ",
        };
        println!("{word} {:<11} {}", finding.subject, finding.detail);
    }
    let fit = findings.iter().all(|finding| finding.ok || !finding.needed);
    Ok(if fit { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn agent_status(mut configured: Configured) -> anyhow::Result<ExitCode> {
    configured.settings.advertise.get_or_insert_with(|| std::net::SocketAddr::from(([127, 0, 0, 1], DEFAULT_PORT)));
    let config = configured.resolve()?;
    let text =
        status::ask(&config.data_dir).with_context(|| format!("no agent answers on {}", config.data_dir.display()))?;
    println!("{text}");
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn no_line_of_any_help_text_has_more_than_80_columns() {
        let mut command = Arguments::command();
        command.build();
        let mut to_see = vec![command];
        while let Some(mut command) = to_see.pop() {
            for text in [command.render_help().to_string(), command.render_long_help().to_string()] {
                let wide: Vec<_> = text.lines().filter(|line| line.chars().count() > 80).collect();
                assert!(wide.is_empty(), "{}: {wide:#?}", command.get_name());
            }
            to_see.extend(command.get_subcommands().cloned());
        }
    }
}
