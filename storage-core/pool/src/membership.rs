//! Verifying the membership record, which tells whom peers accept and where objects belong.

use sha2::{Digest as _, Sha256};
use storage_core::{
    ClusterId,
    membership::{Membership, SignedMembership},
};

use crate::tls::Ca;

/// Why a membership record is refused.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    /// The signature was not made by the cluster's CA.
    #[error("the membership record is not signed by the cluster's CA")]
    Signature,
    /// The signed text is not a membership record.
    #[error("the membership record cannot be read: {0}")]
    Content(#[from] serde_json::Error),
    /// The record is that of another cluster.
    #[error("the membership record is of cluster {got}, expected {expected}")]
    Cluster {
        /// The cluster of this node.
        expected: ClusterId,
        /// The cluster in the record.
        got: ClusterId,
    },
}

/// Tells a signed record from every other one, also from one of the same epoch in another history of the database. In hex. It is
/// made of the exact bytes that were signed, so that a version which knows other fields gets the same.
#[must_use]
pub fn digest(signed: &SignedMembership) -> String {
    hex::encode(&Sha256::digest(signed.record.as_bytes())[..16])
}

/// Checks the signature and the cluster, and reads the record.
///
/// # Errors
/// When one of them does not fit. The caller then keeps the record it has.
pub fn verify(signed: &SignedMembership, ca: &Ca, cluster: ClusterId) -> Result<Membership, MembershipError> {
    let signature = hex::decode(&signed.signature).map_err(|_| MembershipError::Signature)?;
    if !ca.signed(signed.record.as_bytes(), &signature) {
        return Err(MembershipError::Signature);
    }
    let record: Membership = serde_json::from_str(&signed.record)?;
    if record.cluster != cluster {
        return Err(MembershipError::Cluster { expected: cluster, got: record.cluster });
    }
    Ok(record)
}
