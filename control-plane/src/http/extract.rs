//! Extractors: what handlers take from a request (body, path, query, headers), and how each is refused.
//!
//! ```ignore
//! async fn create(State(app): State<App>, caller: Caller, change: Change<CreateImage>) -> Result<Answer, ApiError> {
//!     Ok(app.create_image(&caller, &change.once, change.body).await?)
//! }
//! async fn show(State(app): State<App>, caller: Caller, Path(image): Path<Ref<ImageId>>) -> Result<Json<Image>, ApiError> {
//!     Ok(Json(app.image(&caller, &image).await?))
//! }
//! async fn list(State(app): State<App>, caller: Caller, list: ListQuery) -> Result<Json<Page<Image>>, ApiError> { … }
//! ```
//!
//! A GET of the thing that a path names takes [`Shown`], a change of it takes [`ChangeOf`], a DELETE takes [`Removal`].

use std::{str::FromStr, time::Duration};

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, RawPathParams, Request},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts};
use muster_api::{
    ErrorCode, Problem, Ref,
    units::{parse_duration, parse_size},
};
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use storage_core::units::usize_from;

pub use axum::Json;

use super::{error::ApiError, json};
pub use crate::app::list::ListQuery;
use crate::app::{Answer, App, AppError, Asked, Caller, Once, list::Filter};

/// Header of the idempotency key.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Header that says that an earlier call had the effect and this is its answer.
pub const IDEMPOTENT_REPLAY: HeaderName = HeaderName::from_static("idempotent-replay");

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = match self.status {
            204 => Response::default(),
            _ => Json(&self.body).into_response(),
        };
        *response.status_mut() = StatusCode::from_u16(self.status).expect("answers have status codes");
        let headers = response.headers_mut();
        if let Some(location) = self.location.and_then(|l| HeaderValue::from_str(&l).ok()) {
            headers.insert(header::LOCATION, location);
        }
        if self.replayed {
            headers.insert(IDEMPOTENT_REPLAY, HeaderValue::from_static("true"));
        }
        response
    }
}

/// The whole body of a request that carries JSON, if it is said to be JSON.
async fn json_bytes(request: Request, app: &App) -> Result<Bytes, ApiError> {
    let (method, headers) = (request.method().clone(), request.headers().clone());
    let bytes = body_bytes(request, app).await?;
    check_content_type(&headers, &method, &bytes)?;
    Ok(bytes)
}

async fn body_bytes(request: Request, app: &App) -> Result<Bytes, ApiError> {
    let within_s = app.config.doors.body_within_s;
    let read = tokio::time::timeout(Duration::from_secs(within_s), Bytes::from_request(request, &())).await;
    let read = read.map_err(|_| {
        AppError::code(ErrorCode::RequestTimeout, format!("the body was not there within {within_s} s: send it again"))
    })?;
    read.map_err(|rejection| {
        let problem = match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                Problem::new(ErrorCode::TooLarge, "the body is too large: at most 1 MiB, from a node 16 MiB")
            }
            _ => Problem::new(ErrorCode::BadRequest, format!("the body cannot be read: {rejection}")),
        };
        problem.into()
    })
}

/// Refuses a JSON body that is not said to be JSON. A form of a foreign web page must not pass for one.
fn check_content_type(headers: &HeaderMap, method: &Method, body: &[u8]) -> Result<(), AppError> {
    let mut known = vec!["application/json"];
    if method == Method::PATCH {
        known.push("application/merge-patch+json");
    }
    let stated = headers.get(header::CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()));
    // What follows a `;` are parameters, such as a charset.
    let kind = stated.as_ref().and_then(|stated| stated.split(';').next()).map(|kind| kind.trim().to_ascii_lowercase());
    match kind {
        Some(kind) if known.contains(&kind.as_str()) => Ok(()),
        None if body.is_empty() => Ok(()),
        kind => {
            let got = kind.map_or_else(|| "nothing".to_owned(), |kind| format!("'{kind}'"));
            let why = format!("the Content-Type of the body must be {}, got {got}", known.join(" or "));
            Err(AppError::code(ErrorCode::UnsupportedMediaType, why))
        }
    }
}

