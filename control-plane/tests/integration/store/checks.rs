//! The checks. Each gets a fresh database.

use std::{collections::BTreeSet, future::Future, pin::Pin};

use muster_api::{
    Labels, NodeId, Problem, StoreId, Timestamp, TokenId,
    node::{NodeState, PoolUse},
    node_protocol::Incarnation,
    operation::{OperationState, Progress, Target, WaitingOn},
    token::Role,
};
use muster_controller::store::{
    Store, StoreError, Tx, cluster,
    cluster::Cluster,
    column,
    events::{self, NewEvent},
    idempotency::{self, Remembered},
    nodes::{self, NodeRow},
    operations::{self, NewOperation, Origin, Outcome},
    tokens::{self, TokenRow},
};
use sqlx::Row as _;
use storage_core::membership::SignedMembership;

use super::Fresh;

pub(crate) type Check = fn(Fresh) -> Pin<Box<dyn Future<Output = ()> + Send>>;

macro_rules! checks {
    ($($name:ident,)*) => {
        pub(crate) const ALL: &[(&str, Check)] = &[$((stringify!($name), |fresh| Box::pin($name(fresh))),)*];
    };
}

checks! {
    what_is_bound_comes_back_also_null,
    sums_and_counts_read_as_numbers,
    an_error_leaves_nothing,
    a_dropped_transaction_leaves_nothing,
    those_that_share_a_commit_are_refused_and_given_up_each_alone,
    reading_cannot_write,
    a_read_is_one_snapshot,
    seq_order_is_commit_order,
    a_counted_token_is_used_up_by_exactly_its_uses,
    one_operation_runs_per_target,
    an_operation_goes_through_its_life_once,
    a_key_is_kept_a_day,
    events_are_kept_a_week,
    a_stale_save_is_a_conflict,
    a_pool_joins_once,
    bumping_wakes_after_the_commit_only,
    membership_history_is_in_order,
    migrations_run_once_and_newer_databases_are_refused,
}

fn token(seq: i64, role: Role, uses_left: Option<u32>) -> TokenRow {
    TokenRow {
        id: TokenId::generate(),
        name: format!("t{seq}"),
        role,
        project: None,
        secret_sha256: "00".to_owned(),
        created_at: muster_api::Timestamp::from_micros(1),
        created_by: "test".to_owned(),
        expires_at: muster_api::Timestamp::from_micros(i64::MAX),
        uses_left,
        seq,
    }
}

fn node(tx: &Tx, name: &str, seq: i64) -> NodeRow {
    NodeRow {
        id: NodeId::generate(),
        name: name.to_owned(),
        labels: Labels::default(),
        state: NodeState::Joining,
        reason: None,
        schedulable: true,
        zone: None,
        address: "127.0.0.1:1".to_owned(),
        store: StoreId::generate(),
        key_sha256: format!("key of {name} {seq}"),
        weight: 1,
        accepting: true,
        cpus: 4,
        memory_bytes: 1 << 40,
        pool: PoolUse { limit_bytes: 5, ..PoolUse::default() },
        conditions: Vec::new(),
        runtimes: Vec::new(),
        hypervisor: None,
        agent_version: "0".to_owned(),
        protocol: 1,
        desired_revision: 1,
        created_at: tx.now(),
        updated_at: tx.now(),
        tunnel: None,
        features: Vec::new(),
        last_seen_at: None,
        run: None,
        run_at: None,
        stopped_at: None,
        fenced_at: None,
        draining_at: None,
        drained_at: None,
        revision: 1,
        seq,
    }
}

fn target(id: &str) -> Target {
    Target { kind: "thing".to_owned(), id: id.to_owned(), name: id.to_owned() }
}

async fn tell(tx: &mut Tx, id: &str) -> Result<i64, StoreError> {
    events::append(tx, NewEvent::new("thing.done", "default", target(id))).await?;
    tx.position().await
}

async fn insert_node(store: &Store, name: &str) -> NodeRow {
    store
        .run_tx("test", async |tx| {
            let seq = tx.next_seq().await?;
            let row = node(tx, name, seq);
            nodes::insert(tx, &row).await?;
            Ok::<_, StoreError>(row)
        })
        .await
        .unwrap()
}

