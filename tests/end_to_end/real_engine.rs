//! The repository in a real engine: Ceph's S3 gateway (RGW) over a Ceph of one monitor and one OSD that the test starts. Debian has
//! it as packages, and it is up in twenty seconds. Garage would have to be built from source, and moto is a mock like our
//! own server. `tests/run.sh --long` installs the packages and runs these tests; every other run says that it ignores them.

use std::{ops::Range, time::Duration};

use futures::future::join_all;
use muster_pool::{
    Repository, RepositoryError,
    repository::{DELETE_NAMES_MAX, Kept, testing::KEY_ID},
    tls::install_provider,
};
use muster_tests::ceph::{BUCKET, Ceph, SECRET};
use storage_core::{ClusterId, Compression, Kind, ObjectName, Record, Salt, repository::RepositorySettings};
use tokio::time::Instant;

use crate::repository::{Place, rebuilds};

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn opened(settings: RepositorySettings) -> Repository {
    Repository::open(settings).expect("opens")
}

/// An object of `bytes` and some more, a different one for each `n`.
fn record(n: usize, bytes: usize) -> Record {
    let body: Vec<u8> = n.to_le_bytes().into_iter().chain((0..bytes).map(|at| (at * 31 + n) as u8 | 1)).collect();
    Record::encode(Kind::Pack, Salt::SHARED, None, &body, Compression::Off).with_round(7)
}

fn kept(records: &[Record]) -> Vec<Kept> {
    let mut kept: Vec<Kept> =
        records.iter().map(|record| Kept { name: record.name(), bytes: record.wire_len() as u64 }).collect();
    kept.sort_by_key(|kept| kept.name);
    kept
}

