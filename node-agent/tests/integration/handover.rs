//! Hand-over between the peer servers of one process: who holds an object and is no home of it drops it once all homes have it,
//! with its stamp.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http::StatusCode;
use muster_agent::peer::repair::Repair;
use muster_api::node::ObjectAmount;
use muster_pool::{
    protocol::{RECORD_HEADER, ROUND_HEADER},
    transport::{NameTable, http_client, node_tls_name},
    wire::{Stamped, encode_names, encode_stamped},
};
use storage_core::{
    Kind, ObjectName, Record, Salt,
    membership::Membership,
    record::Compression,
    store::{ChunkStore, MemoryStore},
};

use crate::{
    mirror::world::Rng,
    repair::repair,
    support::{TestCluster, TestNode, page},
};

fn pack(number: u64) -> Record {
    Record::encode(Kind::Pack, Salt::SHARED, None, format!("pack {number}").as_bytes(), Compression::Off)
}

fn repairs(cluster: &TestCluster) -> Vec<Repair> {
    cluster.nodes.iter().map(repair).collect()
}

async fn pass(repairs: &[Repair]) -> Vec<bool> {
    futures::future::join_all(repairs.iter().map(Repair::pass)).await
}

/// Passes of all nodes until all are clean.
async fn settle(repairs: &[Repair]) {
    for _ in 0..10 {
        if pass(repairs).await.iter().all(|clean| *clean) {
            return;
        }
    }
    panic!("the passes do not come to an end: {:?}", repairs.iter().map(Repair::progress).collect::<Vec<_>>());
}

/// The record after this one, changed in this way.
fn next(membership: &Membership, change: impl FnOnce(&mut Membership)) -> Membership {
    let mut next = membership.clone();
    next.epoch += 1;
    change(&mut next);
    next
}

fn tell_all(cluster: &TestCluster, membership: &Membership) {
    cluster.nodes.iter().for_each(|node| node.pool.set_membership(membership.clone()));
    cluster.client.set_membership(membership.clone());
}

fn stamp(node: &TestNode, name: &ObjectName) -> Option<u64> {
    node.store.find(name).unwrap().map(|found| found.round)
}

#[tokio::test]
async fn a_node_that_owns_nothing_any_more_ends_empty_and_nothing_is_lost_with_it() {
    let cluster = TestCluster::of_memory(4).await;
    let records: Vec<Record> = (0..40).map(pack).chain((0..20).map(page)).collect();
    cluster.client.put(3, records.clone()).await.unwrap();
    let held = cluster.nodes[1].store.usage();
    let repairs = repairs(&cluster);
    settle(&repairs).await;
    assert!(repairs[1].progress().is_some_and(|p| p.is_done(1) && !p.is_empty));

    tell_all(&cluster, &next(&cluster.membership, |record| record.members[1].accepting = false));
    settle(&repairs).await;
    let progress = repairs[1].progress().unwrap();
    assert_eq!(cluster.nodes[1].store.usage().objects, 0);
    assert!(progress.is_empty && progress.is_done(2), "{progress:?}");
    assert_eq!(progress.handed_over, ObjectAmount { objects: held.objects, bytes: held.bytes });
    for record in &records {
        let wanted = if record.kind() == Kind::Page { 3 } else { 2 };
        assert_eq!(cluster.holders(record).len(), wanted);
        assert!(cluster.nodes.iter().all(|node| stamp(node, &record.name()).is_none_or(|stamp| stamp == 3)));
    }
    // It stays empty, also for one who does not know yet.
    let late = cluster.nodes[0].pool.clone();
    assert!(late.membership().epoch == 2 && cluster.nodes[1].pool.put(4, vec![pack(99)]).await.is_ok());
    assert_eq!(cluster.nodes[1].store.usage().objects, 0);

    // Back in, it gets its part, and the others drop what was in its place.
    tell_all(&cluster, &next(&late.membership(), |record| record.members[1].accepting = true));
    settle(&repairs).await;
    assert_eq!(
        cluster.nodes[1].store.usage().objects,
        held.objects + u64::from(cluster.holders(&pack(99)).contains(&1))
    );
    assert!(!repairs[1].progress().unwrap().is_empty);
    let copies: u64 = cluster.nodes.iter().map(|node| node.store.usage().objects).sum();
    assert_eq!(copies, 2 * 41 + 3 * 20);
}

