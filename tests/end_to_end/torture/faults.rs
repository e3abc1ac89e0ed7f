//! Steps that break something: killed daemons, flipped bits, copied folders, old databases.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use muster_api::{Reason, instance::Instance, operation::Operation};
use muster_tests::{binary, eventually};
use reqwest::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::{
    files,
    model::Told,
    ops::{Op, Random, Victim},
    world::World,
    writer::Written,
};

impl World {
    pub(super) async fn fault(&mut self, op: Op, mut random: Random) {
        match op {
            Op::Kill { victim, writing, steps_away } => self.kill(victim, writing, steps_away, &mut random).await,
            Op::EndAndStart { victim, steps_away } => self.end_and_start(victim, steps_away, &mut random).await,
            Op::KillDuringSnapshot { victim, after_ms } => {
                self.kill_during_snapshot(victim, Duration::from_millis(after_ms), &mut random).await;
            }
            Op::Flip { file, killed, bits } => self.flip(file, killed, bits, &mut random).await,
            Op::FlipOfController { file, bits } => self.flip_of_controller(file, bits, &mut random).await,
            Op::CopiedFolder { adopt } => self.copied_folder(adopt, &mut random).await,
            Op::OldDatabase { restore, steps_between } => self.old_database(restore, steps_between, &mut random).await,
            _ => unreachable!("{op} is no fault"),
        }
        self.look_at_all(&mut random).await;
    }

    fn disks_of(&self, agent: usize) -> Vec<usize> {
        (0..self.model.disks.len()).filter(|disk| self.model.disks[*disk].node == agent).collect()
    }

    /// Checks that no program can write to disks that nobody serves.
    async fn all_refuse(&self, agent: usize, why: &str) {
        for disk in self.disks_of(agent) {
            files::must_refuse(&self.model.disks[disk].path, why).await;
        }
    }

    /// Kills the processes of one agent, and answers which holder. Unflushed writes may be lost where the agent dies with it.
    fn strike(&mut self, victim: Victim, agent: usize, random: &mut Random) -> Option<Pid> {
        let holder_first = random.one_in(2);
        let mut holder = None;
        let mut kill_holder = |world: &Self| {
            let killed = world.cluster.holder(agent).expect("every agent has a holder");
            kill_process(killed, Signal::KILL).expect("kill the holder");
            holder = Some(killed);
        };
        if victim == Victim::Holder || (victim == Victim::Both && holder_first) {
            kill_holder(self);
        }
        match victim {
            Victim::Agent | Victim::Both => self.cluster.kill_agent(agent),
            Victim::Controller => {
                self.cluster.kill_controller();
                self.controller_is_up = false;
            }
            Victim::Holder => {}
        }
        if victim == Victim::Both {
            if !holder_first {
                kill_holder(self);
            }
            for disk in self.disks_of(agent) {
                self.model.disks[disk].content.doubt_unflushed();
            }
        }
        holder
    }

    /// Makes the cluster whole again after [`Self::strike`].
    async fn recover(&mut self, victim: Victim, agent: usize, killed_holder: Option<Pid>) {
        match victim {
            Victim::Agent | Victim::Both => self.start_agent(agent).await,
            Victim::Controller => {
                self.cluster.start_controller().await;
                self.controller_is_up = true;
            }
            // The agent gives the live maps to a new holder within two seconds; until then they are in one process only.
            Victim::Holder => {
                eventually("a new holder has the live maps", Duration::from_secs(20), async || {
                    let (held, of) = self.live_maps(agent);
                    let is_new = self.cluster.holder(agent).is_some_and(|holder| Some(holder) != killed_holder);
                    if is_new && held >= of { Ok(()) } else { Err(format!("new: {is_new}, {held} of {of}")) }
                })
                .await;
            }
        }
    }

