//! The cluster under torture beside the model of it: requests with bounds, and the checks that every step uses.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use muster_api::{
    Timestamp,
    instance::{Instance, InstanceState},
    node::{Node, NodeState},
    operation::{Operation, OperationState},
    snapshot::{Snapshot, SnapshotMember, SnapshotState},
    version::Version as ApiVersion,
};
use muster_tests::{Cluster, ClusterOptions, api::Answer, eventually};
use reqwest::Method;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{
    files,
    model::{Content, Disk, Image, Model, Told, Version, compare},
    ops::{Place, Random},
    story::Story,
    writer::Written,
};

/// Bound of one request.
const REQUEST: Duration = Duration::from_secs(60);
/// Bound of an operation, above the deadlines that the product gives them where something is down.
const OPERATION: Duration = Duration::from_secs(180);
/// Time until everything is well again after a fault: an agent that was cut off is found silent within 30 s.
const SETTLE: Duration = Duration::from_secs(90);
/// A cluster and what it must contain.
pub(super) struct World {
    pub(super) story: Story,
    pub(super) cluster: Cluster,
    pub(super) model: Model,
    /// The agent whose pool may be damaged. The other copies of its objects must be there.
    pub(super) frail: usize,
    pub(super) controller_is_up: bool,
    /// When the controller had last heard of each agent before it was started.
    heard: BTreeMap<usize, Option<Timestamp>>,
    /// Snapshots that were begun while something was down: names, deployments and operations.
    pub(super) begun: Vec<(String, String, Operation)>,
    /// Number of the step, for names.
    pub(super) step: u64,
}

impl World {
    /// A cluster with images of odd sizes, and a deployment of each.
    pub(super) async fn start(seed: u64) -> Self {
        let nodes = 2 + (seed % 2) as usize;
        let cluster = Cluster::start(ClusterOptions::files(nodes).as_processes()).await;
        let frail = (seed / 2) as usize % nodes;
        let story = Story::new(seed);
        let (model, heard) = (Model::default(), BTreeMap::new());
        let mut world =
            Self { story, cluster, model, frail, controller_is_up: true, heard, begun: Vec::new(), step: 0 };
        let mut random = Random::of_step(seed, u64::MAX);
        for (name, chunk, size) in
            [("odd", 65_536, (2 << 20) + 5), ("chunks", 262_144, 3 << 20), ("long", 65_536, (5 << 20) + 4097)]
        {
            // Data, zeros and repeated data, so that chunks are full, in part, absent and shared.
            let mut bytes = random.bytes(size);
            let (third, repeated) = (size / 3, random.bytes(65_536));
            bytes[third..2 * third].fill(0);
            for part in bytes[2 * third..].chunks_mut(65_536).step_by(3) {
                part.copy_from_slice(&repeated[..part.len()]);
            }
            let image = world.create_image(name, chunk, Arc::new(bytes)).await;
            world.deploy(&format!("d-{name}"), image, 2, 0).await;
        }
        world
    }

    /// Whether every daemon runs, so that everything must succeed.
    pub(super) fn is_calm(&self) -> bool {
        self.controller_is_up && (0..self.cluster.agents.len()).all(|agent| self.cluster.agent_is_started(agent))
    }

    /// Sends a request. An error says that no answer came.
    pub(super) async fn ask(&self, method: Method, path: &str, body: Value) -> Result<Answer, String> {
        let mut request = self.cluster.api.request(method, path).timeout(REQUEST);
        if !body.is_null() {
            request = request.json(&body);
        }
        self.cluster.api.try_send(request).await.map_err(|error| format!("{path}: {error:?}"))
    }

    /// Sends a request that must succeed.
    pub(super) async fn must<T: DeserializeOwned>(&self, method: Method, path: &str, body: Value) -> T {
        let answer = self.ask(method, path, body).await.unwrap_or_else(|error| panic!("{error}"));
        assert!((200..300).contains(&answer.status), "{path}: {} {:#}", answer.status, answer.body);
        answer.ok()
    }

