//! An S3 store for tests, in this process and over real HTTP: what the client of the repository uses of the protocol, and
//! faults on demand. It keeps everything in memory, and checks no signatures, only which key they name.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures::StreamExt as _;
use http::{HeaderMap, Method, StatusCode, header};
use sha2::{Digest as _, Sha256};
use storage_core::{
    lock,
    repository::{RepositoryKeys, RepositorySettings, WriteMode},
    units::{u64_from, usize_from},
};
use tokio::{net::TcpListener, task::JoinHandle};

/// The bucket that the server has.
pub const BUCKET: &str = "bucket";
/// Id of the access key that it takes at first.
pub const KEY_ID: &str = "first-key";
/// Most keys in one answer to a listing; few, so that tests see several.
const PAGE: usize = 7;
const BODY_BYTES_MAX: usize = 8 << 20;

/// What is wrong with the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trouble {
    /// It answers as it should.
    #[default]
    None,
    /// Every request is answered with this status.
    Status(u16),
    /// Every request is refused (403) for this reason, in few words as Ceph does it.
    Refused(&'static str),
    /// Its bucket is not there.
    NoBucket,
    /// So many requests are answered with 503, the ones after them well.
    Busy(u32),
    /// No request is answered.
    Stall,
    /// Bodies of objects break off half-way.
    Torn,
    /// Bodies of objects have a flipped bit.
    Flipped,
    /// It takes so many milliseconds for each answer.
    Slow(u64),
    /// In each body of such a request one bit flips before the store sees it; the number decides which.
    FlippedRequests(Question, u64),
    /// In each answer to such a request one bit flips; the number decides which.
    FlippedAnswers(Question, u64),
}

/// What the store can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Reads an object.
    Get,
    /// Asks about an object.
    Head,
    /// Writes an object.
    Put,
    /// Deletes one object.
    Delete,
    /// Deletes many objects.
    DeleteMany,
    /// Lists objects.
    List,
}

impl Question {
    /// All of them. The store answers nothing else.
    pub const ALL: [Self; 6] = [Self::Get, Self::Head, Self::Put, Self::Delete, Self::DeleteMany, Self::List];

    fn is_asked(self, method: &Method, key: &str, query: &BTreeMap<String, String>) -> bool {
        match self {
            Self::Get => *method == Method::GET && !key.is_empty(),
            Self::Head => *method == Method::HEAD,
            Self::Put => *method == Method::PUT,
            Self::Delete => *method == Method::DELETE,
            Self::DeleteMany => *method == Method::POST && query.contains_key("delete"),
            Self::List => *method == Method::GET && key.is_empty(),
        }
    }
}

fn flip(bytes: Bytes, seed: u64) -> Bytes {
    let mut bytes = bytes.to_vec();
    let bits = u64_from(bytes.len()) * 8;
    if bits > 0 {
        let bit = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) % bits;
        bytes[usize_from(bit / 8)] ^= 1 << (bit % 8);
    }
    bytes.into()
}

/// How often something was asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Objects read.
    pub gets: u64,
    /// Questions about objects.
    pub heads: u64,
    /// Objects written.
    pub puts: u64,
    /// Requests to delete, whatever their number of keys.
    pub deletes: u64,
    /// Pages of listings.
    pub lists: u64,
}

#[derive(Debug, Default)]
struct Inside {
    objects: BTreeMap<String, Bytes>,
    keys: BTreeSet<String>,
    trouble: Trouble,
    asked: Asked,
}

/// The server. It ends when it is dropped.
#[derive(Debug)]
pub struct TestStore {
    address: SocketAddr,
    inside: Arc<Mutex<Inside>>,
    served: JoinHandle<()>,
}

impl Drop for TestStore {
    fn drop(&mut self) {
        self.served.abort();
    }
}

