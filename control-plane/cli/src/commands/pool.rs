//! `muster pool …`, for operators.

use muster_api::{
    operation::Operation,
    pool::{DEFAULT_POOL, PatchPool, Pool, PoolRepair, PoolRepository, StartSweep, Sweep},
};

use reqwest::Method;

use super::{Ctx, Settled, body};
use crate::{
    args::PoolCommand,
    cells::{self, age, word},
    client::Call,
    failure::Failure,
    units,
};

pub(super) async fn run(ctx: &Ctx, command: PoolCommand) -> Result<(), Failure> {
    let pool = Call::to(&["v1", "pools", DEFAULT_POOL]);
    match command {
        PoolCommand::Show => ctx.show(&pool, details).await,
        PoolCommand::Set { min_copies } => {
            let wanted = body(&PatchPool { min_copies: Some(min_copies) })?;
            let answer = ctx.client.change(Method::PATCH, &pool, Some(&wanted)).await?;
            ctx.finish(answer, &pool, changed).await
        }
        PoolCommand::Sweep { after_restore, yes } => {
            if after_restore {
                let question = "Allow the sweep after the restore? What `muster instance found` does not show and no node \
                    that is there holds is lost for good.";
                ctx.agree(question, yes).await?;
            }
            let answer = ctx.client.post(&pool.then("sweep"), &body(&StartSweep { after_restore })?).await?;
            let shown = match ctx.settle(answer).await? {
                Settled::Accepted(operation) => ctx.accepted(operation)?,
                Settled::Done(operation) => ctx.shown(operation.sent, swept)?,
                Settled::Now(body) => ctx.shown(body, swept)?,
            };
            ctx.print(&shown)
        }
    }
}

/// `pool default: 120 copies of objects dropped, 30 MiB, the disks got 28 MiB back`.
fn swept(operation: &Operation) -> String {
    let of = |key| operation.result.as_ref().and_then(|result| result[key].as_u64()).unwrap_or(0);
    format!(
        "pool {}: {} copies of objects dropped, {}; the disks got {} back",
        operation.target.name,
        of("objects"),
        units::bytes(of("bytes")),
        units::bytes(of("reclaimed_bytes"))
    )
}

/// Also shown by `muster top`.
pub(super) fn repaired(repair: &PoolRepair) -> String {
    format!(
        "{} nodes done; {} copies missing, {}, at {}/s; {} objects to be compared{}",
        repair.nodes_done,
        repair.missing.objects,
        units::bytes(repair.missing.bytes),
        units::bytes(repair.bytes_per_s),
        repair.unchecked_objects,
        cells::ends(repair.ends_at)
    )
}

/// `pool default: at least 3 copies of each object, on 2 nodes so far`.
fn changed(pool: &Pool) -> String {
    let Pool { name, min_copies, nodes, .. } = pool;
    let few = if *nodes < *min_copies {
        format!(", on the {nodes} nodes that there are: the others are made when more nodes join")
    } else {
        String::new()
    };
    format!("pool {name}: at least {}{few}", copies_of_each(*min_copies))
}

fn copies_of_each(least: u64) -> String {
    let copies = if least == 1 { "copy" } else { "copies" };
    format!("{least} {copies} of each object")
}

fn details(pool: &Pool) -> String {
    let Pool { name, min_copies, nodes, usage, sweep, repair, repository, .. } = pool;
    let mut lines = vec![
        format!("pool {name}: {nodes} nodes, at least {}", copies_of_each(*min_copies)),
        format!(
            "  holds     {} copies, {} of {}",
            usage.objects,
            units::bytes(usage.used_bytes),
            units::bytes(usage.limit_bytes)
        ),
    ];
    if usage.lost_objects > 0 {
        lines.push(format!("  lost      {} copies, {}", usage.lost_objects, units::bytes(usage.lost_bytes)));
    }
    lines.push(format!("  repair    {}", repaired(repair)));
    lines.push(format!(
        "  copies    {} of {} present; {} too many, {}",
        repair.present.objects,
        repair.wanted.objects,
        repair.surplus.objects,
        units::bytes(repair.surplus.bytes)
    ));
    if pool.oldest_open_epoch < pool.membership_epoch {
        let (oldest, newest) = (pool.oldest_open_epoch, pool.membership_epoch);
        lines.push(format!("  epochs    {oldest} to {newest} are open: nodes still hand objects over"));
    }
    for lost in &pool.lost {
        let builds = [lost.instances.clone(), lost.deployments.clone()].concat().join(", ");
        let builds = if builds.is_empty() { builds } else { format!("; {builds} build on it") };
        lines.push(format!(
            "  lost      version {} of project {} lacks {} objects for {}{builds}",
            lost.name,
            lost.project,
            lost.objects,
            age(lost.since)
        ));
    }
    lines.extend(repository.iter().flat_map(repository_lines));
    lines.extend(sweep_lines(sweep));
    lines.join("\n")
}

fn repository_lines(repository: &PoolRepository) -> Vec<String> {
    let PoolRepository {
        state, url, write, evict, trouble, behind, oldest_behind_s, unchecked_objects, evicted, ..
    } = repository;
    let evicts = if *evict { ", nodes may evict" } else { "" };
    let mut lines = vec![format!("  store     {}: {url}, written {}{evicts}", word(state), word(write))];
    lines.extend(trouble.iter().map(|trouble| format!("            {trouble}")));
    let oldest = oldest_behind_s.map_or_else(String::new, |s| format!(", the oldest waits for {s} s"));
    lines.push(format!(
        "  behind    {} objects, {}{oldest}; {unchecked_objects} objects to be looked at",
        behind.objects,
        units::bytes(behind.bytes)
    ));
    lines.push(format!(
        "  traffic   {} written, {} read, {} objects deleted",
        units::bytes(repository.uploaded.bytes),
        units::bytes(repository.fetched.bytes),
        repository.deleted_objects
    ));
    if evicted.objects > 0 {
        lines.push(format!("  evicted   {} copies, {}", evicted.objects, units::bytes(evicted.bytes)));
    }
    lines
}

fn sweep_lines(sweep: &Sweep) -> Vec<String> {
    let mut lines = vec![format!("  sweep     {} for {}", word(&sweep.state), age(sweep.since))];
    lines.extend(sweep.reason.iter().map(|reason| format!("            {reason}")));
    let begun = sweep.begun_at.map(|at| format!(", begun {} ago", age(at)));
    lines.push(format!("  round     {}{}, {} nodes done", sweep.round, begun.unwrap_or_default(), sweep.nodes_done));
    let awaited: Vec<&str> = sweep.awaited.iter().map(|node| node.name.as_str()).collect();
    if !awaited.is_empty() {
        lines.push(format!("  awaited   {}", awaited.join(", ")));
    }
    lines.extend(sweep.needed_objects.map(|objects| format!("  needed    {objects} objects")));
    lines.push(format!(
        "  dropped   {} copies, {}; the disks got {} back",
        sweep.dropped_objects,
        units::bytes(sweep.dropped_bytes),
        units::bytes(sweep.reclaimed_bytes)
    ));
    lines
}
