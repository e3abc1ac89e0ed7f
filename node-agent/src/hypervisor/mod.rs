//! Virtual machines on this node: started, listed, stopped, asked; nothing about disks, desired state or the network.
//!
//! ```text
//!  InstanceSpec --domain_xml--> XML --libvirt--> QEMU            who asks            what answers
//!                                                                reconcile  ------>  dyn Hypervisor
//!  start ---> Running <---> Paused (its disk is full or away)                        ├ libvirt::Libvirt
//!                │                                                                   └ fake::FakeHypervisor
//!                └──> Stopping ──> gone, Ending remembered
//! ```
//!
//! Promises:
//! - Only domains whose metadata carries this cluster *and* this node are ever listed or touched ([`Owner`]).
//! - Domains are transient: when one ends nothing is left of it but its console log and, in memory, how it ended.
//! - `start` and `destroy` can be repeated (I9); every call ends within its time limit (I10) and a call that hangs on
//!   one domain never delays a call on another (I11).
//! - [`Hypervisor::watch`] changes whenever something may have happened to a domain; it never says what, look again.
//!
//! Reading order: [`domain_xml`] (pure), [`console`] (the log file of the serial console), [`libvirt`] (the real one),
//! [`fake`] (its twin in memory; both pass `tests/hypervisor_suite.rs`), [`probe`] (does KVM work here).

pub mod console;
pub mod domain_xml;
pub mod fake;
pub mod libvirt;
pub mod probe;

use std::{fmt, path::PathBuf, time::Duration};

use futures::future::BoxFuture;
use muster_api::{ClusterId, DiskId, InstanceId, NodeId};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use uuid::Uuid;

/// Whose domains these are: every domain carries it, all others are invisible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Cluster.
    pub cluster: ClusterId,
    /// Node of that cluster.
    pub node: NodeId,
}

/// One life of an agent process. A domain of another run lost its disk: the mount died with that agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(Uuid);

impl RunId {
    /// A fresh one.
    #[must_use]
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }
}

impl From<Uuid> for RunId {
    fn from(id: Uuid) -> Self {
        Self(id)
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// What executes the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Acceleration {
    /// The processor itself.
    Kvm,
    /// QEMU's translator: slow, works everywhere.
    Qemu,
}

impl Acceleration {
    /// The word in heartbeats and in the domain's `type`.
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

/// Everything a start needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceSpec {
    /// Instance; the domain's UUID too.
    pub instance: InstanceId,
    /// Generation of its disks.
    pub generation: u64,
    /// Number of this start.
    pub boot: u64,
    /// The agent process that holds its mounts.
    pub run: RunId,
    /// DEPLOYMENT.N, shown as the domain's title.
    pub name: String,
    /// What the guest may call itself, in SMBIOS.
    pub host_name: String,
    /// Owner, in SMBIOS.
    pub project: String,
    /// Virtual processors.
    pub cpus: u32,
    /// Memory.
    pub memory_bytes: u64,
    /// Disks, boot disk first.
    pub disks: Vec<DiskSpec>,
    /// Serial console output is appended here.
    pub console_log: PathBuf,
}

/// One disk of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskSpec {
    /// Disk; the guest sees the first 20 digits as its serial number.
    pub disk: DiskId,
    /// Its raw file.
    pub path: PathBuf,
}

/// A domain that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    /// Instance it runs.
    pub instance: InstanceId,
    /// Generation it was started with.
    pub generation: u64,
    /// Number of its start.
    pub boot: u64,
    /// The agent process that started it.
    pub run: RunId,
    /// What it does.
    pub state: DomainState,
}

/// What a domain does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DomainState {
    /// Its processors run.
    Running,
    /// Held.
    Paused(PauseReason),
    /// On its way out.
    Stopping,
}

/// Why a domain is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PauseReason {
    /// A write found no space; it goes on when there is some.
    DiskFull,
    /// A request to its disk failed.
    DiskError,
    /// Somebody else paused it; it is left alone.
    Other(String),
}

