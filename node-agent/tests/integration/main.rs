//! The agent's integration tests, in one binary because linking the whole stack is what takes time. They mount disks, and some
//! start guests: they need root.

mod agent;
mod background;
mod consoles;
mod cut_faults;
mod cuts;
mod eviction;
mod freezes;
#[expect(unreachable_pub, reason = "a module of another crate")]
#[path = "../../../tests/harness/guest_time.rs"]
mod guest_time;
mod handover;
mod hypervisor_suite;
mod mirror;
mod networks;
mod pass_on;
mod peer_flips;
mod pool;
mod reconcile;
mod repair;
mod repository;
mod support;
mod sweep;
