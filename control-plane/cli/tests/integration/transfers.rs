//! Uploads and exports of images.

use std::os::unix::fs::{FileExt, MetadataExt};

use axum::{
    body::Body,
    http::{Method, Request, Response},
};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{
    fake::{self, Fake, Seen, answer, page, problem},
    things::{self, VERSION_ID, with},
};

/// 1 MiB of data, 6 MiB of zeros, 1 MiB of data.
fn content() -> Vec<u8> {
    let mut content = vec![0; 8 << 20];
    for (n, byte) in content.iter_mut().enumerate() {
        if !(1 << 20..7 << 20).contains(&n) {
            *byte = u8::try_from(n % 251).unwrap_or(0) | 1;
        }
    }
    content
}

fn version(digest: Option<String>) -> Value {
    with(things::version("debian@1"), json!({"digest": digest}))
}

#[tokio::test]
async fn import_sends_the_file_unchanged() {
    let fake = Fake::start(|seen, _| match seen.method.as_str() {
        "POST" => answer(201, &things::image("debian")),
        _ => answer(201, &version(None)),
    })
    .await;
    let file = fake.dir().join("disk.raw");
    std::fs::write(&file, content()).expect("a file");
    let args = ["image", "import", "debian", file.to_str().expect("a path"), "--format", "raw", "--sha256", "AB"];
    let done = fake.run(&[&args[..], &["--chunk-size", "1MiB"]].concat()).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.out.starts_with("debian@1: 8 MiB, 2 MiB newly stored"), "{}", done.out);
    let seen = fake.seen();
    assert_eq!(seen.first().map(Seen::json), Some(json!({"name": "debian", "chunk_bytes": 1 << 20, "labels": {}})));
    let put = seen.last().expect("the upload");
    assert_eq!(put.line(), "PUT /v1/images/debian/content?format=raw&sha256=ab");
    assert!(put.content() == content(), "the bytes as they are");
    assert!(put.body.len() < (2 << 20) + 1000, "{}: zeros cost next to nothing", put.body.len());
}

#[tokio::test]
async fn import_tells_of_an_image_that_boots_only_with_uefi() {
    let fake = Fake::start(|seen, _| match seen.method.as_str() {
        "POST" => answer(201, &things::image("debian")),
        _ => {
            let mut version = version(None);
            version["boot"] = json!("uefi_only");
            answer(201, &version)
        }
    })
    .await;
    let file = fake.dir().join("disk.raw");
    std::fs::write(&file, content()).expect("a file");
    let done = fake.run(&["image", "import", "debian", file.to_str().expect("a path")]).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.err.contains("debian boots only with UEFI: nodes need the package ovmf"), "{}", done.err);
    assert!(done.out.starts_with("debian@1: "), "{}", done.out);
}

#[tokio::test]
async fn holes_are_not_sent() {
    let fake = Fake::start(|seen, _| match seen.method.as_str() {
        "POST" => answer(201, &things::image("debian")),
        _ => answer(201, &version(None)),
    })
    .await;
    let path = fake.dir().join("disk.raw");
    let file = std::fs::File::create(&path).expect("a file");
    file.set_len((1 << 30) + 1).expect("sized");
    file.write_all_at(b"some", 700_000_000).expect("writes");
    let done = fake.run(&["image", "import", "debian", path.to_str().expect("a path")]).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    let seen = fake.seen();
    let put = seen.last().expect("the upload");
    assert!(put.body.len() < 200 << 10, "{} bytes were sent", put.body.len());
    let content = put.content();
    assert_eq!(content.len(), (1 << 30) + 1);
    assert_eq!(content.get(700_000_000..700_000_004), Some(&b"some"[..]));
    assert!(content.iter().filter(|b| **b != 0).count() == 4, "other bytes");
}

