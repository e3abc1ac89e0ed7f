//! The event stream: resumes by id, filters, misses nothing.

use std::{collections::BTreeSet, time::Duration};

use axum::body::{Body, BodyDataStream};
use futures::StreamExt as _;
use muster_api::{Labels, event::Event, node_protocol::Incarnation, operation::Target};
use muster_controller::{
    store::{
        Position, StoreError,
        events::{self, NewEvent},
        tokens,
    },
    wake::Loop,
};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::world::World;

/// A followed stream.
pub(super) struct Followed {
    body: BodyDataStream,
    text: String,
}

#[derive(Debug)]
pub(super) enum Frame {
    Event(Box<Event>),
    Reset(String),
}

impl Followed {
    async fn new(world: &World, token: &str, query: &str, headers: &[(&str, &str)]) -> Self {
        let bearer = format!("Bearer {token}");
        let mut all = vec![("authorization", bearer.as_str())];
        all.extend_from_slice(headers);
        Self::with(world, query, &all).await
    }

    /// With headers that sign the call in.
    pub(super) async fn with(world: &World, query: &str, headers: &[(&str, &str)]) -> Self {
        let request = world.request("GET", &format!("/v1/events{query}"), headers, "");
        let response = world.people.clone().oneshot(request).await.expect("answers");
        assert_eq!(response.status().as_u16(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { body: Body::into_data_stream(response.into_body()), text: String::new() }
    }

    /// The next frame; none when the stream ends.
    pub(super) async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(end) = self.text.find("\n\n") {
                let block: String = self.text.drain(..end + 2).collect();
                let field = |name: &str| block.lines().find_map(|l| l.strip_prefix(name)).map(|v| v.trim().to_owned());
                let Some(data) = field("data:") else { continue };
                let id = field("id:").expect("every frame has an id");
                if field("event:").as_deref() == Some("reset") {
                    return Some(Frame::Reset(id));
                }
                let event: Event = serde_json::from_str(&data).expect("an event");
                assert_eq!(event.id, id);
                return Some(Frame::Event(Box::new(event)));
            }
            let chunk = tokio::time::timeout(Duration::from_secs(20), self.body.next()).await.expect("in time")?;
            self.text.push_str(std::str::from_utf8(&chunk.expect("the stream goes on")).expect("UTF-8"));
        }
    }

    async fn event(&mut self) -> Event {
        match self.next().await {
            Some(Frame::Event(event)) => *event,
            other => panic!("{other:?}"),
        }
    }
}

fn thing(project: &str, id: &str) -> NewEvent {
    let target = Target { kind: "thing".to_owned(), id: id.to_owned(), name: id.to_owned() };
    NewEvent { data: json!({ "state": id }), ..NewEvent::new("thing.state", project, target) }
}

async fn tell(world: &World, event: NewEvent) -> i64 {
    let told = world.app.store.run_tx("test", async |tx| {
        events::append(tx, event).await?;
        tx.position().await
    });
    told.await.map_err(|e: StoreError| e.to_string()).expect("told")
}

async fn as_of(world: &World) -> String {
    world.get("/v1/summary").await.json()["as_of"].as_str().expect("a position").to_owned()
}

#[tokio::test]
async fn a_stream_begins_at_once_with_a_comment() {
    let world = World::new().await;
    let mut stream = Followed::new(&world, &world.token, "", &[]).await;
    let first = tokio::time::timeout(Duration::from_secs(5), stream.body.next()).await.expect("at once");
    assert_eq!(first.expect("a frame").expect("bytes"), ": open\n\n");
}

