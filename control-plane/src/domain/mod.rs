//! Rules that hold whatever the database or the transport: values in, values out; no clock, no I/O, no await.

pub mod boots;
pub mod cards;
pub mod deployment;
pub mod disk;
pub mod disk_life;
pub mod disk_plan;
pub mod images;
pub mod instance;
pub mod names;
pub mod network;
pub mod order;
pub mod promised;
pub mod protection;
pub mod restore;
pub mod rules;
pub mod run;
pub mod snapshot;
pub mod sweep;
pub mod versions;
