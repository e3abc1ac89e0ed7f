//! `muster pool …`.

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum PoolCommand {
    /// Show what the pool holds and how its sweep fares
    Show,
    /// Change the pool; what is missing then is copied, and what is too much is dropped
    Set {
        /// Copies of every object, from 1 to 7
        #[arg(long, value_name = "N")]
        min_copies: u32,
    },
    /// Give back now what nothing needs any more
    Sweep {
        /// Allow the sweep after a restore of the database: what nodes hold and nobody knows of may be given up
        #[arg(long)]
        after_restore: bool,
        /// Do not ask
        #[arg(short, long, requires = "after_restore")]
        yes: bool,
    },
}
