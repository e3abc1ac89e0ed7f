//! `muster-controller`: arguments, configuration, log, build, run, drain.

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use muster_api::{
    Name,
    token::{CreateToken, Role},
    units::parse_duration,
};
use muster_controller::{
    build, check_servable,
    clock::SystemClock,
    config::{Config, Settings},
    create_token, telemetry,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

#[derive(Parser)]
#[command(name = "muster-controller", version, about = "The controller of a Muster cluster", long_about = None)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the controller until SIGTERM
    Serve(Configured),
    /// Tokens, without going through the API
    #[command(subcommand)]
    Token(TokenCommand),
    /// Say whether the configuration can be used: exit 0 or 1
    CheckConfig(Configured),
}

#[derive(Subcommand)]
enum TokenCommand {
    /// Make a token and print it; works while the controller runs
    Create {
        #[command(flatten)]
        configured: Configured,
        /// What it may do: node, admin or tenant
        #[arg(long)]
        role: Role,
        /// Its name [default: made up]
        #[arg(long)]
        name: Option<Name>,
        /// Tenant: its project [default: default]
        #[arg(long)]
        project: Option<Name>,
        /// How long it lives: 30m, 12h, 90d [default: node 1h, others 90d]
        #[arg(long, value_parser = parse_duration)]
        ttl: Option<Duration>,
        /// Node: how many nodes may join with it [default: 1]
        #[arg(long)]
        uses: Option<u32>,
    },
}

#[derive(Args)]
struct Configured {
    /// TOML file with settings; flags and environment go before it
    #[arg(long, value_name = "FILE", env = "MUSTER_CONTROLLER_CONFIG")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

impl Configured {
    fn load(self) -> anyhow::Result<Config> {
        Ok(Config::load(self.config.as_deref(), self.settings)?)
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // What this process makes is for its user alone; what others may read says so itself (ca.pem).
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let result = runtime.context("start the runtime").and_then(|runtime| runtime.block_on(run(cli.command)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("muster-controller: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Serve(configured) => serve(configured.load()?).await,
        Command::CheckConfig(configured) => {
            check_servable(&configured.load()?)?;
            println!("the configuration is good");
            Ok(())
        }
        Command::Token(TokenCommand::Create { configured, role, name, project, ttl, uses }) => {
            let wanted = CreateToken { name, role, project, ttl_s: ttl.map(|t| t.as_secs()), uses };
            println!("{}", create_token(&configured.load()?, Arc::new(SystemClock), &wanted).await?);
            Ok(())
        }
    }
}

async fn serve(config: Config) -> anyhow::Result<()> {
    telemetry::start_log(&config.log);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), ?config, "starting");
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let server = build(config, Arc::new(SystemClock)).await?;
    tracing::info!(
        cluster.id = %server.app.cluster.id,
        "serving people at {} and nodes at {}", server.url()?, server.node_address()?
    );
    let stopper = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stopper.cancel();
    });
    server.run(stop).await
}
