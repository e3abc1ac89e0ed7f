//! A controller without a network: tests set what it wants and see what it was told.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use muster_api::{
    CommitId, DiskId, ErrorCode, InstanceId, Problem, SnapshotId,
    node_protocol::{
        CommitOutcome, CommitTrouble, CutReport, Desired, Heartbeat, HeartbeatAnswer, RenewAnswer, RenewRequest,
        Report, RunStart, SalvageOrder, SalvageReport, StagedCommit,
        boot::{BootOrder, BootReport},
        repository::RepositoryOrder,
        sweep::{SweepDone, SweepRound},
    },
};
use storage_core::{ObjectName, lock};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use super::{Call, ControllerClient, ControllerError};

/// What the controller was told so far and what it answers.
#[derive(Debug, Default)]
pub struct Script {
    /// The desired state; none until a test sets one.
    pub desired: Option<Desired>,
    /// Runs that were registered, oldest first.
    pub runs: Vec<RunStart>,
    /// Set while another process acts as the node: what heartbeats and starts are told.
    pub superseded: Option<String>,
    /// Heartbeats that are answered as if the run was never registered.
    pub forgotten_runs: u32,
    /// Heartbeats received, oldest first.
    pub heartbeats: Vec<Heartbeat>,
    /// Reports received, oldest first.
    pub reports: Vec<Report>,
    /// Whether heartbeats are told that a full report is needed.
    pub wants_full_report: bool,
    /// What it says of the repository; none: nothing.
    pub repository: Option<RepositoryOrder>,
    /// Boot orders received, oldest first, each with its instance.
    pub boots: Vec<(InstanceId, BootReport)>,
    /// What it tells of starts, by disk.
    pub boot_orders: HashMap<DiskId, BootOrder>,
    /// Set if it is too old to know the call that takes boot orders: how often that was called.
    pub unknown_boots: Option<u32>,
    /// Cut reports received, oldest first, each with its snapshot.
    pub cut_reports: Vec<(SnapshotId, CutReport)>,
    /// Commits that were staged, oldest first.
    pub staged: Vec<(CommitId, StagedCommit)>,
    /// What kept commits from being saved, oldest first.
    pub troubles: Vec<(CommitId, CommitTrouble)>,
    /// What becomes of commits. A commit that is not here is pending.
    pub outcomes: HashMap<CommitId, CommitOutcome>,
    /// Commits that were asked about.
    pub asked: Vec<CommitId>,
    /// Errors of the next calls, whichever calls they are.
    pub failures: VecDeque<String>,
    /// Set while it cannot be reached.
    pub away: bool,
    /// Set once the node was declared dead: what every call is told.
    pub fenced: Option<String>,
    /// What is awaited of the disks of a node that was declared dead. Forgotten when one of them is done.
    pub salvage: Option<SalvageOrder>,
    /// How the saving of disks went, oldest first.
    pub salvaged: Vec<(DiskId, SalvageReport)>,
    /// The round of the sweep that heartbeats name until it is done; none: there is none.
    pub sweep: Option<SweepRound>,
    /// Calls about the sweep that are still answered before it cannot be reached; none: all.
    pub sweep_calls_left: Option<u32>,
    /// Calls about the sweep that did not reach it.
    pub sweep_calls_lost: u32,
    /// What nothing needs since that round.
    pub dead: Vec<ObjectName>,
    /// Names in one answer about the dead; 0: all of them.
    pub dead_count_max: usize,
    /// What nothing needs.
    pub unneeded: BTreeSet<ObjectName>,
    /// A name that it judges without being asked.
    pub judges_also: Option<ObjectName>,
    /// Which objects the nodes asked about, each call by itself, oldest first.
    pub judged: Vec<Vec<ObjectName>>,
    /// Rounds of the sweep that were done, oldest first.
    pub swept: Vec<(u64, SweepDone)>,
    /// Calls that were refused because the node was declared dead.
    pub refused: u64,
}

/// A scripted controller. Clones share one script.
#[derive(Clone)]
pub struct ScriptedController {
    script: Arc<Mutex<Script>>,
    changed: watch::Sender<u64>,
}

impl Default for ScriptedController {
    fn default() -> Self {
        Self { script: Arc::default(), changed: watch::Sender::new(0) }
    }
}

impl ScriptedController {
    /// A controller that wants nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads or changes the script. Long-polls look again after each call.
    pub fn script<T>(&self, change: impl FnOnce(&mut Script) -> T) -> T {
        let out = change(&mut lock(&self.script));
        self.changed.send_modify(|n| *n += 1);
        out
    }

