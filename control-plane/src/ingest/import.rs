//! From bytes as they arrive to a version's content, durable in the pool.
//!
//! ```text
//!  body ──frames──► cut (one thread)             ──batches──► encode (threads) ──► put (pool)
//!        8 of them   digest, sha256, zeros, chunks  1 waiting    name, compress       on min_copies nodes
//!                                                   of 8 MiB     ╰──────── 3 batches at a time ────────╯
//! ```
//! A body that was sent as zstd is decoded by the task that feeds the cutting thread, beside it and never further ahead
//! than those 8 frames: what stands for terabytes is decoded only as long as somebody takes them. A qcow2 file is spooled first and then read where the frames would come from. Everything is bounded: about 64 MiB
//! are in flight whatever the size of the image. The order of puts does not matter: nothing is visible before the
//! version is published, and its tree is put last. A future that is dropped, or a body that breaks off, leaves objects
//! that nobody reaches: their stamps lead the sweep to them.
//!
//! It does not know images, projects or the database; `app/uploads.rs` does.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    path::Path,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt as _, Stream, StreamExt as _, stream};
use muster_pool::{PoolClient, PoolError};
use sha2::{Digest as _, Sha256};
use storage_core::{
    ByteLen, ChunkIndex, ChunkSize, Compression, Corrupt, Descriptor, Kind, ObjectName, Record, Salt,
    tree::{self, Committed, Lookup, Page, TreeError},
};
use tokio::{sync::mpsc, task::JoinError, time::Instant};

use super::{
    chunker::{Chunker, Cut, Passed},
    encoding::{Decoder, Encoding, EncodingError},
    format::{self, Format, FormatError},
    qcow2::{self, Piece, Qcow2Error},
    spool::{Spool, SpoolError},
};
use crate::domain::versions::{BadContent, Content, SIZE_BYTES_MAX};

/// Chunks travel in batches of this size: one sync per node and batch.
const BATCH_BYTES: usize = 8 << 20;
/// What a chunk costs beside its bytes: an image may have some bytes in each of very many chunks.
const CUT_BYTES: usize = 1024;
/// Batches encoded and put at a time: enough to keep both encoding and syncing busy.
const BATCHES_AT_A_TIME: usize = 3;
/// Frames waiting to be cut. The HTTP server makes them up to some 400 KiB.
const FRAMES_WAITING: usize = 8;
/// A frame is cut in parts of this size, so that one huge frame does not become one huge batch.
const PART_BYTES: usize = 1 << 20;
/// A body that brings nothing for so long is broken off (I10).
const IDLE_MAX: Duration = Duration::from_secs(120);
/// Leaves held back before they are written to the tree: 16 GiB of data at the default chunk size, some 5 MiB.
const LEAVES_MAX: usize = 1 << 16;
/// Objects whose sizes are remembered, for telling what the version takes: 256 GiB at the default chunk size, 64 MiB.
const TALLY_MAX: usize = 1 << 20;
/// Longest wait for pages of the tree under construction.
const PAGES_WITHIN: Duration = Duration::from_secs(60);

/// Where the chunks go.
#[derive(Clone)]
pub struct Target {
    /// The pool.
    pub pool: PoolClient,
    /// The upload's round: every object is stamped with it.
    pub round: u64,
    /// Chunk size of the image.
    pub chunk: ChunkSize,
    /// Part of the names of its objects.
    pub salt: Salt,
}

/// What the caller said about the bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stated {
    /// Binding.
    pub format: Option<Format>,
    /// Of the bytes as they were before they were encoded.
    pub sha256: Option<[u8; 32]>,
    /// How the body is encoded.
    pub encoding: Encoding,
    /// Length of the content, where it is known: that of an encoded body is not.
    pub length: Option<u64>,
}

/// The content is durable, and no version names it yet.
#[derive(Debug)]
pub struct Imported {
    /// The root of its bytes.
    pub content: Content,
    /// BLAKE3 of the raw bytes, unless most of them were holes.
    pub digest: Option<blake3::Hash>,
    /// What it was sent as.
    pub format: Format,
    /// The objects it is made of.
    pub tally: Tally,
}

/// The objects of one version and their stored bytes, as far as it pays to remember them.
#[derive(Debug, Default)]
pub struct Tally {
    objects: HashMap<ObjectName, u32>,
    /// Stored bytes of all objects, repeated ones counted again once the table is full.
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

    /// Every object with its stored bytes; none if there are too many to remember.
    #[must_use]
    pub fn objects(&self) -> Option<&HashMap<ObjectName, u32>> {
        (!self.full).then_some(&self.objects)
    }

