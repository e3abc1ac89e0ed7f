//! Networks and security groups as things of a project.

use muster_controller::config::{Config, Networks};
use serde_json::{Value, json};

use super::world::{Answer, World};

impl World {
    async fn patch(&self, path: &str, body: Value, headers: &[(&str, &str)]) -> Answer {
        self.send("PATCH", path, headers, &body.to_string()).await
    }

    async fn tenant(&self, project: &str) -> String {
        format!("Bearer {}", self.make_token(json!({ "role": "tenant", "project": project })).await)
    }
}

#[tokio::test]
async fn a_network_is_made_shown_changed_and_deleted() {
    let world = World::new().await;
    let wanted = json!({"name": "back", "mode": "isolated", "subnet_v4": "10.20.0.0/24", "labels": {"tier": "db"}});
    let made = world.post("/v1/networks", &wanted).await;
    let network = made.value(201);
    assert_eq!(made.header("location"), format!("/v1/networks/{}", network["id"].as_str().expect("an id")));
    let shown = (&network["gateway"], &network["mtu"], &network["dns"], &network["domain"]);
    assert_eq!(shown, (&json!("10.20.0.1"), &json!(1450), &json!([]), &json!("back.default.muster.internal")));
    assert_eq!((&network["nics"], &network["free"]), (&json!(0), &json!(253)));
    assert_eq!(world.get("/v1/networks/back").await.value(200), network);
    world.post("/v1/networks", &wanted).await.refused(409, "name_taken");

    let etag = network["etag"].as_str().expect("an etag").to_owned();
    let stale = world.patch("/v1/networks/back", json!({ "mtu": 1400 }), &[("if-match", "\"99\"")]).await;
    stale.refused(412, "precondition_failed");
    let body = json!({"name": "db", "mtu": 1400, "dns": ["192.0.2.53"], "labels": {"tier": null}});
    let changed = world.patch("/v1/networks/back", body, &[("if-match", &etag)]).await.value(200);
    assert_eq!((&changed["mtu"], &changed["dns"]), (&json!(1400), &json!(["192.0.2.53"])));
    assert_eq!((&changed["labels"], &changed["domain"]), (&json!({}), &json!("db.default.muster.internal")));
    let back = world.patch("/v1/networks/db", json!({"mtu": null, "dns": null}), &[]).await.value(200);
    assert_eq!((&back["mtu"], &back["dns"]), (&json!(1450), &json!([])));
    world.patch("/v1/networks/db", json!({"mtu": 100}), &[]).await.refused(422, "invalid");
    world.patch("/v1/networks/db", json!({"subnet_v4": "10.0.0.0/24"}), &[]).await.refused(422, "invalid");

    world.delete("/v1/networks/db").await.empty(204);
    world.get("/v1/networks/db").await.refused(404, "not_found");
    assert_eq!(world.get("/v1/networks").await.value(200)["items"], json!([]));
    let deleted = world.get("/v1/networks?deleted=true").await.value(200);
    assert_eq!(deleted["items"][0]["state"], "deleted");
    let kinds = events_of(&world, network["id"].as_str().expect("an id")).await;
    assert_eq!(kinds, ["network.created", "network.changed", "network.changed", "network.deleted"]);
    // Its name is free at once.
    world.post("/v1/networks", json!({"name": "db"})).await.value(201);
}

async fn events_of(world: &World, id: &str) -> Vec<String> {
    let path = format!("/v1/events?target={id}");
    let page = world.send("GET", &path, &[("accept", "application/json")], "").await.value(200);
    let items = page["items"].as_array().expect("a page");
    items.iter().map(|event| event["kind"].as_str().expect("a kind").to_owned()).collect()
}

#[tokio::test]
async fn networks_may_overlap_and_each_has_a_number_of_its_own() {
    let world = World::new().await;
    for project in ["default", "default", "other"] {
        let path = format!("/v1/networks?project={project}");
        let network = world.post(&path, json!({"subnet_v4": "10.1.0.0/16"})).await.value(201);
        assert_eq!(network["subnet_v4"], "10.1.0.0/16");
    }
    let all = world.get("/v1/networks?project=*").await.value(200);
    assert_eq!(all["items"].as_array().map(Vec::len), Some(3));
}

#[tokio::test]
async fn what_does_not_fit_is_refused_with_its_field() {
    let world = World::new().await;
    for (body, pointer) in [
        (json!({"subnet_v4": "8.8.8.0/24"}), "/subnet_v4"),
        (json!({"subnet_v4": "10.0.0.0"}), "/subnet_v4"),
        (json!({"subnet_v6": "2001:db8::/64"}), "/subnet_v6"),
        (json!({"mode": "routed"}), "/mode"),
        (json!({"vlan": 7}), "/vlan"),
        (json!({"name": "Up"}), "/name"),
        (json!({"mode": "bridge", "bridge": "no/name"}), "/bridge"),
    ] {
        let problem = world.post("/v1/networks", &body).await.refused(422, "invalid");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}");
    }
}