/// The controller makes the file shorter before it reads the body, which is far longer than what buffers hold.
#[tokio::test]
async fn a_file_that_shrinks_while_it_is_sent_breaks_the_upload_off() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("disk.raw");
    std::fs::write(&path, vec![7; 64 << 20]).expect("a file");
    let (listener, victim) = (TcpListener::bind("127.0.0.1:0").await.expect("a free port"), path.clone());
    let url = format!("http://{}", listener.local_addr().expect("its address"));
    let (tell, mut bodies) = tokio::sync::mpsc::unbounded_channel();
    let app = axum::Router::new().fallback(move |request: Request<Body>| {
        let (tell, victim) = (tell.clone(), victim.clone());
        async move {
            if request.method() == Method::PUT {
                std::fs::File::options().write(true).open(victim).and_then(|f| f.set_len(60 << 20)).expect("shrinks");
                tell.send(request.into_body().collect().await.is_ok()).expect("the test listens");
            }
            answer(201, &things::image("debian"))
        }
    });
    tokio::spawn(async move { axum::serve(listener, app).await });
    let mut muster = fake::bare(dir.path(), &["image", "import", "debian", path.to_str().expect("a path")]);
    let done = fake::Done::of(muster.env("MUSTER_URL", url).env("MUSTER_TOKEN", "t").output().await.expect("runs"));
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.err.contains("disk.raw: it became shorter"), "{}", done.err);
    assert_eq!(bodies.recv().await, Some(false), "the body looked whole");
    assert!(bodies.try_recv().is_err(), "sent once");
}

#[tokio::test]
async fn import_into_an_existing_image_adds_a_version() {
    let fake = Fake::start(|seen, _| match seen.method.as_str() {
        "POST" => problem(409, "name_taken", "there is an image 'debian'"),
        "GET" => answer(200, &things::image("debian")),
        _ => answer(200, &version(None)),
    })
    .await;
    let file = fake.dir().join("disk.raw");
    std::fs::write(&file, "x").expect("a file");
    let path = file.to_str().expect("a path");
    let done = fake.run(&["image", "import", "debian", path]).await;
    assert_eq!(done.out, "debian@1 has this content already\n");
    let other = fake.run(&["image", "import", "debian", path, "--chunk-size", "1MiB"]).await;
    assert_eq!(other.code, Some(2));
    assert!(other.err.contains("256 KiB, not 1 MiB"), "{}", other.err);
}

#[tokio::test]
async fn a_refused_file_leaves_no_image_behind() {
    let fake = Fake::start(|seen, _| match seen.method.as_str() {
        "POST" => answer(201, &things::image("debian")),
        "PUT" => problem(422, "bad_image", "this qcow2 has a backing file"),
        _ => Response::builder().status(204).body(Body::empty()).expect("a response"),
    })
    .await;
    let file = fake.dir().join("disk.qcow2");
    std::fs::write(&file, "QFI\u{fb}").expect("a file");
    let done = fake.run(&["image", "import", "debian", file.to_str().expect("a path")]).await;
    assert_eq!(done.code, Some(1));
    assert!(done.err.contains("backing file (bad_image)"), "{}", done.err);
    assert_eq!(fake.lines().last().map(String::as_str), Some("DELETE /v1/images/debian"));
}

#[tokio::test]
async fn an_upload_starts_over_with_the_same_key() {
    let fake = Fake::start(|seen, number| match (seen.method.as_str(), number) {
        ("POST", _) => answer(201, &things::image("debian")),
        (_, 1) => problem(503, "unavailable", "restarting"),
        _ => answer(201, &version(None)),
    })
    .await;
    let file = fake.dir().join("disk.raw");
    std::fs::write(&file, content()).expect("a file");
    let done = fake.run(&["image", "import", "debian", file.to_str().expect("a path")]).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    let puts: Vec<_> = fake.seen().into_iter().filter(|s| s.method == "PUT").collect();
    assert_eq!(puts.len(), 2);
    assert!(puts.iter().all(|p| p.key() == puts.first().and_then(Seen::key) && p.content() == content()));
}

#[tokio::test]
async fn a_file_that_is_not_there_changes_nothing() {
    let fake = Fake::start(|_, _| answer(201, &json!({}))).await;
    let done = fake.run(&["image", "import", "debian", "/nowhere/disk.raw"]).await;
    assert_eq!(done.code, Some(1));
    assert!(done.err.contains("/nowhere/disk.raw: No such file"), "{}", done.err);
    assert!(fake.seen().is_empty());
}

