//! The process itself: one loop, one call at a time.

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

/// How often it looks whether it can still be found; also the longest a silent caller may take.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Largest map: two bits per block of a 16 TiB disk and a page.
const MAP_BYTES_MAX: u64 = (1 << 30) + 4096;

/// Serves `socket` until told to stop or until nobody can find it any more.
///
/// # Errors
/// When the socket cannot be made.
pub fn main(socket: &Path) -> io::Result<()> {
    // Own session: the terminal's and the service manager's signals to the agent's group are not for us.
    // Fails only when this process leads a group already, which is as good.
    let _already_leader = rustix::process::setsid();
    match std::fs::remove_file(socket) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(socket)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
    let own = std::fs::symlink_metadata(socket)?;
    let reachable =
        || std::fs::symlink_metadata(socket).is_ok_and(|now| now.ino() == own.ino() && now.dev() == own.dev());
    let tick = Timespec { tv_sec: 1, tv_nsec: 0 };
    let mut maps: BTreeMap<String, OwnedFd> = BTreeMap::new();
    loop {
        let mut fds = [PollFd::new(&listener, PollFlags::IN)];
        let waiting = match poll(&mut fds, Some(&tick)) {
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
        // A caller that breaks the call off, or is not allowed to make it, is its own problem only.
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
    stream.set_read_timeout(Some(LOOK_EVERY))?;
    stream.set_write_timeout(Some(LOOK_EVERY))?;
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
            // What is held already is at least as good as what is offered.
            Some(fd) => drop(maps.entry(key).or_insert(fd)),
            None => answer.error = Some("no descriptor came with it".to_owned()),
        },
        Ask::Drop { key } => drop(maps.remove(&key)),
        Ask::List => answer.keys = maps.keys().cloned().collect(),
        Ask::Stop => step = Step::Stop,
    }
    let fd = give.and_then(|key| maps.get(&key)).map(AsFd::as_fd);
    wire::send(stream, &answer, fd)?;
    Ok(step)
}

/// Whether it was made.
fn get(maps: &mut BTreeMap<String, OwnedFd>, key: &str, bytes: u64) -> io::Result<bool> {
    if bytes == 0 || bytes > MAP_BYTES_MAX {
        return Err(io::Error::other(format!("a map of {bytes} bytes")));
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
    // A map that shrinks would kill its user with SIGBUS.
    fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    maps.insert(key.to_owned(), fd);
    Ok(true)
}
