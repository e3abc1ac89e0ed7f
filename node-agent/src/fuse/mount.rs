//! One FUSE connection per disk, mounted on the regular file `disks/<disk>.raw`.
//!
//! The source of a mount names its cluster, node and disk: `muster:CLUSTER:NODE:DISK`. Its type is `fuse.muster`. Only
//! mounts of our own cluster and node are ever touched.
//!
//! Mounts are found in mountinfo, never by stat(2): a mount whose process has died does not answer, and the agent must
//! neither wait for nor keep open a file that it serves itself.

use std::{
    ffi::OsString,
    fs::File,
    io,
    os::unix::{ffi::OsStringExt, fs::OpenOptionsExt},
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use muster_api::{ClusterId, NodeId};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use storage_core::lock;

use super::{
    DiskFs,
    connection::{Device, REQUEST_BYTES_MAX},
    readers::Readers,
    worker,
};
use crate::mirror::{disk::Disk, disks::MountedDisk};

const FS_TYPE: &str = "fuse.muster";
/// Threads per connection. Most requests wait for the node's disk. One thread has several requests in progress (`worker`).
/// The others serve what it handles one by one, and kernels without io_uring.
const THREADS: usize = 8;
/// Longest time an unmount waits for the threads of its connection to end.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// A mounted disk. Dropping it unmounts.
pub(super) struct Mounted {
    path: PathBuf,
    threads: Arc<Threads>,
    unmounted: bool,
}

/// The threads that serve a connection.
#[derive(Default)]
struct Threads {
    readers: Readers,
    running: Mutex<usize>,
    ended: Condvar,
}

impl Threads {
    fn running(&self) -> MutexGuard<'_, usize> {
        lock(&self.running)
    }

    /// Starts one more serving thread. If it fails, it ends the connection, and the disk is mounted again.
    fn start(self: &Arc<Self>, fs: Arc<DiskFs>, twin: Arc<Device>, path: &Path) -> io::Result<()> {
        let (threads, path) = (self.clone(), path.to_owned());
        *self.running() += 1;
        let started = std::thread::Builder::new().name(format!("fuse-{}", fs.disk.id())).spawn(move || {
            let _span = tracing::info_span!("fuse", disk.id = %fs.disk.id()).entered();
            let serve = || worker::serve(&fs, &twin, &threads.readers);
            let ended = std::panic::catch_unwind(AssertUnwindSafe(serve));
            if let Err(error) = ended.unwrap_or_else(|_| Err(io::Error::other("a serving thread panicked"))) {
                tracing::error!(error = %error, "the connection of a disk failed; the disk will be mounted again");
                end_connection(&path);
            }
            threads.readers.end();
            // Release the disk before reporting the end: whoever waits for the end expects the disk to be unused.
            drop(fs);
            threads.one_ended();
        });
        started.map(drop).inspect_err(|_| self.one_ended())
    }

    fn one_ended(&self) {
        *self.running() -= 1;
        self.ended.notify_all();
    }

    fn end_within(&self, wait: Duration) -> bool {
        let waited = self.ended.wait_timeout_while(self.running(), wait, |running| *running > 0);
        let (running, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *running == 0
    }
}

impl Mounted {
    /// Mounts the disk on the file `path`, which is created if needed, and starts to serve it. Fails when something is
    /// mounted there already, when mount(2) does, and when the kernel's FUSE is too old.
    pub(super) fn mount(disk: Arc<Disk>, path: &Path) -> io::Result<Self> {
        let config = &disk.node().config;
        let source = format!("muster:{}:{}:{}", config.cluster, config.node, disk.id());
        ensure_mount_point(path)?;
        let device = Arc::new(Device::open()?);
        let options = format!(
            "fd={},rootmode=100000,user_id=0,group_id=0,allow_other,default_permissions,max_read={REQUEST_BYTES_MAX}",
            device.number()
        );
        let options = std::ffi::CString::new(options).map_err(io::Error::other)?;
        mount(&*source, path, FS_TYPE, MountFlags::NOSUID | MountFlags::NODEV, options.as_c_str())?;
        // From here on, an error drops this value, which unmounts.
        let mounted = Self { path: path.to_owned(), threads: Arc::default(), unmounted: false };
        device.greet()?;
        let twin = Arc::new(device.twin()?);
        let fs = Arc::new(DiskFs::new(disk, device));
        for _ in 0..THREADS {
            mounted.threads.start(fs.clone(), twin.clone(), path)?;
        }
        Ok(mounted)
    }
}

impl MountedDisk for Mounted {
    fn is_serving(&self) -> bool {
        *self.threads.running() > 0
    }

    /// Ends the threads as well.
    fn unmount(&mut self) {
        if self.unmounted {
            return;
        }
        self.unmounted = true;
        if !self.is_serving() {
            // The connection was aborted from outside, or never served. The mount may still exist, and while replies are
            // outstanding so does the connection.
            end_connection(&self.path);
            return;
        }
        // FORCE ends the connection itself, even if the file is open. A plain unmount would only remove the mount from
        // this mount namespace. libvirt gives each guest a namespace with a copy of the mount, which stays out of reach
        // where `/` is not a shared mount. DETACH removes the mount from its path even while it is in use.
        if let Err(error) = unmount(&self.path, UnmountFlags::FORCE | UnmountFlags::DETACH) {
            tracing::warn!(path = %self.path.display(), error = %error, "a disk could not be unmounted");
        }
        if !self.threads.end_within(END_TIMEOUT) {
            tracing::warn!(path = %self.path.display(), "the threads that serve a disk did not end");
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.unmount();
    }
}

/// Ends a connection and removes its mount, unless both are gone already.
fn end_connection(path: &Path) {
    if let Err(error) = unmount(path, UnmountFlags::FORCE | UnmountFlags::DETACH) {
        tracing::debug!(path = %path.display(), error = %error, "the mount was gone already");
    }
}

/// Creates the empty file to mount on. Checks first that nothing is mounted there: opening a mount could hang.
fn ensure_mount_point(path: &Path) -> io::Result<()> {
    if mounts()?.iter().any(|mount| mount.path == path) {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something is mounted there already"));
    }
    let mut options = File::options();
    options.write(true).create(true).truncate(false).mode(0o600);
    options.open(path).map(drop)
}

struct MountEntry {
    path: PathBuf,
    fs_type: String,
    source: String,
}

/// Unmounts what an earlier process of this node left mounted below `dir`. The connections ended with that process.
pub(super) fn clear_stale(cluster: &ClusterId, node: &NodeId, dir: &Path) -> io::Result<()> {
    let ours = format!("muster:{cluster}:{node}:");
    let dir = match dir.canonicalize() {
        Ok(dir) => dir,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for mount in mounts()? {
        if mount.fs_type == FS_TYPE && mount.source.starts_with(&ours) && mount.path.starts_with(&dir) {
            tracing::info!(path = %mount.path.display(), "unmounting a disk that an earlier process left mounted");
            unmount(&mount.path, UnmountFlags::FORCE | UnmountFlags::DETACH)?;
        }
    }
    Ok(())
}

fn mounts() -> io::Result<Vec<MountEntry>> {
    // Not text: a mount may have any bytes in its name.
    let table = std::fs::read("/proc/self/mountinfo")?;
    Ok(table.split(|byte| *byte == b'\n').filter_map(parse_mount).collect())
}

/// Parses `ID PARENT MAJ:MIN ROOT PATH OPTIONS… - TYPE SOURCE SUPER`, in which blanks are written as `\040`.
fn parse_mount(line: &[u8]) -> Option<MountEntry> {
    let mut fields = line.split(|byte| *byte == b' ');
    let path = PathBuf::from(OsString::from_vec(unescape(fields.nth(4)?)));
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    let mut text = || Some(String::from_utf8_lossy(&unescape(fields.next()?)).into_owned());
    Some(MountEntry { path, fs_type: text()?, source: text()? })
}

fn unescape(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        let escaped = tail.split_at_checked(3).filter(|_| byte == b'\\');
        let decoded = escaped.and_then(|(digits, after)| Some((parse_octal(digits)?, after)));
        let (byte, after) = decoded.unwrap_or((byte, tail));
        out.push(byte);
        rest = after;
    }
    out
}

fn parse_octal(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_lines_with_escapes_are_parsed() {
        let line = br"36 35 98:0 / /mnt/a\040b rw,noatime master:1 - fuse.muster muster:c:n:d rw";
        let mount = parse_mount(line).expect("a mount");
        assert_eq!(mount.path, PathBuf::from("/mnt/a b"));
        assert_eq!(mount.fs_type, "fuse.muster");
        assert_eq!(mount.source, "muster:c:n:d");
        let strange = b"36 35 98:0 / /mnt/\xff rw - ext4 \xfe rw";
        let mount = parse_mount(strange).expect("a mount");
        assert_eq!(mount.path.as_os_str().as_encoded_bytes(), b"/mnt/\xff");
        assert!(parse_mount(b"").is_none());
    }
}
