//! Disks beside the boot disk.

use muster_api::node_protocol::{Assignment, VersionRoot};
use serde_json::{Value, json};
use storage_core::Descriptor;

use super::harness::{MIB, Node, World, eventually};

/// `db` with two members that have the boot disk, a blank disk and one of an image.
async fn db(nodes: u32) -> (World, Vec<Node>) {
    let world = World::new().await;
    world.image("debian", MIB).await;
    world.image("dataset", 3 * MIB).await;
    let nodes = world.nodes(nodes).await;
    let disks = json!([
        { "name": "data", "size_bytes": 5 * MIB + 1 },
        { "name": "0-seed", "size_bytes": 4 * MIB, "source": { "image": "dataset" } },
    ]);
    let body = json!({ "name": "db", "source": { "image": "debian" }, "count": 2, "disks": disks });
    let operation = world.deploy(body).await.expect(202);
    world.ends(&operation, "succeeded").await;
    (world, nodes)
}

/// Names and sizes of the disks of an instance.
async fn disks_of(world: &World, instance: &str) -> Vec<(String, u64)> {
    let instance = world.get(&format!("/v1/instances/{instance}")).await.expect(200);
    let disks = instance.body["disks"].as_array().unwrap().iter();
    disks.map(|disk| (disk["name"].as_str().unwrap().to_owned(), disk["size_bytes"].as_u64().unwrap())).collect()
}

fn named(disks: &[(&str, u64)]) -> Vec<(String, u64)> {
    disks.iter().map(|(name, size)| ((*name).to_owned(), *size)).collect()
}

