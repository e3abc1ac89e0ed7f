//! What each step does, and what must hold after it.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use muster_agent::mirror::{BareDisk, DiskWant, Saved};
use muster_api::{
    CommitId, DiskId, InstanceId, SnapshotId,
    node_protocol::{CutDisk, CutKey, VersionRoot},
};
use storage_core::{
    BLOCK_BYTES, ObjectName,
    power::Random,
    store::{ChunkStore as _, SimDisk},
    units::{u64_from, usize_from},
};

use crate::{
    cluster::Death,
    content::{export, image, records, written},
    history::History,
    op::Op,
    rows::{Commit, DiskRow, Import, Upload},
};

/// With more epochs in use, a disk is neither cut nor grown.
const EPOCHS_MOST: usize = 3;

impl History {
    pub(crate) async fn step(&mut self, op: Op) {
        match op {
            Op::Import { seed, bytes } => {
                let (upload, bytes) = (self.rows.begin_upload(), image(seed, bytes));
                let root = self.store(upload, &bytes).await;
                self.stored(upload, root, Arc::new(bytes));
            }
            Op::PublishImport(n) => {
                let Import { upload, root, bytes } = self.rows.imports.remove(n);
                if self.rows.is_live(upload) {
                    self.rows.add_version(root, bytes, upload.round);
                }
                self.rows.end_upload(upload);
            }
            Op::DropImport(n) => {
                let import = self.rows.imports.remove(n);
                self.rows.end_upload(import.upload);
            }
            Op::Clone(of) => {
                let version = &self.rows.versions[of];
                let (root, bytes, stamp) = (version.root.clone(), version.bytes.clone(), version.stamp);
                self.rows.add_version(root, bytes, stamp);
            }
            Op::Deploy { version, node } => self.deploy(version, node).await,
            Op::Write { disk, at, len, seed } => {
                let data = written(seed, at, len);
                self.disk(disk).await.write(u64_from(at), data.clone()).await.expect("writes");
                self.rows.disks[disk].bytes[at..at + len].copy_from_slice(&data);
            }
            Op::Zero { disk, at, len } => {
                self.disk(disk).await.zero(u64_from(at), u64_from(len)).await.expect("zeroes");
                self.rows.disks[disk].bytes[at..at + len].fill(0);
            }
            Op::Read { disk, at, len } => self.read(disk, at, len).await,
            Op::Flush(disk) => self.disk(disk).await.flush().await.expect("flushes"),
            Op::Grow { disk, blocks } => {
                self.until_merged(disk).await;
                if self.epochs(disk) >= EPOCHS_MOST {
                    return;
                }
                let row = &mut self.rows.disks[disk];
                row.want.size_bytes += u64_from(blocks) * BLOCK_BYTES;
                let bytes = usize_from(row.want.size_bytes);
                row.bytes.resize(bytes, 0);
                self.disk(disk).await;
            }
            Op::Cut(disk) => self.cut(disk).await,
            Op::Save(disk) => {
                let saved = self.save(disk).await;
                self.saved(disk, saved);
            }
            Op::Publish(disk) => self.publish(disk).await,
            Op::Abandon(disk) => self.abandon(disk).await,
            Op::Expire(disk) => {
                let upload = self.rows.disks[disk].commits[0].upload;
                self.rows.end_upload(upload);
            }
            Op::Follow(disk) => drop(self.disk(disk).await),
            Op::Report(disk) => self.report(disk),
            Op::PutBack { disk, version } => self.put_back(disk, version).await,
            Op::DeleteVersion(version) => self.rows.versions[version].is_deleted = true,
            Op::DeleteDisk(disk) => self.delete_disk(disk).await,
            Op::BeginRead(version) => self.rows.versions[version].readers += 1,
            Op::EndRead(version) => {
                self.check_version(version).await;
                self.rows.versions[version].readers -= 1;
            }
            Op::BeginRound => drop(self.next_round().await),
            Op::SweepNode(node) => {
                let before = self.copies();
                self.sweep_node_in_time(node).await;
                self.check_copies_stay(&before);
            }
            Op::Sweep => {
                self.next_round().await;
                self.sweep_all().await;
            }
            Op::Kill(node, death) => self.cluster.kill(node, death).await,
            Op::Crash { node, changes, seed } => self.crash(node, changes, seed).await,
            Op::Start(node) => self.start(node).await,
            Op::Out(node) => {
                self.cluster.kill(node, Death::Kill).await;
                let others: Vec<usize> = self.cluster.members().into_iter().filter(|n| *n != node).collect();
                self.cluster.admit(&others);
            }
            Op::Return(node) => {
                let mut members = self.cluster.members();
                members.push(node);
                self.cluster.admit(&members);
                self.start(node).await;
            }
            Op::Join => {
                let mut random = self.random.clone();
                let node = self.cluster.add(&mut random).await;
                self.random = random;
                let mut members = self.cluster.members();
                members.push(node);
                self.cluster.admit(&members);
            }
            Op::Rot { node, seed } => self.rot(node, seed),
            Op::Wipe(node) => {
                self.cluster.kill(node, Death::Kill).await;
                self.cluster.nodes[node].pool_disk = SimDisk::new();
                self.cluster.nodes[node].is_full = false;
                self.cluster.nodes[node].was_harmed = true;
                self.cluster.nodes[node].is_tainted = false;
                self.start(node).await;
            }
            Op::Fill { node, bytes } => self.cluster.set_room(node, Some(bytes)),
            Op::Room(node) => self.cluster.set_room(node, None),
            Op::Scrub(node) => self.scrub(node),
            Op::Repair(node) => {
                let before = self.copies();
                self.cluster.nodes[node].process().repair.pass().await;
                self.check_copies_remain(&before);
            }
            Op::Drain(node) => self.cluster.set_accepting(node, false),
            Op::TakeBack(node) => self.cluster.set_accepting(node, true),
            Op::RepairAll => drop(self.repair_all().await),
            Op::Storm { node, save, read, seed } => self.storm(node, save, read, seed).await,
        }
    }

