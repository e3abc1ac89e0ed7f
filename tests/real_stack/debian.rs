//! A Debian as people run it, with systemd, cloud-init and OpenSSH, on every promise that a guest relies on: who it is, who
//! reaches it, what a snapshot of it is worth, and that a fork is somebody else. One test, because each boot costs an
//! emulated processor half a minute.

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};

use muster_api::{
    firmware::Firmware,
    image::Image,
    instance::Instance,
    operation::Operation,
    snapshot::{Snapshot, SnapshotMember},
};
use muster_tests::{Cluster, ClusterOptions, binary, eventually, guest};
use reqwest::Method;
use serde_json::{Value, json};

/// The user that cloud-init makes in this image.
const USER: &str = "debian";
/// Where SSH listens too, and no security group lets anybody in.
const CLOSED: u16 = 8022;
/// Most time for something that a guest does in a second when the machine is idle.
const PATIENCE: Duration = Duration::from_secs(120);

/// Prints how long each step took.
struct Steps {
    begun: Instant,
    last: Instant,
}

impl Steps {
    fn start() -> Self {
        let now = Instant::now();
        Self { begun: now, last: now }
    }

    fn done(&mut self, what: &str) {
        let now = Instant::now();
        let (step, all) = (now - self.last, now - self.begun);
        println!("{:6.1} s  {what} ({:.1} s so far)", step.as_secs_f64(), all.as_secs_f64());
        self.last = now;
    }
}

/// Makes the image with its own script, which keeps it in a cache, and answers its path.
fn image(kind: &str, dir: &Path) -> PathBuf {
    let out = dir.join(format!("debian-{kind}.raw"));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("debian-image.sh");
    let made = Command::new(script).arg(&out).arg(kind).output().expect("run debian-image.sh");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    out
}

fn ip(arguments: &str) {
    let done = Command::new("ip").args(arguments.split_whitespace()).output().expect("run ip");
    assert!(done.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&done.stderr));
}

/// A namespace in place of the outside, with a way to the host. A server in it tells who asks.
struct Outside {
    name: String,
    host: Ipv4Addr,
    address: Ipv4Addr,
}

impl Outside {
    fn start() -> Self {
        // Addresses for tests of networks (RFC 2544), others than those that the agent's own tests take.
        let number = u16::try_from(std::process::id() % 16_000).expect("small");
        let [c, d] = (number << 2).to_be_bytes();
        let (host, address) = (Ipv4Addr::new(198, 19, c, d | 1), Ipv4Addr::new(198, 19, c, d | 2));
        let name = format!("mustertest-debian-{}", std::process::id());
        ip(&format!("netns add {name}"));
        let this = Self { name, host, address };
        let (name, link) = (&this.name, format!("mx{:08x}d", std::process::id()));
        ip(&format!("link add {link} type veth peer name eth0 netns {name}"));
        ip(&format!("address add {host}/30 dev {link}"));
        ip(&format!("link set {link} up"));
        ip(&format!("-n {name} address add {address}/30 dev eth0"));
        ip(&format!("-n {name} link set eth0 up"));
        let listener = muster_agent::network::inside(name, || TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80)));
        let listener = listener.expect("enter the namespace").expect("listen");
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let peer = stream.peer_addr().expect("a peer").ip();
                let _gone = stream.write_all(format!("outside-sees {peer}\n").as_bytes());
            }
        });
        this
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _gone = Command::new("ip").args(["-n", &self.name, "link", "delete", "eth0"]).output();
        let _gone = Command::new("ip").args(["netns", "delete", &self.name]).output();
    }
}

/// Somebody at the host with an SSH key and the command line.
struct Person {
    dir: PathBuf,
    cluster_url: String,
    token: String,
    ca: PathBuf,
}

