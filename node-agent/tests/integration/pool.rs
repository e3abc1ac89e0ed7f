//! The pool over real peer servers: mutual TLS on loopback, one process.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::Method;
use muster_agent::cuts::PeerSteps;
use muster_api::{
    DiskId, InstanceId, NodeId, Problem, Reason, SnapshotId,
    node::ObjectAmount,
    node_protocol::CutKey,
    peer_protocol::{CutStep, CutStepAnswer, LOSSES_PATH, LogPart, log_after_path, log_path},
};
use muster_pool::{
    Call, PoolClient, PoolError, PoolLimits,
    protocol::{NAMES_MAX, ROUND_HEADER},
    transport::{NameTable, http_client, node_tls_name},
    wire::encode_names,
};
use storage_core::{
    ObjectName, Record,
    store::{Call as StoreCall, ChunkStore, FaultyStore, MemoryStore, PutSummary, StoreError},
};
use tokio::{net::TcpListener, time::Instant};

use crate::{
    pass_on::pass_on,
    support::{TestCluster, chunk, limits, page},
};

const WAIT: Duration = Duration::from_secs(2);

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn names(records: &[Record]) -> Vec<ObjectName> {
    records.iter().map(Record::name).collect()
}

#[tokio::test]
async fn chunks_are_on_min_copies_nodes_and_pages_on_one_more() {
    let cluster = TestCluster::of_memory(4).await;
    let chunks: Vec<_> = (0..40).map(chunk).collect();
    let pages: Vec<_> = (0..10).map(page).collect();
    let done = cluster.client.put(1, [chunks.clone(), pages.clone()].concat()).await.unwrap();
    assert!(chunks.iter().all(|c| cluster.holders(c).len() == 2));
    assert!(pages.iter().all(|p| cluster.holders(p).len() == 3));
    let bytes: usize = chunks.iter().chain(&pages).map(|r| r.stored().len()).sum();
    assert_eq!(done.stored_bytes, u64::try_from(bytes).unwrap());
    // Every node can read everything, in the order asked for, repeats included.
    let mut wanted = names(&chunks);
    wanted.push(chunks[0].name());
    let got = cluster.nodes[0].pool.get(&wanted, soon()).await.unwrap();
    assert_eq!(got.iter().map(|g| g.object.name).collect::<Vec<_>>(), wanted);
    assert!(
        got.iter()
            .zip(&wanted)
            .all(|(g, name)| { (g.network_bytes == 0) == cluster.nodes[0].store.contains(name).unwrap() })
    );
}

#[tokio::test]
async fn what_a_node_gives_another_is_counted_at_both_ends() {
    let cluster = TestCluster::of_memory(2).await;
    let (one, two) = (&cluster.nodes[0], &cluster.nodes[1]);
    one.store.put(1, &[chunk(1)]).unwrap();
    let got = two.pool.get(&[chunk(1).name()], soon()).await.unwrap();
    let fetched = two.pool.traffic().peers();
    assert_eq!(fetched[&one.member.node].fetched, got[0].network_bytes);
    // The server counts a piece when it hands it on, so that it has done so by now.
    let served = one.pool.traffic().peers()[&two.member.node].served;
    assert_eq!((served, one.pool.traffic().served()), (got[0].network_bytes, got[0].network_bytes));
    // What a controller gets counts as given, but it is no link to another node.
    cluster.client.get(&[chunk(1).name()], soon()).await.unwrap();
    assert_eq!(one.pool.traffic().served(), 2 * got[0].network_bytes);
    assert_eq!(one.pool.traffic().peers().len(), 1);
}

