//! When a call is tried again, and for how long.

use std::time::{Duration, Instant};

use uuid::Uuid;

use super::Client;
use crate::failure::Failure;

/// How long calls are retried before the controller has ever answered.
const PATIENCE_BEFORE: Duration = Duration::from_secs(10);
/// How long calls are retried once it has answered: it may be restarting.
const PATIENCE_AFTER: Duration = Duration::from_secs(120);
const BACKOFF_FIRST: Duration = Duration::from_millis(200);
const BACKOFF_MOST: Duration = Duration::from_secs(5);

/// Why one try failed.
pub(super) enum Trouble {
    Connection(reqwest::Error),
    /// The controller or a proxy is busy or restarting; with the pause it asked for.
    Busy(Failure, Option<Duration>),
    Final(Failure),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Final(failure)
    }
}

/// Whether another try may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    Never,
    /// After the pause that the controller asked for, if it did.
    After(Option<Duration>),
}

/// Time left for retries of one call or transfer.
pub(crate) struct Patience {
    since: Instant,
    backoff: Duration,
    told: bool,
}

impl Patience {
    pub(crate) fn new() -> Self {
        Self { since: Instant::now(), backoff: BACKOFF_FIRST, told: false }
    }

    /// Waits before the next try. Returns the failure if the time for retries is over.
    pub(crate) async fn pause(
        &mut self,
        client: &Client,
        asked: Option<Duration>,
        failure: Failure,
    ) -> Result<(), Failure> {
        let usual = if client.reached.get() { PATIENCE_AFTER } else { PATIENCE_BEFORE };
        let patience = client.retry_for.unwrap_or(usual);
        // A pause of 0 s that the controller asked for must not become a busy loop.
        let pause = asked.unwrap_or(self.backoff).max(self.backoff.min(Duration::from_secs(1)));
        if self.since.elapsed() + pause > patience {
            return Err(failure);
        }
        if !self.told {
            self.told = true;
            let text = failure.to_string();
            let line = text.lines().next().unwrap_or_default();
            client.notes.say(&format!("{line}; trying again for {} s", patience.as_secs()));
        }
        // Many clients that lost the same controller must not return at the same moment.
        let jittered = pause.mul_f64(0.75 + 0.5 * fraction());
        self.backoff = (self.backoff * 2).min(BACKOFF_MOST);
        tokio::select! {
            () = tokio::time::sleep(jittered) => Ok(()),
            () = client.interrupt.cancelled() => Err(Failure::Interrupted(false)),
        }
    }
}

/// A random number from 0 to 1.
fn fraction() -> f64 {
    let [.., a, b] = *Uuid::now_v7().as_bytes();
    f64::from(u16::from_be_bytes([a, b])) / 65_536.0
}
