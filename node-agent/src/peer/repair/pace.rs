//! [`Pace`]: how fast copies are sent.

use std::{sync::Mutex, time::Duration};

use storage_core::lock;
use tokio::time::{Instant, sleep_until};

/// A limit of bytes per second. Whoever takes bytes waits until all that was taken before has had its time.
pub(super) struct Pace {
    bytes_per_s: u64,
    free_at: Mutex<Instant>,
}

impl Pace {
    /// At least 1 byte per second.
    pub(super) fn new(bytes_per_s: u64) -> Self {
        assert!(bytes_per_s > 0, "the configuration refuses 0");
        Self { bytes_per_s, free_at: Mutex::new(Instant::now()) }
    }

    pub(super) async fn take(&self, bytes: u64) {
        let at = {
            let mut free_at = lock(&self.free_at);
            let at = (*free_at).max(Instant::now());
            *free_at = at + Duration::from_micros(bytes.saturating_mul(1_000_000) / self.bytes_per_s);
            at
        };
        sleep_until(at).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_take_their_time_and_idle_time_is_not_saved_up() {
        let pace = Pace::new(1000);
        let begun = Instant::now();
        for _ in 0..3 {
            pace.take(500).await;
        }
        assert_eq!(begun.elapsed(), Duration::from_secs(1), "the first goes at once");
        tokio::time::sleep(Duration::from_secs(60)).await;
        let begun = Instant::now();
        for _ in 0..3 {
            pace.take(500).await;
        }
        assert_eq!(begun.elapsed(), Duration::from_secs(1));
    }
}
