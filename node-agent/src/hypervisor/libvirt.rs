//! The real hypervisor: libvirt's `qemu:///system` through its C library.
//!
//! ```text
//!  async caller --permit--> own thread --RPC--> libvirtd --monitor--> QEMU
//!       │ time limit            │ may hang as long as it likes, holds its permit
//!       └ TimedOut              └ its answer is dropped
//!
//!  event thread (one per process): lifecycle, I/O errors, connection closed --> endings, watch counter
//! ```
//!
//! The library blocks, and a call on a domain whose QEMU hangs blocks for as long as that lasts. So each call runs on a
//! thread of its own, at most [`CALLS_MAX`] at a time (I11), and nobody waits longer than the call's limit (I10).
//! The connection is shared by all threads (libvirt allows it), opened when first needed and again after libvirtd went
//! away; domains survive a restart of libvirtd, an ending during it is only known as [`None`] from
//! [`Hypervisor::ending`].

use std::{
    collections::HashMap,
    ffi::{CStr, c_int, c_void},
    ptr,
    sync::{
        Arc, Mutex, MutexGuard, Once, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use muster_api::InstanceId;
use tokio::sync::{Semaphore, oneshot, watch};
use uuid::Uuid;
use virt::{
    connect::Connect,
    domain::{Domain as VirtDomain, DomainPausedReason, DomainState as VirtState, DomainStateReason},
    enumutil::Enum,
    error::{Error as VirtError, ErrorNumber},
    sys,
};

use super::{
    Acceleration, Domain, DomainState, Ending, Hypervisor, HypervisorError, InstanceSpec, Owner, PauseReason, Started,
    console,
    domain_xml::{self, METADATA_URI, Mark, Place},
};

/// Where libvirt is.
pub const SYSTEM_URI: &str = "qemu:///system";

/// Calls under way at a time, hung ones included: far above what a healthy libvirtd needs, far below what threads cost.
const CALLS_MAX: usize = 64;
/// Longest wait for a permit.
const PERMIT_WAIT: Duration = Duration::from_secs(5);
/// Limit of calls that only read libvirtd's memory.
const READ_LIMIT: Duration = Duration::from_secs(10);
/// Limit of calls that talk to QEMU.
const ACT_LIMIT: Duration = Duration::from_secs(30);
/// Limit of a start: QEMU opens its disks, which may be cold.
const START_LIMIT: Duration = Duration::from_secs(180);
/// Endings kept; far above the instances of a node.
const ENDINGS_MAX: usize = 10_000;

/// libvirt as a [`Hypervisor`]; a cheap handle.
#[derive(Clone)]
pub struct Libvirt {
    shared: Arc<Shared>,
    permits: Arc<Semaphore>,
}

struct Shared {
    uri: String,
    owner: Owner,
    acceleration: Acceleration,
    link: Mutex<Option<Arc<Link>>>,
    seen: Mutex<Seen>,
    changed: watch::Sender<u64>,
}

/// What only this process knows about domains.
#[derive(Default)]
struct Seen {
    /// Domains of ours by UUID: events carry nothing else.
    starts: HashMap<Uuid, (InstanceId, u64)>,
    /// How starts ended.
    endings: HashMap<(InstanceId, u64), Ending>,
    /// Why a domain last paused by itself.
    io_errors: HashMap<Uuid, String>,
}

/// One connection with its callbacks.
struct Link {
    connect: Connect,
    callbacks: Vec<c_int>,
    dead: AtomicBool,
}

impl Link {
    fn raw(&self) -> sys::virConnectPtr {
        // SAFETY: the pointer is only used while `self.connect` keeps the connection open.
        unsafe { self.connect.as_ptr() }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        for id in &self.callbacks {
            // SAFETY: the connection is open until `connect` is dropped, after this; the ids came from it.
            unsafe { sys::virConnectDomainEventDeregisterAny(self.raw(), *id) };
        }
        // SAFETY: likewise; the function is the one registered, and nothing happens if it is not registered any more.
        unsafe { sys::virConnectUnregisterCloseCallback(self.raw(), Some(on_close)) };
    }
}

/// Nothing is left half-changed by a panic while one of these locks is held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Libvirt {
    /// Not connected yet: each call tries. For an agent that has domains to look after whether libvirt answers or not.
    #[must_use]
    pub fn lazy(uri: &str, owner: Owner, acceleration: Acceleration) -> Self {
        start_event_loop();
        Self {
            shared: Arc::new(Shared {
                uri: uri.to_owned(),
                owner,
                acceleration,
                link: Mutex::new(None),
                seen: Mutex::default(),
                changed: watch::Sender::new(0),
            }),
            permits: Arc::new(Semaphore::new(CALLS_MAX)),
        }
    }

    /// Connects.
    ///
    /// # Errors
    /// [`HypervisorError::Unavailable`].
    pub async fn connect(owner: Owner, acceleration: Acceleration) -> Result<Self, HypervisorError> {
        Self::connect_to(SYSTEM_URI, owner, acceleration).await
    }

    /// [`Self::connect`] to another address.
    ///
    /// # Errors
    /// [`HypervisorError::Unavailable`].
    pub async fn connect_to(uri: &str, owner: Owner, acceleration: Acceleration) -> Result<Self, HypervisorError> {
        let this = Self::lazy(uri, owner, acceleration);
        this.call("connect", READ_LIMIT, |_, link| link.connect.lib_version().map_err(Failure::Virt)).await?;
        Ok(this)
    }

    /// Runs `work` with the connection on a thread of its own.
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
                    // An error on a lost connection is about the connection, whatever it says.
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
            // Nobody listens any more after the limit.
            let _ = answer.send(result);
        });
        if let Err(error) = spawned {
            tracing::warn!(%error, "no thread for a libvirt call");
            return Err(HypervisorError::Busy { what });
        }
        match tokio::time::timeout(limit, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(HypervisorError::Unavailable {
                uri: self.shared.uri.clone(),
                detail: format!("the call to {what} broke"),
            }),
            Err(_) => Err(HypervisorError::TimedOut { what, after: limit }),
        }
    }

    /// Runs `work` on our domain of an instance.
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

