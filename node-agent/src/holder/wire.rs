//! Messages between the agent and the holder: a u32 length, then JSON. At most one descriptor travels with the length.

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
use storage_core::units::usize_from;

/// Largest message in bytes. The keys of thousands of epochs fit.
const MESSAGE_BYTES_MAX: u32 = 4 << 20;

/// A call of the agent.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(super) enum Ask {
    /// Return the memory of this key. Create it, zeroed, if there is none.
    Get { key: String, bytes: u64 },
    /// Take over memory that the agent has, because the previous holder died.
    Adopt { key: String },
    /// Forget the memory of this key.
    Drop { key: String },
    /// Return the keys of all memory that it holds.
    List,
    /// Forget everything and end the process.
    Stop,
}

/// The holder's answer, for every kind of [`Ask`].
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Answer {
    /// Why the call failed; `None` when it succeeded.
    pub(super) error: Option<String>,
    /// Answer to `Get`: this call created the memory.
    #[serde(default)]
    pub(super) fresh: bool,
    /// Answer to `List`: the keys of all memory. Empty for other calls.
    #[serde(default)]
    pub(super) keys: Vec<String>,
}

pub(super) fn send<T: Serialize>(stream: &mut UnixStream, message: &T, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    let length = u32::try_from(body.len()).map_err(|_| io::Error::other("the message is too long"))?;
    let head = length.to_le_bytes();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds;
    if let Some(fd) = fd {
        fds = [fd];
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)), "there is space for one descriptor");
    }
    let sent = rustix::net::sendmsg(stream.as_fd(), &[IoSlice::new(&head)], &mut control, SendFlags::NOSIGNAL)?;
    stream.write_all(&head[sent..])?;
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
    stream.read_exact(&mut head[got.bytes..])?;
    let length = u32::from_le_bytes(head);
    if length > MESSAGE_BYTES_MAX {
        return Err(io::Error::other(format!("a message of {length} bytes is too long")));
    }
    let mut body = vec![0; usize_from(length.into())];
    stream.read_exact(&mut body)?;
    Ok((serde_json::from_slice(&body)?, fd))
}
