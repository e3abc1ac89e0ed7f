//! The tables, walked once in disk order.

use std::{fs::File, os::unix::fs::FileExt};

use super::{
    CLUSTERS_MAX, Qcow2Error, READ_FACTOR_MAX,
    decompress::Expander,
    header::{HEAD_BYTES, Header},
};

/// Bits 9 to 55 of a table entry: where in the file.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// The reference count is exactly one. Says nothing to a reader.
const COPIED: u64 = 1 << 63;
/// The cluster is compressed.
const COMPRESSED: u64 = 1 << 62;
/// The cluster reads as zeros (version 3, without extended L2 entries).
const ZERO: u64 = 1 << 0;

/// Neighbouring clusters are read together up to so many bytes: small clusters would cost one system call each.
const READ_BYTES: u64 = 1 << 20;

/// The next bytes of the disk.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// So many bytes were put into the buffer.
    Data(usize),
    /// So many zeros, known from the tables alone.
    Zeros(u64),
}

/// A qcow2 file read from the disk's first byte to its last.
pub struct Reader {
    file: File,
    file_bytes: u64,
    header: Header,
    expander: Expander,
    /// Clusters that hold the header or a table: they must not be data too.
    tables: Bitmap,
    l1: Vec<u8>,
    l1_first: u64,
    l2: Vec<u8>,
    /// Number of the L1 entry whose table is in `l2`.
    l2_of: Option<u64>,
    compressed: Vec<u8>,
    /// First byte of the disk not handed out yet.
    at: u64,
    read_bytes: u64,
}

/// Where some bytes of the disk are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Zeros,
    File(u64),
    Compressed { at: u64, bytes: u64 },
}

impl Reader {
    /// Opens a file of which `file_bytes` are there.
    ///
    /// # Errors
    /// Whatever can be told from the header and the L1 table, which is read through once.
    pub fn open(file: File, file_bytes: u64) -> Result<Self, Qcow2Error> {
        let mut head = vec![0; HEAD_BYTES.min(usize::try_from(file_bytes).unwrap_or(usize::MAX))];
        file.read_exact_at(&mut head, 0)?;
        let header = Header::parse(&head)?;
        let clusters = file_bytes.div_ceil(header.cluster_bytes());
        if clusters > CLUSTERS_MAX {
            return Err(Qcow2Error::Absurd {
                field: "cluster_bits",
                got: header.cluster_bits.into(),
                why: "makes too many clusters of a file of this length",
            });
        }
        let l1_bytes = header.l1_entries * 8;
        if header.l1_offset.checked_add(l1_bytes).is_none_or(|end| end > file_bytes) {
            return Err(Qcow2Error::Truncated {
                what: "the L1 table",
                at: header.l1_offset,
                bytes: l1_bytes,
                end: file_bytes,
            });
        }
        let mut reader = Self {
            file,
            file_bytes,
            expander: Expander::new(header.compression).map_err(|why| Qcow2Error::Expand { disk_offset: 0, why })?,
            tables: Bitmap::new(clusters),
            l1: Vec::new(),
            l1_first: 0,
            l2: Vec::new(),
            l2_of: None,
            compressed: Vec::new(),
            at: 0,
            read_bytes: 0,
            header,
        };
        reader.mark_tables()?;
        Ok(reader)
    }

    /// What the header says.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// Marks every cluster that belongs to the header, the L1 table or an L2 table, each once.
    fn mark_tables(&mut self) -> Result<(), Qcow2Error> {
        let bits = self.header.cluster_bits;
        self.tables.set(0);
        let l1_end = self.header.l1_offset + self.header.l1_entries * 8;
        for cluster in self.header.l1_offset >> bits..l1_end.div_ceil(self.header.cluster_bytes()) {
            self.tables.set(cluster);
        }
        for index in 0..self.header.l1_entries {
            let entry = self.l1_entry(index)?;
            let disk_offset = index * self.header.l2_entries() * self.header.cluster_bytes();
            let bad = |why| Qcow2Error::Entry { table: "L1", disk_offset, entry, why };
            let table = entry & OFFSET;
            if entry & !(OFFSET | COPIED) != 0 {
                return Err(bad("reserved bits are set"));
            }
            if table == 0 {
                continue;
            }
            if !table.is_multiple_of(self.header.cluster_bytes()) {
                return Err(bad("its L2 table is not on a cluster boundary"));
            }
            if table.checked_add(self.header.cluster_bytes()).is_none_or(|end| end > self.file_bytes) {
                return Err(Qcow2Error::Truncated {
                    what: "an L2 table",
                    at: table,
                    bytes: self.header.cluster_bytes(),
                    end: self.file_bytes,
                });
            }
            if !self.tables.set(table >> bits) {
                return Err(bad("its L2 table overlaps another table"));
            }
        }
        Ok(())
    }

