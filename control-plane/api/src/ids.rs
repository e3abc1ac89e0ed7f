//! Identifiers: one newtype per kind of thing. Those of nodes, stores and the cluster come from `storage-core`, which
//! places objects by them.

pub use storage_core::{ClusterId, NodeId, StoreId};

storage_core::ids! {
    [
        #[derive(utoipa::ToSchema)]
        #[schema(value_type = String, format = Uuid)]
    ]
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
