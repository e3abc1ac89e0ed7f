//! Parts of PATCH requests, which are JSON merge patches (RFC 7396): a field that is absent stays as it is, `null`
//! removes it.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::openapi::{ObjectBuilder, RefOr, Schema, Type, schema::SchemaType};

use crate::Labels;

/// What changes in the labels of a thing: a key with a text sets that label, a key with `null` removes it, and `null`
/// instead of all that removes every label. Labels that are not named stay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum LabelsPatch {
    /// All labels stay.
    #[default]
    Nothing,
    /// All labels go.
    RemoveAll,
    /// These are set (`Some`) or removed (`None`).
    Change(BTreeMap<String, Option<String>>),
}

impl LabelsPatch {
    /// Whether it changes nothing. Then it is not sent.
    #[must_use]
    pub const fn is_nothing(&self) -> bool {
        matches!(self, Self::Nothing)
    }

    /// The labels as they are afterwards.
    ///
    /// # Errors
    /// A message for people when these would not be valid labels.
    pub fn apply(&self, before: &Labels) -> Result<Labels, String> {
        let mut labels: BTreeMap<String, String> = match self {
            Self::RemoveAll => BTreeMap::new(),
            Self::Nothing | Self::Change(_) => before.iter().map(|(key, value)| (key.into(), value.into())).collect(),
        };
        if let Self::Change(changes) = self {
            for (key, value) in changes {
                match value {
                    Some(value) => labels.insert(key.clone(), value.clone()),
                    None => labels.remove(key),
                };
            }
        }
        labels.try_into()
    }
}

impl utoipa::PartialSchema for LabelsPatch {
    fn schema() -> RefOr<Schema> {
        let value = ObjectBuilder::new().schema_type(SchemaType::from_iter([Type::String, Type::Null]));
        let says =
            "What changes in the labels: a text sets a label, `null` removes it. Labels that are not named stay.";
        ObjectBuilder::new().additional_properties(Some(value)).description(Some(says)).into()
    }
}

impl utoipa::ToSchema for LabelsPatch {}

impl<'de> Deserialize<'de> for LabelsPatch {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        Ok(Option::deserialize(input)?.map_or(Self::RemoveAll, Self::Change))
    }
}

/// Reads a field that may be absent and may not be `null`, because the thing cannot be without it.
pub(crate) fn required<'de, D: Deserializer<'de>, T: Deserialize<'de>>(input: D) -> Result<Option<T>, D::Error> {
    T::deserialize(input).map(Some)
}

/// Reads a field that may be absent, and that `null` removes.
pub(crate) fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    input: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(input).map(Some)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{deployment::PatchDeployment, image::PatchImage};

    #[test]
    fn labels_change_as_rfc_7396_says() {
        for (before, patch, after) in [
            (json!({"a": "1"}), json!({}), json!({"a": "1"})),
            (json!({"a": "1"}), json!({"labels": {}}), json!({"a": "1"})),
            (json!({"a": "1"}), json!({"labels": {"b": "2"}}), json!({"a": "1", "b": "2"})),
            (json!({"a": "1"}), json!({"labels": {"a": "2"}}), json!({"a": "2"})),
            (json!({"a": "1", "b": "2"}), json!({"labels": {"a": null}}), json!({"b": "2"})),
            (json!({"a": "1"}), json!({"labels": {"none": null}}), json!({"a": "1"})),
            (json!({"a": "1", "b": "2"}), json!({"labels": null}), json!({})),
        ] {
            let before: Labels = serde_json::from_value(before).expect("labels");
            let read: PatchDeployment = serde_json::from_value(patch.clone()).expect("a patch");
            let labels = read.labels.apply(&before).expect("labels");
            assert_eq!(serde_json::to_value(labels).expect("JSON"), after, "{patch}");
            assert_eq!(serde_json::to_value(&read).expect("JSON"), patch);
        }
        let too_long: LabelsPatch = serde_json::from_value(json!({"k": "x".repeat(257)})).expect("a patch");
        assert!(too_long.apply(&Labels::default()).is_err());
    }

    #[test]
    fn a_name_cannot_be_removed() {
        assert!(serde_json::from_value::<PatchImage>(json!({"name": null})).is_err());
        let unnamed: PatchImage = serde_json::from_value(json!({})).expect("a patch");
        assert_eq!(serde_json::to_value(unnamed).expect("JSON"), Value::Object(serde_json::Map::new()));
    }
}
