//! The contract of the plan, on a model of one instance's world; and a table of the cases that matter.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::super::{guest_disks::Tries, report::Trouble};
use muster_api::{
    InstanceId, Reason,
    deployment::{Probe, Ready},
    node_protocol::{AbsentDisk, GuestLacks, LeftDisk},
};
use proptest::prelude::*;

use super::*;

const T0: Timestamp = Timestamp::from_micros(1_000_000_000_000);

/// What actions act on: the node as far as one instance goes.
#[derive(Clone, Debug, PartialEq)]
struct World {
    life: Option<Life>,
    disks: Vec<DiskSeen>,
    domain: Option<Domain>,
    ending: Option<Ending>,
    absent_since: Timestamp,
    traces: bool,
    asked: Option<(Timestamp, Timestamp)>,
    /// Whether its guest obeys, becomes ready, goes on after a resume.
    obeys: bool,
    becomes_ready: bool,
    has_room: bool,
    lets_go: bool,
    work: BTreeMap<DiskId, Work>,
}

impl World {
    fn seen(&self) -> Seen {
        Seen {
            life: self.life.clone(),
            disks: self.disks.clone(),
            domain: match &self.domain {
                Some(domain) => DomainSeen::Present(domain.clone()),
                None => DomainSeen::Absent { ending: self.ending, since: self.absent_since },
            },
            reboots: 0,
            traces: self.traces,
            asked: self.asked,
            retry_at: None,
            refused: None,
            work: self.work.clone(),
            may_get: BTreeSet::new(),
        }
    }

    /// Another look: what no longer counts is forgotten.
    fn tidy(&mut self, assignment: &Assignment) {
        let domain = self.seen().domain;
        let is_here = |disk: DiskId| self.disks.iter().any(|seen| seen.disk == disk);
        guest_disks::tidy(&mut self.work, assignment, &domain, is_here, |_| false);
    }

    fn size_of(&self, disk: DiskId) -> u64 {
        self.disks.iter().find(|seen| seen.disk == disk).map_or(0, |seen| seen.size_bytes)
    }

    fn note(&mut self, assignment: &Assignment, end: &End, now: Timestamp) {
        let life = self.life.get_or_insert_with(|| Life::begin(assignment.generation, assignment.boot, now));
        let is_final = matches!(&life.phase, Phase::Ended(end) if !end.is_for_now());
        if !is_final || end.was_asked_for() {
            life.phase = Phase::Ended(end.clone());
        }
        self.asked = None;
        self.traces = true;
    }

