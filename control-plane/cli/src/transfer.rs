//! Bytes of disks: a file streamed up, a version streamed down into a sparse file. Memory stays flat either way.

use std::{
    fs,
    io::{self, IsTerminal, Seek, Write},
    os::unix::fs::{FileExt, FileTypeExt},
    path::{Path, PathBuf},
};

use futures::StreamExt;
use reqwest::{Body, Method, StatusCode, header};
use serde_json::Value;

use crate::{
    client::{Answer, Call, Client, Patience, fresh_key},
    content,
    failure::Failure,
    output::{self, Notes},
    progress::Progress,
};

/// Piece in which zeros are written out.
const PIECE_BYTES: usize = 256 << 10;
/// Grain at which zeros become holes.
const HOLE_BYTES: usize = 4096;
/// Runs closer than this are fetched in one request.
const GAP_BYTES: u64 = 1 << 20;
/// Tries of an upload: each sends the whole file again.
const UPLOAD_TRIES: u32 = 4;

fn is_stdio(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Checks that a file can be sent before anything is changed for it.
pub(crate) fn check_readable(path: &Path) -> Result<(), Failure> {
    if is_stdio(path) {
        return Ok(());
    }
    if path.to_str().is_some_and(|p| p.starts_with("http://") || p.starts_with("https://")) {
        return Err(Failure::NotBuiltYet("image import NAME URL".to_owned()));
    }
    let facts = fs::metadata(path).map_err(Failure::file(path))?;
    if facts.is_dir() {
        return Err(Failure::file(path)(io::ErrorKind::IsADirectory.into()));
    }
    fs::File::open(path).map(drop).map_err(Failure::file(path))
}

/// Sends a file as an image's next version. A broken connection starts it over under the same key; nothing of the
/// broken try is ever visible (I3).
pub(crate) async fn upload(client: &Client, call: &Call, path: &Path, notes: Notes) -> Result<Answer, Failure> {
    let key = fresh_key();
    let mut patience = Patience::new();
    let what = path.file_name().map_or_else(|| "standard input".to_owned(), |n| n.to_string_lossy().into_owned());
    for attempt in 1.. {
        let (source, size) = open_for_upload(path).map_err(Failure::file(path))?;
        let is_gone_once_read = matches!(source, content::Source::Pipe(_));
        let progress = Progress::transfer(notes, &what, size);
        let count = progress.counter();
        let (unreadable, why_unreadable) = std::sync::mpsc::channel();
        let body = content::encode(source).map(move |part| match part {
            Ok(part) => {
                count(part.content_bytes);
                Ok(part.encoded)
            }
            // The request breaks off, so that the controller keeps nothing; the reason is told below.
            Err(e) => {
                let _ = unreadable.send(e);
                Err("the file cannot be read")
            }
        });
        let request = client
            .request(Method::PUT, call, Some(&key))?
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .header(header::CONTENT_ENCODING, "zstd")
            .body(Body::wrap_stream(body));
        let outcome = tokio::select! {
            outcome = client.try_once(request) => outcome,
            () = client.interrupt().cancelled() => {
                return Err(Failure::BrokenOff("the upload was broken off; nothing of it was kept".to_owned()));
            }
        };
        drop(progress);
        if let Ok(e) = why_unreadable.try_recv() {
            return Err(Failure::file(path)(e));
        }
        match outcome {
            Ok(answer) => return Ok(answer),
            Err((failure, Some(pause))) if attempt < UPLOAD_TRIES && !is_gone_once_read => {
                patience.pause(client, pause, failure).await?;
            }
            Err((failure, _)) => return Err(failure),
        }
    }
    Err(Failure::BrokenOff("the upload was given up".to_owned()))
}

/// What is sent, and its size where it has one, else 0.
fn open_for_upload(path: &Path) -> io::Result<(content::Source, u64)> {
    if is_stdio(path) {
        return Ok((content::Source::Pipe(Box::new(io::stdin())), 0));
    }
    let mut file = fs::File::open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_file() || kind.is_block_device() {
        // A block device has a length only here.
        let size = file.seek(io::SeekFrom::End(0))?;
        return Ok((content::Source::File(file, size), size));
    }
    Ok((content::Source::Pipe(Box::new(file)), 0))
}

/// What is exported.
pub(crate) struct Source {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) size_bytes: u64,
    pub(crate) digest: Option<String>,
}

