//! Repair between the peer servers of one process: copies that other nodes lack are sent, once, with their stamps.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use http::{Method, StatusCode};
use muster_agent::peer::repair::{Repair, RepairParts};
use muster_api::{
    node::ObjectAmount,
    peer_protocol::{LOST_PATH, LostCopies},
};
use muster_pool::{
    Avoided, Call,
    transport::{NameTable, http_client, node_tls_name},
    wire::{Held, decode_held, encode_names},
};
use storage_core::{
    Record,
    membership::Membership,
    store::{ChunkStore, MemoryStore},
};
use tokio::{net::TcpListener, task::JoinSet, time::Instant};

use crate::support::{TestCluster, TestNode, chunk, eventually, page};

/// The repair of a node, which has not begun.
pub(crate) fn repair(node: &TestNode) -> Repair {
    Repair::new(RepairParts {
        pool: node.pool.clone(),
        chunks: node.store.clone(),
        losses: node.losses.clone(),
        asked: node.asked.clone(),
        bytes_per_s: 1 << 30,
    })
}

/// Passes of these nodes at the same time. The answer has, for each, whether it was clean, and what it copied.
async fn passes(repairs: &[&Repair]) -> Vec<(bool, ObjectAmount)> {
    let pass = async |repair: &&Repair| {
        let before = repair.progress().map_or_else(ObjectAmount::default, |p| p.copied);
        let clean = repair.pass().await;
        let after = repair.progress().unwrap().copied;
        (clean, ObjectAmount { objects: after.objects - before.objects, bytes: after.bytes - before.bytes })
    };
    futures::future::join_all(repairs.iter().map(pass)).await
}

/// Tells all nodes but one that this one is gone.
fn without(cluster: &TestCluster, gone: usize) -> Membership {
    let mut membership = cluster.membership.clone();
    membership.epoch += 1;
    membership.members.remove(gone);
    for node in cluster.nodes.iter().filter(|node| node.member.name != cluster.nodes[gone].member.name) {
        node.pool.set_membership(membership.clone());
    }
    membership
}

fn stamps(cluster: &TestCluster, record: &Record) -> BTreeSet<u64> {
    let found = cluster.nodes.iter().filter_map(|node| node.store.find(&record.name()).unwrap());
    found.map(|found| found.round).collect()
}

#[tokio::test]
async fn what_a_dead_node_held_is_copied_again_once_and_with_the_highest_stamp() {
    let cluster = TestCluster::of_memory(4).await;
    let chunks: Vec<Record> = (0..40).map(chunk).collect();
    let pages: Vec<Record> = (0..40).map(page).collect();
    cluster.client.put(3, [chunks.clone(), pages.clone()].concat()).await.unwrap();
    let all: Vec<&Record> = chunks.iter().chain(&pages).collect();
    // One copy of each of some objects was touched later.
    for record in all.iter().step_by(3) {
        let holder = *cluster.holders(record).iter().find(|at| **at != 1).unwrap();
        cluster.nodes[holder].store.touch(9, &[record.name()]).unwrap();
    }
    let lost: Vec<&Record> = all.iter().copied().filter(|record| cluster.holders(record).contains(&1)).collect();
    let newest: Vec<u64> =
        lost.iter().map(|record| if stamps(&cluster, record).contains(&9) { 9 } else { 3 }).collect();
    assert!(lost.len() > 20 && newest.contains(&9) && newest.contains(&3));
    cluster.nodes[1].kill();
    cluster.nodes[1].store.remove(u64::MAX, &cluster.nodes[1].store.names().unwrap()).unwrap();
    let before: Vec<Vec<usize>> = lost.iter().map(|record| cluster.holders(record)).collect();
    without(&cluster, 1);

    let repairs = [0, 2, 3].map(|at| repair(&cluster.nodes[at]));
    let [a, b, c] = &repairs;
    let done = passes(&[a, b, c]).await;
    for record in &all {
        assert!(cluster.holders(record).len() >= if chunks.iter().any(|c| c.name() == record.name()) { 2 } else { 3 });
    }
    // A page had a copy on three of four nodes, so each that was lost is needed again.
    let copied = done.iter().fold((0, 0), |(n, bytes), (_, sum)| (n + sum.objects, bytes + sum.bytes));
    let bytes: usize = lost.iter().map(|record| record.stored().len()).sum();
    assert_eq!(copied, (u64::try_from(lost.len()).unwrap(), u64::try_from(bytes).unwrap()), "each once: {done:?}");
    assert!(done.iter().all(|(clean, sum)| *clean && sum.objects > 0), "the work is shared: {done:?}");
    for ((record, newest), before) in lost.iter().zip(newest).zip(before) {
        let new = *cluster.holders(record).iter().find(|at| !before.contains(at)).unwrap();
        assert_eq!(cluster.nodes[new].store.find(&record.name()).unwrap().unwrap().round, newest);
    }
    let again = passes(&[a, b, c]).await;
    assert_eq!(again, vec![(true, ObjectAmount::default()); 3]);
    let progress = a.progress().unwrap();
    assert_eq!((progress.membership_epoch, progress.unchecked_objects, progress.missing.objects), (2, 0, 0));
}

