//! A controller and agents on this machine.

use std::{
    ffi::OsString,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use muster_api::{
    instance::Instance,
    operation::{Operation, OperationState},
};
use rustix::{
    mount::UnmountFlags,
    process::{Pid, Signal},
};

use crate::{
    Api, Links,
    daemon::{self, Daemon, Daemons, binary},
    eventually, eventually_for_guests, guest,
};

/// What a cluster consists of.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Whether controller and agents are processes.
    pub daemons: Daemons,
    /// Agents to start with.
    pub agents: usize,
    /// How each agent is started.
    pub agent: AgentOptions,
    /// Size of a file system of its own for each agent's data folder, for example `300m`; none: a plain folder.
    pub own_disk: Option<&'static str>,
    /// More arguments of `muster-controller serve`.
    pub controller: Vec<String>,
    /// The folder in which the cluster makes its own; none: `TMPDIR`.
    pub parent: Option<PathBuf>,
    /// Megabits per second of the link of each agent, which then is a host of its own ([`Links`]). Only with processes.
    pub link_mbit_per_s: Option<u32>,
}

/// How agents are started.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// What runs instances: `none` or `libvirt`.
    pub runtime: &'static str,
    /// Virtual processors that the node offers.
    pub cpus: u32,
    /// Memory that the node offers, for example `1GiB`.
    pub memory: &'static str,
    /// More arguments of `muster-agent run`.
    pub more: Vec<String>,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        let agent = AgentOptions { runtime: "none", cpus: 8, memory: "4GiB", more: Vec::new() };
        Self {
            daemons: Daemons::default(),
            agents: 3,
            agent,
            own_disk: None,
            controller: Vec::new(),
            parent: None,
            link_mbit_per_s: None,
        }
    }
}

impl ClusterOptions {
    /// A cluster of agents with runtime none: an instance is a disk file.
    #[must_use]
    pub fn files(agents: usize) -> Self {
        Self { agents, ..Self::default() }
    }

    /// The same, but every daemon is a process, which can be killed, frozen and measured.
    #[must_use]
    pub fn as_processes(self) -> Self {
        Self { daemons: Daemons::Processes, ..self }
    }

    /// The same, and each agent is a host of its own with a link of this rate.
    #[must_use]
    pub fn with_links(self, mbit_per_s: u32) -> Self {
        Self { link_mbit_per_s: Some(mbit_per_s), ..self.as_processes() }
    }

    /// A cluster of agents that run guests on emulated processors. The daemons are processes.
    #[must_use]
    pub fn guests(agents: usize) -> Self {
        let mut options = Self::files(agents).as_processes();
        options.agent.runtime = "libvirt";
        options.agent.more = vec!["--hypervisor".into(), "qemu".into()];
        options
    }
}

/// One agent, running or not.
pub struct Agent {
    /// Name of the node.
    pub name: String,
    /// Data folder of the agent.
    pub dir: PathBuf,
    port: u16,
    daemon: Option<Daemon>,
}

/// A whole Muster. Dropping it stops everything and leaves nothing behind.
pub struct Cluster {
    /// The folder that has all data of the cluster.
    pub dir: PathBuf,
    /// A client with the admin token.
    pub api: Api,
    /// All agents, also those that do not run.
    pub agents: Vec<Agent>,
    /// The links of the agents, if they have some.
    pub links: Option<Links>,
    options: ClusterOptions,
    doors: Doors,
    controller: Option<Daemon>,
    _folder: tempfile::TempDir,
}

/// Where the controller listens.
#[derive(Clone, Copy)]
struct Doors {
    address: Ipv4Addr,
    people: u16,
    node: u16,
}

impl Doors {
    fn url(self) -> String {
        format!("https://{}", self.at(self.people))
    }