    /// The number of live maps that the holder of an agent has, and the number that the agent has.
    fn live_maps(&self, agent: usize) -> (usize, usize) {
        let memfds_of = |process: Pid| {
            let open = fs::read_dir(format!("/proc/{}/fd", process.as_raw_nonzero())).into_iter().flatten().flatten();
            open.filter(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.to_string_lossy().contains("memfd"))).count()
        };
        (self.cluster.holder(agent).map_or(0, memfds_of), memfds_of(self.cluster.agent_process(agent)))
    }

    /// Waits for the end of snapshots that were begun while something was down.
    async fn end_begun_snapshots(&mut self) {
        for (name, _, operation) in std::mem::take(&mut self.begun) {
            self.end_snapshot(&name, &operation, None, true).await;
        }
    }

    /// Reads what was in doubt. What is there now is flushed, so that it stays.
    async fn resolve(&mut self, agent: usize) {
        for disk in self.disks_of(agent) {
            if self.model.disks[disk].told == Told::Ready && self.model.disks[disk].content.is_doubtful() {
                assert!(self.compare_whole(disk).await, "it is calm");
                let disk = &mut self.model.disks[disk];
                files::flush(&disk.path).await.unwrap_or_else(|error| panic!("fsync of {} failed: {error}", disk.name));
                disk.content.flush();
            }
        }
    }

    async fn kill(&mut self, victim: Victim, writing: bool, steps_away: usize, random: &mut Random) {
        let agent = random.below(self.cluster.agents.len());
        let name = self.cluster.agents[agent].name.clone();
        let mut written_to = self.model.ready();
        written_to.retain(|disk| self.model.disks[*disk].node == agent);
        self.story.note(&name);
        let writer = if writing && !written_to.is_empty() {
            let disk = *random.pick(&written_to);
            if self.model.disks[disk].content.is_doubtful() {
                self.compare_whole(disk).await;
            }
            Some((disk, self.writer(disk, random).await))
        } else {
            None
        };
        let holder = self.strike(victim, agent, random);
        if let Some((disk, writer)) = writer {
            if matches!(victim, Victim::Holder | Victim::Controller) {
                // Nobody who writes may notice it.
                let so_far = writer.acknowledged();
                eventually("the writer goes on", Duration::from_secs(20), async || {
                    let now = writer.acknowledged();
                    if now > so_far + 5 || writer.has_ended() { Ok(()) } else { Err(format!("{now} writes")) }
                })
                .await;
            }
            let written = writer.end().await;
            self.take_written(disk, written, victim);
        }
        if matches!(victim, Victim::Agent | Victim::Both) {
            self.all_refuse(agent, "whose agent was killed").await;
        }
        self.go_on(if victim == Victim::Holder { 0 } else { steps_away }, random).await;
        self.recover(victim, agent, holder).await;
        self.settle(&format!("{victim:?} of {name} was killed")).await;
        self.end_begun_snapshots().await;
        self.resolve(agent).await;
    }

    /// Takes what a writer did into the model.
    fn take_written(&mut self, disk: usize, written: Written, victim: Victim) {
        let disk = &mut self.model.disks[disk];
        self.story.note(&format!("{} writes to {}", written.acknowledged.len(), disk.name));
        for (at, data) in &written.acknowledged {
            disk.content.write(*at, data, false);
        }
        if let Some((at, data, error)) = written.failed {
            let served = matches!(victim, Victim::Holder | Victim::Controller);
            assert!(!served, "a write to {} failed when {victim:?} was killed: {error}", disk.name);
            disk.content.torn_write(at, &data);
        }
    }

    async fn end_and_start(&mut self, victim: Victim, steps_away: usize, random: &mut Random) {
        if victim == Victim::Controller {
            self.cluster.stop_controller().unwrap_or_else(|error| panic!("the controller did not end well: {error}"));
            self.controller_is_up = false;
            self.go_on(steps_away, random).await;
            self.recover(victim, 0, None).await;
            self.settle("an orderly end of the controller").await;
            return self.end_begun_snapshots().await;
        }
        let agent = random.below(self.cluster.agents.len());
        self.story.note(&self.cluster.agents[agent].name.clone());
        self.end_agent(agent).await;
        self.go_on(steps_away, random).await;
        self.start_agent(agent).await;
        self.settle("an orderly end of an agent").await;
        self.end_begun_snapshots().await;
        self.resolve(agent).await;
    }

    /// Ends an agent in order, which flushes its disks.
    async fn end_agent(&mut self, agent: usize) {
        self.cluster.stop_agent(agent).unwrap_or_else(|error| panic!("the agent did not end well: {error}"));
        for disk in self.disks_of(agent) {
            let content = &mut self.model.disks[disk].content;
            if !content.is_doubtful() {
                content.flush();
            }
        }
        self.all_refuse(agent, "whose agent has ended").await;
    }

    async fn kill_during_snapshot(&mut self, victim: Victim, after: Duration, random: &mut Random) {
        let agent = random.below(self.cluster.agents.len());
        let deployments = self.model.deployments();
        if deployments.is_empty() {
            return self.story.note("nothing to cut");
        }
        let deployment = random.pick(&deployments).clone();
        let name = format!("s{}", self.step);
        self.story.note(&format!("{name} of {deployment}, {} is struck", self.cluster.agents[agent].name));
        let operation = self.begin_snapshot(&name, &deployment).await.expect("it is calm");
        // At any moment of it: nothing waits for this time.
        tokio::time::sleep(after).await;
        let holder = self.strike(victim, agent, random);
        self.recover(victim, agent, holder).await;
        self.end_snapshot(&name, &operation, None, true).await;
        self.settle(&format!("{victim:?} was killed during a snapshot")).await;
        self.resolve(agent).await;
        for disk in self.model.ready() {
            self.compare_whole(disk).await;
        }
    }

    async fn flip(&mut self, kind: &str, killed: bool, bits: usize, random: &mut Random) {
        let agent = if kind.starts_with("pool/") { self.frail } else { random.below(self.cluster.agents.len()) };
        let dir = self.cluster.agents[agent].dir.clone();
        if killed {
            self.cluster.kill_agent(agent);
        } else {
            self.end_agent(agent).await;
        }
        let mut files = Vec::new();
        regular_files(&dir, &mut files);
        files.retain(|file| {
            let name = file.strip_prefix(&dir).expect("below it").display().to_string();
            name.contains(kind) && fs::metadata(file).is_ok_and(|meta| meta.len() > 0)
        });
        files.sort();
        if files.is_empty() {
            self.story.note("no such file");
            self.start_agent(agent).await;
            return self.settle("a kill").await;
        }
        let file = random.pick(&files).clone();
        let before = fs::read(&file).expect("read the file");
        self.story.note(&format!("{}: {}", file.display(), flip_bits(&file, &before, bits, random)));
        self.start_agent(agent).await;
        // Nobody looks at the disk of an instance that is stopped.
        let stopped = self.disk_of_file(&file).filter(|disk| self.model.disks[*disk].told == Told::Stopped);
        if let Some(disk) = stopped {
            self.model.disks[disk].told = Told::Ready;
            let path = format!("/v1/instances/{}/start", self.model.disks[disk].name);
            let _: Operation = self.must(Method::POST, &path, json!({})).await;
        }
        if let Err(wrong) = self.would_settle(agent).await {
            self.story.note(&wrong);
            self.tells_of(agent, &file, &before).await;
        }
        self.settle(&format!("bits of {} were flipped", file.display())).await;
        self.resolve(agent).await;
        for disk in self.disks_of(agent) {
            if self.model.disks[disk].told == Told::Ready {
                self.compare_whole(disk).await;
            }
        }
    }

    /// What is damaged and cannot be mended must be named. Then the operator puts the file back, or gives up the disk.
    async fn tells_of(&mut self, agent: usize, file: &Path, before: &[u8]) {
        let name = file.file_name().expect("a file").to_string_lossy().into_owned();
        if self.cluster.agent_has_ended(agent) {
            let log = fs::read_to_string(self.cluster.dir.join(format!("node-{agent}.log"))).expect("a log");
            let last: Vec<&str> = log.lines().rev().take(5).collect();
            assert!(
                last.iter().any(|line| line.contains(&name)),
                "the agent ended and does not name {name}: {last:#?}"
            );
            self.story.count("damaged files that an agent refused");
            self.cluster.kill_agent(agent);
            fs::write(file, before).expect("put the file back");
            return self.start_agent(agent).await;
        }
        // Else it is a disk, and it is the one whose file it is.
        let Some(disk) = self.disk_of_file(file) else { return };
        let path = format!("/v1/instances/{}", self.model.disks[disk].name);
        let instance: Instance = self.must(Method::GET, &path, Value::Null).await;
        let Instance { state, reason, detail, .. } = &instance;
        if *reason == Some(Reason::DiskFailed) {
            let detail = detail.clone().unwrap_or_default();
            assert!(detail.contains(&name), "it does not name {name}: {instance:#?}");
            self.story.note(&format!("{state:?}: {detail}"));
            self.story.count("damaged disks that were told as failed");
            files::must_refuse(&self.model.disks[disk].path, "which has failed").await;
            self.delete_disk(disk).await;
        }
    }

    async fn flip_of_controller(&mut self, name: &str, bits: usize, random: &mut Random) {
        self.cluster.kill_controller();
        let file = self.cluster.controller_dir().join(name);
        let before = fs::read(&file).expect("read the file");
        self.story.note(&flip_bits(&file, &before, bits, random));
        if let Err(log) = self.cluster.try_start_controller().await {
            let last: Vec<&str> = log.lines().rev().take(2).collect();
            assert!(last.iter().any(|line| line.contains(name)), "the controller does not name {name}: {last:#?}");
            self.story.count("damaged files that the controller refused");
            fs::write(&file, before).expect("put the file back");
            self.cluster.start_controller().await;
        }
        self.settle(&format!("bits of {name} of the controller were flipped")).await;
    }

    /// The disk that a file belongs to.
    fn disk_of_file(&self, file: &Path) -> Option<usize> {
        let file = file.to_string_lossy();
        self.model.disks.iter().position(|disk| file.contains(&format!("disks/{}/", disk.id)))
    }

    async fn copied_folder(&mut self, adopt: bool, random: &mut Random) {
        let agent = random.below(self.cluster.agents.len());
        let (dir, copy) =
            (self.cluster.agents[agent].dir.clone(), self.cluster.dir.join(format!("copy-{}", self.step)));
        copy_folder(&dir, &copy);
        let mut command = self.cluster.agent_beside(agent, &copy);
        if adopt {
            command.arg("--adopt");
        }
        let mut second = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("start it");
        let until = Instant::now() + Duration::from_secs(if adopt { 3 } else { 30 });
        let ended = loop {
            if let Some(status) = second.try_wait().expect("its status") {
                break Some(status);
            }
            if Instant::now() > until {
                break None;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        assert!(!mounts.contains(&copy.display().to_string()), "a copy serves disks beside its original");
        second.kill().expect("end it");
        let output = second.wait_with_output().expect("its output");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        if !adopt {
            assert!(ended.is_some_and(|status| !status.success()), "a copy was started beside its original: {text}");
            assert!(text.contains("--adopt"), "it does not say what to do: {text}");
        }
        fs::remove_dir_all(&copy).expect("remove the copy");
        self.settle("a copy was started").await;
    }

    async fn old_database(&mut self, restore: bool, steps_between: usize, random: &mut Random) {
        let backup = self.cluster.dir.join(format!("backup-{}.db", self.step));
        let data_dir = self.cluster.controller_dir();
        let controller = |arguments: &[&str], file: &Path| {
            let mut command = Command::new(binary("muster-controller"));
            command.args(arguments).arg("--data-dir").arg(&data_dir).arg(file).stdin(Stdio::null());
            let done = command.output().expect("run muster-controller");
            assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
        };
        controller(&["backup"], &backup);
        let (versions, snapshots) = (self.model.versions.clone(), self.model.snapshots.clone());
        self.go_on(steps_between, random).await;
        self.cluster.kill_controller();
        self.controller_is_up = false;
        if restore {
            controller(&["restore"], &backup);
        } else {
            for part in ["muster.db", "muster.db-wal", "muster.db-shm"] {
                let _absent = fs::remove_file(data_dir.join(part));
            }
            fs::copy(&backup, data_dir.join("muster.db")).expect("put the copy in place");
        }
        self.recover(Victim::Controller, 0, None).await;
        self.settle("the database was replaced by an older copy").await;
        // What was deleted since is back. Newer snapshots are not known; newer versions are where disks build on them.
        self.model.snapshots = snapshots;
        let newer = std::mem::replace(&mut self.model.versions, versions);
        for version in newer {
            let path = format!("/v1/versions/{}", version.id);
            let answer = self.ask(Method::GET, &path, Value::Null).await.expect("an answer");
            if answer.status == 200 && self.model.version(&version.id).is_none() {
                self.model.versions.push(version);
            }
        }
        for disk in self.model.ready() {
            self.compare_whole(disk).await;
        }
    }
}

/// All regular files below a folder, without disks that are served there.
fn regular_files(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a folder").flatten() {
        let (path, kind) = (entry.path(), entry.file_type().expect("its kind"));
        // The file under a mount is not asked: a mount whose process has died does not answer.
        if path.extension().is_some_and(|extension| extension == "raw") {
            continue;
        }
        if kind.is_dir() {
            regular_files(&path, into);
        } else if kind.is_file() {
            into.push(path);
        }
    }
}

fn copy_folder(from: &Path, to: &Path) {
    let mut files = Vec::new();
    regular_files(from, &mut files);
    for file in files {
        let target = to.join(file.strip_prefix(from).expect("below it"));
        fs::create_dir_all(target.parent().expect("a folder")).expect("make the folder");
        // The agent goes on, so a file may be gone by now.
        if let Err(error) = fs::copy(&file, target) {
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{}", file.display());
        }
    }
}

/// Flips some bits, and says which.
fn flip_bits(path: &Path, before: &[u8], bits: usize, random: &mut Random) -> String {
    // Not in holes and in what is written ahead: nobody reads that.
    let end = before.iter().rposition(|byte| *byte != 0).map_or(before.len(), |last| last + 1);
    let file = OpenOptions::new().write(true).open(path).expect("open the file");
    let mut flipped = Vec::new();
    for _ in 0..bits {
        let (at, bit) = (random.below(end), random.below(8));
        let byte = before[at] ^ (1 << bit);
        file.write_all_at(&[byte], at as u64).expect("flip a bit");
        flipped.push(format!("bit {bit} of byte {at}"));
    }
    flipped.join(", ")
}
