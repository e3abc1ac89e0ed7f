//! The controller gets an older copy of its whole data folder, while nodes run instances that it does not know then.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use muster_api::{
    found::FoundInstance,
    instance::{Instance, InstanceState},
    node::{Node, NodeState},
    pool::Pool,
    snapshot::SnapshotMember,
};
use muster_tests::{Cluster, ClusterOptions, Pattern, eventually};
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(90);

fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp runs");
    assert!(status.success(), "{from:?} is copied to {to:?}");
}

fn write(path: &Path, text: &[u8], offset: u64) {
    let file = File::options().write(true).open(path).expect("the disk opens");
    file.write_all_at(text, offset).expect("writes");
    file.sync_all().expect("syncs");
}

fn path(instance: &Instance) -> PathBuf {
    instance.disks[0].path.clone().expect("operators see paths").into()
}

async fn node_named(cluster: &Cluster, name: &str) -> Option<Node> {
    cluster.api.list::<Node>("/v1/nodes").await.into_iter().find(|node| node.name == name)
}

async fn found(cluster: &Cluster, count: usize) -> Vec<FoundInstance> {
    eventually("the found instances", LIMIT, async || {
        let found = cluster.api.list::<FoundInstance>("/v1/found-instances").await;
        if found.len() == count { Ok(found) } else { Err(format!("{found:#?}\n{}", cluster.logs())) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_that_an_older_database_lacks_are_found_and_taken_back_with_their_bytes() {
    let mut cluster = Cluster::start(ClusterOptions::files(2).as_processes()).await;
    let image = Pattern::striped(5, 4 * MIB, 200_000, MIB);
    let file = cluster.dir.join("image.raw");
    image.write(&file);
    cluster.api.import("base", &file).await;
    cluster.api.deploy_files("old", "base", 1).await;
    cluster.kill_controller();
    let kept = cluster.dir.join("controller-kept");
    copy(&cluster.controller_dir(), &kept);
    cluster.start_controller().await;

    // A node joins after the copy, and gets objects and an instance.
    let late = cluster.add_agent().await;
    cluster.all_ready().await;
    let id_of_late = node_named(&cluster, "node-2").await.expect("it is listed").id;

    // Two instances are made after the copy, written to, cut, and written to again. A third one is given up later.
    let web = cluster.api.deploy_files("web", "base", 2).await;
    let given_up = cluster.api.deploy_files("given-up", "base", 1).await;
    let mut bytes = image.bytes(0, 4 * MIB);
    let mut change = |offset: usize, text: &[u8]| {
        bytes[offset..offset + text.len()].copy_from_slice(text);
        write(&path(&web[0]), text, offset as u64);
    };
    change(1_000_000, b"before the cut");
    cluster.api.done("/v1/snapshots", json!({ "name": "s1", "select": { "deployment": "web" } }), LIMIT).await;
    change(2_000_000, b"after the cut");

    let before = cluster.api.get("/v1/pools/default").await.ok::<Pool>().membership_epoch;
    cluster.kill_controller();
    fs::rename(cluster.controller_dir(), cluster.dir.join("controller-newer")).expect("puts it aside");
    fs::rename(&kept, cluster.controller_dir()).expect("puts the copy in place");
    cluster.start_controller().await;

    // The late node is not known, and says what to do. With a new token it is the same node again.
    let told = eventually("the node to say that it is not listed", LIMIT, async || {
        let status = muster_agent::status::ask(&cluster.agent_dir(late)).map_err(|error| error.to_string())?;
        let status: Value = serde_json::from_str(&status).map_err(|error| error.to_string())?;
        status["unlisted"].as_str().map(str::to_owned).ok_or_else(|| status.to_string())
    })
    .await;
    assert!(told.contains("muster token create --role node"), "{told}");
    assert!(node_named(&cluster, "node-2").await.is_none());
    cluster.new_join_token(late).await;
    let again = eventually("the node to be listed again", LIMIT, async || match node_named(&cluster, "node-2").await {
        Some(node) if node.state == NodeState::Ready => Ok(node.id),
        other => Err(format!("{other:?}\n{}", cluster.logs())),
    })
    .await;
    assert_eq!(again, id_of_late);
    // The nodes work with a membership record of the new history.
    let epoch = async || cluster.api.get("/v1/pools/default").await.ok::<Pool>().membership_epoch;
    eventually("the nodes to repair under the new record", LIMIT, async || {
        let (newest, nodes) = (epoch().await, cluster.api.list::<Node>("/v1/nodes").await);
        let under = |node: &Node| node.repair.is_some_and(|repair| repair.is_done(newest));
        if newest > before && nodes.iter().all(under) { Ok(()) } else { Err(format!("{before} {newest} {nodes:#?}")) }
    })
    .await;
    let held = found(&cluster, 3).await;
    let mut names: Vec<_> = held.iter().filter_map(|one| one.name.clone()).collect();
    names.sort();
    assert_eq!(names, ["given-up.0", "web.0", "web.1"]);
    assert!(held.iter().all(|one| one.state == InstanceState::Running), "{held:#?}");
    assert!(cluster.api.get("/v1/summary").await.ok::<Value>().to_string().contains("instances_found"));
    // Nobody touched them.
    assert!(fs::read(path(&web[0])).expect("reads") == bytes, "the bytes of web.0");
    image.check(0, &fs::read(path(&given_up[0])).expect("reads"));

    for one in held.iter().filter(|one| one.name.as_ref().is_some_and(|name| name.starts_with("web"))) {
        let taken: Instance = cluster.api.post(&format!("/v1/found-instances/{}/take", one.id), json!({})).await.ok();
        assert_eq!((taken.id, Some(&taken.name)), (one.id, one.name.as_ref()));
    }
    let back = eventually("the members to be ready", LIMIT, async || {
        let back = cluster.api.instances("web").await;
        let ready = back.iter().filter(|one| one.state == InstanceState::Running && one.ready_at.is_some()).count();
        if ready == 2 { Ok(back) } else { Err(format!("{back:#?}\n{}", cluster.logs())) }
    })
    .await;
    assert_eq!((back[0].id, path(&back[0])), (web[0].id, path(&web[0])));
    assert!(fs::read(path(&web[0])).expect("reads") == bytes, "the bytes of web.0");
    // It is an instance as any other: written to, cut, its version read back.
    write(&path(&web[0]), b"taken back", 3_000_000);
    bytes[3_000_000..3_000_010].copy_from_slice(b"taken back");
    cluster.api.done("/v1/snapshots", json!({ "name": "s2", "select": { "deployment": "web" } }), LIMIT).await;
    let members = cluster.api.list::<SnapshotMember>("/v1/snapshots/s2/members").await;
    let member = members.iter().find(|member| member.instance == web[0].id).expect("web.0 is a member");
    let version = member.version.expect("it is published").to_string();
    assert!(cluster.api.content(&version).await == bytes, "the bytes of its version");

    // The third goes only because somebody says so.
    let left = found(&cluster, 1).await;
    assert!(path(&given_up[0]).exists());
    let forget = format!("/v1/found-instances/{}/forget", left[0].id);
    let going: FoundInstance = cluster.api.post(&forget, json!({ "confirm": true })).await.ok();
    assert_eq!(going.state, InstanceState::Deleting);
    found(&cluster, 0).await;
    assert!(!path(&given_up[0]).exists(), "its disk is deleted");
}
