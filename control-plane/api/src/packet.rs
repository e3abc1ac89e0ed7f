//! Words about packets of guests that people and nodes share.

use serde::{Deserialize, Serialize};

/// The protocols that have ports.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum PortProtocol {
    /// The transmission control protocol.
    #[default]
    Tcp,
    /// The user datagram protocol.
    Udp,
}

/// Whether a rule is about packets to a guest or from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RuleDirection {
    /// Packets to the guest.
    In,
    /// Packets from the guest.
    Out,
}
