//! What scattered writes cost: bytes that a snapshot stores for the bytes that were dirtied, its time, and what the packs of
//! many snapshots keep alive.

use std::{
    collections::BTreeSet,
    fs::File,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use muster_api::{snapshot::SnapshotMember, version::Freed};
use muster_tests::{Cluster, ClusterOptions, eventually};
use serde_json::json;

use crate::{
    Table,
    commit::{copy_over_tcp, noise},
    median,
};

const LIMIT: Duration = Duration::from_secs(300);
const BLOCK: u64 = 4096;
const CHUNK: u64 = 256 << 10;
const DISK: u64 = 8 << 30;
const WRITES: u64 = 2000;
const SEQUENTIAL: u64 = 200 << 20;
/// The disk of the row of many snapshots, and how many there are.
const SMALL: u64 = 16 << 20;
const ROUNDS: u64 = 100;

/// A cluster of one node, so that each object has one copy, with an image.
struct Scene {
    cluster: Cluster,
}

/// The disk of a deployment of the image.
struct Disk<'a> {
    scene: &'a Scene,
    deployment: String,
    file: File,
}

impl Scene {
    async fn new(image: impl FnOnce(&File)) -> Self {
        let cluster = Cluster::start(ClusterOptions::files(1).as_processes()).await;
        let (raw, path) = (cluster.dir.join("image.raw"), cluster.dir.join("image.qcow2"));
        image(&File::create(&raw).expect("create the image"));
        // Only what is in the file is sent, not its holes.
        let mut convert = Command::new("qemu-img");
        convert.args(["convert", "-f", "raw", "-O", "qcow2", "-o", "cluster_size=4096"]).arg(&raw).arg(&path);
        let done = convert.output().expect("run qemu-img");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        cluster.api.import("base", &path).await;
        Self { cluster }
    }

    async fn disk(&self, deployment: &str) -> Disk<'_> {
        let instance = self.cluster.api.deploy_files(deployment, "base", 1).await.remove(0);
        let path = PathBuf::from(instance.disks[0].path.clone().expect("operators see the path"));
        let file = File::options().read(true).write(true).open(path).expect("open the disk");
        Disk { scene: self, deployment: deployment.to_owned(), file }
    }

    /// The time to send as many bytes to another process that writes and syncs them, in seconds.
    fn copy(&self, bytes: u64) -> f64 {
        let data = noise(bytes, bytes);
        let path: &Path = &self.cluster.dir.join("copy");
        let begun = Instant::now();
        copy_over_tcp(&data, path);
        begun.elapsed().as_secs_f64()
    }
}

impl Disk<'_> {
    fn write(&self, blocks: &BTreeSet<u64>, seed: u64) {
        for block in blocks {
            self.file.write_all_at(&noise(seed + block, BLOCK), block * BLOCK).expect("write");
        }
    }

    /// Takes a snapshot. Returns its time in seconds, and the bytes that it stored and that were dirty.
    async fn snapshot(&self, name: &str) -> (f64, u64, u64) {
        self.file.sync_all().expect("sync");
        let begun = Instant::now();
        let body = json!({ "name": name, "select": { "deployment": self.deployment } });
        self.scene.cluster.api.done("/v1/snapshots", body, LIMIT).await;
        let took = begun.elapsed().as_secs_f64();
        let snapshot = self.scene.cluster.api.snapshot(name).await;
        (took, snapshot.stored_bytes, snapshot.dirty_bytes)
    }
}

