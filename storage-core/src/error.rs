use crate::ObjectName;

/// Bytes from a disk or a peer that are not what they say they are. Nothing of them is used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Corrupt {
    /// They end too early.
    #[error("{what} needs {needed} bytes, {got} are there")]
    Short {
        /// Which structure.
        what: &'static str,
        /// Bytes it needs.
        needed: u64,
        /// Bytes there are.
        got: u64,
    },
    /// They go on after their end.
    #[error("{what} has {bytes} bytes after its end")]
    Trailing {
        /// Which structure.
        what: &'static str,
        /// Surplus bytes.
        bytes: u64,
    },
    /// They begin with something else.
    #[error("{what} does not begin with its magic number")]
    Magic {
        /// Which structure.
        what: &'static str,
    },
    /// Their checksum does not match.
    #[error("checksum of {what} is {got:08x}, its bytes give {expected:08x}")]
    Checksum {
        /// Which structure.
        what: &'static str,
        /// Computed from the bytes.
        expected: u32,
        /// Found beside them.
        got: u32,
    },
    /// A field holds what no release writes.
    #[error("{what}: {got} is no {field}")]
    Field {
        /// Which structure.
        what: &'static str,
        /// Which field.
        field: &'static str,
        /// What it holds.
        got: u64,
    },
    /// A newer release wrote this and said that older ones must not guess.
    #[error("{what} uses {feature} {got}, which this release does not know")]
    Unsupported {
        /// Which structure.
        what: &'static str,
        /// Which kind of feature.
        feature: &'static str,
        /// Which one.
        got: u64,
    },
    /// The stored bytes do not decode.
    #[error("the stored bytes of {name} do not decode")]
    Encoding {
        /// The object they should be.
        name: ObjectName,
    },
    /// The bytes have another name.
    #[error("the bytes of {expected} have the name {got}")]
    Name {
        /// What was asked for.
        expected: ObjectName,
        /// What the bytes hash to.
        got: ObjectName,
    },
}
