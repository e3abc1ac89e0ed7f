//! Protection of deployments: when the next scheduled snapshot is due, and which of them stay.
//!
//! ```text
//!  waiting --due, something was written--> under way --ready--> waiting     old ones go
//!     ^  |                                    |
//!     |  +-- due, nothing was written: saved without a new snapshot
//!     +------ failed: tried again, later each time; given up for a caller's snapshot: tried again soon
//! ```
//! The loss of a host costs what was written since the last cut: at most `every`, and the time that saving takes. So the next
//! one is counted from the cut before, and comes a little earlier than `every`: by another part for each deployment, so that
//! those which were due together once do not stay so.

use std::{collections::BTreeSet, time::Duration};

use muster_api::{
    SnapshotId, Timestamp,
    error::FieldError,
    protection::{Keep, Period, Protect},
    units::exact_duration,
};
use uuid::Uuid;

/// Shortest time between two scheduled snapshots.
pub const EVERY_MIN: Duration = Duration::from_secs(5 * 60);
/// Longest time between two scheduled snapshots.
pub const EVERY_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Most snapshots that one rule keeps.
const KEEP_MAX: u32 = 1000;
/// Longest time until a scheduled snapshot is durable, milliseconds. The sweep waits for uploads, so it is bounded. What was
/// stored by then is only touched by the next one.
pub const SAVE_MS: i64 = 30 * 60_000;
/// Snapshots in a row that were not durable in time, or gave way, until one is saved at full speed.
pub const LATE_MAX: u64 = 2;
/// Time until the first new try after a failure, and after one that gave way, milliseconds. It doubles with each failure.
pub const AGAIN_MS: i64 = 30_000;
/// Longest such time, milliseconds.
const AGAIN_MOST_MS: i64 = 30 * 60_000;
/// Scheduled snapshots under way at a time, for each node, and in a small cluster.
const UNDER_WAY_PER_NODE: u64 = 2;
const UNDER_WAY_MIN: u64 = 4;
/// Tells the number of the period that a time, in microseconds, is in.
type PeriodOf = fn(i64) -> i64;
/// The part of `every` within which the next one comes early.
const SPREAD: u64 = 10;
const HOUR_US: i64 = 3600 * 1_000_000;
const DAY_US: i64 = 24 * HOUR_US;

/// What does not fit in a protection. `pointer` is where the request has it.
#[must_use]
pub fn check(pointer: &str, wanted: &Protect) -> Vec<FieldError> {
    let mut wrong = Vec::new();
    let mut add = |field: &str, detail: String| {
        let (pointer, code) = (format!("{pointer}/{field}"), "out_of_range".to_owned());
        wrong.push(FieldError { pointer, code, detail });
    };
    let Period(every) = wanted.every;
    if !(EVERY_MIN..=EVERY_MAX).contains(&every) {
        let (least, most) = (exact_duration(EVERY_MIN), exact_duration(EVERY_MAX));
        add("every", format!("{least} to {most}, got {}", wanted.every));
    }
    let Keep { last, hourly, daily, weekly } = wanted.keep;
    if last == 0 {
        add("keep/last", "at least 1, got 0: the newest one that is ready always stays".to_owned());
    }
    for (field, number) in [("last", last), ("hourly", hourly), ("daily", daily), ("weekly", weekly)] {
        if number > KEEP_MAX {
            add(&format!("keep/{field}"), format!("at most {KEEP_MAX}, got {number}"));
        }
    }
    wrong
}

