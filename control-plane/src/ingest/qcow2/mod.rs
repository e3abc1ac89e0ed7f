//! Reading a qcow2 file (versions 2 and 3) as the raw disk it stands for.
//!
//! The file comes from a stranger, so nothing in it is trusted. The reader promises:
//! - Every byte that it hands out is the byte QEMU would read; otherwise there is an error and never a panic.
//! - It needs a few megabytes of memory and one bit per cluster of the file, and reads at most [`READ_FACTOR_MAX`]
//!   times the length of the file.
//! - It never opens a second file: backing and external data files are refused.
//!
//! To keep them, it bounds sizes before it allocates, checks offsets against the length of the file, and refuses a
//! cluster that is used both as a table and as something else.
//!
//! ```text
//!   header --> L1 table --> L2 table --> data cluster          (uncompressed, or one of 32 subclusters of it)
//!              (<= 32 MiB)  (one cluster) \--> compressed bytes (deflate or zstd, at any byte)
//!                                          \-> zeros            (zero flag, or nothing allocated)
//! ```
//!
//! Only the active tables are read; internal snapshots are left out. A *dirty* file is read, as `qemu-img convert`
//! does: its reference counts may be wrong, but they are not used here. A file marked *corrupt* is refused.

mod decompress;
mod header;
mod walk;

pub use header::{Compression, HEAD_BYTES, Header};
pub use walk::{Piece, Reader};

/// The first four bytes of every qcow2 file: `QFI\xfb`.
pub const MAGIC: [u8; 4] = [b'Q', b'F', b'I', 0xfb];

/// Largest L1 table, as in QEMU.
const L1_BYTES_MAX: u64 = 32 << 20;

/// Most clusters a file may have. The reader keeps one bit for each, 64 MiB at this limit. Only a file of more than
/// 256 GiB with clusters of 512 bytes has more.
const CLUSTERS_MAX: u64 = 512 << 20;

/// Most bytes that are read, as a multiple of the file's length. A file whose tables point to the same bytes again and
/// again can stand for more data than anyone can hash. Honest files stay below 1, or below about 26 if they have small
/// compressed clusters, because those are read in whole sectors.
pub const READ_FACTOR_MAX: u64 = 32;

/// Why a file is not a usable qcow2 image.
#[derive(Debug, thiserror::Error)]
pub enum Qcow2Error {
    /// The file ends before something that its header or tables point to.
    #[error("the file is truncated: {what} at byte {at} ({bytes} bytes) is beyond its end at {end}")]
    Truncated {
        /// Name of the missing part: `the L1 table`, …
        what: &'static str,
        /// Offset of the part in the file.
        at: u64,
        /// Length of the part in bytes.
        bytes: u64,
        /// Length of the file in bytes.
        end: u64,
    },
    /// It is another kind of file; these are its first bytes.
    #[error("not a qcow2 file: it begins with {0:02x?}")]
    Magic([u8; 4]),
    /// It has a version other than 2 and 3.
    #[error("qcow2 version {0} is not known (2 and 3 are)")]
    Version(u32),
    /// Part of its content is in a backing file, whose name is given if it could be read.
    #[error("it has a backing file{}: flatten it first (qemu-img convert -O qcow2)", named(.0))]
    BackingFile(Option<String>),
    /// Its content is in another file, whose name is given if it could be read.
    #[error("its data is in an external file{}: flatten it first (qemu-img convert -O qcow2)", named(.0))]
    ExternalData(Option<String>),
    /// Its content is encrypted, with this method.
    #[error("it is encrypted ({0}): decrypt it first (qemu-img convert)")]
    Encrypted(&'static str),
    /// Its corrupt bit is set: a program that wrote it found it damaged.
    #[error("it is marked corrupt: repair it first (qemu-img check -r all)")]
    MarkedCorrupt,
    /// It needs features that this reader does not know; these are their bits.
    #[error("it needs features this version does not know: incompatible bits {0:#x}")]
    UnknownFeatures(u64),
    /// Its clusters are compressed in a way this reader does not know.
    #[error("its compression type {0} is not known (0 deflate and 1 zstd are)")]
    UnknownCompression(u8),
    /// Its logical size in bytes is over 16 TiB, the most a version may have.
    #[error("its logical size of {} is over the limit of 16 TiB", muster_api::units::exact_size(*.0))]
    TooLarge(u64),
    /// Its logical size is 0.
    #[error("its logical size is 0 bytes")]
    Empty,
    /// A field of the header has an impossible value.
    #[error("{field} is {got}, which {why}")]
    Absurd {
        /// Name of the field in the qcow2 specification.
        field: &'static str,
        /// Value of the field.
        got: u64,
        /// The end of a sentence that begins with "which".
        why: &'static str,
    },
    /// A table entry has an impossible value.
    #[error("the {table} entry for disk offset {disk_offset} is {entry:#018x}: {why}")]
    Entry {
        /// Kind of the table, `L1` or `L2`.
        table: &'static str,
        /// Offset on the disk of the first byte it is about.
        disk_offset: u64,
        /// The whole entry as it is in the file, with its flags.
        entry: u64,
        /// What is wrong with it, for people.
        why: &'static str,
    },
    /// A compressed cluster does not expand to a whole cluster.
    #[error("the compressed cluster for disk offset {disk_offset} cannot be expanded: {why}")]
    Expand {
        /// Offset on the disk of the first byte it is about.
        disk_offset: u64,
        /// What is wrong with it, for people.
        why: String,
    },
    /// Its tables use the same bytes again and again, see [`READ_FACTOR_MAX`].
    #[error("its tables use the same bytes many times over (more than {READ_FACTOR_MAX} times the file)")]
    Amplified,
    /// The spooled file cannot be read.
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
