//! Hosts with links of a limited rate: each agent of a cluster gets a network namespace of its own.
//!
//! ```text
//! this namespace, 198.18.N.1 ── not limited ──┐
//! agent 0,       198.18.N.10 ── limited ──────┤ bridge, in a namespace that is the switch
//! agent 1,       198.18.N.11 ── limited ──────┘
//! ```
//! A link is limited in each direction by a token bucket (`tc tbf`), as a port of a slower switch is.

use std::{ffi::OsStr, net::Ipv4Addr, path::Path, process::Command};

/// Host number of the first agent's address.
const FIRST_HOST: usize = 10;
/// Most agents, so that their addresses fit.
const HOSTS_MAX: usize = 200;

/// A switch with the hosts that were added. Dropping it removes all of them. A process has one at a time.
pub struct Links {
    mbit_per_s: u32,
    /// The third byte of all addresses.
    number: u8,
    hosts: usize,
}

impl Links {
    /// A switch whose links carry so many megabits per second in each direction. It has no hosts yet.
    #[must_use]
    pub fn new(mbit_per_s: u32) -> Self {
        // Two tests of a machine hardly have the same number; if they do, the second one fails and says so.
        let number = u8::try_from(std::process::id() % 250).expect("below 250");
        let links = Self { mbit_per_s, number, hosts: 0 };
        let (switch, here) = (Self::switch(), format!("mtlink{number}"));
        ip(["netns", "add", &switch]);
        ip(["-n", &switch, "link", "add", "bridge", "type", "bridge"]);
        ip(["-n", &switch, "link", "set", "bridge", "up"]);
        ip(["link", "add", &here, "type", "veth", "peer", "name", "uplink", "netns", &switch]);
        ip(["-n", &switch, "link", "set", "uplink", "master", "bridge", "up"]);
        ip(["addr", "add", &format!("{}/24", links.here()), "dev", &here]);
        ip(["link", "set", &here, "up"]);
        links
    }

    /// The address of this namespace, where the controller is.
    #[must_use]
    pub fn here(&self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.number, 1)
    }

    /// The address of a host.
    #[must_use]
    pub fn host(&self, host: usize) -> Ipv4Addr {
        assert!(host < HOSTS_MAX, "there are addresses for {HOSTS_MAX} hosts");
        Ipv4Addr::new(198, 18, self.number, u8::try_from(FIRST_HOST + host).expect("at most 210"))
    }

    /// Adds the next host.
    pub fn add_host(&mut self) {
        let (host, switch, port) = (Self::namespace(self.hosts), Self::switch(), format!("port{}", self.hosts));
        ip(["netns", "add", &host]);
        ip(["-n", &host, "link", "set", "lo", "up"]);
        ip(["-n", &host, "link", "add", "eth0", "type", "veth", "peer", "name", &port, "netns", &switch]);
        ip(["-n", &switch, "link", "set", &port, "master", "bridge", "up"]);
        ip(["-n", &host, "addr", "add", &format!("{}/24", self.host(self.hosts)), "dev", "eth0"]);
        ip(["-n", &host, "link", "set", "eth0", "up"]);
        let rate = format!("{}mbit", self.mbit_per_s);
        for (namespace, end) in [(&host, "eth0"), (&switch, port.as_str())] {
            let limit = ["root", "tbf", "rate", &rate, "burst", "64kb", "limit", "512kb"];
            run("tc", ["-n", namespace, "qdisc", "add", "dev", end].into_iter().chain(limit));
        }
        self.hosts += 1;
    }

    /// A command that runs a program on a host. Mounts that it makes are seen here, too.
    #[must_use]
    pub fn on_host(&self, host: usize, program: &Path) -> Command {
        assert!(host < self.hosts, "host {host} was not added");
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", Self::namespace(host))).arg("--").arg(program);
        command
    }

    /// Bytes that all hosts together have received so far, with the headers of the packets.
    #[must_use]
    pub fn received_bytes(&self) -> u64 {
        self.bytes_by_host().iter().map(|(received, _)| received).sum()
    }

    /// Bytes that each host has received and sent so far, with the headers of the packets, in no certain order but always the same.
    #[must_use]
    pub fn bytes_by_host(&self) -> Vec<(u64, u64)> {
        let asked = ["-n", &Self::switch(), "-json", "-statistics", "link", "show"];
        let done = Command::new("ip").args(asked).output().expect("start ip");
        let all: Vec<serde_json::Value> = serde_json::from_slice(&done.stdout).expect("ip prints JSON");
        let is_port = |link: &&serde_json::Value| link["ifname"].as_str().is_some_and(|name| name.starts_with("port"));
        // What a port of the switch sends its host receives.
        let bytes = |link: &serde_json::Value, way: &str| link["stats64"][way]["bytes"].as_u64().expect("a count");
        all.iter().filter(is_port).map(|link| (bytes(link, "tx"), bytes(link, "rx"))).collect()
    }

    fn switch() -> String {
        Self::name("switch")
    }

    fn namespace(host: usize) -> String {
        Self::name(&format!("host{host}"))
    }

    /// `tests/run.sh` removes namespaces with such names whose process is gone.
    fn name(of: &str) -> String {
        format!("mustertest-{}-{of}", std::process::id())
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        let hosts = (0..self.hosts).map(Self::namespace);
        for namespace in hosts.chain([Self::switch()]) {
            if let Err(why) = try_run("ip", ["netns", "del", &namespace]) {
                eprintln!("a namespace of the test is left: {why}");
            }
        }
    }
}

fn ip<const N: usize>(arguments: [&str; N]) {
    run("ip", arguments);
}

fn run<'a>(program: &str, arguments: impl IntoIterator<Item = &'a str>) {
    try_run(program, arguments).unwrap_or_else(|why| panic!("{why}"));
}

fn try_run(program: &str, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<(), String> {
    let mut command = Command::new(program);
    let done = command.args(arguments).output().map_err(|e| format!("cannot start {command:?}: {e}"))?;
    match done.status.success() {
        true => Ok(()),
        false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&done.stderr))),
    }
}