/// What a change may have as its body: a type of the API, [`MaybeBody`] or [`NoBody`].
pub trait ChangeBody: Sized {
    /// Reads the whole body. An [`AppError`] says what is wrong with it.
    fn read(bytes: &[u8]) -> Result<Self, AppError>;
}

impl<T: DeserializeOwned> ChangeBody for T {
    fn read(bytes: &[u8]) -> Result<Self, AppError> {
        json::parse(bytes)
    }
}

/// A JSON body that may be left out. Then all its fields have their defaults.
#[derive(Debug)]
pub struct MaybeBody<T>(pub T);

impl<T: DeserializeOwned + Default> ChangeBody for MaybeBody<T> {
    fn read(bytes: &[u8]) -> Result<Self, AppError> {
        if bytes.is_empty() { Ok(Self(T::default())) } else { json::parse(bytes).map(Self) }
    }
}

/// No body: it must be empty or `{}`.
#[derive(Debug)]
pub struct NoBody;

impl ChangeBody for NoBody {
    fn read(bytes: &[u8]) -> Result<Self, AppError> {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Empty {}

        if !bytes.is_empty() {
            json::parse::<Empty>(bytes)?;
        }
        Ok(Self)
    }
}

/// A change: its body and its idempotency key.
#[derive(Debug)]
pub struct Change<B> {
    /// The idempotency key, if there is one, and the digest of the request.
    pub once: Once,
    /// The body, already read and parsed.
    pub body: B,
}

impl<B: ChangeBody> FromRequest<App> for Change<B> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let (mut parts, body) = request.into_parts();
        let caller = Caller::from_request_parts(&mut parts, app).await?;
        let head = OnceHead::of(&parts, &caller)?;
        let bytes = json_bytes(Request::from_parts(parts, body), app).await?;
        Ok(Self { once: head.with_body(&bytes), body: B::read(&bytes)? })
    }
}

/// A change of the thing that a path names.
#[derive(Debug)]
pub struct ChangeOf<Id, B> {
    /// Who asks, and of which thing.
    pub asked: Asked<Ref<Id>>,
    /// The body, already read and parsed.
    pub body: B,
}

impl<Id, B> FromRequest<App> for ChangeOf<Id, B>
where
    Ref<Id>: DeserializeOwned + Send,
    B: ChangeBody,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let (asked, body, _) = asked(request, app).await?;
        Ok(Self { asked, body })
    }
}

/// A GET of the thing that a path names. `T` is what the path holds.
#[derive(Debug)]
pub struct Shown<T> {
    /// Who asks.
    pub caller: Caller,
    /// The thing, as the path names it.
    pub thing: T,
}

impl<T: DeserializeOwned + Send> FromRequestParts<App> for Shown<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let caller = Caller::from_request_parts(parts, app).await?;
        let Path(thing) = Path::from_request_parts(parts, app).await?;
        Ok(Self { caller, thing })
    }
}

/// A DELETE of the thing that a path names. `T` is what the path holds.
#[derive(Debug)]
pub struct Removal<T> {
    /// Who asks, and of which thing.
    pub asked: Asked<T>,
    /// `dry_run=true`: only tell what would come back.
    pub dry_run: bool,
}

impl<T: DeserializeOwned + Send> FromRequest<App> for Removal<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let (asked, NoBody, params) = asked(request, app).await?;
        Ok(Self { asked, dry_run: params.flag("dry_run")? })
    }
}

/// A change of the thing that the path names: who asks of what, the body, and the query.
async fn asked<T, B>(request: Request, app: &App) -> Result<(Asked<T>, B, Params), ApiError>
where
    T: DeserializeOwned + Send,
    B: ChangeBody,
{
    let (mut parts, body) = request.into_parts();
    let caller = Caller::from_request_parts(&mut parts, app).await?;
    let params = Params::from_request_parts(&mut parts, app).await?;
    let Path(thing) = Path::from_request_parts(&mut parts, app).await?;
    let IfMatch(if_match) = IfMatch::from_request_parts(&mut parts, app).await?;
    let Change { once, body } = Change::from_request(Request::from_parts(parts, body), app).await?;
    Ok((Asked { caller, once, thing, if_match }, body, params))
}

