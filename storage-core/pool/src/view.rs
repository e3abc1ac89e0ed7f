//! [`View`]: the membership record with the ones before it. It answers whom to ask and whom to give.

use std::{collections::HashSet, sync::Arc};

use sha2::{Digest as _, Sha256};
use storage_core::{
    Kind, ObjectName, StoreId,
    membership::{Member, Membership},
    placement,
    store::Listed,
    units::{u64_from, usize_from},
};

/// Older membership epochs that are remembered for reading at most, because objects may still be where an older epoch put
/// them. They are forgotten once all nodes have handed over ([`View::without_before`]). Without a limit, a node that is never
/// done would let the list grow.
const OLDER_EPOCHS: usize = 16;

/// A membership epoch with the epochs before it. A node is named by its position in `membership.members`.
pub(crate) struct View {
    pub(crate) membership: Arc<Membership>,
    /// Tells the record from every other one, also from one of the same epoch in another history of the database.
    pub(crate) record: String,
    older: Vec<Arc<Membership>>,
}

/// How many nodes hold an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Copies {
    /// Without this many a publish is refused.
    pub(crate) needed: usize,
    /// A put tries for this many.
    pub(crate) wanted: usize,
}

impl View {
    /// The first view of a client.
    pub(crate) fn new(membership: Membership) -> Self {
        let text = serde_json::to_vec(&membership).expect("a record is JSON");
        let record = hex::encode(&Sha256::digest(text)[..16]);
        Self { membership: Arc::new(membership), record, older: Vec::new() }
    }

    /// The view after this one. It remembers this one's record, and no record that is as new as `membership`.
    pub(crate) fn followed_by(&self, membership: Membership) -> Self {
        let mut older = vec![self.membership.clone()];
        older.extend(self.older.iter().take(OLDER_EPOCHS - 1).cloned());
        // Epoch 0 is the empty record that a controller or agent starts with.
        older.retain(|m| m.epoch > 0 && m.epoch < membership.epoch);
        Self { older, ..Self::new(membership) }
    }

    /// The view after this one, when its record is of another history. It remembers all records, because the numbers of their
    /// epochs say nothing about their order any more.
    pub(crate) fn in_another_history(&self, membership: Membership) -> Self {
        let mut older = vec![self.membership.clone()];
        older.extend(self.older.iter().take(OLDER_EPOCHS - 1).cloned());
        // Epoch 0 is the empty record that a controller or agent starts with.
        older.retain(|m| m.epoch > 0 && **m != membership);
        Self { older, ..Self::new(membership) }
    }

    /// This view without the epochs before `oldest`: all that they gave to nodes is where newer ones say. None if it has none.
    pub(crate) fn without_before(&self, oldest: u64) -> Option<Self> {
        let stays = |m: &&Arc<Membership>| m.epoch >= oldest;
        let older: Vec<_> = self.older.iter().filter(stays).cloned().collect();
        (older.len() < self.older.len()).then(|| Self {
            membership: self.membership.clone(),
            record: self.record.clone(),
            older,
        })
    }

    pub(crate) fn member(&self, at: usize) -> &Member {
        &self.membership.members[at]
    }

    /// The nodes that `reader` asks for `name`, best first: the owners now and in older epochs, then everyone else. The owners
    /// that have every kind of object come first, and share the readers: each reader begins with one of them.
    pub(crate) fn readers(&self, name: &ObjectName, reader: Option<StoreId>) -> (Vec<usize>, Vec<usize>) {
        let copies = copies_max(&self.membership);
        let ranked = placement::rank(name, &self.membership.members);
        let mut order: Vec<usize> = ranked.iter().copied().take(copies).collect();
        let sharing = self.copies(Kind::Chunk).needed.min(order.len());
        if let Some(first) = turn(name, reader).checked_rem(u64_from(sharing)) {
            order[..sharing].rotate_left(usize_from(first));
        }
        for older in &self.older {
            let owned = placement::owners(name, &older.members, copies);
            let stores = owned.into_iter().map(|at| older.members[at].store);
            order.extend(stores.filter_map(|store| self.position(store)));
        }
        let mut seen = HashSet::new();
        order.retain(|at| seen.insert(*at));
        let others = ranked.into_iter().filter(|at| !seen.contains(at)).collect();
        (order, others)
    }

    /// The nodes that may take `name`, best first.
    pub(crate) fn writers(&self, name: &ObjectName) -> Vec<usize> {
        let mut order = placement::rank(name, &self.membership.members);
        order.retain(|at| self.member(*at).owns_objects());
        order
    }

    /// The position of the node with this store; none if it is not a member.
    pub(crate) fn position(&self, store: StoreId) -> Option<usize> {
        self.membership.members.iter().position(|member| member.store == store)
    }

