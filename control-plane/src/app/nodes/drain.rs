//! A node is drained: it owns no objects of the pool any more, other nodes get what it has, and it drops that once they have
//! it. A node that is removed is drained first.
//!
//! ```text
//!  POST drain ──► draining ──heartbeat: empty under the newest record──► drained ──DELETE──► deleted
//!  DELETE ──────►    │  (the same, and then deleted; an operation tells how far it is)
//!                    └──uncordon, or the operation is cancelled──► objects belong on it again
//! ```
//! The row says that a node is draining, so a restart of the controller or of the agent changes nothing, and neither does a
//! heartbeat. The operation only tells how far it is, and whether the node is removed in the end. Instances stay: they are
//! not moved yet. `reconcile/drains.rs` ends what begins here.

use muster_api::{
    ErrorCode, NodeId, Problem, Ref, Timestamp,
    condition::{Condition, ConditionKind},
    node::{Drain, DrainNode, DrainState, NodeState, ObjectAmount, Repair},
    node_protocol::Heartbeat,
    operation::Operation,
};
use serde_json::json;
use storage_core::units::{u64_from, usize_from};

use super::{
    super::{Answer, App, AppError, Asked, begin_operation, caller::DEFAULT_PROJECT, find},
    heartbeat::disk_failed,
    state_event,
};
use crate::{
    store::{
        Tx, events, instances,
        nodes::{self, NodeRow},
        operations::{self, NewOperation, Origin, Outcome},
    },
    wake::Loop,
};

/// The operation of `POST /v1/nodes/{node}/drain`.
pub const DRAIN: &str = "node.drain";
/// The operation of `DELETE /v1/nodes/{node}` on a node that has objects.
pub const REMOVE: &str = "node.remove";
/// Longest time that the operation of a drain may take, milliseconds; 30 TiB at 64 MiB per second take 6 days. The drain itself
/// goes on after it.
const DRAIN_MS: i64 = 7 * 24 * 3600 * 1000;
/// Most names of instances in a refusal.
const NAMES_MAX: usize = 20;

impl App {
    /// Drains a node of its objects. A repeated call answers with the operation that runs.
    pub async fn drain_node(&self, asked: &Asked<Ref<NodeId>>, wanted: &DrainNode) -> Result<Answer, AppError> {
        asked.caller.require_operator()?;
        if wanted.instances.is_some() {
            let what = "moving or stopping the instances of a node with its drain (without `instances` they stay, and its \
                objects are drained)";
            return Err(AppError::NotBuiltYet(what.to_owned()));
        }
        let answer = self
            .once(&asked.once, "nodes.drain", async |tx| {
                let row = find::node(tx, &asked.thing).await?;
                asked.check_if_match(row.revision)?;
                Answer::accepted(&self.begin_drain(tx, row, DRAIN, &asked.caller.origin()).await?)
            })
            .await?;
        self.follow_membership().await?;
        Ok(answer)
    }

    /// Begins to drain a node, or goes on with it.
    pub(super) async fn begin_drain(
        &self,
        tx: &mut Tx,
        row: NodeRow,
        kind: &'static str,
        origin: &Origin,
    ) -> Result<Operation, AppError> {
        if let Some(running) = operations::running_on(tx, "node", &row.id.to_string()).await? {
            let running = super::super::operations::existing(tx, running).await?;
            if running.kind == kind || running.kind == REMOVE {
                return Ok(running);
            }
            // The node is removed once it is empty, and that has an operation of its own.
            let why = json!({ "because": "the node is being removed" });
            operations::finish(tx, running.id, Outcome::Cancelled(Some(why))).await?;
        }
        check_state(&row)?;
        let held = self.objects_on(&row);
        if row.draining_at.is_none() {
            self.check_others(tx, &row, held).await?;
        }
        let mut row = row;
        if row.draining_at.is_none() {
            row =
                NodeRow { draining_at: Some(tx.now()), drained_at: None, accepting: false, schedulable: false, ..row };
            nodes::save(tx, &row).await?;
            events::append(tx, state_event(&row, &origin.actor)).await?;
            tracing::info!(node.id = %row.id, objects = held.objects, "node '{}' is drained", row.name);
            tx.wake(Loop::Deployments);
        }
        let new = NewOperation {
            project: DEFAULT_PROJECT.to_owned(),
            kind,
            target: row.target(),
            phase: "draining",
            progress: operations::to_do(held.objects, "objects"),
            deadline: tx.now().plus_ms(DRAIN_MS),
        };
        let operation = begin_operation(tx, origin, new).await?;
        self.refresh_membership(tx).await?;
        tx.wake(Loop::Nodes);
        Ok(operation)
    }

