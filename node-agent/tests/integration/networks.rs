//! Networks on the real kernel. Namespaces stand in for guests: one end of a veth is where a tap would be. Two nodes
//! are two [`Networks`] in this process, with tunnels over 127.0.0.1.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use muster_agent::{
    hypervisor::Owner,
    network::{self, NetworkError, NetworkParts, Networks, probe, tap},
};
use muster_api::{
    ClusterId, MacAddress, NetworkId, NodeId, SecurityGroupId,
    node_protocol::network::{
        NetworkAssignment, NetworkMember, NetworkMode, NetworksAssignment, NicAssignment, PortProtocol, PublishedPort,
        Rule, RuleDirection, RuleMatch, RuleRemote,
    },
};

/// Long enough for a connection that is let through, and short enough to wait for one that is not.
const CONNECT: Duration = Duration::from_millis(1500);
const REFUSED: Duration = Duration::from_millis(250);

pub(crate) fn run(program: &str, args: &str) -> String {
    let output = Command::new(program).args(args.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "{program} {args}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs `work` inside a namespace.
fn inside<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> T {
    network::inside(namespace, work).unwrap()
}

/// How long the kernel takes to move so many taps into a namespace, as one program asks it to.
pub(crate) fn moving_taps(count: usize) -> Duration {
    let (process, names) = (std::process::id(), 0..count);
    let (namespace, tap) =
        (format!("mustertest-{process}-{}", unique()), |n: usize| format!("mv{n}x{}", process % 1_000_000));
    run("ip", &format!("netns add {namespace}"));
    let made: String = names.clone().map(|n| format!("tuntap add name {} mode tap\n", tap(n))).collect();
    let moved: String = names.map(|n| format!("link set {} netns {namespace}\n", tap(n))).collect();
    let batch = |lines: &str| {
        let mut ip = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        ip.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        assert!(ip.wait().unwrap().success());
    };
    batch(&made);
    let begun = Instant::now();
    batch(&moved);
    let took = begun.elapsed();
    run("ip", &format!("netns delete {namespace}"));
    took
}

fn unique() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// One agent's networks. What is left of them when it is dropped is removed, also when a test fails.
pub(crate) struct Node {
    pub(crate) owner: Owner,
    tunnel: SocketAddr,
    dir: tempfile::TempDir,
    pub(crate) networks: Networks,
}

impl Node {
    fn new(cluster: ClusterId) -> Self {
        Self::of(Owner { cluster, node: NodeId::generate() })
    }

    pub(crate) fn of(owner: Owner) -> Self {
        // Free now, and nobody else is given it soon.
        let tunnel = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let dir = tempfile::tempdir().unwrap();
        // dnsmasq reads its lists as another user.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let networks = Self::agent(owner, tunnel, &dir);
        Self { owner, tunnel, dir, networks }
    }

    fn agent(owner: Owner, tunnel: SocketAddr, dir: &tempfile::TempDir) -> Networks {
        Networks::new(NetworkParts { data_dir: dir.path().to_owned(), owner, tunnel: Ok(tunnel) })
    }

    /// Forgets everything, as an agent that was killed and started again.
    fn restart(&mut self) {
        self.networks = Self::agent(self.owner, self.tunnel, &self.dir);
    }

    fn digits(&self) -> (String, String) {
        let last = |id: uuid::Uuid| id.simple().to_string().chars().skip(20).collect::<String>();
        (last(self.owner.cluster.uuid()), last(self.owner.node.uuid()))
    }

    /// All namespaces, tables, interfaces and processes of this node.
    fn traces(&self) -> Vec<String> {
        let (cluster, node) = self.digits();
        let namespaces = fs::read_dir("/run/netns").into_iter().flatten().map(|e| e.unwrap().file_name());
        let namespaces: Vec<String> = namespaces
            .map(|name| name.into_string().unwrap())
            .filter(|name| name.starts_with(&format!("muster-{cluster}-{node}-")))
            .collect();
        let table = format!("muster_{cluster}_{node}");
        let tables = run("nft", "list tables")
            .lines()
            .filter(|line| line.contains(&table))
            .map(str::to_owned)
            .collect::<Vec<_>>();
        let folder = self.dir.path().display().to_string();
        let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| {
            let line = fs::read(entry.ok()?.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).into_owned();
            (line.starts_with("dnsmasq") && line.contains(&folder)).then_some(line)
        });
        namespaces.iter().cloned().chain(tables).chain(processes.collect::<Vec<_>>()).collect()
    }

    /// The namespace of its only network.
    pub(crate) fn namespace(&self) -> String {
        self.traces().into_iter().find(|trace| trace.starts_with("muster-")).unwrap()
    }

    /// The host's ends of its uplinks.
    fn uplinks(&self) -> Vec<String> {
        let (cluster, node) = self.digits();
        let text = run("nft", &format!("list set inet muster_{cluster}_{node} uplinks"));
        text.split('"').filter(|word| word.starts_with("mu") && word.len() == 15).map(str::to_owned).collect()
    }

    pub(crate) async fn gone(self) {
        let uplinks = self.uplinks();
        self.networks.close().await;
        assert_eq!(self.traces(), [""; 0]);
        let links = run("ip", "-o link show");
        assert!(!uplinks.iter().any(|uplink| links.contains(uplink.as_str())), "{uplinks:?}: {links}");
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for trace in self.traces() {
            let (program, args) = match trace.split_whitespace().collect::<Vec<_>>()[..] {
                ["table", family, name] => ("nft", format!("delete table {family} {name}")),
                _ if trace.starts_with("muster-") => ("ip", format!("netns delete {trace}")),
                _ => continue,
            };
            let _gone = Command::new(program).args(args.split(' ')).output();
        }
        let folder = self.dir.path().join("networks");
        for entry in fs::read_dir(folder).into_iter().flatten() {
            if let Ok(pid) = fs::read_to_string(entry.unwrap().path().join("dnsmasq.pid")) {
                let _gone = Command::new("kill").arg(pid.trim()).output();
            }
        }
    }
}

/// A network that tests change, and what all nodes are told of it.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) network: NetworkAssignment,
    groups: BTreeMap<SecurityGroupId, Vec<Rule>>,
    tunnels: BTreeMap<NodeId, String>,
}

