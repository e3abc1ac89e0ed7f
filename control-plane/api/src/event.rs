//! Events: what `GET /v1/events` streams, at least once, in order per thing.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{OperationId, Timestamp, operation::Target};

/// Something that happened.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Event {
    /// Opaque position; give it as `after` or `Last-Event-ID`.
    pub id: String,
    /// When.
    pub time: Timestamp,
    /// `image.created`, `version.published`, `deployment.state`, `instance.state`, `operation.state`, `node.state`, …
    pub kind: String,
    /// Owner of the target.
    pub project: String,
    /// What it happened to.
    pub target: Target,
    /// The operation it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<OperationId>,
    /// Who: a token's name, `node:NAME`, or `muster`.
    pub actor: String,
    /// Of the kind: `state`, `reason`, ids.
    #[schema(value_type = Object)]
    pub data: Value,
}
