//! `/openapi.json` as others use it: linters find nothing in it, and clients that generators make of it work unpatched.
//! The programs that use the clients are in `tests/clients`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use muster_tests::{
    Cluster, ClusterOptions, Tools,
    tools::{CLIENTS, run},
};
use serde_json::Value;

/// A folder with the contract in `openapi.json`.
fn contract() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("openapi.json");
    let document = muster_controller::http::document().to_pretty_json().expect("the document is JSON");
    fs::write(&file, document).expect("write the contract");
    (folder, file)
}

fn settings(name: &str) -> PathBuf {
    Path::new(CLIENTS).join(name)
}

#[tokio::test]
async fn the_contract_is_valid_for_openapi_spec_validator() {
    let (_folder, file) = contract();
    let mut command = Tools::find().python("openapi_spec_validator");
    command.arg(file);
    run(command).await;
}

#[tokio::test]
async fn redocly_finds_nothing_in_the_contract() {
    let (_folder, file) = contract();
    let mut command = Tools::find().node("@redocly/cli/bin/cli.js");
    command.args(["lint", "--format", "json", "--config"]).arg(settings("redocly.yaml")).arg(file);
    let found: Value = serde_json::from_str(&run(command).await).expect("JSON");
    assert_eq!((&found["totals"]["errors"], &found["totals"]["warnings"]), (&0.into(), &0.into()), "{found:#}");
}

#[tokio::test]
async fn spectral_finds_nothing_in_the_contract() {
    let (_folder, file) = contract();
    let mut command = Tools::find().node("@stoplight/spectral-cli/dist/index.js");
    command.args(["lint", "--fail-severity", "hint", "--ruleset"]).arg(settings("spectral.yaml")).arg(file);
    run(command).await;
}

/// A cluster of one agent without guests, and the contract as its controller sends it.
async fn cluster() -> (Cluster, PathBuf) {
    let cluster = Cluster::start(ClusterOptions::files(1)).await;
    let document: Value = cluster.api.get("/openapi.json").await.ok();
    let file = cluster.dir.join("openapi.json");
    fs::write(&file, document.to_string()).expect("write the contract");
    (cluster, file)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_openapi_python_client_deploys_snapshots_and_deletes() {
    let (tools, (cluster, file)) = (Tools::find(), cluster().await);
    let clients = cluster.dir.join("clients");
    fs::create_dir(&clients).expect("a folder");
    let mut generate = tools.python("openapi_python_client");
    generate.args(["generate", "--fail-on-warning", "--meta", "none", "--path"]).arg(file);
    generate.arg("--output-path").arg(clients.join("muster_client"));
    run(generate).await;
    let mut tour = tools.python("tour");
    tour.env("PYTHONPATH", std::env::join_paths([tools.packages(), clients, CLIENTS.into()]).expect("folders"));
    tour.env("MUSTER_CA", cluster.controller_dir().join("ca.pem"));
    tour.env("MUSTER_URL", &cluster.api.url).env("MUSTER_TOKEN", &cluster.api.token);
    run(tour).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_openapi_typescript_deploys_snapshots_and_deletes() {
    let (tools, (cluster, file)) = (Tools::find(), cluster().await);
    let clients = cluster.dir.join("clients");
    fs::create_dir(&clients).expect("a folder");
    std::os::unix::fs::symlink(tools.modules(), clients.join("node_modules")).expect("a link");
    for name in ["package.json", "tsconfig.json", "tour.ts"] {
        fs::copy(settings(name), clients.join(name)).expect("copy the client");
    }
    let mut generate = tools.node("openapi-typescript/bin/cli.js");
    generate.arg(file).arg("--output").arg(clients.join("schema.ts"));
    run(generate).await;
    let mut compile = tools.node("typescript/bin/tsc");
    compile.arg("--project").arg(&clients);
    run(compile).await;
    let mut tour = tools.node(clients.join("built/tour.js"));
    tour.env("NODE_EXTRA_CA_CERTS", cluster.controller_dir().join("ca.pem"));
    tour.env("MUSTER_URL", &cluster.api.url).env("MUSTER_TOKEN", &cluster.api.token);
    run(tour).await;
}