    async fn list<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, String> {
        let answer = self.ask(Method::GET, path, Value::Null).await?;
        if answer.status != 200 {
            return Err(format!("{path}: {} {}", answer.status, answer.body));
        }
        Ok(answer.ok::<muster_api::Page<T>>().items)
    }

    /// Waits for the end of an operation.
    pub(super) async fn ended(&self, operation: &Operation) -> Operation {
        self.cluster.api.wait(&operation.id.to_string(), OPERATION).await
    }

    /// Posts slow work, which must succeed.
    pub(super) async fn done(&self, method: Method, path: &str, body: Value) -> Operation {
        let begun: Operation = self.must(method, path, body).await;
        let ended = self.ended(&begun).await;
        assert_eq!(ended.state, OperationState::Succeeded, "{path}: {ended:#?}");
        ended
    }

    /// Creates an image, uploads its file, and answers its index.
    pub(super) async fn create_image(&mut self, name: &str, chunk_bytes: u64, bytes: Arc<Vec<u8>>) -> usize {
        let body = json!({ "name": name, "chunk_bytes": chunk_bytes });
        let _: Value = self.must(Method::POST, "/v1/images", body).await;
        self.model.images.push(Image { name: name.to_owned(), chunk_bytes, bytes });
        self.import(self.model.images.len() - 1).await;
        self.model.images.len() - 1
    }

    /// Uploads an image's file (again), takes its version into the model and compares it.
    pub(super) async fn import(&mut self, image: usize) {
        let Image { name, bytes, .. } = &self.model.images[image];
        let put = self.cluster.api.request(Method::PUT, &format!("/v1/images/{name}/content"));
        let answer: ApiVersion = self.cluster.api.send(put.body(bytes.to_vec()).timeout(OPERATION)).await.ok();
        assert_eq!(answer.size_bytes, bytes.len() as u64, "{answer:?}");
        let version = Version { id: answer.id.to_string(), of: answer.name, bytes: Arc::clone(bytes) };
        // The same content again is the same version.
        if self.model.version(&version.id).is_none() {
            self.model.versions.push(version.clone());
        }
        self.compare_version(&version, None).await;
    }

    /// Starts disks from an image. `more` is by how much they are larger than it.
    pub(super) async fn deploy(&mut self, name: &str, image: usize, count: usize, more: usize) {
        let image = &self.model.images[image];
        let wanted = image.bytes.len() + more;
        let mut body = json!({ "name": name, "source": { "image": image.name }, "count": count, "runtime": "none" });
        if more > 0 {
            body["disk_bytes"] = json!(wanted);
        }
        let mut bytes = image.bytes.to_vec();
        bytes.resize(wanted.next_multiple_of(4096), 0);
        self.done(Method::POST, "/v1/deployments", body).await;
        self.take_members(name, |_| bytes.clone()).await;
    }

    /// Takes the members of a new deployment into the model and compares each of them with what it must contain.
    pub(super) async fn take_members(&mut self, deployment: &str, content: impl Fn(&Instance) -> Vec<u8>) {
        let members: Vec<Instance> =
            self.list(&format!("/v1/instances?deployment={deployment}&limit=1000")).await.expect("a list");
        for member in members {
            let disk = &member.disks[0];
            let bytes = content(&member);
            assert_eq!(disk.size_bytes, bytes.len() as u64, "the size of {}", member.name);
            self.model.disks.push(Disk {
                name: member.name.clone(),
                id: disk.id.to_string(),
                deployment: deployment.to_owned(),
                node: self.cluster.agent_named(member.node_name.as_deref().expect("operators see the node")),
                path: disk.path.clone().expect("operators see the path"),
                told: Told::Ready,
                content: Content::new(bytes),
            });
            self.compare_whole(self.model.disks.len() - 1).await;
        }
    }

