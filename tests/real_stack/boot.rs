//! Guests boot from lazily mirrored disks, are snapshotted while they write, and can be started again after their agent
//! was killed.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use muster_api::{
    Reason,
    guest::Executed,
    instance::{Instance, InstanceState},
};
use muster_tests::{Cluster, ClusterOptions, Console, eventually, eventually_for_guests, guest};
use serde_json::{Value, json};

fn disk(instance: &Instance) -> PathBuf {
    instance.disks[0].path.clone().expect("operators see the path").into()
}

async fn run(instance: &Instance, script: &str) -> Result<String, String> {
    let (path, script) = (disk(instance), script.to_owned());
    let done = tokio::task::spawn_blocking(move || guest::run(&guest::domain_of(&path)?, &script)).await;
    done.expect("no panic")
}

async fn guests(count: u64) -> (Cluster, Vec<Instance>) {
    let cluster = Cluster::start(ClusterOptions::guests(2)).await;
    cluster.api.import("demo", &guest::demo_image()).await;
    let body = json!({ "name": "web", "source": { "image": "demo" }, "count": count, "memory_bytes": 192_u64 << 20 });
    let members = cluster.deploy_guests(body).await;
    (cluster, members)
}

/// Two guests on two nodes write counters while both are snapshotted. Guests started from the snapshot have what was
/// written before the cut and nothing that was written after it.
#[tokio::test(flavor = "multi_thread")]
async fn a_guest_from_the_snapshot_has_what_was_written_before_the_cut_and_nothing_after() {
    let (cluster, members) = guests(2).await;
    assert_ne!(members[0].node, members[1].node, "spread");
    // The writer ends after the cut, because it would take the processor from the guests that boot then.
    let counter =
        "n=0; while [ ! -e /after ]; do n=$((n+1)); echo $n > /counter.new; sync; mv /counter.new /counter; sync; done";
    for member in &members {
        run(member, &format!("echo {} > /before; sync", member.name)).await.expect("write before the cut");
        run(member, &format!("({counter}) >/dev/null 2>&1 &")).await.expect("start the writer");
    }
    let first =
        async |member: &Instance| run(member, "cat /counter").await?.trim().parse::<u64>().map_err(|e| e.to_string());
    for member in &members {
        eventually("the writer writes", Duration::from_secs(120), async || first(member).await).await;
    }
    // The longest pause that is allowed: on a busy machine an agent may answer late.
    let select = json!({ "deployment": "web" });
    let body = json!({ "name": "cut", "select": select, "max_pause_ms": 10_000, "consistency": "filesystem" });
    eventually("the guest agents are known", Duration::from_secs(60), async || {
        for member in &members {
            let now: Instance = cluster.api.get(&format!("/v1/instances/{}", member.id)).await.ok();
            now.guest.filter(|guest| guest.answers).ok_or_else(|| format!("{} tells nothing", member.name))?;
        }
        Ok(())
    })
    .await;
    cluster.api.done("/v1/snapshots", body, Duration::from_secs(120)).await;
    let mut after = Vec::new();
    for member in &members {
        run(member, "touch /after; sync").await.expect("write after the cut");
        after.push(first(member).await.expect("the counter"));
    }
    let snapshot = cluster.api.snapshot("cut").await;
    assert!(snapshot.stored_bytes > 0 && snapshot.members == 2, "{snapshot:?}");

    let fork = json!({ "name": "fork", "source": { "snapshot": "cut" }, "memory_bytes": 192_u64 << 20 });
    let forks = cluster.deploy_guests(fork).await;
    for ((copy, original), after) in forks.iter().zip(&members).zip(after) {
        let seen = run(copy, "cat /before; ls /after 2>/dev/null; cat /counter").await.expect("look around");
        let lines: Vec<&str> = seen.split_whitespace().collect();
        assert_eq!((lines[0], lines.len()), (original.name.as_str(), 2), "{seen}");
        assert!(lines[1].parse::<u64>().is_ok_and(|n| n >= 1 && n <= after), "{seen}, of {after}");
        assert_ne!(copy.id, original.id);
        // It was frozen, so its file system was clean: nothing had to be replayed from its journal.
        let kernel = run(copy, "dmesg | grep EXT4-fs").await.expect("the kernel's log");
        assert!(kernel.contains("mounted") && !kernel.contains("recovery"), "{kernel}");
    }
    // The console of a guest can be read through the API.
    let log = cluster.api.request(reqwest::Method::GET, &format!("/v1/instances/{}/log?tail=64KiB", members[0].id));
    let text = log.send().await.expect("an answer").text().await.expect("text");
    assert!(text.contains("MUSTER-READY"), "{text}");
    a_guest_can_be_worked_in(&cluster, &members[0], &members[1]).await;
}