    fn check_superseded(&self) -> Result<(), ControllerError> {
        match lock(&self.script).superseded.clone() {
            Some(detail) => Err(ControllerError::Refused(Box::new(Problem::new(ErrorCode::Superseded, detail)))),
            None => Ok(()),
        }
    }

    fn answer<T>(&self, answer: impl FnOnce(&mut Script) -> T) -> Result<T, ControllerError> {
        let mut script = lock(&self.script);
        if script.away {
            return Err(ControllerError::Unavailable("away".to_owned()));
        }
        if let Some(word) = script.fenced.clone() {
            script.refused += 1;
            return Err(ControllerError::Refused(Box::new(Problem::new(ErrorCode::Fenced, word))));
        }
        if let Some(failure) = script.failures.pop_front() {
            return Err(ControllerError::Unavailable(failure));
        }
        let out = answer(&mut script);
        drop(script);
        self.changed.send_modify(|n| *n += 1);
        Ok(out)
    }

    /// Answers a call about a round of the sweep.
    fn in_round<T>(&self, round: u64, answer: impl FnOnce(&mut Script) -> T) -> Result<T, ControllerError> {
        let over = || Problem::new(ErrorCode::WrongState, format!("round {round} is not carried out now"));
        self.answer(|script| {
            match &mut script.sweep_calls_left {
                Some(0) => {
                    script.sweep_calls_lost += 1;
                    return Err(ControllerError::Unavailable("lost".to_owned()));
                }
                Some(left) => *left -= 1,
                None => {}
            }
            if script.sweep != Some(SweepRound { round }) {
                return Err(ControllerError::Refused(Box::new(over())));
            }
            Ok(answer(script))
        })?
    }

    /// Waits until the script satisfies `wanted`.
    ///
    /// # Panics
    /// When it does not within ten seconds.
    pub async fn until(&self, what: &str, wanted: impl Fn(&Script) -> bool) {
        let mut changed = self.changed.subscribe();
        let limit = Instant::now() + Duration::from_secs(10);
        while !wanted(&lock(&self.script)) {
            let seen = timeout_at(limit, changed.changed()).await;
            assert!(seen.is_ok(), "not within ten seconds: {what}; {:?}", lock(&self.script));
        }
    }
}

