//! Ids as newtypes over UUIDv7, so that the id of one kind of thing cannot stand where another is meant.
//!
//! [`crate::ids!`] makes them. The three that placement and the membership record need are made here; the API crate makes
//! its own with the same macro. Ids are for naming and reading. Nothing is ever ordered by them.

/// Makes one id type per line. Attributes in the brackets go on every type.
///
/// A crate that uses it depends on `serde` and `uuid`.
#[macro_export]
macro_rules! ids {
    (@one [$($attributes:tt)*] $(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
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
            type Err = uuid::Error;

            /// Reads the hyphenated form only, because 32 bare hex digits could be a name that a user chose.
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                if text.len() == 36 { uuid::Uuid::parse_str(text).map(Self) } else { uuid::Uuid::parse_str("").map(Self) }
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
