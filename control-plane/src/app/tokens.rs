//! Tokens: make, show, revoke.

use muster_api::{
    ClusterId, Page, TokenId,
    token::{ApiToken, CreateToken, JoinToken, Role, Token},
};

use super::{
    Answer, App, AppError, Caller, Once, StoreError,
    authentication::{hashed, secret_of},
    caller::DEFAULT_PROJECT,
    list::ListQuery,
};
use crate::{
    ca::Authority,
    domain::{names::made_up, order::seconds_text},
    store::{
        Tx, cluster,
        tokens::{self, TokenRow},
    },
};

/// Seconds a node token lives where the request does not say.
const NODE_TTL_S: u64 = 3600;
/// Seconds any other token lives where the request does not say.
const OTHER_TTL_S: u64 = 90 * 86_400;
/// Longest life of a token, seconds.
const TTL_MAX_S: u64 = 10 * 365 * 86_400;
/// Most nodes that one token lets join.
const USES_MAX: u32 = 10_000;

/// A token that was made.
pub struct NewToken {
    /// Its row. It holds a hash of the secret.
    pub row: TokenRow,
    /// The token with its secret, to be shown once.
    pub text: String,
}

/// Makes a token and inserts it. Its secret is derived from its id with the key of the CA: a call that is repeated with its
/// idempotency key gets the same text although the database never holds it. Whoever has that key can do everything
/// anyway.
pub async fn make_token(
    tx: &mut Tx,
    cluster: ClusterId,
    authority: &Authority,
    wanted: &CreateToken,
    created_by: &str,
) -> Result<NewToken, AppError> {
    let id = TokenId::generate();
    let ttl_s = ttl_s(wanted)?;
    let uses_left = uses(wanted)?;
    let project = project(wanted)?;
    let name = match &wanted.name {
        Some(name) => name.to_string(),
        None => made_up(wanted.role.as_str(), id.uuid()),
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
        secret_sha256: hashed(&secret_of(authority, id)),
        created_at: now,
        created_by: created_by.to_owned(),
        expires_at: now.plus_ms((ttl_s * 1000).cast_signed()),
        uses_left,
        seq: tx.next_seq().await?,
    };
    tokens::insert(tx, &row).await?;
    Ok(NewToken { row, text: token_text(cluster, authority, wanted.role, id) })
}

fn ttl_s(wanted: &CreateToken) -> Result<u64, AppError> {
    let ttl_s = wanted.ttl_s.unwrap_or(if wanted.role == Role::Node { NODE_TTL_S } else { OTHER_TTL_S });
    if ttl_s == 0 || ttl_s > TTL_MAX_S {
        let detail = format!("{} to {}, got {}", seconds_text(1), seconds_text(TTL_MAX_S), seconds_text(ttl_s));
        return Err(AppError::invalid("/ttl_s", "out_of_range", detail));
    }
    Ok(ttl_s)
}

/// How many nodes may join with the token; `None` for tokens that let no node join.
fn uses(wanted: &CreateToken) -> Result<Option<u32>, AppError> {
    match (wanted.role, wanted.uses) {
        (Role::Node, uses) => {
            let uses = uses.unwrap_or(1);
            if uses == 0 || uses > USES_MAX {
                return Err(AppError::invalid("/uses", "out_of_range", format!("1 to {USES_MAX} joins")));
            }
            Ok(Some(uses))
        }
        (_, None) => Ok(None),
        (_, Some(_)) => Err(AppError::invalid("/uses", "invalid", "only node tokens are counted")),
    }
}

/// The project that a tenant's token is bound to; `None` for other tokens.
fn project(wanted: &CreateToken) -> Result<Option<String>, AppError> {
    match (wanted.role, &wanted.project) {
        (Role::Tenant, project) => Ok(Some(project.as_ref().map_or(DEFAULT_PROJECT, |p| p.as_str()).to_owned())),
        (_, None) => Ok(None),
        (_, Some(_)) => Err(AppError::invalid("/project", "invalid", "only tenant tokens are bound to a project")),
    }
}

fn token_text(cluster: ClusterId, authority: &Authority, role: Role, id: TokenId) -> String {
    let secret = secret_of(authority, id);
    match role {
        Role::Node => JoinToken { id, cluster, ca_sha256: authority.sha256(), secret }.to_string(),
        Role::Admin | Role::Tenant => ApiToken { id, secret }.to_string(),
    }
}

impl App {
    /// Makes a token. Its text is in this answer and in no other. A call repeated with its idempotency key gets the
    /// text again, because the first answer may have been lost.
    pub async fn create_token(&self, caller: &Caller, once: &Once, wanted: &CreateToken) -> Result<Answer, AppError> {
        caller.require_operator()?;
        let mut answer = self
            .once(once, "tokens.create", async |tx| {
                let row = make_token(tx, self.cluster, &self.ca, wanted, &caller.name).await?.row;
                tracing::info!(token.id = %row.id, role = %row.role, "token '{}' made by '{}'", row.name, caller.name);
                // This answer is stored with the idempotency key, so it has no secret yet.
                Answer::created(&row.view(), format!("/v1/tokens/{}", row.id))
            })
            .await?;
        let view: Token = serde_json::from_value(answer.body).map_err(anyhow::Error::from)?;
        let text = token_text(self.cluster, &self.ca, wanted.role, view.id);
        answer.body = serde_json::to_value(Token { token: Some(text), ..view }).map_err(anyhow::Error::from)?;
        Ok(answer)
    }

    /// A page of tokens without secrets: all tokens for operators, those of the project for its tenants.
    pub async fn tokens(&self, caller: &Caller, list: &ListQuery) -> Result<Page<Token>, AppError> {
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

    /// One token without its secret. `token` is its id or name.
    pub async fn token(&self, caller: &Caller, token: &str) -> Result<Token, AppError> {
        let row = self.store.read("tokens.show", async |tx| find_token(tx, token).await).await?;
        let row = row.filter(|row| caller.is_operator() || row.project.is_some() && row.project == caller.bound_to);
        row.map(|row| row.view()).ok_or_else(|| AppError::not_found("token", token))
    }

    /// Revokes a token at once. A token that does not exist is answered in the same way: a repeated call cannot be told
    /// from one for a token that never was.
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
}

pub(crate) async fn find_token(tx: &mut Tx, token: &str) -> Result<Option<TokenRow>, StoreError> {
    match token.parse::<TokenId>() {
        Ok(id) => tokens::load(tx, id).await,
        Err(_) => tokens::by_name(tx, token).await,
    }
}
