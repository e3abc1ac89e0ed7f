//! Speaks to one controller over HTTP: addresses, retries, idempotency keys, problem documents, pages.

mod call;
mod retry;
mod websocket;

use std::{cell::Cell, io, time::Duration};

use bytes::Bytes;
use muster_api::{
    ErrorCode, Page,
    cause::{causes, plain},
    version::Freed,
};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url, header};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::retry::Trouble;
pub(crate) use self::{
    call::Call,
    retry::{Patience, Retry},
    websocket::{FromConsole, OpenedConsole},
};
use crate::{
    answer::{self, Misfit, Object},
    failure::{Failure, Hint},
    output::Notes,
    settings::{Secret, Settings},
    tls,
};

/// Longest answer that is kept in memory; a page of a thousand things is far below.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Time for a whole call that answers with JSON; longer than the longest `?wait=`.
const CALL_TIMEOUT: Duration = Duration::from_secs(75);
/// Longest pause that an answer's `Retry-After` can ask for.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// The answer to a change.
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

pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
    token: Option<Secret>,
    project: Option<String>,
    interrupt: CancellationToken,
    notes: Notes,
    /// Whether the controller has ever answered.
    reached: Cell<bool>,
    retry_for: Option<Duration>,
}

/// What a call does to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Reads,
    Changes,
}

impl Client {
    pub(crate) fn new(settings: &Settings, interrupt: CancellationToken, notes: Notes) -> Result<Self, Failure> {
        let Settings { url: base, token, ca_pem, project, retry_for } = settings.clone();
        let http = connector(ca_pem.as_deref())?;
        let local = base.host_str().is_some_and(|h| h == "localhost" || h.starts_with("127.") || h == "[::1]");
        if base.scheme() == "http" && token.is_some() && !local {
            notes.say("warning: the address starts with http://, so the token travels unencrypted");
        }
        Ok(Self { http, base, token, project, interrupt, notes, reached: Cell::new(false), retry_for })
    }

    pub(crate) fn project(&self) -> Option<&str> {
        self.project.as_deref()
    }

    pub(crate) fn base(&self) -> &Url {
        &self.base
    }

    /// Is cancelled by Ctrl-C.
    pub(crate) fn interrupt(&self) -> &CancellationToken {
        &self.interrupt
    }

