//! [`History`]: a cluster, its database, and what holds at every instant.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Instant,
};

use muster_agent::sweep::Named;
use muster_api::node_protocol::{Incarnation, VersionRoot, sweep::SweepRound};
use muster_pool::{PoolError, repository::testing::TestStore};
use storage_core::{
    Descriptor, ObjectName,
    census::{self, Census, Direction},
    power::Random,
    store::ChunkStore as _,
    tree::{Lookup, Page, Reach},
    units::usize_from,
};
use tokio::time::Duration;

use crate::{
    cluster::{Cluster, Extras, MEMORY_BYTES},
    door::{Door, Round},
    folder,
    op::Op,
    rows::{Rows, descriptor},
    times,
};

const INCARNATION: Incarnation = Incarnation { number: 1, random: 7 };
/// Pages counted at a time: few, so that a count takes several steps.
const BATCH_PAGES: usize = 3;

/// The steps of a history, printed when it fails.
pub(crate) struct Log {
    seed: u64,
    steps: Vec<String>,
}

impl Drop for Log {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the history of seed {:#x}:", self.seed);
            for (number, step) in self.steps.iter().enumerate() {
                eprintln!("  {number:>3} {step}");
            }
        }
    }
}

pub(crate) struct History {
    pub(crate) random: Random,
    pub(crate) cluster: Cluster,
    pub(crate) rows: Rows,
    pub(crate) door: Arc<Door>,
    census: Arc<Census>,
    /// The roots of the round that was begun last.
    listed: BTreeSet<ObjectName>,
    /// What each descriptor reaches.
    reached: HashMap<ObjectName, Arc<HashSet<ObjectName>>>,
    log: Log,
    dir: tempfile::TempDir,
}