/// Without that, the first owner of an object would send it to everybody, and the second one to nobody.
#[tokio::test]
async fn the_two_owners_of_an_object_share_its_readers() {
    const OBJECTS: u32 = 12;
    let cluster = TestCluster::of_memory(8).await;
    let records: Vec<_> = (0..OBJECTS).map(chunk).collect();
    cluster.client.put(1, records.clone()).await.unwrap();
    let served = || -> Vec<u64> { cluster.nodes.iter().map(|node| node.pool.traffic().served()).collect() };
    let mut more = 0;
    for record in &records {
        let (before, mut bytes) = (served(), 0);
        for node in &cluster.nodes {
            bytes += node.pool.get(&[record.name()], soon()).await.unwrap()[0].network_bytes;
        }
        let sends: Vec<u64> = served().iter().zip(&before).map(|(now, before)| (now - before) / (bytes / 6)).collect();
        let of_owners: Vec<u64> = cluster.holders(record).into_iter().map(|owner| sends[owner]).collect();
        assert_eq!((of_owners.iter().sum::<u64>(), sends.iter().sum::<u64>()), (6, 6), "{sends:?}");
        more += of_owners.iter().max().unwrap();
    }
    // If each reader throws a coin, the owner that sends more sends 3.9 of 6 on average.
    assert!(more < 62, "the busier owners sent {more} of {} objects", OBJECTS * 6);
}

#[tokio::test]
async fn what_is_there_is_touched_and_not_sent_again() {
    let cluster = TestCluster::of_memory(3).await;
    let records: Vec<_> = (0..5).map(chunk).collect();
    cluster.client.put(1, records.clone()).await.unwrap();
    let again = cluster.client.put(7, records.clone()).await.unwrap();
    assert_eq!(again.stored_bytes, 0);
    for node in &cluster.nodes {
        let listed = node.store.list(None, 100).unwrap();
        assert!(listed.iter().all(|l| l.round == 7), "{listed:?}");
    }
}

/// I3: the sender keeps its bytes to itself where it is told that they are there. So they have to be.
#[tokio::test]
async fn what_rotted_on_all_nodes_is_stored_again_by_the_next_put() {
    let stores: Vec<Arc<MemoryStore>> = (0..2).map(|_| Arc::default()).collect();
    let cluster = TestCluster::new(stores.iter().map(|s| s.clone() as Arc<dyn ChunkStore>).collect()).await;
    let records: Vec<_> = (0..5).map(chunk).collect();
    cluster.client.put(1, records.clone()).await.unwrap();
    let rotten = &records[..2];
    assert!(stores.iter().all(|store| rotten.iter().all(|record| store.damage(&record.name()))));
    let again = cluster.client.put(2, records.clone()).await.unwrap();
    assert_eq!(again.stored_bytes, rotten.iter().map(|r| u64::try_from(r.stored().len()).unwrap()).sum::<u64>());
    cluster.client.get(&names(&records), soon()).await.unwrap();
    assert!(stores.iter().all(|store| store.take_bad_copies().len() == 2));
}

#[tokio::test]
async fn one_node_needs_one_copy() {
    let cluster = TestCluster::of_memory(1).await;
    cluster.client.put(1, vec![chunk(1), page(1)]).await.unwrap();
    assert_eq!(cluster.holders(&page(1)), [0]);
}

#[tokio::test]
async fn an_owner_that_is_down_is_skipped_and_the_next_copy_is_read() {
    let cluster = TestCluster::of_memory(3).await;
    let before: Vec<_> = (0..20).map(chunk).collect();
    cluster.client.put(1, before.clone()).await.unwrap();
    cluster.nodes[1].kill();
    let after: Vec<_> = (100..120).map(chunk).collect();
    cluster.client.put(1, after.clone()).await.unwrap();
    assert!(after.iter().all(|c| cluster.holders(c) == [0, 2]));
    cluster.client.get(&names(&before), soon()).await.unwrap();
    cluster.nodes[2].pool.get(&names(&before), soon()).await.unwrap();
}

