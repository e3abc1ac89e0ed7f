//! The repository in a real engine: Ceph's S3 gateway (RGW) over a Ceph of one monitor and one OSD that the test starts. Debian has
//! it as packages, and it is up in twenty seconds. Garage would have to be built from source, and moto is a mock like our
//! own server. These tests run with `tests/run.sh --long`, which installs the packages and sets `MUSTER_TEST_CEPH`.

use std::time::Duration;

use muster_pool::{
    Repository, RepositoryError,
    repository::{Kept, testing::KEY_ID},
    tls::install_provider,
};
use muster_tests::ceph::{BUCKET, Ceph, SECRET};
use storage_core::{ClusterId, Compression, Kind, ObjectName, Record, Salt, repository::RepositorySettings};
use tokio::time::Instant;

use crate::repository::{Place, rebuilds};

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

/// A Ceph, if the packages for it are there.
async fn ceph() -> Option<Ceph> {
    if std::env::var_os("MUSTER_TEST_CEPH").is_none() {
        println!("skipped: tests/run.sh --long runs it");
        return None;
    }
    Some(Ceph::start().await)
}

/// All that is in the repository.
async fn listed(repository: &Repository) -> Vec<Kept> {
    let mut all = Vec::new();
    for first in 0..=255 {
        all.extend(repository.list(first, soon()).await.expect("lists"));
    }
    all.sort_by_key(|kept| kept.name);
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_engine_keeps_gives_lists_and_deletes_what_the_client_asks_for() {
    let Some(ceph) = ceph().await else { return };
    install_provider();
    let opened = |settings: RepositorySettings| Repository::open(settings).expect("opens");
    let repository = opened(ceph.settings("some/cluster"));
    let (ours, theirs) = (ClusterId::generate(), ClusterId::generate());
    repository.claim(ours, soon()).await.expect("it is free");
    repository.claim(ours, soon()).await.expect("it is ours");
    let another = opened(ceph.settings("some/cluster")).claim(theirs, soon()).await.expect_err("it is not theirs");
    assert_eq!(another, RepositoryError::OtherCluster(ours.to_string()));

    // Enough for several pages of a shelf are many; a few of all sizes do.
    let record = |n: usize| {
        let body: Vec<u8> = (0..(n + 1) * 5000).map(|at| (at * 31 + n) as u8 | 1).collect();
        Record::encode(Kind::Pack, Salt::SHARED, None, &body, Compression::Off).with_round(7)
    };
    let records: Vec<Record> = (0..40).map(record).collect();
    let names: Vec<ObjectName> = records.iter().map(Record::name).collect();
    assert_eq!(repository.len(names[0], soon()).await, Ok(None));
    assert!(repository.get(names[0], soon()).await.expect("asks").is_none());
    repository.put_absent(&records, soon()).await.expect("puts");
    repository.put_absent(&records, soon()).await.expect("puts again");
    assert_eq!(repository.counts().uploaded_objects, 40, "what is there is not sent again");
    for record in &records {
        let got = repository.get(record.name(), soon()).await.expect("asks").expect("is there");
        assert_eq!((got.stored(), got.body().round), (record.stored(), 7));
    }
    let mut kept: Vec<Kept> =
        records.iter().map(|record| Kept { name: record.name(), bytes: record.wire_len() as u64 }).collect();
    kept.sort_by_key(|kept| kept.name);
    assert_eq!(listed(&repository).await, kept);
    for _ in 0..2 {
        repository.delete(&names[..25], soon()).await.expect("deletes, also what is not there any more");
    }
    assert_eq!(listed(&repository).await.len(), 15);
    assert!(repository.get(names[0], soon()).await.expect("asks").is_none());
    assert!(repository.trouble().is_none());

    // Neither a missing bucket nor a wrong key is an absence.
    let missing = opened(RepositorySettings { bucket: "nothing".to_owned(), ..ceph.settings("x") });
    let failed = missing.get(names[30], soon()).await.expect_err("there is no bucket");
    assert!(failed.to_string().contains("NoSuchBucket"), "{failed}");
    let mut wrong = ceph.settings("some/cluster");
    wrong.keys.secret_access_key = "another".to_owned();
    let refused = opened(wrong).get(names[30], soon()).await.expect_err("the key is wrong");
    assert!(matches!(refused, RepositoryError::Refused(_)), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_rebuilt_from_a_bucket_of_a_real_engine() {
    let Some(ceph) = ceph().await else { return };
    install_provider();
    let place = Place {
        endpoint: ceph.endpoint(),
        bucket: BUCKET.to_owned(),
        key_id: KEY_ID.to_owned(),
        secret: SECRET.to_owned(),
    };
    let repository = Repository::open(ceph.settings("e2e")).expect("opens");
    rebuilds(&place, async || listed(&repository).await.len()).await;
}
