//! Following an operation until it ends, or until nobody wants to wait any longer.

use serde_json::Value;
use tokio::time::Instant;

use crate::{
    client::{Call, Client},
    failure::{Ended, Failure},
    output,
    progress::Progress,
};

/// How long a waiting call may last: short where someone watches the bar move, long where not.
const fn wait_text(live: bool) -> &'static str {
    if live { "1s" } else { "30s" }
}

/// Whether nothing will change any more. Words of later versions are not final: the next answer tells.
fn is_final(operation: &Value) -> bool {
    matches!(output::text(operation, "/state").as_str(), "succeeded" | "failed" | "cancelled")
}

/// Waits for the end of an operation, however long it takes; Ctrl-C, `until` and a lost connection end only the waiting.
pub(crate) async fn for_operation(
    client: &Client,
    progress: &Progress,
    mut operation: Value,
    until: Option<Instant>,
) -> Result<Value, Failure> {
    let id = output::text(&operation, "/id");
    if id.is_empty() {
        return Err(client.odd("an operation without id"));
    }
    let call = Call::to(&["v1", "operations", &id]).with("wait", wait_text(progress.is_live()));
    loop {
        progress.show(&operation);
        if is_final(&operation) {
            progress.finish();
            return match output::text(&operation, "/state").as_str() {
                "succeeded" => Ok(operation),
                _ => Err(Failure::Unsuccessful(operation)),
            };
        }
        let timeout = async {
            match until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        let answer = tokio::select! {
            answer = client.get(&call) => answer,
            () = timeout => return Err(Failure::StillGoing { operation, why: Ended::Timeout }),
        };
        operation = match answer {
            Ok(operation) => operation,
            Err(Failure::Interrupted(_)) => return Err(Failure::StillGoing { operation, why: Ended::Interrupt }),
            Err(Failure::Unreachable { .. }) => {
                return Err(Failure::StillGoing { operation, why: Ended::LostContact });
            }
            Err(other) => return Err(other),
        };
    }
}
