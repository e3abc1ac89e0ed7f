//! [`Op`]: what can happen to a cluster. A new kind of event is a variant here, a weight in [`Op::choose`], and what it does in
//! `steps.rs`.

use storage_core::{power::Random, units::usize_from};

use crate::{
    cluster::Death,
    content::{BLOCK, CHUNK},
    history::History,
};

/// One step of a history. Numbers are places in the lists of versions, disks, imports and nodes.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// Content is stored under an upload of its own.
    Import {
        seed: u64,
        bytes: usize,
    },
    /// It becomes a version, if its upload is live.
    PublishImport(usize),
    /// Its upload ends without.
    DropImport(usize),
    /// Another version with the same content.
    Clone(usize),
    /// A new disk of a version, on a node.
    Deploy {
        version: usize,
        node: usize,
    },
    Write {
        disk: usize,
        at: usize,
        len: usize,
        seed: u64,
    },
    Zero {
        disk: usize,
        at: usize,
        len: usize,
    },
    Read {
        disk: usize,
        at: usize,
        len: usize,
    },
    Flush(usize),
    Grow {
        disk: usize,
        blocks: usize,
    },
    /// The state of a disk is frozen, and an upload begins.
    Cut(usize),
    /// The oldest cut of a disk is stored.
    Save(usize),
    /// It becomes a version, if its upload is live; else it is given up.
    Publish(usize),
    Abandon(usize),
    /// The upload of the oldest cut of a disk runs out.
    Expire(usize),
    /// A node learns of the newest version of a disk.
    Follow(usize),
    /// It tells which version it is on.
    Report(usize),
    /// A version is put in place of what a disk holds. Its node learns of it later.
    PutBack {
        disk: usize,
        version: usize,
    },
    DeleteVersion(usize),
    DeleteDisk(usize),
    /// Somebody begins to read a version, under a lease.
    BeginRead(usize),
    EndRead(usize),
    /// A round of the sweep begins, and what its roots reach is counted.
    BeginRound,
    /// A node carries the named round out.
    SweepNode(usize),
    /// A round from its begin until all nodes that are on are done.
    Sweep,
    Kill(usize, Death),
    /// The power of a node fails after so many more changes of its pool's disk, while content is stored, it sweeps and it repairs.
    Crash {
        node: usize,
        changes: u64,
        seed: u64,
    },
    Start(usize),
    /// A node is killed and is no member any more.
    Out(usize),
    /// One that was out comes back, with all that it had.
    Return(usize),
    Join,
    /// Bits of a node's pool rot.
    Rot {
        node: usize,
        seed: u64,
    },
    /// A node's pool is gone.
    Wipe(usize),
    /// The disk with a node's pool has room for so many more bytes, and for none then.
    Fill {
        node: usize,
        bytes: u64,
    },
    /// It has room again.
    Room(usize),
    /// A node reads all that it has.
    Scrub(usize),
    /// A node sends what others lack, and drops what belongs to others that have it.
    Repair(usize),
    RepairAll,
    /// A node is to own nothing any more: it hands over.
    Drain(usize),
    /// It owns objects again.
    TakeBack(usize),
    /// All nodes sweep, one repairs, a disk is saved, another is read, and content is stored: at the same time.
    Storm {
        node: usize,
        save: Option<usize>,
        read: Option<usize>,
        seed: u64,
    },
}

fn pick(random: &mut Random, from: &[usize]) -> Option<usize> {
    let len = u64::try_from(from.len()).expect("short");
    (len > 0).then(|| from[usize_from(random.below(len))])
}

fn range(random: &mut Random, size: usize) -> (usize, usize) {
    let longest = [200, BLOCK, 3 * BLOCK, 12 * BLOCK, CHUNK, 3 * CHUNK][usize_from(random.below(6))];
    // Large disks are written at their ends, so that they stay small.
    let window = size.min(8 * CHUNK);
    let mut at = usize_from(random.below(window as u64));
    if random.below(2) == 0 {
        at += size - window;
    }
    let mut len = 1 + usize_from(random.below(longest as u64));
    match random.below(4) {
        0 => {}
        1 => {
            at = at / CHUNK * CHUNK;
            len = len.next_multiple_of(CHUNK);
        }
        _ => {
            at = at / BLOCK * BLOCK;
            len = len.next_multiple_of(BLOCK);
        }
    }
    (at, len.min(size - at))
}

impl Op {
    /// A step that is possible now.
    pub(crate) fn choose(history: &mut History) -> Op {
        let mut random = history.random.clone();
        let mut tries = (0..10_000).map(|_| Self::maybe(history, &mut random));
        let op = tries.find_map(|op| op).expect("something is always possible");
        history.random = random;
        op
    }

