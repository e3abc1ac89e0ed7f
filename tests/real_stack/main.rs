//! Real guests under libvirt, full disks, and the quickstart itself. Every part is needed; a missing one fails.

mod boot;
mod full_disk;
mod libvirtd;
mod memory;
mod quickstart;