#[tokio::test]
async fn too_few_copies_are_a_refusal_that_names_the_nodes() {
    let cluster = TestCluster::of_memory(2).await;
    cluster.nodes[0].kill();
    let error = cluster.client.put(1, vec![chunk(1)]).await.unwrap_err();
    assert!(matches!(&error, PoolError::NotEnoughCopies { wanted: 2, got: 1, full: false, .. }), "{error}");
    assert!(error.to_string().contains("node-0"), "{error}");
}

#[tokio::test]
async fn a_full_node_is_skipped_and_full_nodes_are_told_apart() {
    let full = || Arc::new(MemoryStore::with_limit(0)) as Arc<dyn ChunkStore>;
    let room = || Arc::new(MemoryStore::new()) as Arc<dyn ChunkStore>;
    let cluster = TestCluster::new(vec![room(), full(), room()]).await;
    let records: Vec<_> = (0..20).map(chunk).collect();
    cluster.client.put(1, records.clone()).await.unwrap();
    assert!(records.iter().all(|r| cluster.holders(r) == [0, 2]));
    let cluster = TestCluster::new(vec![room(), full(), full()]).await;
    let begun = Instant::now();
    let error = cluster.client.put(1, vec![chunk(1)]).await.unwrap_err();
    assert!(matches!(error, PoolError::NotEnoughCopies { wanted: 2, got: 1, full: true, .. }), "{error}");
    assert!(begun.elapsed() < limits().patience_put, "no sense in trying a full pool again");
}

/// Gives wrong bytes for everything.
struct Lying(MemoryStore);

impl ChunkStore for Lying {
    fn get(&self, name: &ObjectName) -> Result<Option<Record>, StoreError> {
        Ok(self.0.get(name)?.map(|record| {
            let mut bytes = record.stored().to_vec();
            bytes[0] ^= 1;
            Record::from_parts(record.header(), bytes.into()).unwrap()
        }))
    }
    pass_on!(0: put touch remove sync find list usage take_bad_copies);
}

#[tokio::test]
async fn a_bad_copy_is_never_given_and_the_next_one_is_used() {
    let stores: Vec<Arc<dyn ChunkStore>> =
        vec![Arc::new(Lying(MemoryStore::new())), Arc::new(MemoryStore::new()), Arc::new(MemoryStore::new())];
    let cluster = TestCluster::new(stores).await;
    let records: Vec<_> = (0..30).map(chunk).collect();
    cluster.client.put(1, records.clone()).await.unwrap();
    assert!(records.iter().any(|r| cluster.holders(r).contains(&0)));
    let got = cluster.client.get(&names(&records), soon()).await.unwrap();
    for (got, record) in got.iter().zip(&records) {
        assert_eq!(got.object, record.verify().unwrap());
    }
}

#[tokio::test]
async fn an_object_that_no_node_has_is_lost_at_the_deadline_and_unavailable_while_one_is_away() {
    let cluster = TestCluster::of_memory(3).await;
    let begun = Instant::now();
    let wanted = [chunk(1).name()];
    let error = cluster.client.get(&wanted, begun + Duration::from_millis(500)).await.unwrap_err();
    assert!(matches!(error, PoolError::Lost { names } if names == wanted));
    assert!(begun.elapsed() >= Duration::from_millis(450) && begun.elapsed() < Duration::from_secs(3));
    // A node that does not answer may have it.
    cluster.nodes[2].kill();
    let error = cluster.client.get(&wanted, Instant::now() + Duration::from_millis(500)).await.unwrap_err();
    assert!(matches!(error, PoolError::Unavailable { names, .. } if names == wanted));
}