    /// An entry of the L1 table, which is kept a window at a time.
    fn l1_entry(&mut self, index: u64) -> Result<u64, Qcow2Error> {
        const WINDOW_ENTRIES: u64 = 8192;
        let first = index - index % WINDOW_ENTRIES;
        if self.l1.is_empty() || self.l1_first != first {
            let entries = WINDOW_ENTRIES.min(self.header.l1_entries - first);
            self.l1.resize(bytes_in_memory(entries * 8), 0);
            self.file.read_exact_at(&mut self.l1, self.header.l1_offset + first * 8)?;
            self.l1_first = first;
        }
        Ok(entry_at(&self.l1, (index - first) * 8))
    }

    /// Puts the next bytes of the disk into `buffer` (cleared first), or says that zeros come. None at the end.
    ///
    /// # Errors
    /// A table entry or compressed cluster that cannot be, or a file that ends too early.
    pub fn next(&mut self, buffer: &mut Vec<u8>) -> Result<Option<Piece>, Qcow2Error> {
        buffer.clear();
        let mut zeros = 0_u64;
        let mut run: Option<(u64, u64)> = None;
        while self.at < self.header.size_bytes {
            let (place, bytes) = self.place()?;
            match place {
                Place::Zeros if run.is_none() => zeros += bytes,
                Place::File(at) if zeros == 0 => match &mut run {
                    None => run = Some((at, bytes)),
                    Some((from, len)) if *from + *len == at && *len + bytes <= READ_BYTES => *len += bytes,
                    Some(_) => break,
                },
                Place::Compressed { at, bytes: stored } if zeros == 0 && run.is_none() => {
                    self.read_compressed(at, stored, buffer)?;
                    buffer.truncate(bytes_in_memory(bytes));
                    self.at += bytes;
                    return Ok(Some(Piece::Data(buffer.len())));
                }
                _ => break,
            }
            self.at += bytes;
        }
        if zeros > 0 {
            return Ok(Some(Piece::Zeros(zeros)));
        }
        let Some((from, bytes)) = run else { return Ok(None) };
        self.spend(bytes)?;
        buffer.resize(bytes_in_memory(bytes), 0);
        // QEMU leaves out the end of the last cluster where nothing was written; it reads as zeros.
        let there = bytes.min(self.file_bytes - from);
        let there = buffer.get_mut(..bytes_in_memory(there)).unwrap_or_default();
        self.file.read_exact_at(there, from)?;
        Ok(Some(Piece::Data(buffer.len())))
    }

