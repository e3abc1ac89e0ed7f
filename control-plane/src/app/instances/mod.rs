//! Instances: what callers ask of one or of many, and the one way their rows change ([`change`]).

mod calls;
pub(crate) mod change;
mod console;
mod delete;
mod exec;
mod leaving;
mod log;
mod power;
mod recover;
mod selection;
pub(crate) mod view;

pub(crate) use self::{
    change::{Changed, begin, check_idle, event, save, under_way},
    delete::same_operation,
    exec::TIMEOUT_S_MAX as EXEC_TIMEOUT_S_MAX,
    leaving::{refuse_if_leaving, without_leaving},
    power::{how_to_stop, power},
    selection::{Going, selected},
};
pub use self::{console::OpenedConsole, power::Verb};
