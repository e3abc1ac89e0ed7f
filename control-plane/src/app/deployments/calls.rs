//! Deployments are shown, labelled and protected.

use std::sync::Arc;

use muster_api::{
    DeploymentId, Page, Ref,
    deployment::{Deployment, DeploymentState, PatchDeployment},
};

use super::{
    super::{Answer, App, AppError, Asked, Caller, find, labels::patched, list::ListQuery, nics::Names, protection},
    event, view,
};
use crate::{
    domain::deployment::Tally,
    store::{
        deployments::{self, DeploymentRow},
        events, seeds,
    },
};

impl App {
    /// One deployment, with the counts of its members.
    pub async fn deployment(&self, caller: &Caller, wanted: &Ref<DeploymentId>) -> Result<Deployment, AppError> {
        self.store
            .read("deployments.show", async |tx| {
                let row = find::deployment(tx, caller, wanted).await?;
                view::show(self, tx, caller, row).await
            })
            .await
    }

    /// The user data of a deployment.
    pub async fn user_data(&self, caller: &Caller, wanted: &Ref<DeploymentId>) -> Result<String, AppError> {
        self.store
            .read("deployments.user_data", async |tx| {
                let row = find::deployment(tx, caller, wanted).await?;
                let data = seeds::load(tx, row.id).await?.user_data;
                data.ok_or_else(|| AppError::not_found("user data of deployment", &row.name))
            })
            .await
    }

    /// A page of deployments. The filters `state`, `label` and `deployment` are known.
    pub async fn deployments(&self, caller: &Caller, list: &ListQuery) -> Result<Page<Deployment>, AppError> {
        list.filter.states_of::<DeploymentState>()?;
        self.store
            .read("deployments.list", async |tx| {
                let filter = list.row_filter(tx, caller).await?;
                let mut pager = list.pager(tx).await?;
                while let Some((after, n)) = pager.wants() {
                    let rows = deployments::list(tx, &filter, after, n).await?;
                    // The state follows from the members, so it is counted before it is compared.
                    let names = Names::of(tx, rows.iter().flat_map(|row| &row.nics)).await?;
                    let tallies = self.counted.tallies(tx, &rows).await?;
                    let protection = protection::shown(tx, caller, &rows).await?;
                    let rows: Vec<_> = rows.into_iter().zip(tallies).collect();
                    let keep = |(row, tally): (DeploymentRow, Arc<Tally>)| {
                        let timing = row.timing.clone();
                        let shown = view::view(caller, row, &names, &protection, &tally, timing, None);
                        list.filter.keeps(shown.state, &shown.labels).then_some(shown)
                    };
                    pager.take(rows, |(row, _)| row.seq, keep);
                }
                Ok(pager.page())
            })
            .await
    }

    /// Changes the labels and the protection; nothing else of a deployment can be patched.
    pub async fn patch_deployment(
        &self,
        asked: &Asked<Ref<DeploymentId>>,
        patch: &PatchDeployment,
    ) -> Result<Answer, AppError> {
        self.once(&asked.once, "deployments.patch", async |tx| {
            let mut row = find::deployment(tx, &asked.caller, &asked.thing).await?;
            asked.check_if_match(row.revision)?;
            let labels = patched(&row.labels, &patch.labels)?;
            let changed = match patch.protect {
                Some(protect) => protection::change(tx, &row, protect).await?,
                None => false,
            };
            if changed || labels != row.labels {
                row.labels = labels;
                deployments::save(tx, &row).await?;
                events::append(tx, event(&row, &asked.caller.name)).await?;
                row = find::deployment(tx, &asked.caller, &Ref::Id(row.id)).await?;
            }
            Answer::ok(&view::show(self, tx, &asked.caller, row).await?)
        })
        .await
    }
}
