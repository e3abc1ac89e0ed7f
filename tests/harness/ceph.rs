//! A whole Ceph for one test, of one monitor, one OSD that keeps everything in memory, and its S3 gateway (RGW), without
//! systemd and beside whatever Ceph the machine has. Debian has it as `ceph-mon`, `ceph-osd` and `radosgw`.

use std::{
    fs::{self, File},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use muster_pool::repository::testing::KEY_ID;
use storage_core::repository::{RepositoryKeys, RepositorySettings, WriteMode};

use crate::eventually;

/// Longest time until a part of it answers.
const LIMIT: Duration = Duration::from_secs(120);
/// The bucket that it has. It belongs to the user of [`KEY_ID`].
pub const BUCKET: &str = "muster";
/// The secret key that goes with [`KEY_ID`].
pub const SECRET: &str = "a-secret-of-the-tests";

/// A Ceph with an S3 gateway. Dropping it ends it, and what it has is gone.
pub struct Ceph {
    folder: tempfile::TempDir,
    daemons: Vec<Daemon>,
    port: u16,
}

/// One of its processes. Dropping it ends it.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A gateway that is not the first one. Dropping it ends it.
pub struct Gateway {
    _daemon: Daemon,
    port: u16,
}

impl Gateway {
    /// Its URL.
    #[must_use]
    pub fn endpoint(&self) -> String {
        url(self.port)
    }
}

impl Ceph {
    /// Starts it, makes a user and a bucket.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("ceph-").tempdir().expect("a folder");
        let [monitor, port] = free_ports();
        let mut this = Self { folder, daemons: Vec::new(), port };
        let dir = this.folder.path().to_owned();
        for part in ["mon", "osd", "rgw", "run"] {
            fs::create_dir(dir.join(part)).expect("a folder");
        }
        let fsid = "5a0f4cde-9a52-4f0c-a3a2-3f2a5fe30a11";
        fs::write(dir.join("ceph.conf"), settings(&dir, fsid, monitor)).expect("writes");
        let ring = dir.join("keyring");
        let ring = ring.to_str().expect("a path of tests is text");
        let map = dir.join("monmap");
        let map = map.to_str().expect("a path of tests is text");
        let address = format!("[v1:127.0.0.1:{monitor}]");
        this.run("ceph-authtool", &["--create-keyring", ring, "--gen-key", "-n", "mon.", "--cap", "mon", "allow *"]);
        this.run(
            "ceph-authtool",
            &[ring, "--gen-key", "-n", "client.admin", "--cap", "mon", "allow *", "--cap", "osd", "allow *"],
        );
        this.run("monmaptool", &["--create", "--addv", "a", &address, "--fsid", fsid, map]);
        this.run("ceph-mon", &["--mkfs", "-i", "a", "--monmap", map, "--keyring", ring]);
        let daemon = this.start_daemon("ceph-mon", this.command("ceph-mon", &["-i", "a", "-f"]));
        this.daemons.push(daemon);
        eventually("the monitor answers", LIMIT, async || {
            let said = this.try_run("ceph", &["--connect-timeout", "5", "-s"]);
            said.map_err(|error| format!("{error}\n{}", this.log("ceph-mon")))
        })
        .await;
        let osd = "0e7b8d0e-4a44-4f07-9c7e-5b6b8f5f6d01";
        let number = this.run("ceph", &["osd", "new", osd]);
        let number = number.trim();
        this.run("ceph", &["osd", "crush", "add", number, "1", "root=default", "host=test"]);
        this.run("ceph-osd", &["-i", number, "--mkfs", "--osd-uuid", osd]);
        let daemon = this.start_daemon("ceph-osd", this.command("ceph-osd", &["-i", number, "-f"]));
        this.daemons.push(daemon);
        eventually("the OSD is up", LIMIT, async || {
            let said = this.try_run("ceph", &["--connect-timeout", "5", "osd", "stat"])?;
            if said.contains("1 up") { Ok(()) } else { Err(format!("{said}\n{}", this.log("ceph-osd"))) }
        })
        .await;
        this.start_gateway().await;
        this.add_user("muster", KEY_ID);
        let bucket = Command::new("curl")
            .args(["--silent", "--show-error", "--fail", "-X", "PUT", "--aws-sigv4", "aws:amz:us-east-1:s3", "--user"])
            .arg(format!("{KEY_ID}:{SECRET}"))
            // S3 wants it, and the curl of Debian 12 does not send it unasked.
            .args(["--header", "x-amz-content-sha256: UNSIGNED-PAYLOAD"])
            .arg(format!("{}/{BUCKET}", this.endpoint()))
            .output()
            .expect("curl runs");
        assert!(bucket.status.success(), "the bucket was not made: {}", String::from_utf8_lossy(&bucket.stderr));
        this
    }

    /// Starts the gateway, at the start and after [`Ceph::kill_gateway`].
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start_gateway(&mut self) {
        let daemon = self.gateway("radosgw", self.port, &[]).await;
        self.daemons.push(daemon);
    }

    /// Ends the gateway in the midst of what it does. What it has written stays.
    pub fn kill_gateway(&mut self) {
        drop(self.daemons.pop());
    }

    /// Starts one more gateway to the same objects. Its clock is an hour ahead.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn gateway_ahead(&self) -> Gateway {
        let [port, _] = free_ports();
        // Not the program of the same name, which would stay between us and the gateway, and leave it when it is ended.
        let library = faketime_library();
        // What waits goes by the monotonic clock, which stays as it is.
        let ahead = [("LD_PRELOAD", library.as_str()), ("FAKETIME", "+1h"), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
        Gateway { _daemon: self.gateway("ahead", port, &ahead).await, port }
    }

    /// Adds a user, who has a key with this id and [`SECRET`], and no right to what others have.
    ///
    /// # Panics
    /// When that fails.
    pub fn add_user(&self, name: &str, key_id: &str) {
        let (user, shown) = (format!("--uid={name}"), format!("--display-name={name}"));
        let (key, secret) = (format!("--access-key={key_id}"), format!("--secret-key={SECRET}"));
        self.run("radosgw-admin", &["-n", "client.rgw", "user", "create", &user, &shown, &key, &secret]);
    }

    /// Its URL.
    #[must_use]
    pub fn endpoint(&self) -> String {
        url(self.port)
    }

    /// Settings with which a client reaches it.
    #[must_use]
    pub fn settings(&self, prefix: &str) -> RepositorySettings {
        RepositorySettings {
            bucket: BUCKET.to_owned(),
            prefix: prefix.to_owned(),
            endpoint: Some(self.endpoint()),
            region: "us-east-1".to_owned(),
            write: WriteMode::Behind,
            evict: false,
            allow_http: true,
            ca_pem: None,
            keys: RepositoryKeys {
                access_key_id: KEY_ID.to_owned(),
                secret_access_key: SECRET.to_owned(),
                session_token: None,
            },
        }
    }

    /// Starts a gateway at `port`, and waits until it answers.
    async fn gateway(&self, log: &str, port: u16, environment: &[(&str, &str)]) -> Daemon {
        let front = format!("--rgw-frontends=beast endpoint=127.0.0.1:{port}");
        let mut command = self.command("radosgw", &["-n", "client.rgw", "-f", &front]);
        command.envs(environment.iter().copied());
        let daemon = self.start_daemon(log, command);
        eventually("the gateway answers", LIMIT, async || {
            let answer = reqwest::get(url(port)).await.map_err(|error| format!("{error}\n{}", self.log(log)))?;
            if answer.status().is_success() { Ok(()) } else { Err(answer.status().to_string()) }
        })
        .await;
        daemon
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        // The kernel ends it with this thread, also if the test was killed.
        command.args(["--pdeathsig", "KILL", program]).args(arguments);
        command.env("CEPH_CONF", self.folder.path().join("ceph.conf"));
        command
    }

    fn try_run(&self, program: &str, arguments: &[&str]) -> Result<String, String> {
        let output = self.command(program, arguments).output().map_err(|error| format!("{program}: {error}"))?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            false => Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr))),
        }
    }

    fn run(&self, program: &str, arguments: &[&str]) -> String {
        self.try_run(program, arguments).unwrap_or_else(|error| panic!("{error}"))
    }

    fn start_daemon(&self, name: &str, mut command: Command) -> Daemon {
        let log = File::create(self.folder.path().join(format!("run/{name}.out"))).expect("a file");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("the same file")).stderr(log);
        Daemon(command.spawn().unwrap_or_else(|error| panic!("cannot start {name}: {error}")))
    }

    fn log(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(format!("run/{name}.out"))).unwrap_or_default()
    }
}

