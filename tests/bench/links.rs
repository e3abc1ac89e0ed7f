//! What a commit costs over slow links: its time beside that of sending the dirty bytes once, and the time of a snapshot of
//! many members beside that of one.
//!
//! Every agent is a host with a link of a limited rate. In a cluster of two nodes each object goes to both, so the bytes travel
//! once. The reference sends as many bytes from the one host to the other, which writes and syncs them.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use muster_api::instance::Instance;
use muster_tests::{Cluster, ClusterOptions};
use serde_json::json;

use crate::{Table, commit::noise, median};

const LIMIT: Duration = Duration::from_secs(900);
/// Megabits per second, bytes that are dirtied, and how often that is measured.
const COMMITS: [(u32, u64, u64); 5] =
    [(62, 15 << 20, 3), (62, 200 << 20, 1), (250, 15 << 20, 3), (250, 200 << 20, 1), (250, 2 << 30, 1)];
const DISK: u64 = 3 << 30;
const PIECE: u64 = 4 << 20;
const PORT: u16 = 9;
/// Members of the large snapshot, each on a node of its own, and bytes that each of them dirties.
const MEMBERS: usize = 16;
const MEMBERS_MBIT: u32 = 62;
const DIRTY: u64 = 15 << 20;

/// A disk of an instance, and the number of the agent that has it.
struct Disk {
    file: File,
    agent: usize,
}

impl Disk {
    fn of(cluster: &Cluster, instance: &Instance) -> Self {
        let path = PathBuf::from(instance.disks[0].path.clone().expect("operators see the path"));
        let file = File::options().read(true).write(true).open(path).expect("open the disk");
        let node = instance.node_name.clone().expect("operators see the node");
        Self { file, agent: cluster.agent_named(&node) }
    }

    fn dirty(&self, seed: u64, bytes: u64) {
        for at in (0..bytes).step_by(usize::try_from(PIECE).expect("fits")) {
            self.file.write_all_at(&noise(seed + at, PIECE.min(bytes - at)), at).expect("write");
        }
        self.file.sync_all().expect("sync");
    }
}

async fn deploy(cluster: &Cluster, name: &str, count: usize) -> Vec<Disk> {
    let body = json!({
        "name": name, "source": { "image": "base" }, "count": count, "runtime": "none", "disk_bytes": DISK
    });
    cluster.api.done("/v1/deployments", body, LIMIT).await;
    cluster.api.instances(name).await.iter().map(|instance| Disk::of(cluster, instance)).collect()
}

/// The time of a snapshot from the request until it is durable, in seconds.
async fn snapshot(cluster: &Cluster, deployment: &str, name: &str) -> f64 {
    let begun = Instant::now();
    cluster.api.done("/v1/snapshots", json!({ "name": name, "select": { "deployment": deployment } }), LIMIT).await;
    begun.elapsed().as_secs_f64()
}

async fn cluster(agents: usize, mbit_per_s: u32) -> Cluster {
    let cluster = Cluster::start(ClusterOptions::files(agents).with_links(mbit_per_s)).await;
    let image = cluster.dir.join("image.raw");
    std::fs::write(&image, noise(1, 1 << 20)).expect("write the image");
    cluster.api.import("base", &image).await;
    cluster
}

pub(crate) fn run(table: &mut Table) {
    for mbit in [62, 250] {
        crate::runtime().block_on(commits(table, mbit));
    }
}

/// A snapshot of many members beside one of a single member.
pub(crate) fn members(table: &mut Table) {
    crate::runtime().block_on(snapshots(table));
}

async fn commits(table: &mut Table, mbit: u32) {
    let cluster = cluster(2, mbit).await;
    let disk = deploy(&cluster, "web", 1).await.remove(0);
    for (_, bytes, rounds) in COMMITS.into_iter().filter(|(of, ..)| *of == mbit) {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            let seed = bytes * 31 + (round << 40);
            theirs.push(push(&cluster, disk.agent, seed, bytes));
            disk.dirty(seed, bytes);
            ours.push(snapshot(&cluster, "web", &format!("s{bytes}-{round}")).await);
        }
        let (ours, theirs) = (median(ours), median(theirs));
        table.row(
            &format!(
                "commit of {} MB dirty, links of {mbit} Mbit/s, two nodes, POST to durable (time)",
                bytes / 1_000_000
            ),
            format!("{ours:.2} s"),
            format!("{theirs:.2} s sending the bytes once"),
            Some(ours / theirs),
            "<= 1.15",
        );
    }
    let peak = cluster.agent_peak_resident(disk.agent) >> 20;
    let what = format!("the committing agent's memory, at most, links of {mbit} Mbit/s");
    table.row(&what, format!("{peak} MiB"), "-".into(), None, "< 256 MiB");
}

