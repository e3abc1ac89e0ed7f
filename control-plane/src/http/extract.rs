//! What handlers take: bodies, path parts, queries and headers, each refused as interface.md says.
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
//! A handler without a JSON body that changes something takes [`NoBody`] (`DELETE`, `POST …/retry`): it carries the
//! idempotency key and refuses a body that is not empty or `{}`.

use std::{str::FromStr, time::Duration};

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Request},
    response::{IntoResponse, Response},
};
use http::{HeaderName, HeaderValue, StatusCode, header, request::Parts};
use muster_api::{
    ErrorCode, Labels, Page, Problem, Ref,
    error::FieldError,
    units::{parse_duration, parse_size},
};
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use super::error::ApiError;
use crate::{
    app::{Answer, App, AppError, Caller, Once},
    store::{Position, Tx},
};

/// Header of the idempotency key.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Says that an answer was remembered.
pub const IDEMPOTENT_REPLAY: HeaderName = HeaderName::from_static("idempotent-replay");

/// A JSON answer.
#[derive(Clone, Debug)]
pub struct Json<T>(pub T);

impl<T: serde::Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = match self.status {
            204 => Response::default(),
            _ => axum::Json(&self.body).into_response(),
        };
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
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

/// Reads JSON into `T`: not JSON is 400; JSON that does not fit is 422 and names the place.
pub fn parse_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, AppError> {
    let value: serde_json::Value = serde_json::from_slice(body)
        .map_err(|e| AppError::code(ErrorCode::NotJson, format!("the body is not JSON: {e}")))?;
    serde_path_to_error::deserialize(value).map_err(|e| {
        let detail = e.inner().to_string();
        let code = if detail.starts_with("unknown field") {
            "unknown_field"
        } else if detail.starts_with("missing field") {
            "missing"
        } else {
            "invalid"
        };
        let mut pointer = pointer(e.path());
        // "missing field `x`" is found at the object: point at what is missing.
        if code == "missing"
            && let Some(field) = detail.split('`').nth(1)
        {
            pointer = format!("{pointer}/{field}");
        }
        AppError::Invalid(vec![FieldError { pointer, code: code.to_owned(), detail }])
    })
}

fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    path.iter().fold(String::new(), |mut out, segment| {
        match segment {
            Segment::Seq { index } => out.push_str(&format!("/{index}")),
            Segment::Map { key } => out.push_str(&format!("/{}", key.replace('~', "~0").replace('/', "~1"))),
            Segment::Enum { variant } => out.push_str(&format!("/{variant}")),
            Segment::Unknown => {}
        }
        out
    })
}

async fn body_bytes(request: Request) -> Result<Bytes, ApiError> {
    Bytes::from_request(request, &()).await.map_err(|rejection| {
        let problem = match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                Problem::new(ErrorCode::TooLarge, "the body is too large: at most 1 MiB, from a node 16 MiB")
            }
            _ => Problem::new(ErrorCode::BadRequest, format!("the body cannot be read: {rejection}")),
        };
        problem.into()
    })
}

/// A change with a JSON body, and the idempotency key it came with. Needs [`Caller`] to be taken before or not at all.
#[derive(Debug)]
pub struct Change<T> {
    /// The key.
    pub once: Once,
    /// The body.
    pub body: T,
}

impl<T: DeserializeOwned> FromRequest<App> for Change<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let (mut parts, body) = request.into_parts();
        let caller = Caller::from_request_parts(&mut parts, app).await?;
        let head = OnceHead::of(&parts, &caller)?;
        let bytes = body_bytes(Request::from_parts(parts, body)).await?;
        Ok(Self { once: head.with_body(&bytes), body: parse_json(&bytes)? })
    }
}

/// A change without a body, and the idempotency key it came with.
#[derive(Debug)]
pub struct NoBody {
    /// The key.
    pub once: Once,
}

impl FromRequest<App> for NoBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let (mut parts, body) = request.into_parts();
        let caller = Caller::from_request_parts(&mut parts, app).await?;
        let head = OnceHead::of(&parts, &caller)?;
        let bytes = body_bytes(Request::from_parts(parts, body)).await?;
        if !bytes.is_empty() {
            parse_json::<Empty>(&bytes)?;
        }
        Ok(Self { once: head.with_body(&bytes) })
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Empty {}

/// A change whose JSON body may be left out: then all its fields have their defaults.
#[derive(Debug)]
pub struct MaybeBody<T> {
    /// The key.
    pub once: Once,
    /// The body.
    pub body: T,
}