#[tokio::test]
async fn an_object_that_comes_back_before_the_deadline_is_found() {
    let cluster = TestCluster::of_memory(2).await;
    let record = chunk(1);
    let (client, name) = (cluster.client.clone(), record.name());
    let reading = tokio::spawn(async move { client.get(&[name], soon()).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    cluster.nodes[1].store.put(1, &[record]).unwrap();
    reading.await.unwrap().unwrap();
}

/// Takes connections and never says a word.
async fn silent_node(cluster: &TestCluster, at: usize) -> (TcpListener, PoolClient) {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut membership = cluster.membership.clone();
    membership.epoch += 1;
    membership.members[at].address = silent.local_addr().unwrap().to_string();
    cluster.client.set_membership(membership);
    (silent, cluster.client.clone())
}

#[tokio::test]
async fn a_node_that_never_answers_delays_nobody_beyond_the_hedge() {
    let cluster = TestCluster::of_memory(3).await;
    let records: Vec<_> = (0..60).map(chunk).collect();
    cluster.client.put(1, records.clone()).await.unwrap();
    // Its own server goes, so that no connection to it is left, and somebody mute takes its place.
    cluster.nodes[1].kill();
    let (_silent, client) = silent_node(&cluster, 1).await;
    let begun = Instant::now();
    client.get(&names(&records), soon()).await.unwrap();
    assert!(begun.elapsed() < limits().silence / 2, "{:?}", begun.elapsed());
    // It is known to be slow now: the next reads do not wait for it at all.
    let begun = Instant::now();
    client.get(&names(&records[..5]), soon()).await.unwrap();
    assert!(begun.elapsed() < limits().hedge_get, "{:?}", begun.elapsed());
    // Writes go to the others.
    let more: Vec<_> = (1000..1010).map(chunk).collect();
    let begun = Instant::now();
    client.put(1, more.clone()).await.unwrap();
    assert!(begun.elapsed() < limits().silence / 2, "{:?}", begun.elapsed());
    assert!(more.iter().all(|r| cluster.holders(r) == [0, 2]));
}

/// Nodes behind one slow link: what each of them takes makes the others wait. It counts the objects that were sent to them.
struct SlowLink {
    store: MemoryStore,
    link: Arc<Mutex<()>>,
    sent: Arc<AtomicUsize>,
}

const LINK_BYTES_PER_S: u32 = 8 << 20;

impl ChunkStore for SlowLink {
    fn put(&self, round: u64, records: &[Record]) -> Result<PutSummary, StoreError> {
        let bytes = records.iter().map(|record| u32::try_from(record.stored().len()).unwrap()).sum::<u32>();
        self.sent.fetch_add(records.len(), Ordering::Relaxed);
        let link = self.link.lock().unwrap();
        std::thread::sleep(Duration::from_secs(1) * bytes / LINK_BYTES_PER_S);
        drop(link);
        self.store.put(round, records)
    }
    pass_on!(store: touch remove sync get find list usage take_bad_copies);
}

/// 24 MiB take three seconds, several times as long as a node has to answer. No node is slow, so no object goes to a third one.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_slower_than_what_is_put_at_once_makes_no_node_look_slow() {
    let (link, sent) = (Arc::new(Mutex::new(())), Arc::new(AtomicUsize::new(0)));
    let store = |_| SlowLink { store: MemoryStore::new(), link: link.clone(), sent: sent.clone() };
    let cluster = TestCluster::new((0..6).map(|at| Arc::new(store(at)) as Arc<dyn ChunkStore>).collect()).await;
    let records: Vec<_> = (0..192).map(chunk).collect();
    let limits = PoolLimits { patience_put: Duration::from_secs(30), ..limits() };
    let (identity, ca, members) = (&cluster.nodes[0].identity, cluster.ca.ca(), cluster.membership.clone());
    let client = PoolClient::with_limits(identity, &ca, members, None, limits).unwrap();
    let put = |some: &[Record]| client.put(1, some.to_vec());
    let (first, rest) = records.split_at(64);
    let (second, third) = rest.split_at(64);
    tokio::try_join!(put(first), put(second), put(third)).unwrap();
    assert_eq!(sent.load(Ordering::Relaxed), 2 * records.len());
}

/// One of three nodes answers whether it has objects and takes none, while somebody puts small objects all the time. So as much is
/// on its way to it as to the only other node. All puts go on without it.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_takes_nothing_more_delays_its_own_puts_by_the_hedge_and_no_others() {
    let faulty = Arc::new(FaultyStore::new(MemoryStore::new()));
    let store = |at| match at {
        0 => faulty.clone() as Arc<dyn ChunkStore>,
        _ => Arc::new(MemoryStore::new()),
    };
    let cluster = TestCluster::new((0..3).map(store).collect()).await;
    let limits = PoolLimits { patience_put: Duration::from_secs(30), ..limits() };
    let (node, ca, members) = (&cluster.nodes[2], cluster.ca.ca(), cluster.membership.clone());
    let local = Some((node.member.store, node.store.clone()));
    let client = PoolClient::with_limits(&node.identity, &ca, members, local, limits).unwrap();
    faulty.delay(StoreCall::Put, Duration::from_secs(4));
    let putting = |first: u32, each: u32, times: u32| {
        let (client, cluster) = (&client, &cluster);
        async move {
            let mut longest = Duration::ZERO;
            for number in (first..).step_by(each as usize).take(times as usize) {
                let records: Vec<_> = (number..number + each).map(chunk).collect();
                let asked = Instant::now();
                client.put(1, records.clone()).await.unwrap();
                longest = longest.max(asked.elapsed());
                assert!(records.iter().all(|record| cluster.holders(record).len() >= 2));
            }
            longest
        }
    };
    let (large, small, other) = tokio::join!(putting(0, 32, 6), putting(10_000, 1, 40), putting(20_000, 1, 40));
    // The time of 32 objects of 64 KiB at 1 MiB per second is two seconds.
    assert!(large >= limits.hedge_put && large < limits.hedge_put + Duration::from_secs(3), "{large:?}");
    assert!(small.max(other) < limits.hedge_put + Duration::from_secs(1), "{small:?}, {other:?}");
}

