//! Instances are not deleted while one of their disks is being detached.

use std::collections::{BTreeMap, BTreeSet};

use muster_api::{ErrorCode, InstanceId, Problem, instance::InstanceState};

use super::super::AppError;
use crate::store::{
    Tx, column, disks,
    instances::{DiskRow, InstanceRow},
};

/// Refuses to delete instances while one of their disks is being detached: it would go with its instance, and somebody wants
/// to keep it. What has lost its node has nothing more to save.
pub(crate) async fn refuse_if_leaving(tx: &mut Tx, instances: &[InstanceRow]) -> Result<(), AppError> {
    let leaving = leaving_of(tx, instances).await?;
    let of = |instance: &InstanceRow| leaving.get(&instance.id).map(|row| (row.clone(), instance.name.clone()));
    let Some((row, name)) = instances.iter().find_map(of) else { return Ok(()) };
    let detail = format!(
        "disk {name}/{} is being detached and would be deleted with its instance: wait until it is detached, or attach it to \
         {name} again, which takes the detach back",
        row.name
    );
    let state = column::word_text(row.state()).expect("a state is a word");
    Err(Problem::new(ErrorCode::WrongState, detail).with("state", state).with("disk", row.id.to_string()).into())
}

/// Those of the instances that may be deleted: none of their disks is being detached.
pub(crate) async fn without_leaving(tx: &mut Tx, instances: Vec<InstanceRow>) -> Result<Vec<InstanceRow>, AppError> {
    let leaving = leaving_of(tx, &instances).await?;
    Ok(instances.into_iter().filter(|instance| !leaving.contains_key(&instance.id)).collect())
}

/// The disks that are being detached, by their instances: one of each that is not deleted already and has a node.
async fn leaving_of(tx: &mut Tx, of: &[InstanceRow]) -> Result<BTreeMap<InstanceId, DiskRow>, AppError> {
    let has_more = |row: &&InstanceRow| row.life.state != InstanceState::Deleting && !row.life.awaits_recovery();
    let ids: BTreeSet<InstanceId> = of.iter().filter(has_more).map(|row| row.id).collect();
    let rows = disks::leaving(tx).await?.into_iter().filter(|row| ids.contains(&row.instance));
    Ok(rows.map(|row| (row.instance, row)).collect())
}
