//! `muster event …`.

use clap::{Args, Subcommand};

use crate::units;

#[derive(Args, Debug)]
pub(crate) struct EventFilter {
    /// Only events after this event's id, or after the `as_of` of a list
    #[arg(long, value_name = "ID")]
    pub(crate) after: Option<String>,
    /// Only events of this deployment and its members; may be given many times
    #[arg(long, value_name = "D")]
    pub(crate) deployment: Vec<String>,
    /// Only events of things with this label; may be given many times
    #[arg(long, value_name = "K=V", value_parser = units::parse_label_text)]
    pub(crate) label: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EventCommand {
    /// List the events the controller still has, the newest last
    #[command(alias = "list")]
    Ls {
        #[command(flatten)]
        filter: EventFilter,
    },
    /// Print events as they happen, until Ctrl-C; `-o json` prints one object per line
    Follow {
        #[command(flatten)]
        filter: EventFilter,
    },
}
