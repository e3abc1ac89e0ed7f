//! What nodes do for the repository: an S3 store in this process, behind the real client, with nodes that put, read, sweep and
//! lose their objects.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{path::PathBuf, sync::Arc, time::Duration};

use muster_agent::{
    controller::scripted::ScriptedController,
    data_disk::{DataDisk, Reserves},
    peer::{
        repository::{Keeper, KeeperParts, KeeperWaits},
        share::PoolShare,
    },
    sweep::{Named, Sweeper},
};
use muster_api::{
    node::RepositoryUse,
    node_protocol::{
        Incarnation,
        repository::RepositoryOrder,
        sweep::{SweepDone, SweepRound},
    },
};
use muster_pool::{
    PoolError, Repository, RepositoryError,
    repository::testing::{TestStore, Trouble},
};
use storage_core::{
    ObjectName, Record,
    repository::{RepositorySettings, WriteMode},
    store::{ChunkStore, MemoryStore},
};
use tokio::{task::JoinSet, time::Instant};

use crate::support::{TestCluster, chunk, eventually, page};

const INCARNATION: Incarnation = Incarnation { number: 1, random: 7 };

/// Nodes with their keepers, and a repository.
pub(crate) struct World {
    pub(crate) store: TestStore,
    pub(crate) cluster: TestCluster,
    pub(crate) shares: Vec<Arc<PoolShare>>,
    controllers: Vec<ScriptedController>,
    pub(crate) keepers: Vec<Arc<Keeper>>,
    pub(crate) waits: KeeperWaits,
    pub(crate) tasks: JoinSet<()>,
    _folders: Vec<tempfile::TempDir>,
}

impl World {
    async fn new(nodes: usize) -> Self {
        Self::over((0..nodes).map(|_| Arc::new(MemoryStore::new()) as Arc<dyn ChunkStore>).collect()).await
    }

    /// Of nodes with these stores.
    pub(crate) async fn over(stores: Vec<Arc<dyn ChunkStore>>) -> Self {
        let nodes = stores.len();
        let folders: Vec<_> = (0..nodes).map(|_| tempfile::tempdir().unwrap()).collect();
        let share = |(folder, store): (&tempfile::TempDir, Arc<dyn ChunkStore>)| {
            let disk = Arc::new(DataDisk::new(folder.path().to_owned(), Reserves::default()));
            Arc::new(PoolShare::new(store, disk))
        };
        let shares: Vec<Arc<PoolShare>> = folders.iter().zip(stores).map(share).collect();
        let stores = shares.iter().map(|share| share.clone() as Arc<dyn ChunkStore>).collect();
        let mut world = Self {
            store: TestStore::start().await,
            cluster: TestCluster::new(stores).await,
            shares,
            controllers: (0..nodes).map(|_| ScriptedController::new()).collect(),
            keepers: Vec::new(),
            waits: KeeperWaits {
                settled: Duration::ZERO,
                list_every: Duration::from_secs(86_400),
                look_every: Duration::from_secs(2),
            },
            tasks: JoinSet::new(),
            _folders: folders,
        };
        for at in 0..nodes {
            let keeper = world.start(at);
            world.keepers.push(keeper);
        }
        world
    }

    pub(crate) fn data_dir(&self, at: usize) -> PathBuf {
        self.cluster.nodes[at].data.path().to_owned()
    }

    pub(crate) fn start(&mut self, at: usize) -> Arc<Keeper> {
        let keeper = Arc::new(Keeper::open(KeeperParts {
            pool: self.cluster.nodes[at].pool.clone(),
            share: self.shares[at].clone(),
            controller: Arc::new(self.controllers[at].clone()),
            data_dir: self.data_dir(at),
            waits: self.waits,
        }));
        let (runs, follows) = (keeper.clone(), keeper.clone());
        self.tasks.spawn(async move { runs.run().await });
        self.tasks.spawn(async move { follows.follow().await });
        keeper
    }

