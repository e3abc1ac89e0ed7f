//! The reconciler on a hypervisor in memory with scripted faults, and once for real: a mirrored disk, a mount, libvirt.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    guest_time::GuestTime,
    mirror::world::{self, DataDir, World as Mirrored},
    networks::{self, World, run, told},
    support::{KEY, Versions, bare_instance, deployment, desired, no_networks, own_user},
};
use muster_agent::{
    clock,
    hypervisor::{
        Acceleration, Ending, Hypervisor, HypervisorError, Owner, PauseReason, RunId, domain_xml,
        fake::{FakeAgent, FakeHost, Guests},
        guest_agent,
        libvirt::Libvirt,
    },
    mirror::{DiskError, DiskStatus, DiskWant},
    network::{Networks, tap},
    reconcile::{DiskAccess, Reconciler, ReconcilerParts},
    seed::{files::seed_files, image::image},
};
use muster_api::{
    ClusterId, DiskId, InstanceId, NodeId, Reason, Timestamp, VersionId,
    condition::ConditionKind,
    deployment::{OnReadyTimeout, Probe, Ready, Runtime},
    node_protocol::{
        Assignment, DiskAssignment, GuestLacks, InstanceReport, LeftDisk, Observed, VersionRoot, Wanted,
        network::NicAssignment, seed::Seed,
    },
    peer_protocol::{ExecAnswer, ExecRequest},
};
use serde_json::json;
use storage_core::ChunkSize;

/// Disks that exist as soon as they are asked for, and those for which there is no space: they are not made and do not grow.
/// At last, versions that lack what a disk holds.
#[derive(Clone, Default)]
struct FakeDisks(
    Arc<Mutex<BTreeMap<DiskId, DiskStatus>>>,
    Arc<Mutex<BTreeSet<DiskId>>>,
    Arc<Mutex<BTreeMap<DiskId, VersionId>>>,
);

impl FakeDisks {
    fn access(&self) -> DiskAccess {
        let (ensure, remove, list, list_of) = (self.0.clone(), self.0.clone(), self.0.clone(), self.0.clone());
        let (record_boot, end_boot, remove_saved) = (self.0.clone(), self.0.clone(), self.0.clone());
        let (full, lacking) = (self.1.clone(), self.2.clone());
        DiskAccess {
            ensure: Box::new(move |want| {
                let (mut disks, mut status) = (ensure.lock().unwrap(), status_of(&want));
                let had = disks.get(&want.disk).filter(|had| had.generation >= want.since_generation);
                if let Some(have) = had.map(|had| had.version)
                    && lacking.lock().unwrap().get(&want.disk) == Some(&want.version)
                {
                    let error = DiskError::Diverged { disk: want.disk, have, asked: want.version };
                    return Box::pin(async { Err(error) });
                }
                let no_space = full.lock().unwrap().contains(&want.disk).then_some(DiskError::NoSpace(want.disk));
                let ensured = match (no_space, disks.get(&want.disk).map(|had| had.size_bytes)) {
                    (Some(error), None) => Err(error),
                    (Some(error), Some(size_bytes)) if size_bytes < want.size_bytes => {
                        status.size_bytes = size_bytes;
                        Err(DiskError::NotGrown { disk: want.disk, source: Box::new(error) })
                    }
                    _ => Ok(status.clone()),
                };
                if !matches!(ensured, Err(DiskError::NoSpace(_))) {
                    disks.insert(want.disk, status);
                }
                Box::pin(async move { ensured })
            }),
            remove: Box::new(move |disk| {
                remove.lock().unwrap().remove(&disk);
                Box::pin(async { Ok(()) })
            }),
            remove_saved: Box::new(move |disk| {
                let mut disks = remove_saved.lock().unwrap();
                let status = disks.get_mut(&disk);
                let unsaved = status.map(|status| (status.version, status.unsaved_bytes));
                let removed = match unsaved {
                    Some((version, bytes)) if bytes > 0 => Err(DiskError::Unsaved { disk, version, bytes }),
                    _ => {
                        disks.remove(&disk);
                        Ok(())
                    }
                };
                Box::pin(async { removed })
            }),
            list: Box::new(move || list.lock().unwrap().values().cloned().collect()),
            list_of: Box::new(move |instance| {
                list_of.lock().unwrap().values().filter(|disk| disk.instance == instance).cloned().collect()
            }),
            record_boot: Box::new(move |disk, boot| {
                record_boot.lock().unwrap().get_mut(&disk).unwrap().recorded = Some(boot);
            }),
            end_boot: Box::new(move |disk, boot| {
                let ended = end_boot.lock().unwrap().get_mut(&disk).unwrap().recorded.take();
                assert_eq!(ended, Some(boot));
            }),
        }
    }

    /// Unmounts all disks: what a newly started agent finds.
    fn unmount(&self) {
        self.0.lock().unwrap().values_mut().for_each(|disk| (disk.mounted, disk.reachable) = (false, false));
    }

    /// The start whose first reads of the only disk are recorded.
    fn recorded(&self) -> Option<u64> {
        self.0.lock().unwrap().values().next().and_then(|disk| disk.recorded)
    }
}

fn status_of(want: &DiskWant) -> DiskStatus {
    DiskStatus {
        disk: want.disk,
        instance: want.instance,
        path: PathBuf::from(format!("/nowhere/{}.raw", want.disk)),
        version: want.version,
        root: want.root.clone(),
        generation: want.generation,
        size_bytes: want.size_bytes,
        unsaved_bytes: 0,
        fetched_bytes: 0,
        local_bytes: 0,
        used_bytes: 0,
        mounted: want.served,
        reachable: want.served,
        lost: None,
        recorded: None,
        failed: None,
        clock_off: None,
    }
}

/// A node whose agent can be restarted.
struct Node {
    dir: tempfile::TempDir,
    host: FakeHost,
    owner: Owner,
    disks: FakeDisks,
    networks: Networks,
    versions: Versions,
}

impl Node {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            host: FakeHost::default(),
            owner: Owner { cluster: ClusterId::generate(), node: NodeId::generate() },
            disks: FakeDisks::default(),
            networks: no_networks(),
            versions: Versions::new(),
        }
    }

    fn agent(&self) -> Reconciler {
        self.agent_at(Arc::new(clock::now))
    }

    fn agent_at(&self, now: Arc<dyn Fn() -> Timestamp + Send + Sync>) -> Reconciler {
        self.disks.unmount();
        Reconciler::new(ReconcilerParts {
            data_dir: self.dir.path().to_owned(),
            qemu_user: own_user(),
            disks: self.disks.access(),
            networks: self.networks.clone(),
            hypervisor: Some(Arc::new(self.host.hypervisor(self.owner))),
            helper: world::helper_program(),
            run: RunId::generate(),
            host_boot: "this".to_owned(),
            now,
        })
        .unwrap()
    }

    fn wanted(&mut self, probe: Probe) -> Assignment {
        let version = VersionId::generate();
        self.versions.insert(version, VersionRoot { descriptor: String::new(), root_page: None, commit: None });
        assignment(InstanceId::generate(), DiskId::generate(), version, probe)
    }

    async fn until(&self, agent: &Reconciler, wanted: &Assignment, state: Observed) -> InstanceReport {
        until(agent, &self.versions, wanted, (self.dir.path(), FAKE), |r| r.state == state).await
    }

    async fn ready(&self, agent: &Reconciler, wanted: &Assignment) -> InstanceReport {
        until(agent, &self.versions, wanted, (self.dir.path(), FAKE), is_ready).await
    }

    fn files(&self) -> Vec<PathBuf> {
        let of = |dir: &str| {
            let entries = fs::read_dir(self.dir.path().join(dir)).into_iter().flatten();
            entries.map(|entry| entry.unwrap().path()).collect::<Vec<_>>()
        };
        [of("instances"), of("console"), of("seeds")].concat()
    }
}

fn assignment(instance: InstanceId, disk: DiskId, version: VersionId, probe: Probe) -> Assignment {
    Assignment {
        instance,
        name: "web.1".to_owned(),
        host_name: "web-1".to_owned(),
        memory_bytes: 160 << 20,
        runtime: Runtime::Libvirt,
        ready: Ready { probe, marker: None, timeout_s: Some(240) },
        seed: Some(deployment()),
        ..bare_instance(DiskAssignment {
            disk,
            name: "root".to_owned(),
            size_bytes: 1 << 20,
            version,
            in_guest: true,
            since_generation: 0,
        })
    }
}

fn is_ready(report: &InstanceReport) -> bool {
    report.state == Observed::Running && report.ready_at.is_some()
}