const OUT: Rule = Rule { direction: RuleDirection::Out, matches: RuleMatch::Any, remote: RuleRemote::Any };

fn within(group: SecurityGroupId) -> Rule {
    Rule { direction: RuleDirection::In, matches: RuleMatch::Any, remote: RuleRemote::Group(group) }
}

fn tcp(port: u16) -> Rule {
    let matches = RuleMatch::Ports { transport: PortProtocol::Tcp, from: port, to: port };
    Rule { direction: RuleDirection::In, matches, remote: RuleRemote::Any }
}

impl World {
    pub(crate) fn new(project: &str, vni: u32, nodes: &[&Node]) -> Self {
        let [_, a, b, c] = vni.to_be_bytes();
        let network = NetworkAssignment {
            network: NetworkId::generate(),
            name: "default".to_owned(),
            project: project.to_owned(),
            vni,
            mode: NetworkMode::Nat,
            subnet_v4: "10.77.0.0/16".parse().unwrap(),
            gateway_v4: Ipv4Addr::new(10, 77, 0, 1),
            subnet_v6: Some("fd00:77::/64".parse().unwrap()),
            gateway_v6: Some("fd00:77::1".parse().unwrap()),
            gateway_mac: MacAddress::new([0x52, a, b, c, 0, 0]),
            dns: Vec::new(),
            domain: format!("default.{project}.muster.internal"),
            mtu: 1450,
            members: Vec::new(),
            published: Vec::new(),
        };
        let tunnels = nodes.iter().map(|node| (node.owner.node, node.tunnel.to_string())).collect();
        Self { network, groups: BTreeMap::new(), tunnels }
    }

    pub(crate) fn group(&mut self) -> SecurityGroupId {
        let group = SecurityGroupId::generate();
        self.groups.insert(group, vec![OUT, within(group)]);
        group
    }

    /// Adds a card. Its host number is the one after the last.
    pub(crate) fn member(&mut self, node: &Node, group: SecurityGroupId) -> NetworkMember {
        let number = u8::try_from(self.network.members.len() + 2).unwrap();
        let [_, a, b, c] = self.network.vni.to_be_bytes();
        let member = NetworkMember {
            node: node.owner.node,
            host_name: format!("web-{number}"),
            mac: MacAddress::new([0x52, a, b, c, 0, number]),
            address_v4: Some(Ipv4Addr::new(10, 77, 0, number)),
            address_v6: Some(format!("fd00:77::{number:x}").parse().unwrap()),
            groups: vec![group],
        };
        self.network.members.push(member.clone());
        member
    }

