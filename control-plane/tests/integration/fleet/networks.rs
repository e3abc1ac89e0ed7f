//! Network cards of instances: who gets which address, and what nodes are told.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use muster_api::{
    MacAddress,
    node_protocol::{
        Offer,
        network::{NetworkAssignment, PortProtocol, Rule, RuleDirection, RuleMatch, RuleRemote},
    },
};
use muster_controller::{
    app::nodes::{NodeCaller, RootPages},
    config::{Config, Networks},
};
use serde_json::{Value, json};
use storage_core::units::{u64_from, usize_from};

use super::harness::{MIB, Node, Reply, World, eventually};

/// A controller with an image, and nodes that can have networks.
async fn world(nodes: u32) -> (World, Vec<Node>) {
    with_networks(World::new().await, nodes).await
}

async fn with_networks(world: World, count: u32) -> (World, Vec<Node>) {
    world.image("debian", MIB).await;
    let mut nodes = Vec::new();
    for n in 0..count {
        let node = world.node(&format!("n{n}"), Offer { cpus: 100_000, memory_bytes: 1 << 50 }).await;
        node.script(|s| s.tunnel = Some(format!("192.0.2.{n}:4789")));
        node.beat().await;
        nodes.push(node);
    }
    (world, nodes)
}

fn order(name: &str, count: u64, more: Value) -> Value {
    let mut order = json!({ "name": name, "source": { "image": "debian" }, "count": count, "memory_bytes": MIB });
    order.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    order
}

async fn deployed(world: &World, name: &str, count: u64, more: Value) -> Reply {
    let operation = world.deploy(order(name, count, more)).await.expect(202);
    world.ends(&operation, "succeeded").await;
    world.get(&format!("/v1/deployments/{name}")).await.expect(200)
}

/// The cards of all instances that a query finds, by name of the instance.
async fn cards(world: &World, query: &str) -> BTreeMap<String, Vec<Value>> {
    let page = world.get(&format!("/v1/instances?limit=1000&{query}")).await.expect(200);
    let items = page.body["items"].as_array().unwrap().clone();
    let card = |item: &Value| (item["name"].as_str().unwrap().to_owned(), item["nics"].as_array().unwrap().clone());
    items.iter().map(card).collect()
}

async fn addresses(world: &World, query: &str) -> Vec<String> {
    let cards = cards(world, query).await;
    cards.values().flatten().map(|card| card["address_v4"].as_str().unwrap().to_owned()).collect()
}

/// The desired state of the node has such a network.
async fn told(node: &Node, name: &str, wanted: impl Fn(&NetworkAssignment) -> bool) -> NetworkAssignment {
    eventually("the node to be told", async || {
        let networks = node.seen.lock().unwrap().desired.clone()?.networks.networks;
        networks.into_iter().find(|network| network.name == name && wanted(network))
    })
    .await
}

