//! Operations: the record of slow work.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{NodeId, OperationId, Problem, Timestamp};

/// What an operation works on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Target {
    /// `deployment`, `instance`, `image`, `version`, `snapshot`, `node`.
    pub kind: String,
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
}

/// Where an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    /// Accepted.
    Pending,
    /// Under way.
    Running,
    /// Asked to stop.
    Cancelling,
    /// Did what was asked.
    Succeeded,
    /// Could not; `error` tells.
    Failed,
    /// Stopped on request; what was done is kept.
    Cancelled,
    /// A word this program does not know.
    #[serde(other)]
    Unknown,
}

impl OperationState {
    /// Whether nothing will change any more.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// How far it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Progress {
    /// Done so far.
    pub done: u64,
    /// Of so many.
    pub total: u64,
    /// Failed so far.
    pub failed: u64,
    /// Of what: `instances`, `disks`, `bytes`.
    pub unit: String,
}

/// Something the operation waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct WaitingOn {
    /// In words: `web.3: starting`.
    pub what: String,
    /// Where (operators).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// Since when.
    pub since: Timestamp,
    /// Until when it is waited for.
    pub deadline: Option<Timestamp>,
}

/// The record of slow work, kept 30 days.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Operation {
    /// Id.
    pub id: OperationId,
    /// Owner.
    pub project: String,
    /// `deployment.create`, `deployment.scale`, `deployment.delete`, `instance.start`, `snapshot.create`, …
    pub kind: String,
    /// What it works on; can be read at once.
    pub target: Target,
    /// State.
    pub state: OperationState,
    /// Step within its kind, for people.
    pub phase: String,
    /// How far.
    pub progress: Progress,
    /// What for, first 20.
    pub waiting_on: Vec<WaitingOn>,
    /// When it gives up.
    pub deadline: Option<Timestamp>,
    /// Why it failed.
    pub error: Option<Problem>,
    /// What came of it.
    #[schema(value_type = Object)]
    pub result: Option<Value>,
    /// The token's name.
    pub requested_by: String,
    /// The request that began it.
    pub request_id: String,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// When work began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}
