//! A node brings an object once, whatever number of its disks wants it at the same time.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::BTreeMap,
    fs::File,
    os::unix::fs::{FileExt, OpenOptionsExt},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::world::*;
use crate::pass_on::pass_on;
use muster_agent::mirror::DiskWant;
use muster_api::{DiskId, InstanceId};
use storage_core::{
    ChunkSize, Kind, ObjectName, VerifiedObject,
    store::{ChunkStore, MemoryStore, StoreError},
};

const CHUNK: usize = 64 << 10;
const DISKS: usize = 6;
const READERS: usize = 24;

/// Counts how often each object is read. While it is closed, reads wait.
#[derive(Default)]
struct Counting {
    store: MemoryStore,
    reads: Mutex<BTreeMap<ObjectName, (Kind, u32)>>,
    closed: Mutex<bool>,
    opened: Condvar,
}

impl Counting {
    fn close(&self) {
        self.reads.lock().unwrap().clear();
        *self.closed.lock().unwrap() = true;
    }

    fn open(&self) {
        *self.closed.lock().unwrap() = false;
        self.opened.notify_all();
    }
}

impl ChunkStore for Counting {
    fn load(&self, name: &ObjectName) -> Result<Option<VerifiedObject>, StoreError> {
        let closed = self.opened.wait_while(self.closed.lock().unwrap(), |closed| *closed).unwrap();
        drop(closed);
        let object = self.store.load(name)?;
        if let Some(object) = &object {
            self.reads.lock().unwrap().entry(*name).or_insert((object.kind, 0)).1 += 1;
        }
        Ok(object)
    }
    pass_on!(store: put touch remove sync get find list usage take_bad_copies);
}

async fn many_readers_of_one_node(memory_bytes_max: u64) {
    // Two pages below the root: the first one is needed to mount the disks, the second one to read what is behind.
    const PER_PAGE: usize = 256 * CHUNK;
    let mut bytes = vec![0; PER_PAGE + 3 * CHUNK];
    let written = Rng(31).bytes(3 * CHUNK);
    bytes[PER_PAGE..].copy_from_slice(&written);
    bytes[..CHUNK].copy_from_slice(&Rng(32).bytes(CHUNK));
    let data = DataDir::new();
    let mut config = config(&data);
    config.memory_bytes_max = memory_bytes_max;
    let store = Arc::new(Counting::default());
    let want = import(&store.store, &bytes, ChunkSize::MIN);
    let world = World::open(data, config, store.clone()).await;
    let mut paths = Vec::new();
    for _ in 0..DISKS {
        let another = DiskWant { disk: DiskId::generate(), instance: InstanceId::generate(), ..want.clone() };
        paths.push(world.ensure(&another).await.path);
    }
    store.close();
    let begun = Arc::new(AtomicUsize::new(0));
    let readers: Vec<_> = (0..READERS)
        .map(|n| {
            let (path, begun) = (paths[n % DISKS].clone(), begun.clone());
            std::thread::spawn(move || {
                let file = File::options().read(true).custom_flags(libc::O_DIRECT).open(path).unwrap();
                let mut block = Aligned::new(4096);
                begun.fetch_add(1, Ordering::SeqCst);
                let at = n / DISKS % 3 * CHUNK;
                file.read_exact_at(&mut block, (PER_PAGE + at) as u64).unwrap();
                (at, block.to_vec())
            })
        })
        .collect();
    // Whoever comes later than the first must find what it brought, also when it comes after the fetch.
    eventually("all readers to begin", Duration::from_secs(30), || begun.load(Ordering::SeqCst) == READERS).await;
    store.open();
    for reader in readers {
        let (at, block) = blocking(move || reader.join().unwrap()).await;
        assert!(block == written[at..at + 4096]);
    }
    let reads: Vec<(Kind, u32)> = store.reads.lock().unwrap().values().copied().collect();
    let of = |wanted: Kind| reads.iter().filter(|(kind, _)| *kind == wanted).map(|(_, n)| *n).collect::<Vec<u32>>();
    assert_eq!((of(Kind::Page), of(Kind::Chunk)), (vec![1], vec![1, 1, 1]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_is_brought_once_whatever_number_of_disks_wants_it() {
    many_readers_of_one_node(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_of_the_own_share_is_decoded_once_whatever_number_of_disks_wants_it() {
    many_readers_of_one_node(8 << 20).await;
}
