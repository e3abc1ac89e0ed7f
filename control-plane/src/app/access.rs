//! Who is asking and what they may do: 401 without a good token, 404 for what is not theirs, 403 for what they see but
//! must not do.

use muster_api::{
    ErrorCode, TokenId,
    token::{ApiToken, Role},
};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::{App, AppError};
use crate::store::{
    column,
    operations::Origin,
    tokens::{self, TokenRow},
};

/// The project used where none is named.
pub const DEFAULT_PROJECT: &str = "default";

/// Whose things a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One project's.
    One(String),
    /// Everybody's (operators, `?project=*`).
    All,
}

/// Who is asking.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The token.
    pub token: TokenId,
    /// The token's name.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// The project a tenant is bound to.
    pub bound_to: Option<String>,
    /// When the token ends.
    pub expires_at: muster_api::Timestamp,
    /// Whose things the request is about.
    pub scope: Scope,
    /// For the logs of every daemon.
    pub request_id: String,
}

impl Caller {
    /// Whether it is an operator.
    #[must_use]
    pub fn is_operator(&self) -> bool {
        self.role == Role::Admin
    }

    /// Refuses everybody but operators.
    pub fn require_operator(&self) -> Result<(), AppError> {
        if self.is_operator() {
            Ok(())
        } else {
            Err(AppError::Forbidden("this is for operators (role admin)".to_owned()))
        }
    }

    /// The one project things are made in and names are looked up in.
    pub fn one_project(&self) -> Result<&str, AppError> {
        match &self.scope {
            Scope::One(project) => Ok(project),
            Scope::All => Err(AppError::BadRequest("name one project here: ?project=* is for lists".to_owned())),
        }
    }

    /// For lists: one project, or none for all.
    #[must_use]
    pub fn list_project(&self) -> Option<&str> {
        match &self.scope {
            Scope::One(project) => Some(project),
            Scope::All => None,
        }
    }

    /// Whether it may know of things of that project. A thing asked for by id that it may not know of is 404.
    #[must_use]
    pub fn can_see(&self, project: &str) -> bool {
        self.is_operator() || self.bound_to.as_deref() == Some(project)
    }

    /// For `requested_by` and events.
    #[must_use]
    pub fn origin(&self) -> Origin {
        Origin { actor: self.name.clone(), request_id: self.request_id.clone() }
    }
}

impl App {
    /// Who the bearer of `text` is, and whose things they ask about.
    pub async fn sign_in(&self, text: &str, project: Option<&str>, request_id: String) -> Result<Caller, AppError> {
        let refused = || AppError::Unauthenticated("the token is unknown, revoked or expired".to_owned());
        let token: ApiToken = text.parse().map_err(|_| refused())?;
        let row = self.store.read("tokens.load", async |tx| tokens::load(tx, token.id).await).await?;
        let row = row.filter(|row| matches_secret(row, token.secret.as_bytes())).ok_or_else(refused)?;
        if row.expires_at <= self.clock.now() {
            return Err(refused());
        }
        let scope = match (row.role, project) {
            (Role::Node, _) => {
                return Err(AppError::Forbidden("a node token can only join nodes".to_owned()));
            }
            (Role::Admin, Some("*")) => Scope::All,
            (Role::Admin, wanted) => Scope::One(wanted.unwrap_or(DEFAULT_PROJECT).to_owned()),
            (Role::Tenant, wanted) => {
                let own = row.project.clone().unwrap_or_default();
                if wanted.is_some_and(|wanted| wanted != own) {
                    return Err(AppError::code(ErrorCode::NotFound, "there is no such project"));
                }
                Scope::One(own)
            }
        };
        Ok(Caller {
            token: row.id,
            name: row.name,
            role: row.role,
            bound_to: row.project,
            expires_at: row.expires_at,
            scope,
            request_id,
        })
    }
}

/// Compares in constant time: how long it takes says nothing about the stored hash.
pub(crate) fn matches_secret(row: &TokenRow, secret: &[u8; 32]) -> bool {
    let given = column::hex(&Sha256::digest(secret));
    given.as_bytes().ct_eq(row.secret_sha256.as_bytes()).into()
}