/// Different blocks below `end`, anywhere.
fn scattered(seed: u64, count: u64, end: u64) -> BTreeSet<u64> {
    let mut blocks = BTreeSet::new();
    for word in noise(seed, 16 * count).chunks_exact(8) {
        if blocks.len() as u64 == count {
            break;
        }
        blocks.insert(u64::from_le_bytes(word.try_into().expect("eight bytes")) % end);
    }
    blocks
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53 bytes")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

pub(crate) fn run(table: &mut Table) {
    for (data, target) in [(2 << 30, "<= 1.1"), (DISK, "<= 1.15")] {
        crate::runtime().block_on(over(table, data, target));
    }
    crate::runtime().block_on(many(table));
}

/// Scattered blocks over a disk with so many bytes of data, and sequential ones after them.
async fn over(table: &mut Table, data: u64, target: &str) {
    // Each chunk of the data has bytes, which is what the size of the tree depends on; the rest of the file is a hole.
    let scene = Scene::new(|file| {
        for chunk in 0..data / CHUNK {
            file.write_all_at(&chunk.to_le_bytes(), chunk * CHUNK).expect("write");
        }
        file.set_len(DISK).expect("make it 8 GiB");
    })
    .await;
    let (mut took, mut copied, mut stored_ratio) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..3 {
        // Each time a new disk: later snapshots of one also write the older entries of their pages again.
        let disk = scene.disk(&format!("web{round}")).await;
        disk.write(&scattered(round + 1, WRITES, data / BLOCK), round << 32);
        let (seconds, stored, dirty) = disk.snapshot(&format!("s{round}")).await;
        assert_eq!(dirty, WRITES * BLOCK, "every block was written once");
        took.push(seconds);
        copied.push(scene.copy(dirty));
        stored_ratio.push(ratio(stored, dirty));
    }
    let gib = data >> 30;
    table.row(
        &format!("stored for 2,000 scattered 4 KiB over {gib} GiB of data in 8 GiB, pages included"),
        format!("{:.2} MB", median(stored_ratio.clone()) * (WRITES * BLOCK) as f64 / 1e6),
        format!("{:.2} MB dirtied", (WRITES * BLOCK) as f64 / 1e6),
        Some(median(stored_ratio)),
        target,
    );
    table.row(
        &format!("the same over {gib} GiB, POST to durable (time)"),
        format!("{:.0} ms", median(took.clone()) * 1e3),
        format!("{:.0} ms copying the dirty bytes and syncing", median(copied.clone()) * 1e3),
        Some(median(took) / median(copied)),
        "none",
    );
    if data == DISK {
        return;
    }
    let disk = scene.disk("sequential").await;
    for at in (0..SEQUENTIAL).step_by(4 << 20) {
        disk.file.write_all_at(&noise(at + 7, 4 << 20), at).expect("write");
    }
    let (seconds, stored, dirty) = disk.snapshot("sequential").await;
    let copied = scene.copy(SEQUENTIAL);
    table.row(
        "stored for sequential 200 MB that do not compress",
        format!("{:.1} MB", stored as f64 / 1e6),
        format!("{:.1} MB dirtied", dirty as f64 / 1e6),
        Some(ratio(stored, dirty)),
        "<= 1.01",
    );
    table.row(
        "the same, POST to durable (time)",
        format!("{:.2} s", seconds),
        format!("{copied:.2} s copying the dirty bytes and syncing"),
        Some(seconds / copied),
        "none",
    );
}

/// Many snapshots of few blocks each. Then all but the last one are deleted.
async fn many(table: &mut Table) {
    let scene = Scene::new(|file| file.write_all_at(&noise(3, SMALL), 0).expect("write")).await;
    let disk = scene.disk("web").await;
    let (mut stored, mut dirty) = (0, 0);
    for round in 0..ROUNDS {
        disk.write(&scattered(round + 9, SMALL / BLOCK / 100, SMALL / BLOCK), round << 32);
        let (_, stored_now, dirty_now) = disk.snapshot(&format!("s{round}")).await;
        stored += stored_now;
        dirty += dirty_now;
    }
    let api = &scene.cluster.api;
    let gone: serde_json::Value = api.delete("/v1/deployments/web").await.ok();
    api.wait(gone["id"].as_str().expect("an id"), LIMIT).await;
    let others = (0..ROUNDS - 1).map(|round| format!("/v1/snapshots/s{round}"));
    for path in std::iter::once("/v1/images/base".to_owned()).chain(others) {
        let answer = api.delete(&path).await;
        assert!((200..300).contains(&answer.status), "{path}: {answer:?}");
    }
    let members = api.list::<SnapshotMember>(&format!("/v1/snapshots/s{}/members", ROUNDS - 1)).await;
    let last = format!("/v1/versions/{}?dry_run=true", members[0].version.expect("it is ready"));
    let alive = eventually("a busy machine tells the bytes of the version within 2 s", LIMIT, async || {
        let freed: Freed = api.delete(&last).await.ok();
        freed.freed_bytes.ok_or_else(|| "not known yet".to_owned())
    })
    .await;
    table.row(
        "pool bytes of one version after 100 snapshots of 1 % scattered 4 KiB each, over its size",
        format!("{:.1} MB", alive as f64 / 1e6),
        format!("{:.1} MB", SMALL as f64 / 1e6),
        Some(ratio(alive, SMALL)),
        "<= 5 (bound)",
    );
    table.row(
        "stored by these 100 snapshots together",
        format!("{:.1} MB", stored as f64 / 1e6),
        format!("{:.1} MB dirtied", dirty as f64 / 1e6),
        Some(ratio(stored, dirty)),
        "none",
    );
}
