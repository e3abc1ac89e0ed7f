//! `muster operation …`.

use clap::Subcommand;

use super::Listing;

#[derive(Debug, Subcommand)]
pub(crate) enum OperationCommand {
    /// List operations, the newest last
    #[command(alias = "list")]
    Ls(Listing),
    /// Show one operation: what it waits for, or why it failed
    Show {
        /// Id of the operation, or its last digits as `ls` shows them
        operation: String,
    },
    /// Wait until operations have ended
    Wait {
        /// Ids of operations, or their last digits as `ls` shows them
        #[arg(required = true, value_name = "OPERATION")]
        operations: Vec<String>,
    },
    /// Ask an operation to stop; what it has done already is kept
    Cancel {
        /// Id of the operation, or its last digits as `ls` shows them
        operation: String,
    },
}
