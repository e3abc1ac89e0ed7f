//! Bytes between one client and a screen or a port of a guest.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};

use super::{
    GuestStream,
    socket::{Drain, Out, Source},
};

/// Room for what is read at once, bytes.
const PIECE_BYTES: usize = 64 << 10;

/// What comes from the guest.
pub(super) struct FromGuest {
    stream: ReadHalf<GuestStream>,
    buffer: BytesMut,
}

/// What goes to the guest.
pub(super) struct ToGuest(WriteHalf<GuestStream>);

/// Both directions of a connection into a guest.
pub(super) fn relay(stream: GuestStream) -> (FromGuest, ToGuest) {
    let (from, to) = tokio::io::split(stream);
    (FromGuest { stream: from, buffer: BytesMut::new() }, ToGuest(to))
}

impl Source for FromGuest {
    async fn next(&mut self) -> Out {
        self.buffer.reserve(PIECE_BYTES);
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(0) => Out::Ended("the guest has closed the connection".to_owned()),
            Ok(_) => Out::Bytes(self.buffer.split().freeze()),
            Err(error) => Out::Ended(format!("the connection into the guest broke: {error}")),
        }
    }
}

impl Drain for ToGuest {
    async fn take(&mut self, bytes: Bytes) -> Result<(), String> {
        let written = self.0.write_all(&bytes).await;
        written.map_err(|error| format!("the connection into the guest broke: {error}"))
    }

    async fn end(&mut self) -> Result<(), String> {
        let ended = self.0.shutdown().await;
        ended.map_err(|error| format!("the connection into the guest broke: {error}"))
    }
}