#[tokio::test]
async fn a_project_sees_no_network_of_another_and_only_operators_make_bridges() {
    let world = World::new().await;
    let tenant = world.tenant("blue").await;
    let auth = [("authorization", tenant.as_str())];
    let bridge = json!({"name": "lan", "mode": "bridge", "bridge": "br0"});
    world.send("POST", "/v1/networks", &auth, &bridge.to_string()).await.refused(403, "forbidden");
    let lan = world.post("/v1/networks?project=blue", &bridge).await.value(201);
    assert_eq!((&lan["bridge"], &lan["subnet_v4"], &lan["mtu"]), (&json!("br0"), &Value::Null, &json!(1500)));
    // It is a network of the tenant's project.
    world.send("GET", "/v1/networks/lan", &auth, "").await.value(200);
    let foreign = world.post("/v1/networks", json!({"name": "red"})).await.value(201);
    let path = format!("/v1/networks/{}", foreign["id"].as_str().expect("an id"));
    for method in ["GET", "DELETE"] {
        world.send(method, &path, &auth, "").await.refused(404, "not_found");
    }
    world.send("PATCH", &path, &auth, "{}").await.refused(404, "not_found");
    let group = world.post("/v1/security-groups", json!({"name": "red"})).await.value(201);
    let path = format!("/v1/security-groups/{}", group["id"].as_str().expect("an id"));
    world.send("GET", &path, &auth, "").await.refused(404, "not_found");
    // A rule cannot name a group of another project either.
    let rules = json!({"rules": [{"direction": "in", "protocol": "any", "from": group["id"]}]});
    let refused = world.send("POST", "/v1/security-groups", &auth, &rules.to_string()).await;
    assert_eq!(refused.refused(404, "not_found")["errors"][0]["pointer"], "/rules/0/from");
    let everything = world.send("GET", "/v1/networks", &auth, "").await.value(200);
    assert_eq!(everything["items"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_project_has_as_many_networks_and_groups_as_the_operator_allows() {
    let few = |config: &mut Config| {
        config.networks = Networks { max_per_project: 2, max_groups_per_project: 1, ..config.networks.clone() };
    };
    let world = World::configured(None, few).await;
    world.post("/v1/networks", json!({"name": "a"})).await.value(201);
    world.post("/v1/networks", json!({"name": "b"})).await.value(201);
    let problem = world.post("/v1/networks", json!({"name": "c"})).await.refused(403, "quota_exceeded");
    assert_eq!((&problem["limit"], &problem["used"], &problem["wanted"]), (&json!(2), &json!(2), &json!(3)));
    world.post("/v1/networks?project=other", json!({"name": "c"})).await.value(201);
    world.delete("/v1/networks/a").await.empty(204);
    world.post("/v1/networks", json!({"name": "c"})).await.value(201);
    world.post("/v1/security-groups", json!({})).await.value(201);
    world.post("/v1/security-groups", json!({})).await.refused(403, "quota_exceeded");
}

#[tokio::test]
async fn a_call_that_is_repeated_with_its_key_makes_one_network() {
    let world = World::new().await;
    let key = [("idempotency-key", "k1")];
    let one = world.send("POST", "/v1/networks", &key, r#"{"name": "a"}"#).await;
    let two = world.send("POST", "/v1/networks", &key, r#"{"name": "a"}"#).await;
    assert_eq!(one.value(201), two.value(201));
    assert_eq!(two.header("idempotent-replay"), "true");
}

#[tokio::test]
async fn a_security_group_is_made_shown_changed_and_deleted() {
    let world = World::new().await;
    let rules = json!([
        {"direction": "in", "protocol": "tcp", "ports": "22"},
        {"direction": "in", "protocol": "udp", "ports": "8000-8099", "from": "10.0.0.0/8"},
        {"direction": "in", "protocol": "any", "from": "web"},
        {"direction": "out", "protocol": "any", "to": "fd00::/8"},
    ]);
    let group = world.post("/v1/security-groups", json!({"name": "web", "rules": rules})).await.value(201);
    let rule = |n: usize| &group["rules"][n];
    assert_eq!((&rule(0)["ports"], &rule(0)["from"]), (&json!("22"), &Value::Null));
    assert_eq!((&rule(2)["from"], &rule(2)["group_name"]), (&group["id"], &json!("web")));
    assert_eq!((&rule(3)["to"], &rule(3)["protocol"]), (&json!("fd00::/8"), &json!("any")));
    assert_eq!(world.get("/v1/security-groups/web").await.value(200), group);

    let from_web = json!([{"direction": "in", "protocol": "tcp", "ports": "5432", "from": "web"}]);
    world.post("/v1/security-groups", json!({"name": "db", "rules": from_web})).await.value(201);
    let refused = world.delete("/v1/security-groups/web").await.refused(409, "in_use");
    assert_eq!(refused["used_by"], json!({"deployments": 0, "security_groups": 1}));
    let renamed = world.patch("/v1/security-groups/web", json!({"name": "front"}), &[]).await.value(200);
    assert_eq!(renamed["rules"][2]["group_name"], "front");
    let db = world.patch("/v1/security-groups/db", json!({"rules": []}), &[]).await.value(200);
    assert_eq!(db["rules"], json!([]));
    world.delete("/v1/security-groups/front").await.empty(204);
    let kinds = events_of(&world, group["id"].as_str().expect("an id")).await;
    assert_eq!(kinds, ["security_group.created", "security_group.changed", "security_group.deleted"]);

    for (rule, pointer) in [
        (json!({"direction": "in", "protocol": "tcp", "ports": "0"}), "/rules/0/ports"),
        (json!({"direction": "in", "protocol": "tcp", "to": "db"}), "/rules/0/to"),
        (json!({"direction": "in", "protocol": "tcp", "from": "10.0.0.1/8"}), "/rules/0/from"),
    ] {
        let problem = world.post("/v1/security-groups", json!({"rules": [rule]})).await.refused(422, "invalid");
        assert_eq!(problem["errors"][0]["pointer"], pointer);
    }
    let unknown = json!({"rules": [{"direction": "in", "protocol": "any", "from": "nobody"}]});
    let problem = world.post("/v1/security-groups", unknown).await.refused(404, "not_found");
    assert_eq!(problem["errors"][0]["pointer"], "/rules/0/from");
}