    /// Where the disk's bytes from `self.at` are, and how many of them are there in one piece: at most to the end
    /// of the cluster (subcluster, or an absent table's whole range).
    fn place(&mut self) -> Result<(Place, u64), Qcow2Error> {
        let cluster_bytes = self.header.cluster_bytes();
        let table_bytes = cluster_bytes * self.header.l2_entries();
        let left = self.header.size_bytes - self.at;
        let l1_index = self.at / table_bytes;
        if self.l2_of != Some(l1_index) {
            let table = self.l1_entry(l1_index)? & OFFSET;
            if table == 0 {
                return Ok((Place::Zeros, (table_bytes - self.at % table_bytes).min(left)));
            }
            self.spend(cluster_bytes)?;
            self.l2.resize(bytes_in_memory(cluster_bytes), 0);
            self.file.read_exact_at(&mut self.l2, table)?;
            self.l2_of = Some(l1_index);
        }
        let slot = self.at % table_bytes / cluster_bytes * self.header.l2_entry_bytes();
        let entry = entry_at(&self.l2, slot);
        let within = self.at % cluster_bytes;
        let left = left.min(cluster_bytes - within);
        let disk_offset = self.at - within;
        let bad = |why| Qcow2Error::Entry { table: "L2", disk_offset, entry, why };

        if entry & COMPRESSED != 0 {
            // The offset has 62 - (cluster_bits - 8) bits, the rest counts the sectors after the first.
            let offset_bits = 70 - self.header.cluster_bits;
            let at = entry & ((1 << offset_bits) - 1);
            let sectors = ((entry & (COMPRESSED - 1)) >> offset_bits) + 1;
            let bytes = sectors * 512 - at % 512;
            if self.header.extended_l2 && entry_at(&self.l2, slot + 8) != 0 {
                return Err(bad("a compressed cluster has subclusters"));
            }
            if at >= self.file_bytes {
                return Err(Qcow2Error::Truncated { what: "a compressed cluster", at, bytes, end: self.file_bytes });
            }
            if within != 0 {
                return Err(bad("a compressed cluster is read from its middle"));
            }
            return Ok((Place::Compressed { at, bytes }, left));
        }

        let at = entry & OFFSET;
        let zero_flag = if self.header.version >= 3 && !self.header.extended_l2 { ZERO } else { 0 };
        if entry & !(OFFSET | COPIED | zero_flag) != 0 {
            return Err(bad("reserved bits are set"));
        }
        if at != 0 {
            if !at.is_multiple_of(cluster_bytes) {
                return Err(bad("its cluster is not on a cluster boundary"));
            }
            if at >= self.file_bytes {
                return Err(Qcow2Error::Truncated {
                    what: "a data cluster",
                    at,
                    bytes: cluster_bytes,
                    end: self.file_bytes,
                });
            }
            if self.tables.get(at >> self.header.cluster_bits) {
                return Err(bad("its cluster is also a table"));
            }
        }
        if !self.header.extended_l2 {
            let place = if at == 0 || entry & zero_flag != 0 { Place::Zeros } else { Place::File(at + within) };
            return Ok((place, left));
        }

        let bits = entry_at(&self.l2, slot + 8);
        let (allocated, zeros) = (bits & u64::from(u32::MAX), bits >> 32);
        if allocated & zeros != 0 {
            return Err(bad("a subcluster is both allocated and zero"));
        }
        if at == 0 && allocated != 0 {
            return Err(bad("a subcluster is allocated without a cluster"));
        }
        let subcluster_bytes = cluster_bytes / 32;
        let index = within / subcluster_bytes;
        let left = left.min(subcluster_bytes - within % subcluster_bytes);
        let place = if allocated >> index & 1 == 1 { Place::File(at + within) } else { Place::Zeros };
        if let Place::File(from) = place
            && from >= self.file_bytes
        {
            return Err(Qcow2Error::Truncated {
                what: "a subcluster",
                at: from,
                bytes: subcluster_bytes,
                end: self.file_bytes,
            });
        }
        Ok((place, left))
    }

    fn read_compressed(&mut self, at: u64, bytes: u64, buffer: &mut Vec<u8>) -> Result<(), Qcow2Error> {
        self.spend(bytes)?;
        // The last sector may be cut short by the end of the file.
        let bytes = bytes.min(self.file_bytes - at);
        self.compressed.resize(bytes_in_memory(bytes), 0);
        self.file.read_exact_at(&mut self.compressed, at)?;
        buffer.resize(bytes_in_memory(self.header.cluster_bytes()), 0);
        let disk_offset = self.at;
        self.expander.expand(&self.compressed, buffer).map_err(|why| Qcow2Error::Expand { disk_offset, why })
    }

    /// Accounts for reading so many bytes.
    fn spend(&mut self, bytes: u64) -> Result<(), Qcow2Error> {
        self.read_bytes = self.read_bytes.saturating_add(bytes);
        let most = self.file_bytes.saturating_mul(READ_FACTOR_MAX).saturating_add(READ_BYTES);
        if self.read_bytes > most { Err(Qcow2Error::Amplified) } else { Ok(()) }
    }
}

fn entry_at(table: &[u8], at: u64) -> u64 {
    let at = bytes_in_memory(at);
    table.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_be_bytes)
}

/// Lengths here are bounded by the largest compressed cluster (4 MiB).
fn bytes_in_memory(bytes: u64) -> usize {
    usize::try_from(bytes).expect("bounded by a few MiB")
}

/// One bit per cluster of the file.
struct Bitmap(Vec<u64>);

impl Bitmap {
    fn new(bits: u64) -> Self {
        Self(vec![0; bytes_in_memory(bits.div_ceil(64))])
    }

    fn get(&self, bit: u64) -> bool {
        usize::try_from(bit / 64).ok().and_then(|word| self.0.get(word)).is_some_and(|word| word >> (bit % 64) & 1 == 1)
    }

    /// Sets a bit; false if it was set (or is out of the file) already.
    fn set(&mut self, bit: u64) -> bool {
        let Some(word) = usize::try_from(bit / 64).ok().and_then(|word| self.0.get_mut(word)) else { return false };
        let fresh = *word >> (bit % 64) & 1 == 0;
        *word |= 1 << (bit % 64);
        fresh
    }
}
