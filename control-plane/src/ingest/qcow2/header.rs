//! Reads the header and its extensions, and refuses everything that can be refused before any data is read.

use super::{L1_BYTES_MAX, MAGIC, Qcow2Error};
use crate::domain::versions::SIZE_BYTES_MAX;

/// Bytes of the beginning of a file that [`Header::parse`] needs at most.
pub const HEAD_BYTES: usize = 4096;

/// Length of a version 2 header, and of the fields that both versions share.
const V2_BYTES: usize = 72;
/// Length of the smallest version 3 header. Its compression type, if it has one, is the byte after that.
const V3_BYTES: usize = 104;

/// Incompatible features of version 3: a reader that does not know one of them must refuse the file.
const DIRTY: u64 = 1 << 0;
const CORRUPT: u64 = 1 << 1;
const EXTERNAL_DATA: u64 = 1 << 2;
const COMPRESSION_TYPE: u64 = 1 << 3;
const EXTENDED_L2: u64 = 1 << 4;

const EXTENSION_END: u32 = 0;
const EXTENSION_DATA_FILE: u32 = 0x4441_5441;
const EXTENSION_ENCRYPTION: u32 = 0x0537_be77;

/// How compressed clusters are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Deflate without a zlib header.
    Deflate,
    /// zstd frames.
    Zstd,
}

/// The checked content of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Version of the format, 2 or 3.
    pub version: u32,
    /// log2 of the cluster size in bytes, 9 to 21.
    pub cluster_bits: u32,
    /// Logical size of the disk in bytes, at least 1.
    pub size_bytes: u64,
    /// Offset of the active L1 table in the file, on a cluster boundary.
    pub l1_offset: u64,
    /// Number of L1 entries that the logical size needs; the table in the file may have more.
    pub l1_entries: u64,
    /// How compressed clusters are compressed.
    pub compression: Compression,
    /// Whether each L2 entry has bits for 32 subclusters.
    pub extended_l2: bool,
}

/// The caller has checked that the bytes are there.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("a range of 4 bytes"))
}

/// As [`u32_at`], for 8 bytes.
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().expect("a range of 8 bytes"))
}

fn absurd(field: &'static str, got: impl Into<u64>, why: &'static str) -> Qcow2Error {
    Qcow2Error::Absurd { field, got: got.into(), why }
}

fn require(head: &[u8], bytes: usize) -> Result<(), Qcow2Error> {
    if head.len() < bytes {
        let (bytes, end) = (bytes as u64, head.len() as u64);
        return Err(Qcow2Error::Truncated { what: "the header", at: 0, bytes, end });
    }
    Ok(())
}

impl Header {
    /// Size of a cluster in bytes.
    #[must_use]
    pub const fn cluster_bytes(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Number of entries in an L2 table, which fills one cluster.
    #[must_use]
    pub const fn l2_entries(&self) -> u64 {
        self.cluster_bytes() / self.l2_entry_bytes()
    }

    pub(super) const fn l2_entry_bytes(&self) -> u64 {
        if self.extended_l2 { 16 } else { 8 }
    }

    /// Reads a header. `head` is the beginning of the file: [`HEAD_BYTES`], or the whole file if it is shorter.
    ///
    /// # Errors
    /// [`Qcow2Error`] for whatever makes the file unusable and can be told from its header.
    pub fn parse(head: &[u8]) -> Result<Self, Qcow2Error> {
        let version = read_version(head)?;
        let features = if version == 3 { Features::read(head)? } else { Features::VERSION_2 };
        let extensions = Extensions::read(&head[features.header_bytes..]);
        refuse_unreadable(head, &features, extensions)?;

        let extended_l2 = features.incompatible & EXTENDED_L2 != 0;
        let mut header = Self {
            version,
            cluster_bits: read_cluster_bits(head, extended_l2)?,
            size_bytes: read_size(head)?,
            l1_offset: u64_at(head, 40),
            l1_entries: 0,
            compression: features.compression,
            extended_l2,
        };
        header.l1_entries = header.size_bytes.div_ceil(header.cluster_bytes() * header.l2_entries());
        header.check_tables(head)?;
        Ok(header)
    }

    /// Checks the length of the L1 table and the places of the tables.
    fn check_tables(&self, head: &[u8]) -> Result<(), Qcow2Error> {
        let l1_size = u64::from(u32_at(head, 36));
        if l1_size.max(self.l1_entries) * 8 > L1_BYTES_MAX {
            return Err(absurd("l1_size", l1_size, "makes an L1 table over 32 MiB"));
        }
        if l1_size < self.l1_entries {
            return Err(absurd("l1_size", l1_size, "is too small for the logical size"));
        }
        if !self.l1_offset.is_multiple_of(self.cluster_bytes()) || self.l1_offset == 0 {
            let why = "is not on a cluster boundary after the header";
            return Err(absurd("l1_table_offset", self.l1_offset, why));
        }
        let refcounts = u64_at(head, 48);
        if !refcounts.is_multiple_of(self.cluster_bytes()) {
            return Err(absurd("refcount_table_offset", refcounts, "is not on a cluster boundary"));
        }
        Ok(())
    }
}

/// Reads the version, and makes sure that the fields of both versions are there.
fn read_version(head: &[u8]) -> Result<u32, Qcow2Error> {
    if head.len() >= MAGIC.len() && !head.starts_with(&MAGIC) {
        return Err(Qcow2Error::Magic(u32_at(head, 0).to_be_bytes()));
    }
    require(head, V2_BYTES)?;
    match u32_at(head, 4) {
        version @ 2..=3 => Ok(version),
        other => Err(Qcow2Error::Version(other)),
    }
}

fn read_cluster_bits(head: &[u8], extended_l2: bool) -> Result<u32, Qcow2Error> {
    let bits = u32_at(head, 20);
    if !(9..=21).contains(&bits) {
        return Err(absurd("cluster_bits", bits, "is not from 9 to 21 (512 bytes to 2 MiB)"));
    }
    if extended_l2 && bits < 14 {
        return Err(absurd("cluster_bits", bits, "is under 14, the least with extended L2 entries"));
    }
    Ok(bits)
}

fn read_size(head: &[u8]) -> Result<u64, Qcow2Error> {
    match u64_at(head, 24) {
        0 => Err(Qcow2Error::Empty),
        size if size > SIZE_BYTES_MAX => Err(Qcow2Error::TooLarge(size)),
        size => Ok(size),
    }
}

/// What version 3 added to the header.
struct Features {
    header_bytes: usize,
    incompatible: u64,
    compression: Compression,
}

impl Features {
    const VERSION_2: Self = Self { header_bytes: V2_BYTES, incompatible: 0, compression: Compression::Deflate };

