//! The pool as operators see it, and their word that it be swept.

use muster_api::{
    ErrorCode, Page, Problem, Timestamp,
    node::{ObjectAmount, PoolUse, Repair, RepositoryUse},
    pool::{
        AWAITED_MAX, AwaitedNode, DEFAULT_POOL, MIN_COPIES_MAX, PatchPool, Pool, PoolRepair, StartSweep, Sweep,
        SweepState,
    },
};
use serde_json::json;
use storage_core::units::u64_from;

use super::{
    super::{
        Answer, App, AppError, Caller, Once, begin_operation,
        caller::DEFAULT_PROJECT,
        nodes::repair_ends_at,
        sweeping::{Named, Standing},
    },
    rounds,
};
use crate::{
    store::{
        Tx, events,
        nodes::{self, NodeRow},
        operations::{self, NewOperation},
        pool_settings, sweep, uploads,
    },
    wake::Loop,
};

/// Longest time that an operator's sweep may take, milliseconds. Two rounds have to be carried out by all nodes.
const SWEEP_MS: i64 = 4 * 3600 * 1000;
/// Rounds that an operator's sweep waits for. What was stored shortly before the first of them has a stamp that is too young for
/// it, and goes with the second.
const ROUNDS: u64 = 2;

impl App {
    /// All pools: there is one (operators).
    pub async fn pools(&self, caller: &Caller) -> Result<Page<Pool>, AppError> {
        caller.require_operator()?;
        self.store
            .read("pools.list", async |tx| {
                let position = tx.as_of().await?;
                let as_of = tx.token(position);
                Ok(Page { items: vec![self.pool_view(tx).await?], next_page_token: None, as_of })
            })
            .await
    }

    /// A pool, by its name (operators).
    pub async fn pool(&self, caller: &Caller, name: &str) -> Result<Pool, AppError> {
        caller.require_operator()?;
        check_name(name)?;
        self.store.read("pools.show", async |tx| self.pool_view(tx).await).await
    }

    /// Sets how many copies are wanted of every object. Makes the missing ones by itself, and drops those that are too many.
    pub async fn patch_pool(
        &self,
        caller: &Caller,
        once: &Once,
        pool: &str,
        wanted: PatchPool,
    ) -> Result<Answer, AppError> {
        caller.require_operator()?;
        check_name(pool)?;
        let answer = self
            .once(once, "pools.patch", async |tx| {
                let before = self.min_copies(tx).await?;
                if let Some(copies) = wanted.min_copies {
                    if !(1..=MIN_COPIES_MAX).contains(&copies) {
                        let detail = format!("it must be from 1 to {MIN_COPIES_MAX}");
                        return Err(AppError::invalid("/min_copies", "out_of_range", detail));
                    }
                    pool_settings::set_min_copies(tx, copies).await?;
                    if copies != before {
                        let told = rounds::event("pool.changed", json!({ "min_copies": copies, "before": before }));
                        events::append(tx, events::NewEvent { actor: caller.name.clone(), ..told }).await?;
                        self.refresh_membership(tx).await?;
                    }
                }
                Answer::ok(&self.pool_view(tx).await?)
            })
            .await?;
        self.follow_membership().await?;
        Ok(answer)
    }

    /// Sweeps what nothing needs now. The operation ends when all nodes that are there are done.
    pub async fn sweep_pool(
        &self,
        caller: &Caller,
        once: &Once,
        pool: &str,
        wanted: &StartSweep,
    ) -> Result<Answer, AppError> {
        caller.require_operator()?;
        check_name(pool)?;
        self.once(once, "pools.sweep", async |tx| {
            let of = self.incarnation();
            if !sweep::load(tx).await?.is_allowed_in(of) {
                if !wanted.after_restore {
                    let refused = Problem::new(ErrorCode::WrongState, rounds::RESTORED).with("state", "restored");
                    return Err(refused.with("allowed", vec!["after_restore: true"]).into());
                }
                if let Some(reason) = self.unreported(&nodes::listed(tx).await?, of) {
                    return Err(AppError::Unavailable(reason));
                }
                sweep::allow(tx, of).await?;
                let told = rounds::event("pool.sweep_allowed", json!({ "incarnation": of.number }));
                events::append(tx, events::NewEvent { actor: caller.name.clone(), ..told }).await?;
            }
            let nodes = nodes::listed(tx).await?.len();
            let new = NewOperation {
                project: DEFAULT_PROJECT.to_owned(),
                kind: "pool.sweep",
                target: rounds::target(),
                phase: "waiting",
                progress: operations::to_do(u64_from(nodes), "nodes"),
                deadline: tx.now().plus_ms(SWEEP_MS),
            };
            let operation = begin_operation(tx, &caller.origin(), new).await?;
            let current = uploads::current_round(tx).await?;
            sweep::ask(tx, current + ROUNDS).await?;
            tx.wake(Loop::Sweep);
            Answer::accepted(&operation)
        })
        .await
    }