    async fn ensure(&self, nodes: &[&Node]) {
        ensure(&[self], nodes).await;
    }
}

/// What a node is told of these networks.
pub(crate) fn told(worlds: &[&World], node: &Node) -> NetworksAssignment {
    let mut told = NetworksAssignment::default();
    for world in worlds {
        if world.network.members.iter().any(|member| member.node == node.owner.node) {
            told.networks.push(world.network.clone());
        }
        told.groups.extend(world.groups.clone());
        let others = world.tunnels.iter().filter(|(other, _)| **other != node.owner.node);
        told.tunnels.extend(others.map(|(other, tunnel)| (*other, tunnel.clone())));
    }
    told
}

/// Waits until these networks are there on all nodes that have members of them.
async fn ensure(worlds: &[&World], nodes: &[&Node]) {
    for node in nodes {
        let told = told(worlds, node);
        node.networks.pass(&told);
        for network in &told.networks {
            node.networks.ensure(network.network).await.unwrap();
        }
    }
}

/// A namespace with a card, in place of a guest.
struct Guest {
    name: String,
    address: Ipv4Addr,
}

impl Guest {
    /// A guest whose card is in its network, and that has no address.
    async fn unconfigured(node: &Node, world: &World, member: &NetworkMember) -> Self {
        let name = format!("mustertest-{}-{}", std::process::id(), unique());
        let address = member.address_v4.unwrap_or(Ipv4Addr::UNSPECIFIED);
        let guest = Self { name: name.clone(), address };
        run("ip", &format!("netns add {name}"));
        let tap = tap(node.owner.node, member.mac);
        run("ip", &format!("link add {tap} type veth peer name eth0 netns {name} address {}", member.mac));
        node.networks.attach(NicAssignment { network: world.network.network, mac: member.mac }).await.unwrap();
        // Interrupted after any of its steps, it is done again.
        node.networks.attach(NicAssignment { network: world.network.network, mac: member.mac }).await.unwrap();
        guest.ip("link set lo up");
        guest.ip("link set eth0 mtu 1450 up");
        guest
    }

    async fn new(node: &Node, world: &World, member: &NetworkMember) -> Self {
        let guest = Self::unconfigured(node, world, member).await;
        guest.ip(&format!("address add {}/16 dev eth0", guest.address));
        guest.ip(&format!("address add {}/64 dev eth0 nodad", member.address_v6.unwrap()));
        guest.ip("route add default via 10.77.0.1");
        guest
    }

    fn ip(&self, args: &str) -> String {
        run("ip", &format!("-n {} {args}", self.name))
    }

    /// A server on all its addresses that says this word, then the address of its client, and then repeats what it
    /// hears.
    fn serves(&self, port: u16, word: &'static str) {
        let listener = inside(&self.name, || TcpListener::bind(("::", port)).unwrap());
        serve(listener, word);
    }

    fn connects(&self, to: impl Into<SocketAddr>) -> io::Result<TcpStream> {
        self.connects_within(to, CONNECT)
    }

    fn connects_within(&self, to: impl Into<SocketAddr>, limit: Duration) -> io::Result<TcpStream> {
        let to = to.into();
        inside(&self.name, || TcpStream::connect_timeout(&to, limit))
    }

    /// What a server at this address says; `None` if it cannot be reached.
    fn hears(&self, address: Ipv4Addr, port: u16) -> Option<String> {
        self.connects(SocketAddrV4::new(address, port)).ok().map(hear)
    }

    fn is_refused(&self, address: Ipv4Addr, port: u16) -> bool {
        self.connects_within(SocketAddrV4::new(address, port), REFUSED).is_err()
    }

