//! Sends a file as an image's next version.

use std::{
    fs,
    io::{self, Seek},
    os::unix::fs::FileTypeExt,
    path::Path,
    sync::mpsc::{Receiver, channel},
};

use futures::StreamExt;
use reqwest::{Body, Method, header};

use super::{content, is_stdio};
use crate::{
    client::{Answer, Call, Client, Patience, Retry, fresh_key},
    failure::Failure,
    output::Notes,
    progress::Progress,
};

/// Most tries of an upload. Each sends the whole file again.
const UPLOAD_TRIES: u32 = 4;

/// Checks that a file can be sent, before anything is changed for it.
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

/// Sends the file. If the connection breaks, the upload starts over with the same key; nothing of a broken try is ever
/// visible (I3).
pub(crate) async fn upload(client: &Client, call: &Call, path: &Path, notes: Notes) -> Result<Answer, Failure> {
    let key = fresh_key();
    let mut patience = Patience::new();
    let mut attempt = 1;
    loop {
        let (source, size) = open(path).map_err(Failure::file(path))?;
        let readable_again = matches!(source, content::Source::File(..));
        let progress = Progress::transfer(notes, &name(path), size);
        let (body, read_error) = body(source, progress.counter());
        let request = client
            .request(Method::PUT, call, Some(&key))?
            .header(header::CONTENT_TYPE, "application/octet-stream")
            .header(header::CONTENT_ENCODING, "zstd")
            .body(body);
        let outcome = tokio::select! {
            outcome = client.try_once(request) => outcome,
            () = client.interrupt().cancelled() => {
                return Err(Failure::BrokenOff("the upload was interrupted; nothing of it was kept".to_owned()));
            }
        };
        drop(progress);
        if let Ok(e) = read_error.try_recv() {
            return Err(Failure::file(path)(e));
        }
        match outcome {
            Ok(answer) => return Ok(answer),
            Err((failure, Retry::After(pause))) if attempt < UPLOAD_TRIES && readable_again => {
                patience.pause(client, pause, failure).await?;
            }
            Err((failure, _)) => return Err(failure),
        }
        attempt += 1;
    }
}

fn name(path: &Path) -> String {
    path.file_name().filter(|_| !is_stdio(path)).map_or("standard input".into(), |name| name.to_string_lossy()).into()
}

/// Opens the file; with its size, or 0 where it has none.
fn open(path: &Path) -> io::Result<(content::Source, u64)> {
    if is_stdio(path) {
        return Ok((content::Source::Pipe(Box::new(io::stdin())), 0));
    }
    let mut file = fs::File::open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_file() || kind.is_block_device() {
        // The metadata of a block device do not have its size.
        let size = file.seek(io::SeekFrom::End(0))?;
        return Ok((content::Source::File(file, size), size));
    }
    Ok((content::Source::Pipe(Box::new(file)), 0))
}

/// The body of the request, and a channel that gets the error if the file cannot be read.
fn body(source: content::Source, count: impl Fn(u64) + Send + 'static) -> (Body, Receiver<io::Error>) {
    let (failed, read_error) = channel();
    let parts = content::encode(source).map(move |part| match part {
        Ok(part) => {
            count(part.content_bytes);
            Ok(part.encoded)
        }
        // This breaks the request off, so that the controller keeps nothing of it.
        Err(e) => {
            let _ = failed.send(e);
            Err("the file cannot be read")
        }
    });
    (Body::wrap_stream(parts), read_error)
}