/// A JSON body without an idempotency key: for the node protocol, whose calls can all be repeated.
#[derive(Debug)]
pub struct JsonBody<T>(pub T);

impl<T: DeserializeOwned> FromRequest<App> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        Ok(Self(json::parse(&json_bytes(request, app).await?)?))
    }
}

struct OnceHead {
    project: String,
    operator: bool,
    key: Option<String>,
    hasher: Sha256,
}

impl OnceHead {
    fn of(parts: &Parts, caller: &Caller) -> Result<Self, ApiError> {
        let key = header_text(parts, &IDEMPOTENCY_KEY)?;
        if let Some(key) = &key
            && (key.is_empty() || key.len() > 64 || !key.bytes().all(|b| b.is_ascii_graphic()))
        {
            let why = "an Idempotency-Key has 1 to 64 visible ASCII characters";
            return Err(AppError::BadRequest(why.to_owned()).into());
        }
        let mut hasher = Sha256::new();
        hasher.update(parts.method.as_str());
        hasher.update([0]);
        hasher.update(parts.uri.path_and_query().map_or("", |p| p.as_str()));
        hasher.update([0]);
        let project = caller.list_project().unwrap_or("*").to_owned();
        Ok(Self { project, operator: caller.is_operator(), key, hasher })
    }

    fn with_body(mut self, body: &[u8]) -> Once {
        self.hasher.update(body);
        Once {
            project: self.project,
            operator: self.operator,
            key: self.key,
            request_sha256: hex::encode(self.hasher.finalize()),
        }
    }
}

fn header_text(parts: &Parts, name: &HeaderName) -> Result<Option<String>, ApiError> {
    let Some(value) = parts.headers.get(name) else { return Ok(None) };
    match value.to_str() {
        Ok(text) => Ok(Some(text.to_owned())),
        Err(_) => Err(AppError::BadRequest(format!("the header {name} is not visible ASCII")).into()),
    }
}

/// The `If-Match` header, if there is one.
#[derive(Clone, Debug)]
pub struct IfMatch(pub Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        header_text(parts, &header::IF_MATCH).map(Self)
    }
}

/// Parts of the path. A part that cannot be read names nothing that exists, so it is answered with 404.
#[derive(Clone, Debug)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        // Only the names of the parameters are told: a part that cannot be read may be a secret in the wrong place.
        let names = RawPathParams::from_request_parts(parts, state).await;
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(_) => {
                let last = names.ok().and_then(|names| names.iter().last().map(|(name, _)| name.to_owned()));
                let why = match last.as_deref() {
                    Some("version") => "there is no such version: a version is named by its id, which \
                        /v1/images/IMAGE/versions lists"
                        .to_owned(),
                    Some("number") => {
                        "there is no such version: the path ends in the number of a version of the image".to_owned()
                    }
                    Some(name) => format!("there is no such {name}: the path does not name one"),
                    None => "there is no such thing".to_owned(),
                };
                Err(Problem::new(ErrorCode::NotFound, why).into())
            }
        }
    }
}

/// The query as pairs, for handlers with parameters of their own.
#[derive(Clone, Debug)]
pub struct Params(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match axum::extract::Query::<Vec<(String, String)>>::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(pairs)) => Ok(Self(pairs)),
            Err(e) => Err(AppError::BadRequest(format!("the query cannot be read: {e}")).into()),
        }
    }
}

impl Params {
    /// The names of all parameters.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// Refuses parameters that are neither in `known` nor `project`, because one that is ignored would mislead. Calls of
    /// the document need it only where their parameters depend on something.
    pub fn only(&self, known: &[&str]) -> Result<(), AppError> {
        match self.0.iter().find(|(name, _)| name != "project" && !known.contains(&name.as_str())) {
            None => Ok(()),
            Some((name, _)) => Err(AppError::BadRequest(format!("there is no query parameter '{name}' here"))),
        }
    }

