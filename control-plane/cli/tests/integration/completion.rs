//! What a shell offers at a Tab. fish asks in the simplest way: each line of the answer is a word, a tab, and its help.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::{
    fake::{Done, Fake, Seen, answer, bare, page, problem},
    things::{self, with},
};

/// The words that are offered for the last of these words.
async fn offered(mut command: tokio::process::Command, words: &[&str]) -> Vec<String> {
    command.arg("--").arg("muster").args(words).env("MUSTER_COMPLETE", "fish");
    let done = Done::of(command.output().await.expect("muster runs"));
    assert!(done.code == Some(0) && done.err.is_empty(), "{done:?}");
    assert!(!done.out.contains("mst1_"), "tokens are never shown: {done:?}");
    done.out.lines().map(|line| line.split('\t').next().unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn completion_offers_only_what_is_built() {
    let home = tempfile::tempdir().expect("a folder");
    let offers = async |words: &[&str]| offered(bare(home.path(), &[]), words).await;
    let nouns = offers(&[""]).await;
    assert!(nouns.contains(&"deployment".to_owned()) && nouns.contains(&"--url".to_owned()), "{nouns:?}");
    let verbs = offers(&["instance", ""]).await;
    assert!(verbs.contains(&"recover".to_owned()), "{verbs:?}");
    for (words, reserved) in
        [(&["pro"][..], "project"), (&["instance", "mig"], "migrate"), (&["deployment", "sh"], "shelve")]
    {
        assert!(!offers(words).await.contains(&reserved.to_owned()), "{reserved} is not built");
    }
    assert_eq!(offers(&["deploy", "web", "--runtime", "l"]).await, ["libvirt"]);
    assert_eq!(offers(&["deploy", "web", "--ssh"]).await, ["--ssh-key"]);
}

#[tokio::test]
async fn completion_offers_the_names_of_things() {
    let fake = Fake::start(|seen: &Seen, _| match seen.path.split(['?', '/']).nth(2) {
        Some("instances") => answer(200, &page(&[things::instance("web.0"), things::instance("web.1")], None)),
        Some("operations") => answer(200, &page(&[things::operation("running", 1)], None)),
        Some("disks") => answer(200, &page(&[things::disk()], None)),
        Some("nodes") => answer(200, &page(&[things::node("n1")], None)),
        _ => answer(200, &page(&[with(things::image("debian"), json!({})), things::image("alpine")], None)),
    })
    .await;
    let offers = async |words: &[&str]| offered(fake.muster(&[]), words).await;
    let without_options = |words: Vec<String>| words.into_iter().filter(|w| !w.starts_with('-')).collect::<Vec<_>>();
    assert_eq!(without_options(offers(&["instance", "stop", ""]).await), ["web.0", "web.1"]);
    assert_eq!(without_options(offers(&["instance", "stop", "web.0", "web.1", ""]).await), ["web.0", "web.1"]);
    assert_eq!(offers(&["deploy", "web", "--image", ""]).await, ["alpine", "debian"]);
    assert_eq!(offers(&["image", "rm", "al"]).await, ["alpine"]);
    assert_eq!(without_options(offers(&["node", "cordon", ""]).await), ["n1"]);
    assert_eq!(without_options(offers(&["node", "drain", ""]).await), ["n1"]);
    assert_eq!(without_options(offers(&["operation", "wait", ""]).await), [things::OPERATION_ID]);
    assert_eq!(without_options(offers(&["disk", "detach", ""]).await), ["web.0/data"]);
    offers(&["instance", "ls", "--project", "shop", "--node", ""]).await;
    assert_eq!(fake.lines().pop().as_deref(), Some("GET /v1/nodes?limit=1000&project=shop"), "the words typed count");
}

#[tokio::test]
async fn completion_is_silent_and_quick_where_no_names_can_be_had() {
    let silent = Fake::start(|_, _| {
        let never = futures::stream::pending::<Result<String, std::io::Error>>();
        axum::http::Response::new(axum::body::Body::from_stream(never))
    })
    .await;
    let refuses = Fake::start(|_, _| problem(401, "unauthenticated", "the token is unknown")).await;
    let started = Instant::now();
    for fake in [&silent, &refuses] {
        assert_eq!(offered(fake.muster(&[]), &["deploy", "x", "--image", ""]).await, Vec::<String>::new());
    }
    let home = tempfile::tempdir().expect("a folder");
    assert_eq!(offered(bare(home.path(), &[]), &["deploy", "x", "--image", ""]).await, Vec::<String>::new());
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

#[tokio::test]
async fn every_shell_gets_a_script_that_asks_this_program() {
    let home = tempfile::tempdir().expect("a folder");
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let done = Done::of(bare(home.path(), &["completion", shell]).output().await.expect("muster runs"));
        assert!(done.code == Some(0) && done.out.contains("MUSTER_COMPLETE"), "{shell}: {done:?}");
    }
}
