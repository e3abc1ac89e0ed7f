//! Start, stop and reboot, of one instance or of many.

use std::time::Duration;

use muster_api::{
    InstanceId, Ref,
    instance::{self as api, OnMany},
    operation::{Operation, Target},
    units::exact_duration,
};
use storage_core::units::u64_from;

use super::{
    super::{Answer, App, AppError, Asked, Caller, find, operations::existing},
    change::{Changed, begin, check_idle, refused},
    view,
};
use crate::{
    domain::{
        instance::{Edge, STOP_TIMEOUT_MAX, Stop},
        order::seconds_text,
    },
    store::{
        Tx,
        instances::InstanceRow,
        operations::{self, NewOperation, Outcome},
    },
};

/// How long an operation on instances may take beyond the time of the guests, milliseconds.
pub(super) const DEADLINE_MS: i64 = 600_000;

/// What instances are to do: a verb that names the wanted state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Run; an instance that runs already goes on.
    Start,
    /// Not run; the disks are kept.
    Stop(Stop),
    /// Stop and run again. Only an instance that runs or is paused can do this.
    Reboot(Stop),
    /// Be deleted, with its disks.
    Delete,
    /// Begin anew on another node, after its own was declared dead.
    Recover(api::Recover),
}

impl Verb {
    /// Reads the verb of a call on many instances: the last part of its path, and its body. Guests have `timeout` to stop
    /// where the body does not say it.
    pub fn read(word: &str, body: &OnMany, timeout: Duration) -> Result<Self, AppError> {
        let stop = api::Stop { force: body.force, timeout_s: body.timeout_s };
        match word {
            "start" => Ok(Self::Start),
            "stop" => Self::stop(&stop, timeout),
            "reboot" => Self::reboot(&stop, timeout),
            "delete" => Ok(Self::Delete),
            "recover" => Ok(Self::Recover(api::Recover { accept_loss: body.accept_loss })),
            _ => Err(AppError::not_found("verb", word)),
        }
    }

    /// Stop, in the way that the body says, else within `timeout`.
    pub fn stop(wanted: &api::Stop, timeout: Duration) -> Result<Self, AppError> {
        how_to_stop(wanted, timeout).map(Self::Stop)
    }

    /// Reboot; the body says how to stop, else it is within `timeout`.
    pub fn reboot(wanted: &api::Stop, timeout: Duration) -> Result<Self, AppError> {
        how_to_stop(wanted, timeout).map(Self::Reboot)
    }

    pub(crate) const fn edge(&self) -> Edge<'static> {
        match self {
            Self::Start => Edge::Start,
            Self::Stop(stop) => Edge::Stop(*stop),
            Self::Reboot(stop) => Edge::Reboot(*stop),
            Self::Delete => Edge::Delete,
            Self::Recover(_) => Edge::Recover,
        }
    }

    const fn timeout_ms(&self) -> i64 {
        match self {
            // At most STOP_TIMEOUT_MAX.
            Self::Stop(stop) | Self::Reboot(stop) => (stop.timeout_s * 1000).cast_signed(),
            Self::Start | Self::Delete | Self::Recover(_) => 0,
        }
    }

    /// The kind of the operation, by what it is on.
    const fn kind(&self, of_deployment: bool) -> &'static str {
        match (self, of_deployment) {
            (Self::Start, false) => "instance.start",
            (Self::Stop(_), false) => "instance.stop",
            (Self::Reboot(_), false) => "instance.reboot",
            (Self::Delete, false) => "instance.delete",
            (Self::Recover(_), false) => "instance.recover",
            (Self::Recover(_), true) => "deployment.recover",
            (Self::Start, true) => "deployment.start",
            (Self::Stop(_), true) => "deployment.stop",
            (Self::Reboot(_), true) => "deployment.reboot",
            (Self::Delete, true) => "deployment.clear",
        }
    }

    const fn phase(&self) -> &'static str {
        match self {
            Self::Start | Self::Reboot(_) | Self::Recover(_) => "starting",
            Self::Stop(_) => "stopping",
            Self::Delete => "deleting",
        }
    }

    /// The operation of this verb on `target`, which waits for `instances` instances.
    pub(super) fn operation(&self, tx: &Tx, project: String, target: Target, instances: usize) -> NewOperation {
        NewOperation {
            kind: self.kind(target.kind == "deployment"),
            project,
            target,
            phase: self.phase(),
            progress: operations::to_do(u64_from(instances), "instances"),
            deadline: tx.now().plus_ms(DEADLINE_MS + self.timeout_ms()),
        }
    }
}

/// How guests are stopped, as a request says it; else they have `timeout`.
pub(crate) fn how_to_stop(wanted: &api::Stop, timeout: Duration) -> Result<Stop, AppError> {
    let timeout_s = wanted.timeout_s.unwrap_or(timeout.as_secs());
    if timeout_s > STOP_TIMEOUT_MAX.as_secs() {
        let detail = format!("0s to {}, got {}", exact_duration(STOP_TIMEOUT_MAX), seconds_text(timeout_s));
        return Err(AppError::invalid("/timeout_s", "out_of_range", detail));
    }
    Ok(Stop { force: wanted.force, timeout_s })
}

impl App {
    /// Start, stop or reboot of one instance. If it is in the wanted state, the answer is the instance.
    pub async fn power_instance(&self, asked: &Asked<Ref<InstanceId>>, verb: Verb) -> Result<Answer, AppError> {
        self.once(&asked.once, "instances.power", async |tx| {
            let row = find::instance(tx, &asked.caller, &asked.thing).await?;
            asked.check_if_match(row.revision)?;
            check_idle(std::slice::from_ref(&row))?;
            let Some(changed) = Changed::by(row.clone(), &verb.edge(), tx).map_err(|r| refused(&r))? else {
                return Answer::ok(&view::one(self, tx, &asked.caller, row).await?);
            };
            let new = verb.operation(tx, row.project.clone(), row.target(), 1);
            let operation = begin(tx, &asked.caller.origin(), new, vec![changed]).await?;
            Answer::accepted(&operation)
        })
        .await
    }
}

/// Start, stop or reboot of many. Instances whose state does not allow it are left alone; it is refused if that is so
/// for all of them.
pub(crate) async fn power(
    tx: &mut Tx,
    caller: &Caller,
    project: String,
    target: Target,
    verb: Verb,
    rows: Vec<InstanceRow>,
) -> Result<Operation, AppError> {
    let (mut changed, mut refusal, mut fine) = (Vec::new(), None, 0_usize);
    for row in rows {
        match Changed::by(row, &verb.edge(), tx) {
            Ok(Some(change)) => changed.push(change),
            Ok(None) => fine += 1,
            Err(refused) => refusal = Some(refused),
        }
    }
    if let Some(refusal) = refusal.filter(|_| changed.is_empty() && fine == 0) {
        return Err(refused(&refusal));
    }
    let new = verb.operation(tx, project, target, changed.len());
    begin_or_finish(tx, caller, new, changed).await
}

/// Begins an operation that waits for the changed instances. Without any it has succeeded at once.
pub(super) async fn begin_or_finish(
    tx: &mut Tx,
    caller: &Caller,
    new: NewOperation,
    changed: Vec<Changed>,
) -> Result<Operation, AppError> {
    let nothing_to_do = changed.is_empty();
    let operation = begin(tx, &caller.origin(), new, changed).await?;
    if nothing_to_do {
        operations::finish(tx, operation.id, Outcome::Succeeded(None)).await?;
        return existing(tx, operation.id).await;
    }
    Ok(operation)
}
