//! Nodes that give up copies of what the repository has: an S3 store in this process, behind the real client.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use muster_api::node::ObjectAmount;
use muster_pool::{Avoided, repository::testing::Trouble};
use storage_core::{
    ObjectName, Record,
    repository::RepositorySettings,
    store::{ChunkStore, MemoryStore, Usage},
};
use tokio::time::Instant;

use crate::{
    pass_on::pass_on,
    repository::{Sweepers, World},
    support::{chunk, page},
};

/// Nodes of a world.
const NODES: usize = 3;
/// Chunks that are put.
const CHUNKS: u32 = 60;
/// The round of the sweep that nodes know. What was put in round 2 has an old stamp then.
const ROUND: u64 = 10;

/// A store whose limit a test sets. It takes whatever it gets.
struct Limited {
    store: MemoryStore,
    limit: AtomicU64,
}

impl ChunkStore for Limited {
    fn usage(&self) -> Usage {
        let limit = self.limit.load(Ordering::SeqCst);
        Usage { limit_bytes: (limit > 0).then_some(limit), ..self.store.usage() }
    }
    pass_on!(store: put touch remove sync get find list take_bad_copies);
}

/// Nodes with old chunks and pages, all of which the repository has.
struct Pool {
    world: World,
    stores: Vec<Arc<Limited>>,
    all: Vec<Record>,
}

impl Pool {
    async fn new() -> Self {
        let limited = |_| Arc::new(Limited { store: MemoryStore::new(), limit: AtomicU64::new(0) });
        let stores: Vec<Arc<Limited>> = (0..NODES).map(limited).collect();
        let world = World::over(stores.iter().map(|store| store.clone() as Arc<dyn ChunkStore>).collect()).await;
        let pool = Self { world, stores, all: (0..CHUNKS).flat_map(|n| [chunk(n), page(n)]).collect() };
        pool.order(1, false);
        for keeper in &pool.world.keepers {
            patiently("the order is heard", || keeper.usage().is_some()).await;
        }
        pool.world.cluster.client.put(2, pool.all.clone()).await.unwrap();
        pool.world.until_all_written(&pool.all).await;
        pool.hear(ROUND);
        pool
    }

    fn order(&self, revision: u64, evict: bool) {
        self.world.order(revision, &RepositorySettings { evict, ..self.world.store.settings() });
    }

    fn hear(&self, round: u64) {
        self.world.cluster.nodes.iter().for_each(|node| node.pool.heard_round(round));
    }

    /// From now on all nodes are full with what they have. Zero: they have no limit.
    fn fill(&self) {
        (0..NODES).for_each(|at| self.fill_one(at));
    }

    fn fill_one(&self, at: usize) {
        let Limited { store, limit } = &*self.stores[at];
        limit.store(store.usage().disk_bytes, Ordering::SeqCst);
    }

    fn has_room(&self) -> bool {
        (0..NODES).all(|at| self.one_has_room(at))
    }

    fn one_has_room(&self, at: usize) -> bool {
        let Limited { store, limit } = &*self.stores[at];
        let limit = limit.load(Ordering::SeqCst);
        store.usage().disk_bytes <= limit - limit / 8
    }

    fn make_room(&self) {
        self.stores.iter().for_each(|store| store.limit.store(0, Ordering::SeqCst));
    }

    fn used(&self) -> Vec<u64> {
        self.stores.iter().map(|store| store.store.usage().objects).collect()
    }

    fn evicted(&self) -> ObjectAmount {
        let uses = self.world.keepers.iter().filter_map(|keeper| keeper.usage()).map(|usage| usage.evicted);
        uses.fold(ObjectAmount::default(), |sum, one| ObjectAmount {
            objects: sum.objects + one.objects,
            bytes: sum.bytes + one.bytes,
        })
    }

    /// All bytes are right, wherever they come from.
    async fn check_reads(&self) {
        let names: Vec<ObjectName> = self.all.iter().map(Record::name).collect();
        let got = self.world.cluster.nodes[1].pool.get(&names, soon()).await.unwrap();
        assert!(got.iter().zip(&self.all).all(|(got, record)| got.object == record.verify().unwrap()));
    }

    /// Ends all keepers, and starts them again over what the nodes have.
    async fn restart(&mut self) {
        self.world.tasks.shutdown().await;
        self.world.keepers.clear();
        for at in 0..NODES {
            self.world.cluster.nodes[at].pool.set_repository(None);
            let keeper = self.world.start(at);
            self.world.keepers.push(keeper);
        }
    }

