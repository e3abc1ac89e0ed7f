//! Compares the mount with a raw file on the same disk, as fio and `qemu-img bench` see them.
//!
//! `cargo bench -p muster-agent --bench mirror -- [--dir DIR] [--size-mib 1024] [--seconds 2] [--runs 3] [--json]`
//!
//! Every block was written before. Direct is compared with direct (the delta and both files are opened with O_DIRECT), and
//! buffered with buffered (reads after a warm-up). Runs of both sides alternate, and the ratio is that of the medians. Two
//! more lines show the memory of an idle node, and a commit compared with copying the same bytes twice with a sync each.

use std::{
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use muster_agent::{
    fuse,
    holder::{Holder, Start},
    mirror::{Config, DeltaIo, DiskWant, Disks},
};
use muster_api::{
    ClusterId, CommitId, DiskId, InstanceId, NodeId, SnapshotId, VersionId,
    node_protocol::{CutDisk, CutKey, VersionRoot},
};
use muster_pool::PoolClient;
use storage_core::{
    ByteLen, ChunkSize, Descriptor, MemoryStore, ObjectName, Record, Salt, StoreError,
    store::{BadCopy, ChunkStore, Listed, Options as StoreOptions, PutSummary, SegmentStore, Usage},
};

#[derive(Clone)]
struct Options {
    dir: PathBuf,
    size_mib: u64,
    seconds: u64,
    runs: usize,
    json: bool,
    only: Option<String>,
}

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == "holder") {
        return Ok(muster_agent::holder::main(Path::new(args.get(2).context("--socket PATH")?))?);
    }
    let mut options = Options {
        dir: std::env::current_dir()?.join("target"),
        size_mib: 1024,
        seconds: 2,
        runs: 3,
        json: false,
        only: None,
    };
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--dir" => options.dir = value()?.into(),
            "--size-mib" => options.size_mib = value()?.parse()?,
            "--seconds" => options.seconds = value()?.parse()?,
            "--runs" => options.runs = value()?.parse()?,
            "--only" => options.only = Some(value()?),
            "--json" => options.json = true,
            // Passed by cargo.
            "--bench" => {}
            other => anyhow::bail!("{other} is not an option"),
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut rows = Vec::new();
    if options.only.as_ref().is_none_or(|only| "memory".contains(only.as_str())) {
        rows.push(idle_memory(&runtime, &options)?);
    }
    if options.only.as_ref().is_none_or(|only| "commit".contains(only.as_str())) {
        rows.push(commit(&runtime, &options)?);
    }
    for delta_io in [DeltaIo::Direct, DeltaIo::Buffered] {
        rows.extend(run(&runtime, &options, delta_io)?);
    }
    if options.json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
    }
    Ok(())
}

#[derive(serde::Serialize)]
struct Row {
    what: String,
    mount: f64,
    raw: f64,
    unit: &'static str,
    ratio: f64,
    target: Option<f64>,
}

/// The node under test. Dropping it removes its mounts and ends its holder.
struct Node {
    disks: Arc<Disks>,
    runtime: tokio::runtime::Handle,
    holder: Holder,
    data: tempfile::TempDir,
}

impl Node {
    fn open(
        runtime: &tokio::runtime::Handle,
        dir: &Path,
        delta_io: DeltaIo,
        store: Arc<dyn ChunkStore>,
    ) -> anyhow::Result<Self> {
        let data = tempfile::Builder::new().prefix("muster-bench-").tempdir_in(dir)?;
        let mut config = Config::new(data.path().to_owned(), ClusterId::generate(), NodeId::generate());
        config.delta_io = delta_io;
        let start = Start { program: std::env::current_exe()?, args: vec!["holder".into()], env: Vec::new() };
        let holder = Holder::new(data.path().join("holder.sock"), start);
        let pool = PoolClient::local_only(store);
        let disks = runtime.block_on(fuse::open_disks(config, pool, holder.clone()))?;
        Ok(Self { disks, runtime: runtime.clone(), holder, data })
    }