#[tokio::test]
async fn a_silent_node_gets_nothing_and_nobody_gets_copies_in_its_place() {
    let cluster = TestCluster::of_memory(4).await;
    let records: Vec<Record> = (0..30).map(chunk).collect();
    cluster.client.put(1, records.clone()).await.unwrap();
    cluster.nodes[2].kill();
    let one = repair(&cluster.nodes[0]);
    assert_eq!(passes(&[&one]).await, [(false, ObjectAmount::default())]);
    assert_eq!((one.progress().unwrap().silent_nodes, one.progress().unwrap().missing.objects), (1, 0));
    assert!(records.iter().all(|record| cluster.holders(record).len() == 2));
}

#[tokio::test]
async fn a_node_without_room_is_passed_over() {
    let mut stores: Vec<Arc<dyn ChunkStore>> = (0..3).map(|_| Arc::new(MemoryStore::new()) as _).collect();
    stores.push(Arc::new(MemoryStore::with_limit(0)));
    let cluster = TestCluster::new(stores).await;
    // So many that the first node is sure to try the full one, and so learns of it, in its last pass, too.
    let records: Vec<Record> = (0..60).map(chunk).collect();
    cluster.nodes[0].store.put(1, &records).unwrap();
    let [one, two, three] = [0, 1, 2].map(|at| repair(&cluster.nodes[at]));
    one.pass().await;
    // The second home of some objects gets its copy from the first one, and only then the node drops its own.
    passes(&[&two, &three]).await;
    assert!(one.pass().await, "{:?}", one.progress());
    assert!(records.iter().all(|record| matches!(cluster.holders(record)[..], [a, b] if a < b && b < 3)));
    assert_eq!(one.progress().unwrap().missing, ObjectAmount::default());
}

#[tokio::test]
async fn copies_for_which_no_node_has_room_stay_missing() {
    let stores: Vec<Arc<dyn ChunkStore>> = vec![Arc::new(MemoryStore::new()), Arc::new(MemoryStore::with_limit(0))];
    let cluster = TestCluster::new(stores).await;
    let records: Vec<Record> = (0..5).map(chunk).collect();
    cluster.nodes[0].store.put(1, &records).unwrap();
    let one = repair(&cluster.nodes[0]);
    assert!(!one.pass().await);
    let bytes = records.iter().map(|record| u64::try_from(record.stored().len()).unwrap()).sum();
    assert_eq!(one.progress().unwrap().missing, ObjectAmount { objects: 5, bytes });
}

/// The sweep finds a copy that was made again as old as it was, and drops it in its own time.
#[tokio::test]
async fn what_one_node_has_swept_comes_back_no_younger() {
    let cluster = TestCluster::of_memory(2).await;
    let record = chunk(1);
    let bytes = record.stored().len() as u64;
    cluster.client.put(3, vec![record.clone()]).await.unwrap();
    assert_eq!(cluster.nodes[0].store.remove(8, &[record.name()]).unwrap(), [Some(bytes)]);
    assert!(repair(&cluster.nodes[1]).pass().await);
    assert_eq!(cluster.holders(&record), [0, 1]);
    assert_eq!(stamps(&cluster, &record), [3].into());
    assert_eq!(cluster.nodes[0].store.remove(8, &[record.name()]).unwrap(), [Some(bytes)]);
}

