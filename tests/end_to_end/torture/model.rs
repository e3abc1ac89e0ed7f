//! What every disk and every version must contain.
//!
//! A disk is its bytes and the writes that no flush has covered yet, each with the bytes that it replaced. So every
//! earlier state of a sector since the last flush can be told, and after a fault that may lose unflushed writes each
//! sector must be in one of these states: old or new, never a mixture and never something else.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

/// Bytes that a disk writes whole or not at all.
const SECTOR: usize = 512;

/// A write that no flush has covered yet.
#[derive(Clone)]
struct Unflushed {
    at: usize,
    /// The bytes that it replaced.
    old: Vec<u8>,
    /// Whether it was flushed itself (`O_DSYNC`): a state from before it cannot come back where it wrote.
    durable: bool,
}

impl Unflushed {
    fn range(&self) -> Range<usize> {
        self.at..self.at + self.old.len()
    }
}

/// The bytes of a disk.
#[derive(Clone)]
pub(super) struct Content {
    bytes: Vec<u8>,
    unflushed: Vec<Unflushed>,
    /// Index of the first write of which it is not known whether it is on the disk.
    doubtful: Option<usize>,
}

impl Content {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, unflushed: Vec::new(), doubtful: None }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// An acknowledged write.
    pub(super) fn write(&mut self, at: usize, data: &[u8], durable: bool) {
        let range = at..at + data.len();
        self.unflushed.push(Unflushed { at, old: self.bytes[range.clone()].to_vec(), durable });
        self.bytes[range].copy_from_slice(data);
    }

    /// A write that failed or was broken off: each of its sectors is old or new.
    pub(super) fn torn_write(&mut self, at: usize, data: &[u8]) {
        self.doubtful = Some(self.doubtful.unwrap_or(self.unflushed.len()));
        self.write(at, data, false);
    }

    /// An acknowledged flush: no write from before it may be lost any more.
    pub(super) fn flush(&mut self) {
        assert!(self.doubtful.is_none(), "what is in doubt is read before it is flushed");
        self.unflushed.clear();
    }

    /// As after a power cut: every unflushed write may be lost.
    pub(super) fn doubt_unflushed(&mut self) {
        self.doubtful = Some(0);
    }

    pub(super) fn is_doubtful(&self) -> bool {
        self.doubtful.is_some()
    }

    /// Takes what was read as the content, if every sector of it is in a state that it may be in.
    pub(super) fn resolve(&mut self, got: Vec<u8>) -> Result<(), String> {
        let Some(first) = self.doubtful else { return compare(&self.bytes, 0, &got) };
        self.admits(&got, first)?;
        self.doubtful = None;
        self.bytes = got;
        Ok(())
    }

    /// Checks a read while it is not known which writes are on the disk.
    fn admits(&self, got: &[u8], first: usize) -> Result<(), String> {
        if got.len() != self.bytes.len() {
            return Err(format!("{} bytes, expected {}", got.len(), self.bytes.len()));
        }
        let doubtful = &self.unflushed[first..];
        for (number, sector) in got.chunks(SECTOR).enumerate() {
            let range = number * SECTOR..number * SECTOR + sector.len();
            let mut state = self.bytes[range.clone()].to_vec();
            let mut admitted = state == sector;
            // From the newest state of the sector back to the oldest one that may have come back.
            for write in doubtful.iter().rev() {
                let (from, to) = (write.at.max(range.start), write.range().end.min(range.end));
                if admitted || (write.durable && from < to) {
                    break;
                }
                if from < to {
                    state[from - range.start..to - range.start]
                        .copy_from_slice(&write.old[from - write.at..to - write.at]);
                    admitted = state == sector;
                }
            }
            if !admitted {
                let newest = compare(&self.bytes[range.clone()], range.start, sector).expect_err("it differs");
                return Err(format!(
                    "sector {number} is in none of its states since the last flush; the newest: {newest}"
                ));
            }
        }
        Ok(())
    }
}