    /// For each object the nodes that should have a copy, best first: those that a put tries first. Nodes that have no room
    /// are passed over.
    pub(crate) fn homes(&self, objects: &[Listed], full: &HashSet<StoreId>) -> Vec<Vec<usize>> {
        let mut members = self.membership.members.clone();
        members.iter_mut().for_each(|member| member.accepting &= !full.contains(&member.store));
        let homes = |object: &Listed| placement::owners(&object.name, &members, self.copies(object.kind).wanted);
        objects.iter().map(homes).collect()
    }

    /// Copies of an object of this kind. One copy is needed even without any node, so that the answer is a refusal.
    pub(crate) fn copies(&self, kind: Kind) -> Copies {
        let nodes = self.membership.members.iter().filter(|m| m.owns_objects()).count();
        let needed = min_copies(&self.membership).max(1).min(nodes).max(1);
        let wanted = match kind {
            Kind::Chunk | Kind::Pack => needed,
            // All else is found through these, so they get one more where there is a node for it.
            Kind::Page | Kind::Descriptor => (needed + 1).min(nodes.max(1)),
        };
        Copies { needed, wanted }
    }
}

/// A number that is drawn anew for each object and reader.
fn turn(name: &ObjectName, reader: Option<StoreId>) -> u64 {
    let (high, low) = reader.map_or((0, 0), |reader| reader.uuid().as_u64_pair());
    let beginning = name.as_bytes().first_chunk().expect("a name has 32 bytes");
    // The mixing of splitmix64: ids of stores that were made one after the other differ in few bits.
    let mut mixed = u64::from_le_bytes(*beginning) ^ high.rotate_left(32) ^ low;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn min_copies(membership: &Membership) -> usize {
    usize_from(membership.min_copies.into())
}

fn copies_max(membership: &Membership) -> usize {
    (min_copies(membership) + 1).min(membership.members.len())
}

#[cfg(test)]
mod tests {
    use storage_core::{ClusterId, NodeId, Salt};

    use super::*;

    fn member(number: u8) -> Member {
        Member {
            node: NodeId::generate(),
            name: format!("node-{number}"),
            // Ids that differ in few bits, and the same ones in every run.
            store: format!("01890000-0000-7000-8000-0000000000{number:02x}").parse().expect("an id"),
            address: String::new(),
            zone: None,
            weight: 100,
            accepting: true,
            key_sha256: String::new(),
        }
    }

    #[test]
    fn the_owners_of_a_copy_share_the_readers_and_the_first_one_is_always_an_owner() {
        const NODES: u8 = 32;
        let members: Vec<Member> = (0..NODES).map(member).collect();
        let membership =
            Membership { cluster: ClusterId::generate(), epoch: 1, min_copies: 2, members, clients: Vec::new() };
        let view = View::new(membership);
        let (mut asked, mut owned) = ([0_u32; NODES as usize], [0_u32; NODES as usize]);
        for object in 0..64_u8 {
            let name = ObjectName::of(Kind::Pack, Salt::SHARED, &[object + 1]);
            let owners = placement::owners(&name, &view.membership.members, 2);
            let mut firsts = [0, 0];
            for reader in &view.membership.members {
                let (order, others) = view.readers(&name, Some(reader.store));
                let first = owners.iter().position(|owner| *owner == order[0]).expect("an owner");
                assert_eq!(order[1], owners[1 - first], "the other one comes next");
                assert_eq!(order.len() + others.len(), usize::from(NODES));
                assert_eq!(view.readers(&name, Some(reader.store)).0, order, "always the same");
                firsts[first] += 1;
                asked[order[0]] += 1;
            }
            // About half of 32 readers each.
            assert!(firsts.iter().all(|readers| *readers >= 4), "object {object}: {firsts:?}");
            owners.iter().for_each(|owner| owned[*owner] += 1);
        }
        // Each node is asked about in proportion to what it has: half of its objects by each reader.
        for (asked, owned) in asked.iter().zip(owned) {
            let fair = owned * u32::from(NODES) / 2;
            assert!(*asked <= fair + fair / 2 + 24, "{asked} readers of {owned} objects");
        }
    }

    #[test]
    fn one_owner_or_none_needs_no_turn() {
        let of = |members| {
            View::new(Membership {
                cluster: ClusterId::generate(),
                epoch: 1,
                min_copies: 2,
                members,
                clients: Vec::new(),
            })
        };
        let name = ObjectName::of(Kind::Pack, Salt::SHARED, &[1]);
        assert_eq!(of(Vec::new()).readers(&name, None), (Vec::new(), Vec::new()));
        assert_eq!(of(vec![member(0)]).readers(&name, None), (vec![0], Vec::new()));
    }
}
