//! Disks that live longer than the start of their instance: they grow, are detached with what they hold, and are attached on
//! another node.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use muster_api::{
    disk::{Disk, DiskState},
    instance::{Instance, InstanceDisk},
};
use muster_tests::{Cluster, ClusterOptions, Pattern, eventually};
use reqwest::Method;
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(60);

async fn becomes(cluster: &Cluster, id: &str, state: DiskState) -> Disk {
    eventually(&format!("disk {id} to be {state:?}"), LIMIT, async || {
        let disk: Disk = cluster.api.get(&format!("/v1/disks/{id}")).await.ok();
        if disk.state == state { Ok(disk) } else { Err(format!("{disk:?}")) }
    })
    .await
}

async fn attach(cluster: &Cluster, instance: &str, body: Value) -> Disk {
    let disk: Disk = cluster.api.post(&format!("/v1/instances/{instance}/disks"), body).await.ok();
    becomes(cluster, &disk.id.to_string(), DiskState::Attached).await
}

async fn detach(cluster: &Cluster, id: &str) -> Disk {
    let disk: Disk = cluster.api.post(&format!("/v1/disks/{id}/detach"), json!({})).await.ok();
    assert_eq!(disk.state, DiskState::Detaching);
    becomes(cluster, id, DiskState::Detached).await
}

async fn disk_of(cluster: &Cluster, instance: &str, name: &str) -> InstanceDisk {
    let instance: Instance = cluster.api.get(&format!("/v1/instances/{instance}")).await.ok();
    instance.disks.into_iter().find(|disk| disk.name == name).expect("the instance has the disk")
}

fn path_of(disk: &InstanceDisk) -> PathBuf {
    PathBuf::from(disk.path.as_ref().expect("operators see the path"))
}

fn open(disk: &InstanceDisk) -> File {
    File::options().read(true).write(true).open(path_of(disk)).expect("open the disk")
}

