//! `muster operation …`.

use clap::Subcommand;

use super::Listing;

#[derive(Debug, Subcommand)]
pub(crate) enum OperationCommand {
    /// List operations
    #[command(alias = "list")]
    Ls(Listing),
    /// Show one operation: what it waits for, or why it failed
    Show {
        /// Id of the operation
        operation: String,
    },
    /// Wait until operations have ended
    Wait {
        /// Ids of operations
        #[arg(required = true, value_name = "OPERATION")]
        operations: Vec<String>,
    },
    /// Ask an operation to stop; what it has done already is kept
    Cancel {
        /// Id of the operation
        operation: String,
    },
}