impl TestStore {
    /// Starts one at a free port of this machine.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn start() -> Self {
        let inside = Inside { keys: BTreeSet::from([KEY_ID.to_owned()]), ..Inside::default() };
        let inside = Arc::new(Mutex::new(inside));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let router = Router::new().fallback(answer).with_state(inside.clone());
        let served = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("serves until it is dropped");
        });
        Self { address, inside, served }
    }

    /// Its URL.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Settings with which a client reaches it.
    #[must_use]
    pub fn settings(&self) -> RepositorySettings {
        RepositorySettings {
            bucket: BUCKET.to_owned(),
            prefix: "some/cluster".to_owned(),
            endpoint: Some(self.endpoint()),
            region: "us-east-1".to_owned(),
            write: WriteMode::Behind,
            evict: false,
            allow_http: true,
            ca_pem: None,
            keys: RepositoryKeys {
                access_key_id: KEY_ID.to_owned(),
                secret_access_key: "secret".to_owned(),
                session_token: None,
            },
        }
    }

    /// From now on something is wrong with it, or nothing any more.
    pub fn set_trouble(&self, trouble: Trouble) {
        lock(&self.inside).trouble = trouble;
    }

    /// From now on it takes this access key and no other one.
    pub fn take_only_key(&self, id: &str) {
        lock(&self.inside).keys = BTreeSet::from([id.to_owned()]);
    }

    /// All keys that have a body.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        lock(&self.inside).objects.keys().cloned().collect()
    }

    /// Number of objects of the pool in it.
    #[must_use]
    pub fn objects(&self) -> usize {
        lock(&self.inside).objects.keys().filter(|key| key.contains("/objects/")).count()
    }

    /// Changes the body under a key, or removes it, behind the back of all clients.
    pub fn change(&self, key: &str, change: impl FnOnce(Option<Bytes>) -> Option<Bytes>) {
        let mut inside = lock(&self.inside);
        let before = inside.objects.remove(key);
        if let Some(after) = change(before) {
            inside.objects.insert(key.to_owned(), after);
        }
    }

    /// What was asked so far.
    #[must_use]
    pub fn asked(&self) -> Asked {
        lock(&self.inside).asked
    }
}

