//! Starts, lists and stops the virtual machines of this node. It knows nothing of mirrored disks, desired state or the
//! network.
//!
//! ```text
//!  InstanceSpec --domain_xml--> XML --libvirt--> QEMU            caller              implementations
//!                                                                reconcile  ------>  dyn Hypervisor
//!  start ---> Running <---> Paused (its disk is full or away)                        ├ libvirt::Libvirt
//!                │                                                                   └ fake::FakeHypervisor
//!                └──> Stopping ──> gone, Ending remembered
//! ```
//!
//! Promises:
//! - Only domains whose metadata names this cluster *and* this node are listed or changed ([`Owner`]).
//! - Domains are transient. When one ends, only its console log remains, and in memory how it ended.
//! - `start` and `destroy` can be repeated (I9). Every call ends within its time limit (I10), and a call that hangs on
//!   one domain never delays a call on another (I11).
//! - [`Hypervisor::watch`] changes whenever something may have happened to a domain. It does not say what; the caller
//!   lists the domains again.
//!
//! Reading order: [`domain_xml`] (pure), [`console`] (the log file of the serial console), [`libvirt`] (the real
//! hypervisor), [`fake`] (one in memory for tests; both pass `tests/hypervisor_suite.rs`), [`guest_agent`] (what guest
//! agents are asked), [`probe`] (whether KVM works), [`firmware`] (which firmware machines can have).

pub mod console;
pub mod domain_xml;
pub mod fake;
pub mod firmware;
pub mod guest_agent;
pub mod libvirt;
pub mod probe;

use std::{fmt, path::PathBuf, time::Duration};

use futures::future::BoxFuture;
pub use muster_api::RunId;
use muster_api::{ClusterId, DiskId, InstanceId, MacAddress, NodeId};
use serde::{Deserialize, Serialize};
use tokio::{net::UnixStream, sync::watch};

/// The owner of domains, which is recorded in each of them. Domains of other owners are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Cluster that the node belongs to.
    pub cluster: ClusterId,
    /// The node that started the domain.
    pub node: NodeId,
}

/// What executes the instructions of guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Acceleration {
    /// The processor itself, through KVM.
    Kvm,
    /// QEMU's emulation, which works everywhere and is slow.
    Qemu,
}

impl Acceleration {
    /// The name in heartbeats and in the `type` attribute of domains.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Qemu => "qemu",
        }
    }
}

impl fmt::Display for Acceleration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a hypervisor needs to start an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceSpec {
    /// The instance. Its id is usually the UUID of the domain as well.
    pub instance: InstanceId,
    /// Generation of the assignment that the disks are mounted for.
    pub generation: u64,
    /// Number of this start of the instance.
    pub boot: u64,
    /// The agent process that serves the mounts of its disks.
    pub run: RunId,
    /// Name of the instance, DEPLOYMENT.N; the title of the domain.
    pub name: String,
    /// Host name that the guest may take; in SMBIOS.
    pub host_name: String,
    /// Project of the instance; in SMBIOS.
    pub project: String,
    /// Number of virtual processors of the guest.
    pub cpus: u32,
    /// Memory of the guest, bytes.
    pub memory_bytes: u64,
    /// Its disks, boot disk first, without the one that has the variables of its firmware.
    pub disks: Vec<DiskSpec>,
    /// Its UEFI firmware; `None` for a BIOS.
    pub uefi: Option<UefiSpec>,
    /// Whether it has a TPM. Its state stays on this host until [`Hypervisor::discard`].
    pub tpm: bool,
    /// File of its seed disk, from which the guest learns who it is. It is the last disk, and read-only. `None` if an older
    /// controller says nothing that could be on it.
    pub seed: Option<PathBuf>,
    /// Its network cards. With any, the domain is started paused.
    pub cards: Vec<CardSpec>,
    /// File that the output of the serial console is appended to.
    pub console_log: PathBuf,
    /// Socket of the serial console, see [`console::socket`]. `None` where its path would be too long: then nobody can type
    /// into the console.
    pub console_socket: Option<PathBuf>,
}

/// One disk of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskSpec {
    /// The disk. The guest sees the last 20 hex digits of its id as the serial number.
    pub disk: DiskId,
    /// Path of its raw file.
    pub path: PathBuf,
}