    fn disk(&self, size_bytes: u64) -> anyhow::Result<(DiskWant, PathBuf)> {
        let descriptor = Descriptor::empty(ByteLen(size_bytes), ChunkSize::DEFAULT, Salt::SHARED);
        let bytes = descriptor.encode();
        let want = DiskWant {
            disk: DiskId::generate(),
            instance: InstanceId::generate(),
            generation: 1,
            size_bytes,
            version: VersionId::generate(),
            root: VersionRoot {
                descriptor: bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
                root_page: None,
                commit: None,
            },
        };
        let status = self.runtime.block_on(self.disks.ensure(&want))?;
        Ok((want, status.path))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.runtime.block_on(self.disks.shutdown());
        if let Err(error) = self.holder.stop() {
            eprintln!("the holder did not stop: {error}");
        }
    }
}

fn run(runtime: &tokio::runtime::Runtime, options: &Options, delta_io: DeltaIo) -> anyhow::Result<Vec<Row>> {
    let node = Node::open(runtime.handle(), &options.dir, delta_io, Arc::new(MemoryStore::new()))?;
    let size = options.size_mib << 20;
    let (_, mount) = node.disk(size)?;
    let raw = node.data.path().join("raw");
    for path in [&mount, &raw] {
        fill(path, size)?;
    }
    let mut rows = Vec::new();
    let mut wanted = |what: String, measure: &dyn Fn(&Path) -> anyhow::Result<f64>, unit, target: Option<f64>| {
        if options.only.as_ref().is_some_and(|only| !what.contains(only.as_str())) {
            return Ok(());
        }
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..options.runs {
            ours.push(measure(&mount)?);
            theirs.push(measure(&raw)?);
        }
        let row = row(what, &mut ours, &mut theirs, unit, target);
        print_row(&row, options.json);
        rows.push(row);
        anyhow::Ok(())
    };
    match delta_io {
        DeltaIo::Direct => {
            for (bs, random) in [("4k", true), ("256k", false)] {
                for op in ["read", "write"] {
                    for depth in [1, 16] {
                        let mode = if random { format!("rand{op}") } else { op.to_owned() };
                        let job = Job { bs, mode: &mode, depth, direct: true, seconds: options.seconds };
                        wanted(
                            format!("fio direct {mode} {bs} qd{depth}"),
                            &|path| fio(path, &job),
                            "IOPS",
                            Some(0.7),
                        )?;
                        wanted(
                            format!("qemu-img bench direct {op} {bs} qd{depth}"),
                            &|path| qemu_img_bench(path, bs, op, depth, size),
                            "IOPS",
                            Some(0.7),
                        )?;
                    }
                }
            }
        }
        DeltaIo::Buffered => {
            for (bs, mode) in [("4k", "randread"), ("256k", "read")] {
                for depth in [1, 16] {
                    let job = Job { bs, mode, depth, direct: false, seconds: options.seconds };
                    wanted(format!("fio buffered {mode} {bs} qd{depth}"), &|path| fio(path, &job), "IOPS", Some(0.7))?;
                }
            }
            for (bs, mode) in [("4k", "randwrite"), ("256k", "write")] {
                let job = Job { bs, mode, depth: 1, direct: false, seconds: options.seconds };
                wanted(format!("fio buffered {mode} {bs} qd1"), &|path| fio(path, &job), "IOPS", None)?;
            }
            wanted(
                "fio buffered randwrite 4k fsync=1".to_owned(),
                &|path| fio_fsync(path, options.seconds),
                "IOPS",
                None,
            )?;
        }
    }
    Ok(rows)
}

fn row(what: String, ours: &mut [f64], theirs: &mut [f64], unit: &'static str, target: Option<f64>) -> Row {
    let (mount, raw) = (median(ours), median(theirs));
    Row { what, mount, raw, unit, ratio: mount / raw, target }
}

fn print_row(row: &Row, json: bool) {
    let target = row.target.map_or(String::new(), |target| format!("  (aim {target})"));
    let line = format!(
        "{:<44} mount {:>12.1}  raw {:>12.1} {:<5} ratio {:>5.2}{target}",
        row.what, row.mount, row.raw, row.unit, row.ratio
    );
    if json { eprintln!("{line}") } else { println!("{line}") }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Writes every block once, with bytes that are not all zero.
fn fill(path: &Path, size: u64) -> anyhow::Result<()> {
    let file = std::fs::File::options().write(true).create(true).truncate(false).open(path)?;
    file.set_len(size)?;
    let mut block: Vec<u8> = (0u32..1 << 18).flat_map(u32::to_le_bytes).collect();
    for at in (0..size).step_by(1 << 20) {
        block[..8].copy_from_slice(&at.to_le_bytes());
        file.write_all_at(&block, at)?;
    }
    file.sync_all()?;
    Ok(())
}

struct Job<'a> {
    bs: &'a str,
    mode: &'a str,
    depth: u32,
    direct: bool,
    seconds: u64,
}

