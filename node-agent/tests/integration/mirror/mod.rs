//! Mirrors behind real mounts: `file` (what programs see), `model` (random work against a model), `crash` (killed processes),
//! `cut` (redirected writes), `damage` (rotten files of a disk), `patched` (leaves with packs), `space` (full disks).
//! `world` is what they share.

mod crash;
mod cut;
mod damage;
mod file;
mod model;
mod patched;
mod space;
pub(crate) mod world;
