//! One message: u32 length, JSON, and at most one descriptor that rides on the first bytes.

use std::{
    io::{self, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Longest message: room for the keys of thousands of epochs.
const MESSAGE_BYTES_MAX: u32 = 4 << 20;

/// What the agent asks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(super) enum Ask {
    /// The memory of this key; made, zeroed, when it is not there.
    Get { key: String, bytes: u64 },
    /// Take over memory that the agent has (the holder before this one died).
    Adopt { key: String },
    /// Forget it.
    Drop { key: String },
    /// All keys.
    List,
    /// Forget everything and end.
    Stop,
}

/// What the holder says.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Answer {
    /// Why not; none = done.
    pub(super) error: Option<String>,
    /// Get: the memory was made by this call.
    #[serde(default)]
    pub(super) fresh: bool,
    /// List: the keys.
    #[serde(default)]
    pub(super) keys: Vec<String>,
}

pub(super) fn send<T: Serialize>(stream: &mut UnixStream, message: &T, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    let length = u32::try_from(body.len()).map_err(|_| io::Error::other("message too long"))?;
    let head = length.to_le_bytes();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds;
    if let Some(fd) = fd {
        fds = [fd];
        if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(io::Error::other("no room for the descriptor"));
        }
    }
    let sent = rustix::net::sendmsg(stream.as_fd(), &[IoSlice::new(&head)], &mut control, SendFlags::NOSIGNAL)?;
    if sent < head.len() {
        stream.write_all(head.get(sent..).unwrap_or_default())?;
    }
    stream.write_all(&body)
}

pub(super) fn receive<T: DeserializeOwned>(stream: &mut UnixStream) -> io::Result<(T, Option<OwnedFd>)> {
    let mut head = [0u8; 4];
    let mut fd = None;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got =
        rustix::net::recvmsg(stream.as_fd(), &mut [IoSliceMut::new(&mut head)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    if got.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            fd = fds.into_iter().next();
        }
    }
    stream.read_exact(head.get_mut(got.bytes..).unwrap_or_default())?;
    let length = u32::from_le_bytes(head);
    if length > MESSAGE_BYTES_MAX {
        return Err(io::Error::other(format!("message of {length} bytes")));
    }
    let mut body = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    stream.read_exact(&mut body)?;
    Ok((serde_json::from_slice(&body)?, fd))
}