/// Runs the repair of all nodes until the answer is dropped.
fn run_all(cluster: &TestCluster) -> (Vec<Arc<Repair>>, JoinSet<()>) {
    let mut tasks = JoinSet::new();
    let repairs: Vec<Arc<Repair>> = cluster.nodes.iter().map(|node| Arc::new(repair(node))).collect();
    for repair in &repairs {
        let repair = repair.clone();
        tasks.spawn(async move { repair.run().await });
    }
    (repairs, tasks)
}

async fn all_idle(repairs: &[Arc<Repair>], epoch: u64) {
    eventually("all nodes had a pass", || {
        let idle = |p: muster_api::node::Repair| p.membership_epoch == epoch && p.unchecked_objects == 0;
        repairs.iter().all(|repair| repair.progress().is_some_and(idle))
    })
    .await;
}

#[tokio::test]
async fn a_copy_that_rotted_is_replaced_by_a_node_that_has_another() {
    let rotten = Arc::new(MemoryStore::new());
    let cluster = TestCluster::new(vec![rotten.clone(), Arc::new(MemoryStore::new())]).await;
    let records: Vec<Record> = (0..10).map(chunk).collect();
    cluster.client.put(4, records.clone()).await.unwrap();
    let (repairs, _tasks) = run_all(&cluster);
    all_idle(&repairs, 1).await;
    assert!(rotten.damage(&records[3].name()));
    assert!(rotten.get(&records[3].name()).unwrap().is_none());
    let node = &cluster.nodes[0];
    node.losses.look(rotten.as_ref()).unwrap();
    assert_eq!(node.losses.lost().objects, 1);
    node.asked.lost_here();
    eventually("it is back", || cluster.holders(&records[3]) == [0, 1]).await;
    assert_eq!(stamps(&cluster, &records[3]), [4].into());
    eventually("it is counted", || repairs[1].progress().unwrap().copied.objects == 1).await;
}

#[tokio::test]
async fn a_share_that_was_wiped_is_filled_again() {
    let cluster = TestCluster::of_memory(3).await;
    let records: Vec<Record> = (0..30).map(chunk).collect();
    cluster.client.put(4, records.clone()).await.unwrap();
    let (repairs, mut tasks) = run_all(&cluster);
    all_idle(&repairs, 1).await;
    // Node 0 stops, loses its files, and starts again: it only knows how much is gone.
    let node = &cluster.nodes[0];
    node.losses.look(node.store.as_ref()).unwrap();
    let held = node.store.usage().objects;
    node.store.remove(u64::MAX, &node.store.names().unwrap()).unwrap();
    let losses = Arc::new(muster_agent::peer::losses::Losses::open(node.data.path(), node.store.as_ref()));
    assert_eq!(losses.lost().objects, held);
    let restarted = Repair::new(RepairParts {
        pool: node.pool.clone(),
        chunks: node.store.clone(),
        losses,
        asked: Arc::default(),
        bytes_per_s: 1 << 30,
    });
    tasks.spawn(async move { restarted.run().await });
    eventually("all copies are back", || node.store.usage().objects == held).await;
    assert!(records.iter().all(|record| cluster.holders(record).len() == 2));
    eventually("they are counted", || {
        repairs.iter().map(|repair| repair.progress().unwrap().copied.objects).sum::<u64>() == held
    })
    .await;
}

#[tokio::test]
async fn a_new_membership_epoch_begins_a_pass() {
    let cluster = TestCluster::of_memory(3).await;
    let records: Vec<Record> = (0..20).map(chunk).collect();
    cluster.client.put(1, records.clone()).await.unwrap();
    let (repairs, _tasks) = run_all(&cluster);
    all_idle(&repairs, 1).await;
    cluster.nodes[0].kill();
    without(&cluster, 0);
    let on_both = |record: &Record| cluster.holders(record).iter().filter(|at| **at != 0).count() == 2;
    eventually("the others have all of it twice", || records.iter().all(on_both)).await;
}

