//! The checks of images, versions, uploads and rounds.

use std::collections::{BTreeMap, BTreeSet};

use muster_api::{
    CommitId, DiskId, ImageId, InstanceId, Labels, SnapshotId, VersionId, firmware::BootKind, firmware::Firmware,
    image::ImageState,
};
use muster_controller::{
    domain::{images::Properties, versions::Content},
    store::{
        Store, StoreError, disks,
        images::{self, ImageFilter, NewImage},
        keepers::{self, Keeper},
        uploads::{self, NewUpload, UploadTarget},
        versions::{self, NewVersion, Of, VersionFilter},
    },
};
use storage_core::{ByteLen, ChunkSize, Descriptor, Kind, ObjectName, Salt};

use super::{Fresh, checks::Check};

macro_rules! checks {
    ($($name:ident,)*) => {
        pub(crate) const ALL: &[(&str, Check)] = &[$((stringify!($name), |fresh| Box::pin($name(fresh))),)*];
    };
}

checks! {
    an_image_name_is_unique_among_the_living_of_a_project,
    versions_come_back_as_they_were_published,
    the_newest_version_is_the_highest_number_left,
    a_commit_is_published_once,
    a_number_is_taken_by_one_of_two,
    one_upload_per_image_is_live,
    an_upload_counts_for_two_rounds,
    leases_run_out,
    what_stays_is_what_is_linked_or_held_by_a_disk,
    versions_of_a_snapshot_share_its_name_and_end,
}

fn content(seed: u8) -> Content {
    let page = vec![seed; 100];
    let root = Some(ObjectName::of(Kind::Page, Salt::SHARED, &page));
    let descriptor = Descriptor { root, ..Descriptor::empty(ByteLen(4096), ChunkSize::DEFAULT, Salt::SHARED) };
    Content::new(descriptor, Some(page)).unwrap()
}

fn version(of: Of, seed: u8) -> NewVersion {
    NewVersion {
        id: VersionId::generate(),
        project: "default".to_owned(),
        labels: Labels::default(),
        of,
        parent: None,
        content: content(seed),
        digest: None,
        stored_bytes: 7,
        reached_bytes: None,
        boot: BootKind::Unknown,
        firmware: Firmware::Bios,
        upload: None,
    }
}

fn of_disk(snapshot: Option<SnapshotId>) -> Of {
    Of::Disk {
        instance: InstanceId::generate(),
        instance_name: "web.0".to_owned(),
        disk: DiskId::generate(),
        disk_name: "root".to_owned(),
        snapshot: snapshot.map(|id| (id, "snap".to_owned())),
        commit: Some(CommitId::generate()),
    }
}

async fn image(store: &Store, name: &str) -> ImageId {
    let new = NewImage {
        id: ImageId::generate(),
        name: name.to_owned(),
        project: "default".to_owned(),
        labels: Labels::default(),
        chunk_bytes: 262_144,
        properties: Properties::default(),
    };
    store.run_tx("t", async |tx| images::insert(tx, &new).await).await.unwrap();
    new.id
}

/// Publishes the image's next number.
async fn publish(store: &Store, image: ImageId, seed: u8) -> VersionId {
    let publish = store.run_tx("t", async |tx| {
        let row = images::load(tx, image).await?.unwrap();
        let number = images::take_number(tx, &row).await?;
        let new = version(Of::Image { image, number }, seed);
        versions::insert(tx, &new).await?;
        Ok::<_, StoreError>(new.id)
    });
    publish.await.unwrap()
}

