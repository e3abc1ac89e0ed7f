//! Found instances: nodes hold them and this database does not know them, because it was restored from an older copy.
//!
//! ```text
//!  a node's report, no row ──► found ──take──► an instance again, as its node reports it
//!                                └────forget──► its node is told to delete it ──report: gone──► no row
//! ```
//! The database may also have a row of it that is older than its place: it was placed on that node, or moved there, after
//! the copy was made. Taking it back mends that row.
//!
//! An instance that this database deleted never gets here: its row stays until its node has told that nothing is left.
//! A found instance runs on, and what it uses of its node counts as promised, but nobody else acts on it.

mod calls;
mod noted;
mod take;
mod view;

use muster_api::{
    node_protocol::{Assignment, InstanceReport},
    operation::Target,
};
use serde_json::json;

pub(crate) use self::noted::{Noted, gone};
use crate::store::{events::NewEvent, found::FoundRow};

/// What its node was last told of it.
fn told(report: &InstanceReport) -> Option<&Assignment> {
    report.found.as_ref().and_then(|found| found.told.as_ref())
}

fn name(row: &FoundRow) -> String {
    told(&row.report).map_or_else(|| row.id.to_string(), |told| told.name.clone())
}

fn found_event(kind: &'static str, row: &FoundRow, actor: &str) -> NewEvent {
    let target = Target { kind: "instance".to_owned(), id: row.id.to_string(), name: name(row) };
    NewEvent {
        actor: actor.to_owned(),
        node: Some(row.node),
        data: json!({ "forgotten": row.forgotten }),
        ..NewEvent::new(kind, row.project.clone(), target)
    }
}
