//! What a cut asks of this node's disks.

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use muster_api::{
    CommitId, DiskId,
    node_protocol::{CutDisk, CutKey, CutMember},
};

use crate::mirror::{DiskError, Disks, Saved};

/// The disks of this node, as far as cuts go. [`Disks`] are the real ones; tests have others.
pub trait DiskCuts: Send + Sync {
    /// Does everything that takes time, before writes are held.
    fn prepare(&self, key: CutKey, disks: Vec<CutDisk>) -> BoxFuture<'_, Result<(), DiskError>>;
    /// Holds writes, for at most `max_pause`.
    fn hold(&self, key: CutKey, max_pause: Duration) -> BoxFuture<'_, Result<(), DiskError>>;
    /// Sends new writes to the next epoch and lets them go. Refused when the hold has ended. A repeat gives the same
    /// answer.
    fn flip(&self, key: CutKey) -> BoxFuture<'_, Result<Vec<CutMember>, DiskError>>;
    /// Lets writes go and forgets the cut.
    fn abort(&self, key: CutKey) -> BoxFuture<'_, Result<(), DiskError>>;
    /// Makes the objects of a frozen epoch durable. Can be repeated.
    fn save(&self, disk: DiskId, commit: CommitId, round: u64) -> BoxFuture<'_, Result<Saved, DiskError>>;
    /// As [`Self::save`], slowly, because nobody waits for it. Whoever asked may drop it.
    fn save_slowly(&self, disk: DiskId, commit: CommitId, round: u64) -> BoxFuture<'_, Result<Saved, DiskError>> {
        self.save(disk, commit, round)
    }
    /// Gives the blocks of a commit that will never be published to the next commit.
    fn abandon(&self, disk: DiskId, commit: CommitId) -> BoxFuture<'_, Result<(), DiskError>>;
    /// Commits whose frozen epoch is neither folded into a version nor abandoned.
    fn commits(&self) -> Vec<(DiskId, CommitId)>;
}

impl DiskCuts for Arc<Disks> {
    fn prepare(&self, key: CutKey, disks: Vec<CutDisk>) -> BoxFuture<'_, Result<(), DiskError>> {
        Box::pin(async move { Disks::prepare(self, key, &disks).await })
    }

    fn hold(&self, key: CutKey, max_pause: Duration) -> BoxFuture<'_, Result<(), DiskError>> {
        Box::pin(Disks::hold(self, key, max_pause))
    }

    fn flip(&self, key: CutKey) -> BoxFuture<'_, Result<Vec<CutMember>, DiskError>> {
        Box::pin(Disks::flip(self, key))
    }

    fn abort(&self, key: CutKey) -> BoxFuture<'_, Result<(), DiskError>> {
        Box::pin(Disks::abort(self, key))
    }

    fn save(&self, disk: DiskId, commit: CommitId, round: u64) -> BoxFuture<'_, Result<Saved, DiskError>> {
        Box::pin(Disks::save(self, disk, commit, round))
    }

    fn save_slowly(&self, disk: DiskId, commit: CommitId, round: u64) -> BoxFuture<'_, Result<Saved, DiskError>> {
        Box::pin(Disks::save_slowly(self, disk, commit, round))
    }

    fn abandon(&self, disk: DiskId, commit: CommitId) -> BoxFuture<'_, Result<(), DiskError>> {
        Box::pin(Disks::abandon(self, disk, commit))
    }

    fn commits(&self) -> Vec<(DiskId, CommitId)> {
        Disks::commits(self)
    }
}
