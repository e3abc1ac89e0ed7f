//! Bounded waiting for a level.

use std::time::{Duration, Instant};

/// Asks `level` until it answers `Ok`, at most `limit` long.
///
/// # Panics
/// With the last `Err` when the time is up: that is the test's failure.
pub async fn eventually<T>(what: &str, limit: Duration, mut level: impl AsyncFnMut() -> Result<T, String>) -> T {
    let begun = Instant::now();
    loop {
        match level().await {
            Ok(value) => return value,
            Err(last) if begun.elapsed() > limit => panic!("{what}: not within {limit:?}; last: {last}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(25)).await,
        }
    }
}
