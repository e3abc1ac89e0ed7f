//! Cuts that freeze the file systems of guests: a coordinator and members with scripted disks and guest agents, in one
//! process and with a clock that jumps.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{fs, time::Duration};

use muster_agent::hypervisor::{
    Hypervisor as _, HypervisorError, InstanceSpec, PauseReason, RunId,
    fake::{Guests, Takes},
};
use muster_api::{
    Reason,
    condition::ConditionKind,
    node_protocol::{CutKey, CutPhase, CutResult},
    peer_protocol::{CutStep, CutStepAnswer},
};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use tokio::time::{Instant, sleep};

use crate::cuts::{Fleet, reason};

/// A fleet whose cuts freeze, with a guest on each node that runs.
async fn fleet(count: usize) -> Fleet {
    let mut fleet = Fleet::new(count);
    fleet.freeze = true;
    for at in 0..count {
        boot(&fleet, at, 1).await;
    }
    fleet
}

async fn boot(fleet: &Fleet, at: usize, boot: u64) {
    let node = &fleet.nodes[at];
    let spec = InstanceSpec {
        instance: node.instance,
        generation: 1,
        boot,
        run: RunId::generate(),
        name: format!("web.{at}"),
        host_name: format!("web-{at}"),
        project: "default".to_owned(),
        cpus: 1,
        memory_bytes: 1 << 20,
        disks: Vec::new(),
        uefi: None,
        tpm: false,
        seed: None,
        cards: Vec::new(),
        console_socket: None,
        console_log: fleet.dir.path().join(format!("{}.log", node.instance)),
    };
    fleet.hypervisor(node.id).start(spec).await.unwrap();
}

fn takes(fleet: &Fleet, at: usize, command: &'static str, how: Takes) {
    fleet.host.guest_agent(fleet.nodes[at].instance, |agent| agent.takes.insert(command, how));
}

/// Lets all guest agents answer from now on.
fn heal(fleet: &Fleet) {
    for spec in fleet.host.running() {
        fleet.host.guest_agent(spec.instance, |agent| agent.takes.clear());
    }
}

fn is_frozen(fleet: &Fleet, at: usize) -> bool {
    fleet.host.guest_agent(fleet.nodes[at].instance, |agent| agent.frozen)
}

/// Whether no guest is frozen and nothing is written down of any.
fn all_thawed(fleet: &Fleet) -> bool {
    let none_frozen = (0..fleet.nodes.len()).all(|at| {
        let instance = fleet.nodes[at].instance;
        !fleet.host.running().iter().any(|spec| spec.instance == instance) || !is_frozen(fleet, at)
    });
    none_frozen && fleet.nodes.iter().all(|node| fs::read_dir(fleet.records(node.id)).unwrap().next().is_none())
}

/// The first report of a cut. It may take longer than the steps of one that freezes nobody.
async fn first_report(fleet: &Fleet) -> CutResult {
    let reports = || fleet.controller.script(|s| s.cut_reports.first().map(|(_, report)| report.outcome.clone()));
    fleet.within(Duration::from_secs(120), "a report", || reports().is_some()).await;
    reports().unwrap()
}

fn detail(result: &CutResult) -> &str {
    match result {
        CutResult::Failed { detail, .. } => detail,
        CutResult::Flipped { .. } => "flipped",
    }
}

#[tokio::test(start_paused = true)]
async fn guests_are_frozen_before_the_hold_and_thawed_after_the_flip() {
    let fleet = fleet(3).await;
    fleet.start();
    fleet.order_all(1, CutPhase::Cut);
    let report = fleet.report(1).await;
    assert!(matches!(report, CutResult::Flipped { frozen: true, .. }), "{report:?}");
    for (at, node) in fleet.nodes.iter().enumerate() {
        let seen = node.disks.with(|d| d.frozen_at.clone());
        assert_eq!(seen, [(CutStep::Prepare, false), (CutStep::Hold, true), (CutStep::Flip, true)]);
        assert_eq!(fleet.host.guest_agent(node.instance, |agent| agent.freezes), 1);
        assert!(!is_frozen(&fleet, at));
    }
    assert!(all_thawed(&fleet));
}

