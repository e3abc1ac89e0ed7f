//! Identifiers: one newtype per kind of thing, all UUIDv7 and only for reading, never for ordering.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
        #[serde(transparent)]
        #[schema(value_type = String, format = Uuid)]
        pub struct $name(Uuid);

        impl $name {
            /// A fresh id (UUIDv7).
            #[must_use]
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }

            /// The id as a plain UUID, for example for libvirt.
            #[must_use]
            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            /// Reads the hyphenated form only: 32 bare hex digits could be somebody's name.
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                if text.len() == 36 { Uuid::parse_str(text).map(Self) } else { Uuid::parse_str("").map(Self) }
            }
        }
    )*};
}

ids! {
    /// An image: a named, numbered line of versions.
    ImageId;
    /// A version: one immutable state of a disk.
    VersionId;
    /// A deployment: N instances started together.
    DeploymentId;
    /// An instance: one virtual machine, or one disk file with runtime `none`.
    InstanceId;
    /// A disk: what an instance writes to.
    DiskId;
    /// A snapshot of one or many instances.
    SnapshotId;
    /// A compute host with an agent.
    NodeId;
    /// The random id of a node's pool, made with the pool; placement hashes it.
    StoreId;
    /// The cluster: one controller database and its nodes.
    ClusterId;
    /// The record of slow work.
    OperationId;
    /// One turn of a disk's writes into a version; publishing is once per commit.
    CommitId;
    /// A live upload: what keeps the sweep away from objects not yet published.
    UploadId;
    /// An API token (its row, never its secret).
    TokenId;
    /// One request, for finding it in the logs of every daemon it touched.
    RequestId;
}
