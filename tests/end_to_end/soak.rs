//! A soak: a cluster of processes is used as users and programs do, hour after hour, while random parts of it are killed. Now and
//! then, and at the end, every disk and every version has the bytes that it must have, every object has its copies, and what was
//! deleted is gone.
//!
//! It differs from the torture (`torture/`) in what it waits for: that the pool heals and is given back, with the sweep under way
//! all the time. `MUSTER_TEST_SOAK_S` says how many seconds it takes, `MUSTER_TEST_SOAK_SEED` what happens.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    sync::Arc,
    time::{Duration, Instant},
};

use muster_api::{
    instance::Instance,
    node::Node,
    operation::{Operation, OperationState},
    pool::Pool,
    snapshot::SnapshotMember,
};
use muster_tests::{Cluster, ClusterOptions, eventually};
use rustix::fs::{FallocateFlags, fallocate};
use serde_json::{Value, json};

const MIB: usize = 1 << 20;
const IMAGE: usize = 5 * MIB + 12_345;
const LIMIT: Duration = Duration::from_secs(300);
/// Seconds in a run of all tests.
const SHORT_S: u64 = 45;
const AGENTS: usize = 3;
const DISKS_MAX: usize = 6;
const VERSIONS_MAX: usize = 14;
/// Steps between two looks at everything.
const LOOK_EVERY: u64 = 60;

struct Disk {
    deployment: String,
    path: String,
    bytes: Vec<u8>,
}

struct Version {
    snapshot: String,
    id: String,
    bytes: Arc<Vec<u8>>,
}

struct Soak {
    cluster: Cluster,
    word: u64,
    base: String,
    image: Vec<u8>,
    disks: Vec<Disk>,
    versions: Vec<Version>,
    step: u64,
    kills: u64,
    sweeps: u64,
}

/// What is killed.
#[derive(Clone, Copy, Debug)]
enum Victim {
    Agent(usize),
    Controller,
}

fn written(path: &str, at: usize, data: &[u8]) -> io::Result<()> {
    File::options().write(true).open(path)?.write_all_at(data, at as u64)
}

fn punched(path: &str, at: usize, len: usize) -> io::Result<()> {
    let file = File::options().write(true).open(path)?;
    let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    Ok(fallocate(&file, how, at as u64, len as u64)?)
}

impl Soak {
    async fn start(seed: u64) -> Self {
        let cluster = Cluster::start(ClusterOptions::files(AGENTS).as_processes()).await;
        let mut soak = Self {
            cluster,
            word: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            base: String::new(),
            image: Vec::new(),
            disks: Vec::new(),
            versions: Vec::new(),
            step: 0,
            kills: 0,
            sweeps: 0,
        };
        soak.image = soak.noise(IMAGE);
        soak.image[MIB..2 * MIB].fill(0);
        let file = soak.cluster.dir.join("base.raw");
        fs::write(&file, &soak.image).expect("write the image");
        let version: Value = soak.cluster.api.import("base", &file).await;
        version["id"].as_str().expect("an id").clone_into(&mut soak.base);
        soak
    }

    fn next(&mut self) -> u64 {
        self.word ^= self.word << 13;
        self.word ^= self.word >> 7;
        self.word ^= self.word << 17;
        self.word.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, count: usize) -> usize {
        (self.next() >> 16) as usize % count
    }

    fn noise(&mut self, bytes: usize) -> Vec<u8> {
        let words = std::iter::repeat_with(|| self.next().to_le_bytes());
        words.flatten().take(bytes).collect()
    }

    async fn one_step(&mut self) {
        self.step += 1;
        let what = self.below(100);
        eprintln!("step {} ({what})", self.step);
        match what {
            _ if self.disks.is_empty() => self.deploy().await,
            0..40 => self.write(),
            40..50 => {
                let disk = self.below(self.disks.len());
                self.check_disk(disk).await;
            }
            50..68 if self.versions.len() < VERSIONS_MAX => self.snapshot().await,
            50..76 => self.delete_snapshot().await,
            76..84 if self.disks.len() < DISKS_MAX => self.deploy().await,
            76..84 => self.delete_deployment().await,
            84..90 => self.sweep().await,
            90..94 if !self.versions.is_empty() => {
                let version = self.below(self.versions.len());
                self.check_version(version).await;
            }
            _ => {
                let victim = self.victim();
                self.kill(victim);
                self.recover(victim).await;
            }
        }
    }

    fn write(&mut self) {
        let disk = self.below(self.disks.len());
        for _ in 0..1 + self.below(12) {
            let size = self.disks[disk].bytes.len();
            let at = self.below(size);
            let len = [300, 4096, 9000, 70_000, 300_000][self.below(5)].min(size - at);
            let is_hole = self.below(6) == 0;
            let data = if is_hole { vec![0; len] } else { self.noise(len) };
            let Disk { path, bytes, .. } = &mut self.disks[disk];
            let done = if is_hole { punched(path, at, len) } else { written(path, at, &data) };
            done.unwrap_or_else(|error| panic!("a write to {path} failed: {error}"));
            bytes[at..at + len].copy_from_slice(&data);
        }
    }

