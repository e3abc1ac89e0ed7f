//! Instances that are on this node and that the desired state does not name.
//!
//! The controller names an instance until its node has told that nothing is left of it. So one that is here and not named
//! belongs to a history that the controller does not know: its database was restored from an older copy. The instance
//! is left alone, guest and disks, and reported with what was last told of it. Its name, size and project are
//! nowhere else any more. An operator takes it back or lets it be deleted; both end in an assignment.

use muster_api::{
    InstanceId, Reason,
    deployment::Runtime,
    node_protocol::{Assignment, Found, InstanceReport, Observed},
};

use super::{
    DiskReport, DiskStatus, Inner,
    plan::{Here, Life, Phase},
    record::Record,
    report::Trouble,
};
use crate::hypervisor::{Domain, DomainState};

impl Inner {
    /// The report of an instance without an assignment. `domain` is `None` while the hypervisor does not answer.
    pub(super) fn found(
        &self,
        instance: InstanceId,
        domain: Option<Option<&Domain>>,
        disks: &[&DiskStatus],
        here: &Here,
    ) -> InstanceReport {
        let (life, told) = self.slot(instance, |slot| (slot.life.clone(), slot.told.clone()));
        let is_mounted = !disks.is_empty() && disks.iter().all(|disk| disk.mounted);
        let runtime = told.as_ref().map_or(Runtime::Libvirt, |told| told.runtime);
        let (state, why) = match (runtime, domain) {
            (Runtime::None, _) if is_mounted => (Observed::Running, None),
            (Runtime::None, _) => (Observed::Stopped, None),
            (Runtime::Libvirt, Some(None)) => (Observed::Stopped, None),
            (Runtime::Libvirt, Some(Some(domain))) => observed(domain, here),
            (Runtime::Libvirt, None) => (last_known(life.as_ref()), Some(silent())),
        };
        let (reason, detail) = why.map(|Trouble { reason, detail }| (reason, detail)).unzip();
        let generations = disks.iter().map(|disk| disk.generation).chain(life.iter().map(|life| life.generation));
        let report = |disk: &&DiskStatus| super::disk_report(disk, None, true);
        InstanceReport {
            instance,
            generation: generations.max().unwrap_or(1),
            boot: life.as_ref().map_or(1, |life| life.boot),
            state,
            reason,
            detail,
            disk_at: life.as_ref().and_then(|life| life.disk_at),
            started_at: life.as_ref().and_then(|life| life.started_at),
            ready_at: life.as_ref().and_then(|life| life.ready_at),
            reboots: 0,
            conditions: disks.iter().copied().filter_map(super::lost_content).collect(),
            disks: disks.iter().map(report).collect::<Vec<DiskReport>>(),
            absent: Vec::new(),
            guest: None,
            found: Some(Found { told }),
        }
    }

    /// Adds the assignment to a record that lacks it, because an older agent wrote it.
    pub(super) fn keep_told(&self, assignment: &Assignment) {
        let record = self.slot(assignment.instance, |slot| {
            let life = slot.life.clone().filter(|_| slot.told.is_none() && !slot.busy)?;
            slot.told = Some(assignment.clone());
            Some(Record { life, told: slot.told.clone() })
        });
        if let Some(record) = record
            && let Err(error) = self.records.save(assignment.instance, &record)
        {
            tracing::warn!(instance.id = %assignment.instance, %error, "the record of {} is not complete", assignment.name);
        }
    }
}

fn observed(domain: &Domain, here: &Here) -> (Observed, Option<Trouble>) {
    if domain.run != here.run {
        let detail = "the agent that served its disk has ended, so its disk went away under it".to_owned();
        return (Observed::Failed, Some(Trouble { reason: Reason::DiskLost, detail }));
    }
    match &domain.state {
        DomainState::Running => (Observed::Running, None),
        DomainState::Stopping => (Observed::Stopping, None),
        DomainState::Paused(_) => {
            let detail = "the hypervisor has paused it".to_owned();
            (Observed::Paused, Some(Trouble { reason: Reason::Paused, detail }))
        }
    }
}

fn last_known(life: Option<&Life>) -> Observed {
    match life.map(|life| &life.phase) {
        Some(Phase::Started { .. }) => Observed::Running,
        Some(Phase::New | Phase::Ended(_)) | None => Observed::Stopped,
    }
}

fn silent() -> Trouble {
    Trouble { reason: Reason::HypervisorSilent, detail: "the hypervisor does not answer".to_owned() }
}