    fn at(self, port: u16) -> SocketAddr {
        (self.address, port).into()
    }
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

impl Daemons {
    /// The port that a daemon is told to listen on. A task gets 0 and is asked afterwards which port it has. A process
    /// gets one that was free a moment ago, because it must have the same when it is started again. Should another
    /// program take it in between, the daemon says so and the test fails.
    fn port(self) -> u16 {
        match self {
            Self::Tasks => 0,
            Self::Processes => {
                let listener = TcpListener::bind(local(0)).expect("a free port");
                listener.local_addr().expect("its address").port()
            }
        }
    }
}

impl Cluster {
    /// Starts a controller and the agents, and waits until all of them are ready.
    pub async fn start(options: ClusterOptions) -> Self {
        // Not /tmp, which may be a tmpfs and too small for disks. QEMU's user must be able to enter the folder.
        let parent = options.parent.clone().or_else(|| std::env::var_os("TMPDIR").map(PathBuf::from));
        let parent = parent.unwrap_or_else(|| "/var/tmp".into());
        let folder = tempfile::Builder::new().prefix("cluster-").tempdir_in(parent).expect("a folder");
        let dir = folder.path().to_path_buf();
        let passable = std::os::unix::fs::PermissionsExt::from_mode(0o711);
        std::fs::set_permissions(&dir, passable).expect("make the folder passable");
        muster_pool::tls::install_provider();
        daemon::log_to_the_test();
        let daemons = options.daemons;
        let links = options.link_mbit_per_s.map(Links::new);
        let address = links.as_ref().map_or(Ipv4Addr::LOCALHOST, Links::here);
        let doors = Doors { address, people: daemons.port(), node: daemons.port() };
        let (mut controller, doors) = spawn_controller(&options, &dir, doors).await;
        let api = eventually("the controller's first answer", Duration::from_secs(20), async || {
            assert!(!controller.has_ended(), "the controller ended at start\n{}", tail(&dir.join("controller.log")));
            let read =
                |name: &str| std::fs::read(dir.join("controller").join(name)).map_err(|e| format!("{name}: {e}"));
            let token = String::from_utf8(read("admin.token")?).map_err(|e| e.to_string())?;
            let api = Api::new(&doors.url(), &read("ca.pem")?, &token);
            let answer =
                api.try_send(api.request(reqwest::Method::GET, "/readyz")).await.map_err(|e| format!("{e:?}"))?;
            if answer.status == 200 { Ok(api) } else { Err(format!("{answer:?}")) }
        })
        .await;
        let controller = Some(controller);
        let mut cluster = Self { dir, api, agents: Vec::new(), links, options, doors, controller, _folder: folder };
        for _ in 0..cluster.options.agents {
            cluster.add_agent().await;
        }
        cluster.all_ready().await;
        cluster
    }

    /// Starts one more agent, which joins the cluster, and answers its number. [`Self::all_ready`] waits for it.
    pub async fn add_agent(&mut self) -> usize {
        let number = self.agents.len();
        let name = format!("node-{number}");
        let dir = self.dir.join(&name);
        if let Some(links) = &mut self.links {
            links.add_host();
        }
        self.agents.push(Agent { name, dir, port: self.options.daemons.port(), daemon: None });
        if let Some(size) = self.options.own_disk {
            let dir = &self.agents[number].dir;
            std::fs::create_dir(dir).expect("create the data folder");
            let options = std::ffi::CString::new(format!("size={size},mode=711")).expect("no NUL");
            rustix::mount::mount("tmpfs", dir, "tmpfs", rustix::mount::MountFlags::empty(), options.as_c_str())
                .expect("mount a small file system");
        }
        self.new_join_token(number).await;
        self.start_agent(number);
        number
    }

    /// Makes a join token and puts it where the agent reads it, also while it runs.
    pub async fn new_join_token(&self, number: usize) {
        let token: serde_json::Value =
            self.api.post("/v1/tokens", serde_json::json!({ "role": "node", "uses": 1 })).await.ok();
        let file = self.dir.join(format!("join-{number}.token"));
        std::fs::write(&file, token["token"].as_str().expect("a token")).expect("write the join token");
    }

    /// Data folder of an agent.
    #[must_use]
    pub fn agent_dir(&self, number: usize) -> PathBuf {
        self.agents[number].dir.clone()
    }

