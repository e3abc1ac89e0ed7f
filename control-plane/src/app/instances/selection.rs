//! The instances that a body's `select` means.

use std::collections::BTreeMap;

use muster_api::{DeploymentId, InstanceId, Ref, instance::Select};

use super::super::{AppError, Caller, at, find};
use crate::store::{
    Filter, Tx,
    deployments::DeploymentRow,
    instances::{self, InstanceRow},
};

/// Most instances of one call.
const SELECTED_MAX: usize = 10_000;

/// Whether names also mean things that had them and are being deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Going {
    /// They do: for DELETE, which may be repeated.
    Included,
    /// Only what is not being deleted.
    LeftOut,
}

/// The instances that a `select` of a request means.
pub(crate) struct Selected {
    /// The instances, in list order.
    pub rows: Vec<InstanceRow>,
    /// The deployment, if the `select` names one.
    pub deployment: Option<DeploymentRow>,
}

/// The instances that a `select` means: the members of a deployment, those listed, or those with a label.
pub(crate) async fn selected(
    tx: &mut Tx,
    caller: &Caller,
    select: &Select,
    going: Going,
) -> Result<Selected, AppError> {
    match (&select.deployment, &select.instances, &select.label) {
        (Some(wanted), None, None) => members(tx, caller, wanted, going).await,
        (None, Some(wanted), None) => Ok(Selected { rows: listed(tx, caller, wanted, going).await?, deployment: None }),
        (None, None, Some(label)) => Ok(Selected { rows: labelled(tx, caller, label).await?, deployment: None }),
        _ => Err(AppError::invalid("/select", "invalid", "exactly one of deployment, instances, label")),
    }
}

async fn members(tx: &mut Tx, caller: &Caller, wanted: &Ref<DeploymentId>, going: Going) -> Result<Selected, AppError> {
    let found = match going {
        Going::Included => find::deployment_or_going(tx, caller, wanted).await,
        Going::LeftOut => find::deployment(tx, caller, wanted).await,
    };
    let row = found.map_err(at("/select/deployment"))?;
    Ok(Selected { rows: instances::of_deployment(tx, row.id).await?, deployment: Some(row) })
}

async fn listed(
    tx: &mut Tx,
    caller: &Caller,
    wanted: &[Ref<InstanceId>],
    going: Going,
) -> Result<Vec<InstanceRow>, AppError> {
    if wanted.len() > SELECTED_MAX {
        let detail = format!("at most {SELECTED_MAX} at a time, got {}", wanted.len());
        return Err(AppError::invalid("/select/instances", "out_of_range", detail));
    }
    let mut rows: BTreeMap<InstanceId, InstanceRow> = BTreeMap::new();
    for (index, reference) in wanted.iter().enumerate() {
        let found = match going {
            Going::Included => find::instance_or_going(tx, caller, reference).await,
            Going::LeftOut => find::instance(tx, caller, reference).await,
        };
        let row = found.map_err(at(&format!("/select/instances/{index}")))?;
        rows.insert(row.id, row);
    }
    let mut rows: Vec<_> = rows.into_values().collect();
    rows.sort_by_key(|row| row.seq);
    Ok(rows)
}

async fn labelled(tx: &mut Tx, caller: &Caller, label: &str) -> Result<Vec<InstanceRow>, AppError> {
    let Some((key, value)) = label.split_once('=') else {
        return Err(AppError::invalid("/select/label", "invalid", format!("KEY=VALUE, got '{label}'")));
    };
    let filter = Filter {
        project: Some(caller.one_project()?.to_owned()),
        labels: vec![(key.to_owned(), value.to_owned())],
        ..Filter::default()
    };
    let one_more = i64::try_from(SELECTED_MAX + 1).expect("10,001 fits");
    let rows = instances::list(tx, &filter, 0, one_more).await?;
    if rows.len() > SELECTED_MAX {
        let detail = format!("more than {SELECTED_MAX} instances have this label: take them in parts");
        return Err(AppError::invalid("/select/label", "out_of_range", detail));
    }
    Ok(rows)
}
