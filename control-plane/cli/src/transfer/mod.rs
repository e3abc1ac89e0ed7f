//! Moves bytes of any length: a file up, a version down into a sparse file, a guest's console to standard output.
//! Memory use does not grow with the length.

mod console;
mod content;
mod export;
mod upload;

use std::{
    io::{self, Write},
    path::Path,
};

pub(crate) use self::{
    console::console_to_stdout,
    export::export,
    upload::{check_readable, upload},
};
use crate::{client::Client, failure::Failure, output::stdout_failed};

/// Whether the path is `-`, which means standard input or output.
pub(crate) fn is_stdio(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Copies a body to standard output as it is.
pub(crate) async fn to_stdout(client: &Client, mut response: reqwest::Response) -> Result<(), Failure> {
    let mut out = io::stdout();
    while let Some(piece) = next_piece(client, &mut response).await? {
        out.write_all(&piece).map_err(stdout_failed)?;
        // What is followed comes in small pieces, and whoever reads them waits for each.
        out.flush().map_err(stdout_failed)?;
    }
    Ok(())
}

async fn next_piece(client: &Client, response: &mut reqwest::Response) -> Result<Option<bytes::Bytes>, Failure> {
    tokio::select! {
        piece = response.chunk() => piece.map_err(|e| client.classify(&e).0),
        () = client.interrupt().cancelled() => Err(Failure::Interrupted(false)),
    }
}
