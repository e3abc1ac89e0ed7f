//! Does KVM work here? A device node proves nothing: inside some virtual machines `/dev/kvm` opens and simple code runs,
//! but a real kernel hangs on its way to 64-bit mode. So a kernel is booted, for real, with a time limit.
//!
//! What is booted: a kernel that is at hand (the host's own in `/boot`, one the demo image left in its cache, or
//! `MUSTER_PROBE_KERNEL`), without a root disk: it has passed when it looks for one, because by then it has decompressed
//! itself, set up paging, clock, interrupts and all its drivers. With no kernel at hand the answer is plain emulation: a
//! slow guest is better than one that never boots.
//!
//! The verdict is kept in `DATA/kvm-probe.json`, and for other agents of the machine in `/var/cache/muster`, under a key
//! of everything it depends on: host kernel, QEMU, processor, and this form of the probe.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{io::AsyncReadExt as _, process::Command, time::Instant};

use super::Acceleration;

/// What `--hypervisor` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Choice {
    /// KVM where a probe boot works, else plain QEMU emulation.
    #[default]
    Auto,
    /// KVM, unproved.
    Kvm,
    /// Plain QEMU emulation.
    Qemu,
}

/// How it came out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// What runs guests.
    pub acceleration: Acceleration,
    /// Why, in a sentence: the detail of condition `no_kvm`.
    pub why: String,
    /// What it depends on.
    key: String,
}

const QEMU: &str = "qemu-system-x86_64";
const KVM: &str = "/dev/kvm";
/// A kernel under working KVM, nested twice, is there in 3 s.
const BOOT_LIMIT: Duration = Duration::from_secs(10);
/// Console text behind which a kernel is up: it looks for its root and has none.
const PASSED: [&str; 4] =
    ["VFS: Cannot open root device", "VFS: Unable to mount root", "Run /init as init", "Run /sbin/init as init"];
const FORM: u32 = 2;
const FILE: &str = "kvm-probe.json";
/// A probe that hangs costs [`BOOT_LIMIT`]: once per machine is enough.
const SHARED: &str = "/var/cache/muster";

/// Chooses, and remembers the choice in `data_dir` and for the machine's other agents.
pub async fn choose(choice: Choice, data_dir: &Path) -> Verdict {
    choose_in(choice, &[data_dir, Path::new(SHARED)]).await
}

async fn choose_in(choice: Choice, dirs: &[&Path]) -> Verdict {
    let told = |acceleration| Verdict {
        acceleration,
        why: format!("chosen by --hypervisor {acceleration}"),
        key: String::new(),
    };
    match choice {
        Choice::Kvm => told(Acceleration::Kvm),
        Choice::Qemu => told(Acceleration::Qemu),
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
            tracing::info!(acceleration = %verdict.acceleration, "probed for KVM: {}", verdict.why);
            for file in files {
                if let Err(error) = remember(&file, &verdict) {
                    tracing::debug!(%error, "the result of the KVM probe could not be kept in {}", file.display());
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

/// Kernels at hand, best first.
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

/// Boots; how long it took, or why not.
async fn probe(kernel: Option<&Path>) -> Result<Duration, String> {
    match fs::OpenOptions::new().read(true).write(true).open(KVM).and_then(|file| file.metadata()) {
        Err(error) => return Err(format!("{KVM} cannot be opened: {error}")),
        // Guests run as a user of their own.
        Ok(meta) if meta.permissions().mode() & 0o066 == 0 => {
            return Err(format!("{KVM} can be opened by root only, QEMU runs as another user (chgrp kvm, chmod 660)"));
        }
        Ok(_) => {}
    }
    let Some(kernel) = kernel else {
        return Err("no kernel at hand for a probe boot (none in /boot, none in the demo image's cache)".to_owned());
    };
    let started = Instant::now();
    let mut qemu = Command::new(QEMU)
        .args([
            "-machine",
            "q35,accel=kvm",
            "-cpu",
            "host",
            "-m",
            "256",
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
        ])
        .args(["-display", "none", "-serial", "stdio", "-kernel"])
        .arg(kernel)
        .args(["-append", "console=ttyS0 panic=-1 root=/dev/none rootwait=0"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{QEMU} does not start: {error}"))?;
    let mut console = Vec::new();
    let watched = async {
        let Some(mut out) = qemu.stdout.take() else { return false };
        let mut buffer = [0_u8; 4096];
        while let Ok(n @ 1..) = out.read(&mut buffer).await {
            console.extend_from_slice(buffer.get(..n).unwrap_or_default());
            let text = String::from_utf8_lossy(&console);
            if PASSED.iter().any(|passed| text.contains(passed)) {
                return true;
            }
        }
        false
    };
    let passed = tokio::time::timeout(BOOT_LIMIT, watched).await;
    // A hung guest does not hold its process: the signal ends it. Reaped here, so that nothing is left behind.
    let _ = qemu.kill().await;
    match passed {
        Ok(true) => Ok(started.elapsed()),
        Ok(false) => Err(format!("a probe boot of {} under KVM ended early", kernel.display())),
        Err(_) => Err(format!("a probe boot of {} under KVM was not there after {BOOT_LIMIT:?}", kernel.display())),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[tokio::test]
    async fn a_told_choice_is_not_probed() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(choose_in(Choice::Kvm, &[dir.path()]).await.acceleration, Acceleration::Kvm);
        assert_eq!(choose_in(Choice::Qemu, &[dir.path()]).await.acceleration, Acceleration::Qemu);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn the_verdict_is_probed_once() {
        let dir = tempfile::tempdir().unwrap();
        let first = choose_in(Choice::Auto, &[dir.path()]).await;
        // Whether it was probed again would show in how long it took; that it was remembered shows here.
        assert_eq!(remembered(&dir.path().join(FILE)), Some(first.clone()));
        // Another agent of the machine.
        let other = tempfile::tempdir().unwrap();
        assert_eq!(choose_in(Choice::Auto, &[other.path(), dir.path()]).await, first);
        assert_eq!(fs::read_dir(other.path()).unwrap().count(), 0);
    }
}