async fn answer(State(inside): State<Arc<Mutex<Inside>>>, request: Request) -> Response {
    let trouble = {
        let mut inside = lock(&inside);
        let trouble = inside.trouble;
        if let Trouble::Busy(left) = trouble {
            inside.trouble = if left > 1 { Trouble::Busy(left - 1) } else { Trouble::None };
        }
        trouble
    };
    match trouble {
        Trouble::Status(status) => {
            let status = StatusCode::from_u16(status).expect("a status");
            return refusal(status, "ToldTo", "the test wants it");
        }
        Trouble::Refused(code) => return refusal(StatusCode::FORBIDDEN, code, ""),
        Trouble::Busy(_) => return refusal(StatusCode::SERVICE_UNAVAILABLE, "SlowDown", "reduce your request rate"),
        Trouble::Stall => std::future::pending::<()>().await,
        Trouble::Slow(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
        Trouble::None
        | Trouble::NoBucket
        | Trouble::Torn
        | Trouble::Flipped
        | Trouble::FlippedRequests(..)
        | Trouble::FlippedAnswers(..) => {}
    }
    let (parts, body) = request.into_parts();
    let authorization = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or("");
    let key_id = authorization.split_once("Credential=").and_then(|(_, rest)| rest.split('/').next()).unwrap_or("");
    if !lock(&inside).keys.contains(key_id) {
        return refusal(StatusCode::FORBIDDEN, "InvalidAccessKeyId", "The access key does not exist in our records.");
    }
    let path = parts.uri.path().trim_start_matches('/');
    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
    if bucket != BUCKET || trouble == Trouble::NoBucket {
        return refusal(StatusCode::NOT_FOUND, "NoSuchBucket", "The specified bucket does not exist");
    }
    let Ok(mut body) = axum::body::to_bytes(body, BODY_BYTES_MAX).await else {
        return refusal(StatusCode::BAD_REQUEST, "IncompleteBody", "it broke off");
    };
    let query: BTreeMap<String, String> = parts.uri.query().map(pairs).unwrap_or_default();
    let Some(question) = Question::ALL.into_iter().find(|q| q.is_asked(&parts.method, key, &query)) else {
        return refusal(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", "this store is for tests");
    };
    if let Trouble::FlippedRequests(of, seed) = trouble
        && of == question
    {
        body = flip(body, seed);
    }
    // The signature has the digest of the body, as every signed request.
    let signed = parts.headers.get("x-amz-content-sha256").and_then(|value| value.to_str().ok());
    if signed.is_some_and(|signed| signed.len() == 64 && signed != hex::encode(Sha256::digest(&body))) {
        return refusal(StatusCode::BAD_REQUEST, "XAmzContentSHA256Mismatch", "the body is not what was signed");
    }
    let answer = match question {
        Question::Get => get(&inside, key, trouble),
        Question::Head => head(&inside, key, trouble),
        Question::Put => put(&inside, key, &parts.headers, body),
        Question::Delete => {
            let mut inside = lock(&inside);
            inside.asked.deletes += 1;
            inside.objects.remove(key);
            StatusCode::NO_CONTENT.into_response()
        }
        Question::DeleteMany => delete(&inside, &body),
        Question::List => list(&inside, &query),
    };
    match trouble {
        Trouble::FlippedAnswers(of, seed) if of == question && of != Question::Head => {
            let (head, body) = answer.into_parts();
            let body = axum::body::to_bytes(body, BODY_BYTES_MAX).await.expect("it is in memory");
            Response::from_parts(head, flip(body, seed).into())
        }
        _ => answer,
    }
}

fn put(inside: &Mutex<Inside>, key: &str, headers: &HeaderMap, body: Bytes) -> Response {
    let mut inside = lock(inside);
    inside.asked.puts += 1;
    if headers.contains_key(header::IF_NONE_MATCH) && inside.objects.contains_key(key) {
        return refusal(StatusCode::PRECONDITION_FAILED, "PreconditionFailed", "it is there");
    }
    let tag = tag(&body);
    inside.objects.insert(key.to_owned(), body);
    ([(header::ETAG, tag)], "").into_response()
}

fn get(inside: &Mutex<Inside>, key: &str, trouble: Trouble) -> Response {
    let mut inside = lock(inside);
    inside.asked.gets += 1;
    let Some(body) = inside.objects.get(key).cloned() else {
        return refusal(StatusCode::NOT_FOUND, "NoSuchKey", "The specified key does not exist.");
    };
    let head = about(&body);
    let is_object = key.contains("/objects/");
    match trouble {
        Trouble::Flipped if is_object => {
            let mut bytes = body.to_vec();
            let at = bytes.len() * 2 / 3;
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 0x10;
            }
            (head, bytes).into_response()
        }
        Trouble::Torn if is_object => {
            let half = body.slice(..body.len() / 2);
            let broken = futures::stream::iter([Ok(half)]).chain(futures::stream::once(async {
                // Gives the first half a chance to be sent.
                tokio::time::sleep(Duration::from_millis(10)).await;
                Err(std::io::Error::other("torn"))
            }));
            (head, [(header::CONTENT_LENGTH, body.len().to_string())], Body::from_stream(broken)).into_response()
        }
        _ => (head, body).into_response(),
    }
}

fn head(inside: &Mutex<Inside>, key: &str, trouble: Trouble) -> Response {
    let mut inside = lock(inside);
    inside.asked.heads += 1;
    // Nothing but headers travels, so the told length is what is flipped.
    let flipped = if let Trouble::FlippedAnswers(Question::Head, seed) = trouble { 1 << (seed % 12) } else { 0 };
    match inside.objects.get(key) {
        Some(body) => (about(body), [(header::CONTENT_LENGTH, (body.len() ^ flipped).to_string())]).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn delete(inside: &Mutex<Inside>, body: &[u8]) -> Response {
    let text = String::from_utf8_lossy(body);
    let keys = text.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next());
    let mut inside = lock(inside);
    inside.asked.deletes += 1;
    let mut told = String::new();
    for key in keys {
        inside.objects.remove(key);
        told += &format!("<Deleted><Key>{key}</Key></Deleted>");
    }
    xml(StatusCode::OK, &format!("<DeleteResult>{told}</DeleteResult>"))
}

fn list(inside: &Mutex<Inside>, query: &BTreeMap<String, String>) -> Response {
    let mut inside = lock(inside);
    inside.asked.lists += 1;
    let word = |name: &str| query.get(name).map_or("", String::as_str);
    let (prefix, after) = (word("prefix"), word("continuation-token").max(word("start-after")));
    let all = inside.objects.iter().filter(|(key, _)| key.starts_with(prefix) && key.as_str() > after);
    let page: Vec<_> = all.take(PAGE + 1).collect();
    let mut told = String::new();
    for (key, body) in page.iter().take(PAGE) {
        let (tag, size) = (tag(body), body.len());
        told += &format!(
            "<Contents><Key>{key}</Key><LastModified>2026-01-02T03:04:05.000Z</LastModified><ETag>{tag}</ETag>\
             <Size>{size}</Size></Contents>"
        );
    }
    let next = page
        .get(PAGE)
        .and(page.get(PAGE - 1))
        .map_or_else(String::new, |(key, _)| format!("<NextContinuationToken>{key}</NextContinuationToken>"));
    xml(StatusCode::OK, &format!("<ListBucketResult>{told}{next}</ListBucketResult>"))
}

fn about(body: &[u8]) -> [(header::HeaderName, String); 2] {
    [(header::ETAG, tag(body)), (header::LAST_MODIFIED, "Fri, 02 Jan 2026 03:04:05 GMT".to_owned())]
}

fn tag(body: &[u8]) -> String {
    format!("\"{}\"", hex::encode(&Sha256::digest(body)[..16]))
}

fn refusal(status: StatusCode, code: &str, message: &str) -> Response {
    xml(status, &format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>"))
}

fn xml(status: StatusCode, text: &str) -> Response {
    (status, [(header::CONTENT_TYPE, "application/xml")], text.to_owned()).into_response()
}

/// The parts of a query. Keys of tests have no characters that need more than this.
fn pairs(query: &str) -> BTreeMap<String, String> {
    let pair = |part: &str| {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        (name.to_owned(), value.replace("%2F", "/").replace("%2f", "/"))
    };
    query.split('&').map(pair).collect()
}
