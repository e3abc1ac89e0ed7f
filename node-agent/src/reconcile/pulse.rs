//! Whether a guest does anything after its start.
//!
//! A guest that cannot boot (its image needs UEFI, or has no boot loader) runs for ever and looks healthy: the hypervisor
//! executes it. It shows in what such a guest does not do: it prints nothing on its console, and its firmware reads a few
//! sectors of its disk and no more. A guest that was seen to do more counts as alive until it is started again.

use std::path::Path;

use muster_api::{
    Timestamp,
    condition::{Condition, ConditionKind},
    deployment::Probe,
    node_protocol::Assignment,
};

use super::plan::{DomainSeen, Life, Phase, Seen};
use crate::hypervisor::{DomainState, console};

/// How long a guest may do nothing after its start.
const SILENT_AFTER_MS: i64 = 60_000;
/// A guest that used less of its disk has not begun to boot. A kernel alone has several MiB.
const BOOTING_BYTES: u64 = 1 << 20;

/// What a guest has done since its start.
#[derive(Debug, Default)]
pub(super) struct Pulse {
    /// What was used of its disks when it was first seen in this start.
    used_before: Option<u64>,
    is_alive: bool,
}

impl Pulse {
    /// The condition of a guest that has done nothing for too long. `used_bytes` is what was used of its disks so far.
    pub(super) fn silence(
        &mut self,
        assignment: &Assignment,
        seen: &Seen,
        used_bytes: u64,
        console_log: &Path,
        now: Timestamp,
    ) -> Option<Condition> {
        let (life, started_at) = runs(assignment, seen)?;
        let before = *self.used_before.get_or_insert(used_bytes);
        self.is_alive |= used_bytes.saturating_sub(before) >= BOOTING_BYTES;
        self.is_alive |= life.ready_at.is_some() && assignment.ready.probe != Probe::Running;
        if self.is_alive || now.ms_since(started_at) < SILENT_AFTER_MS {
            return None;
        }
        // A log that cannot be read proves nothing.
        self.is_alive = !console::is_silent(console_log, life.boot).unwrap_or(false);
        (!self.is_alive).then(|| Condition {
            kind: ConditionKind::GuestSilent,
            detail: format!(
                "since its start at {started_at} the guest has written nothing to its console and hardly used its disk: it \
                 may not boot; an image that boots only with UEFI needs a deployment with firmware uefi"
            ),
        })
    }
}

/// The start that runs now and when it began, if a hypervisor executes it.
fn runs<'a>(assignment: &Assignment, seen: &'a Seen) -> Option<(&'a Life, Timestamp)> {
    let DomainSeen::Present(domain) = &seen.domain else { return None };
    let life = seen.life.as_ref().filter(|life| life.is_of(assignment) && life.boot == domain.boot)?;
    let started = matches!(life.phase, Phase::Started { .. }) && domain.state == DomainState::Running;
    Some((life, life.started_at.filter(|_| started)?))
}
