//! What the controller answers with: decoded into the types of `muster_api` for people, kept as sent for programs.
//!
//! An answer must have every field its type names. Fields and words that this program does not know are fine.

use muster_api::Problem;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// An answer lacks a field of its type, or has a value of another kind there; with what is wrong.
#[derive(Debug, thiserror::Error)]
#[error(
    "the controller's answer does not fit: {0}\n  \
     this is muster {version}; the controller may have another version, and -o json prints its answer as it is",
    version = env!("CARGO_PKG_VERSION")
)]
pub(crate) struct Misfit(pub(crate) String);

/// An object of the API that is needed in both forms.
#[derive(Clone, Debug)]
pub(crate) struct Object<T> {
    /// The JSON as sent, with fields this program does not know.
    pub(crate) sent: Value,
    /// The same, decoded.
    pub(crate) read: T,
}

impl<T: Serialize + DeserializeOwned> Object<T> {
    pub(crate) fn of(sent: Value) -> Result<Self, Misfit> {
        Ok(Self { read: read(&sent)?, sent })
    }
}

impl Object<Problem> {
    /// Decodes a problem document; none if the JSON is not one.
    pub(crate) fn problem(sent: Value) -> Option<Self> {
        // The document has optional fields, so `read` would ask for too much.
        Some(Self { read: serde_json::from_value(sent.clone()).ok()?, sent })
    }
}

/// Decodes an answer. A field that its type names and the answer lacks is an error, so that nothing shows as blank.
pub(crate) fn read<T: Serialize + DeserializeOwned>(sent: &Value) -> Result<T, Misfit> {
    let misfit = |e: &dyn std::fmt::Display| Misfit(e.to_string());
    let read: T = serde_path_to_error::deserialize(sent).map_err(|e| misfit(&e))?;
    match missing(&serde_json::to_value(&read).map_err(|e| misfit(&e))?, sent) {
        Some(path) => Err(misfit(&format!("missing field `{path}`"))),
        None => Ok(read),
    }
}

/// Finds a field that is null in `read` and absent in `sent`: serde takes one for the other, but a field that may be
/// null is always sent, and those that may be absent are not part of `read` then.
fn missing(read: &Value, sent: &Value) -> Option<String> {
    match (read, sent) {
        (Value::Object(read), Value::Object(sent)) => read.iter().find_map(|(name, value)| match sent.get(name) {
            None => value.is_null().then(|| name.clone()),
            Some(sent) => missing(value, sent).map(|inner| format!("{name}.{inner}")),
        }),
        (Value::Array(read), Value::Array(sent)) => read.iter().zip(sent).find_map(|(read, sent)| missing(read, sent)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use muster_api::{deployment::Spread, version::Freed};
    use serde_json::json;

    use super::*;

    #[test]
    fn a_null_field_must_be_sent() {
        assert_eq!(read::<Freed>(&json!({"freed_bytes": null, "new": 1})).expect("fits").freed_bytes, None);
        let renamed = read::<Freed>(&json!({"freed": 7})).expect_err("does not fit").to_string();
        assert!(renamed.contains("does not fit: missing field `freed_bytes`"), "{renamed}");
    }

    #[test]
    fn an_error_names_the_place() {
        let spread =
            json!({"p50_ms": 1, "p90_ms": 2, "p99_ms": null, "slowest": [{"instance_name": "web.0", "ms": 1}]});
        let error = read::<Spread>(&spread).expect_err("does not fit").to_string();
        assert!(error.contains("slowest[0]: missing field `instance`"), "{error}");
    }
}
