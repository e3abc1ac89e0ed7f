//! A wrapper for types that are part of requests and of answers.
//!
//! The controller refuses a request with an unknown word or field, so these types have no case for one. But the answer
//! of a newer controller may contain one, and clients must still be able to read that answer.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A value that this program knows, or the JSON that a newer controller sent instead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OrUnknown<T> {
    /// A value that this program knows.
    Known(T),
    /// A word or an object that this program does not know, as it was sent.
    Unknown(Value),
}

impl<T> OrUnknown<T> {
    /// The value, if this program knows it.
    #[must_use]
    pub const fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unknown(_) => None,
        }
    }
}

impl<T> From<T> for OrUnknown<T> {
    fn from(value: T) -> Self {
        Self::Known(value)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::deployment::{DeploymentSource, Runtime};

    #[test]
    fn unknown_words_and_fields_are_kept_as_they_were_sent() {
        for (sent, known) in [(json!("none"), true), (json!("containers"), false)] {
            let read: OrUnknown<Runtime> = serde_json::from_value(sent.clone()).expect("reads any word");
            assert_eq!((read.known().is_some(), serde_json::to_value(&read).expect("prints")), (known, sent));
        }
        for (sent, known) in [(json!({"image": "debian"}), true), (json!({"image": "debian", "new": 1}), false)] {
            let read: OrUnknown<DeploymentSource> = serde_json::from_value(sent.clone()).expect("reads any object");
            assert_eq!((read.known().is_some(), serde_json::to_value(&read).expect("prints")), (known, sent));
        }
    }
}
