//! [`View`]: the membership record with the ones before it. It answers whom to ask and whom to give.

use std::{collections::HashSet, sync::Arc};

use sha2::{Digest as _, Sha256};
use storage_core::{
    Kind, ObjectName, StoreId,
    membership::{Member, Membership},
    placement,
    store::Listed,
    units::usize_from,
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

    /// The nodes to ask for `name`, best first: the owners now and in older epochs, then everyone else.
    pub(crate) fn readers(&self, name: &ObjectName) -> (Vec<usize>, Vec<usize>) {
        let copies = copies_max(&self.membership);
        let ranked = placement::rank(name, &self.membership.members);
        let mut order: Vec<usize> = ranked.iter().copied().take(copies).collect();
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

fn min_copies(membership: &Membership) -> usize {
    usize_from(membership.min_copies.into())
}

fn copies_max(membership: &Membership) -> usize {
    (min_copies(membership) + 1).min(membership.members.len())
}