    async fn deploy(&mut self) {
        let (version, mut bytes) = match self.versions.len() {
            0 => (self.base.clone(), self.image.clone()),
            some => {
                let n = self.below(some + 1);
                match self.versions.get(n) {
                    Some(version) => (version.id.clone(), version.bytes.as_ref().clone()),
                    None => (self.base.clone(), self.image.clone()),
                }
            }
        };
        bytes.resize(bytes.len().next_multiple_of(4096), 0);
        let (name, count) = (format!("d{}", self.step), 1 + self.below(2));
        let order = json!({ "name": name, "source": { "version": version }, "count": count, "runtime": "none" });
        self.cluster.api.done("/v1/deployments", order, LIMIT).await;
        for member in self.cluster.api.instances(&name).await {
            let path = member.disks[0].path.clone().expect("operators see the path");
            self.disks.push(Disk { deployment: name.clone(), path, bytes: bytes.clone() });
        }
    }

    /// A snapshot of a deployment, in one of three cases with a kill in the middle. Then it may fail, and what it publishes is
    /// right all the same.
    async fn snapshot(&mut self) {
        let disk = self.below(self.disks.len());
        let (deployment, name) = (self.disks[disk].deployment.clone(), format!("s{}", self.step));
        let order = json!({ "name": name, "select": { "deployment": deployment } });
        let begun: Operation = self.cluster.api.post("/v1/snapshots", order).await.ok();
        let is_calm = self.below(3) > 0;
        if !is_calm {
            self.kill_meanwhile().await;
        }
        let ended = self.cluster.api.wait(&begun.id.to_string(), LIMIT).await;
        if ended.state != OperationState::Succeeded {
            assert!(!is_calm, "{ended:#?}\n{}", self.cluster.logs());
            return;
        }
        let instances: Vec<Instance> = self.cluster.api.instances(&deployment).await;
        for member in self.cluster.api.list::<SnapshotMember>(&format!("/v1/snapshots/{name}/members")).await {
            let instance = instances.iter().find(|i| i.id == member.instance).expect("a member");
            let path = instance.disks[0].path.as_ref().expect("a path");
            let disk = self.disks.iter().find(|disk| disk.path == *path).expect("a disk");
            let (id, bytes) = (member.version.expect("it is saved").to_string(), Arc::new(disk.bytes.clone()));
            self.versions.push(Version { snapshot: name.clone(), id, bytes });
        }
    }

    async fn sweep(&mut self) {
        self.sweeps += 1;
        let begun: Operation = self.cluster.api.post("/v1/pools/default/sweep", json!({})).await.ok();
        if self.below(2) == 0 {
            self.kill_meanwhile().await;
        }
        let ended = self.cluster.api.wait(&begun.id.to_string(), LIMIT).await;
        assert_eq!(ended.state, OperationState::Succeeded, "{ended:#?}\n{}", self.cluster.logs());
    }

    fn victim(&mut self) -> Victim {
        match self.below(AGENTS + 1) {
            AGENTS => Victim::Controller,
            agent => Victim::Agent(agent),
        }
    }

    fn kill(&mut self, victim: Victim) {
        eprintln!("kill {victim:?}");
        self.kills += 1;
        match victim {
            Victim::Agent(agent) => self.cluster.kill_agent(agent),
            Victim::Controller => self.cluster.kill_controller(),
        }
    }

    async fn recover(&mut self, victim: Victim) {
        match victim {
            Victim::Agent(agent) => self.cluster.start_agent(agent),
            Victim::Controller => self.cluster.start_controller().await,
        }
        self.served().await;
    }

    /// Waits until all nodes are ready and all disks can be read.
    async fn served(&self) {
        self.cluster.all_ready().await;
        for disk in &self.disks {
            let mut block = [0; 512];
            eventually("the disk is served", LIMIT, async || {
                let read = File::open(&disk.path).and_then(|file| file.read_exact_at(&mut block, 0));
                read.map_err(|error| format!("{}: {error}\n{}", disk.path, self.cluster.logs()))
            })
            .await;
        }
    }

    /// Kills something a moment after work has begun.
    async fn kill_meanwhile(&mut self) {
        let (victim, after) = (self.victim(), self.below(400));
        // Not to wait for anything: work is hit wherever it is.
        tokio::time::sleep(Duration::from_millis(after as u64)).await;
        self.kill(victim);
        self.recover(victim).await;
    }

    async fn delete(&self, path: &str) {
        let answer = self.cluster.api.delete(path).await;
        assert!((200..300).contains(&answer.status), "{path}: {answer:?}");
        if let Some(operation) = answer.body["id"].as_str().filter(|_| answer.status == 202) {
            self.cluster.api.wait(operation, LIMIT).await;
        }
    }

    async fn delete_snapshot(&mut self) {
        if self.versions.is_empty() {
            return;
        }
        let version = self.below(self.versions.len());
        let name = self.versions[version].snapshot.clone();
        self.delete(&format!("/v1/snapshots/{name}")).await;
        self.versions.retain(|version| version.snapshot != name);
    }

