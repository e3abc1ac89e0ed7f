//! The end of a history: everything comes back and is made whole; every version and every disk has the bytes of its vector; what
//! nothing reaches is gone; and when all is deleted, so is everything.

use std::collections::BTreeSet;

use storage_core::{Kind, ObjectName, membership::Member, placement, store::ChunkStore as _};

use crate::history::History;

/// Rounds after which nothing is left of what nothing needs: what was stored in the last round has a stamp that protects it in
/// two more.
const ROUNDS: usize = 3;

impl History {
    pub(crate) async fn end(&mut self) {
        self.note(&"the end: all nodes are on, all copies are made again");
        for node in self.cluster.full() {
            self.cluster.set_room(node, None);
        }
        if !self.cluster.can_settle() {
            for node in self.cluster.members() {
                self.cluster.set_accepting(node, true);
            }
        }
        for node in self.cluster.members() {
            if !self.cluster.nodes[node].is_on() {
                self.cluster.start(node).await;
            }
            self.scrub(node);
        }
        if self.cluster.repository.is_some() {
            self.note(&"what no node has comes from the repository");
            self.cluster.bring_back(&self.needed()).await;
        }
        assert!(self.repair_all().await, "the repair has not done all");
        self.check_owners();

        self.note(&"all versions and disks are read");
        for version in self.live_versions() {
            self.check_version(version).await;
        }
        for disk in self.usable_disks() {
            self.read(disk, 0, self.rows.disks[disk].bytes.len()).await;
        }

        self.note(&"uploads end, and the sweep takes what nothing needs");
        for import in std::mem::take(&mut self.rows.imports) {
            self.rows.end_upload(import.upload);
        }
        for disk in 0..self.rows.disks.len() {
            for commit in std::mem::take(&mut self.rows.disks[disk].commits) {
                self.rows.end_upload(commit.upload);
            }
        }
        self.sweep_out().await;
        self.check_owners();
        let needed = self.needed();
        for node in self.cluster.on() {
            let left: BTreeSet<ObjectName> = self.names(node).difference(&needed).copied().collect();
            let stamps: Vec<_> = left.iter().map(|name| (name, self.cluster.nodes[node].holds(name))).collect();
            assert!(left.is_empty(), "node {node} still has {stamps:?} after round {}", self.rows.round);
        }
        for version in self.live_versions() {
            self.check_version(version).await;
        }

        self.note(&"all is deleted");
        self.rows.versions.iter_mut().for_each(|version| (version.is_deleted, version.readers) = (true, 0));
        let usable = self.usable_disks();
        for disk in 0..self.rows.disks.len() {
            if usable.contains(&disk) {
                self.delete_disk(disk).await;
            } else {
                self.disk_is_gone(disk);
            }
        }
        self.sweep_out().await;
        for node in self.cluster.on() {
            assert_eq!(self.names(node), BTreeSet::new(), "node {node} still has objects");
        }
    }

    async fn sweep_out(&mut self) {
        for _ in 0..ROUNDS {
            // A round that cannot be counted because pages of what was deleted are lost is begun anew.
            assert!(self.begin_round().await || self.begin_round().await, "no round begins");
            self.sweep_all().await;
        }
    }

    fn names(&self, node: usize) -> BTreeSet<ObjectName> {
        self.cluster.nodes[node].process().share.names().expect("the store lists").into_iter().collect()
    }

    /// Every object that is needed is on the nodes that it belongs to, and on no other.
    fn check_owners(&self) {
        let members: &[Member] = &self.cluster.membership.members;
        let on = self.cluster.on();
        for name in self.needed() {
            let found = on.iter().find_map(|n| self.cluster.nodes[*n].process().share.find(&name).expect("looks"));
            let kind = found.unwrap_or_else(|| panic!("{name} is needed and nowhere")).kind;
            let more = usize::from(matches!(kind, Kind::Page | Kind::Descriptor));
            let owners = placement::owners(&name, members, 2 + more).into_iter();
            let node = |owner: usize| self.cluster.nodes.iter().find(|node| node.member == members[owner]);
            let owners: BTreeSet<usize> = owners.map(|owner| node(owner).expect("a node").number).collect();
            let holders = on.iter().copied().filter(|n| self.cluster.nodes[*n].holds(&name).is_some());
            assert_eq!(holders.collect::<BTreeSet<_>>(), owners, "the holders of {name}, a {kind:?}, and its owners");
        }
    }
}