    /// Objects belong on a node again that was drained. It stays cordoned, unless the caller changes that.
    pub(crate) async fn end_drain(&self, tx: &mut Tx, row: NodeRow, actor: &str) -> Result<NodeRow, AppError> {
        let mut row = NodeRow { draining_at: None, drained_at: None, accepting: true, ..row };
        nodes::save(tx, &row).await?;
        (row.revision, row.updated_at) = (row.revision + 1, tx.now());
        events::append(tx, state_event(&row, actor)).await?;
        if let Some(running) = operations::running_on(tx, "node", &row.id.to_string()).await? {
            operations::finish(tx, running, Outcome::Cancelled(None)).await?;
        }
        self.refresh_membership(tx).await?;
        tracing::info!(node.id = %row.id, "node '{}' is not drained any more", row.name);
        Ok(row)
    }

    /// What the node has of the pool, as it last said.
    pub(crate) fn objects_on(&self, row: &NodeRow) -> ObjectAmount {
        let pool = self.heartbeats.last(row.id).map_or(row.pool, |(_, beat)| beat.pool);
        ObjectAmount { objects: pool.objects, bytes: pool.used_bytes }
    }

    /// Whether a drained node still has no objects, to be asked in the transaction that removes its row. One that is there says so
    /// under the newest record. What one said that is away counts until it said something else.
    pub(crate) async fn is_still_empty(&self, tx: &mut Tx, row: &NodeRow) -> Result<bool, AppError> {
        let newest = nodes::newest_epoch(tx).await?;
        Ok(match self.heartbeats.last(row.id) {
            Some((_, beat)) if row.state == NodeState::Ready => says_empty(&beat, newest),
            Some((_, beat)) => beat.pool.objects == 0,
            None => row.state != NodeState::Ready,
        })
    }

    /// Refuses a drain after which too few nodes would be left, or too little room for all copies.
    async fn check_others(&self, tx: &mut Tx, row: &NodeRow, held: ObjectAmount) -> Result<(), AppError> {
        let all = nodes::listed(tx).await?;
        // What other nodes that are drained still have needs room, too.
        let draining =
            |other: &&NodeRow| other.id != row.id && other.draining_at.is_some() && other.drained_at.is_none();
        let leaving =
            all.iter().filter(draining).map(|other| self.objects_on(other).bytes).fold(0, u64::saturating_add);
        let stays = |other: &&NodeRow| {
            other.id != row.id && other.accepting && other.fenced_at.is_none() && other.state == NodeState::Ready
        };
        let others: Vec<(&str, Share)> =
            all.iter().filter(stays).map(|other| (other.name.as_str(), self.share_of(other))).collect();
        let copies = self.min_copies(tx).await?;
        let with_room = others.iter().filter(|(_, share)| share.takes > 0).count();
        if with_room < usize_from(copies.into()) {
            let detail = format!(
                "{copies} copies of each object are wanted, and without node '{}' only {with_room} nodes that are ready would \
                 have room for any: add nodes, or want fewer copies (`muster pool set --min-copies N`)",
                row.name
            );
            return Err(refused("too_few_nodes", detail));
        }
        let shares: Vec<Share> = others.iter().map(|(_, share)| *share).collect();
        let homeless = homeless(&shares, held.bytes.saturating_add(leaving), copies);
        if homeless > 0 {
            let takes: Vec<String> = others
                .iter()
                .take(NAMES_MAX)
                .map(|(name, share)| format!("'{name}' has {} and takes {} more", share.has, share.takes))
                .collect();
            let also =
                if leaving > 0 { format!(" and other nodes that are drained have {leaving}") } else { String::new() };
            let detail = format!(
                "node '{}' has {} bytes of objects{also}, and with {copies} copies of each on different nodes {homeless} of them \
                 have no place: {}. Add nodes, give them more room (pool_size, mirror_reserve, keep_free), or delete what is not \
                 needed",
                row.name,
                held.bytes,
                takes.join(", ")
            );
            return Err(refused("too_little_room", detail));
        }
        Ok(())
    }