    async fn delete_deployment(&mut self) {
        let disk = self.below(self.disks.len());
        let name = self.disks[disk].deployment.clone();
        self.delete(&format!("/v1/deployments/{name}")).await;
        self.disks.retain(|disk| disk.deployment != name);
    }

    async fn check_disk(&self, disk: usize) {
        let Disk { path, bytes, .. } = &self.disks[disk];
        let got = fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}\n{}", self.cluster.logs()));
        assert!(got == *bytes, "{path} has other bytes, from {:?} on", differs(&got, bytes));
    }

    async fn check_version(&self, version: usize) {
        let Version { snapshot, id, bytes } = &self.versions[version];
        let got = self.cluster.api.content(id).await;
        assert!(got == **bytes, "version {id} of {snapshot} has other bytes, from {:?} on", differs(&got, bytes));
    }

    /// Every disk and every version has its bytes.
    async fn check_all(&self) {
        for disk in 0..self.disks.len() {
            self.check_disk(disk).await;
        }
        for version in 0..self.versions.len() {
            self.check_version(version).await;
        }
        assert!(self.cluster.api.content(&self.base).await == self.image, "the image has other bytes");
    }

    /// Every object has its copies, none was ever lost, and nothing is there that nobody can explain.
    async fn check_pool(&mut self) {
        // A start begins with a look at everything; else the next one may come minutes after the last kill.
        for agent in 0..AGENTS {
            self.cluster.stop_agent(agent).expect("it ends in order");
            self.cluster.start_agent(agent);
        }
        self.served().await;
        eventually("nothing to be missing", LIMIT, async || {
            let pool: Pool = self.cluster.api.get("/v1/pools/default").await.ok();
            let nodes = self.cluster.api.list::<Node>("/v1/nodes").await;
            let epochs: Vec<u64> = nodes.iter().filter_map(|node| Some(node.repair?.membership_epoch)).collect();
            let is_one = epochs.len() == AGENTS && epochs.iter().all(|epoch| Some(epoch) == epochs.first());
            let repair = pool.repair;
            let is_done = repair.nodes_done == AGENTS as u64 && repair.unchecked_objects + repair.missing.objects == 0;
            if is_one && is_done { Ok(()) } else { Err(format!("{repair:#?}\n{}", self.cluster.logs())) }
        })
        .await;
        for node in self.cluster.api.list::<Node>("/v1/nodes").await {
            assert_eq!(node.pool.lost_objects, 0, "{node:?}\n{}", self.cluster.logs());
        }
        // A node that began anew knows it once it has carried out a round and looked at its disks.
        self.cluster.api.done("/v1/pools/default/sweep", json!({}), LIMIT).await;
        let unexplained = eventually("to know what is unexplained", LIMIT, async || {
            let summary: Value = self.cluster.api.get("/v1/summary").await.ok();
            summary["unexplained_bytes"].as_u64().ok_or_else(|| format!("{summary:#}\n{}", self.cluster.logs()))
        });
        assert_eq!(unexplained.await, 0, "{}", self.cluster.logs());
    }

    async fn finish(mut self) {
        self.check_all().await;
        self.check_pool().await;
        self.check_all().await;
        while !self.disks.is_empty() {
            self.delete_deployment().await;
        }
        while !self.versions.is_empty() {
            self.delete_snapshot().await;
        }
        self.delete("/v1/images/base").await;
        self.cluster.api.done("/v1/pools/default/sweep", json!({}), LIMIT).await;
        eventually("the pool to be empty", LIMIT, async || {
            let pool: Pool = self.cluster.api.get("/v1/pools/default").await.ok();
            if pool.usage.objects == 0 { Ok(()) } else { Err(format!("{pool:#?}\n{}", self.cluster.logs())) }
        })
        .await;
        for agent in 0..AGENTS {
            self.cluster.stop_agent(agent).expect("it ends in order");
        }
        self.cluster.stop_controller().expect("it ends in order");
    }
}

/// The first byte in which two contents differ.
fn differs(got: &[u8], wanted: &[u8]) -> Option<usize> {
    let differs = got.iter().zip(wanted).position(|(a, b)| a != b);
    differs.or((got.len() != wanted.len()).then(|| got.len().min(wanted.len())))
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, not '{text}'")))
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_whole_and_has_its_copies_after_much_use_and_many_kills() {
    let lasts = Duration::from_secs(setting("MUSTER_TEST_SOAK_S").unwrap_or(SHORT_S));
    let seed = setting("MUSTER_TEST_SOAK_SEED").unwrap_or(1);
    eprintln!("MUSTER_TEST_SOAK_SEED={seed}");
    let begun = Instant::now();
    let mut soak = Soak::start(seed).await;
    while begun.elapsed() < lasts {
        soak.one_step().await;
        if soak.step % LOOK_EVERY == 0 {
            soak.check_all().await;
        }
    }
    let Soak { step, kills, sweeps, .. } = soak;
    soak.finish().await;
    eprintln!("{step} steps, {kills} kills, {sweeps} sweeps in {} s", begun.elapsed().as_secs());
}
