//! Tests with real guests under libvirt, with full disks, and of the quickstart itself. They fail when libvirt, QEMU or
//! FUSE is missing.

mod boot;
mod debian;
mod disks;
mod full_disk;
mod libvirtd;
mod memory;
mod quickstart;
