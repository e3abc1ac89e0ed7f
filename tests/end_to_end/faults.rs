//! What must still be true when a process dies or never answers.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use muster_api::{
    deployment::Deployment,
    instance::{Instance, InstanceState},
    node::{Salvage, SalvageState},
    operation::Operation,
    snapshot::{Snapshot, SnapshotMember, SnapshotState},
};
use muster_tests::{Cluster, ClusterOptions, Pattern, eventually};
use reqwest::Method;
use serde_json::json;

const MIB: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(90);

async fn with_image(options: ClusterOptions, size: u64) -> (Cluster, Pattern) {
    let cluster = Cluster::start(options).await;
    let image = Pattern::striped(11, size, 200_000, MIB);
    let file = cluster.dir.join("image.raw");
    image.write(&file);
    cluster.api.import("base", &file).await;
    (cluster, image)
}

fn files(name: &str, count: u64) -> serde_json::Value {
    json!({ "name": name, "source": { "image": "base" }, "count": count, "runtime": "none" })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_controller_finishes_the_deployment_after_its_restart() {
    let (mut cluster, image) = with_image(ClusterOptions::files(3).as_processes(), 4 * MIB).await;
    let operation: Operation = cluster.api.post("/v1/deployments", files("web", 60)).await.ok();
    cluster.kill_controller();
    cluster.start_controller().await;
    let ended = cluster.api.wait(&operation.id.to_string(), LIMIT).await;
    assert_eq!(ended.state, muster_api::operation::OperationState::Succeeded, "{ended:?}");
    let members = cluster.api.instances("web").await;
    assert_eq!(members.iter().filter(|m| m.state == InstanceState::Running).count(), 60);
    image.check(0, &fs::read(members[59].disks[0].path.clone().expect("a path")).expect("read"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_controller_ends_the_snapshot_after_its_restart() {
    let (mut cluster, _) = with_image(ClusterOptions::files(3).as_processes(), 48 * MIB).await;
    let disks = cluster.api.deploy_files("web", "base", 3).await;
    // Each round kills the controller later: when the snapshot was accepted, when the disks were cut, when one member
    // is durable.
    type Level = fn(&Snapshot, &Operation) -> bool;
    let levels: [Level; 3] = [|_, _| true, |s, _| s.cut_at.is_some(), |_, o| o.progress.done > 0];
    for (round, reached) in levels.into_iter().enumerate() {
        // The first member is durable long before the others.
        for (disk, length) in disks.iter().zip([4096, 40 * MIB, 40 * MIB]) {
            let file = File::options().write(true).open(disk.disks[0].path.clone().expect("a path")).expect("open");
            let changes = Pattern { seed: 100 * round as u64 + disk.number, size: length, data: vec![(0, length)] };
            file.write_all_at(&changes.bytes(0, length), MIB).expect("write");
        }
        let body = json!({ "name": format!("s{round}"), "select": { "deployment": "web" } });
        let operation: Operation = cluster.api.post("/v1/snapshots", body).await.ok();
        let killed_at = eventually("far enough to be killed", LIMIT, async || {
            let operation: Operation = cluster.api.get(&format!("/v1/operations/{}", operation.id)).await.ok();
            let snapshot = cluster.api.snapshot(&format!("s{round}")).await;
            let enough = reached(&snapshot, &operation) || operation.state.is_final();
            let seen = format!("{:?}, {:?}", snapshot.state, operation.progress);
            if enough { Ok(seen) } else { Err(seen) }
        })
        .await;
        cluster.kill_controller();
        cluster.start_controller().await;
        let ended = cluster.api.wait(&operation.id.to_string(), LIMIT).await;
        assert!(ended.state.is_final(), "killed at {killed_at}: {ended:?}");
        // All or nothing, and the disks can be cut again.
        let snapshot = cluster.api.snapshot(&format!("s{round}")).await;
        let versions = cluster
            .api
            .list::<SnapshotMember>(&format!("/v1/snapshots/s{round}/members"))
            .await
            .iter()
            .filter(|m| m.version.is_some())
            .count();
        let whole = if snapshot.state == SnapshotState::Ready { 3 } else { 0 };
        assert_eq!(versions, whole, "killed at {killed_at}: {snapshot:?}");
        println!("killed at {killed_at}, then {:?}", snapshot.state);
    }
    cluster.api.done("/v1/snapshots", json!({ "name": "last", "select": { "deployment": "web" } }), LIMIT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_go_to_the_other_copy_when_a_node_is_gone() {
    let (mut cluster, image) = with_image(ClusterOptions::files(3).as_processes(), 32 * MIB).await;
    let mut body = files("web", 4);
    body["placement"] = json!({ "nodes": ["node-0", "node-1"] });
    let operation: Operation = cluster.api.post("/v1/deployments", body).await.ok();
    cluster.kill_agent(2);
    let ended = cluster.api.wait(&operation.id.to_string(), LIMIT).await;
    assert_eq!(ended.state, muster_api::operation::OperationState::Succeeded, "{ended:?}");
    for member in cluster.api.instances("web").await {
        image.check(0, &fs::read(member.disks[0].path.clone().expect("a path")).expect("read"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_never_answers_does_not_delay_the_others() {
    let (cluster, image) = with_image(ClusterOptions::files(3).as_processes(), 8 * MIB).await;
    cluster.freeze_agent(2);
    let begun = Instant::now();
    let _: Operation = cluster.api.post("/v1/deployments", files("web", 9)).await.ok();
    eventually("the other nodes' members", Duration::from_secs(15), async || {
        let members = cluster.api.instances("web").await;
        let running = members.iter().filter(|m| m.state == InstanceState::Running).count();
        if running >= 6 { Ok(()) } else { Err(format!("{running} of 6 after {:?}", begun.elapsed())) }
    })
    .await;
    let members = cluster.api.instances("web").await;
    let answering = members.iter().filter(|m| m.state == InstanceState::Running);
    for member in answering {
        image.check(0, &fs::read(member.disks[0].path.clone().expect("a path")).expect("read"));
    }
    cluster.thaw_agent(2);
    eventually("all members", LIMIT, async || {
        let ready = cluster.api.deployment("web").await.ready;
        if ready == 9 { Ok(()) } else { Err(format!("{ready} of 9")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_sent_ten_times_while_the_controller_dies_makes_one_deployment() {
    let (mut cluster, _) = with_image(ClusterOptions::files(2).as_processes(), MIB).await;
    let stop = Arc::new(AtomicBool::new(false));
    let senders: Vec<_> = (0..10)
        .map(|_| {
            let (api, stop) = (cluster.api.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                loop {
                    let request = api.request(Method::POST, "/v1/deployments").header("Idempotency-Key", "one-key");
                    match api.try_send(request.json(&files("web", 2))).await {
                        Ok(answer) if answer.status == 202 => return answer.ok::<Operation>().id,
                        Ok(answer) if answer.status >= 500 => drop(answer),
                        Ok(other) => panic!("{other:?}"),
                        Err(broken) => drop(broken),
                    }
                    assert!(!stop.load(Ordering::Relaxed), "no answer in time");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            })
        })
        .collect();
    cluster.kill_controller();
    cluster.start_controller().await;
    let ids = tokio::time::timeout(Duration::from_secs(60), futures::future::join_all(senders)).await;
    stop.store(true, Ordering::Relaxed);
    let ids: Vec<_> = ids.expect("all answered").into_iter().map(|id| id.expect("no panic")).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(cluster.api.list::<Deployment>("/v1/deployments").await.len(), 1);
    cluster.api.wait(&ids[0].to_string(), LIMIT).await;
    assert_eq!(cluster.api.instances("web").await.len(), 2);
}

/// The agent is killed while a writer writes. After the restart every write that was acknowledged is on the disk.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agent_loses_no_acknowledged_write() {
    let (mut cluster, image) = with_image(ClusterOptions::files(1).as_processes(), 32 * MIB).await;
    let disk = cluster.api.deploy_files("web", "base", 1).await.remove(0);
    let path = disk.disks[0].path.clone().expect("a path");
    let mut wanted = image.bytes(0, image.size);
    for round in 0..4_u64 {
        let file = File::options().read(true).write(true).open(&path).expect("open");
        let (written, ready) = std::sync::mpsc::channel();
        let size = image.size;
        let writer = std::thread::spawn(move || {
            let mut acknowledged = Vec::new();
            for step in 0_u64.. {
                let at = (round * 1_000_003 + step * 7_919) * 517 % (size - 9000);
                let data = vec![(step % 250 + 1) as u8; 1 + (step as usize * 389) % 9000];
                if file.write_all_at(&data, at).is_err() {
                    // This write was not acknowledged: its range may have old bytes or new ones.
                    return (acknowledged, at, data);
                }
                acknowledged.push((at, data));
                if step == 300 {
                    written.send(()).expect("the test waits");
                }
            }
            unreachable!("the writer ends with an error")
        });
        ready.recv().expect("the writer got there");
        cluster.kill_agent(0);
        let (acknowledged, torn_at, torn) = writer.join().expect("the writer");
        assert!(acknowledged.len() > 300);
        for (at, data) in acknowledged {
            wanted[at as usize..][..data.len()].copy_from_slice(&data);
        }
        cluster.start_agent(0);
        let got = eventually("the disk is back", Duration::from_secs(30), async || {
            fs::read(&path).map_err(|e| e.to_string()).and_then(|got| {
                if got.len() as u64 == image.size { Ok(got) } else { Err(format!("{} bytes", got.len())) }
            })
        })
        .await;
        // Each byte of the write that was under way is the old or the new one.
        for (n, byte) in torn.iter().enumerate() {
            let at = torn_at as usize + n;
            assert!(got[at] == *byte || got[at] == wanted[at], "byte {at}: neither old nor new");
            wanted[at] = got[at];
        }
        if let Some(at) = got.iter().zip(&wanted).position(|(a, b)| a != b) {
            panic!("round {round}: byte {at} was acknowledged as {:#04x} and is {:#04x}", wanted[at], got[at]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_and_the_events_after_it_miss_nothing() {
    let (cluster, _) = with_image(ClusterOptions::files(2), MIB).await;
    let api = cluster.api.clone();
    let load = tokio::spawn(async move {
        for n in 0..12 {
            let _: Operation = api.post("/v1/deployments", files(&format!("d{n}"), 3)).await.ok();
        }
    });
    let page: muster_api::Page<Deployment> = cluster.api.get("/v1/deployments?limit=1000").await.ok();
    let mut known: std::collections::BTreeSet<String> = page.items.iter().map(|d| d.name.clone()).collect();
    let mut stream = cluster
        .api
        .request(Method::GET, &format!("/v1/events?after={}", page.as_of))
        .send()
        .await
        .expect("the event stream");
    assert_eq!(stream.status().as_u16(), 200);
    let mut text = String::new();
    let until = Instant::now() + Duration::from_secs(60);
    while known.len() < 12 {
        let left = until.saturating_duration_since(Instant::now());
        let chunk = tokio::time::timeout(left, stream.chunk()).await.expect("in time").expect("a whole stream");
        text.push_str(&String::from_utf8_lossy(&chunk.expect("the stream goes on")));
        while let Some(end) = text.find("\n\n") {
            let block: String = text.drain(..end + 2).collect();
            let data: String = block.lines().filter_map(|l| l.strip_prefix("data:")).collect();
            if let Ok(event) = serde_json::from_str::<muster_api::event::Event>(data.trim())
                && event.target.kind == "deployment"
            {
                known.insert(event.target.name.clone());
            }
        }
    }
    load.await.expect("the load");
    let all: std::collections::BTreeSet<String> =
        cluster.api.list::<Deployment>("/v1/deployments").await.into_iter().map(|d| d.name).collect();
    assert_eq!(known, all);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_declared_dead_and_returns_serves_nothing_and_saves_what_its_disks_hold() {
    let (mut cluster, image) = with_image(ClusterOptions::files(3).as_processes(), 8 * MIB).await;
    let members = cluster.api.deploy_files("web", "base", 6).await;
    let lost: Vec<_> = members.iter().filter(|m| m.node_name.as_deref() == Some("node-2")).collect();
    assert_eq!(lost.len(), 2, "{members:#?}");
    let path = lost[0].disks[0].path.clone().expect("a path");
    let file = File::options().write(true).open(&path).expect("open");
    file.write_all_at(&[9; 4096], 0).expect("written");
    file.sync_all().expect("flushed");
    drop(file);
    cluster.kill_agent(2);
    let fenced: serde_json::Value = cluster.api.post("/v1/nodes/node-2/fence", json!({ "confirm": true })).await.ok();
    assert_eq!(fenced["state"], "fenced");
    // One is recovered at once: what was written there and never saved is given up, it begins as it was deployed.
    let recover = json!({ "select": { "instances": [lost[1].name] }, "accept_loss": true });
    cluster.api.done("/v1/instances/-/recover", recover, LIMIT).await;
    let recovered: Instance = cluster.api.get(&format!("/v1/instances/{}", lost[1].name)).await.ok();
    assert_ne!(recovered.node_name.as_deref(), Some("node-2"));
    image.check(0, &fs::read(recovered.disks[0].path.clone().expect("a path")).expect("read"));

    cluster.start_agent(2);
    let folder = cluster.dir.join("node-2");
    eventually("the node to learn it", Duration::from_secs(30), async || {
        if folder.join("fenced.json").exists() { Ok(()) } else { Err(cluster.logs()) }
    })
    .await;
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    assert!(!mounts.contains(&folder.display().to_string()), "{mounts}");
    for member in &lost {
        assert!(folder.join("disks").join(member.disks[0].id.to_string()).join("meta.json").exists());
    }
    eventually("the disks to be saved", Duration::from_secs(30), async || {
        let salvage = cluster.api.list::<Salvage>("/v1/nodes/node-2/salvage").await;
        let saved = salvage.iter().all(|disk| disk.state == SalvageState::Saved);
        if saved { Ok(()) } else { Err(format!("{salvage:#?}")) }
    })
    .await;
    assert_eq!(cluster.api.delete("/v1/nodes/node-2").await.status, 204);
    // The other one waited, and nothing is given up.
    let recover = json!({ "select": { "instances": [lost[0].name] } });
    cluster.api.done("/v1/instances/-/recover", recover, LIMIT).await;
    let recovered: Instance = cluster.api.get(&format!("/v1/instances/{}", lost[0].name)).await.ok();
    assert_ne!(recovered.node_name.as_deref(), Some("node-2"));
    let content = fs::read(recovered.disks[0].path.clone().expect("a path")).expect("read");
    assert_eq!(content[..4096], [9; 4096]);
    image.check(4096, &content[4096..]);
}