/// The snapshots that no rule wants. `ready` has each with its instant, in the order in which they were taken: a clock that was
/// wrong makes none newer than those after it.
#[must_use]
pub fn expired(ready: &[(SnapshotId, Timestamp)], keep: Keep) -> Vec<SnapshotId> {
    let newest_first: Vec<&(SnapshotId, Timestamp)> = ready.iter().rev().collect();
    let mut stay: BTreeSet<SnapshotId> = BTreeSet::new();
    let rules: [(u32, PeriodOf); 3] = [
        (keep.hourly, |us| us.div_euclid(HOUR_US)),
        (keep.daily, |us| us.div_euclid(DAY_US)),
        // 1970 began on a Thursday, and weeks begin on Monday.
        (keep.weekly, |us| (us.div_euclid(DAY_US) + 3).div_euclid(7)),
    ];
    // The newest of all stays, whatever the numbers are.
    let last = usize::try_from(keep.last).unwrap_or(usize::MAX).max(1);
    stay.extend(newest_first.iter().take(last).map(|(id, _)| *id));
    for (number, period) in rules {
        let mut seen: BTreeSet<i64> = BTreeSet::new();
        for (id, at) in &newest_first {
            if seen.len() >= usize::try_from(number).unwrap_or(usize::MAX) {
                break;
            }
            if seen.insert(period(at.micros())) {
                stay.insert(*id);
            }
        }
    }
    ready.iter().map(|(id, _)| *id).filter(|id| !stay.contains(id)).collect()
}

/// When the next snapshot of a deployment is due whose last one began at `begun`.
#[must_use]
pub fn next_at(deployment: Uuid, begun: Timestamp, every_s: u64) -> Timestamp {
    let every_ms = every_s.saturating_mul(1000);
    // The end of an id is random. No deployment has the same part as another for long, and each has the same at each time.
    let (_, random) = deployment.as_u64_pair();
    let early_ms = random % (every_ms / SPREAD).max(1);
    begun.plus_ms((every_ms - early_ms).cast_signed())
}

/// Whether a snapshot is due that was to be taken at `next_at`. No time is set further ahead than `every`, so one that is was set
/// by a clock that was ahead, and nobody waits for that (I10).
#[must_use]
pub fn is_due(next_at: Timestamp, every_s: u64, now: Timestamp) -> bool {
    next_at <= now || next_at > now.plus_ms(every_s.saturating_mul(1000).cast_signed())
}

/// Whether others of the same disks come in between again and again, so that nothing is saved for twice the time: the next one goes
/// without what is in the way, and somebody is told (I10). `late` is how many in a row were not durable in time or gave way.
#[must_use]
pub fn is_starved(saved_at: Timestamp, every_s: u64, late: u64, now: Timestamp) -> bool {
    late >= LATE_MAX && now.ms_since(saved_at) > every_s.saturating_mul(2000).cast_signed()
}

/// How long to wait after this many failures in a row, milliseconds. Never longer than `every`.
#[must_use]
pub fn again_ms(failures: u64, every_s: u64) -> i64 {
    let doublings = failures.saturating_sub(1).min(16);
    let most = AGAIN_MOST_MS.min(every_s.saturating_mul(1000).cast_signed());
    (AGAIN_MS << doublings).min(most)
}

/// Most scheduled snapshots that are under way at a time in a cluster of this many nodes.
#[must_use]
pub const fn under_way_max(nodes: u64) -> u64 {
    let many = nodes.saturating_mul(UNDER_WAY_PER_NODE);
    if many < UNDER_WAY_MIN { UNDER_WAY_MIN } else { many }
}

/// Most of these that one project has while others have protected deployments: a quarter is left for them (I11).
#[must_use]
pub const fn share_of_one(under_way_max: u64) -> u64 {
    under_way_max - under_way_max / 4
}

/// Longest part of a deployment's name in the names of its scheduled snapshots, characters.
const NAME_PART: usize = 27;

