//! Steps that break nothing: what users and programs do.

use std::{future::Future, pin::Pin};

use muster_api::operation::Operation;
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    files,
    model::{Disk, Image, Told, Version},
    ops::{Op, Place, Random},
    world::World,
    writer::Writer,
};

/// Most disks; with more, a deployment is deleted instead of one made.
const DISKS_MAX: usize = 9;
/// Most images; with more, the oldest is deleted.
const IMAGES_MAX: usize = 4;
/// Most versions; with more, the oldest is deleted.
const VERSIONS_MAX: usize = 24;

impl World {
    /// Does one step. Boxed, because faults do steps as well.
    pub(super) fn take(&mut self, op: Op, mut random: Random) -> Pin<Box<dyn Future<Output = ()> + '_>> {
        Box::pin(async move {
            self.story.count(if op.is_fault() { "faults" } else { "operations" });
            if op.is_fault() {
                return self.fault(op, random).await;
            }
            match op {
                Op::Write { .. } | Op::Discard { .. } | Op::WritePastTheEnd | Op::Read | Op::ReadWhole | Op::Flush => {
                    self.use_a_disk(&op, &mut random).await;
                }
                Op::Snapshot { while_writing } => self.snapshot(while_writing, &mut random).await,
                Op::Export { ranges } => self.export(ranges, &mut random).await,
                Op::Fork => self.fork(&mut random).await,
                Op::Deploy { larger } => {
                    let image = random.below(self.model.images.len());
                    let more = if larger { 1 + random.below(14 << 20) } else { 0 };
                    if self.has_room(&mut random).await {
                        self.deploy(&format!("d{}", self.step), image, 1 + random.below(2), more).await;
                    }
                }
                Op::ImportAgain => self.import_again(&mut random).await,
                Op::Stop => self.stop(&mut random).await,
                Op::Start => self.start_stopped(&mut random).await,
                Op::DeleteInstance => self.delete_instance(&mut random).await,
                Op::DeleteDeployment => self.delete_deployment(&mut random).await,
                Op::DeleteVersion => self.delete_version(&mut random).await,
                Op::DeleteSnapshot => self.delete_snapshot(&mut random).await,
                _ => unreachable!("{op} is a fault"),
            }
        })
    }

    /// Some steps while a daemon is down. What needs it may fail, and nothing may be wrong.
    pub(super) async fn go_on(&mut self, steps: usize, random: &mut Random) {
        for _ in 0..steps {
            let mut its_own = random.clone();
            random.next();
            let op = match its_own.below(8) {
                0 if self.controller_is_up && self.begun.is_empty() => Op::Snapshot { while_writing: false },
                _ => Op::draw_io(&mut its_own),
            };
            self.story.note(&format!("meanwhile {op}"));
            self.take(op, its_own).await;
        }
    }

    /// Disks that a program can use now.
    fn usable(&self) -> Vec<usize> {
        let usable = |disk: &Disk| {
            // What is written to a disk that is being cut may be in the snapshot or not.
            let is_cut = self.begun.iter().any(|(_, deployment, _)| *deployment == disk.deployment);
            self.cluster.agent_is_started(disk.node) && !is_cut
        };
        self.model.ready().into_iter().filter(|disk| usable(&self.model.disks[*disk])).collect()
    }

    async fn use_a_disk(&mut self, op: &Op, random: &mut Random) {
        let usable = self.usable();
        if usable.is_empty() {
            return self.story.note("no disk");
        }
        let index = *random.pick(&usable);
        if self.model.disks[index].content.is_doubtful() && !self.compare_whole(index).await {
            return;
        }
        let (calm, size) = (self.is_calm(), self.model.disks[index].content.bytes().len());
        let place = Place::draw(random, size);
        let disk = &mut self.model.disks[index];
        self.story.note(&format!("{} {}+{}", disk.name, place.at, place.length));
        match *op {
            Op::Write { zeros, flushed } => {
                let data = if zeros { vec![0; place.length] } else { random.bytes(place.length) };
                match files::write(&disk.path, place.at, data.clone(), flushed).await {
                    Ok(()) => disk.content.write(place.at, &data, flushed),
                    Err(error) if calm => panic!("a write to {} failed: {error}", disk.name),
                    Err(_) => disk.content.torn_write(place.at, &data),
                }
            }
            Op::Discard { punch } => {
                let zeros = vec![0; place.length];
                match files::discard(&disk.path, place, punch).await {
                    Ok(()) => disk.content.write(place.at, &zeros, false),
                    Err(error) if calm => panic!("a discard on {} failed: {error}", disk.name),
                    Err(_) => disk.content.torn_write(place.at, &zeros),
                }
            }
            Op::WritePastTheEnd => {
                let written = files::write(&disk.path, size + place.at, vec![1; 100], false).await;
                assert!(written.is_err(), "{} took a write past its end", disk.name);
                let resized = files::resize(&disk.path, place.at as u64).await;
                assert!(resized.is_err(), "the size of {} could be changed", disk.name);
            }
            Op::Flush => {
                files::flush(&disk.path).await.unwrap_or_else(|error| panic!("fsync of {} failed: {error}", disk.name));
                disk.content.flush();
            }
            Op::Read => self.compare_place(index, place).await,
            _ => drop(self.compare_whole(index).await),
        }
    }

    async fn snapshot(&mut self, while_writing: bool, random: &mut Random) {
        let deployments = self.model.deployments();
        if deployments.is_empty() {
            return self.story.note("nothing to cut");
        }
        let deployment = random.pick(&deployments).clone();
        let name = format!("s{}-{}", self.step, random.next() % 1000);
        self.story.note(&format!("{name} of {deployment}"));
        let mut written_to = self.usable();
        written_to.retain(|disk| self.model.disks[*disk].deployment == deployment);
        if !while_writing || written_to.is_empty() {
            match self.begin_snapshot(&name, &deployment).await {
                Some(operation) if self.is_calm() => self.end_snapshot(&name, &operation, None, false).await,
                // It may wait for what is down.
                Some(operation) => return self.begun.push((name, deployment, operation)),
                None => {}
            }
            return self.drop_old_versions().await;
        }
        let disk = *random.pick(&written_to);
        if self.model.disks[disk].content.is_doubtful() {
            self.compare_whole(disk).await;
        }
        let writer = self.writer(disk, random).await;
        let earliest = writer.acknowledged();
        let operation = self.begin_snapshot(&name, &deployment).await.expect("it is calm");
        self.ended(&operation).await;
        let written = writer.end().await;
        assert!(
            written.failed.is_none(),
            "a write failed while a snapshot was taken: {:?}",
            written.failed.map(|f| f.2)
        );
        self.end_snapshot(&name, &operation, Some((disk, earliest, &written)), false).await;
        for (at, data) in &written.acknowledged {
            self.model.disks[disk].content.write(*at, data, false);
        }
        self.story.note(&format!("{} writes to {}", written.acknowledged.len(), self.model.disks[disk].name));
        self.compare_whole(disk).await;
        self.drop_old_versions().await;
    }

    /// A program that writes to this disk.
    pub(super) async fn writer(&mut self, disk: usize, random: &mut Random) -> Writer {
        let disk = &self.model.disks[disk];
        Writer::start(&disk.path, disk.content.bytes().len(), random.clone()).await
    }

    async fn export(&mut self, ranges: bool, random: &mut Random) {
        if self.model.versions.is_empty() {
            return;
        }
        let version = random.pick(&self.model.versions).clone();
        let range = ranges.then(|| Place::draw(random, version.bytes.len()));
        self.story.note(&version.of);
        self.compare_version(&version, range).await;
    }

    /// Whether there is room for more disks. If not, a deployment is deleted.
    async fn has_room(&mut self, random: &mut Random) -> bool {
        if self.model.disks.len() < DISKS_MAX {
            return true;
        }
        self.delete_deployment(random).await;
        false
    }

    /// Uploads a file that the pool has already: to the same image, or to another one.
    async fn import_again(&mut self, random: &mut Random) {
        let index = random.below(self.model.images.len());
        let Image { name, chunk_bytes, bytes } = self.model.images[index].clone();
        self.story.note(&name);
        if random.one_in(2) {
            return self.import(index).await;
        }
        self.create_image(&format!("i{}", self.step), chunk_bytes, bytes).await;
        if self.model.images.len() > IMAGES_MAX {
            let image = self.model.images.remove(0);
            let path = format!("/v1/images/{}", image.name);
            let gone = self.ask(Method::DELETE, &path, Value::Null).await.expect("an answer");
            assert!((200..300).contains(&gone.status), "{gone:?}");
            self.model.versions.retain(|version| !version.is_of(&image));
        }
        self.drop_old_versions().await;
    }

    async fn fork(&mut self, random: &mut Random) {
        if self.model.snapshots.is_empty() || !self.has_room(random).await {
            return self.story.note("no fork");
        }
        let (snapshot, members) = random.pick(&self.model.snapshots).clone();
        let there: Vec<_> = members.values().filter_map(|id| self.model.version(id)).cloned().collect();
        self.story.note(&format!("of {snapshot} with {} of {} versions", there.len(), members.len()));
        let name = format!("d{}", self.step);
        let mut body = json!({ "name": name, "source": { "snapshot": snapshot }, "runtime": "none" });
        if there.len() < members.len() {
            let refused = self.ask(Method::POST, "/v1/deployments", body.clone()).await.expect("an answer");
            assert!((400..500).contains(&refused.status), "a fork of an incomplete snapshot: {refused:?}");
            body["source"]["allow_missing"] = json!(true);
        }
        if there.is_empty() {
            return;
        }
        self.done(Method::POST, "/v1/deployments", body).await;
        let mut left: Vec<Version> = there;
        let bytes: std::collections::BTreeMap<_, _> = left.iter().map(|v| (v.id.clone(), v.bytes.clone())).collect();
        let first = self.model.disks.len();
        self.take_members(&name, |member| {
            let id = member.disks[0].version.to_string();
            bytes.get(&id).unwrap_or_else(|| panic!("{id} is no version of {snapshot}")).to_vec()
        })
        .await;
        assert_eq!(self.model.disks.len() - first, left.len(), "a member for each version");
        left.clear();
    }

    async fn stop(&mut self, random: &mut Random) {
        let ready = self.model.ready();
        if ready.len() < 2 {
            return self.story.note("too few");
        }
        let index = *random.pick(&ready);
        if self.model.disks[index].content.is_doubtful() {
            self.compare_whole(index).await;
        }
        let name = self.model.disks[index].name.clone();
        self.story.note(&name);
        self.done(Method::POST, &format!("/v1/instances/{name}/stop"), json!({})).await;
        let disk = &mut self.model.disks[index];
        disk.told = Told::Stopped;
        // Its path may take a write or refuse it. A write that was taken must be there after the next start.
        let (place, data) = (Place::draw(random, disk.content.bytes().len()), random.bytes(5 << 16));
        let data = data[..place.length.min(data.len())].to_vec();
        if files::write(&disk.path, place.at, data.clone(), true).await.is_ok() {
            disk.content.write(place.at, &data, true);
        }
        self.settle("a stop").await;
    }

    async fn start_stopped(&mut self, random: &mut Random) {
        let all = 0..self.model.disks.len();
        let stopped: Vec<usize> = all.filter(|disk| self.model.disks[*disk].told == Told::Stopped).collect();
        if stopped.is_empty() {
            return self.story.note("none is stopped");
        }
        let index = *random.pick(&stopped);
        let name = self.model.disks[index].name.clone();
        self.story.note(&name);
        self.done(Method::POST, &format!("/v1/instances/{name}/start"), json!({})).await;
        self.model.disks[index].told = Told::Ready;
        self.settle("a start").await;
        self.compare_whole(index).await;
    }

    async fn delete_instance(&mut self, random: &mut Random) {
        if self.model.disks.len() < 4 {
            return self.story.note("too few");
        }
        let index = random.below(self.model.disks.len());
        self.delete_disk(index).await;
    }

    /// Deletes an instance, and checks that no path is left where programs could write.
    pub(super) async fn delete_disk(&mut self, index: usize) {
        let disk = self.model.disks.remove(index);
        self.story.note(&disk.name);
        self.done(Method::DELETE, &format!("/v1/instances/{}", disk.name), Value::Null).await;
        let left = std::fs::symlink_metadata(&disk.path);
        assert!(left.is_err(), "{} is deleted and its path is there: {left:?}", disk.name);
    }

    async fn delete_deployment(&mut self, random: &mut Random) {
        let deployments = self.model.deployments();
        if deployments.len() < 3 {
            return self.story.note("too few");
        }
        let name = random.pick(&deployments).clone();
        self.story.note(&name);
        self.done(Method::DELETE, &format!("/v1/deployments/{name}"), Value::Null).await;
        self.model.disks.retain(|disk| disk.deployment != name);
    }

    async fn delete_version(&mut self, random: &mut Random) {
        if self.model.versions.len() > 4 {
            let index = random.below(self.model.versions.len());
            self.unlink_version(index).await;
        }
    }

    async fn drop_old_versions(&mut self) {
        // An image that loses its last version gets its file again, which needs every node.
        if !self.is_calm() {
            return;
        }
        while self.model.versions.len() > VERSIONS_MAX {
            self.unlink_version(0).await;
        }
        let versions = &self.model.versions;
        let is_empty = |members: &std::collections::BTreeMap<String, String>| {
            !members.values().any(|id| versions.iter().any(|version| version.id == *id))
        };
        let empty = self.model.snapshots.iter().position(|(_, members)| is_empty(members));
        if let Some(index) = empty {
            let (name, _) = self.model.snapshots.remove(index);
            let _: Operation = self.must(Method::DELETE, &format!("/v1/snapshots/{name}"), Value::Null).await;
        }
    }

    /// Deletes a version.
    async fn unlink_version(&mut self, index: usize) {
        let version = self.model.versions.remove(index);
        self.story.note(&version.of);
        let path = format!("/v1/versions/{}", version.id);
        let gone = self.ask(Method::DELETE, &path, Value::Null).await.expect("an answer");
        assert_eq!(gone.status, 204, "{gone:?}");
        let gone = self.ask(Method::GET, &path, Value::Null).await.expect("an answer");
        assert_eq!(gone.status, 404, "{gone:?}");
        // Deployments start from the newest version of an image, so it needs one.
        let versions = &self.model.versions;
        let bare = self.model.images.iter().position(|image| !versions.iter().any(|version| version.is_of(image)));
        if let Some(image) = bare {
            self.import(image).await;
        }
    }

    async fn delete_snapshot(&mut self, random: &mut Random) {
        if self.model.snapshots.is_empty() {
            return self.story.note("there is none");
        }
        let index = random.below(self.model.snapshots.len());
        let (name, members) = self.model.snapshots.remove(index);
        self.story.note(&name);
        self.done(Method::DELETE, &format!("/v1/snapshots/{name}"), Value::Null).await;
        self.model.versions.retain(|version| !members.values().any(|id| *id == version.id));
    }
}
