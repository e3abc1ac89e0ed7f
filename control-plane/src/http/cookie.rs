//! The cookie of a session.
//!
//! The cookie's name has the cluster's id, because browsers send cookies to all ports of a host, and several controllers
//! may run on one. With TLS it begins with `__Host-`: browsers take such a cookie only from this host itself.

use http::{HeaderValue, header, request::Parts};

use crate::app::{App, AppError};

/// The cookie of a session in this call, if there is one.
///
/// Two are refused. A page on another port of this host can set a cookie of this name for a longer path. It would come
/// first, and the reader would act in the session of somebody else without seeing it.
pub(super) fn of<'a>(parts: &'a Parts, app: &App) -> Result<Option<&'a str>, AppError> {
    let wanted = name(app);
    let all = parts.headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let pairs = all.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut values = pairs.filter(|(name, _)| *name == wanted).map(|(_, value)| value);
    match (values.next(), values.next()) {
        (Some(_), Some(_)) => {
            let said = "the browser sent two session cookies: delete the cookies of this host and sign in again";
            Err(AppError::Unauthenticated(said.to_owned()))
        }
        (first, _) => Ok(first),
    }
}

fn name(app: &App) -> String {
    let prefix = if app.config.doors.have_tls() { "__Host-" } else { "" };
    format!("{prefix}muster-{}", app.cluster.uuid().simple())
}

/// The header that sets the cookie of a session, or with an empty value takes it back.
pub(super) fn set(app: &App, value: &str, max_age_s: i64) -> Result<HeaderValue, AppError> {
    let secure = if app.config.doors.have_tls() { "; Secure" } else { "" };
    let name = name(app);
    let text = format!("{name}={value}; Path=/; HttpOnly; SameSite=Strict; Max-Age={max_age_s}{secure}");
    HeaderValue::from_str(&text).map_err(|e| AppError::Internal(e.into()))
}
