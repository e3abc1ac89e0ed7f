//! Values of the API as text for tables and sentences.

use std::{
    collections::BTreeMap,
    fmt::Display,
    time::{SystemTime, UNIX_EPOCH},
};

use muster_api::{Labels, Timestamp, condition::Condition};
use serde::Serialize;
use serde_json::Value;

use crate::units;

/// The value, or nothing for null.
pub(crate) fn optional(value: Option<impl Display>) -> String {
    value.map(|v| v.to_string()).unwrap_or_default()
}

/// The word that stands for the value in JSON.
pub(crate) fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(word)) => word,
        _ => "unknown".to_owned(),
    }
}

/// `1.4 GiB`, or nothing for null.
pub(crate) fn optional_size(bytes: Option<u64>) -> String {
    optional(bytes.map(units::bytes))
}

/// `12.3 ms` or `1.20 s`, or nothing for null.
pub(crate) fn optional_millis(ms: Option<f64>) -> String {
    match ms {
        Some(ms) if ms < 100.0 => format!("{ms:.1} ms"),
        Some(ms) => format!("{:.2} s", ms / 1000.0),
        None => String::new(),
    }
}

/// How long ago the instant was: `5m`, or `in 5m` if it is to come.
pub(crate) fn age(at: Timestamp) -> String {
    #[expect(clippy::disallowed_methods, reason = "the age of a thing as people see it; nothing is decided by it")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    match u64::try_from(at.micros() / 1_000_000) {
        Ok(then) if then <= now => units::age(now - then),
        Ok(then) => format!("in {}", units::age(then - now)),
        Err(_) => String::new(),
    }
}

/// `, done in 5m`, or nothing where that is not known.
pub(crate) fn ends(at: Option<Timestamp>) -> String {
    at.map(|at| format!(", done {}", age(at))).unwrap_or_default()
}

/// `k=v k=v`.
pub(crate) fn labels(labels: &Labels) -> String {
    labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" ")
}

/// `kind: what to know; kind: what to know`.
pub(crate) fn conditions(conditions: &[Condition]) -> String {
    conditions.iter().map(|c| format!("{}: {}", c.kind, c.detail)).collect::<Vec<_>>().join("; ")
}

/// `running 3, failed 1`, without states that count nothing.
pub(crate) fn counts(counts: &BTreeMap<String, u64>) -> String {
    counts.iter().filter(|(_, n)| **n > 0).map(|(k, n)| format!("{k} {n}")).collect::<Vec<_>>().join(", ")
}

/// Replaces control characters, so that text from elsewhere cannot control the terminal.
pub(crate) fn printable(text: &str, keep_lines: bool) -> String {
    text.chars().map(|c| if c.is_control() && !(keep_lines && c == '\n') { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use muster_api::{OrUnknown, deployment::Runtime, node::NodeState};
    use serde_json::json;

    use super::*;

    #[test]
    fn unknown_words_are_shown_as_sent_or_as_unknown() {
        let runtime: OrUnknown<Runtime> = serde_json::from_value(json!("containers")).expect("reads any word");
        assert_eq!(word(&runtime), "containers");
        let state: NodeState = serde_json::from_value(json!("asleep")).expect("reads any word");
        assert_eq!(word(&state), "unknown");
        assert_eq!(word(&NodeState::Ready), "ready");
    }
}
