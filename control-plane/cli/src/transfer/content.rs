//! The body of an upload: one zstd frame (RFC 8878) that stores data as it is and zeros in a few bytes.
//!
//! ```text
//!  28 b5 2f fd  c0           38              length │ block │ block │ … │ empty last block
//!  magic        with length  window 128 KiB  of all   data: its bytes after a head of 3 bytes
//!               (00 without)                          zeros: 4 bytes; 128 KiB at most
//! ```
//! There is only one frame, because a file that became shorter or cannot be read then leaves a frame without its last
//! block, which no controller takes for a whole one. Nothing is compressed: on a fast network that would cost more time
//! than it saves. The frame is written by hand because the zstd crates want to read every byte of the content, also of
//! a hole, and offer no way to emit a stored or a repeated block without compressing.

use std::{
    fs::File,
    io::{self, Read, Seek},
    os::unix::fs::FileExt,
};

use bytes::Bytes;
use futures::{Stream, stream};
use rustix::{
    fs::{SeekFrom, seek},
    io::Errno,
};
use tokio::sync::mpsc;

const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Largest block the format allows.
const BLOCK_BYTES: usize = 128 << 10;
const BLOCK_HEAD_BYTES: usize = 3;
/// A part is sent once it has this many encoded bytes.
const PART_BYTES: usize = 2 * BLOCK_BYTES;
/// A part is also sent once it stands for this much content, so that progress is seen in large holes too.
const PART_CONTENT_BYTES: u64 = 64 << 20;
/// Number of parts that are read ahead of the network.
const PARTS_AHEAD: usize = 8;

/// The next bytes of the frame.
pub(crate) struct Part {
    pub(crate) encoded: Bytes,
    /// How many bytes of the content they stand for.
    pub(crate) content_bytes: u64,
}

pub(crate) enum Source {
    /// A regular file or block device, and the length it had when it was opened: so much is sent.
    File(File, u64),
    /// Anything else is read to its end.
    Pipe(Box<dyn Read + Send>),
}

/// Encodes the content on a thread of its own, ahead of the network. An error is the last item, and the frame then has
/// no end.
pub(crate) fn encode(source: Source) -> impl Stream<Item = io::Result<Part>> + Send + use<> {
    let (to, mut parts) = mpsc::channel(PARTS_AHEAD);
    tokio::task::spawn_blocking(move || {
        let mut frame = Frame { encoded: frame_head(&source), content_bytes: 0, to };
        let read = match source {
            Source::File(file, size) => read_file(&file, size, &mut frame),
            Source::Pipe(mut pipe) => read_pipe(&mut pipe, &mut frame),
        };
        if let Err(error) = read.and_then(|()| frame.finish()) {
            // This fails if the error was that nobody reads the parts any more.
            let _ = frame.to.blocking_send(Err(error));
        }
    });
    stream::poll_fn(move |cx| parts.poll_recv(cx))
}

fn read_file(mut file: &File, size: u64, frame: &mut Frame) -> io::Result<()> {
    let mut at = 0;
    while at < size {
        let (start, end) = next_data(file, at, size);
        frame.zeros(start - at)?;
        at = start;
        while at < end {
            let length = usize::try_from(end - at).unwrap_or(BLOCK_BYTES).min(BLOCK_BYTES);
            frame.block(length, |block| file.read_exact_at(block, at).map(|()| length)).map_err(|e| {
                match e.kind() {
                    io::ErrorKind::UnexpectedEof => became_shorter(),
                    _ => e,
                }
            })?;
            at += length as u64;
        }
    }
    // At the end of a file that became shorter, the system reports a hole too.
    if file.seek(io::SeekFrom::End(0))? < size { Err(became_shorter()) } else { Ok(()) }
}

fn became_shorter() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "it became shorter while it was sent; nothing of it was kept")
}

/// Finds the next bytes at or after `at` that are not a hole. A file system without holes reports all bytes.
fn next_data(file: &File, at: u64, size: u64) -> (u64, u64) {
    let start = match seek(file, SeekFrom::Data(at)) {
        Ok(start) => start.clamp(at, size),
        Err(Errno::NXIO) => size,
        Err(_) => at,
    };
    let end = seek(file, SeekFrom::Hole(start)).map_or(size, |end| end.min(size));
    // At least one byte, so that a file that changes meanwhile cannot make this loop for ever.
    (start, end.max(start.saturating_add(1)).min(size))
}

fn read_pipe(pipe: &mut impl Read, frame: &mut Frame) -> io::Result<()> {
    loop {
        let mut ended = false;
        frame.block(BLOCK_BYTES, |block| {
            let mut filled = 0;
            while filled < block.len() && !ended {
                match pipe.read(&mut block[filled..]) {
                    Ok(0) => ended = true,
                    Ok(count) => filled += count,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(e),
                }
            }
            Ok(filled)
        })?;
        if ended {
            return Ok(());
        }
    }
}

/// The frame as far as it is written: the part that is not sent yet.
struct Frame {
    encoded: Vec<u8>,
    content_bytes: u64,
    to: mpsc::Sender<io::Result<Part>>,
}

fn frame_head(source: &Source) -> Vec<u8> {
    match source {
        Source::File(_, size) => [&MAGIC[..], &[0xc0, 0x38], &size.to_le_bytes()].concat(),
        Source::Pipe(_) => [&MAGIC[..], &[0x00, 0x38]].concat(),
    }
}

