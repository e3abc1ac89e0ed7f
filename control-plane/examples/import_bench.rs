//! Measures the import pipeline into a segment store on a local disk, without a network, and compares it with hashing
//! and copying the same file.
//!
//! ```text
//! cargo run --release -p muster-controller --example import_bench -- FILE FOLDER
//! ```
//! Prints one line per step. FOLDER is on the disk to measure; the files that are made in it are removed at the end.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use bytes::Bytes;
use futures::StreamExt as _;
use muster_controller::{
    export::content,
    ingest::{
        import::{Stated, Target, import},
        pace::Slowest,
    },
};
use muster_pool::PoolClient;
use storage_core::{
    ChunkSize, Salt,
    store::{ChunkStore as _, Options, SegmentStore},
};

const FRAME_BYTES: usize = 256 << 10;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [file, folder] = args.as_slice() else { anyhow::bail!("usage: import_bench FILE FOLDER") };
    let folder = tempfile::tempdir_in(folder)?;
    let size = file.metadata()?.len();

    let hashed = Instant::now();
    let digest = hash(file)?;
    let hashed = hashed.elapsed();
    let copied = Instant::now();
    copy(file, &folder.path().join("copy"))?;
    let copied = copied.elapsed();

    let store = Arc::new(SegmentStore::open(&folder.path().join("pool"), Options::default())?);
    let pool = PoolClient::local_only(store.clone());
    let (chunk, slowest) = (ChunkSize::default(), Slowest::default());
    let target = Target { pool: pool.clone(), round: 1, chunk, salt: Salt::SHARED, slowest };
    let begun = Instant::now();
    let imported = import(&target, Stated::default(), folder.path(), frames(file.clone())).await?;
    let imported_in = begun.elapsed();
    anyhow::ensure!(imported.digest == Some(digest), "the import computed another digest");
    let usage = store.usage();

    let begun = Instant::now();
    let mut bytes = 0;
    let mut stream = Box::pin(content::stream(pool, &imported.content, 0..size));
    while let Some(piece) = stream.next().await {
        bytes += piece?.len() as u64;
    }
    let exported_in = begun.elapsed();
    anyhow::ensure!(bytes == size, "exported {bytes} bytes of {size}");

    line("hash", size, hashed);
    line("copy and sync", size, copied);
    line("import", size, imported_in);
    line("export", size, exported_in);
    let ratio = (hashed + copied).as_secs_f64() / imported_in.as_secs_f64();
    println!(
        "speed of the import / speed of hash + copy: {ratio:.2}   stored: {} bytes in {} objects",
        usage.bytes, usage.objects
    );
    if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
        status.lines().filter(|line| line.starts_with("VmHWM")).for_each(|line| println!("{line}"));
    }
    Ok(())
}

fn line(what: &str, bytes: u64, took: Duration) {
    #[expect(clippy::cast_precision_loss, reason = "printed with three digits")]
    let mib = bytes as f64 / f64::from(1 << 20);
    println!("{what:14} {:7.2} s  {:7.0} MiB/s", took.as_secs_f64(), mib / took.as_secs_f64());
}

/// Reads a file in frames, like an HTTP body.
fn frames(path: PathBuf) -> impl futures::Stream<Item = Result<Bytes, std::io::Error>> + Send + Unpin {
    let (to, frames) = tokio::sync::mpsc::channel(4);
    std::thread::spawn(move || {
        let read = || -> std::io::Result<()> {
            let mut file = File::open(path)?;
            loop {
                let mut frame = vec![0; FRAME_BYTES];
                match file.read(&mut frame)? {
                    0 => return Ok(()),
                    n => frame.truncate(n),
                }
                if to.blocking_send(Ok(frame.into())).is_err() {
                    return Ok(());
                }
            }
        };
        if let Err(error) = read() {
            // If the import has ended, nobody needs the error.
            let _ = to.blocking_send(Err(error));
        }
    });
    tokio_stream::wrappers::ReceiverStream::new(frames)
}

fn hash(path: &Path) -> anyhow::Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path).context("open the image")?)?;
    Ok(hasher.finalize())
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let (mut from, mut to) = (File::open(from)?, File::create(to)?);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match from.read(&mut buffer)? {
            0 => break,
            n => to.write_all(&buffer[..n])?,
        }
    }
    Ok(to.sync_all()?)
}
