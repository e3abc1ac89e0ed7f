//! Links that sign a browser in once. Of the code only the SHA-256 of its secret is stored.

use muster_api::{SignInLinkId, Timestamp, TokenId};

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
    /// SHA-256 of the secret, hex.
    pub secret_sha256: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// From this time on it is refused.
    pub expires_at: Timestamp,
}

columns!("sign_in_links", SignInLinkRow: id, token, secret_sha256, created_at, expires_at);

/// Inserts a link. It fails if its token is gone.
pub async fn insert(tx: &mut Tx, link: &SignInLinkRow) -> Result<(), StoreError> {
    bulk::insert(tx, std::slice::from_ref(link)).await
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