/// Compares what was read at `offset` with what must be there.
pub(super) fn compare(want: &[u8], offset: usize, got: &[u8]) -> Result<(), String> {
    if want.len() != got.len() {
        return Err(format!("{} bytes at {offset}, expected {}", got.len(), want.len()));
    }
    let Some(first) = want.iter().zip(got).position(|(want, got)| want != got) else { return Ok(()) };
    let last = want.iter().zip(got).rposition(|(want, got)| want != got).expect("one differs");
    let zeros = if got[first..=last].iter().all(|byte| *byte == 0) { ", all of it zeros" } else { "" };
    Err(format!(
        "wrong bytes from {} to {}{zeros}: the first is {:#04x}, expected {:#04x}",
        offset + first,
        offset + last,
        got[first],
        want[first]
    ))
}

/// What a disk's instance must be told as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// Running and ready: the disk can be read.
    Ready,
    /// Stopped on request: the path of the disk refuses.
    Stopped,
}

/// An instance and its disk.
pub(super) struct Disk {
    /// Name of the instance.
    pub(super) name: String,
    /// Id of the disk.
    pub(super) id: String,
    pub(super) deployment: String,
    /// Number of the agent that has it.
    pub(super) node: usize,
    pub(super) path: String,
    pub(super) told: Told,
    pub(super) content: Content,
}

/// A saved version.
#[derive(Clone)]
pub(super) struct Version {
    pub(super) id: String,
    /// Where it comes from, for messages.
    pub(super) of: String,
    pub(super) bytes: Arc<Vec<u8>>,
}

impl Version {
    pub(super) fn is_of(&self, image: &Image) -> bool {
        self.of.split_once('@').is_some_and(|(name, _)| name == image.name)
    }
}

/// An image that deployments start from.
#[derive(Clone)]
pub(super) struct Image {
    pub(super) name: String,
    pub(super) chunk_bytes: u64,
    pub(super) bytes: Arc<Vec<u8>>,
}

/// Everything that exists. What a step picks is picked from these, so their order is that of their creation.
#[derive(Default)]
pub(super) struct Model {
    pub(super) images: Vec<Image>,
    pub(super) disks: Vec<Disk>,
    pub(super) versions: Vec<Version>,
    /// Names of snapshots with the ids of their versions by name of the instance.
    pub(super) snapshots: Vec<(String, BTreeMap<String, String>)>,
}

impl Model {
    pub(super) fn version(&self, id: &str) -> Option<&Version> {
        self.versions.iter().find(|version| version.id == id)
    }

    /// Names of the deployments that have members, oldest first.
    pub(super) fn deployments(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for disk in &self.disks {
            if !names.contains(&disk.deployment) {
                names.push(disk.deployment.clone());
            }
        }
        names
    }

    /// Indexes of the disks that can be read and written.
    pub(super) fn ready(&self) -> Vec<usize> {
        (0..self.disks.len()).filter(|index| self.disks[*index].told == Told::Ready).collect()
    }
}

#[test]
fn after_a_loss_each_sector_is_old_or_new_and_never_a_mixture() {
    let mut content = Content::new(vec![1; 2 * SECTOR]);
    content.write(100, &[2; 600], false);
    content.write(0, &[3; 50], false);
    content.doubt_unflushed();
    let read = |edit: fn(&mut [u8])| {
        let mut got = content.bytes().to_vec();
        edit(&mut got);
        content.clone().resolve(got)
    };
    read(|_| {}).expect("all is new");
    read(|got| got.fill(1)).expect("all is old");
    read(|got| got[SECTOR..].fill(1)).expect("the second sector is old");
    read(|got| got[..50].fill(1)).expect("the second write is lost");
    read(|got| got[100..SECTOR].fill(1)).expect_err("the first write is lost in a sector that has the second");
    read(|got| got[7] = 9).expect_err("nobody wrote that");
}

#[test]
fn what_was_flushed_must_stay() {
    let mut content = Content::new(vec![1; 2 * SECTOR]);
    content.write(0, &[2; SECTOR], false);
    content.flush();
    content.write(SECTOR, &[3; SECTOR], true);
    content.doubt_unflushed();
    content.clone().resolve([[2; SECTOR], [3; SECTOR]].concat()).expect("all is there");
    content.clone().resolve([[1; SECTOR], [3; SECTOR]].concat()).expect_err("a flushed write is lost");
    content.clone().resolve([[2; SECTOR], [1; SECTOR]].concat()).expect_err("an O_DSYNC write is lost");
    content.doubtful = None;
    content.resolve([[2; SECTOR], [1; SECTOR]].concat()).expect_err("nothing is in doubt");
}
