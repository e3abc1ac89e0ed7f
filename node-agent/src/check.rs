//! What this host has and what it lacks, for `muster-agent check`, the conditions in heartbeats, and the offer.

use std::{
    fmt,
    fs::{File, OpenOptions},
    net::SocketAddr,
    path::Path,
};

use muster_api::{
    condition::{Condition, ConditionKind},
    firmware::Firmware,
    node::ObjectAmount,
    node_protocol::Offer,
};

use crate::{
    config::{Config, RuntimeChoice},
    data_disk::Space,
    fenced,
    hypervisor::{firmware, probe},
    mirror, network,
};

/// Clocks that are further apart than this make times in lists and certificates misleading.
const CLOCK_OFF_S: i64 = 5;
/// The first kernel on which guests' disks can outlive the agent's process.
const KERNEL_WANTED: (u32, u32) = (6, 9);

/// What a finding is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Something that becomes a condition of the node when it is not as it should be.
    Condition(ConditionKind),
    /// The user that QEMU runs as.
    QemuUser,
    /// Whether guests can have UEFI firmware, and with Secure Boot.
    Firmware,
    /// Whether guests can have a TPM.
    Tpm,
    /// Whether guests can have networks.
    Networks,
    /// Whether the data folder can hold what guests write.
    DirectIo,
    /// Whether the node of the data folder was declared dead.
    Fenced,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Condition(kind) => kind.fmt(f),
            Self::QemuUser => f.pad("qemu_user"),
            Self::Firmware => f.pad("firmware"),
            Self::Tpm => f.pad("tpm"),
            Self::Networks => f.pad("networks"),
            Self::DirectIo => f.pad("direct_io"),
            Self::Fenced => f.pad("fenced"),
        }
    }
}

/// The result of one look at the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The part of the host that was looked at.
    pub subject: Subject,
    /// Whether it is as it should be.
    pub ok: bool,
    /// Whether the agent cannot work without it.
    pub needed: bool,
    /// What was found and what to do, in a sentence.
    pub detail: String,
}

impl Finding {
    fn new(subject: Subject, needed: bool, found: Result<String, String>) -> Self {
        let ok = found.is_ok();
        let (Ok(detail) | Err(detail)) = found;
        Self { subject, ok, needed, detail }
    }

    fn of(kind: ConditionKind, needed: bool, found: Result<String, String>) -> Self {
        Self::new(Subject::Condition(kind), needed, found)
    }

    fn condition(self) -> Option<Condition> {
        match self.subject {
            Subject::Condition(kind) if !self.ok => Some(Condition { kind, detail: self.detail }),
            _ => None,
        }
    }
}

/// Looks at everything that can be seen without starting anything.
#[must_use]
pub fn host(config: &Config) -> Vec<Finding> {
    let mut findings = vec![fuse(), kernel(), data_dir(config), direct_io(config)];
    // Only told where it is so.
    if let Some(word) = fenced::load(&config.data_dir) {
        let detail = format!("{}; this agent starts no guests (learned at {})", word.detail, word.learned_at);
        findings.insert(0, Finding::new(Subject::Fenced, true, Err(detail)));
    }
    if config.runtime == RuntimeChoice::Libvirt {
        findings.push(kvm(config.hypervisor));
        findings.push(libvirt(&config.libvirt_uri));
        findings.push(uefi());
        findings.push(tpm());
        findings.push(networks(config));
        findings.push(match qemu_user() {
            Some((uid, gid)) => Finding::new(Subject::QemuUser, false, Ok(format!("QEMU runs as {uid}:{gid}"))),
            None => Finding::new(
                Subject::QemuUser,
                false,
                Err("there is no user libvirt-qemu or qemu: disk files will belong to root".to_owned()),
            ),
        });
    }
    findings
}

fn fuse() -> Finding {
    let open = OpenOptions::new().read(true).write(true).open("/dev/fuse");
    Finding::of(
        ConditionKind::NoFuse,
        true,
        open.map(|_| "/dev/fuse can be opened".to_owned())
            .map_err(|e| format!("/dev/fuse cannot be opened ({e}): load the module fuse and run as root")),
    )
}

fn kernel() -> Finding {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let found = if version >= KERNEL_WANTED {
        Ok(format!("Linux {release}"))
    } else {
        let (major, minor) = KERNEL_WANTED;
        Err(format!("Linux {release} is older than {major}.{minor}: guests will not survive a restart of the agent"))
    };
    Finding::of(ConditionKind::OldKernel, false, found)
}

fn kvm(wanted: probe::Choice) -> Finding {
    let open = OpenOptions::new().read(true).write(true).open("/dev/kvm");
    let needed = wanted == probe::Choice::Kvm;
    Finding::of(
        ConditionKind::NoKvm,
        needed,
        open.map(|_| "/dev/kvm can be opened".to_owned())
            .map_err(|e| format!("/dev/kvm cannot be opened ({e}): guests are emulated, which is slow")),
    )
}

