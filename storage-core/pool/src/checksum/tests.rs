//! Every bit of every message of the object protocol is flipped, one at a time, after the sender made it.

use std::collections::BTreeMap;

use axum::Router;
use futures::stream;
use storage_core::{
    Compression, Kind, ObjectName, Record, Salt,
    record::Wire,
    store::{ChunkStore, MemoryStore},
};
use tower::ServiceExt as _;

use super::*;
use crate::{
    PoolClient,
    protocol::{ObjectCall, RECORD_HEADER, ROUND_HEADER},
    server::routes,
    tls::{PeerCaller, install_provider},
    view::View,
    wire::{RecordReader, Stamped, encode_names, encode_stamped},
};

/// A request: where it goes, the values of its headers, and its body.
#[derive(Clone)]
struct Message {
    path: Vec<u8>,
    headers: Vec<(&'static str, Vec<u8>)>,
    body: Vec<u8>,
}

impl Message {
    /// As a client sends it.
    fn sealed(call: ObjectCall, header: Option<(&'static str, &str)>, body: &[u8]) -> Self {
        install_provider();
        let request = reqwest::Client::new().post(format!("https://node{}", call.path()));
        let request = header.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let mut request = match call {
            // A stream of records.
            ObjectCall::Put => {
                let pieces = vec![Ok::<_, std::io::Error>(body.to_vec())];
                request.body(reqwest::Body::wrap_stream(stream::iter(pieces)))
            }
            ObjectCall::Get | ObjectCall::Touch | ObjectCall::TakeOver | ObjectCall::Have => {
                request.body(body.to_vec())
            }
        }
        .build()
        .expect("a request");
        seal(&mut request);
        let stated = request.headers()[CHECKSUM_HEADER].as_bytes().to_vec();
        let header = header.iter().map(|(name, value)| (*name, value.as_bytes().to_vec()));
        let headers = header.chain([(CHECKSUM, stated)]).collect();
        Self { path: call.path().as_bytes().to_vec(), headers, body: body.to_vec() }
    }

    /// Number of bits that may flip.
    fn bits(&self) -> usize {
        8 * (self.path.len() + self.headers.iter().map(|(_, value)| value.len()).sum::<usize>() + self.body.len())
    }

    fn flipped(&self, bit: usize) -> Self {
        let mut message = self.clone();
        let headers = message.headers.iter_mut().flat_map(|(_, value)| value.iter_mut());
        let mut bytes = message.path.iter_mut().chain(headers).chain(message.body.iter_mut());
        *bytes.nth(bit / 8).expect("as many bytes") ^= 1 << (bit % 8);
        message
    }

    /// The status that the server answers, and the body. None: no HTTP server gets to see such a request.
    async fn answered(&self, router: &Router) -> Option<(StatusCode, HeaderMap, Bytes)> {
        let mut request = http::Request::builder().method(Method::POST).uri(self.path.as_slice());
        for (name, value) in &self.headers {
            request = request.header(*name, HeaderValue::from_bytes(value).ok()?);
        }
        let mut request = request.body(Body::from(self.body.clone())).ok()?;
        request.extensions_mut().insert(PeerCaller { key_sha256: String::new(), expired: false });
        let (parts, body) = router.clone().oneshot(request).await.expect("it always answers").into_parts();
        let body = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
        Some((parts.status, parts.headers, body))
    }
}

const CHECKSUM: &str = "muster-checksum";

/// A node, and what it is asked.
struct Node {
    chunks: Arc<MemoryStore>,
    pool: PoolClient,
    router: Router,
    /// Objects that it has, with the stamp 5, and one that it lacks.
    here: Vec<Record>,
    absent: Record,
}

fn record(text: &str) -> Record {
    Record::encode(Kind::Pack, Salt::SHARED, None, text.repeat(20).as_bytes(), Compression::Auto)
}

impl Node {
    fn new() -> Self {
        let chunks = Arc::new(MemoryStore::new());
        let here = vec![record("one"), record("another")];
        chunks.put(5, &here).expect("puts");
        let pool = PoolClient::local_only(chunks.clone());
        let router = routes(pool.clone(), chunks.clone(), Router::new());
        Self { chunks, pool, router, here, absent: record("none") }
    }

    /// A request of this kind. A kind that is new needs a line here, and what its answer must be in [`Self::check_answer`].
    fn request(&self, call: ObjectCall) -> Message {
        let names = || encode_names(self.here.iter().chain([&self.absent]).map(Record::name));
        match call {
            ObjectCall::Get | ObjectCall::Have => Message::sealed(call, None, &names()),
            ObjectCall::Touch => Message::sealed(call, Some((ROUND_HEADER, "12")), &names()),
            ObjectCall::Put => {
                let records = [&self.absent, &record("a third")].map(|record| record.to_bytes());
                Message::sealed(call, Some((ROUND_HEADER, "12")), &records.concat())
            }
            ObjectCall::TakeOver => {
                let stamped = self.here.iter().chain([&self.absent]).map(|r| Stamped { name: r.name(), stamp: 7 });
                let record = View::new(self.pool.membership().as_ref().clone()).record;
                Message::sealed(call, Some((RECORD_HEADER, &record)), &encode_stamped(stamped))
            }
        }
    }

