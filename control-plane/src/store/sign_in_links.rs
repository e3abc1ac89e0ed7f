//! Links that sign a browser in once. Of the code only the SHA-256 of its secret is stored.

use muster_api::{SessionId, SignInLinkId, Timestamp, TokenId};

use super::{
    StoreError, Tx, bulk,
    row::{columns, select_one},
};

/// Row of a link. Signing in with it deletes it.
#[derive(Clone, Debug)]
pub struct SignInLinkRow {
    /// Its id.
    pub id: SignInLinkId,
    /// The token that it stands for.
    pub token: TokenId,
    /// The session in which it was made, with which it goes; `None` if it was made with a token.
    pub session: Option<SessionId>,
    /// SHA-256 of the secret, hex.
    pub secret_sha256: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// From this time on it is refused.
    pub expires_at: Timestamp,
}

columns!("sign_in_links", SignInLinkRow: id, token, session, secret_sha256, created_at, expires_at);

/// Inserts a link. It fails if its token is gone.
pub async fn insert(tx: &mut Tx, link: &SignInLinkRow) -> Result<(), StoreError> {
    bulk::insert(tx, std::slice::from_ref(link)).await
}

const DELETE_OLDEST: &str = "-- sign_in_links.delete_oldest
DELETE FROM sign_in_links WHERE token = $1
    AND id NOT IN (SELECT id FROM sign_in_links WHERE token = $1 ORDER BY created_at DESC, id DESC LIMIT $2)";

/// Takes the oldest links of a token back, so that only the `kept` newest ones are left.
pub async fn delete_oldest(tx: &mut Tx, token: TokenId, kept: i64) -> Result<(), StoreError> {
    sqlx::query(DELETE_OLDEST).bind(token.to_string()).bind(kept).execute(tx.conn()).await?;
    Ok(())
}

const DELETE: &str = "-- sign_in_links.delete
DELETE FROM sign_in_links WHERE id = $1";

/// The link with this id, which is gone then. Without a commit it stays.
pub async fn take(tx: &mut Tx, id: SignInLinkId) -> Result<Option<SignInLinkRow>, StoreError> {
    let link = select_one(tx, "sign_in_links.load", "WHERE id = $1", [id.to_string().into()]).await?;
    sqlx::query(DELETE).bind(id.to_string()).execute(tx.conn()).await?;
    Ok(link)
}

const DELETE_ALL: &str = "-- sign_in_links.delete_all
DELETE FROM sign_in_links";

/// Takes all links back.
pub(super) async fn delete_all(tx: &mut Tx) -> Result<(), StoreError> {
    sqlx::query(DELETE_ALL).execute(tx.conn()).await?;
    Ok(())
}

const FORGET: &str = "-- sign_in_links.forget
DELETE FROM sign_in_links WHERE expires_at <= $1";

/// Drops links that have expired. Returns how many.
pub async fn forget_old(tx: &mut Tx) -> Result<u64, StoreError> {
    let now = tx.now().micros();
    Ok(sqlx::query(FORGET).bind(now).execute(tx.conn()).await?.rows_affected())
}
