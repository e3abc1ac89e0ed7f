//! The mirror: a disk is present on its node as a raw file. It is filled as it is read, written locally, and cut
//! without copying.
//!
//! ```text
//!  guest ── fuse ──> write: delta of the current epoch, bit in the live map, reply         never waits for the network
//!              └──> read:  newest epoch that has the block ── else base ── cache ── owners  whole chunks, verified
//!
//!  DATA/disks/<disk>/meta.json   the record: generation, base, epochs            replaced as a whole
//!  DATA/disks/<disk>/<name>.page the root page of the base                       written when the base changes
//!                    N.delta     what the guest wrote, sparse, at its own offsets
//!                    N.bits      which blocks of it count, durable: the journal
//!  DATA/cache/                   clean chunks, shared by all disks
//!  holder process                the live map of each epoch: which blocks count, now
//! ```
//!
//! **Three kinds of local bytes, never in one file.** `DATA/pool` holds this node's share of the pool. `DATA/cache`
//! holds clean chunks: each is fetched once, can be evicted, is never synced, and is hashed again at its first use
//! by each process. What `DATA/pool` has is read from there and not cached as well, but for what is read again and again.
//! `DATA/disks/<disk>` holds only what the guest wrote: one delta and one bitmap per epoch. So
//! the instances of a host share one copy of what they have in common, a fetch cannot race a guest's write, and clean
//! data can go away at any time.
//!
//! **Reads** fetch the smallest set of whole chunks, side by side (the paper's first strategy). A read that finds no
//! source keeps trying for 60 s and then fails with EIO ([`patience`]); under libvirt the guest is paused instead and
//! goes on by itself.
//!
//! **Writes** of whole 4 KiB blocks never wait. A write of a part of a block waits for the rest of that block. The
//! paper's second strategy, one contiguous region per chunk, is the setting `write_policy = "contiguous"`: a write that
//! would leave a gap first fetches the chunk into the cache. Either way a delta holds only blocks that the guest wrote.
//! The bytes go to the delta first, then the bit into the live map, then the reply. A *flush* syncs the delta, appends
//! the changed bits to the journal if there are any, syncs that, and then replies: data before bits, always. O_DSYNC
//! arrives only as a flag of a write and is honoured. After a reboot only deltas and journals count.
//!
//! **Cuts** redirect. A flip makes the next epoch's delta current, and nothing is copied before a write. A block is
//! dirty when it is in an epoch newer than the published one, so a commit that was given up needs no undo: its blocks
//! are part of the next one. A disk has at most four epochs. Published ones are folded into the base, abandoned ones
//! are merged into the next; while all four are in use a further cut is refused as busy. A disk without changes gets a
//! version with the same descriptor and stores no object. Cuts of a disk are ordered, uploads may overlap, and
//! publishes happen in the order of the epochs. An instance with several disks is cut in the same way.
//!
//! **Growth** is a flip without a commit: the next epoch has the new size. A disk never shrinks.
//!
//! **One FUSE connection per disk**, with up to 4096 requests under way. With one mount for all disks, 16 waiting
//! requests of one guest would freeze every guest of the node. The connection uses neither the kernel's write-back
//! cache nor passthrough, because the agent must see a write before the guest sees its acknowledgement. With direct
//! deltas a thread takes all requests that wait and has whole blocks moved together (io_uring; one by one where there
//! is none). Buffers of large requests are huge pages; idle threads give them back. All disks share one pool of threads,
//! of which each may occupy only a few (`fuse/pool.rs`). While a disk is not served, its path is a socket, which nobody
//! can open (`fuse/mount.rs`).
//!
//! **Sizes and calls.** A disk is a multiple of 4 KiB and at most 16 TiB. `fallocate` inside the size succeeds;
//! PUNCH_HOLE and ZERO_RANGE mark blocks as zeros; other modes give EOPNOTSUPP. SEEK_HOLE and SEEK_DATA are answered
//! from memory. There is no COPY_FILE_RANGE. A truncate by a user gives EPERM. POSIX locks are left to the kernel.
//!
//! **Space.** `keep_free` is a floor that nothing but a guest's write may touch. The cache gives way first, then
//! new replicas and with them commits; only then does a guest's write fail.
//!
//! Promises: **I1** a read gives the last byte written, else the version's byte ([`read`], [`write`], `Layers`). **I2**
//! acknowledged writes survive the agent (live map), acknowledged flushes survive a power loss (journal), a failed
//! flush is final ([`epoch`], [`journal`], [`bits`]). **I3**, **I4** commits name only bytes that were written or
//! verified, and are durable in the pool before the controller hears of them ([`commit`]). **I7** cuts hold before they
//! flip ([`cut`]). **I10** holds, prepared cuts and reads end by themselves.
//!
//! The mirror does not know why a disk is wanted, who placed it, or where objects are. The reconciler, the controller
//! and the pool client know that.
//!
//! After a start: `fuse::open_disks` finds what is there, `commits()` lists commits whose outcome has to be asked for, and
//! `ensure` mounts.
//!
//! Reading order: [`disks`] (the registry), [`disk`] (one disk), [`read`] and [`write`], [`epoch`], [`bits`] and
//! [`journal`] (what counts), [`cut`], [`commit`] and [`fold`] (from writes to a version), [`grow`], [`cache`] and [`base`], [`boots`]
//! (what a start reads first).

#[cfg(feature = "testing")]
mod bare;
mod base;
mod batch;
mod bits;
mod boots;
mod cache;
mod commit;
mod config;
pub(crate) mod cut;
pub(crate) mod disk;
pub(crate) mod disks;
mod epoch;
pub(crate) mod error;
mod fold;
mod grow;
mod journal;
mod lost;
mod memory;
mod meta;
#[cfg(test)]
mod pack_tests;
mod patience;
#[cfg(test)]
mod power_tests;
mod prefetch;
pub(crate) mod read;
pub(crate) mod seek;
mod stable;
pub(crate) mod transfer;
pub(crate) mod write;

#[cfg(feature = "testing")]
pub use bare::BareDisk;
pub use commit::Saved;
pub use config::{Config, WritePolicy};
pub use disks::{DiskStatus, DiskWant, Disks};
pub use epoch::check_direct_io;
pub(crate) use error::is_no_space;
pub use error::{DiskError, Fault};
pub use lost::LostContent;
pub use prefetch::Start;
