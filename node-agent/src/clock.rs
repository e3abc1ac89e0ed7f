//! The only place where the agent reads the time of day. It is for people and for certificates, never for ordering or
//! deadlines; those use the monotonic clock.

use muster_api::Timestamp;

/// The time of day of this host.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the lint sends every other caller here")]
pub fn now() -> Timestamp {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("Linux refuses to set its clock before 1970");
    Timestamp::from_micros(i64::try_from(since.as_micros()).expect("a clock before the year 294000"))
}

/// The time of day of this host, in seconds since 1970.
#[must_use]
pub fn now_s() -> i64 {
    now().micros() / 1_000_000
}
