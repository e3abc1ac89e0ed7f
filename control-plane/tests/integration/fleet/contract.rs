//! Calls what `/openapi.json` describes. That each answer is as described is checked by the harness.

use serde_json::{Value, json};

use super::harness::{MIB, Node, World};
use crate::contract::{DOCUMENT, resolve};

/// One of each thing.
struct Things {
    world: World,
    version: String,
    operation: String,
    _nodes: Vec<Node>,
}

impl Things {
    async fn new() -> Self {
        let world = World::new().await;
        let version = world.image("debian", MIB).await.to_string();
        let nodes = world.nodes(2).await;
        world.ready("web", 2).await;
        let order = json!({ "name": "monday", "select": { "deployment": "web" } });
        let snapshot = world.post("/v1/snapshots", order).await.expect(202);
        let operation = world.ends(&snapshot, "succeeded").await.text("/id").to_owned();
        world.post("/v1/networks", json!({ "name": "back" })).await.expect(201);
        world.post("/v1/security-groups", json!({ "name": "front" })).await.expect(201);
        world.post("/v1/session", json!({ "token": world.token })).await.expect(201);
        Self { world, version, operation, _nodes: nodes }
    }

    /// The path of a call, with the things that there are.
    fn path(&self, template: &str) -> String {
        let names = [
            ("{deployment}", "web"),
            ("{disk}", "web.0%2Froot"),
            ("{image}", "debian"),
            ("{instance}", "web.0"),
            ("{network}", "back"),
            ("{node}", "n0"),
            ("{number}", "1"),
            ("{operation}", &self.operation),
            ("{security_group}", "front"),
            ("{snapshot}", "monday"),
            ("{token}", "admin"),
            ("{version}", &self.version),
        ];
        names.iter().fold(template.to_owned(), |path, (part, name)| path.replace(part, name))
    }
}

/// A call of the contract.
struct Call {
    method: String,
    template: &'static str,
    operation: &'static Value,
}

impl Call {
    fn all() -> impl Iterator<Item = Self> {
        let paths = DOCUMENT["paths"].as_object().unwrap();
        paths.iter().flat_map(|(template, item)| {
            item.as_object().unwrap().iter().map(|(method, operation)| Self {
                method: method.to_uppercase(),
                template,
                operation,
            })
        })
    }

    fn open(&self) -> bool {
        self.operation["security"] == json!([])
    }

    fn reserved(&self) -> bool {
        self.operation["tags"] == json!(["reserved"])
    }

    fn parameters(&self, place: &str) -> Vec<&'static str> {
        let all = self.operation["parameters"].as_array().unwrap().iter().map(resolve);
        all.filter(|parameter| parameter["in"] == place).map(|parameter| parameter["name"].as_str().unwrap()).collect()
    }

    /// The words of its filter `state`.
    fn states(&self) -> impl Iterator<Item = &'static str> {
        let all = self.operation["parameters"].as_array().unwrap().iter().map(resolve);
        let states =
            all.filter(|parameter| parameter["name"] == "state").map(|parameter| &parameter["schema"]["items"]);
        let words = states.flat_map(|state| resolve(state)["enum"].as_array().expect("states are words"));
        words.map(|word| word.as_str().unwrap())
    }

    /// The example of its JSON body; null if it has none.
    fn example(&self) -> Value {
        self.operation["requestBody"]["content"]["application/json"]["example"].clone()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_refuses_what_every_call_refuses() {
    let Things { world, .. } = Things::new().await;
    let nothing = "01a205ed-e27d-713a-903d-ab342bac3364";
    for call in Call::all() {
        let path = call.template.split('/').map(|part| if part.starts_with('{') { nothing } else { part });
        let path = path.collect::<Vec<_>>().join("/");
        let answer =
            async |token: &str, path: &str, body: Value| world.call_as(token, &call.method, path, body, &[]).await;
        if call.open() && call.method == "GET" {
            // This one is a WebSocket, and there is none here.
            let status = if call.template == "/v1/consoles" { 400 } else { 200 };
            answer("", &path, Value::Null).await.expect(status);
            continue;
        }
        if !call.open() {
            let status = answer("", &path, Value::Null).await.status;
            assert_eq!(status, 401, "{} {path}", call.method);
        }
        if call.reserved() {
            let status = answer(&world.token, &path, Value::Null).await.status;
            assert_eq!(status, 501, "{} {path}", call.method);
            continue;
        }
        let status = answer(&world.token, &format!("{path}?no_such_parameter=1"), Value::Null).await.status;
        assert_eq!(status, 400, "{} {path}", call.method);
        if call.method != "GET" && call.method != "PUT" {
            for body in [json!({ "no_such_field": 1 }), json!("{")] {
                let refused = answer(&world.token, &path, body).await;
                assert!((400..500).contains(&refused.status), "{} {path}: {refused:?}", call.method);
            }
        }
        if call.method == "GET" && call.template != "/v1/events" {
            answer(&world.token, &path, Value::Null).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_that_takes_an_etag_refuses_a_stale_one() {
    let things = Things::new().await;
    let calls: Vec<_> = Call::all().filter(|call| call.parameters("header").contains(&"If-Match")).collect();
    assert!(calls.len() > 20, "{}", calls.len());
    for call in calls {
        let path = things.path(call.template);
        let token = &things.world.token;
        let stale = [("if-match", "\"0\"")];
        let answer = things.world.call_as(token, &call.method, &path, call.example(), &stale).await;
        assert_eq!(answer.status, 412, "{} {path}: {:#}", call.method, answer.body);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_filter_of_a_list_filters() {
    let things = Things::new().await;
    let mut seen = 0;
    // Lists without filters, or of what is not there.
    let others = ["/v1/events", "/v1/found-instances", "/v1/nodes/{node}/salvage", "/v1/versions/{version}/extents"];
    let lists = Call::all().filter(|call| call.method == "GET" && call.parameters("query").contains(&"page_token"));
    for call in lists.filter(|call| !others.contains(&call.template)) {
        let path = things.path(call.template);
        let items = async |query: &str| {
            let page = things.world.get(&format!("{path}?limit=1{query}")).await.expect(200);
            page.body["items"].as_array().unwrap().len()
        };
        assert_eq!(items("").await, 1, "{path}: there is something");
        for filter in call.parameters("query") {
            if filter == "state" {
                for word in call.states() {
                    items(&format!("&state={word}")).await;
                }
                things.world.get(&format!("{path}?state=no-such-state")).await.refused(400, "bad_request");
            }
            let nobody = match filter {
                "state" if call.template == "/v1/operations" => "cancelled",
                "state" if call.template == "/v1/disks" => "detached",
                "state" => "deleted",
                "label" => "no=such",
                "deployment" | "instance" | "network" | "node" => "01a205ed-e27d-713a-903d-ab342bac3364",
                "deleted" => {
                    items("&deleted=true").await;
                    continue;
                }
                _ => continue,
            };
            assert_eq!(items(&format!("&{filter}={nobody}")).await, 0, "{path} by {filter}");
            seen += 1;
        }
    }
    assert!(seen > 15, "{seen}");
}
