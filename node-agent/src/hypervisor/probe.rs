//! Finds out whether KVM works on this host. That `/dev/kvm` exists proves nothing: inside some virtual machines it
//! opens and simple code runs, but a real kernel hangs on its way to 64-bit mode. So the probe boots a kernel, with a
//! time limit.
//!
//! The kernel is one that is on the host already: `MUSTER_PROBE_KERNEL`, one in the cache of the demo image, or the
//! host's own in `/boot`. It boots without a root disk, and has passed when it looks for one: by then it has
//! decompressed itself and set up paging, clock, interrupts and all drivers. Without a kernel the answer is plain
//! emulation, because a slow guest is better than one that never boots.
//!
//! The verdict is stored in `DATA/kvm-probe.json`, and in `/var/cache/muster` for other agents of the machine. It is
//! stored with a key of everything it depends on: host kernel, QEMU, processor, and the form of the probe.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::AsyncReadExt as _,
    process::{Child, ChildStdout, Command},
    time::Instant,
};

use super::Acceleration;

/// The value of the setting `hypervisor`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    /// KVM if a probe boot works, else plain QEMU.
    #[default]
    Auto,
    /// KVM, without a probe boot.
    Kvm,
    /// Plain QEMU, which emulates the processor.
    Qemu,
}

/// The result of a probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// What executes the instructions of guests.
    pub acceleration: Acceleration,
    /// The reason in a sentence, for the detail of condition `no_kvm`.
    pub why: String,
    /// Everything the result depends on. It is probed again when this changes.
    key: String,
}

const QEMU: &str = "qemu-system-x86_64";
const KVM: &str = "/dev/kvm";
/// Time limit of a probe boot. Under working KVM, nested twice, a kernel needs 3 s.
const BOOT_LIMIT: Duration = Duration::from_secs(10);
/// Console output of a kernel that is up: it looks for its root disk, and has none.
const PASSED: [&str; 4] =
    ["VFS: Cannot open root device", "VFS: Unable to mount root", "Run /init as init", "Run /sbin/init as init"];
/// Version of the probe. A higher number makes all hosts probe again.
const FORM: u32 = 2;
const FILE: &str = "kvm-probe.json";
/// Folder that all agents of the machine share, so that a probe that hangs costs [`BOOT_LIMIT`] only once.
const SHARED: &str = "/var/cache/muster";

/// Chooses what executes guests. A probe is stored in `data_dir` and for other agents of the machine.
pub async fn choose(choice: Choice, data_dir: &Path) -> Verdict {
    choose_in(choice, &[data_dir, Path::new(SHARED)]).await
}

async fn choose_in(choice: Choice, dirs: &[&Path]) -> Verdict {
    let configured = |acceleration| Verdict {
        acceleration,
        why: format!("chosen by --hypervisor {acceleration}"),
        key: String::new(),
    };
    match choice {
        Choice::Kvm => configured(Acceleration::Kvm),
        Choice::Qemu => configured(Acceleration::Qemu),
        Choice::Auto => {
            let kernel = kernels().into_iter().next();
            let key = key(kernel.as_deref()).await;
            let files: Vec<PathBuf> = dirs.iter().map(|dir| dir.join(FILE)).collect();
            if let Some(verdict) = files.iter().filter_map(|file| remembered(file)).find(|verdict| verdict.key == key) {
                return verdict;
            }
            let verdict = match probe(kernel.as_deref()).await {
                Ok(took) => Verdict {
                    acceleration: Acceleration::Kvm,
                    why: format!("a probe boot under KVM passed in {} ms", took.as_millis()),
                    key,
                },
                Err(why) => Verdict { acceleration: Acceleration::Qemu, why, key },
            };
            tracing::info!(acceleration = %verdict.acceleration, "probed KVM: {}", verdict.why);
            for file in files {
                if let Err(error) = remember(&file, &verdict) {
                    tracing::debug!(%error, "the result of the KVM probe could not be stored in {}", file.display());
                }
            }
            verdict
        }
    }
}

fn remembered(file: &Path) -> Option<Verdict> {
    serde_json::from_slice(&fs::read(file).ok()?).ok()
}

fn remember(file: &Path, verdict: &Verdict) -> io::Result<()> {
    if let Some(dir) = file.parent() {
        fs::create_dir_all(dir)?;
    }
    let new = file.with_extension(format!("{}.new", std::process::id()));
    fs::write(&new, serde_json::to_vec_pretty(verdict)?)?;
    fs::rename(new, file)
}