async fn snapshots(table: &mut Table) {
    let cluster = cluster(MEMBERS, MEMBERS_MBIT).await;
    let one = deploy(&cluster, "one", 1).await;
    let all = deploy(&cluster, "all", MEMBERS).await;
    let (mut of_one, mut of_all, mut of_busiest, mut in_use) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let links = cluster.links.as_ref().expect("the cluster has links");
    for round in 0..3 {
        one[0].dirty(round << 32, DIRTY);
        of_one.push(snapshot(&cluster, "one", &format!("one{round}")).await);
        for (number, disk) in (1..).zip(&all) {
            disk.dirty((round << 32) + (number << 40), DIRTY);
        }
        let (before, used) = (links.bytes_by_host(), processor_times());
        of_all.push(snapshot(&cluster, "all", &format!("all{round}")).await);
        let used = processor_times().into_iter().zip(used).map(|(now, then)| now - then).collect::<Vec<u64>>();
        in_use.push(1.0 - used[3] as f64 / used.iter().sum::<u64>() as f64);
        let carried = before.iter().zip(links.bytes_by_host()).map(|(from, to)| (to.0 - from.0).max(to.1 - from.1));
        let most = carried.max().expect("there are hosts");
        of_busiest.push(most as f64 * 8.0 / f64::from(MEMBERS_MBIT) / 1e6);
    }
    let (of_one, of_all, of_busiest, in_use) = (median(of_one), median(of_all), median(of_busiest), median(in_use));
    let what =
        format!("snapshot of {MEMBERS} members on as many nodes, 15 MB dirty each, links of {MEMBERS_MBIT} Mbit/s");
    table.row(
        &format!("{what} (time)"),
        format!("{of_all:.2} s"),
        format!("{of_one:.2} s of one member"),
        Some(of_all / of_one),
        "<= 1.2",
    );
    // Objects do not fall equally on the nodes. No snapshot can be faster than the link that carries most.
    table.row(
        &format!("{what}: the time that the busiest of the links needs for what it carries"),
        format!("{of_busiest:.2} s"),
        format!("{of_one:.2} s of one member"),
        Some(of_busiest / of_one),
        "none",
    );
    table.row(
        &format!("{what}: how much of the processors is in use"),
        format!("{:.0} %", in_use * 100.0),
        "-".into(),
        None,
        "none",
    );
}

/// What the processors of this machine did since it began, in ticks: in programs, in nice programs, in the kernel, nothing, and
/// more.
fn processor_times() -> Vec<u64> {
    let text = std::fs::read_to_string("/proc/stat").expect("the kernel counts it");
    let all = text.lines().next().expect("the first line has all processors");
    all.split_whitespace().skip(1).map(|ticks| ticks.parse().expect("a number")).collect()
}

/// The time to send bytes from the host of an agent to the other host, which writes and syncs them, in seconds.
fn push(cluster: &Cluster, from: usize, seed: u64, bytes: u64) -> f64 {
    let links = cluster.links.as_ref().expect("the cluster has links");
    let own = std::env::current_exe().expect("this program");
    let to = 1 - from;
    let address = SocketAddr::from((links.host(to), PORT)).to_string();
    let (source, copy) = (cluster.dir.join("pushed"), cluster.dir.join("pushed-copy"));
    let data = File::create(&source).expect("create");
    for at in (0..bytes).step_by(usize::try_from(PIECE).expect("fits")) {
        data.write_all_at(&noise(seed + at, PIECE.min(bytes - at)), at).expect("write");
    }
    let side = |host: usize, verb: &str, file: &Path| -> Command {
        let mut command = links.on_host(host, &own);
        command.args([verb, &address]).arg(file).stdout(Stdio::piped());
        command
    };
    let mut receiver = side(to, RECEIVE, &copy).spawn().expect("start the receiver");
    let sent = side(from, SEND, &source).output().expect("run the sender");
    assert!(sent.status.success() && receiver.wait().expect("reap it").success(), "{sent:?}");
    String::from_utf8_lossy(&sent.stdout).trim().parse().expect("the sender prints seconds")
}

const SEND: &str = "--send";
const RECEIVE: &str = "--receive";

/// Does what [`push`] starts this program for on a host. False if the arguments are something else.
pub(crate) fn pushes(arguments: &[String]) -> bool {
    let [verb, address, file] = arguments else { return false };
    let address: SocketAddr = if let Ok(address) = address.parse() { address } else { return false };
    match verb.as_str() {
        SEND => println!("{}", send(address, Path::new(file)).expect("send")),
        RECEIVE => receive(address, Path::new(file)).expect("receive"),
        _ => return false,
    }
    true
}

fn send(address: SocketAddr, file: &Path) -> std::io::Result<f64> {
    let until = Instant::now() + Duration::from_secs(20);
    let mut to = loop {
        match TcpStream::connect(address) {
            Ok(to) => break to,
            // The receiver may not have begun.
            Err(_) if Instant::now() < until => std::thread::sleep(Duration::from_millis(5)),
            Err(error) => return Err(error),
        }
    };
    let begun = Instant::now();
    std::io::copy(&mut File::open(file)?, &mut to)?;
    to.shutdown(std::net::Shutdown::Write)?;
    to.read_exact(&mut [0])?;
    Ok(begun.elapsed().as_secs_f64())
}

fn receive(address: SocketAddr, file: &Path) -> std::io::Result<()> {
    let (mut from, _) = TcpListener::bind(address)?.accept()?;
    let mut to = File::create(file)?;
    std::io::copy(&mut from, &mut to)?;
    to.sync_data()?;
    from.write_all(&[1])
}
