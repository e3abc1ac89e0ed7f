//! The holder process: a loop that serves one call at a time.

use std::{
    collections::BTreeMap,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            fs::{MetadataExt, PermissionsExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::Path,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, fstat, ftruncate, memfd_create},
};

use super::wire::{self, Answer, Ask};
use crate::limits;

/// How often the holder checks whether its socket can still be reached.
const LOOK_EVERY: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// Longest time to wait for a caller to send or receive.
const CALLER_TIMEOUT: Duration = Duration::from_secs(1);
/// Largest map in bytes: two bits per block of a 16 TiB disk, and a page.
const MAP_BYTES_MAX: u64 = (1 << 30) + 4096;

/// Serves calls on `socket` until told to stop, or until the socket cannot be reached at its path any more.
///
/// # Errors
/// When the socket cannot be created or polled.
pub fn main(socket: &Path) -> io::Result<()> {
    // A session of its own: signals that a terminal or service manager sends to the agent's group must not reach this
    // process. It fails only when this process already leads a group, which serves as well.
    let _already_leader = rustix::process::setsid();
    // One descriptor for each map.
    limits::raise_descriptors();
    match std::fs::remove_file(socket) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(socket)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
    let own = std::fs::symlink_metadata(socket)?;
    let reachable =
        || std::fs::symlink_metadata(socket).is_ok_and(|now| now.ino() == own.ino() && now.dev() == own.dev());
    let mut maps: BTreeMap<String, OwnedFd> = BTreeMap::new();
    loop {
        let mut fds = [PollFd::new(&listener, PollFlags::IN)];
        let waiting = match poll(&mut fds, Some(&LOOK_EVERY)) {
            Ok(waiting) => waiting,
            Err(rustix::io::Errno::INTR) => continue,
            Err(e) => return Err(e.into()),
        };
        if !reachable() {
            return Ok(());
        }
        if waiting == 0 {
            continue;
        }
        let Ok((mut stream, _)) = listener.accept() else { continue };
        // Errors concern only this caller, which broke off or is not allowed to call.
        if let Ok(Step::Stop) = serve(&mut stream, &mut maps) {
            let _gone_is_fine = std::fs::remove_file(socket);
            return Ok(());
        }
    }
}

enum Step {
    Next,
    Stop,
}

fn serve(stream: &mut UnixStream, maps: &mut BTreeMap<String, OwnedFd>) -> io::Result<Step> {
    stream.set_read_timeout(Some(CALLER_TIMEOUT))?;
    stream.set_write_timeout(Some(CALLER_TIMEOUT))?;
    let peer = rustix::net::sockopt::socket_peercred(stream.as_fd())?;
    if peer.uid != rustix::process::geteuid() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let (ask, fd) = wire::receive::<Ask>(stream)?;
    let mut answer = Answer::default();
    let mut step = Step::Next;
    let mut give = None;
    match ask {
        Ask::Get { key, bytes } => match get(maps, &key, bytes) {
            Ok(fresh) => {
                answer.fresh = fresh;
                give = Some(key);
            }
            Err(e) => answer.error = Some(e.to_string()),
        },
        Ask::Adopt { key } => match fd {
            // Memory that is held already is at least as new as what is offered.
            Some(fd) => drop(maps.entry(key).or_insert(fd)),
            None => answer.error = Some("the call has no descriptor".to_owned()),
        },
        Ask::Drop { key } => drop(maps.remove(&key)),
        Ask::List => answer.keys = maps.keys().cloned().collect(),
        Ask::Stop => step = Step::Stop,
    }
    let fd = give.and_then(|key| maps.get(&key)).map(AsFd::as_fd);
    wire::send(stream, &answer, fd)?;
    Ok(step)
}

/// Makes sure the memory of `key` exists. Returns whether it was created.
fn get(maps: &mut BTreeMap<String, OwnedFd>, key: &str, bytes: u64) -> io::Result<bool> {
    if bytes == 0 || bytes > MAP_BYTES_MAX {
        return Err(io::Error::other(format!("a map cannot have {bytes} bytes")));
    }
    if let Some(fd) = maps.get(key) {
        let have = fstat(fd)?.st_size;
        if u64::try_from(have) != Ok(bytes) {
            return Err(io::Error::other(format!("map {key} has {have} bytes, not {bytes}")));
        }
        return Ok(false);
    }
    let fd = memfd_create("muster-live-map", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&fd, bytes)?;
    // If the memory could shrink, processes that have it mapped would be killed by SIGBUS.
    fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    maps.insert(key.to_owned(), fd);
    Ok(true)
}