    /// Heartbeats of all nodes are answered with these settings.
    pub(crate) fn order(&self, revision: u64, settings: &RepositorySettings) {
        for (controller, keeper) in self.controllers.iter().zip(&self.keepers) {
            let order = RepositoryOrder { revision, settings: Some(settings.clone()) };
            controller.script(|script| script.repository = Some(order));
            keeper.heard(Some(revision));
        }
    }

    async fn with_order(nodes: usize) -> Self {
        let world = Self::new(nodes).await;
        world.order(1, &world.store.settings());
        for keeper in &world.keepers {
            eventually("the order is heard", || keeper.usage().is_some()).await;
        }
        world
    }

    /// What the nodes together say.
    fn behind(&self) -> (u64, u64) {
        let uses: Vec<RepositoryUse> = self.keepers.iter().filter_map(|keeper| keeper.usage()).collect();
        (uses.iter().map(|u| u.behind.objects).sum(), uses.iter().map(|u| u.unchecked_objects).sum())
    }

    pub(crate) async fn until_all_written(&self, records: &[Record]) {
        eventually("the repository has all", || self.has(records) && self.behind() == (0, 0)).await;
    }

    pub(crate) fn has(&self, records: &[Record]) -> bool {
        let keys = self.store.keys();
        records.iter().all(|record| keys.contains(&self.store.settings().object_key(&record.name())))
    }

    /// Removes these from all nodes.
    fn forget(&self, records: &[Record]) {
        let names: Vec<ObjectName> = records.iter().map(Record::name).collect();
        for share in &self.shares {
            share.remove(u64::MAX, &names).unwrap();
        }
    }
}

fn records(numbers: std::ops::Range<u32>) -> Vec<Record> {
    numbers.flat_map(|n| [chunk(n), page(n)]).collect()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

#[tokio::test]
async fn what_is_put_is_written_behind_once_and_read_when_no_node_has_it() {
    let world = World::with_order(3).await;
    let all = records(0..40);
    world.cluster.client.put(5, all.clone()).await.unwrap();
    world.until_all_written(&all).await;
    // A put that took long goes to one more node. On a loaded machine that one may write it, too.
    let puts = world.store.asked().puts;
    assert!((80..90).contains(&puts), "each once, although there are several copies of each: {puts}");
    let uploaded: Vec<u64> = world.keepers.iter().map(|keeper| keeper.usage().unwrap().uploaded.objects).collect();
    assert!(uploaded.iter().all(|n| *n > 5), "the work is shared: {uploaded:?}");

    world.forget(&all);
    let names: Vec<ObjectName> = all.iter().map(Record::name).collect();
    let reader = &world.cluster.nodes[0].pool;
    let got = reader.get(&names, soon()).await.unwrap();
    assert!(got.iter().zip(&all).all(|(got, record)| got.object == record.verify().unwrap()));
    // A copy of each is at a node again, with its stamp, unless much was under way.
    eventually("something is put back", || all.iter().any(|record| !world.cluster.holders(record).is_empty())).await;
    let back = all.iter().find_map(|record| world.shares.iter().find_map(|s| s.find(&record.name()).unwrap())).unwrap();
    assert_eq!(back.round, 5);
    // One that nobody has is lost, and it is said that all agree.
    let nobody = [page(1000).name()];
    let lost = reader.get(&nobody, Instant::now() + Duration::from_secs(2)).await.unwrap_err();
    assert!(matches!(lost, PoolError::Lost { .. }), "{lost}");
    world.store.set_trouble(Trouble::Status(403));
    let unknown = reader.get(&nobody, Instant::now() + Duration::from_secs(2)).await.unwrap_err();
    assert!(matches!(unknown, PoolError::Unavailable { .. }), "{unknown}");
    assert!(unknown.to_string().contains("the repository refuses the keys"), "{unknown}");
}

#[tokio::test]
async fn while_keys_are_lost_nothing_else_is_and_new_keys_work_without_a_restart() {
    let world = World::with_order(2).await;
    world.store.take_only_key("second-key");
    let all = records(0..20);
    world.cluster.client.put(5, all.clone()).await.unwrap();
    eventually("it is told", || world.keepers.iter().all(|k| k.usage().unwrap().trouble.is_some())).await;
    eventually("all that waits is counted", || world.behind().0 == 40).await;
    let usage = world.keepers[0].usage().unwrap();
    assert!(usage.trouble.unwrap().contains("refuses the keys"));
    assert!(usage.trouble_s.is_some() && usage.oldest_behind_s.is_some() && usage.errors > 0);
    assert!(usage.behind.bytes > 1000);

    let mut settings = world.store.settings();
    settings.keys.access_key_id = "second-key".to_owned();
    world.order(2, &settings);
    world.until_all_written(&all).await;
    assert!(world.keepers.iter().all(|keeper| keeper.usage().unwrap().trouble.is_none()));
}

#[tokio::test]
async fn a_start_without_a_controller_goes_on_where_the_last_one_ended() {
    let mut world = World::with_order(2).await;
    let first = records(0..10);
    world.cluster.client.put(5, first.clone()).await.unwrap();
    world.until_all_written(&first).await;
    let file = world.data_dir(0).join("repository.json");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600, "it has secrets");

    // All processes end. What comes while none runs is found by the pass of the next ones.
    world.tasks.shutdown().await;
    world.keepers.clear();
    let second = records(10..20);
    world.cluster.client.put(6, second.clone()).await.unwrap();
    for at in 0..2 {
        world.cluster.nodes[at].pool.set_repository(None);
        let keeper = world.start(at);
        world.keepers.push(keeper);
    }
    world.until_all_written(&second).await;
    assert_eq!(world.store.asked().puts, 40, "nothing was written twice");
}

