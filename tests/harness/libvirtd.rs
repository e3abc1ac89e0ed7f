//! A libvirtd for one test, beside the one of the machine: a test can kill it without disturbing others.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind, mount_change, unmount};

use crate::{eventually, guest};

/// Starts virtlogd, which keeps the consoles, in a mount namespace of its own. There the folders are empty in which
/// libvirtd keeps its state and finds what it starts by itself: the domains, networks and pools of the machine.
const VIRTLOGD: &str = r#"
set -eu
mkdir -p /run/libvirt /var/log/libvirt
if [ -e /etc/libvirt/qemu.conf ]; then cp -p /etc/libvirt/qemu.conf "$1/"; fi
for dir in /run/libvirt /var/lib/libvirt /var/log/libvirt /etc/libvirt; do mount -t tmpfs -o mode=755 tmpfs "$dir"; done
if [ -e "$1/qemu.conf" ]; then cp -p "$1/qemu.conf" /etc/libvirt/; fi
exec virtlogd --pid-file "$1/virtlogd.pid"
"#;

/// A libvirtd with its virtlogd. Dropping it ends both, and its guests.
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
        // Disks are mounted below this folder later. Shared, those mounts appear in the namespace of this libvirtd as
        // well.
        mount_bind(dir, dir).expect("make the folder a mount");
        mount_change(dir, MountPropagationFlags::SHARED).expect("share the mounts below the folder");
        let socket_dir = format!("unix_sock_dir = \"{}\"\nauth_unix_rw = \"none\"\n", dir.display());
        fs::write(dir.join("libvirtd.conf"), socket_dir).expect("write libvirtd.conf");
        let mut virtlogd = dying_with_the_test("unshare");
        virtlogd.args(["--mount", "--propagation", "slave", "sh", "-c", VIRTLOGD, "virtlogd"]).arg(dir);
        let virtlogd = spawn(virtlogd, &dir.join("virtlogd.log"));
        // Look for the pid file first. Until it exists the process may still be in the machine's namespace, where the
        // socket is that of another virtlogd.
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

    /// The value of an agent's `--libvirt-uri`.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("qemu+unix:///system?socket={}", self.dir().join("libvirt-sock").display())
    }

    /// Kills libvirtd with SIGKILL; virtlogd and the guests go on.
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

/// A command that the kernel kills when this thread ends, even if the test was killed.
fn dying_with_the_test(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", program]);
    // What libvirt starts to make a TPM runs as another user, which cannot write into the folder of the tests.
    command.env_remove("TMPDIR");
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
