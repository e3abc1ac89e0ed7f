//! What is done with domains on an open connection. These calls block.

use std::{
    ffi::{CString, c_int},
    os::{
        fd::{FromRawFd as _, RawFd},
        unix::net::UnixStream,
    },
    ptr,
    sync::atomic::Ordering,
};

use muster_api::{DiskId, InstanceId};
use storage_core::lock;
use uuid::Uuid;
use virt::{
    domain::{Domain as VirtDomain, DomainPausedReason, DomainState as VirtState, DomainStateReason},
    enumutil::Enum,
    error::{Error as VirtError, ErrorNumber},
    sys,
};

use super::{
    DiskSpec, Domain, DomainState, Failure, HypervisorError, InstanceSpec, PauseReason, Started,
    connection::{Link, Shared},
    console,
    domain_xml::{self, METADATA_URI, Mark, Place},
};

/// Most endings that are remembered, far above the number of instances on a node.
const ENDINGS_MAX: usize = 10_000;
/// libvirt's number for metadata that is an XML element.
const METADATA_KIND: i32 = 2;

impl Shared {
    /// The mark of a domain; `None` if it does not belong to this owner.
    fn mark(&self, domain: &VirtDomain) -> Result<Option<Mark>, VirtError> {
        match domain.metadata(METADATA_KIND, Some(METADATA_URI), 0) {
            Ok(element) => Ok(Mark::parse(&element).filter(|mark| mark.owner == self.owner)),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Finds the domain of an instance, with its mark: by the UUID it usually has, else among all domains.
    pub(super) fn find(&self, link: &Link, instance: InstanceId) -> Result<Option<(VirtDomain, Mark)>, Failure> {
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

    /// Starts a domain, unless one of this instance is there.
    pub(super) fn start(&self, link: &Link, spec: &InstanceSpec) -> Result<Started, Failure> {
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
        let (name, uuid) = self.free_name(link, instance)?;
        let place = Place { owner: self.owner, acceleration: self.acceleration, name: &name, uuid };
        let xml = domain_xml::domain_xml(spec, &place);
        // Before the start, because the event of its end may come before the call returns.
        self.remember_start(uuid, spec);
        let flags = if spec.cards.is_empty() { sys::VIR_DOMAIN_NONE } else { sys::VIR_DOMAIN_START_PAUSED };
        match link.connect.create_domain_xml(&xml, flags) {
            Ok(_) => {
                self.bump();
                Ok(Started::Now)
            }
            Err(error) => {
                lock(&self.seen).starts.remove(&uuid);
                // Whatever the code is, this is not `NotRunning`: the domain could not be made.
                Err(HypervisorError::Refused { what: "start", instance, detail: error.message().to_owned() }.into())
            }
        }
    }

    /// Removes the state of an instance's TPM: defines a domain that has it and undefines that.
    pub(super) fn discard(&self, link: &Link, instance: InstanceId) -> Result<(), Failure> {
        match link.connect.lookup_domain_by_uuid(instance.uuid()) {
            // It runs, or somebody else runs it on this host: then the state is theirs.
            Ok(_) => return Ok(()),
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(Failure::Virt(error)),
        }
        let name = domain_xml::domain_name(instance);
        let xml = domain_xml::tpm_holder_xml(self.acceleration, &name, instance.uuid());
        let refused = |error: VirtError| {
            let detail = error.message().to_owned();
            Failure::Known(HypervisorError::Refused { what: "forget the TPM of", instance, detail })
        };
        link.connect.define_domain_xml(&xml).map_err(refused)?.undefine().map_err(refused)
    }

    /// A name and a UUID for a new domain: the usual ones, or others if a domain of somebody else has them.
    fn free_name(&self, link: &Link, instance: InstanceId) -> Result<(String, Uuid), Failure> {
        let taken = |found: Result<VirtDomain, VirtError>| match found {
            Ok(_) => Ok(true),
            Err(error) if is_gone(&error) => Ok(false),
            Err(error) => Err(Failure::Virt(error)),
        };
        let (mut name, mut uuid) = (domain_xml::domain_name(instance), instance.uuid());
        if taken(link.connect.lookup_domain_by_uuid(uuid))? {
            uuid = Uuid::now_v7();
        }
        if taken(link.connect.lookup_domain_by_name(&name))? {
            name = format!("{name}-{}", self.owner.node.uuid().simple());
        }
        Ok((name, uuid))
    }

    /// Notes that a domain starts, and forgets what this start makes obsolete.
    fn remember_start(&self, uuid: Uuid, spec: &InstanceSpec) {
        let mut seen = lock(&self.seen);
        seen.endings.retain(|(of, boot), _| *of != spec.instance || *boot > spec.boot);
        if seen.endings.len() > ENDINGS_MAX {
            seen.endings.clear();
        }
        seen.reboots.retain(|(of, boot), _| *of != spec.instance || *boot > spec.boot);
        if seen.reboots.len() > ENDINGS_MAX {
            seen.reboots.clear();
        }
        seen.io_errors.remove(&uuid);
        seen.starts.insert(uuid, (spec.instance, spec.boot));
    }

    /// Lists the domains of this owner.
    pub(super) fn list(&self, link: &Link) -> Result<Vec<(VirtDomain, Domain)>, Failure> {
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
            let disks = match self.disks(&domain, uuid) {
                Ok(disks) => disks,
                Err(error) if is_gone(&error) => continue,
                Err(error) => return Err(Failure::Virt(error)),
            };
            let Mark { instance, generation, boot, run, owner: _ } = mark;
            ours.push((domain, Domain { instance, generation, boot, run, state, disks }));
        }
        Ok(ours)
    }

    /// The disks of a domain. They are remembered until its devices change, because every pass asks for them.
    fn disks(&self, domain: &VirtDomain, uuid: Uuid) -> Result<Vec<DiskId>, VirtError> {
        let (known, changes) = {
            let seen = lock(&self.seen);
            (seen.disks.get(&uuid).cloned(), seen.device_changes)
        };
        if let Some(known) = known {
            return Ok(known);
        }
        let xml = domain.xml_desc(0)?;
        let disks: Vec<DiskId> = domain_xml::disk_devices(&xml).into_iter().filter_map(|device| device.disk).collect();
        let mut seen = lock(&self.seen);
        if seen.device_changes == changes && self.hears_of_devices.load(Ordering::Acquire) {
            seen.disks.insert(uuid, disks.clone());
        }
        Ok(disks)
    }

    /// Forgets which disks a domain has, because a call changes them.
    pub(super) fn disks_change(&self, domain: &VirtDomain) {
        if let Ok(uuid) = domain.uuid() {
            lock(&self.seen).forget_disks(uuid);
            self.bump();
        }
    }
}

fn is_gone(error: &VirtError) -> bool {
    error.code().is_known_and(|code| matches!(code, ErrorNumber::NoDomain | ErrorNumber::NoDomainMetadata))
}

type State = (Enum<VirtState, sys::virDomainState>, Enum<DomainStateReason, c_int>);

/// Translates the state of a domain; `None` if it has ended.
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
            // It will run in a moment.
            Enum::Known(DomainStateReason::Paused(Enum::Known(DomainPausedReason::StartingUp))) => DomainState::Running,
            Enum::Known(DomainStateReason::Paused(Enum::Known(DomainPausedReason::ShuttingDown))) => {
                DomainState::Stopping
            }
            Enum::Known(other) => DomainState::Paused(PauseReason::Other(format!("{other:?}"))),
            Enum::Unknown(code) => DomainState::Paused(PauseReason::Other(format!("reason {code}"))),
        },
    })
}

