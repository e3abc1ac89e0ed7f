//! Bits rot in the files of a node while its host is off: one in each place of every kind of file, deltas excepted. What the next
//! process gives are the right bytes, or an error; never others.

use std::{
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use storage_core::{
    power::Random,
    store::{ChunkStore as _, SimDisk},
};

use crate::{cluster::Death, content::CHUNK, history::History, op::Op};

/// Places in each file.
const PLACES: u64 = 14;

/// The files below a folder, relative to it, without sockets.
fn files(folder: &Path, below: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder.join(below)).expect("a folder") {
        let entry = entry.expect("lists");
        let (name, kind) = (below.join(entry.file_name()), entry.file_type().expect("a kind"));
        if kind.is_dir() {
            files(folder, &name, into);
        } else if kind.is_file() {
            into.push(name);
        }
    }
}

/// Places in a file of this length: its head, its end, and some between.
fn places(len: u64, random: &mut Random) -> Vec<u64> {
    let mut places: Vec<u64> = (0..PLACES).map(|_| random.below(len)).collect();
    places.extend([0, len / 2, len - 1]);
    places
}

/// A cluster of two nodes. The first has a disk with written blocks of several epochs, all of them flushed.
async fn used() -> History {
    let mut history = History::of_two(77).await;
    let write = |at: usize, len: usize, seed: u64| Op::Write { disk: 0, at, len, seed };
    let steps = [
        Op::Import { seed: 5, bytes: 5 * CHUNK - 3000 },
        Op::PublishImport(0),
        Op::Deploy { version: 0, node: 0 },
        write(5000, 9000, 1),
        write(2 * CHUNK, CHUNK, 2),
        Op::Cut(0),
        Op::Save(0),
        Op::Publish(0),
        Op::Follow(0),
        Op::Report(0),
        write(3 * CHUNK + 100, 6000, 3),
        Op::Zero { disk: 0, at: 8192, len: 4096 },
        Op::Cut(0),
        write(CHUNK, 20_000, 4),
        Op::Sweep,
        Op::Read { disk: 0, at: 0, len: 4 * CHUNK },
        Op::Scrub(0),
        Op::Flush(0),
    ];
    for op in steps {
        history.note(&op);
        history.step(op).await;
    }
    history
}

#[test]
fn a_flipped_bit_in_any_file_of_a_node_gives_no_wrong_byte() {
    crate::in_runtime(async {
        let mut history = used().await;
        history.cluster.kill(0, Death::Kill).await;
        let (folder, pool) = (history.cluster.nodes[0].folder().to_owned(), history.cluster.nodes[0].pool_disk.clone());
        let mut random = Random(9);
        let (mut of_node, mut refused) = (Vec::new(), 0);
        files(&folder, Path::new(""), &mut of_node);
        of_node.retain(|name| name.extension().is_none_or(|kind| kind != "delta"));
        let has = |part: &str| of_node.iter().any(|name| name.to_string_lossy().contains(part));
        for kind in ["meta.json", ".bits", "cache/", "sweep.json", "pool-losses.json"] {
            assert!(has(kind), "no {kind} among {of_node:?}");
        }
        for name in &of_node {
            let len = std::fs::metadata(folder.join(name)).expect("a file").len();
            for place in places(len, &mut random) {
                history.note(&format!("{} at {place}", name.display()));
                let copy = history.cluster.reboot(0, &folder, pool.after_kill()).await;
                flip(&copy.join(name), place);
                refused += u32::from(!start_and_read(&mut history).await);
            }
        }
        eprintln!("a disk was refused {refused} times");
        for name in pool.list_now() {
            let len = pool.contents(&name).map_or(0, |bytes| bytes.len() as u64);
            for place in places(len, &mut random) {
                history.note(&format!("{name} of the pool at {place}"));
                let damaged: SimDisk = pool.after_kill();
                damaged.damage(&name, place);
                history.cluster.reboot(0, &folder, damaged).await;
                assert!(start_and_read(&mut history).await, "the pool of the other node is enough");
            }
        }
    });
}

fn flip(path: &Path, place: u64) {
    let file = std::fs::File::options().read(true).write(true).open(path).expect("opens");
    let mut byte = [0];
    file.read_exact_at(&mut byte, place).expect("reads");
    file.write_all_at(&[byte[0] ^ 0x04], place).expect("writes");
}

/// Starts the first node, reads all that it has, and ends it. False if it refuses its disk.
async fn start_and_read(history: &mut History) -> bool {
    history.cluster.start(0).await;
    let process = history.cluster.nodes[0].process();
    let row = &history.rows.disks[0];
    let read = match process.disks.bare(&row.want).await {
        Ok(disk) => disk.read(0, row.bytes.len() as u64).await.map_err(|fault| fault.to_string()),
        Err(error) => Err(error.to_string()),
    };
    if let Ok(bytes) = &read {
        assert!(*bytes == row.bytes, "the disk has other bytes");
    }
    for name in process.share.names().expect("the store lists") {
        // It is checked against its name, or it is not given.
        if let Some(record) = process.share.get(&name).expect("the disk reads") {
            record.verify().expect("what is given has its name");
        }
    }
    history.cluster.kill(0, Death::Kill).await;
    read.is_ok()
}
