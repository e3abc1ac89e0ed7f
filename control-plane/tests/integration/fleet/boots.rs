//! Boot orders: which ones are taken, and how long they are kept.

use muster_api::{
    DiskId, InstanceId, VersionId,
    node_protocol::{Assignment, boot::BootReport},
};
use serde_json::json;

use super::harness::{Agent, MIB, Reply, World};
use muster_controller::store::boot_orders;

/// A report of the present start of an instance.
pub(super) fn report(of: &Assignment, chunks: &[u32]) -> BootReport {
    let (disk, version) = (of.disks[0].disk, of.disks[0].version);
    BootReport { disk, version, generation: of.generation, boot: of.boot, chunks: chunks.to_vec() }
}

pub(super) async fn tell(node: &Agent, instance: InstanceId, report: &BootReport) -> Reply {
    node.call("POST", &format!("boots/{instance}"), serde_json::to_value(report).unwrap()).await
}

/// Number of boots and the order that is kept of a version.
pub(super) async fn kept(world: &World, version: VersionId) -> Option<(u64, Vec<u64>)> {
    let order = world.app.store.read("test.boots", async |tx| boot_orders::load(tx, version).await).await.unwrap();
    order.map(|order| (order.boots(), order.chunks().collect()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_boot_order_is_taken_only_from_the_node_of_the_instance_and_about_the_version_of_its_disk() {
    let world = World::new().await;
    let version = world.image("debian", MIB).await;
    let other = world.image("other", MIB).await;
    let nodes = world.nodes(2).await;
    world.ready("web", 2).await;
    let (node, foreign) =
        if nodes[0].assignment("web.0").is_some() { (&nodes[0], &nodes[1]) } else { (&nodes[1], &nodes[0]) };
    let web = node.assignment("web.0").unwrap();
    let good = report(&web, &[3, 0, 1]);

    tell(foreign, web.instance, &good).await.refused(403, "forbidden");
    tell(node, InstanceId::generate(), &good).await.refused(403, "forbidden");
    let older = BootReport { generation: web.generation - 1, ..good.clone() };
    let newer = BootReport { generation: web.generation + 1, ..good.clone() };
    let elsewhere = BootReport { version: other, ..good.clone() };
    let nowhere = BootReport { version: VersionId::generate(), ..good.clone() };
    for stale in [older, newer, elsewhere, nowhere] {
        tell(node, web.instance, &stale).await.refused(409, "stale");
    }
    let no_disk = BootReport { disk: DiskId::generate(), ..good.clone() };
    tell(node, web.instance, &no_disk).await.refused(422, "invalid");
    let long: Vec<u32> = (0..=1 << 16).collect();
    for chunks in [&[][..], &[0, 4][..], &[1, 2, 1][..], &long[..]] {
        let refused = tell(node, web.instance, &report(&web, chunks)).await.refused(422, "invalid");
        assert_eq!(refused.text("/errors/0/pointer"), "/chunks");
    }
    assert_eq!((kept(&world, version).await, kept(&world, other).await), (None, None));

    tell(node, web.instance, &good).await.expect(204);
    assert_eq!(kept(&world, version).await, Some((1, vec![3, 0, 1])));
    // The other member is of the same version.
    let member = nodes.iter().find_map(|node| Some((node, node.assignment("web.1")?))).unwrap();
    tell(member.0, member.1.instance, &report(&member.1, &[3, 1, 2])).await.expect(204);
    assert_eq!(kept(&world, version).await, Some((2, vec![3, 0, 1, 2])));
    assert_eq!(kept(&world, other).await, None, "equal bytes are not the same version");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_boot_that_a_snapshot_overtook_counts_for_the_version_that_it_began_with() {
    let world = World::new().await;
    let version = world.image("debian", MIB).await;
    let nodes = world.nodes(1).await;
    world.ready("web", 1).await;
    let web = nodes[0].assignment("web.0").unwrap();
    let snapshot = async |name: &str| {
        let order = json!({ "name": name, "select": { "deployment": "web" } });
        let operation = world.post("/v1/snapshots", order).await.expect(202);
        world.ends(&operation, "succeeded").await;
        world.get("/v1/instances/web.0").await.text("/disks/0/version").parse::<VersionId>().unwrap()
    };
    let head = snapshot("one").await;
    let of_base = report(&web, &[1, 0]);
    tell(&nodes[0], web.instance, &of_base).await.expect(204);
    let of_head = BootReport { version: head, chunks: vec![2], ..of_base.clone() };
    tell(&nodes[0], web.instance, &of_head).await.expect(204);
    assert_eq!(kept(&world, version).await, Some((1, vec![1, 0])));
    assert_eq!(kept(&world, head).await, Some((1, vec![2])));
    snapshot("two").await;
    tell(&nodes[0], web.instance, &of_base).await.refused(409, "stale");
    tell(&nodes[0], web.instance, &of_head).await.expect(204);
    assert_eq!(kept(&world, head).await, Some((2, vec![2])));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_boot_order_goes_with_its_version_and_never_comes_back() {
    let world = World::new().await;
    let version = world.image("debian", MIB).await;
    let nodes = world.nodes(1).await;
    world.ready("web", 1).await;
    let web = nodes[0].assignment("web.0").unwrap();
    let mut heads = Vec::new();
    for name in ["one", "two"] {
        let order = json!({ "name": name, "select": { "deployment": "web" } });
        let operation = world.post("/v1/snapshots", order).await.expect(202);
        world.ends(&operation, "succeeded").await;
        let head = world.get("/v1/instances/web.0").await.text("/disks/0/version").parse::<VersionId>().unwrap();
        let told = BootReport { version: head, ..report(&web, &[1]) };
        tell(&nodes[0], web.instance, &told).await.expect(204);
        if name == "one" {
            tell(&nodes[0], web.instance, &report(&web, &[2])).await.expect(204);
        }
        heads.push(head);
    }
    for version in [version, heads[0], heads[1]] {
        assert!(kept(&world, version).await.is_some());
    }
    world.delete("/v1/images/debian").await.expect(204);
    assert_eq!(kept(&world, version).await, None);
    world.delete("/v1/snapshots/one").await.expect(202);
    assert_eq!(kept(&world, heads[0]).await, None);
    world.delete(&format!("/v1/versions/{}", heads[1])).await.expect(204);
    assert_eq!(kept(&world, heads[1]).await, None);
    // The disk still builds on it.
    let told = BootReport { version: heads[1], ..report(&web, &[1]) };
    tell(&nodes[0], web.instance, &told).await.expect(204);
    assert_eq!(kept(&world, heads[1]).await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn boots_of_another_project_tell_nothing_of_themselves() {
    let world = World::new().await;
    let version = world.image("debian", MIB).await;
    let nodes = world.nodes(1).await;
    // Only an operator can start from a version of another project.
    let order = json!({ "name": "web", "source": { "version": version }, "count": 1, "runtime": "none" });
    let operation = world.post("/v1/deployments?project=other", order).await.expect(202);
    world.ends(&operation, "succeeded").await;
    let web = nodes[0].assignment("web.0").unwrap();
    tell(&nodes[0], web.instance, &report(&web, &[1])).await.expect(204);
    assert_eq!(kept(&world, version).await, None);

    // Nor are they told what boots of the version's own project read.
    world.ready("own", 1).await;
    let own = nodes[0].assignment("own.0").unwrap();
    tell(&nodes[0], own.instance, &report(&own, &[1])).await.expect(204);
    let asked = async |of: &Assignment| {
        nodes[0].call("GET", &format!("boots/{}/{}", of.instance, of.disks[0].disk), json!(null)).await.status
    };
    assert_eq!((asked(&own).await, asked(&web).await), (200, 204));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_node_of_an_instance_is_told_what_its_start_will_read() {
    let world = World::new().await;
    let version = world.image("debian", MIB).await;
    let nodes = world.nodes(2).await;
    world.ready("web", 1).await;
    let (node, foreign) =
        if nodes[0].assignment("web.0").is_some() { (&nodes[0], &nodes[1]) } else { (&nodes[1], &nodes[0]) };
    let web = node.assignment("web.0").unwrap();
    let path = format!("boots/{}/{}", web.instance, web.disks[0].disk);
    assert_eq!(node.call("GET", &path, json!(null)).await.status, 204, "no boot is known");
    tell(node, web.instance, &report(&web, &[3, 0, 1])).await.expect(204);
    let told = node.call("GET", &path, json!(null)).await.expect(200);
    assert_eq!(told.body, json!({ "version": version, "chunks": [3, 0, 1] }));
    foreign.call("GET", &path, json!(null)).await.refused(403, "forbidden");
    let no_disk = format!("boots/{}/{}", web.instance, DiskId::generate());
    node.call("GET", &no_disk, json!(null)).await.refused(422, "invalid");

    // A version that was made from it is likely to be read in the same order.
    let order = json!({ "name": "one", "select": { "deployment": "web" } });
    let operation = world.post("/v1/snapshots", order).await.expect(202);
    world.ends(&operation, "succeeded").await;
    let head = world.get("/v1/instances/web.0").await.text("/disks/0/version").to_owned();
    let told = node.call("GET", &path, json!(null)).await.expect(200);
    assert_eq!(told.body, json!({ "version": head, "chunks": [3, 0, 1] }));
}