    /// Starts (again) an agent that does not run.
    pub fn start_agent(&mut self, number: usize) {
        let arguments = self.agent_arguments(number, &self.agents[number].dir, self.agents[number].port);
        let agent = &mut self.agents[number];
        assert!(agent.daemon.is_none(), "{} runs already", agent.name);
        agent.daemon = Some(match self.options.daemons {
            Daemons::Tasks => Daemon::agent_task(&arguments),
            Daemons::Processes => {
                let program = binary("muster-agent");
                let on_host = self.links.as_ref().map(|links| links.on_host(number, &program));
                let mut command = on_host.unwrap_or_else(|| Command::new(program));
                command.arg("run").args(arguments);
                Daemon::process(command, &self.dir.join(format!("{}.log", agent.name)))
            }
        });
    }

    fn agent_arguments(&self, number: usize, dir: &Path, port: u16) -> Vec<OsString> {
        let options = &self.options.agent;
        let mut arguments: Vec<OsString> = vec!["--data-dir".into(), dir.into()];
        let mut tell = |name: &str, value: &str| arguments.extend([name.into(), value.into()]);
        tell("--controller", &self.api.url);
        tell("--join-token", &format!("@{}", self.dir.join(format!("join-{number}.token")).display()));
        let address = self.links.as_ref().map_or(Ipv4Addr::LOCALHOST, |links| links.host(number));
        tell("--listen", &SocketAddr::from((address, port)).to_string());
        tell("--name", &self.agents[number].name);
        tell("--runtime", options.runtime);
        if options.more.iter().all(|more| more != "--keep-free") {
            tell("--keep-free", "0");
        }
        tell("--cpus", &options.cpus.to_string());
        tell("--memory", options.memory);
        arguments.extend(options.more.iter().map(Into::into));
        arguments
    }

    /// The command of another agent process with the name and settings of this agent, on another data folder.
    #[must_use]
    pub fn agent_beside(&self, number: usize, dir: &Path) -> Command {
        let mut command = Command::new(binary("muster-agent"));
        command.arg("run").args(self.agent_arguments(number, dir, 0)).stdin(Stdio::null());
        command
    }

    /// Waits until every agent that runs is `ready` and offers its runtime. A busy libvirt may answer an agent late.
    pub async fn all_ready(&self) {
        let wanted = self.agents.iter().filter(|a| a.daemon.is_some()).count();
        let runtime = self.options.agent.runtime;
        eventually("all nodes ready", Duration::from_secs(60), async || {
            let mut nodes = self.api.list::<muster_api::node::Node>("/v1/nodes?state=ready").await;
            nodes.retain(|node| node.runtimes.iter().any(|offered| offered == runtime));
            let have = nodes.len();
            if have >= wanted {
                Ok(())
            } else {
                Err(format!("{have} of {wanted} ready with runtime {runtime}\n{}", self.logs()))
            }
        })
        .await;
    }

    /// Waits until an operation for which guests boot has succeeded.
    pub async fn booted(&self, operation: &str) {
        let what = format!("operation {operation}");
        let last = eventually_for_guests(&what, &self.dir, guest::BOOT, async || self.api.final_state(operation).await);
        let last = last.await;
        assert_eq!(last.state, OperationState::Succeeded, "{last:#?}\n{}", self.logs());
    }

    /// Starts a deployment of guests and waits until all of them are ready.
    pub async fn deploy_guests(&self, mut body: serde_json::Value) -> Vec<Instance> {
        body["ready"] = guest::ready();
        let operation: Operation = self.api.post("/v1/deployments", body.clone()).await.ok();
        self.booted(&operation.id.to_string()).await;
        self.api.instances(body["name"].as_str().expect("a name")).await
    }

    /// Kills the agent with SIGKILL.
    pub fn kill_agent(&mut self, number: usize) {
        self.agents[number].daemon.take().expect("it runs").kill();
    }

    /// Tells the agent to end and waits for that. An error says why the end was not a clean one.
    ///
    /// # Errors
    /// When the agent failed, or had to be killed.
    pub fn stop_agent(&mut self, number: usize) -> Result<(), String> {
        end(self.agents[number].daemon.take().expect("it runs"))
    }