    /// All that it has, with the stamps.
    fn state(&self) -> BTreeMap<ObjectName, (u64, Bytes)> {
        let names = self.chunks.list(None, 100).expect("lists").into_iter().map(|object| object.name);
        let record = |name| self.chunks.get(&name).expect("reads").expect("is there");
        names.map(|name| (name, (record(name).body().round, record(name).stored().clone()))).collect()
    }

    /// What a client makes of an answer: nothing that is wrong.
    async fn check_answer(&self, call: ObjectCall, status: StatusCode, headers: &HeaderMap, body: &[u8], right: &[u8]) {
        let taken = check_answer(status, headers, body);
        match call {
            ObjectCall::Get => {
                taken.expect("a stream states none");
                let mut records = RecordReader::new(stream::iter([Ok::<_, WireGone>(Bytes::copy_from_slice(body))]));
                for asked in self.here.iter().chain([&self.absent]) {
                    match records.next().await {
                        Ok(Some(Wire::Present(got))) if got.name() == asked.name() => {
                            if let Ok(object) = got.verify() {
                                assert_eq!(object.body, asked.verify().expect("whole").body);
                            }
                        }
                        // The next node is asked.
                        Ok(_) => {}
                        Err(_) => return,
                    }
                }
            }
            ObjectCall::Put | ObjectCall::Touch | ObjectCall::TakeOver | ObjectCall::Have => {
                assert!(taken.is_err() || body == right, "{call:?}: a wrong answer was taken");
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("gone")]
struct WireGone;

#[tokio::test]
async fn no_flipped_bit_of_a_request_changes_anything() {
    for call in ObjectCall::ALL {
        let (node, mut refused) = (Node::new(), 0);
        let (message, before) = (node.request(call), node.state());
        for bit in 0..message.bits() {
            let Some((status, ..)) = message.flipped(bit).answered(&node.router).await else { continue };
            assert!(!status.is_success(), "{call:?}: bit {bit} was taken with {status}");
            assert_eq!(node.state(), before, "{call:?}: bit {bit} changed what is here");
            refused += 1;
        }
        assert!(refused > 500, "{call:?}: {refused}");
        let (status, ..) = message.answered(&node.router).await.expect("a request");
        assert!(status.is_success(), "{call:?}: {status}");
        let changes = matches!(call, ObjectCall::Put | ObjectCall::Touch | ObjectCall::TakeOver);
        assert_eq!(node.state() != before, changes, "{call:?}");
    }
}

#[tokio::test]
async fn no_flipped_bit_of_an_answer_is_taken_for_another_one() {
    for call in ObjectCall::ALL {
        let node = Node::new();
        let (status, headers, right) = node.request(call).answered(&node.router).await.expect("a request");
        assert!(status.is_success(), "{call:?}: {status}");
        assert_eq!(headers.contains_key(CHECKSUM_HEADER), call != ObjectCall::Get, "{call:?}");
        node.check_answer(call, status, &headers, &right, &right).await;
        for bit in 0..8 * right.len() {
            let mut body = right.to_vec();
            body[bit / 8] ^= 1 << (bit % 8);
            node.check_answer(call, status, &headers, &body, &right).await;
        }
    }
}

#[tokio::test]
async fn a_request_of_an_earlier_release_is_taken_and_its_answer_is_not_sealed() {
    let node = Node::new();
    let mut message = node.request(ObjectCall::Have);
    message.headers.retain(|(name, _)| *name != CHECKSUM);
    let (status, headers, body) = message.answered(&node.router).await.expect("a request");
    assert_eq!((status, headers.contains_key(CHECKSUM_HEADER)), (StatusCode::OK, false));
    check_answer(status, &headers, &body).expect("an answer of an earlier release is taken");
}

#[test]
fn a_checksum_has_one_form() {
    let stated = |text: &str| {
        let headers = HeaderMap::from_iter([(CHECKSUM_HEADER, HeaderValue::from_str(text).expect("a value"))]);
        Checksum::stated(&headers).expect("one is stated").ok()
    };
    for checksum in [Checksum { head: 0x00ab_cdef, body: None }, Checksum { head: 1, body: Some(0) }] {
        assert_eq!(stated(checksum.value().to_str().expect("text")), Some(checksum));
    }
    for other in
        ["", "0", "+0abcdef", "00ABCDEF", "00abcdef ", "00abcdef 1", "00abcdef  0000000", "00abcdef 00000001 00000001"]
    {
        assert_eq!(stated(other), None, "{other:?}");
    }
}