/// The controller's database was replaced by an older copy, and its record has a number that the nodes are long past.
#[tokio::test]
async fn a_record_of_another_history_is_followed_whatever_its_number_and_everything_is_found_under_it() {
    let cluster = TestCluster::of_memory(4).await;
    let records: Vec<Record> = (0..40).map(pack).chain((0..20).map(page)).collect();
    cluster.client.put(3, records.clone()).await.unwrap();
    let repairs = repairs(&cluster);
    let newer = Membership { epoch: 9, ..next(&cluster.membership, |record| record.members[1].accepting = false) };
    tell_all(&cluster, &newer);
    settle(&repairs).await;
    assert!(repairs[1].progress().is_some_and(|p| p.is_empty && p.is_done(9)));

    let older = Membership { epoch: 4, ..next(&cluster.membership, |record| record.members[2].accepting = false) };
    tell_all(&cluster, &older);
    assert_eq!(cluster.nodes[0].pool.membership().epoch, 9, "within one history it is late");
    let waits = {
        let (pool, known) = (cluster.nodes[3].pool.clone(), cluster.nodes[3].pool.membership());
        tokio::spawn(async move { pool.membership_after(&known).await })
    };
    for pool in cluster.nodes.iter().map(|node| &node.pool).chain([&cluster.client]) {
        pool.begin_history(older.clone());
        assert_eq!(*pool.membership(), older);
    }
    tokio::time::timeout(Duration::from_secs(60), waits).await.expect("it wakes").unwrap();
    let names: Vec<ObjectName> = records.iter().map(Record::name).collect();
    let end = tokio::time::Instant::now() + Duration::from_secs(60);
    assert_eq!(cluster.client.get(&names, end).await.unwrap().len(), names.len());
    settle(&repairs).await;
    assert_eq!(cluster.nodes[2].store.usage().objects, 0, "what the record says");
    assert!(cluster.nodes[1].store.usage().objects > 0);
    for record in &records {
        assert_eq!(cluster.holders(record).len(), if record.kind() == Kind::Page { 3 } else { 2 });
    }
    // Another record of the same number is another one: what was empty under the first is to be looked at again.
    assert!(repairs[2].progress().is_some_and(|p| p.is_empty));
    let other = Membership { epoch: 4, ..next(&cluster.membership, |record| record.members[3].accepting = false) };
    tell_all(&cluster, &other);
    assert!(cluster.nodes.iter().all(|node| *node.pool.membership() == other));
    settle(&repairs).await;
    assert!(repairs[3].progress().is_some_and(|p| p.is_empty) && !repairs[2].progress().unwrap().is_empty);
}

#[tokio::test]
async fn nothing_is_dropped_before_all_homes_have_it_and_work_with_the_same_record() {
    let cluster = TestCluster::of_memory(4).await;
    let records: Vec<Record> = (0..30).map(pack).collect();
    cluster.client.put(3, records.clone()).await.unwrap();
    let held = cluster.nodes[1].store.usage().objects;
    let leaving: Vec<&Record> = records.iter().filter(|record| cluster.holders(record).contains(&1)).collect();
    assert!(held > 0);
    let without = next(&cluster.membership, |record| record.members[1].accepting = false);
    // Only the node itself knows. The others get copies, but none says that it keeps them under that record.
    cluster.nodes[1].pool.set_membership(without.clone());
    let one = repair(&cluster.nodes[1]);
    assert!(!one.pass().await);
    assert_eq!(cluster.nodes[1].store.usage().objects, held);
    let progress = one.progress().unwrap();
    assert_eq!((progress.surplus.objects, progress.is_empty), (held, false));
    // One home is silent.
    tell_all(&cluster, &without);
    cluster.nodes[2].kill();
    assert!(!one.pass().await);
    let stays = |record: &&Record| cluster.holders(record).contains(&1);
    assert!(leaving.iter().copied().any(|record| stays(&record)), "some of them belong on the silent node");
    for record in leaving.into_iter().filter(|record| !stays(record)) {
        let answering = cluster.holders(record).into_iter().filter(|at| *at != 2).count();
        assert_eq!(answering, 2, "the silent node is none of those that it counted on");
    }
}

#[tokio::test]
async fn nothing_is_dropped_while_fewer_nodes_own_objects_than_copies_are_wanted() {
    let cluster = TestCluster::of_memory(3).await;
    let records: Vec<Record> = (0..20).map(pack).collect();
    cluster.client.put(3, records.clone()).await.unwrap();
    let held = cluster.nodes[0].store.usage().objects;
    // Node 0 is drained, and node 2 goes out meanwhile.
    let one_left = |record: &mut Membership| [0, 2].into_iter().for_each(|at| record.members[at].accepting = false);
    tell_all(&cluster, &next(&cluster.membership, one_left));
    let repairs = repairs(&cluster);
    pass(&repairs).await;
    pass(&repairs).await;
    assert!(records.iter().all(|record| cluster.holders(record).contains(&1)), "the only owner has everything");
    assert_eq!(cluster.nodes[0].store.usage().objects, held);
    assert_eq!(repairs[0].progress().unwrap().surplus.objects, held);
}