#[tokio::test]
async fn an_older_epochs_owner_is_asked() {
    let cluster = TestCluster::of_memory(3).await;
    let record = chunk(5);
    // Only node 2 has it, whoever owns it now.
    cluster.nodes[2].store.put(1, std::slice::from_ref(&record)).unwrap();
    cluster.nodes[0].pool.get(&[record.name()], soon()).await.unwrap();
}

#[tokio::test]
async fn an_unlisted_key_is_refused() {
    let cluster = TestCluster::of_memory(2).await;
    let stranger = cluster.ca.identity(&node_tls_name(NodeId::generate()));
    let client =
        PoolClient::with_limits(&stranger, &cluster.ca.ca(), cluster.membership.clone(), None, limits()).unwrap();
    let error = client.put(1, vec![chunk(1)]).await.unwrap_err();
    assert!(error.to_string().contains("not in membership epoch 1"), "{error}");
    // A certificate of another CA does not even get past the handshake.
    let other = crate::support::TestCa::new();
    let foreign = other.identity(&node_tls_name(cluster.nodes[0].member.node));
    let client =
        PoolClient::with_limits(&foreign, &cluster.ca.ca(), cluster.membership.clone(), None, limits()).unwrap();
    client.put(1, vec![chunk(1)]).await.unwrap_err();
    assert!(cluster.holders(&chunk(1)).is_empty());
}

