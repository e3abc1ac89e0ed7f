//! Found instances as operators see them.

use muster_api::{
    found::{FoundDisk, FoundInstance},
    instance::InstanceState,
    node_protocol::{DiskReport, Observed},
};

use super::told;
use crate::store::found::FoundRow;

/// A found instance as the API shows it.
pub(super) fn show(row: &FoundRow, node_name: String) -> FoundInstance {
    let report = &row.report;
    let told = told(report);
    let size = |disk: &DiskReport| {
        let named = told?.disks.iter().find(|named| named.disk == disk.disk);
        named.map(|named| named.size_bytes)
    };
    FoundInstance {
        id: row.id,
        name: told.map(|told| told.name.clone()),
        project: told.map(|told| told.project.clone()),
        node: row.node,
        node_name,
        state: if row.forgotten { InstanceState::Deleting } else { state(report.state) },
        reason: report.reason.clone(),
        detail: report.detail.clone(),
        runtime: told.map(|told| told.runtime.into()),
        cpus: told.map(|told| told.cpus),
        memory_bytes: told.map(|told| told.memory_bytes),
        generation: report.generation,
        boot: report.boot,
        disks: report
            .disks
            .iter()
            .map(|disk| FoundDisk {
                id: disk.disk,
                size_bytes: size(disk),
                path: disk.path.clone(),
                version: disk.version,
                unsaved_bytes: disk.unsaved_bytes,
            })
            .collect(),
        created_at: row.created_at,
        updated_at: row.updated_at,
    }
}

const fn state(observed: Observed) -> InstanceState {
    match observed {
        Observed::Preparing => InstanceState::Starting,
        Observed::Running => InstanceState::Running,
        Observed::Paused => InstanceState::Paused,
        Observed::Stopping => InstanceState::Stopping,
        Observed::Stopped => InstanceState::Stopped,
        Observed::Failed => InstanceState::Failed,
        Observed::Gone => InstanceState::Deleted,
    }
}