    /// Puts content into the pool. It is nothing's content yet.
    async fn store(&self, upload: Upload, bytes: &[u8]) -> VersionRoot {
        let (records, root) = records(bytes);
        self.cluster.client.put(upload.round, records).await.expect("enough nodes are on");
        root
    }

    fn stored(&mut self, upload: Upload, root: VersionRoot, bytes: Arc<Vec<u8>>) {
        self.learn(&root);
        let all = self.reach(&root);
        self.check_stored(upload, all.iter().copied());
        self.rows.imports.push(Import { upload, root, bytes });
    }

    /// What was stored has enough copies, which the round of its upload protects (I3, I6).
    fn check_stored(&self, upload: Upload, names: impl Iterator<Item = ObjectName>) {
        let on = self.cluster.on();
        let enough = self.cluster.owning().len().min(2);
        for name in names {
            let stamps: Vec<Option<u64>> = on.iter().map(|n| self.cluster.nodes[*n].holds(&name)).collect();
            let copies = stamps.iter().flatten().filter(|stamp| **stamp >= upload.round).count();
            assert!(copies >= enough, "{name} was stored in round {} and has stamps {stamps:?}", upload.round);
        }
    }

    async fn deploy(&mut self, version: usize, node: usize) {
        let of = &self.rows.versions[version];
        let want = DiskWant {
            disk: DiskId::generate(),
            instance: InstanceId::generate(),
            generation: 1,
            since_generation: 0,
            size_bytes: u64_from(of.bytes.len()).next_multiple_of(BLOCK_BYTES),
            version: of.id,
            root: of.root.clone(),
            served: true,
        };
        let mut bytes = of.bytes.as_ref().clone();
        bytes.resize(usize_from(want.size_bytes), 0);
        let (reported, commits, given_up, is_gone) = (version, Vec::new(), Vec::new(), false);
        self.rows.disks.push(DiskRow { want, node, version, reported, bytes, commits, given_up, is_gone });
        self.disk(self.rows.disks.len() - 1).await;
    }

    /// A disk as its node has it, brought to its desired state.
    pub(crate) async fn disk(&self, disk: usize) -> BareDisk {
        let row = &self.rows.disks[disk];
        self.cluster.nodes[row.node].process().disks.bare(&row.want).await.expect("the disk is there")
    }