/// Kinds of blocks with their numbers in the format.
#[derive(Clone, Copy)]
enum Block {
    Raw = 0,
    Repeated = 1,
}

fn block_head(block: Block, length: usize, last: bool) -> [u8; BLOCK_HEAD_BYTES] {
    let head = u32::try_from(length).expect("at most a block") << 3 | (block as u32) << 1 | u32::from(last);
    let [a, b, c, _] = head.to_le_bytes();
    [a, b, c]
}

impl Frame {
    /// Adds a block of at most `length` bytes. `read` fills them and returns how many it filled.
    fn block(&mut self, length: usize, read: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<()> {
        let head = self.encoded.len();
        let body = head + BLOCK_HEAD_BYTES;
        self.encoded.resize(body + length, 0);
        let filled = read(&mut self.encoded[body..])?;
        if filled == 0 || is_zero(&self.encoded[body..body + filled]) {
            self.encoded.truncate(head);
            return self.zeros(filled as u64);
        }
        self.encoded.truncate(body + filled);
        self.encoded[head..body].copy_from_slice(&block_head(Block::Raw, filled, false));
        self.content_bytes += filled as u64;
        self.pass_on()
    }

    fn zeros(&mut self, mut count: u64) -> io::Result<()> {
        while count > 0 {
            let length = usize::try_from(count).unwrap_or(BLOCK_BYTES).min(BLOCK_BYTES);
            self.encoded.extend(block_head(Block::Repeated, length, false));
            self.encoded.push(0);
            count -= length as u64;
            self.content_bytes += length as u64;
            self.pass_on()?;
        }
        Ok(())
    }

    /// Sends the part if it is large enough.
    fn pass_on(&mut self) -> io::Result<()> {
        let enough = self.encoded.len() >= PART_BYTES || self.content_bytes >= PART_CONTENT_BYTES;
        if enough { self.send() } else { Ok(()) }
    }

    fn finish(&mut self) -> io::Result<()> {
        self.encoded.extend(block_head(Block::Raw, 0, true));
        self.send()
    }

    fn send(&mut self) -> io::Result<()> {
        let room = Vec::with_capacity(PART_BYTES + BLOCK_BYTES);
        let encoded = std::mem::replace(&mut self.encoded, room).into();
        let part = Part { encoded, content_bytes: std::mem::take(&mut self.content_bytes) };
        self.to.blocking_send(Ok(part)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// The compiler makes vector instructions of this fold.
fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(4096).all(|part| part.iter().fold(0, |all, byte| all | byte) == 0)
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    /// Returns what is sent, how many bytes of content it claims to stand for, and the error that ended it.
    async fn sent(source: Source) -> (Vec<u8>, u64, Option<io::Error>) {
        let (mut encoded, mut content_bytes) = (Vec::new(), 0);
        let mut parts = std::pin::pin!(encode(source));
        while let Some(part) = parts.next().await {
            match part {
                Ok(part) => {
                    encoded.extend_from_slice(&part.encoded);
                    content_bytes += part.content_bytes;
                }
                Err(e) => return (encoded, content_bytes, Some(e)),
            }
        }
        (encoded, content_bytes, None)
    }

    fn file_of(content: &[u8]) -> File {
        let file = tempfile::tempfile().expect("a file");
        file.write_all_at(content, 0).expect("writes");
        file
    }

    #[tokio::test]
    async fn zstd_decodes_any_mixture_of_data_and_zeros() {
        for size in [0, 1, 4095, 4096, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 5 * BLOCK_BYTES + 77] {
            for data in [0..0, 0..1, 0..size, size / 2..size, size / 3..size / 2, size.saturating_sub(1)..size] {
                let mut content = vec![0; size];
                content[data.start.min(size)..data.end.min(size)].fill(7);
                let sparse = tempfile::tempfile().expect("a file");
                sparse.set_len(size as u64).expect("sized");
                sparse
                    .write_all_at(&content[data.start.min(size)..data.end.min(size)], data.start as u64)
                    .expect("writes");
                for source in [
                    Source::File(file_of(&content), size as u64),
                    Source::File(sparse, size as u64),
                    Source::Pipe(Box::new(io::Cursor::new(content.clone()))),
                ] {
                    let (encoded, content_bytes, error) = sent(source).await;
                    assert!(error.is_none(), "{error:?}");
                    assert_eq!(content_bytes, size as u64);
                    assert!(zstd::decode_all(&encoded[..]).expect("decodes") == content, "{size} {data:?}");
                }
            }
        }
    }

    #[tokio::test]
    async fn a_source_that_fails_leaves_a_frame_without_an_end() {
        let content = vec![7; 3 * BLOCK_BYTES];
        let size = content.len() as u64;
        let in_a_hole = file_of(&content);
        in_a_hole.set_len(2 * size).expect("sized");
        struct Failing;
        impl Read for Failing {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("the disk"))
            }
        }
        for (source, said) in [
            (Source::File(file_of(&content), size + 1), "shorter"),
            (Source::File(in_a_hole, 2 * size + 1), "shorter"),
            (Source::Pipe(Box::new(io::Cursor::new(content.clone()).chain(Failing))), "the disk"),
        ] {
            let (encoded, _, error) = sent(source).await;
            assert!(error.expect("an error").to_string().contains(said));
            assert!(zstd::decode_all(&encoded[..]).is_err(), "the frame looks whole");
        }
    }
}