#[tokio::test]
async fn a_node_that_is_silent_is_stood_in_for() {
    let world = World::new(3).await;
    let all = records(0..30);
    world.cluster.client.put(5, all.clone()).await.unwrap();
    world.cluster.nodes[2].kill();
    for at in 0..2 {
        let order = RepositoryOrder { revision: 1, settings: Some(world.store.settings()) };
        world.controllers[at].script(|script| script.repository = Some(order));
        world.keepers[at].heard(Some(1));
    }
    let held: Vec<Record> =
        all.iter().filter(|record| world.cluster.holders(record).iter().any(|holder| *holder != 2)).cloned().collect();
    assert!(held.len() > 40);
    eventually("all that somebody has is written", || world.has(&held)).await;
}

#[tokio::test]
async fn a_put_through_is_in_the_repository_when_it_answers_and_is_refused_while_that_fails() {
    let world = World::with_order(2).await;
    let settings = RepositorySettings { write: WriteMode::Through, ..world.store.settings() };
    let repository = Arc::new(Repository::open(settings).unwrap());
    repository.assume_claimed();
    world.cluster.client.set_repository(Some(repository));
    let all = records(0..10);
    world.cluster.client.put(5, all.clone()).await.unwrap();
    assert!(world.has(&all));
    world.store.set_trouble(Trouble::Status(403));
    let refused = world.cluster.client.put(5, records(10..12)).await.unwrap_err();
    assert!(matches!(refused, PoolError::Repository(RepositoryError::Refused(_))), "{refused}");
    assert!(refused.to_string().contains("nothing is published before the repository has it"), "{refused}");
    world.store.set_trouble(Trouble::None);
    world.cluster.client.put(5, records(10..12)).await.unwrap();
    assert!(world.has(&records(10..12)));
}

/// A sweeper per node.
pub(crate) struct Sweepers(Vec<Arc<Sweeper>>);

impl Sweepers {
    pub(crate) async fn start(world: &mut World) -> Self {
        let mut sweepers = Vec::new();
        for at in 0..world.shares.len() {
            let (controller, share) = (Arc::new(world.controllers[at].clone()), world.shares[at].clone());
            let sweeper = Sweeper::new(controller, share, &world.data_dir(at)).with_keeper(world.keepers[at].clone());
            let sweeper = Arc::new(sweeper);
            let runs = sweeper.clone();
            world.tasks.spawn(async move { runs.run().await });
            sweepers.push(sweeper);
        }
        // They listen once they have run for the first time. Agents repeat what they hear.
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        Self(sweepers)
    }

