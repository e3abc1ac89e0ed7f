//! The controller as nodes see it while they sweep: it answers for the round that is named, and for no other.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use muster_agent::{
    controller::{Call, ControllerClient, ControllerError},
    sweep::Named,
};
use muster_api::{
    CommitId, DiskId, ErrorCode, InstanceId, Problem, SnapshotId,
    node_protocol::{
        CommitOutcome, CommitTrouble, CutReport, Desired, Heartbeat, HeartbeatAnswer, RenewAnswer, RenewRequest,
        Report, RunStart, SalvageOrder, SalvageReport, StagedCommit,
        boot::{BootOrder, BootReport},
        repository::RepositoryOrder,
        sweep::{NAMES_MAX, SweepDone},
    },
};
use storage_core::{ObjectName, census::Census, lock};
use tokio::{sync::watch, time::Instant};

/// Time between two heartbeats.
const HEARTBEAT: Duration = Duration::from_millis(20);

/// A round that nodes carry out.
#[derive(Clone)]
pub(crate) struct Round {
    pub(crate) named: Named,
    pub(crate) census: Arc<Census>,
    /// The nodes that said that they are done.
    pub(crate) done: BTreeSet<usize>,
}

/// What the controller names, and who is done.
pub(crate) struct Door {
    round: Mutex<Option<Round>>,
    changed: watch::Sender<()>,
}

/// The door as one node knows it.
pub(crate) struct NodeDoor {
    door: Arc<Door>,
    node: usize,
}

impl Door {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { round: Mutex::default(), changed: watch::Sender::new(()) })
    }

    pub(crate) fn of_node(self: Arc<Self>, node: usize) -> NodeDoor {
        NodeDoor { door: self, node }
    }

    /// Names this round from now on.
    pub(crate) fn name(&self, round: Option<Round>) {
        *lock(&self.round) = round;
    }

    pub(crate) fn round(&self) -> Option<Round> {
        lock(&self.round).clone()
    }

    /// Names the round to a node, as heartbeats do, until it is done.
    pub(crate) async fn until_done(&self, node: usize, heartbeat: impl Fn()) {
        let mut changed = self.changed.subscribe();
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.round().is_some_and(|round| round.done.contains(&node)) {
            assert!(Instant::now() < deadline, "node {node} does not carry out its round within a minute");
            heartbeat();
            let _again_in_any_case = tokio::time::timeout(HEARTBEAT, changed.changed()).await;
        }
    }

    fn of_round<T>(&self, number: u64, answer: impl FnOnce(&mut Round) -> T) -> Result<T, ControllerError> {
        let mut round = lock(&self.round);
        match round.as_mut().filter(|round| round.named.round.round == number) {
            Some(round) => Ok(answer(round)),
            None => {
                let detail = format!("round {number} is not the one that is named");
                Err(ControllerError::Refused(Box::new(Problem::new(ErrorCode::WrongState, detail))))
            }
        }
    }
}

impl ControllerClient for NodeDoor {
    fn sweep_dead(&self, round: u64, after: Option<ObjectName>) -> Call<'_, Vec<ObjectName>> {
        Box::pin(async move {
            self.door.of_round(round, |round| round.census.dead(after.as_ref(), NAMES_MAX).expect("the census answers"))
        })
    }

    fn sweep_judge(&self, round: u64, names: Vec<ObjectName>) -> Call<'_, Vec<ObjectName>> {
        Box::pin(async move {
            self.door.of_round(round, |round| {
                let needed = round.census.needed(&names).expect("the census answers");
                names.iter().zip(needed).filter(|(_, needed)| !needed).map(|(name, _)| *name).collect()
            })
        })
    }

    fn sweep_done(&self, round: u64, _: SweepDone) -> Call<'_, ()> {
        Box::pin(async move {
            self.door.of_round(round, |round| round.done.insert(self.node))?;
            self.door.changed.send_replace(());
            Ok(())
        })
    }

    fn start_run(&self, _: RunStart) -> Call<'_, ()> {
        not_asked()
    }
    fn heartbeat(&self, _: Heartbeat) -> Call<'_, HeartbeatAnswer> {
        not_asked()
    }
    fn desired(&self, _: u64, _: Duration) -> Call<'_, Option<Desired>> {
        not_asked()
    }
    fn report(&self, _: Report) -> Call<'_, ()> {
        not_asked()
    }
    fn boot(&self, _: InstanceId, _: BootReport) -> Call<'_, ()> {
        not_asked()
    }
    fn boot_order(&self, _: InstanceId, _: DiskId) -> Call<'_, Option<BootOrder>> {
        not_asked()
    }
    fn cut_report(&self, _: SnapshotId, _: CutReport) -> Call<'_, ()> {
        not_asked()
    }
    fn stage(&self, _: CommitId, _: StagedCommit) -> Call<'_, CommitOutcome> {
        not_asked()
    }
    fn commit_trouble(&self, _: CommitId, _: CommitTrouble) -> Call<'_, CommitOutcome> {
        not_asked()
    }
    fn outcome(&self, _: CommitId) -> Call<'_, CommitOutcome> {
        not_asked()
    }
    fn salvage_order(&self) -> Call<'_, Option<SalvageOrder>> {
        not_asked()
    }
    fn salvaged(&self, _: DiskId, _: SalvageReport) -> Call<'_, ()> {
        not_asked()
    }
    fn repository(&self) -> Call<'_, RepositoryOrder> {
        not_asked()
    }
    fn renew(&self, _: RenewRequest) -> Call<'_, RenewAnswer> {
        not_asked()
    }
    fn clock_offset_s(&self) -> Option<i64> {
        None
    }
}

fn not_asked<'a, T: Send + 'a>() -> Call<'a, T> {
    Box::pin(async { Err(ControllerError::Garbled("nothing but the sweep asks here".to_owned())) })
}