#[tokio::test]
async fn bodies_over_the_limits_and_bad_records_are_refused_and_cost_nothing() {
    let cluster = TestCluster::of_memory(1).await;
    let table = NameTable::new();
    let member = &cluster.nodes[0].member;
    table.set(&node_tls_name(member.node), &member.address);
    let http = http_client(&cluster.ca.controller(), &cluster.ca.ca(), table).unwrap();
    // The controller of the record is another key, so this one is listed first.
    let key_sha256 = cluster.client.membership().clients[0].key_sha256.clone();
    assert_ne!(key_sha256, String::new());
    let base = format!("https://{}/peer/v1/objects", node_tls_name(member.node));
    let unlisted = http.post(format!("{base}/get")).send().await.unwrap();
    assert_eq!(unlisted.status(), 403);

    let table = NameTable::new();
    table.set(&node_tls_name(member.node), &member.address);
    let http = http_client(&cluster.nodes[0].identity, &cluster.ca.ca(), table).unwrap();
    let many = encode_names(vec![chunk(1).name(); NAMES_MAX + 1]);
    assert_eq!(http.post(format!("{base}/get")).body(many).send().await.unwrap().status(), 413);
    let half = encode_names([chunk(1).name()]).slice(..31);
    assert_eq!(http.post(format!("{base}/get")).body(half).send().await.unwrap().status(), 400);

    let put = |body: Vec<u8>| http.post(format!("{base}/put")).header(ROUND_HEADER, 1).body(body).send();
    assert_eq!(http.post(format!("{base}/put")).body("").send().await.unwrap().status(), 400, "no round");
    assert_eq!(put(vec![7; 4096]).await.unwrap().status(), 422);
    let whole = chunk(1).to_bytes();
    assert_eq!(put(whole[..whole.len() - 1].to_vec()).await.unwrap().status(), 422);
    let mut wrong = whole.clone();
    *wrong.last_mut().unwrap() ^= 1;
    let answer = put(wrong).await.unwrap();
    assert_eq!(answer.status(), 422);
    let problem: Problem = answer.json().await.unwrap();
    assert!(problem.detail.contains("do not match its name"), "{problem}");
    let too_many: Vec<u8> = std::iter::repeat_n(page(1).to_bytes(), NAMES_MAX + 1).flatten().collect();
    assert_eq!(put(too_many).await.unwrap().status(), 413);
    assert!(cluster.holders(&chunk(1)).is_empty());
    assert_eq!(put(whole).await.unwrap().status(), 200);
}

async fn log(pool: &PoolClient, node: NodeId, instance: InstanceId) -> Result<Bytes, PoolError> {
    let path = log_path(instance, 4);
    pool.call(node, Call { method: Method::GET, path: &path, json: None, limit: WAIT, answer_bytes_max: 1 << 10 }).await
}

#[tokio::test]
async fn consoles_are_for_controllers_and_bounded() {
    let cluster = TestCluster::of_memory(2).await;
    let (instance, node) = (InstanceId::generate(), &cluster.nodes[0]);
    std::fs::write(node.data.path().join(format!("{instance}.log")), "0123456789").unwrap();
    let tail = log(&cluster.client, node.member.node, instance).await.unwrap();
    assert_eq!(&tail[..], b"6789");
    // The writer has just moved its file away and begun the next one.
    let file = |end: &str| node.data.path().join(format!("{instance}.log{end}"));
    std::fs::rename(file(""), file(".0")).unwrap();
    std::fs::write(file(""), "ab").unwrap();
    let tail = log(&cluster.client, node.member.node, instance).await.unwrap();
    assert_eq!(&tail[..], b"89ab");
    let other = log(&cluster.nodes[1].pool, node.member.node, instance).await.unwrap_err();
    assert!(other.to_string().contains("403"), "{other}");
    let none = log(&cluster.client, node.member.node, InstanceId::generate()).await.unwrap_err();
    assert!(none.to_string().contains("404"), "{none}");
}