/// The file of the disk `data` of an instance, once it can be opened: its agent may have been killed.
async fn opens(cluster: &Cluster, instance: &str) -> File {
    eventually("the disk to be opened", LIMIT, async || {
        let disk = disk_of(cluster, instance, "data").await;
        let path = disk.path.ok_or("no path is known")?;
        File::options().read(true).write(true).open(path).map_err(|e| e.to_string())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_carries_what_was_written_to_it_from_one_node_to_another() {
    let cluster = Cluster::start(ClusterOptions::files(2)).await;
    let file = cluster.dir.join("image.raw");
    Pattern::striped(11, 4 * MIB, MIB, 2 * MIB).write(&file);
    cluster.api.import("base", &file).await;
    // One member on each node.
    let members = cluster.api.deploy_files("web", "base", 2).await;
    assert_ne!(members[0].node, members[1].node);
    let id = attach(&cluster, "web.0", json!({ "name": "data", "size_bytes": 8 * MIB })).await.id.to_string();
    let at_first = disk_of(&cluster, "web.0", "data").await;
    let mut wanted = vec![0; 8 << 20];
    let write = |file: &File, wanted: &mut Vec<u8>, at: usize, bytes: &[u8]| {
        file.write_all_at(bytes, at as u64).expect("write");
        wanted[at..][..bytes.len()].copy_from_slice(bytes);
    };
    write(&open(&at_first), &mut wanted, 12_345, &[1; 100_000]);

    // It grows while it is used, and what is beyond its old end is zeros.
    let grow = cluster.api.request(Method::PATCH, &format!("/v1/disks/{id}")).json(&json!({ "size_bytes": 32 * MIB }));
    let grown: Disk = cluster.api.send(grow).await.ok();
    assert_eq!(grown.size_bytes, 32 * MIB);
    becomes(&cluster, &id, DiskState::Attached).await;
    wanted.resize(32 << 20, 0);
    write(&open(&at_first), &mut wanted, (30 << 20) + 7, &[2; 50_000]);
    assert!(std::fs::read(path_of(&at_first)).expect("read the disk") == wanted);

    // It is detached with all of it, and its file is gone.
    let detached = detach(&cluster, &id).await;
    assert!(cluster.api.content(&detached.version.to_string()).await == wanted);
    assert!(cluster.api.list::<Value>("/v1/snapshots").await.is_empty(), "what saved it is gone");
    eventually("the copy of the node to be gone", LIMIT, async || {
        if path_of(&at_first).exists() { Err("it is there".to_owned()) } else { Ok(()) }
    })
    .await;

    // The other instance, which is on the other node, goes on from there.
    attach(&cluster, "web.1", json!({ "disk": id, "name": "carried" })).await;
    let carried = disk_of(&cluster, "web.1", "carried").await;
    assert_ne!(path_of(&carried).parent(), path_of(&at_first).parent(), "another node has it");
    assert!(std::fs::read(path_of(&carried)).expect("read the disk") == wanted);
    write(&open(&carried), &mut wanted, MIB as usize, &[3; 10_000]);

    // It comes back to the first node, which has no old copy of it any more.
    detach(&cluster, &id).await;
    attach(&cluster, "web.0", json!({ "disk": id })).await;
    let back = disk_of(&cluster, "web.0", "carried").await;
    assert!(std::fs::read(path_of(&back)).expect("read the disk") == wanted);

    // What nothing has written to since is detached at once, and deleted.
    detach(&cluster, &id).await;
    let gone = cluster.api.delete(&format!("/v1/disks/{id}")).await;
    assert_eq!(gone.status, 204, "{gone:?}");
    assert_eq!(cluster.api.get(&format!("/v1/disks/{id}")).await.status, 404);
}

/// Goal: nothing that was written to a disk before it was detached is lost, and nothing can be written afterwards, although a
/// program has it open all the while; growth survives a killed agent. Method: the program writes until it gets an error, and
/// what it was told is written is in the version that the disk is detached with.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_detached_under_a_writer_has_every_write_that_was_acknowledged() {
    let mut cluster = Cluster::start(ClusterOptions::files(2).as_processes()).await;
    let api = cluster.api.clone();
    let image = cluster.dir.join("image.raw");
    Pattern::striped(7, 8 * MIB, 256 << 10, 512 << 10).write(&image);
    api.import("demo", &image).await;
    let members = api.deploy_files("web", "demo", 2).await;
    assert_ne!(members[0].node, members[1].node, "spread");

    let disk = attach(&cluster, "web.0", json!({ "name": "data", "size_bytes": 4 * MIB })).await.id.to_string();
    let open = opens(&cluster, "web.0").await;
    open.write_all_at(&[1; 4096], 0).expect("write");
    open.sync_all().expect("sync");
    drop(open);

    // The agent is killed while it is told to grow the disk.
    let larger = api.request(Method::PATCH, &format!("/v1/disks/{disk}")).json(&json!({ "size_bytes": 16 * MIB }));
    let _: Value = api.send(larger).await.ok();
    let agent = cluster.agent_named(members[0].node_name.as_deref().expect("a node"));
    cluster.kill_agent(agent);
    cluster.start_agent(agent);
    becomes(&cluster, &disk, DiskState::Attached).await;
    let open = opens(&cluster, "web.0").await;
    assert_eq!(open.metadata().expect("metadata").len(), 16 * MIB);

    // One block after the other, each with its number, until the file is gone.
    let acknowledged = Arc::new(AtomicU64::new(0));
    let written = acknowledged.clone();
    let writing = tokio::task::spawn_blocking(move || {
        for block in 1..4096_u64 {
            let bytes: Vec<u8> = block.to_le_bytes().repeat(512);
            if open.write_all_at(&bytes, block * 4096).is_err() {
                return true;
            }
            written.store(block, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(1));
        }
        false
    });
    eventually("some blocks are written", LIMIT, async || match acknowledged.load(Ordering::SeqCst) {
        blocks if blocks >= 200 => Ok(()),
        blocks => Err(format!("{blocks} blocks")),
    })
    .await;
    let _: Value = api.post(&format!("/v1/disks/{disk}/detach"), json!({})).await.ok();
    let detached = becomes(&cluster, &disk, DiskState::Detached).await;
    let ended = writing.await.expect("no panic");
    let written = acknowledged.load(Ordering::SeqCst);
    eprintln!("{written} blocks were written, ended by an error: {ended}");
    let content = api.content(&detached.version.to_string()).await;
    assert_eq!(content.len() as u64, 16 * MIB);
    for block in 1..=written {
        let at = usize::try_from(block * 4096).expect("small");
        assert!(content[at..at + 4096] == *block.to_le_bytes().repeat(512), "block {block} of {written}");
    }
    assert!(content[..4096] == [1; 4096]);

    // The instance on the other node gets all of it.
    let attach = format!("/v1/instances/{}/disks", members[1].id);
    eventually("the disk can be attached", LIMIT, async || {
        let answer = api.post(&attach, json!({ "disk": disk })).await;
        if answer.status == 201 { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
    becomes(&cluster, &disk, DiskState::Attached).await;
    let open = opens(&cluster, "web.1").await;
    let mut read = vec![0; content.len()];
    open.read_exact_at(&mut read, 0).expect("read");
    assert!(read == content);
    let left = cluster.agents.iter().filter(|agent| agent.dir.join("disks").join(&disk).exists()).count();
    assert_eq!(left, 1, "only one node has it");
}
