//! Where settings come from, and `muster login`.

use std::{os::unix::fs::PermissionsExt, sync::Arc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::{
    fake::{Done, Fake, answer, bare, problem},
    things,
};

fn me() -> serde_json::Value {
    things::me("ops")
}

#[tokio::test]
async fn without_settings_the_error_says_what_to_do() {
    let home = tempfile::tempdir().expect("a folder");
    let done = Done::of(bare(home.path(), &["image", "ls"]).output().await.expect("muster runs"));
    assert_eq!(done.code, Some(2));
    assert!(done.err.contains("muster login URL"), "{}", done.err);
}

#[tokio::test]
async fn login_keeps_a_profile_only_its_owner_can_read() {
    let fake = Fake::start(|_, _| answer(200, &me())).await;
    let home = fake.dir();
    let secret = home.join("token");
    std::fs::write(&secret, "mst1_from_file\n").expect("a file");
    let token = format!("@{}", secret.display());
    let args = ["login", &fake.url, "--token", &token, "--project", "shop"];
    let done = Done::of(bare(home, &args).output().await.expect("muster runs"));
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(!done.out.contains("mst1_") && !done.err.contains("mst1_"), "tokens are never shown");
    let profile = home.join(".config/muster/config.toml");
    let mode = std::fs::metadata(&profile).expect("a profile").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let done = Done::of(bare(home, &["whoami"]).output().await.expect("muster runs"));
    assert_eq!(done.code, Some(0), "{done:?}");
    let last = fake.seen().pop().expect("a request");
    assert_eq!(last.headers.get("authorization").and_then(|v| v.to_str().ok()), Some("Bearer mst1_from_file"));
    assert_eq!(last.path, "/v1/me?project=shop");
}

#[tokio::test]
async fn the_token_of_a_profile_is_never_sent_to_another_address() {
    let mine = Fake::start(|_, _| answer(200, &me())).await;
    let other = Fake::start(|_, _| answer(200, &me())).await;
    let home = mine.dir();
    let args = ["login", &mine.url, "--token", "mst1_mine"];
    bare(home, &args).output().await.expect("muster runs");
    let done = bare(home, &["whoami", "--url", &other.url]).output().await.expect("muster runs");
    assert!(done.status.success());
    let done =
        bare(home, &["whoami", "--url", &other.url, "--profile", "default"]).output().await.expect("muster runs");
    assert!(done.status.success());
    assert_eq!(other.seen().len(), 2);
    assert!(other.seen().iter().all(|s| s.headers.get("authorization").is_none()));
}

#[tokio::test]
async fn options_win_over_the_environment() {
    let fake = Fake::start(|_, _| answer(200, &me())).await;
    let done = fake.run(&["whoami", "--token", "mst1_option"]).await;
    assert_eq!(done.code, Some(0));
    let seen = fake.seen();
    let token = seen.first().and_then(|s| s.headers.get("authorization")).and_then(|v| v.to_str().ok());
    assert_eq!(token, Some("Bearer mst1_option"));
}

/// A TLS server whose chain ends in its own CA. Gives the CA's fingerprint, the CA as PEM, and the address.
async fn tls_door() -> (String, String, String) {
    // This fails if another test of this process has installed the provider.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let ca_key = rcgen::KeyPair::generate().expect("a key");
    let mut ca = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_cert = ca.self_signed(&ca_key).expect("a CA");
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate().expect("a key");
    let leaf = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("parameters");
    let leaf = leaf.signed_by(&key, &issuer).expect("a certificate");
    let chain = vec![leaf.der().clone(), ca_cert.der().clone()];
    let private = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).expect("a private key");
    let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(chain, private);
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config.expect("a TLS configuration")));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("https://{}", listener.local_addr().expect("its address"));
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(tcp).await else { return };
                let mut head = vec![0; 4096];
                if stream.read(&mut head).await.is_ok_and(|n| n > 0) {
                    let body = me().to_string();
                    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n";
                    let reply = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
                    // The client may have closed the connection already.
                    let _ = stream.write_all(reply.as_bytes()).await;
                    let _ = stream.shutdown().await;
                }
            });
        }
    });
    use sha2::Digest as _;
    let print = sha2::Sha256::digest(ca_cert.der()).iter().map(|b| format!("{b:02x}")).collect();
    (print, ca_cert.pem(), url)
}

#[tokio::test]
async fn login_pins_the_ca_with_the_stated_fingerprint() {
    let (print, pem, url) = tls_door().await;
    let home = tempfile::tempdir().expect("a folder");
    let run = async |args: &[&str]| Done::of(bare(home.path(), args).output().await.expect("muster runs"));

    let unknown = run(&["login", &url, "--token", "mst1_x"]).await;
    assert_eq!(unknown.code, Some(2), "{unknown:?}");
    assert!(unknown.err.contains(&format!("--ca-fingerprint {print}")), "{}", unknown.err);

    let wrong = run(&["login", &url, "--token", "mst1_x", "--ca-fingerprint", &"ab".repeat(32)]).await;
    assert_eq!(wrong.code, Some(2), "{wrong:?}");

    let right = run(&["login", &url, "--token", "mst1_x", "--ca-fingerprint", &print]).await;
    assert_eq!(right.code, Some(0), "{right:?}");
    assert_eq!(run(&["whoami"]).await.code, Some(0), "the profile has the CA");

    let elsewhere = tempfile::tempdir().expect("a folder");
    let refused = Done::of(bare(elsewhere.path(), &["whoami", "--url", &url]).output().await.expect("muster runs"));
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains("--ca"), "{}", refused.err);
    let file = elsewhere.path().join("ca.pem");
    std::fs::write(&file, pem).expect("a file");
    let args = ["whoami", "--url", &url, "--ca", file.to_str().expect("a path")];
    assert_eq!(Done::of(bare(elsewhere.path(), &args).output().await.expect("muster runs")).code, Some(0));
}

#[tokio::test]
async fn without_a_token_the_error_says_how_to_give_one() {
    let fake = Fake::start(|seen, _| match seen.headers.get("authorization") {
        None => problem(401, "unauthenticated", "send a token: Authorization: Bearer mst1_…"),
        Some(_) => answer(200, &me()),
    })
    .await;
    let done = Done::of(bare(fake.dir(), &["whoami", "--url", &fake.url]).output().await.expect("muster runs"));
    assert_eq!(done.code, Some(1), "{done:?}");
    for way in ["no token was given", "--token TOKEN", "MUSTER_TOKEN", "muster login URL"] {
        assert!(done.err.contains(way), "{}", done.err);
    }
}

#[tokio::test]
async fn http_at_a_port_of_tls_and_https_at_a_plain_one_say_so_at_once() {
    let (_, _, tls) = tls_door().await;
    let plain = Fake::start(|_, _| answer(200, &me())).await;
    let home = tempfile::tempdir().expect("a folder");
    let started = std::time::Instant::now();
    for (url, hint) in [
        (tls.replace("https:", "http:"), "this port speaks TLS: give its address with https://"),
        (plain.url.replace("http:", "https:"), "this port speaks plain HTTP: give its address with http://"),
    ] {
        for command in [&["whoami", "--url", &url, "--token", "mst1_x"][..], &["login", &url, "--token", "mst1_x"]] {
            let done = Done::of(bare(home.path(), command).output().await.expect("muster runs"));
            assert_eq!(done.code, Some(1), "{command:?}: {done:?}");
            assert!(done.err.contains(hint), "{command:?}: {}", done.err);
        }
    }
    assert!(started.elapsed() < std::time::Duration::from_secs(10), "nothing is tried again");
}
