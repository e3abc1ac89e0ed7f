//! Disks come, grow and go while guests run, and their data goes with them from node to node.

use std::{path::PathBuf, time::Duration};

use muster_api::instance::Instance;
use muster_tests::{Api, Cluster, ClusterOptions, eventually, guest};
use reqwest::Method;
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(120);

/// Runs a command in a guest. It finds the name of the disk's device in `$d`.
async fn with_device(instance: &Instance, disk: &str, script: &str) -> Result<String, String> {
    let root: PathBuf = instance.disks[0].path.clone().expect("operators see the path").into();
    let serial = disk.replace('-', "").split_off(12);
    let script =
        format!("d=$(grep -lx {serial} /sys/block/*/serial) && d=${{d#/sys/block/}} && d=${{d%/serial}} && {script}");
    let done = tokio::task::spawn_blocking(move || guest::run(&guest::domain_of(&root)?, &script)).await;
    done.expect("no panic")
}

/// Waits until a disk has this state.
async fn reaches(api: &Api, disk: &str, state: &str) -> Value {
    eventually(&format!("disk {disk} to be {state}"), LIMIT, async || {
        let now: Value = api.get(&format!("/v1/disks/{disk}")).await.ok();
        if now["state"] == state { Ok(now) } else { Err(now.to_string()) }
    })
    .await
}

/// Goal: a guest that runs gets a blank disk, writes to it, sees it grow, writes to the new part and loses it; a guest on
/// another node gets it and has every byte; then it is deleted and nothing of it is left. Method: the API as a tenant uses
/// it, and guests that look at their own devices. No guest is started again meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_goes_from_guest_to_guest_with_all_that_was_written_to_it() {
    let cluster = Cluster::start(ClusterOptions::guests(2)).await;
    let api = &cluster.api;
    api.import("demo", &guest::demo_image()).await;
    let body = json!({ "name": "web", "source": { "image": "demo" }, "count": 2, "memory_bytes": 192_u64 << 20 });
    let members = cluster.deploy_guests(body).await;
    let (first, second) = (&members[0], &members[1]);
    assert_ne!(first.node, second.node, "spread");
    let has_size = async |instance: &Instance, disk: &str, mib: u64| {
        let look = format!("[ $(cat /sys/block/$d/size) = {} ]", mib * MIB / 512);
        eventually("the guest sees its size", LIMIT, async || match with_device(instance, disk, &look).await {
            Ok(_) => Ok(()),
            Err(error) => {
                let now: Value = api.get(&format!("/v1/instances/{}", instance.id)).await.ok();
                Err(format!("{error}; its instance says {}: {}", now["reason"], now["detail"]))
            }
        })
        .await;
    };

    let body = json!({ "name": "data", "size_bytes": 64 * MIB });
    let made: Value = api.post(&format!("/v1/instances/{}/disks", first.id), body).await.ok();
    let disk = made["id"].as_str().expect("an id").to_owned();
    reaches(api, &disk, "attached").await;
    has_size(first, &disk, 64).await;
    with_device(first, &disk, "echo written at first | dd of=/dev/$d conv=fsync").await.expect("it writes");

    let larger = api.request(Method::PATCH, &format!("/v1/disks/{disk}")).json(&json!({ "size_bytes": 128 * MIB }));
    let growing: Value = api.send(larger).await.ok();
    assert_eq!(growing["size_bytes"], json!(128 * MIB), "{growing}");
    reaches(api, &disk, "attached").await;
    has_size(first, &disk, 128).await;
    // Without a sync: what it wrote is acknowledged, and that is enough.
    let at_the_end = "echo written at last | dd of=/dev/$d bs=1M seek=127 oflag=direct conv=sync";
    with_device(first, &disk, at_the_end).await.expect("it writes to the new part");

    drop(api.delete(&format!("/v1/disks/{disk}")).await.problem(409, "disk_attached"));
    let detaching: Value = api.post(&format!("/v1/disks/{disk}/detach"), json!({})).await.ok();
    assert_eq!(detaching["id"], disk.as_str());
    let detached = reaches(api, &disk, "detached").await;
    assert_eq!(detached["instance"], Value::Null, "{detached}");
    with_device(first, &disk, "true").await.expect_err("the guest has it no more");
    let nodes: Vec<PathBuf> = cluster.agents.iter().map(|agent| agent.dir.join("disks").join(&disk)).collect();
    eventually("its node to remove its copy", LIMIT, async || {
        let left: Vec<_> = nodes.iter().filter(|folder| folder.exists()).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;

    let attach = format!("/v1/instances/{}/disks", second.id);
    eventually("the disk can be attached", LIMIT, async || {
        let answer = api.post(&attach, json!({ "disk": disk })).await;
        if answer.status == 201 { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
    reaches(api, &disk, "attached").await;
    has_size(second, &disk, 128).await;
    let read = "dd if=/dev/$d bs=16 count=1 2>/dev/null; dd if=/dev/$d bs=1M skip=127 count=1 2>/dev/null | head -c 15";
    let seen = with_device(second, &disk, read).await.expect("it reads");
    assert_eq!(seen, "written at first".to_owned() + "written at last", "all that the other guest wrote");

    let _: Value = api.post(&format!("/v1/disks/{disk}/detach"), json!({})).await.ok();
    reaches(api, &disk, "detached").await;
    assert!(api.delete(&format!("/v1/disks/{disk}")).await.status < 300);
    drop(api.get(&format!("/v1/disks/{disk}")).await.problem(404, "not_found"));
    let now = api.instances("web").await;
    for (before, now) in members.iter().zip(now) {
        assert_eq!(
            (now.steps.started_at, now.disks.len()),
            (before.steps.started_at, 1),
            "it ran all the while: {now:?}"
        );
    }
}