    fn read(head: &[u8]) -> Result<Self, Qcow2Error> {
        require(head, V3_BYTES)?;
        let header_bytes = u32_at(head, 100) as usize;
        if header_bytes < V3_BYTES || !header_bytes.is_multiple_of(8) || header_bytes > HEAD_BYTES {
            return Err(absurd("header_length", header_bytes as u64, "is not a multiple of 8 from 104 to 4096"));
        }
        require(head, header_bytes)?;
        let refcount_order = u32_at(head, 96);
        if refcount_order > 6 {
            return Err(absurd("refcount_order", refcount_order, "is over 6"));
        }
        let incompatible = u64_at(head, 72);
        let kind = if header_bytes > V3_BYTES { head[V3_BYTES] } else { 0 };
        let compression = match kind {
            0 => Compression::Deflate,
            1 => Compression::Zstd,
            other => return Err(Qcow2Error::UnknownCompression(other)),
        };
        if (kind != 0) != (incompatible & COMPRESSION_TYPE != 0) {
            return Err(absurd("compression_type", kind, "contradicts the feature bit for it"));
        }
        Ok(Self { header_bytes, incompatible, compression })
    }
}

/// Refuses a file whose content is elsewhere, encrypted, marked corrupt, or needs a feature that is not known here.
fn refuse_unreadable(head: &[u8], features: &Features, extensions: Extensions) -> Result<(), Qcow2Error> {
    if features.incompatible & EXTERNAL_DATA != 0 {
        return Err(Qcow2Error::ExternalData(extensions.data_file));
    }
    if u64_at(head, 8) != 0 {
        return Err(Qcow2Error::BackingFile(backing_file_name(head)));
    }
    match u32_at(head, 32) {
        0 if !extensions.encryption => {}
        0 | 2 => return Err(Qcow2Error::Encrypted("LUKS")),
        1 => return Err(Qcow2Error::Encrypted("AES")),
        other => return Err(absurd("crypt_method", other, "is not known")),
    }
    if features.incompatible & CORRUPT != 0 {
        return Err(Qcow2Error::MarkedCorrupt);
    }
    match features.incompatible & !(DIRTY | CORRUPT | EXTERNAL_DATA | COMPRESSION_TYPE | EXTENDED_L2) {
        0 => Ok(()),
        unknown => Err(Qcow2Error::UnknownFeatures(unknown)),
    }
}

/// The name of the backing file, for the message; `None` if it is not within `head`.
fn backing_file_name(head: &[u8]) -> Option<String> {
    let from = usize::try_from(u64_at(head, 8)).ok()?;
    let to = from.checked_add(u32_at(head, 16).min(1023) as usize)?;
    Some(String::from_utf8_lossy(head.get(from..to)?).into_owned())
}

#[derive(Default)]
struct Extensions {
    data_file: Option<String>,
    encryption: bool,
}

impl Extensions {
    /// Looks through the extensions that are in `bytes`. It stops at a malformed one, which is safe: whether a file is
    /// refused depends on fields of the header, the extensions only make messages better.
    fn read(mut bytes: &[u8]) -> Self {
        let mut found = Self::default();
        while bytes.len() >= 8 {
            let (kind, len) = (u32_at(bytes, 0), u32_at(bytes, 4) as usize);
            let Some(body) = bytes[8..].get(..len) else { break };
            match kind {
                EXTENSION_END => break,
                EXTENSION_DATA_FILE => found.data_file = Some(String::from_utf8_lossy(body).into_owned()),
                EXTENSION_ENCRYPTION => found.encryption = true,
                _ => {}
            }
            let Some(rest) = bytes.get(8 + len.next_multiple_of(8)..) else { break };
            bytes = rest;
        }
        found
    }
}
