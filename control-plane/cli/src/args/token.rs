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
    /// Print a link that signs one browser in to the dashboard: once, within 10 minutes
    Link {
        /// Name or id of the token that the link stands for (others than one's own: operators) [default: the one in use]
        #[arg(value_name = "TOKEN")]
        of: Option<String>,
    },
    /// Revoke tokens; sessions and links of a revoked token end
    #[command(alias = "delete")]
    Rm(Removal),
}