impl<T: DeserializeOwned + Default> FromRequest<App> for MaybeBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let (mut parts, body) = request.into_parts();
        let caller = Caller::from_request_parts(&mut parts, app).await?;
        let head = OnceHead::of(&parts, &caller)?;
        let bytes = body_bytes(Request::from_parts(parts, body)).await?;
        let body = if bytes.is_empty() { T::default() } else { parse_json(&bytes)? };
        Ok(Self { once: head.with_body(&bytes), body })
    }
}

/// A change of the thing a path names: who asks, of what, and the body `B` ([`Change`], [`MaybeBody`] or [`NoBody`]).
/// For calls without query parameters.
#[derive(Debug)]
pub struct ChangeOf<Id, B> {
    /// Who asks.
    pub caller: Caller,
    /// Of what.
    pub thing: Ref<Id>,
    /// The `If-Match` header.
    pub if_match: Option<String>,
    /// The body, with its key.
    pub change: B,
}

impl<Id, B> FromRequest<App> for ChangeOf<Id, B>
where
    Ref<Id>: DeserializeOwned + Send,
    B: FromRequest<App, Rejection = ApiError>,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let (mut parts, body) = request.into_parts();
        let caller = Caller::from_request_parts(&mut parts, app).await?;
        Params::from_request_parts(&mut parts, app).await?.only(&[])?;
        let Path(thing) = Path::from_request_parts(&mut parts, app).await?;
        let IfMatch(if_match) = IfMatch::from_request_parts(&mut parts, app).await?;
        let change = B::from_request(Request::from_parts(parts, body), app).await?;
        Ok(Self { caller, thing, if_match, change })
    }
}

/// A plain JSON body (the node protocol, which needs no keys).
#[derive(Debug)]
pub struct JsonBody<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        Ok(Self(parse_json(&body_bytes(request).await?)?))
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

/// The `If-Match` header, for [`crate::app::check_if_match`].
#[derive(Clone, Debug)]
pub struct IfMatch(pub Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        header_text(parts, &header::IF_MATCH).map(Self)
    }
}

/// Parts of the path. What cannot be read cannot be there: 404.
#[derive(Clone, Debug)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(rejection) => {
                Err(Problem::new(ErrorCode::NotFound, format!("there is no such thing: {rejection}")).into())
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
    /// Refuses parameters that are neither in `known` nor `project`: none is ever ignored.
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

    /// The value of a parameter that may be given once.
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

    /// As [`Params::text`], parsed.
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

/// The query of a list: place, length and equality filters.
#[derive(Clone, Debug)]
pub struct ListQuery {
    /// Only rows after this place; from the beginning if none.
    pub after: Option<Position>,
    /// At most so many.
    pub limit: usize,
    /// Also what was deleted in the last 24 h.
    pub deleted: bool,
    /// The filters.
    pub filter: Filter,
}

/// Equality filters: values of one name are alternatives, different names must all hold.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// `state=`
    pub states: Vec<String>,
    /// `label=k=v`
    pub labels: Vec<(String, String)>,
    /// `deployment=` (id or name)
    pub deployments: Vec<String>,
    /// `node=` (id or name)
    pub nodes: Vec<String>,
}

