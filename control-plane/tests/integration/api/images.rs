//! Images and versions through the real router, on a real SQLite file and a pool of one store in memory.

use std::{ops::Deref, path::Path, process::Command, sync::Arc, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use muster_api::{DiskId, VersionId, node_protocol::boot::BootReport, version::Version};
use muster_controller::{
    config::{Config, Share, Uploads},
    domain::boots::BootOrder,
    export::ReadError,
    store::{
        Tx, boot_orders,
        uploads::{self, UploadTarget},
    },
};
use muster_pool::{PoolClient, PoolError};
use serde_json::{Value, json};
use storage_core::{ChunkStore as _, MemoryStore};
use tower::ServiceExt as _;

use super::world::{Answer, World};

/// A controller on a pool of one store in memory.
struct PoolWorld {
    world: World,
    store: Arc<MemoryStore>,
}

impl Deref for PoolWorld {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}

impl PoolWorld {
    async fn new() -> Self {
        Self::configured(|_| {}).await
    }

    async fn configured(change: impl FnOnce(&mut Config)) -> Self {
        let store = Arc::new(MemoryStore::new());
        Self { world: World::configured(Some(PoolClient::local_only(store.clone())), change).await, store }
    }

    async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send("GET", path, headers, "").await
    }

    async fn patch(&self, path: &str, body: Value, headers: &[(&str, &str)]) -> Answer {
        self.send("PATCH", path, headers, &body.to_string()).await
    }

    async fn put(&self, image: &str, query: &str, body: impl Into<Body>) -> Answer {
        self.send_body("PUT", &format!("/v1/images/{image}/content{query}"), &[], body).await
    }

    /// An image with one version.
    async fn image(&self, name: &str, bytes: &[u8]) -> Value {
        self.post("/v1/images", json!({ "name": name, "chunk_bytes": 65536 })).await.value(201);
        self.put(name, "", bytes.to_vec()).await.value(201)
    }

    async fn content(&self, version: &Value) -> Bytes {
        let answer = self.get(&format!("/v1/versions/{}/content", id(version))).await;
        assert_eq!(answer.status, 200);
        answer.body
    }

    async fn tenant(&self, project: &str) -> String {
        format!("Bearer {}", self.make_token(json!({ "role": "tenant", "project": project })).await)
    }

    /// Waits until an upload to the image is under way.
    async fn under_way(&self, image: &Value) {
        let begun = async {
            loop {
                let id = id(image);
                let live = self.app.store.read("test", async |tx| uploads::live_of(tx, UploadTarget::Image, &id).await);
                if live.await.expect("reads").is_some() {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), begun).await.expect("the upload begins");
    }
}

fn id(thing: &Value) -> String {
    thing["id"].as_str().expect("an id").to_owned()
}

/// Random bytes with a hole in the middle.
fn sample(seed: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let mut random = blake3::Hasher::new().update(&[seed]).finalize_xof();
    let third = len / 3;
    random.fill(&mut bytes[..third]);
    random.fill(&mut bytes[2 * third..]);
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_becomes_a_version_that_reads_back() {
    let world = PoolWorld::new().await;
    let image = world.post("/v1/images", json!({ "name": "base", "labels": { "os": "debian" } })).await.value(201);
    assert_eq!((&image["state"], &image["newest_version"]), (&json!("empty"), &Value::Null));
    assert_eq!(image["chunk_bytes"], 256 << 10);
    world.get("/v1/images/base/content").await.refused(409, "wrong_state");

    let bytes = sample(1, 1_000_003);
    let answer = world.put("base", "?format=raw", bytes.clone()).await;
    let location = answer.header("location").to_owned();
    let version = answer.value(201);
    assert_eq!(location, format!("/v1/versions/{}", id(&version)));
    assert_eq!((&version["name"], &version["number"], &version["image"]), (&json!("base@1"), &json!(1), &image["id"]));
    assert_eq!(version["size_bytes"], bytes.len());
    assert_eq!(version["digest"], blake3::hash(&bytes).to_hex().to_string());
    assert_eq!(version["stored_bytes"], world.store.usage().bytes);

    let image = world.get("/v1/images/base").await.value(200);
    assert_eq!(
        (&image["state"], &image["newest_number"], &image["version_count"]),
        (&json!("ready"), &json!(1), &json!(1))
    );
    assert_eq!((&image["newest_version"], &image["size_bytes"]), (&version["id"], &version["size_bytes"]));
    for path in ["/v1/images/base/content", "/v1/images/base/versions/1/content", &format!("{location}/content")] {
        let answer = world.get(path).await;
        assert_eq!((answer.status, answer.header("content-length")), (200, "1000003"));
        assert!(answer.body == bytes, "{path}: other bytes");
    }
}

/// I3: an import does not build on copies that nobody has read.
#[tokio::test(flavor = "multi_thread")]
async fn an_import_of_a_file_whose_copies_rotted_stores_it_again() {
    let world = PoolWorld::new().await;
    let bytes = sample(7, 700_001);
    let first = world.image("first", &bytes).await;
    let names = world.store.names().expect("lists");
    assert!(names.iter().all(|name| world.store.damage(name)));
    let again = world.image("again", &bytes).await;
    assert_eq!(world.store.usage().bad_copies, names.len() as u64, "each was found and replaced");
    for version in [&first, &again] {
        assert!(world.get(&format!("/v1/versions/{}/content", id(version))).await.body == bytes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_without_a_good_copy_is_named_by_an_event() {
    let world = PoolWorld::new().await;
    let version: Version = serde_json::from_value(world.image("base", &sample(8, 100_000)).await).expect("a version");
    let names = world.store.names().expect("lists");
    let away = PoolError::Unavailable { names: names.clone(), reasons: Vec::new() };
    world.app.tell_unreadable(&version, &ReadError::Pool(away)).await;
    world.app.tell_unreadable(&version, &ReadError::Pool(PoolError::Lost { names: names.clone() })).await;
    let events = world.get_with("/v1/events", &[("accept", "application/json")]).await.json();
    let told: Vec<_> = events["items"].as_array().expect("a list").iter().collect();
    let told: Vec<_> = told.into_iter().filter(|event| event["kind"] == "version.objects_lost").collect();
    assert_eq!(told.len(), 1, "nodes that are away may come back");
    assert_eq!(told[0]["target"]["name"], "base@1");
    assert_eq!(told[0]["data"], json!({ "objects": names.len(), "object": names[0].to_string() }));
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_are_ranges_of_the_original() {
    let world = PoolWorld::new().await;
    let bytes = sample(2, 700_001);
    let version = world.image("base", &bytes).await;
    let path = format!("/v1/versions/{}/content", id(&version));
    let whole = world.get(&path).await;
    let etag = whole.header("etag").to_owned();
    assert_eq!(whole.header("accept-ranges"), "bytes");
    for (header, from, to) in [
        ("bytes=0-0", 0, 1),
        ("bytes=65535-65536", 65535, 65537),
        ("bytes=233000-466700", 233_000, 466_701),
        ("bytes=700000-", 700_000, 700_001),
        ("bytes=-10", 699_991, 700_001),
        ("bytes=100000-99999999", 100_000, 700_001),
    ] {
        let answer = world.get_with(&path, &[("range", header)]).await;
        assert_eq!(answer.status, 206, "{header}");
        assert_eq!(answer.header("content-range"), format!("bytes {from}-{}/700001", to - 1));
        assert!(answer.body == bytes[from..to], "{header}: other bytes");
        let answer = world.get_with(&path, &[("range", header), ("if-range", &etag)]).await;
        assert_eq!(answer.status, 206);
        let answer = world.get_with(&path, &[("range", header), ("if-range", "\"other\"")]).await;
        assert_eq!((answer.status, answer.body.len()), (200, bytes.len()));
    }
    let answer = world.get_with(&path, &[("range", "bytes=700001-")]).await;
    assert_eq!(answer.header("content-range"), "bytes */700001");
    answer.refused(416, "range_not_satisfiable");
    let answer = world.get_with(&path, &[("if-none-match", &etag)]).await;
    assert_eq!((answer.status, answer.body.len()), (304, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_bytes_again_are_the_same_version_and_numbers_are_not_used_twice() {
    let world = PoolWorld::new().await;
    let (one, two) = (sample(1, 300_000), sample(2, 300_000));
    let first = world.image("base", &one).await;
    let again = world.put("base", "", one.clone()).await.value(200);
    assert_eq!(again["id"], first["id"]);
    let second = world.put("base", "", two.clone()).await.value(201);
    assert_eq!(second["number"], 2);
    // Back to the first content: the newest is another one, so this is a new version that stores nothing.
    let third = world.put("base", "", one.clone()).await.value(201);
    assert_eq!((&third["number"], &third["stored_bytes"]), (&json!(3), &json!(0)));

    world.delete(&format!("/v1/versions/{}", id(&third))).await.value(204);
    let image = world.get("/v1/images/base").await.value(200);
    assert_eq!((&image["newest_number"], &image["version_count"]), (&json!(2), &json!(2)));
    let fourth = world.put("base", "", sample(4, 1000)).await.value(201);
    assert_eq!(fourth["number"], 4);
    let page = world.get("/v1/images/base/versions").await.value(200);
    let numbers: Vec<_> = page["items"].as_array().expect("items").iter().map(|v| v["number"].clone()).collect();
    assert_eq!(numbers, [1, 2, 4]);
    world.get("/v1/images/base/versions/3").await.refused(404, "not_found");
    for version in [first, second, fourth] {
        world.delete(&format!("/v1/versions/{}", id(&version))).await.value(204);
    }
    assert_eq!(world.get("/v1/images/base").await.value(200)["state"], "empty");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_is_taken_until_its_image_is_deleted() {
    let world = PoolWorld::new().await;
    let image = world.post("/v1/images", json!({ "name": "base" })).await.value(201);
    let problem = world.post("/v1/images", json!({ "name": "base" })).await.refused(409, "name_taken");
    assert_eq!(problem["existing"], image["id"]);
    world.delete("/v1/images/base").await.value(204);
    world.delete("/v1/images/base").await.refused(404, "not_found");
    world.get(&format!("/v1/images/{}", id(&image))).await.refused(404, "not_found");
    world.put("base", "", "x").await.refused(404, "not_found");
    world.post("/v1/images", json!({ "name": "base" })).await.value(201);
    let made_up = world.post("/v1/images", json!({})).await.value(201);
    assert!(made_up["name"].as_str().expect("a name").starts_with("image-"));
    let all = world.get("/v1/images?deleted=true").await.value(200);
    assert_eq!(all["items"].as_array().expect("items").len(), 3);
    assert_eq!(world.get("/v1/images").await.value(200)["items"].as_array().expect("items").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_copies_nothing_and_outlives_its_origin() {
    let world = PoolWorld::new().await;
    let bytes = sample(1, 500_000);
    let version = world.image("base", &bytes).await;
    let origin = version.clone();
    let before = world.store.usage();
    let sources = [
        json!({ "version": id(&version) }),
        json!({ "image": "base" }),
        json!({ "image": version["image"], "version": 1 }),
    ];
    for (n, source) in sources.into_iter().enumerate() {
        let clone = world.post("/v1/images", json!({ "name": format!("c{n}"), "source": source })).await.value(201);
        assert_eq!(
            (&clone["state"], &clone["newest_number"], &clone["chunk_bytes"]),
            (&json!("ready"), &json!(1), &json!(65536))
        );
    }
    assert_eq!(world.store.usage(), before);
    world.delete("/v1/images/base").await.value(204);
    world.delete("/v1/images/c1").await.value(204);
    for name in ["c0", "c2"] {
        assert!(world.get(&format!("/v1/images/{name}/content")).await.body == bytes, "{name}: other bytes");
        let version = world.get(&format!("/v1/images/{name}/versions/1")).await.value(200);
        assert_eq!(
            (&version["stored_bytes"], &version["digest"]),
            (&json!(0), &json!(blake3::hash(&bytes).to_hex().as_str()))
        );
        assert_eq!(version["parent"], origin["id"], "it is named although it is deleted");
    }
    assert_eq!(origin["parent"], Value::Null);
    world.get(&format!("/v1/versions/{}", id(&version))).await.refused(404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_map_tells_which_chunks_are_zeros_and_which_the_parent_has() {
    let world = PoolWorld::new().await;
    let mut bytes = vec![0; 10 * 65536];
    bytes[3 * 65536] = 1;
    bytes[9 * 65536 + 5] = 2;
    let base = world.image("base", &bytes).await;
    let map = async |version: &Value| world.get(&format!("/v1/versions/{}/chunks", id(version))).await.value(200);
    let of_base = map(&base).await;
    assert_eq!((&of_base["chunk_bytes"], &of_base["count"], &of_base["step"]), (&json!(65536), &json!(10), &json!(1)));
    assert_eq!(of_base["zero"], json!([1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0]));
    assert_eq!((&of_base["shared"], &of_base["boot_order"]), (&Value::Null, &Value::Null), "it was imported");
    world.post("/v1/images", json!({ "name": "clone", "source": { "image": "base" } })).await.value(201);
    let clone = world.get("/v1/images/clone/versions/1").await.value(200);
    let of_clone = map(&clone).await;
    assert_eq!(of_clone["shared"], json!([0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]));
    // A version that is gone is still compared with, and tenants see only their own.
    world.delete("/v1/images/base").await.value(204);
    assert_eq!(map(&clone).await, of_clone);
    let tenant = world.make_token(json!({ "role": "tenant", "project": "other" })).await;
    world.get_as(&tenant, &format!("/v1/versions/{}/chunks", id(&clone))).await.refused(404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_known_of_an_image_is_shown_changed_filtered_and_inherited_by_clones() {
    let world = PoolWorld::new().await;
    let said =
        json!({ "os": "debian-12", "default_user": "debian", "min_disk_bytes": 4 << 20, "min_memory_bytes": 1 << 30 });
    let mut new = said.clone();
    new["name"] = json!("base");
    let made = world.post("/v1/images", new).await.value(201);
    let known = |image: &Value| {
        let fields = ["os", "default_user", "min_disk_bytes", "min_memory_bytes"];
        fields.into_iter().map(|field| (field.to_owned(), image[field].clone())).collect::<serde_json::Map<_, _>>()
    };
    assert_eq!(json!(known(&made)), said);
    let version = world.put("base", "", sample(1, 1 << 20)).await.value(201);
    let patched =
        world.patch("/v1/images/base", json!({ "os": "debian-13", "default_user": null }), &[]).await.value(200);
    assert_eq!((&patched["os"], &patched["default_user"]), (&json!("debian-13"), &json!(null)));
    assert_eq!(patched["min_disk_bytes"], 4 << 20, "what is not named stays");
    let wrong = world.patch("/v1/images/base", json!({ "default_user": "Root", "min_disk_bytes": 0 }), &[]).await;
    let errors = wrong.value(422)["errors"].clone();
    assert_eq!((&errors[0]["pointer"], &errors[1]["pointer"]), (&json!("/default_user"), &json!("/min_disk_bytes")));
    world.image("plain", &sample(2, 100)).await;
    let found = world.get("/v1/images?os=debian-13&os=none").await.value(200);
    assert_eq!(found["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(found["items"][0]["name"], "base");
    for source in [json!({ "image": "base" }), json!({ "version": id(&version) })] {
        let clone = world.post("/v1/images", json!({ "source": source, "os": "mine" })).await.value(201);
        assert_eq!((&clone["os"], &clone["min_memory_bytes"]), (&json!("mine"), &json!(1 << 30)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_project_cannot_have_all_versions_looked_through_at_once() {
    let world = PoolWorld::new().await;
    let version = world.image("base", &sample(1, 100_000)).await;
    let calls = ["chunks", "extents"].map(|of| format!("/v1/versions/{}/{of}", id(&version)));
    let mut slots: Vec<_> = (0..8).map(|_| world.app.walks.take("default").expect("a free slot")).collect();
    for call in &calls {
        world.get(call).await.refused(429, "too_many_requests");
    }
    slots.extend(
        (0..3)
            .flat_map(|n| (0..8).map(move |_| n))
            .map(|n| world.app.walks.take(&format!("p{n}")).expect("a free slot")),
    );
    slots.drain(..8);
    let more: Vec<_> = (0..8).map(|_| world.app.walks.take("p3").expect("a free slot")).collect();
    for call in &calls {
        world.get(call).await.refused(503, "unavailable");
    }
    drop(more);
    for call in &calls {
        world.get(call).await.value(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_map_tells_in_which_order_boots_read_the_chunks_also_those_of_the_version_that_it_was_made_from() {
    let world = PoolWorld::new().await;
    let mut bytes = vec![0; 10 * 65536];
    for chunk in [0, 3, 4, 9] {
        bytes[chunk * 65536] = 1;
    }
    let base = world.image("base", &bytes).await;
    let map = async |version: &Value| world.get(&format!("/v1/versions/{}/chunks", id(version))).await.value(200);
    assert_eq!(map(&base).await["boots"], 0);
    let boots = async |version: &Value, chunks: &[u32]| {
        let version: VersionId = id(version).parse().expect("an id");
        let report = BootReport { disk: DiskId::generate(), version, generation: 1, boot: 1, chunks: chunks.to_vec() };
        let mut order = BootOrder::default();
        order.add(&report, 10).expect("a good list");
        let save = async |tx: &mut Tx| boot_orders::save(tx, version, &order).await;
        world.app.store.run_tx("test.boots", save).await.expect("saved");
    };
    boots(&base, &[9, 0, 4]).await;
    let of_base = map(&base).await;
    let none = Value::Null;
    assert_eq!(of_base["boot_order"], json!([0.5, none, none, none, 1.0, none, none, none, none, 0.0]));
    assert_eq!((&of_base["boots"], &of_base["boot_chunks"]), (&json!(1), &json!(3)));
    assert_eq!(of_base["boots_of"], base["id"]);

    // Clones inherit it until a boot of their own is known.
    for (name, from) in [("clone", "base"), ("clone-of-clone", "clone")] {
        world.post("/v1/images", json!({ "name": name, "source": { "image": from } })).await.value(201);
    }
    let clone = world.get("/v1/images/clone/versions/1").await.value(200);
    let second = world.get("/v1/images/clone-of-clone/versions/1").await.value(200);
    assert_eq!(map(&second).await["boot_order"], of_base["boot_order"]);
    assert_eq!(map(&second).await["boots_of"], base["id"]);
    boots(&clone, &[3]).await;
    let of_clone = map(&clone).await;
    assert_eq!((&of_clone["boots_of"], &of_clone["boot_chunks"]), (&clone["id"], &json!(1)));
    assert_eq!(of_clone["boot_order"], json!([none, none, none, 0.0, none, none, none, none, none, none]));
    assert_eq!(map(&second).await["boots_of"], clone["id"], "the nearest one");
    assert_eq!(map(&base).await, of_base);

    // It goes with its version, and tenants see only their own.
    world.delete("/v1/images/clone").await.value(204);
    assert_eq!(map(&second).await["boots_of"], base["id"]);
    world.delete("/v1/images/base").await.value(204);
    let of_second = map(&second).await;
    assert_eq!((&of_second["boot_order"], &of_second["boots_of"], &of_second["boots"]), (&none, &none, &json!(0)));
    let tenant = world.make_token(json!({ "role": "tenant", "project": "other" })).await;
    world.get_as(&tenant, &format!("/v1/versions/{}/chunks", id(&second))).await.refused(404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_does_not_fit_or_is_not_there_is_refused() {
    let world = PoolWorld::new().await;
    world.post("/v1/images", json!({ "name": "none" })).await.value(201);
    let nobody = muster_api::VersionId::generate().to_string();
    for (body, status, code, pointer) in [
        (json!({ "source": { "image": "nobody" } }), 404, "not_found", "/source/image"),
        (json!({ "source": { "version": nobody } }), 404, "not_found", "/source/version"),
        (json!({ "source": { "image": "none", "version": 7 } }), 404, "not_found", "/source/version"),
        (json!({ "source": { "version": 7 } }), 422, "invalid", "/source/version"),
        (json!({ "chunk_bytes": 1000 }), 422, "invalid", "/chunk_bytes"),
        (json!({ "name": "UPPER" }), 422, "invalid", "/name"),
        (json!({ "nmae": "x" }), 422, "invalid", "/nmae"),
    ] {
        let problem = world.post("/v1/images", body.clone()).await.refused(status, code);
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}");
    }
    world.post("/v1/images", json!({ "source": { "image": "none" } })).await.refused(409, "wrong_state");
    world
        .post("/v1/images", json!({ "source": { "url": "https://example.org/x" } }))
        .await
        .refused(501, "not_built_yet");
    world.send("POST", "/v1/images", &[], "{").await.refused(400, "not_json");
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_is_no_image_leaves_no_version() {
    let world = PoolWorld::new().await;
    world.post("/v1/images", json!({ "name": "bad" })).await.value(201);
    let gzip = [b"\x1f\x8b\x08".as_slice(), &[1; 4000]].concat();
    world.put("bad", "", Vec::new()).await.refused(422, "bad_image");
    world.put("bad", "", gzip.clone()).await.refused(422, "bad_image");
    world.put("bad", "", "QFI\u{fb}").await.value(201); // not the magic: its last byte is two in UTF-8
    world.put("bad", "", b"QFI\xfb\0\0\0\x03".to_vec()).await.refused(422, "bad_image");
    world.put("bad", "?format=qcow2", vec![7; 8192]).await.refused(422, "bad_image");
    world.put("bad", "?format=vmdk", vec![7; 8192]).await.refused(400, "bad_request");
    world.put("bad", "?frmat=raw", vec![7; 8192]).await.refused(400, "bad_request");
    world.put("bad", "?sha256=77", vec![7; 8192]).await.refused(400, "bad_request");
    let zeros = "0".repeat(64);
    world.put("bad", &format!("?sha256={zeros}"), vec![7; 8192]).await.refused(422, "digest_mismatch");
    let path = "/v1/images/bad/content";
    let long = [("content-length", "17592186044417")];
    world.send("PUT", path, &long, "x").await.refused(413, "too_large");
    let zipped = [("content-encoding", "gzip")];
    let problem = world.send_body("PUT", path, &zipped, gzip.clone()).await.refused(400, "bad_request");
    assert!(problem["detail"].as_str().expect("text").contains("'zstd' or 'identity'"), "{problem}");
    assert_eq!(world.get("/v1/images/bad").await.value(200)["version_count"], 1);
    assert_eq!(world.put("bad", "?format=raw", gzip).await.value(201)["number"], 2);
    assert_eq!(std::fs::read_dir(world.dir.path().join("data/spool")).map_or(0, Iterator::count), 0);
}

fn qemu_img(args: &[&str]) {
    let out = Command::new("qemu-img").args(args).output().expect("qemu-img must be there");
    assert!(out.status.success(), "qemu-img {args:?}: {}", String::from_utf8_lossy(&out.stderr));
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// A disk with a system partition for UEFI and no boot code for a BIOS.
fn uefi_only() -> Vec<u8> {
    let mut disk = vec![0; 1 << 20];
    disk[450] = 0xee;
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk[512..520].copy_from_slice(b"EFI PART");
    (disk[512 + 72], disk[512 + 80], disk[512 + 84]) = (2, 128, 128);
    disk[1024..1040].copy_from_slice(b"\x28\x73\x2a\xc1\x1f\xf8\xd2\x11\xba\x4b\x00\xa0\xc9\x3e\xc9\x3b");
    disk
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_tells_that_the_disk_boots_only_with_uefi() {
    let world = PoolWorld::new().await;
    let (raw, qcow2) = (world.dir.path().join("a.raw"), world.dir.path().join("a.qcow2"));
    std::fs::write(&raw, uefi_only()).expect("writes");
    qemu_img(&["convert", "-f", "raw", "-O", "qcow2", text(&raw), text(&qcow2)]);
    assert_eq!(world.image("raw", &uefi_only()).await["boot"], "uefi_only");
    assert_eq!(world.image("qcow2", &std::fs::read(&qcow2).expect("reads")).await["boot"], "uefi_only");
    let clone = world.post("/v1/images", json!({ "name": "clone", "source": { "image": "raw" } })).await.value(201);
    assert_eq!((&clone["boot"], &clone["firmware"]), (&json!("uefi_only"), &json!("uefi")));
    let mut bios = uefi_only();
    bios[0] = 0xeb;
    assert_eq!(world.put("raw", "", bios).await.value(201)["boot"], "bios");
    let raw = world.get("/v1/images/raw").await.value(200);
    assert_eq!((&raw["boot"], &raw["firmware"]), (&json!("bios"), &json!("bios")));
    // What somebody says of the image counts more than what its first sectors tell, until it is taken back.
    let said = world.patch("/v1/images/raw", json!({ "firmware": "uefi_secure" }), &[]).await.value(200);
    assert_eq!(said["firmware"], "uefi_secure");
    let found = world.get("/v1/images?firmware=uefi&firmware=uefi_secure").await.value(200);
    let names: Vec<_> = found["items"].as_array().expect("items").iter().map(|item| item["name"].clone()).collect();
    assert_eq!(names, ["raw", "qcow2", "clone"]);
    world.get("/v1/images?firmware=auto").await.refused(400, "bad_request");
    let auto = world.patch("/v1/images/raw", json!({ "firmware": "auto" }), &[]).await.value(200);
    assert_eq!(auto["firmware"], "bios");
    assert_eq!(world.image("data", &sample(1, 4096)).await["boot"], "unknown");
    assert_eq!(world.post("/v1/images", json!({ "name": "empty" })).await.value(201)["boot"], "unknown");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_qcow2_is_taken_as_the_disk_it_stands_for() {
    let world = PoolWorld::new().await;
    let (raw, image) = (world.dir.path().join("a.raw"), world.dir.path().join("a.qcow2"));
    let bytes = sample(5, 3 << 20);
    std::fs::write(&raw, &bytes).expect("writes");
    let version = world.image("base", &bytes).await;
    qemu_img(&["convert", "-c", "-f", "raw", "-O", "qcow2", text(&raw), text(&image)]);
    let sent = std::fs::read(&image).expect("reads");
    let sha256 = {
        use sha2::Digest as _;
        sha2::Sha256::digest(&sent).iter().map(|b| format!("{b:02X}")).collect::<String>()
    };
    let same = world.put("base", &format!("?format=qcow2&sha256={sha256}"), sent.clone()).await.value(200);
    assert_eq!(same["id"], version["id"]);
    // The body ends too early: that is noticed, and the spool is empty again.
    world.put("base", "", sent[..sent.len() / 2].to_vec()).await.refused(422, "bad_image");
    qemu_img(&["create", "-q", "-f", "qcow2", "-F", "raw", "-b", text(&raw), text(&image)]);
    let backed = world.put("base", "", std::fs::read(&image).expect("reads")).await.refused(422, "bad_image");
    assert!(backed["detail"].as_str().expect("text").contains("backing file"), "{backed}");
    assert_eq!(std::fs::read_dir(world.dir.path().join("data/spool")).expect("lists").count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn zstd_is_taken_as_the_content_it_holds() {
    let world = PoolWorld::new().await;
    let bytes = sample(9, 3 << 20);
    let version = world.image("base", &bytes).await;
    let body: Vec<u8> =
        bytes.chunks(1 << 20).flat_map(|part| zstd::bulk::compress(part, 1).expect("compresses")).collect();
    let put = async |encoding: &str, body: Vec<u8>| {
        // The length of a body that is encoded says nothing about the content.
        let headers = [("content-encoding", encoding), ("content-length", "17592186044417")];
        world.send_body("PUT", "/v1/images/base/content", &headers, body).await
    };
    assert_eq!(put("zstd", body.clone()).await.value(200)["id"], version["id"]);
    assert_eq!(put("ZSTD", body[..0].to_vec()).await.refused(422, "bad_image")["status"], 422);
    put("zstd", body[..body.len() - 1].to_vec()).await.refused(400, "bad_request");
    put("zstd", bytes.clone()).await.refused(422, "bad_image");
    put("zstd, zstd", body.clone()).await.refused(400, "bad_request");
    put("identity", bytes.clone()).await.refused(413, "too_large");
    let twice = [("content-encoding", "identity"), ("content-encoding", "gzip")];
    world.send_body("PUT", "/v1/images/base/content", &twice, body).await.refused(400, "bad_request");
    assert_eq!(world.get("/v1/images/base").await.value(200)["version_count"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_broken_off_half_way_can_be_repeated() {
    let world = PoolWorld::new().await;
    let image = world.post("/v1/images", json!({ "name": "big", "chunk_bytes": 65536 })).await.value(201);
    let bytes = sample(6, 2 << 20);
    let half = Bytes::copy_from_slice(&bytes[..1 << 20]);
    let broken = stream::iter([Ok(half), Err(std::io::Error::other("the cable"))]);
    world.put("big", "", Body::from_stream(broken)).await.refused(400, "bad_request");
    let id = id(&image);
    let live = world.app.store.read("test", async |tx| uploads::live_of(tx, UploadTarget::Image, &id).await);
    assert_eq!(live.await.expect("reads"), None, "the upload was ended");
    assert_eq!(world.get("/v1/images/big").await.value(200)["version_count"], 0);
    let version = world.put("big", "", bytes.clone()).await.value(201);
    assert_eq!(version["number"], 1);
    assert!(world.content(&version).await == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_drips_ends_with_408_and_its_image_is_free_again() {
    let slowly = |config: &mut Config| config.uploads = Uploads { min_bytes_per_s: 1000, pace_over_s: 1 };
    let world = PoolWorld::configured(slowly).await;
    world.post("/v1/images", json!({ "name": "base" })).await.value(201);
    let drip = stream::repeat(()).then(|()| async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Ok::<_, std::io::Error>(Bytes::from_static(b"x"))
    });
    let answer = tokio::time::timeout(Duration::from_secs(20), world.put("base", "", Body::from_stream(drip)));
    let problem = answer.await.expect("in time").refused(408, "request_timeout");
    assert!(problem["detail"].as_str().is_some_and(|text| text.contains("at least 1000 have to come")), "{problem}");
    assert_eq!(world.put("base", "", vec![2; 1000]).await.value(201)["number"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_and_a_waiting_call_end_when_their_token_is_revoked() {
    let world = PoolWorld::new().await;
    let image = world.post("/v1/images", json!({ "name": "base" })).await.value(201);
    let gone = world.make_token(json!({ "role": "admin", "name": "gone" })).await;
    let bearer = format!("Bearer {gone}");
    let headers = [("authorization", bearer.as_str())];
    let begun = stream::iter([Ok::<_, std::io::Error>(Bytes::from(vec![1; 1000]))]);
    let body = Body::from_stream(begun.chain(stream::pending()));
    let upload = world.send_body("PUT", "/v1/images/base/content", &headers, body);
    let revoke = async {
        world.under_way(&image).await;
        world.delete("/v1/tokens/gone").await.empty(204);
    };
    let (answer, ()) = tokio::join!(upload, revoke);
    answer.refused(401, "unauthenticated");
    assert_eq!(world.put("base", "", vec![2; 1000]).await.value(201)["number"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_salt_per_project_no_upload_meets_the_objects_of_another_project() {
    let objects = async |share: Share| -> Vec<usize> {
        let world = PoolWorld::configured(|config| config.pool.share = share).await;
        let bytes = sample(9, 1 << 20);
        let (mut counts, mut stored) = (Vec::new(), Vec::new());
        for (project, name) in [("red", "a"), ("red", "b"), ("blue", "c")] {
            let bearer = world.tenant(project).await;
            let headers = [("authorization", bearer.as_str())];
            let body = json!({ "name": name, "chunk_bytes": 65536 }).to_string();
            world.send("POST", "/v1/images", &headers, &body).await.value(201);
            let path = format!("/v1/images/{name}/content");
            let version = world.send_body("PUT", &path, &headers, bytes.clone()).await.value(201);
            stored.push(version["stored_bytes"].as_u64().expect("a number"));
            let read = world.get_with(&path, &headers).await;
            assert!(read.body == bytes, "{project}");
            counts.push(world.store.names().expect("lists").len());
        }
        // What others have does not change the count, whoever shares the objects.
        assert!(stored[0] > 0 && stored[1] == 0 && stored[2] == stored[0], "{stored:?}");
        counts
    };
    let shared = objects(Share::Cluster).await;
    assert_eq!((shared[0], shared[0]), (shared[1], shared[2]), "stored once");
    let apart = objects(Share::Project).await;
    assert_eq!((apart[0], apart[0] * 2), (apart[1], apart[2]), "stored once per project");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_upload_at_the_same_time_is_refused_as_busy() {
    let world = PoolWorld::new().await;
    let image = world.post("/v1/images", json!({ "name": "base" })).await.value(201);
    let (more, body) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(1);
    let body = Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(body));
    let first = async { world.put("base", "", body).await.value(201) };
    let second = async {
        more.send(Ok(Bytes::from(vec![1; 1000]))).await.expect("taken");
        world.under_way(&image).await;
        world.put("base", "", vec![2; 1000]).await.refused(409, "busy");
        more.send(Ok(Bytes::from(vec![1; 1000]))).await.expect("taken");
        drop(more);
    };
    let (version, ()) = tokio::join!(first, second);
    assert_eq!(version["size_bytes"], 2000);
    world.put("base", "", vec![2; 1000]).await.value(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_deleted_during_an_upload_gets_no_version() {
    let world = PoolWorld::new().await;
    let image = world.post("/v1/images", json!({ "name": "base" })).await.value(201);
    let (more, body) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(1);
    let body = Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(body));
    let upload = world.put("base", "", body);
    let delete = async {
        more.send(Ok(Bytes::from(vec![1; 1000]))).await.expect("taken");
        world.under_way(&image).await;
        world.delete("/v1/images/base").await.value(204);
        drop(more);
    };
    let (answer, ()) = tokio::join!(upload, delete);
    answer.refused(404, "not_found");
    assert_eq!(world.get("/v1/versions").await.value(200)["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_nodes_nothing_can_be_stored() {
    let world = World::new().await;
    world.post("/v1/images", json!({ "name": "base" })).await.value(201);
    let problem = world.send_body("PUT", "/v1/images/base/content", &[], vec![1; 1000]).await.refused(507, "no_nodes");
    assert_eq!(problem["reasons"], json!([{ "reason": "no_nodes", "count": 1 }]));
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_go_in_any_order_and_the_others_still_read() {
    let bytes: Vec<Vec<u8>> = (0..4)
        .map(|n| {
            // Neighbours share all but one chunk.
            let mut bytes = sample(7, 600_000);
            bytes[n * 65536] ^= 0xff;
            bytes
        })
        .collect();
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]] {
        let world = PoolWorld::new().await;
        world.post("/v1/images", json!({ "name": "base", "chunk_bytes": 65536 })).await.value(201);
        let mut versions = Vec::new();
        for bytes in &bytes {
            versions.push(world.put("base", "", bytes.clone()).await.value(201));
        }
        for (gone, n) in order.into_iter().enumerate() {
            world.delete(&format!("/v1/versions/{}", id(&versions[n]))).await.value(204);
            world.delete(&format!("/v1/versions/{}", id(&versions[n]))).await.refused(404, "not_found");
            for left in &order[gone + 1..] {
                assert!(world.content(&versions[*left]).await == bytes[*left], "{order:?}: other bytes");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_tells_how_many_bytes_would_be_freed() {
    let world = PoolWorld::new().await;
    let freed =
        async |path: &str| world.delete(&format!("{path}?dry_run=true")).await.value(200)["freed_bytes"].clone();
    let bytes = sample(8, 900_000);
    let one = world.image("base", &bytes).await;
    let alone = world.store.usage().bytes;
    assert_eq!(freed("/v1/images/base").await, alone);
    assert_eq!(freed(&format!("/v1/versions/{}", id(&one))).await, alone);
    let mut other = bytes.clone();
    other[5] ^= 1;
    let two = world.put("base", "", other).await.value(201);
    let added = world.store.usage().bytes - alone;
    assert_eq!(
        (&two["stored_bytes"], freed(&format!("/v1/versions/{}", id(&two))).await),
        (&json!(added), json!(added))
    );
    assert_eq!(freed("/v1/images/base").await, alone + added);
    world.post("/v1/images", json!({ "name": "copy", "source": { "image": "base" } })).await.value(201);
    assert_eq!(freed(&format!("/v1/versions/{}", id(&two))).await, 0);
    assert_eq!(world.get("/v1/images/base").await.value(200)["version_count"], 2, "nothing was deleted");
    world.delete("/v1/images/nobody?dry_run=true").await.refused(404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patch_changes_what_it_names() {
    let world = PoolWorld::new().await;
    let image = world.post("/v1/images", json!({ "name": "base", "labels": { "a": "1" } })).await.value(201);
    world.post("/v1/images", json!({ "name": "other" })).await.value(201);
    let etag = image["etag"].as_str().expect("an etag");
    let renamed =
        world.patch("/v1/images/base", json!({ "name": "new.name_1" }), &[("if-match", etag)]).await.value(200);
    assert_eq!(
        (&renamed["id"], &renamed["name"], &renamed["labels"]),
        (&image["id"], &json!("new.name_1"), &image["labels"])
    );
    world
        .patch("/v1/images/new.name_1", json!({ "labels": {} }), &[("if-match", etag)])
        .await
        .refused(412, "precondition_failed");
    let changed = world.patch("/v1/images/new.name_1", json!({ "labels": { "b": "2" } }), &[]).await.value(200);
    assert_eq!(changed["labels"], json!({ "a": "1", "b": "2" }), "labels that are not named stay");
    let one_less = world.patch("/v1/images/new.name_1", json!({ "labels": { "a": null } }), &[]).await.value(200);
    assert_eq!(one_less["labels"], json!({ "b": "2" }));
    let kind = [("content-type", "application/merge-patch+json")];
    let none = world.patch("/v1/images/new.name_1", json!({ "labels": null }), &kind).await.value(200);
    assert_eq!(none["labels"], json!({}));
    let unnamed = world.patch("/v1/images/new.name_1", json!({ "name": null }), &[]).await.refused(422, "invalid");
    assert_eq!(unnamed["errors"][0]["pointer"], "/name", "an image cannot be without a name");
    let many: serde_json::Map<_, _> = (0..51).map(|n| (format!("k{n}"), json!(""))).collect();
    world.patch("/v1/images/new.name_1", json!({ "labels": many }), &[]).await.refused(422, "invalid");
    world.patch("/v1/images/new.name_1", json!({ "name": "other" }), &[]).await.refused(409, "name_taken");
    world.patch("/v1/images/new.name_1", json!({ "state": "ready" }), &[]).await.refused(422, "invalid");
    world.get("/v1/images/base").await.refused(404, "not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_project_sees_nothing_of_another() {
    let world = PoolWorld::new().await;
    let (a, b) = (world.tenant("a").await, world.tenant("b").await);
    let bytes = sample(9, 400_000);
    let send = async |token: &str, method: &str, path: &str, body: Body| {
        world.send_body(method, path, &[("authorization", token)], body).await
    };
    let create = async |token: &str| {
        send(token, "POST", "/v1/images", Body::from(json!({ "name": "base" }).to_string())).await.value(201);
        send(token, "PUT", "/v1/images/base/content", Body::from(bytes.clone())).await.value(201)
    };
    let first = create(&a).await;
    let usage = world.store.usage();
    let second = create(&b).await;
    assert_eq!(world.store.usage(), usage, "the pool keeps one copy");
    assert_eq!(first["stored_bytes"], second["stored_bytes"], "and does not tell");
    for path in ["", "/content", "/extents"] {
        let path = format!("/v1/versions/{}{path}", id(&first));
        send(&b, "GET", &path, Body::empty()).await.refused(404, "not_found");
    }
    send(&b, "DELETE", &format!("/v1/versions/{}", id(&first)), Body::empty()).await.refused(404, "not_found");
    let clone = json!({ "source": { "version": id(&first) } }).to_string();
    send(&b, "POST", "/v1/images", Body::from(clone)).await.refused(404, "not_found");
    let list = send(&b, "GET", "/v1/versions", Body::empty()).await.value(200);
    assert_eq!(list["items"].as_array().expect("items").len(), 1);
    let freed = send(&a, "DELETE", "/v1/images/base?dry_run=true", Body::empty()).await.value(200);
    assert_eq!(freed["freed_bytes"], usage.bytes, "counted within the project");
    let all = world.get("/v1/images?project=*").await.value(200);
    assert_eq!(all["items"].as_array().expect("items").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_come_in_pages_and_filters_hold() {
    let world = PoolWorld::new().await;
    for n in 0..7 {
        let labels = json!({ "even": if n % 2 == 0 { "yes" } else { "no" } });
        world.post("/v1/images", json!({ "name": format!("i{n}"), "labels": labels })).await.value(201);
    }
    let names = |page: &Value| -> Vec<String> {
        page["items"]
            .as_array()
            .expect("items")
            .iter()
            .map(|i| i["name"].as_str().expect("a name").to_owned())
            .collect()
    };
    let first = world.get("/v1/images?limit=3&label=even=yes").await.value(200);
    assert_eq!(names(&first), ["i0", "i2", "i4"]);
    let token = first["next_page_token"].as_str().expect("there is more");
    let rest = world.get(&format!("/v1/images?limit=3&label=even=yes&page_token={token}")).await.value(200);
    assert_eq!((names(&rest), rest.get("next_page_token")), (vec!["i6".to_owned()], None));
    assert_eq!(names(&world.get("/v1/images?state=ready").await.value(200)), Vec::<String>::new());
    world.get("/v1/images?limit=0").await.refused(400, "bad_request");
    world.get("/v1/images?nothing=1").await.refused(400, "bad_request");
}

#[tokio::test(flavor = "multi_thread")]
async fn extents_come_in_pages_and_cover_the_data() {
    let world = PoolWorld::new().await;
    let mut bytes = vec![0_u8; 65536 * 20 + 10];
    for chunk in [1, 2, 5, 9, 20] {
        bytes[chunk * 65536 + 1] = 1;
    }
    let version = world.image("sparse", &bytes).await;
    let path = format!("/v1/versions/{}/extents", id(&version));
    let (mut extents, mut token) = (Vec::new(), String::new());
    loop {
        let page = world.get(&format!("{path}?limit=2{token}")).await.value(200);
        extents.extend(page["items"].as_array().expect("items").clone());
        let Some(next) = page["next_page_token"].as_str() else { break };
        token = format!("&page_token={next}");
    }
    let expected = [(1, 131_072), (5, 65536), (9, 65536), (20, 10)]
        .map(|(chunk, length)| json!({ "offset_bytes": chunk * 65536, "length_bytes": length }));
    assert_eq!(extents, expected);
    assert_eq!(world.get(&format!("{path}?page_token=byte-1310731")).await.value(200)["items"], json!([]));
    for bad in ["65536", "byte-", "byte-x", "00000001-000000000001"] {
        world.get(&format!("{path}?page_token={bad}")).await.refused(400, "bad_request");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_create_with_a_key_is_done_once() {
    let world = PoolWorld::new().await;
    let create = async |name: &str| {
        let body = json!({ "name": name }).to_string();
        world.send("POST", "/v1/images", &[("idempotency-key", "k1")], &body).await
    };
    let first = create("base").await.value(201);
    let again = create("base").await;
    assert_eq!(again.header("idempotent-replay"), "true");
    assert_eq!(again.value(201)["id"], first["id"]);
    create("other").await.refused(422, "key_reused");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_ends_the_uploads_of_the_process_before() {
    let world = PoolWorld::new().await;
    let image = world.post("/v1/images", json!({ "name": "base" })).await.value(201);
    let until = world.app.clock.now().plus_ms(60_000);
    let left =
        uploads::NewUpload { project: "default".to_owned(), target: UploadTarget::Image, target_id: id(&image), until };
    world.app.store.run_tx("test", async |tx| uploads::begin(tx, &left).await).await.expect("begins");
    world.put("base", "", vec![1; 10]).await.refused(409, "busy");
    let spool = world.dir.path().join("data/spool");
    std::fs::create_dir_all(&spool).expect("a folder");
    std::fs::write(spool.join("left"), b"x").expect("writes");
    world.app.forget_broken_uploads().await.expect("forgets");
    assert_eq!(std::fs::read_dir(&spool).expect("lists").count(), 0);
    world.put("base", "", vec![1; 10]).await.value(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_tell_what_happened_to_images() {
    let world = PoolWorld::new().await;
    world.image("base", &[1; 100]).await;
    world.delete("/v1/images/base").await.value(204);
    let store = &world.app.store;
    let events =
        store.read("test", async |tx| muster_controller::store::events::after(tx, 0, Some("default"), &[], 100).await);
    let kinds: Vec<String> = events.await.expect("reads").into_iter().map(|e| e.event.kind).collect();
    let images: Vec<&str> =
        kinds.iter().map(String::as_str).filter(|k| k.starts_with("image") || k.starts_with("version")).collect();
    assert_eq!(images, ["image.created", "version.published", "image.deleted"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_ends_when_the_client_disconnects() {
    let world = PoolWorld::new().await;
    let version = world.image("base", &sample(3, 3 << 20)).await;
    let path = format!("/v1/versions/{}/content", id(&version));
    let request = world.request("GET", &path, &[], Body::empty());
    let response = world.people.clone().oneshot(request).await.expect("answers");
    let mut body = response.into_body().into_data_stream();
    assert!(body.next().await.is_some_and(|piece| piece.is_ok()));
    drop(body);
    assert!(world.content(&version).await.len() == 3 << 20);
}

/// The answer names the object instead of breaking the connection, also for those who continue an export in the middle.
#[tokio::test]
async fn content_whose_objects_are_lost_is_refused_with_the_objects_name() {
    let world = PoolWorld::new().await;
    let version = world.image("base", &(0..1u32 << 18).flat_map(u32::to_le_bytes).collect::<Vec<_>>()).await;
    for name in world.store.names().expect("names") {
        if world.store.get(&name).expect("read").is_some_and(|record| record.kind() == storage_core::Kind::Chunk) {
            assert!(world.store.damage(&name));
        }
    }
    let path = format!("/v1/versions/{}/content", id(&version));
    let ranges = [None, Some("bytes=524288-")];
    let asked = ranges.map(|range| {
        let headers: Vec<_> = range.map(|range| ("range", range)).into_iter().collect();
        let (world, path) = (&world, &path);
        async move { world.send("GET", path, &headers, "").await }
    });
    for answer in futures::future::join_all(asked).await {
        let problem = answer.refused(503, "unavailable");
        let detail = problem["detail"].as_str().expect("text");
        assert!(detail.contains("object ") && detail.contains(&id(&version)), "{detail}");
    }
}