    /// What a node has of the pool and still takes, as it last said.
    fn share_of(&self, row: &NodeRow) -> Share {
        let (pool, conditions) = match self.heartbeats.last(row.id) {
            Some((_, beat)) => (beat.pool, beat.conditions),
            None => (row.pool, row.conditions.clone()),
        };
        let is_closed = |condition: &Condition| {
            let kinds = [ConditionKind::DiskFull, ConditionKind::NodeFull, ConditionKind::DiskFailed];
            kinds.contains(&condition.kind)
        };
        // What an older agent keeps free is not known.
        let at_most = || pool.limit_bytes.saturating_sub(pool.used_bytes).min(pool.free_bytes);
        let takes = pool.takes_bytes.unwrap_or_else(at_most);
        Share { has: pool.used_bytes, takes: if conditions.iter().any(is_closed) { 0 } else { takes } }
    }

    /// How far the drain of a node is; none while it is not drained.
    pub(super) fn drain_view(&self, row: &NodeRow) -> Option<Drain> {
        let since = row.draining_at?;
        let beat = self.heartbeats.last(row.id).map(|(_, beat)| beat);
        let repair = beat.and_then(|beat| beat.repair);
        let left = if row.drained_at.is_some() { ObjectAmount::default() } else { self.objects_on(row) };
        let bytes_per_s = repair.map_or(0, |repair| repair.handed_over_bytes_per_s);
        Some(Drain {
            state: if row.drained_at.is_some() { DrainState::Drained } else { DrainState::Draining },
            since,
            left,
            bytes_per_s,
            ends_at: ends_at(self.clock.now(), left.bytes, bytes_per_s),
        })
    }
}

/// When so much is done at this speed; none if nothing is left, or it stands still.
fn ends_at(now: Timestamp, left: u64, per_s: u64) -> Option<Timestamp> {
    if left == 0 {
        return None;
    }
    let ms = left.saturating_mul(1000).checked_div(per_s)?;
    Some(now.plus_ms(i64::try_from(ms).unwrap_or(i64::MAX / 10_000)))
}

/// When the repair of a node is expected to end; none if it has nothing to do, or that is not known.
pub(crate) fn repair_ends_at(now: Timestamp, repair: &Repair) -> Option<Timestamp> {
    // What is missing is known only of the objects that were compared. Comparing goes on while copies are sent.
    let compared = ends_at(now, repair.unchecked_objects, repair.objects_per_s);
    let sent = ends_at(now, repair.missing.bytes, repair.bytes_per_s);
    let is_known = |left: u64, end: Option<Timestamp>| left == 0 || end.is_some();
    let all = is_known(repair.unchecked_objects, compared) && is_known(repair.missing.bytes, sent);
    if all { compared.max(sent) } else { None }
}

/// A node's share of the pool, stored bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Share {
    has: u64,
    takes: u64,
}

