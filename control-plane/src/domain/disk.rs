//! Disks: which node may write one, and which version the next one builds on.

use muster_api::{CommitId, NodeId, VersionId, node_protocol::StagedCommit};

/// What the database knows of a disk when a commit of it is staged.
#[derive(Clone, Debug)]
pub struct Place {
    /// The node that its instance is on.
    pub node: Option<NodeId>,
    /// Its generation: raised before another node may write the disk (I8).
    pub generation: u64,
    /// Its newest published version. The commit must build on it.
    pub head: VersionId,
    /// Its commit in the present attempt of the snapshot.
    pub commit: CommitId,
    /// Number of the snapshot's present attempt, from 1.
    pub attempt: u64,
}

/// Why a commit is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It belongs to an older attempt. Its blocks are in the next commit.
    #[error("the commit belongs to an attempt that was given up")]
    Abandoned,
    /// The instance is not on that node.
    #[error("the disk is not assigned to this node")]
    NotYours,
    /// It was written under another generation (I8).
    #[error("the disk is at generation {current}, the commit at {got}")]
    Generation {
        /// The generation that the disk has.
        current: u64,
        /// The generation that the commit was made under.
        got: u64,
    },
    /// It does not build on the newest version.
    #[error("the disk's newest version is {current}, the commit builds on {got}")]
    Head {
        /// The version that the commit should build on.
        current: VersionId,
        /// The version that it builds on.
        got: VersionId,
    },
}

impl Place {
    /// Refuses a commit of this disk, unless the node has the disk and the commit has its generation, attempt and head.
    pub fn takes(&self, node: NodeId, commit: CommitId, staged: &StagedCommit) -> Result<(), Refusal> {
        if self.node != Some(node) {
            return Err(Refusal::NotYours);
        }
        if staged.generation != self.generation {
            return Err(Refusal::Generation { current: self.generation, got: staged.generation });
        }
        if commit != self.commit || u64::from(staged.attempt) != self.attempt {
            return Err(Refusal::Abandoned);
        }
        if staged.base != self.head {
            return Err(Refusal::Head { current: self.head, got: staged.base });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use muster_api::{DiskId, SnapshotId, UploadId, node_protocol::VersionRoot};

    use super::*;

    #[test]
    fn only_a_commit_of_the_present_node_generation_attempt_and_head_is_taken() {
        let (node, commit, head) = (NodeId::generate(), CommitId::generate(), VersionId::generate());
        let place = Place { node: Some(node), generation: 3, head, commit, attempt: 2 };
        let staged = StagedCommit {
            snapshot: SnapshotId::generate(),
            attempt: 2,
            disk: DiskId::generate(),
            generation: 3,
            base: head,
            upload: UploadId::generate(),
            root: VersionRoot { descriptor: String::new(), root_page: None, commit: None },
            dirty_bytes: 0,
            stored_bytes: 0,
        };
        assert_eq!(place.takes(node, commit, &staged), Ok(()));
        assert_eq!(place.takes(NodeId::generate(), commit, &staged), Err(Refusal::NotYours));
        assert_eq!(place.takes(node, CommitId::generate(), &staged), Err(Refusal::Abandoned));
        let old = StagedCommit { attempt: 1, ..staged.clone() };
        assert_eq!(place.takes(node, commit, &old), Err(Refusal::Abandoned));
        let stale = StagedCommit { generation: 2, ..staged.clone() };
        assert_eq!(place.takes(node, commit, &stale), Err(Refusal::Generation { current: 3, got: 2 }));
        let other = StagedCommit { base: VersionId::generate(), ..staged };
        assert!(matches!(place.takes(node, commit, &other), Err(Refusal::Head { .. })));
    }
}
