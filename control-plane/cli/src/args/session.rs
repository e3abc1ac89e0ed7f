//! `muster session …`.

use clap::Subcommand;

use super::Removal;

#[derive(Debug, Subcommand)]
pub(crate) enum SessionCommand {
    /// List sessions, oldest first: all for operators, those of the token for others
    #[command(alias = "list")]
    Ls,
    /// End sessions; their browsers have to sign in again
    #[command(alias = "delete")]
    Rm(Removal),
}
