//! A controller that gives the answers a test tells it to give, and keeps the requests it got.

use std::{
    path::Path,
    process::{Output, Stdio},
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderMap, Method, Request, Response},
};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    process::Command,
};

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Seen {
    pub(crate) fn key(&self) -> Option<String> {
        Some(self.headers.get("idempotency-key")?.to_str().ok()?.to_owned())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The body before it was encoded.
    pub(crate) fn content(&self) -> Vec<u8> {
        assert_eq!(self.headers.get("content-encoding").and_then(|v| v.to_str().ok()), Some("zstd"));
        zstd::decode_all(&self.body[..]).expect("whole frames")
    }

    /// `METHOD path`.
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// The fake controller.
pub(crate) struct Fake {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    dir: tempfile::TempDir,
}

impl Fake {
    /// Answers every request with the result of `answer`, which gets the request and its number, from 0.
    pub(crate) async fn start(answer: impl Fn(&Seen, usize) -> Response<Body> + Clone + Send + Sync + 'static) -> Self {
        Self::start_beside(Router::new(), answer).await
    }

    /// As [`Self::start`], for requests that these routes do not answer.
    pub(crate) async fn start_beside(
        routes: Router,
        answer: impl Fn(&Seen, usize) -> Response<Body> + Clone + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let log = seen.clone();
        let app = routes.fallback(move |request: Request<Body>| {
            let (log, answer) = (log.clone(), answer.clone());
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await.map(|b| b.to_bytes()).unwrap_or_default();
                let path = parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
                let seen = Seen { method: parts.method, path, headers: parts.headers, body };
                let number = {
                    let mut log = log.lock().expect("no test panics while it holds this");
                    log.push(seen.clone());
                    log.len() - 1
                };
                answer(&seen, number)
            }
        });
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, seen, dir: tempfile::tempdir().expect("a folder") }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no test panics while it holds this").clone()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.seen().iter().map(Seen::line).collect()
    }

    /// A temporary folder of this test.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// `muster` with this controller as its only setting.
    pub(crate) fn muster(&self, args: &[&str]) -> Command {
        let mut command = bare(self.dir.path(), args);
        command.env("MUSTER_URL", &self.url).env("MUSTER_TOKEN", "mst1_test");
        command
    }

    /// Runs `muster` at a terminal of 80 columns, where somebody types `typed`. What it prints, on standard error as well, is
    /// in `out`, without colours.
    pub(crate) async fn at_terminal(&self, args: &[&str], typed: &str) -> Done {
        self.typed_after(args, "", typed).await
    }

    /// As [`Self::at_terminal`], where somebody waits until `said` was printed.
    pub(crate) async fn typed_after(&self, args: &[&str], said: &str, typed: &str) -> Done {
        let words = std::iter::once(MUSTER).chain(args.iter().copied());
        let quoted: Vec<_> = words.map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect();
        let line = format!("stty cols 80 rows 50 -echo; exec {}", quoted.join(" "));
        let mut command = program("script", self.dir.path());
        command.args(["-qec", &line, "/dev/null"]).env("SHELL", "/bin/sh").env("TERM", "xterm");
        command.env("MUSTER_URL", &self.url).env("MUSTER_TOKEN", "mst1_test");
        let mut child = command.stdin(Stdio::piped()).spawn().expect("script runs");
        let (mut keys, mut screen) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        let mut printed = Vec::new();
        while !String::from_utf8_lossy(&printed).contains(said) {
            assert!(screen.read_buf(&mut printed).await.expect("readable") > 0, "it ended without '{said}'");
        }
        keys.write_all(typed.as_bytes()).await.expect("it reads");
        screen.read_to_end(&mut printed).await.expect("readable");
        // The end of its input would be typed as Ctrl-D.
        let ended = child.wait_with_output().await.expect("it ends");
        drop(keys);
        let done = Done::of(Output { stdout: printed, ..ended });
        Done { out: console::strip_ansi_codes(&done.out).replace('\r', ""), ..done }
    }

    pub(crate) async fn run(&self, args: &[&str]) -> Done {
        Done::of(self.muster(args).output().await.expect("muster runs"))
    }
}

/// `muster` without any settings.
pub(crate) fn bare(home: &Path, args: &[&str]) -> Command {
    let mut command = program(MUSTER, home);
    command.args(args);
    command
}

const MUSTER: &str = env!("CARGO_BIN_EXE_muster");

/// A program that sees no settings of whoever runs the tests.
fn program(name: &str, home: &Path) -> Command {
    let mut command = Command::new(name);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MUSTER_") || name == "XDG_CONFIG_HOME" {
            command.env_remove(name);
        }
    }
    command.env("HOME", home).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true);
    command
}

/// How a run ended.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Done {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

/// A JSON answer.
pub(crate) fn answer(status: u16, body: &Value) -> Response<Body> {
    let response = Response::builder().status(status).header("content-type", "application/json");
    response.body(Body::from(body.to_string())).expect("a response")
}

/// A problem document.
pub(crate) fn problem(status: u16, code: &str, detail: &str) -> Response<Body> {
    let body = json!({"type": "about:blank", "title": code, "status": status, "code": code, "detail": detail,
        "request_id": "0190-req"});
    let response = Response::builder().status(status).header("content-type", "application/problem+json");
    response.body(Body::from(body.to_string())).expect("a response")
}

/// A page of a list.
pub(crate) fn page(items: &[Value], next: Option<&str>) -> Value {
    let mut page = json!({"items": items, "as_of": "7"});
    if let (Some(next), Some(fields)) = (next, page.as_object_mut()) {
        fields.insert("next_page_token".to_owned(), json!(next));
    }
    page
}
