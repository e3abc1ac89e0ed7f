//! The real hypervisor: libvirt's `qemu:///system`, through its C library.
//!
//! ```text
//!  async caller --permit--> own thread --RPC--> libvirtd --monitor--> QEMU
//!       │ time limit            │ may hang as long as it likes, holds its permit
//!       └ TimedOut              └ its answer is dropped
//!
//!  event thread (one per process): lifecycle, I/O errors, connection closed --> endings, watch counter
//! ```
//!
//! The library blocks, and a call on a domain whose QEMU hangs blocks for as long as that lasts. So each call runs on
//! its own thread, at most [`CALLS_MAX`] at a time (I11), and the caller waits at most for the call's time limit (I10).
//!
//! All threads share one [`connection`]. It is opened when first needed, and again after libvirtd went away. Domains
//! survive a restart of libvirtd. If one ends meanwhile, [`Hypervisor::ending`] does not know how. What is done with
//! domains is in [`domains`].

mod connection;
mod domains;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::future::BoxFuture;
use muster_api::{DiskId, InstanceId};
use storage_core::lock;
use tokio::{
    net::UnixStream,
    sync::{Semaphore, oneshot, watch},
};
use virt::{
    domain::Domain as VirtDomain,
    enumutil::Enum,
    error::{Error as VirtError, ErrorNumber},
    sys,
};

use self::{
    connection::{Link, Shared, start_event_loop},
    domains::has_full_disk,
};
use super::{
    Acceleration, DiskSpec, Domain, DomainState, Ending, Hypervisor, HypervisorError, InstanceSpec, Owner, PauseReason,
    Started, console, domain_xml,
};

/// URI of the libvirt daemon that runs system-wide domains.
pub const SYSTEM_URI: &str = "qemu:///system";

/// Where libvirt keeps the numbers of QEMU's processes.
const PID_FILES: &str = "/run/libvirt/qemu";

/// Most calls at a time, including those that hang. A healthy libvirtd needs far fewer, and as many threads are cheap.
const CALLS_MAX: usize = 64;
/// Longest wait for a permit to make a call.
const PERMIT_WAIT: Duration = Duration::from_secs(5);
/// Time limit of calls that only read libvirtd's memory.
const READ_LIMIT: Duration = Duration::from_secs(10);
/// Time limit of calls that talk to QEMU.
const ACT_LIMIT: Duration = Duration::from_secs(30);
/// Time limit of a start. It is long because QEMU opens its disks, whose first chunks may have to be fetched.
const START_LIMIT: Duration = Duration::from_secs(180);

/// libvirt as a [`Hypervisor`]. Clones share one connection.
#[derive(Clone)]
pub struct Libvirt {
    shared: Arc<Shared>,
    permits: Arc<Semaphore>,
}

impl Libvirt {
    /// Does not connect yet; each call does if needed. For an agent, which must also start while libvirt is away.
    #[must_use]
    pub fn lazy(uri: &str, owner: Owner, acceleration: Acceleration) -> Self {
        start_event_loop();
        Self { shared: Arc::new(Shared::new(uri, owner, acceleration)), permits: Arc::new(Semaphore::new(CALLS_MAX)) }
    }

    /// Connects to [`SYSTEM_URI`].
    ///
    /// # Errors
    /// [`HypervisorError::Unavailable`] if libvirt does not answer.
    pub async fn connect(owner: Owner, acceleration: Acceleration) -> Result<Self, HypervisorError> {
        Self::connect_to(SYSTEM_URI, owner, acceleration).await
    }

    /// Connects to another URI.
    ///
    /// # Errors
    /// [`HypervisorError::Unavailable`] if libvirt does not answer.
    pub async fn connect_to(uri: &str, owner: Owner, acceleration: Acceleration) -> Result<Self, HypervisorError> {
        let this = Self::lazy(uri, owner, acceleration);
        this.call("connect", READ_LIMIT, |_, link| link.connect.lib_version().map_err(Failure::Virt)).await?;
        Ok(this)
    }

    /// Runs `work` with the connection on its own thread, and waits at most `limit` for its answer.
    async fn call<T: Send + 'static>(
        &self,
        what: &'static str,
        limit: Duration,
        work: impl FnOnce(&Arc<Shared>, &Arc<Link>) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, HypervisorError> {
        let permit = match tokio::time::timeout(PERMIT_WAIT, self.permits.clone().acquire_owned()).await {
            Ok(Ok(permit)) => permit,
            Ok(Err(_)) | Err(_) => return Err(HypervisorError::Busy { what }),
        };
        let (answer, answered) = oneshot::channel();
        let shared = self.shared.clone();
        let spawned = std::thread::Builder::new().name(format!("libvirt {what}")).spawn(move || {
            let result = shared.link().and_then(|link| {
                work(&shared, &link).map_err(|failure| {
                    // Any call may fail because the connection was lost. Then the next call opens a new one.
                    if !link.connect.is_alive().unwrap_or(false) {
                        link.dead.store(true, Ordering::Release);
                    }
                    match failure {
                        Failure::Known(error) => error,
                        Failure::Virt(error) => shared.unavailable(&error),
                    }
                })
            });
            drop(permit);
            // After the limit nobody waits for the answer.
            let _ = answer.send(result);
        });
        if let Err(error) = spawned {
            tracing::warn!(%error, "cannot start a thread for a libvirt call");
            return Err(HypervisorError::Busy { what });
        }
        match tokio::time::timeout(limit, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(HypervisorError::Unavailable {
                uri: self.shared.uri.clone(),
                detail: format!("the thread of the call to {what} panicked"),
            }),
            Err(_) => Err(HypervisorError::TimedOut { what, after: limit }),
        }
    }

