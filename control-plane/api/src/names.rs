//! Names and labels. They are checked once, when a request is parsed; after that, their types prove that they are
//! valid.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, de};

/// Longest name in characters. It leaves room for a separator and a member number in a host name of 63 characters.
pub const NAME_CHARS_MAX: usize = 55;

/// Why a text is not a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It is empty or too long; its length is given.
    #[error("a name has 1 to {NAME_CHARS_MAX} characters, got {0}")]
    Length(usize),
    /// The first character is not a letter.
    #[error("a name starts with a letter a-z, got '{0}'")]
    First(char),
    /// It has a character that is not allowed.
    #[error("a name is made of {allowed}, got '{got}'")]
    Character {
        /// The characters that are allowed, for people.
        allowed: &'static str,
        /// The character that is not.
        got: char,
    },
    /// It is a UUID, so that it could be taken for an id.
    #[error("a name must not look like a UUID")]
    LikeUuid,
}

fn check(text: &str, extra: &[char], allowed: &'static str) -> Result<(), NameError> {
    let chars = text.chars().count();
    if chars == 0 || chars > NAME_CHARS_MAX {
        return Err(NameError::Length(chars));
    }
    if let Some(first) = text.chars().next().filter(|c| !c.is_ascii_lowercase()) {
        return Err(NameError::First(first));
    }
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || extra.contains(&c);
    if let Some(got) = text.chars().find(|c| !fits(*c)) {
        return Err(NameError::Character { allowed, got });
    }
    if uuid::Uuid::try_parse(text).is_ok() {
        return Err(NameError::LikeUuid);
    }
    Ok(())
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident, $extra:expr, $allowed:literal, $pattern:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, utoipa::ToSchema)]
        #[serde(transparent)]
        #[schema(value_type = String, min_length = 1, max_length = 55, pattern = $pattern)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                check(text, &$extra, $allowed).map(|()| Self(text.to_owned()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
                String::deserialize(input)?.parse().map_err(de::Error::custom)
            }
        }
    )*};
}

names! {
    /// Name of a deployment, snapshot or project: 1 to 55 characters from `a-z0-9-`, the first a letter, not a UUID.
    Name, [], "a-z, 0-9 and -", "^[a-z][a-z0-9-]{0,54}$";
    /// Name of an image or node: 1 to 55 characters from `a-z0-9._-`, the first a letter, not a UUID.
    DottedName, ['.', '_'], "a-z, 0-9, -, . and _", "^[a-z][a-z0-9._-]{0,54}$";
}

/// How a request refers to a resource: by id, or by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ref<Id> {
    /// Its id.
    Id(Id),
    /// Its name, in the project of the request.
    Name(String),
}

impl<Id: FromStr> FromStr for Ref<Id> {
    type Err = NameError;

    /// A text that is not an id is taken for a name. It is only refused if no name can have its length.
    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.parse::<Id>() {
            Ok(id) => Ok(Self::Id(id)),
            Err(_) if text.is_empty() || text.len() > 255 => Err(NameError::Length(text.chars().count())),
            Err(_) => Ok(Self::Name(text.to_owned())),
        }
    }
}

impl<Id: fmt::Display> fmt::Display for Ref<Id> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl<Id: fmt::Display> Serialize for Ref<Id> {
    fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl<'de, Id: FromStr> Deserialize<'de> for Ref<Id> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        String::deserialize(input)?.parse().map_err(de::Error::custom)
    }
}

/// Labels of a resource: at most 50, with keys of 1 to 128 and values of 0 to 256 characters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(transparent)]
#[schema(value_type = BTreeMap<String, String>)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// The labels as pairs of key and value, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// The value of the label `key`, if there is one.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Whether there are no labels.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl TryFrom<BTreeMap<String, String>> for Labels {
    type Error = String;

    fn try_from(map: BTreeMap<String, String>) -> Result<Self, String> {
        if map.len() > 50 {
            return Err(format!("at most 50 labels, got {}", map.len()));
        }
        for (key, value) in &map {
            if key.chars().chain(value.chars()).any(char::is_control) {
                return Err(format!("the label {key:?} has a control character, such as a line break"));
            }
            let (k, v) = (key.chars().count(), value.chars().count());
            if k == 0 || k > 128 {
                return Err(format!("a label's key has 1 to 128 characters, got {k}"));
            }
            if v > 256 {
                return Err(format!("the value of label '{key}' has at most 256 characters, got {v}"));
            }
        }
        Ok(Self(map))
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        BTreeMap::<String, String>::deserialize(input)?.try_into().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ImageId;

    #[test]
    fn names_are_checked() {
        for good in ["a", "web", "web-0", "a1-b2"] {
            assert_eq!(good.parse::<Name>().expect("a name").as_str(), good);
        }
        for bad in ["", "0web", "Web", "we.b", "we_b", "-a", "é", "a b", &"a".repeat(56)] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
        assert!("debian-12.5_x".parse::<DottedName>().is_ok());
        assert_eq!("a0000000-0000-4000-8000-000000000000".parse::<Name>(), Err(NameError::LikeUuid));
    }

    #[test]
    fn a_reference_is_an_id_only_in_hyphenated_form() {
        let id = ImageId::generate();
        assert_eq!(id.to_string().parse::<Ref<ImageId>>(), Ok(Ref::Id(id)));
        let bare = id.uuid().simple().to_string();
        assert_eq!(bare.parse::<Ref<ImageId>>(), Ok(Ref::Name(bare.clone())));
    }

    #[test]
    fn labels_are_bounded() {
        let many: BTreeMap<_, _> = (0..51).map(|n| (format!("k{n}"), String::new())).collect();
        assert!(Labels::try_from(many).is_err());
        assert!(serde_json::from_str::<Labels>(r#"{"":"x"}"#).is_err());
        for bad in [r#"{"a":"x\u0000"}"#, r#"{"a\n":""}"#] {
            assert!(serde_json::from_str::<Labels>(bad).is_err(), "{bad}");
        }
        assert!(serde_json::from_str::<Labels>(r#"{"tier":"web"}"#).is_ok());
    }
}