async fn what_is_bound_comes_back_also_null(fresh: Fresh) {
    let store = fresh.open().await;
    let made = insert_node(&store, "a").await;
    let read = store.read("test", async |tx| nodes::load(tx, made.id).await).await.unwrap().unwrap();
    assert_eq!(read, made);
    let full = NodeRow {
        reason: Some("ü'\"$1".to_owned()),
        zone: Some(String::new()),
        hypervisor: Some("kvm".to_owned()),
        state: NodeState::Ready,
        last_seen_at: Some(made.created_at),
        stopped_at: Some(made.created_at),
        fenced_at: Some(made.created_at),
        memory_bytes: i64::MAX.unsigned_abs(),
        ..made
    };
    store.run_tx("test", async |tx| nodes::save(tx, &full).await).await.unwrap();
    let read = store.read("test", async |tx| nodes::load(tx, full.id).await).await.unwrap().unwrap();
    assert_eq!(read, NodeRow { revision: 2, ..full });
    // A u64 with its highest bit set travels as text.
    let incarnation = Incarnation { number: 1, random: u64::MAX };
    let row = Cluster { id: muster_api::ClusterId::generate(), ca_sha256: "x".to_owned(), incarnation };
    store.run_tx("test", async |tx| cluster::insert(tx, &row).await).await.unwrap();
    assert_eq!(store.read("test", async |tx| cluster::load(tx).await).await.unwrap(), Some(row));
}

async fn sums_and_counts_read_as_numbers(fresh: Fresh) {
    let store = fresh.open().await;
    insert_node(&store, "a").await;
    insert_node(&store, "b").await;
    let counts = store.read("test", async |tx| nodes::by_state(tx).await).await.unwrap();
    assert_eq!(counts.get("joining"), Some(&2));
    let sum = store
        .read("test", async |tx| {
            let sql = "SELECT CAST(SUM(cpus) AS BIGINT) AS n, CAST(SUM(CASE WHEN id = '' THEN 1 END) AS BIGINT) AS none FROM nodes";
            let row = sqlx::query(sql).fetch_one(tx.conn()).await?;
            Ok::<(i64, Option<i64>), StoreError>((column::read(&row, "n")?, column::read(&row, "none")?))
        })
        .await
        .unwrap();
    assert_eq!(sum, (8, None));
}

async fn an_error_leaves_nothing(fresh: Fresh) {
    let store = fresh.open().await;
    let failed = store
        .run_tx("test", async |tx| {
            tell(tx, "a").await?;
            Err::<(), _>(StoreError::Setup("no".to_owned()))
        })
        .await;
    assert!(failed.is_err());
    let left = store.read("test", async |tx| events::after(tx, 0, None, &[], 10).await).await.unwrap();
    assert!(left.is_empty());
    let position = store.read("test", async |tx| tx.position().await).await.unwrap();
    assert_eq!(position, 0);
}

async fn a_dropped_transaction_leaves_nothing(fresh: Fresh) {
    let store = fresh.open().await;
    let (began, has_begun) = tokio::sync::oneshot::channel();
    let writer = {
        let store = store.clone();
        tokio::spawn(async move {
            store
                .run_tx("test", async |tx| {
                    tell(tx, "a").await?;
                    let _heard = began.send(());
                    std::future::pending::<Result<(), StoreError>>().await
                })
                .await
        })
    };
    has_begun.await.unwrap();
    writer.abort();
    assert!(writer.await.unwrap_err().is_cancelled());
    // The next transaction can write, and the half-done work is gone.
    let seq = store.run_tx("test", async |tx| tell(tx, "b").await).await.unwrap();
    assert_eq!(seq, 1);
}