    /// Epochs of a disk that are in use.
    fn epochs(&self, disk: usize) -> usize {
        let row = &self.rows.disks[disk];
        self.cluster.nodes[row.node].process().disks.epochs(row.want.disk).expect("the disk is there")
    }

    pub(crate) async fn read(&self, disk: usize, at: usize, len: usize) {
        let got = self.disk(disk).await.read(u64_from(at), u64_from(len)).await.expect("reads");
        assert!(got == self.rows.disks[disk].bytes[at..at + len], "disk {disk} has other bytes at {at}+{len}");
    }

    async fn cut(&mut self, disk: usize) {
        self.until_merged(disk).await;
        self.disk(disk).await;
        let row = &self.rows.disks[disk];
        let disks = self.cluster.nodes[row.node].process().disks.clone();
        if self.epochs(disk) >= EPOCHS_MOST {
            return;
        }
        let (key, id) = (CutKey::new(SnapshotId::generate(), 1), CommitId::generate());
        let want = &row.want;
        let cut = CutDisk { instance: want.instance, disk: want.disk, generation: want.generation, commit: id };
        disks.prepare(key, &[cut]).await.expect("prepares");
        disks.hold(key, Duration::from_secs(20)).await.expect("holds");
        disks.flip(key).await.expect("flips");
        let upload = self.rows.begin_upload();
        let row = &mut self.rows.disks[disk];
        row.commits.push(Commit { id, upload, bytes: Arc::new(row.bytes.clone()), saved: None });
    }

    pub(crate) async fn save(&self, disk: usize) -> Saved {
        let row = &self.rows.disks[disk];
        let commit = &row.commits[0];
        let disks = &self.cluster.nodes[row.node].process().disks;
        disks.save(row.want.disk, commit.id, commit.upload.round).await.expect("saves")
    }

    pub(crate) fn saved(&mut self, disk: usize, saved: Saved) {
        let row = &self.rows.disks[disk];
        let (upload, base) = (row.commits[0].upload, self.rows.versions[row.version].root.clone());
        // What an upload stores after its end may be swept at any time.
        if self.rows.is_live(upload) {
            self.learn(&saved.root);
            let (all, of_base) = (self.reach(&saved.root), self.reach(&base));
            self.check_stored(upload, all.difference(&of_base).copied());
        }
        self.rows.disks[disk].commits[0].saved = Some(saved);
    }

    async fn publish(&mut self, disk: usize) {
        let commit = self.rows.disks[disk].commits.remove(0);
        let saved = commit.saved.expect("only what is saved");
        if !self.rows.is_live(commit.upload) {
            self.rows.end_upload(commit.upload);
            self.give_up(disk, commit.id).await;
            return;
        }
        self.rows.end_upload(commit.upload);
        let version = self.rows.add_version(saved.root.clone(), commit.bytes, commit.upload.round);
        let row = &mut self.rows.disks[disk];
        row.version = version;
        row.want = DiskWant { version: self.rows.versions[version].id, root: saved.root, ..row.want.clone() };
        // What later cuts stored built on the version before.
        row.commits.iter_mut().for_each(|commit| commit.saved = None);
    }

    async fn abandon(&mut self, disk: usize) {
        let commit = self.rows.disks[disk].commits.remove(0);
        self.rows.end_upload(commit.upload);
        self.give_up(disk, commit.id).await;
    }

    async fn give_up(&mut self, disk: usize, commit: CommitId) {
        let row = &self.rows.disks[disk];
        let disks = self.cluster.nodes[row.node].process().disks.clone();
        disks.abandon(row.want.disk, commit).await.expect("abandons");
        self.until_merged(disk).await;
    }