#[tokio::test(start_paused = true)]
async fn a_cut_that_does_not_say_so_freezes_nobody() {
    let mut fleet = fleet(2).await;
    fleet.freeze = false;
    fleet.start();
    fleet.order_all(1, CutPhase::Cut);
    assert!(matches!(fleet.report(1).await, CutResult::Flipped { frozen: false, .. }));
    let freeze = fleet.nodes[1].cuts.step(CutKey::new(fleet.snapshot, 1), CutStep::Freeze, Vec::new()).await;
    assert!(matches!(freeze, CutStepAnswer::Refused { reason: Reason::NotAssigned, .. }), "{freeze:?}");
    assert!(fleet.nodes.iter().all(|node| fleet.host.guest_agent(node.instance, |agent| agent.freezes) == 0));
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_is_paused_or_off_needs_no_freeze() {
    let fleet = fleet(3).await;
    fleet.host.pause(fleet.nodes[1].instance, &PauseReason::DiskFull);
    fleet.hypervisor(fleet.nodes[2].id).destroy(fleet.nodes[2].instance).await.unwrap();
    fleet.start();
    fleet.order_all(1, CutPhase::Cut);
    assert_eq!(reason(&fleet.report(1).await), "flipped");
    assert_eq!(fleet.host.guest_agent(fleet.nodes[1].instance, |agent| agent.freezes), 0);
    assert!(all_thawed(&fleet));
}

#[tokio::test(start_paused = true)]
async fn a_guest_without_a_guest_agent_fails_the_cut_with_its_name_and_nobody_is_held() {
    let fleet = fleet(2).await;
    fleet.host.set_guests(Guests { agent: false, ..Guests::default() });
    fleet.hypervisor(fleet.nodes[1].id).destroy(fleet.nodes[1].instance).await.unwrap();
    boot(&fleet, 1, 2).await;
    fleet.start();
    fleet.order_all(1, CutPhase::Cut);
    let report = fleet.report(1).await;
    assert_eq!(reason(&report), "freeze_failed");
    assert!(detail(&report).contains(&fleet.nodes[1].instance.to_string()), "{}", detail(&report));
    assert!(detail(&report).contains("not connected"), "{}", detail(&report));
    fleet.eventually("all are thawed", || all_thawed(&fleet)).await;
    assert!(fleet.nodes.iter().all(|n| n.disks.with(|d| !d.steps.contains(&CutStep::Hold))));
}

#[tokio::test(start_paused = true)]
async fn a_hung_guest_agent_fails_the_cut_in_time_and_its_late_freeze_is_thawed() {
    let fleet = fleet(3).await;
    takes(&fleet, 2, "guest-fsfreeze-freeze", Takes::Late);
    takes(&fleet, 2, "guest-fsfreeze-thaw", Takes::Hangs);
    fleet.start();
    let begun = Instant::now();
    fleet.order_all(1, CutPhase::Cut);
    assert_eq!(reason(&first_report(&fleet).await), "freeze_failed");
    assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
    fleet.eventually("the others run", || !is_frozen(&fleet, 0) && !is_frozen(&fleet, 1)).await;
    assert!(fleet.nodes.iter().all(|n| n.disks.with(|d| !d.steps.contains(&CutStep::Hold))));
    // It wakes up after minutes and does first what it was asked for first.
    sleep(Duration::from_secs(600)).await;
    heal(&fleet);
    fleet.within(Duration::from_secs(60), "it is thawed", || all_thawed(&fleet)).await;
    assert_eq!(fleet.host.guest_agent(fleet.nodes[2].instance, |agent| agent.freezes), 1, "it did freeze");
}

#[tokio::test(start_paused = true)]
async fn a_guest_agent_that_dies_while_frozen_fails_the_cut_and_is_thawed_when_it_is_back() {
    let fleet = fleet(2).await;
    takes(&fleet, 1, "guest-fsfreeze-freeze", Takes::Dies);
    fleet.start();
    fleet.order_all(1, CutPhase::Cut);
    let report = fleet.report(1).await;
    assert_eq!(reason(&report), "freeze_failed");
    assert!(detail(&report).contains("not known"), "{}", detail(&report));
    assert!(is_frozen(&fleet, 1));
    fleet.eventually("the other runs", || !is_frozen(&fleet, 0)).await;
    // Its owner is told, until it is thawed.
    let told = |at: usize| fleet.nodes[at].freezes.condition(fleet.nodes[at].instance);
    fleet.eventually("it is told", || told(1).is_some()).await;
    let condition = told(1).expect("it stays until the guest answers");
    assert!(condition.kind == ConditionKind::GuestFrozen && condition.detail.contains("frozen"), "{condition:?}");
    assert_eq!(told(0), None);
    heal(&fleet);
    fleet.within(Duration::from_secs(60), "it is thawed", || all_thawed(&fleet)).await;
    fleet.eventually("nothing is told any more", || told(1).is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_was_thawed_before_the_flip_fails_the_cut() {
    let fleet = fleet(1).await;
    let key = CutKey::new(fleet.snapshot, 1);
    fleet.tell(0, vec![fleet.order(0, 1, CutPhase::Save)]);
    let node = &fleet.nodes[0];
    let disks: Vec<_> = fleet.order(0, 1, CutPhase::Save).disks.iter().map(|disk| disk.disk).collect();
    let step = async |step| node.cuts.step(key, step, disks.clone()).await;
    assert!(matches!(step(CutStep::Freeze).await, CutStepAnswer::Done { .. }));
    // Somebody in the guest runs `fsfreeze --unfreeze`.
    fleet.host.guest_agent(node.instance, |agent| agent.frozen = false);
    let CutStepAnswer::Refused { reason, detail } = step(CutStep::Thaw).await else { panic!("refused") };
    assert_eq!(reason, Reason::FreezeFailed);
    assert!(detail.contains("1 of its file systems were frozen, 0 until the cut"), "{detail}");
    assert!(all_thawed(&fleet));
}

#[tokio::test(start_paused = true)]
async fn a_guest_whose_cut_never_ends_is_thawed_by_its_guard() {
    let fleet = fleet(1).await;
    let key = CutKey::new(fleet.snapshot, 1);
    fleet.tell(0, vec![fleet.order(0, 1, CutPhase::Save)]);
    let disks: Vec<_> = fleet.order(0, 1, CutPhase::Save).disks.iter().map(|disk| disk.disk).collect();
    let cuts = fleet.nodes[0].cuts.clone();
    assert!(matches!(cuts.step(key, CutStep::Freeze, disks.clone()).await, CutStepAnswer::Done { .. }));
    sleep(Duration::from_secs(30)).await;
    assert!(is_frozen(&fleet, 0), "longer than any cut takes");
    fleet.within(Duration::from_secs(15), "it is thawed", || all_thawed(&fleet)).await;
    let late = cuts.step(key, CutStep::Thaw, disks).await;
    assert!(matches!(late, CutStepAnswer::Done { .. } | CutStepAnswer::Refused { .. }));
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_was_killed_thaws_at_its_next_start() {
    let mut fleet = fleet(1).await;
    let key = CutKey::new(fleet.snapshot, 1);
    fleet.tell(0, vec![fleet.order(0, 1, CutPhase::Save)]);
    let disks: Vec<_> = fleet.order(0, 1, CutPhase::Save).disks.iter().map(|disk| disk.disk).collect();
    let freeze = fleet.nodes[0].cuts.step(key, CutStep::Freeze, disks).await;
    assert!(matches!(freeze, CutStepAnswer::Done { .. }));
    assert!(is_frozen(&fleet, 0) && !all_thawed(&fleet));
    fleet.restart(0);
    fleet.within(Duration::from_secs(5), "it is thawed", || all_thawed(&fleet)).await;
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_somebody_else_froze_is_left_alone() {
    let fleet = fleet(2).await;
    fleet.host.guest_agent(fleet.nodes[1].instance, |agent| agent.frozen = true);
    fleet.start();
    fleet.order_all(1, CutPhase::Cut);
    let report = fleet.report(1).await;
    assert!(detail(&report).contains("somebody else has its file systems frozen"), "{}", detail(&report));
    sleep(Duration::from_secs(100)).await;
    assert!(is_frozen(&fleet, 1));
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_too_old_to_freeze_fails_the_cut_and_says_so() {
    let fleet = fleet(2).await;
    fleet.wires.old.lock().unwrap().insert(fleet.nodes[1].id);
    fleet.start();
    fleet.order_all(1, CutPhase::Cut);
    let report = fleet.report(1).await;
    assert_eq!(reason(&report), "freeze_failed");
    assert!(detail(&report).contains("too old to freeze"), "{}", detail(&report));
    fleet.eventually("all are thawed", || all_thawed(&fleet)).await;
}

/// What goes wrong in one run of the property.
#[derive(Clone, Debug)]
enum Fault {
    Takes(usize, &'static str, Takes),
    NotCalled(bool),
    Cut(usize, CutStep),
    Refuse(usize, CutStep),
    Restart(usize, u64),
    Reboot(usize, u64),
}

fn faults() -> impl Strategy<Value = Vec<Fault>> {
    let at = 0..3_usize;
    let command = prop::sample::select(vec!["guest-fsfreeze-status", "guest-fsfreeze-freeze", "guest-fsfreeze-thaw"]);
    let how = prop::sample::select(vec![Takes::Refuses, Takes::Hangs, Takes::Late, Takes::Mute, Takes::Dies]);
    let step =
        prop::sample::select(vec![CutStep::Prepare, CutStep::Freeze, CutStep::Hold, CutStep::Flip, CutStep::Thaw]);
    let disk_step = prop::sample::select(vec![CutStep::Prepare, CutStep::Hold, CutStep::Flip]);
    let fault = prop_oneof![
        4 => (at.clone(), command, how).prop_map(|(at, command, how)| Fault::Takes(at, command, how)),
        1 => any::<bool>().prop_map(Fault::NotCalled),
        1 => (1..3_usize, step).prop_map(|(at, step)| Fault::Cut(at, step)),
        1 => (at.clone(), disk_step).prop_map(|(at, step)| Fault::Refuse(at, step)),
        1 => (at.clone(), 0..20_000_u64).prop_map(|(at, ms)| Fault::Restart(at, ms)),
        1 => (at, 0..20_000_u64).prop_map(|(at, ms)| Fault::Reboot(at, ms)),
    ];
    prop::collection::vec(fault, 1..5)
}

async fn run(faults: Vec<Fault>) -> Result<(), TestCaseError> {
    let mut fleet = fleet(3).await;
    fleet.start();
    for fault in &faults {
        match *fault {
            Fault::Takes(at, command, how) => takes(&fleet, at, command, how),
            Fault::NotCalled(timed_out) => {
                let instance = fleet.nodes[0].instance;
                let after = Duration::from_secs(15);
                let error = if timed_out {
                    HypervisorError::TimedOut { what: "ask the agent of", after }
                } else {
                    HypervisorError::NotRunning(instance)
                };
                fleet.host.fail_next("agent", error);
            }
            Fault::Cut(at, step) => drop(fleet.wires.cut.lock().unwrap().insert((fleet.nodes[at].id, step))),
            Fault::Refuse(at, step) => drop(fleet.nodes[at].disks.with(|d| d.refuse.insert(step))),
            Fault::Restart(..) | Fault::Reboot(..) => {}
        }
    }
    fleet.order_all(1, CutPhase::Cut);
    for fault in &faults {
        match *fault {
            Fault::Restart(at, after) => {
                sleep(Duration::from_millis(after)).await;
                fleet.restart(at);
            }
            Fault::Reboot(at, after) => {
                sleep(Duration::from_millis(after)).await;
                let node = &fleet.nodes[at];
                fleet.hypervisor(node.id).destroy(node.instance).await.unwrap();
                boot(&fleet, at, 2).await;
            }
            _ => {}
        }
    }
    let begun = Instant::now();
    let report = first_report(&fleet).await;
    prop_assert!(begun.elapsed() < Duration::from_secs(90), "{:?}", begun.elapsed());
    if let CutResult::Flipped { frozen, .. } = report {
        prop_assert!(frozen);
    }
    // No new attempt is ordered, and guest agents answer again.
    for at in 0..3 {
        fleet.tell(at, Vec::new());
    }
    heal(&fleet);
    fleet.within(Duration::from_secs(200), "no guest stays frozen", || all_thawed(&fleet)).await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_guest_whose_agent_died_is_thawed_although_the_coordinator_was_killed_while_it_asked_for_the_thaw() {
    run(vec![Fault::Restart(0, 1), Fault::Takes(1, "guest-fsfreeze-freeze", Takes::Dies)]).await.unwrap();
}

#[test]
fn whatever_fails_no_guest_stays_frozen() {
    let mut runner = TestRunner::new(Config { cases: 150, ..Config::default() });
    let each = |faults| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(run(faults))
    };
    runner.run(&faults(), each).unwrap();
}
