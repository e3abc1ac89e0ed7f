//! Turns the bytes of an upload into a version's content that is durable in the pool.
//!
//! ```text
//!  body ──frames──► cut (one thread)             ──batches──► encode (threads) ──► put (pool)
//!        8 of them   digest, sha256, zeros, chunks  1 waiting    name, compress       on min_copies nodes
//!                                                   of 8 MiB     ╰──────── 3 batches at a time ────────╯
//! ```
//! A zstd body is decoded by the task that feeds the cutting thread, at most those 8 frames ahead of it: a small body
//! that stands for terabytes is only decoded as far as somebody takes the content. A qcow2 file is spooled first and
//! then read by the cutting thread.
//!
//! Everything is bounded: about 64 MiB are in flight, whatever the size of the image. The order of puts does not
//! matter, because nothing is visible before the version is published, and its tree is put last. If the future is
//! dropped or the body ends early, unreachable objects stay behind; the sweep finds them by the round they are stamped
//! with.
//!
//! This module does not know images, projects or the database; `app/uploads.rs` does.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    path::Path,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt as _, Stream, StreamExt as _, stream};
use muster_api::{firmware::BootKind, units::exact_size};
use muster_pool::{PoolClient, PoolError};
use sha2::{Digest as _, Sha256};
use storage_core::{
    ByteLen, ChunkIndex, ChunkSize, Compression, Corrupt, Descriptor, Kind, ObjectName, Record, Salt,
    tree::{self, Committed, Leaf, Lookup, Page, TreeError},
    zero::is_zero,
};
use tokio::{sync::mpsc, task::JoinError, time::Instant};

use super::{
    chunker::{Chunker, Cut, Passed},
    encoding::{Decoder, Encoding, EncodingError},
    format::{self, Format, FormatError},
    pace::{Pace, PaceError, Slowest},
    qcow2::{self, Piece, Qcow2Error},
    spool::{Spool, SpoolError},
};
use crate::domain::versions::{BadContent, Content, SIZE_BYTES_MAX};

/// Size of a batch of chunks. Each batch costs every node one sync.
const BATCH_BYTES: usize = 8 << 20;
/// Memory that a chunk in a batch costs beside its bytes. It matters for an image with a few bytes in very many chunks.
const CUT_BYTES: usize = 1024;
/// Number of batches that are encoded and put at a time: enough to keep both processors and disks busy.
const BATCHES_AT_A_TIME: usize = 3;
/// Most frames that wait to be cut. The HTTP server makes frames of up to some 400 KiB.
const FRAMES_WAITING: usize = 8;
/// Most bytes of a frame that are cut at a time, so that one huge frame does not become one huge batch.
const PART_BYTES: usize = 1 << 20;
/// Most leaves kept in memory before they are written to the tree: some 5 MiB, for 16 GiB of data at the default chunk
/// size.
const LEAVES_MAX: usize = 1 << 16;
/// Most objects whose sizes a [`Tally`] remembers: some 64 MiB, for 256 GiB of data at the default chunk size.
const TALLY_MAX: usize = 1 << 20;
/// Longest wait for pages of the tree under construction.
const PAGES_WITHIN: Duration = Duration::from_secs(60);

/// Where the objects of an import go, what is part of them, and how slowly they may come.
#[derive(Clone)]
pub struct Target {
    /// Client of the pool, which takes the objects.
    pub pool: PoolClient,
    /// The upload's round: every object is stamped with it.
    pub round: u64,
    /// Chunk size of the image.
    pub chunk: ChunkSize,
    /// Salt that goes into the names of the objects.
    pub salt: Salt,
    /// The slowest pace at which the body may come.
    pub slowest: Slowest,
}

/// What the request says about the body.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stated {
    /// Format of the content; `None`: it is detected.
    pub format: Option<Format>,
    /// SHA-256 of the content, before it was encoded.
    pub sha256: Option<[u8; 32]>,
    /// How the body is encoded.
    pub encoding: Encoding,
    /// Length of the content in bytes, if known. For an encoded body it is not.
    pub length: Option<u64>,
}

