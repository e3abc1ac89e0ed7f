//! Reads and writes through the mount and on a raw file of the same file system, measured with fio and `qemu-img bench`.
//! All blocks were written before, except in the rows of first writes.

use std::{
    fs::File,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use muster_tests::{Cluster, ClusterOptions, Pattern};

use crate::{Table, median};

const SIZE: u64 = 256 << 20;

/// One load for fio.
struct Load {
    name: &'static str,
    rw: &'static str,
    block: &'static str,
    depth: u32,
    direct: bool,
    /// Writes between two calls of fsync(2); none: no such calls.
    fsync: Option<u32>,
    target: &'static str,
}

const fn load(name: &'static str, rw: &'static str, block: &'static str, depth: u32, direct: bool) -> Load {
    Load { name, rw, block, depth, direct, fsync: None, target: ">= 0.7" }
}

/// Loads on blocks that were written before.
const LOADS: [Load; 14] = [
    load("4 KiB random read, direct, depth 1", "randread", "4k", 1, true),
    load("4 KiB random read, direct, depth 16", "randread", "4k", 16, true),
    load("4 KiB random write, direct, depth 1", "randwrite", "4k", 1, true),
    load("4 KiB random write, direct, depth 16", "randwrite", "4k", 16, true),
    load("256 KiB sequential read, direct, depth 1", "read", "256k", 1, true),
    load("256 KiB sequential read, direct, depth 16", "read", "256k", 16, true),
    load("256 KiB sequential write, direct, depth 1", "write", "256k", 1, true),
    load("256 KiB sequential write, direct, depth 16", "write", "256k", 16, true),
    Load {
        fsync: Some(1),
        target: ">= 0.8",
        ..load("4 KiB random write, direct, fsync after each", "randwrite", "4k", 1, true)
    },
    Load {
        fsync: Some(32),
        target: ">= 0.8",
        ..load("4 KiB random write, direct, depth 16, fsync after 32", "randwrite", "4k", 16, true)
    },
    load("4 KiB random read, buffered", "randread", "4k", 1, false),
    load("256 KiB sequential read, buffered", "read", "256k", 1, false),
    Load { target: "none", ..load("256 KiB sequential write, buffered", "write", "256k", 1, false) },
    Load { target: "none", ..load("4 KiB random write, buffered", "randwrite", "4k", 1, false) },
];

/// Loads on blocks that nobody wrote before: those of a new disk, and of every disk after a snapshot.
const FIRST_WRITES: [Load; 3] = [
    Load { target: "none", ..load("4 KiB random first write, direct, depth 16", "randwrite", "4k", 16, true) },
    Load {
        fsync: Some(1),
        target: "none",
        ..load("4 KiB random first write, direct, fsync after each", "randwrite", "4k", 1, true)
    },
    Load { target: "none", ..load("256 KiB sequential first write, direct, depth 4", "write", "256k", 4, true) },
];

/// Bytes per second that fio reaches on `file` in about a second, again and again on the same blocks.
fn fio(file: &Path, load: &Load) -> f64 {
    run_fio(file, load, &["--time_based", "--runtime=1", "--ramp_time=0.3", "--norandommap"])
}

/// Bytes per second that fio reaches when it writes each of 64 MiB once; with fsync after each write, of 16 MiB.
fn fio_once(file: &Path, load: &Load) -> f64 {
    run_fio(file, load, if load.fsync == Some(1) { &["--io_size=16m"] } else { &["--io_size=64m", "--end_fsync=1"] })
}

fn run_fio(file: &Path, load: &Load, extent: &[&str]) -> f64 {
    let engine = if load.direct { "libaio" } else { "psync" };
    let done = Command::new("fio")
        .args(["--name=row", "--output-format=json"])
        .args(extent)
        .args(load.fsync.map(|writes| format!("--fsync={writes}")))
        .arg(format!("--filename={}", file.display()))
        .arg(format!("--size={SIZE}"))
        .arg(format!("--rw={}", load.rw))
        .arg(format!("--bs={}", load.block))
        .arg(format!("--iodepth={}", load.depth))
        .arg(format!("--ioengine={engine}"))
        .arg(format!("--direct={}", u8::from(load.direct)))
        .arg("--invalidate=0")
        .output()
        .expect("run fio");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let text = String::from_utf8_lossy(&done.stdout);
    let json: serde_json::Value = serde_json::from_str(&text[text.find('{').unwrap_or(0)..]).expect("fio's JSON");
    let side = if load.rw.ends_with("read") { "read" } else { "write" };
    json["jobs"][0][side]["bw_bytes"].as_f64().expect("a bandwidth")
}

/// One load for `qemu-img bench`: bytes of a request, bytes from one request to the next (it starts again at the end of
/// the file), and how many requests take about a second at depth 1 and at greater depths.
struct Ask {
    name: &'static str,
    bytes: u32,
    step: u32,
    counts: [u32; 2],
}

const ASKS: [Ask; 2] = [
    Ask { name: "4 KiB", bytes: 4096, step: (1 << 20) + 4096, counts: [20_000, 80_000] },
    Ask { name: "256 KiB sequential", bytes: 256 << 10, step: 256 << 10, counts: [4_000, 10_000] },
];

/// Requests per second that `qemu-img bench` reaches.
fn qemu_img(file: &Path, ask: &Ask, write: bool, depth: u32) -> f64 {
    let count = ask.counts[usize::from(depth > 1)];
    let mut command = Command::new("qemu-img");
    command.args(["bench", "-f", "raw", "-t", "none", "-i", "native"]);
    command.args(["-s", &ask.bytes.to_string(), "-S", &ask.step.to_string()]);
    command.args(["-c", &count.to_string(), "-d", &depth.to_string()]);
    if write {
        command.arg("-w");
    }
    let done = command.arg(file).output().expect("run qemu-img");
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{text}{}", String::from_utf8_lossy(&done.stderr));
    let seconds: f64 = text
        .split("Run completed in ")
        .nth(1)
        .and_then(|t| t.split(' ').next())
        .and_then(|t| t.parse().ok())
        .expect("the time it took");
    f64::from(count) / seconds
}

pub(crate) fn run(table: &mut Table) {
    crate::runtime().block_on(async {
        let cluster = Cluster::start(ClusterOptions::files(1).as_processes()).await;
        let file = cluster.dir.join("image.raw");
        Pattern { seed: 71, size: SIZE, data: Vec::new() }.write(&file);
        cluster.api.import("base", &file).await;
        written_before(table, &cluster).await;
        first_writes(table, &cluster).await;
    });
}

/// First reads of chunks after a start of the agent: of those in the node's cache, which hashes them then, beside the same
/// reads again; and of those in its own share of the pool, which it reads and decodes. Then random reads of both.
pub(crate) fn first_reads(table: &mut Table) {
    crate::runtime().block_on(async {
        let (mut cached, mut own) = (Node::start(&["--pool-memory", "0B"]).await, Node::start(&[]).await);
        let (mut first, mut verified, mut decoded) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..3 {
            let disk = cached.restart().await;
            first.push(read_us(&disk));
            verified.push(read_us(&disk));
            // A second pass would put into its cache what does not fit into memory.
            decoded.push(read_us(&own.restart().await));
        }
        let (first, verified, decoded) = (median(first), median(verified), median(decoded));
        table.row(
            "first 4 KiB read of a cached chunk after a start (time)",
            format!("{first:.0} µs"),
            format!("{verified:.0} µs once it is verified"),
            Some(first / verified),
            "none",
        );
        table.row(
            "first 4 KiB read of a chunk of the node's own share after a start (time)",
            format!("{decoded:.0} µs"),
            format!("{first:.0} µs of a cached chunk"),
            Some(decoded / first),
            "none",
        );
        for load in &LOADS[..2] {
            let pairs: Vec<_> = (0..3).map(|_| (fio(&own.disk, load), fio(&cached.disk, load))).collect();
            let name = format!("{} of the node's own share, 256 MiB (fio)", load.name);
            row_of(table, &name, &pairs, 1e6, "MB/s", "cached", "none");
        }
    });
}

/// A cluster of one node, whose own share has all chunks of a disk. All of the disk was read once.
struct Node {
    cluster: Cluster,
    disk: PathBuf,
}

impl Node {
    async fn start(more: &[&str]) -> Self {
        let mut options = ClusterOptions::files(1).as_processes();
        options.agent.more = more.iter().map(|&text| text.to_owned()).collect();
        let cluster = Cluster::start(options).await;
        let file = cluster.dir.join("image.raw");
        Pattern::striped(73, SIZE, SIZE, SIZE).write(&file);
        cluster.api.import("base", &file).await;
        let disk = deploy(&cluster, "web").await;
        assert_eq!(std::fs::read(&disk).expect("read").len() as u64, SIZE);
        Self { cluster, disk }
    }

    /// Restarts the agent. Returns the disk, opened to read around the kernel's page cache.
    async fn restart(&mut self) -> File {
        let direct = rustix::fs::OFlags::DIRECT.bits().cast_signed();
        self.cluster.kill_agent(0);
        self.cluster.start_agent(0);
        self.cluster.all_ready().await;
        let disk = muster_tests::eventually("the disk is served again", Duration::from_secs(30), async || {
            File::options().read(true).custom_flags(direct).open(&self.disk).map_err(|e| e.to_string())
        });
        disk.await
    }
}

/// Reads one block of each chunk. Returns the mean time of a read in microseconds.
fn read_us(disk: &File) -> f64 {
    const CHUNK: u64 = 256 << 10;
    let mut space = vec![0; 8192];
    let at = space.as_ptr().align_offset(4096);
    let begun = Instant::now();
    for chunk in 0..SIZE / CHUNK {
        disk.read_exact_at(&mut space[at..at + 4096], chunk * CHUNK).expect("read");
    }
    begun.elapsed().as_secs_f64() * 1e6 / (SIZE / CHUNK) as f64
}

/// Deploys one instance. Returns the file that is its disk.
async fn deploy(cluster: &Cluster, name: &str) -> PathBuf {
    let disk = cluster.api.deploy_files(name, "base", 1).await.remove(0);
    disk.disks[0].path.clone().expect("operators see the path").into()
}

async fn written_before(table: &mut Table, cluster: &Cluster) {
    let mount = deploy(cluster, "web").await;
    let raw = cluster.agents[0].dir.join("reference.raw");
    let fill = load("fill", "write", "1m", 4, true);
    for path in [&raw, &mount] {
        let size = Command::new("dd")
            .args(["if=/dev/urandom", "bs=1M", "count=256", "conv=notrunc,fsync", "status=none"])
            .arg(format!("of={}", path.display()))
            .status();
        assert!(size.expect("run dd").success());
        fio(path, &fill);
    }
    for load in &LOADS {
        let pairs: Vec<_> = (0..3).map(|_| (fio(&mount, load), fio(&raw, load))).collect();
        row(table, &format!("{} (fio)", load.name), &pairs, 1e6, "MB/s", load.target);
    }
    for ask in &ASKS {
        for (write, depth) in [(false, 1), (false, 16), (true, 1), (true, 16)] {
            let one = |file| qemu_img(file, ask, write, depth);
            let pairs: Vec<_> = (0..3).map(|_| (one(&mount), one(&raw))).collect();
            let what = format!("{} {}", ask.name, if write { "write" } else { "read" });
            row(table, &format!("{what}, depth {depth} (qemu-img bench)"), &pairs, 1e3, "k/s", ">= 0.7");
        }
    }
}

async fn first_writes(table: &mut Table, cluster: &Cluster) {
    for (number, load) in FIRST_WRITES.iter().enumerate() {
        let mut pairs = Vec::new();
        for round in 0..3 {
            let mount = deploy(cluster, &format!("first-{number}-{round}")).await;
            let raw = cluster.agents[0].dir.join(format!("first-{number}-{round}.raw"));
            File::create(&raw).and_then(|file| file.set_len(SIZE)).expect("a sparse file");
            rustix::fs::sync();
            pairs.push((fio_once(&mount, load), fio_once(&raw, load)));
        }
        row(table, &format!("{} (fio)", load.name), &pairs, 1e6, "MB/s", load.target);
    }
}

fn row(table: &mut Table, what: &str, pairs: &[(f64, f64)], unit: f64, name: &str, target: &str) {
    row_of(table, what, pairs, unit, name, "raw file", target);
}

fn row_of(table: &mut Table, what: &str, pairs: &[(f64, f64)], unit: f64, name: &str, than: &str, target: &str) {
    let of = |pick: fn(&(f64, f64)) -> f64| median(pairs.iter().map(pick).collect());
    let (ours, theirs, ratio) = (of(|p| p.0), of(|p| p.1), of(|p| p.0 / p.1));
    table.row(
        what,
        format!("{:.1} {name}", ours / unit),
        format!("{:.1} {name} {than}", theirs / unit),
        Some(ratio),
        target,
    );
}
