//! Scheduled snapshots of protected deployments: begun when they are due, and noted when they have ended.

use std::collections::BTreeMap;

use crate::{
    app::{App, AppError, protection as app_protection},
    domain::protection::{share_of_one, under_way_max},
    store::{nodes, protections},
    wake::Counts,
};

/// Most deployments that one pass looks at. The longest due come first.
const LOOKED_AT_MAX: i64 = 200;

/// The places for snapshots under way.
struct Places {
    /// How many there are.
    all: u64,
    /// How many of them one project may have.
    of_one: u64,
    /// How many each project has.
    taken: BTreeMap<String, u64>,
}

impl Places {
    fn is_full(&self) -> bool {
        self.taken.values().sum::<u64>() >= self.all
    }

    fn has_one_for(&self, project: &str) -> bool {
        !self.is_full() && self.taken.get(project).is_none_or(|taken| *taken < self.of_one)
    }

    /// A project that has all that it may have. As that is more than half, there is at most one unless all are taken.
    fn sated(&self) -> Option<&str> {
        self.taken.iter().find(|(_, taken)| **taken >= self.of_one).map(|(project, _)| project.as_str())
    }
}

/// One look at what has ended and at what is due. Each deployment has its own transaction: one that cannot be saved delays no
/// other (I11). Only so many are under way at a time: after a time without a controller all are due together. Nobody looks at
/// what is due while there is no place for it, and no project has all places while others are protected.
pub async fn pass(app: &App) -> anyhow::Result<Counts> {
    let (mut places, ended, due) = app
        .store
        .read("protection.observe", async |tx| {
            let nodes = nodes::by_state(tx).await?.get("ready").copied().unwrap_or(0);
            let under_way = protections::under_way(tx).await?;
            let all = under_way_max(nodes);
            let of_one = if protections::has_projects(tx).await? { share_of_one(all) } else { all };
            let places = Places { all, of_one, taken: under_way.snapshots };
            let due =
                if places.is_full() { Vec::new() } else { protections::due(tx, places.sated(), LOOKED_AT_MAX).await? };
            Ok::<_, AppError>((places, under_way.ended, due))
        })
        .await?;
    let mut counts = Counts::default();
    let mut failure = None;
    let due = due.into_iter().map(|row| (row.deployment, row.project));
    // What has ended is noted in any case.
    let all = ended.into_iter().map(|of| (true, of)).chain(due.map(|of| (false, of)));
    for (has_ended, (id, project)) in all {
        let may_begin = places.has_one_for(&project);
        if !has_ended && !may_begin {
            continue;
        }
        counts.seen += 1;
        let driven =
            app.store.run_tx("protection.drive", async |tx| app_protection::drive(tx, id, may_begin).await).await;
        match driven {
            Ok(app_protection::Did::Began) => {
                counts.acted += 1;
                *places.taken.entry(project).or_default() += 1;
            }
            Ok(app_protection::Did::Noted) => {}
            Err(error) => failure = Some(anyhow::Error::from(error).context(format!("deployment {id}"))),
        }
    }
    failure.map_or(Ok(counts), Err)
}