#[tokio::test]
async fn only_members_ask_what_a_node_has_and_tell_of_losses() {
    let cluster = TestCluster::of_memory(2).await;
    let (record, node) = (chunk(1), &cluster.nodes[0]);
    node.store.put(6, std::slice::from_ref(&record)).unwrap();
    let table = NameTable::new();
    table.set(&node_tls_name(node.member.node), &node.member.address);
    let url = format!("https://{}/peer/v1/objects/have", node_tls_name(node.member.node));
    let names = [record.name(), chunk(2).name()];
    let peer = http_client(&cluster.nodes[1].identity, &cluster.ca.ca(), table.clone()).unwrap();
    let answer = peer.post(&url).body(encode_names(names)).send().await.unwrap();
    assert_eq!(decode_held(&answer.bytes().await.unwrap(), 2).unwrap(), [Held::Here(6), Held::Absent]);
    let half = peer.post(&url).body(encode_names(names).slice(..40)).send().await.unwrap();
    assert_eq!(half.status(), StatusCode::BAD_REQUEST);
    assert_eq!(node.store.find(&record.name()).unwrap().unwrap().round, 6, "it was not stamped");

    let json = Some(serde_json::to_vec(&LostCopies::Named(names.to_vec())).unwrap());
    let limit = Duration::from_secs(5);
    let call = Call { method: Method::POST, path: LOST_PATH, json, limit, answer_bytes_max: 1 << 10 };
    let refused = cluster.client.call(node.member.node, call.clone()).await.unwrap_err();
    assert!(refused.to_string().contains("403"), "{refused}");
    cluster.nodes[1].pool.call(node.member.node, call.clone()).await.unwrap();
    let many = serde_json::to_vec(&LostCopies::Named(vec![record.name(); 1025])).unwrap();
    let refused = cluster.nodes[1].pool.call(node.member.node, Call { json: Some(many), ..call }).await.unwrap_err();
    assert!(refused.to_string().contains("413"), "{refused}");
}

#[tokio::test]
async fn reads_are_under_way_while_somebody_waits_for_objects() {
    let cluster = TestCluster::of_memory(2).await;
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut membership = cluster.membership.clone();
    membership.epoch += 1;
    membership.members[1].address = mute.local_addr().unwrap().to_string();
    let pool = &cluster.nodes[0].pool;
    pool.set_membership(membership);
    assert!(!pool.reads_under_way());
    let reader = pool.clone();
    let reading =
        tokio::spawn(async move { reader.get(&[chunk(1).name()], Instant::now() + Duration::from_secs(30)).await });
    eventually("the read is under way", || pool.reads_under_way()).await;
    // A node that has a copy for this one hears of it when it asks what is lacking.
    let (store, sender) = (&cluster.nodes[1].store, &cluster.nodes[1].pool);
    store.put(1, &[chunk(2)]).unwrap();
    let held = store.list(None, 10).unwrap();
    let parcel = sender.lacking(&held, &Avoided::default()).await.parcels.remove(0);
    assert!(sender.reads_lately(&parcel));
    reading.abort();
    eventually("nobody reads any more", || !pool.reads_under_way()).await;
    let limit = Instant::now() + Duration::from_secs(30);
    while sender.reads_lately(&parcel) {
        assert!(Instant::now() < limit, "the sender hears that nobody reads there any more");
        assert!(!sender.lacking(&held, &Avoided::default()).await.parcels.is_empty());
    }
}

#[tokio::test]
async fn what_nobody_has_any_more_is_told_by_name_until_it_is_stored_again() {
    let rotten: Vec<Arc<MemoryStore>> = (0..2).map(|_| Arc::default()).collect();
    let cluster = TestCluster::new(rotten.iter().map(|store| store.clone() as Arc<dyn ChunkStore>).collect()).await;
    let records: Vec<Record> = (0..4).map(chunk).collect();
    cluster.client.put(4, records.clone()).await.unwrap();
    let (repairs, _tasks) = run_all(&cluster);
    all_idle(&repairs, 1).await;
    // One copy of an object rots, and both copies of another.
    for (store, record) in [(0, 1), (0, 2), (1, 2)] {
        assert!(rotten[store].damage(&records[record].name()));
        assert!(rotten[store].get(&records[record].name()).unwrap().is_none());
    }
    for node in &cluster.nodes {
        node.losses.look(node.store.as_ref()).unwrap();
        node.asked.lost_here();
    }
    let only = vec![records[2].name()];
    eventually("both tell of the one that is gone", || repairs.iter().all(|repair| repair.gone() == only)).await;
    eventually("the other is back", || cluster.holders(&records[1]) == [0, 1]).await;
    cluster.client.put(5, vec![records[2].clone()]).await.unwrap();
    cluster.nodes.iter().for_each(|node| node.losses.settle(only.clone()));
    assert!(repairs.iter().all(|repair| repair.gone().is_empty()));
}