async fn those_that_share_a_commit_are_refused_and_given_up_each_alone(fresh: Fresh) {
    let store = fresh.open().await;
    let callers = (0..40).map(|n: i64| {
        let store = store.clone();
        tokio::spawn(async move {
            let work = store.run_tx("test", async |tx| {
                let seq = tx.next_seq().await?;
                let row = node(tx, &format!("n{n}"), seq);
                nodes::insert(tx, &row).await?;
                tell(tx, &row.name).await?;
                tx.bump_desired(row.id);
                match n % 4 {
                    1 => Err(StoreError::Setup("refused".to_owned())),
                    2 => std::future::pending().await,
                    _ => Ok(seq),
                }
            });
            // A caller that goes away in the middle of its work.
            match tokio::time::timeout(std::time::Duration::from_millis(if n % 4 == 2 { 20 } else { 20_000 }), work)
                .await
            {
                Ok(done) => done.ok(),
                Err(_gone) => None,
            }
        })
    });
    let mut seqs = BTreeSet::new();
    for (n, caller) in callers.collect::<Vec<_>>().into_iter().enumerate() {
        let done = caller.await.unwrap();
        assert_eq!(done.is_some(), n % 4 == 0 || n % 4 == 3, "{n}");
        seqs.extend(done);
    }
    let all = store.read("test", async |tx| nodes::list(tx, 0, None, 100).await).await.unwrap();
    let there: BTreeSet<i64> = all.iter().map(|row| row.seq).collect();
    assert_eq!((there, seqs.len()), (seqs, 20), "what is answered is there, and nothing else");
    assert!(all.iter().all(|row| matches!(row.name[1..].parse::<i64>().unwrap() % 4, 0 | 3)));
    let told = store.read("test", async |tx| events::after(tx, 0, None, &[], 100).await).await.unwrap();
    let told: BTreeSet<_> = told.into_iter().map(|stored| stored.event.target.name).collect();
    assert_eq!(told, all.iter().map(|row| row.name.clone()).collect(), "each has its event, and nothing else has one");
    assert!(all.iter().all(|row| row.desired_revision == 2), "each was bumped once");
}

async fn reading_cannot_write(fresh: Fresh) {
    let store = fresh.open().await;
    let wrote = store.read("test", async |tx| tell(tx, "a").await).await;
    assert!(wrote.is_err());
    assert!(store.read("test", async |tx| events::after(tx, 0, None, &[], 10).await).await.unwrap().is_empty());
}

async fn a_read_is_one_snapshot(fresh: Fresh) {
    let store = fresh.open().await;
    store.run_tx("test", async |tx| tell(tx, "a").await).await.unwrap();
    let writer = store.clone();
    let seen = store
        .read("test", async |tx| {
            let before = tx.position().await?;
            writer.run_tx("test", async |tx| tell(tx, "b").await).await?;
            let events = events::after(tx, 0, None, &[], 10).await?;
            Ok::<_, StoreError>((before, events.len(), tx.position().await?))
        })
        .await
        .unwrap();
    assert_eq!(seen, (1, 1, 1));
}

