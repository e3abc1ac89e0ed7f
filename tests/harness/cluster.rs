//! A controller and agents as processes of this machine.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::{Api, eventually};

/// What is common to the cluster.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Agents to start with.
    pub agents: usize,
    /// How they are started.
    pub agent: AgentOptions,
    /// Each agent's data folder is an own file system of this size, for example `300m`.
    pub own_disk: Option<&'static str>,
}

/// How agents are started.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// `none` or `libvirt`.
    pub runtime: &'static str,
    /// Virtual processors offered.
    pub cpus: u32,
    /// Memory offered, for example `1GiB`.
    pub memory: &'static str,
    /// More arguments.
    pub more: Vec<String>,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        let agent = AgentOptions { runtime: "none", cpus: 8, memory: "4GiB", more: Vec::new() };
        Self { agents: 3, agent, own_disk: None }
    }
}

impl ClusterOptions {
    /// `agents` agents that run nothing but disk files.
    #[must_use]
    pub fn files(agents: usize) -> Self {
        Self { agents, ..Self::default() }
    }

    /// `agents` agents that run guests.
    #[must_use]
    pub fn guests(agents: usize) -> Self {
        let mut options = Self::files(agents);
        options.agent.runtime = "libvirt";
        options.agent.more = vec!["--hypervisor".into(), "qemu".into()];
        options
    }
}

/// One agent, running or not.
pub struct Agent {
    /// Its name.
    pub name: String,
    /// Its data folder.
    pub dir: PathBuf,
    port: u16,
    process: Option<Child>,
}

/// A whole Muster. Dropping it stops everything and leaves nothing behind.
pub struct Cluster {
    /// Where everything lives.
    pub dir: PathBuf,
    /// The operator's client.
    pub api: Api,
    /// The agents.
    pub agents: Vec<Agent>,
    options: ClusterOptions,
    port: u16,
    node_port: u16,
    controller: Option<Child>,
    _folder: tempfile::TempDir,
}

fn free_port() -> u16 {
    // The port could be taken by another between here and the daemon's bind; it then says so and the test fails loudly.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}

/// A binary of this workspace, built beside the test.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let mut dir = std::env::current_exe().expect("the test's own path");
    while dir.pop() {
        let candidate = dir.join(name);
        if candidate.is_file() {
            return candidate;
        }
        if dir.ends_with("target") {
            break;
        }
    }
    panic!("{name} is not built: run tests/run.sh, or cargo build --workspace with the profile of the test");
}

fn log_to(path: &Path) -> Stdio {
    let file = std::fs::File::options().create(true).append(true).open(path).expect("a log file");
    file.into()
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a pid");
    // It may have ended by itself; then there is nobody to tell.
    let _gone = rustix::process::kill_process(pid, signal);
}

impl Cluster {
    /// Starts a controller and the agents, and waits until all of them are ready.
    pub async fn start(options: ClusterOptions) -> Self {
        // Not /tmp: it may be a tmpfs, which is no place for disks. The qemu user must be able to pass.
        let parent = std::env::var_os("TMPDIR").unwrap_or_else(|| "/var/tmp".into());
        let folder = tempfile::Builder::new().prefix("cluster-").tempdir_in(parent).expect("a folder");
        let dir = folder.path().to_path_buf();
        let passable = std::os::unix::fs::PermissionsExt::from_mode(0o711);
        std::fs::set_permissions(&dir, passable).expect("make the folder passable");
        let (port, node_port) = (free_port(), free_port());
        muster_peer::tls::install_provider();
        let mut controller = Some(spawn_controller(&dir, port, node_port));
        let url = format!("https://127.0.0.1:{port}");
        let api = eventually("the controller's first answer", Duration::from_secs(20), async || {
            if let Some(status) = controller.as_mut().and_then(|c| c.try_wait().ok().flatten()) {
                panic!("the controller ended at start: {status}\n{}", tail(&dir.join("controller.log")));
            }
            let read =
                |name: &str| std::fs::read(dir.join("controller").join(name)).map_err(|e| format!("{name}: {e}"));
            let token = String::from_utf8(read("admin.token")?).map_err(|e| e.to_string())?;
            let api = Api::new(&url, &read("ca.pem")?, &token);
            let answer =
                api.try_send(api.request(reqwest::Method::GET, "/readyz")).await.map_err(|e| format!("{e:?}"))?;
            if answer.status == 200 { Ok(api) } else { Err(format!("{answer:?}")) }
        })
        .await;
        let mut cluster = Self { dir, api, agents: Vec::new(), options, port, node_port, controller, _folder: folder };
        for _ in 0..cluster.options.agents {
            cluster.add_agent().await;
        }
        cluster.all_ready().await;
        cluster
    }

