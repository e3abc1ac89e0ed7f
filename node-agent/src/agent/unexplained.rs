//! What lies on this node and nothing explains: the controller adds it up over all nodes, and a healthy cluster has none.
//!
//! Objects of the pool are the sweep's to find (`sweep`). Of disks, two kinds count: those that the desired state does not
//! name, by what their deltas hold, and what lies in `DATA/disks` and belongs to no disk at all. The latter counts only when it
//! was there in two looks, because a disk is just being made or removed for a moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::Mutex,
    time::Duration,
};

use muster_api::{
    DiskId,
    node_protocol::{Assignment, InstanceReport, LeftDisk, Unexplained},
};
use storage_core::lock;
use tokio::{sync::watch, time::sleep};
use tracing::warn;

use super::loops::{Loops, Passed};
use crate::latest::Latest as _;

/// Time between two looks into the folder of disks.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// What was found in the folder of disks.
#[derive(Default)]
pub(super) struct Strays(Mutex<Looked>);

#[derive(Default)]
struct Looked {
    /// What belongs to no disk, with its bytes, as of the last look; `None` if that failed or there was none.
    last: Option<BTreeMap<String, u64>>,
    /// Bytes of what was there in the last two looks; `None` before the second one.
    bytes: Option<u64>,
}

impl Strays {
    /// Looks now and then, one look at a time, once the instances are known. A look may take as long as the disk does: nothing
    /// waits for it.
    async fn follow<F>(&self, mut passed: watch::Receiver<Passed>, look: impl Fn(BTreeSet<DiskId>) -> F)
    where
        F: Future<Output = io::Result<BTreeMap<String, u64>>>,
    {
        loop {
            if passed.wait_for(|passed| passed.desired.is_some()).await.is_err() {
                // The agent ends.
                return std::future::pending().await;
            }
            let Passed { desired, instances } = passed.latest();
            let known = known_disks(desired.iter().flat_map(|desired| &desired.assignments), &instances);
            self.take(look(known).await);
            sleep(LOOK_EVERY).await;
        }
    }

    /// Takes what a look found. After one that failed, nothing is known until the next ones.
    fn take(&self, found: io::Result<BTreeMap<String, u64>>) {
        let mut looked = lock(&self.0);
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                warn!(%error, "the folder of disks cannot be looked through");
                *looked = Looked::default();
                return;
            }
        };
        let again = |last: &BTreeMap<String, u64>| {
            found.iter().filter(|(name, _)| last.contains_key(*name)).map(|(_, bytes)| bytes).sum()
        };
        looked.bytes = if found.is_empty() { Some(0) } else { looked.last.as_ref().map(again) };
        looked.last = Some(found);
    }

    fn bytes(&self) -> Option<u64> {
        lock(&self.0).bytes
    }
}

impl Loops {
    /// Looks into the folder of disks now and then.
    pub(super) async fn look_for_strays(&self) {
        let folder = self.config.data_dir.join("disks");
        let look = |known: BTreeSet<DiskId>| {
            let folder = folder.clone();
            let looked = tokio::task::spawn_blocking(move || strays(&folder, &known));
            async move { looked.await.map_err(io::Error::other).flatten() }
        };
        self.strays.follow(self.passed.subscribe(), look).await;
    }

    /// What this node holds that nothing explains, as far as it looked.
    pub(super) fn unexplained(&self) -> Unexplained {
        let known = self.known.latest();
        let passed = self.passed.latest();
        let unnamed = unnamed_bytes(&passed, known.fresh);
        Unexplained {
            objects_bytes: self.sweeper.unexplained_bytes(known.desired.incarnation),
            disks_bytes: unnamed.zip(self.strays.bytes()).map(|(unnamed, strays)| unnamed.saturating_add(strays)),
        }
    }
}

