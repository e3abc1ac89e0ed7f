//! `GET /v1/summary` and `GET /v1/me`: answers that do not grow with the cluster.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{ClusterId, OrUnknown, Timestamp, token::Role};

/// Counts by state, problems first.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Summary {
    /// What someone should look at, worst first, at most 20.
    pub problems: Vec<ProblemLine>,
    /// Deployments by state.
    pub deployments: BTreeMap<String, u64>,
    /// Instances by state.
    pub instances: BTreeMap<String, u64>,
    /// Images by state.
    pub images: BTreeMap<String, u64>,
    /// Snapshots by state.
    pub snapshots: BTreeMap<String, u64>,
    /// Nodes by state (operators; else empty).
    pub nodes: BTreeMap<String, u64>,
    /// Operations by state.
    pub operations: BTreeMap<String, u64>,
    /// Operations past their deadline.
    pub operations_overdue: u64,
    /// Bytes no version explains; null until the sweep is built.
    pub unexplained_bytes: Option<u64>,
    /// The position this is true at.
    pub as_of: String,
}

/// One thing someone should look at.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ProblemLine {
    /// `node_silent`, `instance_failed`, `operation_overdue`, …
    pub kind: String,
    /// How many.
    pub count: u64,
    /// For people.
    pub detail: String,
}

/// Who is asking, `GET /v1/me`.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Me {
    /// The token's name.
    pub name: String,
    /// What it may do.
    #[schema(value_type = Role)]
    pub role: OrUnknown<Role>,
    /// The project it is bound to; null for operators.
    pub project: Option<String>,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// The cluster.
    pub cluster: ClusterId,
    /// The controller's version.
    pub version: String,
}
