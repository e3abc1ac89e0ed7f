//! What the guest agents of instances told. Nodes report it; it is shown, and says whether a guest can be frozen.

use std::collections::BTreeMap;

use muster_api::{InstanceId, guest::Guest};

use super::{
    StoreError, Tx, bulk,
    column::Column as _,
    row::{Row as _, columns},
};

/// Row of what a guest agent told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestRow {
    /// The instance.
    pub instance: InstanceId,
    /// What its guest agent told, as last reported.
    pub facts: Guest,
}

columns!("guests", GuestRow: instance, facts);

/// What the guest agents of these instances told, as far as they told anything.
pub async fn load_many(tx: &mut Tx, ids: &[InstanceId]) -> Result<BTreeMap<InstanceId, Guest>, StoreError> {
    let head = format!("-- guests.load_many\n{} WHERE instance", GuestRow::SELECT);
    let rows = bulk::select_in(tx, &head, ids, "").await?;
    rows.iter().map(|row| GuestRow::from_row(row).map(|row| (row.instance, row.facts))).collect()
}

const SAVE: &str = "-- guests.save
INSERT INTO guests (instance, facts)";
const SAVE_TAIL: &str = " ON CONFLICT (instance) DO UPDATE SET facts = excluded.facts";

const DELETE: &str = "-- guests.delete
DELETE FROM guests WHERE instance";

/// Stores what nodes reported of guests, and drops what there was of guests of which they report nothing.
pub async fn save_reported(tx: &mut Tx, reports: &[(InstanceId, Option<&Guest>)]) -> Result<(), StoreError> {
    let (mut told, mut silent) = (Vec::new(), Vec::new());
    for (instance, guest) in reports {
        match guest {
            Some(guest) => told.push(vec![instance.cell()?, guest.cell()?]),
            None => silent.push(*instance),
        }
    }
    bulk::run(tx, SAVE, told, SAVE_TAIL).await?;
    bulk::select_in(tx, DELETE, &silent, "").await.map(|_| ())
}
