//! Walks the tables once, in the order of the disk.

use std::{fs::File, os::unix::fs::FileExt};

use super::{
    CLUSTERS_MAX, Qcow2Error, READ_FACTOR_MAX,
    decompress::Expander,
    header::{HEAD_BYTES, Header},
};

/// Bits 9 to 55 of a table entry: an offset in the file.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
/// The reference count is exactly one. Readers ignore this bit.
const COPIED: u64 = 1 << 63;
/// The L2 entry of a compressed cluster: its other bits are an offset and a number of sectors.
const COMPRESSED: u64 = 1 << 62;
/// The cluster reads as zeros (version 3, without extended L2 entries).
const ZERO: u64 = 1 << 0;

/// Most bytes of neighbouring clusters that one system call reads. Without it each small cluster would cost a call.
const READ_BYTES: u64 = 1 << 20;

/// The next bytes of the disk.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// Number of bytes that were put into the buffer.
    Data(usize),
    /// Number of zero bytes, known from the tables alone; the buffer is empty.
    Zeros(u64),
}

/// Reads the disk in a qcow2 file from its first byte to its last.
pub struct Reader {
    file: File,
    file_bytes: u64,
    header: Header,
    expander: Expander,
    /// Clusters that hold the header or a table. An L2 entry must not name one of them as data.
    tables: Bitmap,
    /// A window of the L1 table, and the number of its first entry.
    l1: Vec<u8>,
    l1_first: u64,
    l2: Vec<u8>,
    /// Number of the L1 entry whose table is in `l2`.
    l2_of: Option<u64>,
    compressed: Vec<u8>,
    /// Offset of the first byte of the disk that was not handed out yet.
    at: u64,
    /// Bytes read from the file so far, bounded by [`READ_FACTOR_MAX`].
    read_bytes: u64,
    /// Bytes of the disk whose L2 tables are absent.
    holes: u64,
}

/// Where some bytes of the disk are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Zeros,
    /// At this offset of the file.
    File(u64),
    Compressed {
        at: u64,
        bytes: u64,
    },
}

/// An L2 entry, and the reader's position in the cluster that it is about.
struct L2Entry {
    bits: u64,
    /// Bits of the subclusters; 0 without extended L2 entries.
    subclusters: u64,
    /// Offset on the disk of the cluster's first byte.
    disk_offset: u64,
    /// Bytes of the cluster before the position.
    within: u64,
    /// Bytes from the position to the end of the cluster or of the disk.
    left: u64,
}

impl L2Entry {
    fn bad(&self, why: &'static str) -> Qcow2Error {
        Qcow2Error::Entry { table: "L2", disk_offset: self.disk_offset, entry: self.bits, why }
    }
}

