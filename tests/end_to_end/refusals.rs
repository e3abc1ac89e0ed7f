//! Bad input is refused with a clear error and changes nothing.

use std::process::{Command, Stdio};

use muster_tests::{Cluster, ClusterOptions, Pattern, binary};
use reqwest::Method;
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_do_not_fit_are_refused_by_name() {
    let cluster = Cluster::start(ClusterOptions::files(2)).await;
    let api = &cluster.api;
    let file = cluster.dir.join("image.raw");
    Pattern::striped(21, MIB, 4096, MIB).write(&file);
    api.import("base", &file).await;
    let deploy = async |change: Value| {
        let mut body = json!({ "source": { "image": "base" }, "count": 1, "runtime": "none" });
        for (key, value) in change.as_object().expect("an object") {
            body[key] = value.clone();
        }
        api.post("/v1/deployments", body).await
    };
    for count in [0, -1, 1_000_000] {
        let problem = deploy(json!({ "count": count })).await.problem(422, "invalid");
        assert_eq!(problem.errors[0].pointer, "/count", "{problem:?}");
    }
    let problem = deploy(json!({ "source": { "image": "nobody" } })).await.problem(404, "not_found");
    assert_eq!(problem.errors[0].pointer, "/source/image", "{problem:?}");
    let problem = deploy(json!({ "colour": "red" })).await.problem(422, "invalid");
    assert!(problem.errors[0].pointer.contains("colour"), "{problem:?}");
    let problem = deploy(json!({ "user_data": "x" })).await.problem(422, "invalid");
    assert_eq!(problem.errors[0].pointer, "/user_data", "{problem:?}");
    drop(deploy(json!({ "on_node_loss": "restart" })).await.problem(501, "not_built_yet"));
    // No node here offers libvirt, so nothing fits with runtime libvirt. The answer counts the reasons.
    let problem =
        deploy(json!({ "runtime": "libvirt", "memory_bytes": 1_u64 << 44 })).await.problem(507, "no_capacity");
    assert_eq!(problem.more["reasons"][0]["count"], json!(2), "{problem:?}");

    let not_json = api.request(Method::POST, "/v1/deployments").header("content-type", "application/json").body("{");
    drop(api.send(not_json).await.problem(400, "not_json"));
    drop(api.post("/v1/images", json!({ "name": "base" })).await.problem(409, "name_taken"));
    let keyed = |body: Value| api.request(Method::POST, "/v1/images").header("Idempotency-Key", "k").json(&body);
    let first: Value = api.send(keyed(json!({ "name": "one" }))).await.ok();
    let again: Value = api.send(keyed(json!({ "name": "one" }))).await.ok();
    assert_eq!(first["id"], again["id"]);
    drop(api.send(keyed(json!({ "name": "two" }))).await.problem(422, "key_reused"));

    for token in ["", "nonsense", "mst1_00000000000000000000000000000000_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
        drop(api.with_token(token).get("/v1/images").await.problem(401, "unauthenticated"));
    }
    let other: Value = api.post("/v1/tokens", json!({ "role": "tenant", "project": "other" })).await.ok();
    let stranger = api.with_token(other["token"].as_str().expect("a token"));
    drop(stranger.get("/v1/images/base").await.problem(404, "not_found"));
    drop(stranger.get("/v1/nodes").await.problem(403, "forbidden"));
    drop(api.get("/v1/nothing").await.problem(404, "no_such_path"));
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_is_no_image_leaves_no_version() {
    let cluster = Cluster::start(ClusterOptions::files(2)).await;
    let api = &cluster.api;
    let _: Value = api.post("/v1/images", json!({ "name": "bad" })).await.ok();
    let dir = &cluster.dir;
    let qemu_img = |arguments: &[&str]| {
        let done = Command::new("qemu-img").args(arguments).current_dir(dir).stdout(Stdio::null()).status();
        assert!(done.expect("run qemu-img").success(), "{arguments:?}");
    };
    qemu_img(&["create", "-q", "-f", "raw", "base.raw", "4M"]);
    qemu_img(&["create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", "backed.qcow2"]);
    qemu_img(&["create", "-q", "-f", "qcow2", "whole.qcow2", "4M"]);
    let whole = std::fs::read(dir.join("whole.qcow2")).expect("read");
    let put = async |query: &str, body: Vec<u8>| {
        api.send(api.request(Method::PUT, &format!("/v1/images/bad/content{query}")).body(body)).await
    };
    let backed = std::fs::read(dir.join("backed.qcow2")).expect("read");
    drop(put("", backed).await.problem(422, "bad_image"));
    drop(put("", whole[..100].to_vec()).await.problem(422, "bad_image"));
    drop(put("?format=qcow2", vec![7; 8192]).await.problem(422, "bad_image"));
    drop(put("", Vec::new()).await.problem(422, "bad_image"));
    let zeros = "0".repeat(64);
    drop(put(&format!("?sha256={zeros}"), vec![7; 8192]).await.problem(422, "digest_mismatch"));
    let image: Value = api.get("/v1/images/bad").await.ok();
    assert_eq!((image["state"].clone(), image["version_count"].clone()), (json!("empty"), json!(0)));
    // And the same image takes good content afterwards.
    let version: Value = put("", vec![7; 8192]).await.ok();
    assert_eq!(version["size_bytes"], json!(8192));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_broken_off_half_way_can_be_repeated() {
    let cluster = Cluster::start(ClusterOptions::files(2)).await;
    let api = &cluster.api;
    let _: Value = api.post("/v1/images", json!({ "name": "big" })).await.ok();
    let image = Pattern::striped(22, 16 * MIB, MIB, 2 * MIB);
    let broken = futures::stream::iter([Ok(image.bytes(0, 5 * MIB)), Err(std::io::Error::other("the cable"))]);
    let put = api.request(Method::PUT, "/v1/images/big/content").body(reqwest::Body::wrap_stream(broken));
    assert!(api.try_send(put).await.map_or(true, |answer| answer.status >= 400), "half an image was taken");
    muster_tests::eventually("the image takes content again", std::time::Duration::from_secs(20), async || {
        let put = api.request(Method::PUT, "/v1/images/big/content").body(image.bytes(0, image.size));
        let answer = api.send(put).await;
        if answer.status == 201 { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
    let now: Value = api.get("/v1/images/big").await.ok();
    assert_eq!(now["version_count"], json!(1));
    let got = api.content(now["newest_version"].as_str().expect("a version")).await;
    image.check(0, &got);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_agent_with_the_name_or_of_another_cluster_is_refused() {
    let cluster = Cluster::start(ClusterOptions::files(1)).await;
    let other = Cluster::start(ClusterOptions::files(1)).await;
    let token = |cluster: &Cluster| {
        let api = cluster.api.clone();
        async move {
            api.post("/v1/tokens", json!({ "role": "node" })).await.ok::<Value>()["token"]
                .as_str()
                .expect("a token")
                .to_owned()
        }
    };
    let join = |dir: std::path::PathBuf, url: String, token: String, name: &str| {
        let mut command = Command::new(binary("muster-agent"));
        command.args(["run", "--listen", "127.0.0.1:0", "--runtime", "none", "--keep-free", "0", "--name", name]);
        command.arg("--data-dir").arg(dir).arg("--controller").arg(url).arg("--join-token").arg(token);
        let done = command.stdin(Stdio::null()).output().expect("run the agent");
        (
            done.status.code(),
            String::from_utf8_lossy(&done.stderr).into_owned() + &String::from_utf8_lossy(&done.stdout),
        )
    };
    let (mine, theirs) = (token(&cluster).await, token(&other).await);
    let (code, text) = join(cluster.dir.join("twin"), cluster.api.url.clone(), mine, "node-0");
    assert!(code.is_some_and(|c| c != 0) && text.contains("node-0"), "{code:?} {text}");
    // A token of the other cluster names another CA.
    let (code, text) = join(cluster.dir.join("lost"), cluster.api.url.clone(), theirs, "node-7");
    assert!(code.is_some_and(|c| c != 0) && !text.is_empty(), "{code:?} {text}");
    let nodes = cluster.api.list::<muster_api::node::Node>("/v1/nodes").await;
    assert_eq!(nodes.len(), 1);
}
