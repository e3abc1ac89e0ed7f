//! Writes a version to a file or to standard output.

use std::{
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use futures::StreamExt;
use muster_api::{
    ErrorCode,
    version::{Extent, Version},
};
use reqwest::StatusCode;
use serde_json::Value;

use super::is_stdio;
use crate::{
    answer,
    client::{Call, Client, Patience},
    failure::Failure,
    output::{self, Notes},
    progress::Progress,
};

/// Zeros are written to standard output in pieces of this size.
const PIECE_BYTES: usize = 256 << 10;
/// Blocks of this size that hold only zeros become holes.
const HOLE_BYTES: usize = 4096;
/// Runs closer to each other than this are fetched in one request.
const GAP_BYTES: u64 = 1 << 20;

/// Writes a version to a file: zeros become holes, a broken connection is continued where it broke, and the digest is
/// checked where it is known. The file gets its name only when it is whole.
pub(crate) async fn export(
    client: &Client,
    version: &Version,
    path: &Path,
    force: bool,
    notes: Notes,
) -> Result<(), Failure> {
    let progress = Progress::transfer(notes, &version.name, version.size_bytes);
    let download = Download { client, version, progress };
    if is_stdio(path) {
        return download.fetch(vec![(0, version.size_bytes)], &mut Plain { at: 0 }).await;
    }
    if !force && path.symlink_metadata().is_ok() {
        return Err(Failure::Usage(format!("{} already exists; --force replaces it", path.display())));
    }
    if path.metadata().is_ok_and(|m| !m.is_file()) {
        return Err(Failure::Usage(format!("{} is not a regular file", path.display())));
    }
    let mut sink = Sparse::create(path, version)?;
    let runs = download.runs().await?;
    download.fetch(runs, &mut sink).await?;
    sink.finish(version)
}

/// Where fetched bytes go, in order.
trait Sink {
    /// Fills with zeros up to the offset.
    fn skip_to(&mut self, offset: u64) -> Result<(), Failure>;
    fn write(&mut self, piece: &[u8]) -> Result<(), Failure>;
}

struct Download<'a> {
    client: &'a Client,
    version: &'a Version,
    progress: Progress,
}

impl Download<'_> {
    fn call(&self, what: &str) -> Call {
        Call::to(&["v1", "versions", &self.version.id.to_string(), what])
    }

    /// Lists the parts of the version that are not zeros, as start and end; parts near each other are joined. If the
    /// controller cannot list them, it is the whole version.
    async fn runs(&self) -> Result<Vec<(u64, u64)>, Failure> {
        let size = self.version.size_bytes;
        let mut runs: Vec<(u64, u64)> = Vec::new();
        let add = |items: Vec<Value>| {
            for item in &items {
                let Extent { offset_bytes: start, length_bytes } = answer::read(item)?;
                let end = start.saturating_add(length_bytes).min(size);
                match runs.last_mut() {
                    Some((_, last)) if start <= last.saturating_add(GAP_BYTES) => *last = end.max(*last),
                    _ => runs.push((start, end)),
                }
            }
            Ok(())
        };
        match self.client.pages(&self.call("extents"), add).await {
            Ok(()) => Ok(runs),
            Err(e) => match e.code() {
                Some(ErrorCode::NotBuiltYet | ErrorCode::NoSuchPath | ErrorCode::MethodNotAllowed) => {
                    Ok(vec![(0, size)])
                }
                _ => Err(e),
            },
        }
    }

    async fn fetch(&self, runs: Vec<(u64, u64)>, sink: &mut impl Sink) -> Result<(), Failure> {
        for (start, end) in runs {
            sink.skip_to(start)?;
            let mut at = start;
            let mut patience = Patience::new();
            while at < end {
                let before = at;
                let broken = self.fetch_once(&mut at, end, sink).await?;
                if at < end {
                    // As long as bytes arrive, a broken connection is tried again.
                    if at > before {
                        patience = Patience::new();
                    }
                    patience.pause(self.client, None, broken).await?;
                }
            }
        }
        sink.skip_to(self.version.size_bytes)
    }

    /// Reads from `at` to `end` in one request, as far as it gets, and moves `at`. Returns what ended the body.
    async fn fetch_once(&self, at: &mut u64, end: u64, sink: &mut impl Sink) -> Result<Failure, Failure> {
        let size = self.version.size_bytes;
        self.progress.reset(*at);
        let range = (*at > 0 || end < size).then(|| format!("bytes={at}-{}", end - 1));
        let whole = range.is_none();
        let response = self.client.stream(&self.call("content"), range).await?;
        if !whole && response.status() != StatusCode::PARTIAL_CONTENT {
            return Err(self.client.odd("it ignored the range of a download"));
        }
        let mut pieces = response.bytes_stream();
        loop {
            let piece = tokio::select! {
                piece = pieces.next() => piece,
                () = self.client.interrupt().cancelled() => {
                    return Err(Failure::BrokenOff("the export was interrupted; nothing was kept".to_owned()));
                }
            };
            match piece {
                Some(Ok(piece)) => {
                    let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
                    if length > end - *at {
                        return Err(self.client.odd("it sent more bytes than the version has"));
                    }
                    sink.write(&piece)?;
                    *at += length;
                    self.progress.advance(length);
                }
                Some(Err(e)) => return Ok(self.client.classify(&e).0),
                None => return Ok(Failure::BrokenOff(format!("the connection ended after {at} of {size} bytes"))),
            }
        }
    }
}