    /// Joins one more agent; [`Self::all_ready`] waits for it.
    pub async fn add_agent(&mut self) -> usize {
        let number = self.agents.len();
        let name = format!("node-{number}");
        let dir = self.dir.join(&name);
        self.agents.push(Agent { name, dir, port: free_port(), process: None });
        let token: serde_json::Value =
            self.api.post("/v1/tokens", serde_json::json!({ "role": "node", "uses": 1 })).await.ok();
        if let Some(size) = self.options.own_disk {
            let dir = &self.agents[number].dir;
            std::fs::create_dir(dir).expect("create the data folder");
            let options = std::ffi::CString::new(format!("size={size},mode=711")).expect("no NUL");
            rustix::mount::mount("tmpfs", dir, "tmpfs", rustix::mount::MountFlags::empty(), options.as_c_str())
                .expect("mount a small file system");
        }
        let file = self.dir.join(format!("join-{number}.token"));
        std::fs::write(&file, token["token"].as_str().expect("a token")).expect("write the join token");
        self.start_agent(number);
        number
    }

    /// Starts (again) an agent that does not run.
    pub fn start_agent(&mut self, number: usize) {
        let agent = &mut self.agents[number];
        assert!(agent.process.is_none(), "{} runs already", agent.name);
        let log = || log_to(&self.dir.join(format!("{}.log", agent.name)));
        let mut command = Command::new(binary("muster-agent"));
        command.args(["run", "--data-dir"]).arg(&agent.dir);
        command.arg("--controller").arg(&self.api.url);
        command.arg("--join-token").arg(format!("@{}", self.dir.join(format!("join-{number}.token")).display()));
        command.arg("--listen").arg(format!("127.0.0.1:{}", agent.port));
        command.args(["--name", &agent.name, "--runtime", self.options.agent.runtime, "--keep-free", "0"]);
        command.args(["--cpus", &self.options.agent.cpus.to_string(), "--memory", self.options.agent.memory]);
        command.args(&self.options.agent.more);
        command.env("RUST_LOG", std::env::var("MUSTER_TEST_LOG").unwrap_or_else(|_| "info".into()));
        agent.process =
            Some(command.stdin(Stdio::null()).stdout(log()).stderr(log()).spawn().expect("start the agent"));
    }

    /// Waits until every agent that runs is `ready`.
    pub async fn all_ready(&self) {
        let wanted = self.agents.iter().filter(|a| a.process.is_some()).count();
        eventually("all nodes ready", Duration::from_secs(30), async || {
            let nodes = self.api.list::<muster_api::node::Node>("/v1/nodes?state=ready").await;
            let have = nodes.len();
            if have >= wanted { Ok(()) } else { Err(format!("{have} of {wanted} ready\n{}", self.logs())) }
        })
        .await;
    }

    /// kill -9.
    pub fn kill_agent(&mut self, number: usize) {
        let mut child = self.agents[number].process.take().expect("it runs");
        child.kill().expect("kill it");
        child.wait().expect("reap it");
    }

    /// SIGTERM, and waits for its end.
    pub async fn stop_agent(&mut self, number: usize) {
        let mut child = self.agents[number].process.take().expect("it runs");
        signal(&child, rustix::process::Signal::TERM);
        eventually("the agent's end", Duration::from_secs(60), async || match child.try_wait() {
            Ok(Some(status)) if status.success() => Ok(()),
            Ok(Some(status)) => panic!("the agent ended with {status}"),
            other => Err(format!("{other:?}")),
        })
        .await;
    }