impl Drop for Ceph {
    fn drop(&mut self) {
        // The monitor goes last.
        while self.daemons.pop().is_some() {}
    }
}

fn faketime_library() -> String {
    let folders = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"];
    let all = folders.map(|folder| format!("{folder}/faketime/libfaketimeMT.so.1"));
    let found = all.iter().find(|path| Path::new(path).exists());
    found.cloned().unwrap_or_else(|| panic!("the package faketime is missing: none of {all:?}"))
}

fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

/// Two ports that are free now.
fn free_ports() -> [u16; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("an address").port())
}

/// A monitor ends by itself where the disk of the machine is nearly full. Here it keeps nothing that matters, so it does not.
/// An OSD that puts itself on the map ends when it does so before it has heard of the monitor's map (`wrong fsid`, Ceph 16), so
/// it does not.
fn settings(dir: &Path, fsid: &str, monitor: u16) -> String {
    let dir = dir.display();
    format!(
        "[global]
fsid = {fsid}
mon host = [v1:127.0.0.1:{monitor}]
public network = 127.0.0.0/8
ms bind msgr2 = false
auth cluster required = none
auth service required = none
auth client required = none
keyring = {dir}/keyring
run dir = {dir}/run
crash dir = {dir}/run
admin socket = {dir}/run/$cluster-$name.$pid.asok
log file = {dir}/run/$name.log
mon cluster log file = {dir}/run/cluster.log
mon data = {dir}/mon
mon allow pool size one = true
mon data avail crit = 0
mon data avail warn = 0
osd data = {dir}/osd
osd objectstore = memstore
memstore device bytes = 1073741824
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd crush update on start = false
osd class update on start = false
[client.rgw]
rgw data = {dir}/rgw
rgw thread pool size = 16
rgw run sync thread = false
rgw enable usage log = false
"
    )
}
