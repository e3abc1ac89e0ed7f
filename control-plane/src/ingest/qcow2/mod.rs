//! Reading a qcow2 file (versions 2 and 3) as the raw disk it stands for.
//!
//! The file comes from a stranger. What is promised: every byte that is handed out is what QEMU would read, or there
//! is an error; never a panic, never more memory than a few megabytes (and one bit per cluster of the file), never
//! more than [`READ_FACTOR_MAX`] times the file's length of reading, never a second file opened (backing and external
//! data files are refused). No table is trusted: sizes are bounded before anything is allocated, offsets are checked
//! against the length of the file, and clusters of tables must not be used for anything else.
//!
//! ```text
//!   header --> L1 table --> L2 table --> data cluster          (uncompressed, or one of 32 subclusters of it)
//!              (<= 32 MiB)  (one cluster) \--> compressed bytes (deflate or zstd, at any byte)
//!                                          \-> zeros            (zero flag, or nothing allocated)
//! ```
//!
//! Read are the active tables only; internal snapshots stay behind. A *dirty* file is read (its reference counts may
//! be wrong and are not used here, as `qemu-img convert` does), a *corrupt* one is refused.

mod decompress;
mod header;
mod walk;

pub use header::{Compression, HEAD_BYTES, Header};
pub use walk::{Piece, Reader};

/// `QFI\xfb`
pub const MAGIC: [u8; 4] = [b'Q', b'F', b'I', 0xfb];

/// Largest logical size: what a disk may have.
pub const SIZE_BYTES_MAX: u64 = 16 << 40;

/// Largest L1 table, as in QEMU.
const L1_BYTES_MAX: u64 = 32 << 20;

/// More clusters than this cost too much to keep apart: one bit each, 64 MiB. Only files with absurdly small clusters
/// (512 bytes and over 256 GiB) get there.
const CLUSTERS_MAX: u64 = 512 << 20;

/// A file whose tables point to the same bytes again and again can stand for more data than anyone can hash. Honest
/// ones stay below 1; small compressed clusters are read in whole sectors, which makes about 26 of it at worst.
pub const READ_FACTOR_MAX: u64 = 32;

/// Why a file is not a usable qcow2 image.
#[derive(Debug, thiserror::Error)]
pub enum Qcow2Error {
    /// It ends before what its header or tables point to.
    #[error("the file is truncated: {what} at byte {at} ({bytes} bytes) is beyond its end at {end}")]
    Truncated {
        /// What should be there.
        what: &'static str,
        /// Where it should begin.
        at: u64,
        /// How long it should be.
        bytes: u64,
        /// Where the file ends.
        end: u64,
    },
    /// Another kind of file.
    #[error("not a qcow2 file: it begins with {0:02x?}")]
    Magic([u8; 4]),
    /// A version nobody has written yet.
    #[error("qcow2 version {0} is not known (2 and 3 are)")]
    Version(u32),
    /// Its content is partly elsewhere.
    #[error("it has a backing file{}: flatten it first (qemu-img convert -O qcow2)", named(.0))]
    BackingFile(Option<String>),
    /// Its content is elsewhere.
    #[error("its data is in an external file{}: flatten it first (qemu-img convert -O qcow2)", named(.0))]
    ExternalData(Option<String>),
    /// Its content cannot be read without a key.
    #[error("it is encrypted ({0}): decrypt it first (qemu-img convert)")]
    Encrypted(&'static str),
    /// The program that wrote it found it damaged.
    #[error("it is marked corrupt: repair it first (qemu-img check -r all)")]
    MarkedCorrupt,
    /// It needs something this reader does not know.
    #[error("it needs features this version does not know: incompatible bits {0:#x}")]
    UnknownFeatures(u64),
    /// A compression this reader does not know.
    #[error("its compression type {0} is not known (0 deflate and 1 zstd are)")]
    UnknownCompression(u8),
    /// Bigger than a disk may be.
    #[error("its logical size of {0} bytes is over the limit of 16 TiB")]
    TooLarge(u64),
    /// It stands for no byte at all.
    #[error("its logical size is 0 bytes")]
    Empty,
    /// A field of the header makes no sense.
    #[error("{field} is {got}, which {why}")]
    Absurd {
        /// Which field.
        field: &'static str,
        /// What it says.
        got: u64,
        /// What is wrong with that.
        why: &'static str,
    },
    /// A table entry makes no sense.
    #[error("the {table} entry for disk offset {disk_offset} is {entry:#018x}: {why}")]
    Entry {
        /// `L1` or `L2`.
        table: &'static str,
        /// First byte of the disk it is about.
        disk_offset: u64,
        /// The entry.
        entry: u64,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A compressed cluster does not give a whole cluster.
    #[error("the compressed cluster for disk offset {disk_offset} cannot be expanded: {why}")]
    Expand {
        /// First byte of the disk it is about.
        disk_offset: u64,
        /// What is wrong with it.
        why: String,
    },
    /// Its tables make more out of it than it can honestly hold.
    #[error("its tables use the same bytes many times over (more than {READ_FACTOR_MAX} times the file)")]
    Amplified,
    /// The spool cannot be read.
    #[error("cannot read the spooled file")]
    Io(#[from] std::io::Error),
}

fn named(name: &Option<String>) -> String {
    name.as_ref().map(|n| format!(" ({n:?})")).unwrap_or_default()
}

#[cfg(test)]
mod fuzz_tests;
#[cfg(test)]
mod tests;