    /// SIGSTOP: it lives, but never answers.
    pub fn freeze_agent(&self, number: usize) {
        signal(self.agents[number].process.as_ref().expect("it runs"), rustix::process::Signal::STOP);
    }

    /// SIGCONT.
    pub fn thaw_agent(&self, number: usize) {
        signal(self.agents[number].process.as_ref().expect("it runs"), rustix::process::Signal::CONT);
    }

    /// kill -9 of the controller.
    pub fn kill_controller(&mut self) {
        let mut child = self.controller.take().expect("it runs");
        child.kill().expect("kill it");
        child.wait().expect("reap it");
    }

    /// Starts the controller again and waits for its first answer.
    pub async fn start_controller(&mut self) {
        assert!(self.controller.is_none(), "the controller runs already");
        self.controller = Some(spawn_controller(&self.dir, self.port, self.node_port));
        eventually("the controller's first answer", Duration::from_secs(20), async || {
            let ask = self.api.request(reqwest::Method::GET, "/readyz");
            let answer = self.api.try_send(ask).await.map_err(|e| format!("{e:?}"))?;
            if answer.status == 200 { Ok(()) } else { Err(format!("{answer:?}")) }
        })
        .await;
    }

    /// The number of the agent on which this node runs.
    #[must_use]
    pub fn agent_named(&self, name: &str) -> usize {
        self.agents.iter().position(|a| a.name == name).unwrap_or_else(|| panic!("no agent {name}"))
    }

    /// Data folder of the controller.
    #[must_use]
    pub fn controller_dir(&self) -> PathBuf {
        self.dir.join("controller")
    }

    /// The ends of all logs, for failures.
    #[must_use]
    pub fn logs(&self) -> String {
        let names = self.agents.iter().map(|a| format!("{}.log", a.name)).chain(["controller.log".into()]);
        names.map(|name| format!("--- {name}\n{}\n", tail(&self.dir.join(&name)))).collect()
    }
}

fn spawn_controller(dir: &Path, port: u16, node_port: u16) -> Child {
    let log = || log_to(&dir.join("controller.log"));
    Command::new(binary("muster-controller"))
        .args(["serve", "--data-dir"])
        .arg(dir.join("controller"))
        .args(["--listen", &format!("127.0.0.1:{port}"), "--node-listen", &format!("127.0.0.1:{node_port}")])
        .env("RUST_LOG", std::env::var("MUSTER_TEST_LOG").unwrap_or_else(|_| "info".into()))
        .stdin(Stdio::null())
        .stdout(log())
        .stderr(log())
        .spawn()
        .expect("start the controller")
}

fn tail(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(25)..].join("\n")
}

/// Resident bytes of every process that has `marker` on its command line: an agent and its holder, by their folder.
#[must_use]
pub fn resident(marker: &str) -> u64 {
    let mut total = 0;
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if !String::from_utf8_lossy(&line).contains(marker) {
            continue;
        }
        let status = std::fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let rss = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap_or("0 kB");
        total += rss.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap_or(0) * 1024;
    }
    total
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        for agent in &self.agents {
            if let Some(child) = &agent.process {
                signal(child, rustix::process::Signal::CONT);
                signal(child, rustix::process::Signal::TERM);
            }
        }
        let until = Instant::now() + Duration::from_secs(if std::thread::panicking() { 5 } else { 45 });
        for agent in &mut self.agents {
            if let Some(child) = &mut agent.process {
                while Instant::now() < until && matches!(child.try_wait(), Ok(None)) {
                    std::thread::sleep(Duration::from_millis(20));
                }
                drop(child.kill());
                drop(child.wait());
            }
        }
        if let Some(child) = &mut self.controller {
            drop(child.kill());
            drop(child.wait());
        }
        crate::guest::destroy_domains_under(&self.dir);
        unmount_under(&self.dir);
    }
}

/// Lazily unmounts whatever is still mounted below `dir`.
fn unmount_under(dir: &Path) {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let targets: Vec<_> = table.lines().filter_map(|line| line.split(' ').nth(4)).collect();
    for target in targets.into_iter().rev().filter(|t| Path::new(t).starts_with(dir)) {
        let _gone = rustix::mount::unmount(target, rustix::mount::UnmountFlags::DETACH);
    }
}
