//! The coordinator's part: one step after the other on all nodes with members, then a report.

use std::{collections::HashSet, time::Duration};

use futures::future::join_all;
use muster_api::{
    DiskId, Reason,
    node_protocol::{CutKey, CutMember, CutNode, CutOrder, CutReport, CutResult},
    peer_protocol::{CutStep, CutStepAnswer},
};
use storage_core::Backoff;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, info, warn};

use super::{CutRefusal, Cuts, FREEZE_ALL, RETRY_FIRST, RETRY_MOST, STEP, THAW_ALL};
use crate::{clock, controller::ControllerError, latest::Latest as _};

/// Longest a coordinator waits for all members to be prepared.
const PREPARE_ALL: Duration = Duration::from_secs(25);
/// Pause before a step is repeated on a node that was not reached.
const STEP_AGAIN: Duration = Duration::from_millis(100);

impl Cuts {
    /// Cuts all disks of an order or none, and reports which.
    pub(super) async fn coordinate(&self, order: CutOrder, nodes: Vec<CutNode>) {
        let key = order.key();
        let outcome = match self.cut_all(&order, &nodes).await {
            Ok(done) => done,
            Err(CutRefusal { reason, detail }) => {
                warn!(snapshot.id = %key.snapshot, attempt = key.attempt, %reason, detail, "a cut failed");
                // Guests go on by themselves when their hold ends. The abort only makes that sooner.
                join_all(nodes.iter().map(|node| self.ask(node, key, CutStep::Abort, STEP))).await;
                CutResult::Failed { reason, detail }
            }
        };
        self.report_cut(key, CutReport { attempt: key.attempt, outcome }).await;
    }

    async fn cut_all(&self, order: &CutOrder, nodes: &[CutNode]) -> Result<CutResult, CutRefusal> {
        let key = order.key();
        let max_pause = Duration::from_millis(order.max_pause_ms);
        let prepares = nodes.iter().map(|node| self.insist(node, key, CutStep::Prepare, PREPARE_ALL));
        all(join_all(prepares).await)?;
        if order.freeze {
            let freezes = nodes.iter().map(|node| self.ask(node, key, CutStep::Freeze, FREEZE_ALL));
            all(join_all(freezes).await).map_err(CutRefusal::of_freeze)?;
        }
        // A hold that is confirmed later than `max_pause` has already ended on the first member.
        all(join_all(nodes.iter().map(|node| self.ask(node, key, CutStep::Hold, max_pause))).await)?;
        let cut_at = clock::now();
        let flips = nodes.iter().map(|node| self.insist(node, key, CutStep::Flip, STEP));
        let members = all(join_all(flips).await)?;
        let wanted: HashSet<DiskId> = nodes.iter().flat_map(|node| node.disks.iter().copied()).collect();
        let got: HashSet<DiskId> = members.iter().map(|member| member.disk).collect();
        if wanted != got {
            let detail = format!("{} disks answered the flip of {}", got.len(), wanted.len());
            return Err(CutRefusal::new(Reason::Invalid, detail));
        }
        if order.freeze {
            // What was thawed before the flip was perhaps written to, so the cut counts only after this.
            let thaws = nodes.iter().map(|node| self.ask(node, key, CutStep::Thaw, THAW_ALL));
            all(join_all(thaws).await).map_err(CutRefusal::of_freeze)?;
        }
        info!(snapshot.id = %key.snapshot, attempt = key.attempt, disks = members.len(), "all disks were cut at one instant");
        Ok(CutResult::Flipped { cut_at, members, frozen: order.freeze })
    }

    /// Asks for one step on one node: on this node directly, on others over their connections.
    async fn ask(
        &self,
        node: &CutNode,
        key: CutKey,
        step: CutStep,
        limit: Duration,
    ) -> Result<Vec<CutMember>, CutRefusal> {
        let (id, disks) = (node.node, node.disks.clone());
        let unreachable = |detail: String| CutRefusal::new(Reason::Unreachable, format!("node {id}: {detail}"));
        if id == self.parts.node {
            let answer = timeout(limit, self.member_step(key, step, disks)).await;
            return answer.unwrap_or_else(|_elapsed| Err(unreachable(format!("{step} took longer than {limit:?}"))));
        }
        match self.parts.peers.step(id, key, step, disks, limit).await {
            Ok(CutStepAnswer::Done { members }) => Ok(members),
            Ok(CutStepAnswer::Refused { reason, detail }) => {
                Err(CutRefusal::new(reason, format!("node {id}: {detail}")))
            }
            Err(error) => Err(unreachable(error)),
        }
    }

    /// As [`Cuts::ask`], but asks again while the node is not reached. Prepare and flip can be repeated.
    async fn insist(
        &self,
        node: &CutNode,
        key: CutKey,
        step: CutStep,
        limit: Duration,
    ) -> Result<Vec<CutMember>, CutRefusal> {
        let end = Instant::now() + limit;
        loop {
            let answer = self.ask(node, key, step, end.saturating_duration_since(Instant::now())).await;
            let again = Instant::now() + STEP_AGAIN;
            match answer {
                Err(refusal) if refusal.reason == Reason::Unreachable && again < end => sleep_until(again).await,
                other => return other,
            }
        }
    }

    /// Sends the report until it is answered or the cut is no longer ordered.
    async fn report_cut(&self, key: CutKey, report: CutReport) {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MOST);
        while self.parts.known.latest().cut(key).is_some() {
            match self.parts.controller.cut_report(key.snapshot, report.clone()).await {
                Ok(()) => return,
                Err(error @ ControllerError::Refused(_)) => {
                    warn!(snapshot.id = %key.snapshot, attempt = key.attempt, %error, "the controller refused the report of a cut");
                    return;
                }
                Err(error) => {
                    debug!(snapshot.id = %key.snapshot, attempt = key.attempt, %error, "the report of a cut is sent again")
                }
            }
            sleep(backoff.pause()).await;
        }
    }
}

impl CutRefusal {
    /// A refusal to freeze or thaw. Agents that are older than that refuse the step as one that they do not know.
    fn of_freeze(self) -> Self {
        match self.reason {
            Reason::Invalid => Self::new(
                Reason::FreezeFailed,
                format!("{}: its agent is too old to freeze file systems, update it", self.detail),
            ),
            _ => self,
        }
    }
}

/// The answers of all members, or the first refusal.
fn all(answers: Vec<Result<Vec<CutMember>, CutRefusal>>) -> Result<Vec<CutMember>, CutRefusal> {
    let mut members = Vec::new();
    for answer in answers {
        members.extend(answer?);
    }
    Ok(members)
}
