//! Checks of found instances.

use muster_api::{
    InstanceId, NodeId, Reason, Timestamp,
    deployment::Runtime,
    node_protocol::{Found, InstanceReport, Observed},
};
use muster_controller::store::{
    StoreError,
    found::{self, FoundRow},
    promises,
};

use super::{Fresh, checks::Check};

pub(crate) const ALL: &[(&str, Check)] = &[("a_found_instance_counts_as_promised_until_its_row_goes", |fresh| {
    Box::pin(a_found_instance_counts_as_promised_until_its_row_goes(fresh))
})];

fn row(node: NodeId, seq: i64) -> FoundRow {
    let id = InstanceId::generate();
    let at = Timestamp::from_micros(1_800_000_000_000_000);
    let report = InstanceReport {
        instance: id,
        generation: 1,
        boot: 2,
        state: Observed::Failed,
        reason: Some(Reason::DiskLost),
        detail: Some("why".to_owned()),
        disk_at: None,
        started_at: None,
        ready_at: None,
        reboots: 0,
        conditions: Vec::new(),
        disks: Vec::new(),
        absent: Vec::new(),
        guest: None,
        found: Some(Found { told: None }),
    };
    FoundRow {
        id,
        project: "default".to_owned(),
        node,
        runtime: Runtime::Libvirt,
        cpus: 2,
        memory_bytes: 1 << 30,
        report,
        forgotten: false,
        created_at: at,
        updated_at: at,
        revision: 1,
        seq,
    }
}

async fn a_found_instance_counts_as_promised_until_its_row_goes(fresh: Fresh) {
    let store = fresh.open().await;
    let (here, there) = (NodeId::generate(), NodeId::generate());
    let made = store.run_tx("t", async |tx| {
        let (one, two) = (row(here, tx.next_seq().await?), row(there, tx.next_seq().await?));
        found::insert(tx, &one).await?;
        found::insert(tx, &two).await?;
        Ok::<_, StoreError>((one, two))
    });
    let (one, two) = made.await.unwrap();
    let (promised, listed, count) = store
        .read("t", async |tx| {
            Ok::<_, StoreError>((promises::by_node(tx).await?, found::list(tx, 0, 9).await?, found::count(tx).await?))
        })
        .await
        .unwrap();
    assert_eq!((promised[&here].cpus, promised[&here].memory_bytes, promised[&there].instances), (2, 1 << 30, 1));
    assert_eq!((listed, count), (vec![one.clone(), two.clone()], 2));
    let saved = store.run_tx("t", async |tx| {
        found::save(tx, &FoundRow { forgotten: true, ..one.clone() }).await?;
        let stale = found::save(tx, &one).await;
        assert!(matches!(stale, Err(StoreError::Conflict { .. })), "{stale:?}");
        assert!(found::load(tx, one.id).await?.is_some_and(|row| row.forgotten && row.report == one.report));
        assert_eq!(found::count(tx).await?, 1, "one waits for a word");
        assert_eq!(found::on_node(tx, here).await?.len(), 1);
        found::delete(tx, one.id).await?;
        assert_eq!((found::delete_of_node(tx, there).await?, found::count(tx).await?), (1, 0));
        Ok::<_, StoreError>(())
    });
    saved.await.unwrap();
}
