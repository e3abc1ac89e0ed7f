//! A cluster with runtime none: what users see, whole under faults. See README.md beside this folder.
#![expect(clippy::cast_possible_truncation, reason = "sizes in these tests are small")]

mod deploy;
mod faults;
mod leftovers;
mod refusals;
mod snapshot;