/// One types into the serial console of a guest and another watches; it has a screen; and its SSH server is reached without a
/// published port.
async fn a_guest_can_be_worked_in(cluster: &Cluster, guest: &Instance, other: &Instance) {
    let limit = Duration::from_secs(60);
    let open = async |kind: Value| Console::open(&cluster.api, guest.id, kind).await;
    let mut typist = open(json!({ "kind": "serial" })).await;
    let mut watcher = open(json!({ "kind": "serial", "mode": "read" })).await;
    watcher.types("echo never\n").await;
    // The sum is in no echo of what was typed.
    typist.types("echo sum $((40 + 2))\n").await;
    typist.says("sum 42", limit).await;
    watcher.says("sum 42", limit).await;
    assert!(!watcher.printed.contains("never"), "{}", watcher.printed);
    open(json!({ "kind": "vnc" })).await.says("RFB 003.008\n", limit).await;
    assert!(!guest.nics.is_empty(), "the nodes of this test can have networks: {guest:?}");
    open(json!({ "kind": "port", "port": 22 })).await.says("SSH-2.0-", limit).await;
    // A command through the guest agent, and what the guest tells about itself.
    let command = json!({ "command": ["/bin/sh", "-c", "cat; exit 7"], "stdin": "in", "timeout_s": 120 });
    let done: Executed = cluster.api.post(&format!("/v1/instances/{}/exec", guest.id), command).await.ok();
    assert_eq!((done.exit_code, &*done.stdout), (Some(7), "in"), "{done:?}");
    let told: Instance = cluster.api.get(&format!("/v1/instances/{}", guest.id)).await.ok();
    let told = told.guest.expect("its guest agent has answered");
    assert!(told.file_systems.iter().any(|mounted| mounted.kind == "ext4" && mounted.used_bytes.is_some()), "{told:?}");
    // From guest to guest, on another node, by name.
    typist.types(&format!("ping -c 1 -W 20 {}; echo reached $((0 + $?))\n", other.host_name)).await;
    typist.says("reached 0", limit).await;
}

/// Killing the agent takes the guest's disk away. The instance becomes `failed` with reason `disk_lost`. It can be
/// started again, also when the controller is killed meanwhile, has what it had fsynced, and is in its network again. In the
/// end nothing of its network is left.
#[tokio::test(flavor = "multi_thread")]
async fn a_guest_whose_agent_was_killed_starts_again_with_its_fsynced_data() {
    let (mut cluster, members) = guests(1).await;
    let boots = |text: String| text.trim().parse::<u64>().expect("a boot count");
    run(&members[0], "echo precious > /kept; sync").await.expect("write");
    let before = boots(run(&members[0], "cat /var/lib/muster/boots").await.expect("the boot counter"));
    let agent = cluster.agent_named(members[0].node_name.as_deref().expect("a node"));
    cluster.kill_agent(agent);
    cluster.start_agent(agent);
    let api = cluster.api.clone();
    let state = async || api.instances("web").await.remove(0);
    eventually("the guest is found lost", Duration::from_secs(90), async || {
        let now = state().await;
        if now.state == InstanceState::Failed && now.reason == Some(Reason::DiskLost) {
            Ok(())
        } else {
            Err(format!("{now:?}"))
        }
    })
    .await;
    let id = members[0].id;
    let operation: Value = cluster.api.post(&format!("/v1/instances/{id}/start"), json!({})).await.ok();
    cluster.kill_controller();
    cluster.start_controller().await;
    if let Some(operation) = operation["target"].as_object().and(operation["id"].as_str()) {
        cluster.booted(operation).await;
    }
    let again = eventually_for_guests("ready again", &cluster.dir, guest::BOOT, async || {
        let now = state().await;
        if now.state == InstanceState::Running && now.ready_at.is_some() { Ok(now) } else { Err(format!("{now:?}")) }
    })
    .await;
    assert_eq!(run(&again, "cat /kept").await.expect("read").trim(), "precious");
    assert!(boots(run(&again, "cat /var/lib/muster/boots").await.expect("the boot counter")) > before);
    let port = json!({ "kind": "port", "port": 22 });
    Console::open(&cluster.api, id, port).await.says("SSH-2.0-", Duration::from_secs(60)).await;
    // A stop leaves no domain.
    let stop: Value = cluster.api.post(&format!("/v1/instances/{id}/stop"), json!({})).await.ok();
    drop(stop);
    eventually_for_guests("stopped", &cluster.dir, Duration::from_secs(60), async || {
        let now = state().await;
        if now.state == InstanceState::Stopped { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
    assert_eq!(guest::domains_under(Path::new(&cluster.dir)), Vec::<String>::new());
    let _gone: Value = cluster.api.delete("/v1/deployments/web").await.ok();
    let me: Value = cluster.api.get("/v1/me").await.ok();
    let of_cluster: String = me["cluster"].as_str().expect("an id").replace('-', "").chars().skip(20).collect();
    eventually("its networks are gone", Duration::from_secs(60), async || {
        let names =
            std::fs::read_dir("/run/netns").into_iter().flatten().map(|entry| entry.expect("a name").file_name());
        let left = names.filter(|name| name.to_string_lossy().contains(&of_cluster)).collect::<Vec<_>>();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}