fn libvirt(uri: &str) -> Finding {
    if !uri.starts_with("qemu:///") {
        return Finding::of(
            ConditionKind::HypervisorSilent,
            true,
            Ok(format!("{uri} is not on this host and not looked at")),
        );
    }
    let sockets = ["/run/libvirt/libvirt-sock", "/run/libvirt/virtqemud-sock"];
    let found = sockets.iter().find(|socket| std::os::unix::net::UnixStream::connect(socket).is_ok());
    Finding::of(
        ConditionKind::HypervisorSilent,
        true,
        found
            .map(|socket| format!("libvirt answers on {socket}"))
            .ok_or_else(|| "libvirt does not answer: install libvirt-daemon-system and start libvirtd".to_owned()),
    )
}

fn uefi() -> Finding {
    let build = |kind| firmware::build(kind).map(|build| build.expect("it is UEFI").code.display().to_string());
    let found = build(Firmware::Uefi).and_then(|plain| {
        let secure = build(Firmware::UefiSecure)?;
        Ok(format!("guests can have UEFI ({plain}), also with Secure Boot ({secure})"))
    });
    Finding::new(Subject::Firmware, false, found.map_err(|why| format!("not all guests can have UEFI: {why}")))
}

fn tpm() -> Finding {
    let found = firmware::tpm().map(|()| "guests can have a TPM".to_owned());
    Finding::new(Subject::Tpm, false, found.map_err(|why| format!("guests can have no TPM: {why}")))
}

/// Tries a network, which takes a moment and leaves nothing.
fn networks(config: &Config) -> Finding {
    let advertise = config.advertise.unwrap_or(config.listen).to_string();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string());
    let found = runtime.and_then(|runtime| {
        let tunnel = tunnel(config, &advertise)?;
        runtime.block_on(network::probe::lacking_anywhere(tunnel))?;
        Ok(format!(
            "guests can have networks; tunnels between nodes use UDP port {} and are not encrypted",
            tunnel.port()
        ))
    });
    Finding::new(Subject::Networks, false, found.map_err(|why| format!("guests can have no networks: {why}")))
}

/// Where this node takes packets of the tunnels between networks.
///
/// # Errors
/// When others reach it at no particular address.
pub fn tunnel(config: &Config, advertise: &str) -> Result<SocketAddr, String> {
    let reached: SocketAddr = advertise.parse().map_err(|_| format!("{advertise} is no IP:PORT"))?;
    Ok(SocketAddr::new(reached.ip(), config.tunnel_port.unwrap_or(reached.port())))
}

/// The data folder, or the first folder above it that exists; for a relative path at last the working folder.
fn existing_dir(config: &Config) -> &Path {
    let mut above = config.data_dir.ancestors();
    above.find(|dir| dir.exists()).unwrap_or(Path::new("."))
}

fn direct_io(config: &Config) -> Finding {
    let dir = existing_dir(config);
    let found = mirror::check_direct_io(dir);
    Finding::new(
        Subject::DirectIo,
        true,
        found.map(|()| format!("{} takes direct writes", dir.display())).map_err(|e| e.to_string()),
    )
}

fn data_dir(config: &Config) -> Finding {
    let dir = existing_dir(config);
    let found = Space::of(dir).map_err(|e| format!("{} cannot be asked for its space: {e}", dir.display()));
    let found = found.and_then(|space| {
        let floor = config.reserves(space.total_bytes).objects_bytes();
        if space.free_bytes > floor {
            Ok(format!("{} MiB free, {} MiB of them kept free", space.free_bytes >> 20, floor >> 20))
        } else {
            Err(format!(
                "{} MiB free on {}, {} MiB are kept free: the pool takes nothing (--keep-free, --mirror-reserve)",
                space.free_bytes >> 20,
                dir.display(),
                floor >> 20
            ))
        }
    });
    Finding::of(ConditionKind::DiskFull, false, found)
}

/// The conditions for heartbeats. `seen` is what the agent found while working.
#[must_use]
pub fn conditions(config: &Config, seen: &Seen) -> Vec<Condition> {
    let libvirt = config.runtime == RuntimeChoice::Libvirt;
    let mut all: Vec<Condition> = [fuse(), kernel()].into_iter().filter_map(Finding::condition).collect();
    let said = |otherwise: &str| seen.detail.clone().unwrap_or_else(|| otherwise.to_owned());
    if libvirt && !seen.libvirt {
        all.push(Condition { kind: ConditionKind::HypervisorSilent, detail: said("libvirt does not answer") });
    } else if libvirt && !seen.kvm {
        all.push(Condition { kind: ConditionKind::NoKvm, detail: said("guests are emulated, which is slow") });
    }
    if let Some(detail) = &seen.pool_full {
        all.push(Condition { kind: ConditionKind::DiskFull, detail: detail.clone() });
    }
    if let Some(detail) = seen.node_full.clone() {
        all.push(Condition { kind: ConditionKind::NodeFull, detail });
    }
    if let Some(detail) = seen.disk_failed.clone() {
        all.push(Condition { kind: ConditionKind::DiskFailed, detail });
    }
    if seen.lost.objects > 0 {
        let ObjectAmount { objects, bytes } = seen.lost;
        let detail = format!("{objects} objects of this node's share of the pool are lost, {bytes} bytes");
        all.push(Condition { kind: ConditionKind::ObjectsLost, detail });
    }
    if let Some(offset) = seen.clock_offset_s.filter(|s| s.abs() > CLOCK_OFF_S) {
        let detail = format!("the controller's clock is {offset} s ahead of this node's");
        all.push(Condition { kind: ConditionKind::ClockOff, detail });
    } else if let Some(detail) = seen.clock_trouble.clone() {
        all.push(Condition { kind: ConditionKind::ClockOff, detail });
    }
    all
}

