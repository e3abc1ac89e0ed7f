//! The member's part: steps on this node's disks, each checked against this node's own order.

use std::{collections::HashSet, time::Duration};

use muster_api::{
    DiskId, Reason,
    node_protocol::{CutKey, CutMember, CutOrder},
    peer_protocol::{CutStep, CutStepAnswer},
};
use storage_core::lock;
use tokio::time::{Instant, timeout, timeout_at};

use super::{CutRefusal, Cuts, FREEZE_ALL, STEP, THAW_ALL};
use crate::latest::latest_seen;

/// How long a member that is asked to prepare waits for its order to arrive.
const ORDER_WAIT: Duration = Duration::from_secs(5);
/// Longest time that a member may take to prepare, the wait for its order included.
const PREPARE: Duration = Duration::from_secs(15);

impl Cuts {
    /// Carries out a step that another node asks for, on exactly these disks.
    pub async fn step(&self, key: CutKey, step: CutStep, disks: Vec<DiskId>) -> CutStepAnswer {
        let limit = match step {
            CutStep::Prepare => PREPARE,
            CutStep::Freeze => FREEZE_ALL,
            CutStep::Thaw => THAW_ALL,
            CutStep::Hold | CutStep::Flip | CutStep::Abort | CutStep::Unknown => STEP,
        };
        let refused = |CutRefusal { reason, detail }| CutStepAnswer::Refused { reason, detail };
        match timeout(limit, self.member_step(key, step, disks)).await {
            Ok(Ok(members)) => CutStepAnswer::Done { members },
            Ok(Err(refusal)) => refused(refusal),
            Err(_elapsed) => refused(CutRefusal::new(Reason::Busy, format!("{step} took longer than {limit:?}"))),
        }
    }

    pub(super) async fn member_step(
        &self,
        key: CutKey,
        step: CutStep,
        disks: Vec<DiskId>,
    ) -> Result<Vec<CutMember>, CutRefusal> {
        match step {
            CutStep::Prepare => {
                let order = self.order(key, &disks, ORDER_WAIT).await?;
                lock(&self.prepared).insert(key);
                self.parts.disks.prepare(key, order.disks).await?;
                Ok(Vec::new())
            }
            CutStep::Freeze => {
                let order = self.order(key, &disks, Duration::ZERO).await?;
                if !order.freeze {
                    return Err(CutRefusal::new(Reason::NotAssigned, format!("{key} freezes no guests")));
                }
                self.parts.freezes.freeze(key, order.disks.iter().map(|disk| disk.instance).collect()).await?;
                Ok(Vec::new())
            }
            CutStep::Hold => {
                let order = self.order(key, &disks, Duration::ZERO).await?;
                self.parts.disks.hold(key, Duration::from_millis(order.max_pause_ms)).await?;
                Ok(Vec::new())
            }
            CutStep::Flip => {
                self.order(key, &disks, Duration::ZERO).await?;
                let members = self.parts.disks.flip(key).await?;
                lock(&self.prepared).remove(&key);
                self.flipped.notify_one();
                Ok(members)
            }
            CutStep::Thaw => {
                self.parts.freezes.thaw(key).await?;
                Ok(Vec::new())
            }
            CutStep::Abort => {
                self.abort(key).await;
                lock(&self.prepared).remove(&key);
                Ok(Vec::new())
            }
            CutStep::Unknown => Err(CutRefusal::new(Reason::Invalid, "this node does not know that step")),
        }
    }

    /// This node's own order for the cut, which must name exactly the disks that were asked for. Waits at most `wait`
    /// for an order that has not arrived yet.
    async fn order(&self, key: CutKey, disks: &[DiskId], wait: Duration) -> Result<CutOrder, CutRefusal> {
        let refuse = |detail: String| Err(CutRefusal::new(Reason::NotAssigned, detail));
        let mut known = self.parts.known.clone();
        let limit = Instant::now() + wait;
        let asked: HashSet<_> = disks.iter().copied().collect();
        loop {
            let now = latest_seen(&mut known);
            if let Some(order) = now.cut(key) {
                let own: HashSet<_> = order.disks.iter().map(|d| d.disk).collect();
                if own == asked {
                    return Ok(order.clone());
                }
                return refuse(format!("{} disks were asked for, {} are ordered here", asked.len(), own.len()));
            }
            if now.desired.cuts.iter().any(|order| key.is_before(order.key())) {
                return refuse(format!("{key} is over: a later attempt is ordered"));
            }
            if !matches!(timeout_at(limit, known.changed()).await, Ok(Ok(()))) {
                return refuse(format!("{key} is not ordered here"));
            }
        }
    }
}
