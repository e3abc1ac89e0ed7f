//! Tokens: `POST /v1/tokens`. Stored hashed; the secret is shown once.

use serde::{Deserialize, Serialize};

use crate::{Name, Timestamp, TokenId};

/// What a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything (operator).
    Admin,
    /// Everything within one project.
    Tenant,
    /// Joining nodes, nothing else.
    Node,
}

/// `POST /v1/tokens`.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    /// Made up if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// What it may do.
    pub role: Role,
    /// Tenant: the project, default `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<Name>,
    /// Seconds until it ends; default 1 h for nodes, 90 days for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_s: Option<u64>,
    /// Node: how many nodes may join with it, default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u32>,
}

/// A token, without its secret.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Token {
    /// Id.
    pub id: TokenId,
    /// Name.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// The project it is bound to; null for operators and nodes.
    pub project: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
    /// Node: joins left.
    pub uses_left: Option<u32>,
    /// The secret; only in the answer that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}