    /// A request without its body. A repeated request is built again with the same key.
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
                .map_err(|_| Failure::Usage("the token has characters that no token has".into()))?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        Ok(request)
    }

    /// Reads an object as it was sent.
    pub(crate) async fn get(&self, call: &Call) -> Result<Value, Failure> {
        // Without this header events answer with a stream.
        let build = || Ok(self.request(Method::GET, call, None)?.header(header::ACCEPT, "application/json"));
        Ok(self.exchange(Effect::Reads, build).await?.body)
    }

    /// Reads an object and decodes it.
    pub(crate) async fn get_object<T: Serialize + DeserializeOwned>(&self, call: &Call) -> Result<Object<T>, Failure> {
        Ok(Object::of(self.get(call).await?)?)
    }

    /// Changes something. Every try carries the same key, so it happens once however often the connection breaks.
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

    /// As [`Self::post`], for a call whose answer may take this long.
    pub(crate) async fn post_within(&self, call: &Call, body: &Value, limit: Duration) -> Result<Answer, Failure> {
        let key = fresh_key();
        let once = async || {
            let request = self.request(Method::POST, call, Some(&key))?;
            self.answer(request.json(body).timeout(limit)).await
        };
        self.tries(Effect::Changes, once).await
    }

    /// Asks how many bytes a DELETE would free; none if the controller does not know in time.
    pub(crate) async fn would_free(&self, call: &Call) -> Result<Option<u64>, Failure> {
        let call = call.clone().with("dry_run", true);
        let answer = self.exchange(Effect::Reads, || self.request(Method::DELETE, &call, None)).await?;
        Ok(answer::read::<Freed>(&answer.body)?.freed_bytes)
    }

    /// Reads one page of a list.
    pub(crate) async fn page(&self, call: &Call) -> Result<Page<Value>, Failure> {
        Ok(serde_json::from_value(self.get(call).await?).map_err(|e| Misfit(e.to_string()))?)
    }

    /// Calls `each` with the items of every page of a list, in order.
    pub(crate) async fn pages(
        &self,
        call: &Call,
        mut each: impl FnMut(Vec<Value>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let call = call.clone().with("limit", 1000);
        let mut token: Option<String> = None;
        loop {
            let page = self.page(&call.clone().with_some("page_token", token.as_deref())).await?;
            each(page.items)?;
            match page.next_page_token {
                None => return Ok(()),
                next if next == token => return Err(self.odd("a list that does not end")),
                next => token = next,
            }
        }
    }

    /// Makes the call of `muster api`: a path as it was typed. The body of the answer is not read yet.
    pub(crate) async fn raw(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<Response, Failure> {
        let url = self.raw_url(path)?;
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

    fn raw_url(&self, path: &str) -> Result<Url, Failure> {
        let mut url = self.below(path)?;
        if let Some(project) = &self.project {
            url.query_pairs_mut().append_pair("project", project);
        }
        Ok(url)
    }

    /// A path with its query, below the controller's address.
    fn below(&self, path: &str) -> Result<Url, Failure> {
        let wrong = || Failure::Usage(format!("'{path}' is not a path; a path starts with /"));
        let rest = path.strip_prefix('/').ok_or_else(wrong)?;
        let mut base = self.base.clone();
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        // Without "./" a path such as "//host/…" would send the token to another host.
        let url = base.join(&format!("./{rest}")).map_err(|_| wrong())?;
        if url.origin() == self.base.origin() { Ok(url) } else { Err(wrong()) }
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

    /// Opens the stream of events after the event `last`.
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

    /// Makes one try of a request whose body cannot simply be built again.
    pub(crate) async fn try_once(&self, request: RequestBuilder) -> Result<Answer, (Failure, Retry)> {
        self.answer(request).await.map_err(|trouble| self.judge(trouble))
    }

    /// One call with all its tries, up to the head of a successful answer.
    async fn open(
        &self,
        effect: Effect,
        build: impl Fn() -> Result<RequestBuilder, Failure>,
    ) -> Result<Response, Failure> {
        self.tries(effect, async || self.send(build()?).await).await
    }

    /// One call with all its tries, up to the end of a JSON answer.
    async fn exchange(
        &self,
        effect: Effect,
        build: impl Fn() -> Result<RequestBuilder, Failure>,
    ) -> Result<Answer, Failure> {
        self.tries(effect, async || self.answer(build()?.timeout(CALL_TIMEOUT)).await).await
    }

    /// Calls `once` until it works, fails for good, the time for retries is over, or somebody presses Ctrl-C.
    async fn tries<T>(&self, effect: Effect, once: impl AsyncFn() -> Result<T, Trouble>) -> Result<T, Failure> {
        let mut patience = Patience::new();
        let mut is_first = !self.reached.get();
        loop {
            let outcome = tokio::select! {
                outcome = once() => outcome,
                () = self.interrupt.cancelled() => return Err(Failure::Interrupted(effect == Effect::Changes)),
            };
            if !matches!(outcome, Err(Trouble::Connection(_))) {
                self.reached.set(true);
            }
            if std::mem::take(&mut is_first)
                && matches!(outcome, Err(Trouble::Connection(_) | Trouble::Final(Failure::Odd { .. })))
                && self.base.scheme() == "http"
                && tls::speaks(&self.base).await
            {
                let reason = "it does not answer in plain HTTP".to_owned();
                return Err(Failure::Unreachable { url: self.base.to_string(), reason, hint: Hint::Tls });
            }
            match outcome.map_err(|trouble| self.judge(trouble)) {
                Ok(value) => return Ok(value),
                Err((failure, Retry::Never)) => return Err(failure),
                Err((failure, Retry::After(pause))) => patience.pause(self, pause, failure).await?,
            }
        }
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, Trouble> {
        let response = request.send().await.map_err(Trouble::Connection)?;
        match response.status().is_success() {
            true => Ok(response),
            false => Err(self.refusal(response).await),
        }
    }

    async fn answer(&self, request: RequestBuilder) -> Result<Answer, Trouble> {
        let response = self.send(request).await?;
        let status = response.status().as_u16();
        let bytes = self.body(response).await?;
        let body = match bytes.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(&bytes).map_err(|e| self.odd(&format!("expected JSON: {e}")))?,
        };
        Ok(Answer { status, body })
    }

    async fn body(&self, mut response: Response) -> Result<Bytes, Trouble> {
        let mut all = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(Trouble::Connection)? {
            if all.len() + piece.len() > ANSWER_BYTES_MAX {
                return Err(self.odd("an answer that does not end").into());
            }
            all.extend_from_slice(&piece);
        }
        Ok(all.into())
    }

    /// Reads an answer that is not a success.
    async fn refusal(&self, response: Response) -> Trouble {
        let status = response.status();
        let after = response.headers().get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
        let pause = after.map(|seconds| Duration::from_secs(seconds).min(PAUSE_MAX));
        let bytes = self.body(response).await.unwrap_or_default();
        let failure = match serde_json::from_slice(&bytes).ok().and_then(Object::problem) {
            Some(mut problem) => {
                if problem.read.code == ErrorCode::Unauthenticated && self.token.is_none() {
                    // The controller says which header it wants, which nobody types here.
                    problem.read.detail = "no token was given".to_owned();
                }
                Failure::Refused(Box::new(problem))
            }
            None => self.odd(&status.to_string()),
        };
        match status {
            // With this code it is the controller's own: a wrong token or too many streams, which waiting does not
            // change. Without it, it is a proxy's.
            StatusCode::TOO_MANY_REQUESTS if failure.code() == Some(ErrorCode::TooManyRequests) => {
                Trouble::Final(failure)
            }
            // A proxy answers 502 and 504 for a controller that restarts.
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Trouble::Busy(failure, pause),
            _ => Trouble::Final(failure),
        }
    }

    fn judge(&self, trouble: Trouble) -> (Failure, Retry) {
        match trouble {
            Trouble::Final(failure) => (failure, Retry::Never),
            Trouble::Busy(failure, pause) => (failure, Retry::After(pause)),
            Trouble::Connection(e) => self.classify(&e),
        }
    }

    /// What a connection error means, and whether another try may help.
    pub(crate) fn classify(&self, error: &reqwest::Error) -> (Failure, Retry) {
        let url = self.base.to_string();
        if let Some(tls) = causes(error).find_map(|cause| cause.downcast_ref::<rustls::Error>()) {
            return (Failure::Unreachable { url, reason: plain(tls), hint: tls::hint(tls) }, Retry::Never);
        }
        let innermost = causes(error).last().map(plain).unwrap_or_default();
        if error.is_builder() || error.is_redirect() {
            return (self.odd(&innermost), Retry::Never);
        }
        let reason = if error.is_timeout() { "no answer in time".to_owned() } else { innermost };
        (Failure::Unreachable { url, reason, hint: Hint::None }, Retry::After(None))
    }

    pub(crate) fn odd(&self, reason: &str) -> Failure {
        Failure::Odd { url: self.base.to_string(), reason: reason.to_owned() }
    }
}

/// Makes the HTTP client. It checks controllers with this CA, or with the system's CAs.
fn connector(ca_pem: Option<&str>) -> Result<reqwest::Client, Failure> {
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("muster/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(Duration::from_secs(10))
        .tcp_keepalive(Duration::from_secs(15))
        .tcp_user_timeout(Duration::from_secs(60))
        .redirect(reqwest::redirect::Policy::limited(5));
    if let Some(pem) = ca_pem {
        let certificates = reqwest::Certificate::from_pem_bundle(pem.as_bytes())
            .ok()
            .filter(|found| !found.is_empty())
            .ok_or_else(|| Failure::Usage("the CA file has no certificate in PEM form".into()))?;
        builder = builder.tls_certs_only(certificates);
    }
    builder.build().map_err(|e| Failure::Io("TLS".into(), io::Error::other(e)))
}

/// An idempotency key that no other request has.
pub(crate) fn fresh_key() -> String {
    Uuid::now_v7().simple().to_string()
}
