//! How many bytes moved lately, for operators. `GET /v1/traffic` and `GET /v1/nodes/{node}/links`.

use serde::{Deserialize, Serialize};

use crate::{NodeId, Timestamp};

/// How many bytes moved in each step of the last minutes, up to an hour. It is kept in memory only: what was before the start of
/// the controller is not known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Traffic {
    /// Length of a step in seconds: 10 for up to 10 minutes, else 60.
    pub step_s: u64,
    /// When the first step began.
    pub from: Timestamp,
    /// When the last step ended. The present step is not shown yet.
    pub to: Timestamp,
    /// Number of nodes that told something in this time.
    pub nodes: u64,
    /// What moved, one number for each step.
    pub series: TrafficSeries,
}

/// One number for each step, oldest first; null where no node told anything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct TrafficSeries {
    /// Bytes of objects that nodes fetched from other nodes.
    pub fetched_bytes: Vec<Option<u64>>,
    /// Bytes of objects that nodes gave to other nodes and to controllers.
    pub served_bytes: Vec<Option<u64>>,
    /// Bytes that guests and programs read from disks.
    pub read_bytes: Vec<Option<u64>>,
    /// Bytes that guests and programs wrote to disks.
    pub written_bytes: Vec<Option<u64>>,
}

/// What went between a node and the others in the last 10 minutes, most bytes first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Links {
    /// One entry for each other node, at most 64.
    pub items: Vec<Link>,
}

/// What went between a node and another one in the last 10 minutes, as the first one told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Link {
    /// Id of the other node.
    pub node: NodeId,
    /// Name of the other node.
    pub node_name: String,
    /// Bytes of objects that were fetched from it.
    pub fetched_bytes: u64,
    /// Bytes of objects that were given to it.
    pub served_bytes: u64,
}
