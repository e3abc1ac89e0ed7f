//! Who is asking and what they may do: 401 without a good token, 404 for what is not theirs, 403 for what they see but
//! must not do.

use muster_api::{
    ClusterId, ErrorCode, Name, Page, Timestamp, TokenId,
    token::{ApiToken, CreateToken, JoinToken, Role, Token},
};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::{Answer, App, AppError, Once, sign_ins::secret_of};
use crate::{
    ca::Authority,
    http::ListQuery,
    store::{
        Tx, cluster,
        operations::Origin,
        tokens::{self, TokenRow},
    },
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
    pub expires_at: Timestamp,
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
        if !self.genuine(token.id, &token.secret) {
            return Err(refused());
        }
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
            (Role::Admin, None) => Scope::One(DEFAULT_PROJECT.to_owned()),
            (Role::Admin, Some(wanted)) => match wanted.parse::<Name>() {
                Ok(project) => Scope::One(project.to_string()),
                Err(e) => return Err(AppError::BadRequest(format!("the query parameter 'project': {e}"))),
            },
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

/// Seconds a token lives where nothing else is said.
const NODE_TTL_S: u64 = 3600;
const OTHER_TTL_S: u64 = 90 * 86_400;
/// Longest life of a token.
const TTL_MAX_S: u64 = 10 * 365 * 86_400;
/// Most nodes one token lets in.
const USES_MAX: u32 = 10_000;

/// A token's row, ready to insert, and its text with the secret.
pub struct NewToken {
    /// Row.
    pub row: TokenRow,
    /// Shown once.
    pub text: String,
}

/// The text of a token.
fn token_text(cluster: ClusterId, authority: &Authority, role: Role, id: TokenId) -> String {
    let secret = secret_of(authority, id);
    match role {
        Role::Node => JoinToken { id, cluster, ca_sha256: authority.sha256(), secret }.to_string(),
        Role::Admin | Role::Tenant => ApiToken { id, secret }.to_string(),
    }
}

/// Makes a token. Its secret is derived from its id by the CA's key, so that a call repeated with its
/// idempotency key gets the same text although the database never holds it; who has the CA's key can do all anyway.
pub async fn draw_token(
    tx: &mut Tx,
    cluster: ClusterId,
    authority: &Authority,
    wanted: &CreateToken,
) -> Result<NewToken, AppError> {
    let id = TokenId::generate();
    let secret = secret_of(authority, id);
    let ttl_s = wanted.ttl_s.unwrap_or(if wanted.role == Role::Node { NODE_TTL_S } else { OTHER_TTL_S });
    if ttl_s == 0 || ttl_s > TTL_MAX_S {
        return Err(AppError::invalid("/ttl_s", "out_of_range", format!("1 to {TTL_MAX_S} seconds, got {ttl_s}")));
    }
    let uses_left = match (wanted.role, wanted.uses) {
        (Role::Node, uses) => Some(uses.unwrap_or(1)),
        (_, None) => None,
        (_, Some(_)) => return Err(AppError::invalid("/uses", "invalid", "only node tokens are counted")),
    };
    if uses_left.is_some_and(|uses| uses == 0 || uses > USES_MAX) {
        return Err(AppError::invalid("/uses", "out_of_range", format!("1 to {USES_MAX} joins")));
    }
    let project = match (wanted.role, &wanted.project) {
        (Role::Tenant, project) => Some(project.as_ref().map_or(DEFAULT_PROJECT, |p| p.as_str()).to_owned()),
        (_, None) => None,
        (_, Some(_)) => {
            return Err(AppError::invalid("/project", "invalid", "only tenant tokens are bound to a project"));
        }
    };
    let name = match &wanted.name {
        Some(name) => name.to_string(),
        None => format!("{}-{}", wanted.role, &id.uuid().simple().to_string()[20..]),
    };
    if let Some(other) = tokens::by_name(tx, &name).await? {
        return Err(AppError::NameTaken { kind: "token", name, existing: other.id.to_string() });
    }
    if let Some(project) = &project {
        cluster::ensure_project(tx, project).await?;
    }
    let now = tx.now();
    let row = TokenRow {
        id,
        name,
        role: wanted.role,
        project,
        secret_sha256: hex::encode(Sha256::digest(secret.as_bytes())),
        created_at: now,
        expires_at: now.plus_ms(i64::try_from(ttl_s).unwrap_or(i64::MAX / 1000).saturating_mul(1000)),
        uses_left,
        seq: tx.next_seq().await?,
    };
    let text = token_text(cluster, authority, wanted.role, id);
    Ok(NewToken { row, text })
}

/// Bytes from the kernel's generator.
pub fn random<const N: usize>() -> Result<[u8; N], AppError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| AppError::Internal(anyhow::anyhow!("no random bytes: {e}")))?;
    Ok(bytes)
}

