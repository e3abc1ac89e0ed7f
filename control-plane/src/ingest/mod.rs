//! Image content on its way in: what kind of file it is, its raw bytes, the chunks they make.

pub mod chunker;
pub mod format;
pub mod qcow2;
