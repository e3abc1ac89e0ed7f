//! What nothing needs any more goes, and everything else stays whole: with real nodes and a real controller, also while they
//! are killed.

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    time::Duration,
};

use muster_api::{node::Node, snapshot::SnapshotMember};
use muster_tests::{Cluster, ClusterOptions};
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(120);

/// Bytes that do not compress. The same seed gives the same bytes.
fn noise(seed: u64, bytes: u64) -> Vec<u8> {
    let mut word = (seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let words = std::iter::repeat_with(|| {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        word.to_le_bytes()
    });
    words.flatten().take(bytes as usize).collect()
}

/// Bytes that the pools of all nodes take on their disks.
fn taken(cluster: &Cluster) -> u64 {
    let folders = cluster.agents.iter().map(|agent| agent.dir.join("pool"));
    let files = folders.flat_map(|folder| fs::read_dir(folder).expect("a pool"));
    files.map(|file| file.expect("lists").metadata().map_or(0, |file| file.blocks() * 512)).sum()
}

/// Sweeps, also what was put just before: the operation ends when its stamps protect that no more.
async fn sweep(cluster: &Cluster) {
    cluster.api.done("/v1/pools/default/sweep", json!({}), LIMIT).await;
}

async fn import(cluster: &Cluster, name: &str, bytes: &[u8]) -> String {
    let file = cluster.dir.join(format!("{name}.raw"));
    fs::write(&file, bytes).expect("write the image");
    let version: Value = cluster.api.import(name, &file).await;
    fs::remove_file(file).expect("remove the image");
    version["id"].as_str().expect("an id").to_owned()
}

async fn delete(cluster: &Cluster, path: &str) {
    let answer = cluster.api.delete(path).await;
    assert!((200..300).contains(&answer.status), "{path}: {answer:?}");
    if let Some(operation) = answer.body["id"].as_str().filter(|_| answer.status == 202) {
        cluster.api.wait(operation, LIMIT).await;
    }
}

async fn snapshot(cluster: &Cluster, name: &str) -> Vec<String> {
    cluster.api.done("/v1/snapshots", json!({ "name": name, "select": { "deployment": "web" } }), LIMIT).await;
    let mut all = cluster.api.list::<SnapshotMember>(&format!("/v1/snapshots/{name}/members")).await;
    all.sort_by(|a, b| a.instance_name.cmp(&b.instance_name));
    all.iter().map(|member| member.version.expect("it is ready").to_string()).collect()
}

/// The disks of the deployment `web`, and what each of them should hold.
struct Disks {
    files: Vec<File>,
    wanted: Vec<Vec<u8>>,
}

impl Disks {
    async fn deploy(cluster: &Cluster, image: &str, bytes: &[u8], count: u64) -> Self {
        let members = cluster.api.deploy_files("web", image, count).await;
        let open = |path: &String| File::options().read(true).write(true).open(path).expect("open the disk");
        let files: Vec<File> =
            members.iter().map(|m| open(m.disks[0].path.as_ref().expect("operators see the path"))).collect();
        let wanted = vec![bytes.to_vec(); files.len()];
        Self { files, wanted }
    }

    /// Writes whole chunks and some odd bytes to each disk.
    fn write(&mut self, seed: u64, chunks: u64) {
        for (number, (file, wanted)) in self.files.iter().zip(&mut self.wanted).enumerate() {
            let mut put = |at: u64, data: &[u8]| {
                file.write_all_at(data, at).expect("write");
                wanted[at as usize..][..data.len()].copy_from_slice(data);
            };
            put((seed * 5 % 16) * MIB, &noise(seed * 64 + number as u64, chunks * (256 << 10)));
            put(17 * MIB + seed * 40_961, &noise(seed + 7, 5000));
        }
    }

    fn check(&self, when: &str) {
        for (number, (file, wanted)) in self.files.iter().zip(&self.wanted).enumerate() {
            let mut got = vec![0; wanted.len()];
            file.read_exact_at(&mut got, 0).expect("read the disk");
            assert!(got == *wanted, "disk {number} differs {when}");
        }
    }
}

async fn nothing_is_lost(cluster: &Cluster) {
    for node in cluster.api.list::<Node>("/v1/nodes").await {
        assert_eq!(node.pool.lost_objects, 0, "{node:?}");
    }
}

/// Versions go in several orders. After each the disks and the versions that are left are read whole, and at the end the
/// nodes' disks have their space back.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_gives_its_space_back_and_everything_else_stays_whole() {
    let cluster = Cluster::start(ClusterOptions::files(3)).await;
    let base = noise(1, 24 * MIB);
    let version = import(&cluster, "base", &base).await;
    let before = taken(&cluster);
    let other = noise(2, 32 * MIB);
    import(&cluster, "other", &other).await;
    let mut disks = Disks::deploy(&cluster, "base", &base, 3).await;
    let mut versions = Vec::new();
    for round in 0..4 {
        disks.write(round, 12);
        versions.push((snapshot(&cluster, &format!("s{round}")).await, disks.wanted.clone()));
    }
    disks.write(9, 4);
    let peak = taken(&cluster);
    delete(&cluster, "/v1/snapshots/s1").await;
    sweep(&cluster).await;
    disks.check("after the first sweep");
    for (number, (members, wanted)) in versions.iter().enumerate().filter(|(number, _)| *number != 1) {
        assert!(cluster.api.content(&members[0]).await == wanted[0], "s{number} differs");
    }
    // The source of a deployment stays as long as that may need it, whatever becomes of the image.
    for gone in ["/v1/snapshots/s3", "/v1/images/base", "/v1/snapshots/s0"] {
        delete(&cluster, gone).await;
    }
    sweep(&cluster).await;
    disks.check("after the second sweep");
    cluster.api.done("/v1/deployments/web/scale", json!({ "count": 5 }), LIMIT).await;
    for added in &cluster.api.instances("web").await[3..] {
        let got = fs::read(added.disks[0].path.as_ref().expect("a path")).expect("read the disk");
        assert!(got == base, "{} is not the image", added.name);
    }
    // A fork of a snapshot that is deleted right after, with the disks that it was taken of.
    let fork = json!({ "name": "fork", "source": { "snapshot": "s2" }, "runtime": "none" });
    cluster.api.done("/v1/deployments", fork, LIMIT).await;
    drop(disks.files);
    for gone in ["/v1/snapshots/s2", "/v1/deployments/web"] {
        delete(&cluster, gone).await;
    }
    sweep(&cluster).await;
    for (member, wanted) in cluster.api.instances("fork").await.iter().zip(&versions[2].1) {
        let got = fs::read(member.disks[0].path.as_ref().expect("a path")).expect("read the fork");
        assert!(got == *wanted, "{} differs from the snapshot", member.name);
    }
    for gone in ["/v1/deployments/fork", "/v1/images/other"] {
        delete(&cluster, gone).await;
    }
    sweep(&cluster).await;
    // What was there first is stored anew.
    let again = import(&cluster, "again", &base).await;
    assert!(cluster.api.content(&again).await == base && again != version);
    nothing_is_lost(&cluster).await;
    let (grown, back) = (peak - before, peak.saturating_sub(taken(&cluster)));
    eprintln!("the pools grew by {grown} bytes and gave {back} back");
    assert!(back as f64 >= 0.98 * grown as f64, "of {grown} bytes only {back} came back");
}

