//! Turns an uploaded image into chunks in the pool.
//!
//! - [`encoding`] decodes the body (zstd) if its sender encoded it.
//! - [`format`] tells raw disks from qcow2 files, and refuses files that are no disk.
//! - [`pace`] ends a body that comes too slowly.
//! - [`spool`] keeps a qcow2 file on the controller's disk until it is there as a whole; [`qcow2`] reads it.
//! - [`chunker`] cuts the raw bytes into chunks.
//! - [`boot`] looks at the first sectors: what can boot the disk?
//! - [`import`] runs all of it as one bounded pipeline.
//!
//! Its share of the invariants: **I3** what [`import::import`] returns is durable on the required copies, and no
//! version names it yet. **I10** a body that comes too slowly ends the import. **I12** content from a
//! stranger can be refused, but never costs more than bounded memory, and never opens another file.

pub mod boot;
pub mod chunker;
pub mod encoding;
pub mod format;
pub mod import;
pub mod pace;
pub mod qcow2;
pub mod spool;

#[cfg(test)]
mod tests;