/// What a call's thread ends with: an error of ours, or one that makes the connection suspect.
enum Failure {
    Known(HypervisorError),
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

fn is_gone(error: &VirtError) -> bool {
    error.code().is_known_and(|code| matches!(code, ErrorNumber::NoDomain | ErrorNumber::NoDomainMetadata))
}

impl Shared {
    fn unavailable(&self, error: &VirtError) -> HypervisorError {
        HypervisorError::Unavailable { uri: self.uri.clone(), detail: error.message().to_owned() }
    }

    fn bump(&self) {
        self.changed.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// The connection, opened anew when there is none or it is dead.
    fn link(self: &Arc<Self>) -> Result<Arc<Link>, HypervisorError> {
        let mut slot = lock(&self.link);
        if let Some(link) = slot.as_ref().filter(|link| !link.dead.load(Ordering::Acquire)) {
            return Ok(link.clone());
        }
        // Closing the old one first keeps its callbacks from speaking for the new one.
        *slot = None;
        let connect = Connect::open(Some(&self.uri)).map_err(|e| self.unavailable(&e))?;
        // A libvirtd that hangs is found out by its silence. Not offered by local drivers (test:///): fine.
        let _ = connect.set_keep_alive(5, 3);
        let mut link = Link { connect, callbacks: Vec::new(), dead: AtomicBool::new(false) };
        self.listen(&mut link);
        let link = Arc::new(link);
        *slot = Some(link.clone());
        drop(slot);
        // Whatever happened while there was no connection was not heard of.
        self.bump();
        Ok(link)
    }

    fn listen(self: &Arc<Self>, link: &mut Link) {
        type Generic = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void);
        // SAFETY: libvirt takes all event callbacks as the generic type and calls each with the arguments its event id
        // has, which are those of the functions given here.
        let (lifecycle, io_error) = unsafe {
            (
                std::mem::transmute::<LifecycleCallback, Generic>(on_lifecycle),
                std::mem::transmute::<IoErrorCallback, Generic>(on_io_error),
            )
        };
        let wanted: [(sys::virDomainEventID, Generic); 2] =
            [(sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE, lifecycle), (sys::VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON, io_error)];
        for (event, callback) in wanted {
            let Ok(event) = c_int::try_from(event) else { continue };
            let opaque = Arc::into_raw(self.clone()).cast_mut().cast::<c_void>();
            // SAFETY: `opaque` is a strong count that `free_shared` gives back when libvirt forgets the callback.
            let id = unsafe {
                sys::virConnectDomainEventRegisterAny(
                    link.raw(),
                    ptr::null_mut(),
                    event,
                    Some(callback),
                    opaque,
                    Some(free_shared),
                )
            };
            if id >= 0 {
                link.callbacks.push(id);
            } else {
                free_shared_now(opaque);
                tracing::warn!(event, "libvirt gives no events; changes are seen by polling only");
            }
        }
        let opaque = Arc::into_raw(self.clone()).cast_mut().cast::<c_void>();
        // SAFETY: as above.
        let registered =
            unsafe { sys::virConnectRegisterCloseCallback(link.raw(), Some(on_close), opaque, Some(free_shared)) };
        if registered != 0 {
            free_shared_now(opaque);
        }
    }

