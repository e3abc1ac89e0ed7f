//! A node whose disk fills up gives way in order and goes on by itself when there is room. A node whose disk fails is told
//! apart from a full one.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use muster_api::{condition::ConditionKind, node::Node};
use muster_tests::{Cluster, ClusterOptions, Pattern, eventually};
use serde_json::json;

const MIB: u64 = 1 << 20;
const LIMIT: Duration = Duration::from_secs(120);

fn noise(seed: u64, bytes: u64) -> Pattern {
    Pattern { seed, size: bytes, data: vec![(0, bytes)] }
}

async fn import(cluster: &Cluster, name: &str, image: &Pattern) {
    let file = cluster.dir.join(format!("{name}.raw"));
    image.write(&file);
    cluster.api.import(name, &file).await;
    fs::remove_file(file).expect("remove the image");
}

async fn node(cluster: &Cluster, name: &str) -> Node {
    cluster.api.get(&format!("/v1/nodes/{name}")).await.ok()
}

/// Waits until the node has these conditions of its disk, and no others.
async fn conditions(cluster: &Cluster, name: &str, wanted: &[ConditionKind]) -> Node {
    let of_disk = [ConditionKind::DiskFull, ConditionKind::NodeFull, ConditionKind::DiskFailed];
    eventually(&format!("{wanted:?} of {name}"), LIMIT, async || {
        let node = node(cluster, name).await;
        let mut has: Vec<_> = node.conditions.iter().map(|c| c.kind.clone()).filter(|k| of_disk.contains(k)).collect();
        has.sort_by_key(ToString::to_string);
        let mut wanted = wanted.to_vec();
        wanted.sort_by_key(ToString::to_string);
        if has == wanted { Ok(node) } else { Err(format!("{node:#?}\n{}", cluster.logs())) }
    })
    .await
}

/// A file that takes space of the node's file system.
struct Filler {
    path: PathBuf,
    bytes: u64,
}

impl Filler {
    fn new(dir: &Path) -> Self {
        Self { path: dir.join("filler"), bytes: 0 }
    }