    fn maybe(history: &History, random: &mut Random) -> Option<Op> {
        let live = history.live_versions();
        let disks = history.usable_disks();
        let on = history.cluster.on();
        let one = |random: &mut Random, from: &[usize]| pick(random, from);
        let with_commits = || disks.iter().copied().filter(|d| !history.rows.disks[*d].commits.is_empty());
        let imports: Vec<usize> = (0..history.rows.imports.len()).collect();
        Some(match random.below(1000) {
            0..25 if history.can_put() => {
                let chunks = if random.below(12) == 0 { 270 } else { 1 + usize_from(random.below(6)) };
                let bytes = chunks * CHUNK - usize_from(random.below(CHUNK as u64 - 1));
                Op::Import { seed: random.next_u64(), bytes }
            }
            25..45 => Op::PublishImport(one(random, &imports)?),
            45..50 => Op::DropImport(one(random, &imports)?),
            50..60 => Op::Clone(one(random, &live)?),
            60..100 if disks.len() < 6 => Op::Deploy { version: one(random, &live)?, node: one(random, &on)? },
            100..310 => {
                let disk = one(random, &disks)?;
                let (at, len) = range(random, history.rows.disks[disk].bytes.len());
                match random.below(100) {
                    0..80 => Op::Write { disk, at, len, seed: random.next_u64() },
                    80..97 => Op::Zero { disk, at, len },
                    _ => Op::Grow { disk, blocks: 1 + usize_from(random.below(20)) },
                }
            }
            310..420 => {
                let disk = one(random, &disks)?;
                let (at, len) = range(random, history.rows.disks[disk].bytes.len());
                Op::Read { disk, at, len }
            }
            420..430 => Op::Flush(one(random, &disks)?),
            430..480 => {
                let free = disks.iter().copied().filter(|d| history.rows.disks[*d].commits.len() < 2);
                Op::Cut(one(random, &free.collect::<Vec<_>>())?)
            }
            480..540 if history.can_put() => {
                let unsaved = with_commits().filter(|d| history.can_save(*d));
                Op::Save(one(random, &unsaved.collect::<Vec<_>>())?)
            }
            540..590 => {
                let saved = with_commits().filter(|d| history.rows.disks[*d].commits[0].saved.is_some());
                Op::Publish(one(random, &saved.collect::<Vec<_>>())?)
            }
            590..597 => Op::Abandon(one(random, &with_commits().collect::<Vec<_>>())?),
            597..601 => Op::Expire(one(random, &with_commits().collect::<Vec<_>>())?),
            601..640 => Op::Follow(one(random, &disks)?),
            640..670 => Op::Report(one(random, &disks)?),
            670..683 => Op::DeleteVersion(one(random, &live)?),
            683..690 => {
                let disk = one(random, &disks)?;
                let size = history.rows.disks[disk].bytes.len();
                let fit = live.iter().copied().filter(|v| history.rows.versions[*v].bytes.len() <= size);
                Op::PutBack { disk, version: one(random, &fit.collect::<Vec<_>>())? }
            }
            690..700 => Op::DeleteDisk(one(random, &disks)?),
            700..710 => Op::BeginRead(one(random, &live)?),
            710..725 => {
                let read = (0..history.rows.versions.len()).filter(|v| history.rows.versions[*v].readers > 0);
                Op::EndRead(one(random, &read.collect::<Vec<_>>())?)
            }
            725..745 => Op::BeginRound,
            745..775 => Op::SweepNode(one(random, &on)?),
            775..805 => Op::Sweep,
            805..825 => {
                let node = history.expendable(random)?;
                let death = if random.below(3) > 0 { Death::Kill } else { Death::PowerCut(random.next_u64()) };
                Op::Kill(node, death)
            }
            825..840 => {
                let node = history.expendable(random)?;
                let others = history.cluster.with_room().into_iter().filter(|n| *n != node).count();
                let crash = Op::Crash { node, changes: random.below(40), seed: random.next_u64() };
                (others >= 2).then_some(crash)?
            }
            840..870 => {
                let off = history.cluster.members().into_iter().filter(|n| !on.contains(n));
                Op::Start(one(random, &off.collect::<Vec<_>>())?)
            }
            870..876 => Op::Out(history.expendable(random).filter(|_| history.cluster.members().len() > 2)?),
            876..886 => {
                let members = history.cluster.members();
                let out = (0..history.cluster.nodes.len()).filter(|n| !members.contains(n));
                Op::Return(one(random, &out.collect::<Vec<_>>())?)
            }
            886..890 if history.cluster.nodes.len() < 6 => Op::Join,
            890..896 => Op::Rot { node: history.expendable(random)?, seed: random.next_u64() },
            896..899 => Op::Wipe(history.expendable(random)?),
            899..903 => Op::Scrub(one(random, &on)?),
            903..905 => {
                let roomy = history.cluster.with_room();
                let bytes = [0, 100, 5000, 100_000][usize_from(random.below(4))];
                Op::Fill { node: one(random, &roomy).filter(|_| roomy.len() > 2)?, bytes }
            }
            905..906 => Op::Room(one(random, &history.cluster.full())?),
            906..912 => {
                Op::Drain(one(random, &history.cluster.owning()).filter(|_| history.cluster.owning().len() > 2)?)
            }
            912..918 => {
                let owning = history.cluster.owning();
                let drained = history.cluster.members().into_iter().filter(|n| !owning.contains(n));
                Op::TakeBack(one(random, &drained.collect::<Vec<_>>())?)
            }
            918..940 => Op::Repair(one(random, &on)?),
            940..965 => Op::RepairAll,
            965..1000 if history.can_put() => {
                let unsaved: Vec<usize> = with_commits().filter(|d| history.can_save(*d)).collect();
                let node = one(random, &on)?;
                Op::Storm { node, save: one(random, &unsaved), read: one(random, &disks), seed: random.next_u64() }
            }
            _ => return None,
        })
    }
}