impl ControllerClient for ScriptedController {
    fn start_run(&self, start: RunStart) -> Call<'_, ()> {
        Box::pin(async move {
            self.check_superseded()?;
            self.answer(|script| script.runs.push(start))
        })
    }

    fn heartbeat(&self, heartbeat: Heartbeat) -> Call<'_, HeartbeatAnswer> {
        Box::pin(async move {
            self.check_superseded()?;
            if self
                .script(|script| script.forgotten_runs.checked_sub(1).map(|left| script.forgotten_runs = left))
                .is_some()
            {
                let problem = Problem::new(ErrorCode::Superseded, "a run that was never registered");
                return Err(ControllerError::Refused(Box::new(problem)));
            }
            self.answer(|script| {
                let (incarnation, membership_epoch) = (heartbeat.incarnation, heartbeat.membership_epoch);
                script.heartbeats.push(heartbeat);
                let is_done = |sweep: &SweepRound| script.swept.iter().any(|(round, _)| *round == sweep.round);
                let sweep = script.sweep.filter(|sweep| !is_done(sweep));
                let wanted = script.desired.as_ref();
                HeartbeatAnswer {
                    incarnation: wanted.map_or(incarnation, |d| d.incarnation),
                    desired_revision: wanted.map_or(0, |d| d.revision),
                    membership_epoch,
                    oldest_open_epoch: 0,
                    sweep,
                    wants_full_report: script.wants_full_report,
                    repository: script.repository.as_ref().map(|order| order.revision),
                }
            })
        })
    }

    fn desired(&self, after: u64, wait: Duration) -> Call<'_, Option<Desired>> {
        Box::pin(async move {
            let limit = Instant::now() + wait;
            let mut changed = self.changed.subscribe();
            loop {
                let newer = {
                    let script = lock(&self.script);
                    if script.away {
                        return Err(ControllerError::Unavailable("away".to_owned()));
                    }
                    // As a controller does: a node that was declared dead is told nothing else.
                    if let Some(word) = &script.fenced {
                        return Err(ControllerError::Refused(Box::new(Problem::new(ErrorCode::Fenced, word.clone()))));
                    }
                    script.desired.clone().filter(|d| d.revision > after)
                };
                if newer.is_some() {
                    return Ok(newer);
                }
                if timeout_at(limit, changed.changed()).await.is_err() {
                    return Ok(None);
                }
            }
        })
    }

    fn report(&self, report: Report) -> Call<'_, ()> {
        Box::pin(async move { self.answer(|script| script.reports.push(report)) })
    }

    fn boot(&self, instance: InstanceId, report: BootReport) -> Call<'_, ()> {
        Box::pin(async move {
            let is_unknown = self.answer(|script| match &mut script.unknown_boots {
                Some(calls) => {
                    *calls += 1;
                    true
                }
                None => {
                    script.boots.push((instance, report));
                    false
                }
            })?;
            let problem = || Box::new(Problem::new(ErrorCode::NoSuchPath, "there is no path /node/v1/boots"));
            if is_unknown { Err(ControllerError::Refused(problem())) } else { Ok(()) }
        })
    }

    fn boot_order(&self, _: InstanceId, disk: DiskId) -> Call<'_, Option<BootOrder>> {
        Box::pin(async move { self.answer(|script| script.boot_orders.get(&disk).cloned()) })
    }

    fn cut_report(&self, snapshot: SnapshotId, report: CutReport) -> Call<'_, ()> {
        Box::pin(async move { self.answer(|script| script.cut_reports.push((snapshot, report))) })
    }

    fn stage(&self, commit: CommitId, staged: StagedCommit) -> Call<'_, CommitOutcome> {
        Box::pin(async move {
            self.answer(|script| {
                script.staged.push((commit, staged));
                script.outcomes.get(&commit).copied().unwrap_or(CommitOutcome::Pending)
            })
        })
    }

    fn commit_trouble(&self, commit: CommitId, trouble: CommitTrouble) -> Call<'_, CommitOutcome> {
        Box::pin(async move {
            self.answer(|script| {
                let outcome = if trouble.hopeless { CommitOutcome::Abandoned } else { CommitOutcome::Pending };
                script.troubles.push((commit, trouble));
                script.outcomes.get(&commit).copied().unwrap_or(outcome)
            })
        })
    }

    fn outcome(&self, commit: CommitId) -> Call<'_, CommitOutcome> {
        Box::pin(async move {
            self.answer(|script| {
                script.asked.push(commit);
                script.outcomes.get(&commit).copied().unwrap_or(CommitOutcome::Pending)
            })
        })
    }

    fn salvage_order(&self) -> Call<'_, Option<SalvageOrder>> {
        // Also answered while the node is declared dead.
        Box::pin(async move { Ok(lock(&self.script).salvage.clone()) })
    }

    fn salvaged(&self, disk: DiskId, report: SalvageReport) -> Call<'_, ()> {
        Box::pin(async move {
            let mut script = lock(&self.script);
            if !matches!(report, SalvageReport::Trouble(_)) {
                script.salvage = None;
            }
            script.salvaged.push((disk, report));
            drop(script);
            self.changed.send_modify(|n| *n += 1);
            Ok(())
        })
    }

    fn sweep_dead(&self, round: u64, after: Option<ObjectName>) -> Call<'_, Vec<ObjectName>> {
        Box::pin(async move {
            self.in_round(round, |script| {
                let count_max = if script.dead_count_max == 0 { usize::MAX } else { script.dead_count_max };
                let next = script.dead.iter().copied().filter(|name| after.is_none_or(|after| *name > after));
                next.take(count_max).collect()
            })
        })
    }

    fn sweep_judge(&self, round: u64, names: Vec<ObjectName>) -> Call<'_, Vec<ObjectName>> {
        Box::pin(async move {
            self.in_round(round, |script| {
                let unneeded = names.iter().copied().filter(|name| script.unneeded.contains(name));
                let unneeded = unneeded.chain(script.judges_also).collect();
                script.judged.push(names);
                unneeded
            })
        })
    }

    fn sweep_done(&self, round: u64, done: SweepDone) -> Call<'_, ()> {
        Box::pin(async move { self.in_round(round, |script| script.swept.push((round, done))) })
    }

    fn repository(&self) -> Call<'_, RepositoryOrder> {
        Box::pin(async move {
            let order = self.script(|script| script.repository.clone());
            order.ok_or_else(|| ControllerError::Garbled("the script has no repository".to_owned()))
        })
    }

    fn renew(&self, _request: RenewRequest) -> Call<'_, RenewAnswer> {
        Box::pin(async move { Err(ControllerError::Garbled("a scripted controller signs nothing".to_owned())) })
    }

    fn clock_offset_s(&self) -> Option<i64> {
        Some(0)
    }
}
