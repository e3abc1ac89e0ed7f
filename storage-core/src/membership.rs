//! The membership record: which nodes belong to the pool, what [`crate::placement`] needs to know of them, and whose keys
//! peers accept. The controller's CA signs it, so it stays valid while no controller can be reached.

use serde::{Deserialize, Serialize};

use crate::{ClusterId, NodeId, StoreId};

/// One member of the pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Id of the node.
    pub node: NodeId,
    /// Name of the node, for messages.
    pub name: String,
    /// Id of its store. Placement hashes this.
    pub store: StoreId,
    /// `IP:PORT` of its peer server.
    pub address: String,
    /// Failure domain of the node.
    pub zone: Option<String>,
    /// Its share of the pool, relative to the other weights. With 0 it owns no objects.
    pub weight: u32,
    /// Whether it takes new objects.
    pub accepting: bool,
    /// SHA-256 of its public key (SubjectPublicKeyInfo, DER), hex.
    pub key_sha256: String,
}

/// A key that may read and write the pool but owns no objects: that of a controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// Name of the client, for messages.
    pub name: String,
    /// SHA-256 of its public key (SubjectPublicKeyInfo, DER), hex.
    pub key_sha256: String,
}

/// The membership of the pool in one epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The cluster of the pool.
    pub cluster: ClusterId,
    /// Number of the epoch. It grows by one when a member joins or leaves, or its weight or `accepting` changes; not
    /// when a node is down.
    pub epoch: u64,
    /// Number of copies wanted of every object.
    pub min_copies: u32,
    /// Members in the order of their node ids.
    pub members: Vec<Member>,
    /// The controllers.
    pub clients: Vec<Client>,
}

/// A membership record with the CA's signature over its exact bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedMembership {
    /// [`Membership`] as JSON text: these bytes are signed.
    pub record: String,
    /// ECDSA P-256 SHA-256 signature by the CA's key, DER, hex.
    pub signature: String,
}