/// The name of a scheduled snapshot: that of its deployment and the minute, `web-20261130-0915z`.
#[must_use]
pub fn name(deployment: &str, at: Timestamp) -> String {
    // `2026-11-30T09:15:02.123Z`
    let text = at.to_string();
    let digits = |range: std::ops::Range<usize>| text.get(range).unwrap_or_default().replace(['-', ':'], "");
    let part: String = deployment.chars().take(NAME_PART).collect();
    format!("{part}-{}-{}z", digits(0..10), digits(11..16))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn id(n: u128) -> SnapshotId {
        SnapshotId::from(Uuid::from_u128(n))
    }

    /// A time as `DAY HH:MM` of November 2026, which began on a Sunday.
    fn at(text: &str) -> Timestamp {
        let (day, time) = text.split_once(' ').expect("a day and a time");
        serde_json::from_value(json!(format!("2026-11-{day}T{time}:00Z"))).expect("a time")
    }

    fn kept(times: &[&str], keep: serde_json::Value) -> Vec<String> {
        let ready: Vec<_> = (0..).zip(times).map(|(n, text)| (id(n), at(text))).collect();
        let gone = expired(&ready, serde_json::from_value(keep).expect("rules"));
        let all = (0..).zip(times).filter(|(n, _)| !gone.contains(&id(*n)));
        all.map(|(_, text)| (*text).to_owned()).collect()
    }

    #[test]
    fn each_rule_keeps_the_newest_of_its_periods() {
        let times = ["01 23:50", "02 00:10", "08 12:00", "09 08:05", "09 08:55", "09 09:00", "09 11:15", "09 11:45"];
        for (keep, stay) in [
            (json!({}), vec!["09 11:45"]),
            (json!({"last": 3}), vec!["09 09:00", "09 11:15", "09 11:45"]),
            (json!({"last": 100}), times.to_vec()),
            // Hours without a snapshot do not count.
            (json!({"hourly": 3}), vec!["09 08:55", "09 09:00", "09 11:45"]),
            (json!({"hourly": 4}), vec!["08 12:00", "09 08:55", "09 09:00", "09 11:45"]),
            (json!({"daily": 2}), vec!["08 12:00", "09 11:45"]),
            (json!({"daily": 1000}), vec!["01 23:50", "02 00:10", "08 12:00", "09 11:45"]),
            // The 1st, the 8th are Sundays, the 2nd and the 9th Mondays.
            (json!({"weekly": 2}), vec!["08 12:00", "09 11:45"]),
            (json!({"weekly": 9}), vec!["01 23:50", "08 12:00", "09 11:45"]),
            (json!({"last": 2, "hourly": 2, "daily": 2}), vec!["08 12:00", "09 09:00", "09 11:15", "09 11:45"]),
        ] {
            assert_eq!(kept(&times, keep.clone()), stay, "{keep}");
        }
    }

    #[test]
    fn the_newest_stays_whatever_the_rules_are() {
        let none = Keep { last: 0, hourly: 0, daily: 0, weekly: 0 };
        assert_eq!(expired(&[(id(1), at("01 10:00")), (id(2), at("01 11:00"))], none), [id(1)]);
        assert_eq!(
            expired(&[(id(1), at("01 10:00")), (id(2), at("01 10:00"))], none),
            [id(1)],
            "of one instant the later"
        );
        assert_eq!(
            expired(&[(id(1), at("01 11:00")), (id(2), at("01 10:00"))], none),
            [id(1)],
            "a clock that went back"
        );
        assert_eq!(expired(&[], none), []);
    }

    #[test]
    fn keeping_again_what_was_kept_drops_nothing() {
        let all: Vec<_> =
            (0..400).map(|n| (id(n), at("01 00:00").plus_ms(i64::try_from(n).expect("few") * 3_000_000))).collect();
        let keep = Keep { last: 2, hourly: 5, daily: 4, weekly: 3 };
        let gone = expired(&all, keep);
        let left: Vec<_> = all.iter().filter(|(id, _)| !gone.contains(id)).copied().collect();
        assert!((4..=14).contains(&left.len()), "{}", left.len());
        assert_eq!(expired(&left, keep), []);
    }

    #[test]
    fn the_next_one_comes_within_the_time_and_deployments_drift_apart() {
        let begun = at("01 10:00");
        let times: BTreeSet<i64> =
            (0..100).map(|n| next_at(Uuid::from_u128(n * 7919), begun, 900).ms_since(begun)).collect();
        assert!(times.iter().all(|ms| (810_000..=900_000).contains(ms)), "{times:?}");
        assert!(times.len() > 90);
        assert_eq!(next_at(Uuid::from_u128(5), begun, 900), next_at(Uuid::from_u128(5), begun, 900));
    }

    #[test]
    fn a_time_that_a_wrong_clock_set_is_due() {
        let now = at("08 12:00");
        let due = |next: &str| is_due(at(next), 3600, now);
        assert!(due("08 11:59") && due("08 12:00"));
        assert!(!due("08 12:01") && !due("08 13:00"));
        assert!(due("08 13:01") && due("29 12:00"), "no time is set further ahead than an hour");
    }

    #[test]
    fn snapshots_of_a_time_when_the_clock_was_ahead_go_as_others_do() {
        let times = ["02 10:00", "20 10:00", "20 11:00", "02 11:00", "02 12:00"];
        assert_eq!(kept(&times, json!({"last": 2})), ["02 11:00", "02 12:00"]);
        assert_eq!(kept(&times, json!({"hourly": 3})), ["20 11:00", "02 11:00", "02 12:00"]);
        assert_eq!(kept(&times, json!({"daily": 2})), ["20 11:00", "02 12:00"]);
    }

    #[test]
    fn a_deployment_is_starved_when_several_gave_way_and_nothing_was_saved_for_twice_the_time() {
        let starved = |late, now: &str| is_starved(at("08 12:00"), 3600, late, at(now));
        assert!(starved(LATE_MAX, "08 14:01") && starved(9, "10 12:00"));
        assert!(!starved(LATE_MAX, "08 14:00") && !starved(LATE_MAX - 1, "10 12:00"));
    }

    #[test]
    fn one_project_leaves_places_for_others() {
        assert_eq!([4, 5, 20, 200].map(share_of_one), [3, 4, 15, 150]);
    }

    #[test]
    fn failures_are_tried_again_later_each_time_and_never_later_than_the_time_between_two() {
        let waits = |every_s| [1, 2, 3, 4, 5, 40, u64::MAX].map(|failures| again_ms(failures, every_s) / 1000);
        assert_eq!(waits(86_400), [30, 60, 120, 240, 480, 1800, 1800]);
        assert_eq!(waits(300), [30, 60, 120, 240, 300, 300, 300]);
    }

    #[test]
    fn what_does_not_fit_is_told_where_it_is() {
        let check = |body: serde_json::Value| {
            let wrong = check("/protect", &serde_json::from_value(body).expect("a protection"));
            wrong.into_iter().map(|error| error.pointer + ": " + &error.detail).collect::<Vec<_>>()
        };
        assert!(check(json!({"every": "5m"})).is_empty());
        assert!(check(json!({"every": "7d", "keep": {"weekly": 1000}})).is_empty());
        assert_eq!(check(json!({"every": "299s"})), ["/protect/every: 5m to 7d, got 299s"]);
        assert_eq!(
            check(json!({"every": "8d", "keep": {"last": 0, "daily": 1001}})),
            [
                "/protect/every: 5m to 7d, got 8d",
                "/protect/keep/last: at least 1, got 0: the newest one that is ready always stays",
                "/protect/keep/daily: at most 1000, got 1001",
            ]
        );
    }

    #[test]
    fn a_scheduled_snapshot_has_a_name_that_tells_what_and_when() {
        assert_eq!(name("web", at("30 09:15")), "web-20261130-0915z");
        let long = name(&"x".repeat(55), at("30 09:15"));
        assert!(long.parse::<muster_api::Name>().is_ok(), "{long}");
        assert!(long.len() + 13 <= muster_api::names::NAME_CHARS_MAX, "room to make it unique: {}", long.len());
    }
}