/// Content that is durable in the pool, but that no version names yet.
#[derive(Debug)]
pub struct Imported {
    /// Descriptor and root page of the content.
    pub content: Content,
    /// BLAKE3 of the raw bytes; `None` if more than 32 GiB of them were holes.
    pub digest: Option<blake3::Hash>,
    /// The format that was sent.
    pub format: Format,
    /// What can boot it.
    pub boot: BootKind,
    /// The objects that the content is made of.
    pub tally: Tally,
}

/// The objects of one version and their stored bytes, up to a limit ([`Self::objects`]).
#[derive(Debug, Default)]
pub struct Tally {
    objects: HashMap<ObjectName, u32>,
    /// Stored bytes of all objects. Once the table is full, repeated objects are counted again.
    bytes: u64,
    full: bool,
}

impl Tally {
    fn add(&mut self, name: ObjectName, stored_bytes: u32) {
        if self.objects.len() >= TALLY_MAX && !self.objects.contains_key(&name) {
            self.full = true;
            self.bytes += u64::from(stored_bytes);
        } else if self.objects.insert(name, stored_bytes).is_none() {
            self.bytes += u64::from(stored_bytes);
        }
    }

    /// Every object with its stored bytes; `None` if there are more than 2^20.
    #[must_use]
    pub fn objects(&self) -> Option<&HashMap<ObjectName, u32>> {
        (!self.full).then_some(&self.objects)
    }

