//! A disk in the view of a guest that runs already.
//!
//! libvirt gives each QEMU a mount namespace of its own, which is a copy from the start of the guest. A mount that is made
//! later gets there by itself only where the host's mounts are shared, as systemd has them. Elsewhere QEMU finds the socket
//! that lies under the mount ([`mount`](super::mount)). So before a disk is plugged in, a process of its own looks from
//! there, and puts the mount there if it is missing.
//!
//! Such a mount needs no care: it goes with its guest, and once the disk is unmounted on the host its connection has ended
//! for everybody.

use std::{fs::File, io, os::fd::AsRawFd as _, path::Path};

use rustix::{
    fs::{AtFlags, CWD, StatxFlags, statx},
    mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree},
};

/// The process: makes the mounted file `path` visible at the same path for the process `pid`. May be repeated.
///
/// # Errors
/// When that process has no such path, and when the kernel refuses.
pub fn show(pid: u32, path: &Path) -> io::Result<()> {
    let said = |what: &str, error: io::Error| io::Error::new(error.kind(), format!("{what}: {error}"));
    // The device of a file is that of its mount. Asking for it this way does not ask whoever serves the file.
    let device = || {
        statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC, StatxFlags::empty())
            .map(|found| (found.stx_dev_major, found.stx_dev_minor))
    };
    let ours = device().map_err(|error| said("the disk", error.into()))?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    let copy = open_tree(CWD, path, flags).map_err(|error| said("a copy of the mount", error.into()))?;
    enter_mounts_of(pid).map_err(|error| said("the mounts of the guest's process", error))?;
    // An older mount may lie there, of a disk that was unmounted since.
    if device().map_err(|error| said("the disk's path for the guest's process", error.into()))? == ours {
        return Ok(());
    }
    move_mount(copy, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(|error| said("the mount for the guest's process", error.into()))
}

/// Moves this thread into the mount namespace of another process.
fn enter_mounts_of(pid: u32) -> io::Result<()> {
    let namespace = File::open(format!("/proc/{pid}/ns/mnt"))?;
    // A thread that shares its root and working directory with others may not enter.
    // SAFETY: the call only takes flags.
    if unsafe { libc::unshare(libc::CLONE_FS) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open during the call.
    if unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNS) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
