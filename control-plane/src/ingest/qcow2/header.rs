//! The header and its extensions: everything that can be refused before any data is read.

use super::{L1_BYTES_MAX, MAGIC, Qcow2Error, SIZE_BYTES_MAX};

/// Bytes that must be there to read a header of either version with its compression type.
pub const HEAD_BYTES: usize = 4096;

const V2_BYTES: usize = 72;
const V3_BYTES: usize = 104;

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
    /// Raw deflate.
    Deflate,
    /// zstd frames.
    Zstd,
}

/// What the header says, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// 2 or 3.
    pub version: u32,
    /// log2 of the cluster size, 9 to 21.
    pub cluster_bits: u32,
    /// Logical size of the disk.
    pub size_bytes: u64,
    /// Where the active L1 table begins.
    pub l1_offset: u64,
    /// Entries of it that the logical size needs.
    pub l1_entries: u64,
    /// How compressed clusters are compressed.
    pub compression: Compression,
    /// Whether each L2 entry has bits for 32 subclusters.
    pub extended_l2: bool,
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_be_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_be_bytes)
}

impl Header {
    /// Size of a cluster.
    #[must_use]
    pub const fn cluster_bytes(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Entries of one L2 table, which fills one cluster.
    #[must_use]
    pub const fn l2_entries(&self) -> u64 {
        self.cluster_bytes() / self.l2_entry_bytes()
    }

    pub(super) const fn l2_entry_bytes(&self) -> u64 {
        if self.extended_l2 { 16 } else { 8 }
    }

    /// Reads a header. `head` is the beginning of the file, 4096 bytes or the whole file if it is
    /// shorter; that is enough for the fields, and for what of the extensions has to be looked at.
    ///
    /// # Errors
    /// Whatever makes the file unusable and can be told from its header.
    pub fn parse(head: &[u8]) -> Result<Self, Qcow2Error> {
        let short = |bytes: usize| Qcow2Error::Truncated {
            what: "the header",
            at: 0,
            bytes: bytes as u64,
            end: head.len() as u64,
        };
        let magic: [u8; 4] = head.get(..4).and_then(|b| b.try_into().ok()).ok_or_else(|| short(V2_BYTES))?;
        if magic != MAGIC {
            return Err(Qcow2Error::Magic(magic));
        }
        if head.len() < V2_BYTES {
            return Err(short(V2_BYTES));
        }
        let version = u32_at(head, 4);
        if !(2..=3).contains(&version) {
            return Err(Qcow2Error::Version(version));
        }
        let mut header_bytes = V2_BYTES;
        let mut incompatible = 0;
        let mut compression = Compression::Deflate;
        if version == 3 {
            if head.len() < V3_BYTES {
                return Err(short(V3_BYTES));
            }
            incompatible = u64_at(head, 72);
            header_bytes = u32_at(head, 100) as usize;
            if header_bytes < V3_BYTES || !header_bytes.is_multiple_of(8) || header_bytes > HEAD_BYTES {
                return Err(Qcow2Error::Absurd {
                    field: "header_length",
                    got: header_bytes as u64,
                    why: "is not a multiple of 8 from 104 to 4096",
                });
            }
            if head.len() < header_bytes {
                return Err(short(header_bytes));
            }
            let refcount_order = u32_at(head, 96);
            if refcount_order > 6 {
                return Err(Qcow2Error::Absurd {
                    field: "refcount_order",
                    got: refcount_order.into(),
                    why: "is over 6",
                });
            }
            let kind = if header_bytes > V3_BYTES { head[V3_BYTES] } else { 0 };
            compression = match kind {
                0 => Compression::Deflate,
                1 => Compression::Zstd,
                other => return Err(Qcow2Error::UnknownCompression(other)),
            };
            if (kind != 0) != (incompatible & COMPRESSION_TYPE != 0) {
                return Err(Qcow2Error::Absurd {
                    field: "compression_type",
                    got: kind.into(),
                    why: "contradicts the feature bit for it",
                });
            }
        }

        let extensions = Extensions::read(&head[header_bytes..]);
        let unknown = incompatible & !(DIRTY | CORRUPT | EXTERNAL_DATA | COMPRESSION_TYPE | EXTENDED_L2);
        if incompatible & EXTERNAL_DATA != 0 {
            return Err(Qcow2Error::ExternalData(extensions.data_file));
        }
        let (backing_offset, backing_bytes) = (u64_at(head, 8), u32_at(head, 16));
        if backing_offset != 0 {
            let name = usize::try_from(backing_offset)
                .ok()
                .and_then(|from| Some(from..from.checked_add(usize::try_from(backing_bytes.min(1023)).ok()?)?))
                .and_then(|range| head.get(range))
                .map(|name| String::from_utf8_lossy(name).into_owned());
            return Err(Qcow2Error::BackingFile(name));
        }
        match u32_at(head, 32) {
            0 if !extensions.encryption => {}
            0 | 2 => return Err(Qcow2Error::Encrypted("LUKS")),
            1 => return Err(Qcow2Error::Encrypted("AES")),
            other => {
                return Err(Qcow2Error::Absurd { field: "crypt_method", got: other.into(), why: "is not known" });
            }
        }
        if incompatible & CORRUPT != 0 {
            return Err(Qcow2Error::MarkedCorrupt);
        }
        if unknown != 0 {
            return Err(Qcow2Error::UnknownFeatures(unknown));
        }

        let extended_l2 = incompatible & EXTENDED_L2 != 0;
        let cluster_bits = u32_at(head, 20);
        if !(9..=21).contains(&cluster_bits) {
            return Err(Qcow2Error::Absurd {
                field: "cluster_bits",
                got: cluster_bits.into(),
                why: "is not from 9 to 21 (512 bytes to 2 MiB)",
            });
        }
        if extended_l2 && cluster_bits < 14 {
            return Err(Qcow2Error::Absurd {
                field: "cluster_bits",
                got: cluster_bits.into(),
                why: "is under 14, the least with extended L2 entries",
            });
        }
        let size_bytes = u64_at(head, 24);
        if size_bytes > SIZE_BYTES_MAX {
            return Err(Qcow2Error::TooLarge(size_bytes));
        }
        if size_bytes == 0 {
            return Err(Qcow2Error::Empty);
        }
        let mut header = Self {
            version,
            cluster_bits,
            size_bytes,
            l1_offset: u64_at(head, 40),
            l1_entries: 0,
            compression,
            extended_l2,
        };
        header.l1_entries = size_bytes.div_ceil(header.cluster_bytes() * header.l2_entries());
        let l1_size = u64::from(u32_at(head, 36));
        if l1_size.max(header.l1_entries) * 8 > L1_BYTES_MAX {
            return Err(Qcow2Error::Absurd { field: "l1_size", got: l1_size, why: "makes an L1 table over 32 MiB" });
        }
        if l1_size < header.l1_entries {
            return Err(Qcow2Error::Absurd {
                field: "l1_size",
                got: l1_size,
                why: "is too small for the logical size",
            });
        }
        if !header.l1_offset.is_multiple_of(header.cluster_bytes()) || header.l1_offset == 0 {
            return Err(Qcow2Error::Absurd {
                field: "l1_table_offset",
                got: header.l1_offset,
                why: "is not on a cluster boundary after the header",
            });
        }
        let refcounts = u64_at(head, 48);
        if !refcounts.is_multiple_of(header.cluster_bytes()) {
            return Err(Qcow2Error::Absurd {
                field: "refcount_table_offset",
                got: refcounts,
                why: "is not on a cluster boundary",
            });
        }
        Ok(header)
    }
}

#[derive(Default)]
struct Extensions {
    data_file: Option<String>,
    encryption: bool,
}

impl Extensions {
    /// Looks through the extensions as far as they are in `bytes`. A malformed list ends the look: nothing that
    /// matters is told by extensions alone (each has a field in the header too), they only make messages better.
    fn read(mut bytes: &[u8]) -> Self {
        let mut found = Self::default();
        while bytes.len() >= 8 {
            let (kind, len) = (u32_at(bytes, 0), u32_at(bytes, 4) as usize);
            let Some(body) = bytes.get(8..).and_then(|b| b.get(..len)) else { break };
            match kind {
                EXTENSION_END => break,
                EXTENSION_DATA_FILE => found.data_file = Some(String::from_utf8_lossy(body).into_owned()),
                EXTENSION_ENCRYPTION => found.encryption = true,
                _ => {}
            }
            bytes = bytes.get(8 + len.next_multiple_of(8)..).unwrap_or_default();
        }
        found
    }
}
