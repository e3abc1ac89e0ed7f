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
/// The bucket that it has.
pub const BUCKET: &str = "muster";
/// The secret key that goes with [`KEY_ID`].
pub const SECRET: &str = "a-secret-of-the-tests";

/// A Ceph with an S3 gateway. Dropping it ends it, and what it has is gone.
pub struct Ceph {
    folder: tempfile::TempDir,
    daemons: Vec<Child>,
    port: u16,
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
        fs::write(dir.join("ceph.conf"), settings(&dir, fsid, monitor, port)).expect("writes");
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
        this.spawn("ceph-mon", &["-i", "a", "-f"]);
        eventually("the monitor answers", LIMIT, async || this.try_run("ceph", &["--connect-timeout", "5", "-s"]))
            .await;
        let osd = "0e7b8d0e-4a44-4f07-9c7e-5b6b8f5f6d01";
        let number = this.run("ceph", &["osd", "new", osd]);
        this.run("ceph-osd", &["-i", number.trim(), "--mkfs", "--osd-uuid", osd]);
        this.spawn("ceph-osd", &["-i", number.trim(), "-f"]);
        this.spawn("radosgw", &["-n", "client.rgw", "-f"]);
        let endpoint = this.endpoint();
        eventually("the gateway answers", LIMIT, async || {
            let answer = reqwest::get(&endpoint).await.map_err(|error| format!("{error}\n{}", this.log("radosgw")))?;
            if answer.status().is_success() { Ok(()) } else { Err(answer.status().to_string()) }
        })
        .await;
        let (key, secret) = (format!("--access-key={KEY_ID}"), format!("--secret-key={SECRET}"));
        let user = ["-n", "client.rgw", "user", "create", "--uid=muster", "--display-name=muster", &key, &secret];
        this.run("radosgw-admin", &user);
        let bucket = Command::new("curl")
            .args(["--silent", "--show-error", "--fail", "-X", "PUT", "--aws-sigv4", "aws:amz:us-east-1:s3", "--user"])
            .arg(format!("{KEY_ID}:{SECRET}"))
            .arg(format!("{endpoint}/{BUCKET}"))
            .output()
            .expect("curl runs");
        assert!(bucket.status.success(), "the bucket was not made: {}", String::from_utf8_lossy(&bucket.stderr));
        this
    }

    /// Its URL.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
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

    fn spawn(&mut self, program: &str, arguments: &[&str]) {
        let log = File::create(self.folder.path().join(format!("run/{program}.out"))).expect("a file");
        let mut command = self.command(program, arguments);
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("the same file")).stderr(log);
        self.daemons.push(command.spawn().unwrap_or_else(|error| panic!("cannot start {program}: {error}")));
    }

    fn log(&self, program: &str) -> String {
        fs::read_to_string(self.folder.path().join(format!("run/{program}.out"))).unwrap_or_default()
    }
}

impl Drop for Ceph {
    fn drop(&mut self) {
        for daemon in self.daemons.iter_mut().rev() {
            drop(daemon.kill());
            drop(daemon.wait());
        }
    }
}

/// Two ports that are free now.
fn free_ports() -> [u16; 2] {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("an address").port())
}

fn settings(dir: &Path, fsid: &str, monitor: u16, port: u16) -> String {
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
osd data = {dir}/osd
osd objectstore = memstore
memstore device bytes = 1073741824
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
[client.rgw]
rgw data = {dir}/rgw
rgw frontends = beast endpoint=127.0.0.1:{port}
rgw thread pool size = 16
rgw run sync thread = false
rgw enable usage log = false
"
    )
}
