//! A protected deployment loses no more with a host than what was written since its last scheduled snapshot.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    time::Duration,
};

use muster_api::{deployment::Deployment, instance::Instance, snapshot::Snapshot};
use muster_tests::{Cluster, ClusterOptions, Pattern, eventually};
use reqwest::Method;
use serde_json::json;

const MIB: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(120);

fn write(instance: &Instance, at: u64, bytes: &[u8]) {
    let path = instance.disks[0].path.as_ref().expect("operators see the path");
    let file = File::options().write(true).open(path).expect("open");
    file.write_all_at(bytes, at).expect("written");
    file.sync_all().expect("flushed");
}

/// Goal: what the last scheduled snapshot has is there after the loss of a host, byte for byte, and what was written later is
/// told. The first snapshot is due at once, because the deployment ran before it was protected.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_host_takes_nothing_that_was_saved_by_itself() {
    let mut cluster = Cluster::start(ClusterOptions::files(3).as_processes()).await;
    let image = Pattern::striped(47, 8 * MIB, 700_000, MIB);
    let file = cluster.dir.join("image.raw");
    image.write(&file);
    cluster.api.import("base", &file).await;
    let members = cluster.api.deploy_files("db", "base", 3).await;
    let lost = members.iter().find(|m| m.node_name.as_deref() == Some("node-2")).expect("one member on each node");
    let saved = Pattern::striped(48, 3 * MIB, 3 * MIB, 3 * MIB).bytes(0, 3 * MIB);
    write(lost, MIB, &saved);
    let instance = async |name: &str| cluster.api.get(&format!("/v1/instances/{name}")).await.ok::<Instance>();
    eventually("the node to tell what was written", LIMIT, async || {
        let seen = instance(&lost.name).await;
        if seen.unsaved_bytes >= 3 * MIB { Ok(()) } else { Err(format!("{seen:#?}")) }
    })
    .await;

    let protect = json!({ "protect": { "every": "5m", "keep": { "daily": 7 } } });
    let patched = cluster.api.send(cluster.api.request(Method::PATCH, "/v1/deployments/db").json(&protect)).await;
    let _: Deployment = patched.ok();
    let snapshot = eventually("a scheduled snapshot", LIMIT, async || {
        let protection = cluster.api.deployment("db").await.protection.expect("it is protected");
        protection.last_snapshot_name.clone().ok_or_else(|| format!("{protection:#?}\n{}", cluster.logs()))
    })
    .await;
    let snapshot: Snapshot = cluster.api.snapshot(&snapshot).await;
    assert!(snapshot.scheduled && snapshot.members == 3 && snapshot.skipped == 0, "{snapshot:#?}");
    eventually("nothing to be unsaved", LIMIT, async || {
        let seen = instance(&lost.name).await;
        if seen.unsaved_bytes == 0 && seen.saved_at.is_some() { Ok(()) } else { Err(format!("{seen:#?}")) }
    })
    .await;

    write(lost, 6 * MIB, &[9; 8192]);
    eventually("the node to tell what was written later", LIMIT, async || {
        let seen = instance(&lost.name).await;
        if seen.unsaved_bytes == 8192 { Ok(()) } else { Err(format!("{seen:#?}")) }
    })
    .await;
    let saved_at = instance(&lost.name).await.saved_at;
    cluster.kill_agent(2);
    let fenced: serde_json::Value = cluster.api.post("/v1/nodes/node-2/fence", json!({ "confirm": true })).await.ok();
    assert_eq!(fenced["state"], "fenced");
    let path = format!("/v1/instances/{}/recover", lost.name);
    let refused = cluster.api.post(&path, json!({})).await.problem(409, "data_loss");
    let loss = &refused.more["loss"][0];
    assert_eq!((&loss["saved_at"], &loss["unsaved_bytes"]), (&json!(saved_at), &json!(8192)), "{refused:?}");
    cluster.api.done(&path, json!({ "accept_loss": true }), LIMIT).await;
    let recovered: Instance = cluster.api.get(&format!("/v1/instances/{}", lost.name)).await.ok();
    assert_ne!(recovered.node_name.as_deref(), Some("node-2"));
    let content = fs::read(recovered.disks[0].path.clone().expect("a path")).expect("read");
    image.check(0, &content[..MIB as usize]);
    assert!(content[MIB as usize..4 * MIB as usize] == saved, "what the snapshot has");
    image.check(4 * MIB, &content[4 * MIB as usize..]);
}