    /// Runs `work` on the domain of an instance.
    async fn on_domain<T: Send + 'static>(
        &self,
        what: &'static str,
        instance: InstanceId,
        limit: Duration,
        work: impl FnOnce(&VirtDomain) -> Result<T, VirtError> + Send + 'static,
    ) -> Result<T, HypervisorError> {
        self.call(what, limit, move |shared, link| {
            let (domain, _) = shared.find(link, instance)?.ok_or(HypervisorError::NotRunning(instance))?;
            work(&domain).map_err(|error| refusal(what, instance, &error))
        })
        .await
    }
}

impl Libvirt {
    /// Runs `work`, which changes the disks of a domain.
    fn on_disks(
        &self,
        what: &'static str,
        instance: InstanceId,
        limit: Duration,
        work: impl FnOnce(&VirtDomain) -> Result<(), VirtError> + Send + 'static,
    ) -> BoxFuture<'_, Result<(), HypervisorError>> {
        Box::pin(self.call(what, limit, move |shared, link| {
            let (domain, _) = shared.find(link, instance)?.ok_or(HypervisorError::NotRunning(instance))?;
            let done = work(&domain);
            shared.disks_change(&domain);
            done.map_err(|error| refusal(what, instance, &error))
        }))
    }
}

/// How a call failed on its thread.
enum Failure {
    /// With an error that is returned as it is.
    Known(HypervisorError),
    /// With an error of libvirt that is not about one domain, so that libvirt counts as unavailable.
    Virt(VirtError),
}

impl From<HypervisorError> for Failure {
    fn from(error: HypervisorError) -> Self {
        Self::Known(error)
    }
}

fn refusal(what: &'static str, instance: InstanceId, error: &VirtError) -> Failure {
    Failure::Known(match error.code() {
        Enum::Known(ErrorNumber::NoDomain | ErrorNumber::OperationInvalid) => HypervisorError::NotRunning(instance),
        _ => HypervisorError::Refused { what, instance, detail: error.message().to_owned() },
    })
}

/// Tells a guest agent that answered with an error from one that did not answer.
fn no_answer(instance: InstanceId, error: &VirtError) -> Failure {
    let detail = error.message().to_owned();
    Failure::Known(match error.code() {
        Enum::Known(ErrorNumber::NoDomain | ErrorNumber::OperationInvalid) => HypervisorError::NotRunning(instance),
        Enum::Known(ErrorNumber::AgentCommandFailed) => HypervisorError::AgentRefused { instance, detail },
        // What libvirt says of an error that the guest agent answered with has no code of its own in all its releases.
        _ if detail.contains("unable to execute QEMU agent command") => {
            HypervisorError::AgentRefused { instance, detail }
        }
        _ => HypervisorError::NoAgent { instance, detail },
    })
}

impl Hypervisor for Libvirt {
    fn acceleration(&self) -> Acceleration {
        self.shared.acceleration
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Domain>, HypervisorError>> {
        Box::pin(async move {
            let mut domains = self
                .call("list domains", READ_LIMIT, |shared, link| {
                    Ok(shared.list(link)?.into_iter().map(|(_, domain)| domain).collect::<Vec<_>>())
                })
                .await?;
            // For a pause from before this process or connection only QEMU knows the reason. It may hang, so each
            // domain is asked on its own and with a short limit.
            let unsure = domains.iter_mut().filter(|d| d.state == DomainState::Paused(PauseReason::DiskError));
            futures::future::join_all(unsure.map(|domain| async move {
                let full = self.on_domain("disk errors", domain.instance, Duration::from_secs(2), has_full_disk).await;
                if matches!(full, Ok(true)) {
                    domain.state = DomainState::Paused(PauseReason::DiskFull);
                }
            }))
            .await;
            Ok(domains)
        })
    }

    fn start(&self, spec: InstanceSpec) -> BoxFuture<'_, Result<Started, HypervisorError>> {
        Box::pin(self.call("start", START_LIMIT, move |shared, link| shared.start(link, &spec)))
    }

