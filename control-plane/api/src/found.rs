//! Instances that nodes hold and the database does not know, because it was restored from an older copy.
//! `/v1/found-instances`, for operators.

use serde::{Deserialize, Serialize};

use crate::{
    DiskId, InstanceId, Name, NodeId, OrUnknown, Reason, Timestamp, VersionId, deployment::Runtime,
    instance::InstanceState,
};

/// An instance that a node holds and the database does not know. It is left alone until an operator takes it back or
/// forgets it.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FoundInstance {
    /// Id of the instance. It keeps it when it is taken back.
    pub id: InstanceId,
    /// The name that it had, `DEPLOYMENT.N`; null if its node does not know.
    pub name: Option<String>,
    /// The project that owned it; null if its node does not know.
    pub project: Option<String>,
    /// The node that holds it.
    pub node: NodeId,
    /// Name of that node.
    pub node_name: String,
    /// What its node reports: `running`, `paused`, `stopping`, `stopped`, `failed`; `deleting` once it is forgotten.
    pub state: InstanceState,
    /// Why it is in that state.
    #[schema(value_type = Option<String>)]
    pub reason: Option<Reason>,
    /// The reason in a sentence.
    pub detail: Option<String>,
    /// What runs it; null if its node does not know.
    #[schema(value_type = Option<Runtime>)]
    pub runtime: Option<OrUnknown<Runtime>>,
    /// Its virtual processors; null if its node does not know.
    pub cpus: Option<u32>,
    /// Its memory in bytes; null if its node does not know.
    pub memory_bytes: Option<u64>,
    /// Number of the node that its disks may be written on.
    pub generation: u64,
    /// Number of its last start.
    pub boot: u64,
    /// Its disks.
    pub disks: Vec<FoundDisk>,
    /// When it was first reported.
    pub created_at: Timestamp,
    /// When its node last reported something new of it.
    pub updated_at: Timestamp,
}

/// A disk of a found instance.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FoundDisk {
    /// Id of the disk.
    pub id: DiskId,
    /// Logical size in bytes; null if its node does not know.
    pub size_bytes: Option<u64>,
    /// Path of its raw file on the node.
    pub path: String,
    /// The newest published version that its node knows of.
    pub version: VersionId,
    /// Bytes written since that version.
    pub unsaved_bytes: u64,
}

/// Request of `POST /v1/found-instances/{instance}/take`. Without fields it becomes again what it was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TakeFound {
    /// Name of the deployment that it joins; made if there is none. Default: the one that it belonged to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub deployment: Option<Name>,
    /// The project of that deployment. Default: the one that it belonged to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub project: Option<Name>,
}

/// Request of `POST /v1/found-instances/{instance}/forget`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ForgetFound {
    /// Must be true: its node cuts its power and deletes its disks. What no version has of them is lost.
    #[serde(default)]
    pub confirm: bool,
}