/// The UEFI firmware of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UefiSpec {
    /// The build that it runs.
    pub build: firmware::Build,
    /// Raw file of its variables.
    pub variables: PathBuf,
}

/// One network card of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CardSpec {
    /// Name of its tap. The hypervisor makes it in the host's own network, and it is gone with the domain.
    pub tap: String,
    /// MAC address of the card.
    pub mac: MacAddress,
    /// Largest packet that the guest may send, which the card tells it.
    pub mtu: u16,
}

/// A domain that exists now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    /// The instance that the domain runs.
    pub instance: InstanceId,
    /// Generation of the assignment it was started with.
    pub generation: u64,
    /// Number of this start of the instance.
    pub boot: u64,
    /// The agent process that started it.
    pub run: RunId,
    /// What it does at the time of the call.
    pub state: DomainState,
    /// The disks that it has, without those of its seed and its firmware. One that it was asked to let go of is among them
    /// until the guest did.
    pub disks: Vec<DiskId>,
}

/// What a domain does. One that has ended is not listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DomainState {
    /// Its processors run. The guest need not be ready yet.
    Running,
    /// Its processors are stopped, its memory is kept.
    Paused(PauseReason),
    /// The guest is turning itself off; the domain is still there.
    Stopping,
}

/// Why a domain is paused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PauseReason {
    /// A write found no space. The domain can be resumed when there is some.
    DiskFull,
    /// A request to its disk failed.
    DiskError,
    /// A request to its disk failed because a clock is wrong, and it still is. No hypervisor tells
    /// this; the reconciler knows it from the disks.
    ClockOff,
    /// Another program or the guest paused it, with this reason. The agent leaves it paused.
    Other(String),
}

/// How a domain ended, if the agent saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The guest turned itself off.
    Shutdown,
    /// The guest panicked, or its QEMU process died.
    Crashed,
    /// Its power was cut, by the agent or by hand.
    Destroyed,
}

/// Result of a start that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Started {
    /// The domain was started by this call.
    Now,
    /// A domain of the same start was running already.
    Already,
}

/// Why a call to a hypervisor failed.
#[derive(Debug, thiserror::Error)]
pub enum HypervisorError {
    /// The daemon does not answer, so nothing is known about any domain.
    #[error("libvirt at {uri} does not answer: {detail}")]
    Unavailable {
        /// URI that was tried.
        uri: String,
        /// The error message of the library.
        detail: String,
    },
    /// The daemon refused the call.
    #[error("libvirt refused to {what} {instance}: {detail}")]
    Refused {
        /// The call, as a verb.
        what: &'static str,
        /// The instance it is about.
        instance: InstanceId,
        /// The error message of the library.
        detail: String,
    },
    /// A domain of another start of this instance still exists.
    #[error("instance {instance} still runs generation {generation}, boot {boot}")]
    OtherStart {
        /// The instance that was to be started.
        instance: InstanceId,
        /// Generation of the existing domain.
        generation: u64,
        /// Boot number of the existing domain.
        boot: u64,
    },
    /// No domain of this instance exists on this node.
    #[error("instance {0} does not run here")]
    NotRunning(InstanceId),
    /// The domain was started without what is asked for, by an older agent or on a host that cannot have it.
    #[error("the guest has no {what}: {detail}")]
    Without {
        /// What it lacks: `serial console`, `screen` or `such disk`.
        what: &'static str,
        /// Why, and what to do.
        detail: String,
    },
    /// The guest agent does not run, or does not answer.
    #[error("the guest agent of instance {instance} does not answer: {detail}")]
    NoAgent {
        /// The instance whose guest agent was asked.
        instance: InstanceId,
        /// The error message of the library.
        detail: String,
    },
    /// The guest agent answered that it does not do what it was asked for.
    #[error("the guest agent of instance {instance} refused: {detail}")]
    AgentRefused {
        /// The instance whose guest agent was asked.
        instance: InstanceId,
        /// What the guest agent said.
        detail: String,
    },
    /// There was no answer within the time limit. The call goes on in the background, so its effect is not known.
    #[error("no answer to {what} within {after:?}")]
    TimedOut {
        /// The call, as a verb.
        what: &'static str,
        /// The time limit that has passed.
        after: Duration,
    },
    /// Too many calls are under way or hang. This one was not made.
    #[error("too many calls wait for libvirt, {what} was not tried")]
    Busy {
        /// The call, as a verb.
        what: &'static str,
    },
    /// The console log cannot be prepared for a start.
    #[error("cannot prepare console log {}", path.display())]
    Console {
        /// Path of the console log.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        source: std::io::Error,
    },
}