impl App {
    /// Makes a token. Its text is in this answer and nowhere else; a replay of the call tells it again, because the
    /// first answer may have been lost.
    pub async fn create_token(&self, caller: &Caller, once: &Once, wanted: &CreateToken) -> Result<Answer, AppError> {
        caller.require_operator()?;
        let mut answer = self
            .once(once, "tokens.create", async |tx| {
                let row = draw_token(tx, self.cluster.id, &self.ca, wanted).await?.row;
                tokens::insert(tx, &row, &caller.name).await?;
                tracing::info!(token.id = %row.id, role = %row.role, "token '{}' made by '{}'", row.name, caller.name);
                // Without the text: what is remembered with the key holds no secret either.
                Answer::created(&row.view(), format!("/v1/tokens/{}", row.id))
            })
            .await?;
        let view: Token = serde_json::from_value(answer.body).map_err(anyhow::Error::from)?;
        let text = token_text(self.cluster.id, &self.ca, wanted.role, view.id);
        answer.body = serde_json::to_value(Token { token: Some(text), ..view }).map_err(anyhow::Error::from)?;
        Ok(answer)
    }

    /// The tokens, without secrets: all of them for operators, the project's for its tenants.
    pub async fn tokens(&self, caller: &Caller, list: &ListQuery) -> Result<Page<Token>, AppError> {
        list.filter.only(&[])?;
        let project = if caller.is_operator() { None } else { caller.bound_to.as_deref() };
        self.store
            .read("tokens.list", async |tx| {
                let mut pager = list.pager(tx).await?;
                while let Some((after, n)) = pager.wants() {
                    let rows = tokens::list(tx, after, project, n).await?;
                    pager.take(rows, |row| row.seq, |row| Some(row.view()));
                }
                Ok(pager.page())
            })
            .await
    }

    /// One token, without its secret.
    pub async fn token(&self, caller: &Caller, token: &str) -> Result<Token, AppError> {
        let row = self.store.read("tokens.show", async |tx| find_token(tx, token).await).await?;
        let row = row.filter(|row| caller.is_operator() || row.project.is_some() && row.project == caller.bound_to);
        row.map(|row| row.view()).ok_or_else(|| AppError::not_found("token", token))
    }

    /// Revokes a token at once. Again, or one that never was: 204 too, nothing is left to tell them apart.
    pub async fn delete_token(&self, caller: &Caller, once: &Once, token: &str) -> Result<Answer, AppError> {
        caller.require_operator()?;
        self.once(once, "tokens.delete", async |tx| {
            if let Some(row) = find_token(tx, token).await? {
                tokens::delete(tx, row.id).await?;
                tracing::info!(token.id = %row.id, "token '{}' revoked by '{}'", row.name, caller.name);
            }
            Ok(Answer::no_content())
        })
        .await
    }

    /// Whether the token is still good: long streams ask now and then.
    pub async fn still_good(&self, caller: &Caller) -> Result<bool, AppError> {
        let row = self.store.read("tokens.load", async |tx| tokens::load(tx, caller.token).await).await?;
        Ok(row.is_some_and(|row| row.expires_at > self.clock.now()))
    }
}

async fn find_token(tx: &mut Tx, token: &str) -> Result<Option<TokenRow>, crate::store::StoreError> {
    match token.parse::<TokenId>() {
        Ok(id) => tokens::load(tx, id).await,
        Err(_) => tokens::by_name(tx, token).await,
    }
}

/// Compares in constant time: how long it takes says nothing about the stored hash.
pub(crate) fn matches_secret(row: &TokenRow, secret: &[u8; 32]) -> bool {
    let given = hex::encode(Sha256::digest(secret));
    given.as_bytes().ct_eq(row.secret_sha256.as_bytes()).into()
}