    fn apply(&mut self, assignment: &Assignment, action: &Action, here: &Here) {
        let now = here.now;
        match action {
            Action::Begin => {
                self.life = Some(Life::begin(assignment.generation, assignment.boot, now));
                (self.asked, self.traces) = (None, true);
            }
            Action::EnsureDisks => {
                let left =
                    self.disks.iter().filter(|seen| assignment.disks.iter().all(|d| d.disk != seen.disk)).cloned();
                let left = left.collect::<Vec<_>>();
                let is_here = |disk: &DiskAssignment| self.disks.iter().any(|seen| seen.disk == disk.disk);
                let meant = assignment.disks.iter().filter(|d| guest_disks::is_made(assignment, d) || is_here(d));
                self.disks = meant
                    .map(|d| DiskSeen {
                        disk: d.disk,
                        generation: assignment.generation,
                        version: d.version,
                        mounted: guest_disks::is_served(assignment, d),
                        reachable: guest_disks::is_served(assignment, d),
                        size_bytes: self.size_of(d.disk).max(d.size_bytes),
                    })
                    .chain(left)
                    .collect();
            }
            Action::Plug(disk) => {
                let (bytes, domain) = (self.size_of(*disk), self.domain.as_mut().unwrap());
                assert!(assignment.disks.iter().any(|want| want.disk == *disk && want.in_guest));
                if !domain.disks.contains(disk) {
                    domain.disks.push(*disk);
                }
                self.work.entry(*disk).or_default().told_bytes = Some(bytes);
            }
            Action::Unplug(disk) => {
                assert_ne!(*disk, assignment.disks[0].disk, "took the boot disk");
                let work = self.work.entry(*disk).or_default();
                work.asked = Some((work.asked.map_or(now, |(since, _)| since), now));
                if self.lets_go {
                    self.domain.as_mut().unwrap().disks.retain(|has| has != disk);
                }
            }
            Action::Resize(disk, bytes) => {
                assert!(self.domain.as_ref().unwrap().disks.contains(disk));
                assert_eq!(*bytes, self.size_of(*disk));
                self.work.entry(*disk).or_default().told_bytes = Some(*bytes);
            }
            Action::RemoveDisk(disk) => {
                assert!(self.domain.as_ref().is_none_or(|domain| !domain.disks.contains(disk)), "a guest has it");
                assert!(assignment.disks.iter().all(|want| want.disk != *disk), "it is assigned");
                self.disks.retain(|seen| seen.disk != *disk);
            }
            Action::Start => {
                assert!(disks_are_there(assignment, &self.seen()) || self.domain.is_some(), "started without its disk");
                let life = self.life.as_mut().unwrap();
                life.phase = Phase::Started { run: here.run, host_boot: here.host_boot.clone() };
                life.started_at.get_or_insert(now);
                if assignment.runtime == Runtime::None {
                    life.ready_at.get_or_insert(now);
                } else if self.domain.is_none() {
                    (self.ending, self.traces) = (None, true);
                    self.domain = Some(domain(assignment, here.run));
                    for disk in assignment.disks.iter().map(|disk| disk.disk) {
                        let bytes = self.size_of(disk);
                        self.work.entry(disk).or_default().told_bytes = Some(bytes);
                    }
                }
            }
            Action::Probe => {
                if self.becomes_ready {
                    self.life.as_mut().unwrap().ready_at = Some(now);
                }
            }
            Action::Resume => {
                if let Some(domain) = self.domain.as_mut().filter(|_| self.has_room) {
                    domain.state = DomainState::Running;
                }
            }
            Action::AskToStop => {
                self.asked = Some((self.asked.map_or(now, |(since, _)| since), now));
                if self.obeys && self.domain.take().is_some() {
                    (self.ending, self.absent_since) = (Some(Ending::Shutdown), now);
                }
            }
            Action::CutPower(end) => {
                if self.domain.take().is_some() {
                    (self.ending, self.absent_since) = (Some(Ending::Destroyed), now);
                }
                self.note(assignment, end, now);
            }
            Action::Note(end) => self.note(assignment, end, now),
            Action::RemoveDisks => {
                assert_eq!(self.domain, None, "removed the disk of a running guest");
                self.disks.clear();
            }
            Action::Forget => {
                assert_eq!(self.disks, [], "forgot an instance that has disks");
                (self.life, self.traces, self.asked) = (None, false, None);
            }
        }
    }
}

fn disks_are_there(assignment: &Assignment, seen: &Seen) -> bool {
    assignment.disks.iter().all(|want| disk_is_there(assignment, want, seen))
}

fn domain(assignment: &Assignment, run: RunId) -> Domain {
    Domain {
        instance: assignment.instance,
        generation: assignment.generation,
        boot: assignment.boot,
        run,
        state: DomainState::Running,
        disks: guest_disks::of_guest(assignment).map(|disk| disk.disk).collect(),
    }
}

fn id(n: u128) -> uuid::Uuid {
    uuid::Uuid::from_u128(n)
}

fn here(now: Timestamp) -> Here {
    Here { run: id(100).into(), host_boot: "this".to_owned(), now }
}

fn assignment(wanted: Wanted) -> Assignment {
    Assignment {
        instance: InstanceId::from(id(1)),
        name: "web.1".to_owned(),
        host_name: "web-1".to_owned(),
        project: "default".to_owned(),
        generation: 2,
        wanted,
        boot: 5,
        stop_force: false,
        stop_timeout_s: 10,
        cpus: 1,
        memory_bytes: 1 << 28,
        runtime: Runtime::Libvirt,
        ready: Ready { probe: Probe::Console, marker: None, timeout_s: Some(60) },
        on_ready_timeout: OnReadyTimeout::Stop,
        on_host_start: OnHostStart::Start,
        firmware: muster_api::firmware::Firmware::Bios,
        tpm: false,
        disks: vec![DiskAssignment {
            disk: id(2).into(),
            name: "root".to_owned(),
            size_bytes: 1 << 30,
            version: version(),
            in_guest: true,
            since_generation: 0,
        }],
        left: Vec::new(),
        nics: Vec::new(),
        seed: None,
    }
}