    fn request_shutdown(&self, instance: InstanceId) -> BoxFuture<'_, Result<(), HypervisorError>> {
        Box::pin(async move {
            // Both ways are tried: a guest may support only one of them. Where no guest agent runs, that call ends
            // late, so it is not waited for.
            let agent = self.clone();
            tokio::spawn(async move {
                let _ = agent
                    .on_domain("shut down by agent", instance, ACT_LIMIT, |domain| {
                        domain.shutdown_flags(sys::VIR_DOMAIN_SHUTDOWN_GUEST_AGENT)
                    })
                    .await;
            });
            self.on_domain("shut down", instance, ACT_LIMIT, |domain| {
                domain.shutdown_flags(sys::VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)
            })
            .await
        })
    }

    fn destroy(&self, instance: InstanceId) -> BoxFuture<'_, Result<(), HypervisorError>> {
        Box::pin(async move {
            match self.on_domain("cut the power of", instance, ACT_LIMIT, VirtDomain::destroy).await {
                Ok(()) | Err(HypervisorError::NotRunning(_)) => {
                    self.shared.bump();
                    Ok(())
                }
                Err(error) => Err(error),
            }
        })
    }

    fn discard(&self, instance: InstanceId) -> BoxFuture<'_, Result<(), HypervisorError>> {
        Box::pin(self.call("forget a TPM", ACT_LIMIT, move |shared, link| shared.discard(link, instance)))
    }

    fn process(&self, instance: InstanceId) -> BoxFuture<'_, Result<Option<u32>, HypervisorError>> {
        Box::pin(async move {
            let name = self.on_domain("find", instance, READ_LIMIT, VirtDomain::name).await?;
            let pid = tokio::fs::read_to_string(format!("{PID_FILES}/{name}.pid")).await;
            Ok(pid.ok().and_then(|pid| pid.trim().parse().ok()))
        })
    }

    fn plug(&self, instance: InstanceId, disk: DiskSpec) -> BoxFuture<'_, Result<(), HypervisorError>> {
        self.on_disks("give a disk to", instance, ACT_LIMIT, move |domain| domains::plug(domain, &disk))
    }

    fn unplug(&self, instance: InstanceId, disk: DiskId) -> BoxFuture<'_, Result<(), HypervisorError>> {
        self.on_disks("take a disk from", instance, ACT_LIMIT, move |domain| domains::unplug(domain, disk))
    }

    fn resize(
        &self,
        instance: InstanceId,
        disk: DiskId,
        size_bytes: u64,
    ) -> BoxFuture<'_, Result<(), HypervisorError>> {
        Box::pin(async move {
            let told = self
                .on_domain("tell the size of a disk to", instance, ACT_LIMIT, move |domain| {
                    domains::resize(domain, disk, size_bytes)
                })
                .await?;
            let without =
                || HypervisorError::Without { what: "such disk", detail: format!("it does not have disk {disk}") };
            told.then_some(()).ok_or_else(without)
        })
    }

    fn resume(&self, instance: InstanceId) -> BoxFuture<'_, Result<(), HypervisorError>> {
        Box::pin(async move {
            self.on_domain("resume", instance, ACT_LIMIT, VirtDomain::resume).await.map(drop)?;
            self.shared.bump();
            Ok(())
        })
    }

    fn agent(
        &self,
        instance: InstanceId,
        command: String,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<String, HypervisorError>> {
        let seconds = i32::try_from(timeout.as_secs().max(1)).expect("a timeout of seconds or minutes");
        Box::pin(async move {
            let limit = timeout + Duration::from_secs(5);
            self.call("ask the agent of", limit, move |shared, link| {
                let (domain, _) = shared.find(link, instance)?.ok_or(HypervisorError::NotRunning(instance))?;
                domain.qemu_agent_command(&command, seconds, 0).map_err(|error| no_answer(instance, &error))
            })
            .await
        })
    }

    fn open_serial(&self, instance: InstanceId) -> BoxFuture<'_, Result<UnixStream, HypervisorError>> {
        Box::pin(async move {
            let xml = self.on_domain("describe", instance, READ_LIMIT, |domain| domain.xml_desc(0)).await?;
            let without = |detail: &str| HypervisorError::Without { what: "serial console", detail: detail.to_owned() };
            let Some(path) = domain_xml::serial_socket(&xml) else {
                return Err(without("an older agent started it, or the path of the agent's data folder is too long"));
            };
            UnixStream::connect(&path).await.map_err(|error| without(&format!("{path}: {error}")))
        })
    }

    fn open_screen(&self, instance: InstanceId) -> BoxFuture<'_, Result<UnixStream, HypervisorError>> {
        Box::pin(async move {
            let opened = self.on_domain("open the screen of", instance, ACT_LIMIT, domains::open_screen).await;
            let opened = opened.map_err(|error| match error {
                HypervisorError::Refused { detail, .. } => HypervisorError::Without { what: "screen", detail },
                other => other,
            })?;
            let stream = opened.set_nonblocking(true).and_then(|()| UnixStream::from_std(opened));
            stream.map_err(|error| HypervisorError::Without { what: "screen", detail: error.to_string() })
        })
    }

    fn ending(&self, instance: InstanceId, boot: u64) -> Option<Ending> {
        lock(&self.shared.seen).endings.get(&(instance, boot)).copied()
    }

    fn reboots(&self, instance: InstanceId, boot: u64) -> u64 {
        lock(&self.shared.seen).reboots.get(&(instance, boot)).copied().unwrap_or(0)
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }
}