fn host_names(network: &NetworkAssignment) -> BTreeSet<&str> {
    network.members.iter().map(|member| member.host_name.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_get_a_card_in_the_network_default_where_nodes_can_have_networks() {
    let (world, nodes) = with_networks(World::new().await, 0).await;
    assert!(nodes.is_empty());
    let plain = world.nodes(1).await.remove(0);
    let without = deployed(&world, "without", 1, json!({})).await;
    assert_eq!(without.body["nics"], json!([]));
    assert_eq!(world.get("/v1/networks").await.body["items"], json!([]), "nobody needs one");

    plain.script(|s| s.tunnel = Some("192.0.2.1:4789".to_owned()));
    plain.beat().await;
    let plan = world.deploy(order("web", 2, json!({ "dry_run": true }))).await.expect(200);
    assert_eq!(plan.number("/placed"), 2);
    assert_eq!(world.get("/v1/networks").await.body["items"], json!([]), "a dry run makes nothing");
    let web = deployed(&world, "web", 2, json!({})).await;
    let nic = &web.body["nics"][0];
    assert_eq!((&nic["network_name"], &nic["security_group_names"]), (&json!("default"), &json!(["default"])));
    let network = world.get("/v1/networks/default").await.expect(200);
    let shown =
        ["mode", "subnet_v4", "gateway", "mtu", "domain", "nics", "free"].map(|field| network.body[field].clone());
    let wanted = json!(["nat", "10.77.0.0/16", "10.77.0.1", 1450, "default.default.muster.internal", 2, 65531]);
    assert_eq!(json!(shown), wanted);
    let group = world.get("/v1/security-groups/default").await.expect(200);
    let rules = group.body["rules"].as_array().unwrap();
    assert_eq!((rules.len(), &rules[1]["group_name"]), (2, &json!("default")));
    let cards = cards(&world, "deployment=web").await;
    let card = &cards["web.0"][0];
    assert_eq!((card["address_v4"].as_str(), card["mac"].as_str()), (Some("10.77.0.2"), Some("52:00:00:01:00:02")));
    assert_eq!(cards["web.1"][0]["address_v4"], "10.77.0.3");
    let v6 = card["address_v6"].as_str().unwrap();
    assert!(v6.starts_with("fd") && v6.ends_with("::2"), "{v6}");
    // What says that it wants none, or has no virtual machine, has none.
    assert_eq!(deployed(&world, "none", 1, json!({ "nics": [] })).await.body["nics"], json!([]));
    let disk = deployed(&world, "disk", 1, json!({ "runtime": "none" })).await;
    assert_eq!(disk.body["nics"], json!([]));
    let refused = world.deploy(order("x", 1, json!({ "runtime": "none", "nics": [{ "network": "default" }] }))).await;
    assert_eq!(refused.refused(422, "invalid").text("/errors/0/pointer"), "/nics");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_networks_is_no_place_for_instances_with_cards() {
    let (world, nodes) = world(2).await;
    nodes[1].script(|s| s.tunnel = None);
    nodes[1].beat().await;
    let plan = world.deploy(order("web", 2, json!({ "dry_run": true }))).await.expect(200);
    assert_eq!((plan.number("/nodes/0/count"), plan.text("/nodes/0/node_name")), (2, "n0"));
    assert_eq!((plan.text("/reasons/0/reason"), plan.number("/reasons/0/count")), ("no_network", 1));
    let only = json!({ "placement": { "nodes": ["n1"] }, "nics": [{ "network": "default" }] });
    let refused = world.deploy(order("web", 1, only)).await.refused(507, "no_capacity");
    assert!(refused.text("/detail").contains("muster-agent check"), "{refused:?}");
    // Where none of the nodes that may take it has networks, it has none.
    let web = deployed(&world, "web", 1, json!({ "placement": { "nodes": ["n1"] } })).await;
    assert_eq!(web.body["nics"], json!([]));
}

/// A generator of numbers that a seed repeats.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    fn index(&mut self, len: usize) -> usize {
        usize_from(self.below(u64_from(len)))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_address_is_given_twice_whatever_comes_and_goes() {
    let (world, _nodes) = world(2).await;
    for seed in 0..12 {
        let network = format!("net-{seed}");
        let body = json!({ "name": network, "subnet_v4": "10.9.0.0/28", "gateway": "10.9.0.5" });
        world.post("/v1/networks", body).await.expect(201);
        let mut numbers = Numbers(seed);
        let mut made: Vec<String> = Vec::new();
        for step in 0..14 {
            let nics = json!({ "nics": [{ "network": network }] });
            let before = addresses(&world, &format!("network={network}")).await.len() as u64;
            match numbers.below(5) {
                0 | 1 => {
                    let (name, count) = (format!("d{seed}-{step}"), 1 + numbers.below(6));
                    let reply = world.deploy(order(&name, count, nics)).await;
                    if before + count > 13 {
                        let refused = reply.refused(507, "no_capacity");
                        assert_eq!(refused.text("/reasons/0/reason"), "network_full");
                        world.get(&format!("/v1/deployments/{name}")).await.expect(404);
                    } else {
                        world.ends(&reply.expect(202), "succeeded").await;
                        made.push(name);
                    }
                }
                2 if !made.is_empty() => {
                    let name = &made[numbers.index(made.len())];
                    let members = addresses(&world, &format!("deployment={name}")).await.len() as u64;
                    let count = 1 + numbers.below(7);
                    let path = format!("/v1/deployments/{name}/scale");
                    let reply = world.post(&path, json!({ "count": count })).await;
                    match (before - members + count > 13, count == members) {
                        (_, true) => drop(reply.expect(200)),
                        // What is removed has its address until its node confirms.
                        (true, _) => drop(reply.refused(507, "no_capacity")),
                        (false, false) => drop(world.ends(&reply.expect(202), "succeeded").await),
                    }
                }
                3 if !made.is_empty() => {
                    let name = made.swap_remove(numbers.index(made.len()));
                    let operation = world.delete(&format!("/v1/deployments/{name}")).await.expect(202);
                    world.ends(&operation, "succeeded").await;
                }
                _ if !made.is_empty() => {
                    let name = &made[numbers.index(made.len())];
                    world.post(&format!("/v1/deployments/{name}/retry"), json!({})).await.expect(200);
                }
                _ => {}
            }
            let all = addresses(&world, &format!("network={network}")).await;
            let distinct: BTreeSet<&String> = all.iter().collect();
            assert_eq!(distinct.len(), all.len(), "seed {seed}, step {step}: {all:?}");
            for never in ["10.9.0.0", "10.9.0.5", "10.9.0.15"] {
                assert!(!distinct.contains(&never.to_owned()), "seed {seed}: {all:?}");
            }
            let shown = world.get(&format!("/v1/networks/{network}")).await;
            assert_eq!((shown.number("/nics"), shown.number("/free")), (all.len() as u64, 13 - all.len() as u64));
        }
        for name in made {
            let operation = world.delete(&format!("/v1/deployments/{name}")).await.expect(202);
            world.ends(&operation, "succeeded").await;
        }
        world.delete(&format!("/v1/networks/{network}")).await.expect(204);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_is_not_used_again_at_once() {
    let (world, _nodes) = world(1).await;
    let mut seen = BTreeSet::new();
    for n in 0..4 {
        let name = format!("d{n}");
        deployed(&world, &name, 1, json!({})).await;
        seen.extend(addresses(&world, &format!("deployment={name}")).await);
        let operation = world.delete(&format!("/v1/deployments/{name}")).await.expect(202);
        world.ends(&operation, "succeeded").await;
    }
    assert_eq!(seen.len(), 4, "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_are_told_of_all_members_of_the_networks_that_they_have_cards_in() {
    let (world, nodes) = world(3).await;
    let on = |node: &str, more: Value| {
        let mut body = json!({ "placement": { "nodes": [node] } });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let rules = json!([{ "direction": "in", "protocol": "tcp", "ports": "80" },
        { "direction": "in", "protocol": "any", "from": "default" }]);
    world.post("/v1/security-groups", json!({ "name": "web", "rules": rules })).await.expect(201);
    deployed(&world, "a", 2, on("n0", json!({}))).await;
    let before = nodes[0].desired().revision;
    let nics = json!({ "nics": [{ "network": "default", "security_groups": ["web"], "ports": [{ "port": 80 }] }] });
    deployed(&world, "b", 1, on("n1", nics)).await;
    let both = |network: &NetworkAssignment| network.members.len() == 3;
    let (zero, one) = (told(&nodes[0], "default", both).await, told(&nodes[1], "default", both).await);
    assert!(nodes[0].desired().revision > before, "a new member elsewhere is news");
    assert_eq!(host_names(&zero), BTreeSet::from(["a-0", "a-1", "b-0"]));
    assert_eq!((&zero.members, zero.vni, zero.gateway_mac), (&one.members, one.vni, one.gateway_mac));
    assert_eq!((zero.domain.as_str(), zero.mtu), ("default.default.muster.internal", 1450));
    // Each node has its own cards and the rules of their groups, its own published ports, and the way to the others.
    let (desired, other) = (nodes[0].desired(), nodes[1].desired());
    let b = other.assignments.iter().find(|one| one.name == "b.0").unwrap();
    let card = one.members.iter().find(|member| member.host_name == "b-0").unwrap();
    assert_eq!((b.nics.len(), b.nics[0].mac, b.nics[0].network), (1, card.mac, one.network));
    assert_eq!(card.node, nodes[1].id);
    assert!(zero.published.is_empty());
    let [port] = one.published[..] else { panic!("one published port: {:?}", one.published) };
    assert_eq!((port.node_port, port.port, port.protocol), (30_000, 80, PortProtocol::Tcp));
    assert_eq!(Some(port.address), card.address_v4);
    assert_eq!((desired.groups().len(), other.groups().len()), (1, 1));
    let web = &other.groups()[&card.groups[0]];
    let matches = RuleMatch::Ports { transport: PortProtocol::Tcp, from: 80, to: 80 };
    assert_eq!(web[0], Rule { direction: RuleDirection::In, matches, remote: RuleRemote::Any });
    assert!(matches!(web[1].remote, RuleRemote::Group(group) if desired.groups().contains_key(&group)));
    let tunnels: Vec<&str> = desired.networks.tunnels.values().map(String::as_str).collect();
    assert_eq!(tunnels, ["192.0.2.1:4789"], "only nodes with members");
    assert!(nodes[2].seen.lock().unwrap().desired.as_ref().is_none_or(|d| d.networks.networks.is_empty()));

    // New rules reach the nodes with such cards, a new tunnel all that may need it.
    let untouched = nodes[0].newest_revision().await;
    world.call("PATCH", "/v1/security-groups/web", json!({ "rules": [] })).await.expect(200);
    eventually("the new rules", async || nodes[1].desired().groups()[&card.groups[0]].is_empty().then_some(())).await;
    assert_eq!(nodes[0].newest_revision().await, untouched, "it has no card with that group");
    nodes[1].script(|s| s.tunnel = Some("192.0.2.77:4789".to_owned()));
    nodes[1].beat().await;
    eventually("the new tunnel", async || {
        nodes[0].desired().networks.tunnels.values().any(|tunnel| tunnel == "192.0.2.77:4789").then_some(())
    })
    .await;
    world.call("PATCH", "/v1/networks/default", json!({ "dns": ["192.0.2.53"] })).await.expect(200);
    told(&nodes[0], "default", |network| network.dns.len() == 1).await;

    // A member that is to be deleted leaves at once, although its node has not confirmed that it is gone.
    nodes[0].script(|s| s.mute = true);
    let deleting = world.delete("/v1/instances/a.1").await.expect(202);
    let left = told(&nodes[1], "default", |network| network.members.len() == 2).await;
    assert_eq!(host_names(&left), BTreeSet::from(["a-0", "b-0"]));
    assert_eq!(world.get("/v1/networks/default").await.number("/nics"), 3, "its address is not free before it is gone");
    nodes[0].script(|s| s.mute = false);
    world.ends(&deleting, "succeeded").await;
    assert_eq!(world.get("/v1/networks/default").await.number("/nics"), 2);
    // An instance that is stopped stays a member.
    let stopping = world.post("/v1/deployments/b/stop", Value::Null).await.expect(202);
    world.ends(&stopping, "succeeded").await;
    assert_eq!(host_names(&told(&nodes[0], "default", |_| true).await), BTreeSet::from(["a-0", "b-0"]));
}

trait Groups {
    fn groups(&self) -> &BTreeMap<muster_api::SecurityGroupId, Vec<Rule>>;
}

impl Groups for muster_api::node_protocol::Desired {
    fn groups(&self) -> &BTreeMap<muster_api::SecurityGroupId, Vec<Rule>> {
        &self.networks.groups
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_start_of_a_deployment_raises_no_further_revisions_than_its_members_need() {
    let (world, nodes) = world(2).await;
    let mut before = Vec::new();
    for node in &nodes {
        before.push(node.newest_revision().await);
    }
    deployed(&world, "web", 20, json!({})).await;
    for (node, before) in nodes.iter().zip(before) {
        let raised = node.newest_revision().await - before;
        assert!(raised <= 3, "one transaction made all members, and what they report is no news of networks: {raised}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn projects_with_one_subnet_do_not_see_each_other() {
    let (world, nodes) = world(1).await;
    deployed(&world, "web", 1, json!({})).await;
    let tenant = world.token(json!({ "role": "tenant", "project": "blue" })).await;
    let network = world.get("/v1/networks/default").await.text("/id").to_owned();
    let image = world.get("/v1/images/debian").await.text("/id").to_owned();
    // The tenant has no image of its own, so an operator deploys for it.
    let nics = |of: &str| json!([{ "network": of }]);
    let body = order("web", 1, json!({ "nics": nics(&network), "source": { "image": image } }));
    let refused = world.post("/v1/deployments?project=blue", body).await.refused(404, "not_found");
    assert_eq!(refused.text("/errors/0/pointer"), "/nics/0/network", "a network of another project");
    let body = order("web", 1, json!({ "source": { "image": image } }));
    let operation = world.post("/v1/deployments?project=blue", body).await.expect(202);
    world.ends(&operation, "succeeded").await;
    eventually("both networks", async || (nodes[0].desired().networks.networks.len() == 2).then_some(())).await;
    let networks = nodes[0].desired().networks.networks;
    assert_eq!(networks[0].subnet_v4, networks[1].subnet_v4);
    assert_ne!(networks[0].vni, networks[1].vni);
    assert!(networks.iter().all(|network| network.members.len() == 1));
    assert_eq!(networks[0].members[0].address_v4, networks[1].members[0].address_v4);
    let macs: BTreeSet<MacAddress> = networks.iter().map(|network| network.members[0].mac).collect();
    assert_eq!(macs.len(), 2);
    let own = world.call_as(&tenant, "GET", "/v1/networks", Value::Null, &[]).await.expect(200);
    assert_eq!(own.body["items"].as_array().unwrap().len(), 1);
    let path = format!("/v1/instances?network={network}");
    let others = world.call_as(&tenant, "GET", &path, Value::Null, &[]).await.expect(200);
    assert_eq!(others.body["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fork_has_cards_in_the_networks_of_its_source_with_addresses_of_its_own() {
    let (world, _nodes) = world(1).await;
    world.post("/v1/networks", json!({ "name": "back", "subnet_v4": "10.20.0.0/24" })).await.expect(201);
    let fixed = json!({ "nics": [{ "network": "back", "address": "10.20.0.9", "ports": [{ "port": 80, "node_port": 30100 }] }] });
    deployed(&world, "web", 1, fixed).await;
    let snapshot = world.post("/v1/snapshots", json!({ "name": "s", "select": { "deployment": "web" } })).await;
    world.ends(&snapshot.expect(202), "succeeded").await;
    let fork = |name: &str, more: Value| {
        let mut body = json!({ "name": name, "source": { "snapshot": "s" }, "memory_bytes": MIB });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let operation = world.deploy(fork("fork", json!({}))).await.expect(202);
    world.ends(&operation, "succeeded").await;
    let (old, new) = (cards(&world, "deployment=web").await, cards(&world, "deployment=fork").await);
    let (old, new) = (&old["web.0"][0], &new["fork.0"][0]);
    assert_eq!((&new["network_name"], &new["address_v4"]), (&json!("back"), &json!("10.20.0.2")));
    assert_ne!(old["mac"], new["mac"]);
    assert_eq!((&old["ports"][0]["node_port"], &new["ports"][0]["node_port"]), (&json!(30_100), &json!(30_000)));
    // Cards can be named anew, and none can be wanted.
    let operation = world.deploy(fork("other", json!({ "nics": [{ "network": "default" }] }))).await.expect(202);
    world.ends(&operation, "succeeded").await;
    assert_eq!(addresses(&world, "deployment=other").await, ["10.77.0.2"]);
    let operation = world.deploy(fork("none", json!({ "nics": [] }))).await.expect(202);
    world.ends(&operation, "succeeded").await;
    assert!(addresses(&world, "deployment=none").await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_or_a_port_of_the_nodes_is_for_one_instance() {
    let (world, _nodes) = world(1).await;
    let back = json!({ "name": "back", "subnet_v4": "10.20.0.0/24", "mode": "isolated" });
    world.post("/v1/networks", back).await.expect(201);
    let lan = json!({ "name": "lan", "mode": "bridge", "bridge": "br0" });
    world.post("/v1/networks", lan).await.expect(201);
    let refused = async |count: u64, nic: Value, status: u16, code: &str| {
        let reply = world.deploy(order("x", count, json!({ "nics": [nic] }))).await.refused(status, code);
        reply.body["errors"][0]["pointer"].as_str().map(str::to_owned)
    };
    let address = |address: &str| json!({ "network": "back", "address": address });
    let invalid = async |count, nic| refused(count, nic, 422, "invalid").await.unwrap();
    assert_eq!(invalid(2, address("10.20.0.9")).await, "/nics/0/address");
    for outside in ["10.20.0.1", "10.20.0.0", "10.20.0.255", "10.20.1.1"] {
        assert_eq!(invalid(1, address(outside)).await, "/nics/0/address", "{outside}");
    }
    assert_eq!(invalid(1, json!({ "network": "back", "mac": "52:00:00:00:00:09" })).await, "/nics/0/mac");
    assert_eq!(invalid(1, json!({ "network": "back", "ports": [{ "port": 80 }] })).await, "/nics/0/ports");
    assert_eq!(
        invalid(1, json!({ "network": "lan", "security_groups": ["default"] })).await,
        "/nics/0/security_groups"
    );
    let port = |node_port: u16| json!({ "network": "default", "ports": [{ "port": 80, "node_port": node_port }] });
    assert_eq!(invalid(1, port(80)).await, "/nics/0/ports/0/node_port");
    assert_eq!(invalid(2, port(30_000)).await, "/nics/0/ports/0/node_port");
    let missing = json!({ "network": "back", "security_groups": ["nobody"] });
    assert_eq!(refused(1, missing, 404, "not_found").await.unwrap(), "/nics/0/security_groups/0");

    let nics = json!({ "nics": [address("10.20.0.9"), port(30_000), { "network": "lan" }] });
    deployed(&world, "web", 1, nics).await;
    let web = &cards(&world, "deployment=web").await["web.0"];
    assert_eq!(web[0]["address_v4"], "10.20.0.9");
    let wanted = json!([{ "node_address": "127.0.0.1", "node_port": 30_000, "port": 80, "protocol": "tcp" }]);
    assert_eq!(web[1]["ports"], wanted);
    assert_eq!((&web[2]["address_v4"], &web[2]["security_groups"]), (&Value::Null, &json!([])));
    assert_eq!(refused(1, address("10.20.0.9"), 409, "address_taken").await.unwrap(), "/nics/0/address");
    refused(1, port(30_000), 409, "address_taken").await;
    let scale = world.post("/v1/deployments/web/scale", json!({ "count": 2 })).await.refused(422, "invalid");
    assert_eq!(scale.text("/errors/0/pointer"), "/count");
    // Each member gets a port of its own, and no address that was named meets one that was not.
    let many = json!({ "nics": [{ "network": "back" }, { "network": "default", "ports": [{ "port": 22 }] }] });
    deployed(&world, "many", 20, many).await;
    let many = cards(&world, "deployment=many").await;
    let ports: BTreeSet<u64> = many.values().map(|nics| nics[1]["ports"][0]["node_port"].as_u64().unwrap()).collect();
    assert_eq!((ports.len(), ports.first(), ports.last()), (20, Some(&30_001), Some(&30_020)));
    assert!(many.values().all(|nics| nics[0]["address_v4"] != "10.20.0.9"));
    let refused =
        world.deploy(order("x", 4000, json!({ "nics": [{ "network": "default", "ports": [{ "port": 1 }] }] })));
    assert_eq!(refused.await.refused(507, "no_capacity").text("/reasons/0/reason"), "ports_full");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_deployments_use_cannot_be_deleted() {
    let (world, _nodes) = world(1).await;
    deployed(&world, "web", 3, json!({})).await;
    let refused = world.delete("/v1/networks/default").await.refused(409, "in_use");
    assert_eq!(refused.body["used_by"], json!({ "deployments": 1, "nics": 3 }));
    let refused = world.delete("/v1/security-groups/default").await.refused(409, "in_use");
    assert_eq!(refused.body["used_by"], json!({ "deployments": 1, "security_groups": 0 }));
    let operation = world.delete("/v1/deployments/web").await.expect(202);
    world.ends(&operation, "succeeded").await;
    world.delete("/v1/networks/default").await.expect(204);
    world.delete("/v1/security-groups/default").await.expect(204);
    // The next one that needs them makes them again, with another number in packets.
    deployed(&world, "web", 1, json!({})).await;
    assert_eq!(cards(&world, "deployment=web").await["web.0"][0]["mac"], "52:00:00:02:00:02");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_is_recovered_elsewhere_keeps_its_address() {
    let (world, nodes) = world(2).await;
    deployed(&world, "web", 2, json!({})).await;
    let before = cards(&world, "deployment=web").await;
    world.post("/v1/nodes/n1/fence", json!({ "confirm": true })).await.expect(200);
    let left = told(&nodes[0], "default", |network| network.members.len() == 1).await;
    assert_eq!(left.members[0].node, nodes[0].id, "what a dead node had has left");
    let recover = json!({ "select": { "deployment": "web" }, "accept_loss": true });
    let operation = world.post("/v1/instances/-/recover", recover).await.expect(202);
    world.ends(&operation, "succeeded").await;
    assert_eq!(cards(&world, "deployment=web").await, before);
    let network = told(&nodes[0], "default", |network| network.members.len() == 2).await;
    assert!(network.members.iter().all(|member| member.node == nodes[0].id));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_members_get_their_addresses_in_one_transaction() {
    let config = Config::default();
    let networks = Networks { default_subnet: "10.64.0.0/18".parse().unwrap(), ..config.networks.clone() };
    let (world, nodes) = with_networks(World::configured(Config { networks, ..config }).await, 4).await;
    nodes.iter().for_each(|node| node.script(|s| s.mute = true));
    let begun = Instant::now();
    let operation = world.deploy(order("plain", 10_000, json!({ "nics": [] }))).await.expect(202);
    println!("POST of 10000 members without cards took {:?}", begun.elapsed());
    drop(operation);
    for node in &nodes {
        node.beat().await;
    }
    let begun = Instant::now();
    world.deploy(order("web", 10_000, json!({}))).await.expect(202);
    println!("POST of 10000 members with a card each took {:?}", begun.elapsed());
    let network = world.get("/v1/networks/default").await.expect(200);
    assert_eq!(network.number("/nics"), 10_000);
    let begun = Instant::now();
    let caller = NodeCaller { id: nodes[0].id, name: "n0".to_owned(), expired: false };
    let desired = world.app.desired(&caller, RootPages::All).await.unwrap();
    println!("desired state with 10000 members in a network took {:?}", begun.elapsed());
    let members = &desired.networks.networks[0].members;
    let distinct: BTreeSet<MacAddress> = members.iter().map(|member| member.mac).collect();
    assert_eq!((members.len(), distinct.len()), (10_000, 10_000));
    for node in &nodes {
        node.beat().await;
    }
    let begun = Instant::now();
    let refused = world.deploy(order("more", 10_000, json!({}))).await.refused(507, "no_capacity");
    println!("a network with 10000 cards refused 10000 more in {:?}", begun.elapsed());
    assert!(refused.text("/detail").contains("has 6381 free addresses"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_desired_state_of_a_node_is_built_for_a_thousand_members_of_a_network() {
    let (world, nodes) = world(10).await;
    nodes.iter().for_each(|node| node.script(|s| s.mute = true));
    world.deploy(order("web", 1000, json!({}))).await.expect(202);
    let caller = NodeCaller { id: nodes[0].id, name: "n0".to_owned(), expired: false };
    let mut took = Vec::new();
    let mut bytes = 0;
    for _ in 0..9 {
        let begun = Instant::now();
        let desired = world.app.desired(&caller, RootPages::All).await.unwrap();
        took.push(begun.elapsed());
        assert_eq!((desired.networks.networks[0].members.len(), desired.assignments.len()), (1000, 100));
        bytes = serde_json::to_vec(&desired.networks).unwrap().len();
    }
    took.sort();
    println!("desired state with 1000 members, 100 of them on the node: {:?}, {bytes} bytes of networks", took[4]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operator_decides_the_subnet_of_default_networks_and_the_ports() {
    let config = Config::default();
    let networks = Networks {
        default_subnet: "192.168.64.0/24".parse().unwrap(),
        published_ports: "4000-4001".parse().unwrap(),
        ..config.networks.clone()
    };
    let (world, _nodes) = with_networks(World::configured(Config { networks, ..config }).await, 1).await;
    let nics = json!({ "nics": [{ "network": "default", "ports": [{ "port": 22 }] }] });
    deployed(&world, "web", 2, nics.clone()).await;
    assert_eq!(addresses(&world, "deployment=web").await, ["192.168.64.2", "192.168.64.3"]);
    world.deploy(order("more", 1, nics)).await.refused(507, "no_capacity");
}
