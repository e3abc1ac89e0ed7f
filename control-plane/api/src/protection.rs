//! Protection of deployments: snapshots that the controller takes by itself, and which of them stay.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    SnapshotId, Timestamp,
    patch::{nullable, required},
    units::{exact_duration, parse_duration},
};

/// A time as people write it, such as `30s`, `15m`, `2h` or `7d`. It is sent in the largest unit that divides it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, utoipa::ToSchema)]
#[schema(value_type = String, pattern = "^[0-9]+(ms|s|m|min|h|d)$", examples("15m"))]
pub struct Period(pub Duration);

impl FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_duration(text).map(Self)
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&exact_duration(self.0))
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        String::deserialize(input)?.parse().map_err(de::Error::custom)
    }
}

/// How a deployment is protected: a snapshot of its members is taken in the background again and again, so that the loss of
/// a host costs at most what was written in that time and while the snapshot was saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Protect {
    /// Time between two scheduled snapshots, 5m to 7d.
    pub every: Period,
    /// Which scheduled snapshots stay. Default: only the newest.
    #[serde(default)]
    pub keep: Keep,
}

/// Which scheduled snapshots stay. One stays if any of these rules wants it; the newest that is ready always stays. Hours,
/// days and weeks are those of UTC, and only those count that have a snapshot. A week begins on Monday.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Keep {
    /// So many of the newest, 1 to 1000. Default: 1.
    #[serde(default = "one")]
    #[schema(default = 1, minimum = 1, maximum = 1000)]
    pub last: u32,
    /// The newest of each of so many hours, at most 1000. Default: 0.
    #[serde(default)]
    #[schema(default = 0, maximum = 1000)]
    pub hourly: u32,
    /// The newest of each of so many days, at most 1000. Default: 0.
    #[serde(default)]
    #[schema(default = 0, maximum = 1000)]
    pub daily: u32,
    /// The newest of each of so many weeks, at most 1000. Default: 0.
    #[serde(default)]
    #[schema(default = 0, maximum = 1000)]
    pub weekly: u32,
}

const fn one() -> u32 {
    1
}

impl Default for Keep {
    fn default() -> Self {
        Self { last: one(), hourly: 0, daily: 0, weekly: 0 }
    }
}

/// What changes in the protection of a deployment (merge patch): what is absent stays, `null` brings a default back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PatchProtect {
    /// Time between two scheduled snapshots, 5m to 7d. Required if the deployment is not protected yet.
    #[serde(default, deserialize_with = "required", skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub every: Option<Period>,
    /// Which scheduled snapshots stay.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<PatchKeep>)]
    pub keep: Option<Option<PatchKeep>>,
}

/// What changes in the rules that say which scheduled snapshots stay (merge patch).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PatchKeep {
    /// So many of the newest, 1 to 1000.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>)]
    pub last: Option<Option<u32>>,
    /// The newest of each of so many hours, at most 1000.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>)]
    pub hourly: Option<Option<u32>>,
    /// The newest of each of so many days, at most 1000.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>)]
    pub daily: Option<Option<u32>>,
    /// The newest of each of so many weeks, at most 1000.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>)]
    pub weekly: Option<Option<u32>>,
}

impl PatchProtect {
    /// The protection after the patch. `None` if there was none before and the patch does not say how often.
    #[must_use]
    pub fn apply(&self, before: Option<Protect>) -> Option<Protect> {
        let every = self.every.or(before.map(|before| before.every))?;
        let keep = before.map(|before| before.keep).unwrap_or_default();
        let keep = match self.keep {
            None => keep,
            Some(None) => Keep::default(),
            Some(Some(patch)) => patch.apply(keep),
        };
        Some(Protect { every, keep })
    }
}

impl PatchKeep {
    fn apply(self, before: Keep) -> Keep {
        let default = Keep::default();
        let number = |patch: Option<Option<u32>>, before, default| patch.map_or(before, |new| new.unwrap_or(default));
        Keep {
            last: number(self.last, before.last, default.last),
            hourly: number(self.hourly, before.hourly, default.hourly),
            daily: number(self.daily, before.daily, default.daily),
            weekly: number(self.weekly, before.weekly, default.weekly),
        }
    }
}

/// How far the protection of a deployment is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Protection {
    /// What its members had written by then is saved, but for members that `trouble` names as left out; null until something
    /// was saved. It grows also while nothing is written, without a new snapshot.
    pub last_saved_at: Option<Timestamp>,
    /// Its newest scheduled snapshot that is ready; null if there is none.
    pub last_snapshot: Option<SnapshotId>,
    /// Name of that snapshot.
    pub last_snapshot_name: Option<String>,
    /// When the next one is due. A time that has passed: it waits for its turn, or is under way.
    pub next_at: Timestamp,
    /// The scheduled snapshot that is under way; null if there is none.
    pub under_way: Option<SnapshotId>,
    /// Why the last one did not save everything, in a sentence; null if it did.
    pub trouble: Option<String>,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_patch_changes_what_it_names_and_null_brings_defaults_back() {
        for (before, patch, after) in [
            (Value::Null, json!({}), Value::Null),
            (Value::Null, json!({"keep": {"daily": 7}}), Value::Null),
            (
                Value::Null,
                json!({"every": "15m"}),
                json!({"every": "15m", "keep": {"last": 1, "hourly": 0, "daily": 0, "weekly": 0}}),
            ),
            (
                json!({"every": "15m", "keep": {"last": 3, "daily": 7}}),
                json!({"every": "60m", "keep": {"weekly": 4, "last": null}}),
                json!({"every": "1h", "keep": {"last": 1, "hourly": 0, "daily": 7, "weekly": 4}}),
            ),
            (
                json!({"every": "15m", "keep": {"last": 3}}),
                json!({"keep": null}),
                json!({"every": "15m", "keep": {"last": 1, "hourly": 0, "daily": 0, "weekly": 0}}),
            ),
        ] {
            let before: Option<Protect> = serde_json::from_value(before).expect("a protection");
            let read: PatchProtect = serde_json::from_value(patch.clone()).expect("a patch");
            assert_eq!(serde_json::to_value(read.apply(before)).expect("JSON"), after, "{patch}");
        }
        for bad in [json!({"every": null}), json!({"every": 15}), json!({"every": "soon"}), json!({"keep": {"no": 1}})]
        {
            assert!(serde_json::from_value::<PatchProtect>(bad.clone()).is_err(), "{bad}");
        }
    }
}
