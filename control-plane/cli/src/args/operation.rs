//! `muster operation …`.

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum OperationCommand {
    /// List operations, the newest last
    #[command(alias = "list")]
    Ls {
        /// List only operations in this state; may be given many times
        #[arg(long)]
        state: Vec<String>,
        /// List only work on this deployment; may be given many times
        #[arg(long, value_name = "D")]
        deployment: Vec<String>,
        /// List only work on this node; may be given many times (operators)
        #[arg(long, value_name = "NODE")]
        node: Vec<String>,
    },
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