fn empty() -> World {
    World {
        life: None,
        disks: Vec::new(),
        domain: None,
        ending: None,
        absent_since: T0,
        traces: false,
        asked: None,
        obeys: true,
        becomes_ready: true,
        has_room: true,
        lets_go: true,
        work: BTreeMap::new(),
    }
}

/// Passes until nothing is left to do; time goes on between them. How many there were.
fn settle(world: &mut World, assignment: &Assignment) -> u32 {
    let mut now = T0;
    for pass in 0..200 {
        let here = here(now);
        world.tidy(assignment);
        let actions = plan(assignment, &world.seen(), &here);
        // What a plan of a later instant would add is waited for as well.
        if actions.is_empty() && now.ms_since(T0) > 70_000 {
            return pass;
        }
        for action in &actions {
            world.apply(assignment, action, &here);
            let once = world.clone();
            world.apply(assignment, action, &here);
            assert_eq!(*world, once, "{action:?} is not harmless the second time");
        }
        now = now.plus_ms(500);
    }
    panic!("no end: {:?} of {world:?}", plan(assignment, &world.seen(), &here(now)));
}

fn any_wanted() -> impl Strategy<Value = Wanted> {
    prop_oneof![Just(Wanted::Running), Just(Wanted::Stopped), Just(Wanted::Gone)]
}

fn any_end() -> impl Strategy<Value = End> {
    prop_oneof![
        Just(End::Stopped),
        Just(End::PowerCut),
        Just(End::GuestEnded),
        Just(End::Destroyed),
        Just(End::Unseen),
        Just(End::GuestCrashed),
        Just(End::DiskLost),
        Just(End::NotReady),
        Just(End::StartFailed { detail: "x".to_owned() }),
        Just(End::AgentStopped),
        Just(End::HostRestarted),
    ]
}

prop_compose! {
    fn any_life()(
        generation in 1_u64..=2, boot in 4_u64..=5, phase in 0..4, end in any_end(), other_run: bool, ready: bool,
        ended_in in proptest::option::of(prop_oneof![Just("this".to_owned()), Just("other".to_owned())]),
    ) -> Life {
        let run = if other_run { id(99) } else { id(100) }.into();
        let mut life = Life::begin(generation, boot, T0);
        life.phase = match phase {
            0 => Phase::New,
            1 => Phase::Started { run, host_boot: "this".to_owned() },
            2 => Phase::Started { run, host_boot: "other".to_owned() },
            _ => Phase::Ended(end),
        };
        life.ended_in = ended_in.filter(|_| life.phase == Phase::Ended(End::AgentStopped));
        life.started_at = (phase != 0).then_some(T0);
        life.ready_at = (phase != 0 && ready).then_some(T0);
        life
    }
}

/// The version of all disks.
fn version() -> VersionId {
    id(3).into()
}

fn left_disk(disk: DiskId) -> LeftDisk {
    LeftDisk { disk, version: version() }
}

/// Disks beside the boot disk. The last one left the instance, the others may be detached.
const FURTHER: [u128; 3] = [21, 22, 23];

fn further(n: u128, in_guest: bool) -> DiskAssignment {
    let (name, version) = (format!("data{n}"), version());
    DiskAssignment { disk: id(n).into(), name, size_bytes: 8192, version, in_guest, since_generation: 0 }
}