    /// Grows or shrinks until about this much is free.
    fn leave(&mut self, free: u64) {
        let stat = rustix::fs::statvfs(self.path.parent().expect("in a folder")).expect("statvfs");
        let now = stat.f_bavail * stat.f_frsize;
        let file = File::options().create(true).truncate(false).write(true).open(&self.path).expect("opens");
        if now > free {
            let more = vec![1; (now - free) as usize];
            file.write_all_at(&more, self.bytes).expect("fills");
            self.bytes += now - free;
        } else {
            self.bytes = self.bytes.saturating_sub(free - now);
            file.set_len(self.bytes).expect("shrinks");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_up_gives_way_in_order_and_all_goes_on_when_there_is_room() {
    let mut options = ClusterOptions::files(1).as_processes();
    options.own_disk = Some("384m");
    // The node has all objects itself, and they are to be in its cache as well.
    let more = ["--keep-free", "16MiB", "--mirror-reserve", "16MiB", "--pool-memory", "0B"];
    options.agent.more = more.map(str::to_owned).to_vec();
    let cluster = Cluster::start(options).await;
    let dir = cluster.agents[0].dir.clone();
    let (base, gone) = (noise(1, 24 * MIB), noise(2, 48 * MIB));
    import(&cluster, "base", &base).await;
    import(&cluster, "gone", &gone).await;
    let deploy = async |name: &str| {
        let body = json!({ "name": name, "source": { "image": "base" }, "count": 1, "runtime": "none",
            "disk_bytes": 64 * MIB });
        cluster.api.post("/v1/deployments", body).await
    };
    let operation: serde_json::Value = deploy("web").await.ok();
    cluster.api.wait(operation["id"].as_str().expect("an id"), LIMIT).await;
    let path = cluster.api.instances("web").await[0].disks[0].path.clone().expect("a path");
    base.check(0, &fs::read(&path).expect("read")[..24 << 20]);
    eventually("the node to tell that all of it is in its cache", LIMIT, async || {
        let pool = node(&cluster, "node-0").await.pool;
        if pool.cache_bytes >= 24 * MIB { Ok(()) } else { Err(format!("{pool:?}")) }
    })
    .await;

    // The cache gives way, and nothing else has to.
    let mut filler = Filler::new(&dir);
    filler.leave(14 * MIB);
    eventually("the cache to give way", LIMIT, async || {
        let node = node(&cluster, "node-0").await;
        let is_open = node.conditions.iter().all(|c| c.kind != ConditionKind::DiskFull);
        if node.pool.cache_bytes < 4 * MIB && node.pool.free_bytes > 34 * MIB && is_open {
            Ok(())
        } else {
            Err(format!("{node:#?}"))
        }
    })
    .await;
    base.check(0, &fs::read(&path).expect("read without a cache")[..24 << 20]);

    // Then new objects are refused, and instances still taken.
    filler.leave(26 * MIB);
    conditions(&cluster, "node-0", &[ConditionKind::DiskFull]).await;
    let operation: serde_json::Value = deploy("more").await.ok();
    cluster.api.wait(operation["id"].as_str().expect("an id"), LIMIT).await;
    // Then instances.
    filler.leave(8 * MIB);
    conditions(&cluster, "node-0", &[ConditionKind::DiskFull, ConditionKind::NodeFull]).await;
    let problem = deploy("too-much").await.problem(507, "no_capacity");
    assert!(format!("{problem:?}").contains("no room on disk"), "{problem:?}");

    // Only the writes of who is there go on, and then they fail. What was written before is whole.
    let disk = File::options().read(true).write(true).open(&path).expect("open");
    let block = |n: u64| (n + 1).to_le_bytes().repeat(8192);
    let mut full_at = 0;
    let full = loop {
        match disk.write_all_at(&block(full_at), 24 * MIB + full_at * 65536) {
            Ok(()) => full_at += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(full.kind(), io::ErrorKind::StorageFull, "{full}");
    assert!(full_at > 60, "full after {full_at} blocks");
    filler.leave(0);

    // A disk without any room is emptied all the same.
    assert_eq!(cluster.api.delete("/v1/images/gone").await.status, 204);
    cluster.api.done("/v1/pools/default/sweep", json!({}), LIMIT).await;
    let swept = conditions(&cluster, "node-0", &[]).await;
    assert!(swept.pool.free_bytes >= 40 * MIB, "{swept:#?}");
    disk.write_all_at(&block(full_at), 24 * MIB + full_at * 65536).expect("writes go on");
    disk.sync_all().expect("syncs");
    fs::remove_file(&filler.path).expect("remove the filler");
    let operation: serde_json::Value = deploy("again").await.ok();
    cluster.api.wait(operation["id"].as_str().expect("an id"), LIMIT).await;
    import(&cluster, "new", &noise(3, 4 * MIB)).await;
    let mut got = vec![0; 65536];
    for n in 0..=full_at {
        disk.read_exact_at(&mut got, 24 * MIB + n * 65536).expect("read");
        assert!(got == block(n), "block {n} was acknowledged and differs");
    }
    base.check(0, &fs::read(&path).expect("read")[..24 << 20]);
}

/// An ext4 file system in a file.
struct Ext4(PathBuf);

impl Ext4 {
    fn run(command: &mut Command) {
        let done = command.output().expect("starts");
        assert!(done.status.success(), "{command:?}: {done:?}");
    }

    /// Mounted at `dir`, which is made.
    fn at(dir: &Path, bytes: u64) -> Self {
        let image = dir.with_extension("ext4");
        File::create(&image).and_then(|file| file.set_len(bytes)).expect("an image");
        Self::run(Command::new("mkfs.ext4").arg("-q").arg(&image));
        fs::create_dir(dir).expect("a folder");
        Self::run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(dir));
        Self(dir.to_owned())
    }

    /// From now on all that is asked of it is an error, as of a disk that died.
    fn die(&self) {
        /// `EXT4_IOC_SHUTDOWN`, and its flag for: nothing more, not even the log.
        const SHUTDOWN: rustix::ioctl::Opcode = 0x8004_587d;
        const NO_LOG: u32 = 2;
        let dir = File::open(&self.0).expect("opens");
        // SAFETY: this call reads a `u32`, and that is what it is given.
        let call = unsafe { rustix::ioctl::Setter::<SHUTDOWN, u32>::new(NO_LOG) };
        // SAFETY: the file is open, and the call writes to no memory of this process.
        unsafe { rustix::ioctl::ioctl(&dir, call) }.expect("shuts the file system down");
    }

    /// Mounts a copy of the image: whoever still has files of the dead file system open keeps that one alive.
    fn mount_again(&self, bytes_of: &Path) {
        Self::run(Command::new("umount").arg("-l").arg(&self.0));
        let copy = bytes_of.with_extension("ext4-again");
        fs::copy(bytes_of, &copy).expect("copies the image");
        Self::run(Command::new("mount").args(["-o", "loop"]).arg(&copy).arg(&self.0));
    }
}

impl Drop for Ext4 {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_is_told_and_what_was_on_it_is_copied_elsewhere() {
    let mut options = ClusterOptions::files(3).as_processes();
    // All nodes have an equal share of the pool.
    options.agent.more = vec!["--pool-size".to_owned(), "100MiB".to_owned()];
    let mut cluster = Cluster::start(options).await;
    let image = noise(5, 16 * MIB);
    // The data folder of the next agent.
    let dir = cluster.dir.join("node-3");
    let disk = Ext4::at(&dir, 256 * MIB);
    assert_eq!(cluster.add_agent().await, 3);
    cluster.all_ready().await;
    import(&cluster, "base", &image).await;
    eventually("the node to tell that it has a share of the objects", LIMIT, async || {
        let pool = node(&cluster, "node-3").await.pool;
        if pool.objects > 0 { Ok(()) } else { Err(format!("{pool:?}")) }
    })
    .await;
    let epoch = node(&cluster, "node-0").await.repair.map_or(0, |repair| repair.membership_epoch);

    disk.die();
    let failed = conditions(&cluster, "node-3", &[ConditionKind::DiskFailed]).await;
    let told = failed.conditions.iter().find(|c| c.kind == ConditionKind::DiskFailed).expect("it is there");
    assert!(told.detail.contains("os error") && told.detail.contains("node-3"), "{told:?}");
    eventually("the others to have copied everything", LIMIT, async || {
        let nodes = cluster.api.list::<Node>("/v1/nodes").await;
        let out = nodes.iter().any(|node| node.name == "node-3" && node.out);
        let done = nodes.iter().filter(|node| node.name != "node-3").all(|node| {
            node.repair.is_some_and(|r| {
                r.membership_epoch > epoch && r.unchecked_objects == 0 && r.missing.objects == 0 && r.silent_nodes == 0
            })
        });
        if out && done { Ok(()) } else { Err(format!("{nodes:#?}\n{}", cluster.logs())) }
    })
    .await;
    let places = json!({ "name": "there", "source": { "image": "base" }, "count": 1, "runtime": "none",
        "placement": { "nodes": ["node-3"] } });
    let problem = cluster.api.post("/v1/deployments", places).await.problem(507, "no_capacity");
    assert!(format!("{problem:?}").contains("disk that failed"), "{problem:?}");

    // The disk is gone for good, and so is another node: every object still has a copy.
    cluster.kill_agent(3);
    cluster.kill_agent(2);
    // Not on the node that was killed just now, which nobody knows to be silent yet.
    let web = json!({ "name": "web", "source": { "image": "base" }, "count": 1, "runtime": "none",
        "placement": { "nodes": ["node-0"] } });
    cluster.api.done("/v1/deployments", web, LIMIT).await;
    let members = cluster.api.instances("web").await;
    image.check(0, &fs::read(members[0].disks[0].path.clone().expect("a path")).expect("read"));
    cluster.start_agent(2);

    // A start on a disk that works ends it.
    disk.mount_again(&dir.with_extension("ext4"));
    cluster.start_agent(3);
    let back = conditions(&cluster, "node-3", &[]).await;
    eventually("it is in again", LIMIT, async || {
        let node = node(&cluster, "node-3").await;
        if node.out { Err(format!("{node:#?}")) } else { Ok(()) }
    })
    .await;
    assert_eq!(back.reason, None);
}
