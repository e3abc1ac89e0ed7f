//! The dashboard, `/ui/`: a web page that was packed into the binary (`build.rs`). It is sent to everybody, because it has
//! no data: what it shows it gets from the API, signed in by a session.
//!
//! ```text
//! /ui/assets/…  files with a hash in their name    kept for ever by browsers; one that is not there is 404
//! /ui/FILE      other files                        asked for again, by ETag
//! /ui/…         index.html                         the page finds out what the rest of the path means
//! ```
//! Each body is ready in brotli, gzip and plain: nothing is compressed while somebody waits.

use axum::{
    Router,
    body::Body,
    extract::Path,
    middleware::map_response,
    response::{IntoResponse as _, Redirect, Response},
    routing::get,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

/// A file, as `build.rs` packed it.
struct Packed {
    /// Its path below `/ui/`.
    path: &'static str,
    plain: &'static [u8],
    /// The same in brotli, if that is smaller.
    brotli: Option<&'static [u8]>,
    /// The same in gzip, if that is smaller.
    gzip: Option<&'static [u8]>,
}

/// The built dashboard, or the page that says how to build it.
static DASHBOARD: &[Packed] = include!(concat!(env!("OUT_DIR"), "/dashboard.rs"));

/// What browsers may do with any page below `/ui/`. Scripts come from files of the dashboard only, so that no stored text
/// (a name, a label, output of a console) can become one. Mantine sets styles on elements. `connect-src 'self'` also allows
/// WebSockets to the same host and port, which consoles are.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
    font-src 'self'; connect-src 'self'; worker-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; \
    frame-ancestors 'none'";

const HEADERS: [(HeaderName, HeaderValue); 7] = [
    (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
    (
        HeaderName::from_static("permissions-policy"),
        HeaderValue::from_static("camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()"),
    ),
];

/// `/ui/…`, and the ways there.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    serve(DASHBOARD).route("/", get(async || Redirect::temporary("/ui/")))
}

fn serve<S: Clone + Send + Sync + 'static>(files: &'static [Packed]) -> Router<S> {
    let index = async move |headers: HeaderMap| send(files, "", &headers);
    let page = async move |Path(path): Path<String>, headers: HeaderMap| send(files, &path, &headers);
    let router = Router::new().route("/ui/", get(index)).route("/ui/{*path}", get(page));
    let router = router.route("/ui", get(async || Redirect::permanent("/ui/")));
    router.layer(map_response(async |mut response: Response| {
        response.headers_mut().extend(HEADERS);
        response
    }))
}

fn send(files: &'static [Packed], path: &str, asked: &HeaderMap) -> Response {
    let find = |path: &str| files.iter().find(|file| file.path == path);
    let is_asset = path.starts_with("assets/");
    let file = match find(path) {
        Some(file) => file,
        // A tab that was opened before an upgrade asks for files of the older dashboard.
        None if is_asset => {
            return (StatusCode::NOT_FOUND, "this dashboard has no such file: load the page again\n").into_response();
        }
        None => find("index.html").expect("a dashboard has a first page"),
    };
    let (coding, bytes) = match (file.brotli, file.gzip) {
        (Some(brotli), _) if accepts(asked, "br") => (Some("br"), brotli),
        (_, Some(gzip)) if accepts(asked, "gzip") => (Some("gzip"), gzip),
        _ => (None, file.plain),
    };
    let etag = format!("\"{}\"", &blake3::hash(bytes).to_hex()[..32]);
    let known = asked.get_all(header::IF_NONE_MATCH).iter().filter_map(|tags| tags.to_str().ok());
    let is_known = known.flat_map(|tags| tags.split(',')).any(|tag| tag.trim().trim_start_matches("W/") == etag);
    let cached = if is_asset { "public, max-age=31536000, immutable" } else { "no-cache" };
    let mut answer = Response::builder()
        .header(header::ETAG, etag)
        .header(header::CACHE_CONTROL, cached)
        .header(header::VARY, header::ACCEPT_ENCODING);
    if is_known {
        return answer.status(StatusCode::NOT_MODIFIED).body(Body::empty()).expect("all headers are valid");
    }
    if let Some(coding) = coding {
        answer = answer.header(header::CONTENT_ENCODING, coding);
    }
    answer.header(header::CONTENT_TYPE, media_type(file.path)).body(Body::from(bytes)).expect("all headers are valid")
}

/// Whether the client takes this encoding, by `Accept-Encoding`.
fn accepts(asked: &HeaderMap, coding: &str) -> bool {
    let all = asked.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|value| value.split(',')).any(|item| {
        let (name, weight) = item.split_once(';').map_or((item, ""), |(name, weight)| (name, weight.trim()));
        let refused = weight.strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0_f32));
        name.trim().eq_ignore_ascii_case(coding) && !refused
    })
}