fn fio(path: &Path, job: &Job<'_>) -> anyhow::Result<f64> {
    if !job.direct && job.mode.ends_with("read") {
        // Fill the page cache.
        let mut file = std::fs::File::open(path)?;
        std::io::copy(&mut file, &mut std::io::sink())?;
    }
    fio_with(path, job, &[])
}

fn fio_fsync(path: &Path, seconds: u64) -> anyhow::Result<f64> {
    fio_with(path, &Job { bs: "4k", mode: "randwrite", depth: 1, direct: false, seconds }, &["--fsync=1"])
}

fn fio_with(path: &Path, job: &Job<'_>, more: &[&str]) -> anyhow::Result<f64> {
    let output = Command::new("fio")
        .args(["--name=bench", "--output-format=json", "--time_based", "--norandommap", "--randrepeat=0"])
        .arg(format!("--filename={}", path.display()))
        .arg(format!("--bs={}", job.bs))
        .arg(format!("--rw={}", job.mode))
        .arg(format!("--iodepth={}", job.depth))
        .arg(format!("--direct={}", u8::from(job.direct)))
        .arg(format!("--runtime={}", job.seconds))
        // Like QEMU with io=native. The kernel's FUSE cannot issue requests without blocking, so io_uring would hand each
        // request to a worker thread, which halves the speed at depth 16.
        .arg(format!("--ioengine={}", if job.direct { "libaio" } else { "psync" }))
        .args(if job.direct || job.depth == 1 {
            vec![]
        } else {
            vec![format!("--numjobs={}", job.depth), "--group_reporting".to_owned(), "--thread".to_owned()]
        })
        .args(more)
        .output()
        .context("fio")?;
    ensure!(output.status.success(), "fio: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    // fio may print warnings first.
    let json = &text[text.find('{').context("fio printed no JSON")?..];
    let report: serde_json::Value = serde_json::from_str(json)?;
    let side = if job.mode.ends_with("read") { "read" } else { "write" };
    report["jobs"][0][side]["iops"].as_f64().context("fio printed no IOPS")
}

fn qemu_img_bench(path: &Path, bs: &str, op: &str, depth: u32, size: u64) -> anyhow::Result<f64> {
    let bytes: u64 = if bs == "4k" { 4096 } else { 262_144 };
    // At most one pass over the file, so that both sides do the same work. It takes about a second.
    let count = (size / bytes).min(if depth == 1 { 20_000 } else { 60_000 });
    let mut command = Command::new("qemu-img");
    command.args(["bench", "-f", "raw", "-t", "none", "-i", "native"]);
    command.args(["-c", &count.to_string(), "-d", &depth.to_string(), "-s", &bytes.to_string()]);
    if op == "write" {
        command.arg("-w");
    }
    let output = command.arg(path).output().context("qemu-img")?;
    ensure!(output.status.success(), "qemu-img: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    let seconds = text
        .split("completed in ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next())
        .context("qemu-img printed no time")?;
    #[expect(clippy::cast_precision_loss, reason = "at most 60,000")]
    Ok(count as f64 / seconds.parse::<f64>()?)
}

/// Cuts and saves 15 MB of whole chunks to two real stores on this disk, compared with copying the same bytes to two files
/// with a sync each.
fn commit(runtime: &tokio::runtime::Runtime, options: &Options) -> anyhow::Result<Row> {
    const BYTES: u64 = 60 << 18;
    let folder = tempfile::Builder::new().prefix("muster-bench-").tempdir_in(&options.dir)?;
    let open = |name: &str| SegmentStore::open(&folder.path().join(name), StoreOptions::default());
    for name in ["a", "b"] {
        std::fs::create_dir(folder.path().join(name))?;
    }
    let store = Arc::new(Both([open("a")?, open("b")?]));
    let node = Node::open(runtime.handle(), &options.dir, DeltaIo::Buffered, store)?;
    let (disk, path) = node.disk(1 << 30)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for n in 0..options.runs.max(5) as u64 {
        let bytes: Vec<u8> = (0..BYTES / 8)
            .flat_map(|_| {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                seed.to_le_bytes()
            })
            .collect();
        let file = std::fs::File::options().write(true).open(&path)?;
        file.write_all_at(&bytes, n * BYTES)?;
        file.sync_all()?;
        drop(file);
        let key = CutKey::new(SnapshotId::generate(), 1);
        let cut = CutDisk { instance: disk.instance, disk: disk.disk, generation: 1, commit: CommitId::generate() };
        let started = Instant::now();
        let saved = runtime.block_on(async {
            node.disks.prepare(key, std::slice::from_ref(&cut)).await?;
            node.disks.hold(key, Duration::from_secs(1)).await?;
            node.disks.flip(key).await?;
            node.disks.save(disk.disk, cut.commit, 1).await
        })?;
        ours.push(started.elapsed().as_secs_f64() * 1000.0);
        // Publish, so that the next commit has only its own 15 MB.
        let next = DiskWant { version: VersionId::generate(), root: saved.root, ..disk.clone() };
        runtime.block_on(node.disks.ensure(&next))?;
        let started = Instant::now();
        for copy in ["copy-a", "copy-b"] {
            let file = std::fs::File::create(folder.path().join(copy))?;
            file.write_all_at(&bytes, 0)?;
            file.sync_all()?;
        }
        theirs.push(started.elapsed().as_secs_f64() * 1000.0);
    }
    let row = row("commit of 15 MB in whole chunks / two copies".to_owned(), &mut ours, &mut theirs, "ms", Some(2.0));
    print_row(&row, options.json);
    Ok(row)
}

/// The stores of two nodes. Objects are put into both, in parallel.
struct Both([SegmentStore; 2]);

impl Both {
    fn each<T: Send>(&self, work: impl Fn(&SegmentStore) -> Result<T, StoreError> + Sync) -> Result<T, StoreError> {
        let [a, b] = &self.0;
        std::thread::scope(|scope| {
            let other = scope.spawn(|| work(b));
            let first = work(a);
            other.join().expect("the store does not panic").and(first)
        })
    }
}

impl ChunkStore for Both {
    fn put(&self, round: u64, records: &[Record]) -> Result<PutSummary, StoreError> {
        self.each(|store| store.put(round, records))
    }

    fn touch(&self, round: u64, names: &[ObjectName]) -> Result<Vec<bool>, StoreError> {
        self.each(|store| store.touch(round, names))
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.each(ChunkStore::sync)
    }

    fn get(&self, name: &ObjectName) -> Result<Option<Record>, StoreError> {
        self.0[0].get(name)
    }

    fn contains(&self, name: &ObjectName) -> Result<bool, StoreError> {
        self.0[0].contains(name)
    }

    fn list(&self, after: Option<&ObjectName>, count_max: usize) -> Result<Vec<Listed>, StoreError> {
        self.0[0].list(after, count_max)
    }

    fn usage(&self) -> Usage {
        self.0[0].usage()
    }

    fn take_bad_copies(&self) -> Vec<BadCopy> {
        self.0[0].take_bad_copies()
    }
}

/// Resident memory of this process and of the holder, with ten disks that are not in use.
fn idle_memory(runtime: &tokio::runtime::Runtime, options: &Options) -> anyhow::Result<Row> {
    let node = Node::open(runtime.handle(), &options.dir, DeltaIo::Buffered, Arc::new(MemoryStore::new()))?;
    for _ in 0..10 {
        node.disk(8 << 30)?;
    }
    let own = std::process::id().to_string();
    let mut holders = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let line = std::fs::read(format!("/proc/{name}/cmdline")).unwrap_or_default();
        let socket = node.data.path().join("holder.sock").display().to_string();
        if name != own && String::from_utf8_lossy(&line).contains(&socket) {
            holders.push(name);
        }
    }
    let mut sum = 0.0;
    for pid in holders.iter().chain([&own]) {
        let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = text.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
        sum += line.split_whitespace().nth(1).context("no number")?.parse::<f64>()? / 1024.0;
    }
    let row =
        row(format!("memory with 10 idle disks, {} holder", holders.len()), &mut [sum], &mut [100.0], "MiB", Some(1.0));
    print_row(&row, options.json);
    Ok(row)
}