impl History {
    async fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let nodes = 2 + usize_from(random.below(3));
        let repository = if random.below(5) == 0 { Some(TestStore::start().await) } else { None };
        Self::of_nodes(seed, random, nodes, Extras { memory_bytes: MEMORY_BYTES, repository }).await
    }

    /// One of two nodes, in which nothing happened yet. They cache the objects of their own shares, too.
    pub(crate) async fn of_two(seed: u64) -> Self {
        Self::of_nodes(seed, Random(seed), 2, Extras::default()).await
    }

    /// One of three nodes, in which nothing happened yet.
    pub(crate) async fn of_three(seed: u64) -> Self {
        Self::of_nodes(seed, Random(seed), 3, Extras { memory_bytes: MEMORY_BYTES, repository: None }).await
    }

    async fn of_nodes(seed: u64, mut random: Random, nodes: usize, extras: Extras) -> Self {
        let door = Door::new();
        let cluster = Cluster::new(nodes, &mut random, door.clone(), extras).await;
        let dir = folder::make();
        let census = Arc::new(Census::make(&dir.path().join("sweep.redb"), history()).expect("an index"));
        let rows = Rows::new();
        let log = Log { seed, steps: Vec::new() };
        let (listed, reached) = (BTreeSet::new(), HashMap::new());
        Self { random, cluster, rows, door, census, listed, reached, log, dir }
    }

    /// Runs a history of so many steps, and checks at the end that nothing is lost and nothing is left.
    pub(crate) async fn run(seed: u64, steps_max: usize) {
        let began = Instant::now();
        let mut history = Self::new(seed).await;
        times::note("New", began);
        let steps = 30 + usize_from(history.random.below(120));
        for _ in 0..steps.min(steps_max) {
            let op = Op::choose(&mut history);
            history.note(&op);
            let (kind, began) = (format!("{op:?}"), Instant::now());
            history.step(op).await;
            times::note(&kind, began);
        }
        let began = Instant::now();
        history.end().await;
        times::note("End", began);
        let began = Instant::now();
        drop(history);
        times::note("Drop", began);
    }

    pub(crate) fn note(&mut self, what: &dyn std::fmt::Debug) {
        let text = format!("{what:?}");
        if std::env::var_os("MUSTER_TEST_MODEL_SHOW").is_some() {
            eprintln!("{:>3} {text}", self.log.steps.len());
        }
        self.log.steps.push(text);
    }

    pub(crate) fn live_versions(&self) -> Vec<usize> {
        (0..self.rows.versions.len()).filter(|n| !self.rows.versions[*n].is_deleted).collect()
    }

    /// Disks of members that are on.
    pub(crate) fn usable_disks(&self) -> Vec<usize> {
        let on = self.cluster.on();
        let disks = self.rows.disks.iter().enumerate();
        disks.filter(|(_, disk)| !disk.is_gone && on.contains(&disk.node)).map(|(n, _)| n).collect()
    }

    /// Whether enough nodes are on for a put.
    pub(crate) fn can_put(&self) -> bool {
        self.cluster.with_room().len() >= self.cluster.owning().len().min(2)
    }

    /// Whether the oldest cut of a disk can be stored: the node is on the version that the cut builds on.
    pub(crate) fn can_save(&self, disk: usize) -> bool {
        let row = &self.rows.disks[disk];
        let status = self.cluster.nodes[row.node].process().disks.status(row.want.disk);
        status.is_some_and(|status| status.version == row.want.version)
    }

    /// A node without which all that is needed is still there. What a repository has is there.
    pub(crate) fn expendable(&self, random: &mut Random) -> Option<usize> {
        let on = self.cluster.on();
        let node = on[usize_from(random.below(on.len() as u64))];
        let good: Vec<usize> = self.cluster.good().into_iter().filter(|n| *n != node).collect();
        let has = |name: &ObjectName| good.iter().any(|n| self.cluster.nodes[*n].holds(name).is_some());
        let is_there = || self.cluster.repository.is_some() || self.needed().iter().all(has);
        (!good.is_empty() && is_there()).then_some(node)
    }

    /// All objects that must not be lost.
    pub(crate) fn needed(&self) -> BTreeSet<ObjectName> {
        let roots = self.rows.awaited_roots(&self.listed);
        roots.into_keys().flat_map(|name| self.reached[&name].iter().copied()).collect()
    }

    /// Learns what a root reaches, from the nodes' stores. All of it has to be there.
    pub(crate) fn learn(&mut self, root: &VersionRoot) {
        let descriptor = descriptor(root);
        if self.reached.contains_key(&descriptor.name()) {
            return;
        }
        let on = self.cluster.on();
        let find = |name: &ObjectName| {
            let copies = on.iter().map(|n| self.cluster.nodes[*n].process().share.load(name).expect("reads"));
            Some(Arc::new(Page::decode(&copies.flatten().next()?.body).expect("a page")))
        };
        let mut reach = Reach::new();
        let added = reach.add(&descriptor, &find).expect("the tree is whole");
        assert!(matches!(added, Lookup::Found(())), "pages of a new version are in no pool: {added:?}");
        self.reached.insert(descriptor.name(), Arc::new(reach.names().clone()));
    }

    pub(crate) fn reach(&self, root: &VersionRoot) -> Arc<HashSet<ObjectName>> {
        self.reached[&descriptor(root).name()].clone()
    }

    /// The copies, on nodes whose pool is good, that a sweep must not take: of what roots reach all, of what a live upload
    /// stored those that it stamped.
    pub(crate) fn copies(&self) -> BTreeMap<ObjectName, BTreeSet<usize>> {
        let mut copies: BTreeMap<ObjectName, BTreeSet<usize>> = BTreeMap::new();
        let good = self.cluster.good();
        for (root, from) in self.rows.awaited_roots(&self.listed) {
            for name in self.reached[&root].iter() {
                let holds = |node: &usize| self.cluster.nodes[*node].holds(name).is_some_and(|stamp| stamp >= from);
                copies.entry(*name).or_default().extend(good.iter().copied().filter(holds));
            }
        }
        copies
    }

    pub(crate) fn check_copies_stay(&self, before: &BTreeMap<ObjectName, BTreeSet<usize>>) {
        let now = self.copies();
        for (name, held) in before.iter().filter(|(name, _)| now.contains_key(name)) {
            assert!(held.is_subset(&now[name]), "copies of {name} that is needed went: {held:?}, now {:?}", now[name]);
        }
    }

    /// As [`Self::check_copies_stay`], where copies may have been handed over meanwhile.
    pub(crate) fn check_copies_remain(&self, before: &BTreeMap<ObjectName, BTreeSet<usize>>) {
        let now = self.copies();
        for (name, held) in before.iter().filter(|(name, _)| now.contains_key(name)) {
            let least = held.len().min(self.cluster.owning().len()).min(2);
            if now[name].len() >= least {
                continue;
            }
            // It may have been handed over to a node of which other bits rotted.
            let tainted = self.cluster.on().into_iter().filter(|n| self.cluster.nodes[*n].is_tainted);
            let good = tainted.filter(|n| self.cluster.nodes[*n].process().share.get(name).expect("reads").is_some());
            let good: BTreeSet<usize> = good.chain(now[name].iter().copied()).collect();
            assert!(good.len() >= least, "too few copies of {name} are left: {held:?}, now {good:?}");
        }
    }

    /// Begins the next round and counts it, or goes on with one of which not all is counted. Whether a round is named now.
    pub(crate) async fn begin_round(&mut self) -> bool {
        let progress = self.census.progress().expect("an index");
        let is_broken_off = progress.begun == self.rows.round && progress.finished < progress.begun;
        if !is_broken_off {
            if !self.rows.begin_round() {
                return false;
            }
            if progress.begun == 0 {
                // Nobody knows what died before. Nodes that miss a number ask about all that they have.
                self.rows.begin_round();
            }
        }
        self.door.name(None);
        self.listed = self.rows.roots().into_keys().collect();
        match self.mark().await {
            Ok(()) => {}
            Err(PoolError::Lost { .. }) => {
                // Pages of a version that is not needed any more. Everything is counted anew.
                let file = self.dir.path().join(format!("sweep-{}.redb", self.rows.round));
                self.census = Arc::new(Census::make(&file, history()).expect("an index"));
                return false;
            }
            Err(error) => {
                // They may be on a node that is off. It is tried again.
                assert!(self.cluster.on() != self.cluster.members(), "pages cannot be had: {error}");
                return false;
            }
        }
        let named = Named { incarnation: INCARNATION, round: SweepRound { round: self.rows.round } };
        self.door.name(Some(Round { named, census: self.census.clone(), done: BTreeSet::new() }));
        true
    }

    /// Counts what the roots reach, in the order in which the controller does.
    async fn mark(&self) -> Result<(), PoolError> {
        let (census, roots) = (&self.census, self.rows.roots());
        census.begin(self.rows.round).expect("in order");
        let difference = census.difference(&roots.keys().copied().collect()).expect("an index");
        let entering: Vec<Descriptor> = difference.entering.iter().map(|name| descriptor(&roots[name])).collect();
        census.enter(&entering).expect("an index");
        let entered = self.count(Direction::Enter).await;
        census.leave(&difference.leaving).expect("an index");
        self.count(Direction::Leave).await?;
        if entered.is_err() {
            self.count(Direction::Enter).await?;
        }
        census.finish(self.rows.round).expect("all is counted");
        let needed: Vec<ObjectName> = roots.keys().flat_map(|name| self.reached[name].iter().copied()).collect();
        assert!(census.needed(&needed).expect("an index").iter().all(|needed| *needed), "the count lacks objects");
        Ok(())
    }

    async fn count(&self, direction: Direction) -> Result<(), PoolError> {
        loop {
            let work = self.census.work(direction, BATCH_PAGES).expect("an index");
            if work.is_empty() {
                return Ok(());
            }
            let got = self.cluster.client.get(&work, tokio::time::Instant::now() + Duration::from_secs(1)).await?;
            let pages: Vec<(ObjectName, Page)> =
                got.iter().map(|got| (got.object.name, Page::decode(&got.object.body).expect("a page"))).collect();
            self.census.apply(&pages).expect("the counts agree");
        }
    }

    /// A node carries out the round that is named, if there is one.
    pub(crate) async fn sweep_node(&self, node: usize) {
        let Some(round) = self.door.round().filter(|round| !round.done.contains(&node)) else { return };
        let sweeper = &self.cluster.nodes[node].process().sweeper;
        self.door.until_done(node, || sweeper.heard(Some(round.named))).await;
        sweeper.heard(None);
    }
}

fn history() -> census::History {
    census::History { number: INCARNATION.number, random: INCARNATION.random }
}