/// Gives a domain one more disk, unless it has it.
pub(super) fn plug(domain: &VirtDomain, disk: &DiskSpec) -> Result<(), VirtError> {
    let xml = domain.xml_desc(0)?;
    if domain_xml::disk_devices(&xml).iter().any(|device| device.disk == Some(disk.disk)) {
        return Ok(());
    }
    let target = domain_xml::free_target(&xml).expect("there are more names than libvirt gives slots");
    domain.attach_device_flags(&domain_xml::disk_xml(disk, &target), sys::VIR_DOMAIN_DEVICE_MODIFY_LIVE)
}

/// Asks the guest to let go of a disk, unless the domain does not have it. libvirt does not wait for the guest here.
pub(super) fn unplug(domain: &VirtDomain, disk: DiskId) -> Result<(), VirtError> {
    if target(domain, disk)?.is_none() {
        return Ok(());
    }
    let alias = CString::new(domain_xml::alias(disk)).expect("an id has no zero byte");
    // SAFETY: the domain is open, and the text is valid during the call.
    let asked =
        unsafe { sys::virDomainDetachDeviceAlias(domain.as_ptr(), alias.as_ptr(), sys::VIR_DOMAIN_DEVICE_MODIFY_LIVE) };
    if asked == 0 {
        return Ok(());
    }
    let error = VirtError::last_error();
    let is_known = error.code().is_known_and(|code| matches!(code, ErrorNumber::DeviceMissing));
    // QEMU: the guest was asked before and has not answered.
    if is_known || error.message().contains("in the process of unplug") { Ok(()) } else { Err(error) }
}