async fn an_image_name_is_unique_among_the_living_of_a_project(fresh: Fresh) {
    let store = fresh.open().await;
    let first = image(&store, "base").await;
    let again = NewImage {
        id: ImageId::generate(),
        name: "base".to_owned(),
        project: "default".to_owned(),
        labels: Labels::default(),
        chunk_bytes: 262_144,
        properties: Properties::default(),
    };
    let taken = store.run_tx("t", async |tx| images::insert(tx, &again).await).await.unwrap_err();
    assert!(taken.is_unique_violation(), "{taken}");
    let elsewhere = NewImage { id: ImageId::generate(), project: "other".to_owned(), ..again.clone() };
    store.run_tx("t", async |tx| images::insert(tx, &elsewhere).await).await.unwrap();
    let unlink = store.run_tx("t", async |tx| {
        let row = images::load(tx, first).await?.unwrap();
        images::unlink(tx, &row).await?;
        let again = images::unlink(tx, &row).await;
        assert!(matches!(again, Err(StoreError::Conflict { .. })));
        Ok::<_, StoreError>(())
    });
    unlink.await.unwrap();
    store.run_tx("t", async |tx| images::insert(tx, &again).await).await.unwrap();
    let list = async |project: Option<&str>, deleted| {
        let filter = ImageFilter { project: project.map(str::to_owned), deleted };
        let rows = store.read("t", async |tx| images::list(tx, &filter, 0, 100).await).await.unwrap();
        rows.into_iter().map(|row| row.image.id).collect::<Vec<_>>()
    };
    assert_eq!(list(Some("default"), false).await, [again.id]);
    assert_eq!(list(Some("default"), true).await, [first, again.id]);
    assert_eq!(list(None, false).await, [elsewhere.id, again.id]);
    fresh.clock.advance_ms(25 * 3600 * 1000);
    assert_eq!(list(Some("default"), true).await, [again.id]);
}

async fn versions_come_back_as_they_were_published(fresh: Fresh) {
    let store = fresh.open().await;
    let base = image(&store, "base").await;
    let of_image = NewVersion {
        digest: Some("ab".to_owned()),
        reached_bytes: Some(9),
        boot: BootKind::UefiOnly,
        firmware: Firmware::Uefi,
        ..version(Of::Image { image: base, number: 1 }, 1)
    };
    let of_disk = NewVersion { parent: Some(of_image.id), ..version(of_disk(Some(SnapshotId::generate())), 2) };
    let insert = store.run_tx("t", async |tx| {
        versions::insert(tx, &of_image).await?;
        versions::insert(tx, &of_disk).await
    });
    insert.await.unwrap();
    let load = async |id| store.read("t", async |tx| versions::load(tx, id).await).await.unwrap().unwrap();
    let row = load(of_image.id).await;
    assert_eq!((&row.content, row.reached_bytes, row.commit), (&of_image.content, Some(9), None));
    assert_eq!((row.version.name.as_str(), row.version.image, row.version.number), ("base@1", Some(base), Some(1)));
    assert_eq!((row.version.digest.as_deref(), row.version.stored_bytes), (Some("ab"), 7));
    assert_eq!(row.version.root, of_image.content.root().to_string());
    assert_eq!(row.version.parent, None);
    let row = load(of_disk.id).await;
    assert_eq!(row.version.parent, Some(of_image.id));
    assert_eq!((row.version.name.as_str(), row.version.image, row.reached_bytes), ("snap/web.0", None, None));
    let root = &store.read("t", async |tx| versions::roots(tx, &[of_disk.id], None).await).await.unwrap()[&of_disk.id];
    assert_eq!(Content::from_root(root).unwrap(), of_disk.content);
    assert_eq!(root.commit, row.commit);
    let filter = VersionFilter { instance: row.version.instance, ..VersionFilter::default() };
    let found = store.read("t", async |tx| versions::list(tx, &filter, 0, 10).await).await.unwrap();
    assert_eq!(found.into_iter().map(|row| row.version.id).collect::<Vec<_>>(), [of_disk.id]);
}

async fn the_newest_version_is_the_highest_number_left(fresh: Fresh) {
    let store = fresh.open().await;
    let base = image(&store, "base").await;
    let state = async || {
        let row = store.read("t", async |tx| images::load(tx, base).await).await.unwrap().unwrap();
        (row.image.state, row.image.newest_number, row.image.version_count, row.last_number)
    };
    assert_eq!(state().await, (ImageState::Empty, None, 0, 0));
    let first = publish(&store, base, 1).await;
    let second = publish(&store, base, 2).await;
    assert_eq!(state().await, (ImageState::Ready, Some(2), 2, 2));
    let unlink = async |id| {
        let unlink = store.run_tx("t", async |tx| {
            let row = versions::load(tx, id).await?.unwrap();
            versions::unlink(tx, &row).await?;
            images::settle(tx, base).await
        });
        unlink.await.unwrap();
    };
    unlink(second).await;
    assert_eq!(state().await, (ImageState::Ready, Some(1), 1, 2));
    publish(&store, base, 3).await;
    assert_eq!(state().await, (ImageState::Ready, Some(3), 2, 3));
    unlink(first).await;
    store.run_tx("t", async |tx| versions::unlink_image(tx, base).await).await.unwrap();
    store.run_tx("t", async |tx| images::settle(tx, base).await).await.unwrap();
    assert_eq!(state().await, (ImageState::Empty, None, 0, 3));
}