    /// Whether the agent runs, or ran until it ended by itself.
    #[must_use]
    pub fn agent_is_started(&self, number: usize) -> bool {
        self.agents[number].daemon.is_some()
    }

    /// Whether the agent was started and has ended by itself.
    pub fn agent_has_ended(&mut self, number: usize) -> bool {
        self.agents[number].daemon.as_mut().is_some_and(Daemon::has_ended)
    }

    /// The process of an agent that was started.
    #[must_use]
    pub fn agent_process(&self, number: usize) -> Pid {
        self.agents[number].daemon.as_ref().expect("it runs").pid()
    }

    /// The process that keeps the live maps of this agent's disks.
    #[must_use]
    pub fn holder(&self, number: usize) -> Option<Pid> {
        let socket = self.agents[number].dir.join("holder.sock").display().to_string();
        let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
        let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let pid: i32 = pids.find(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let mut words = line.split(|byte| *byte == 0);
            words.nth(1) == Some(b"holder") && words.any(|word| word == socket.as_bytes())
        })?;
        Pid::from_raw(pid)
    }

    /// Stops the agent with SIGSTOP: its connections stay open, but it does not answer.
    pub fn freeze_agent(&self, number: usize) {
        self.agents[number].daemon.as_ref().expect("it runs").signal(Signal::STOP);
    }

    /// Lets a frozen agent go on (SIGCONT).
    pub fn thaw_agent(&self, number: usize) {
        self.agents[number].daemon.as_ref().expect("it runs").signal(Signal::CONT);
    }

    /// Kills the controller with SIGKILL.
    pub fn kill_controller(&mut self) {
        self.controller.take().expect("it runs").kill();
    }

    /// Tells the controller to end and waits for that. An error says why the end was not a clean one.
    ///
    /// # Errors
    /// When the controller failed, or had to be killed.
    pub fn stop_controller(&mut self) -> Result<(), String> {
        end(self.controller.take().expect("it runs"))
    }

    /// Starts the controller again and waits for its first answer.
    ///
    /// # Panics
    /// When it ends instead.
    pub async fn start_controller(&mut self) {
        self.try_start_controller().await.unwrap_or_else(|ended| panic!("{ended}"));
    }

    /// Starts the controller again and waits for its first answer.
    ///
    /// # Errors
    /// When it ends instead: the last lines of its log.
    pub async fn try_start_controller(&mut self) -> Result<(), String> {
        assert!(self.controller.is_none(), "the controller runs already");
        let (mut controller, _same) = spawn_controller(&self.options, &self.dir, self.doors).await;
        let answers = eventually("the controller's first answer", Duration::from_secs(20), async || {
            if controller.has_ended() {
                return Ok(false);
            }
            let ask = self.api.request(reqwest::Method::GET, "/readyz");
            let answer = self.api.try_send(ask).await.map_err(|e| format!("{e:?}"))?;
            if answer.status == 200 { Ok(true) } else { Err(format!("{answer:?}")) }
        })
        .await;
        if !answers {
            return Err(tail(&self.dir.join("controller.log")));
        }
        self.controller = Some(controller);
        Ok(())
    }

    /// The most memory the controller's process ever had resident, in bytes.
    #[must_use]
    pub fn controller_peak_resident(&self) -> u64 {
        peak_resident(self.controller.as_ref().expect("it runs").pid())
    }

    /// The most memory an agent's process ever had resident, in bytes.
    #[must_use]
    pub fn agent_peak_resident(&self, number: usize) -> u64 {
        peak_resident(self.agent_process(number))
    }

    /// The number of the agent of this node.
    #[must_use]
    pub fn agent_named(&self, name: &str) -> usize {
        self.agents.iter().position(|a| a.name == name).unwrap_or_else(|| panic!("no agent {name}"))
    }

    /// Data folder of the controller.
    #[must_use]
    pub fn controller_dir(&self) -> PathBuf {
        self.dir.join("controller")
    }

    /// The last lines of each process's log, for the message of a failure. What tasks log is in the test's output
    /// already.
    #[must_use]
    pub fn logs(&self) -> String {
        let names = self.agents.iter().map(|a| format!("{}.log", a.name)).chain(["controller.log".into()]);
        let files = names.map(|name| (self.dir.join(&name), name)).filter(|(path, _)| path.exists());
        files.map(|(path, name)| format!("--- {name}\n{}\n", tail(&path))).collect()
    }
}