    /// All nodes carry out a round in which nothing needs these.
    pub(crate) async fn round(&self, world: &World, round: u64, unneeded: &[Record]) -> SweepDone {
        let mut names: Vec<ObjectName> = unneeded.iter().map(Record::name).collect();
        names.sort_unstable();
        let mut sum = SweepDone::default();
        for (sweeper, controller) in self.0.iter().zip(&world.controllers) {
            controller.script(|script| {
                script.sweep = Some(SweepRound { round });
                script.dead = names.clone();
                script.unneeded = names.iter().copied().collect();
                script.dead_count_max = 1000;
            });
            sweeper.heard(Some(Named { incarnation: INCARNATION, round: SweepRound { round } }));
            controller.until("the round is done", |s| s.swept.iter().any(|(done, _)| *done == round)).await;
            sweeper.heard(None);
            let done = controller.script(|script| script.swept.last().unwrap().1);
            sum.objects += done.objects;
        }
        sum
    }
}

#[tokio::test]
async fn what_nothing_needs_leaves_the_repository_a_round_later_and_what_is_needed_stays() {
    let mut world = World::with_order(2).await;
    let sweepers = Sweepers::start(&mut world).await;
    let (old, young, needed) = (records(0..10), records(10..15), records(20..25));
    world.cluster.client.put(2, [old.clone(), needed.clone()].concat()).await.unwrap();
    world.cluster.client.put(9, young.clone()).await.unwrap();
    let all = [old.clone(), young.clone(), needed.clone()].concat();
    world.until_all_written(&all).await;

    // The stamps of the young protect them on the nodes, so they stay in the repository, too.
    let unneeded = [old.clone(), young.clone()].concat();
    let done = sweepers.round(&world, 10, &unneeded).await;
    assert_eq!(done.objects, 40, "two copies of 20");
    assert!(world.has(&all), "the repository has all for one more round");
    // One of them is needed again, and one was put again.
    let still: Vec<Record> = old[2..].to_vec();
    world.cluster.client.put(10, vec![old[1].clone()]).await.unwrap();
    sweepers.round(&world, 11, &[still.clone(), young.clone()].concat()).await;
    eventually("what nothing needs is gone", || world.store.objects() == all.len() - still.len()).await;
    assert!(world.has(&old[..2]) && world.has(&young) && world.has(&needed));
    // The young come of age.
    sweepers.round(&world, 12, &young).await;
    sweepers.round(&world, 13, &young).await;
    eventually("they are gone", || world.store.objects() == 2 + needed.len()).await;
    assert!(world.has(&needed));
    // What comes back after it was deleted is written again.
    world.cluster.client.put(14, still.clone()).await.unwrap();
    world.until_all_written(&still).await;
}

#[tokio::test]
async fn a_failing_repository_does_not_hold_up_the_sweep_of_the_nodes() {
    let mut world = World::with_order(2).await;
    let sweepers = Sweepers::start(&mut world).await;
    let all = records(0..6);
    world.cluster.client.put(2, all.clone()).await.unwrap();
    world.until_all_written(&all).await;
    sweepers.round(&world, 10, &all).await;
    world.store.set_trouble(Trouble::Status(403));
    sweepers.round(&world, 11, &all).await;
    assert_eq!(world.store.objects(), all.len());
    world.store.set_trouble(Trouble::None);
    sweepers.round(&world, 12, &all).await;
    eventually("they are gone", || world.store.objects() == 0).await;
}

