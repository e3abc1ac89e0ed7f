use std::{collections::BTreeMap, time::Duration};

use storage_core::{ClusterId, Compression, Kind, Salt};

use super::{
    testing::{BUCKET, Question, TestStore, Trouble},
    *,
};
use crate::tls::install_provider;

fn record(text: &str) -> Record {
    Record::encode(Kind::Pack, Salt::SHARED, None, text.repeat(300).as_bytes(), Compression::Off).with_round(7)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

fn very_soon() -> Instant {
    Instant::now() + Duration::from_millis(1500)
}

async fn opened(store: &TestStore) -> Repository {
    install_provider();
    let repository = Repository::open(store.settings()).expect("opens");
    repository.assume_claimed();
    repository
}

#[tokio::test]
async fn what_was_put_comes_back_proven_until_it_is_deleted() {
    let store = TestStore::start().await;
    let repository = opened(&store).await;
    let records: Vec<Record> = (0..20).map(|n| record(&n.to_string())).collect();
    let names: Vec<ObjectName> = records.iter().map(Record::name).collect();
    assert!(repository.get(names[0], soon()).await.expect("asks").is_none());
    assert_eq!(repository.len(names[0], soon()).await, Ok(None));
    repository.put_absent(&records, soon()).await.expect("puts");
    repository.put_absent(&records, soon()).await.expect("puts again");
    assert_eq!(store.asked().puts, 20, "what is there is not sent again");
    for record in &records {
        let got = repository.get(record.name(), soon()).await.expect("asks").expect("is there");
        assert!(got.is_proven());
        assert_eq!((got.stored(), got.body().round), (record.stored(), 7));
        let key = format!("some/cluster/objects/{}/{}", &record.name().to_string()[..2], record.name());
        assert!(store.keys().contains(&key), "{key}");
    }
    let mut listed = Vec::new();
    for first in 0..=255 {
        listed.extend(repository.list(first, soon()).await.expect("lists"));
    }
    listed.sort_by_key(|kept| kept.name);
    let mut all: Vec<Kept> = records.iter().map(|r| Kept { name: r.name(), bytes: u64_from(r.wire_len()) }).collect();
    all.sort_by_key(|kept| kept.name);
    assert_eq!(listed, all);
    repository.delete(&names[..15], soon()).await.expect("deletes");
    repository.delete(&names[..15], soon()).await.expect("deletes again");
    assert_eq!(store.objects(), 5);
    assert!(repository.get(names[0], soon()).await.expect("asks").is_none());
    assert!(repository.trouble().is_none());
    assert_eq!(repository.counts().uploaded_objects, 20);
}

#[tokio::test]
async fn a_listing_has_more_than_one_page() {
    let store = TestStore::start().await;
    let repository = opened(&store).await;
    let on_one_shelf: Vec<Record> =
        (0..).map(|n: u32| record(&n.to_string())).filter(|r| r.name().as_bytes()[0] < 4).take(30).collect();
    repository.put_absent(&on_one_shelf, soon()).await.expect("puts");
    let mut found = 0;
    for first in 0..4 {
        found += repository.list(first, soon()).await.expect("lists").len();
    }
    assert_eq!(found, 30);
}

#[tokio::test]
async fn a_busy_store_is_asked_again_within_the_deadline() {
    let store = TestStore::start().await;
    let repository = opened(&store).await;
    let record = record("x");
    store.set_trouble(Trouble::Busy(2));
    repository.put(&record, soon()).await.expect("the third try works");
    store.set_trouble(Trouble::Busy(2));
    assert!(repository.get(record.name(), soon()).await.expect("the third try works").is_some());
    store.set_trouble(Trouble::Status(503));
    let failed = repository.get(record.name(), very_soon()).await.expect_err("it is always busy");
    assert!(matches!(failed, RepositoryError::Unavailable(_)), "{failed}");
    assert!(repository.trouble().is_some());
    store.set_trouble(Trouble::None);
    assert!(repository.get(record.name(), soon()).await.expect("it works again").is_some());
    assert!(repository.trouble().is_none());
}

#[tokio::test]
async fn every_call_ends_at_its_deadline() {
    let store = TestStore::start().await;
    let repository = opened(&store).await;
    store.set_trouble(Trouble::Stall);
    let (name, late) = (record("x").name(), RepositoryError::late());
    assert_eq!(repository.get(name, very_soon()).await.map(drop), Err(late.clone()));
    assert_eq!(repository.put(&record("x"), very_soon()).await, Err(late.clone()));
    assert_eq!(repository.delete(&[name], very_soon()).await, Err(late.clone()));
    assert_eq!(repository.len(name, very_soon()).await, Err(late.clone()));
    assert_eq!(repository.shown_len(name, very_soon()).await, Err(late.clone()));
    assert_eq!(repository.list(0, very_soon()).await.map(drop), Err(late));
}

#[tokio::test]
async fn lost_keys_are_told_as_such_and_never_as_absence() {
    let store = TestStore::start().await;
    let repository = opened(&store).await;
    let record = record("x");
    repository.put(&record, soon()).await.expect("puts");
    store.take_only_key("second-key");
    let refused = |error: RepositoryError| match error {
        RepositoryError::Refused(why) => assert!(why.contains("InvalidAccessKeyId"), "{why}"),
        other => panic!("{other}"),
    };
    refused(repository.get(record.name(), soon()).await.expect_err("refused"));
    refused(repository.put(&record, soon()).await.expect_err("refused"));
    refused(repository.list(record.name().as_bytes()[0], soon()).await.expect_err("refused"));
    let since = repository.trouble().expect("a trouble").since;
    refused(repository.len(record.name(), soon()).await.expect_err("refused, and the reason is known all the same"));
    assert_eq!(repository.trouble().expect("a trouble").since, since);
    // The new key comes with a new client.
    let mut settings = store.settings();
    settings.keys.access_key_id = "second-key".to_owned();
    let renewed = Repository::open(settings).expect("opens");
    assert!(renewed.get(record.name(), soon()).await.expect("asks").is_some());
}

#[tokio::test]
async fn a_missing_bucket_is_no_absence() {
    let store = TestStore::start().await;
    install_provider();
    let settings = RepositorySettings { bucket: format!("{BUCKET}2"), ..store.settings() };
    let repository = Repository::open(settings).expect("opens");
    let failed = repository.get(record("x").name(), soon()).await.expect_err("there is no bucket");
    assert!(failed.to_string().contains("NoSuchBucket"), "{failed}");
    let failed = repository.len(record("x").name(), soon()).await.expect_err("there is no bucket");
    assert!(failed.to_string().contains("NoSuchBucket"), "{failed}");
    // What only may be an absence does not hide the trouble.
    let since = repository.trouble().expect("a trouble").since;
    assert_eq!(repository.shown_len(record("x").name(), soon()).await, Ok(None));
    assert_eq!(repository.trouble().expect("still a trouble").since, since);
    repository.assume_claimed();
    let failed = repository.put_absent(&[record("x")], soon()).await.expect_err("there is no bucket");
    assert!(failed.to_string().contains("NoSuchBucket"), "{failed}");
}

#[tokio::test]
async fn keys_that_may_not_list_are_told_as_refused_too() {
    let store = TestStore::start().await;
    let repository = opened(&store).await;
    store.set_trouble(Trouble::Refused("SignatureDoesNotMatch"));
    let refused = RepositoryError::Refused("SignatureDoesNotMatch".to_owned());
    assert_eq!(repository.list(0, soon()).await.map(drop), Err(refused.clone()));
    assert_eq!(repository.delete(&[record("x").name()], soon()).await, Err(refused.clone()));
    assert_eq!(repository.len(record("x").name(), soon()).await, Err(refused));
}

#[tokio::test]
async fn clocks_that_differ_are_told_as_such_and_not_as_wrong_keys() {
    let store = TestStore::start().await;
    let repository = opened(&store).await;
    let record = record("x");
    store.set_trouble(Trouble::Refused("RequestTimeTooSkewed"));
    let skewed = RepositoryError::Clock("RequestTimeTooSkewed".to_owned());
    assert_eq!(repository.get(record.name(), soon()).await.map(drop), Err(skewed.clone()));
    assert_eq!(repository.put_absent(&[record], soon()).await, Err(skewed.clone()));
    assert_eq!(repository.list(0, soon()).await.map(drop), Err(skewed.clone()));
    assert_eq!(repository.check(soon()).await, Err(skewed));
}

#[tokio::test]
async fn torn_and_damaged_answers_are_never_served() {
    let store = TestStore::start().await;
    let repository = opened(&store).await;
    let record = record("x");
    let name = record.name();
    repository.put(&record, soon()).await.expect("puts");
    store.set_trouble(Trouble::Flipped);
    assert!(repository.get(name, soon()).await.expect("asks").is_none());
    assert_eq!((repository.counts().bad_bodies, repository.take_bad()), (1, BTreeSet::from([name])));
    assert!(repository.take_bad().is_empty());
    store.set_trouble(Trouble::Torn);
    match repository.get(name, very_soon()).await {
        Ok(None) | Err(RepositoryError::Unavailable(_)) => {}
        other => panic!("{other:?}"),
    }
    store.set_trouble(Trouble::None);
    assert!(repository.get(name, soon()).await.expect("asks").is_some());
    // What lies there is not the object: another one, half of it, nothing, far too much.
    let key = store.settings().object_key(&name);
    let other = Bytes::from(self::record("y").to_bytes());
    let half = Bytes::from(record.to_bytes()).slice(..record.wire_len() / 2);
    for body in [other, half, Bytes::new(), Bytes::from(vec![1; Record::BYTES_MAX + 1])] {
        store.change(&key, |_| Some(body.clone()));
        assert!(repository.get(name, soon()).await.expect("asks").is_none(), "{} bytes", body.len());
    }
}

/// What lies in the store, by key.
fn inside(store: &TestStore) -> BTreeMap<String, Bytes> {
    let body = |key: String| {
        let mut found = None;
        store.change(&key, |body| {
            found.clone_from(&body);
            body
        });
        (key, found.expect("it has a body"))
    };
    store.keys().into_iter().map(body).collect()
}

/// Asks everything that leads to such a question. A kind that is new needs a line here.
async fn ask(repository: &Repository, question: Question, ours: ClusterId, there: &[Record], new: &Record) {
    let names: Vec<ObjectName> = there.iter().map(Record::name).collect();
    match question {
        Question::Get => {
            // A note that cannot be read is another's, and then nothing is written.
            let _refused = repository.claim(ours, very_soon()).await;
            for record in there {
                if let Ok(Some(got)) = repository.get(record.name(), very_soon()).await {
                    assert_eq!((got.name(), got.stored()), (record.name(), record.stored()));
                }
            }
        }
        // Whatever it is told: what is there is what was given.
        Question::Head => repository.put_absent(there, soon()).await.expect("puts"),
        Question::Put => drop(repository.put(new, very_soon()).await),
        // The client deletes many at a time.
        Question::Delete => {}
        Question::DeleteMany => drop(repository.delete(&names[..2], very_soon()).await),
        Question::List => {
            let mut listed = Vec::new();
            for first in names.iter().map(|name| name.as_bytes()[0]).collect::<BTreeSet<_>>() {
                listed.extend(repository.list(first, very_soon()).await.unwrap_or_default());
            }
            assert!(listed.len() <= names.len(), "{listed:?}");
        }
    }
}

#[tokio::test]
async fn a_flipped_bit_in_any_question_or_answer_leaves_what_is_stored_as_it_is() {
    let (mut refused, ours) = (0, ClusterId::generate());
    let there: Vec<Record> = (0..4).map(|n| record(&n.to_string())).collect();
    let new = record("new");
    for question in Question::ALL {
        let store = TestStore::start().await;
        let repository = opened(&store).await;
        repository.claim(ours, soon()).await.expect("it is free");
        repository.put_absent(&there, soon()).await.expect("puts");
        let before = inside(&store);
        let may_go = store.settings().object_key(&there[0].name());
        let may_go = [may_go, store.settings().object_key(&there[1].name())];
        let new_key = store.settings().object_key(&new.name());
        for seed in 0..60 {
            for trouble in [Trouble::FlippedRequests(question, seed), Trouble::FlippedAnswers(question, seed)] {
                store.set_trouble(trouble);
                ask(&repository, question, ours, &there, &new).await;
                store.set_trouble(Trouble::None);
                let mut now = inside(&store);
                match now.remove(&new_key) {
                    Some(body) => assert_eq!(body, Bytes::from(new.to_bytes()), "{trouble:?}"),
                    None if trouble == Trouble::FlippedRequests(Question::Put, seed) => refused += 1,
                    None => {}
                }
                for (key, body) in &before {
                    let is_deleted = question == Question::DeleteMany && may_go.contains(key);
                    assert!(now.get(key).map_or(is_deleted, |now| now == body), "{trouble:?}: {key}");
                }
                assert!(now.len() <= before.len(), "{trouble:?}");
                repository.delete(&[new.name()], soon()).await.expect("deletes");
                repository.put_absent(&there, soon()).await.expect("puts");
            }
        }
        assert_eq!(inside(&store), before);
    }
    assert_eq!(refused, 60, "every damaged put is refused");
}

#[tokio::test]
async fn a_place_belongs_to_one_cluster() {
    let store = TestStore::start().await;
    install_provider();
    let repository = Repository::open(store.settings()).expect("opens");
    let (ours, theirs) = (ClusterId::generate(), ClusterId::generate());
    assert!(repository.put(&record("x"), soon()).await.is_err(), "nobody has claimed it");
    assert!(repository.delete(&[record("x").name()], soon()).await.is_err(), "nobody has claimed it");
    repository.claim(ours, soon()).await.expect("it is free");
    repository.claim(ours, soon()).await.expect("it is ours");
    repository.put(&record("x"), soon()).await.expect("puts");
    let another = Repository::open(store.settings()).expect("opens");
    let refused = another.claim(theirs, soon()).await.expect_err("it is not theirs");
    assert_eq!(refused, RepositoryError::OtherCluster(ours.to_string()));
    assert!(!another.is_claimed());
}