/// Tells a domain that the file of a disk has grown. `false` if it has no such disk.
pub(super) fn resize(domain: &VirtDomain, disk: DiskId, bytes: u64) -> Result<bool, VirtError> {
    let Some(target) = target(domain, disk)? else { return Ok(false) };
    domain.block_resize(&target, bytes, sys::VIR_DOMAIN_BLOCK_RESIZE_BYTES).map(|()| true)
}

/// The name that a disk has in a domain; `None` if the domain does not have it.
fn target(domain: &VirtDomain, disk: DiskId) -> Result<Option<String>, VirtError> {
    let xml = domain.xml_desc(0)?;
    let device = domain_xml::disk_devices(&xml).into_iter().find(|device| device.disk == Some(disk));
    Ok(device.map(|device| device.target.to_owned()))
}

/// Opens a connection to the VNC server of a domain, which asks for no password on it.
pub(super) fn open_screen(domain: &VirtDomain) -> Result<UnixStream, VirtError> {
    let number = domain.open_graphics_fd(0, sys::VIR_DOMAIN_OPEN_GRAPHICS_SKIPAUTH)?;
    let number = RawFd::try_from(number).expect("a descriptor is not negative");
    // SAFETY: libvirt made the descriptor, one end of a pair of sockets, for the caller, and nobody else has it.
    Ok(unsafe { UnixStream::from_raw_fd(number) })
}

/// Whether a disk of a domain ran out of space. This asks QEMU.
pub(super) fn has_full_disk(domain: &VirtDomain) -> Result<bool, VirtError> {
    const DISKS_MAX: u32 = 32;
    let empty = sys::virDomainDiskError { disk: ptr::null_mut(), error: 0 };
    let mut errors = [empty; DISKS_MAX as usize];
    // SAFETY: the array has `DISKS_MAX` elements, and the domain is open.
    let count = unsafe { sys::virDomainGetDiskErrors(domain.as_ptr(), errors.as_mut_ptr(), DISKS_MAX, 0) };
    let count = usize::try_from(count).map_err(|_| VirtError::last_error())?;
    let mut full = false;
    for error in errors.iter().take(count) {
        full |= u32::try_from(error.error).is_ok_and(|e| e == sys::VIR_DOMAIN_DISK_ERROR_NO_SPACE);
        // SAFETY: the library allocated the name for the caller to free, and it is not used again.
        unsafe { libc::free(error.disk.cast()) };
    }
    Ok(full)
}