/// What is on these shelves of the repository; `0..256` are all.
async fn listed(repository: &Repository, shelves: Range<u16>) -> Vec<Kept> {
    let mut all = Vec::new();
    for first in shelves {
        let first = u8::try_from(first).expect("there are 256 shelves");
        all.extend(repository.list(first, soon()).await.expect("lists"));
    }
    all.sort_by_key(|kept| kept.name);
    all
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the packages of Ceph: tests/run.sh --long runs it"]
async fn a_real_engine_keeps_gives_lists_and_deletes_what_the_client_asks_for() {
    let mut ceph = Ceph::start().await;
    install_provider();
    one_of_many_gets_the_place(&ceph).await;
    objects_of_all_sizes_come_and_go(&ceph).await;
    a_shelf_has_more_than_one_page(&ceph).await;
    nothing_but_an_absence_is_one(&ceph).await;
    a_gateway_that_dies_costs_time(&mut ceph).await;
}

/// Of clusters that claim a place at once one gets it, and keeps it.
async fn one_of_many_gets_the_place(ceph: &Ceph) {
    for round in 0..4 {
        let settings = ceph.settings(&format!("round/{round}"));
        let clusters: Vec<_> = (0..8).map(|_| (ClusterId::generate(), opened(settings.clone()))).collect();
        let claimed = join_all(clusters.iter().map(|(cluster, repository)| repository.claim(*cluster, soon()))).await;
        let owners: Vec<_> = clusters.iter().zip(&claimed).filter(|(_, claimed)| claimed.is_ok()).collect();
        assert_eq!(owners.len(), 1, "{claimed:?}");
        let (owner, repository) = owners[0].0;
        repository.claim(*owner, soon()).await.expect("it is ours");
        let others = claimed.iter().filter_map(|claimed| claimed.as_ref().err());
        let refused = RepositoryError::OtherCluster(owner.to_string());
        assert!(others.clone().all(|error| *error == refused), "{:?}", others.collect::<Vec<_>>());
    }
}

async fn objects_of_all_sizes_come_and_go(ceph: &Ceph) {
    let repository = opened(ceph.settings("some/cluster"));
    repository.claim(ClusterId::generate(), soon()).await.expect("it is free");
    let largest = Record::BYTES_MAX - 1024;
    let sizes = (0..39).map(|n| n * 5000).chain([largest]);
    let records: Vec<Record> = sizes.enumerate().map(|(n, bytes)| record(n, bytes)).collect();
    let names: Vec<ObjectName> = records.iter().map(Record::name).collect();
    assert!(repository.get(names[0], soon()).await.expect("asks").is_none());
    assert_eq!(repository.len(names[0], soon()).await, Ok(None));
    repository.put_absent(&records, soon()).await.expect("puts");
    assert_eq!(repository.len(names[0], soon()).await, Ok(Some(records[0].wire_len() as u64)));
    repository.put_absent(&records, soon()).await.expect("puts again");
    assert_eq!(repository.counts().uploaded_objects, 40, "what is there is not sent again");
    repository.put(&records[3], soon()).await.expect("writes over it");
    for record in &records {
        let got = repository.get(record.name(), soon()).await.expect("asks").expect("is there");
        assert_eq!((got.stored(), got.body().round), (record.stored(), 7));
    }
    assert_eq!(listed(&repository, 0..256).await, kept(&records));
    for _ in 0..2 {
        repository.delete(&names[..25], soon()).await.expect("deletes, also what is not there any more");
    }
    assert_eq!(listed(&repository, 0..256).await, kept(&records[25..]));
    assert!(repository.get(names[0], soon()).await.expect("asks").is_none());
    assert!(repository.trouble().is_none());
}

/// A page of a listing has 1,000 keys at most, and so has a request to delete.
async fn a_shelf_has_more_than_one_page(ceph: &Ceph) {
    let repository = opened(ceph.settings("pages"));
    repository.claim(ClusterId::generate(), soon()).await.expect("it is free");
    let on_one_shelf = |record: &Record| record.name().as_bytes()[0] == 0xa7;
    let records: Vec<Record> = (0..).map(|n| record(n, 40)).filter(on_one_shelf).take(DELETE_NAMES_MAX + 100).collect();
    let names: Vec<ObjectName> = records.iter().map(Record::name).collect();
    repository.put_absent(&records, soon()).await.expect("puts");
    assert_eq!(listed(&repository, 0xa6..0xa9).await, kept(&records));
    repository.delete(&names[..DELETE_NAMES_MAX + 50], soon()).await.expect("deletes");
    assert_eq!(listed(&repository, 0xa6..0xa9).await, kept(&records[DELETE_NAMES_MAX + 50..]));
}

/// Neither a missing bucket nor keys or clocks that are wrong are told as an absence. Each has a name of its own.
async fn nothing_but_an_absence_is_one(ceph: &Ceph) {
    let all = async |settings: RepositorySettings| -> Vec<RepositoryError> {
        let (repository, record) = (opened(settings), record(1, 100));
        repository.assume_claimed();
        vec![
            repository.get(record.name(), soon()).await.map(drop).expect_err("get"),
            repository.len(record.name(), soon()).await.map(drop).expect_err("len"),
            repository.put(&record, soon()).await.expect_err("put"),
            repository.put_absent(std::slice::from_ref(&record), soon()).await.expect_err("put_absent"),
            repository.list(record.name().as_bytes()[0], soon()).await.map(drop).expect_err("list"),
            repository.delete(&[record.name()], soon()).await.expect_err("delete"),
            repository.check(soon()).await.expect_err("check"),
            repository.claim(ClusterId::generate(), soon()).await.expect_err("claim"),
        ]
    };
    let told = |why: &str| why.to_owned();
    let ours = || ceph.settings("some/cluster");
    let missing = all(RepositorySettings { bucket: "nothing".to_owned(), ..ours() }).await;
    assert_eq!(missing, vec![RepositoryError::Unavailable(told("NoSuchBucket")); 8]);

    let mut wrong = ours();
    wrong.keys.secret_access_key = "another".to_owned();
    assert_eq!(all(wrong).await, vec![RepositoryError::Refused(told("SignatureDoesNotMatch")); 8]);
    let mut unknown = ours();
    unknown.keys.access_key_id = "nobody".to_owned();
    assert_eq!(all(unknown).await, vec![RepositoryError::Refused(told("InvalidAccessKeyId")); 8]);
    ceph.add_user("stranger", "stranger-key");
    let mut stranger = ours();
    stranger.keys.access_key_id = "stranger-key".to_owned();
    assert_eq!(all(stranger).await, vec![RepositoryError::Refused(told("AccessDenied")); 8]);

    let ahead = ceph.gateway_ahead().await;
    let skewed = all(RepositorySettings { endpoint: Some(ahead.endpoint()), ..ours() }).await;
    assert_eq!(skewed, vec![RepositoryError::Clock(told("RequestTimeTooSkewed")); 8]);
}

/// A gateway dies while it is written to. What was not answered is written again, and is whole then.
async fn a_gateway_that_dies_costs_time(ceph: &mut Ceph) {
    let repository = opened(ceph.settings("dies"));
    repository.claim(ClusterId::generate(), soon()).await.expect("it is free");
    let records: Vec<Record> = (0..200).map(|n| record(1000 + n, 70_000)).collect();
    let shortly = Instant::now() + Duration::from_secs(3);
    let (put, ()) = tokio::join!(repository.put_absent(&records, shortly), async {
        while repository.counts().uploaded_objects < 20 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        ceph.kill_gateway();
    });
    let failed = put.expect_err("nobody answers any more");
    assert!(matches!(failed, RepositoryError::Unavailable(_)), "{failed}");
    let shortly = Instant::now() + Duration::from_secs(3);
    let failed = repository.get(records[0].name(), shortly).await.map(drop).expect_err("nobody answers");
    assert!(matches!(failed, RepositoryError::Unavailable(_)), "{failed}");
    assert!(repository.trouble().is_some());

    ceph.start_gateway().await;
    repository.put_absent(&records, soon()).await.expect("puts the rest");
    for record in &records {
        let got = repository.get(record.name(), soon()).await.expect("asks").expect("is there");
        assert_eq!(got.stored(), record.stored());
    }
    assert_eq!(listed(&repository, 0..256).await, kept(&records));
    assert!(repository.trouble().is_none());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the packages of Ceph: tests/run.sh --long runs it"]
async fn a_cluster_is_rebuilt_from_a_bucket_of_a_real_engine() {
    let ceph = Ceph::start().await;
    install_provider();
    let place = Place {
        endpoint: ceph.endpoint(),
        bucket: BUCKET.to_owned(),
        key_id: KEY_ID.to_owned(),
        secret: SECRET.to_owned(),
    };
    let repository = opened(ceph.settings("e2e"));
    rebuilds(&place, async || listed(&repository, 0..256).await.len()).await;
}
