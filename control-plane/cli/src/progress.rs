//! Progress on standard error: a bar at a terminal, a line per phase in a log, nothing with `--quiet`.

use std::{cell::RefCell, io::IsTerminal, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use muster_api::operation::Operation;

use crate::{cells::printable, output::Notes};

pub(crate) struct Progress {
    bar: ProgressBar,
    notes: Notes,
    live: bool,
    last_line: RefCell<String>,
}

impl Progress {
    /// Progress of a transfer of `total` bytes; zero if the total is not known.
    pub(crate) fn transfer(notes: Notes, what: &str, total: u64) -> Self {
        let template = match total {
            0 => "{spinner} {msg} {binary_bytes} {binary_bytes_per_sec} {elapsed}",
            _ => "{spinner} {msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}",
        };
        Self::new(notes, template, what, total)
    }

    /// Progress of an operation.
    pub(crate) fn work(notes: Notes) -> Self {
        Self::new(notes, "{spinner} {msg} {wide_bar} {pos}/{len} {elapsed}", "", 0)
    }

    fn new(notes: Notes, template: &str, what: &str, total: u64) -> Self {
        let live = !notes.quiet && std::io::stderr().is_terminal();
        let target = if live { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(total).filter(|total| *total > 0), target);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("━╸─"));
        }
        bar.set_message(what.to_owned());
        if live {
            bar.enable_steady_tick(Duration::from_millis(120));
        }
        Self { bar, notes, live, last_line: RefCell::default() }
    }

    /// Whether a person sees the bar.
    pub(crate) fn is_live(&self) -> bool {
        self.live
    }

    /// Gives a function that counts transferred bytes in another task.
    pub(crate) fn counter(&self) -> impl Fn(u64) + Send + 'static {
        let bar = self.bar.clone();
        move |n| bar.inc(n)
    }

    /// Counts transferred bytes.
    pub(crate) fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
    }

    /// Sets the number of transferred bytes.
    pub(crate) fn reset(&self, position: u64) {
        self.bar.set_position(position);
    }

    /// Shows the phase of an operation and how much of it is done.
    pub(crate) fn show(&self, operation: &Operation) {
        let Operation { kind, target, phase, progress, .. } = operation;
        let failed = match progress.failed {
            0 => String::new(),
            n => format!(", {n} failed"),
        };
        let line = printable(&format!("{kind} {}: {phase}{failed}", target.name), false);
        let (done, total) = (progress.done, progress.total);
        self.bar.set_length(total.max(1));
        self.bar.set_position(done);
        self.bar.set_message(line.clone());
        if !self.live && *self.last_line.borrow() != line {
            self.notes.say(&if total > 0 { format!("{line} ({done}/{total})") } else { line.clone() });
            *self.last_line.borrow_mut() = line;
        }
    }

    /// Removes the bar from the terminal.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}