    /// Reads a whole disk and compares it. What was in doubt is known afterwards.
    ///
    /// While some daemon is down an error is an answer, too; it is `false`.
    pub(super) async fn compare_whole(&mut self, disk: usize) -> bool {
        let calm = self.is_calm();
        let Disk { name, path, .. } = &self.model.disks[disk];
        let got = match files::read_whole(path).await {
            Ok(got) => got,
            Err(error) if !calm => {
                let note = format!("{name}: {error}");
                self.story.note(&note);
                return false;
            }
            Err(error) => panic!("{name} is ready and cannot be read: {error}"),
        };
        self.story.count("whole disks compared");
        let disk = &mut self.model.disks[disk];
        disk.content.resolve(got).unwrap_or_else(|wrong| panic!("{}: {wrong}", disk.name));
        true
    }

    /// Reads a place of a disk and compares it.
    pub(super) async fn compare_place(&mut self, disk: usize, place: Place) {
        if self.model.disks[disk].content.is_doubtful() {
            self.compare_whole(disk).await;
            return;
        }
        let Disk { name, path, content, .. } = &self.model.disks[disk];
        match files::read(path, place).await {
            Ok(got) => {
                let want = &content.bytes()[place.at..place.at + place.length];
                compare(want, place.at, &got).unwrap_or_else(|wrong| panic!("{name}: {wrong}"));
            }
            Err(error) if !self.is_calm() => {
                let note = format!("{name}: {error}");
                self.story.note(&note);
            }
            Err(error) => panic!("{name} is ready and cannot be read at {place:?}: {error}"),
        }
        self.story.count("places compared");
    }

    /// Reads some bytes of every disk that is ready.
    pub(super) async fn look_at_all(&mut self, random: &mut Random) {
        for disk in self.model.ready() {
            let place = Place::draw(random, self.model.disks[disk].content.bytes().len());
            self.compare_place(disk, place).await;
        }
    }

    /// The bytes of a version as the API gives them.
    pub(super) async fn download(&self, version: &str, range: Option<Place>) -> Vec<u8> {
        let mut request = self.cluster.api.request(Method::GET, &format!("/v1/versions/{version}/content"));
        if let Some(Place { at, length }) = range {
            request = request.header("range", format!("bytes={at}-{}", at + length - 1));
        }
        let answer = request.timeout(OPERATION).send().await.unwrap_or_else(|error| panic!("{version}: {error:?}"));
        let status = answer.status().as_u16();
        let bytes =
            answer.bytes().await.unwrap_or_else(|error| panic!("the content of {version} broke off: {error:?}"));
        let expected = if range.is_some() { 206 } else { 200 };
        assert_eq!(status, expected, "{version}: {}", String::from_utf8_lossy(&bytes[..bytes.len().min(2000)]));
        bytes.to_vec()
    }

    /// Compares a version, or a range of it, with what it must contain.
    pub(super) async fn compare_version(&mut self, version: &Version, range: Option<Place>) {
        let place = range.unwrap_or(Place { at: 0, length: version.bytes.len() });
        let got = self.download(&version.id, range).await;
        let want = &version.bytes[place.at..place.at + place.length];
        compare(want, place.at, &got)
            .unwrap_or_else(|wrong| panic!("version {} of {}: {wrong}", version.id, version.of));
        self.story.count("versions compared");
    }

    /// Begins a snapshot of a deployment. Where something is down it may be refused; that is `None`.
    pub(super) async fn begin_snapshot(&mut self, name: &str, deployment: &str) -> Option<Operation> {
        let body = json!({ "name": name, "select": { "deployment": deployment } });
        match self.ask(Method::POST, "/v1/snapshots", body).await {
            Ok(answer) if answer.status == 202 => Some(answer.ok()),
            refused if self.is_calm() => panic!("a snapshot of {deployment} was refused: {refused:?}"),
            refused => {
                let refused = refused.map(|answer| (answer.status, answer.body["code"].clone()));
                self.story.note(&format!("refused: {refused:?}"));
                None
            }
        }
    }

