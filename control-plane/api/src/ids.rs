//! Ids: one type per kind of resource, all UUIDv7. Nothing is ordered by them. Those of nodes, stores and the cluster
//! come from `storage-core`, which places objects by them.

pub use storage_core::{ClusterId, NodeId, StoreId};

storage_core::ids! {
    [
        #[derive(utoipa::ToSchema)]
        #[schema(value_type = String, format = Uuid)]
    ]
    /// Id of an image: a name with numbered versions.
    ImageId;
    /// Id of a version: one immutable state of a disk.
    VersionId;
    /// Id of a deployment: instances that were started together.
    DeploymentId;
    /// Id of an instance: one virtual machine, or one disk file with runtime `none`.
    InstanceId;
    /// Id of a disk, which an instance writes to.
    DiskId;
    /// Id of a network that cards of instances are in.
    NetworkId;
    /// Id of a security group: rules for what may reach a card and what may leave it.
    SecurityGroupId;
    /// Id of a snapshot of one or more instances.
    SnapshotId;
    /// Id of an operation: the record of work that outlives its request.
    OperationId;
    /// Id of a commit, which makes a version of what was written to a disk. A commit is published at most once.
    CommitId;
    /// Id of an agent process. Each start has its own.
    RunId;
    /// Id of an upload. While it lives, the sweep keeps its objects, which no version names yet.
    UploadId;
    /// Id of a token. It is no secret.
    TokenId;
    /// Id of a session of a browser. It is no secret.
    SessionId;
    /// Id of a link that signs a browser in once. It is no secret.
    SignInLinkId;
    /// Id of a request, which is in the logs of all daemons it reached.
    RequestId;
}