#[tokio::test]
async fn a_home_without_room_keeps_no_node_from_being_emptied() {
    let mut stores: Vec<Arc<dyn ChunkStore>> = (0..3).map(|_| Arc::new(MemoryStore::new()) as _).collect();
    stores.push(Arc::new(MemoryStore::with_limit(0)));
    let cluster = TestCluster::new(stores).await;
    let records: Vec<Record> = (0..30).map(pack).collect();
    cluster.nodes[0].store.put(3, &records).unwrap();
    tell_all(&cluster, &next(&cluster.membership, |record| record.members[0].accepting = false));
    let repairs = repairs(&cluster);
    for _ in 0..4 {
        pass(&repairs).await;
    }
    assert!(repairs[0].progress().unwrap().is_empty, "{:?}", repairs[0].progress());
    assert!(records.iter().all(|record| cluster.holders(record) == [1, 2]));
    let surplus: u64 = repairs.iter().map(|repair| repair.progress().unwrap().surplus.objects).sum();
    assert_eq!(surplus, 0, "who keeps an object in the place of a full node has none too many");
}

#[tokio::test]
async fn a_stamp_that_only_the_leaving_copy_has_goes_to_all_homes() {
    let cluster = TestCluster::of_memory(3).await;
    let records: Vec<Record> = (0..20).map(pack).collect();
    cluster.client.put(3, records.clone()).await.unwrap();
    let node = &cluster.nodes[0];
    let here = node.store.names().unwrap();
    node.store.touch(8, &here).unwrap();
    tell_all(&cluster, &next(&cluster.membership, |record| record.members[0].accepting = false));
    settle(&repairs(&cluster)).await;
    for name in &here {
        assert_eq!(cluster.nodes.iter().map(|node| stamp(node, name)).collect::<Vec<_>>(), [None, Some(8), Some(8)]);
    }
}

#[tokio::test]
async fn an_absurd_stamp_is_cut_and_goes_with_the_next_hand_over() {
    let cluster = TestCluster::of_memory(3).await;
    let (put, held) = (pack(1), pack(2));
    cluster.nodes.iter().for_each(|node| node.pool.heard_round(10));
    cluster.client.put(1 << 60, vec![put.clone()]).await.unwrap();
    let stamps =
        |record: &Record| cluster.nodes.iter().filter_map(|node| stamp(node, &record.name())).collect::<Vec<_>>();
    assert_eq!(stamps(&put), [1_000_010; 2]);
    // It was here before.
    cluster.nodes[0].store.put(1 << 60, std::slice::from_ref(&held)).unwrap();
    tell_all(&cluster, &next(&cluster.membership, |record| record.members[0].accepting = false));
    settle(&repairs(&cluster)).await;
    assert_eq!(stamps(&held), [1_000_010; 2]);
}

#[tokio::test]
async fn a_bad_copy_counts_for_no_home() {
    let stores: Vec<Arc<MemoryStore>> = (0..3).map(|_| Arc::default()).collect();
    let cluster = TestCluster::new(stores.iter().map(|store| store.clone() as Arc<_>).collect()).await;
    let record = pack(1);
    stores.iter().for_each(|store| {
        store.put(3, std::slice::from_ref(&record)).unwrap();
    });
    tell_all(&cluster, &next(&cluster.membership, |record| record.members[2].accepting = false));
    assert!(stores[0].damage(&record.name()));
    // The index of node 0 still has it.
    let leaving = repair(&cluster.nodes[2]);
    assert!(!leaving.pass().await);
    assert_eq!(cluster.holders(&record), [1, 2]);
    settle(&repairs(&cluster)).await;
    assert_eq!(cluster.holders(&record), [0, 1]);
}