    /// Waits for the end of a snapshot, checks all of its versions and takes them into the model. `writing` is a disk that
    /// was written to all the time: from how many of the writes on the snapshot was wanted, and the writes.
    pub(super) async fn end_snapshot(
        &mut self,
        name: &str,
        operation: &Operation,
        writing: Option<(usize, usize, &Written)>,
        may_fail: bool,
    ) {
        let ended = self.ended(operation).await;
        let snapshot: Snapshot = self.must(Method::GET, &format!("/v1/snapshots/{name}"), Value::Null).await;
        let members: Vec<SnapshotMember> =
            self.list(&format!("/v1/snapshots/{name}/members?limit=1000")).await.expect("a list of members");
        if ended.state != OperationState::Succeeded {
            assert!(may_fail, "nothing was down, and a snapshot failed: {ended:#?}");
            let reason = ended.error.as_ref().map(|problem| problem.detail.clone());
            assert!(reason.is_some_and(|reason| !reason.is_empty()), "it does not say why it failed: {ended:#?}");
            assert_eq!(snapshot.state, SnapshotState::Failed, "{snapshot:#?}");
            assert!(
                members.iter().all(|member| member.version.is_none()),
                "a version of a failed snapshot: {members:#?}"
            );
            self.story.count("snapshots failed");
            return;
        }
        assert_eq!(snapshot.state, SnapshotState::Ready, "{snapshot:#?}");
        let deployment = snapshot.deployment_name.clone().expect("it was taken of a deployment");
        let wanted = self.model.disks.iter().filter(|disk| disk.deployment == deployment).count();
        assert_eq!(members.len(), wanted, "{members:#?}");
        let mut versions = BTreeMap::new();
        for member in members {
            let id =
                member.version.unwrap_or_else(|| panic!("a ready snapshot without a version: {member:#?}")).to_string();
            let got = self.download(&id, None).await;
            let of = format!("{} in {name}", member.instance_name);
            let index = self.model.disks.iter().position(|disk| disk.name == member.instance_name);
            let index = index.unwrap_or_else(|| panic!("{} is not known", member.instance_name));
            let content = &mut self.model.disks[index].content;
            match writing.filter(|(written_to, _, _)| *written_to == index) {
                Some((_, earliest, written)) => {
                    written.has_moment(content.bytes(), earliest, &got).unwrap_or_else(|wrong| panic!("{of}: {wrong}"));
                }
                None => content.resolve(got.clone()).unwrap_or_else(|wrong| panic!("{of}: {wrong}")),
            }
            if writing.is_none_or(|(written_to, _, _)| written_to != index) {
                // The disk builds on the version now, which is durable.
                content.flush();
            }
            self.model.versions.push(Version { id: id.clone(), of, bytes: Arc::new(got) });
            versions.insert(member.instance_name, id);
        }
        self.model.snapshots.push((name.to_owned(), versions));
        self.story.count("snapshots compared");
    }

    /// Starts an agent. From now on it is well only if it was heard again: what is told of it is as old as that.
    pub(super) async fn start_agent(&mut self, agent: usize) {
        let path = format!("/v1/nodes/{}", self.cluster.agents[agent].name);
        let node: Node = self.must(Method::GET, &path, Value::Null).await;
        self.heard.insert(agent, node.last_seen_at);
        self.cluster.start_agent(agent);
    }