impl Reader {
    /// Opens a file of `file_bytes` bytes. Blocks.
    ///
    /// # Errors
    /// [`Qcow2Error`] for whatever can be told from the header and the L1 table, which is read through once.
    pub fn open(file: File, file_bytes: u64) -> Result<Self, Qcow2Error> {
        let mut head = vec![0; bytes_in_memory(file_bytes.min(HEAD_BYTES as u64))];
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
            expander: Expander::new(header.compression),
            tables: Bitmap::new(clusters),
            l1: Vec::new(),
            l1_first: 0,
            l2: Vec::new(),
            l2_of: None,
            compressed: Vec::new(),
            at: 0,
            read_bytes: 0,
            holes: 0,
            header,
        };
        reader.mark_tables()?;
        Ok(reader)
    }

    /// The header that was read and checked at the beginning.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// Bytes of the disk that are zeros, as far as the L1 table alone tells.
    #[must_use]
    pub const fn holes(&self) -> u64 {
        self.holes
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
                let table_bytes = self.header.l2_entries() * self.header.cluster_bytes();
                self.holes += table_bytes.min(self.header.size_bytes.saturating_sub(disk_offset));
                continue;
            }
            if !table.is_multiple_of(self.header.cluster_bytes()) {
                return Err(bad("its L2 table is not on a cluster boundary"));
            }
            if table.checked_add(self.header.cluster_bytes()).is_none_or(|end| end > self.file_bytes) {
                return Err(self.truncated("an L2 table", table, self.header.cluster_bytes()));
            }
            if !self.tables.set(table >> bits) {
                return Err(bad("its L2 table overlaps another table"));
            }
        }
        Ok(())
    }

    /// Reads an entry of the L1 table, of which one window at a time is in memory.
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

    /// Puts the next bytes of the disk into `buffer` (cleared first), or says how many zeros come next. `None` at the
    /// end of the disk. Blocks.
    ///
    /// # Errors
    /// A table entry or a compressed cluster is invalid, or the file ends too early.
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
        let present = bytes_in_memory(bytes.min(self.file_bytes - from));
        self.file.read_exact_at(&mut buffer[..present], from)?;
        Ok(Some(Piece::Data(buffer.len())))
    }

    /// Where the disk's bytes from `self.at` on are, and how many of them lie there together: at most to the end of
    /// the cluster or subcluster, or of the whole range of an L2 table that is absent.
    fn place(&mut self) -> Result<(Place, u64), Qcow2Error> {
        let table_bytes = self.header.cluster_bytes() * self.header.l2_entries();
        if !self.load_l2(self.at / table_bytes)? {
            let left = self.header.size_bytes - self.at;
            return Ok((Place::Zeros, (table_bytes - self.at % table_bytes).min(left)));
        }
        let entry = self.l2_entry(self.at % table_bytes);
        if entry.bits & COMPRESSED != 0 {
            return Ok((self.compressed_place(&entry)?, entry.left));
        }
        let cluster = self.cluster_of(&entry)?;
        if self.header.extended_l2 {
            return self.subcluster_place(&entry, cluster);
        }
        let zeros = cluster == 0 || entry.bits & self.zero_flag() != 0;
        Ok((if zeros { Place::Zeros } else { Place::File(cluster + entry.within) }, entry.left))
    }

    /// Loads the L2 table of an L1 entry; false if there is none.
    fn load_l2(&mut self, l1_index: u64) -> Result<bool, Qcow2Error> {
        if self.l2_of != Some(l1_index) {
            let table = self.l1_entry(l1_index)? & OFFSET;
            if table == 0 {
                return Ok(false);
            }
            self.spend(self.header.cluster_bytes())?;
            self.l2.resize(bytes_in_memory(self.header.cluster_bytes()), 0);
            self.file.read_exact_at(&mut self.l2, table)?;
            self.l2_of = Some(l1_index);
        }
        Ok(true)
    }

    /// The entry of the loaded L2 table for `self.at`, which is `offset` bytes into the range of that table.
    fn l2_entry(&self, offset: u64) -> L2Entry {
        let cluster_bytes = self.header.cluster_bytes();
        let slot = offset / cluster_bytes * self.header.l2_entry_bytes();
        let within = offset % cluster_bytes;
        L2Entry {
            bits: entry_at(&self.l2, slot),
            subclusters: if self.header.extended_l2 { entry_at(&self.l2, slot + 8) } else { 0 },
            disk_offset: self.at - within,
            within,
            left: (self.header.size_bytes - self.at).min(cluster_bytes - within),
        }
    }

    fn compressed_place(&self, entry: &L2Entry) -> Result<Place, Qcow2Error> {
        // The offset has 62 - (cluster_bits - 8) bits, the rest counts the sectors after the first.
        let offset_bits = 70 - self.header.cluster_bits;
        let at = entry.bits & ((1 << offset_bits) - 1);
        let sectors = ((entry.bits & (COMPRESSED - 1)) >> offset_bits) + 1;
        let bytes = sectors * 512 - at % 512;
        if entry.subclusters != 0 {
            return Err(entry.bad("a compressed cluster has subclusters"));
        }
        if at >= self.file_bytes {
            return Err(self.truncated("a compressed cluster", at, bytes));
        }
        if entry.within != 0 {
            return Err(entry.bad("a compressed cluster is read from its middle"));
        }
        Ok(Place::Compressed { at, bytes })
    }

    /// Offset of an uncompressed cluster in the file; 0 if none is allocated.
    fn cluster_of(&self, entry: &L2Entry) -> Result<u64, Qcow2Error> {
        let at = entry.bits & OFFSET;
        if entry.bits & !(OFFSET | COPIED | self.zero_flag()) != 0 {
            return Err(entry.bad("reserved bits are set"));
        }
        if at == 0 {
            return Ok(0);
        }
        if !at.is_multiple_of(self.header.cluster_bytes()) {
            return Err(entry.bad("its cluster is not on a cluster boundary"));
        }
        if at >= self.file_bytes {
            return Err(self.truncated("a data cluster", at, self.header.cluster_bytes()));
        }
        if self.tables.get(at >> self.header.cluster_bits) {
            return Err(entry.bad("its cluster is also a table"));
        }
        Ok(at)
    }

    fn subcluster_place(&self, entry: &L2Entry, cluster: u64) -> Result<(Place, u64), Qcow2Error> {
        let (allocated, zeros) = (entry.subclusters & u64::from(u32::MAX), entry.subclusters >> 32);
        if allocated & zeros != 0 {
            return Err(entry.bad("a subcluster is both allocated and zero"));
        }
        if cluster == 0 && allocated != 0 {
            return Err(entry.bad("a subcluster is allocated without a cluster"));
        }
        let subcluster_bytes = self.header.cluster_bytes() / 32;
        let index = entry.within / subcluster_bytes;
        let left = entry.left.min(subcluster_bytes - entry.within % subcluster_bytes);
        if allocated >> index & 1 == 0 {
            return Ok((Place::Zeros, left));
        }
        let from = cluster + entry.within;
        if from >= self.file_bytes {
            return Err(self.truncated("a subcluster", from, subcluster_bytes));
        }
        Ok((Place::File(from), left))
    }

    /// The bit of an L2 entry that says "zeros", where entries have one.
    fn zero_flag(&self) -> u64 {
        if self.header.version >= 3 && !self.header.extended_l2 { ZERO } else { 0 }
    }

    fn truncated(&self, what: &'static str, at: u64, bytes: u64) -> Qcow2Error {
        Qcow2Error::Truncated { what, at, bytes, end: self.file_bytes }
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

    /// Counts `bytes` as read, and refuses a file of which too much is read.
    fn spend(&mut self, bytes: u64) -> Result<(), Qcow2Error> {
        self.read_bytes = self.read_bytes.saturating_add(bytes);
        let most = self.file_bytes.saturating_mul(READ_FACTOR_MAX).saturating_add(READ_BYTES);
        if self.read_bytes > most { Err(Qcow2Error::Amplified) } else { Ok(()) }
    }
}

fn entry_at(table: &[u8], at: u64) -> u64 {
    let at = bytes_in_memory(at);
    u64::from_be_bytes(table[at..at + 8].try_into().expect("a range of 8 bytes"))
}

/// For lengths within one buffer. The largest is the bitmap of tables ([`CLUSTERS_MAX`]), 64 MiB.
fn bytes_in_memory(bytes: u64) -> usize {
    usize::try_from(bytes).expect("bounded by 64 MiB")
}

/// One bit per cluster of the file.
struct Bitmap(Vec<u64>);

impl Bitmap {
    fn new(bits: u64) -> Self {
        Self(vec![0; bytes_in_memory(bits.div_ceil(64))])
    }

    /// `bit` must be a cluster of the file, as for [`Self::set`].
    fn get(&self, bit: u64) -> bool {
        self.0[bytes_in_memory(bit / 64)] >> (bit % 64) & 1 == 1
    }

    /// Sets a bit; false if it was set already.
    fn set(&mut self, bit: u64) -> bool {
        let word = &mut self.0[bytes_in_memory(bit / 64)];
        let fresh = *word >> (bit % 64) & 1 == 0;
        *word |= 1 << (bit % 64);
        fresh
    }
}
