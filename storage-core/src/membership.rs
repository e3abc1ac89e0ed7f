//! The membership record: which nodes belong to the pool, what [`crate::placement`] needs to know of them, and whose keys
//! peers accept. The controller's CA signs it, so it stays valid while no controller can be reached.

use serde::{Deserialize, Serialize};

use crate::{ClusterId, NodeId, StoreId};

/// One member of the pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Node.
    pub node: NodeId,
    /// Its name, for messages.
    pub name: String,
    /// Its pool; placement hashes this.
    pub store: StoreId,
    /// `IP:PORT` of its peer server.
    pub address: String,
    /// Failure domain.
    pub zone: Option<String>,
    /// Share of the pool, relative; 0 owns nothing.
    pub weight: u32,
    /// Whether it takes new objects.
    pub accepting: bool,
    /// SHA-256 of its public key (SubjectPublicKeyInfo, DER), hex.
    pub key_sha256: String,
}

/// A key that may ask peers but owns nothing: the controllers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// For messages.
    pub name: String,
    /// SHA-256 of its public key (SubjectPublicKeyInfo, DER), hex.
    pub key_sha256: String,
}

/// One epoch of the pool's membership.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// The cluster.
    pub cluster: ClusterId,
    /// Membership epoch; grows by one with every join, leave, weight or accepting change. Down never makes one.
    pub epoch: u64,
    /// Copies wanted of every object.
    pub min_copies: u32,
    /// Members in node id order.
    pub members: Vec<Member>,
    /// Controllers.
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