#[tokio::test]
async fn a_stream_from_a_list_tells_later_events_and_resumes_by_id() {
    let world = World::new().await;
    let position = as_of(&world).await;
    for id in ["a", "b", "c"] {
        tell(&world, thing("default", id)).await;
    }
    let query = format!("?after={position}");
    let mut stream = Followed::new(&world, &world.token, &query, &[]).await;
    let first = stream.event().await;
    assert_eq!((first.target.id.as_str(), first.actor.as_str()), ("a", "muster"));
    assert_eq!(stream.event().await.target.id, "b");
    // Later events wake the stream; it does not wait for its next look.
    tell(&world, thing("default", "d")).await;
    assert_eq!(stream.event().await.target.id, "c");
    assert_eq!(stream.event().await.target.id, "d");
    drop(stream);
    // Last-Event-ID goes before `after`, as browsers send it when they reconnect.
    let mut again = Followed::new(&world, &world.token, &query, &[("last-event-id", &first.id)]).await;
    assert_eq!(again.event().await.target.id, "b");
}

#[tokio::test]
async fn a_stream_ends_at_once_when_its_token_is_revoked_and_when_it_ends() {
    let world = World::new().await;
    let gone = world.make_token(json!({ "role": "tenant", "name": "gone" })).await;
    let short = world.make_token(json!({ "role": "tenant", "ttl_s": 60 })).await;
    let (mut revoked, mut expired) =
        (Followed::new(&world, &gone, "", &[]).await, Followed::new(&world, &short, "", &[]).await);
    let begun = std::time::Instant::now();
    world.delete("/v1/tokens/gone").await.empty(204);
    // What happens from now on is not told any more.
    tell(&world, thing("default", "after")).await;
    assert!(revoked.next().await.is_none(), "it goes on");
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(expired.event().await.target.id, "after");
    world.clock.advance_ms(60_000);
    assert!(expired.next().await.is_none(), "it goes on");
}

#[tokio::test]
async fn a_stream_ends_soon_after_another_controller_revoked_its_token() {
    let world = World::new().await;
    let gone = world.make_token(json!({ "role": "tenant", "name": "gone" })).await;
    let mut stream = Followed::new(&world, &gone, "", &[]).await;
    let other = world.other_store().await;
    let begun = std::time::Instant::now();
    let revoked: Result<bool, StoreError> = other
        .run_tx("test", async |tx| {
            let row = tokens::by_name(tx, "gone").await?.expect("a token");
            tokens::delete(tx, row.id).await
        })
        .await;
    assert!(revoked.expect("revoked"));
    assert!(stream.next().await.is_none(), "it goes on");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    world.get_as(&gone, "/v1/me").await.refused(401, "unauthenticated");
}

#[tokio::test]
async fn positions_and_event_ids_tell_a_tenant_nothing_of_what_others_do() {
    let world = World::new().await;
    let red = world.make_token(json!({ "role": "tenant", "project": "red" })).await;
    let as_of = async || {
        let page: Value = world.get_as(&red, "/v1/images").await.ok(200);
        page["as_of"].as_str().expect("a position").to_owned()
    };
    let (first, second) = (as_of().await, as_of().await);
    tell(&world, thing("blue", "x")).await;
    let third = as_of().await;
    // Whether something happened in between cannot be told: no two are alike, and none has a number in it.
    assert!(first != second && second != third, "{first} {second} {third}");
    for position in [&first, &second, &third] {
        assert_eq!(position.len(), 43, "{position}");
        let bearer = format!("Bearer {red}");
        let headers = [("authorization", bearer.as_str()), ("accept", "application/json")];
        world.send("GET", &format!("/v1/events?after={position}"), &headers, "").await.ok::<Value>(200);
    }
}

#[tokio::test]
async fn a_tenant_sees_the_system_at_work_and_no_node() {
    let world = World::new().await;
    let red = world.make_token(json!({ "role": "tenant", "project": "red" })).await;
    world.agent("rack-7").await;
    let data = json!({ "state": "failed", "detail": "rack-7: no answer", "conditions": [
        { "kind": "objects_lost", "detail": "node rack-7 has none" }] });
    let told = NewEvent { actor: "node:rack-7".to_owned(), data, ..thing("red", "web.0") };
    tell(&world, told).await;
    let page = async |token: &str| -> Value {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str()), ("accept", "application/json")];
        world.send("GET", "/v1/events?project=red", &headers, "").await.ok(200)
    };
    let shown = page(&red).await;
    assert_eq!(shown["items"][0]["actor"], "system");
    assert_eq!(shown["items"][0]["data"]["detail"], "a node: no answer");
    assert!(!shown.to_string().contains("rack-7"), "{shown}");
    assert_eq!(page(&world.token).await["items"][0]["actor"], "node:rack-7");
    let mut stream = Followed::new(&world, &red, &format!("?after={}", "0".repeat(12)), &[]).await;
    assert!(matches!(stream.next().await, Some(Frame::Reset(_))));
    tell(&world, NewEvent { actor: "node:rack-7".to_owned(), ..thing("red", "web.1") }).await;
    assert_eq!(stream.event().await.actor, "system");
    // Which of its things are on one node is nothing for a tenant either, also if it guesses the name.
    for list in ["events", "instances", "operations"] {
        world.get_as(&red, &format!("/v1/{list}?node=rack-7")).await.refused(403, "forbidden");
    }
}

