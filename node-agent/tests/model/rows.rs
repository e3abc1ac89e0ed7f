//! The database of the simulated cluster: versions, disks, uploads and rounds, with the rules of the controller's store. Beside
//! each version and each disk is the plain vector that it must read as.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use muster_agent::mirror::{DiskWant, Saved};
use muster_api::{CommitId, VersionId, node_protocol::VersionRoot};
use storage_core::{Descriptor, ObjectName};

/// A version, deleted or not.
pub(crate) struct Version {
    pub(crate) id: VersionId,
    pub(crate) root: VersionRoot,
    pub(crate) bytes: Arc<Vec<u8>>,
    /// The round of the upload that it came with.
    pub(crate) stamp: u64,
    pub(crate) is_deleted: bool,
    /// Leases of readers.
    pub(crate) readers: u32,
}

/// A disk of an instance.
pub(crate) struct DiskRow {
    /// As the node is told it, with the newest published version.
    pub(crate) want: DiskWant,
    pub(crate) node: usize,
    /// Its newest version, and the one that its node told last.
    pub(crate) version: usize,
    pub(crate) reported: usize,
    pub(crate) bytes: Vec<u8>,
    /// Cuts that are neither published nor given up, oldest first.
    pub(crate) commits: Vec<Commit>,
    /// Cuts that were given up by putting something else in place, of which the node may not know yet.
    pub(crate) given_up: Vec<CommitId>,
    pub(crate) is_gone: bool,
}

/// A cut of a disk.
pub(crate) struct Commit {
    pub(crate) id: CommitId,
    pub(crate) upload: Upload,
    /// What the disk had at the cut.
    pub(crate) bytes: Arc<Vec<u8>>,
    pub(crate) saved: Option<Saved>,
}

/// Content that was stored and is in no version yet.
pub(crate) struct Import {
    pub(crate) upload: Upload,
    pub(crate) root: VersionRoot,
    pub(crate) bytes: Arc<Vec<u8>>,
}

/// An upload and the round in which it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Upload {
    pub(crate) number: u64,
    pub(crate) round: u64,
}

/// All rows.
#[derive(Default)]
pub(crate) struct Rows {
    pub(crate) versions: Vec<Version>,
    pub(crate) disks: Vec<DiskRow>,
    pub(crate) imports: Vec<Import>,
    /// The rounds of the uploads that are not ended.
    live: BTreeMap<u64, u64>,
    uploads: u64,
    /// The current round.
    pub(crate) round: u64,
}

impl Rows {
    pub(crate) fn new() -> Self {
        Self { round: 1, ..Self::default() }
    }

    pub(crate) fn begin_upload(&mut self) -> Upload {
        self.uploads += 1;
        self.live.insert(self.uploads, self.round);
        Upload { number: self.uploads, round: self.round }
    }

    pub(crate) fn end_upload(&mut self, upload: Upload) {
        self.live.remove(&upload.number);
    }

    /// Whether something may be published under it.
    pub(crate) fn is_live(&self, upload: Upload) -> bool {
        self.live.get(&upload.number).is_some_and(|round| round + 1 >= self.round)
    }

    /// Begins the next round, unless an upload of an older one than the current is not ended.
    pub(crate) fn begin_round(&mut self) -> bool {
        let is_free = self.live.values().all(|round| *round >= self.round);
        self.round += u64::from(is_free);
        is_free
    }

    pub(crate) fn add_version(&mut self, root: VersionRoot, bytes: Arc<Vec<u8>>, stamp: u64) -> usize {
        let id = VersionId::generate();
        self.versions.push(Version { id, root, bytes, stamp, is_deleted: false, readers: 0 });
        self.versions.len() - 1
    }

    /// The versions that must stay (I6).
    fn needed_versions(&self) -> BTreeSet<usize> {
        let of_rows = |(_, version): &(usize, &Version)| !version.is_deleted || version.readers > 0;
        let mut needed: BTreeSet<usize> = self.versions.iter().enumerate().filter(of_rows).map(|(n, _)| n).collect();
        for disk in self.disks.iter().filter(|disk| !disk.is_gone) {
            needed.extend([disk.version, disk.reported]);
        }
        needed
    }

    /// The roots that a round lists.
    pub(crate) fn roots(&self) -> BTreeMap<ObjectName, VersionRoot> {
        let root = |n: usize| self.versions[n].root.clone();
        self.needed_versions().into_iter().map(|n| (descriptor(&root(n)).name(), root(n))).collect()
    }

    /// The roots, and what live uploads are about to make one. Each has the stamp from which on a sweep leaves copies of what it
    /// reaches: 0 if the round that nodes carry out has listed it, else the round of its upload.
    pub(crate) fn awaited_roots(&self, listed: &BTreeSet<ObjectName>) -> BTreeMap<ObjectName, u64> {
        let commits = self.disks.iter().filter(|disk| !disk.is_gone).flat_map(|disk| &disk.commits);
        let saved = commits.filter_map(|commit| Some((commit.upload, &commit.saved.as_ref()?.root)));
        let imported = self.imports.iter().map(|import| (import.upload, &import.root));
        let live = saved.chain(imported).filter(|(upload, _)| self.is_live(*upload));
        let live = live.map(|(upload, root)| (descriptor(root).name(), upload.round));
        let versions = self.needed_versions().into_iter().map(|n| &self.versions[n]);
        let versions = versions.map(|version| (descriptor(&version.root).name(), version.stamp));
        let mut roots = BTreeMap::new();
        for (name, stamp) in live.chain(versions) {
            let from = if listed.contains(&name) { 0 } else { stamp };
            roots.entry(name).and_modify(|known: &mut u64| *known = from.max(*known)).or_insert(from);
        }
        roots
    }
}

pub(crate) fn descriptor(root: &VersionRoot) -> Descriptor {
    Descriptor::decode(&hex::decode(&root.descriptor).expect("hex")).expect("a descriptor")
}
