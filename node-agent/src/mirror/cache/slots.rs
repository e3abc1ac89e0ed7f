//! Where the cache keeps its bodies: slots of one size in one file, and beside it a table of what is in them.

use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
};

use bytes::Bytes;
use rustix::fs::{FallocateFlags, fallocate};
use storage_core::{ChunkSize, Kind, ObjectName, Salt, lock, units::usize_from};

use super::own::OwnBody;
use crate::mirror::memory::AlignedBuf;

const ENTRY: usize = 64;
/// Bit of the length in an entry of the table: the body is a pack.
const PACK: u32 = 1 << 31;

/// The pair of files for one chunk size.
pub(super) struct SlotFile {
    pub(super) size: ChunkSize,
    slots: File,
    /// The same file, opened to read around the page cache.
    medium: File,
    names: File,
    free: Mutex<Free>,
}

#[derive(Default)]
struct Free {
    numbers: Vec<u64>,
    next: u64,
}

/// A slot of the cache that holds a body.
pub(crate) struct Slot {
    pub(super) file: Arc<SlotFile>,
    number: u64,
    /// What the body is found by: its name, or the key of a patched chunk that was assembled.
    pub(super) key: ObjectName,
    pub(super) content: Content,
    length: u32,
    /// [`UNPROVEN`] until this process has hashed the body.
    pub(super) proof: AtomicU8,
    pub(super) used: AtomicBool,
}

/// What a body is checked against.
#[derive(Clone, Copy)]
pub(super) struct Content {
    pub(super) name: ObjectName,
    pub(super) kind: Kind,
    pub(super) salt: Salt,
}

impl Content {
    /// Hashes a body of a tree with chunks of `size`. An error when it does not match the name.
    pub(super) fn check(&self, size: ChunkSize, body: &[u8]) -> io::Result<()> {
        let got = match self.kind {
            Kind::Chunk => ObjectName::of_chunk(self.salt, size, body),
            kind => ObjectName::of(kind, self.salt, body),
        };
        if got == self.name { Ok(()) } else { Err(io::Error::other(format!("its bytes have the name {got}"))) }
    }
}

pub(super) const UNPROVEN: u8 = 0;
pub(super) const PROVEN: u8 = 1;
pub(super) const BAD: u8 = 2;

/// The body of a chunk or pack, verified against its name. Zeros at the end of a chunk are not part of its body.
#[derive(Clone)]
pub(crate) enum Body {
    Slot(Arc<Slot>),
    /// It was hashed for who has it, or the cache has no room for it.
    Memory(Bytes),
    /// It is of this node's own share of the pool.
    Own(Arc<OwnBody>),
}

impl Body {
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Memory(bytes) => bytes.len(),
            Self::Slot(slot) => slot.body_bytes(),
            Self::Own(own) => own.bytes.len(),
        }
    }

    /// Reads from `offset` on: what the body has, then zeros.
    pub(crate) fn read(&self, offset: usize, into: &mut [u8]) -> io::Result<()> {
        match self {
            Self::Memory(bytes) => {
                copy_padded(bytes, offset, into);
                Ok(())
            }
            Self::Slot(slot) => slot.read(offset, into),
            Self::Own(own) => {
                copy_padded(&own.bytes, offset, into);
                Ok(())
            }
        }
    }
}

/// Copies a part of a chunk, given its body, from `offset` on: what the body has, then zeros.
fn copy_padded(body: &[u8], offset: usize, into: &mut [u8]) {
    let from = offset.min(body.len());
    let (bytes, zeros) = into.split_at_mut((body.len() - from).min(into.len()));
    bytes.copy_from_slice(&body[from..][..bytes.len()]);
    zeros.fill(0);
}

impl Slot {
    fn body_bytes(&self) -> usize {
        usize_from(self.length.into())
    }

    fn read(&self, offset: usize, into: &mut [u8]) -> io::Result<()> {
        let from = offset.min(self.body_bytes());
        let (bytes, zeros) = into.split_at_mut((self.body_bytes() - from).min(into.len()));
        if !bytes.is_empty() {
            self.file.slots.read_exact_at(bytes, self.number * self.file.size.bytes() + from as u64)?;
        }
        zeros.fill(0);
        Ok(())
    }

    /// Reads the whole body and hashes it now (I4). An error when that fails or the body does not match its name.
    pub(super) fn read_proven(&self) -> io::Result<Bytes> {
        let mut body = vec![0; self.body_bytes()];
        let proven = self.read(0, &mut body).and_then(|()| self.prove(&body));
        proven.map(|()| Bytes::from(body))
    }

    /// Like [`Self::read_proven`], with the bytes that are on the disk, whatever the page cache has.
    pub(super) fn prove_medium(&self, buf: &mut AlignedBuf) -> io::Result<()> {
        let buf = buf.slice(self.body_bytes());
        // One call: only the end of the file ends it early, and a second one would not start at a block boundary.
        let got = self.file.medium.read_at(buf, self.number * self.file.size.bytes())?;
        let body = buf.get(..self.body_bytes()).filter(|body| body.len() <= got);
        self.prove(body.ok_or(io::ErrorKind::UnexpectedEof)?)
    }

    fn prove(&self, body: &[u8]) -> io::Result<()> {
        self.content.check(self.file.size, body)?;
        self.proof.store(PROVEN, Ordering::Release);
        Ok(())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // The last user is gone, so the slot's number can be used again. Its name was erased at its eviction.
        lock(&self.file.free).numbers.push(self.number);
    }
}