/// Bytes of the deltas of disks that the desired state does not name. `None` before the first pass over a desired state that
/// came from the controller.
fn unnamed_bytes(passed: &Passed, fresh: bool) -> Option<u64> {
    let desired = passed.desired.as_ref().filter(|_| fresh)?;
    let of: BTreeMap<_, &Assignment> = desired.assignments.iter().map(|of| (of.instance, of)).collect();
    let unnamed = passed.instances.iter().flat_map(|report| {
        let of = of.get(&report.instance).copied();
        report.disks.iter().filter(move |disk| {
            let left = LeftDisk { disk: disk.disk, version: disk.version };
            // All disks of an instance that is being deleted are being removed.
            let is_named = |of: &Assignment| {
                of.disks.is_empty() || of.disks.iter().any(|named| named.disk == disk.disk) || of.left.contains(&left)
            };
            !of.is_some_and(is_named)
        })
    });
    Some(unnamed.map(|disk| disk.local_bytes).fold(0, u64::saturating_add))
}

/// The disks that are here or are to be.
fn known_disks<'a>(assignments: impl Iterator<Item = &'a Assignment>, reports: &[InstanceReport]) -> BTreeSet<DiskId> {
    let of = |of: &'a Assignment| of.disks.iter().map(|disk| disk.disk).chain(of.left.iter().map(|left| left.disk));
    assignments.flat_map(of).chain(reports.iter().flat_map(|report| &report.disks).map(|disk| disk.disk)).collect()
}

/// What lies in the folder of disks and belongs to none of these, with the bytes that it takes.
fn strays(folder: &Path, known: &BTreeSet<DiskId>) -> io::Result<BTreeMap<String, u64>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let id = name.strip_suffix(".raw").unwrap_or(&name).parse::<DiskId>();
        if id.is_ok_and(|id| known.contains(&id)) {
            continue;
        }
        // The path of a disk may be a mount that nobody serves. Nothing is asked of it (`fuse::first_reads`).
        let bytes = if name.ends_with(".raw") { 0 } else { allocated(&entry.path())? };
        found.insert(name, bytes);
    }
    Ok(found)
}