    /// The address of a name, from the server of the network.
    fn resolves(&self, name: &str) -> Option<Ipv4Addr> {
        let mut query = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            query.push(u8::try_from(label.len()).unwrap());
            query.extend(label.bytes());
        }
        query.extend([0, 0, 1, 0, 1]);
        let answer = inside(&self.name, || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            socket.send_to(&query, "10.77.0.1:53").unwrap();
            let mut answer = [0; 512];
            socket.recv(&mut answer).map(|length| answer[..length].to_vec())
        });
        let answer = answer.ok()?;
        (answer[7] > 0).then(|| Ipv4Addr::from(*answer.last_chunk::<4>().unwrap()))
    }

    /// The address and the gateway that DHCP offers; `None` if nothing comes.
    fn is_offered(&self) -> Option<(Ipv4Addr, Ipv4Addr)> {
        let mac = fs_in(&self.name, "/sys/class/net/eth0/address");
        let mac: MacAddress = mac.parse().unwrap();
        let mut discover = vec![0; 240];
        discover[..4].copy_from_slice(&[1, 1, 6, 0]);
        discover[4..8].copy_from_slice(&[9, 9, 9, 9]);
        discover[10] = 0x80;
        discover[28..34].copy_from_slice(&mac.bytes());
        discover[236..].copy_from_slice(&[99, 130, 83, 99]);
        discover.extend([53, 1, 1, 55, 3, 1, 3, 6, 255]);
        self.ip("route replace 255.255.255.255 dev eth0");
        let answer = inside(&self.name, || {
            let socket = UdpSocket::bind("0.0.0.0:68").unwrap();
            socket.set_broadcast(true).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
            socket.send_to(&discover, "255.255.255.255:67").unwrap();
            let mut answer = [0; 1500];
            socket.recv(&mut answer).map(|length| answer[..length].to_vec())
        });
        let answer = answer.ok()?;
        let address = Ipv4Addr::from(*answer[16..].first_chunk::<4>().unwrap());
        let mut options = &answer[240..];
        while let [code, length, rest @ ..] = options {
            if *code == 3 {
                return Some((address, Ipv4Addr::from(*rest.first_chunk::<4>().unwrap())));
            }
            options = &rest[usize::from(*length)..];
        }
        Some((address, Ipv4Addr::UNSPECIFIED))
    }
}

/// A file of sysfs as a namespace sees it: `ip netns exec` mounts it anew.
fn fs_in(namespace: &str, file: &str) -> String {
    run("ip", &format!("netns exec {namespace} cat {file}")).trim().to_owned()
}

impl Drop for Guest {
    fn drop(&mut self) {
        // At once, as a tap: the kernel takes namespaces down later.
        let _gone = Command::new("ip").args(["-n", &self.name, "link", "delete", "eth0"]).output();
        let _gone = Command::new("ip").args(["netns", "delete", &self.name]).output();
    }
}

