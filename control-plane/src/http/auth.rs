//! Who sends a call, by bearer token or by the cookie of a session, and request ids.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, FromRequestParts};
use http::{Method, header, request::Parts};
use muster_api::RequestId;

use super::{cookie, cross_site, error::ApiError, extract::Params, openapi::Contract};
use crate::app::{App, AppError, Caller};

/// The id of a request. Every log line and every error has it.
#[derive(Clone, Debug)]
pub struct CallId(pub String);

impl CallId {
    /// The id that the caller sent, if it is usable, else a new one.
    pub(super) fn of(given: Option<&http::HeaderValue>) -> Self {
        let usable = |text: &&str| {
            (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        let given = given.and_then(|v| v.to_str().ok()).filter(usable);
        Self(given.map_or_else(|| RequestId::generate().to_string(), str::to_owned))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for CallId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_else(|| Self::of(None)))
    }
}

/// The token of the `Authorization` header. An error if the header is missing or has another scheme.
pub(super) fn bearer(parts: &Parts) -> Result<&str, AppError> {
    let missing = || AppError::Unauthenticated("send a token: Authorization: Bearer mst1_…".to_owned());
    let text = parts.headers.get(header::AUTHORIZATION).ok_or_else(missing)?.to_str().map_err(|_| missing())?;
    let (scheme, token) = text.split_once(' ').ok_or_else(missing)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(token.trim()) } else { Err(missing()) }
}

/// The address that the call comes from. Tests without sockets have none.
pub(super) fn peer(parts: &Parts) -> Option<SocketAddr> {
    parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(address)| *address)
}

impl FromRequestParts<App> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        // A handler may extract it twice, as `Caller` and within `Change`. It is looked up once.
        if let Some(caller) = parts.extensions.get::<Self>() {
            return Ok(caller.clone());
        }
        let params = Params::from_request_parts(parts, app).await?;
        let CallId(request_id) = CallId::from_request_parts(parts, app).await?;
        let project = params.text("project")?;
        let signed_in = match cookie::of(parts, app)? {
            Some(cookie) if !parts.headers.contains_key(header::AUTHORIZATION) => {
                cross_site::refuse_with_cookie(parts, app)?;
                app.sign_in_session(cookie, project, request_id).await
            }
            _ => app.sign_in(bearer(parts)?, project, request_id).await,
        };
        let caller = signed_in.map_err(|error| app.sign_in_failed(error, peer(parts)))?;
        Contract::check_query(parts, params.names())?;
        if parts.method == Method::GET || parts.method == Method::HEAD {
            app.check_project(&caller).await?;
        }
        parts.extensions.insert(caller.clone());
        Ok(caller)
    }
}