    /// Stored bytes of one copy of all objects; an upper bound if there are more than 2^20.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Why an import failed. Nothing of it is published.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// By its first or last bytes, the body is not an image.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The qcow2 file cannot be used.
    #[error("the qcow2 file cannot be used: {0}")]
    Qcow2(#[from] Qcow2Error),
    /// The content is over 16 TiB; it has at least this many bytes.
    #[error("an image has at most 16 TiB, this one has at least {}", exact_size(*.0))]
    TooLarge(u64),
    /// The SHA-256 of the content is not the stated one.
    #[error("the bytes received have the sha256 {got}, stated was {stated}")]
    DigestMismatch {
        /// The SHA-256 in the request, hex.
        stated: String,
        /// The SHA-256 of what arrived, hex.
        got: String,
    },
    /// The body is not valid in its encoding.
    #[error("the body cannot be decoded: {0}")]
    Encoding(#[from] EncodingError),
    /// The body ended too early, or comes too slowly.
    #[error(transparent)]
    Body(#[from] PaceError),
    /// A qcow2 file could not be spooled.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The pool could not store or return an object.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The tree of the new version cannot be built.
    #[error("the new tree cannot be built")]
    Tree(#[from] TreeError),
    /// A page of the new tree came back damaged from the pool.
    #[error("the new tree cannot be built")]
    Page(#[from] Corrupt),
    /// The tree does not describe a disk. This is a bug.
    #[error("the new tree cannot be used")]
    Content(#[from] BadContent),
    /// The other end of the pipeline stopped. That end returns the error that matters.
    #[error("the import was stopped")]
    Stopped,
    /// A thread of the pipeline panicked.
    #[error("a thread of the import failed")]
    Thread(#[from] JoinError),
}

/// Reads a whole body and makes its content durable in the pool. `spool` is the folder for temporary files.
///
/// # Errors
/// [`IngestError`]. The objects that were put by then are left to the sweep.
pub async fn import<B, E>(target: &Target, stated: Stated, spool: &Path, body: B) -> Result<Imported, IngestError>
where
    B: Stream<Item = Result<Bytes, E>> + Send + Unpin,
    E: fmt::Display,
{
    let decoder = (stated.encoding == Encoding::Zstd).then(Decoder::new);
    let mut frames = Frames { body, pace: Pace::new(target.slowest), decoder, head: Vec::new() };
    frames.read_head().await?;
    // A body that is too long is refused before all of it is sent, if its length is known.
    let length = stated.length.or_else(|| frames.decoder.as_ref()?.promised());
    if let Some(length) = length.filter(|length| *length > SIZE_BYTES_MAX) {
        return Err(IngestError::TooLarge(length));
    }
    let stated = Stated { length, ..stated };
    let format = format::detect(&frames.head.concat(), stated.format)?;
    match format {
        Format::Raw => {
            let (sender, receiver) = mpsc::channel(FRAMES_WAITING);
            let chunk = target.chunk;
            let source = move |out: Batches| cut_frames(receiver, chunk, stated, out);
            feeding(frames.feed(sender), run(target, format, source)).await
        }
        Format::Qcow2 => {
            let reader = spool_qcow2(frames, stated, spool).await?;
            let chunk = target.chunk;
            run(target, format, move |out| cut_qcow2(reader, chunk, out)).await
        }
    }
}

/// The decoded frames of a body. `head` holds the first ones, which [`format::detect`] needs.
struct Frames<B> {
    body: B,
    pace: Pace,
    decoder: Option<Decoder>,
    head: Vec<Bytes>,
}

impl<B, E> Frames<B>
where
    B: Stream<Item = Result<Bytes, E>> + Send + Unpin,
    E: fmt::Display,
{
    async fn next(&mut self) -> Result<Option<Bytes>, IngestError> {
        let Some(decoder) = &mut self.decoder else { return Ok(self.pace.next(&mut self.body).await?) };
        let mut piece = Decoder::piece();
        while piece.len() < piece.capacity() {
            if decoder.is_hungry() {
                match self.pace.next(&mut self.body).await? {
                    Some(encoded) => decoder.feed(encoded),
                    None if decoder.is_at_end_of_frame() => break,
                    None => return Err(PaceError::Broken("it ends inside a zstd frame".to_owned()).into()),
                }
            } else {
                decoder.decode(&mut piece)?;
            }
        }
        Ok((!piece.is_empty()).then(|| piece.into()))
    }

    async fn read_head(&mut self) -> Result<(), IngestError> {
        let mut bytes = 0;
        while bytes < format::HEAD_BYTES {
            let Some(frame) = self.next().await? else { return Ok(()) };
            bytes += frame.len();
            self.head.push(frame);
        }
        Ok(())
    }

    async fn feed(mut self, to: mpsc::Sender<Bytes>) -> Result<(), IngestError> {
        for frame in std::mem::take(&mut self.head) {
            to.send(frame).await.map_err(|_| IngestError::Stopped)?;
        }
        while let Some(frame) = self.next().await? {
            to.send(frame).await.map_err(|_| IngestError::Stopped)?;
        }
        Ok(())
    }
}

/// Runs both ends of a channel. When the taking end stops, the feeding end fails with [`IngestError::Stopped`]; the
/// error of the taking end is returned then.
async fn feeding<T>(
    feed: impl Future<Output = Result<(), IngestError>> + Send,
    take: impl Future<Output = Result<T, IngestError>> + Send,
) -> Result<T, IngestError> {
    let feed = feed.map(|fed| match fed {
        Err(IngestError::Stopped) => Ok(()),
        fed => fed,
    });
    let ((), taken) = futures::future::try_join(feed, take.boxed()).await?;
    Ok(taken)
}

/// Collects chunks into batches, and sends them from the cutting thread to the encoding threads.
struct Batches {
    to: mpsc::Sender<Vec<Cut>>,
    batch: Vec<Cut>,
    bytes: usize,
}

impl Batches {
    fn add(&mut self, cut: Cut) {
        self.bytes += cut.body.len() + CUT_BYTES;
        self.batch.push(cut);
    }

    /// Sends the batch if it has at least `enough` bytes. Blocks while the pool is slower, which bounds memory.
    fn pass_on(&mut self, enough: usize) -> Result<(), IngestError> {
        if self.to.is_closed() {
            return Err(IngestError::Stopped);
        }
        if self.bytes >= enough && !self.batch.is_empty() {
            self.bytes = 0;
            self.to.blocking_send(std::mem::take(&mut self.batch)).map_err(|_| IngestError::Stopped)?;
        }
        Ok(())
    }
}

fn cut_frames(
    mut frames: mpsc::Receiver<Bytes>,
    chunk: ChunkSize,
    stated: Stated,
    mut out: Batches,
) -> Result<Passed, IngestError> {
    let mut chunker = Chunker::new(chunk);
    let mut as_sent = stated.sha256.map(|stated| (stated, Sha256::new()));
    let mut end = stated.format.is_none().then(format::End::default);
    while let Some(frame) = frames.blocking_recv() {
        if let Some(end) = &mut end {
            end.push(&frame);
        }
        for part in frame.chunks(PART_BYTES) {
            if let Some((_, hasher)) = &mut as_sent {
                hasher.update(part);
            }
            // Of zeros that were encoded next to nothing was sent, so they are a hole.
            if stated.encoding == Encoding::Zstd && is_zero(part) {
                chunker.push_zeros(part.len() as u64, &mut |cut| out.add(cut));
            } else {
                chunker.push(part, &mut |cut| out.add(cut));
            }
            out.pass_on(BATCH_BYTES)?;
        }
        if chunker.bytes() > SIZE_BYTES_MAX {
            return Err(IngestError::TooLarge(chunker.bytes()));
        }
    }
    if let Some((stated, hasher)) = as_sent {
        check_sha256(stated, hasher)?;
    }
    end.map_or(Ok(()), |end| end.check())?;
    let passed = chunker.finish(&mut |cut| out.add(cut));
    out.pass_on(0)?;
    Ok(passed)
}

fn cut_qcow2(mut reader: qcow2::Reader, chunk: ChunkSize, mut out: Batches) -> Result<Passed, IngestError> {
    let mut chunker = Chunker::new(chunk);
    chunker.expect_holes(reader.holes());
    let mut buffer = Vec::new();
    while let Some(piece) = reader.next(&mut buffer)? {
        match piece {
            Piece::Zeros(count) => chunker.push_zeros(count, &mut |cut| out.add(cut)),
            Piece::Data(_) => {
                for part in buffer.chunks(PART_BYTES) {
                    chunker.push(part, &mut |cut| out.add(cut));
                    out.pass_on(BATCH_BYTES)?;
                }
            }
        }
        out.pass_on(BATCH_BYTES)?;
    }
    let passed = chunker.finish(&mut |cut| out.add(cut));
    out.pass_on(0)?;
    Ok(passed)
}

fn check_sha256(stated: [u8; 32], hasher: Sha256) -> Result<(), IngestError> {
    let got: [u8; 32] = hasher.finalize().into();
    if got == stated {
        return Ok(());
    }
    Err(IngestError::DigestMismatch { stated: hex::encode(stated), got: hex::encode(got) })
}

/// Spools a qcow2 body. Its header is checked as soon as it is there, because that suffices for most refusals.
async fn spool_qcow2<B, E>(frames: Frames<B>, stated: Stated, folder: &Path) -> Result<qcow2::Reader, IngestError>
where
    B: Stream<Item = Result<Bytes, E>> + Send + Unpin,
    E: fmt::Display,
{
    let (sender, mut receiver) = mpsc::channel::<Bytes>(FRAMES_WAITING);
    let folder = folder.to_owned();
    let write = tokio::task::spawn_blocking(move || {
        let mut spool = Spool::create(&folder, stated.length)?;
        let mut as_sent = stated.sha256.map(|stated| (stated, Sha256::new()));
        let mut head = Some(Vec::new());
        while let Some(frame) = receiver.blocking_recv() {
            if let Some((_, hasher)) = &mut as_sent {
                hasher.update(&frame);
            }
            spool.append(&frame)?;
            if let Some(so_far) = &mut head {
                so_far.extend_from_slice(&frame[..frame.len().min(qcow2::HEAD_BYTES)]);
                if so_far.len() >= qcow2::HEAD_BYTES {
                    qcow2::Header::parse(&so_far[..qcow2::HEAD_BYTES])?;
                    head = None;
                }
            }
        }
        Ok::<_, IngestError>((spool, as_sent))
    });
    let (spool, as_sent) = feeding(frames.feed(sender), async { write.await? }).await?;
    tokio::task::spawn_blocking(move || {
        if let Some((stated, hasher)) = as_sent {
            check_sha256(stated, hasher)?;
        }
        let (file, bytes) = spool.finish();
        Ok(qcow2::Reader::open(file, bytes)?)
    })
    .await?
}

/// Runs the pipeline: `source` cuts on its own thread, its batches are encoded and put, and the tree grows from them.
async fn run<S>(target: &Target, format: Format, source: S) -> Result<Imported, IngestError>
where
    S: FnOnce(Batches) -> Result<Passed, IngestError> + Send + 'static,
{
    let (to, mut batches) = mpsc::channel(1);
    let cutting = tokio::task::spawn_blocking(move || source(Batches { to, batch: Vec::new(), bytes: 0 }));
    let mut growing = Growing::new(target);
    let upload = async {
        let batches = stream::poll_fn(move |cx| batches.poll_recv(cx));
        let mut puts = batches.map(|batch| put(target, batch)).buffer_unordered(BATCHES_AT_A_TIME);
        while let Some(stored) = puts.next().await {
            growing.add(stored?).await?;
        }
        Ok(growing)
    };
    let cutting = async { cutting.await? };
    let (passed, growing) = futures::future::try_join(cutting, upload.boxed()).await?;
    let (content, tally) = growing.finish(passed.bytes).await?;
    Ok(Imported { content, digest: passed.digest, format, boot: passed.boot, tally })
}

/// A chunk that is durable.
struct Stored {
    index: ChunkIndex,
    name: ObjectName,
    bytes: u32,
}

async fn put(target: &Target, batch: Vec<Cut>) -> Result<Vec<Stored>, IngestError> {
    let (chunk, salt) = (target.chunk, target.salt);
    let (stored, records) = tokio::task::spawn_blocking(move || {
        let mut stored = Vec::with_capacity(batch.len());
        let mut records = Vec::with_capacity(batch.len());
        for cut in batch {
            let record = Record::encode_bytes(Kind::Chunk, salt, Some(chunk), &cut.body, Compression::Auto);
            stored.push(Stored { index: cut.index, name: record.name(), bytes: stored_bytes(&record) });
            records.push(record);
        }
        (stored, records)
    })
    .await?;
    target.pool.put(target.round, records).await?;
    Ok(stored)
}

fn stored_bytes(record: &Record) -> u32 {
    u32::try_from(record.stored().len()).expect("an object has at most a few MiB")
}

/// The tree of the new version, while it grows.
struct Growing<'a> {
    target: &'a Target,
    base: Descriptor,
    leaves: BTreeMap<ChunkIndex, Option<Leaf>>,
    /// New pages of the last step. The next step most likely needs them.
    pages: HashMap<ObjectName, Arc<Page>>,
    tally: Tally,
}

impl<'a> Growing<'a> {
    fn new(target: &'a Target) -> Self {
        Self {
            target,
            base: Descriptor::empty(ByteLen(0), target.chunk, target.salt),
            leaves: BTreeMap::new(),
            pages: HashMap::new(),
            tally: Tally::default(),
        }
    }

    async fn add(&mut self, stored: Vec<Stored>) -> Result<(), IngestError> {
        for chunk in stored {
            self.tally.add(chunk.name, chunk.bytes);
            self.leaves.insert(chunk.index, Some(Leaf::Whole(chunk.name)));
        }
        if self.leaves.len() >= LEAVES_MAX
            && let Some((last, _)) = self.leaves.last_key_value()
        {
            // The final size is not known yet. The last chunk has at least one byte, and a disk must never shrink.
            let size = ByteLen((last.0 * self.target.chunk.bytes() + 1).max(self.base.size_bytes.get()));
            self.step(size).await?;
        }
        Ok(())
    }

    /// Writes the collected leaves to the tree and puts its new pages.
    async fn step(&mut self, size: ByteLen) -> Result<Committed, IngestError> {
        let committed = loop {
            let pages = |name: &ObjectName| self.pages.get(name).cloned();
            match tree::commit(&self.base, size, &self.leaves, &pages)? {
                Lookup::Found(committed) => break committed,
                Lookup::Missing(names) => {
                    for got in self.target.pool.get(&names, Instant::now() + PAGES_WITHIN).await? {
                        self.pages.insert(got.object.name, Arc::new(Page::decode(&got.object.body)?));
                    }
                }
            }
        };
        self.leaves.clear();
        self.base = committed.descriptor;
        self.pages.clear();
        for (name, bytes) in &committed.pages {
            self.pages.insert(*name, Arc::new(Page::decode(bytes)?));
        }
        let records = committed.records();
        for record in &records {
            self.tally.add(record.name(), stored_bytes(record));
        }
        self.target.pool.put(self.target.round, records).await?;
        Ok(committed)
    }

    async fn finish(mut self, bytes: u64) -> Result<(Content, Tally), IngestError> {
        let committed = self.step(ByteLen(bytes)).await?;
        let content = Content::new(committed.descriptor, committed.root_page.map(|page| page.to_vec()))?;
        Ok((content, self.tally))
    }
}
