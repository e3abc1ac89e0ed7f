//! Bounded waiting for a condition.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use crate::guest_time::GuestTime;

/// Asks `level` until it answers `Ok`, for `limit` at most.
///
/// # Panics
/// With the last `Err` when the time is up.
pub async fn eventually<T>(what: &str, limit: Duration, level: impl AsyncFnMut() -> Result<T, String>) -> T {
    let begun = Instant::now();
    ask(what, limit, || begun.elapsed(), level).await
}

/// The same for what guests below `folder` have to do: time in which they wait for a processor does not count.
///
/// # Panics
/// With the last `Err` when the time is up.
pub async fn eventually_for_guests<T>(
    what: &str,
    folder: &Path,
    limit: Duration,
    level: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let mut time = GuestTime::start(folder);
    ask(what, limit, || time.used(), level).await
}

async fn ask<T>(
    what: &str,
    limit: Duration,
    mut used: impl FnMut() -> Duration,
    mut level: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    loop {
        match level().await {
            Ok(value) => return value,
            Err(last) if used() > limit => panic!("{what}: not within {limit:?}; last: {last}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(25)).await,
        }
    }
}
