//! One FUSE connection per disk, mounted on the regular file `disks/<disk>.raw`.
//!
//! A mount carries cluster, node and disk in its source, `muster:CLUSTER:NODE:DISK`, and `fuse.muster` as its type: only
//! mounts with our cluster and node are ever touched. Mounts are looked up in mountinfo, never by stat: a mount whose
//! process died answers nothing, and the agent must not hang on, or hold open, what it serves itself.

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

use super::{
    DiskFs,
    connection::{Device, REQUEST_BYTES_MAX},
    readers::Readers,
    worker,
};
use crate::mirror::{DeltaIo, disk::Disk};

const FS_TYPE: &str = "fuse.muster";
/// Threads per connection, on one shared descriptor, while deltas go through the page cache: most requests are answered
/// from memory, and a few more threads than cores keep those going while one waits for the disk below.
const THREADS_BUFFERED: usize = 4;
/// With direct deltas every request waits for the disk below. A thread has several of them under way (`worker`); more are
/// for what it does one by one, and for kernels without io_uring.
const THREADS_DIRECT: usize = 8;
/// Longest wait for a connection's threads to end.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// A mounted disk.
pub(crate) struct Mounted {
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
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts one more.
    fn start(self: &Arc<Self>, fs: Arc<DiskFs>, twin: Option<Arc<Device>>, path: &Path) -> io::Result<()> {
        let (threads, path) = (self.clone(), path.to_owned());
        *self.running() += 1;
        let started = std::thread::Builder::new().name(format!("fuse-{}", fs.disk.id())).spawn(move || {
            let _span = tracing::info_span!("fuse", disk.id = %fs.disk.id()).entered();
            let serve = || worker::serve(&fs, twin.as_ref(), &threads.readers);
            let ended = std::panic::catch_unwind(AssertUnwindSafe(serve));
            if let Err(error) = ended.unwrap_or_else(|_| Err(io::Error::other("a thread of it panicked"))) {
                tracing::error!(error = %error, "a disk's connection failed and is ended; it will be mounted again");
                end_connection(&path);
            }
            threads.readers.end();
            // Before it is told: who waits for the end may count on the disk being let go.
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
        waited.is_ok_and(|(running, _)| *running == 0)
    }
}

impl Mounted {
    /// Mounts the disk on `path`, which is made if it is not there, and starts to serve it.
    pub(crate) fn mount(disk: Arc<Disk>, path: &Path) -> io::Result<Self> {
        let config = &disk.node().config;
        let source = format!("muster:{}:{}:{}", config.cluster, config.node, disk.id());
        let threads = match config.delta_io {
            DeltaIo::Buffered => THREADS_BUFFERED,
            DeltaIo::Direct => THREADS_DIRECT,
        };
        ensure_mount_point(path)?;
        let device = Arc::new(Device::open()?);
        let options = format!(
            "fd={},rootmode=100000,user_id=0,group_id=0,allow_other,default_permissions,max_read={REQUEST_BYTES_MAX}",
            device.number()
        );
        let options = std::ffi::CString::new(options).map_err(io::Error::other)?;
        mount(&*source, path, FS_TYPE, MountFlags::NOSUID | MountFlags::NODEV, options.as_c_str())?;
        // From here on dropping it unmounts.
        let mounted = Self { path: path.to_owned(), threads: Arc::default(), unmounted: false };
        device.greet()?;
        let twin = match disk.node().config.delta_io {
            DeltaIo::Buffered => None,
            DeltaIo::Direct => Some(Arc::new(device.twin()?)),
        };
        let fs = Arc::new(DiskFs::new(disk, device));
        for _ in 0..threads {
            mounted.threads.start(fs.clone(), twin.clone(), path)?;
        }
        Ok(mounted)
    }

    /// The kernel still talks to us.
    pub(crate) fn is_serving(&self) -> bool {
        *self.threads.running() > 0
    }

    /// Takes the mount away and ends its threads. Who has the file open, gets errors from now on.
    pub(crate) fn unmount(&mut self) {
        if self.unmounted {
            return;
        }
        self.unmounted = true;
        if !self.is_serving() {
            // Aborted from outside, or never served: the mount may still be there, and with answers still owed so is the
            // connection.
            end_connection(&self.path);
            return;
        }
        // FORCE ends the connection itself, whoever has it open: a plain unmount ends only this namespace's mount, and
        // each guest of libvirt has a namespace with a copy of it, which nothing reaches where `/` is not shared.
        // DETACH takes the name away, whoever uses it.
        if let Err(error) = unmount(&self.path, UnmountFlags::FORCE | UnmountFlags::DETACH) {
            tracing::warn!(path = %self.path.display(), error = %error, "a disk could not be unmounted");
        }
        if !self.threads.end_within(END_TIMEOUT) {
            tracing::warn!(path = %self.path.display(), "the threads of a disk's connection did not end");
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.unmount();
    }
}

/// Ends a connection and takes its mount away, where they are not gone already.
fn end_connection(path: &Path) {
    if let Err(error) = unmount(path, UnmountFlags::FORCE | UnmountFlags::DETACH) {
        tracing::debug!(path = %path.display(), error = %error, "the mount was gone");
    }
}

/// An empty regular file; nothing is opened if something is mounted there already.
fn ensure_mount_point(path: &Path) -> io::Result<()> {
    if mounts()?.iter().any(|mount| mount.path == path) {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something is mounted there"));
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

/// Unmounts what an earlier process of this node left below `dir`: its connections died with it.
pub(crate) fn clear_stale(cluster: &ClusterId, node: &NodeId, dir: &Path) -> io::Result<()> {
    let ours = format!("muster:{cluster}:{node}:");
    let dir = dir.canonicalize()?;
    for mount in mounts()? {
        if mount.fs_type == FS_TYPE && mount.source.starts_with(&ours) && mount.path.starts_with(&dir) {
            tracing::info!(path = %mount.path.display(), "unmounting what an earlier process left");
            unmount(&mount.path, UnmountFlags::FORCE | UnmountFlags::DETACH)?;
        }
    }
    Ok(())
}

fn mounts() -> io::Result<Vec<MountEntry>> {
    // Bytes: whoever may mount, may name a mount as they like.
    let table = std::fs::read("/proc/self/mountinfo")?;
    Ok(table.split(|byte| *byte == b'\n').filter_map(parse_mount).collect())
}

/// `ID PARENT MAJ:MIN ROOT PATH OPTIONS… - TYPE SOURCE SUPER`, blanks and the like as `\ooo`.
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
        let octal = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(code) if byte == b'\\' => {
                out.push(code);
                rest = tail.get(3..).unwrap_or_default();
            }
            _ => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_lines_are_read_with_their_escapes() {
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
