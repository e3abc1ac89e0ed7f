//! The clock. Everything else gets the time from a [`Clock`], so that tests can set it.

use muster_api::Timestamp;

/// What time it is. Tests replace it by a [`ManualClock`].
pub trait Clock: Send + Sync + 'static {
    /// The time now, in microseconds since 1970. It is for reading and for deadlines, never for ordering rows.
    fn now(&self) -> Timestamp;
}

/// The host's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let since = since.expect("the host's clock is past 1970");
        Timestamp::from_micros(i64::try_from(since.as_micros()).expect("the year is before 290,000"))
    }
}