/// An agent is killed, the controller is killed, and a node is away while rounds go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_survives_kills_and_a_node_that_was_away_catches_up() {
    let mut cluster = Cluster::start(ClusterOptions::files(3).as_processes()).await;
    let base = noise(1, 8 * MIB);
    import(&cluster, "base", &base).await;
    let before = taken(&cluster);
    let mut disks = Disks::deploy(&cluster, "base", &base, 2).await;
    for number in 0..3 {
        import(&cluster, &format!("gone-{number}"), &noise(50 + number, 24 * MIB)).await;
    }
    let peak = taken(&cluster);
    let begin = async |cluster: &Cluster| {
        let begun: muster_api::operation::Operation = cluster.api.post("/v1/pools/default/sweep", json!({})).await.ok();
        begun.id.to_string()
    };
    delete(&cluster, "/v1/images/gone-0").await;
    sweep(&cluster).await;
    // The agent is killed somewhere in the middle of its part.
    delete(&cluster, "/v1/images/gone-1").await;
    let operation = begin(&cluster).await;
    for _ in 0..2 {
        cluster.kill_agent(0);
        cluster.start_agent(0);
        cluster.all_ready().await;
    }
    cluster.api.wait(&operation, LIMIT).await;
    cluster.all_ready().await;
    // So is the controller. Nobody has to ask again.
    delete(&cluster, "/v1/images/gone-2").await;
    let operation = begin(&cluster).await;
    cluster.kill_controller();
    cluster.start_controller().await;
    cluster.api.wait(&operation, LIMIT).await;
    cluster.all_ready().await;
    // One node misses some rounds.
    cluster.stop_agent(2).expect("it ends well");
    sweep(&cluster).await;
    cluster.start_agent(2);
    cluster.all_ready().await;
    sweep(&cluster).await;
    let (grown, back) = (peak - before, peak.saturating_sub(taken(&cluster)));
    eprintln!("the pools grew by {grown} bytes and gave {back} back\n{}", cluster.logs());
    assert!(back as f64 >= 0.98 * grown as f64, "of {grown} bytes only {back} came back\n{}", cluster.logs());
    nothing_is_lost(&cluster).await;
    // The disks were served by agents that were killed: they are read by new ones.
    disks = Disks { files: Vec::new(), ..disks };
    for (member, wanted) in cluster.api.instances("web").await.iter().zip(&disks.wanted) {
        let got = fs::read(member.disks[0].path.as_ref().expect("a path")).expect("read the disk");
        assert!(got == *wanted, "{} differs", member.name);
    }
    let more = cluster.api.deploy_files("more", "base", 3).await;
    for member in more {
        let got = fs::read(member.disks[0].path.as_ref().expect("a path")).expect("read the disk");
        assert!(got == base, "{} differs", member.name);
    }
}
