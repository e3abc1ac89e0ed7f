//! The daemon `muster-controller`: reads arguments and configuration, builds the controller, runs it until a signal.

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
    create_token, history, telemetry,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

#[derive(Parser)]
#[command(name = "muster-controller", version, about = "The controller of a Muster cluster", long_about = None, max_term_width = 80)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the controller until SIGTERM
    Serve(Configured),
    /// Manage tokens without the API
    #[command(subcommand)]
    Token(TokenCommand),
    /// Copy the database to a new file; also works while the controller runs
    Backup {
        #[command(flatten)]
        configured: Configured,
        /// The file to make
        file: PathBuf,
    },
    /// Put a backup in place; the controller must not be running
    Restore {
        #[command(flatten)]
        configured: Configured,
        /// A file that `backup` made
        file: PathBuf,
    },
    /// Check the configuration; exit with 0 if it can be used, else with 1
    CheckConfig(Configured),
}

#[derive(Subcommand)]
enum TokenCommand {
    /// Create a token and print it; also works while the controller runs
    Create {
        #[command(flatten)]
        configured: Configured,
        /// Role of the token: node, admin or tenant
        #[arg(long)]
        role: Role,
        /// Name of the token [default: a generated one]
        #[arg(long)]
        name: Option<Name>,
        /// Project of a tenant token [default: default]
        #[arg(long)]
        project: Option<Name>,
        /// Time until it expires, such as 30m, 12h or 90d [default: 1h for role node, else 90d]
        #[arg(long, value_parser = parse_duration)]
        ttl: Option<Duration>,
        /// Number of nodes that may join with a node token [default: 1]
        #[arg(long)]
        uses: Option<u32>,
    },
}

#[derive(Args)]
struct Configured {
    /// TOML file with settings; flags and environment variables override it
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
    // Files are readable by this user only, unless the code that writes them says otherwise (ca.pem).
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
            let config = configured.load()?;
            check_servable(&config)?;
            println!("the configuration can be used: {config:#?}");
            Ok(())
        }
        Command::Backup { configured, file } => {
            history::backup(&configured.load()?, &file).await?;
            println!("the database is copied to {}", file.display());
            Ok(())
        }
        Command::Restore { configured, file } => {
            let done = history::restore(&configured.load()?, Arc::new(SystemClock), &file).await?;
            println!("{} is in place, as incarnation {}", file.display(), done.incarnation);
            if let Some(kept) = &done.kept {
                println!("the database before is kept as {}", kept.display());
            }
            if !done.revived.is_empty() {
                println!("these tokens are valid again; revoke those that should not be: muster token rm NAME");
                done.revived.iter().for_each(|token| println!("  {token}"));
            }
            println!("start the controller; it adopts what the nodes hold beyond the backup");
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
        cluster.id = %server.app.cluster,
        "serving the API at {} and nodes at {}", server.url()?, server.node_address()?
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn no_line_of_any_help_text_has_more_than_80_columns() {
        let mut command = Cli::command();
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
