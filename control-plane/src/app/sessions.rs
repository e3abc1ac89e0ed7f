//! Sessions of browsers, and links that begin one: sign in, show, end.
//!
//! ```text
//! token --------------------------------> session (a cookie)
//! token -> link (once, for 10 minutes) -> session (a cookie)
//! ```
//! Links and sessions are rows that go with their token. A link that was made in a session goes with it too, and if it is
//! for the same token, what it begins ends when that session would have: nobody stays longer by it. The secret of a session is random. The secret of a link is
//! derived from its id, as that of a token is, so that a repeated call gets the same link although it is not stored.

use std::net::SocketAddr;

use muster_api::{
    Page, SessionId, SignInLinkId, Timestamp, TokenId,
    session::{Session, SessionKey, SignInCode, SignInLink},
    token::{Role, Secret},
};
use storage_core::lock;
use subtle::ConstantTimeEq as _;

use super::{
    Answer, App, AppError, Caller, Once, StoreError, at,
    authentication::{hashed, matches_secret},
    caller::token_refused,
    list::ListQuery,
    tokens::find_token,
};
use crate::{
    ca::Authority,
    store::{
        Tx,
        sessions::{self, SessionRow},
        sign_in_links::{self, SignInLinkRow},
        tokens,
    },
};

/// How long a sign-in link is good.
const LINK_LIVES_MS: i64 = 10 * 60 * 1000;
/// Most sessions of one token. The next one ends the oldest.
const SESSIONS_PER_TOKEN_MAX: i64 = 100;
/// Most links of one token. The next one takes the oldest back.
const LINKS_PER_TOKEN_MAX: i64 = 100;
/// Most characters that are kept of how a browser names itself.
const AGENT_CHARS_MAX: usize = 200;

/// With what somebody signs in.
pub enum Proof {
    /// The text of a token.
    Token(String),
    /// The text of the code of a link.
    Code(String),
}

/// The browser that signs in, as far as it is known.
#[derive(Clone, Debug, Default)]
pub struct Browser {
    /// Where the call comes from.
    pub address: Option<SocketAddr>,
    /// How it names itself.
    pub agent: Option<String>,
}

/// A session that was begun.
pub struct NewSession {
    /// As the API tells it.
    pub view: Session,
    /// What its cookie holds, to be sent once.
    pub key: SessionKey,
}

impl App {
    /// Begins a session. A code is used up by that, in the same transaction.
    pub async fn create_session(&self, proof: Proof, browser: Browser) -> Result<NewSession, AppError> {
        let session = match &proof {
            Proof::Token(text) => {
                let token = self.sign_in(text, None, String::new()).await?.token;
                self.store
                    .run_tx("sessions.create", async |tx| self.begin_session(tx, token, None, &browser).await)
                    .await?
            }
            Proof::Code(text) => {
                let code: SignInCode = text.parse().map_err(|_| code_refused())?;
                if !bool::from(link_secret(&self.ca, code.id).as_bytes().ct_eq(code.secret.as_bytes())) {
                    return Err(code_refused());
                }
                let begin = async |tx: &mut Tx| {
                    let link = sign_in_links::take(tx, code.id).await?.filter(|link| link.expires_at > tx.now());
                    let link = link.filter(|link| matches_secret(&link.secret_sha256, &code.secret));
                    let link = link.ok_or_else(code_refused)?;
                    let maker = match link.session {
                        Some(id) => sessions::load(tx, id).await?.filter(|maker| maker.token == link.token),
                        None => None,
                    };
                    self.begin_session(tx, link.token, maker.map(|maker| maker.expires_at), &browser).await
                };
                self.store.run_tx("sessions.create", begin).await?
            }
        };
        let by = if matches!(proof, Proof::Token(_)) { "token" } else { "link" };
        metrics::counter!("muster_sign_ins_total", "by" => by).increment(1);
        let Session { id, token, token_name, address, .. } = &session.view;
        let from = address.as_deref().unwrap_or("an unknown address");
        tracing::info!(session.id = %id, token.id = %token, "'{token_name}' signed in from {from} with a {by}");
        Ok(session)
    }