/// How a domain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The guest turned itself off.
    Shutdown,
    /// The guest panicked, or its QEMU process died.
    Crashed,
    /// The power was cut.
    Destroyed,
}

/// What a start found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Started {
    /// Started now.
    Now,
    /// The same start was there already.
    Already,
}

/// Why a hypervisor did not do as told.
#[derive(Debug, thiserror::Error)]
pub enum HypervisorError {
    /// No answer from the daemon: nothing is known about any domain.
    #[error("libvirt at {uri} does not answer: {detail}")]
    Unavailable {
        /// Where.
        uri: String,
        /// What the library says.
        detail: String,
    },
    /// It said no.
    #[error("libvirt refused to {what} {instance}: {detail}")]
    Refused {
        /// The call.
        what: &'static str,
        /// Instance.
        instance: InstanceId,
        /// What the library says.
        detail: String,
    },
    /// Another start of this instance is still there.
    #[error("instance {instance} still runs generation {generation}, boot {boot}")]
    OtherStart {
        /// Instance.
        instance: InstanceId,
        /// What runs.
        generation: u64,
        /// What runs.
        boot: u64,
    },
    /// No such domain.
    #[error("instance {0} does not run here")]
    NotRunning(InstanceId),
    /// The guest agent is not there or does not answer.
    #[error("the guest agent of instance {instance} does not answer: {detail}")]
    NoAgent {
        /// Instance.
        instance: InstanceId,
        /// What the library says.
        detail: String,
    },
    /// No answer within the limit; the call goes on in the background, find out what is true.
    #[error("no answer to {what} within {after:?}")]
    TimedOut {
        /// The call.
        what: &'static str,
        /// The limit.
        after: Duration,
    },
    /// Too many calls hang already.
    #[error("too many calls wait for libvirt, {what} was not tried")]
    Busy {
        /// The call.
        what: &'static str,
    },
    /// The console log cannot be written.
    #[error("cannot prepare console log {}", path.display())]
    Console {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Runs virtual machines.
pub trait Hypervisor: Send + Sync + 'static {
    /// What executes the guests' instructions.
    fn acceleration(&self) -> Acceleration;

    /// All domains of this [`Owner`] that are there. An error means that nothing is known, never that nothing is there.
    fn list(&self) -> BoxFuture<'_, Result<Vec<Domain>, HypervisorError>>;

    /// Starts a domain. The same start again is [`Started::Already`]; another one is refused.
    fn start(&self, spec: InstanceSpec) -> BoxFuture<'_, Result<Started, HypervisorError>>;

    /// Asks the guest to turn itself off: power button, and the guest agent where there is one. Returns at once.
    fn request_shutdown(&self, instance: InstanceId) -> BoxFuture<'_, Result<(), HypervisorError>>;

    /// Cuts the power. Fine when nothing runs.
    fn destroy(&self, instance: InstanceId) -> BoxFuture<'_, Result<(), HypervisorError>>;

    /// Lets a paused domain go on.
    fn resume(&self, instance: InstanceId) -> BoxFuture<'_, Result<(), HypervisorError>>;

    /// Sends one command to the guest agent and returns its answer, both JSON.
    fn agent(
        &self,
        instance: InstanceId,
        command: String,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<String, HypervisorError>>;

    /// How start number `boot` ended, as far as this process saw it.
    fn ending(&self, instance: InstanceId, boot: u64) -> Option<Ending>;

    /// Changes when something may have happened to a domain.
    fn watch(&self) -> watch::Receiver<u64>;
}

/// Whether the guest agent answers.
///
/// # Errors
/// [`HypervisorError::NoAgent`], or whatever kept the question from being asked.
pub async fn ping_agent(hypervisor: &dyn Hypervisor, instance: InstanceId) -> Result<(), HypervisorError> {
    hypervisor.agent(instance, r#"{"execute":"guest-ping"}"#.to_owned(), Duration::from_secs(2)).await.map(drop)
}
