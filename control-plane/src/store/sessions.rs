//! Sessions of browsers. A row goes with its token, and a while after its own end.

use muster_api::{SessionId, Timestamp, TokenId, session::Session, token::Role};

use super::{
    StoreError, Tx, bulk, column,
    row::{columns, select, select_one},
};

/// Row of a session. Ending it deletes it.
#[derive(Clone, Debug)]
pub struct SessionRow {
    /// Its id.
    pub id: SessionId,
    /// The token that it stands for.
    pub token: TokenId,
    /// Name of that token.
    pub token_name: String,
    /// What that token may do: everything, or everything in one project.
    pub role: Role,
    /// The project of a tenant's token; `None` for operators.
    pub project: Option<String>,
    /// SHA-256 of the secret, hex.
    pub secret_sha256: String,
    /// When it began.
    pub created_at: Timestamp,
    /// From this time on it is refused. It is never later than the end of the token.
    pub expires_at: Timestamp,
    /// When a call was last made with it.
    pub last_used_at: Option<Timestamp>,
    /// The address that signed in.
    pub address: Option<String>,
    /// How its browser names itself.
    pub agent: Option<String>,
    /// Its place in lists and in the order of all commits.
    pub seq: i64,
}

impl SessionRow {
    /// As the API tells it, without the secret.
    #[must_use]
    pub fn view(&self) -> Session {
        Session {
            id: self.id,
            token: self.token,
            token_name: self.token_name.clone(),
            role: self.role.into(),
            project: self.project.clone(),
            created_at: self.created_at,
            expires_at: self.expires_at,
            last_used_at: self.last_used_at,
            address: self.address.clone(),
            agent: self.agent.clone(),
        }
    }
}

columns!(
    "sessions", SessionRow: id, token, token_name, role, project, secret_sha256, created_at, expires_at, last_used_at,
        address, agent, seq,
);

/// Inserts a session. It fails if its token is gone.
pub async fn insert(tx: &mut Tx, session: &SessionRow) -> Result<(), StoreError> {
    bulk::insert(tx, std::slice::from_ref(session)).await
}

/// The session with this id, also if it has expired.
pub async fn load(tx: &mut Tx, id: SessionId) -> Result<Option<SessionRow>, StoreError> {
    select_one(tx, "sessions.load", "WHERE id = $1", [id.to_string().into()]).await
}

/// Sessions after the place `after` that have not expired, of all tokens or of one.
pub async fn list(tx: &mut Tx, after: i64, token: Option<TokenId>, limit: i64) -> Result<Vec<SessionRow>, StoreError> {
    let rest = "WHERE seq > $1 AND expires_at > $2 AND (CAST($3 AS TEXT) IS NULL OR token = $3) ORDER BY seq LIMIT $4";
    let token = token.map(|id| id.to_string());
    let values = [after.into(), tx.now().micros().into(), token.into(), limit.into()];
    select(tx, "sessions.list", rest, values).await
}

const COUNT: &str = "-- sessions.count
SELECT CAST(COUNT(*) AS BIGINT) AS n FROM sessions WHERE expires_at > $1";

/// How many sessions have not expired.
pub async fn count(tx: &mut Tx) -> Result<u64, StoreError> {
    let now = tx.now().micros();
    column::read(&sqlx::query(COUNT).bind(now).fetch_one(tx.conn()).await?, "n")
}

const DELETE: &str = "-- sessions.delete
DELETE FROM sessions WHERE id = $1";

/// Ends a session.
pub async fn delete(tx: &mut Tx, id: SessionId) -> Result<(), StoreError> {
    tx.wake_revoked();
    sqlx::query(DELETE).bind(id.to_string()).execute(tx.conn()).await?;
    Ok(())
}

const DELETE_ALL: &str = "-- sessions.delete_all
DELETE FROM sessions";

/// Ends all sessions.
pub(super) async fn delete_all(tx: &mut Tx) -> Result<(), StoreError> {
    tx.wake_revoked();
    sqlx::query(DELETE_ALL).execute(tx.conn()).await?;
    Ok(())
}

const DELETE_OLDEST: &str = "-- sessions.delete_oldest
DELETE FROM sessions WHERE token = $1
    AND seq <= (SELECT seq FROM sessions WHERE token = $1 ORDER BY seq DESC LIMIT 1 OFFSET $2)";

/// Ends the oldest sessions of a token, so that only the `kept` newest ones are left.
pub async fn delete_oldest(tx: &mut Tx, token: TokenId, kept: i64) -> Result<(), StoreError> {
    let deleted = sqlx::query(DELETE_OLDEST).bind(token.to_string()).bind(kept).execute(tx.conn()).await?;
    if deleted.rows_affected() > 0 {
        tx.wake_revoked();
    }
    Ok(())
}

const USED: &str = "-- sessions.used
UPDATE sessions SET last_used_at = $2 WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < $2)";

/// Notes that a session was used.
pub async fn used(tx: &mut Tx, id: SessionId, at: Timestamp) -> Result<(), StoreError> {
    sqlx::query(USED).bind(id.to_string()).bind(at.micros()).execute(tx.conn()).await?;
    Ok(())
}

const FORGET: &str = "-- sessions.forget
DELETE FROM sessions WHERE expires_at <= $1";

/// Drops sessions that have expired. Returns how many.
pub async fn forget_old(tx: &mut Tx) -> Result<u64, StoreError> {
    let now = tx.now().micros();
    Ok(sqlx::query(FORGET).bind(now).execute(tx.conn()).await?.rows_affected())
}
