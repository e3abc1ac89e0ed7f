//! `muster token …`.

use std::time::Duration;

use clap::Subcommand;
use muster_api::{token::Role, units::parse_duration};

use super::{Removal, word_of_api};

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// List tokens, by name
    #[command(alias = "list")]
    Ls,
    /// Make a token; its secret is printed once and cannot be read later
    Create {
        /// What the token may do
        #[arg(long, value_parser = word_of_api::<Role>(["admin", "tenant", "node"]))]
        role: Role,
        /// Name of the token [default: chosen by the controller]
        #[arg(long)]
        name: Option<String>,
        /// Time until the token expires [default: 1h for nodes, else 90d]
        #[arg(long, value_name = "TIME", value_parser = parse_duration)]
        ttl: Option<Duration>,
        /// With --role node: how many nodes may join with it [default: 1]
        #[arg(long, value_name = "N")]
        uses: Option<u32>,
    },
    /// Revoke tokens
    #[command(alias = "delete")]
    Rm(Removal),
}