    /// The mark of a domain, if it is ours.
    fn mark(&self, domain: &VirtDomain) -> Result<Option<Mark>, VirtError> {
        match domain.metadata(METADATA_KIND, Some(METADATA_URI), 0) {
            Ok(element) => Ok(Mark::parse(&element).filter(|mark| mark.owner == self.owner)),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Our domain of an instance, with its mark. First by its usual UUID, else by looking at all.
    fn find(&self, link: &Link, instance: InstanceId) -> Result<Option<(VirtDomain, Mark)>, Failure> {
        let ours = |domain: VirtDomain| -> Result<Option<(VirtDomain, Mark)>, Failure> {
            let mark = self.mark(&domain).map_err(Failure::Virt)?.filter(|mark| mark.instance == instance);
            Ok(mark.map(|mark| (domain, mark)))
        };
        match link.connect.lookup_domain_by_uuid_string(&instance.to_string()) {
            Ok(domain) => {
                if let Some(found) = ours(domain)? {
                    return Ok(Some(found));
                }
            }
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(Failure::Virt(error)),
        }
        for domain in link.connect.list_all_domains(sys::VIR_CONNECT_LIST_DOMAINS_ACTIVE).map_err(Failure::Virt)? {
            if let Some(found) = ours(domain)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn start(self: &Arc<Self>, link: &Link, spec: &InstanceSpec) -> Result<Started, Failure> {
        let instance = spec.instance;
        if let Some((_, mark)) = self.find(link, instance)? {
            return if (mark.generation, mark.boot, mark.run) == (spec.generation, spec.boot, spec.run) {
                Ok(Started::Already)
            } else {
                Err(HypervisorError::OtherStart { instance, generation: mark.generation, boot: mark.boot }.into())
            };
        }
        console::begin(&spec.console_log, spec.boot)
            .map_err(|source| HypervisorError::Console { path: spec.console_log.clone(), source })?;
        // Somebody else's domain may have the usual name or UUID; then this one gets others of its own.
        let taken = |found: Result<VirtDomain, VirtError>| match found {
            Ok(_) => Ok(true),
            Err(error) if is_gone(&error) => Ok(false),
            Err(error) => Err(Failure::Virt(error)),
        };
        let mut name = domain_xml::domain_name(instance);
        let mut uuid = instance.uuid();
        if taken(link.connect.lookup_domain_by_uuid(uuid))? {
            uuid = Uuid::now_v7();
        }
        if taken(link.connect.lookup_domain_by_name(&name))? {
            name = format!("{name}-{}", self.owner.node.uuid().simple());
        }
        let place = Place { owner: self.owner, acceleration: self.acceleration, name: &name, uuid };
        let xml = domain_xml::domain_xml(spec, &place);
        {
            // Before the start: its end may be heard of before the start returns.
            let mut seen = lock(&self.seen);
            seen.endings.retain(|(of, boot), _| *of != instance || *boot > spec.boot);
            if seen.endings.len() > ENDINGS_MAX {
                seen.endings.clear();
            }
            seen.io_errors.remove(&uuid);
            seen.starts.insert(uuid, (instance, spec.boot));
        }
        match link.connect.create_domain_xml(&xml, sys::VIR_DOMAIN_NONE) {
            Ok(_) => {
                self.bump();
                Ok(Started::Now)
            }
            Err(error) => {
                lock(&self.seen).starts.remove(&uuid);
                // Not `NotRunning`, whatever the code: this is about a domain that could not be made.
                Err(HypervisorError::Refused { what: "start", instance, detail: error.message().to_owned() }.into())
            }
        }
    }

    fn list(&self, link: &Link) -> Result<Vec<(VirtDomain, Domain)>, Failure> {
        let mut ours = Vec::new();
        for domain in link.connect.list_all_domains(sys::VIR_CONNECT_LIST_DOMAINS_ACTIVE).map_err(Failure::Virt)? {
            let Some(mark) = self.mark(&domain).map_err(Failure::Virt)? else { continue };
            let state = match domain.state() {
                Ok(state) => state,
                Err(error) if is_gone(&error) => continue,
                Err(error) => return Err(Failure::Virt(error)),
            };
            let uuid = domain.uuid().map_err(Failure::Virt)?;
            let mut seen = lock(&self.seen);
            seen.starts.insert(uuid, (mark.instance, mark.boot));
            let Some(state) = state_of(state, seen.io_errors.get(&uuid)) else { continue };
            drop(seen);
            let found =
                Domain { instance: mark.instance, generation: mark.generation, boot: mark.boot, run: mark.run, state };
            ours.push((domain, found));
        }
        Ok(ours)
    }
}

/// libvirt's word for element metadata.
const METADATA_KIND: i32 = 2;

type State = (Enum<VirtState, sys::virDomainState>, Enum<DomainStateReason, c_int>);

/// `None` when it has ended.
fn state_of((state, reason): State, io_error: Option<&String>) -> Option<DomainState> {
    let Enum::Known(state) = state else { return Some(DomainState::Paused(PauseReason::Other("unknown".to_owned()))) };
    Some(match state {
        VirtState::NoState | VirtState::Running | VirtState::Blocked => DomainState::Running,
        VirtState::Shutdown => DomainState::Stopping,
        VirtState::Shutoff | VirtState::Crashed => return None,
        VirtState::PMSuspended => DomainState::Paused(PauseReason::Other("suspended by its guest".to_owned())),
        VirtState::Paused => match reason {
            Enum::Known(DomainStateReason::Paused(Enum::Known(DomainPausedReason::IOError))) => {
                match io_error.map(String::as_str) {
                    Some("enospc") => DomainState::Paused(PauseReason::DiskFull),
                    _ => DomainState::Paused(PauseReason::DiskError),
                }
            }
            // On its way to run.
            Enum::Known(DomainStateReason::Paused(Enum::Known(DomainPausedReason::StartingUp))) => DomainState::Running,
            Enum::Known(DomainStateReason::Paused(Enum::Known(DomainPausedReason::ShuttingDown))) => {
                DomainState::Stopping
            }
            Enum::Known(other) => DomainState::Paused(PauseReason::Other(format!("{other:?}"))),
            Enum::Unknown(code) => DomainState::Paused(PauseReason::Other(format!("reason {code}"))),
        },
    })
}

/// Whether a disk of a domain ran out of space. Asks QEMU.
fn has_full_disk(domain: &VirtDomain) -> Result<bool, VirtError> {
    const DISKS_MAX: usize = 32;
    let empty = sys::virDomainDiskError { disk: ptr::null_mut(), error: 0 };
    let mut errors = [empty; DISKS_MAX];
    // SAFETY: the array has as many elements as said; the domain is open.
    let count = unsafe {
        sys::virDomainGetDiskErrors(domain.as_ptr(), errors.as_mut_ptr(), u32::try_from(DISKS_MAX).unwrap_or(0), 0)
    };
    let count = usize::try_from(count).map_err(|_| VirtError::last_error())?;
    let mut full = false;
    for error in errors.iter().take(count) {
        full |= u32::try_from(error.error).is_ok_and(|e| e == sys::VIR_DOMAIN_DISK_ERROR_NO_SPACE);
        // SAFETY: the name was allocated by the library for us to free; it is not used again.
        unsafe { libc::free(error.disk.cast()) };
    }
    Ok(full)
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
            // A pause from before this process or this connection: the reason is with QEMU, which may hang. Each is
            // asked by itself and only for a moment.
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
            // Both: a guest may have only one of them, and the agent answers late or never where it is not running.
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
        let seconds = i32::try_from(timeout.as_secs().max(1)).unwrap_or(i32::MAX);
        Box::pin(async move {
            self.on_domain("ask the agent of", instance, timeout + Duration::from_secs(5), move |domain| {
                domain.qemu_agent_command(&command, seconds, 0)
            })
            .await
            .map_err(|error| match error {
                HypervisorError::Refused { detail, .. } => HypervisorError::NoAgent { instance, detail },
                other => other,
            })
        })
    }

    fn ending(&self, instance: InstanceId, boot: u64) -> Option<Ending> {
        lock(&self.shared.seen).endings.get(&(instance, boot)).copied()
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }
}

type LifecycleCallback =
    unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, c_int, *mut c_void) -> c_int;
type IoErrorCallback = unsafe extern "C" fn(
    sys::virConnectPtr,
    sys::virDomainPtr,
    *const libc::c_char,
    *const libc::c_char,
    c_int,
    *const libc::c_char,
    *mut c_void,
);

/// libvirt delivers events only while somebody runs its loop: one thread for the life of the process.
fn start_event_loop() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // The library prints every error to stderr unless told otherwise; callers get them anyway.
        // SAFETY: the function is called with what it was registered for, and does nothing.
        unsafe { sys::virSetErrorFunc(ptr::null_mut(), Some(say_nothing)) };
        if let Err(error) = virt::event::event_register_default_impl() {
            tracing::warn!(%error, "no libvirt events; changes are seen by polling only");
            return;
        }
        // With a timer the loop never sleeps for ever, also when nothing is connected.
        if let Err(error) = virt::event::event_add_timeout(1000, |_, _| {}, ptr::null_mut()) {
            tracing::debug!(%error, "no timer in libvirt's event loop");
        }
        let looped = std::thread::Builder::new().name("libvirt events".to_owned()).spawn(|| {
            loop {
                if let Err(error) = virt::event::event_run_default_impl() {
                    tracing::warn!(%error, "libvirt's event loop failed once");
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        });
        if let Err(error) = looped {
            tracing::warn!(%error, "no thread for libvirt's events; changes are seen by polling only");
        }
    });
}

unsafe extern "C" fn say_nothing(_: *mut c_void, _: sys::virErrorPtr) {}

unsafe extern "C" fn free_shared(opaque: *mut c_void) {
    free_shared_now(opaque);
}

fn free_shared_now(opaque: *mut c_void) {
    // SAFETY: `opaque` came from `Arc::into_raw` and is given back exactly once.
    drop(unsafe { Arc::from_raw(opaque.cast_const().cast::<Shared>()) });
}

/// # Safety
/// `opaque` is a live `Arc<Shared>` as raw pointer.
unsafe fn shared<'a>(opaque: *mut c_void) -> &'a Shared {
    // SAFETY: by contract; the count belongs to the registration, which outlives the callback.
    unsafe { &*opaque.cast_const().cast::<Shared>() }
}

/// # Safety
/// `domain` is a live domain.
unsafe fn uuid_of(domain: sys::virDomainPtr) -> Option<Uuid> {
    let mut bytes = [0_u8; 16];
    // SAFETY: the buffer has the 16 bytes the call writes.
    let done = unsafe { sys::virDomainGetUUID(domain, bytes.as_mut_ptr()) };
    (done == 0).then(|| Uuid::from_bytes(bytes))
}

unsafe extern "C" fn on_lifecycle(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    event: c_int,
    detail: c_int,
    opaque: *mut c_void,
) -> c_int {
    // SAFETY: libvirt passes the pointer that was registered and a domain that lives during the call.
    let (shared, uuid) = unsafe { (shared(opaque), uuid_of(domain)) };
    let (Ok(event), Ok(detail), Some(uuid)) = (u32::try_from(event), u32::try_from(detail), uuid) else { return 0 };
    let mut seen = lock(&shared.seen);
    let Some(start) = seen.starts.get(&uuid).copied() else { return 0 };
    match event {
        sys::VIR_DOMAIN_EVENT_STOPPED => {
            let ending = match detail {
                sys::VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN => Ending::Shutdown,
                sys::VIR_DOMAIN_EVENT_STOPPED_DESTROYED => Ending::Destroyed,
                _ => Ending::Crashed,
            };
            // A crash is told first as a crash and then as a stop.
            seen.endings.entry(start).or_insert(ending);
            seen.starts.remove(&uuid);
            seen.io_errors.remove(&uuid);
        }
        sys::VIR_DOMAIN_EVENT_CRASHED => {
            seen.endings.insert(start, Ending::Crashed);
        }
        sys::VIR_DOMAIN_EVENT_RESUMED => {
            seen.io_errors.remove(&uuid);
        }
        _ => {}
    }
    drop(seen);
    shared.bump();
    0
}

unsafe extern "C" fn on_io_error(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _path: *const libc::c_char,
    _alias: *const libc::c_char,
    _action: c_int,
    reason: *const libc::c_char,
    opaque: *mut c_void,
) {
    // SAFETY: as in `on_lifecycle`.
    let (shared, uuid) = unsafe { (shared(opaque), uuid_of(domain)) };
    let Some(uuid) = uuid else { return };
    let reason = if reason.is_null() {
        String::new()
    } else {
        // SAFETY: a string of libvirt's that lives during the call.
        unsafe { CStr::from_ptr(reason) }.to_string_lossy().into_owned()
    };
    let mut seen = lock(&shared.seen);
    if seen.starts.contains_key(&uuid) {
        seen.io_errors.insert(uuid, reason);
    }
    drop(seen);
    shared.bump();
}

unsafe extern "C" fn on_close(_: sys::virConnectPtr, _reason: c_int, opaque: *mut c_void) {
    // SAFETY: as in `on_lifecycle`.
    let shared = unsafe { shared(opaque) };
    tracing::warn!("connection to libvirt at {} was closed", shared.uri);
    // Never wait here: `link` may be held by a thread that opens a connection, and that needs this event loop.
    if let Ok(slot) = shared.link.try_lock()
        && let Some(link) = slot.as_ref()
    {
        link.dead.store(true, Ordering::Release);
    }
    shared.bump();
}
