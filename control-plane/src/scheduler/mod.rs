//! The scheduler: `place(problem) -> solution`, a pure function.
//!
//! 1. It never promises more than a node offers: the members it puts on a node fit there together with what is there
//!    already, and runtime `none` reserves no processor and no memory.
//! 2. It places as many members as fit; for the others it counts, over all nodes, the reason each node refused.
//! 3. `spread` takes the zone with the fewest members, there the node with the fewest members, then the emptiest;
//!    `pack` fills the fullest node that fits before it begins another.
//! 4. Cordoned, silent and unselected nodes, other zones, missing runtimes, full disks, nodes without networks for members
//!    that have cards, and `max_per_node` refuse.
//!    A libvirt that does not answer refuses as well, and members that would fit there are counted: they may wait.
//! 5. Equal problems have equal solutions: no clock, no randomness, no order of a hash table.
//!
//! It deliberately does not know projects, quotas, images, or why a member wants a place (new, scaled, tried again).

mod filter;
mod place;
mod problem;

pub use filter::offers_networks;
pub use place::place;
pub use problem::{Demand, Libvirt, NodeView, Problem, Reason, Solution};