#[tokio::test]
async fn only_members_hand_over_and_an_empty_node_takes_nothing() {
    let cluster = TestCluster::of_memory(3).await;
    let node = &cluster.nodes[0];
    let record = pack(1);
    node.store.put(6, std::slice::from_ref(&record)).unwrap();
    let table = NameTable::new();
    table.set(&node_tls_name(node.member.node), &node.member.address);
    let url = |call| format!("https://{}/peer/v1/objects/{call}", node_tls_name(node.member.node));
    let asked = encode_stamped([Stamped { name: record.name(), stamp: 9 }, Stamped { name: pack(2).name(), stamp: 9 }]);
    let status = async |identity, record: &str, body| {
        let http = http_client(identity, &cluster.ca.ca(), table.clone()).unwrap();
        http.post(url("take-over")).header(RECORD_HEADER, record).body(body).send().await.unwrap().status()
    };
    let peer = &cluster.nodes[1].identity;
    let controller = cluster.ca.controller();
    assert_eq!(status(&controller, "", asked.clone()).await, StatusCode::FORBIDDEN);
    assert_eq!(status(peer, "0123", asked.clone()).await, StatusCode::CONFLICT);
    assert_eq!(status(peer, "0123", asked.slice(..41)).await, StatusCode::BAD_REQUEST);
    assert_eq!(stamp(node, &record.name()), Some(6), "none of them stamped it");

    node.pool.set_membership(next(&cluster.membership, |record| record.members[0].accepting = false));
    let http = http_client(peer, &cluster.ca.ca(), table.clone()).unwrap();
    let touch = http.post(url("touch")).header(ROUND_HEADER, "9").body(encode_names([record.name()]));
    assert_eq!(touch.send().await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
    // A put under the older record finds other nodes.
    let puts: Vec<Record> = (10..40).map(pack).collect();
    cluster.client.put(9, puts.clone()).await.unwrap();
    assert!(puts.iter().all(|record| cluster.holders(record) == [1, 2]));
    assert_eq!(stamp(node, &record.name()), Some(6));
}

/// Random histories: nodes go out and come in, weights change, nodes learn of that at different times, puts and touches under
/// any record that somebody still works with, and passes side by side. After each step every object that was put has as many
/// copies with the stamp of its last put as that put needed; in the end it has exactly those that are wanted.
async fn history(seed: u64) {
    const NODES: usize = 5;
    let mut rng = Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let cluster = TestCluster::of_memory(NODES).await;
    let repairs = repairs(&cluster);
    let records: Vec<Record> = (0..24).map(pack).chain((0..8).map(page)).collect();
    let mut newest = cluster.membership.clone();
    // For each object the round of its last put.
    let mut put: BTreeMap<usize, u64> = BTreeMap::new();
    let mut round = 2;
    for step in 0..12 {
        match rng.below(4) {
            0 => {
                let at = usize::try_from(rng.below(NODES as u64)).unwrap();
                let owning = newest.members.iter().filter(|member| member.accepting).count();
                newest = next(&newest, |record| {
                    let member = &mut record.members[at];
                    member.accepting = !member.accepting || owning <= 3;
                });
            }
            1 => {
                let at = usize::try_from(rng.below(NODES as u64)).unwrap();
                let weight = [20, 100, 300][usize::try_from(rng.below(3)).unwrap()];
                newest = next(&newest, |record| record.members[at].weight = weight);
            }
            _ => {}
        }
        // Some learn of it now, the others later.
        for node in &cluster.nodes {
            if rng.below(3) > 0 {
                node.pool.set_membership(newest.clone());
            }
        }
        if rng.below(3) > 0 {
            cluster.client.set_membership(newest.clone());
        }
        round += rng.below(2);
        let some: Vec<usize> = (0..records.len()).filter(|_| rng.below(4) == 0).collect();
        let by = [&cluster.client, &cluster.nodes[usize::try_from(rng.below(NODES as u64)).unwrap()].pool];
        let by = by[usize::try_from(rng.below(2)).unwrap()];
        let putting = async {
            let records: Vec<Record> = some.iter().map(|at| records[*at].clone()).collect();
            by.put(round, records).await.is_ok()
        };
        let passing: Vec<&Repair> = repairs.iter().filter(|_| rng.below(3) > 0).collect();
        let (is_put, _) = tokio::join!(putting, futures::future::join_all(passing.iter().map(|repair| repair.pass())));
        if is_put {
            put.extend(some.iter().map(|at| (*at, round)));
        }
        for (at, round) in &put {
            let name = records[*at].name();
            let stamps: Vec<Option<u64>> = cluster.nodes.iter().map(|node| stamp(node, &name)).collect();
            let safe = stamps.iter().flatten().filter(|stamp| *stamp >= round).count();
            assert!(safe >= 2, "seed {seed}, step {step}: object {at} of round {round} has the stamps {stamps:?}");
        }
    }
    tell_all(&cluster, &newest);
    settle(&repairs).await;
    for (at, round) in &put {
        let record = &records[*at];
        let stamps: Vec<u64> = cluster.nodes.iter().filter_map(|node| stamp(node, &record.name())).collect();
        let wanted = if record.kind() == Kind::Page { 3 } else { 2 };
        assert_eq!(stamps.len(), wanted, "seed {seed}: object {at}");
        assert!(stamps.iter().all(|stamp| stamp >= round), "seed {seed}: object {at} of round {round}: {stamps:?}");
    }
    for (node, member) in cluster.nodes.iter().zip(&newest.members) {
        assert!(member.accepting || node.store.usage().objects == 0, "seed {seed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_comes_and_goes_every_object_keeps_its_copies_and_its_stamps() {
    let seeds = std::env::var("MUSTER_TEST_HAND_OVER_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(12);
    for seed in 1..=seeds {
        tokio::time::timeout(Duration::from_secs(120), history(seed))
            .await
            .unwrap_or_else(|_| panic!("seed {seed} hangs"));
    }
}