fn root_of<'a>(desired: &'a muster_api::node_protocol::Desired, of: &Assignment, disk: usize) -> &'a VersionRoot {
    &desired.versions[&of.disks[disk].version]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_member_gets_the_disks_of_the_deployment_also_when_it_is_scaled_up() {
    let (world, nodes) = db(1).await;
    let shown = world.get("/v1/deployments/db").await.expect(200);
    let dataset = world.get("/v1/images/dataset").await.text("/id").to_owned();
    let expected = json!([
        { "name": "data", "size_bytes": 5 * MIB + 4096, "source": null, "source_name": null },
        { "name": "0-seed", "size_bytes": 4 * MIB, "source": { "image": dataset, "version": 1 }, "source_name": "dataset" },
    ]);
    assert_eq!(shown.body["disks"], expected);
    let operation = world.post("/v1/deployments/db/scale", json!({ "count": 3 })).await.expect(202);
    world.ends(&operation, "succeeded").await;
    let expected = named(&[("root", MIB), ("data", 5 * MIB + 4096), ("0-seed", 4 * MIB)]);
    for n in 0..3 {
        assert_eq!(disks_of(&world, &format!("db.{n}")).await, expected);
    }
    let desired = nodes[0].desired();
    let told = nodes[0].assignment("db.2").unwrap();
    let told_disks: Vec<(String, u64)> = told.disks.iter().map(|disk| (disk.name.clone(), disk.size_bytes)).collect();
    assert_eq!(told_disks, expected, "the boot disk is the first, the others follow as they were asked for");
    let blank = root_of(&desired, &told, 1);
    let descriptor = Descriptor::decode(&hex::decode(&blank.descriptor).unwrap()).unwrap();
    assert_eq!((descriptor.root, &blank.root_page, blank.commit), (None, &None, None), "a blank disk has no content");
    assert_ne!(root_of(&desired, &told, 2), blank);
    let listed = world.get("/v1/versions").await;
    assert_eq!(listed.body["items"].as_array().unwrap().len(), 2, "what a blank disk starts from is nothing to see");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disks_that_cannot_be_are_refused_with_their_field() {
    let world = World::new().await;
    world.image("debian", 2 * MIB).await;
    let _nodes = world.nodes(1).await;
    let order = |disk: Value| json!({ "source": { "image": "debian" }, "count": 1, "disks": [disk] });
    for (disk, pointer) in [
        (json!({ "name": "root", "size_bytes": MIB }), "/disks/0/name"),
        (json!({ "name": "data", "size_bytes": 1 }), "/disks/0/size_bytes"),
        (json!({ "name": "data", "size_bytes": MIB, "source": { "image": "debian" } }), "/disks/0/size_bytes"),
        (json!({ "name": "data", "size_bytes": MIB, "source": {} }), "/disks/0/source"),
    ] {
        let refused = world.deploy(order(disk)).await.refused(422, "invalid");
        assert_eq!(refused.text("/errors/0/pointer"), pointer);
    }
    let missing = json!({ "name": "data", "size_bytes": MIB, "source": { "image": "windows" } });
    let refused = world.deploy(order(missing)).await.refused(404, "not_found");
    assert_eq!(refused.text("/errors/0/pointer"), "/disks/0/source/image");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_has_all_disks_and_a_fork_gets_them_by_name() {
    let (world, _nodes) = db(2).await;
    let cut = json!({ "name": "s", "select": { "deployment": "db" } });
    let operation = world.post("/v1/snapshots", cut).await.expect(202);
    world.ends(&operation, "succeeded").await;
    assert_eq!(world.get("/v1/snapshots/s").await.number("/members"), 6);
    let members = world.get("/v1/snapshots/s/members").await.body["items"].as_array().unwrap().clone();
    let names: Vec<&str> = members.iter().map(|member| member["disk_name"].as_str().unwrap()).collect();
    assert_eq!(names, ["root", "data", "0-seed", "root", "data", "0-seed"]);
    let version = |n: usize| members[n]["version"].as_str().unwrap().to_owned();
    let shown = world.get(&format!("/v1/versions/{}", version(4))).await.expect(200);
    assert_eq!((shown.text("/name"), shown.text("/disk_name")), ("s/db.1/data", "data"));
    assert_eq!(world.get(&format!("/v1/versions/{}", version(3))).await.text("/name"), "s/db.1");

    let fork = json!({ "name": "fork", "source": { "snapshot": "s" }, "disk_bytes": 2 * MIB,
        "disks": [{ "name": "more", "size_bytes": MIB }] });
    let operation = world.deploy(fork).await.expect(202);
    world.ends(&operation, "succeeded").await;
    for n in 0..2 {
        let expected = named(&[("root", 2 * MIB), ("data", 5 * MIB + 4096), ("0-seed", 4 * MIB), ("more", MIB)]);
        assert_eq!(disks_of(&world, &format!("fork.{n}")).await, expected);
        let instance = world.get(&format!("/v1/instances/fork.{n}")).await;
        for disk in 0..3 {
            assert_eq!(instance.body["disks"][disk]["version"], members[n * 3 + disk]["version"]);
        }
    }
    let names = world.get("/v1/deployments/fork").await.body["disks"].as_array().unwrap().clone();
    let names: Vec<&str> = names.iter().map(|disk| disk["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["data", "0-seed", "more"]);
    let taken = json!({ "source": { "snapshot": "s" }, "disks": [{ "name": "data", "size_bytes": MIB }] });
    let refused = world.deploy(taken).await.refused(422, "invalid");
    assert_eq!(refused.text("/errors/0/pointer"), "/disks/0/name");

    // An instance of which one disk is missing is not half of a member.
    world.delete(&format!("/v1/versions/{}", version(4))).await;
    world.deploy(json!({ "source": { "snapshot": "s" } })).await.refused(409, "wrong_state");
    let fork = json!({ "name": "rest", "source": { "snapshot": "s", "allow_missing": true } });
    let operation = world.deploy(fork).await.expect(202);
    world.ends(&operation, "succeeded").await;
    assert_eq!(world.get("/v1/deployments/rest").await.number("/count"), 1);
    let rest = world.get("/v1/instances/rest.0").await;
    assert_eq!(rest.body["disks"][0]["version"], members[0]["version"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_version_of_a_blank_disk_is_built_on_its_blank_beginning() {
    let (world, nodes) = db(1).await;
    let began = nodes[0].assignment("db.0").unwrap().disks[1].version;
    let cut = json!({ "name": "s", "select": { "instances": ["db.0"] } });
    let operation = world.post("/v1/snapshots", cut).await.expect(202);
    world.ends(&operation, "succeeded").await;
    let told = eventually("the new version of the disk", async || {
        nodes[0].assignment("db.0").filter(|told| told.disks[1].version != began)
    });
    let version = told.await.disks[1].version;
    let shown = world.get(&format!("/v1/versions/{version}")).await.expect(200);
    assert_eq!((shown.number("/size_bytes"), shown.text("/parent")), (5 * MIB + 4096, &*began.to_string()));
}