async fn spawn_controller(options: &ClusterOptions, dir: &Path, doors: Doors) -> (Daemon, Doors) {
    let mut arguments: Vec<OsString> = vec!["--data-dir".into(), dir.join("controller").into()];
    for (name, port) in [("--listen", doors.people), ("--node-listen", doors.node)] {
        arguments.extend([name.into(), doors.at(port).to_string().into()]);
    }
    arguments.extend(options.controller.iter().map(OsString::from));
    match options.daemons {
        Daemons::Tasks => {
            let server = daemon::controller(&arguments).await;
            let people = server.address().expect("it is bound").port();
            let doors = Doors { people, node: server.node_address().expect("it is bound").port(), ..doors };
            (Daemon::controller_task(server), doors)
        }
        Daemons::Processes => {
            let mut command = Command::new(binary("muster-controller"));
            command.arg("serve").args(arguments);
            (Daemon::process(command, &dir.join("controller.log")), doors)
        }
    }
}

/// Asks a daemon to end and waits for that.
fn end(daemon: Daemon) -> Result<(), String> {
    daemon.ask_to_end();
    tokio::task::block_in_place(|| daemon.end_by(Instant::now() + Duration::from_secs(45)))
}

fn tail(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(25)..].join("\n")
}

/// Resident bytes of all processes that have `marker` on their command lines. With an agent's folder these are the
/// agent and its holder.
#[must_use]
pub fn resident(marker: &str) -> u64 {
    let mut total = 0;
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if !String::from_utf8_lossy(&line).contains(marker) {
            continue;
        }
        total += status_bytes(&entry.path().join("status"), "VmRSS:").unwrap_or(0);
    }
    total
}

fn peak_resident(process: Pid) -> u64 {
    let status = format!("/proc/{}/status", process.as_raw_nonzero());
    status_bytes(Path::new(&status), "VmHWM:").expect("the kernel tells")
}

/// The value of `key` in `/proc/PID/status`, in bytes.
fn status_bytes(path: &Path, key: &str) -> Option<u64> {
    let status = std::fs::read_to_string(path).ok()?;
    let value = status.lines().find_map(|line| line.strip_prefix(key))?;
    value.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1024)
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        let limit = Duration::from_secs(if std::thread::panicking() { 5 } else { 45 });
        let mut badly = Vec::new();
        let mut end = |daemons: Vec<(&str, Daemon)>| {
            let until = Instant::now() + limit;
            daemons.iter().for_each(|(_, daemon)| daemon.ask_to_end());
            for (name, daemon) in daemons {
                badly.extend(daemon.end_by(until).err().map(|why| format!("{name} did not end well: {why}")));
            }
        };
        let agents = self.agents.iter_mut();
        let agents = agents.filter_map(|agent| Some((agent.name.as_str(), agent.daemon.take()?))).collect();
        let controller = self.controller.take().map(|daemon| ("controller", daemon)).into_iter().collect();
        // The daemons may be tasks of this runtime: its other threads run them while this one waits.
        tokio::task::block_in_place(|| {
            end(agents);
            end(controller);
        });
        guest::destroy_domains_under(&self.dir);
        unmount_under(&self.dir);
        match (badly.is_empty(), std::thread::panicking()) {
            (true, _) => {}
            (false, true) => eprintln!("{}", badly.join("\n")),
            (false, false) => panic!("{}\n{}", badly.join("\n"), self.logs()),
        }
    }
}

/// Unmounts whatever is still mounted below `dir`, also disks that an agent still serves.
fn unmount_under(dir: &Path) {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let targets: Vec<_> = table.lines().filter_map(|line| line.split(' ').nth(4)).collect();
    for target in targets.into_iter().rev().filter(|t| Path::new(t).starts_with(dir)) {
        let _gone = rustix::mount::unmount(target, UnmountFlags::FORCE | UnmountFlags::DETACH);
    }
}
