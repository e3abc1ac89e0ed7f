//! The event stream: resumes by id, filters, misses nothing.

use std::{collections::BTreeSet, time::Duration};

use axum::body::{Body, BodyDataStream};
use futures::StreamExt as _;
use muster_api::{Labels, event::Event, operation::Target};
use muster_controller::{
    store::{
        StoreError,
        events::{self, NewEvent},
    },
    wake::Loop,
};
use serde_json::json;
use tower::ServiceExt as _;

use super::world::World;

/// A followed stream.
struct Followed {
    body: BodyDataStream,
    text: String,
}

#[derive(Debug)]
enum Frame {
    Event(Box<Event>),
    Reset(String),
}

impl Followed {
    async fn new(world: &World, token: &str, query: &str, headers: &[(&str, &str)]) -> Self {
        let bearer = format!("Bearer {token}");
        let mut all = vec![("authorization", bearer.as_str())];
        all.extend_from_slice(headers);
        let request = world.request("GET", &format!("/v1/events{query}"), &all, "");
        let response = world.people.clone().oneshot(request).await.expect("answers");
        assert_eq!(response.status().as_u16(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { body: Body::into_data_stream(response.into_body()), text: String::new() }
    }

    /// The next frame; none when the stream ends.
    async fn next(&mut self) -> Option<Frame> {
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
async fn a_stream_from_a_forgotten_event_begins_with_reset() {
    let world = World::new().await;
    let position = as_of(&world).await;
    tell(&world, thing("default", "a")).await;
    world.clock.advance_ms(8 * 86_400_000);
    world.pass(Loop::Overdue).await;
    tell(&world, thing("default", "b")).await;
    let mut stream = Followed::new(&world, &world.token, &format!("?after={position}"), &[]).await;
    let Some(Frame::Reset(at)) = stream.next().await else { panic!("expected a reset") };
    assert_eq!(at, as_of(&world).await);
    tell(&world, thing("default", "c")).await;
    assert_eq!(stream.event().await.target.id, "c");
    // A position this database has not reached, and one of another history: it was replaced by an older copy.
    let (history, seq) = at.split_once('-').expect("two parts");
    let elsewhere = format!("{:08x}", u32::from_str_radix(history, 16).expect("hex") ^ 1);
    // And one in the older form without a history.
    for lost in [format!("{history}-0000ffffffff"), format!("{elsewhere}-{seq}"), seq.to_owned()] {
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
        assert!(seen.is_sorted_by(|a, b| a.0 < b.0), "ids grow");
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