    /// Begins a session that ends with its token, and at `until` if that is given.
    async fn begin_session(
        &self,
        tx: &mut Tx,
        token: TokenId,
        until: Option<Timestamp>,
        browser: &Browser,
    ) -> Result<NewSession, AppError> {
        let now = tx.now();
        let token = tokens::load(tx, token).await?.filter(|token| token.expires_at > now).ok_or_else(token_refused)?;
        assert!(token.role != Role::Node, "a node's token has no link, and cannot sign in");
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|e| anyhow::anyhow!("no random bytes: {e}"))?;
        let key = SessionKey { id: SessionId::generate(), secret: Secret::from_bytes(secret) };
        let ttl_ms = i64::try_from(self.config.sessions.ttl.as_millis()).expect("`check` bounds it");
        let row = SessionRow {
            id: key.id,
            token: token.id,
            token_name: token.name,
            role: token.role,
            project: token.project,
            secret_sha256: hashed(&key.secret),
            created_at: now,
            expires_at: now.plus_ms(ttl_ms).min(token.expires_at).min(until.unwrap_or(token.expires_at)),
            last_used_at: None,
            address: browser.address.map(|address| address.ip().to_canonical().to_string()),
            agent: browser.agent.as_deref().map(shortened),
            seq: tx.next_seq().await?,
        };
        sessions::insert(tx, &row).await?;
        sessions::delete_oldest(tx, row.token, SESSIONS_PER_TOKEN_MAX).await?;
        Ok(NewSession { view: row.view(), key })
    }

    /// A page of sessions: all for operators, those of their own token for others.
    pub async fn sessions(&self, caller: &Caller, list: &ListQuery) -> Result<Page<Session>, AppError> {
        let token = if caller.is_operator() { None } else { Some(caller.token) };
        self.store
            .read("sessions.list", async |tx| {
                let mut pager = list.pager(tx).await?;
                while let Some((after, n)) = pager.wants() {
                    let rows = sessions::list(tx, after, token, n).await?;
                    pager.take(rows, |row| row.seq, |row| Some(row.view()));
                }
                Ok(pager.page())
            })
            .await
    }

    /// One session.
    pub async fn session(&self, caller: &Caller, id: SessionId) -> Result<Session, AppError> {
        self.store.read("sessions.show", async |tx| Ok(seen(tx, caller, id).await?.view())).await
    }

    /// Ends a session at once, with all that goes on in it.
    pub async fn delete_session(&self, caller: &Caller, once: &Once, id: SessionId) -> Result<Answer, AppError> {
        self.once(once, "sessions.delete", async |tx| {
            let row = seen(tx, caller, id).await?;
            sessions::delete(tx, id).await?;
            tracing::info!(session.id = %id, token.id = %row.token, "a session of '{}' ended by '{}'", row.token_name, caller.name);
            Ok(Answer::no_content())
        })
        .await
    }

    /// Makes a link that signs one browser in: for the caller's token, or for the one that an operator names by id or
    /// name. A call repeated with its idempotency key gets the same link.
    pub async fn create_sign_in_link(
        &self,
        caller: &Caller,
        once: &Once,
        token: Option<&str>,
    ) -> Result<Answer, AppError> {
        let own = caller.token.to_string();
        // Keys are those of a project. Whoever else has tokens there must not get this link by using the same key.
        let once = once.for_token(caller.token);
        let mut answer = self
            .once(&once, "sign_in_links.create", async |tx| {
                let wanted = token.unwrap_or(&own);
                let token = find_token(tx, wanted).await?.filter(|row| {
                    caller.is_operator() || row.id == caller.token || row.project.is_some() && row.project == caller.bound_to
                });
                let token = token.ok_or_else(|| AppError::not_found("token", wanted)).map_err(at("/token"))?;
                if token.id != caller.token && !caller.is_operator() {
                    return Err(AppError::Forbidden("only operators make links for other tokens than their own".to_owned()));
                }
                if token.role == Role::Node {
                    return Err(AppError::invalid("/token", "invalid", "a node token only lets nodes join: it signs nobody in"));
                }
                let (id, now) = (SignInLinkId::generate(), tx.now());
                if token.expires_at <= now {
                    return Err(AppError::invalid("/token", "invalid", "the token has expired"));
                }
                let row = SignInLinkRow {
                    id,
                    token: token.id,
                    session: caller.session,
                    secret_sha256: hashed(&link_secret(&self.ca, id)),
                    created_at: now,
                    expires_at: now.plus_ms(LINK_LIVES_MS).min(token.expires_at),
                };
                sign_in_links::insert(tx, &row).await?;
                sign_in_links::delete_oldest(tx, row.token, LINKS_PER_TOKEN_MAX).await?;
                tracing::info!(link.id = %id, token.id = %token.id, "sign-in link for '{}' made by '{}'", token.name, caller.name);
                // This answer is stored with the idempotency key, so it has no secret yet.
                let (code, path) = (String::new(), String::new());
                let view = SignInLink { id, token: token.id, token_name: token.name, code, path, expires_at: row.expires_at };
                Ok(Answer { status: 201, ..Answer::ok(&view)? })
            })
            .await?;
        let view: SignInLink = serde_json::from_value(answer.body).map_err(anyhow::Error::from)?;
        let code = SignInCode { id: view.id, secret: link_secret(&self.ca, view.id) }.to_string();
        let path = format!("/ui/sign-in#code={code}");
        answer.body = serde_json::to_value(SignInLink { code, path, ..view }).map_err(anyhow::Error::from)?;
        Ok(answer)
    }

    /// Writes to the database when sessions were last used.
    pub(crate) async fn note_used_sessions(&self) -> Result<(), StoreError> {
        let used = std::mem::take(&mut *lock(&self.used_sessions));
        if used.is_empty() {
            return Ok(());
        }
        self.store
            .run_tx("sessions.used", async |tx| {
                for (id, at) in used {
                    sessions::used(tx, id, at).await?;
                }
                Ok(())
            })
            .await
    }
}

/// The session with this id, if the caller may see it.
async fn seen(tx: &mut Tx, caller: &Caller, id: SessionId) -> Result<SessionRow, AppError> {
    let row = sessions::load(tx, id).await?.filter(|row| row.expires_at > tx.now());
    let row = row.filter(|row| caller.is_operator() || row.token == caller.token);
    row.ok_or_else(|| AppError::not_found("session", id))
}

/// The refusal of a code that is not good, or not any more.
fn code_refused() -> AppError {
    AppError::Unauthenticated("the sign-in link was used, has expired or is unknown: ask for a new one".to_owned())
}

fn link_secret(authority: &Authority, id: SignInLinkId) -> Secret {
    Secret::from_bytes(authority.derive("sign-in link", id.uuid().as_bytes()))
}

fn shortened(agent: &str) -> String {
    agent.chars().filter(|c| !c.is_control()).take(AGENT_CHARS_MAX).collect()
}