impl Filter {
    pub(super) const NAMES: [&'static str; 4] = ["state", "label", "deployment", "node"];

    /// Most values in one list's filters: each costs a comparison per row.
    const VALUES_MAX: usize = 100;

    pub(super) fn of(params: &Params) -> Result<Self, AppError> {
        let values: usize = Self::NAMES.iter().map(|name| params.all(name).count()).sum();
        if values > Self::VALUES_MAX {
            let why = format!("at most {} filter values at a time, got {values}", Self::VALUES_MAX);
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
        Ok(Self { states: texts("state"), labels, deployments: texts("deployment"), nodes: texts("node") })
    }

    /// Refuses filters this list does not have: none is ever ignored.
    pub fn only(&self, known: &[&str]) -> Result<(), AppError> {
        let given = [
            ("state", self.states.is_empty()),
            ("label", self.labels.is_empty()),
            ("deployment", self.deployments.is_empty()),
            ("node", self.nodes.is_empty()),
        ];
        match given.iter().find(|(name, empty)| !empty && !known.contains(name)) {
            None => Ok(()),
            Some((name, _)) => Err(AppError::BadRequest(format!("this list cannot be filtered by {name}"))),
        }
    }

    /// Whether a thing in `state` with `labels` is wanted.
    #[must_use]
    pub fn keeps(&self, state: &str, labels: &Labels) -> bool {
        (self.states.is_empty() || self.states.iter().any(|s| s == state)) && self.keeps_labels(labels)
    }

    /// Whether the labels fit. `label=a=1&label=a=2` are alternatives, `label=a=1&label=b=2` must both hold.
    #[must_use]
    pub fn keeps_labels(&self, labels: &Labels) -> bool {
        self.labels.iter().all(|(key, _)| {
            self.labels.iter().any(|(other, value)| other == key && labels.get(key) == Some(value.as_str()))
        })
    }

    /// Whether a relation given as id and name is wanted, for `deployments` and `nodes`.
    #[must_use]
    pub fn keeps_relation(wanted: &[String], id: Option<&str>, name: Option<&str>) -> bool {
        wanted.is_empty() || wanted.iter().any(|w| Some(w.as_str()) == id || Some(w.as_str()) == name)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for ListQuery {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let params = Params::from_request_parts(parts, state).await?;
        let mut known = vec!["limit", "page_token", "deleted"];
        known.extend(Filter::NAMES);
        params.only(&known)?;
        let limit = params.get::<usize>("limit")?.unwrap_or(100);
        if limit == 0 || limit > 1000 {
            return Err(AppError::BadRequest(format!("limit is 1 to 1000, got {limit}")).into());
        }
        let after = params.get::<Position>("page_token")?;
        Ok(Self { after, limit, deleted: params.flag("deleted")?, filter: Filter::of(&params)? })
    }
}

impl ListQuery {
    /// Begins a page that is true at the transaction's position.
    ///
    /// ```ignore
    /// self.store.read("images.list", async |tx| {
    ///     let mut pager = list.pager(tx).await?;
    ///     while let Some((after, n)) = pager.wants() {
    ///         let rows = images::list(tx, project, after, n).await?;        // WHERE seq > $1 ORDER BY seq LIMIT $2
    ///         pager.take(rows, |row| row.seq, |row| list.filter.keeps(row.state, &row.labels).then(|| row.view()));
    ///     }
    ///     Ok::<_, AppError>(pager.page())
    /// }).await
    /// ```
    pub async fn pager<T>(&self, tx: &mut Tx) -> Result<Pager<T>, AppError> {
        let as_of = tx.as_of().await?;
        let after = self.after.map_or(Ok(0), |after| in_history(after, as_of))?;
        Ok(Pager { items: Vec::new(), limit: self.limit, after, asked: self.limit.max(100) + 1, end: None, as_of })
    }
}

/// The `seq` of a position that was given to a caller, unless it is of another history, where the same number is another
/// row, or of a future this database has not reached: it was replaced by an older copy.
pub(crate) fn in_history(given: Position, as_of: Position) -> Result<i64, AppError> {
    if given.history == as_of.history && given.seq <= as_of.seq {
        return Ok(given.seq);
    }
    let why = "is not of this database as it is now: list again from the beginning";
    Err(AppError::BadRequest(format!("the position '{given}' {why}")))
}

/// A page being collected: asks for rows in `seq` order until it is full or there are no more.
#[derive(Debug)]
pub struct Pager<T> {
    items: Vec<T>,
    limit: usize,
    after: i64,
    asked: usize,
    end: Option<End>,
    as_of: Position,
}

#[derive(Debug)]
enum End {
    /// No rows are left.
    Rows,
    /// The page is full and something is left.
    Full,
}

impl<T> Pager<T> {
    /// Which rows to fetch next: those with a `seq` above the first number, at most as many as the second.
    #[must_use]
    pub fn wants(&self) -> Option<(i64, i64)> {
        self.end.is_none().then(|| (self.after, i64::try_from(self.asked).unwrap_or(i64::MAX)))
    }

    /// Takes the rows that were fetched. `seq_of` tells a row's place, `keep` what it becomes, none if it is filtered.
    pub fn take<R>(&mut self, rows: Vec<R>, seq_of: impl Fn(&R) -> i64, keep: impl Fn(R) -> Option<T>) {
        if rows.len() < self.asked {
            self.end = Some(End::Rows);
        }
        for row in rows {
            let seq = seq_of(&row);
            if let Some(item) = keep(row) {
                if self.items.len() == self.limit {
                    self.end = Some(End::Full);
                    return;
                }
                self.items.push(item);
            }
            self.after = seq;
        }
    }

    /// The page.
    #[must_use]
    pub fn page(self) -> Page<T> {
        let next_page_token =
            matches!(self.end, Some(End::Full)).then(|| Position { seq: self.after, ..self.as_of }.to_string());
        Page { items: self.items, next_page_token, as_of: self.as_of.to_string() }
    }
}