    async fn pool_view(&self, tx: &mut Tx) -> Result<Pool, AppError> {
        let nodes = nodes::listed(tx).await?;
        let (mut shares, mut repairs, mut repositories) = (Vec::new(), Vec::new(), Vec::new());
        for node in nodes.iter().filter(|node| node.fenced_at.is_none()) {
            let beat = self.heartbeats.last(node.id).map(|(_, beat)| beat);
            shares.push(beat.as_ref().map_or(node.pool, |beat| beat.pool));
            repairs.extend(beat.as_ref().and_then(|beat| beat.repair));
            repositories.extend(beat.and_then(|beat| Some((node.name.clone(), beat.repository?))));
        }
        let (usage, epoch) = (together(&shares), self.pool.membership().epoch);
        let row = sweep::load(tx).await?;
        let round = uploads::current_round(tx).await?;
        let Standing { state, reason, since } = self.sweep.standing().unwrap_or_else(|| Standing {
            state: SweepState::Held,
            reason: Some("the controller was just started".to_owned()),
            since: self.started_at,
        });
        let named = self.sweep.named(self.incarnation());
        let sum = self.sweep.sum_from(named.as_ref().map_or(round, |named| named.round));
        Ok(Pool {
            id: DEFAULT_POOL.to_owned(),
            name: DEFAULT_POOL.to_owned(),
            min_copies: self.min_copies(tx).await?.into(),
            nodes: u64_from(shares.len()),
            usage,
            lost: self.lost.first(),
            sweep: Sweep {
                state,
                reason,
                since,
                round,
                begun_at: row.begun_at,
                needed_objects: named.as_ref().map(|named| named.needed),
                nodes_done: named.as_ref().map_or(0, |named| u64_from(named.done.len())),
                awaited: awaited(&nodes, named.as_ref()),
                dropped_objects: sum.objects,
                dropped_bytes: sum.bytes,
                reclaimed_bytes: sum.reclaimed_bytes,
            },
            membership_epoch: epoch,
            oldest_open_epoch: nodes::oldest_open_membership(tx).await?.unwrap_or(epoch),
            repair: repaired(&repairs, &usage, evicted(&repositories), epoch, self.clock.now()),
            repository: self.repository_view(&repositories),
        })
    }
}

fn plus(a: ObjectAmount, b: ObjectAmount) -> ObjectAmount {
    ObjectAmount { objects: a.objects.saturating_add(b.objects), bytes: a.bytes.saturating_add(b.bytes) }
}

fn check_name(name: &str) -> Result<(), AppError> {
    if name == DEFAULT_POOL { Ok(()) } else { Err(AppError::not_found("pool", name)) }
}

fn awaited(nodes: &[NodeRow], named: Option<&Named>) -> Vec<AwaitedNode> {
    let Some(named) = named else { return Vec::new() };
    let awaited = nodes.iter().filter(|node| named.awaits(node));
    awaited.take(AWAITED_MAX).map(|node| AwaitedNode { id: node.id, name: node.name.clone() }).collect()
}

fn together(shares: &[PoolUse]) -> PoolUse {
    let sum = |of: fn(&PoolUse) -> u64| shares.iter().map(of).fold(0, u64::saturating_add);
    PoolUse {
        limit_bytes: sum(|share| share.limit_bytes),
        used_bytes: sum(|share| share.used_bytes),
        objects: sum(|share| share.objects),
        free_bytes: sum(|share| share.free_bytes),
        cache_bytes: sum(|share| share.cache_bytes),
        takes_bytes: shares
            .iter()
            .map(|share| share.takes_bytes)
            .try_fold(0, |all, one| Some(one?.saturating_add(all))),
        lost_objects: sum(|share| share.lost_objects),
        lost_bytes: sum(|share| share.lost_bytes),
    }
}

/// What nodes gave up because the repository has it.
fn evicted(repositories: &[(String, RepositoryUse)]) -> ObjectAmount {
    repositories.iter().map(|(_, usage)| usage.evicted).fold(ObjectAmount::default(), plus)
}

/// The repairs of all nodes that told of theirs, while this is the newest membership epoch. Nobody makes copies again that were
/// `evicted`, so they count as present.
fn repaired(repairs: &[Repair], usage: &PoolUse, evicted: ObjectAmount, epoch: u64, now: Timestamp) -> PoolRepair {
    let sum = |of: fn(&Repair) -> u64| repairs.iter().map(of).fold(0, u64::saturating_add);
    let amount = |of: fn(&Repair) -> ObjectAmount| repairs.iter().map(of).fold(ObjectAmount::default(), plus);
    let (missing, surplus) = (amount(|repair| repair.missing), amount(|repair| repair.surplus));
    let held = ObjectAmount { objects: usage.objects, bytes: usage.used_bytes };
    let here = ObjectAmount {
        objects: held.objects.saturating_sub(surplus.objects),
        bytes: held.bytes.saturating_sub(surplus.bytes),
    };
    let present = plus(here, evicted);
    PoolRepair {
        nodes_done: u64_from(repairs.iter().filter(|repair| repair.is_done(epoch)).count()),
        unchecked_objects: sum(|repair| repair.unchecked_objects),
        wanted: plus(present, missing),
        present,
        missing,
        surplus,
        copied: amount(|repair| repair.copied),
        handed_over: amount(|repair| repair.handed_over),
        bytes_per_s: sum(|repair| repair.bytes_per_s),
        // The last of the nodes ends it.
        ends_at: repairs.iter().filter_map(|repair| repair_ends_at(now, repair)).max(),
    }
}
