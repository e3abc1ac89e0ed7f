//! Instances of a dead node begin anew on other nodes, from the last saved versions of their disks.
//!
//! What was written after those versions is given up, so the caller has to say so (`accept_loss`). The refusal and the
//! operation both list it, per disk: since when, and how many bytes the dead node last reported. A disk that the node
//! saved when it came back loses nothing.

use muster_api::{
    ErrorCode, InstanceId, Problem, Ref,
    instance::{Loss, Recover},
    operation::{Operation, Target},
    units::exact_size,
};
use serde_json::json;

use super::{
    super::{Answer, App, AppError, Asked, Caller, find, operations::existing},
    change::{Changed, begin, check_idle, refused},
    power::Verb,
};
use crate::{
    domain::instance::{Edge, Refused},
    store::{
        Tx,
        instances::{self, InstanceRow},
        operations, salvage,
    },
    wake::Loop,
};

/// Most disks that one refusal or operation lists.
const LISTED_MAX: usize = 20;

impl App {
    /// Begins an instance anew on another node. Only one whose node was declared dead can be recovered.
    pub async fn recover_instance(&self, asked: &Asked<Ref<InstanceId>>, body: Recover) -> Result<Answer, AppError> {
        self.once(&asked.once, "instances.recover", async |tx| {
            let row = find::instance(tx, &asked.caller, &asked.thing).await?;
            asked.check_if_match(row.revision)?;
            check_idle(std::slice::from_ref(&row))?;
            let (project, target) = (row.project.clone(), row.target());
            let operation = recover(tx, &asked.caller, project, target, vec![row], body).await?;
            Answer::accepted(&operation)
        })
        .await
    }
}

/// Recovers those of the instances whose node was declared dead. Refused if there is none, or if data would be given up
/// and the caller did not say that it may be.
pub(super) async fn recover(
    tx: &mut Tx,
    caller: &Caller,
    project: String,
    target: Target,
    rows: Vec<InstanceRow>,
    body: Recover,
) -> Result<Operation, AppError> {
    let (mut changed, mut refusal) = (Vec::new(), None);
    for row in rows {
        match Changed::by(row, &Edge::Recover, tx) {
            Ok(change) => changed.extend(change),
            Err(found) => refusal = Some(found),
        }
    }
    if changed.is_empty() {
        let nothing = || AppError::code(ErrorCode::WrongState, "there is no instance to recover");
        return Err(refusal.as_ref().map_or_else(nothing, |refusal: &Refused| refused(refusal)));
    }
    let losses = losses(tx, &changed).await?;
    if !losses.is_empty() && !body.accept_loss {
        return Err(data_loss(&losses));
    }
    let ids: Vec<InstanceId> = changed.iter().map(|change| change.after.id).collect();
    instances::disks_begin_anew(tx, &ids).await?;
    let new = Verb::Recover(body).operation(tx, project, target, changed.len());
    let operation = begin(tx, &caller.origin(), new, changed).await?;
    operations::note_result(tx, operation.id, &json!({ "loss": listed(&losses), "disks_with_loss": losses.len() }))
        .await?;
    tx.wake(Loop::Deployments);
    existing(tx, operation.id).await
}

/// What is given up, one entry per disk.
async fn losses(tx: &mut Tx, changed: &[Changed]) -> Result<Vec<Loss>, AppError> {
    let losing: Vec<&InstanceRow> =
        changed.iter().filter(|change| change.before.may_lose_data()).map(|change| &change.after).collect();
    let ids: Vec<InstanceId> = losing.iter().map(|row| row.id).collect();
    let mut disks = instances::disks_of(tx, &ids).await?;
    let mut losses = Vec::new();
    for row in losing {
        for disk in disks.remove(&row.id).unwrap_or_default() {
            if salvage::is_whole(tx, disk.id, disk.version).await? {
                continue;
            }
            losses.push(Loss {
                instance: row.id,
                instance_name: row.name.clone(),
                disk: disk.id,
                disk_name: disk.name,
                version: disk.version,
                saved_at: disk.saved_at,
                unsaved_bytes: disk.unsaved_bytes,
            });
        }
    }
    Ok(losses)
}

fn listed(losses: &[Loss]) -> &[Loss] {
    losses.get(..LISTED_MAX).unwrap_or(losses)
}

fn data_loss(losses: &[Loss]) -> AppError {
    let said = |loss: &Loss| match loss.saved_at {
        Some(at) => format!(
            "{} goes back to its version of {at}; at least {} were written since",
            loss.instance_name,
            exact_size(loss.unsaved_bytes)
        ),
        None => format!(
            "{} begins as it was deployed, nothing of it was ever saved; at least {} were written",
            loss.instance_name,
            exact_size(loss.unsaved_bytes)
        ),
    };
    let shown: Vec<String> = listed(losses).iter().map(said).collect();
    let more = losses.len() - shown.len();
    let more = if more == 0 { String::new() } else { format!("; and {more} more") };
    let detail = format!(
        "this gives up data: {}{more}. To do it all the same, say --accept-loss (in the API accept_loss)",
        shown.join("; ")
    );
    Problem::new(ErrorCode::DataLoss, detail).with("loss", json!(listed(losses))).with("disks", losses.len()).into()
}
