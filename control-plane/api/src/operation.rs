//! Operations: the records of work that outlives its request. `/v1/operations`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{NodeId, OperationId, Problem, Timestamp};

/// What an operation works on, or an event happened to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Target {
    /// Its kind: `deployment`, `instance`, `image`, `version`, `snapshot`, `node`.
    pub kind: String,
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
}

/// State of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    /// It was accepted and has not begun.
    Pending,
    /// It is under way.
    Running,
    /// It was asked to stop.
    Cancelling,
    /// It did what was asked.
    Succeeded,
    /// It failed; see `error`.
    Failed,
    /// It was stopped on request. What it had done is kept.
    Cancelled,
    /// A word that this program does not know.
    #[serde(other)]
    Unknown,
}

impl OperationState {
    /// Whether it has ended, so that its state will not change again.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// How far an operation is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Progress {
    /// Number that is done.
    pub done: u64,
    /// Number in all.
    pub total: u64,
    /// Number that failed.
    pub failed: u64,
    /// What is counted: `instances`, `disks`, `bytes`.
    pub unit: String,
}

/// Something that an operation waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WaitingOn {
    /// What it waits for, for people: `web.3: starting`.
    pub what: String,
    /// The node where that happens. For operators only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub node: Option<NodeId>,
    /// Name of that node. For operators only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub node_name: Option<String>,
    /// Since when it waits.
    pub since: Timestamp,
    /// Until when it waits.
    pub deadline: Option<Timestamp>,
}

/// An operation: the record of work that outlives its request. It is kept for 30 days.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Operation {
    /// Id of the operation.
    pub id: OperationId,
    /// Name of the project that owns the operation.
    pub project: String,
    /// What it does: `deployment.create`, `deployment.scale`, `deployment.delete`, `instance.start`, `snapshot.create`,
    /// …
    pub kind: String,
    /// What it works on, which exists from the beginning.
    pub target: Target,
    /// Current state.
    pub state: OperationState,
    /// The step it is at, for people.
    pub phase: String,
    /// How far it is.
    pub progress: Progress,
    /// What it waits for, at most 20 entries.
    pub waiting_on: Vec<WaitingOn>,
    /// When it gives up.
    pub deadline: Option<Timestamp>,
    /// Why it failed; null unless it did.
    pub error: Option<Problem>,
    /// Its result, whose fields depend on the kind.
    #[schema(value_type = Option<Object>)]
    pub result: Option<Value>,
    /// Name of the token that requested it.
    pub requested_by: String,
    /// Id of the request that began it.
    pub request_id: String,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// When the work began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}