/// Writes to standard output, zeros included.
struct Plain {
    at: u64,
}

impl Sink for Plain {
    fn skip_to(&mut self, offset: u64) -> Result<(), Failure> {
        while self.at < offset {
            self.write(&vec![0; piece_of(offset - self.at, PIECE_BYTES)])?;
        }
        Ok(())
    }

    fn write(&mut self, piece: &[u8]) -> Result<(), Failure> {
        self.at += piece.len() as u64;
        output::bytes(piece)
    }
}

/// Writes a new file beside its final name. The file is removed again unless it is finished.
struct Sparse {
    file: fs::File,
    fresh: PathBuf,
    path: PathBuf,
    at: u64,
    hasher: Option<blake3::Hasher>,
}

impl Sparse {
    fn create(path: &Path, version: &Version) -> Result<Self, Failure> {
        let mut name = std::ffi::OsString::from(".");
        name.push(path.file_name().ok_or_else(|| Failure::Usage(format!("{} names no file", path.display())))?);
        name.push(format!(".muster-{}", std::process::id()));
        let fresh = path.with_file_name(name);
        let file = fs::OpenOptions::new().write(true).create_new(true).open(&fresh).map_err(Failure::file(path))?;
        let hasher = version.digest.is_some().then(blake3::Hasher::new);
        let sink = Self { file, fresh, path: path.to_owned(), at: 0, hasher };
        sink.file.set_len(version.size_bytes).map_err(Failure::file(path))?;
        Ok(sink)
    }

    /// Checks the digest, makes the bytes durable and gives the file its name.
    fn finish(self, version: &Version) -> Result<(), Failure> {
        if let (Some(hasher), Some(expected)) = (&self.hasher, &version.digest) {
            let got = hasher.finalize().to_hex().to_string();
            if got != *expected {
                return Err(Failure::WrongDigest { name: version.name.clone(), got, expected: expected.clone() });
            }
        }
        self.file.sync_all().and_then(|()| fs::rename(&self.fresh, &self.path)).map_err(Failure::file(&self.path))
    }
}

impl Drop for Sparse {
    fn drop(&mut self) {
        // A finished export has renamed the file, so this removes only what a broken one left.
        let _ = fs::remove_file(&self.fresh);
    }
}

impl Sink for Sparse {
    fn skip_to(&mut self, offset: u64) -> Result<(), Failure> {
        if let Some(hasher) = &mut self.hasher {
            let zeros = [0; HOLE_BYTES * 16];
            let mut left = offset.saturating_sub(self.at);
            while left > 0 {
                let piece = zeros.get(..piece_of(left, zeros.len())).unwrap_or(&zeros);
                hasher.update(piece);
                left -= piece.len() as u64;
            }
        }
        self.at = self.at.max(offset);
        Ok(())
    }

    fn write(&mut self, piece: &[u8]) -> Result<(), Failure> {
        if let Some(hasher) = &mut self.hasher {
            hasher.update(piece);
        }
        // Neighbouring blocks with data are written at once; blocks of zeros stay holes.
        let is_data = |part: &[u8]| part.iter().any(|b| *b != 0);
        let mut rest = piece;
        while let Some(first) = rest.chunks(HOLE_BYTES).next().map(is_data) {
            let same = rest.chunks(HOLE_BYTES).take_while(|part| is_data(part) == first).map(<[u8]>::len).sum();
            let (run, after) = rest.split_at(same);
            if first {
                self.file.write_all_at(run, self.at).map_err(Failure::file(&self.path))?;
            }
            self.at += run.len() as u64;
            rest = after;
        }
        Ok(())
    }
}

/// As much of `left` as fits into a piece.
fn piece_of(left: u64, piece: usize) -> usize {
    usize::try_from(left).map_or(piece, |left| left.min(piece))
}
