//! The seed disk of a guest: a small read-only disk on which the guest finds out who it is.
//!
//! cloud-init and programs like it look for a file system with the label `CIDATA` when a guest boots, and read four files
//! from it ([`files`]). A guest without such a program never notices the disk. It is no disk of the instance: no version, no
//! snapshot and no fork has it, and it is made anew for every guest. That is how a fork gets a new identity.
//!
//! ```text
//!  Assignment, Seed, networks --files--> meta-data, user-data, …  --image--> bytes --store--> DATA/seeds/INSTANCE.img
//! ```
//!
//! Promises:
//! - The same content has the same bytes. A start that finds the file as it should be writes nothing.
//! - The file belongs to QEMU's user, who may only read it. It may have secrets.
//! - It is there from the first start of the instance until the instance is gone. What a killed agent left without an
//!   instance is removed when the next one starts.
//!
//! Reading order: [`files`] (pure: what a guest is told), [`image`] (pure: a file system of them), [`store`].

pub mod files;
pub mod image;
pub mod store;
