//! Rows of versions that were deleted long ago are dropped once nothing refers to them.

use std::sync::Arc;

use muster_api::Timestamp;
use muster_controller::{reconcile::driver, store::StoreError, wake::Loop};
use serde_json::json;

use super::harness::{MIB, World, eventually};
use crate::clock::ManualClock;

const WEEK_MS: i64 = 7 * 24 * 3600 * 1000;

/// The rows of versions, oldest first: snapshot, whether it is deleted, and the place of the one that it was made from.
async fn rows(world: &World) -> Vec<(Option<String>, bool, Option<usize>)> {
    let sql = "SELECT id, snapshot_name, deleted_at, parent FROM versions ORDER BY seq";
    let found = world.app.store.read("test.rows", async |tx| {
        let rows = sqlx::query(sql).fetch_all(tx.conn()).await?;
        let text = |row, column| sqlx::Row::try_get::<Option<String>, _>(row, column);
        rows.iter()
            .map(|row| {
                let deleted: Option<i64> = sqlx::Row::try_get(row, "deleted_at")?;
                Ok((text(row, "id")?, text(row, "snapshot_name")?, deleted.is_some(), text(row, "parent")?))
            })
            .collect::<Result<Vec<_>, StoreError>>()
    });
    let found = found.await.unwrap();
    let place = |id: &String| found.iter().position(|row| row.0.as_ref() == Some(id)).expect("no parent is missing");
    found.iter().map(|row| (row.1.clone(), row.2, row.3.as_ref().map(place))).collect()
}

async fn count(world: &World, table: &str) -> i64 {
    let sql = format!("SELECT CAST(COUNT(*) AS BIGINT) AS n FROM {table}");
    let counted = world.app.store.read("test.count", async |tx| {
        let row = sqlx::query(sqlx::AssertSqlSafe(sql.clone())).fetch_one(tx.conn()).await?;
        Ok::<i64, StoreError>(sqlx::Row::try_get(&row, "n")?)
    });
    counted.await.unwrap()
}

async fn deleted(world: &World, path: &str) {
    let reply = world.delete(path).await;
    if reply.status != 204 {
        world.ends(&reply.expect(202), "succeeded").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_deleted_versions_go_once_nothing_refers_to_them() {
    let clock = ManualClock::at(Timestamp::from_micros(1_700_000_000_000_000));
    let world = World::with_clock(Arc::new(clock.clone())).await;
    world.image("debian", MIB).await;
    let nodes = world.nodes(1).await;
    world.ready("web", 1).await;
    for name in ["s1", "s2", "s3"] {
        let order = json!({ "name": name, "select": { "deployment": "web" } });
        world.ends(&world.post("/v1/snapshots", order).await.expect(202), "succeeded").await;
    }
    eventually("the node to know the newest version", async || {
        nodes[0].act().await;
        (count(&world, "disks WHERE reported_version = version").await == 1).then_some(())
    })
    .await;
    let snapshot = |name: &str| Some(name.to_owned());
    assert_eq!(rows(&world).await.len(), 4);
    for path in ["/v1/snapshots/s1", "/v1/snapshots/s3", "/v1/images/debian"] {
        deleted(&world, path).await;
    }
    let forget = async || {
        for _ in 0..3 {
            driver::run_pass(&world.app, Loop::Overdue).await;
        }
    };
    clock.advance_ms(WEEK_MS - 1000);
    forget().await;
    assert_eq!(rows(&world).await.len(), 4, "a node that was away may still ask");
    clock.advance_ms(2 * 3600 * 1000);
    forget().await;
    // The deployment was made from the image, and the disk builds on the last snapshot. What was between is made up for.
    let expected = [(None, true, None), (snapshot("s2"), false, Some(0)), (snapshot("s3"), true, Some(1))];
    assert_eq!(rows(&world).await, expected);

    nodes[0].beat().await;
    deleted(&world, "/v1/deployments/web").await;
    deleted(&world, "/v1/snapshots/s2").await;
    eventually("the instance to be gone", async || {
        nodes[0].act().await;
        (world.get("/v1/instances").await.body["items"] == json!([])).then_some(())
    })
    .await;
    clock.advance_ms(WEEK_MS + 2 * 3600 * 1000);
    forget().await;
    assert_eq!(rows(&world).await, []);
    assert_eq!((count(&world, "images").await, count(&world, "disks").await), (0, 0));
}
