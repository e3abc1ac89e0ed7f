//! Everything that needs a version makes it a root of the sweep, each by itself.

use std::collections::BTreeMap;

use muster_api::{
    CommitId, DiskId, InstanceId, VersionId,
    node_protocol::{DiskReport, Found, InstanceReport, Observed},
};
use muster_controller::{
    domain::versions::Content,
    store::{StoreError, roots, versions},
};
use serde_json::json;
use storage_core::{ByteLen, ChunkSize, Descriptor, ObjectName, Salt};

use super::harness::{MIB, World};

/// Why a transaction is undone.
#[derive(Debug)]
enum Undone {
    Listed(Box<roots::Roots>),
    Failed(StoreError),
}

impl From<StoreError> for Undone {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

/// The roots as they would be after these statements. Nothing of them stays.
async fn list_with(world: &World, sqls: Vec<String>) -> roots::Roots {
    let tried = world
        .app
        .store
        .run_tx("test.change", async |tx| {
            for sql in sqls {
                sqlx::query(sqlx::AssertSqlSafe(sql)).execute(tx.conn()).await.map_err(StoreError::from)?;
            }
            Err::<(), _>(Undone::Listed(Box::new(roots::list(tx).await?)))
        })
        .await;
    match tried {
        Err(Undone::Listed(roots)) => *roots,
        Err(Undone::Failed(error)) => panic!("{error:?}"),
        Ok(()) => unreachable!("it is always undone"),
    }
}

async fn list(world: &World) -> roots::Roots {
    world.app.store.read("test.roots", async |tx| roots::list(tx).await).await.unwrap()
}

/// A version that was deleted, and the name of its descriptor.
async fn deleted(world: &World, name: &str, size: u64) -> (VersionId, ObjectName) {
    let version = world.image(name, size).await;
    let row = world.app.store.read("test.load", async |tx| versions::load(tx, version).await).await.unwrap();
    let root = row.unwrap().content.root();
    assert!(list(world).await.names.contains(&root), "what is not deleted is a root");
    world.delete(&format!("/v1/images/{name}")).await.expect(204);
    assert!(!list(world).await.names.contains(&root));
    (version, root)
}

/// What makes a version needed, as statements.
type Sqls<'a> = &'a (dyn Fn(VersionId) -> Vec<String> + Sync);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_way_to_need_a_version_makes_it_a_root() {
    let world = World::new().await;
    world.image("debian", MIB).await;
    let _nodes = world.nodes(1).await;
    world.ready("web", 1).await;
    let web = world.get("/v1/deployments/web").await.text("/id").to_owned();
    let instance = world.get("/v1/instances/web.0").await.text("/id").to_owned();
    let (far, id) = (i64::MAX / 2, CommitId::generate);
    let snapshot = |state: &str, version: VersionId| {
        let (row, operation) = (id(), id());
        [
            format!(
                "INSERT INTO snapshots (id, project, name, labels, state, consistency, max_pause_ms, members, skipped, attempt, \
                 deadline, operation, created_at, updated_at, seq) \
                 VALUES ('{row}', 'default', 's{row}', '{{}}', '{state}', 'crash', 1, 1, 0, 1, {far}, '{operation}', 1, 1, {})",
                free_seq()
            ),
            format!(
                "INSERT INTO snapshot_members (snapshot, disk, instance, instance_name, size_bytes, node, generation, commit_id, \
                 base, seq) VALUES ('{row}', '{operation}', '{instance}', 'web.0', 1, 'n', 1, '{}', '{version}', 1)",
                id()
            ),
        ]
    };
    let salvage = |column: &str, state: &str, version: VersionId| {
        format!(
            "INSERT INTO salvage (node, disk, instance, instance_name, project, size_bytes, commit_id, state, {column}, created_at, \
             updated_at, seq) VALUES ('n', '{}', '{instance}', 'web.0', 'default', 1, '{}', '{state}', '{version}', 1, 1, {})",
            id(),
            id(),
            free_seq()
        )
    };
    let detached = |version: VersionId| {
        format!(
            "INSERT INTO detached_disks (id, project, name, size_bytes, version, instance, instance_name, created_at, updated_at, \
             seq) VALUES ('{}', 'default', 'data', 1, '{version}', '{instance}', 'web.0', 1, 1, {})",
            id(),
            free_seq()
        )
    };
    let left = |version: VersionId| {
        format!(
            "INSERT INTO left_disks (instance, disk, node, told_revision, version) \
             VALUES ('{instance}', '{}', 'n', 1, '{version}')",
            id()
        )
    };
    let plan = |version: VersionId| {
        let plans =
            json!([{ "name": "data", "size_bytes": MIB, "version": version, "source": null, "source_name": null }]);
        format!("UPDATE deployments SET disks = '{plans}' WHERE id = '{web}'")
    };
    let reader = |version: VersionId, until: i64| {
        format!("INSERT INTO readers (id, version, until) VALUES ('{}', '{version}', {until})", id())
    };
    let set = |table: &str, column: &str, of: &str, version: VersionId| {
        format!("UPDATE {table} SET {column} = '{version}' WHERE {of}")
    };
    let of_instance = format!("instance = '{instance}'");
    let mut size = MIB;
    let cases: [(&str, bool, Sqls<'_>); 13] = [
        ("the newest version of a disk", true, &|v| vec![set("disks", "version", &of_instance, v)]),
        ("what a node reads", true, &|v| vec![set("disks", "reported_version", &of_instance, v)]),
        ("the source of a deployment", true, &|v| vec![set("deployments", "version", &format!("id = '{web}'"), v)]),
        ("the source of another disk of a deployment", true, &|v| vec![plan(v)]),
        ("a detached disk", true, &|v| vec![detached(v)]),
        ("a copy that a node is to remove", true, &|v| vec![left(v)]),
        ("the base of a staged commit", true, &|v| snapshot("saving", v).into()),
        ("the base of a commit of a snapshot that failed", false, &|v| snapshot("failed", v).into()),
        ("the base of an awaited disk", true, &|v| vec![salvage("base", "awaited", v)]),
        ("what a dead node knew", true, &|v| vec![salvage("reported_base", "awaited", v)]),
        ("the base of a disk that nobody awaits", false, &|v| vec![salvage("base", "given_up", v)]),
        ("what is read", true, &|v| vec![reader(v, far)]),
        ("what was read", false, &|v| vec![reader(v, 1)]),
    ];
    for (what, needed, sqls) in cases {
        size += 4096;
        let (version, root) = deleted(&world, &format!("i{size}"), size).await;
        let roots = list_with(&world, sqls(version)).await;
        assert_eq!(roots.names.contains(&root), needed, "{what}");
        assert_eq!(roots.unknown, None, "{what}");
    }
}

/// A number that no row has as its `seq`.
fn free_seq() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(1_000_000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_found_instance_builds_on_is_a_root_and_what_nobody_knows_holds_the_sweep() {
    let world = World::new().await;
    let nodes = world.nodes(1).await;
    let descriptor = Descriptor::empty(ByteLen(3 * MIB), ChunkSize::DEFAULT, Salt::SHARED);
    let content = Content::new(descriptor, None).unwrap();
    let disk = DiskReport {
        disk: DiskId::generate(),
        path: "/x.raw".to_owned(),
        version: VersionId::generate(),
        ahead: Some(muster_api::node_protocol::VersionRoot {
            descriptor: hex::encode(descriptor.encode()),
            root_page: None,
            commit: None,
        }),
        unsaved_bytes: 0,
        fetched_bytes: 0,
        local_bytes: 0,
        size_bytes: None,
        in_guest: None,
        guest_lacks: None,
        detail: None,
        generation: None,
    };
    let report = InstanceReport {
        instance: InstanceId::generate(),
        generation: 1,
        boot: 1,
        state: Observed::Stopped,
        reason: None,
        detail: None,
        disk_at: None,
        started_at: None,
        ready_at: None,
        reboots: 0,
        conditions: Vec::new(),
        disks: vec![disk.clone()],
        guest: None,
        absent: Vec::new(),
        found: Some(Found { told: None }),
    };
    let insert = |report: &InstanceReport, seq: u32| {
        format!(
            "INSERT INTO found_instances (id, project, node, runtime, cpus, memory_bytes, report, created_at, updated_at, seq) \
             VALUES ('{}', 'default', '{}', 'none', 0, 0, '{}', 1, 1, {seq})",
            report.instance,
            nodes[0].id,
            serde_json::to_string(report).unwrap()
        )
    };
    let roots = list_with(&world, vec![insert(&report, free_seq())]).await;
    assert_eq!(roots.told, BTreeMap::from([(content.root(), descriptor)]));
    assert!(roots.names.contains(&content.root()) && roots.unknown.is_none());
    let unknown = InstanceReport {
        instance: InstanceId::generate(),
        disks: vec![DiskReport { version: VersionId::generate(), ahead: None, ..disk }],
        ..report
    };
    let roots = list_with(&world, vec![insert(&unknown, free_seq())]).await;
    assert!(roots.unknown.unwrap().contains(&unknown.instance.to_string()));
}
