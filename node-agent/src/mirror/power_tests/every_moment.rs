//! A few steps, with the power cut at every single moment of them: commits of packs, and the folds after them. (The other tests
//! here do many steps, and cut the power at some of their moments.)

use super::*;

/// Stored bytes of such a commit at most. Whole chunks would be several times as much.
const PACKED_BYTES_MAX: u64 = 100_000;

impl Scene {
    /// Cuts the disk, stores the commit and publishes it. The node folds what was published away.
    async fn publish(&self, disks: &Arc<Disks>) {
        let (want, commit) = (self.wanted(), CommitId::generate());
        let key = CutKey::new(SnapshotId::generate(), 1);
        let cut = CutDisk { instance: want.instance, disk: want.disk, generation: want.generation, commit };
        disks.prepare(key, &[cut]).await.expect("prepares");
        disks.hold(key, Duration::from_secs(20)).await.expect("holds");
        disks.flip(key).await.expect("flips");
        let saved = disks.save(want.disk, commit, 1).await.expect("saves");
        assert!(saved.stored_bytes < PACKED_BYTES_MAX, "these are packs: {} bytes", saved.stored_bytes);
        let want = DiskWant { version: VersionId::generate(), root: saved.root, ..want };
        self.note(Note::Published(Box::new(want.clone())));
        disks.unmounted(&want).await.expect("follows");
    }
}

#[test]
fn commits_of_packs_and_their_folds_survive_a_power_cut_at_every_moment() {
    let scene = Arc::new(Scene::new());
    runtime().block_on(async {
        let disks = scene.open().await;
        let disk = disks.unmounted(&scene.want).await.expect("makes it");
        for first in [1, 11] {
            // Parts of blocks of three chunks.
            for (n, at) in (first..).zip([3, 200, 420]) {
                scene.write(&disk, at..at + 9, n, false).await.expect("writes");
            }
            scene.flush(&disk).await.expect("flushes");
            scene.publish(&disks).await;
        }
        let moments = scene.recorder.moments();
        for moment in 0..=moments {
            scene.check_power_cut(moment, moment as u64 * 7, moment % 10 == 0).await;
        }
        eprintln!("the power was cut at each of {moments} moments");
    });
}