#[tokio::test]
async fn a_console_is_followed_by_controllers_from_where_the_last_answer_ended() {
    let cluster = TestCluster::of_memory(2).await;
    let (instance, node) = (InstanceId::generate(), &cluster.nodes[0]);
    let after = async |pool: &PoolClient, place: Option<String>| {
        let path = log_after_path(instance, place.as_deref(), 100);
        let call = Call { method: Method::GET, path: &path, json: None, limit: WAIT, answer_bytes_max: 1 << 10 };
        let body = pool.call(node.member.node, call).await?;
        Ok::<_, PoolError>(LogPart::decode(&body).expect("a part of a log"))
    };
    let none = after(&cluster.client, None).await.unwrap();
    assert_eq!(none.bytes, b"", "it may print something later");
    let file = node.data.path().join(format!("{instance}.log"));
    std::fs::write(&file, "one").unwrap();
    let one = after(&cluster.client, Some(none.place)).await.unwrap();
    assert_eq!(one.bytes, b"one");
    std::fs::write(&file, "one, two").unwrap();
    let two = after(&cluster.client, Some(one.place)).await.unwrap();
    assert_eq!(two.bytes, b", two");
    let refused = after(&cluster.nodes[1].pool, Some(two.place)).await.unwrap_err();
    assert!(refused.to_string().contains("403"), "{refused}");
    let odd = after(&cluster.client, Some("7".to_owned())).await.unwrap_err();
    assert!(odd.to_string().contains("INODE-OFFSET"), "{odd}");
}

#[tokio::test]
async fn only_controllers_acknowledge_what_a_node_has_lost() {
    let store = Arc::new(MemoryStore::new());
    let cluster = TestCluster::new(vec![store.clone(), Arc::new(MemoryStore::new())]).await;
    let node = &cluster.nodes[0];
    cluster.client.put(1, vec![chunk(1)]).await.unwrap();
    assert!(store.damage(&chunk(1).name()));
    assert!(store.get(&chunk(1).name()).unwrap().is_none());
    node.losses.look(store.as_ref()).unwrap();
    let lost = node.losses.lost();
    assert_eq!(lost.objects, 1);
    let acknowledge = async |pool: &PoolClient, seen: ObjectAmount| {
        let json = Some(serde_json::to_vec(&seen).unwrap());
        let call = Call { method: Method::POST, path: LOSSES_PATH, json, limit: WAIT, answer_bytes_max: 1 << 10 };
        pool.call(node.member.node, call).await
    };
    let other = acknowledge(&cluster.nodes[1].pool, lost).await.unwrap_err();
    assert!(other.to_string().contains("403"), "{other}");
    let older = ObjectAmount { objects: 0, ..lost };
    assert_eq!(acknowledge(&cluster.client, older).await.unwrap(), "false", "it has lost more since");
    assert_eq!(node.losses.lost(), lost);
    assert_eq!(acknowledge(&cluster.client, lost).await.unwrap(), "true");
    assert_eq!(node.losses.lost(), ObjectAmount::default());
}

#[tokio::test]
async fn cut_steps_travel_between_members_only() {
    let cluster = TestCluster::of_memory(2).await;
    let (node, key) = (cluster.nodes[0].member.node, CutKey::new(SnapshotId::generate(), 1));
    let prepare = async |pool: &PoolClient, node| {
        PeerSteps::step(pool, node, key, CutStep::Prepare, vec![DiskId::generate()], WAIT).await
    };
    let answer = prepare(&cluster.nodes[1].pool, node).await.unwrap();
    assert!(matches!(answer, CutStepAnswer::Refused { reason, .. } if reason == Reason::NotAssigned));
    let client = prepare(&cluster.client, node).await.unwrap_err();
    assert!(client.contains("403"), "{client}");
    let nobody = prepare(&cluster.client, NodeId::generate()).await.unwrap_err();
    assert!(nobody.contains("not a member"), "{nobody}");
}

#[tokio::test]
async fn a_pool_of_one_needs_no_network() {
    let pool = PoolClient::local_only(Arc::new(MemoryStore::new()));
    let records = vec![chunk(1), page(1)];
    pool.put(1, records.clone()).await.unwrap();
    let got = pool.get(&names(&records), soon()).await.unwrap();
    assert!(got.iter().all(|g| g.network_bytes == 0));
    let missing = pool.get(&[chunk(2).name()], Instant::now() + Duration::from_millis(50)).await;
    assert!(matches!(missing, Err(PoolError::Lost { .. })));
}
