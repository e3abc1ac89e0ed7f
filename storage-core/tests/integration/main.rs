//! The storage core's integration tests, in one binary.
//!
//! `census`: counting what versions reach against a plain set. `format`: golden bytes of every released format. `tree_model`: random commits and reads against a model. `store`: one suite
//! for all stores. `crash`: the segment store stopped after every single write. `damage`: flipped bits in its files.

mod census;
mod crash;
mod damage;
mod format;
mod store;
mod suite;
mod tree_model;
