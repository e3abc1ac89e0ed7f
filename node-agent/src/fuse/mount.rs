//! One FUSE connection per disk, mounted on `disks/<disk>.raw`.
//!
//! **What lies under the mount is a socket** that nobody listens on (I2). While the disk is not served, before a start
//! and after a stop or a crash, opening that path fails with ENXIO, for root and for programs that would create the
//! file too, so no write can go to a file that is not the disk. An immutable file would refuse as well, but it would
//! also refuse `rm -rf` of the data folder, and not every file system has immutable files. A free path would let
//! programs create one.
//!
//! The source of a mount names its cluster, node and disk: `muster:CLUSTER:NODE:DISK`. Its type is `fuse.muster`. Only
//! mounts of our own cluster and node are ever touched.
//!
//! Mounts are found in mountinfo or by a statx(2) that asks nobody, never by stat(2): a mount whose process has died
//! does not answer, and the agent must neither wait for nor keep open a file that it serves itself. mountinfo is read
//! once, at the start: reading it for each mount takes quadratic time.

use std::{
    ffi::OsString,
    fs::File,
    io,
    os::unix::{ffi::OsStringExt, fs::FileTypeExt},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::future::BoxFuture;
use muster_api::{ClusterId, DiskId, NodeId};
use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, Statx, StatxAttributes, StatxFlags, mknodat, statx},
    io::Errno,
    mount::{MountFlags, UnmountFlags, mount, unmount},
};

use super::{
    DiskFs,
    connection::{Device, Greeted, REQUEST_BYTES_MAX},
    first_reads::FirstReads,
    pool::{Pool, Served},
};
use crate::mirror::{disk::Disk, disks::MountedDisk};

const FS_TYPE: &str = "fuse.muster";
/// Longest time an unmount waits for the threads of its connection to end.
const END_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time until the first request of a new mount must have been served.
const FIRST_ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A mounted disk. Dropping it unmounts.
pub(super) struct Mounted {
    disk: DiskId,
    path: PathBuf,
    reads: Arc<FirstReads>,
    device: Arc<Device>,
    /// `None` before the connection is served.
    served: Option<Served>,
    unmounted: bool,
}

impl Mounted {
    /// Mounts the disk on `path`, where a mount point is created if needed. Returns when the pool has served its first
    /// request, which the kernel sends by itself.
    ///
    /// This process must not send one, by a read through the mount: see [`first_reads`](super::first_reads).
    ///
    /// Fails when something is mounted there already, when mount(2) does, and when the kernel's FUSE is too old.
    pub(super) fn mount(disk: Arc<Disk>, path: &Path, pool: &Arc<Pool>, reads: &Arc<FirstReads>) -> io::Result<Self> {
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
        let (path, reads) = (path.to_owned(), reads.clone());
        let mut mounted =
            Self { disk: disk.id(), path: path.clone(), reads, device: device.clone(), served: None, unmounted: false };
        let span = tracing::info_span!("fuse", disk.id = %disk.id());
        let greeted = Arc::new(Greeted::default());
        let fs = DiskFs::new(disk, device, path, greeted.clone());
        mounted.served = Some(pool.serve(Box::new(fs), span)?);
        greeted.wait(FIRST_ANSWER_TIMEOUT)?;
        Ok(mounted)
    }
}

impl MountedDisk for Mounted {
    fn is_serving(&self) -> bool {
        self.served.as_ref().is_some_and(Served::is_serving)
    }

    fn first_read(&self) -> BoxFuture<'static, io::Result<()>> {
        let (reads, disk) = (self.reads.clone(), self.disk);
        Box::pin(async move { reads.read(disk).await })
    }

    fn grown(&self) {
        self.device.forget_attributes();
    }

    /// Waits until no thread uses the disk any more.
    fn unmount(&mut self) {
        if self.unmounted {
            return;
        }
        self.unmounted = true;
        end_connection(&self.path);
        if self.served.as_ref().is_some_and(|served| !served.end_within(END_TIMEOUT)) {
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
pub(super) fn end_connection(path: &Path) {
    // FORCE ends the connection itself, even if the file is open. A plain unmount would only remove the mount from this
    // mount namespace. libvirt gives each guest a namespace with a copy of the mount, which stays out of reach where
    // `/` is not a shared mount. DETACH removes the mount from its path even while it is in use.
    if let Err(error) = unmount(path, UnmountFlags::FORCE | UnmountFlags::DETACH) {
        // EINVAL: something else has unmounted it.
        tracing::debug!(path = %path.display(), error = %error, "a mount was gone already");
    }
}

/// Makes sure that there is a socket to mount on. Checks first that nothing is mounted there: opening a mount could
/// hang.
///
/// A regular file may be there, made by an older agent, or by a program while the path was free. It is not the disk: an
/// empty one is replaced, one with bytes is kept under another name.
fn ensure_mount_point(path: &Path) -> io::Result<()> {
    if is_mount_point(path)? {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something is mounted there already"));
    }
    match path.symlink_metadata() {
        Ok(found) if found.file_type().is_socket() => return Ok(()),
        Ok(found) if found.len() == 0 => std::fs::remove_file(path)?,
        Ok(_) => {
            let aside = path.with_extension("raw.not-the-disk");
            std::fs::rename(path, &aside)?;
            let (path, aside) = (path.display(), aside.display());
            tracing::error!(%path, %aside, "a program made a file in the place of a disk that was not served; it is kept");
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    mknodat(CWD, path, FileType::Socket, Mode::empty(), 0)?;
    // It must also be there after a power loss, before the disk is served again.
    File::open(path.parent().unwrap_or(path))?.sync_all()
}

/// Whether something is mounted on a file. Does not ask whoever serves it, and does not read the table of all mounts.
fn is_mount_point(path: &Path) -> io::Result<bool> {
    let look =
        |path: &Path| statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC, StatxFlags::empty());
    let found = match look(path) {
        Ok(found) => found,
        Err(Errno::NOENT) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    // Linux before 5.8 does not tell of mounts, but another file system has another device.
    let folder = look(path.parent().unwrap_or(path))?;
    let device = |stat: &Statx| (stat.stx_dev_major, stat.stx_dev_minor);
    Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) || device(&found) != device(&folder))
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
