//! A program that writes to one disk, one write after the other, while something else happens.

use std::{
    fs::OpenOptions,
    os::unix::fs::FileExt as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use muster_tests::eventually;

use super::{
    model::Content,
    ops::{Place, Random},
};

/// Most writes of one writer. It ends by itself then.
const WRITES_MAX: usize = 3000;

/// What a writer did.
pub(super) struct Written {
    /// Acknowledged writes, in order.
    pub(super) acknowledged: Vec<(usize, Vec<u8>)>,
    /// The write that failed, which ended it.
    pub(super) failed: Option<(usize, Vec<u8>, std::io::Error)>,
}

impl Written {
    /// Whether a version is the state of the disk after some number of the writes, at least `earliest`. The write after these
    /// was not acknowledged yet at that moment, so each of its sectors may be there or not.
    pub(super) fn has_moment(&self, before: &[u8], earliest: usize, got: &[u8]) -> Result<(), String> {
        const BLOCK: usize = 4096;
        if got.len() != before.len() {
            return Err(format!("{} bytes, expected {}", got.len(), before.len()));
        }
        let mut now = before.to_vec();
        let differs = |now: &[u8], block: usize| {
            let range = block * BLOCK..((block + 1) * BLOCK).min(got.len());
            now[range.clone()] != got[range]
        };
        let mut wrong: Vec<bool> = (0..got.len().div_ceil(BLOCK)).map(|block| differs(&now, block)).collect();
        let mut count = wrong.iter().filter(|wrong| **wrong).count();
        let mut nearest = (count, 0);
        for (number, (at, data)) in self.acknowledged.iter().enumerate() {
            let touched = at / BLOCK..(at + data.len()).div_ceil(BLOCK);
            let here = wrong[touched.clone()].iter().filter(|wrong| **wrong).count();
            let state = now[touched.start * BLOCK..(touched.end * BLOCK).min(got.len())].to_vec();
            if number >= earliest && here == count {
                let mut torn = Content::new(state.clone());
                torn.torn_write(at - touched.start * BLOCK, data);
                if torn.resolve(got[touched.start * BLOCK..touched.start * BLOCK + state.len()].to_vec()).is_ok() {
                    return Ok(());
                }
            }
            now[*at..at + data.len()].copy_from_slice(data);
            for (block, wrong) in touched.clone().zip(&mut wrong[touched]) {
                count -= usize::from(*wrong);
                *wrong = differs(&now, block);
                count += usize::from(*wrong);
            }
            nearest = nearest.min((count, number + 1));
        }
        let (blocks, number) = nearest;
        if blocks == 0 && number >= earliest {
            return Ok(());
        }
        Err(format!(
            "it is at no moment of {} writes from {earliest} on; after write {number} {blocks} blocks differ",
            self.acknowledged.len()
        ))
    }
}

pub(super) struct Writer {
    thread: std::thread::JoinHandle<Written>,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
}

impl Writer {
    /// Starts to write to the disk, and returns when some writes were acknowledged.
    pub(super) async fn start(path: &str, size: usize, mut random: Random) -> Self {
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let file = OpenOptions::new().write(true).open(path).unwrap_or_else(|e| panic!("open {path}: {e}"));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&acknowledged));
        let thread = std::thread::spawn(move || {
            let mut written = Written { acknowledged: Vec::new(), failed: None };
            while !stopped.load(Ordering::Relaxed) && written.acknowledged.len() < WRITES_MAX {
                let place = Place::draw(&mut random, size);
                let data = random.bytes(place.length.min(20_000));
                if let Err(error) = file.write_all_at(&data, place.at as u64) {
                    written.failed = Some((place.at, data, error));
                    break;
                }
                written.acknowledged.push((place.at, data));
                count.store(written.acknowledged.len(), Ordering::Relaxed);
            }
            written
        });
        let writer = Self { thread, stop, acknowledged };
        eventually("the writer's first writes", Duration::from_secs(60), async || {
            let done = writer.acknowledged();
            if done >= 20 || writer.thread.is_finished() { Ok(()) } else { Err(format!("{done} writes")) }
        })
        .await;
        writer
    }

    /// The number of writes that were acknowledged so far.
    pub(super) fn acknowledged(&self) -> usize {
        self.acknowledged.load(Ordering::Relaxed)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends it after the write that it is at.
    pub(super) async fn end(self) -> Written {
        self.stop.store(true, Ordering::Relaxed);
        eventually("the writer's last write", Duration::from_secs(90), async || {
            if self.thread.is_finished() { Ok(()) } else { Err("it hangs".to_owned()) }
        })
        .await;
        self.thread.join().expect("the writer does not panic")
    }
}

#[test]
fn a_version_is_a_moment_of_the_writes_with_the_next_one_torn_at_most() {
    let acknowledged = (1..=3_u8).map(|n| (4000 * usize::from(n), vec![n; 600])).collect();
    let written = Written { acknowledged, failed: None };
    let before = vec![0; 16 << 10];
    let after = |writes: &[usize]| {
        let mut bytes = before.clone();
        writes
            .iter()
            .map(|n| &written.acknowledged[*n])
            .for_each(|(at, data)| bytes[*at..at + 600].copy_from_slice(data));
        bytes
    };
    let check = |earliest, got: &[u8]| written.has_moment(&before, earliest, got);
    check(0, &before).expect("before the first write");
    check(2, &after(&[0, 1])).expect("after two writes");
    check(3, &after(&[0, 1])).expect_err("the third write was acknowledged before");
    check(0, &after(&[1])).expect_err("the second write without the first");
    let mut torn = after(&[0, 1]);
    torn[8192..8600].fill(0);
    check(1, &torn).expect("the second write was under way");
    check(2, &torn).expect_err("it was acknowledged");
    torn[8100] = 9;
    check(1, &torn).expect_err("nobody wrote that");
}
