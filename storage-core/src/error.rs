use crate::ObjectName;

/// Bytes from a disk or a peer that are not what they should be. Nothing of them is used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Corrupt {
    /// The bytes end too early.
    #[error("{what} needs {needed} bytes, {got} are there")]
    Short {
        /// The structure that was read.
        what: &'static str,
        /// Number of bytes it needs.
        needed: u64,
        /// Number of bytes that are there.
        got: u64,
    },
    /// Bytes follow after the end of the structure.
    #[error("{what} has {bytes} bytes after its end")]
    Trailing {
        /// The structure that was read.
        what: &'static str,
        /// Number of bytes after the end.
        bytes: u64,
    },
    /// The bytes begin with something else.
    #[error("{what} does not begin with its magic number")]
    Magic {
        /// The structure that was read.
        what: &'static str,
    },
    /// The checksum does not match the bytes.
    #[error("the checksum of {what} is {got:08x}, but its bytes give {expected:08x}")]
    Checksum {
        /// The structure that was read.
        what: &'static str,
        /// The checksum computed from the bytes.
        expected: u32,
        /// The checksum found beside them.
        got: u32,
    },
    /// A field holds a value that no release writes.
    #[error("{what}: {got} is not a valid {field}")]
    Field {
        /// The structure that was read.
        what: &'static str,
        /// Name of the field, for people.
        field: &'static str,
        /// Value that was found in it.
        got: u64,
    },
    /// A newer release wrote this, in a way that older ones cannot read.
    #[error("{what} uses {feature} {got}, which this release does not know")]
    Unsupported {
        /// The structure that was read.
        what: &'static str,
        /// What this release does not know, for example `tag` or `entry flags`.
        feature: &'static str,
        /// The number of the feature.
        got: u64,
    },
    /// The stored bytes do not decode.
    #[error("the stored bytes of {name} do not decode")]
    Encoding {
        /// The object that the bytes should be.
        name: ObjectName,
    },
    /// The bytes hash to another name.
    #[error("the bytes of {expected} have the name {got}")]
    Name {
        /// The name that was asked for.
        expected: ObjectName,
        /// The name that the bytes hash to.
        got: ObjectName,
    },
}