/// What the agent found while working.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Whether libvirt answers. Also false on a node that runs no guests.
    pub libvirt: bool,
    /// Whether guests run on KVM.
    pub kvm: bool,
    /// Why libvirt does not answer or KVM is not used.
    pub detail: Option<String>,
    /// Set while the pool takes nothing new: why.
    pub pool_full: Option<String>,
    /// Set while the node takes no new instances because its disk is nearly full: why.
    pub node_full: Option<String>,
    /// Set when the disk has failed for good: where and how.
    pub disk_failed: Option<String>,
    /// What this node's share of the pool has lost.
    pub lost: ObjectAmount,
    /// The controller's clock minus this node's; none before its first answer.
    pub clock_offset_s: Option<i64>,
    /// Set while certificates of other nodes are not valid at this node's time: which ones.
    pub clock_trouble: Option<String>,
}

/// What this node offers to instances: what the configuration says, else all that the host has.
#[must_use]
pub fn offer(config: &Config) -> Offer {
    let cpus = config.cpus.unwrap_or_else(|| {
        std::thread::available_parallelism().ok().and_then(|n| u32::try_from(n.get()).ok()).unwrap_or(1)
    });
    let memory_bytes = config.memory_bytes.unwrap_or_else(|| {
        let info = rustix::system::sysinfo();
        // The types differ between architectures.
        #[allow(clippy::useless_conversion, reason = "unsigned long is 32 bits on some targets")]
        u64::from(info.totalram).saturating_mul(u64::from(info.mem_unit))
    });
    Offer { cpus, memory_bytes }
}

/// The user and group that QEMU runs as under libvirt.
#[must_use]
pub fn qemu_user() -> Option<(u32, u32)> {
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    ["libvirt-qemu", "qemu"].iter().find_map(|wanted| {
        let line = users.lines().find(|line| line.split(':').next() == Some(wanted))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    })
}

/// The user and group that disk files belong to: QEMU's, or the agent's own on a node without QEMU.
#[must_use]
pub fn disk_owner(config: &Config) -> (u32, u32) {
    let own = || (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    match config.runtime {
        RuntimeChoice::Libvirt => qemu_user().unwrap_or_else(own),
        RuntimeChoice::None => own(),
    }
}

/// An exclusive lock on a data folder, held as long as this value lives.
#[derive(Debug)]
pub struct DataLock {
    _file: File,
}

impl DataLock {
    /// Takes `DATA/agent.lock`. The kernel frees it when the process ends.
    ///
    /// # Errors
    /// `WouldBlock` when another agent has it.
    pub fn take(data_dir: &Path) -> std::io::Result<Self> {
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(data_dir.join("agent.lock"))?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_locked_once() {
        let dir = tempfile::tempdir().expect("folder");
        let first = DataLock::take(dir.path()).expect("free");
        let second = DataLock::take(dir.path()).expect_err("taken");
        assert_eq!(second.kind(), std::io::ErrorKind::WouldBlock);
        drop(first);
        DataLock::take(dir.path()).expect("free again");
    }

    #[test]
    fn only_what_is_stated_is_offered() {
        let config = Config { cpus: Some(3), memory_bytes: Some(1 << 30), ..Config::new("/x".into()) };
        assert_eq!(offer(&config), Offer { cpus: 3, memory_bytes: 1 << 30 });
        let host = offer(&Config::new("/x".into()));
        assert!(host.cpus >= 1 && host.memory_bytes > 1 << 20);
    }

    #[test]
    fn a_clock_that_is_off_a_full_pool_and_lost_objects_are_conditions() {
        let config = Config { runtime: RuntimeChoice::None, ..Config::new("/x".into()) };
        let kinds = |seen: &Seen| -> Vec<_> { conditions(&config, seen).into_iter().map(|c| c.kind).collect() };
        let untimely = Seen { clock_trouble: Some("not valid".to_owned()), ..Seen::default() };
        assert!(kinds(&untimely).contains(&ConditionKind::ClockOff));
        let well = kinds(&Seen { clock_offset_s: Some(-2), ..Seen::default() });
        assert!(!well.contains(&ConditionKind::ClockOff) && !well.contains(&ConditionKind::HypervisorSilent));
        let lost = ObjectAmount { objects: 1, bytes: 9 };
        let ill =
            kinds(&Seen { clock_offset_s: Some(-9), pool_full: Some("full".to_owned()), lost, ..Seen::default() });
        assert!(ill.contains(&ConditionKind::ClockOff) && ill.contains(&ConditionKind::DiskFull));
        assert!(ill.contains(&ConditionKind::ObjectsLost) && !well.contains(&ConditionKind::ObjectsLost));
    }
}
