//! Whole clusters with runtime none: what users see, also when daemons are killed. `tests/README.md` lists the files.
#![expect(clippy::cast_possible_truncation, reason = "sizes in these tests are small")]

mod browser;
mod clients;
mod deploy;
mod disks;
mod faults;
mod full_disks;
mod leftovers;
mod protection;
mod put_back;
mod real_engine;
mod refusals;
mod repair;
mod repository;
mod restore;
mod snapshot;
mod soak;
mod sweep;
mod torture;
