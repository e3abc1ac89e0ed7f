//! One controller, spoken to over HTTP: addresses, retries, idempotency keys, problems, pages.

use std::{
    cell::Cell,
    io,
    time::{Duration, Instant},
};

use bytes::Bytes;
use muster_api::cause::causes;
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url, header};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    failure::Failure,
    output::Notes,
    settings::{Secret, Settings},
};

/// Longest answer that is kept in memory: a page of a thousand things is far below.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// How long a call that returns JSON may take as a whole; longer than the longest `?wait=`.
const CALL_TIMEOUT: Duration = Duration::from_secs(75);
/// How long connection errors and 503 are met with another try before the first answer ever came…
const PATIENCE_BEFORE: Duration = Duration::from_secs(10);
/// …and after it: a controller may restart.
const PATIENCE_AFTER: Duration = Duration::from_secs(120);
const BACKOFF_FIRST: Duration = Duration::from_millis(200);
const BACKOFF_MOST: Duration = Duration::from_secs(5);

/// A path and its query, encoded.
#[derive(Clone, Debug, Default)]
pub(crate) struct Call {
    segments: Vec<String>,
    query: Vec<(String, String)>,
}

impl Call {
    /// A path below the controller's address; each part is one segment whatever characters it has.
    pub(crate) fn to(segments: &[&str]) -> Self {
        Self { segments: segments.iter().map(|s| (*s).to_owned()).collect(), query: Vec::new() }
    }

    /// One more segment.
    pub(crate) fn then(mut self, segment: &str) -> Self {
        self.segments.push(segment.to_owned());
        self
    }

    /// One more query parameter.
    pub(crate) fn with(mut self, key: &str, value: impl ToString) -> Self {
        self.query.push((key.to_owned(), value.to_string()));
        self
    }

    /// One query parameter per value.
    pub(crate) fn with_each(mut self, key: &str, values: &[String]) -> Self {
        self.query.extend(values.iter().map(|v| (key.to_owned(), v.clone())));
        self
    }

    /// One query parameter if there is a value.
    pub(crate) fn with_some(self, key: &str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }

    fn url(&self, base: &Url) -> Result<Url, Failure> {
        // Dots would be taken for path arithmetic and an empty segment for the list above it.
        if let Some(odd) = self.segments.iter().find(|s| matches!(s.as_str(), "" | "." | "..")) {
            return Err(Failure::Usage(format!("'{odd}' is neither a name nor an id")));
        }
        let mut url = base.clone();
        match url.path_segments_mut() {
            Ok(mut path) => {
                path.pop_if_empty().extend(&self.segments);
            }
            Err(()) => return Err(Failure::Usage(format!("'{base}' cannot have paths"))),
        }
        if !self.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&self.query);
        }
        Ok(url)
    }
}

/// What a change was answered with.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Null when there is no body.
    pub(crate) body: Value,
}

impl Answer {
    /// Whether the body is an operation that goes on.
    pub(crate) fn is_operation(&self) -> bool {
        self.status == StatusCode::ACCEPTED.as_u16()
    }
}

/// Talks to the controller of the settings.
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<Secret>,
    project: Option<String>,
    interrupt: CancellationToken,
    notes: Notes,
    reached: Cell<bool>,
    retry_for: Option<Duration>,
}

/// How a call that failed may be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Reads,
    Changes,
}