impl Source {
    /// Reads the facts of a version's object.
    pub(crate) fn of(version: &Value) -> Self {
        let digest = output::text(version, "/digest");
        Self {
            id: output::text(version, "/id"),
            name: output::text(version, "/name"),
            size_bytes: output::count(version, "/size_bytes"),
            digest: (!digest.is_empty()).then_some(digest),
        }
    }

    fn call(&self, what: &str) -> Call {
        Call::to(&["v1", "versions", &self.id, what])
    }
}

/// Writes a version to a file: zeros become holes, a broken connection is taken up where it broke, the digest is
/// checked where it is known, and the file appears under its name only when it is whole.
pub(crate) async fn export(
    client: &Client,
    source: &Source,
    path: &Path,
    force: bool,
    notes: Notes,
) -> Result<(), Failure> {
    let progress = Progress::transfer(notes, &source.name, source.size_bytes);
    if is_stdio(path) {
        let mut sink = Plain { at: 0 };
        return fetch(client, source, vec![(0, source.size_bytes)], &mut sink, &progress).await;
    }
    if !force && path.symlink_metadata().is_ok() {
        return Err(Failure::Usage(format!("{} is there already; --force replaces it", path.display())));
    }
    if path.metadata().is_ok_and(|m| !m.is_file()) {
        return Err(Failure::Usage(format!("{} is not a regular file", path.display())));
    }
    let mut sink = Sparse::create(path, source)?;
    let runs = runs(client, source).await?;
    fetch(client, source, runs, &mut sink, &progress).await?;
    sink.finish(source)
}

/// The parts of a version that are not zeros, near ones joined; all of it where the controller does not tell.
async fn runs(client: &Client, source: &Source) -> Result<Vec<(u64, u64)>, Failure> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    let listed = client
        .pages(&source.call("extents"), |items| {
            for item in items {
                let start = output::count(&item, "/offset_bytes");
                let end = start.saturating_add(output::count(&item, "/length_bytes")).min(source.size_bytes);
                match runs.last_mut() {
                    Some((_, last)) if start <= last.saturating_add(GAP_BYTES) => *last = end.max(*last),
                    _ => runs.push((start, end)),
                }
            }
            Ok(())
        })
        .await;
    match listed {
        Ok(()) => Ok(runs),
        Err(e) if matches!(e.code(), Some("not_built_yet" | "no_such_path" | "method_not_allowed")) => {
            Ok(vec![(0, source.size_bytes)])
        }
        Err(e) => Err(e),
    }
}

/// Where fetched bytes go, in order.
trait Sink {
    fn skip_to(&mut self, offset: u64) -> Result<(), Failure>;
    fn write(&mut self, piece: &[u8]) -> Result<(), Failure>;
}

async fn fetch(
    client: &Client,
    source: &Source,
    runs: Vec<(u64, u64)>,
    sink: &mut impl Sink,
    progress: &Progress,
) -> Result<(), Failure> {
    for (start, end) in runs {
        sink.skip_to(start)?;
        let mut at = start;
        let mut patience = Patience::new();
        while at < end {
            progress.reset(at);
            let before = at;
            let whole = start == 0 && end == source.size_bytes && at == 0;
            let range = (!whole).then(|| format!("bytes={at}-{}", end - 1));
            let response = client.stream(&source.call("content"), range).await?;
            if !whole && response.status() != StatusCode::PARTIAL_CONTENT {
                return Err(client.odd("it ignored the range of a download"));
            }
            let mut pieces = response.bytes_stream();
            let failure = loop {
                let piece = tokio::select! {
                    piece = pieces.next() => piece,
                    () = client.interrupt().cancelled() => {
                        return Err(Failure::BrokenOff("the export was broken off; nothing was kept".to_owned()));
                    }
                };
                match piece {
                    Some(Ok(piece)) => {
                        let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
                        if length > end - at {
                            return Err(client.odd("it sent more than the version has"));
                        }
                        sink.write(&piece)?;
                        at += length;
                        progress.advance(length);
                    }
                    Some(Err(e)) => break client.classify(&e).0,
                    None => break Failure::BrokenOff(format!("{} of {} bytes came", at, source.size_bytes)),
                }
            };
            if at < end {
                // Every piece that came is a reason for new patience.
                if at > before {
                    patience = Patience::new();
                }
                patience.pause(client, None, failure).await?;
            }
        }
    }
    sink.skip_to(source.size_bytes)
}

