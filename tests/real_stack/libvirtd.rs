//! A crash of libvirtd: guests go on, and the agent connects again.

use std::{path::PathBuf, time::Duration};

use muster_api::{
    condition::ConditionKind,
    instance::{Instance, InstanceState},
    node::Node,
};
use muster_tests::{Cluster, ClusterOptions, Libvirtd, eventually, eventually_for_guests, guest};
use serde_json::{Value, json};

async fn member(cluster: &Cluster) -> Instance {
    cluster.api.instances("web").await.remove(0)
}

async fn lacks_libvirt(cluster: &Cluster) -> bool {
    let node = cluster.api.list::<Node>("/v1/nodes").await.remove(0);
    node.conditions.iter().any(|condition| condition.kind == ConditionKind::HypervisorSilent)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_outlives_a_crash_of_libvirtd_and_is_steered_again_after_it() {
    let mut libvirtd = Libvirtd::start().await;
    let mut options = ClusterOptions::guests(1);
    options.agent.more.extend(["--libvirt-uri".into(), libvirtd.uri()]);
    options.parent = Some(libvirtd.dir().to_owned());
    let cluster = Cluster::start(options).await;
    cluster.api.import("demo", &guest::demo_image()).await;
    let body = json!({ "name": "web", "source": { "image": "demo" }, "count": 1, "memory_bytes": 192_u64 << 20 });
    let members = cluster.deploy_guests(body).await;
    let disk = PathBuf::from(members[0].disks[0].path.clone().expect("operators see the path"));
    let before = guest::processes_under(&disk);
    assert_eq!(before.len(), 1, "{before:?}");
    let still_there = async || {
        let now = member(&cluster).await;
        assert!(matches!(now.state, InstanceState::Running | InstanceState::Unknown), "{now:?}");
        assert_eq!(guest::processes_under(&disk), before, "the guest goes on");
        now
    };

    libvirtd.kill();
    eventually("the agent says that libvirt is away", Duration::from_secs(60), async || {
        let now = still_there().await;
        if lacks_libvirt(&cluster).await { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
    libvirtd.start_again().await;
    eventually("the agent has found it again", Duration::from_secs(60), async || {
        let now = still_there().await;
        let well = now.state == InstanceState::Running && !lacks_libvirt(&cluster).await;
        if well { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;

    // The guest obeys again: it is stopped, started as another process, and deleted.
    let id = member(&cluster).await.id;
    let _: Value = cluster.api.post(&format!("/v1/instances/{id}/stop"), json!({})).await.ok();
    eventually_for_guests("stopped", &cluster.dir, Duration::from_secs(90), async || {
        let now = member(&cluster).await;
        if now.state == InstanceState::Stopped { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
    assert_eq!(guest::processes_under(&disk), []);
    let _: Value = cluster.api.post(&format!("/v1/instances/{id}/start"), json!({})).await.ok();
    eventually_for_guests("ready again", &cluster.dir, guest::BOOT, async || {
        let now = member(&cluster).await;
        let ready = now.state == InstanceState::Running && now.ready_at.is_some();
        if ready { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
    let deletion: Value = cluster.api.delete("/v1/deployments/web").await.ok();
    cluster.api.wait(deletion["id"].as_str().expect("an id"), Duration::from_secs(90)).await;
    eventually("the guest's end", Duration::from_secs(30), async || {
        let left = guest::processes_under(&disk);
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}
