//! Tokens, `/v1/tokens`. The controller stores only the hash of a secret, so the secret is shown once.
//!
//! | text | type |
//! |---|---|
//! | `mst1_{token id, 32 hex}_{secret, 43 base64url}` | [`ApiToken`]: signs people and programs in |
//! | `mjt1_{token id, 32 hex}_{cluster id, 32 hex}_{SHA-256 of the CA certificate, 64 hex}_{secret, 43 base64url}` | [`JoinToken`]: lets a node join, and names the cluster and CA it must find |
//! | `msl1_{link id, 32 hex}_{secret, 43 base64url}` | [`SignInCode`](crate::session::SignInCode): signs one browser in |
//! | `mss1_{session id, 32 hex}_{secret, 43 base64url}` | [`SessionKey`](crate::session::SessionKey): the cookie of a session |

use std::{borrow::Cow, fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{ClusterId, Name, OrUnknown, Timestamp, TokenId};

/// What a token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything: the role of operators.
    Admin,
    /// Everything within one project.
    Tenant,
    /// Only joining nodes.
    Node,
}

impl Role {
    /// The role as it is sent.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Tenant => "tenant",
            Self::Node => "node",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "admin" => Ok(Self::Admin),
            "tenant" => Ok(Self::Tenant),
            "node" => Ok(Self::Node),
            other => Err(format!("a role is admin, tenant or node, got '{other}'")),
        }
    }
}

/// Request of `POST /v1/tokens`.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    /// Name of the token; generated if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// What it may do.
    pub role: Role,
    /// Project of a tenant token. Default: `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<Name>,
    /// Seconds until it expires. Default: 1 hour for role `node`, else 90 days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_s: Option<u64>,
    /// Number of nodes that may join with a node token. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u32>,
}

/// A token, without its secret except when it is created.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Token {
    /// Id of the token.
    pub id: TokenId,
    /// Name of the token.
    pub name: String,
    /// What it may do.
    #[schema(value_type = Role)]
    pub role: OrUnknown<Role>,
    /// The project it is bound to; null for operators and nodes.
    pub project: Option<String>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it expires.
    pub expires_at: Timestamp,
    /// Number of nodes that may still join with a node token; null for other roles.
    pub uses_left: Option<u32>,
    /// The token itself, a secret; only in the answer to its creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub token: Option<String>,
}

/// The secret of a token: 32 random bytes. `Debug` does not print them.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; 32]);

impl Secret {
    /// A secret of these bytes, which must be random.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, for hashing.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn text(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    fn parse(text: &str) -> Result<Self, TokenError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError::Part("secret"))?;
        bytes.try_into().map(Self).map_err(|_| TokenError::Part("secret"))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// Why a text is not a token. The text is never repeated, because it may be a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It does not begin with the prefix of this kind of token, which is given.
    #[error("a token of this kind begins with {0}")]
    Prefix(&'static str),
    /// A part is missing or invalid; its name is given.
    #[error("the token's {0} cannot be read: is the text complete?")]
    Part(&'static str),
}

/// The text without secrets: what follows the prefix of a token is left out. For errors and logs, which may repeat what a
/// caller sent.
#[must_use]
pub fn without_secrets(text: &str) -> Cow<'_, str> {
    let is_token = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let (mut shown, mut rest) = (Cow::Borrowed(""), text);
    while let Some(begins) = PREFIXES.iter().filter_map(|prefix| rest.find(prefix)).min() {
        let (before, token) = rest.split_at(begins + PREFIXES[0].len());
        let secret = token.find(|c| !is_token(c)).unwrap_or(token.len());
        let shown = shown.to_mut();
        shown.push_str(before);
        shown.push_str(if secret == 0 { "" } else { "…" });
        rest = &token[secret..];
    }
    if shown.is_empty() {
        return text.into();
    }
    shown.to_mut().push_str(rest);
    shown
}

/// Types whose text is a prefix, an id and a secret.
macro_rules! keyed_texts {
    ($($(#[$doc:meta])* $name:ident { id: $id:ty } = $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name {
            /// The id, which is no secret.
            pub id: $id,
            /// The secret.
            pub secret: $crate::token::Secret,
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&$crate::token::keyed_text($prefix, self.id.uuid(), &self.secret))
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::token::TokenError;

            fn from_str(text: &str) -> Result<Self, $crate::token::TokenError> {
                let (id, secret) = $crate::token::parse_keyed($prefix, text)?;
                Ok(Self { id: id.into(), secret })
            }
        }
    )*};
}
pub(crate) use keyed_texts;

keyed_texts! {
    /// A token for people and programs.
    ApiToken { id: TokenId } = "mst1_";
}

pub(crate) fn keyed_text(prefix: &str, id: Uuid, secret: &Secret) -> String {
    format!("{prefix}{}_{}", id.simple(), secret.text())
}

pub(crate) fn parse_keyed(prefix: &'static str, text: &str) -> Result<(Uuid, Secret), TokenError> {
    let rest = text.strip_prefix(prefix).ok_or(TokenError::Prefix(prefix))?;
    // The secret may contain `_`, so only the first one is a separator.
    let (id, secret) = rest.split_once('_').ok_or(TokenError::Part("secret"))?;
    Ok((bare_uuid(id).ok_or(TokenError::Part("id"))?, Secret::parse(secret)?))
}

const JOIN_PREFIX: &str = "mjt1_";
/// What secrets begin with. All prefixes have the same length.
const PREFIXES: [&str; 4] = ["mst1_", JOIN_PREFIX, "msl1_", "mss1_"];

