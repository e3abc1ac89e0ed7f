//! The membership record: which nodes belong to the pool, what [`crate::placement`] needs to know of them, and whose keys
//! peers accept. The controller's CA signs it, so it stays valid while no controller can be reached.

use serde::{Deserialize, Serialize};

use crate::{ClusterId, NodeId, StoreId};

/// One member of the pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Id of the node.
    pub node: NodeId,
    /// The node's name, for messages.
    pub name: String,
    /// Id of the node's store, which placement hashes.
    pub store: StoreId,
    /// `IP:PORT` of the node's peer server.
    pub address: String,
    /// Failure domain. None: the node is a zone of its own.
    pub zone: Option<String>,
    /// The node's share of the pool, relative to the others'. With 0 it owns nothing.
    pub weight: u32,
    /// Whether the node takes new objects.
    pub accepting: bool,
    /// SHA-256 of the node's public key (SubjectPublicKeyInfo, DER), in hex.
    pub key_sha256: String,
}

impl Member {
    /// Whether objects belong on the node: it takes new ones and its share is not 0.
    #[must_use]
    pub const fn owns_objects(&self) -> bool {
        self.accepting && self.weight > 0
    }
}

/// Somebody who owns no objects and whose key may ask peers: a controller, or a node that was declared dead and may save
/// what its disks hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// Its name, for messages.
    pub name: String,
    /// SHA-256 of its public key (SubjectPublicKeyInfo, DER), in hex.
    pub key_sha256: String,
    /// Whether it may only read and store objects, because it is a node that was declared dead.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub salvages: bool,
}

/// One epoch of the pool's membership.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The cluster that the pool belongs to.
    pub cluster: ClusterId,
    /// Number of this record. It grows by one with every join, leave, or change of weight or accepting. A node that is
    /// only down does not change it.
    pub epoch: u64,
    /// Number of copies wanted of every object.
    pub min_copies: u32,
    /// The nodes, in the order of their ids.
    pub members: Vec<Member>,
    /// Who else may call the nodes.
    pub clients: Vec<Client>,
}

/// A membership record with the CA's signature over its exact bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedMembership {
    /// [`Membership`] as JSON text. These exact bytes are signed.
    pub record: String,
    /// Signature by the CA's key: ECDSA, P-256, SHA-256; DER in hex.
    pub signature: String,
}