/// Runs virtual machines. Only domains of the one [`Owner`] are seen and touched.
pub trait Hypervisor: Send + Sync + 'static {
    /// What executes the instructions of guests.
    fn acceleration(&self) -> Acceleration;

    /// Lists all domains of this [`Owner`]. After an error nothing is known about them; they may well exist.
    fn list(&self) -> BoxFuture<'_, Result<Vec<Domain>, HypervisorError>>;

    /// Starts a domain. If one of the same start exists, the result is [`Started::Already`]; one of another start is an
    /// error. One with cards is paused: the caller puts its taps into their places and resumes it.
    fn start(&self, spec: InstanceSpec) -> BoxFuture<'_, Result<Started, HypervisorError>>;

    /// Asks the guest to turn itself off, by power button and by guest agent. Does not wait until it has.
    fn request_shutdown(&self, instance: InstanceId) -> BoxFuture<'_, Result<(), HypervisorError>>;

    /// Cuts the power of a domain. It is no error if there is none.
    fn destroy(&self, instance: InstanceId) -> BoxFuture<'_, Result<(), HypervisorError>>;

    /// Removes the state of the TPM of an instance that does not run and will not be started here again.
    fn discard(&self, instance: InstanceId) -> BoxFuture<'_, Result<(), HypervisorError>>;

    /// The process that opens the disks of a domain, if it has mounts of its own: what was mounted after its start may be
    /// missing there. `None` if it sees what this process sees, or no process is known.
    fn process(&self, instance: InstanceId) -> BoxFuture<'_, Result<Option<u32>, HypervisorError>>;

    /// Gives a domain one more disk. It is no error if it has it.
    fn plug(&self, instance: InstanceId, disk: DiskSpec) -> BoxFuture<'_, Result<(), HypervisorError>>;

    /// Asks the guest to let go of a disk. Does not wait until it has: then the disk is none of [`Domain::disks`] any more. A
    /// guest may never do it, for example while no operating system runs in it. It may be asked again, and it is no error if
    /// the domain does not have the disk.
    fn unplug(&self, instance: InstanceId, disk: DiskId) -> BoxFuture<'_, Result<(), HypervisorError>>;

    /// Tells a domain that the file of one of its disks has grown to `size_bytes`. It may be told again.
    fn resize(&self, instance: InstanceId, disk: DiskId, size_bytes: u64)
    -> BoxFuture<'_, Result<(), HypervisorError>>;

    /// Lets a paused domain run again.
    fn resume(&self, instance: InstanceId) -> BoxFuture<'_, Result<(), HypervisorError>>;

    /// Sends a command to the guest agent and returns its answer, both JSON. Waits at most `timeout` for the answer.
    fn agent(
        &self,
        instance: InstanceId,
        command: String,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<String, HypervisorError>>;

    /// Connects to the serial console of a guest. QEMU serves one connection at a time, and another one waits for it.
    fn open_serial(&self, instance: InstanceId) -> BoxFuture<'_, Result<UnixStream, HypervisorError>>;

    /// Connects to the VNC server of a guest.
    fn open_screen(&self, instance: InstanceId) -> BoxFuture<'_, Result<UnixStream, HypervisorError>>;

    /// How the start with this boot number ended; `None` if it runs, or this process did not see it end.
    fn ending(&self, instance: InstanceId, boot: u64) -> Option<Ending>;

    /// How often the guest has restarted itself under this boot number, as far as this process saw it.
    fn reboots(&self, instance: InstanceId, boot: u64) -> u64;

    /// Changes when something may have happened to a domain.
    fn watch(&self) -> watch::Receiver<u64>;
}