impl Person {
    fn new(cluster: &Cluster) -> Self {
        let dir = cluster.dir.join("person");
        fs::create_dir(&dir).expect("a folder");
        let this = Self {
            dir,
            cluster_url: cluster.api.url.clone(),
            token: cluster.api.token.clone(),
            ca: cluster.controller_dir().join("ca.pem"),
        };
        let mut keygen = Command::new("ssh-keygen");
        keygen.args(["-q", "-t", "ed25519", "-N", "", "-C", "person", "-f"]).arg(this.key());
        assert!(keygen.status().expect("run ssh-keygen").success());
        this
    }

    fn key(&self) -> PathBuf {
        self.dir.join("key")
    }

    fn public_key(&self) -> String {
        let text = fs::read_to_string(self.dir.join("key.pub")).expect("the public key");
        text.trim().to_owned()
    }

    /// Options of ssh with which it never asks and leaves nothing in the home of whoever runs the tests.
    fn options(&self) -> Vec<String> {
        let known = format!("UserKnownHostsFile={}", self.dir.join("known_hosts").display());
        let options = [&*known, "BatchMode=yes", "ConnectTimeout=60", "LogLevel=ERROR"];
        options.into_iter().flat_map(|option| ["-o".to_owned(), option.to_owned()]).collect()
    }

    /// Runs a command in a guest with `muster ssh`, which needs no published port.
    fn muster_ssh(&self, instance: &Instance, command: &str) -> Result<String, String> {
        let mut muster = Command::new(binary("muster"));
        muster.env("MUSTER_URL", &self.cluster_url).env("MUSTER_TOKEN", &self.token).env("MUSTER_CA", &self.ca);
        muster.arg("ssh").arg("--identity").arg(self.key());
        // The user is the one that the image names.
        muster.arg(&instance.name).arg("--").args(self.options()).arg(command);
        said(muster.output())
    }

    /// Runs a command in a guest by a port of its node that was published.
    fn ssh_by_port(&self, port: u16, command: &str) -> Result<String, String> {
        let mut ssh = Command::new("ssh");
        ssh.args(self.options()).args(["-o", "StrictHostKeyChecking=accept-new", "-o", "IdentitiesOnly=yes", "-i"]);
        ssh.arg(self.key()).args(["-p", &port.to_string(), &format!("{USER}@127.0.0.1"), command]);
        said(ssh.output())
    }
}

fn said(done: std::io::Result<Output>) -> Result<String, String> {
    let done = done.map_err(|e| e.to_string())?;
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    if done.status.success() { Ok(out.trim().to_owned()) } else { Err(format!("{}: {out}{err}", done.status)) }
}

/// Runs a shell command in a guest as root, through its guest agent.
async fn run(instance: &Instance, script: &str) -> String {
    let disk = PathBuf::from(instance.disks[0].path.clone().expect("operators see the path"));
    let (name, script) = (instance.name.clone(), script.to_owned());
    let done = tokio::task::spawn_blocking(move || guest::run(&guest::domain_of(&disk)?, &script));
    done.await.expect("no panic").unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Runs blocking work beside the others.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("no panic")
}

/// All that must differ from one guest to another, as the guest sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Identity {
    instance_id: String,
    host_name: String,
    machine_id: String,
    product_uuid: String,
    host_key: String,
    mac: String,
    address: String,
}

impl Identity {
    async fn of(instance: &Instance) -> Self {
        let seen = run(
            instance,
            "cat /var/lib/cloud/data/instance-id; hostname; cat /etc/machine-id /sys/class/dmi/id/product_uuid; \
             cut -d' ' -f2 /etc/ssh/ssh_host_ed25519_key.pub; cat /sys/class/net/eth0/address; \
             ip -4 -o address show eth0 | tr -s ' ' | cut -d' ' -f4",
        )
        .await;
        let mut lines = seen.lines().map(str::to_owned);
        let mut next = || lines.next().unwrap_or_else(|| panic!("{}: a line is missing in {seen}", instance.name));
        let this = Self {
            instance_id: next(),
            host_name: next(),
            machine_id: next(),
            product_uuid: next(),
            host_key: next(),
            mac: next(),
            address: next(),
        };
        // What Muster says of it is what it sees itself.
        let nic = &instance.nics[0];
        assert_eq!(this.instance_id, instance.id.to_string());
        assert_eq!(this.host_name, instance.host_name);
        assert_eq!(this.product_uuid, instance.id.to_string());
        assert_eq!(this.mac, nic.mac.to_string());
        let address = this.address.split('/').next().expect("an address");
        assert_eq!(Some(address), nic.address_v4.map(|address| address.to_string()).as_deref());
        assert_eq!(this.machine_id.len(), 32, "{this:?}");
        this
    }

