//! `/v1/session` and `/v1/sessions`: browsers sign in and out.

use axum::{
    extract::{FromRequest, FromRequestParts as _, Request, State},
    response::{IntoResponse, Response},
};
use http::header;
use muster_api::{
    ErrorCode, Page, SessionId,
    session::{CreateSession, CreateSignInLink, Session, SignInLink},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    ApiError, Change, Json, JsonBody, ListQuery, NoBody, Params, Path, Shown,
    auth::peer,
    cookie, cross_site,
    extract::MaybeBody,
    openapi::{Contract, List},
};
use crate::app::{
    Answer, App, AppError, Caller,
    sessions::{Browser, NewSession, Proof},
};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(session_create, session_end))
        .routes(routes!(sign_in_link_create))
        .routes(routes!(session_list))
        .routes(routes!(session_show, session_delete))
}

/// What a browser signs in with.
struct SignIn {
    proof: Proof,
    browser: Browser,
}

impl FromRequest<App> for SignIn {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let (mut parts, body) = request.into_parts();
        // Else a page of another site could sign its reader in as somebody else.
        cross_site::refuse(&parts, app)?;
        let params = Params::from_request_parts(&mut parts, app).await?;
        Contract::check_query(&parts, params.names())?;
        let agent =
            parts.headers.get(header::USER_AGENT).map(|agent| String::from_utf8_lossy(agent.as_bytes()).into_owned());
        let browser = Browser { address: peer(&parts), agent };
        let JsonBody(CreateSession { token, code }) =
            JsonBody::from_request(Request::from_parts(parts, body), app).await?;
        let proof = match (token, code) {
            (Some(token), None) => Proof::Token(token),
            (None, Some(code)) => Proof::Code(code),
            _ => return Err(AppError::invalid("", "invalid", "exactly one of token, code").into()),
        };
        Ok(Self { proof, browser })
    }
}

/// Signs a browser in: makes a cookie of a token, or of the code of a sign-in link. The cookie is `HttpOnly` and
/// `SameSite=Strict`, and where people use TLS also `Secure`. Calls with it need no `Authorization`, and count only if the
/// controller's own pages send them (`Sec-Fetch-Site` and `Origin`).
///
/// The session ends after 12 h (or what the controller was configured with), with its token, or when somebody ends it.
/// There is no `Idempotency-Key` here: a repeated call begins another session, and a code is good once.
#[utoipa::path(post, path = "/v1/session", tag = "sessions", security(), request_body = CreateSession,
    responses(
        (status = 201, body = Session, description = "Somebody is signed in.",
            headers(("Set-Cookie" = String, description = "The cookie of the session."))),
        (status = 400), (status = 401), (status = 403), (status = 408), (status = 413), (status = 415), (status = 422),
        (status = 429), (status = 500), (status = 503)))]
async fn session_create(State(app): State<App>, SignIn { proof, browser }: SignIn) -> Result<Response, ApiError> {
    let address = browser.address;
    let begun = app.create_session(proof, browser).await;
    let NewSession { view, key } = begun.map_err(|error| app.sign_in_failed(error, address))?;
    let cookie = cookie::set(&app, &key.to_string(), view.expires_at.ms_since(view.created_at) / 1000)?;
    let answer = Answer::created(&view, format!("/v1/sessions/{}", view.id))?;
    Ok(([(header::SET_COOKIE, cookie)], answer).into_response())
}

/// Signs out: ends the session of the cookie, and takes the cookie back. A session that has ended already is answered in
/// the same way.
#[utoipa::path(delete, path = "/v1/session", tag = "sessions",
    responses((status = 204, description = "Nobody is signed in.",
        headers(("Set-Cookie" = String, description = "Takes the cookie back.")))))]
async fn session_end(State(app): State<App>, request: Request) -> Result<Response, ApiError> {
    let (mut parts, body) = request.into_parts();
    let answer = match Caller::from_request_parts(&mut parts, &app).await {
        Ok(caller) => {
            let no_session = "this call has a token and no session: DELETE /v1/tokens/TOKEN revokes a token";
            let session = caller.session.ok_or_else(|| AppError::BadRequest(no_session.to_owned()))?;
            let change: Change<NoBody> = Change::from_request(Request::from_parts(parts, body), &app).await?;
            app.delete_session(&caller, &change.once, session).await?
        }
        // Whoever has to wait because of failures from its address is signed out all the same.
        Err(error)
            if matches!(error.code(), ErrorCode::Unauthenticated | ErrorCode::TooManyRequests)
                && !matches!(cookie::of(&parts, &app), Ok(None)) =>
        {
            Answer::no_content()
        }
        Err(error) => return Err(error),
    };
    Ok(([(header::SET_COOKIE, cookie::set(&app, "", 0)?)], answer).into_response())
}

/// Makes a link that signs one browser in without a token. It is good once and for 10 minutes, and ends with its token.
/// Only `POST /v1/session` uses it up, so programs that look at links in messages do no harm.
#[utoipa::path(post, path = "/v1/session/link", tag = "sessions", request_body = Option<CreateSignInLink>,
    responses((status = 201, body = SignInLink)))]
async fn sign_in_link_create(
    State(app): State<App>,
    caller: Caller,
    change: Change<MaybeBody<CreateSignInLink>>,
) -> Result<Answer, ApiError> {
    let MaybeBody(CreateSignInLink { token }) = &change.body;
    Ok(app.create_sign_in_link(&caller, &change.once, token.as_deref()).await?)
}

/// Sessions that go on: all for operators, those of their own token for others.
#[utoipa::path(get, path = "/v1/sessions", tag = "sessions", params(List),
    responses((status = 200, body = Page<Session>)))]
async fn session_list(
    State(app): State<App>,
    caller: Caller,
    list: ListQuery,
) -> Result<Json<Page<Session>>, ApiError> {
    Ok(Json(app.sessions(&caller, &list).await?))
}

/// One session that goes on.
#[utoipa::path(get, path = "/v1/sessions/{session}", tag = "sessions",
    params(("session" = SessionId, Path, description = "Id.")), responses((status = 200, body = Session)))]
async fn session_show(
    State(app): State<App>,
    Shown { caller, thing }: Shown<SessionId>,
) -> Result<Json<Session>, ApiError> {
    Ok(Json(app.session(&caller, thing).await?))
}

/// Ends a session at once, with the event streams, downloads and uploads of it.
#[utoipa::path(delete, path = "/v1/sessions/{session}", tag = "sessions",
    params(("session" = SessionId, Path, description = "Id.")), responses((status = 204)))]
async fn session_delete(
    State(app): State<App>,
    caller: Caller,
    Path(session): Path<SessionId>,
    change: Change<NoBody>,
) -> Result<Answer, ApiError> {
    Ok(app.delete_session(&caller, &change.once, session).await?)
}