/// Two processes write at once while a third reads in `seq` order. It never sees a number that is lower than one it saw
/// before.
async fn seq_order_is_commit_order(fresh: Fresh) {
    const WRITERS: usize = 4;
    const EACH: usize = 15;
    let reader = fresh.open().await;
    let mut writers = Vec::new();
    for process in 0..2 {
        let store = fresh.open().await;
        for writer in 0..WRITERS / 2 {
            let store = store.clone();
            writers.push(tokio::spawn(async move {
                for n in 0..EACH {
                    store
                        .run_tx("test", async |tx| {
                            tell(tx, &format!("{process}.{writer}.{n}")).await?;
                            tokio::task::yield_now().await;
                            tell(tx, &format!("{process}.{writer}.{n}+")).await
                        })
                        .await
                        .unwrap();
                }
            }));
        }
    }
    let wanted = WRITERS * EACH * 2;
    let (mut after, mut followed) = (0, Vec::new());
    while followed.len() < wanted {
        let more = reader.read("test", async |tx| events::after(tx, after, None, &[], 7).await).await.unwrap();
        after = more.last().map_or(after, |e| e.seq);
        followed.extend(more.into_iter().map(|e| (e.seq, e.event.target.id)));
        tokio::task::yield_now().await;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let seqs: Vec<_> = followed.iter().map(|(seq, _)| *seq).collect();
    let all: Vec<_> = (1..=i64::try_from(wanted).unwrap()).collect();
    assert_eq!(seqs, all);
    let names: BTreeSet<_> = followed.into_iter().map(|(_, id)| id).collect();
    assert_eq!(names.len(), wanted);
}

async fn a_counted_token_is_used_up_by_exactly_its_uses(fresh: Fresh) {
    let stores = [fresh.open().await, fresh.open().await];
    let row = stores[0]
        .run_tx("test", async |tx| {
            let row = token(tx.next_seq().await?, Role::Node, Some(5));
            tokens::insert(tx, &row).await?;
            Ok::<_, StoreError>(row)
        })
        .await
        .unwrap();
    let tries = (0..16).map(|n| {
        let (store, id) = (stores[n % 2].clone(), row.id);
        tokio::spawn(async move { store.run_tx("test", async |tx| tokens::take_use(tx, id).await).await.unwrap() })
    });
    let taken = futures::future::join_all(tries).await.into_iter().filter(|taken| *taken.as_ref().unwrap()).count();
    assert_eq!(taken, 5);
    let left = stores[0].read("test", async |tx| tokens::load(tx, row.id).await).await.unwrap().unwrap();
    assert_eq!(left.uses_left, Some(0));
}

fn new_operation(id: &str) -> NewOperation {
    NewOperation {
        project: "default".to_owned(),
        kind: "thing.do",
        target: target(id),
        phase: "begin",
        progress: Progress { done: 0, total: 3, failed: 0, unit: "disks".to_owned() },
        deadline: Timestamp::from_micros(4_000_000_000_000_000),
    }
}

async fn one_operation_runs_per_target(fresh: Fresh) {
    let store = fresh.open().await;
    let begin = async |id: &str| {
        store.run_tx("test", async |tx| operations::create(tx, &Origin::muster(), new_operation(id)).await).await
    };
    let first = begin("a").await.unwrap();
    begin("b").await.unwrap();
    assert!(begin("a").await.unwrap_err().is_unique_violation());
    let running = store.read("test", async |tx| operations::running_on(tx, "thing", "a").await).await.unwrap();
    assert_eq!(running, Some(first.id));
    store.run_tx("test", async |tx| operations::finish(tx, first.id, Outcome::Cancelled(None)).await).await.unwrap();
    begin("a").await.unwrap();
}

async fn an_operation_goes_through_its_life_once(fresh: Fresh) {
    let store = fresh.open().await;
    let made = store
        .run_tx("test", async |tx| operations::create(tx, &Origin::muster(), new_operation("a")).await)
        .await
        .unwrap();
    fresh.clock.advance_ms(1000);
    let waiting: Vec<_> = (0..30)
        .map(|n| WaitingOn {
            what: format!("{n}"),
            node: None,
            node_name: None,
            since: made.created_at,
            deadline: None,
        })
        .collect();
    let progress = Progress { done: 1, total: 3, failed: 0, unit: "disks".to_owned() };
    store
        .run_tx("test", async |tx| operations::progress(tx, made.id, "half", &progress, &waiting).await)
        .await
        .unwrap();
    let load = async || store.read("test", async |tx| operations::load(tx, made.id).await).await.unwrap().unwrap();
    let running = load().await;
    assert_eq!(
        (running.state, running.phase.as_str(), running.waiting_on.len()),
        (OperationState::Running, "half", 20)
    );
    assert_eq!(running.started_at, Some(made.created_at.plus_ms(1000)));
    store.run_tx("test", async |tx| operations::request_cancel(tx, made.id, "me").await).await.unwrap();
    store.run_tx("test", async |tx| operations::progress(tx, made.id, "late", &progress, &[]).await).await.unwrap();
    assert_eq!(load().await.state, OperationState::Cancelling);
    let problem = Problem::new(muster_api::ErrorCode::Busy, "no");
    store
        .run_tx("test", async |tx| operations::finish(tx, made.id, Outcome::Failed(problem.clone())).await)
        .await
        .unwrap();
    // What has ended stays as it is; late changes are ignored.
    store.run_tx("test", async |tx| operations::finish(tx, made.id, Outcome::Succeeded(None)).await).await.unwrap();
    store.run_tx("test", async |tx| operations::request_cancel(tx, made.id, "me").await).await.unwrap();
    let ended = load().await;
    assert_eq!((ended.state, ended.error), (OperationState::Failed, Some(problem)));
    let told = store.read("test", async |tx| events::after(tx, 0, None, &[], 10).await).await.unwrap();
    let states: Vec<_> = told.iter().map(|e| e.event.data["state"].as_str().unwrap().to_owned()).collect();
    assert_eq!(states, ["pending", "cancelling", "failed"]);
    fresh.clock.advance_ms((operations::KEPT_DAYS * 24 + 1) * 3_600_000);
    assert_eq!(store.run_tx("test", async |tx| operations::forget_old(tx).await).await.unwrap(), 1);
}

async fn a_key_is_kept_a_day(fresh: Fresh) {
    let store = fresh.open().await;
    let answer = |body: &str| Remembered {
        request_sha256: "r".to_owned(),
        status: 201,
        body: body.to_owned(),
        location: None,
        operation: None,
    };
    let put = async |body: &str| {
        store.run_tx("test", async |tx| idempotency::insert(tx, "p", "k", &answer(body)).await).await.unwrap();
    };
    let get = async |project: &str| {
        let found = store.read("test", async |tx| idempotency::load(tx, project, "k").await).await.unwrap();
        found.map(|r| r.body)
    };
    put("1").await;
    fresh.clock.advance_ms(23 * 3_600_000);
    assert_eq!((get("p").await.as_deref(), get("q").await), (Some("1"), None));
    fresh.clock.advance_ms(3_600_000);
    assert_eq!(get("p").await, None);
    put("2").await;
    assert_eq!(get("p").await.as_deref(), Some("2"));
    assert_eq!(store.run_tx("test", async |tx| idempotency::forget_old(tx).await).await.unwrap(), 0);
    fresh.clock.advance_ms(25 * 3_600_000);
    assert_eq!(store.run_tx("test", async |tx| idempotency::forget_old(tx).await).await.unwrap(), 1);
}

async fn events_are_kept_a_week(fresh: Fresh) {
    let store = fresh.open().await;
    let kept_after = async || store.read("test", async |tx| events::kept_after(tx).await).await.unwrap();
    let forget = async || store.run_tx("test", async |tx| events::forget_old(tx).await).await.unwrap();
    store.run_tx("test", async |tx| tell(tx, "a").await).await.unwrap();
    store.run_tx("test", async |tx| tell(tx, "b").await).await.unwrap();
    fresh.clock.advance_ms(4 * 86_400_000);
    store.run_tx("test", async |tx| tell(tx, "c").await).await.unwrap();
    assert_eq!((forget().await, kept_after().await), (0, 0));
    fresh.clock.advance_ms(4 * 86_400_000);
    // A subscriber at 2 has missed nothing, one at 1 has.
    assert_eq!((forget().await, kept_after().await), (2, 2));
    fresh.clock.advance_ms(8 * 86_400_000);
    assert_eq!((forget().await, kept_after().await), (1, 3));
}

async fn a_stale_save_is_a_conflict(fresh: Fresh) {
    let store = fresh.open().await;
    let row = insert_node(&store, "a").await;
    let save = async |row: &NodeRow| store.run_tx("test", async |tx| nodes::save(tx, row).await).await;
    save(&row).await.unwrap();
    assert!(matches!(save(&row).await, Err(StoreError::Conflict { table: "nodes", .. })));
    // Flushing a heartbeat makes no other save conflict.
    store.run_tx("test", async |tx| nodes::flush(tx, row.id, tx.now(), &PoolUse::default(), &[]).await).await.unwrap();
    save(&NodeRow { revision: 2, ..row }).await.unwrap();
}

async fn a_pool_joins_once(fresh: Fresh) {
    let store = fresh.open().await;
    let row = insert_node(&store, "a").await;
    let gone = NodeRow { state: NodeState::Deleted, ..row.clone() };
    store.run_tx("test", async |tx| nodes::save(tx, &gone).await).await.unwrap();
    // Its name is free at once; its store may never join again.
    let again = insert_node(&store, "a").await;
    assert_ne!(again.id, row.id);
    let same_pool = store
        .run_tx("test", async |tx| {
            let seq = tx.next_seq().await?;
            let other = NodeRow { store: row.store, ..node(tx, "b", seq) };
            nodes::insert(tx, &other).await
        })
        .await;
    assert!(same_pool.unwrap_err().is_unique_violation());
    let same_name = store
        .run_tx("test", async |tx| {
            let seq = tx.next_seq().await?;
            let other = node(tx, "a", seq);
            nodes::insert(tx, &other).await
        })
        .await;
    assert!(same_name.unwrap_err().is_unique_violation());
    let listed = store.read("test", async |tx| nodes::list(tx, 0, None, 10).await).await.unwrap();
    assert_eq!(listed.len(), 1);
    let with_deleted = store.read("test", async |tx| nodes::list(tx, 0, Some(row.created_at.plus_ms(-1)), 10).await);
    assert_eq!(with_deleted.await.unwrap().len(), 2);
}

async fn bumping_wakes_after_the_commit_only(fresh: Fresh) {
    let store = fresh.open().await;
    let row = insert_node(&store, "a").await;
    let mut watch = store.wakes().watch_node(row.id);
    watch.mark_unchanged();
    let failed = store
        .run_tx("test", async |tx| {
            tx.bump_desired(row.id);
            Err::<(), _>(StoreError::Setup("no".to_owned()))
        })
        .await;
    assert!(failed.is_err() && !watch.has_changed().unwrap());
    let bumped = store.run_tx("test", async |tx| {
        tx.bump_desired(row.id);
        tx.bump_desired(row.id);
        assert!(!watch.has_changed().unwrap());
        nodes::desired_revision(tx, row.id).await
    });
    assert_eq!(bumped.await.unwrap(), 2, "as it will be after the commit");
    assert!(watch.has_changed().unwrap());
    assert_eq!(store.read("test", async |tx| nodes::desired_revision(tx, row.id).await).await.unwrap(), 2);
}

async fn membership_history_is_in_order(fresh: Fresh) {
    let store = fresh.open().await;
    let newest = async || store.read("test", async |tx| nodes::membership(tx).await).await.unwrap();
    assert_eq!(newest().await, None);
    for epoch in 1..=11 {
        let signed = SignedMembership { record: format!("{{{epoch}}}"), signature: "s".to_owned() };
        store.run_tx("test", async |tx| nodes::insert_membership(tx, epoch, &signed).await).await.unwrap();
        assert_eq!(newest().await, Some((epoch, signed)));
    }
    let twice = SignedMembership { record: String::new(), signature: String::new() };
    let again = store.run_tx("test", async |tx| nodes::insert_membership(tx, 11, &twice).await).await;
    assert!(again.unwrap_err().is_unique_violation());
}

async fn migrations_run_once_and_newer_databases_are_refused(fresh: Fresh) {
    let store = fresh.open().await;
    store.run_tx("test", async |tx| tell(tx, "a").await).await.unwrap();
    let again = fresh.open().await;
    assert_eq!(again.read("test", async |tx| tx.position().await).await.unwrap(), 1);
    let count = async |store: &Store| {
        store
            .read("test", async |tx| {
                let row =
                    sqlx::query("SELECT CAST(COUNT(*) AS BIGINT) AS n FROM migrations").fetch_one(tx.conn()).await?;
                Ok::<i64, StoreError>(row.try_get("n")?)
            })
            .await
            .unwrap()
    };
    let applied = count(&again).await;
    assert!(applied >= 2);
    again
        .run_tx("test", async |tx| {
            let sql = "INSERT INTO migrations (version, name, sha256, applied_at) VALUES (9999, 'later', 'x', 1)";
            sqlx::query(sql).execute(tx.conn()).await?;
            Ok::<_, StoreError>(())
        })
        .await
        .unwrap();
    let clock = std::sync::Arc::new(fresh.clock.clone());
    let newer = Store::open(&fresh.url, clock, muster_controller::wake::Wakes::default()).await;
    assert!(matches!(newer, Err(StoreError::Newer { found: 9999, .. })), "{newer:?}");
}
