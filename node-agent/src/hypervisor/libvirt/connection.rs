//! The connection to libvirt: opened when needed, kept alive, and its events.
//!
//! A connection carries callbacks that libvirt calls from the event thread, of which there is one per process. They
//! remember how domains ended and why they paused, and raise the counter behind [`Hypervisor::watch`].
//!
//! [`Hypervisor::watch`]: super::Hypervisor::watch

use std::{
    collections::HashMap,
    ffi::{CStr, c_int, c_void},
    ptr,
    sync::{
        Arc, Mutex, Once,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use muster_api::{DiskId, InstanceId};
use storage_core::lock;
use tokio::sync::watch;
use uuid::Uuid;
use virt::{connect::Connect, error::Error as VirtError, sys};

use super::{Acceleration, Ending, HypervisorError, Owner};

/// What all clones of a [`super::Libvirt`] share with the callbacks.
pub(super) struct Shared {
    pub(super) uri: String,
    pub(super) owner: Owner,
    pub(super) acceleration: Acceleration,
    link: Mutex<Option<Arc<Link>>>,
    pub(super) seen: Mutex<Seen>,
    /// Whether libvirt tells when a domain gets or loses a device.
    pub(super) hears_of_devices: AtomicBool,
    /// Raised whenever something may have happened to a domain.
    pub(super) changed: watch::Sender<u64>,
}

/// What this process observed of domains and libvirt does not keep.
#[derive(Default)]
pub(super) struct Seen {
    /// Instance and boot number of each domain by its UUID, because events only carry the UUID.
    pub(super) starts: HashMap<Uuid, (InstanceId, u64)>,
    /// How domains ended, by instance and boot number.
    pub(super) endings: HashMap<(InstanceId, u64), Ending>,
    /// How often guests restarted themselves, by instance and boot number.
    pub(super) reboots: HashMap<(InstanceId, u64), u64>,
    /// The I/O error for which QEMU last paused a domain, by UUID.
    pub(super) io_errors: HashMap<Uuid, String>,
    /// The disks of each domain by its UUID, as long as its devices do not change.
    pub(super) disks: HashMap<Uuid, Vec<DiskId>>,
    /// Raised when the devices of a domain have changed or may have.
    pub(super) device_changes: u64,
}

impl Seen {
    /// Forgets which disks a domain has.
    pub(super) fn forget_disks(&mut self, domain: Uuid) {
        self.disks.remove(&domain);
        self.device_changes = self.device_changes.wrapping_add(1);
    }
}

/// One connection with its callbacks.
pub(super) struct Link {
    pub(super) connect: Connect,
    callbacks: Vec<c_int>,
    /// Set when the connection is known to be lost. The next call opens a new one.
    pub(super) dead: AtomicBool,
}

impl Link {
    fn raw(&self) -> sys::virConnectPtr {
        // SAFETY: callers use the pointer only while `self.connect` keeps the connection open.
        unsafe { self.connect.as_ptr() }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        for id in &self.callbacks {
            // SAFETY: the connection is open until `connect` is dropped, which is after this. The ids came from it.
            unsafe { sys::virConnectDomainEventDeregisterAny(self.raw(), *id) };
        }
        // SAFETY: as above. Nothing happens if the function is not registered any more.
        unsafe { sys::virConnectUnregisterCloseCallback(self.raw(), Some(on_close)) };
    }
}

impl Shared {
    pub(super) fn new(uri: &str, owner: Owner, acceleration: Acceleration) -> Self {
        Self {
            uri: uri.to_owned(),
            owner,
            acceleration,
            link: Mutex::new(None),
            seen: Mutex::default(),
            hears_of_devices: AtomicBool::new(true),
            changed: watch::Sender::new(0),
        }
    }

    pub(super) fn unavailable(&self, error: &VirtError) -> HypervisorError {
        HypervisorError::Unavailable { uri: self.uri.clone(), detail: error.message().to_owned() }
    }

    pub(super) fn bump(&self) {
        self.changed.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// The connection. It is opened if there is none or it was lost.
    pub(super) fn link(self: &Arc<Self>) -> Result<Arc<Link>, HypervisorError> {
        let mut slot = lock(&self.link);
        if let Some(link) = slot.as_ref().filter(|link| !link.dead.load(Ordering::Acquire)) {
            return Ok(link.clone());
        }
        // The old one is closed first, so that its callbacks cannot mark the new one as lost.
        *slot = None;
        let connect = Connect::open(Some(&self.uri)).map_err(|e| self.unavailable(&e))?;
        // Detects a libvirtd that hangs. Local drivers (test:///) do not offer it and do not need it.
        let _ = connect.set_keep_alive(5, 3);
        let mut link = Link { connect, callbacks: Vec::new(), dead: AtomicBool::new(false) };
        self.listen(&mut link);
        // Nobody told what changed meanwhile.
        lock(&self.seen).disks.clear();
        let link = Arc::new(link);
        *slot = Some(link.clone());
        drop(slot);
        // Events may have been missed while there was no connection.
        self.bump();
        Ok(link)
    }

    /// Registers the callbacks for domains that start or end, for their devices and for failed I/O.
    fn listen(self: &Arc<Self>, link: &mut Link) {
        type Generic = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void);
        // SAFETY: libvirt takes all event callbacks as the generic type, and calls each with the arguments of its event
        // id. The functions given here have these arguments.
        let (lifecycle, io_error, device) = unsafe {
            (
                std::mem::transmute::<LifecycleCallback, Generic>(on_lifecycle),
                std::mem::transmute::<IoErrorCallback, Generic>(on_io_error),
                std::mem::transmute::<DeviceCallback, Generic>(on_device),
            )
        };
        let wanted: [(sys::virDomainEventID, Generic); 5] = [
            (sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE, lifecycle),
            (sys::VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON, io_error),
            (sys::VIR_DOMAIN_EVENT_ID_REBOOT, on_reboot),
            (sys::VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, device),
            (sys::VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, device),
        ];
        self.hears_of_devices.store(true, Ordering::Release);
        for (event, callback) in wanted {
            let event = c_int::try_from(event).expect("event ids are small");
            let opaque = Arc::into_raw(self.clone()).cast_mut().cast::<c_void>();
            // SAFETY: `opaque` owns a strong count, which `free_shared` gives back when libvirt drops the callback.
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
                self.hears_of_devices.store(false, Ordering::Release);
                tracing::warn!(event, "libvirt sends no events; changes are only seen by polling");
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

type DeviceCallback = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *const libc::c_char, *mut c_void);

/// Starts the thread that runs libvirt's event loop for the life of the process. Without it there are no events.
pub(super) fn start_event_loop() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // By default the library prints every error to stderr. Callers get the errors anyway.
        // SAFETY: the function has the required type and does nothing.
        unsafe { sys::virSetErrorFunc(ptr::null_mut(), Some(ignore_error)) };
        if let Err(error) = virt::event::event_register_default_impl() {
            tracing::warn!(%error, "libvirt has no event loop; changes are only seen by polling");
            return;
        }
        // With a timer the loop wakes every second, also while nothing is connected.
        if let Err(error) = virt::event::event_add_timeout(1000, |_, _| {}, ptr::null_mut()) {
            tracing::debug!(%error, "libvirt's event loop has no timer");
        }
        let looped = std::thread::Builder::new().name("libvirt events".to_owned()).spawn(|| {
            loop {
                if let Err(error) = virt::event::event_run_default_impl() {
                    tracing::warn!(%error, "libvirt's event loop failed and is run again");
                    std::thread::sleep(Duration::from_millis(100));
                }
            }
        });
        if let Err(error) = looped {
            tracing::warn!(%error, "cannot start a thread for libvirt's events; changes are only seen by polling");
        }
    });
}

unsafe extern "C" fn ignore_error(_: *mut c_void, _: sys::virErrorPtr) {}

unsafe extern "C" fn free_shared(opaque: *mut c_void) {
    free_shared_now(opaque);
}

fn free_shared_now(opaque: *mut c_void) {
    // SAFETY: `opaque` came from `Arc::into_raw`, and each strong count is given back exactly once.
    drop(unsafe { Arc::from_raw(opaque.cast_const().cast::<Shared>()) });
}

/// # Safety
/// `opaque` must come from `Arc::into_raw` of an `Arc<Shared>` that is still alive.
unsafe fn shared<'a>(opaque: *mut c_void) -> &'a Shared {
    // SAFETY: the caller promises it. The strong count belongs to the registration, which outlives the callback.
    unsafe { &*opaque.cast_const().cast::<Shared>() }
}

/// # Safety
/// `domain` must be an open domain.
unsafe fn uuid_of(domain: sys::virDomainPtr) -> Option<Uuid> {
    let mut bytes = [0_u8; 16];
    // SAFETY: the buffer has the 16 bytes that the call writes.
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
    // SAFETY: libvirt passes the pointer that was registered, and a domain that is open during the call.
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
            // A crash sends two events, first that it crashed and then that it stopped. The first one counts.
            seen.endings.entry(start).or_insert(ending);
            seen.starts.remove(&uuid);
            seen.io_errors.remove(&uuid);
            seen.forget_disks(uuid);
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

/// The guest restarted itself: its domain stays. A kernel that panics and is told to restart does so, too.
unsafe extern "C" fn on_reboot(_: sys::virConnectPtr, domain: sys::virDomainPtr, opaque: *mut c_void) {
    // SAFETY: as in `on_lifecycle`.
    let (shared, uuid) = unsafe { (shared(opaque), uuid_of(domain)) };
    let Some(uuid) = uuid else { return };
    let mut seen = lock(&shared.seen);
    let Some(start) = seen.starts.get(&uuid).copied() else { return };
    *seen.reboots.entry(start).or_default() += 1;
    drop(seen);
    shared.bump();
}

/// A domain got or lost a device.
unsafe extern "C" fn on_device(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _alias: *const libc::c_char,
    opaque: *mut c_void,
) {
    // SAFETY: as in `on_lifecycle`.
    let (shared, uuid) = unsafe { (shared(opaque), uuid_of(domain)) };
    let Some(uuid) = uuid else { return };
    lock(&shared.seen).forget_disks(uuid);
    shared.bump();
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
        // SAFETY: libvirt passes a C string that is valid during the call.
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
    tracing::warn!("the connection to libvirt at {} was closed", shared.uri);
    // Waiting for the lock could deadlock: a thread that opens a connection holds it, and needs this event loop.
    if let Ok(slot) = shared.link.try_lock()
        && let Some(link) = slot.as_ref()
    {
        link.dead.store(true, Ordering::Release);
    }
    shared.bump();
}
