//! Ids as newtypes over UUIDv7, so that the id of one kind of thing cannot stand where another is meant.
//!
//! [`crate::ids!`] makes them. The three that placement and the membership record need are made here; the API crate makes
//! its own with the same macro. Ids are for naming and reading. Nothing is ever ordered by them.

/// A text that should have been an id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected an id, a UUID with hyphens, got '{0}'")]
pub struct NotAnId(String);

impl NotAnId {
    /// Keeps the beginning of the text for the message.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.chars().take(64).collect())
    }
}

/// Makes one id type per line. Attributes in the brackets go on every type.
///
/// A crate that uses it depends on `serde` and `uuid`.
#[macro_export]
macro_rules! ids {
    (@one [$($attributes:tt)*] $(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
        $($attributes)*
        #[serde(transparent)]
        pub struct $name(uuid::Uuid);

        impl $name {
            /// A fresh id: a UUIDv7, which begins with the time.
            #[must_use]
            pub fn generate() -> Self {
                Self(uuid::Uuid::now_v7())
            }

            /// The id as a plain UUID, for example for libvirt.
            #[must_use]
            pub const fn uuid(self) -> uuid::Uuid {
                self.0
            }
        }

        impl From<uuid::Uuid> for $name {
            fn from(id: uuid::Uuid) -> Self {
                Self(id)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(&self.0.hyphenated(), f)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::ids::NotAnId;

            /// Reads the hyphenated form only, because 32 bare hex digits could be a name that a user chose.
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let read = uuid::Uuid::try_parse(text).ok().filter(|_| text.len() == 36);
                read.map(Self).ok_or_else(|| $crate::ids::NotAnId::new(text))
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(input)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
    ($attributes:tt $($(#[$doc:meta])* $name:ident;)*) => {
        $($crate::ids!(@one $attributes $(#[$doc])* $name);)*
    };
}

crate::ids! {
    [
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[cfg_attr(feature = "openapi", schema(value_type = String, format = Uuid))]
    ]
    /// A compute host with an agent.
    NodeId;
    /// The random id of a node's share of the pool. It is drawn when the share is made; placement hashes it.
    StoreId;
    /// The cluster: one controller database and its nodes.
    ClusterId;
}
