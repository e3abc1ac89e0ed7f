//! Follows an operation until it ends, or until nobody wants to wait any longer.

use muster_api::operation::{Operation, OperationState};
use tokio::time::Instant;

use crate::{
    answer::Object,
    client::{Call, Client},
    failure::{Ended, Failure},
    progress::Progress,
};

/// Waits until an operation ends. Ctrl-C, `until` and a lost connection end only the waiting, not the work.
pub(crate) async fn for_operation(
    client: &Client,
    progress: &Progress,
    mut operation: Object<Operation>,
    until: Option<Instant>,
) -> Result<Object<Operation>, Failure> {
    // The controller answers early when the operation ends. A person who watches the bar wants to see it move before.
    let longest = if progress.is_live() { "1s" } else { "30s" };
    let call = Call::to(&["v1", "operations", &operation.read.id.to_string()]).with("wait", longest);
    loop {
        progress.show(&operation.read);
        if operation.read.state.is_final() {
            progress.finish();
            return match operation.read.state {
                OperationState::Succeeded => Ok(operation),
                _ => Err(Failure::Unsuccessful(Box::new(operation))),
            };
        }
        let still_going = |operation, why| Failure::StillGoing { operation: Box::new(operation), why };
        let answer = tokio::select! {
            answer = client.get(&call) => answer,
            () = sleep_until(until) => return Err(still_going(operation, Ended::Timeout)),
        };
        operation = match answer {
            // The work goes on, so this is no failure of it.
            Ok(sent) => match Object::of(sent) {
                Ok(operation) => operation,
                Err(_misfit) => return Err(still_going(operation, Ended::Unreadable)),
            },
            Err(Failure::Interrupted(_)) => return Err(still_going(operation, Ended::Interrupt)),
            Err(Failure::Unreachable { .. }) => return Err(still_going(operation, Ended::LostContact)),
            Err(other) => return Err(other),
        };
    }
}

async fn sleep_until(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}
