//! The sweep's half on the controller: rounds, what is needed, and what nodes are told (I6).
//!
//! ```text
//!  held ──► idle ──due──► round s: counter raised, roots listed ──► marking ──► sweeping: heartbeats name round s ──► idle
//!   ▲                      │ a live upload is older: wait            │ a page cannot be had: again, nothing is named
//!   └── restored, or a node has not said what it holds ◄─────────────┘
//! ```
//! Why it is right to drop what the counts of round s do not reach and what has a stamp below s - 1: whatever is reached
//! later was reached when the roots of s were listed, or was stored or touched by an upload that was live then or began
//! later, and so has a stamp of at least s - 1. A commit shares pages with its base without touching them; the base is a root
//! from before the upload began until it is published. This holds for ever, so an answer that a node acts on late does no
//! harm, and neither do two controllers that begin rounds side by side.
//!
//! After a restore it does not hold: what was published since the backup is in no row. So nothing is named before all nodes
//! have told what they hold, and after a restore not before an operator said so. A whole data folder that was put back
//! cannot be told from a restart, so after each start the nodes are waited for as well.

mod calls;
mod door;
mod marking;
mod readers;
mod rounds;

pub use self::readers::Reading;