async fn a_commit_is_published_once(fresh: Fresh) {
    let store = fresh.open().await;
    let first = version(of_disk(None), 1);
    let again = NewVersion { id: VersionId::generate(), ..first.clone() };
    store.run_tx("t", async |tx| versions::insert(tx, &first).await).await.unwrap();
    let twice = store.run_tx("t", async |tx| versions::insert(tx, &again).await).await.unwrap_err();
    assert!(twice.is_unique_violation(), "{twice}");
    let Of::Disk { commit: Some(commit), .. } = first.of else { unreachable!("made so above") };
    let found = store.read("t", async |tx| versions::by_commit(tx, commit).await).await.unwrap().unwrap();
    assert_eq!(found, first.id);
}

async fn a_number_is_taken_by_one_of_two(fresh: Fresh) {
    let store = fresh.open().await;
    let base = image(&store, "base").await;
    let seen = store.read("t", async |tx| images::load(tx, base).await).await.unwrap().unwrap();
    publish(&store, base, 1).await;
    let late = store.run_tx("t", async |tx| images::take_number(tx, &seen).await).await;
    assert!(matches!(late, Err(StoreError::Conflict { .. })), "{late:?}");
}

fn upload(target: UploadTarget, id: &str, until: muster_api::Timestamp) -> NewUpload {
    NewUpload { project: "default".to_owned(), target, target_id: id.to_owned(), until }
}

async fn one_upload_per_image_is_live(fresh: Fresh) {
    let store = fresh.open().await;
    let begin = async |target, id: &str| {
        let begin = store.run_tx("t", async |tx| {
            let new = upload(target, id, tx.now().plus_ms(1000));
            uploads::begin(tx, &new).await
        });
        begin.await
    };
    let first = begin(UploadTarget::Image, "a").await.unwrap();
    assert!(begin(UploadTarget::Image, "a").await.unwrap_err().is_unique_violation());
    begin(UploadTarget::Image, "b").await.unwrap();
    begin(UploadTarget::Snapshot, "s").await.unwrap();
    begin(UploadTarget::Snapshot, "s").await.unwrap();
    let end = store.run_tx("t", async |tx| {
        uploads::end(tx, first.id).await?;
        uploads::end(tx, first.id).await?;
        assert_eq!(uploads::live(tx, first.id).await?, None);
        assert!(!uploads::renew(tx, first.id, tx.now()).await?);
        Ok::<_, StoreError>(())
    });
    end.await.unwrap();
    let second = begin(UploadTarget::Image, "a").await.unwrap();
    let live = store.read("t", async |tx| uploads::live_of(tx, UploadTarget::Image, "a").await).await.unwrap();
    assert_eq!(live, Some(second));
    assert_eq!(store.run_tx("t", async |tx| uploads::end_imports(tx).await).await.unwrap(), 2);
}

async fn an_upload_counts_for_two_rounds(fresh: Fresh) {
    let store = fresh.open().await;
    let begin = async || {
        let begin = store.run_tx("t", async |tx| {
            let new = upload(UploadTarget::Snapshot, "d", tx.now().plus_ms(1000));
            uploads::begin(tx, &new).await
        });
        begin.await.unwrap()
    };
    let next = async || store.run_tx("t", async |tx| uploads::begin_round(tx).await).await.unwrap();
    let live = async |id| store.read("t", async |tx| uploads::live(tx, id).await).await.unwrap();
    let old = begin().await;
    assert_eq!(old.round, 1);
    assert_eq!(next().await, Some(2));
    assert_eq!(live(old.id).await, Some(old), "one round old");
    let new = begin().await;
    assert_eq!(new.round, 2);
    assert_eq!(next().await, None, "not while an upload of round 1 is live");
    store.run_tx("t", async |tx| uploads::end(tx, old.id).await).await.unwrap();
    assert_eq!(next().await, Some(3));
    assert_eq!((live(old.id).await, live(new.id).await), (None, Some(new)));
}

