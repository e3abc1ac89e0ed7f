//! The types that the two daemons and their clients exchange. Only serde types: no I/O, no async.
//!
//! Reading order: [`ids`] and [`names`] (how resources are named), one file per noun of the public REST API
//! ([`image`], [`version`], [`deployment`], [`protection`], [`disk`], [`instance`], [`console`], [`network`], [`security_group`], [`snapshot`],
//! [`node`], [`operation`], [`event`], [`token`], [`session`], [`summary`], [`traffic`]), [`ssh_key`] and [`user_data`] (what a guest
//! is told), [`condition`], [`error`], [`reason`], [`page`],
//! [`etag`], [`mac`], [`packet`], [`or_unknown`] and [`units`] (what all share), then the two
//! protocols that tenants never see: [`node_protocol`] (controller and agent) and [`peer_protocol`] (agent and agent,
//! controller and agent).
//!
//! Rules: answers may gain fields; clients ignore fields they do not know, and read unknown words as `unknown`.
//! Requests with unknown fields are refused. The names of numbers end with their unit (`_bytes`, `_ms`, `_s`). Times
//! are RFC 3339.

pub mod condition;
pub mod console;
pub mod deployment;
pub mod disk;
pub mod error;
pub mod etag;
pub mod event;
pub mod firmware;
pub mod found;
pub mod guest;
pub mod ids;
pub mod image;
pub mod instance;
pub mod mac;
pub mod names;
pub mod network;
pub mod node;
pub mod node_protocol;
pub mod operation;
pub mod or_unknown;
pub mod packet;
pub mod page;
pub mod patch;
pub mod peer_protocol;
pub mod pool;
pub mod protection;
pub mod reason;
pub mod security_group;
pub mod session;
pub mod snapshot;
pub mod ssh_key;
pub mod summary;
pub mod timestamp;
pub mod token;
pub mod traffic;
pub mod units;
pub mod user_data;
pub mod version;
mod words;

pub use error::{ErrorCode, Problem};
pub use ids::*;
pub use mac::MacAddress;
pub use names::{DottedName, Labels, Name, Ref};
pub use or_unknown::OrUnknown;
pub use page::Page;
pub use patch::LabelsPatch;
pub use reason::Reason;
pub use ssh_key::SshKey;
pub use storage_core::cause;
pub use timestamp::Timestamp;
pub use user_data::UserData;

/// Version of the REST API and of both protocols.
pub const API_VERSION: &str = "v1";