    /// Waits until the blocks of abandoned cuts have moved. A process that is killed meanwhile would go on with it here.
    async fn until_merged(&self, disk: usize) {
        let row = &self.rows.disks[disk];
        let disks = &self.cluster.nodes[row.node].process().disks;
        let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
        while disks.is_merging(row.want.disk) {
            assert!(tokio::time::Instant::now() < deadline, "an abandoned epoch does not merge within a minute");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// In one transaction the disk gets the version and the next generation, and nothing is published of what it held.
    async fn put_back(&mut self, disk: usize, version: usize) {
        self.until_merged(disk).await;
        let (id, root, bytes) = {
            let of = &self.rows.versions[version];
            (of.id, of.root.clone(), of.bytes.clone())
        };
        let row = &mut self.rows.disks[disk];
        let generation = row.want.generation + 1;
        row.want = DiskWant { version: id, root, generation, since_generation: generation, ..row.want.clone() };
        row.version = version;
        let size = row.bytes.len();
        row.bytes.clone_from(&bytes);
        row.bytes.resize(size, 0);
        let commits = std::mem::take(&mut row.commits);
        row.given_up.extend(commits.iter().map(|commit| commit.id));
        commits.into_iter().for_each(|commit| self.rows.end_upload(commit.upload));
    }

    fn report(&mut self, disk: usize) {
        let row = &self.rows.disks[disk];
        let status = self.cluster.nodes[row.node].process().disks.status(row.want.disk).expect("it is there");
        let version = self.rows.versions.iter().position(|version| version.id == status.version);
        self.rows.disks[disk].reported = version.expect("it was told of it");
    }

    pub(crate) async fn delete_disk(&mut self, disk: usize) {
        self.until_merged(disk).await;
        let row = &self.rows.disks[disk];
        self.cluster.nodes[row.node].process().disks.remove(row.want.disk).await.expect("removes");
        self.disk_is_gone(disk);
    }

    /// Its row goes, and with it the uploads of its cuts.
    pub(crate) fn disk_is_gone(&mut self, disk: usize) {
        self.rows.disks[disk].is_gone = true;
        for commit in std::mem::take(&mut self.rows.disks[disk].commits) {
            self.rows.end_upload(commit.upload);
        }
    }

    pub(crate) async fn check_version(&self, version: usize) {
        let of = &self.rows.versions[version];
        let got = export(&self.cluster.client, &of.root, of.bytes.len()).await;
        assert!(got == *of.bytes, "version {version} has other bytes");
    }

    /// Begins a round, once all nodes that are on have carried out the one before.
    async fn next_round(&mut self) -> bool {
        if let Some(round) = self.door.round()
            && !self.cluster.on().iter().all(|n| round.done.contains(n) || self.cluster.nodes[*n].is_full)
            && self.random.below(5) > 0
        {
            return false;
        }
        self.begin_round().await
    }

    pub(crate) async fn sweep_all(&self) {
        let before = self.copies();
        self.sweep_nodes().await;
        self.check_copies_stay(&before);
    }

    async fn sweep_nodes(&self) {
        futures::future::join_all(self.cluster.on().into_iter().map(|node| self.sweep_node_in_time(node))).await;
    }

    /// As [`Self::sweep_node`]. A node whose disk is full cannot note what it drops, and does it when there is room again.
    async fn sweep_node_in_time(&self, node: usize) {
        if !self.cluster.nodes[node].is_full {
            self.sweep_node(node).await;
        }
    }

    /// Starts a node. What it lost is what was taken from it, and nothing else.
    async fn start(&mut self, number: usize) {
        self.cluster.start(number).await;
        let node = &self.cluster.nodes[number];
        let lost = node.process().share.losses().lost();
        assert!(node.was_harmed || lost.objects == 0, "node {number} misses objects after a start: {lost:?}");
        for commit in node.process().disks.commits() {
            let rows = self.rows.disks.iter().filter(|row| row.node == number);
            let known =
                rows.flat_map(|row| row.commits.iter().map(|commit| commit.id).chain(row.given_up.iter().copied()));
            let published = self.rows.versions.iter().filter_map(|version| version.root.commit);
            let known: BTreeSet<_> = known.chain(published).collect();
            assert!(known.contains(&commit.1), "node {number} has a cut that it gave up: {commit:?}");
        }
    }

    fn rot(&mut self, number: usize, seed: u64) {
        let mut random = Random(seed);
        let node = &mut self.cluster.nodes[number];
        let files = node.pool_disk.list_now();
        let segments: Vec<&String> = files.iter().filter(|name| !name.contains("index")).collect();
        for _ in 0..if segments.is_empty() { 0 } else { 1 + random.below(4) } {
            let name = segments[usize_from(random.below(segments.len() as u64))];
            let len = node.pool_disk.contents(name).map_or(0, |bytes| bytes.len());
            if len > 0 {
                node.pool_disk.damage(name, random.below(len as u64));
            }
        }
        node.is_tainted = true;
        node.was_harmed = true;
    }

    pub(crate) fn scrub(&mut self, number: usize) {
        let node = &mut self.cluster.nodes[number];
        let share = &node.process().share;
        // Also the copies that are doubted since a start: they count again when they are read.
        for object in share.list_all(None, usize::MAX).expect("the store lists") {
            share.scrub(&object.name).expect("the disk reads");
        }
        share.look_for_losses().expect("writes it down");
        node.is_tainted = false;
    }

    /// Passes until there is nothing left to send, and nothing where it does not belong. Whether that was reached.
    pub(crate) async fn repair_all(&self) -> bool {
        let (on, good) = (self.cluster.on(), self.cluster.good());
        let of = |nodes: &[usize], name: &ObjectName| -> Vec<Option<u64>> {
            nodes.iter().map(|n| self.cluster.nodes[*n].holds(name)).collect()
        };
        let copies = self.copies();
        let before = self.needed().into_iter().map(|name| (name, of(&on, &name), of(&good, &name)));
        let before: Vec<_> = before.collect();
        let is_whole = on == self.cluster.members() && self.cluster.can_settle();
        let mut is_clean = false;
        for pass in 0.. {
            let passes = on.iter().map(|n| self.cluster.nodes[*n].process().repair.pass());
            is_clean = futures::future::join_all(passes).await.iter().all(|clean| *clean);
            if is_clean || !is_whole {
                break;
            }
            assert!(pass < 8, "the repair never ends");
        }
        if is_clean && is_whole {
            self.cluster.close_epochs();
        }
        self.check_copies_remain(&copies);
        for (name, all, before) in before {
            let highest = all.iter().flatten().max();
            for (before, now) in before.iter().zip(of(&good, &name)) {
                // A copy that was made again is not younger than what was known, and one that stays has its stamp or a higher.
                let is_right = now.as_ref() <= highest && (now.is_none() || now >= *before);
                assert!(is_right, "{name} had {before:?} of {all:?} and has {now:?}");
            }
        }
        is_clean && is_whole
    }

    async fn crash(&mut self, node: usize, changes: u64, seed: u64) {
        self.next_round().await;
        let upload = self.rows.begin_upload();
        let bytes = image(seed, 150_000);
        let before = self.copies();
        // A disk that stops does not read either, which the node may have written down before it ends.
        self.cluster.nodes[node].was_harmed = true;
        self.cluster.nodes[node].pool_disk.stop_after(changes);
        let process = self.cluster.nodes[node].process();
        // Whether it gets there is its own affair.
        process.sweeper.heard(self.door.round().map(|round| round.named));
        let (_, root) = tokio::join!(process.repair.pass(), self.store(upload, &bytes));
        self.cluster.kill(node, Death::PowerCut(seed)).await;
        let before = before.into_iter().map(|(name, mut held)| {
            held.remove(&node);
            (name, held)
        });
        self.check_copies_remain(&before.collect());
        // One of the copies may be on the node that is off.
        self.learn(&root);
        self.rows.imports.push(Import { upload, root, bytes: Arc::new(bytes) });
    }

    async fn storm(&mut self, node: usize, save: Option<usize>, read: Option<usize>, seed: u64) {
        self.next_round().await;
        let upload = self.rows.begin_upload();
        let bytes = image(seed, 150_000);
        let before = self.copies();
        let this = &*self;
        let ((), _, saved, (), root) = tokio::join!(
            this.sweep_nodes(),
            this.cluster.nodes[node].process().repair.pass(),
            async {
                match save {
                    Some(disk) => Some((disk, this.save(disk).await)),
                    None => None,
                }
            },
            async {
                if let Some(disk) = read {
                    this.read(disk, 0, this.rows.disks[disk].bytes.len()).await;
                }
            },
            this.store(upload, &bytes),
        );
        self.check_copies_remain(&before);
        self.stored(upload, root, Arc::new(bytes));
        if let Some((disk, saved)) = saved {
            self.saved(disk, saved);
        }
    }
}