/// A token that lets nodes join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinToken {
    /// Id of the token.
    pub id: TokenId,
    /// Id of the cluster it is for.
    pub cluster: ClusterId,
    /// SHA-256 of the certificate of that cluster's CA, in DER.
    pub ca_sha256: [u8; 32],
    /// Secret of the token.
    pub secret: Secret,
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (id, cluster) = (self.id.uuid().simple(), self.cluster.uuid().simple());
        write!(f, "{JOIN_PREFIX}{id}_{cluster}_{}_{}", hex::encode(self.ca_sha256), self.secret.text())
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let rest = text.strip_prefix(JOIN_PREFIX).ok_or(TokenError::Prefix(JOIN_PREFIX))?;
        let mut parts = rest.splitn(4, '_');
        let mut next = |what| parts.next().ok_or(TokenError::Part(what));
        Ok(Self {
            id: bare_uuid(next("id")?).ok_or(TokenError::Part("id"))?.into(),
            cluster: bare_uuid(next("cluster")?).ok_or(TokenError::Part("cluster"))?.into(),
            ca_sha256: sha256(next("CA fingerprint")?).ok_or(TokenError::Part("CA fingerprint"))?,
            secret: Secret::parse(next("secret")?)?,
        })
    }
}

fn bare_uuid(text: &str) -> Option<Uuid> {
    (text.len() == 32).then(|| Uuid::try_parse(text).ok()).flatten()
}

fn sha256(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use storage_core::fuzz::{CountingAllocator, Fuzz};

    use super::*;

    #[test]
    fn a_token_reads_back_as_it_was_printed() {
        // With all bits set, the text of the secret is full of `_`, which is also the separator.
        let secret = Secret::from_bytes([0xff; 32]);
        let api = ApiToken { id: TokenId::generate(), secret: secret.clone() };
        assert_eq!(api.to_string().parse(), Ok(api.clone()));
        assert_eq!(api.to_string().len(), 5 + 32 + 1 + 43);
        let join = JoinToken { id: TokenId::generate(), cluster: ClusterId::generate(), ca_sha256: [0xab; 32], secret };
        assert_eq!(join.to_string().parse(), Ok(join.clone()));
        assert_eq!(join.to_string().len(), 5 + 32 + 1 + 32 + 1 + 64 + 1 + 43);
    }

    #[test]
    fn an_invalid_token_is_refused_without_repeating_it() {
        let good = ApiToken { id: TokenId::generate(), secret: Secret::from_bytes([7; 32]) }.to_string();
        assert_eq!("hello".parse::<ApiToken>(), Err(TokenError::Prefix("mst1_")));
        assert_eq!(good.parse::<JoinToken>(), Err(TokenError::Prefix("mjt1_")));
        assert_eq!(good[..good.len() - 1].parse::<ApiToken>(), Err(TokenError::Part("secret")));
        assert_eq!("mst1_12_34".parse::<ApiToken>(), Err(TokenError::Part("id")));
        assert!(!format!("{:?}", good.parse::<ApiToken>()).contains(&good[38..]));
    }

    #[test]
    fn no_text_repeats_the_secret_of_a_token_that_is_in_it() {
        let secret = Secret::from_bytes([7; 32]);
        let api = ApiToken { id: TokenId::generate(), secret: secret.clone() }.to_string();
        let join = JoinToken { id: TokenId::generate(), cluster: ClusterId::generate(), ca_sha256: [0xab; 32], secret };
        let text = format!("there is no token '{join}', and {api}/content is no path");
        assert_eq!(without_secrets(&text), "there is no token 'mjt1_…', and mst1_…/content is no path");
        assert_eq!(without_secrets(&api[..40]), "mst1_…", "a part of a token as well");
        for prefix in PREFIXES {
            assert_eq!(without_secrets(&format!("{prefix}abc")), format!("{prefix}…"));
        }
        for harmless in ["", "send a token: Bearer mst1_…", "mst1 and mst1_ and mst"] {
            assert_eq!(without_secrets(harmless), harmless);
        }
    }

    #[test]
    fn a_sign_is_not_a_hex_digit() {
        let (id, cluster) = (TokenId::generate(), ClusterId::generate());
        let join = JoinToken { id, cluster, ca_sha256: [0x0b; 32], secret: Secret::from_bytes([7; 32]) }.to_string();
        let signed = join.replacen("0b0b", "+b0b", 1);
        assert_eq!(signed.parse::<JoinToken>(), Err(TokenError::Part("CA fingerprint")));
    }

    #[global_allocator]
    static ALLOCATOR: CountingAllocator = CountingAllocator;

    /// A token read from any text prints as that text, apart from the case of hex digits.
    #[test]
    fn fuzz_token() {
        let (id, secret) = (TokenId::generate(), Secret::from_bytes([0xb7; 32]));
        let api = ApiToken { id, secret: secret.clone() };
        let join = JoinToken { id, cluster: ClusterId::generate(), ca_sha256: [0xab; 32], secret };
        Fuzz::new([api.to_string().into_bytes(), join.to_string().into_bytes()]).run(|bytes| {
            let text = std::str::from_utf8(bytes).map_err(|_| TokenError::Part("text"))?;
            let again = match text.parse::<ApiToken>() {
                Ok(token) => token.to_string(),
                Err(TokenError::Prefix(_)) => text.parse::<JoinToken>()?.to_string(),
                Err(error) => return Err(error),
            };
            assert!(again.eq_ignore_ascii_case(text), "{text} is read as {again}");
            Ok(())
        });
    }
}
