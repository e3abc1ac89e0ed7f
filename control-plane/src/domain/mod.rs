//! Rules that hold whatever the database or the transport: values in, values out; no clock, no I/O, no await.

pub mod versions;