    fn parts(&self) -> [&str; 7] {
        let Self { instance_id, host_name, machine_id, product_uuid, host_key, mac, address } = self;
        [instance_id, host_name, machine_id, product_uuid, host_key, mac, address].map(String::as_str)
    }
}

/// Asserts that no two of them have anything in common.
fn all_differ(identities: &[Identity]) {
    for part in 0..7 {
        let values: BTreeSet<&str> = identities.iter().map(|identity| identity.parts()[part]).collect();
        assert_eq!(values.len(), identities.len(), "part {part} is there twice: {identities:#?}");
    }
}

/// What the guests of the test do when they first boot: SSH gets a second port, and the user the key to the others. The key's
/// file belongs to root, because cloud-init writes files before it makes users.
fn user_data(person: &Person) -> String {
    let key = fs::read_to_string(person.key()).expect("the private key");
    let config = json!({
        "write_files": [
            { "path": "/etc/ssh/sshd_config.d/ports.conf", "content": format!("Port 22\nPort {CLOSED}\n") },
            { "path": "/etc/muster-key", "content": key, "permissions": "0444" },
        ],
        "runcmd": [["sh", "-c", "echo user data ran > /etc/muster-ran"]],
    });
    format!("#cloud-config\n{config:#}\n")
}

/// A command that a guest runs to do something in another one by SSH.
fn hop(to: &str, command: &str) -> String {
    format!(
        "ssh -i /etc/muster-key -o BatchMode=yes -o StrictHostKeyChecking=accept-new -o ConnectTimeout=60 -o LogLevel=ERROR {USER}@{to} '{command}'"
    )
}

/// The name that the UEFI variable of this test has in efivarfs.
const VARIABLE: &str = "/sys/firmware/efi/efivars/MusterTest-6d757374-6572-4d55-8554-455244454d4f";

