//! A libvirtd of the test's own, beside the machine's: it may crash without anybody else noticing.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind, mount_change, unmount};

use crate::{eventually, guest};

/// In a mount namespace with empty folders where libvirtd keeps state and finds what it starts by itself (domains,
/// networks and pools of the machine, which are not ours), the daemon of the consoles.
const VIRTLOGD: &str = r#"
set -eu
mkdir -p /run/libvirt /var/log/libvirt
if [ -e /etc/libvirt/qemu.conf ]; then cp -p /etc/libvirt/qemu.conf "$1/"; fi
for dir in /run/libvirt /var/lib/libvirt /var/log/libvirt /etc/libvirt; do mount -t tmpfs -o mode=755 tmpfs "$dir"; done
if [ -e "$1/qemu.conf" ]; then cp -p "$1/qemu.conf" /etc/libvirt/; fi
exec virtlogd --pid-file "$1/virtlogd.pid"
"#;

/// Dropping it ends its guests too.
pub struct Libvirtd {
    folder: tempfile::TempDir,
    virtlogd: Child,
    libvirtd: Child,
}

impl Libvirtd {
    /// Starts it and waits until it answers.
    pub async fn start() -> Self {
        let parent = std::env::var_os("TMPDIR").unwrap_or_else(|| "/var/tmp".into());
        let folder = tempfile::Builder::new().prefix("libvirtd-").tempdir_in(parent).expect("a folder");
        let dir = folder.path();
        fs::set_permissions(dir, fs::Permissions::from_mode(0o711)).expect("make the folder passable");
        // What is mounted below it later, is mounted for this libvirtd and its guests too.
        mount_bind(dir, dir).expect("make the folder a mount");
        mount_change(dir, MountPropagationFlags::SHARED).expect("share the mounts below the folder");
        let socket_dir = format!("unix_sock_dir = \"{}\"\nauth_unix_rw = \"none\"\n", dir.display());
        fs::write(dir.join("libvirtd.conf"), socket_dir).expect("write libvirtd.conf");
        let mut virtlogd = dying_with_the_test("unshare");
        virtlogd.args(["--mount", "--propagation", "slave", "sh", "-c", VIRTLOGD, "virtlogd"]).arg(dir);
        let virtlogd = spawn(virtlogd, &dir.join("virtlogd.log"));
        // The file first: until then the process's root may be the machine's, with a socket of another virtlogd.
        let socket = PathBuf::from(format!("/proc/{}/root/run/libvirt/virtlogd-sock", virtlogd.id()));
        eventually("virtlogd listens", Duration::from_secs(20), async || {
            let log = || fs::read_to_string(dir.join("virtlogd.log")).unwrap_or_default();
            if dir.join("virtlogd.pid").exists() && socket.exists() { Ok(()) } else { Err(log()) }
        })
        .await;
        let libvirtd = spawn_libvirtd(dir, &virtlogd);
        let this = Self { folder, virtlogd, libvirtd };
        this.answers().await;
        this
    }

    /// The folder below which a cluster's disks must be.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// What an agent has to be told.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("qemu+unix:///system?socket={}", self.dir().join("libvirt-sock").display())
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.libvirtd.kill().expect("kill libvirtd");
        self.libvirtd.wait().expect("reap libvirtd");
    }

    /// Starts it again after [`Self::kill`] and waits until it answers.
    pub async fn start_again(&mut self) {
        self.libvirtd = spawn_libvirtd(self.dir(), &self.virtlogd);
        self.answers().await;
    }

    async fn answers(&self) {
        eventually("libvirtd answers", Duration::from_secs(60), async || {
            guest::virsh(&self.uri(), &["version"]).map_err(|e| {
                format!("{e}\n{}", fs::read_to_string(self.dir().join("libvirtd.log")).unwrap_or_default())
            })
        })
        .await;
    }
}

fn spawn_libvirtd(dir: &Path, virtlogd: &Child) -> Child {
    let mut command = dying_with_the_test("nsenter");
    command.arg(format!("--mount=/proc/{}/ns/mnt", virtlogd.id())).arg("libvirtd");
    command.arg("--config").arg(dir.join("libvirtd.conf")).arg("--pid-file").arg(dir.join("libvirtd.pid"));
    spawn(command, &dir.join("libvirtd.log"))
}

/// A command that the kernel kills when this thread ends, also when somebody kills the test.
fn dying_with_the_test(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", program]);
    command
}

fn spawn(mut command: Command, log: &Path) -> Child {
    let file = || File::options().create(true).append(true).open(log).expect("open the log file");
    command.stdin(Stdio::null()).stdout(file()).stderr(file());
    command.spawn().unwrap_or_else(|e| panic!("cannot start {}: {e}", command.get_program().display()))
}

impl Drop for Libvirtd {
    fn drop(&mut self) {
        for qemu in guest::processes_under(self.folder.path()) {
            let _gone = rustix::process::kill_process(qemu, rustix::process::Signal::KILL);
        }
        for daemon in [&mut self.libvirtd, &mut self.virtlogd] {
            drop(daemon.kill());
            drop(daemon.wait());
        }
        let _gone = unmount(self.folder.path(), UnmountFlags::DETACH);
    }
}
