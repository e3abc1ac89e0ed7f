//! The one place where this daemon reads the time of day. It is for reading by people and for certificates, never for
//! ordering or for deadlines: those use the monotonic clock.

use muster_api::Timestamp;

/// The time of day.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the seam the lint asks for")]
pub fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// Seconds since 1970.
#[must_use]
pub fn now_s() -> i64 {
    now().micros() / 1_000_000
}
