//! Tokens: who may do what until when. Of the secret only the SHA-256 is stored.

use muster_api::{
    Timestamp, TokenId,
    token::{Role, Token},
};

use super::{
    StoreError, Tx, bulk,
    row::{columns, select, select_one},
};

/// Row of a token. Revoking deletes it; a week after its end it is dropped.
#[derive(Clone, Debug)]
pub struct TokenRow {
    /// Its id.
    pub id: TokenId,
    /// Name, unique in the cluster.
    pub name: String,
    /// What it may do: everything, everything in one project, or only joining nodes.
    pub role: Role,
    /// The project of a tenant's token; `None` for others.
    pub project: Option<String>,
    /// SHA-256 of the secret, hex.
    pub secret_sha256: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Name of the token that asked for it, `command line` or `muster`.
    pub created_by: String,
    /// From this time on the token is refused.
    pub expires_at: Timestamp,
    /// How many nodes may still join with it; `None` if it lets no node join.
    pub uses_left: Option<u32>,
    /// Its place in lists and in the order of all commits.
    pub seq: i64,
}

impl TokenRow {
    /// As the API tells it, without the secret.
    #[must_use]
    pub fn view(&self) -> Token {
        Token {
            id: self.id,
            name: self.name.clone(),
            role: self.role.into(),
            project: self.project.clone(),
            created_at: self.created_at,
            expires_at: self.expires_at,
            uses_left: self.uses_left,
            token: None,
        }
    }
}

columns!(
    "tokens", TokenRow: id, name, role, project, secret_sha256, created_at, created_by, expires_at, uses_left, seq,
);

/// Inserts a token.
pub async fn insert(tx: &mut Tx, token: &TokenRow) -> Result<(), StoreError> {
    bulk::insert(tx, std::slice::from_ref(token)).await
}

/// The token with this id.
pub async fn load(tx: &mut Tx, id: TokenId) -> Result<Option<TokenRow>, StoreError> {
    select_one(tx, "tokens.load", "WHERE id = $1", [id.to_string().into()]).await
}

/// The token with this name.
pub async fn by_name(tx: &mut Tx, name: &str) -> Result<Option<TokenRow>, StoreError> {
    select_one(tx, "tokens.by_name", "WHERE name = $1", [name.into()]).await
}

/// Tokens after the place `after`, of all projects or of one.
pub async fn list(tx: &mut Tx, after: i64, project: Option<&str>, limit: i64) -> Result<Vec<TokenRow>, StoreError> {
    let rest = "WHERE seq > $1 AND (CAST($2 AS TEXT) IS NULL OR project = $2) ORDER BY seq LIMIT $3";
    select(tx, "tokens.list", rest, [after.into(), project.map(str::to_owned).into(), limit.into()]).await
}

const DELETE: &str = "-- tokens.delete
DELETE FROM tokens WHERE id = $1";

/// Revokes a token. False if there was none.
pub async fn delete(tx: &mut Tx, id: TokenId) -> Result<bool, StoreError> {
    tx.wake_revoked();
    Ok(sqlx::query(DELETE).bind(id.to_string()).execute(tx.conn()).await?.rows_affected() == 1)
}

const USE: &str = "-- tokens.use
UPDATE tokens SET uses_left = uses_left - 1, revision = revision + 1 WHERE id = $1 AND uses_left > 0";

/// Takes one use of a node token, in the transaction of the join. False if no use was left.
pub async fn take_use(tx: &mut Tx, id: TokenId) -> Result<bool, StoreError> {
    Ok(sqlx::query(USE).bind(id.to_string()).execute(tx.conn()).await?.rows_affected() == 1)
}

const FORGET: &str = "-- tokens.forget
DELETE FROM tokens WHERE expires_at < $1";

/// Drops tokens that ended more than a week ago. Returns how many.
pub async fn forget_old(tx: &mut Tx) -> Result<u64, StoreError> {
    let before = tx.now().plus_ms(-7 * 24 * 3600 * 1000).micros();
    Ok(sqlx::query(FORGET).bind(before).execute(tx.conn()).await?.rows_affected())
}