prop_compose! {
    fn any_world()(
        life in proptest::option::of(any_life()),
        disk in proptest::option::of((1_u64..=2, any::<bool>(), any::<bool>())),
        further in proptest::collection::vec(any::<(bool, bool, bool)>(), 3),
        domain in proptest::option::of((1_u64..=2, 4_u64..=5, any::<bool>(), 0..4)),
        ending in prop_oneof![
            Just(None), Just(Some(Ending::Shutdown)), Just(Some(Ending::Crashed)), Just(Some(Ending::Destroyed))
        ],
        (obeys, becomes_ready, has_room) in any::<(bool, bool, bool)>(),
    ) -> World {
        let domain = domain.map(|(generation, boot, other_run, state)| Domain {
            instance: id(1).into(),
            generation,
            boot,
            run: if other_run { id(99) } else { id(100) }.into(),
            state: match state {
                0 => DomainState::Paused(PauseReason::DiskFull),
                1 => DomainState::Paused(PauseReason::DiskError),
                2 => DomainState::Stopping,
                _ => DomainState::Running,
            },
            disks: std::iter::once(id(2).into())
                .chain(further.iter().zip(FURTHER).filter(|((_, plugged, _), _)| *plugged).map(|(_, n)| id(n).into()))
                .collect(),
        });
        World {
            traces: life.is_some() || domain.is_some(),
            life,
            disks: disk
                .map(|(generation, current, mounted)| DiskSeen {
                    disk: id(2).into(), generation, mounted, reachable: mounted || further[0].2, size_bytes: 1 << 30,
                    version: if current { version() } else { id(4).into() },
                })
                .into_iter()
                .chain(further.iter().zip(FURTHER).filter(|((here, ..), _)| *here).map(|((.., mounted), n)| DiskSeen {
                    disk: id(n).into(), generation: 1, version: version(), mounted: *mounted, reachable: true, size_bytes: 4096,
                }))
                .collect(),
            domain, ending, absent_since: T0, asked: None, obeys, becomes_ready, has_room,
            lets_go: true, work: BTreeMap::new(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn plan_is_empty_once_its_actions_are_applied(
        mut world in any_world(), wanted in any_wanted(), force: bool, none in 0..4, in_guest: (bool, bool),
        closed: bool,
    ) {
        let mut assignment = assignment(wanted);
        assignment.disks.extend([further(FURTHER[0], in_guest.0), further(FURTHER[1], in_guest.1)]);
        assignment.left = vec![left_disk(id(FURTHER[2]).into())];
        assignment.stop_force = force;
        if none == 0 {
            assignment.runtime = Runtime::None;
            assignment.disks[0].in_guest = !closed;
            world.domain = None;
        }
        // A guest on a disk that never gets room, and one that hangs on its way out while it is wanted, stay.
        let stays = world.domain.as_ref().is_some_and(|d| match d.state {
            DomainState::Paused(_) => !world.has_room,
            DomainState::Stopping => true,
            DomainState::Running => false,
        });
        if wanted == Wanted::Running && stays {
            return Ok(());
        }
        settle(&mut world, &assignment);
        let there = disks_are_there(&assignment, &world.seen());
        if wanted != Wanted::Gone {
            for disk in &assignment.disks {
                let is_here = world.disks.iter().any(|seen| seen.disk == disk.disk);
                prop_assert!(is_here || !guest_disks::is_made(&assignment, disk), "{} is made", &disk.name);
                prop_assert!(!is_here || world.size_of(disk.disk) >= disk.size_bytes);
                let is_in_guest = guest_disks::is_in_guest(&assignment, &world.seen(), disk.disk);
                prop_assert_eq!(is_in_guest, disk.in_guest, "{}", &disk.name);
            }
            let left = world.disks.iter().any(|seen| seen.disk == assignment.left[0].disk);
            prop_assert!(!left, "what left the instance is removed");
        }
        match wanted {
            Wanted::Gone => {
                prop_assert_eq!((world.domain, world.disks.len(), world.traces, world.life), (None, 0, false, None));
            }
            Wanted::Stopped => {
                prop_assert_eq!(&world.domain, &None);
                prop_assert!(there);
                let life = world.life.unwrap();
                prop_assert!(life.is_of(&assignment) && matches!(life.phase, Phase::Ended(_)), "{:?}", life);
            }
            Wanted::Running => {
                prop_assert!(there);
                let life = world.life.unwrap();
                prop_assert!(life.is_of(&assignment));
                match life.phase {
                    Phase::New => prop_assert!(false, "never started"),
                    Phase::Ended(_) => prop_assert_eq!(&world.domain, &None),
                    Phase::Started { .. } => {
                        prop_assert!(life.ready_at.is_some());
                        if assignment.runtime == Runtime::Libvirt {
                            let mut domain = domain(&assignment, here(T0).run);
                            let mut got = world.domain.unwrap();
                            for domain in [&mut domain, &mut got] {
                                domain.disks.sort();
                            }
                            prop_assert_eq!(&got, &domain);
                            for disk in domain.disks {
                                let told = world.work.get(&disk).and_then(|work| work.told_bytes);
                                prop_assert!(told.is_some_and(|told| told >= 4096), "{:?}", told);
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn nothing_is_done_when_the_hypervisor_is_silent(world in any_world(), wanted in any_wanted()) {
        let seen = Seen { domain: DomainSeen::Unknown, ..world.seen() };
        prop_assert_eq!(plan(&assignment(wanted), &seen, &here(T0)), []);
    }

    #[test]
    fn an_older_generation_is_refused(mut world in any_world(), wanted in any_wanted()) {
        world.life = Some(Life::begin(3, 1, T0));
        prop_assert_eq!(plan(&assignment(wanted), &world.seen(), &here(T0)), []);
    }

    #[test]
    fn a_record_survives_being_kept(life in any_life()) {
        let text = serde_json::to_string(&life).unwrap();
        prop_assert_eq!(serde_json::from_str::<Life>(&text).unwrap(), life);
    }
}

fn started(run: u128, host_boot: &str) -> Life {
    let mut life = Life::begin(2, 5, T0);
    life.phase = Phase::Started { run: id(run).into(), host_boot: host_boot.to_owned() };
    (life.started_at, life.ready_at) = (Some(T0), Some(T0));
    life
}

#[test]
fn a_domain_of_an_earlier_agent_lost_its_disk() {
    let wanted = assignment(Wanted::Running);
    let mut world = World { life: Some(started(99, "this")), domain: Some(domain(&wanted, id(99).into())), ..empty() };
    assert_eq!(plan(&wanted, &world.seen(), &here(T0)), [Action::CutPower(End::DiskLost)]);
    settle(&mut world, &wanted);
    assert_eq!(world.life.as_ref().unwrap().phase, Phase::Ended(End::DiskLost));
    // Told to start again, it does.
    let again = Assignment { boot: 6, ..wanted };
    settle(&mut world, &again);
    assert_eq!(world.domain.unwrap().boot, 6);
}

#[test]
fn a_guest_that_went_down_with_its_host_comes_back_with_it() {
    let mut world = World { life: Some(started(99, "earlier")), ..empty() };
    settle(&mut world, &assignment(Wanted::Running));
    assert!(world.domain.is_some());
}

#[test]
fn a_guest_that_is_to_stay_off_after_a_start_of_its_host_does_so_and_says_why() {
    let stays = Assignment { on_host_start: OnHostStart::Stay, ..assignment(Wanted::Running) };
    // The power went, or the host was shut down in order and its agent stopped the guest.
    let mut stopped = started(99, "earlier");
    (stopped.phase, stopped.ended_in) = (Phase::Ended(End::AgentStopped), Some("earlier".to_owned()));
    for life in [started(99, "earlier"), stopped.clone()] {
        let mut world = World { life: Some(life), ..empty() };
        settle(&mut world, &stays);
        assert_eq!(world.life.as_ref().unwrap().phase, Phase::Ended(End::HostRestarted));
        assert!(world.domain.is_none());
        // Somebody starts it.
        settle(&mut world, &Assignment { boot: 6, ..stays.clone() });
        assert!(world.domain.is_some());
    }
    // Only the agent was restarted.
    stopped.ended_in = Some("this".to_owned());
    let mut world = World { life: Some(stopped), ..empty() };
    settle(&mut world, &stays);
    assert!(world.domain.is_some());
}

#[test]
fn a_record_of_an_older_agent_is_read() {
    let mut life = serde_json::to_value(started(100, "this")).unwrap();
    assert!(life.as_object_mut().unwrap().remove("ended_in").is_some());
    assert_eq!(serde_json::from_value::<Life>(life).unwrap(), started(100, "this"));
}

#[test]
fn a_guest_that_ended_is_not_started_again_under_its_number() {
    for (ending, end) in [
        (Some(Ending::Shutdown), End::GuestEnded),
        (Some(Ending::Destroyed), End::Destroyed),
        (Some(Ending::Crashed), End::GuestCrashed),
        (None, End::Unseen),
    ] {
        let mut world = World { life: Some(started(100, "this")), ending, ..empty() };
        settle(&mut world, &assignment(Wanted::Running));
        assert_eq!((world.domain, world.life.unwrap().phase), (None, Phase::Ended(end)));
    }
}

#[test]
fn a_guest_that_is_not_ready_in_time_is_asked_on_unless_it_is_to_be_stopped() {
    let wanted = assignment(Wanted::Running);
    let life = Life { ready_at: None, ..started(100, "this") };
    let mut world = World { life: Some(life), domain: Some(domain(&wanted, id(100).into())), ..empty() };
    world.apply(&wanted, &Action::EnsureDisks, &here(T0));
    world.work.entry(id(2).into()).or_default().told_bytes = Some(1 << 30);
    let late = here(T0.plus_ms(60_000));
    assert_eq!(plan(&wanted, &world.seen(), &late), [Action::CutPower(End::NotReady)]);
    let keep = Assignment { on_ready_timeout: OnReadyTimeout::Keep, ..wanted };
    assert_eq!(plan(&keep, &world.seen(), &late), [Action::Probe]);
}

#[test]
fn a_guest_that_does_not_stop_is_asked_again_then_cut() {
    let wanted = assignment(Wanted::Stopped);
    let life = Some(started(100, "this"));
    let mut world = World { life, domain: Some(domain(&wanted, id(100).into())), obeys: false, ..empty() };
    assert_eq!(plan(&wanted, &world.seen(), &here(T0)), [Action::AskToStop]);
    world.apply(&wanted, &Action::AskToStop, &here(T0));
    assert_eq!(plan(&wanted, &world.seen(), &here(T0.plus_ms(1_000))), []);
    assert_eq!(plan(&wanted, &world.seen(), &here(T0.plus_ms(3_000))), [Action::AskToStop]);
    assert_eq!(plan(&wanted, &world.seen(), &here(T0.plus_ms(10_000))), [Action::CutPower(End::PowerCut)]);
    let force = Assignment { stop_force: true, ..wanted };
    assert_eq!(plan(&force, &world.seen(), &here(T0)), [Action::CutPower(End::PowerCut)]);
}

#[test]
fn a_newer_generation_cuts_the_old_guest_off_first() {
    let wanted = assignment(Wanted::Running);
    let old = Domain { generation: 1, ..domain(&wanted, id(100).into()) };
    let world = World { domain: Some(old), ..empty() };
    assert_eq!(plan(&wanted, &world.seen(), &here(T0)), [Action::CutPower(End::Stopped)]);
}

#[test]
fn an_instance_of_which_only_a_record_is_seen_is_removed_with_the_disks_that_it_should_have() {
    let world = World { traces: true, ..empty() };
    assert_eq!(plan(&assignment(Wanted::Gone), &world.seen(), &here(T0)), [Action::RemoveDisks, Action::Forget]);
}

#[test]
fn removing_goes_stop_unmount_remove() {
    let wanted = assignment(Wanted::Gone);
    let world = World { domain: Some(domain(&wanted, id(99).into())), ..empty() };
    assert_eq!(
        plan(&wanted, &world.seen(), &here(T0)),
        [Action::CutPower(End::Stopped), Action::RemoveDisks, Action::Forget]
    );
}

/// A guest with two further disks, of which the second one is detached.
fn detaching() -> (Assignment, World) {
    let mut wanted = assignment(Wanted::Running);
    wanted.disks.extend([further(FURTHER[0], true), further(FURTHER[1], true)]);
    let life = Some(started(100, "this"));
    let mut world = World { life, domain: Some(domain(&wanted, id(100).into())), lets_go: false, ..empty() };
    settle(&mut world, &wanted);
    wanted.disks[2].in_guest = false;
    (wanted, world)
}

#[test]
fn a_guest_that_keeps_its_disk_is_asked_again_and_its_instance_says_so() {
    let (wanted, mut world) = detaching();
    let disk = wanted.disks[2].disk;
    let said = |world: &World, ms| guest_disks::trouble(&wanted, &world.seen(), &here(T0.plus_ms(ms)));
    let planned = |world: &World, ms| plan(&wanted, &world.seen(), &here(T0.plus_ms(ms)));
    assert_eq!(planned(&world, 0), [Action::Unplug(disk)]);
    world.apply(&wanted, &Action::Unplug(disk), &here(T0));
    assert_eq!((planned(&world, 29_999), said(&world, 29_999)), (vec![], None));
    assert_eq!(planned(&world, 30_000), [Action::Unplug(disk)]);
    let trouble = said(&world, 30_000).unwrap();
    assert!(trouble.reason == Reason::Busy && trouble.detail.contains("disk 'data22'"), "{trouble:?}");
    assert!(guest_disks::is_in_guest(&wanted, &world.seen(), disk), "it still has it");
    // It is given up: the disk stays as it is, and nothing is said of it any more.
    let mut kept = wanted.clone();
    kept.disks[2].in_guest = true;
    world.tidy(&kept);
    assert_eq!(plan(&kept, &world.seen(), &here(T0.plus_ms(60_000))), []);
    assert_eq!(guest_disks::trouble(&kept, &world.seen(), &here(T0.plus_ms(60_000))), None);
    // The guest lets go of it all the same, later: then it gets it back.
    world.domain.as_mut().unwrap().disks.retain(|has| *has != disk);
    assert_eq!(plan(&kept, &world.seen(), &here(T0)), [Action::Plug(disk)]);
}

#[test]
fn a_disk_is_out_of_the_guest_only_if_that_is_certain() {
    let (wanted, mut world) = detaching();
    let disk = wanted.disks[2].disk;
    world.domain.as_mut().unwrap().disks.retain(|has| *has != disk);
    let seen = world.seen();
    assert!(!guest_disks::is_in_guest(&wanted, &seen, disk));
    assert!(guest_disks::is_in_guest(&wanted, &seen, wanted.disks[1].disk), "nobody said that it is to go");
    let silent = Seen { domain: DomainSeen::Unknown, ..seen.clone() };
    assert!(guest_disks::is_in_guest(&wanted, &silent, disk));
    let starting = Seen { may_get: BTreeSet::from([disk]), ..seen.clone() };
    assert!(guest_disks::is_in_guest(&wanted, &starting, disk), "a start that is under way may give it to the guest");
    // Once it has left, it is removed, and not before it is certain either.
    let mut left = wanted.clone();
    left.disks.pop();
    left.left.push(left_disk(disk));
    assert_eq!(plan(&left, &seen, &here(T0)), [Action::RemoveDisk(disk)]);
    for unsure in [silent, starting] {
        assert_eq!(plan(&left, &unsure, &here(T0)), []);
    }
    // One that a guest has all the same is taken from it first.
    world.domain.as_mut().unwrap().disks.push(disk);
    assert_eq!(plan(&left, &world.seen(), &here(T0)), [Action::Unplug(disk)]);
    // One that was attached again in a newer generation is not the one that left.
    let mut again = world.clone();
    again.domain = None;
    again.disks.iter_mut().for_each(|disk| disk.generation = 3);
    assert!(!plan(&left, &again.seen(), &here(T0)).contains(&Action::RemoveDisk(disk)));
    // Nor is one of another version, which a restored controller does not know. Nobody takes it from its guest.
    let mut later = world.clone();
    later.disks.iter_mut().for_each(|found| found.version = id(4).into());
    left.disks.iter_mut().for_each(|named| named.version = id(4).into());
    assert_eq!(plan(&left, &later.seen(), &here(T0)), []);
    later.domain.as_mut().unwrap().disks.retain(|has| *has != disk);
    assert_eq!(plan(&left, &later.seen(), &here(T0)), []);
    assert!(guest_disks::is_in_guest(&left, &later.seen(), disk), "nobody said that it is to go");
}

#[test]
fn a_disk_that_fails_waits_by_itself_and_the_others_go_on() {
    let (mut wanted, mut world) = detaching();
    wanted.disks[1].in_guest = false;
    let (first, second) = (wanted.disks[1].disk, wanted.disks[2].disk);
    let trouble = Some(Trouble { reason: Reason::Hypervisor, detail: "it failed".to_owned() });
    let work = world.work.get_mut(&first).unwrap();
    work.given = Tries { retry_at: Some(T0.plus_ms(10)), failures: 1, trouble };
    assert_eq!(plan(&wanted, &world.seen(), &here(T0)), [Action::Unplug(second)]);
    assert_eq!(plan(&wanted, &world.seen(), &here(T0.plus_ms(10))), [Action::Unplug(first), Action::Unplug(second)]);
    let said = guest_disks::trouble(&wanted, &world.seen(), &here(T0)).unwrap();
    assert_eq!((said.reason, &*said.detail), (Reason::Hypervisor, "disk 'data21': it failed"));
    let of = |disk| guest_disks::trouble_of(disk, &world.seen(), &here(T0)).map(|trouble| trouble.detail);
    assert_eq!((of(first).as_deref(), of(second)), (Some("it failed"), None), "each says its own");
}

#[test]
fn a_disk_says_what_its_guest_lacks() {
    let (mut wanted, mut world) = detaching();
    wanted.disks[2].in_guest = true;
    let disk = wanted.disks[2].disk;
    let lacks = |world: &World, wanted: &Assignment| guest_disks::guest_lacks(wanted, &world.seen(), &here(T0), disk);
    assert_eq!(lacks(&world, &wanted), None);
    world.disks.iter_mut().for_each(|disk| disk.size_bytes *= 2);
    assert_eq!(lacks(&world, &wanted), Some(GuestLacks::Size));
    world.domain.as_mut().unwrap().disks.retain(|has| *has != disk);
    assert_eq!(lacks(&world, &wanted), Some(GuestLacks::Disk));
    world.domain.as_mut().unwrap().state = DomainState::Paused(PauseReason::DiskFull);
    assert_eq!(lacks(&world, &wanted), Some(GuestLacks::Disk), "it was started without it");
    wanted.disks[2].in_guest = false;
    assert_eq!(lacks(&world, &wanted), None, "it is not to have it");
    // Without a guest nobody lacks anything: the next start gives it the disk.
    wanted.disks[2].in_guest = true;
    world.domain = None;
    assert_eq!(lacks(&world, &wanted), None);
}

#[test]
fn a_disk_that_is_not_here_is_told_once_it_is_certain_that_it_stays_away() {
    let (mut wanted, mut world) = detaching();
    let (kept, gone) = (wanted.disks[1].disk, wanted.disks[2].disk);
    world.disks.retain(|found| found.disk != kept && found.disk != gone);
    world.domain.as_mut().unwrap().disks.retain(|has| *has != kept && *has != gone);
    let absent = |world: &World, is_quiet| guest_disks::absent(&wanted, &world.seen(), &here(T0), is_quiet);
    assert_eq!(absent(&world, false), [], "a step under way may be making it");
    assert_eq!(absent(&world, true), [AbsentDisk { disk: gone, detail: None }], "the other one is made");
    let trouble = Some(Trouble { reason: Reason::DiskFull, detail: "no space".to_owned() });
    world.work.entry(kept).or_default().made = Tries { retry_at: Some(T0.plus_ms(10)), failures: 1, trouble };
    assert_eq!(absent(&world, false), [AbsentDisk { disk: kept, detail: Some("no space".to_owned()) }]);
    // It waits by itself. The other one is not made any more.
    assert_eq!(plan(&wanted, &world.seen(), &here(T0)), []);
    assert_eq!(plan(&wanted, &world.seen(), &here(T0.plus_ms(10))), [Action::EnsureDisks]);
    wanted.disks.remove(1);
    assert_eq!(plan(&wanted, &world.seen(), &here(T0)), []);
}