fn media_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map(|(_, ending)| ending) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("ico") => "image/x-icon",
        Some("woff2") => "font/woff2",
        Some("json") => "application/json",
        Some("webmanifest") => "application/manifest+json",
        Some("txt") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use axum::body::Bytes;
    use http::Request;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;

    static FIXTURE: &[Packed] = include!(concat!(env!("OUT_DIR"), "/fixture.rs"));
    const INDEX: &str = include_str!("dashboard/fixture/index.html");
    const SCRIPT: &str = "/ui/assets/app-0a1b2c3d.js";

    async fn ask(router: Router, path: &str, headers: &[(&str, &str)]) -> Response<Bytes> {
        let request = headers.iter().fold(Request::get(path), |request, (name, value)| request.header(*name, *value));
        let answer = router.oneshot(request.body(Body::empty()).expect("a request")).await.expect("an answer");
        let (parts, body) = answer.into_parts();
        Response::from_parts(parts, body.collect().await.expect("a body").to_bytes())
    }

    async fn get(path: &str, headers: &[(&str, &str)]) -> Response<Bytes> {
        ask(serve(FIXTURE), path, headers).await
    }

    fn header<'a>(answer: &'a Response<Bytes>, name: &str) -> &'a str {
        answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    #[tokio::test]
    async fn every_path_that_is_no_file_gives_the_first_page_and_a_missing_asset_404() {
        // Names of instances have dots.
        for path in ["/ui/", "/ui/index.html", "/ui/sign-in", "/ui/instances/web.0", "/ui/images/a/versions/2"] {
            let answer = get(path, &[]).await;
            assert_eq!((answer.status().as_u16(), &answer.body()[..]), (200, INDEX.as_bytes()), "{path}");
            assert_eq!(header(&answer, "content-type"), "text/html; charset=utf-8");
            assert_eq!(header(&answer, "cache-control"), "no-cache");
        }
        let gone = get("/ui/assets/app-ffffffff.js", &[]).await;
        assert_eq!((gone.status().as_u16(), header(&gone, "cache-control")), (404, ""));
        let moved = get("/ui", &[]).await;
        assert_eq!((moved.status().as_u16(), header(&moved, "location")), (308, "/ui/"));
        let icon = get("/ui/favicon.svg", &[]).await;
        assert_eq!((header(&icon, "content-type"), header(&icon, "cache-control")), ("image/svg+xml", "no-cache"));
        let first = ask(routes(), "/", &[]).await;
        assert_eq!((first.status().as_u16(), header(&first, "location")), (307, "/ui/"));
    }

    #[tokio::test]
    async fn a_file_with_a_hash_in_its_name_is_kept_for_ever_and_any_file_is_sent_once() {
        let script = get(SCRIPT, &[]).await;
        assert_eq!(header(&script, "content-type"), "text/javascript; charset=utf-8");
        assert_eq!(header(&script, "cache-control"), "public, max-age=31536000, immutable");
        for path in [SCRIPT, "/ui/"] {
            let etag = header(&get(path, &[]).await, "etag").to_owned();
            for known in [etag.clone(), format!("\"x\", W/{etag}")] {
                let again = get(path, &[("if-none-match", &known)]).await;
                assert_eq!((again.status().as_u16(), again.body().len()), (304, 0));
                assert_eq!(header(&again, "etag"), etag);
            }
            let packed = get(path, &[("if-none-match", &etag), ("accept-encoding", "gzip")]).await;
            assert_eq!(packed.status().as_u16(), 200, "another body has another tag");
        }
    }

    #[tokio::test]
    async fn a_body_is_sent_in_the_best_encoding_that_the_browser_takes() {
        let plain = get(SCRIPT, &[]).await;
        for (accepted, expected) in [
            ("gzip, deflate, br, zstd", "br"),
            ("gzip", "gzip"),
            ("GZIP;q=0.5", "gzip"),
            ("br;q=0, gzip;q=1.0", "gzip"),
            ("br;q=0.0", ""),
            ("identity", ""),
            ("zstd", ""),
        ] {
            let answer = get(SCRIPT, &[("accept-encoding", accepted)]).await;
            assert_eq!(header(&answer, "content-encoding"), expected, "{accepted}");
            assert_eq!(header(&answer, "vary"), "accept-encoding");
            let mut bytes = Vec::new();
            let mut sent = &answer.body()[..];
            match expected {
                "br" => brotli::Decompressor::new(sent, 4096).read_to_end(&mut bytes),
                "gzip" => flate2::read::GzDecoder::new(sent).read_to_end(&mut bytes),
                _ => sent.read_to_end(&mut bytes),
            }
            .expect("it unpacks");
            assert!(bytes == plain.body()[..], "{accepted}");
            assert_eq!(answer.body().len() < plain.body().len(), !expected.is_empty());
        }
        // What does not get smaller is sent as it is.
        let icon = get("/ui/favicon.svg", &[("accept-encoding", "br, gzip")]).await;
        assert_eq!((header(&icon, "content-encoding"), &icon.body()[..4]), ("", &b"<svg"[..]));
    }

    #[tokio::test]
    async fn every_answer_says_what_a_browser_may_do_with_it() {
        for path in ["/ui", "/ui/", "/ui/sign-in", SCRIPT, "/ui/assets/gone.js"] {
            let answer = get(path, &[]).await;
            let policy = header(&answer, "content-security-policy");
            assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
            let scripts = policy.split("; ").find(|part| part.starts_with("script-src"));
            assert_eq!(scripts, Some("script-src 'self'"), "no script but the files of the dashboard");
            for (name, value) in [
                ("x-content-type-options", "nosniff"),
                ("referrer-policy", "no-referrer"),
                ("x-frame-options", "DENY"),
                ("cross-origin-opener-policy", "same-origin"),
                ("cross-origin-resource-policy", "same-origin"),
            ] {
                assert_eq!(header(&answer, name), value, "{path}");
            }
            assert!(header(&answer, "permissions-policy").contains("camera=()"), "{path}");
            assert!(!answer.headers().contains_key("strict-transport-security"), "the host's other ports may be plain");
        }
    }

    #[tokio::test]
    async fn there_is_a_first_page_whether_or_not_the_dashboard_was_built() {
        let answer = ask(routes(), "/ui/", &[]).await;
        let page = std::str::from_utf8(answer.body()).expect("a page");
        assert_eq!(answer.status().as_u16(), 200);
        assert!(page.starts_with("<!doctype html>") && page.contains("Muster"), "{page}");
    }
}