#[tokio::test]
async fn a_listing_finds_what_is_gone_and_what_leaked() {
    let mut world = World::with_order(2).await;
    let all = records(0..10);
    world.cluster.client.put(2, all.clone()).await.unwrap();
    world.until_all_written(&all).await;
    // Somebody removes one, and an object lies there that no node has.
    let settings = world.store.settings();
    world.store.change(&settings.object_key(&all[3].name()), |_| None);
    let leak = page(500);
    world.store.change(&settings.object_key(&leak.name()), |_| Some(leak.to_bytes().into()));
    world.tasks.shutdown().await;
    world.keepers.clear();
    world.waits.list_every = Duration::from_secs(1);
    for at in 0..2 {
        let keeper = world.start(at);
        world.keepers.push(keeper);
    }
    eventually("it is written again", || world.has(&all[3..4])).await;
    let sweepers = Sweepers::start(&mut world).await;
    let mut round = 20;
    while world.has(std::slice::from_ref(&leak)) {
        assert!(round < 60, "the leak stays");
        sweepers.round(&world, round, std::slice::from_ref(&leak)).await;
        round += 1;
    }
    assert!(world.has(&all));
}

#[tokio::test]
async fn a_damaged_body_is_replaced_by_a_node_that_has_the_object() {
    let world = World::with_order(2).await;
    let all = records(0..5);
    world.cluster.client.put(2, all.clone()).await.unwrap();
    world.until_all_written(&all).await;
    let key = world.store.settings().object_key(&all[0].name());
    world.store.change(&key, |body| body.map(|body| body.slice(..body.len() / 2)));
    let repository = world.cluster.nodes[0].pool.repository().unwrap();
    assert!(repository.get(all[0].name(), soon()).await.unwrap().is_none());
    let mut whole = false;
    for _ in 0..100 {
        whole = repository.get(all[0].name(), soon()).await.unwrap().is_some();
        if whole {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(whole, "it was not replaced");
    assert!(world.keepers[0].usage().unwrap().bad_bodies > 0);
}

#[tokio::test]
async fn a_bad_body_that_no_node_has_is_told_by_its_name_until_it_is_put_again() {
    let world = World::with_order(2).await;
    let all = records(0..5);
    world.cluster.client.put(2, all.clone()).await.unwrap();
    world.until_all_written(&all).await;
    let (bad, gone) = (all[0].clone(), all[2].clone());
    world.forget(&[bad.clone(), gone.clone()]);
    let key = |record: &Record| world.store.settings().object_key(&record.name());
    world.store.change(&key(&bad), |body| body.map(|body| body.slice(..body.len() / 2)));
    world.store.change(&key(&gone), |_| None);
    for record in [&bad, &gone] {
        let read = world.cluster.nodes[0].pool.get(&[record.name()], Instant::now() + Duration::from_secs(2)).await;
        assert!(matches!(read, Err(PoolError::Lost { .. })));
    }
    let mut both = vec![bad.name(), gone.name()];
    both.sort_unstable();
    eventually("both are told", || world.keepers[0].lost() == both).await;
    assert_eq!(world.keepers[0].usage().unwrap().missing_objects, 2);
    world.cluster.client.put(3, vec![bad.clone(), gone.clone()]).await.unwrap();
    // Nodes look again every minute, and sooner when they come across it.
    let again = world.cluster.nodes[0].pool.get(&both, soon()).await.unwrap();
    assert_eq!(again.len(), 2);
}

#[tokio::test]
async fn a_bad_body_is_replaced_by_the_copy_of_another_node_than_the_one_that_read_it() {
    let world = World::with_order(3).await;
    let all = records(0..20);
    world.cluster.client.put(2, all.clone()).await.unwrap();
    world.until_all_written(&all).await;
    let bad = all.iter().find(|record| !world.cluster.holders(record).contains(&0)).unwrap().clone();
    let key = world.store.settings().object_key(&bad.name());
    world.store.change(&key, |body| body.map(|body| body.slice(..body.len() / 2)));
    let repository = world.cluster.nodes[0].pool.repository().unwrap();
    assert!(repository.get(bad.name(), soon()).await.unwrap().is_none());
    let mut whole = false;
    for _ in 0..100 {
        whole = repository.look(bad.name(), soon()).await.unwrap().is_some();
        if whole {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(whole, "it was not replaced");
    assert!(world.keepers[0].lost().is_empty());
}
