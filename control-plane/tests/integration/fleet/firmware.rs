//! Firmware and TPM of instances: what they get, and where they may run.

use muster_api::{
    firmware::{Firmware, MachineFeature},
    node_protocol::{NVRAM, NVRAM_BYTES},
};
use serde_json::{Value, json};

use super::harness::{MIB, World};

/// A controller with the images `plain` and `modern`, which somebody set to `uefi`.
async fn world() -> World {
    let world = World::new().await;
    world.image("plain", MIB).await;
    world.image("modern", MIB).await;
    world.call("PATCH", "/v1/images/modern", json!({ "firmware": "uefi" })).await.expect(200);
    world
}

fn order(name: &str, source: Value, more: Value) -> Value {
    let mut order = json!({ "name": name, "source": source, "memory_bytes": MIB });
    if order["source"]["snapshot"].is_null() {
        order["count"] = json!(1);
    }
    order.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    order
}

/// The versions of the disks with this name in the snapshot `s`.
async fn versions_of(world: &World, disk: &str) -> Vec<String> {
    let members = world.get("/v1/snapshots/s/members").await.expect(200);
    let items = members.body["items"].as_array().unwrap().iter();
    items.filter(|item| item["disk_name"] == disk).map(|item| item["version"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_have_the_firmware_of_their_image_unless_the_request_says_another() {
    let world = world().await;
    let node = world.nodes(1).await.remove(0);
    node.script(|s| s.features = vec![MachineFeature::Uefi, MachineFeature::UefiSecure]);
    node.beat().await;
    let cases = [
        ("a", "plain", json!({}), Firmware::Bios),
        ("b", "modern", json!({}), Firmware::Uefi),
        ("c", "modern", json!({ "firmware": "auto" }), Firmware::Uefi),
        ("d", "modern", json!({ "firmware": "bios" }), Firmware::Bios),
        ("e", "plain", json!({ "firmware": "uefi_secure" }), Firmware::UefiSecure),
    ];
    for (name, image, more, firmware) in cases {
        let operation = world.deploy(order(name, json!({ "image": image }), more)).await.expect(202);
        world.ends(&operation, "succeeded").await;
        let shown = world.get(&format!("/v1/deployments/{name}")).await.expect(200);
        assert_eq!(shown.body["firmware"], json!(firmware), "{name}");
        let told = node.assignment(&format!("{name}.0")).unwrap();
        assert_eq!((told.firmware, told.tpm), (firmware, false), "{name}");
        let variables: Vec<_> =
            told.disks.iter().filter(|disk| disk.name == NVRAM).map(|disk| disk.size_bytes).collect();
        assert_eq!(variables, if firmware == Firmware::Bios { vec![] } else { vec![NVRAM_BYTES] }, "{name}");
    }
    let none = json!({ "runtime": "none", "firmware": "uefi", "tpm": true });
    let refused = world.deploy(order("x", json!({ "image": "plain" }), none)).await.refused(422, "invalid");
    assert_eq!((refused.text("/errors/0/pointer"), refused.text("/errors/1/pointer")), ("/firmware", "/tpm"));
    let disk = world.deploy(order("x", json!({ "image": "modern" }), json!({ "runtime": "none" }))).await.expect(202);
    world.ends(&disk, "succeeded").await;
    assert_eq!(node.assignment("x.0").unwrap().firmware, Firmware::Bios, "a disk alone has no firmware");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fork_has_the_firmware_and_the_tpm_of_its_source() {
    let world = world().await;
    let node = world.nodes(1).await.remove(0);
    node.script(|s| s.features = vec![MachineFeature::Uefi, MachineFeature::UefiSecure, MachineFeature::Tpm]);
    node.beat().await;
    let operation = world.deploy(order("web", json!({ "image": "modern" }), json!({ "tpm": true }))).await;
    world.ends(&operation.expect(202), "succeeded").await;
    // What the image says later is about its own versions.
    world.call("PATCH", "/v1/images/modern", json!({ "firmware": "bios" })).await.expect(200);
    let snapshot = world.post("/v1/snapshots", json!({ "name": "s", "select": { "deployment": "web" } })).await;
    world.ends(&snapshot.expect(202), "succeeded").await;
    let cases = [
        ("same", json!({}), Firmware::Uefi, true, Some(true)),
        ("keys", json!({ "firmware": "uefi_secure" }), Firmware::UefiSecure, true, Some(false)),
        ("other", json!({ "firmware": "bios", "tpm": false }), Firmware::Bios, false, None),
    ];
    let saved = versions_of(&world, NVRAM).await;
    assert_eq!(saved.len(), 1, "the variables are in the snapshot");
    for (name, more, firmware, tpm, taken_over) in cases {
        let fork = world.deploy(order(name, json!({ "snapshot": "s" }), more)).await.expect(202);
        world.ends(&fork, "succeeded").await;
        let told = node.assignment(&format!("{name}.0")).unwrap();
        assert_eq!((told.firmware, told.tpm), (firmware, tpm), "{name}");
        // Variables are taken over for the same firmware only: those without keys would let Secure Boot start everything.
        let variables =
            told.disks.iter().find(|disk| disk.name == NVRAM).map(|disk| saved[0] == disk.version.to_string());
        assert_eq!(variables, taken_over, "{name}");
    }
    // An image that is made from the disk starts as the guest did.
    let source = json!({ "version": versions_of(&world, "root").await[0] });
    let image = world.post("/v1/images", json!({ "name": "made", "source": source })).await.expect(201);
    assert_eq!(image.text("/firmware"), "uefi");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_lacks_what_machines_need_is_no_place_for_them_and_says_what_to_install() {
    let world = world().await;
    let nodes = world.nodes(2).await;
    nodes[0].script(|s| s.features = vec![MachineFeature::Uefi]);
    nodes[0].beat().await;
    let shown = world.get("/v1/nodes/n0").await.expect(200);
    assert_eq!(shown.body["features"], json!(["uefi"]));
    let plan = order("web", json!({ "image": "modern" }), json!({ "count": 3, "dry_run": true }));
    let plan = world.deploy(plan).await.expect(200);
    assert_eq!((plan.number("/nodes/0/count"), plan.text("/nodes/0/node_name")), (3, "n0"));
    assert_eq!((plan.text("/reasons/0/reason"), plan.number("/reasons/0/count")), ("no_uefi", 1));
    let cases = [
        (json!({ "firmware": "uefi_secure" }), "no_secure_boot", "ovmf"),
        (json!({ "tpm": true }), "no_tpm", "swtpm"),
        (json!({ "firmware": "bios", "tpm": true }), "no_tpm", "swtpm-tools"),
    ];
    for (more, reason, package) in cases {
        let refused = world.deploy(order("web", json!({ "image": "modern" }), more)).await.refused(507, "no_capacity");
        let detail = refused.text("/detail");
        assert!(detail.contains(package), "{detail}");
        let reasons = refused.body["reasons"].as_array().unwrap();
        assert!(reasons.iter().any(|told| told["reason"] == reason), "{reason}: {:#}", refused.body);
    }
}