    /// All values of a parameter.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The value of a parameter that may be given once at most.
    pub fn text(&self, name: &str) -> Result<Option<&str>, AppError> {
        let mut values = self.0.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str());
        let first = values.next();
        if values.next().is_some() {
            return Err(AppError::BadRequest(format!("the query parameter '{name}' may be given once")));
        }
        Ok(first)
    }

    /// As [`Params::text`], read by `parse`.
    pub fn read<T, E: std::fmt::Display>(
        &self,
        name: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, AppError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        parse(text).map(Some).map_err(|e| AppError::BadRequest(format!("the query parameter '{name}': {e}")))
    }

    /// A whole number.
    pub fn number(&self, name: &str) -> Result<Option<u64>, AppError> {
        self.read(name, |text| text.parse().map_err(|_| format!("expected a whole number, got '{text}'")))
    }

    /// As [`Params::text`], parsed. A text that cannot be parsed is a bad request.
    pub fn get<T: FromStr<Err: std::fmt::Display>>(&self, name: &str) -> Result<Option<T>, AppError> {
        self.read(name, str::parse)
    }

    /// `true` or `false`, default false.
    pub fn flag(&self, name: &str) -> Result<bool, AppError> {
        match self.text(name)? {
            None | Some("false") => Ok(false),
            Some("true" | "") => Ok(true),
            Some(_) => Err(AppError::BadRequest(format!("the query parameter '{name}' is true or false"))),
        }
    }

    /// A size `65536`, `64KiB`, `1MiB`, at most `max`.
    pub fn size(&self, name: &str, max: u64) -> Result<Option<u64>, AppError> {
        Ok(self.read(name, parse_size)?.map(|size| size.min(max)))
    }

    /// A duration `30s`, `500ms`, `2m`, at most `max`.
    pub fn duration(&self, name: &str, max: Duration) -> Result<Option<Duration>, AppError> {
        Ok(self.read(name, parse_duration)?.map(|duration| duration.min(max)))
    }
}

/// Most values in the filters of one list. Each of them costs a comparison per row.
const FILTER_VALUES_MAX: usize = 100;

/// The filters of a list.
pub(super) fn filter_of(params: &Params) -> Result<Filter, AppError> {
    let values: usize = Filter::NAMES.iter().map(|name| params.all(name).count()).sum();
    if values > FILTER_VALUES_MAX {
        let why = format!("at most {FILTER_VALUES_MAX} filter values at a time, got {values}");
        return Err(AppError::BadRequest(why));
    }
    let labels = params
        .all("label")
        .map(|text| {
            let (key, value) = text
                .split_once('=')
                .ok_or_else(|| AppError::BadRequest(format!("a label filter is label=KEY=VALUE, got '{text}'")))?;
            Ok((key.to_owned(), value.to_owned()))
        })
        .collect::<Result<_, AppError>>()?;
    let texts = |name| params.all(name).map(str::to_owned).collect();
    let id = |text: &str| match text.parse::<uuid::Uuid>() {
        Ok(id) => Ok(id.to_string()),
        Err(_) => Err(AppError::BadRequest(format!("target is the id of a thing, got '{text}'"))),
    };
    Ok(Filter {
        states: texts("state"),
        labels,
        deployments: texts("deployment"),
        nodes: texts("node"),
        networks: texts("network"),
        instances: texts("instance"),
        targets: params.all("target").map(id).collect::<Result<_, _>>()?,
        systems: texts("os"),
        firmware: texts("firmware"),
    })
}

/// `limit=`: how many items a page may have, 1 to 1000, 100 if it is left out.
pub(super) fn limit_of(params: &Params) -> Result<usize, AppError> {
    match params.number("limit")?.unwrap_or(100) {
        limit @ 1..=1000 => Ok(usize_from(limit)),
        limit => Err(AppError::BadRequest(format!("limit is 1 to 1000, got {limit}"))),
    }
}

impl<S: Send + Sync> FromRequestParts<S> for ListQuery {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let params = Params::from_request_parts(parts, state).await?;
        let limit = limit_of(&params)?;
        let after = params.text("page_token")?.map(str::to_owned);
        Ok(Self { after, limit, deleted: params.flag("deleted")?, filter: filter_of(&params)? })
    }
}
