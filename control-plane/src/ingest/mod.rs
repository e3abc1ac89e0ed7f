//! Image content on its way in: what kind of file it is, its raw bytes, the chunks they make, the pool.
//!
//! [`encoding`] takes off what the body was encoded with for its way, [`format`] tells raw from qcow2 (and both from what is
//! no disk), [`spool`] keeps what must be there as a whole, [`qcow2`] reads it, [`chunker`] cuts, [`import`] runs all of it
//! as one bounded pipeline.
//!
//! Its share of the invariants: **I3** what [`import::import`] returns is durable on the required copies, and nothing
//! names it yet; **I10** a body that stands still is broken off; **I12** the content of a stranger can be refused, but
//! costs neither memory nor a second file.

pub mod chunker;
pub mod encoding;
pub mod format;
pub mod import;
pub mod qcow2;
pub mod spool;

#[cfg(test)]
mod tests;