async fn leases_run_out(fresh: Fresh) {
    let store = fresh.open().await;
    let begin = store.run_tx("t", async |tx| {
        let new = upload(UploadTarget::Image, "a", tx.now().plus_ms(1000));
        uploads::begin(tx, &new).await
    });
    let upload = begin.await.unwrap();
    let live_of =
        async || store.read("t", async |tx| uploads::live_of(tx, UploadTarget::Image, "a").await).await.unwrap();
    fresh.clock.advance_ms(900);
    let renew = store.run_tx("t", async |tx| {
        let until = tx.now().plus_ms(1000);
        uploads::renew(tx, upload.id, until).await
    });
    assert!(renew.await.unwrap());
    fresh.clock.advance_ms(900);
    assert_eq!(live_of().await, Some(upload));
    fresh.clock.advance_ms(200);
    assert_eq!(live_of().await, None);
    assert_eq!(store.run_tx("t", async |tx| uploads::end_overdue(tx).await).await.unwrap(), 1);
    assert_eq!(store.run_tx("t", async |tx| uploads::end_overdue(tx).await).await.unwrap(), 0);
}

async fn what_stays_is_what_is_linked_or_held_by_a_disk(fresh: Fresh) {
    let store = fresh.open().await;
    let base = image(&store, "base").await;
    let first = publish(&store, base, 1).await;
    let second = publish(&store, base, 2).await;
    let held = async |gone: &[VersionId], limit| {
        let kept = store.read("t", async |tx| {
            let Some(all) = keepers::list(tx, Some("default"), limit).await? else { return Ok(None) };
            let stays = |(id, keeper): &(VersionId, Keeper)| !matches!(keeper, Keeper::Link(..)) || !gone.contains(id);
            let kept: Vec<VersionId> = all.into_iter().filter(stays).map(|(id, _)| id).collect();
            Ok::<_, StoreError>(Some(keepers::descriptors(tx, &kept).await?))
        });
        let roots = |kept: BTreeMap<_, Descriptor>| kept.into_values().map(|one| one.name()).collect::<BTreeSet<_>>();
        kept.await.unwrap().map(roots)
    };
    let [one, two] = [1, 2].map(|seed| *content(seed).descriptor());
    publish(&store, base, 2).await;
    assert_eq!(held(&[], 10).await, Some([one.name(), two.name()].into()), "each root once");
    assert_eq!(held(&[first], 10).await, Some([two.name()].into()));
    assert_eq!(held(&[second], 10).await, Some([one.name(), two.name()].into()), "another version has it too");
    assert_eq!(held(&[], 1).await, None, "too many to look at");
    let detached = store.run_tx("t", async |tx| {
        let insert =
            "INSERT INTO detached_disks (id, project, name, size_bytes, version, instance, instance_name, created_at,
            updated_at, seq) VALUES ('d', 'default', 'data', 4096, $1, 'i', 'web.0', 1, 1, 1)";
        sqlx::query(insert).bind(first.to_string()).execute(tx.conn()).await?;
        disks::count(tx).await
    });
    assert_eq!(detached.await.unwrap(), (1, 0));
    assert_eq!(
        held(&[first], 10).await,
        Some([one.name(), two.name()].into()),
        "a disk of no instance holds its version"
    );
    let live = async |limit| store.read("t", async |tx| versions::live_roots(tx, Some("default"), limit).await).await;
    assert_eq!((live(1).await.unwrap(), live(9).await.unwrap()), (vec![two], vec![two, one]));
}

async fn versions_of_a_snapshot_share_its_name_and_end(fresh: Fresh) {
    let store = fresh.open().await;
    let snapshot = SnapshotId::generate();
    let all = [version(of_disk(Some(snapshot)), 1), version(of_disk(Some(snapshot)), 2)];
    let insert = store.run_tx("t", async |tx| {
        for new in &all {
            versions::insert(tx, new).await?;
        }
        versions::rename_snapshot(tx, snapshot, "better").await
    });
    insert.await.unwrap();
    let found = async || {
        let rows = store.read("t", async |tx| versions::of_snapshot(tx, snapshot).await).await.unwrap();
        rows.into_iter().map(|row| row.version.name).collect::<Vec<_>>()
    };
    assert_eq!(found().await, ["better/web.0", "better/web.0"]);
    let unlink = async || store.run_tx("t", async |tx| versions::unlink_snapshot(tx, snapshot).await).await.unwrap();
    assert_eq!((unlink().await, unlink().await), (2, 0));
    assert_eq!(found().await, Vec::<String>::new());
    let roots = store.read("t", async |tx| versions::roots(tx, &[all[0].id], None).await).await.unwrap();
    assert!(!roots.is_empty(), "disks that began with it go on reading it");
}
