//! Calls that a page of another site made a browser send.
//!
//! A browser adds the cookie of a session by itself, so a call with one proves nothing about who wanted it. It counts
//! only if the browser says that one of our own pages sent it: by `Sec-Fetch-Site`, which browsers send to `https` and
//! `localhost`, and for changes also by `Origin`, which they always send then. `SameSite=Strict` would leave pages of
//! other ports of the same host, and of its subdomains. A call with a token needs none of this, because no browser adds
//! a token by itself. No answer has a CORS header, so no page of another origin reads one.

use http::{HeaderName, Method, header, request::Parts};
use muster_api::ErrorCode;

use crate::app::{App, AppError};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Refuses a call with the cookie of a session that none of our pages sent.
pub(super) fn refuse_with_cookie(parts: &Parts, app: &App) -> Result<(), AppError> {
    refuse(parts, app)?;
    let changes = !matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS);
    if changes && !parts.headers.contains_key(header::ORIGIN) {
        return Err(cross_site(
            "a change with the cookie of a session needs an Origin: send it, or sign in with a token",
        ));
    }
    Ok(())
}

/// Refuses a call that a page of another site sent. A program that is no browser says nothing about where a call comes
/// from, and is let through.
pub(super) fn refuse(parts: &Parts, app: &App) -> Result<(), AppError> {
    let text = |name: HeaderName| parts.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
    if let Some(site) = text(SEC_FETCH_SITE)
        && !matches!(&*site, "same-origin" | "none")
    {
        return Err(cross_site(&format!("the call comes from a page of another origin (Sec-Fetch-Site: {site})")));
    }
    let (origin, host) = (text(header::ORIGIN), text(header::HOST));
    if let Some(origin) = origin
        && !app.config.doors.is_own_origin(&origin, host.as_deref())
    {
        let host = host.as_deref().unwrap_or("no host");
        return Err(cross_site(&format!(
            "the call comes from a page of {origin}, and asks {host}: behind a proxy, start the controller with its \
             --public-url"
        )));
    }
    Ok(())
}

fn cross_site(why: &str) -> AppError {
    AppError::code(ErrorCode::CrossSite, why)
}
