//! What operators ask of found instances: list them, take one back, give one up.

use muster_api::{
    ErrorCode, InstanceId, Page, Ref,
    found::{ForgetFound, FoundInstance, TakeFound},
    instance::InstanceState,
};

use super::{
    super::{Answer, App, AppError, Asked, Caller, instances as app_instances, list::ListQuery},
    found_event, name,
    take::take,
    told,
    view::show,
};
use crate::store::{
    Tx, events,
    found::{self, FoundRow},
    nodes,
};

impl App {
    /// A page of the found instances, for operators.
    pub async fn found_instances(&self, caller: &Caller, list: &ListQuery) -> Result<Page<FoundInstance>, AppError> {
        caller.require_operator()?;
        list.filter.states_of::<InstanceState>()?;
        self.store
            .read("found_instances.list", async |tx| {
                let names = nodes::names(tx).await?;
                let mut pager = list.pager(tx).await?;
                while let Some((after, n)) = pager.wants() {
                    let rows = found::list(tx, after, n).await?;
                    let keep = |row: FoundRow| {
                        let shown = show(&row, names.get(&row.node).cloned().unwrap_or_default());
                        let nodes = &list.filter.nodes;
                        let is_there = nodes.is_empty()
                            || nodes.iter().any(|w| *w == shown.node_name || *w == row.node.to_string());
                        (is_there && list.filter.keeps_state(shown.state)).then_some(shown)
                    };
                    pager.take(rows, |row| row.seq, keep);
                }
                Ok(pager.page())
            })
            .await
    }

    /// Makes a found instance an instance again, as its node reports it. It joins the deployment of its name, which is made
    /// if there is none, and keeps its number if no other has it.
    pub async fn take_found(&self, asked: &Asked<Ref<InstanceId>>, body: &TakeFound) -> Result<Answer, AppError> {
        asked.caller.require_operator()?;
        self.once(&asked.once, "found_instances.take", async |tx| {
            let row = self.waiting(tx, asked).await?;
            let Some(told) = told(&row.report) else {
                let detail = "its node does not know what it was told of this instance (its record is lost or of an older \
                    agent): the disks are at the paths shown; copy them, then forget it";
                return Err(AppError::code(ErrorCode::WrongState, detail));
            };
            let member = take(tx, &asked.caller, &self.config.networks, &row, told, body).await?;
            tracing::info!(instance.id = %member.id, "found instance {} is taken back as {}", told.name, member.name);
            Answer::ok(&app_instances::view::one(self, tx, &asked.caller, member).await?)
        })
        .await
    }

    /// Lets the node of a found instance delete it.
    pub async fn forget_found(&self, asked: &Asked<Ref<InstanceId>>, body: ForgetFound) -> Result<Answer, AppError> {
        asked.caller.require_operator()?;
        if !body.confirm {
            let detail = "say true: its node deletes its disks, and what no version has of them is lost";
            return Err(AppError::invalid("/confirm", "missing", detail));
        }
        self.once(&asked.once, "found_instances.forget", async |tx| {
            let row = self.one_found(tx, asked).await?;
            let row = if row.forgotten { row } else { forget(tx, &asked.caller, row).await? };
            let node_name = nodes::load(tx, row.node).await?.map(|node| node.name).unwrap_or_default();
            Answer::ok(&show(&row, node_name))
        })
        .await
    }

    /// The found instance that the path names, by id or by the name that it had.
    async fn one_found(&self, tx: &mut Tx, asked: &Asked<Ref<InstanceId>>) -> Result<FoundRow, AppError> {
        let row = match &asked.thing {
            Ref::Id(id) => found::load(tx, *id).await?,
            Ref::Name(wanted) => {
                let mut all = found::list(tx, 0, i64::MAX).await?;
                all.retain(|row| name(row) == *wanted && asked.caller.can_see(&row.project));
                if all.len() > 1 {
                    let detail = format!("{} found instances had the name {wanted}: name one by its id", all.len());
                    return Err(AppError::code(ErrorCode::WrongState, detail));
                }
                all.pop()
            }
        };
        let row = row.ok_or_else(|| AppError::not_found("found instance", &asked.thing))?;
        asked.check_if_match(row.revision)?;
        Ok(row)
    }

    /// The same, if nobody forgot it.
    async fn waiting(&self, tx: &mut Tx, asked: &Asked<Ref<InstanceId>>) -> Result<FoundRow, AppError> {
        let row = self.one_found(tx, asked).await?;
        if row.forgotten {
            let state = "deleting".to_owned();
            return Err(AppError::WrongState { kind: "found instance", state, allowed: vec!["running", "stopped"] });
        }
        Ok(row)
    }
}

async fn forget(tx: &mut Tx, caller: &Caller, row: FoundRow) -> Result<FoundRow, AppError> {
    let row = FoundRow { forgotten: true, ..row };
    found::save(tx, &row).await?;
    tx.bump_desired(row.node);
    events::append(tx, found_event("instance.forgotten", &row, &caller.name)).await?;
    Ok(FoundRow { updated_at: tx.now(), revision: row.revision + 1, ..row })
}
