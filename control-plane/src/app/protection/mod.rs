//! Protection of deployments: the controller takes snapshots of them by itself, so that the loss of a host costs little.
//!
//! - A scheduled snapshot is a usual one: forked, restored, renamed and deleted like any other. It is saved in the background,
//!   and nothing that somebody asks for waits for it (I10): that gives it up.
//! - It takes what it can have. A member whose node is silent is left out, and `trouble` names it (I11).
//! - If nothing was written since the last one, no new one is made.
//! - What has to be done next follows from the row of the protection and from the snapshot that it names, so a restart changes
//!   nothing.
//!
//! The decisions are in [`crate::domain::protection`].

mod drive;
mod set;
mod view;

pub(crate) use self::{
    drive::{Did, drive},
    set::{begin, change, end},
    view::{Shown, shown},
};