impl Client {
    pub(crate) fn new(settings: &Settings, interrupt: CancellationToken, notes: Notes) -> Result<Self, Failure> {
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("muster/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(10))
            .tcp_keepalive(Duration::from_secs(15))
            .tcp_user_timeout(Duration::from_secs(60))
            .redirect(reqwest::redirect::Policy::limited(5));
        if let Some(pem) = &settings.ca_pem {
            let certificates = reqwest::Certificate::from_pem_bundle(pem.as_bytes())
                .ok()
                .filter(|found| !found.is_empty())
                .ok_or_else(|| Failure::Usage("the CA file has no certificate in PEM form".into()))?;
            builder = builder.tls_certs_only(certificates);
        }
        let http = builder.build().map_err(|e| Failure::Io("TLS".into(), io::Error::other(e)))?;
        let (base, token) = (settings.url.clone(), settings.token.clone());
        let local = base.host_str().is_some_and(|h| h == "localhost" || h.starts_with("127.") || h == "[::1]");
        if base.scheme() == "http" && token.is_some() && !local {
            notes.say("warning: the token travels unencrypted, the address starts with http://");
        }
        let project = settings.project.clone();
        Ok(Self {
            http,
            base,
            token,
            project,
            interrupt,
            notes,
            reached: Cell::new(false),
            retry_for: settings.retry_for,
        })
    }

    /// The project of the settings.
    pub(crate) fn project(&self) -> Option<&str> {
        self.project.as_deref()
    }

    /// Where it talks to.
    pub(crate) fn base(&self) -> &Url {
        &self.base
    }

    /// Ctrl-C.
    pub(crate) fn interrupt(&self) -> &CancellationToken {
        &self.interrupt
    }

    /// A request with everything but its body. Repeating it means building it again under the same key.
    pub(crate) fn request(&self, method: Method, call: &Call, key: Option<&str>) -> Result<RequestBuilder, Failure> {
        let mut call = call.clone();
        if let Some(project) = &self.project {
            call = call.with("project", project);
        }
        self.request_url(method, call.url(&self.base)?, key)
    }

    fn request_url(&self, method: Method, url: Url, key: Option<&str>) -> Result<RequestBuilder, Failure> {
        let mut request = self.http.request(method, url);
        if let Some(token) = &self.token {
            let mut value = header::HeaderValue::try_from(format!("Bearer {}", token.reveal()))
                .map_err(|_| Failure::Usage("the token has characters no token has".into()))?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        Ok(request)
    }

    /// Reads one thing.
    pub(crate) async fn get(&self, call: &Call) -> Result<Value, Failure> {
        // Events answer with a stream unless JSON is asked for.
        let build = || Ok(self.request(Method::GET, call, None)?.header(header::ACCEPT, "application/json"));
        Ok(self.exchange(Effect::Reads, build).await?.body)
    }

    /// Changes something, once however often the connection breaks: every try carries the same key.
    pub(crate) async fn change(&self, method: Method, call: &Call, body: Option<&Value>) -> Result<Answer, Failure> {
        let key = fresh_key();
        let build = || {
            let request = self.request(method.clone(), call, Some(&key))?;
            Ok(match body {
                Some(body) => request.json(body),
                None => request,
            })
        };
        self.exchange(Effect::Changes, build).await
    }

    /// As [`Self::change`] with POST.
    pub(crate) async fn post(&self, call: &Call, body: &Value) -> Result<Answer, Failure> {
        self.change(Method::POST, call, Some(body)).await
    }

    /// Asks what a DELETE would free; none when that is not known.
    pub(crate) async fn would_free(&self, call: &Call) -> Result<Option<u64>, Failure> {
        let call = call.clone().with("dry_run", true);
        let build = || self.request(Method::DELETE, &call, None);
        let answer = self.exchange(Effect::Reads, build).await?;
        Ok(answer.body.get("freed_bytes").and_then(Value::as_u64))
    }

    /// Calls `each` with every page of a list, in order.
    pub(crate) async fn pages(
        &self,
        call: &Call,
        mut each: impl FnMut(Vec<Value>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let call = call.clone().with("limit", 1000);
        let mut token: Option<String> = None;
        loop {
            let mut page = self.get(&call.clone().with_some("page_token", token.as_deref())).await?;
            match page.get_mut("items").map(Value::take) {
                Some(Value::Array(items)) => each(items)?,
                _ => return Err(self.odd("a list without items")),
            }
            let next = page.get("next_page_token").and_then(Value::as_str).map(str::to_owned);
            if next.is_some() && next == token {
                return Err(self.odd("a list that does not end"));
            }
            match next {
                Some(next) => token = Some(next),
                None => return Ok(()),
            }
        }
    }

    /// A raw call for `muster api`: the path as typed, the answer not read yet.
    pub(crate) async fn raw(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<Response, Failure> {
        let wrong = || Failure::Usage(format!("'{path}' is not a path; it starts with /"));
        let rest = path.strip_prefix('/').ok_or_else(wrong)?;
        let mut base = self.base.clone();
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        // Joining "//host/…" would leave the controller with the token in hand.
        let mut url = base.join(&format!("./{rest}")).map_err(|_| wrong())?;
        if url.origin() != self.base.origin() {
            return Err(wrong());
        }
        if let Some(project) = &self.project {
            url.query_pairs_mut().append_pair("project", project);
        }
        let (effect, key) = match method {
            Method::GET | Method::HEAD => (Effect::Reads, None),
            _ => (Effect::Changes, Some(fresh_key())),
        };
        let build = || {
            let request = self.request_url(method.clone(), url.clone(), key.as_deref())?;
            Ok(match &body {
                Some(body) => request.header(header::CONTENT_TYPE, "application/json").body(body.clone()),
                None => request,
            })
        };
        self.open(effect, build).await
    }

    /// Starts reading a body of any length.
    pub(crate) async fn stream(&self, call: &Call, range: Option<String>) -> Result<Response, Failure> {
        let build = || {
            let request = self.request(Method::GET, call, None)?;
            Ok(match &range {
                Some(range) => request.header(header::RANGE, range),
                None => request,
            })
        };
        self.open(Effect::Reads, build).await
    }

    /// The stream of events after a position.
    pub(crate) async fn events(&self, call: &Call, last: Option<&str>) -> Result<Response, Failure> {
        let build = || {
            let request = self.request(Method::GET, call, None)?.header(header::ACCEPT, "text/event-stream");
            Ok(match last {
                Some(id) => request.header("Last-Event-ID", id),
                None => request,
            })
        };
        self.open(Effect::Reads, build).await
    }

    /// One try of a request whose body cannot simply be built again; with the failure comes whether (and after which
    /// pause, if the controller named one) another try makes sense.
    pub(crate) async fn try_once(
        &self,
        request: RequestBuilder,
    ) -> Result<Answer, (Failure, Option<Option<Duration>>)> {
        let outcome = async {
            let response = request.send().await.map_err(Trouble::Connection)?;
            if !response.status().is_success() {
                return Err(self.refusal(response).await);
            }
            let status = response.status().as_u16();
            let bytes = self.body(response).await?;
            let body = serde_json::from_slice(&bytes).map_err(|e| self.odd(&format!("expected JSON: {e}")))?;
            Ok(Answer { status, body })
        };
        outcome.await.map_err(|trouble| match trouble {
            Trouble::Final(failure) => (failure, None),
            Trouble::Later(failure, after) => (failure, Some(after)),
            Trouble::Connection(e) => match self.classify(&e) {
                (failure, true) => (failure, Some(None)),
                (failure, false) => (failure, None),
            },
        })
    }

    /// One call with all its tries, up to the head of a successful answer.
    async fn open(
        &self,
        effect: Effect,
        build: impl Fn() -> Result<RequestBuilder, Failure>,
    ) -> Result<Response, Failure> {
        self.tries(effect, async || {
            let response = build()?.send().await.map_err(Trouble::Connection)?;
            match response.status().is_success() {
                true => Ok(response),
                false => Err(self.refusal(response).await),
            }
        })
        .await
    }

    /// One call with all its tries, up to the end of a JSON answer.
    async fn exchange(
        &self,
        effect: Effect,
        build: impl Fn() -> Result<RequestBuilder, Failure>,
    ) -> Result<Answer, Failure> {
        self.tries(effect, async || {
            let response = build()?.timeout(CALL_TIMEOUT).send().await.map_err(Trouble::Connection)?;
            if !response.status().is_success() {
                return Err(self.refusal(response).await);
            }
            let status = response.status().as_u16();
            let bytes = self.body(response).await?;
            let body = match bytes.is_empty() {
                true => Value::Null,
                false => serde_json::from_slice(&bytes).map_err(|e| self.odd(&format!("expected JSON: {e}")))?,
            };
            Ok(Answer { status, body })
        })
        .await
    }

    /// The whole body, bounded.
    async fn body(&self, mut response: Response) -> Result<Bytes, Trouble> {
        let mut all = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(Trouble::Connection)? {
            if all.len() + piece.len() > ANSWER_BYTES_MAX {
                return Err(self.odd("an answer without end").into());
            }
            all.extend_from_slice(&piece);
        }
        Ok(all.into())
    }

    /// What an answer that is not a success says.
    async fn refusal(&self, response: Response) -> Trouble {
        let status = response.status();
        let after = response
            .headers()
            .get(header::RETRY_AFTER)
            .and_then(|v| v.to_str().ok()?.parse().ok())
            .map(|s: u64| Duration::from_secs(s.min(30)));
        let bytes = self.body(response).await.unwrap_or_default();
        let failure = match serde_json::from_slice::<Value>(&bytes) {
            Ok(problem) if problem.get("code").is_some() => Failure::Refused(problem),
            _ => self.odd(&format!("{status}")),
        };
        match status {
            // The controller's own: a bad token and streams that nobody ends become no better by waiting. Without its word
            // it is a proxy's.
            StatusCode::TOO_MANY_REQUESTS if failure.code() == Some("too_many_requests") => Trouble::Final(failure),
            // 502 and 504 are a proxy's words for a controller that restarts.
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Trouble::Later(failure, after),
            _ => Trouble::Final(failure),
        }
    }

    /// Repeats `once` until it works, fails for good, patience ends or somebody presses Ctrl-C.
    async fn tries<T>(&self, effect: Effect, once: impl AsyncFn() -> Result<T, Trouble>) -> Result<T, Failure> {
        let mut patience = Patience::new();
        loop {
            let outcome = tokio::select! {
                outcome = once() => outcome,
                () = self.interrupt.cancelled() => return Err(Failure::Interrupted(effect == Effect::Changes)),
            };
            let trouble = match outcome {
                Ok(value) => {
                    self.reached.set(true);
                    return Ok(value);
                }
                Err(trouble) => trouble,
            };
            let (failure, pause) = match trouble {
                Trouble::Final(failure) => {
                    self.reached.set(true);
                    return Err(failure);
                }
                Trouble::Later(failure, after) => {
                    self.reached.set(true);
                    (failure, after)
                }
                Trouble::Connection(e) => match self.classify(&e) {
                    (failure, true) => (failure, None),
                    (failure, false) => return Err(failure),
                },
            };
            patience.pause(self, pause, failure).await?;
        }
    }

    /// What a connection error means, and whether another try may help.
    pub(crate) fn classify(&self, error: &reqwest::Error) -> (Failure, bool) {
        let url = self.base.to_string();
        if let Some(tls) = causes(error).find_map(|cause| cause.downcast_ref::<rustls::Error>()) {
            let hint = match tls {
                rustls::Error::InvalidCertificate(_) => "\n  give its CA with --ca, or sign in with `muster login URL`",
                _ => "",
            };
            return (Failure::Unreachable { url, reason: tls.to_string(), hint }, false);
        }
        let innermost = causes(error).last().map(ToString::to_string).unwrap_or_default();
        if error.is_builder() || error.is_redirect() {
            return (self.odd(&innermost), false);
        }
        let reason = if error.is_timeout() { "no answer in time".to_owned() } else { innermost };
        (Failure::Unreachable { url, reason, hint: "" }, true)
    }

    pub(crate) fn odd(&self, reason: &str) -> Failure {
        Failure::Odd { url: self.base.to_string(), reason: reason.to_owned() }
    }
}

/// How much longer a broken connection or a busy controller is met with another try.
pub(crate) struct Patience {
    since: Instant,
    backoff: Duration,
    told: bool,
}

impl Patience {
    pub(crate) fn new() -> Self {
        Self { since: Instant::now(), backoff: BACKOFF_FIRST, told: false }
    }

    /// Waits before the next try, or gives the failure back when patience has ended.
    pub(crate) async fn pause(
        &mut self,
        client: &Client,
        asked: Option<Duration>,
        failure: Failure,
    ) -> Result<(), Failure> {
        let usual = if client.reached.get() { PATIENCE_AFTER } else { PATIENCE_BEFORE };
        let patience = client.retry_for.unwrap_or(usual);
        let pause = asked.unwrap_or(self.backoff).max(self.backoff.min(Duration::from_secs(1)));
        if self.since.elapsed() + pause > patience {
            return Err(failure);
        }
        if !self.told {
            self.told = true;
            let first = failure.to_string();
            let line = first.lines().next().unwrap_or_default();
            client.notes.say(&format!("{line}; trying again for {} s", patience.as_secs()));
        }
        // Many clients that lost the same controller must not come back in step.
        let jittered = pause.mul_f64(0.75 + 0.5 * fraction());
        self.backoff = (self.backoff * 2).min(BACKOFF_MOST);
        tokio::select! {
            () = tokio::time::sleep(jittered) => Ok(()),
            () = client.interrupt.cancelled() => Err(Failure::Interrupted(false)),
        }
    }
}

/// A number in 0..1, different on every call.
fn fraction() -> f64 {
    let [.., a, b] = *Uuid::now_v7().as_bytes();
    f64::from(u16::from_be_bytes([a, b])) / 65_536.0
}

/// A key that no other request has.
pub(crate) fn fresh_key() -> String {
    Uuid::now_v7().simple().to_string()
}

/// How one try went wrong.
enum Trouble {
    Connection(reqwest::Error),
    Later(Failure, Option<Duration>),
    Final(Failure),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Final(failure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(call: &Call) -> String {
        let base = Url::parse("https://muster.example:8443/under/").expect("an address");
        call.url(&base).expect("a path").to_string()
    }

    #[test]
    fn every_part_of_a_path_is_one_segment() {
        let call = Call::to(&["v1", "images", "a/b c?"]).with("label", "k=v&x").with("limit", 3);
        assert_eq!(url(&call), "https://muster.example:8443/under/v1/images/a%2Fb%20c%3F?label=k%3Dv%26x&limit=3");
    }

    #[test]
    fn path_arithmetic_is_refused() {
        let base = Url::parse("https://muster.example").expect("an address");
        for odd in ["", ".", ".."] {
            assert!(Call::to(&["v1", "images", odd]).url(&base).is_err(), "'{odd}'");
        }
    }
}