/// Bytes that a file or folder takes on disk, with everything in it. What goes meanwhile takes none.
fn allocated(path: &Path) -> io::Result<u64> {
    let gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    let about = match std::fs::symlink_metadata(path) {
        Ok(about) => about,
        Err(error) if gone(&error) => return Ok(0),
        Err(error) => return Err(error),
    };
    let mut bytes = about.blocks() * 512;
    if about.is_dir() {
        let entries = match std::fs::read_dir(path) {
            Ok(entries) => entries,
            Err(error) if gone(&error) => return Ok(0),
            Err(error) => return Err(error),
        };
        for entry in entries {
            bytes += allocated(&entry?.path())?;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use muster_api::node_protocol::Incarnation;
    use serde_json::{Value, json};
    use tokio::time::Instant;

    use super::*;
    use crate::desired::Known;

    #[test]
    fn disks_count_that_the_desired_state_does_not_name() {
        let instance = |n: u32| format!("00000000-0000-0000-0000-0000000000{n:02}");
        let disk = |n: u32| {
            json!({ "disk": instance(n), "path": "/x.raw", "version": instance(99), "unsaved_bytes": 0, "fetched_bytes": 0,
                "local_bytes": 1 << n })
        };
        let assignment = |n: u32, disks: Value, left: Value| {
            json!({ "instance": instance(n), "name": "web.0", "host_name": "web-0", "project": "default", "generation": 1,
                "wanted": "running", "boot": 1, "stop_force": false, "stop_timeout_s": 30, "cpus": 1, "memory_bytes": 1,
                "runtime": "none", "ready": { "probe": "running" }, "disks": disks, "left": left })
        };
        let report = |n: u32, disks: Vec<Value>| json!({ "instance": instance(n), "generation": 1, "boot": 1, "state": "running", "disks": disks });
        let named = |n: u32| json!([{ "disk": instance(n), "size_bytes": 4096, "version": instance(99) }]);
        let left = json!([{ "disk": instance(11), "version": instance(99) }]);
        let mut known = Known::nothing(Incarnation { number: 1, random: 1 });
        known.desired.assignments =
            serde_json::from_value(json!([assignment(1, named(10), left), assignment(2, json!([]), json!([]))]))
                .expect("assignments");
        let reports = [
            // Named, left, and not known to the controller.
            report(1, vec![disk(10), disk(11), disk(12)]),
            // It is being deleted, and with it all disks that it has.
            report(2, vec![disk(13)]),
            // No assignment has it.
            report(3, vec![disk(14)]),
        ];
        let instances: Vec<InstanceReport> = serde_json::from_value(json!(reports)).expect("reports");
        let passed = Passed { desired: Some(Arc::new(known.desired)), instances: Arc::new(instances) };
        assert_eq!(unnamed_bytes(&passed, true), Some((1 << 12) + (1 << 14)));
        assert_eq!(unnamed_bytes(&passed, false), None, "the controller may know more than the stored state");
        assert_eq!(unnamed_bytes(&Passed::default(), true), None);
    }

    #[test]
    fn what_belongs_to_no_disk_counts_once_it_was_there_twice() {
        let dir = tempfile::tempdir().expect("a folder");
        let (known, stray) = (DiskId::generate(), DiskId::generate());
        for id in [known, stray] {
            let folder = dir.path().join(id.to_string());
            std::fs::create_dir(&folder).expect("a folder");
            std::fs::write(folder.join("0.delta"), vec![1; 100_000]).expect("writes");
            std::fs::write(dir.path().join(format!("{id}.raw")), b"").expect("writes");
        }
        std::fs::write(dir.path().join("notes"), vec![1; 10_000]).expect("writes");
        let all = [known].into();
        let found = strays(dir.path(), &all).expect("looks");
        assert_eq!(found.len(), 3, "{found:?}");
        let folder = found[&stray.to_string()];
        assert!((100_000..200_000).contains(&folder) && found["notes"] >= 10_000, "{found:?}");
        let looked = Strays::default();
        looked.take(Ok(found.clone()));
        assert_eq!(looked.bytes(), None);
        let mut second = found;
        second.remove("notes");
        looked.take(Ok(second.clone()));
        assert_eq!(looked.bytes(), Some(folder));
        looked.take(Ok(BTreeMap::new()));
        assert_eq!(looked.bytes(), Some(0));
        looked.take(Err(io::Error::other("no disk")));
        assert_eq!(looked.bytes(), None, "what was found before may be gone, or be more");
        looked.take(Ok(second));
        assert_eq!(looked.bytes(), None, "it was there once since");
        let healthy = Strays::default();
        healthy.take(Ok(BTreeMap::new()));
        assert_eq!(healthy.bytes(), Some(0), "nothing is there, so nothing has to be there twice");
    }

    #[tokio::test(start_paused = true)]
    async fn looks_come_one_at_a_time_with_time_between_them_also_after_one_that_failed_or_took_long() {
        let strays = Strays::default();
        let (tell, passed) = watch::channel(Passed::default());
        let (begin, looks) = (Instant::now(), Mutex::new(Vec::new()));
        let look = |_known| {
            let at = {
                let mut looks = lock(&looks);
                looks.push(begin.elapsed().as_secs());
                looks.len()
            };
            async move {
                match at {
                    1 => Err(io::Error::other("no disk")),
                    2 => {
                        sleep(LOOK_EVERY * 10).await;
                        Ok(BTreeMap::new())
                    }
                    _ => std::future::pending().await,
                }
            }
        };
        let follow = strays.follow(passed, look);
        tokio::pin!(follow);
        let mut until = async |s: u64| {
            tokio::select! {
                () = &mut follow => unreachable!("it never ends"),
                () = tokio::time::sleep_until(begin + Duration::from_secs(s)) => {}
            }
        };
        until(10).await;
        assert!(lock(&looks).is_empty(), "the instances are not known yet");
        let known = Known::nothing(Incarnation { number: 1, random: 1 });
        tell.send_replace(Passed { desired: Some(Arc::new(known.desired)), ..Passed::default() });
        until(500).await;
        assert_eq!((lock(&looks).clone(), strays.bytes()), (vec![10, 70], None));
        until(10_000).await;
        assert_eq!((lock(&looks).clone(), strays.bytes()), (vec![10, 70, 730], Some(0)));
    }
}