/// Serves ranges of the content. The connection breaks after 700 KiB.
fn serve(seen: &Seen, digest: &str) -> Response<Body> {
    if seen.path.contains("/extents") {
        let extent = |offset: u64| json!({"offset_bytes": offset, "length_bytes": 1 << 20});
        return answer(200, &page(&[extent(0), extent(7 << 20)], None));
    }
    if !seen.path.contains("/content") {
        return answer(200, &version(Some(digest.to_owned())));
    }
    let range = seen.headers.get("range").and_then(|v| v.to_str().ok()).unwrap_or("bytes=0-8388607").to_owned();
    let (from, to) = range.trim_start_matches("bytes=").split_once('-').expect("a range");
    let (from, to): (usize, usize) = (from.parse().expect("a number"), to.parse().expect("a number"));
    let all = content();
    let wanted = all.get(from..=to).expect("inside").to_vec();
    let sent = wanted.len().min(700 << 10);
    let broken = sent < wanted.len();
    let first = Ok(axum::body::Bytes::from(wanted).slice(..sent));
    let mut pieces = vec![first];
    if broken {
        pieces.push(Err(std::io::Error::other("gone")));
    }
    Response::builder().status(206).body(Body::from_stream(futures::stream::iter(pieces))).expect("a response")
}

#[tokio::test]
async fn an_export_is_sparse_and_checked_and_continues_where_it_broke() {
    let digest = blake3::hash(&content()).to_hex().to_string();
    let served = digest.clone();
    let fake = Fake::start(move |seen, _| serve(seen, &served)).await;
    let file = fake.dir().join("out.raw");
    let path = file.to_str().expect("a path");
    let done = fake.run(&["version", "export", VERSION_ID, path]).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(std::fs::read(&file).expect("the file") == content());
    let blocks = std::fs::metadata(&file).expect("the file").blocks();
    assert!(blocks * 512 <= 3 << 20, "{blocks} blocks: zeros are holes");
    let ranges: Vec<_> =
        fake.seen().iter().filter_map(|s| Some(s.headers.get("range")?.to_str().ok()?.to_owned())).collect();
    let expected = ["bytes=0-1048575", "bytes=716800-1048575", "bytes=7340032-8388607", "bytes=8056832-8388607"];
    assert_eq!(ranges, expected, "zeros are not requested");

    let again = fake.run(&["version", "export", VERSION_ID, path]).await;
    assert_eq!(again.code, Some(2), "{again:?}");
    assert_eq!(fake.run(&["version", "export", VERSION_ID, path, "--force"]).await.code, Some(0));
}

#[tokio::test]
async fn an_export_with_wrong_bytes_leaves_no_file() {
    let fake = Fake::start(|seen, _| serve(seen, &"00".repeat(32))).await;
    let file = fake.dir().join("out.raw");
    let done = fake.run(&["version", "export", VERSION_ID, file.to_str().expect("a path")]).await;
    assert_eq!(done.code, Some(1));
    assert!(done.err.contains("has digest"), "{}", done.err);
    let left: Vec<_> = std::fs::read_dir(fake.dir()).expect("a folder").filter_map(Result::ok).collect();
    assert!(left.iter().all(|e| !e.file_name().to_string_lossy().contains("out.raw")), "{left:?}");
}

/// The nodes that have the rest are away: the reason is told, and `--timeout` holds although retries would go on.
#[tokio::test]
async fn an_export_that_breaks_off_says_why_and_ends_in_time() {
    let detail = "object 6b86b273 of version X cannot be had now: no node has a good copy";
    let digest = blake3::hash(&content()).to_hex().to_string();
    let fake = Fake::start(move |seen, _| match seen.headers.get("range").and_then(|v| v.to_str().ok()) {
        Some(range) if !range.starts_with("bytes=0-") => {
            answer(503, &json!({"title": "unavailable", "status": 503, "code": "unavailable", "detail": detail}))
        }
        _ => serve(seen, &digest),
    })
    .await;
    let file = fake.dir().join("out.raw");
    let begun = std::time::Instant::now();
    let done = fake.run(&["version", "export", VERSION_ID, file.to_str().expect("a path"), "--timeout", "1s"]).await;
    assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(done.code, Some(1), "{done:?}");
    assert!(done.err.contains(detail) && done.err.contains("--timeout"), "{}", done.err);
    assert!(!done.err.contains("docs.rs"), "{}", done.err);
    assert!(!file.exists());
}

#[tokio::test]
async fn a_console_is_followed_where_that_is_asked_for() {
    let fake = Fake::start(move |_, _| Response::new(Body::from("booting\nlogin: "))).await;
    let done = fake.run(&["instance", "log", "web.0", "-f", "--tail", "4KiB"]).await;
    assert_eq!((done.code, done.out.as_str()), (Some(0), "booting\nlogin: "), "{done:?}");
    assert_eq!(fake.lines(), ["GET /v1/instances/web.0/log?tail=4KiB&follow=true"]);
}