#[tokio::test(flavor = "multi_thread")]
async fn a_debian_fleet_is_reached_and_forked_as_people_expect() {
    let mut steps = Steps::start();
    let cluster = Cluster::start(ClusterOptions::guests(2)).await;
    let api = &cluster.api;
    for (kind, firmware) in [("uefi", Firmware::Uefi), ("bios", Firmware::Bios)] {
        let (dir, name) = (cluster.dir.clone(), format!("debian-{kind}"));
        let file = blocking(move || image(kind, &dir)).await;
        api.import(&name, &file).await;
        fs::remove_file(&file).expect("delete the file");
        let said = api.request(Method::PATCH, &format!("/v1/images/{name}")).json(&json!({ "default_user": USER }));
        let image: Image = api.send(said).await.ok();
        // The import found out by itself what boots it.
        assert_eq!(image.firmware.known(), Some(&firmware), "{image:#?}");
    }
    steps.done("cluster and two images");

    let person = std::sync::Arc::new(Person::new(&cluster));
    let rule = |ports: &str| json!({ "direction": "in", "protocol": "tcp", "ports": ports });
    let out = json!({ "direction": "out", "protocol": "any" });
    let group = json!({ "name": "shell", "rules": [rule("22"), out] });
    let _: Value = api.post("/v1/security-groups", group).await.ok();
    let order = |name: &str, image: &str, count: u64, ports: Value| {
        json!({
            "name": name, "source": { "image": image }, "count": count, "memory_bytes": 384_u64 << 20,
            "ssh_keys": [person.public_key()], "user_data": user_data(&person),
            "nics": [{ "network": "default", "security_groups": ["shell"], "ports": ports }],
            "ready": { "probe": "console", "timeout_s": 1800 },
        })
    };
    // Ports are of the whole host, on which other clusters may publish some, beginning with the first.
    let node_port = 32_000 + std::process::id() % 700;
    let port_22 = json!([{ "port": 22, "node_port": node_port }]);
    let mut started = Vec::new();
    for order in [order("web", "debian-uefi", 2, json!([])), order("old", "debian-bios", 1, port_22)] {
        let operation: Operation = api.post("/v1/deployments", order).await.ok();
        started.push(operation.id.to_string());
    }
    for operation in &started {
        cluster.booted(operation).await;
    }
    steps.done("three guests have booted: two with UEFI, one with a BIOS");

    let (web, old) = (api.instances("web").await, api.instances("old").await.remove(0));
    assert_ne!(web[0].node, web[1].node, "spread");
    for (guest, efi) in [(&web[0], "yes"), (&web[1], "yes"), (&old, "no")] {
        let seen = run(guest, "test -d /sys/firmware/efi && echo yes || echo no; cat /etc/muster-ran").await;
        assert_eq!(seen, format!("{efi}\nuser data ran\n"), "{}", guest.name);
        assert_eq!(guest.disks.iter().any(|disk| disk.name == "nvram"), efi == "yes", "{guest:#?}");
    }
    let mut identities = Vec::new();
    for guest in web.iter().chain([&old]) {
        identities.push(Identity::of(guest).await);
    }
    all_differ(&identities);
    steps.done("who they are");

    // From the host: through the controller, and by a published port of the node.
    let ask = |guest: &Instance, command: String| {
        let (person, guest) = (person.clone(), guest.clone());
        blocking(move || person.muster_ssh(&guest, &command).unwrap_or_else(|e| panic!("{}: {e}", guest.name)))
    };
    assert_eq!(ask(&web[0], "whoami; hostname".to_owned()).await, format!("{USER}\nweb-0"));
    let port = old.nics[0].ports[0].node_port;
    let by_port = {
        let person = person.clone();
        blocking(move || person.ssh_by_port(port, "hostname"))
    }
    .await;
    assert_eq!(by_port.as_deref(), Ok("old-0"));
    steps.done("SSH from the host");

    // From guest to guest by name, on the other node, and back.
    let (there, back) = tokio::join!(ask(&web[0], hop("web-1", "hostname")), ask(&web[1], hop("web-0", "hostname")));
    assert_eq!((&*there, &*back), ("web-1", "web-0"));
    steps.done("SSH from guest to guest");

    // Whatever the groups do not let in is dropped, although somebody listens there and the group could let it in.
    let banner = |host: &str, limit_s: u32| {
        format!("timeout {limit_s} bash -c 'head -c 8 < /dev/tcp/{host}/{CLOSED}' || echo status $?")
    };
    assert_eq!(ask(&web[1], banner("127.0.0.1", 60)).await, "SSH-2.0-");
    assert_eq!(ask(&web[0], banner("web-1", 5)).await, "status 124");
    let open = api.request(Method::PATCH, "/v1/security-groups/shell");
    let open = open.json(&json!({ "rules": [rule("22"), rule(&CLOSED.to_string()), out] }));
    let _: Value = api.send(open).await.ok();
    eventually("the port is open", PATIENCE, async || match &*ask(&web[0], banner("web-1", 20)).await {
        "SSH-2.0-" => Ok(()),
        other => Err(other.to_owned()),
    })
    .await;
    let close = api.request(Method::PATCH, "/v1/security-groups/shell").json(&json!({ "rules": [rule("22"), out] }));
    let _: Value = api.send(close).await.ok();
    steps.done("a port that is closed, opened, and closed");

    let outside = Outside::start();
    let look = format!("timeout 60 bash -c 'cat < /dev/tcp/{}/80'", outside.address);
    for guest in [&web[0], &old] {
        assert_eq!(ask(guest, look.clone()).await, format!("outside-sees {}", outside.host));
    }
    steps.done("the outside by NAT");

    for guest in &web {
        let script =
            format!("printf '\\007\\000\\000\\000{}' > {VARIABLE}; echo {} > /root/kept; sync", guest.name, guest.name);
        run(guest, &script).await;
        // A file that is written all the time, so that the file system is busy at the cut.
        run(guest, "systemd-run -q --unit busy sh -c 'while sleep 0.2; do date > /root/busy; done'").await;
    }
    eventually("the guest agents are known", PATIENCE, async || {
        for guest in &web {
            let now: Instance = api.get(&format!("/v1/instances/{}", guest.id)).await.ok();
            now.guest.filter(|guest| guest.answers).ok_or_else(|| format!("{} tells nothing", guest.name))?;
        }
        Ok(())
    })
    .await;
    let body = json!({ "name": "cut", "select": { "deployment": "web" }, "consistency": "filesystem", "max_pause_ms": 10_000 });
    api.done("/v1/snapshots", body, PATIENCE).await;
    let members: Vec<SnapshotMember> = api.list("/v1/snapshots/cut/members").await;
    let disks: Vec<&str> = members.iter().map(|member| &*member.disk_name).collect();
    assert_eq!(disks.iter().filter(|name| **name == "nvram").count(), 2, "{disks:?}");
    let snapshot: Snapshot = api.snapshot("cut").await;
    println!("          pause {:?} ms, {} MiB stored", snapshot.pause_max_ms, snapshot.stored_bytes >> 20);
    for guest in &web {
        run(guest, "systemctl stop busy; touch /root/after; sync").await;
    }
    steps.done("snapshot");

    let fork = json!({ "name": "copy", "source": { "snapshot": "cut" }, "memory_bytes": 384_u64 << 20,
        "ready": { "probe": "console", "timeout_s": 1800 } });
    let operation: Operation = api.post("/v1/deployments", fork).await.ok();
    cluster.booted(&operation.id.to_string()).await;
    steps.done("two guests of a fork have booted");

    let copy = api.instances("copy").await;
    for (copy, original) in copy.iter().zip(&web) {
        identities.push(Identity::of(copy).await);
        let seen = run(
            copy,
            &format!(
                "cat /root/kept; cat {VARIABLE} | tail -c +5; echo; ls /root/after 2>/dev/null; cat /etc/muster-ran"
            ),
        )
        .await;
        assert_eq!(seen, format!("{0}\n{0}\nuser data ran\n", original.name), "{}", copy.name);
        let kernel = run(copy, "dmesg | grep EXT4-fs").await;
        assert!(kernel.contains("mounted filesystem") && !kernel.contains("recovery"), "{kernel}");
    }
    all_differ(&identities);
    steps.done("who the forks are");

    // Both fleets work side by side, and the first one is what it was.
    let (own, other, back) = tokio::join!(
        ask(&copy[0], hop("copy-1", "hostname")),
        ask(&copy[1], hop("web-0", "hostname")),
        ask(&web[0], hop("copy-1", "hostname")),
    );
    assert_eq!((&*own, &*other, &*back), ("copy-1", "web-0", "copy-1"));
    let (closed, out) = tokio::join!(ask(&copy[0], banner("copy-1", 5)), ask(&copy[1], look));
    assert_eq!((closed, out), ("status 124".to_owned(), format!("outside-sees {}", outside.host)));
    for (guest, before) in web.iter().zip(&identities) {
        assert_eq!(&Identity::of(guest).await, before);
    }
    steps.done("both fleets side by side");
}
