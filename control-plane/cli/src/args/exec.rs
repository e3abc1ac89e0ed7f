//! `muster exec`: a command in a guest.

use std::time::Duration;

use clap::Args;
use muster_api::units::parse_duration;

#[derive(Args, Debug)]
#[command(override_usage = "muster exec [OPTIONS] INSTANCE -- COMMAND...")]
pub(crate) struct Exec {
    /// Instance as DEPLOYMENT.N or id
    pub(crate) instance: String,
    /// Send what comes on standard input to the command, up to 256 KiB
    #[arg(short = 'i', long)]
    pub(crate) stdin: bool,
    /// How long the command is waited for, at most 5m [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(crate) within: Option<Duration>,
    /// The program and its arguments, after --; it is run without a shell
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}
