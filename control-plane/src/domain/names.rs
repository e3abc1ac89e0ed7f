//! Names that the controller makes.

use uuid::Uuid;

/// A name for a thing that nobody named: the prefix and the random end of the thing's id.
#[must_use]
pub fn made_up(prefix: &str, id: Uuid) -> String {
    let text = id.simple().to_string();
    format!("{prefix}-{}", text.get(20..).expect("an id has 32 hex digits"))
}

/// The name of a deployment's member: `DEPLOYMENT.N`.
#[must_use]
pub fn member_name(deployment: &str, number: u64) -> String {
    format!("{deployment}.{number}")
}

/// The host name of a member: `DEPLOYMENT-N` for `DEPLOYMENT.N`.
#[must_use]
pub fn host_name(member: &str) -> String {
    member.replace('.', "-")
}