/// Standard output: zeros are written out.
struct Plain {
    at: u64,
}

impl Sink for Plain {
    fn skip_to(&mut self, offset: u64) -> Result<(), Failure> {
        while self.at < offset {
            let piece = usize::try_from(offset - self.at).unwrap_or(usize::MAX).min(PIECE_BYTES);
            self.write(&vec![0; piece])?;
        }
        Ok(())
    }

    fn write(&mut self, piece: &[u8]) -> Result<(), Failure> {
        self.at += u64::try_from(piece.len()).unwrap_or(0);
        output::bytes(piece)
    }
}

/// A new file beside its final name; removed again unless it is finished.
struct Sparse {
    file: fs::File,
    fresh: PathBuf,
    path: PathBuf,
    at: u64,
    hasher: Option<blake3::Hasher>,
}

impl Sparse {
    fn create(path: &Path, source: &Source) -> Result<Self, Failure> {
        let mut name = std::ffi::OsString::from(".");
        name.push(path.file_name().ok_or_else(|| Failure::Usage(format!("{} names no file", path.display())))?);
        name.push(format!(".muster-{}", std::process::id()));
        let fresh = path.with_file_name(name);
        let file = fs::OpenOptions::new().write(true).create_new(true).open(&fresh).map_err(Failure::file(path))?;
        let hasher = source.digest.is_some().then(blake3::Hasher::new);
        let sink = Self { file, fresh, path: path.to_owned(), at: 0, hasher };
        sink.file.set_len(source.size_bytes).map_err(Failure::file(path))?;
        Ok(sink)
    }

    /// Proves the bytes, makes them durable and gives the file its name.
    fn finish(self, source: &Source) -> Result<(), Failure> {
        if let (Some(hasher), Some(expected)) = (&self.hasher, &source.digest) {
            let got = hasher.finalize().to_hex().to_string();
            if got != *expected {
                return Err(Failure::WrongDigest { name: source.name.clone(), got, expected: expected.clone() });
            }
        }
        self.file.sync_all().and_then(|()| fs::rename(&self.fresh, &self.path)).map_err(Failure::file(&self.path))
    }
}

impl Drop for Sparse {
    fn drop(&mut self) {
        // After a finished export the name is gone; before it the rest of a broken one goes.
        let _ = fs::remove_file(&self.fresh);
    }
}

impl Sink for Sparse {
    fn skip_to(&mut self, offset: u64) -> Result<(), Failure> {
        if let Some(hasher) = &mut self.hasher {
            let zeros = [0; HOLE_BYTES * 16];
            let mut left = offset.saturating_sub(self.at);
            while left > 0 {
                let piece = usize::try_from(left).unwrap_or(usize::MAX).min(zeros.len());
                hasher.update(zeros.get(..piece).unwrap_or(&zeros));
                left -= u64::try_from(piece).unwrap_or(left);
            }
        }
        self.at = self.at.max(offset);
        Ok(())
    }

    fn write(&mut self, piece: &[u8]) -> Result<(), Failure> {
        if let Some(hasher) = &mut self.hasher {
            hasher.update(piece);
        }
        // Neighbouring pieces with data are one write; pieces of zeros are left as holes.
        let is_data = |part: &[u8]| part.iter().any(|b| *b != 0);
        let mut rest = piece;
        while let Some(first) = rest.chunks(HOLE_BYTES).next().map(is_data) {
            let same = rest.chunks(HOLE_BYTES).take_while(|part| is_data(part) == first).map(<[u8]>::len).sum();
            let (run, after) = rest.split_at(same);
            if first {
                self.file.write_all_at(run, self.at).map_err(Failure::file(&self.path))?;
            }
            self.at += u64::try_from(run.len()).unwrap_or(0);
            rest = after;
        }
        Ok(())
    }
}

