//! Commits in the background: as fast as the node allows, never faster, and what was stored counts when one is given up.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    fs::File,
    os::unix::fs::FileExt,
    time::{Duration, Instant},
};

use super::world::*;
use muster_agent::mirror::DiskError;
use storage_core::ChunkSize;

/// Random bytes that a slow commit stores, three batches of them.
const BYTES: usize = 12 << 20;
const BYTES_PER_S: u64 = 8 << 20;

/// Goal: the pace holds, also over commits that were given up. A slow commit of three batches of 4 MiB is dropped after a moment,
/// and the next one stores only the rest. Then all is stored, and a third commit of the same bytes takes no time that the pace
/// asks for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_commit_keeps_its_pace_and_goes_on_where_the_last_one_was_given_up() {
    let world = World::with(|config| config.background_bytes_per_s = BYTES_PER_S).await;
    let want = import(&*world.store, &vec![0; 16 << 20], ChunkSize::DEFAULT);
    let path = world.ensure(&want).await.path;
    let bytes = Rng(7).bytes(BYTES);
    let (file, written) = (File::options().write(true).open(&path).unwrap(), bytes.clone());
    blocking(move || file.write_all_at(&written, 0).unwrap()).await;
    let (commit, _) = world.cut(&[&want]).await.remove(0);
    let stored = || world.store.usage().objects;
    let before = stored();
    let begun = Instant::now();
    let given_up = tokio::time::timeout(Duration::from_millis(1), world.disks.save_slowly(want.disk, commit, 1)).await;
    assert!(given_up.is_err(), "nothing ends in a millisecond");
    let saved = world.disks.save_slowly(want.disk, commit, 1).await.unwrap();
    // Each batch but the last one waits for the time of those before.
    let least = Duration::from_secs((BYTES as u64 - (4 << 20)) / BYTES_PER_S);
    assert!(begun.elapsed() >= least, "{:?}", begun.elapsed());
    assert!(stored() > before);
    assert_eq!(export(&*world.store, &saved.root)[..BYTES], bytes);
    let again = world.disks.save_slowly(want.disk, commit, 1).await.unwrap();
    assert_eq!((again.root, again.dirty_bytes), (saved.root, saved.dirty_bytes));
    let unknown = world.disks.save_slowly(want.disk, muster_api::CommitId::generate(), 1).await;
    assert!(matches!(unknown, Err(DiskError::NoCommit { .. })), "{unknown:?}");
}
