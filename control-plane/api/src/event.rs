//! Events: the stream of `GET /v1/events`. Each event is sent at least once; the events of one target are in order.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{OperationId, Timestamp, operation::Target};

/// Something that happened to a target.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Event {
    /// Position in the stream, opaque. Give it as `after` or `Last-Event-ID` to go on after this event.
    pub id: String,
    /// When it happened.
    pub time: Timestamp,
    /// What happened: `image.created`, `version.published`, `deployment.state`, `instance.state`, `operation.state`,
    /// `node.state`, …
    pub kind: String,
    /// Name of the project that owns the target.
    pub project: String,
    /// What it happened to.
    pub target: Target,
    /// The operation that caused it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub operation: Option<OperationId>,
    /// Who caused it: the name of a token, `node:NAME` (for tenants `system`), or `muster` for the controller itself.
    pub actor: String,
    /// Further fields, which depend on the kind: `state`, `reason`, ids.
    #[schema(value_type = Object)]
    pub data: Value,
}