impl Slot {
    /// A slot with a body that this process has just verified or named. An error leaves nothing behind.
    pub(super) fn fill(file: Arc<SlotFile>, key: ObjectName, content: Content, body: &[u8]) -> io::Result<Slot> {
        assert!(body.len() <= file.size.as_usize(), "a body of {} bytes for a slot of {}", body.len(), file.size);
        let length = u32::try_from(body.len()).expect("chunks are at most 4 MiB");
        let number = file.take_number();
        let (proof, used) = (AtomicU8::new(PROVEN), AtomicBool::new(true));
        // Dropping it gives the number back.
        let slot = Slot { file, number, key, content, length, proof, used };
        slot.write(body).inspect_err(|_| slot.file.punch(slot.number))?;
        Ok(slot)
    }

    fn write(&self, body: &[u8]) -> io::Result<()> {
        self.file.slots.write_all_at(body, self.number * self.file.size.bytes())?;
        if self.is_assembled() {
            return Ok(());
        }
        let flag = if self.content.kind == Kind::Pack { PACK } else { 0 };
        let mut entry = Vec::with_capacity(ENTRY);
        entry.extend(self.content.name.as_bytes());
        entry.extend(self.content.salt.0);
        entry.extend((self.length | flag).to_le_bytes());
        entry.extend(crc32c::crc32c(&entry).to_le_bytes());
        entry.resize(ENTRY, 0);
        self.file.names.write_all_at(&entry, self.number * ENTRY as u64)
    }

    /// Whether the body is a patched chunk. The table does not have it: the next process assembles it again.
    fn is_assembled(&self) -> bool {
        self.key != self.content.name
    }

    /// Makes the slot empty. Readers that still hold it keep its bytes.
    pub(super) fn erase(slot: Arc<Slot>) {
        // Erase the name before the bytes: a crash in between then leaves an empty slot.
        if !slot.is_assembled()
            && let Err(error) = slot.file.names.write_all_at(&[0; ENTRY], slot.number * ENTRY as u64)
        {
            tracing::warn!(error = %error, "the name of an evicted chunk could not be erased; the next start will check it");
        }
        if Arc::strong_count(&slot) == 1 {
            slot.file.punch(slot.number);
        }
    }
}

impl SlotFile {
    pub(super) fn open(dir: &Path, size: ChunkSize) -> io::Result<Arc<Self>> {
        let open = |what: &str, flags: i32| {
            let path = dir.join(format!("{what}-{}", size.log2()));
            File::options().read(true).write(true).create(true).truncate(false).custom_flags(flags).open(path)
        };
        let (slots, medium, names) = (open("slots", 0)?, open("slots", libc::O_DIRECT)?, open("names", 0)?);
        Ok(Arc::new(Self { size, slots, medium, names, free: Mutex::default() }))
    }

    /// The slots that an earlier process filled. The space of others is given back.
    pub(super) fn load(self: Arc<Self>) -> io::Result<Vec<Slot>> {
        let length = usize_from(self.names.metadata()?.len());
        let mut table = vec![0; length / ENTRY * ENTRY];
        self.names.read_exact_at(&mut table, 0)?;
        let mut slots = Vec::new();
        let mut free = lock(&self.free);
        for (number, entry) in (0u64..).zip(table.chunks_exact(ENTRY)) {
            free.next = number + 1;
            match parse(entry) {
                Some((content, length)) if u64::from(length) <= self.size.bytes() => slots.push(Slot {
                    file: self.clone(),
                    number,
                    key: content.name,
                    content,
                    length,
                    proof: AtomicU8::new(UNPROVEN),
                    used: AtomicBool::new(false),
                }),
                _ => free.numbers.push(number),
            }
        }
        // Patched chunks that the earlier process had assembled are in slots without an entry, also behind the last entry.
        for number in &free.numbers {
            self.punch(*number);
        }
        let end = free.next * self.size.bytes();
        if self.slots.metadata()?.len() > end {
            self.slots.set_len(end)?;
        }
        drop(free);
        Ok(slots)
    }

    fn take_number(&self) -> u64 {
        let mut free = lock(&self.free);
        free.numbers.pop().unwrap_or_else(|| {
            free.next += 1;
            free.next - 1
        })
    }

    fn punch(&self, number: u64) {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if let Err(error) = fallocate(&self.slots, flags, number * self.size.bytes(), self.size.bytes()) {
            tracing::debug!(error = %error, "an evicted chunk keeps its disk space until its slot is used again");
        }
    }
}

fn parse(entry: &[u8]) -> Option<(Content, u32)> {
    let crc = u32::from_le_bytes(entry.get(52..56)?.try_into().ok()?);
    if crc32c::crc32c(entry.get(..52)?) != crc {
        return None;
    }
    let name: [u8; 32] = entry.get(..32)?.try_into().ok()?;
    let salt: [u8; 16] = entry.get(32..48)?.try_into().ok()?;
    let length = u32::from_le_bytes(entry.get(48..52)?.try_into().ok()?);
    let kind = if length & PACK == 0 { Kind::Chunk } else { Kind::Pack };
    Some((Content { name: ObjectName::from_bytes(name), kind, salt: Salt(salt) }, length & !PACK))
}