#[tokio::test]
async fn a_stream_keeps_to_its_filters_and_project() {
    let world = World::new().await;
    let tenant = world.make_token(json!({ "role": "tenant", "project": "red" })).await;
    world.make_token(json!({ "role": "tenant", "project": "blue" })).await;
    let position = as_of(&world).await;
    world.agent("n1").await;
    let labels = |text: &str| -> Labels { serde_json::from_str(text).expect("labels") };
    tell(&world, thing("blue", "x")).await;
    tell(&world, NewEvent { labels: labels(r#"{"tier":"web"}"#), ..thing("red", "running") }).await;
    tell(&world, NewEvent { labels: labels(r#"{"tier":"db"}"#), ..thing("red", "stopped") }).await;
    tell(&world, thing("red", "deleted")).await;
    let first = async |token: &str, query: &str| {
        let mut stream = Followed::new(&world, token, &format!("?after={position}{query}"), &[]).await;
        stream.event().await.target.id
    };
    assert_eq!(first(&tenant, "").await, "running");
    assert_eq!(first(&tenant, "&label=tier=db").await, "stopped");
    assert_eq!(first(&tenant, "&label=tier=db&label=tier=web").await, "running");
    assert_eq!(first(&tenant, "&state=deleted&state=failed").await, "deleted");
    assert_eq!(first(&world.token, "&project=blue").await, "x");
    assert_eq!(first(&world.token, "&project=*&state=stopped").await, "stopped");
    let node = world.get("/v1/nodes/n1").await.json()["id"].as_str().expect("an id").to_owned();
    assert_eq!(first(&world.token, "&node=n1").await, node);
    // Only operators see events of nodes, also in the project under which they are stored.
    let default = world.make_token(json!({ "role": "tenant" })).await;
    tell(&world, thing("default", "mine")).await;
    assert_eq!(first(&default, "").await, "mine");
}

#[tokio::test]
async fn what_happened_to_one_thing_is_asked_by_its_id() {
    let world = World::new().await;
    let tenant = world.make_token(json!({ "role": "tenant", "project": "red" })).await;
    let position = as_of(&world).await;
    let mut ids = Vec::new();
    for name in ["a", "b", "c"] {
        let made = world.post("/v1/images", json!({ "name": name })).await.json();
        ids.push(made["id"].as_str().expect("an id").to_owned());
    }
    let told = async |token: &str, query: &str| {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str()), ("accept", "application/json")];
        let page = world.send("GET", &format!("/v1/events?{query}"), &headers, "").await.json();
        let items = page["items"].as_array().expect("items").clone();
        items.into_iter().map(|event| event["target"]["id"].as_str().expect("an id").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(told(&world.token, &format!("target={}", ids[1])).await, ids[1..2]);
    assert_eq!(told(&world.token, &format!("target={}&target={}", ids[2], ids[0])).await, [&*ids[0], &*ids[2]]);
    assert!(told(&tenant, &format!("target={}", ids[1])).await.is_empty());
    let query = format!("?after={position}&target={}", ids[2]);
    assert_eq!(Followed::new(&world, &world.token, &query, &[]).await.event().await.target.id, ids[2]);
    assert_eq!(world.get(&format!("/v1/operations?target={}", ids[0])).await.json()["items"], json!([]));
    for list in ["events", "operations"] {
        world.get(&format!("/v1/{list}?target=web")).await.refused(400, "bad_request");
    }
}

#[tokio::test]
async fn a_stream_from_a_forgotten_event_begins_with_reset() {
    let world = World::new().await;
    let position = as_of(&world).await;
    tell(&world, thing("default", "a")).await;
    world.clock.advance_ms(8 * 86_400_000);
    world.pass(Loop::Overdue).await;
    tell(&world, thing("default", "b")).await;
    let mut stream = Followed::new(&world, &world.token, &format!("?after={position}"), &[]).await;
    let Some(Frame::Reset(at)) = stream.next().await else { panic!("expected a reset") };
    let seal = world.app.store.seal();
    let here = seal.open(&at).expect("a position");
    assert_eq!(seal.open(&as_of(&world).await), Ok(here));
    tell(&world, thing("default", "c")).await;
    assert_eq!(stream.event().await.target.id, "c");
    // A position this database has not reached, and one of another history: it was replaced by an older copy.
    let not_reached = seal.token(Position { seq: 0xffff_ffff, ..here });
    let elsewhere = seal.token(Position { history: Incarnation { number: 7, random: 7 }.into(), ..here });
    // And two as earlier releases wrote them.
    for lost in [not_reached, elsewhere, "00000000000a".to_owned(), "0000abcd-00000000000a".to_owned()] {
        let mut stream = Followed::new(&world, &world.token, &format!("?after={lost}"), &[]).await;
        assert!(matches!(stream.next().await, Some(Frame::Reset(_))), "{lost}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn under_load_nothing_is_missed_and_order_holds() {
    const WRITERS: usize = 4;
    const EACH: usize = 60;
    let world = std::sync::Arc::new(World::new().await);
    let begin = as_of(&world).await;
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let world = world.clone();
            tokio::spawn(async move {
                for n in 0..EACH {
                    tell(&world, thing("default", &format!("{writer}-{n:03}"))).await;
                }
            })
        })
        .collect();
    // Followers begin in the middle of it, from a list's position, and reconnect now and then.
    let mut followers = Vec::new();
    for follower in 0..3 {
        let (world, begin) = (world.clone(), begin.clone());
        followers.push(tokio::spawn(async move {
            let mut stream = Followed::new(&world, &world.token, &format!("?after={begin}"), &[]).await;
            let mut seen: Vec<(String, String)> = Vec::new();
            while seen.len() < WRITERS * EACH {
                let event = stream.event().await;
                if event.target.kind == "thing" {
                    seen.push((event.id.clone(), event.target.id.clone()));
                }
                if seen.len() % 50 == 7 + follower {
                    stream = Followed::new(&world, &world.token, "", &[("last-event-id", &event.id)]).await;
                }
            }
            seen
        }));
    }
    for writer in writers {
        writer.await.expect("wrote");
    }
    for follower in followers {
        let seen = follower.await.expect("followed");
        let place = |id: &str| world.app.store.seal().open(id).expect("an id").seq;
        assert!(seen.is_sorted_by(|a, b| place(&a.0) < place(&b.0)), "in order");
        let distinct: BTreeSet<_> = seen.iter().map(|(_, id)| id).collect();
        assert_eq!(distinct.len(), WRITERS * EACH);
    }
}

#[tokio::test]
async fn a_stream_ends_with_the_controller() {
    let world = World::new().await;
    let mut stream = Followed::new(&world, &world.token, "", &[]).await;
    world.app.closing.cancel();
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn the_event_streams_of_one_token_are_limited() {
    let world = World::new().await;
    let mut streams = Vec::new();
    for _ in 0..64 {
        streams.push(Followed::new(&world, &world.token, "", &[]).await);
    }
    let full = world.get("/v1/events").await;
    full.refused(429, "too_many_requests");
    assert_eq!(full.header("retry-after"), "1");
    let other = world.make_token(json!({ "role": "tenant" })).await;
    Followed::new(&world, &other, "", &[]).await;
    streams.pop();
    Followed::new(&world, &world.token, "", &[]).await;
}
