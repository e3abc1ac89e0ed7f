//! Enums that are sent as words and accept words of other releases.

/// Defines an enum whose cases are words on the wire and in the database. `| "old"` is a word that older releases sent
/// for the same case. Any other word is read as `Unknown`, which keeps the word, so that it can be shown and passed on
/// unchanged.
macro_rules! words {
    ($(#[$doc:meta])* pub enum $name:ident { $($(#[$says:meta])* $case:ident = $word:literal $(| $old:literal)*,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(from = "String", into = "String")]
        pub enum $name {
            $($(#[$says])* $case,)*
            /// A word this program does not know, as it was received.
            Unknown(String),
        }

        impl $name {
            /// All cases that have a word of their own.
            pub const KNOWN: &[Self] = &[$(Self::$case),*];

            /// The word on the wire and in the database.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self { $(Self::$case => $word,)* Self::Unknown(word) => word }
            }
        }

        impl From<String> for $name {
            fn from(word: String) -> Self {
                match word.as_str() { $($word $(| $old)* => Self::$case,)* _ => Self::Unknown(word) }
            }
        }

        impl std::str::FromStr for $name {
            type Err = std::convert::Infallible;

            fn from_str(word: &str) -> Result<Self, Self::Err> {
                Ok(Self::from(word.to_owned()))
            }
        }

        impl From<$name> for String {
            fn from(word: $name) -> Self {
                match word { $name::Unknown(word) => word, known => known.as_str().to_owned() }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}
pub(crate) use words;
