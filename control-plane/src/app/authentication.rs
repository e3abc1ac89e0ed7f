//! How a caller is recognised: by the token or the session that a request was sent with, and for how long that holds.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use muster_api::{
    ErrorCode, SessionId, TokenId,
    session::SessionKey,
    token::{ApiToken, Secret},
};
use sha2::{Digest as _, Sha256};
use storage_core::lock;
use subtle::ConstantTimeEq as _;

use super::{
    App, AppError, Caller, Scope,
    caller::{DEFAULT_PROJECT, scope_of, session_refused, token_refused},
    known::{KNOWN_FOR, Read},
};
use crate::{
    ca::Authority,
    store::{
        cluster,
        sessions::{self, SessionRow},
        tokens::{self, TokenRow},
    },
};

impl App {
    /// Who sent the token `text`, and whose things they ask about.
    pub async fn sign_in(&self, text: &str, project: Option<&str>, request_id: String) -> Result<Caller, AppError> {
        let refused = token_refused;
        let token: ApiToken = text.parse().map_err(|_| refused())?;
        if !self.genuine(token.id, &token.secret) {
            return Err(refused());
        }
        let row = self.token_row(token.id).await?;
        let row = row.filter(|row| matches_secret(&row.secret_sha256, &token.secret)).ok_or_else(refused)?;
        if row.expires_at <= self.clock.now() {
            return Err(refused());
        }
        let scope = scope_of(row.role, row.project.as_deref(), project)?;
        Ok(Caller {
            token: row.id,
            session: None,
            name: row.name,
            role: row.role,
            bound_to: row.project,
            expires_at: row.expires_at,
            scope,
            request_id,
        })
    }

    /// Who sent the cookie `text` of a session, and whose things they ask about.
    pub async fn sign_in_session(
        &self,
        text: &str,
        project: Option<&str>,
        request_id: String,
    ) -> Result<Caller, AppError> {
        let refused = session_refused;
        let key: SessionKey = text.parse().map_err(|_| refused())?;
        let now = self.clock.now();
        let row = self.session_row(key.id).await?.filter(|row| matches_secret(&row.secret_sha256, &key.secret));
        let row = row.filter(|row| row.expires_at > now).ok_or_else(refused)?;
        let scope = scope_of(row.role, row.project.as_deref(), project)?;
        lock(&self.used_sessions).insert(row.id, now);
        Ok(Caller {
            token: row.token,
            session: Some(row.id),
            name: row.token_name,
            role: row.role,
            bound_to: row.project,
            expires_at: row.expires_at,
            scope,
            request_id,
        })
    }

    /// Refuses to read from a project that does not exist, because the answer would look as if it were empty. Changes
    /// need no check: an operator makes a project by making something in it.
    pub async fn check_project(&self, caller: &Caller) -> Result<(), AppError> {
        let Scope::One(project) = &caller.scope else { return Ok(()) };
        if !caller.is_operator() || project == DEFAULT_PROJECT {
            return Ok(());
        }
        if self.store.read("projects.exists", async |tx| cluster::is_project(tx, project).await).await? {
            return Ok(());
        }
        let said = format!("there is no project '{project}': no token was made for it, and nothing in it");
        Err(AppError::code(ErrorCode::NotFound, said))
    }

    /// The error that a failed call from this address is answered with: as it is, or 429 if it was one bad token too
    /// many.
    pub fn sign_in_failed(&self, error: AppError, from: Option<SocketAddr>) -> AppError {
        match (&error, from) {
            (AppError::Unauthenticated(_), Some(from)) if self.sign_ins.too_many(from.ip(), self.clock.now()) => {
                metrics::counter!("muster_sign_ins_limited_total").increment(1);
                let said =
                    format!("{error}; too many such calls from this address: a good token is let in at any time");
                AppError::code(ErrorCode::TooManyRequests, said)
            }
            _ => error,
        }
    }

    /// The token with this id, unless it was revoked.
    async fn token_row(&self, id: TokenId) -> Result<Option<TokenRow>, AppError> {
        let (revoked, read_at) = (self.store.wakes().revoked(), Instant::now());
        if let Some(row) = self.known_tokens.get(id, revoked) {
            return Ok(Some(row));
        }
        let row = self.store.read("tokens.load", async |tx| tokens::load(tx, id).await).await?;
        if let Some(row) = row.clone() {
            self.known_tokens.put(id, Read { row, read_at, revoked });
        }
        Ok(row)
    }

    /// The session with this id, unless it was ended, alone or with its token.
    async fn session_row(&self, id: SessionId) -> Result<Option<SessionRow>, AppError> {
        let (revoked, read_at) = (self.store.wakes().revoked(), Instant::now());
        if let Some(row) = self.known_sessions.get(id, revoked) {
            return Ok(Some(row));
        }
        let row = self.store.read("sessions.load", async |tx| sessions::load(tx, id).await).await?;
        if let Some(row) = row.clone() {
            self.known_sessions.put(id, Read { row, read_at, revoked });
        }
        Ok(row)
    }

    /// Whether the caller's token or session is still good. A database that does not answer ends nothing.
    pub(super) async fn is_still_good(&self, caller: &Caller) -> bool {
        let gone = match caller.session {
            // Its row goes with that of its token.
            Some(session) => matches!(self.session_row(session).await, Ok(None)),
            None => matches!(self.token_row(caller.token).await, Ok(None)),
        };
        !gone && caller.expires_at > self.clock.now()
    }

    /// Returns when the caller's token or session is revoked or has ended, also when another controller revoked it.
    pub async fn token_ended(&self, caller: &Caller) {
        let mut watch = self.store.wakes().watch_revoked();
        loop {
            watch.mark_unchanged();
            if !self.is_still_good(caller).await {
                return;
            }
            let left_ms = caller.expires_at.ms_since(self.clock.now()).max(0);
            let look_after = KNOWN_FOR.min(Duration::from_millis(left_ms.unsigned_abs()));
            // Woken, or time to look again.
            let _ = tokio::time::timeout(look_after, watch.changed()).await;
        }
    }

    /// Whether the CA of this cluster made the token. It needs no database, so a made-up token costs little; whether a
    /// genuine one is still good stands in the database.
    pub(crate) fn genuine(&self, id: TokenId, secret: &Secret) -> bool {
        secret_of(&self.ca, id).as_bytes().ct_eq(secret.as_bytes()).into()
    }
}

/// The secret of a token. It is derived from the token's id with the key of the CA, so the database need not hold it.
pub(crate) fn secret_of(authority: &Authority, id: TokenId) -> Secret {
    Secret::from_bytes(authority.derive("token secret", id.uuid().as_bytes()))
}

/// Compares in constant time, so that the time it takes tells nothing about the stored hash.
pub(crate) fn matches_secret(stored_sha256: &str, secret: &Secret) -> bool {
    hashed(secret).as_bytes().ct_eq(stored_sha256.as_bytes()).into()
}

/// A secret as the database holds it.
pub(crate) fn hashed(secret: &Secret) -> String {
    hex::encode(Sha256::digest(secret.as_bytes()))
}