/// Longest wait where no real guest is.
const FAKE: Duration = Duration::from_secs(15);

/// Passes as the agent's loop does, until a report of the wanted start is as expected. Time in which a guest of `folder`
/// waits for a processor does not count for the limit.
async fn until(
    agent: &Reconciler,
    versions: &Versions,
    wanted: &Assignment,
    (folder, limit): (&Path, Duration),
    good: impl Fn(&InstanceReport) -> bool,
) -> InstanceReport {
    let mut changed = agent.changed();
    let mut time = GuestTime::start(folder);
    loop {
        changed.mark_unchanged();
        let report = agent.pass(&desired(std::slice::from_ref(wanted), versions)).await.remove(0);
        assert_eq!((report.instance, report.boot), (wanted.instance, wanted.boot));
        if good(&report) {
            return report;
        }
        assert!(time.used() < limit, "not within {limit:?}: {report:?}");
        let _ = tokio::time::timeout(Duration::from_millis(500), changed.changed()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_runs_once_its_card_is_in_its_network() {
    let mut node = Node::new();
    let on = networks::Node::of(node.owner);
    node.networks = on.networks.clone();
    node.host.set_makes_taps();
    let mut world = World::new("red", 4030, &[&on]);
    let group = world.group();
    let card = world.member(&on, group);
    let mut wanted = node.wanted(Probe::Running);
    wanted.seed = None;
    wanted.nics = vec![NicAssignment { network: world.network.network, mac: card.mac }];
    let agent = node.agent();

    // The controller has said nothing of the network: the guest is not started.
    let failed = |r: &InstanceReport| r.reason == Some(Reason::NetworkFailed);
    let report = until(&agent, &node.versions, &wanted, (node.dir.path(), FAKE), failed).await;
    assert_eq!((report.state, node.host.starts()), (Observed::Preparing, 0));

    on.networks.pass(&told(&[&world], &on));
    node.ready(&agent, &wanted).await;
    let namespace = on.namespace();
    let tap = tap(node.owner.node, card.mac);
    let in_place = || {
        run("ip", &format!("-n {namespace} link show"))
            .lines()
            .any(|line| line.contains(&tap) && line.contains("master br0"))
    };
    assert!(in_place() && node.host.resumes() == 1);
    // It is started again, and its tap is another one.
    wanted.boot = 2;
    node.ready(&agent, &wanted).await;
    assert!(in_place() && node.host.resumes() == 2);

    wanted.wanted = Wanted::Gone;
    node.until(&agent, &wanted, Observed::Gone).await;
    assert!(!in_place());
    on.gone().await;
}

/// Starts these on their nodes at once, and tells how long it takes until all of them are ready.
async fn start_all(nodes: &[Node], agents: &[Reconciler], wanted: &[Vec<Assignment>]) -> Duration {
    let begun = Instant::now();
    let all = nodes.iter().zip(agents).zip(wanted).map(async |((node, agent), wanted)| {
        let mut changed = agent.changed();
        loop {
            changed.mark_unchanged();
            let reports = agent.pass(&desired(wanted, &node.versions)).await;
            let is_up = |one: &&Assignment| reports.iter().any(|r| r.instance == one.instance && is_ready(r));
            let late: Vec<&str> = wanted.iter().filter(|one| !is_up(one)).map(|one| one.name.as_str()).collect();
            if late.is_empty() {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(120), "{} are not ready: {:?}", late.len(), reports.first());
            let _ = tokio::time::timeout(Duration::from_millis(500), changed.changed()).await;
        }
    });
    futures::future::join_all(all).await;
    begun.elapsed()
}

/// Goal: cards do not make mass deployment much slower. The hypervisor is a fake that starts a guest at once; bridges, taps,
/// addresses and rules are real. What is measured beside it is the same without cards, and what the kernel alone takes to move
/// as many taps into a namespace, one after the other. That bounds it, and differs much between machines.
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_guests_with_cards_start_on_three_nodes_at_once() {
    const EACH: [usize; 3] = [34, 33, 33];
    let mut nodes: Vec<Node> = EACH.iter().map(|_| Node::new()).collect();
    let on: Vec<networks::Node> = nodes.iter().map(|node| networks::Node::of(node.owner)).collect();
    let mut world = World::new("red", 4040, &on.iter().collect::<Vec<_>>());
    let group = world.group();
    for (node, on) in nodes.iter_mut().zip(&on) {
        node.networks = on.networks.clone();
        node.host.set_makes_taps();
    }
    let agents: Vec<Reconciler> = nodes.iter().map(Node::agent).collect();
    let mut wanted = |nodes: &mut [Node], cards: bool| -> Vec<Vec<Assignment>> {
        let of = |(n, node): (usize, &mut Node)| {
            let one = |_| {
                let mut one = node.wanted(Probe::Running);
                one.seed = None;
                if cards {
                    let card = world.member(&on[n], group);
                    one.nics = vec![NicAssignment { network: world.network.network, mac: card.mac }];
                }
                one
            };
            (0..EACH[n]).map(one).collect()
        };
        nodes.iter_mut().enumerate().map(of).collect()
    };
    let (bare, with_cards) = (wanted(&mut nodes, false), wanted(&mut nodes, true));
    let without = start_all(&nodes, &agents, &bare).await;
    for on in &on {
        on.networks.pass(&told(&[&world], on));
    }
    let with = start_all(&nodes, &agents, &with_cards).await;
    for (on, count) in on.iter().zip(EACH) {
        let links = run("ip", &format!("-n {} -o link show master br0", on.namespace()));
        assert_eq!(links.lines().filter(|line| line.contains(": mt")).count(), count, "{links}");
    }
    let moves = networks::moving_taps(EACH.iter().sum());
    println!("100 guests ready: {without:?} without cards, {with:?} with; the kernel moves 100 taps in {moves:?}");
    let over = with.saturating_sub(without + moves);
    assert!(over < Duration::from_secs(20), "{over:?} more than that");

    for ((node, agent), mut wanted) in nodes.iter().zip(&agents).zip(with_cards) {
        wanted.iter_mut().for_each(|one| one.wanted = Wanted::Gone);
        for one in &wanted {
            node.until(agent, one, Observed::Gone).await;
        }
    }
    for on in on {
        on.gone().await;
    }
}

/// A database that is older than the disks may name a disk that another instance has by now.
#[tokio::test]
async fn an_instance_that_goes_takes_no_disk_of_another_one_along() {
    let mut node = Node::new();
    let agent = node.agent();
    let (one, mut two) = (node.wanted(Probe::Running), node.wanted(Probe::Running));
    node.ready(&agent, &one).await;
    node.ready(&agent, &two).await;
    two.left = vec![left(&one.disks[0])];
    two.wanted = Wanted::Gone;
    node.until(&agent, &two, Observed::Gone).await;
    let left: Vec<DiskId> = (node.disks.access().list)().iter().map(|disk| disk.disk).collect();
    assert_eq!(left, [one.disks[0].disk]);
}

#[tokio::test]
async fn cutting_the_power_ends_every_guest_of_the_node_and_keeps_what_is_remembered_of_them() {
    let mut node = Node::new();
    let earlier = node.agent();
    let (one, two) = (node.wanted(Probe::Running), node.wanted(Probe::Running));
    node.ready(&earlier, &one).await;
    // The agent was killed, so that one guest belongs to an earlier process.
    let agent = node.agent();
    node.ready(&agent, &two).await;
    assert_eq!(node.host.running().len(), 2);
    let files = node.files().len();
    agent.cut_power().await.unwrap();
    assert_eq!((node.host.running().len(), node.files().len()), (0, files));
    // Nothing is started any more, whatever is wanted.
    agent.pass(&desired(&[one, two], &node.versions)).await;
    agent.cut_power().await.unwrap();
    assert_eq!((node.host.running().len(), node.host.starts()), (0, 2));
}

#[tokio::test]
async fn how_a_guest_ended_or_restarted_is_told_as_it_was() {
    let mut node = Node::new();
    let agent = node.agent();
    let mut wanted = node.wanted(Probe::Running);
    node.ready(&agent, &wanted).await;
    node.host.reboot(wanted.instance);
    let report = node.ready(&agent, &wanted).await;
    assert_eq!(report.reboots, 1);
    // Somebody else cuts its power.
    node.host.end(wanted.instance, Ending::Destroyed);
    let report = node.until(&agent, &wanted, Observed::Stopped).await;
    assert_eq!(report.reason, Some(Reason::PowerCut));
    assert!(report.detail.unwrap().contains("virsh destroy"));
    // A stop that the guest does not obey.
    node.host.set_guests(Guests { obeys: false, ..Guests::default() });
    wanted.boot = 2;
    assert_eq!(node.ready(&agent, &wanted).await.reboots, 0);
    (wanted.wanted, wanted.stop_timeout_s) = (Wanted::Stopped, 0);
    let report = node.until(&agent, &wanted, Observed::Stopped).await;
    assert_eq!(report.reason, Some(Reason::PowerCut));
    assert!(report.detail.unwrap().contains("did not turn itself off"));
    // One that it obeys.
    node.host.set_guests(Guests::default());
    (wanted.wanted, wanted.boot, wanted.stop_timeout_s) = (Wanted::Running, 3, 30);
    node.ready(&agent, &wanted).await;
    wanted.wanted = Wanted::Stopped;
    assert_eq!(node.until(&agent, &wanted, Observed::Stopped).await.reason, None);
}

#[tokio::test]
async fn first_reads_are_recorded_from_each_start_until_some_time_after_the_guest_is_ready() {
    let mut node = Node::new();
    let clock = Arc::new(AtomicI64::new(clock::now().micros()));
    let told = clock.clone();
    let agent = node.agent_at(Arc::new(move || Timestamp::from_micros(told.load(Ordering::SeqCst))));
    let later = |seconds: i64| clock.fetch_add(seconds * 1_000_000, Ordering::SeqCst);
    let mut wanted = node.wanted(Probe::Console);
    node.ready(&agent, &wanted).await;
    later(29);
    node.ready(&agent, &wanted).await;
    assert_eq!(node.disks.recorded(), Some(1));
    later(1);
    node.ready(&agent, &wanted).await;
    assert_eq!(node.disks.recorded(), None, "it has been ready for 30 s");
    // A restart is another start. It ends early when the guest is stopped.
    wanted.boot = 2;
    node.ready(&agent, &wanted).await;
    assert_eq!(node.disks.recorded(), Some(2));
    wanted.wanted = Wanted::Stopped;
    node.until(&agent, &wanted, Observed::Stopped).await;
    assert_eq!(node.disks.recorded(), None);
    // A guest that counts as ready when it runs has not booted by then.
    (wanted.wanted, wanted.boot, wanted.ready.probe) = (Wanted::Running, 3, Probe::Running);
    node.ready(&agent, &wanted).await;
    later(119);
    node.ready(&agent, &wanted).await;
    assert_eq!(node.disks.recorded(), Some(3));
    later(1);
    node.ready(&agent, &wanted).await;
    assert_eq!(node.disks.recorded(), None, "it has run for 120 s");
}

#[tokio::test]
async fn an_instance_lives_and_leaves_nothing() {
    for probe in [Probe::Running, Probe::Console, Probe::GuestAgent] {
        let mut node = Node::new();
        let agent = node.agent();
        let mut wanted = node.wanted(probe);
        let report = node.ready(&agent, &wanted).await;
        assert!(report.disk_at <= report.started_at && report.started_at <= report.ready_at, "{report:?}");
        assert_eq!((report.reason, report.disks.len(), node.host.starts()), (None, 1, 1));

        wanted.wanted = Wanted::Stopped;
        let report = node.until(&agent, &wanted, Observed::Stopped).await;
        assert_eq!((report.reason, node.host.running().len()), (None, 0));

        (wanted.wanted, wanted.boot) = (Wanted::Running, 2);
        node.ready(&agent, &wanted).await;
        // A reboot: a higher number while it runs.
        wanted.boot = 3;
        node.ready(&agent, &wanted).await;
        assert_eq!((node.host.running()[0].boot, node.host.starts()), (3, 3));

        wanted.wanted = Wanted::Gone;
        let report = node.until(&agent, &wanted, Observed::Gone).await;
        assert_eq!((report.disks.len(), node.host.running().len(), node.files()), (0, 0, vec![]));
        assert_eq!(node.disks.0.lock().unwrap().len(), 0);
    }
}

#[tokio::test]
async fn a_slow_instance_never_delays_another() {
    let mut node = Node::new();
    let agent = node.agent();
    let (slow, quick) = (node.wanted(Probe::Console), node.wanted(Probe::Console));
    node.host.hang(slow.instance);
    let both = [slow.clone(), quick];
    let mut changed = agent.changed();
    let started = Instant::now();
    loop {
        changed.mark_unchanged();
        let reports = agent.pass(&desired(&both, &node.versions)).await;
        assert!(!is_ready(&reports[0]));
        if is_ready(&reports[1]) {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(5), "{reports:?}");
        let _ = tokio::time::timeout(Duration::from_millis(500), changed.changed()).await;
    }
    node.host.unhang(slow.instance);
    node.ready(&agent, &slow).await;
}

#[tokio::test]
async fn a_full_disk_pauses_and_goes_on_when_there_is_room() {
    let mut node = Node::new();
    let agent = node.agent();
    let wanted = node.wanted(Probe::Running);
    node.ready(&agent, &wanted).await;
    node.host.pause(wanted.instance, &PauseReason::DiskFull);
    let report = node.until(&agent, &wanted, Observed::Paused).await;
    assert_eq!(report.reason, Some(Reason::DiskFull));
    // It was resumed, and paused again.
    let report = until(&agent, &node.versions, &wanted, (node.dir.path(), Duration::from_secs(10)), |_| {
        node.host.resumes() >= 1
    })
    .await;
    assert_eq!(report.state, Observed::Paused);
    node.host.make_room();
    let report = node.ready(&agent, &wanted).await;
    assert_eq!((report.reason, node.host.starts()), (None, 1));
}

#[tokio::test]
async fn a_guest_whose_disk_waits_for_the_right_time_stays_paused_until_the_clock_is_right() {
    let mut node = Node::new();
    let agent = node.agent();
    let wanted = node.wanted(Probe::Running);
    node.ready(&agent, &wanted).await;
    let set = |why: Option<&str>| {
        node.disks.0.lock().unwrap().values_mut().for_each(|disk| disk.clock_off = why.map(ToOwned::to_owned));
    };
    set(Some("the certificate of node b is valid only in 86400 s by this node's clock"));
    node.host.pause(wanted.instance, &PauseReason::DiskError);
    node.host.make_room();
    for _ in 0..5 {
        let report = node.until(&agent, &wanted, Observed::Paused).await;
        assert_eq!(report.reason, Some(Reason::ClockOff));
        assert!(!report.detail.unwrap().contains("node b"), "tenants read this");
    }
    assert_eq!(node.host.resumes(), 0);
    set(None);
    let report = node.ready(&agent, &wanted).await;
    assert_eq!((report.reason, node.host.resumes(), node.host.starts()), (None, 1, 1));
}

#[tokio::test]
async fn a_disk_that_fails_under_a_guest_is_reported() {
    let mut node = Node::new();
    let agent = node.agent();
    let wanted = node.wanted(Probe::Running);
    assert_eq!(node.ready(&agent, &wanted).await.reason, None);
    node.disks.0.lock().unwrap().values_mut().for_each(|disk| disk.failed = Some("sync of delta 0".to_owned()));
    let report = node.until(&agent, &wanted, Observed::Running).await;
    assert_eq!(report.reason, Some(Reason::DiskFailed));
    assert!(report.detail.unwrap().contains("sync of delta 0"));
}

#[tokio::test]
async fn a_guest_that_ends_by_itself_is_not_started_again() {
    let cases = [
        (Ending::Shutdown, Observed::Stopped, Reason::GuestEnded),
        (Ending::Crashed, Observed::Failed, Reason::GuestCrashed),
    ];
    for (ending, state, reason) in cases {
        let mut node = Node::new();
        let agent = node.agent();
        let mut wanted = node.wanted(Probe::Running);
        node.ready(&agent, &wanted).await;
        node.host.end(wanted.instance, ending);
        let report = node.until(&agent, &wanted, state).await;
        assert_eq!(report.reason.as_ref(), Some(&reason));
        // Not by this agent, and not by the next one.
        drop(agent);
        let agent = node.agent();
        let report = node.until(&agent, &wanted, state).await;
        assert_eq!((report.reason, node.host.starts()), (Some(reason), 1));
        wanted.boot = 2;
        node.ready(&agent, &wanted).await;
    }
}

#[tokio::test]
async fn not_ready_in_time_is_told_and_the_guest_runs_on_unless_it_is_to_be_stopped() {
    let mut node = Node::new();
    node.host.set_guests(Guests { banner: "hello\n".to_owned(), ..Guests::default() });
    let agent = node.agent();
    let mut wanted = node.wanted(Probe::Console);
    wanted.ready.timeout_s = Some(1);
    let folder = (node.dir.path(), FAKE);
    let report = until(&agent, &node.versions, &wanted, folder, |r| r.reason == Some(Reason::NotReady)).await;
    assert_eq!((report.state, report.ready_at), (Observed::Running, None));
    // It is asked on: it was only slow.
    node.host.print(wanted.instance, "MUSTER-READY\n").unwrap();
    let report = node.ready(&agent, &wanted).await;
    assert_eq!((report.reason, report.reboots, node.host.starts()), (None, 0, 1));
    // Where its deployment says so, it is stopped.
    (wanted.boot, wanted.on_ready_timeout) = (2, OnReadyTimeout::Stop);
    let report = node.until(&agent, &wanted, Observed::Failed).await;
    assert_eq!(report.reason, Some(Reason::NotReadyInTime));
    assert_eq!(node.host.running(), []);
}

#[tokio::test]
async fn a_start_that_is_refused_is_tried_again_then_failed() {
    let refusal = |instance| HypervisorError::Refused { what: "start", instance, detail: "no such machine".to_owned() };
    let mut node = Node::new();
    let agent = node.agent();
    let mut wanted = node.wanted(Probe::Running);
    node.host.fail_next("start", refusal(wanted.instance));
    node.ready(&agent, &wanted).await;
    wanted.boot = 2;
    for _ in 0..3 {
        node.host.fail_next("start", refusal(wanted.instance));
    }
    let report = node.until(&agent, &wanted, Observed::Failed).await;
    assert_eq!(report.reason, Some(Reason::StartFailed));
    assert!(report.detail.unwrap().contains("no such machine"));
    wanted.boot = 3;
    node.ready(&agent, &wanted).await;
}

#[tokio::test]
async fn a_killed_agent_takes_its_guests_disks() {
    let mut node = Node::new();
    let agent = node.agent();
    let mut wanted = node.wanted(Probe::Running);
    node.ready(&agent, &wanted).await;
    drop(agent);
    let agent = node.agent();
    let report = node.until(&agent, &wanted, Observed::Failed).await;
    assert_eq!(report.reason, Some(Reason::DiskLost));
    assert_eq!(node.host.running(), []);
    wanted.boot = 2;
    node.ready(&agent, &wanted).await;
}

#[tokio::test]
async fn an_agent_that_ends_takes_its_guests_along_and_brings_them_back() {
    let mut node = Node::new();
    let agent = node.agent();
    let wanted = node.wanted(Probe::Running);
    node.ready(&agent, &wanted).await;
    let last = agent.stop_guests(&desired(std::slice::from_ref(&wanted), &node.versions), Duration::from_secs(5)).await;
    assert_eq!((last[0].state, &last[0].reason), (Observed::Stopped, &Some(Reason::AgentStopped)));
    assert_eq!(node.host.running(), []);
    // Nothing is started while it ends.
    agent.pass(&desired(std::slice::from_ref(&wanted), &node.versions)).await;
    drop(agent);
    assert_eq!(node.host.starts(), 1);
    let agent = node.agent();
    node.ready(&agent, &wanted).await;
    assert_eq!(node.host.starts(), 2);
}

/// What guest agents tell is asked beside all else, and reported when it is news.
#[tokio::test]
async fn what_a_guest_agent_tells_is_reported_while_its_guest_runs() {
    let mut node = Node::new();
    let mut agents = FakeAgent::default();
    agents.answers.insert("guest-info", json!({ "version": "7.2.11", "supported_commands": [] }));
    agents.answers.insert("guest-get-osinfo", json!({ "id": "debian", "pretty-name": "Debian\u{1b}[31m 12" }));
    agents.answers.insert("guest-get-host-name", json!({ "host-name": "web-1" }));
    node.host.set_guest_agents(agents);
    let agent = node.agent();
    let mut wanted = node.wanted(Probe::GuestAgent);
    let told = until(&agent, &node.versions, &wanted, (node.dir.path(), FAKE), |r| r.guest.is_some()).await;
    let guest = told.guest.unwrap();
    assert!(guest.answers);
    assert_eq!((guest.agent_version.as_deref(), guest.host_name.as_deref()), (Some("7.2.11"), Some("web-1")));
    let os = guest.os.unwrap();
    assert_eq!((os.id.as_deref(), os.name.as_deref()), (Some("debian"), Some("Debian[31m 12")));
    // Nobody asks again soon.
    let asked = || {
        node.host.guest_agent(wanted.instance, |agent| {
            agent.got.iter().filter(|command| command["execute"] == "guest-info").count()
        })
    };
    let before = asked();
    for _ in 0..20 {
        node.ready(&agent, &wanted).await;
    }
    assert!(asked() <= before + 1, "{before}, {}", asked());
    wanted.wanted = Wanted::Stopped;
    assert_eq!(node.until(&agent, &wanted, Observed::Stopped).await.guest, None);
    // One without a guest agent tells nothing, and is ready by another probe.
    node.host.set_guests(Guests { agent: false, ..Guests::default() });
    (wanted.wanted, wanted.boot, wanted.ready.probe) = (Wanted::Running, 2, Probe::Running);
    assert_eq!(node.ready(&agent, &wanted).await.guest, None);
}

#[tokio::test]
async fn a_guest_that_does_not_stop_loses_its_power_after_the_timeout() {
    let mut node = Node::new();
    node.host.set_guests(Guests { obeys: false, ..Guests::default() });
    let agent = node.agent();
    let mut wanted = node.wanted(Probe::Running);
    node.ready(&agent, &wanted).await;
    (wanted.wanted, wanted.stop_timeout_s) = (Wanted::Stopped, 1);
    let asked = Instant::now();
    let report = node.until(&agent, &wanted, Observed::Stopping).await;
    assert_eq!(report.reason, None);
    node.until(&agent, &wanted, Observed::Stopped).await;
    assert!(asked.elapsed() >= Duration::from_millis(900), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn a_silent_hypervisor_proves_nothing() {
    let mut node = Node::new();
    let agent = node.agent();
    let mut wanted = node.wanted(Probe::Running);
    node.ready(&agent, &wanted).await;
    wanted.wanted = Wanted::Gone;
    node.host.fail_next("list", HypervisorError::Unavailable { uri: "x".to_owned(), detail: "gone".to_owned() });
    let report = agent.pass(&desired(std::slice::from_ref(&wanted), &node.versions)).await.remove(0);
    assert_eq!((report.state, report.reason), (Observed::Stopping, Some(Reason::HypervisorSilent)));
    assert!(agent.hypervisor_trouble().unwrap().contains("gone"));
    assert_eq!((node.disks.0.lock().unwrap().len(), node.host.running().len()), (1, 1));
    node.until(&agent, &wanted, Observed::Gone).await;
    assert_eq!(agent.hypervisor_trouble(), None);
}

/// A clock that a test can put forward.
#[derive(Clone, Default)]
struct Ahead(Arc<AtomicI64>);

impl Ahead {
    fn now(&self) -> Arc<dyn Fn() -> Timestamp + Send + Sync> {
        let ahead = self.0.clone();
        Arc::new(move || clock::now().plus_ms(ahead.load(Ordering::SeqCst)))
    }

    fn put_forward(&self, seconds: i64) {
        self.0.fetch_add(seconds * 1000, Ordering::SeqCst);
    }
}

fn is_silent(report: &InstanceReport) -> bool {
    report.conditions.iter().any(|condition| condition.kind == ConditionKind::GuestSilent)
}

#[tokio::test]
async fn a_guest_that_does_nothing_for_a_minute_has_a_condition_until_it_does_something() {
    let mut node = Node::new();
    let ahead = Ahead::default();
    let agent = node.agent_at(ahead.now());
    node.host.set_guests(Guests { banner: String::new(), ..Guests::default() });
    let mut wanted = node.wanted(Probe::Running);
    assert!(!is_silent(&node.ready(&agent, &wanted).await));
    ahead.put_forward(61);
    let report = node.ready(&agent, &wanted).await;
    assert!(is_silent(&report) && report.state == Observed::Running, "{report:?}");
    node.host.print(wanted.instance, "GRUB").unwrap();
    assert!(!is_silent(&node.ready(&agent, &wanted).await));
    // A start that only uses its disk is alive as well.
    wanted.boot = 2;
    node.ready(&agent, &wanted).await;
    ahead.put_forward(61);
    assert!(is_silent(&node.ready(&agent, &wanted).await));
    node.disks.0.lock().unwrap().values_mut().for_each(|disk| disk.used_bytes = 2 << 20);
    assert!(!is_silent(&node.ready(&agent, &wanted).await));
}

#[tokio::test]
async fn a_hypervisor_that_was_silent_and_is_slow_since_is_used_again() {
    let mut node = Node::new();
    let agent = node.agent();
    let wanted = node.wanted(Probe::Running);
    node.host.fail_next("list", HypervisorError::Unavailable { uri: "x".to_owned(), detail: "gone".to_owned() });
    node.host.set_list_takes(Duration::from_millis(700));
    let report = agent.pass(&desired(std::slice::from_ref(&wanted), &node.versions)).await.remove(0);
    assert_eq!((report.state, report.reason), (Observed::Preparing, Some(Reason::HypervisorSilent)));
    let asked = Instant::now();
    agent.pass(&desired(std::slice::from_ref(&wanted), &node.versions)).await;
    assert!(asked.elapsed() < Duration::from_millis(600), "a pass does not wait for it: {:?}", asked.elapsed());
    node.ready(&agent, &wanted).await;
}

#[tokio::test]
async fn an_instance_that_the_controller_does_not_name_is_left_alone_and_reported_as_it_was_told() {
    let mut node = Node::new();
    let agent = node.agent();
    let wanted = node.wanted(Probe::Running);
    node.ready(&agent, &wanted).await;
    let report = agent.pass(&desired(&[], &Versions::new())).await.remove(0);
    assert_eq!((report.instance, report.generation, report.boot), (wanted.instance, wanted.generation, wanted.boot));
    assert_eq!((report.state, report.found.unwrap().told), (Observed::Running, Some(wanted.clone())));
    let root = node.versions.get(&wanted.disks[0].version);
    assert_eq!((report.disks[0].version, report.disks[0].ahead.as_ref()), (wanted.disks[0].version, root));
    // Another process knows it as well, and that the guest of the first one has lost its disk.
    drop(agent);
    let agent = node.agent();
    let report = agent.pass(&desired(&[], &Versions::new())).await.remove(0);
    assert_eq!((report.state, report.reason), (Observed::Failed, Some(Reason::DiskLost)));
    assert_eq!(report.found.unwrap().told, Some(wanted.clone()));
    assert_eq!((node.host.running().len(), node.disks.0.lock().unwrap().len()), (1, 1));
    // Taken back with its numbers it is what it was; then it is deleted as it was ordered.
    let report = node.until(&agent, &wanted, Observed::Failed).await;
    assert_eq!((report.reason, report.found), (Some(Reason::DiskLost), None));
    let gone = Assignment { wanted: Wanted::Gone, ..wanted };
    node.until(&agent, &gone, Observed::Gone).await;
    assert_eq!(agent.pass(&desired(&[], &Versions::new())).await, []);
    assert_eq!(node.files(), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn the_seed_disk_of_a_guest_is_as_the_controller_says_at_each_start() {
    let mut node = Node::new();
    let agent = node.agent();
    let mut wanted = node.wanted(Probe::Running);
    let file = node.dir.path().join("seeds").join(format!("{}.img", wanted.instance));
    let pass = async |wanted: &Assignment, seed: Option<Seed>| {
        let mut desired = desired(std::slice::from_ref(wanted), &node.versions);
        desired.seeds = seed.map(|seed| (deployment(), seed)).into_iter().collect();
        agent.pass(&desired).await.remove(0)
    };
    // Without what the controller should have sent the guest would come up as nobody.
    eventually("the missing seed to be told", async || {
        let report = pass(&wanted, None).await;
        report.detail.is_some_and(|detail| detail.contains("the controller sent no seed"))
    })
    .await;
    assert!(!file.exists() && node.host.running().is_empty());
    let seed = Seed { ssh_keys: vec!["ssh-ed25519 AAAA".to_owned()], user_data: None };
    let files = seed_files(&wanted, &seed, &[]).unwrap();
    eventually("the guest to run", async || is_ready(&pass(&wanted, Some(seed.clone())).await)).await;
    assert_eq!(fs::read(&file).unwrap(), image(&files).unwrap());
    // A restart after a rename of the instance or with other keys: the file follows.
    wanted.boot = 2;
    wanted.host_name = "db-1".to_owned();
    let files = seed_files(&wanted, &Seed::default(), &[]).unwrap();
    eventually("the guest to run again", async || {
        let report = pass(&wanted, Some(Seed::default())).await;
        report.boot == 2 && is_ready(&report)
    })
    .await;
    assert_eq!(fs::read(&file).unwrap(), image(&files).unwrap());
    wanted.wanted = Wanted::Gone;
    wanted.seed = None;
    eventually("the instance to be gone", async || pass(&wanted, None).await.state == Observed::Gone).await;
    assert_eq!(node.files(), Vec::<PathBuf>::new());
}

/// Waits until something is true, at most [`FAKE`].
async fn eventually(what: &str, look: impl AsyncFn() -> bool) {
    let begun = Instant::now();
    while !look().await {
        assert!(begun.elapsed() < FAKE, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Adds a disk to an assignment.
fn attach(wanted: &mut Assignment) -> DiskId {
    let (disk, version) = (DiskId::generate(), wanted.disks[0].version);
    wanted.disks.push(DiskAssignment {
        disk,
        name: "data".to_owned(),
        size_bytes: 1 << 20,
        version,
        in_guest: true,
        since_generation: 0,
    });
    disk
}

/// The last disk leaves the instance.
fn leave(wanted: &mut Assignment) -> DiskAssignment {
    let gone = wanted.disks.pop().unwrap();
    wanted.left.push(left(&gone));
    gone
}

fn left(gone: &DiskAssignment) -> LeftDisk {
    LeftDisk { disk: gone.disk, version: gone.version }
}

/// What a report says of single disks.
fn details(report: &InstanceReport) -> Vec<(DiskId, String)> {
    let here = report.disks.iter().map(|disk| (disk.disk, disk.detail.clone()));
    let absent = report.absent.iter().map(|disk| (disk.disk, disk.detail.clone()));
    here.chain(absent).filter_map(|(disk, detail)| Some((disk, detail?))).collect()
}

/// The report of one disk of an instance.
fn of(report: &InstanceReport, disk: DiskId) -> Option<(Option<u64>, Option<bool>)> {
    report.disks.iter().find(|told| told.disk == disk).map(|told| (told.size_bytes, told.in_guest))
}

/// The disks that a guest has.
fn plugged(node: &Node) -> Vec<DiskId> {
    let running = node.host.running();
    running[0].disks.iter().map(|disk| disk.disk).collect()
}

#[tokio::test]
async fn disks_come_grow_and_go_while_their_guest_runs() {
    let mut node = Node::new();
    node.host.set_guests(Guests { lets_go: false, ..Guests::default() });
    let ahead = Ahead::default();
    let agent = node.agent_at(ahead.now());
    let mut wanted = node.wanted(Probe::Running);
    let root = wanted.disks[0].disk;
    assert_eq!(of(&node.ready(&agent, &wanted).await, root), Some((Some(1 << 20), Some(true))));
    assert_eq!(node.host.told_sizes(wanted.instance), BTreeMap::new(), "it knows what it was started with");

    let reported = async |wanted: &Assignment, good: &(dyn Fn(&InstanceReport) -> bool + Sync)| {
        until(&agent, &node.versions, wanted, (node.dir.path(), FAKE), good).await
    };
    let data = attach(&mut wanted);
    reported(&wanted, &|_| plugged(&node) == [root, data]).await;
    for disk in &mut wanted.disks {
        disk.size_bytes = 3 << 20;
    }
    let sizes = BTreeMap::from([(root, 3 << 20), (data, 3 << 20)]);
    reported(&wanted, &|_| node.host.told_sizes(wanted.instance) == sizes).await;
    let report = node.ready(&agent, &wanted).await;
    assert_eq!(of(&report, data), Some((Some(3 << 20), Some(true))));

    // The guest does not answer when it is asked to let go of it.
    wanted.disks[1].in_guest = false;
    let report = reported(&wanted, &|report| {
        ahead.put_forward(5);
        report.reason == Some(Reason::Busy)
    })
    .await;
    assert_eq!((report.state, of(&report, data).unwrap().1), (Observed::Running, Some(true)));
    assert!(details(&report).into_iter().map(|(disk, _)| disk).eq([data]), "only that disk says so");
    assert!(report.detail.unwrap().starts_with("disk 'data': the guest was asked to let it go at"));
    node.host.let_go(wanted.instance);
    let report = reported(&wanted, &|report| of(report, data).unwrap().1 == Some(false)).await;
    assert_eq!((plugged(&node), report.reason), (vec![root], None));

    // It holds what no version has: it stays, whatever the controller says.
    node.disks.0.lock().unwrap().get_mut(&data).unwrap().unsaved_bytes = 4096;
    leave(&mut wanted);
    let report = reported(&wanted, &|report| report.reason == Some(Reason::DiskError)).await;
    assert_eq!((report.state, of(&report, data).unwrap().1), (Observed::Running, Some(false)));
    assert!(report.detail.unwrap().contains("holds 4096 bytes that version"), "it says so");
    node.disks.0.lock().unwrap().get_mut(&data).unwrap().unsaved_bytes = 0;
    ahead.put_forward(60);
    let report = reported(&wanted, &|report| of(report, data).is_none()).await;
    assert_eq!(report.reason, None);
    assert_eq!((node.host.starts(), node.host.running().len()), (1, 1), "its guest ran all the while");
}

/// The controller's database is an older copy, and could not take over what the node has.
#[tokio::test]
async fn a_disk_that_holds_what_its_version_lacks_is_a_condition_until_it_is_given_up() {
    let mut node = Node::new();
    let agent = node.agent();
    let mut wanted = node.wanted(Probe::Running);
    let older = VersionId::generate();
    let root = node.versions[&wanted.disks[0].version].clone();
    node.versions.insert(older, root);
    let reported = async |wanted: &Assignment, good: &(dyn Fn(&InstanceReport) -> bool + Sync)| {
        until(&agent, &node.versions, wanted, (node.dir.path(), FAKE), good).await
    };
    let kinds = |report: &InstanceReport| report.conditions.iter().map(|c| c.kind.clone()).collect::<Vec<_>>();
    node.ready(&agent, &wanted).await;
    let (disk, before) = (wanted.disks[0].disk, wanted.disks[0].version);
    wanted.disks[0].version = older;
    node.disks.2.lock().unwrap().insert(disk, older);
    let report = reported(&wanted, &|report| !report.conditions.is_empty()).await;
    assert_eq!((kinds(&report), report.disks[0].version), (vec![ConditionKind::DiskDiverged], before));
    assert!(report.disks[0].ahead.is_some(), "the controller may still take it over");
    let detail = &report.conditions[0].detail;
    assert!(detail.contains(&format!("builds on version {before}")), "{detail}");
    assert!(detail.contains("muster snapshot restore SNAPSHOT --discard-current"), "{detail}");
    // A restore in place gives it up.
    (wanted.generation, wanted.boot) = (wanted.generation + 1, wanted.boot + 1);
    wanted.disks[0].since_generation = wanted.generation;
    let report = reported(&wanted, &|report| report.disks.iter().any(|disk| disk.version == older)).await;
    assert!(report.conditions.is_empty() && report.disks[0].ahead.is_none(), "{report:?}");
}

#[tokio::test]
async fn a_disk_that_cannot_be_plugged_in_is_told_and_tried_again_and_a_start_gives_what_is_wanted() {
    let mut node = Node::new();
    let agent = node.agent();
    let mut wanted = node.wanted(Probe::Running);
    node.ready(&agent, &wanted).await;
    let (kept, data) = (attach(&mut wanted), attach(&mut wanted));
    let (instance, detail) = (wanted.instance, "No more available PCI slots".to_owned());
    node.host.fail_next("plug", HypervisorError::Refused { what: "give a disk to", instance, detail });
    let refused = |report: &InstanceReport| report.reason == Some(Reason::Hypervisor);
    let report = until(&agent, &node.versions, &wanted, (node.dir.path(), FAKE), refused).await;
    assert_eq!(report.state, Observed::Running);
    let lacks: Vec<_> = report.disks.iter().map(|disk| disk.guest_lacks).collect();
    assert_eq!((lacks[0], lacks.contains(&Some(GuestLacks::Disk))), (None, true), "not all have what they are to have");
    let of_disks = details(&report);
    assert!(of_disks.len() == 1 && of_disks[0].1.contains("No more available PCI slots"), "{of_disks:?}");
    assert!(report.detail.unwrap().contains("No more available PCI slots"));
    let has_all = |report: &InstanceReport| report.disks.iter().all(|disk| disk.guest_lacks.is_none());
    let plugged_in = |report: &InstanceReport| plugged(&node).len() == 3 && report.reason.is_none() && has_all(report);
    until(&agent, &node.versions, &wanted, (node.dir.path(), FAKE), plugged_in).await;
    // One is to go, and the guest is started anew meanwhile.
    wanted.disks.iter_mut().find(|disk| disk.disk == data).unwrap().in_guest = false;
    wanted.boot = 2;
    let report = node.ready(&agent, &wanted).await;
    assert_eq!(plugged(&node), [wanted.disks[0].disk, kept]);
    assert_eq!(of(&report, data).unwrap().1, Some(false));
}

#[tokio::test]
async fn a_start_waits_for_a_disk_that_cannot_be_made_and_not_for_one_that_cannot_grow() {
    let mut node = Node::new();
    let ahead = Ahead::default();
    let agent = node.agent_at(ahead.now());
    let mut wanted = node.wanted(Probe::Running);
    node.ready(&agent, &wanted).await;
    let root = wanted.disks[0].disk;
    let data = attach(&mut wanted);
    wanted.disks[0].size_bytes = 4 << 20;
    wanted.boot = 2;
    node.disks.1.lock().unwrap().extend([root, data]);
    let reported = async |wanted: &Assignment, good: &(dyn Fn(&InstanceReport) -> bool + Sync)| {
        until(&agent, &node.versions, wanted, (node.dir.path(), FAKE), good).await
    };
    let report = reported(&wanted, &|report| report.reason == Some(Reason::DiskFull)).await;
    assert_eq!((report.state, node.host.running().len()), (Observed::Preparing, 0));
    assert_eq!(report.detail.as_deref(), Some(&*format!("disk 'data': no space left for disk {data}")));
    let of_disks: Vec<DiskId> = details(&report).into_iter().map(|(disk, _)| disk).collect();
    assert_eq!(of_disks, [root, data]);
    // One that the guest is not to have is not waited for, and nothing is left of it.
    wanted.disks[1].in_guest = false;
    ahead.put_forward(60);
    let report = node.ready(&agent, &wanted).await;
    assert_eq!(plugged(&node), [root]);
    assert_eq!((of(&report, root).unwrap().0, of(&report, data)), (Some(1 << 20), None));
    let report = reported(&wanted, &|report| report.absent.iter().any(|disk| disk.disk == data)).await;
    assert!(details(&report)[0].1.contains("cannot grow"), "{report:?}");
    // It grows as soon as it can.
    node.disks.1.lock().unwrap().clear();
    ahead.put_forward(60);
    let report = reported(&wanted, &|report| of(report, root).unwrap().0 == Some(4 << 20)).await;
    assert_eq!(report.state, Observed::Running);
    reported(&wanted, &|report| report.reason.is_none() && report.disks[0].guest_lacks.is_none()).await;
    assert_eq!(node.host.starts(), 2);
}

/// The controller cuts a disk once its node says that no guest has it. A start that began before must not give it to the guest
/// afterwards.
#[tokio::test]
async fn a_disk_that_a_start_under_way_gives_to_its_guest_is_not_reported_as_gone_from_it() {
    let mut node = Node::new();
    let agent = node.agent();
    let mut wanted = node.wanted(Probe::Running);
    let data = attach(&mut wanted);
    node.host.hang(wanted.instance);
    let pass =
        async |wanted: &Assignment| agent.pass(&desired(std::slice::from_ref(wanted), &node.versions)).await.remove(0);
    let begun = Instant::now();
    while of(&pass(&wanted).await, data).is_none() {
        assert!(begun.elapsed() < FAKE, "its disks are made");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    wanted.disks[1].in_guest = false;
    for _ in 0..5 {
        assert_eq!(
            of(&pass(&wanted).await, data).unwrap().1,
            Some(true),
            "the start under way may give it to the guest"
        );
    }
    node.host.unhang(wanted.instance);
    let gone = |report: &InstanceReport| of(report, data).unwrap().1 == Some(false);
    until(&agent, &node.versions, &wanted, (node.dir.path(), FAKE), gone).await;
    assert_eq!((plugged(&node), node.host.starts()), (vec![wanted.disks[0].disk], 1));
}

#[tokio::test]
async fn a_disk_of_runtime_none_is_a_file_that_goes_when_it_is_detached() {
    let mut node = Node::new();
    let agent = node.agent();
    let mut wanted = node.wanted(Probe::Running);
    wanted.runtime = Runtime::None;
    node.ready(&agent, &wanted).await;
    let data = attach(&mut wanted);
    let mounted = |disk: DiskId| node.disks.0.lock().unwrap().get(&disk).is_some_and(|disk| disk.mounted);
    let there = |report: &InstanceReport| {
        assert_eq!(report.state, Observed::Running, "its other disk is there all the while");
        mounted(data)
    };
    until(&agent, &node.versions, &wanted, (node.dir.path(), FAKE), there).await;
    for in_guest in [false, true, false] {
        wanted.disks[1].in_guest = in_guest;
        let told = |report: &InstanceReport| of(report, data).unwrap().1 == Some(in_guest) && mounted(data) == in_guest;
        let report = until(&agent, &node.versions, &wanted, (node.dir.path(), FAKE), told).await;
        assert_eq!(report.state, Observed::Running);
    }
    leave(&mut wanted);
    let gone = |report: &InstanceReport| of(report, data).is_none();
    until(&agent, &node.versions, &wanted, (node.dir.path(), FAKE), gone).await;
}

#[tokio::test]
async fn runtime_none_is_a_file_and_nothing_else() {
    let mut node = Node::new();
    let agent = node.agent();
    let mut wanted = node.wanted(Probe::Running);
    wanted.runtime = Runtime::None;
    node.ready(&agent, &wanted).await;
    // The file is still there after the agent was killed.
    drop(agent);
    let agent = node.agent();
    let report = node.ready(&agent, &wanted).await;
    assert_eq!((report.reason, node.host.starts()), (None, 0));
    wanted.wanted = Wanted::Stopped;
    node.until(&agent, &wanted, Observed::Stopped).await;
    wanted.wanted = Wanted::Gone;
    node.until(&agent, &wanted, Observed::Gone).await;
    assert_eq!(node.files(), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn an_older_generation_is_not_obeyed() {
    let mut node = Node::new();
    let agent = node.agent();
    let mut wanted = node.wanted(Probe::Running);
    wanted.generation = 2;
    node.ready(&agent, &wanted).await;
    let stale = Assignment { generation: 1, wanted: Wanted::Gone, ..wanted.clone() };
    for _ in 0..3 {
        agent.pass(&desired(std::slice::from_ref(&stale), &node.versions)).await;
    }
    assert_eq!((node.host.running().len(), node.disks.0.lock().unwrap().len()), (1, 1));
}

// ---- for real -------------------------------------------------------------------------------------------------------

/// Cuts the power of the guests that a failed test left.
struct Guard(Arc<Libvirt>, InstanceId);

impl Drop for Guard {
    fn drop(&mut self) {
        let (hypervisor, instance) = (self.0.clone(), self.1);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let _ = runtime.block_on(hypervisor.destroy(instance));
        })
        .join()
        .unwrap();
    }
}

/// Runs a command in the guest and waits for its end.
async fn in_guest(hypervisor: &Libvirt, instance: InstanceId, command: &str) -> (i64, String) {
    let ask = |command: serde_json::Value| async move {
        let begun = Instant::now();
        // The console says ready a moment before the guest agent answers. A command that found no agent was not run.
        let answer = loop {
            match hypervisor.agent(instance, command.to_string(), Duration::from_secs(10)).await {
                Err(HypervisorError::NoAgent { .. }) if begun.elapsed() < Duration::from_secs(120) => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                other => break other.unwrap(),
            }
        };
        serde_json::from_str::<serde_json::Value>(&answer).unwrap()["return"].clone()
    };
    let run = serde_json::json!({"execute": "guest-exec", "arguments":
        {"path": "/bin/sh", "arg": ["-c", format!("({command}) | od -An -v -tx1")], "capture-output": true}});
    let pid = ask(run).await["pid"].as_i64().unwrap();
    let started = Instant::now();
    loop {
        let status = ask(serde_json::json!({"execute": "guest-exec-status", "arguments": {"pid": pid}})).await;
        if status["exited"].as_bool().unwrap() {
            return (status["exitcode"].as_i64().unwrap_or(-1), status["out-data"].as_str().unwrap_or("").to_owned());
        }
        assert!(started.elapsed() < Duration::from_secs(120), "{command} does not end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn skip(why: &str) {
    assert!(std::env::var_os("MUSTER_ALLOW_SKIP").is_some(), "{why} (MUSTER_ALLOW_SKIP=1 skips this test)");
    eprintln!("SKIPPED, a real guest was not tested: {why}");
}

/// Goal: a guest on a mirrored disk boots, is ready by its agent and its console, reboots, loses its disk with its
/// agent, comes back with what it had flushed, stops when asked, and leaves nothing. Method: the demo image in a store
/// in memory, a real mount, a real libvirt, plain emulation; "agents" are reconcilers with different run ids.
#[tokio::test(flavor = "multi_thread")]
async fn a_real_guest_on_a_mirrored_disk() {
    let dir = tempfile::Builder::new()
        .prefix("muster-reconcile-")
        .tempdir_in(std::env::var_os("TMPDIR").unwrap_or_else(|| "/var/tmp".into()))
        .unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
    let owner = Owner { cluster: ClusterId::generate(), node: NodeId::generate() };
    let hypervisor = match Libvirt::connect(owner, Acceleration::Qemu).await {
        Ok(hypervisor) => Arc::new(hypervisor),
        Err(error) => return skip(&error.to_string()),
    };
    let Some(qemu) = muster_agent::check::qemu_user() else { return skip("no user that QEMU runs as") };
    let image = dir.path().join("demo.raw");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/demo-image.sh");
    if !Command::new(script).args(["--size", "192MiB"]).arg(&image).status().unwrap().success() {
        return skip("no demo image");
    }

    let store = Arc::new(storage_core::store::MemoryStore::new());
    let chunk = ChunkSize::from_bytes(256 << 10).unwrap();
    let want = world::import(&*store, &fs::read(&image).unwrap(), chunk);
    let data = DataDir::borrowed(dir.path().to_owned());
    let mut config = world::config(&data);
    config.owner = qemu;
    let (pool, ahead) = (store.clone(), Ahead::default());
    let mut world = Mirrored::open(data, config, store).await;
    let _holder = Holder(dir.path().to_owned());
    let _guard = Guard(hypervisor.clone(), want.instance);

    let agent = |world: &Mirrored| {
        Reconciler::new(ReconcilerParts {
            data_dir: dir.path().to_owned(),
            qemu_user: qemu,
            disks: world.disks.clone().into(),
            networks: no_networks(),
            hypervisor: Some(hypervisor.clone()),
            helper: world::helper_program(),
            run: RunId::generate(),
            host_boot: "this".to_owned(),
            now: ahead.now(),
        })
        .unwrap()
    };
    let blank = world::import(&*pool, &vec![0; 1 << 20], chunk);
    let mut versions = Versions::from([(want.version, want.root.clone()), (blank.version, blank.root.clone())]);
    let mut wanted = assignment(want.instance, want.disk, want.version, Probe::Console);
    wanted.disks[0].size_bytes = want.size_bytes;
    // Wall time, which says nothing on a busy machine: `boot` is what decides.
    wanted.ready.timeout_s = Some(1800);
    let within = |seconds| (dir.path(), Duration::from_secs(seconds));
    let boot = within(120);

    let first = agent(&world);
    let report = until(&first, &versions, &wanted, boot, is_ready).await;
    eprintln!("ready {} ms after its start", report.ready_at.unwrap().ms_since(report.started_at.unwrap()));
    let log = dir.path().join("console").join(format!("{}.log", want.instance));
    let said = |what: &str| {
        let log = fs::read_to_string(&log).unwrap();
        log.lines().filter(|line| line.contains(what)).map(|line| line.trim().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(said("hello from"), ["hello from web-1"]);
    let knows = format!(
        "[ $(hostname) = web-1 ] && [ $(cat /var/lib/muster/instance-id) = {} ] && grep -qx '{KEY}' /root/.ssh/authorized_keys \
         && ! cat /dev/zero > /dev/vdb && echo yes",
        want.instance
    );
    let (_, yes) = in_guest(&hypervisor, want.instance, &knows).await;
    // base64 of od's text of "yes\n"
    assert_eq!(yes.trim(), "IDc5IDY1IDczIDBhCg==", "it knows who it is, and cannot write to its seed disk");
    let (code, _) = in_guest(&hypervisor, want.instance, "echo kept > /root/kept && sync /root/kept && sync").await;
    assert_eq!(code, 0);

    // Reboot. This time the guest agent says when it is ready.
    (wanted.boot, wanted.ready.probe) = (2, Probe::GuestAgent);
    let report = until(&first, &versions, &wanted, boot, is_ready).await;
    eprintln!("ready again {} ms after its start", report.ready_at.unwrap().ms_since(report.started_at.unwrap()));

    // The agent dies: its mounts are gone, and its guest is still there.
    drop(first);
    world = world.restart().await;
    let second = agent(&world);
    let report = until(&second, &versions, &wanted, within(60), |r| r.state == Observed::Failed).await;
    assert_eq!(report.reason, Some(Reason::DiskLost));
    wanted.boot = 3;
    until(&second, &versions, &wanted, boot, is_ready).await;
    let (_, kept) = in_guest(&hypervisor, want.instance, "cat /root/kept /var/lib/muster/boots").await;
    // base64 of od's text of "kept\n3\n"
    assert_eq!(kept.trim(), "IDZiIDY1IDcwIDc0IDBhIDMzIDBhCg==");

    a_disk_comes_grows_and_goes((&world, &*pool, &hypervisor), &second, &mut wanted, &mut versions, &blank).await;

    // It is who it was, also after the agent was another one.
    let (keys, hellos) = (said("MUSTER-HOST-KEY web-1 "), said("hello from"));
    assert!(keys.len() == 3 && keys.iter().all(|key| *key == keys[0]), "one line for each boot: {keys:?}");
    assert_eq!(hellos.len(), 1, "what is to be done once is done once");

    // A guest that cannot boot does nothing. This one did, a minute ago.
    let mut nothing = assignment(blank.instance, blank.disk, blank.version, Probe::Running);
    nothing.disks[0].size_bytes = blank.size_bytes;
    let _blank = Guard(hypervisor.clone(), blank.instance);
    until(&second, &versions, &nothing, within(60), is_ready).await;
    until(&second, &versions, &nothing, within(60), |_| {
        world.disks.list_of(blank.instance).iter().any(|disk| disk.used_bytes > 0)
    })
    .await;
    ahead.put_forward(61);
    until(&second, &versions, &nothing, within(60), is_silent).await;
    assert!(!is_silent(&until(&second, &versions, &wanted, within(60), is_ready).await));
    nothing.wanted = Wanted::Gone;
    until(&second, &versions, &nothing, within(60), |r| r.state == Observed::Gone).await;

    wanted.wanted = Wanted::Stopped;
    let asked = Instant::now();
    until(&second, &versions, &wanted, within(60), |r| r.state == Observed::Stopped).await;
    eprintln!("stopped {} ms after it was asked", asked.elapsed().as_millis());
    wanted.wanted = Wanted::Gone;
    until(&second, &versions, &wanted, within(60), |r| r.state == Observed::Gone).await;
    assert_eq!(world::mounts_below(dir.path()), Vec::<PathBuf>::new());
    for below in ["disks", "console", "instances", "seeds"] {
        assert_eq!(fs::read_dir(dir.path().join(below)).unwrap().count(), 0, "{below}");
    }
    assert_eq!(hypervisor.list().await.unwrap(), []);
    world.disks.shutdown().await;
}

/// A disk of a guest that runs.
struct Of<'a> {
    hypervisor: &'a Libvirt,
    agent: &'a Reconciler,
    folder: &'a Path,
    disk: DiskId,
}

impl Of<'_> {
    /// Passes until a command succeeds in the guest. It finds the name of the disk's device in `$d`.
    async fn does(&self, versions: &Versions, wanted: &Assignment, what: &str, command: &str) {
        let serial = domain_xml::serial_number(self.disk);
        let device = format!("d=$(grep -lx {serial} /sys/block/*/serial) && d=${{d#/sys/block/}} && d=${{d%/serial}}");
        let command = ["/bin/sh", "-c", &format!("{device} && {command}")].map(str::to_owned).to_vec();
        let request = ExecRequest { command, stdin_base64: None, timeout_s: 60 };
        let begun = Instant::now();
        loop {
            let report = until(self.agent, versions, wanted, (self.folder, FAKE), |_| true).await;
            match guest_agent::exec(self.hypervisor, wanted.instance, &request).await {
                ExecAnswer::Ended(ended) if ended.exit_code == Some(0) => return,
                answer => assert!(begun.elapsed() < Duration::from_secs(60), "{what}: {answer:?}, {report:?}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Goal: a guest that runs gets a disk, sees it and its boot disk grow, writes to it, and loses it; what it wrote is in the
/// version of it, and then the disk is gone from the node. Method: the assignments of the controller one after the other.
async fn a_disk_comes_grows_and_goes(
    (world, store, hypervisor): (&Mirrored, &dyn storage_core::store::ChunkStore, &Libvirt),
    agent: &Reconciler,
    wanted: &mut Assignment,
    versions: &mut Versions,
    blank: &DiskWant,
) {
    const MIB: u64 = 1 << 20;
    let (instance, disk, root) = (wanted.instance, DiskId::generate(), wanted.disks[0].disk);
    let folder = world.config.data_dir.clone();
    let within = (&*folder, Duration::from_secs(60));
    let of_guest = Of { hypervisor, agent, folder: &folder, disk };
    let data = DiskAssignment {
        disk,
        name: "data".to_owned(),
        size_bytes: 32 * MIB,
        version: blank.version,
        in_guest: true,
        since_generation: 0,
    };
    wanted.disks.push(data);
    let told = |report: &InstanceReport| of(report, disk);
    until(agent, versions, wanted, within, |report| told(report) == Some((Some(32 * MIB), Some(true)))).await;
    of_guest
        .does(versions, wanted, "it sees its disk", &format!("[ $(cat /sys/block/$d/size) = {} ]", 32 * MIB / 512))
        .await;
    of_guest.does(versions, wanted, "it writes", "echo written at first | dd of=/dev/$d conv=fsync").await;

    wanted.disks[1].size_bytes = 64 * MIB;
    wanted.disks[0].size_bytes += 64 * MIB;
    let root_bytes = wanted.disks[0].size_bytes;
    until(agent, versions, wanted, within, |report| {
        told(report).unwrap().0 == Some(64 * MIB) && of(report, root).unwrap().0 == Some(root_bytes)
    })
    .await;
    of_guest
        .does(
            versions,
            wanted,
            "it sees that its disk grew",
            &format!("[ $(cat /sys/block/$d/size) = {} ]", 64 * MIB / 512),
        )
        .await;
    of_guest
        .does(
            versions,
            wanted,
            "it sees that its boot disk grew",
            &format!("[ $(cat /sys/block/vda/size) = {} ]", root_bytes / 512),
        )
        .await;
    of_guest
        .does(
            versions,
            wanted,
            "it writes to the new part",
            "echo written at last | dd of=/dev/$d bs=1M seek=63 conv=fsync",
        )
        .await;

    wanted.disks[1].in_guest = false;
    until(agent, versions, wanted, within, |report| told(report).unwrap().1 == Some(false)).await;
    assert_eq!(hypervisor.list().await.unwrap()[0].disks, [root]);
    // Its node is told that it left although nothing was published: it stays.
    let detached = leave(wanted);
    let report = until(agent, versions, wanted, within, |report| report.reason == Some(Reason::DiskError)).await;
    assert!(report.detail.unwrap().contains("that version"), "it says what it holds");
    wanted.left.clear();
    wanted.disks.push(detached);

    let want = DiskWant {
        disk,
        instance,
        generation: wanted.generation,
        size_bytes: 64 * MIB,
        version: blank.version,
        root: blank.root.clone(),
        served: true,
        since_generation: 0,
    };
    let (commit, _) = world.cut(&[&want]).await.pop().unwrap();
    let saved = world.save(&want, commit).await;
    let mut expected = vec![0; 64 << 20];
    expected[..17].copy_from_slice(b"written at first\n");
    expected[63 << 20..][..16].copy_from_slice(b"written at last\n");
    assert!(world::export(store, &saved.root) == expected, "all that the guest wrote is in the version");
    let version = VersionId::generate();
    versions.insert(version, saved.root);
    wanted.disks[1].version = version;
    let is_saved = |report: &InstanceReport| {
        report.disks.iter().any(|told| told.disk == disk && told.version == version && told.unsaved_bytes == 0)
    };
    until(agent, versions, wanted, within, is_saved).await;
    leave(wanted);
    until(agent, versions, wanted, within, |report| told(report).is_none()).await;
    assert!(!world.config.data_dir.join("disks").join(disk.to_string()).exists());
    wanted.left.clear();
    assert!(is_ready(&until(agent, versions, wanted, within, is_ready).await), "its guest ran all the while");
}

/// Ends the holder and unmounts everything below a folder, also when the test failed.
struct Holder(PathBuf);

impl Drop for Holder {
    fn drop(&mut self) {
        for path in world::mounts_below(&self.0) {
            let flags = rustix::mount::UnmountFlags::DETACH | rustix::mount::UnmountFlags::FORCE;
            let _ = rustix::mount::unmount(&path, flags);
        }
        let _ = DataDir::borrowed(self.0.clone()).holder().stop();
    }
}
