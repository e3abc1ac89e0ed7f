//! Mirrors behind real mounts: `file` (what programs see), `model` (random work against a model), `crash` (killed
//! processes), `cut` (redirected writes), `background` (slow commits), `boots` (what starts read first), `damage` (rotten files of a disk), `deadline`
//! (reads without a source), `many` (disks beside each other), `once` (many readers of one object), `own` (objects that the node
//! has itself), `patched` (leaves with packs), `restored` (another content
//! in place of a disk), `record` (what a disk keeps beside its bytes), `space` (full disks). `world` is what they share.

mod background;
mod boots;
mod crash;
mod cut;
mod damage;
mod deadline;
mod file;
mod many;
mod model;
mod once;
mod own;
mod patched;
mod record;
mod restored;
mod space;
pub(crate) mod world;