fn serve(listener: TcpListener, word: &'static str) {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            std::thread::spawn(move || {
                let peer = stream.peer_addr().unwrap().ip().to_canonical();
                let _gone = stream.write_all(format!("{word} {peer}\n").as_bytes());
                let mut bytes = [0; 64];
                while let Ok(length @ 1..) = stream.read(&mut bytes) {
                    if stream.write_all(&bytes[..length]).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

/// The first line that a server says.
fn hear(stream: TcpStream) -> String {
    let mut stream = &stream;
    line(&mut stream)
}

fn line(stream: &mut impl io::Read) -> String {
    let mut text = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte).unwrap_or(0) == 1 && byte != *b"\n" {
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_reach_the_guests_of_their_network_on_all_nodes_and_no_others() {
    let cluster = ClusterId::generate();
    let (one, two) = (Node::new(cluster), Node::new(cluster));
    let mut red = World::new("red", 4001, &[&one, &two]);
    let (team, lonely) = (red.group(), red.group());
    let (a, b, c) = (red.member(&one, team), red.member(&two, team), red.member(&one, lonely));
    // Another project has the same subnet, and the same addresses.
    let mut blue = World::new("blue", 4002, &[&one, &two]);
    let blues = blue.group();
    let (x, y) = (blue.member(&one, blues), blue.member(&two, blues));
    let made = Instant::now();
    ensure(&[&red, &blue], &[&one, &two]).await;
    eprintln!("two networks on two nodes were there after {:?}", made.elapsed());

    let (a, b, c) =
        (Guest::new(&one, &red, &a).await, Guest::new(&two, &red, &b).await, Guest::new(&one, &red, &c).await);
    let (x, y) = (Guest::new(&one, &blue, &x).await, Guest::new(&two, &blue, &y).await);
    b.serves(80, "red");
    y.serves(80, "blue");
    c.serves(80, "lonely");
    a.serves(80, "a");

    // Across the tunnel, with both versions of IP, each in its own project.
    assert_eq!(a.hears(b.address, 80), Some("red 10.77.0.2".to_owned()));
    assert_eq!(x.hears(b.address, 80), Some("blue 10.77.0.2".to_owned()));
    let over_v6: SocketAddr = "[fd00:77::3]:80".parse().unwrap();
    assert_eq!(a.connects(over_v6).map(hear).unwrap(), "red fd00:77::2");
    // Nothing comes in but from the same group. Everything goes out.
    assert!(a.is_refused(c.address, 80) && b.is_refused(c.address, 80));
    assert!(c.is_refused(a.address, 80));

    // The gateway and the names are those of the own node, and are there for all.
    for guest in [&a, &b] {
        assert_eq!(guest.resolves("web-3.default.red.muster.internal"), Some(b.address));
        assert_eq!(guest.resolves("web-2.default.red.muster.internal"), Some(a.address));
        assert_eq!(guest.resolves("web-9.default.red.muster.internal"), None);
        assert_eq!(guest.resolves("web-2.default.blue.muster.internal"), None);
    }

    // A rule is added: its port is open, and no other.
    red.groups.get_mut(&lonely).unwrap().push(tcp(80));
    red.ensure(&[&one, &two]).await;
    ensure(&[&red, &blue], &[&one, &two]).await;
    c.serves(81, "other");
    let mut open = a.connects(SocketAddrV4::new(c.address, 80)).unwrap();
    assert_eq!(line(&mut open), "lonely 10.77.0.2");
    assert_eq!(b.hears(c.address, 80), Some("lonely 10.77.0.3".to_owned()));
    assert!(a.is_refused(c.address, 81));
    // It is removed: what is established goes on.
    red.groups.get_mut(&lonely).unwrap().pop();
    ensure(&[&red, &blue], &[&one, &two]).await;
    assert!(a.is_refused(c.address, 80) && b.is_refused(c.address, 80));
    open.write_all(b"still there\n").unwrap();
    assert_eq!(line(&mut open), "still there");

    drop((a, b, c, x, y));
    one.gone().await;
    two.gone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_sends_with_its_own_addresses_only_and_gets_no_other_from_dhcp() {
    let one = Node::new(ClusterId::generate());
    let mut world = World::new("red", 4003, &[&one]);
    let team = world.group();
    let members = [world.member(&one, team), world.member(&one, team)];
    world.ensure(&[&one]).await;
    let a = Guest::unconfigured(&one, &world, &members[0]).await;
    let b = Guest::new(&one, &world, &members[1]).await;
    b.serves(80, "b");

    // DHCP gives what the controller gave.
    assert_eq!(a.is_offered(), Some((a.address, Ipv4Addr::new(10, 77, 0, 1))));
    a.ip("link set eth0 down");
    a.ip("link set eth0 address 52:00:00:00:00:77");
    a.ip("link set eth0 up");
    assert_eq!(a.is_offered(), None);
    // An address that is its own, from a MAC address that is not.
    a.ip(&format!("address add {}/16 dev eth0", a.address));
    assert!(a.is_refused(b.address, 80));
    a.ip("link set eth0 down");
    a.ip(&format!("link set eth0 address {}", members[0].mac));
    a.ip("link set eth0 up");
    assert_eq!(a.hears(b.address, 80), Some("b 10.77.0.2".to_owned()));
    // The other way about, also with an address that nobody has, and that of the gateway.
    for stolen in ["10.77.0.9", "10.77.0.1"] {
        a.ip("address flush dev eth0");
        a.ip(&format!("address add {stolen}/16 dev eth0"));
        // The neighbour is known: it is not ARP alone that is refused.
        a.ip(&format!("neighbour replace {} lladdr {} dev eth0", b.address, members[1].mac));
        b.ip(&format!("neighbour replace {stolen} lladdr {} dev eth0", members[0].mac));
        assert!(a.is_refused(b.address, 80), "{stolen}");
    }
    // Names and addresses come from the gateway after a new member, too.
    let third = world.member(&one, team);
    world.ensure(&[&one]).await;
    let c = Guest::unconfigured(&one, &world, &third).await;
    assert_eq!(c.is_offered(), Some((c.address, Ipv4Addr::new(10, 77, 0, 1))));
    // A card that the controller did not name is put nowhere.
    let stranger = NicAssignment { network: world.network.network, mac: MacAddress::new([0x52, 9, 9, 9, 9, 9]) };
    assert!(matches!(one.networks.attach(stranger).await, Err(NetworkError::NoCard { .. })));
    let unknown = NetworkId::generate();
    assert!(matches!(one.networks.ensure(unknown).await, Err(NetworkError::Unknown(id)) if id == unknown));
    drop((a, b, c));
    one.gone().await;
}

/// A namespace in place of the outside, with a way to the host.
struct Outside {
    name: String,
    /// The host's end of its way.
    link: String,
    host: Ipv4Addr,
    address: Ipv4Addr,
}

impl Outside {
    fn new() -> Self {
        let number = u16::try_from((std::process::id() + unique()) % 16_000).unwrap();
        let [c, d] = (number << 2).to_be_bytes();
        let (host, address) = (Ipv4Addr::new(198, 18, c, d | 1), Ipv4Addr::new(198, 18, c, d | 2));
        let name = format!("mustertest-{}-{}", std::process::id(), unique());
        run("ip", &format!("netns add {name}"));
        let link = format!("mx{:08x}{}", std::process::id(), number % 10);
        run("ip", &format!("link add {link} type veth peer name eth0 netns {name}"));
        run("ip", &format!("address add {host}/30 dev {link}"));
        run("ip", &format!("link set {link} up"));
        for args in
            [format!("address add {address}/30 dev eth0"), "link set eth0 up".to_owned(), "link set lo up".to_owned()]
        {
            run("ip", &format!("-n {name} {args}"));
        }
        Self { name, link, host, address }
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _gone = Command::new("ip").args(["-n", &self.name, "link", "delete", "eth0"]).output();
        let _gone = Command::new("ip").args(["netns", "delete", &self.name]).output();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_reach_the_outside_by_nat_and_are_reached_by_published_ports() {
    let one = Node::new(ClusterId::generate());
    let (mut red, mut blue) = (World::new("red", 4004, &[&one]), World::new("blue", 4005, &[&one]));
    let (reds, blues) = (red.group(), blue.group());
    red.groups.get_mut(&reds).unwrap().push(tcp(22));
    let (a, x) = (red.member(&one, reds), blue.member(&one, blues));
    let node_port = 30_000 + u16::try_from(std::process::id() % 2_000).unwrap();
    let published = |node_port, port| PublishedPort {
        node_port,
        protocol: PortProtocol::Tcp,
        address: Ipv4Addr::new(10, 77, 0, 2),
        port,
    };
    red.network.published = vec![published(node_port, 22), published(node_port + 2_000, 23)];
    ensure(&[&red, &blue], &[&one]).await;
    let card = NicAssignment { network: red.network.network, mac: a.mac };
    let (a, x) = (Guest::new(&one, &red, &a).await, Guest::new(&one, &blue, &x).await);
    let outside = Outside::new();
    serve(inside(&outside.name, || TcpListener::bind(("0.0.0.0", 80)).unwrap()), "outside");
    a.serves(22, "a");
    a.serves(23, "closed");

    // Out, with the address of the host.
    let from_host = Some(format!("outside {}", outside.host));
    assert_eq!((a.hears(outside.address, 80), x.hears(outside.address, 80)), (from_host.clone(), from_host));
    // Neither the host itself, nor another network by its uplink.
    let on_host = TcpListener::bind((outside.host, 0)).unwrap();
    assert!(a.is_refused(outside.host, on_host.local_addr().unwrap().port()));
    assert!(a.is_refused(Ipv4Addr::LOCALHOST, node_port));
    // In, with the address of the client. Its security group decides which ports.
    let from_outside = |port| {
        let to = SocketAddr::from((outside.host, port));
        inside(&outside.name, || TcpStream::connect_timeout(&to, REFUSED)).map(hear)
    };
    assert_eq!(from_outside(node_port).unwrap(), format!("a {}", outside.address));
    assert!(from_outside(node_port + 2_000).is_err());
    // From the host itself, from another network, and from the guest's own.
    for address in [Ipv4Addr::LOCALHOST, outside.host] {
        let stream = TcpStream::connect_timeout(&SocketAddr::from((address, node_port)), CONNECT).unwrap();
        assert!(hear(stream).starts_with("a "), "{address}");
    }
    for guest in [&a, &x] {
        assert!(guest.hears(outside.host, node_port).unwrap().starts_with("a "));
    }
    // Taken back.
    red.network.published.clear();
    ensure(&[&red, &blue], &[&one]).await;
    assert!(from_outside(node_port).is_err());
    // The agent itself reaches a guest from within its network, whatever the groups say.
    let stream = one.networks.connect(card, 23).await.unwrap().into_std().unwrap();
    stream.set_nonblocking(false).unwrap();
    assert_eq!(hear(stream), "closed 10.77.0.1");
    let refused = one.networks.connect(card, 24).await.unwrap_err();
    assert!(refused.to_string().contains("does not answer on port 24"), "{refused}");
    drop((a, x, outside));
    one.gone().await;
}

/// A bridge of the host that has nothing to do with Muster.
struct HostBridge(String);

impl Drop for HostBridge {
    fn drop(&mut self) {
        let _gone = Command::new("ip").args(["link", "delete", &self.0]).output();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_on_a_bridge_of_the_host_is_one_of_its_ports_and_keeps_to_its_mac_address() {
    let one = Node::new(ClusterId::generate());
    let (bridge, outside) = (HostBridge(format!("mb{:08x}{}", std::process::id(), unique())), Outside::new());
    let mut world = World::new("red", 4006, &[&one]);
    let group = world.group();
    let card = NetworkMember { address_v4: None, address_v6: None, ..world.member(&one, group) };
    world.network.members = vec![card.clone()];
    world.network.mode = NetworkMode::Bridge { bridge: bridge.0.clone() };
    one.networks.pass(&told(&[&world], &one));
    let missing = one.networks.ensure(world.network.network).await.unwrap_err();
    assert!(
        matches!(&missing, NetworkError::Step { source, .. } if source.to_string().contains("no bridge")),
        "{missing:?}"
    );

    run("ip", &format!("link add {} type bridge", bridge.0));
    run("ip", &format!("link set {} up", bridge.0));
    run("ip", &format!("address flush dev {}", outside.link));
    run("ip", &format!("link set {} master {}", outside.link, bridge.0));
    let give_up = Instant::now() + Duration::from_secs(10);
    while let Err(error) = one.networks.ensure(world.network.network).await {
        assert!(Instant::now() < give_up, "{error:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    serve(inside(&outside.name, || TcpListener::bind(("0.0.0.0", 80)).unwrap()), "outside");
    let guest = Guest::unconfigured(&one, &world, &card).await;
    guest.ip(&format!("address add {}/30 dev eth0", outside.host));
    assert_eq!(guest.hears(outside.address, 80), Some(format!("outside {}", outside.host)));
    guest.ip("link set eth0 down");
    guest.ip("link set eth0 address 52:00:00:00:00:77");
    guest.ip("link set eth0 up");
    assert!(guest.is_refused(outside.address, 80));
    drop((guest, outside, bridge));
    one.gone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_was_killed_finds_what_it_made_and_leaves_nothing() {
    let mut node = Node::new(ClusterId::generate());
    let mut worlds: Vec<World> = (0..3).map(|n| World::new(&format!("p{n}"), 4010 + n, &[&node])).collect();
    let members: Vec<NetworkMember> = worlds
        .iter_mut()
        .map(|world| {
            let group = world.group();
            world.member(&node, group)
        })
        .collect();
    // Killed at different moments, each time with another network half made.
    for (n, world) in worlds.iter().enumerate().cycle().take(12) {
        node.networks.pass(&told(&[world], &node));
        let network = world.network.network;
        let making = node.networks.ensure(network);
        let _killed =
            tokio::time::timeout(Duration::from_millis(4 * (n as u64 * 4 + unique() as u64 % 4)), making).await;
        // A task under way ends with its process; here it has to be waited for.
        node.networks.settle().await;
        node.restart();
    }
    let all: Vec<&World> = worlds.iter().collect();
    ensure(&all, &[&node]).await;
    let guest = Guest::new(&node, &worlds[0], &members[0]).await;
    assert_eq!(guest.resolves("web-2.default.p0.muster.internal"), Some(guest.address));
    let server = |node: &Node| node.traces().into_iter().filter(|trace| trace.starts_with("dnsmasq")).count();
    assert_eq!(server(&node), 3);

    // Two are not wanted any more. The third is, and its guest does not notice.
    node.restart();
    ensure(&all[..1], &[&node]).await;
    node.networks.settle().await;
    assert_eq!((server(&node), node.uplinks().len()), (1, 1));
    assert_eq!(guest.resolves("web-2.default.p0.muster.internal"), Some(guest.address));
    // Its server is killed: it is there again after the next pass.
    let folder = fs::read_dir(node.dir.path().join("networks")).unwrap().next().unwrap().unwrap().path();
    run("kill", &format!("-9 {}", fs::read_to_string(folder.join("dnsmasq.pid")).unwrap().trim()));
    let give_up = Instant::now() + Duration::from_secs(5);
    while guest.resolves("web-2.default.p0.muster.internal").is_none() {
        assert!(Instant::now() < give_up, "dnsmasq is not there again: {:?}", node.networks.troubles());
        node.networks.pass(&told(&all[..1], &node));
        node.networks.settle().await;
    }
    // A network with a guest in it stays, whatever is wanted.
    node.networks.pass(&NetworksAssignment::default());
    node.networks.settle().await;
    assert_eq!(server(&node), 1);
    drop(guest);
    node.restart();
    node.networks.pass(&NetworksAssignment::default());
    node.networks.settle().await;
    assert_eq!(server(&node), 0);
    node.gone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_members_are_told_in_milliseconds() {
    let (one, two) = (Node::new(ClusterId::generate()), Node::new(ClusterId::generate()));
    let mut world = World::new("red", 4020, &[&one, &two]);
    let group = world.group();
    let first = world.member(&one, group);
    let other = NetworkMember { node: two.owner.node, ..first };
    let remote = (0..1000u16).map(|n| {
        let [high, low] = (n + 256).to_be_bytes();
        let address_v4 = Some(Ipv4Addr::new(10, 77, high, low));
        let mac = MacAddress::new([0x52, 0, 0x0f, 0xb4, high, low]);
        NetworkMember { mac, address_v4, address_v6: None, host_name: format!("far-{n}"), ..other.clone() }
    });
    world.network.members.extend(remote);
    world.ensure(&[&one]).await;
    world.network.members.remove(500);
    world.network.members[600].mac = MacAddress::new([0x52, 9, 9, 9, 9, 9]);
    let start = Instant::now();
    world.ensure(&[&one]).await;
    let took = start.elapsed();
    eprintln!("a change among a thousand members took {took:?}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    one.gone().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn this_host_can_have_networks_and_one_that_cannot_says_why() {
    let tunnel = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_eq!(probe::lacking_anywhere(tunnel).await, Ok(()));
    // Somebody else has the port.
    let holder = UdpSocket::bind(("0.0.0.0", tunnel.port())).unwrap();
    let why = probe::lacking_anywhere(tunnel).await.unwrap_err();
    assert!(why.contains("Address already in use"), "{why}");
    drop(holder);
    let owner = Owner { cluster: ClusterId::generate(), node: NodeId::generate() };
    let unable = Networks::new(NetworkParts { data_dir: "/nowhere".into(), owner, tunnel: Err(why) });
    assert!(matches!(unable.ensure(NetworkId::generate()).await, Err(NetworkError::Unable(_))));
}

/// The clean-up of `tests/run.sh`. It must leave tests alone that run beside it.
#[test]
fn the_namespace_of_a_test_that_was_killed_is_removed_and_no_other() {
    let mut ended = Command::new("true").spawn().unwrap();
    ended.wait().unwrap();
    let [killed, own] = [ended.id(), std::process::id()].map(|process| format!("mustertest-{process}-{}", unique()));
    for name in [&killed, &own] {
        run("ip", &format!("netns add {name}"));
    }
    let script = r#". "$0/words.sh"; . "$0/leftovers.sh"; test_networks_clear"#;
    let lib = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/lib");
    let cleared = Command::new("bash").args(["-c", script, lib]).output().unwrap();
    let is_there = |name: &str| Path::new("/run/netns").join(name).exists();
    let left = (is_there(&killed), is_there(&own));
    run("ip", &format!("netns delete {own}"));
    assert_eq!(left, (false, true), "{cleared:?}");
}