    /// Whether everything is told as it is and as it should be.
    async fn is_well(&mut self) -> Result<(), String> {
        let nodes: Vec<Node> = self.list("/v1/nodes?limit=1000").await?;
        for (number, agent) in self.cluster.agents.iter().enumerate() {
            let node = nodes.iter().find(|node| node.name == agent.name).ok_or("a node is not listed")?;
            let heard = self.heard.get(&number).is_none_or(|before| node.last_seen_at > *before);
            if self.cluster.agent_is_started(number) && (node.state != NodeState::Ready || !heard) {
                return Err(format!("{} is {:?} and was last heard {:?}", node.name, node.state, node.last_seen_at));
            }
        }
        let instances: Vec<Instance> = self.list("/v1/instances?limit=1000").await?;
        for disk in &self.model.disks {
            let instance = instances.iter().find(|instance| instance.name == disk.name);
            let instance = instance.ok_or_else(|| format!("{} is not listed", disk.name))?;
            let is_as_wanted = match disk.told {
                Told::Ready => instance.state == InstanceState::Running && instance.ready_at.is_some(),
                Told::Stopped => instance.state == InstanceState::Stopped,
            };
            if !is_as_wanted && self.cluster.agent_is_started(disk.node) {
                let Instance { name, state, reason, detail, .. } = instance;
                return Err(format!("{name} should be {:?}, is {state:?}, {reason:?}, {detail:?}", disk.told));
            }
            if disk.told == Told::Ready && self.cluster.agent_is_started(disk.node) {
                files::read(&disk.path, Place { at: 0, length: 1 }).await.map_err(|e| format!("{}: {e}", disk.name))?;
            }
        }
        Ok(())
    }

    /// Waits until everything that runs is told as well and is so.
    pub(super) async fn settle(&mut self, after: &str) {
        let begun = std::time::Instant::now();
        loop {
            match self.is_well().await {
                Ok(()) => return,
                Err(wrong) if begun.elapsed() > SETTLE => panic!("not well within {SETTLE:?} after {after}: {wrong}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(25)).await,
            }
        }
    }

    /// Waits a while for the condition of [`Self::settle`] after a file of this agent was damaged. An error says what is
    /// wrong; it comes at once when that will not change.
    pub(super) async fn would_settle(&mut self, agent: usize) -> Result<(), String> {
        let begun = std::time::Instant::now();
        loop {
            if self.cluster.agent_has_ended(agent) {
                return Err("the agent ended".to_owned());
            }
            match self.is_well().await {
                Ok(()) => return Ok(()),
                Err(wrong) if wrong.contains("DiskFailed") => return Err(wrong),
                Err(wrong) if begun.elapsed() > Duration::from_secs(20) => return Err(wrong),
                Err(_) => tokio::time::sleep(Duration::from_millis(25)).await,
            }
        }
    }

    /// Compares everything, deletes everything, and checks that nothing is left.
    pub(super) async fn finish(&mut self) {
        self.settle("the last step").await;
        for disk in self.model.ready() {
            self.compare_whole(disk).await;
        }
        for version in self.model.versions.clone() {
            self.compare_version(&version, None).await;
        }
        for deployment in self.model.deployments() {
            self.done(Method::DELETE, &format!("/v1/deployments/{deployment}"), Value::Null).await;
        }
        for (snapshot, _) in std::mem::take(&mut self.model.snapshots) {
            self.done(Method::DELETE, &format!("/v1/snapshots/{snapshot}"), Value::Null).await;
        }
        for image in std::mem::take(&mut self.model.images) {
            let answer = self.ask(Method::DELETE, &format!("/v1/images/{}", image.name), Value::Null).await;
            assert!(answer.as_ref().is_ok_and(|answer| answer.status < 300), "{answer:?}");
        }
        let folders: Vec<_> = self.cluster.agents.iter().map(|agent| agent.dir.clone()).collect();
        eventually("nothing of the deleted disks is left", Duration::from_secs(30), async || {
            let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
            let here = self.cluster.dir.display().to_string();
            let mut left: Vec<String> = mounts.lines().filter(|line| line.contains(&here)).map(str::to_owned).collect();
            for folder in folders.iter().flat_map(|dir| [dir.join("disks"), dir.join("instances")]) {
                let files = std::fs::read_dir(&folder).expect("the folder").flatten();
                left.extend(files.map(|file| file.path().display().to_string()));
            }
            if left.is_empty() { Ok(()) } else { Err(format!("{left:#?}")) }
        })
        .await;
    }
}
