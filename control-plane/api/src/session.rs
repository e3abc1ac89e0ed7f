//! Sessions of browsers, `/v1/session` and `/v1/sessions`, and the links that begin one without a token.
//!
//! A session is a cookie that stands for a token. Its name, role and project are those of the token, and it ends with it.

use serde::{Deserialize, Serialize};

use crate::{
    OrUnknown, SessionId, SignInLinkId, Timestamp, TokenId,
    token::{Role, keyed_texts},
};

/// Request of `POST /v1/session`. Exactly one field is given.
#[derive(Clone, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateSession {
    /// The text of a token of an operator or tenant.
    #[serde(default)]
    pub token: Option<String>,
    /// The code of a sign-in link. It is good once.
    #[serde(default)]
    pub code: Option<String>,
}

/// A session of a browser. Its secret is only in the cookie.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Session {
    /// Id of the session.
    pub id: SessionId,
    /// Id of the token that it stands for.
    pub token: TokenId,
    /// Name of that token.
    pub token_name: String,
    /// What it may do.
    #[schema(value_type = Role)]
    pub role: OrUnknown<Role>,
    /// The project it is bound to; null for operators.
    pub project: Option<String>,
    /// When somebody signed in.
    pub created_at: Timestamp,
    /// When it ends. It may end earlier: with its token, or when somebody ends it.
    pub expires_at: Timestamp,
    /// When a call was last made with it, to some ten seconds; null before the first.
    pub last_used_at: Option<Timestamp>,
    /// The address that signed in; null if it is not known.
    pub address: Option<String>,
    /// How the browser names itself (`User-Agent`), at most 200 characters; null if it does not.
    pub agent: Option<String>,
}

/// Request of `POST /v1/session/link`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateSignInLink {
    /// Id or name of the token that the link stands for. Default: the caller's own. Only operators name another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// A link that signs one browser in, once.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SignInLink {
    /// Id of the link.
    pub id: SignInLinkId,
    /// Id of the token that it stands for.
    pub token: TokenId,
    /// Name of that token.
    pub token_name: String,
    /// The code for `POST /v1/session`, a secret.
    pub code: String,
    /// Path of the dashboard's page that signs in with the code. Put the controller's URL before it.
    pub path: String,
    /// When the code ends, if it is not used before.
    pub expires_at: Timestamp,
}

keyed_texts! {
    /// The code of a sign-in link.
    SignInCode { id: SignInLinkId } = "msl1_";
    /// What the cookie of a session holds.
    SessionKey { id: SessionId } = "mss1_";
}
