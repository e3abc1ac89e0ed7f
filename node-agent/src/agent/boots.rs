//! Tells the controller in which order starts first read the chunks of their disks.
//!
//! A boot order only makes later starts faster. So it is told a few times at most, and one that is lost is counted and does
//! no harm. A controller that does not know the call is left alone for an hour.

use std::time::Duration;

use metrics::counter;
use muster_api::{ErrorCode, InstanceId, node_protocol::boot::BootReport};
use storage_core::Backoff;
use tokio::time::{Instant, sleep};
use tracing::debug;

use super::loops::Loops;
use crate::{controller::ControllerError, telemetry};

/// Time between two looks for recordings that have ended.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often one is told before it is given up. With the pauses in between that is some ten seconds.
const TRIES_MAX: u32 = 6;
/// How long a controller is left alone that does not know the call. It may be a newer one by then.
const UNWANTED_FOR: Duration = Duration::from_secs(3600);

impl Loops {
    pub(super) async fn boots(&self) {
        let mut unwanted_until: Option<Instant> = None;
        loop {
            sleep(LOOK_EVERY).await;
            for (instance, report) in self.host.take_boots() {
                let outcome = if unwanted_until.is_some_and(|until| Instant::now() < until) {
                    Outcome::Unwanted
                } else {
                    let outcome = self.tell_boot(instance, &report).await;
                    unwanted_until = (outcome == Outcome::Unwanted).then(|| Instant::now() + UNWANTED_FOR);
                    outcome
                };
                counter!(telemetry::BOOT_ORDERS, "outcome" => outcome.word()).increment(1);
            }
        }
    }

    async fn tell_boot(&self, instance: InstanceId, report: &BootReport) -> Outcome {
        let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(5));
        for _ in 0..TRIES_MAX {
            match self.controller.boot(instance, report.clone()).await {
                Ok(()) => return Outcome::Told,
                Err(error) if error.code() == Some(ErrorCode::NoSuchPath) => return Outcome::Unwanted,
                Err(error @ ControllerError::Refused(_)) => {
                    debug!(instance.id = %instance, %error, "a boot order is not taken");
                    return Outcome::Refused;
                }
                Err(error) => {
                    debug!(instance.id = %instance, %error, "a boot order is told again");
                    sleep(backoff.pause()).await;
                }
            }
        }
        Outcome::Lost
    }
}

/// What became of a boot order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Told,
    Refused,
    Lost,
    Unwanted,
}

impl Outcome {
    const fn word(self) -> &'static str {
        match self {
            Self::Told => "told",
            Self::Refused => "refused",
            Self::Lost => "lost",
            Self::Unwanted => "unwanted",
        }
    }
}