/// How many of the bytes that leave have no place on these nodes. There are `copies` of everything, each on another node, so a node
/// can have no more than everything once. What objects are where is not known, so this is the least; pages have one more copy,
/// which is little.
fn homeless(shares: &[Share], leaving: u64, copies: u32) -> u64 {
    let stored = shares.iter().map(|share| share.has).fold(leaving, u64::saturating_add);
    let once = stored.div_ceil(u64::from(copies).max(1));
    let fits = |share: &Share| share.has.saturating_add(share.takes).min(share.has.max(once));
    stored.saturating_sub(shares.iter().map(fits).fold(0, u64::saturating_add)).min(leaving)
}

/// Whether a node said that it is empty for good, under the record of this epoch.
pub(crate) fn says_empty(beat: &Heartbeat, epoch: u64) -> bool {
    beat.repair.is_some_and(|repair| repair.is_empty && repair.membership_epoch == epoch)
}

fn refused(reason: &str, detail: String) -> AppError {
    Problem::new(ErrorCode::WrongState, detail).with("state", "ready").with("reason", reason).into()
}

/// A node that is dead or away hands nothing over.
fn check_state(row: &NodeRow) -> Result<(), AppError> {
    let state = row.shown_state();
    if row.state == NodeState::Ready {
        if !disk_failed(&row.conditions) {
            return Ok(());
        }
        let detail = format!(
            "the disk of node '{}' failed, so it cannot hand its objects over: replace the disk, then declare the node dead \
             (`muster node rm {} --dead`)",
            row.name, row.name
        );
        return Err(refused("disk_failed", detail));
    }
    let detail = match state {
        NodeState::Fenced => format!("node '{}' was declared dead: remove it, it has nothing to hand over", row.name),
        _ => format!(
            "node '{}' is not there to hand its objects over: start its agent, or declare it dead if its host is off for \
             good (`muster node rm {} --dead`)",
            row.name, row.name
        ),
    };
    let state = serde_json::to_value(state).expect("a word is JSON");
    Err(Problem::new(ErrorCode::WrongState, detail).with("state", state).into())
}

/// Refuses to remove a node with instances, and names them.
pub(super) async fn refuse_instances(tx: &mut Tx, row: &NodeRow) -> Result<(), AppError> {
    let on_it = instances::on_node(tx, row.id).await?;
    if on_it.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = on_it.iter().take(NAMES_MAX).map(|instance| instance.name.as_str()).collect();
    let more = match on_it.len() - names.len() {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let detail = format!(
        "node '{}' has instances, which are not moved: {}{more}. Delete them first; its objects can be drained meanwhile \
         (`muster node drain {}`)",
        row.name,
        names.join(", "),
        row.name
    );
    Err(Problem::new(ErrorCode::InUse, detail).with("used_by", json!({ "instances": u64_from(on_it.len()) })).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn homeless_of(shares: &[(u64, u64)], leaving: u64, copies: u32) -> u64 {
        let shares: Vec<Share> = shares.iter().map(|(has, takes)| Share { has: *has, takes: *takes }).collect();
        homeless(&shares, leaving, copies)
    }

    #[test]
    fn what_leaves_needs_room_on_different_nodes() {
        assert_eq!(homeless_of(&[(50, 25), (50, 25)], 50, 2), 0);
        // The room of one node is of no use for the copy that has to be on the other one.
        assert_eq!(homeless_of(&[(50, 1000), (50, 5)], 50, 2), 20);
        assert_eq!(homeless_of(&[(50, 1000), (50, 5), (0, 20)], 50, 2), 0);
        assert_eq!(homeless_of(&[(50, 20), (50, 20)], 50, 2), 10);
        assert_eq!(homeless_of(&[(0, 60)], 50, 1), 0);
        assert_eq!(homeless_of(&[(0, 40)], 50, 1), 10);
        // One that has more than everything once keeps it until others have taken their part.
        assert_eq!(homeless_of(&[(100, 0), (20, 40)], 0, 2), 0);
        assert_eq!(homeless_of(&[], u64::MAX, 2), u64::MAX);
    }
}