/// What a guest printed, without what steers a terminal: a guest could otherwise move the cursor, or make the terminal
/// type an answer into the reader's shell. Sequences may be cut anywhere between two pieces.
#[derive(Debug, Default)]
pub(crate) struct Harmless {
    state: Escape,
    last: Option<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Escape {
    #[default]
    Text,
    /// After ESC.
    Begun,
    /// ESC [ … until a letter.
    Sequence,
    /// ESC ] … and the like, until BEL or ESC \.
    Message,
}

impl Harmless {
    /// The printable part of the next piece.
    pub(crate) fn filter(&mut self, piece: &[u8]) -> Vec<u8> {
        let mut kept = Vec::with_capacity(piece.len());
        for &byte in piece {
            self.state = match (self.state, byte) {
                (_, 0x1b) => Escape::Begun,
                (Escape::Text, _) => {
                    if byte == b'\n' || byte == b'\t' || !byte.is_ascii_control() {
                        kept.push(byte);
                    }
                    Escape::Text
                }
                (Escape::Begun, b'[') => Escape::Sequence,
                (Escape::Begun, b']' | b'P' | b'X' | b'^' | b'_') => Escape::Message,
                // Some have a second byte of their own, for example the choice of a character set.
                (Escape::Begun, 0x20..=0x2f) => Escape::Begun,
                (Escape::Sequence, 0x40..=0x7e) | (Escape::Message, 0x07) | (Escape::Begun, _) => Escape::Text,
                (Escape::Sequence | Escape::Message, _) => self.state,
            };
        }
        self.last = kept.last().copied().or(self.last);
        kept
    }
}

/// Copies what a guest printed to standard output: as it is into a file or pipe, harmless to a terminal.
pub(crate) async fn console_to_stdout(client: &Client, response: reqwest::Response) -> Result<(), Failure> {
    let mut out = io::stdout();
    if !out.is_terminal() {
        return to_stdout(client, response).await;
    }
    let failed = |e| Failure::Io("standard output".to_owned(), e);
    let (mut harmless, mut response) = (Harmless::default(), response);
    while let Some(piece) = next_piece(client, &mut response).await? {
        out.write_all(&harmless.filter(&piece)).map_err(failed)?;
    }
    if harmless.last.is_some_and(|last| last != b'\n') {
        out.write_all(b"\n").map_err(failed)?;
    }
    out.flush().map_err(failed)
}

async fn next_piece(client: &Client, response: &mut reqwest::Response) -> Result<Option<bytes::Bytes>, Failure> {
    tokio::select! {
        piece = response.chunk() => piece.map_err(|e| client.classify(&e).0),
        () = client.interrupt().cancelled() => Err(Failure::Interrupted(false)),
    }
}

/// Copies a body of any length to standard output.
pub(crate) async fn to_stdout(client: &Client, mut response: reqwest::Response) -> Result<(), Failure> {
    let mut out = io::stdout();
    while let Some(piece) = next_piece(client, &mut response).await? {
        out.write_all(&piece).map_err(|e| Failure::Io("standard output".to_owned(), e))?;
    }
    out.flush().map_err(|e| Failure::Io("standard output".to_owned(), e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_cannot_steer_the_terminal() {
        let text = b"a\x1b[31mred\x1b[0m\r\n\x1b]0;title\x07b\x1b(B\x1bPdcs\x1b\\c\x1b[6n\x07\td\xc3\xa9";
        let expected = "ared\nbc\td\u{e9}".as_bytes();
        for cut in 0..=text.len() {
            let (first, second) = text.split_at(cut);
            let mut harmless = Harmless::default();
            let kept = [harmless.filter(first), harmless.filter(second)].concat();
            assert_eq!(kept, expected, "cut at {cut}");
        }
    }
}