/// Kernels on this host that can be read, best first.
fn kernels() -> Vec<PathBuf> {
    let newest = |dir: &Path, wanted: &dyn Fn(&str) -> bool| -> Vec<PathBuf> {
        let mut found: Vec<_> = fs::read_dir(dir)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.file_name().to_str().is_some_and(wanted))
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .filter(|(_, path)| fs::File::open(path).is_ok())
            .collect();
        found.sort();
        found.into_iter().rev().map(|(_, path)| path).collect()
    };
    let mut found: Vec<PathBuf> = std::env::var_os("MUSTER_PROBE_KERNEL").map(PathBuf::from).into_iter().collect();
    let caches = [
        std::env::var_os("XDG_CACHE_HOME").map(|dir| PathBuf::from(dir).join("muster")),
        Some(PathBuf::from("/var/cache/muster")),
        std::env::var_os("HOME").map(|dir| PathBuf::from(dir).join(".cache/muster")),
    ];
    for cache in caches.into_iter().flatten() {
        found.extend(newest(&cache.join("images"), &|name| name.ends_with(".vmlinuz")));
    }
    found.extend(newest(Path::new("/boot"), &|name| name.starts_with("vmlinuz")));
    found
}

async fn key(kernel: Option<&Path>) -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find(|line| line.starts_with("model name")).unwrap_or_default();
    let qemu = Command::new(QEMU).arg("--version").stdin(Stdio::null()).output().await;
    let qemu = qemu.map(|out| String::from_utf8_lossy(&out.stdout).lines().next().unwrap_or_default().to_owned());
    format!(
        "form {FORM}; kernel {} {}; {model}; {}; kvm {}; probe {}",
        read("/proc/sys/kernel/osrelease"),
        read("/proc/sys/kernel/version"),
        qemu.unwrap_or_default(),
        Path::new(KVM).exists(),
        kernel.map(|path| path.display().to_string()).unwrap_or_default(),
    )
}

/// Boots a kernel under KVM. Returns the time it took, or why KVM is not used.
async fn probe(kernel: Option<&Path>) -> Result<Duration, String> {
    check_device()?;
    let Some(kernel) = kernel else {
        let searched = "none in /boot, none in the cache of the demo image";
        return Err(format!("there is no kernel for a probe boot ({searched})"));
    };
    let started = Instant::now();
    let mut qemu = start_qemu(kernel).map_err(|error| format!("{QEMU} does not start: {error}"))?;
    let out = qemu.stdout.take().expect("its output is a pipe");
    let passed = tokio::time::timeout(BOOT_LIMIT, boots(out)).await;
    // The signal also ends a QEMU whose guest hangs. `kill` waits for the process, so that no zombie is left.
    let _ = qemu.kill().await;
    match passed {
        Ok(true) => Ok(started.elapsed()),
        Ok(false) => Err(format!("a probe boot of {} under KVM ended early", kernel.display())),
        Err(_) => Err(format!("a probe boot of {} under KVM did not finish within {BOOT_LIMIT:?}", kernel.display())),
    }
}

/// Checks that this process and QEMU, which runs as another user, can open the device.
fn check_device() -> Result<(), String> {
    match fs::OpenOptions::new().read(true).write(true).open(KVM).and_then(|file| file.metadata()) {
        Err(error) => Err(format!("{KVM} cannot be opened: {error}")),
        Ok(meta) if meta.permissions().mode() & 0o066 == 0 => {
            let hint = "chgrp kvm, chmod 660";
            Err(format!("{KVM} can only be opened by root, but QEMU runs as another user ({hint})"))
        }
        Ok(_) => Ok(()),
    }
}

fn start_qemu(kernel: &Path) -> io::Result<Child> {
    Command::new(QEMU)
        .args(["-machine", "q35,accel=kvm", "-cpu", "host", "-m", "256"])
        .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio", "-kernel"])
        .arg(kernel)
        .args(["-append", "console=ttyS0 panic=-1 root=/dev/none rootwait=0"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
}

/// Reads the console until the kernel is up (true), or QEMU ends.
async fn boots(mut out: ChildStdout) -> bool {
    let mut console = Vec::new();
    let mut buffer = [0_u8; 4096];
    while let Ok(n @ 1..) = out.read(&mut buffer).await {
        console.extend_from_slice(&buffer[..n]);
        let text = String::from_utf8_lossy(&console);
        if PASSED.iter().any(|passed| text.contains(passed)) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[tokio::test]
    async fn a_configured_choice_is_not_probed() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(choose_in(Choice::Kvm, &[dir.path()]).await.acceleration, Acceleration::Kvm);
        assert_eq!(choose_in(Choice::Qemu, &[dir.path()]).await.acceleration, Acceleration::Qemu);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_verdict_is_probed_once_per_machine() {
        let dir = tempfile::tempdir().unwrap();
        let first = choose_in(Choice::Auto, &[dir.path()]).await;
        // A second probe would only show in its duration, so check that the first one was stored.
        assert_eq!(remembered(&dir.path().join(FILE)), Some(first.clone()));
        // Another agent of the machine finds it and does not store it again.
        let other = tempfile::tempdir().unwrap();
        assert_eq!(choose_in(Choice::Auto, &[other.path(), dir.path()]).await, first);
        assert_eq!(fs::read_dir(other.path()).unwrap().count(), 0);
    }
}