    /// Sees to it that each node gives something up.
    async fn evict(&self) {
        self.order(2, true);
        self.fill();
        patiently("there is room again", || self.has_room()).await;
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// Waits until `wanted` holds. A listing makes some hundred changes of an index durable.
async fn patiently(what: &str, mut wanted: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(90);
    while !wanted() {
        assert!(Instant::now() < limit, "not within 90 seconds: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A moment in which nothing may happen: the keeper looks every five seconds, and at once when an order comes.
async fn moment() {
    tokio::time::sleep(Duration::from_millis(500)).await;
}

#[tokio::test]
async fn a_node_near_its_limit_gives_up_chunks_that_the_repository_has_and_reads_stay_right() {
    let pool = Pool::new().await;
    let before = pool.used();
    pool.evict().await;
    let (after, evicted) = (pool.used(), pool.evicted());
    let gone: u64 = before.iter().zip(&after).map(|(before, after)| before - after).sum();
    assert!(gone > 0 && after.iter().zip(&before).all(|(after, before)| after < before), "{before:?} {after:?}");
    assert_eq!(evicted.objects, gone, "what went is counted");
    for (n, record) in pool.all.iter().enumerate().filter(|(n, _)| n % 2 == 1) {
        assert_eq!(pool.world.cluster.holders(record).len(), 3, "page {n} has all its copies");
    }
    assert!(pool.world.has(&pool.all), "the repository has all");
    pool.check_reads().await;
    // Not one more than has to go, by much.
    assert!(evicted.objects <= u64::from(CHUNKS) * 2 / 3, "{evicted:?}");
}

#[tokio::test]
async fn nothing_is_given_up_that_is_young_or_is_not_asked_to_be() {
    let pool = Pool::new().await;
    let before = pool.used();
    // Not asked to.
    pool.fill();
    pool.order(2, false);
    moment().await;
    assert_eq!(pool.used(), before);
    // No stamp is old in this round.
    pool.hear(3);
    pool.order(3, true);
    moment().await;
    assert_eq!(pool.used(), before);
    // No round is known.
    pool.hear(0);
    pool.order(4, false);
    pool.order(5, true);
    moment().await;
    assert_eq!((pool.used(), pool.evicted()), (before, ObjectAmount::default()));
}

#[tokio::test]
async fn while_the_repository_is_in_trouble_nothing_is_given_up() {
    let pool = Pool::new().await;
    let before = pool.used();
    pool.world.store.set_trouble(Trouble::Status(403));
    pool.fill();
    pool.order(2, true);
    patiently("it is told", || pool.world.keepers.iter().all(|k| k.usage().unwrap().trouble.is_some())).await;
    assert_eq!(pool.used(), before);
    pool.world.store.set_trouble(Trouble::None);
    patiently("there is room again", || pool.has_room()).await;
    pool.check_reads().await;
}

#[tokio::test]
async fn what_the_repository_lacks_or_has_torn_is_not_given_up() {
    let pool = Pool::new().await;
    // Somebody deletes half of it, and half of a body is no body.
    let chunks: Vec<&Record> = pool.all.iter().step_by(2).collect();
    let (deleted, rest) = chunks.split_at(chunks.len() / 2);
    let (torn, _) = rest.split_at(5);
    let key = |record: &Record| pool.world.store.settings().object_key(&record.name());
    for record in deleted {
        pool.world.store.change(&key(record), |_| None);
    }
    for record in torn {
        pool.world.store.change(&key(record), |body| body.map(|body| body.slice(..body.len() / 2)));
    }
    pool.evict().await;
    // A node that found something gone writes it again, and may give it up then.
    for record in deleted.iter().chain(torn) {
        let is_somewhere = !pool.world.cluster.holders(record).is_empty();
        let is_whole = pool.world.has(std::slice::from_ref(*record));
        assert!(is_somewhere || is_whole);
    }
    assert!(torn.iter().all(|record| pool.world.cluster.holders(record).len() == 2));
    pool.check_reads().await;
}

#[tokio::test]
async fn repair_and_hand_over_take_what_was_given_up_as_present() {
    let pool = Pool::new().await;
    pool.evict().await;
    let mut asked = 0;
    for (at, node) in pool.world.cluster.nodes.iter().enumerate() {
        let held = pool.world.shares[at].list(None, 1000).unwrap();
        asked += held.len();
        let lacking = node.pool.lacking(&held, &Avoided::default()).await;
        assert_eq!(lacking.parcels, [], "node {at} sends nothing");
    }
    assert!(asked > 100);
    // An upload that finds a copy gone stores it again, so what it counts on is on nodes.
    let gone: Vec<Record> =
        pool.all.iter().filter(|record| pool.world.cluster.holders(record).len() < 2).cloned().collect();
    assert!(!gone.is_empty());
    pool.make_room();
    pool.world.cluster.client.put(ROUND, gone.clone()).await.unwrap();
    assert!(gone.iter().all(|record| pool.world.cluster.holders(record).len() == 2));
}

#[tokio::test]
async fn what_was_given_up_is_known_after_a_restart_and_found_again_when_the_index_is_lost() {
    let mut pool = Pool::new().await;
    pool.evict().await;
    let evicted = pool.evicted();
    pool.restart().await;
    let known = |pool: &Pool| pool.world.keepers.iter().all(|keeper| keeper.usage().is_some());
    patiently("all are there", || known(&pool) && pool.evicted() == evicted).await;
    // One comes back while no keeper runs. The first pass finds it.
    let gone = pool.all.iter().find(|record| pool.world.cluster.holders(record).len() < 2).unwrap().clone();
    let holders = pool.world.cluster.holders(&gone).len() as u64;
    pool.world.tasks.shutdown().await;
    pool.make_room();
    pool.world.cluster.client.put(ROUND, vec![gone]).await.unwrap();
    pool.restart().await;
    patiently("it does not count any more", || pool.evicted().objects == evicted.objects - (2 - holders)).await;

    // What only the repository has is found by its keepers. What a node has besides is just missing.
    pool.world.tasks.shutdown().await;
    let nowhere = pool.all.iter().filter(|record| pool.world.cluster.holders(record).is_empty()).count() as u64;
    for at in 0..NODES {
        drop(std::fs::remove_file(pool.world.data_dir(at).join("repository.redb")));
    }
    pool.restart().await;
    patiently("those of no node are found", || pool.evicted().objects == nowhere).await;
    pool.check_reads().await;
}

#[tokio::test]
async fn without_evict_everything_comes_back() {
    let pool = Pool::new().await;
    let before = pool.used();
    pool.evict().await;
    pool.make_room();
    pool.order(3, false);
    patiently("all is back", || pool.used() == before && pool.evicted() == ObjectAmount::default()).await;
    pool.world.store.set_trouble(Trouble::Status(403));
    pool.check_reads().await;
}

#[tokio::test]
async fn what_was_given_up_and_is_dead_leaves_the_repository_a_round_later() {
    let mut pool = Pool::new().await;
    pool.evict().await;
    let sweepers = Sweepers::start(&mut pool.world).await;
    let (dead, needed): (Vec<Record>, Vec<Record>) =
        pool.all.chunks(4).fold((Vec::new(), Vec::new()), |(mut dead, mut needed), four| {
            dead.extend_from_slice(&four[..2]);
            needed.extend_from_slice(&four[2..]);
            (dead, needed)
        });
    assert!(dead.iter().any(|record| pool.world.cluster.holders(record).is_empty()));
    sweepers.round(&pool.world, ROUND, &dead).await;
    assert!(pool.world.has(&pool.all), "the repository has all for one more round");
    assert!(dead.iter().all(|record| pool.world.cluster.holders(record).is_empty()));
    sweepers.round(&pool.world, ROUND + 1, &dead).await;
    patiently("the dead are gone", || pool.world.store.objects() == needed.len()).await;
    assert!(pool.world.has(&needed));
    // No name of the dead is left.
    let held: usize = needed.iter().step_by(2).map(|record| pool.world.cluster.holders(record).len()).sum();
    assert_eq!(pool.evicted().objects, (needed.len() - held) as u64);
}

#[tokio::test]
async fn what_only_a_lost_repository_had_is_told_by_its_name() {
    let pool = Pool::new().await;
    pool.evict().await;
    let nowhere: Vec<&Record> =
        pool.all.iter().filter(|record| pool.world.cluster.holders(record).is_empty()).collect();
    for record in &pool.all {
        pool.world.store.change(&pool.world.store.settings().object_key(&record.name()), |_| None);
    }
    assert!(nowhere.len() > NODES, "some were given up by both nodes");
    // A read of one that a node gave up has it list all, and so finds the others that it gave up.
    for (node, keeper) in pool.world.cluster.nodes.iter().zip(&pool.world.keepers) {
        let evicted = keeper.evicted_after(None, 1000).await;
        let one = evicted.iter().find(|object| nowhere.iter().any(|record| record.name() == object.name));
        // None: it has found out by itself, as it looks for a few of them now and then.
        if let Some(one) = one {
            node.pool.get(&[one.name], Instant::now() + Duration::from_secs(2)).await.unwrap_err();
        }
    }
    let mut told = Vec::new();
    patiently("all are told", || {
        told = pool.world.keepers.iter().flat_map(|keeper| keeper.lost()).collect();
        told.sort_unstable();
        told.dedup();
        told.len() == nowhere.len()
    })
    .await;
    let there: Vec<Record> =
        pool.all.iter().filter(|record| told.binary_search(&record.name()).is_err()).cloned().collect();
    patiently("nodes write again what they have", || pool.world.has(&there)).await;
}

#[tokio::test]
async fn nothing_counts_as_lost_while_the_bucket_is_not_there() {
    let pool = Pool::new().await;
    pool.evict().await;
    let nowhere = pool.all.iter().filter(|record| pool.world.cluster.holders(record).is_empty()).map(Record::name);
    let (nowhere, evicted): (Vec<ObjectName>, _) = (nowhere.collect(), pool.evicted());
    assert!(!nowhere.is_empty(), "some were given up by both nodes");
    pool.world.store.set_trouble(Trouble::NoBucket);
    let soon = Instant::now() + Duration::from_secs(2);
    pool.world.cluster.nodes[0].pool.get(&nowhere[..1], soon).await.unwrap_err();
    // Each node looks for a few of those that it gave up now and then.
    patiently("all nodes are in trouble", || {
        let mut told = pool.world.keepers.iter().map(|keeper| keeper.usage().and_then(|usage| usage.trouble));
        told.all(|told| told.is_some_and(|why| why.contains("NoSuchBucket")))
    })
    .await;
    moment().await;
    assert!(pool.world.keepers.iter().all(|keeper| keeper.lost().is_empty()));
    assert!(pool.evicted().objects >= evicted.objects, "nodes still know what is there");
    pool.world.store.set_trouble(Trouble::None);
    pool.check_reads().await;
}

#[tokio::test]
async fn what_a_lost_repository_had_and_nodes_still_have_is_written_again() {
    let pool = Pool::new().await;
    pool.order(2, true);
    // One node is full. The other copy of each object that it gives up stays.
    pool.fill_one(0);
    patiently("there is room again", || pool.one_has_room(0)).await;
    assert!(pool.evicted().objects > 0);
    assert!(pool.all.iter().all(|record| !pool.world.cluster.holders(record).is_empty()));
    pool.make_room();
    for record in &pool.all {
        pool.world.store.change(&pool.world.store.settings().object_key(&record.name()), |_| None);
    }
    // Nobody reads. The node finds that a few of those that it gave up are gone, and so that the others are, too.
    patiently("all is there again", || pool.world.has(&pool.all)).await;
    assert!(pool.world.keepers.iter().all(|keeper| keeper.lost().is_empty()));
}

#[tokio::test]
async fn nodes_that_gave_nothing_up_notice_that_the_repository_lost_everything() {
    let pool = Pool::new().await;
    for record in &pool.all {
        pool.world.store.change(&pool.world.store.settings().object_key(&record.name()), |_| None);
    }
    patiently("all is there again", || pool.world.has(&pool.all)).await;
}

#[tokio::test]
async fn with_another_repository_what_only_the_one_before_had_is_told_by_its_name() {
    let pool = Pool::new().await;
    pool.evict().await;
    let (nowhere, there): (Vec<Record>, Vec<Record>) =
        pool.all.iter().cloned().partition(|record| pool.world.cluster.holders(record).is_empty());
    let other = RepositorySettings { prefix: "another".to_owned(), evict: true, ..pool.world.store.settings() };
    pool.world.order(7, &other);
    let mut names: Vec<ObjectName> = nowhere.iter().map(Record::name).collect();
    names.sort_unstable();
    patiently("all are told", || {
        let mut told: Vec<ObjectName> = pool.world.keepers.iter().flat_map(|keeper| keeper.lost()).collect();
        told.sort_unstable();
        told.dedup();
        told == names
    })
    .await;
    let has = |record: &Record| pool.world.store.keys().contains(&other.object_key(&record.name()));
    patiently("the new one has the others", || there.iter().all(has)).await;
    assert_eq!(pool.evicted(), ObjectAmount::default());
}