    /// Stored bytes of one copy of everything; an upper bound when there are too many to remember.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Why bytes did not become content.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// Not an image, by its first bytes.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// Not a usable qcow2 file.
    #[error("the qcow2 file cannot be used: {0}")]
    Qcow2(#[from] Qcow2Error),
    /// More than a disk may have.
    #[error("an image has at most 16 TiB, this one has at least {0} bytes")]
    TooLarge(u64),
    /// The bytes are not the stated ones.
    #[error("the bytes received have the sha256 {got}, stated was {stated}")]
    DigestMismatch {
        /// What the caller said.
        stated: String,
        /// What arrived.
        got: String,
    },
    /// The body is not what its encoding makes.
    #[error("the body cannot be decoded: {0}")]
    Encoding(#[from] EncodingError),
    /// The body ended too early or stood still.
    #[error("the body was broken off: {0}")]
    Broken(String),
    /// The spool.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The pool.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// A page of the tree under construction came back wrong.
    #[error("the new tree cannot be built")]
    Tree(#[from] TreeError),
    /// As [`IngestError::Tree`].
    #[error("the new tree cannot be built")]
    Page(#[from] Corrupt),
    /// A bug: the tree does not describe a disk.
    #[error("the new tree cannot be used")]
    Content(#[from] BadContent),
    /// The other end of the pipeline stopped; its error is the one that counts.
    #[error("the import was stopped")]
    Stopped,
    /// A thread of the pipeline panicked.
    #[error("a thread of the import failed")]
    Thread(#[from] JoinError),
}

/// Takes a whole body and makes its content durable.
///
/// # Errors
/// Whatever keeps the bytes from becoming a version; what was put by then is left to the sweep.
pub async fn import<B, E>(target: &Target, stated: Stated, spool: &Path, body: B) -> Result<Imported, IngestError>
where
    B: Stream<Item = Result<Bytes, E>> + Send + Unpin,
    E: fmt::Display,
{
    let decoder = (stated.encoding == Encoding::Zstd).then(Decoder::new);
    let mut frames = Frames { body, decoder, head: Vec::new() };
    frames.read_head().await?;
    // What can only be refused should be refused before it was sent.
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
            let source = move |out: Batches| cut_frames(receiver, chunk, stated.sha256, out);
            feeding(frames.feed(sender), run(target, format, source)).await
        }
        Format::Qcow2 => {
            let reader = spool_qcow2(frames, stated, spool).await?;
            let chunk = target.chunk;
            run(target, format, move |out| cut_qcow2(reader, chunk, out)).await
        }
    }
}

/// A body, decoded, and its first frames, which were looked at.
struct Frames<B> {
    body: B,
    decoder: Option<Decoder>,
    head: Vec<Bytes>,
}

impl<B, E> Frames<B>
where
    B: Stream<Item = Result<Bytes, E>> + Send + Unpin,
    E: fmt::Display,
{
    async fn next(&mut self) -> Result<Option<Bytes>, IngestError> {
        let Some(decoder) = &mut self.decoder else { return receive(&mut self.body).await };
        let mut piece = Decoder::piece();
        while piece.len() < piece.capacity() {
            if decoder.is_hungry() {
                match receive(&mut self.body).await? {
                    Some(encoded) => decoder.feed(encoded),
                    None if decoder.is_at_end_of_frame() => break,
                    None => return Err(IngestError::Broken("it ends inside of a zstd frame".to_owned())),
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

async fn receive<B, E>(body: &mut B) -> Result<Option<Bytes>, IngestError>
where
    B: Stream<Item = Result<Bytes, E>> + Send + Unpin,
    E: fmt::Display,
{
    match tokio::time::timeout(IDLE_MAX, body.next()).await {
        Ok(Some(Ok(frame))) => Ok(Some(frame)),
        Ok(Some(Err(e))) => Err(IngestError::Broken(e.to_string())),
        Ok(None) => Ok(None),
        Err(_) => Err(IngestError::Broken(format!("nothing came for {} s", IDLE_MAX.as_secs()))),
    }
}

/// Runs both ends. When the taking end stops, the feeding one only learns that it did: the reason is the other's.
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

/// Hands batches of chunks from the cutting thread to the encoding ones.
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

    /// Sends what has come together if it is enough. Blocks while the pool is slower: this is what bounds memory.
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
    sha256: Option<[u8; 32]>,
    mut out: Batches,
) -> Result<Passed, IngestError> {
    let mut chunker = Chunker::new(chunk);
    let mut as_sent = sha256.map(|stated| (stated, Sha256::new()));
    while let Some(frame) = frames.blocking_recv() {
        for part in frame.chunks(PART_BYTES) {
            if let Some((_, hasher)) = &mut as_sent {
                hasher.update(part);
            }
            chunker.push(part, &mut |cut| out.add(cut));
            out.pass_on(BATCH_BYTES)?;
        }
        if chunker.bytes() > SIZE_BYTES_MAX {
            return Err(IngestError::TooLarge(chunker.bytes()));
        }
    }
    if let Some((stated, hasher)) = as_sent {
        check_sha256(stated, hasher)?;
    }
    let passed = chunker.finish(&mut |cut| out.add(cut));
    out.pass_on(0)?;
    Ok(passed)
}

fn cut_qcow2(mut reader: qcow2::Reader, chunk: ChunkSize, mut out: Batches) -> Result<Passed, IngestError> {
    let mut chunker = Chunker::new(chunk);
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

/// Spools a qcow2 body. Its header is looked at as soon as it is there: most refusals need no more.
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

/// Runs `source` on a thread of its own and everything after it.
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
    Ok(Imported { content, digest: passed.digest, format, tally })
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
    u32::try_from(record.stored().len()).unwrap_or(u32::MAX)
}

/// The tree under construction.
struct Growing<'a> {
    target: &'a Target,
    base: Descriptor,
    leaves: BTreeMap<ChunkIndex, Option<ObjectName>>,
    /// Pages of the last step, which the next one most likely needs.
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
            self.leaves.insert(chunk.index, Some(chunk.name));
        }
        if self.leaves.len() >= LEAVES_MAX
            && let Some((last, _)) = self.leaves.last_key_value()
        {
            // The last chunk has at least one byte; how many more is not known yet, and a disk never shrinks.
            let size = ByteLen((last.0 * self.target.chunk.bytes() + 1).max(self.base.size_bytes.get()));
            self.step(size).await?;
        }
        Ok(())
    }

    /// Writes the leaves held back to the tree and puts its new pages.
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
