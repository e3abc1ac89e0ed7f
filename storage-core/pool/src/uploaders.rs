//! Which node writes an object to the repository, and which one deletes it there.
//!
//! * The *uploader* is the best node for the object that has it, as nodes answer now: the first of those that should have it,
//!   or a holder that should not while none of them has it. Of two nodes that take themselves for it, both upload the same.
//! * The *keeper* is the best node for the object, whether it has it or not. Only it deletes.
//!
//! Both follow from the name of the object and the membership record.

use std::collections::HashSet;

use storage_core::{Kind, ObjectName, store::Listed};

use crate::{
    PoolClient,
    repair::{Avoided, Said, sends},
};

impl PoolClient {
    /// For each of these objects of this node's own share whether this node is to write it to the repository. Nodes are asked
    /// only about objects of which others come first.
    pub async fn uploads(&self, held: &[Listed], avoided: &Avoided) -> Vec<bool> {
        let view = self.inner.view.load_full();
        let own = self.inner.local.as_ref().and_then(|local| view.position(local.store));
        let Some(own) = own else { return vec![false; held.len()] };
        let mut homes = view.homes(held, &HashSet::new());
        for nodes in &mut homes {
            // Who comes after this node does not matter.
            if let Some(at) = nodes.iter().position(|node| *node == own) {
                nodes.truncate(at + 1);
            }
        }
        let said = self.inner.ask_homes(&view, own, held, &homes, avoided).await;
        homes.iter().zip(&said).map(|(homes, said)| sends(own, homes, said)).collect()
    }

    /// For each of these objects whether this node is its keeper.
    #[must_use]
    pub fn keeps(&self, names: &[ObjectName]) -> Vec<bool> {
        let view = self.inner.view.load_full();
        let own = self.inner.local.as_ref().and_then(|local| view.position(local.store));
        let Some(own) = own else { return vec![false; names.len()] };
        names.iter().map(|name| view.writers(name).first() == Some(&own)).collect()
    }

    /// For each of these objects whether a node that should have it has it, or may have it because it does not answer. This
    /// node itself is not looked at.
    pub async fn may_be_held(&self, names: &[ObjectName]) -> Vec<bool> {
        let view = self.inner.view.load_full();
        let own = self.inner.local.as_ref().and_then(|local| view.position(local.store));
        // Those that a page would be on are all those that any object would be on.
        let asked = |name: &ObjectName| Listed { name: *name, kind: Kind::Page, round: 0, stored_bytes: 0 };
        let asked: Vec<Listed> = names.iter().map(asked).collect();
        let mut homes = view.homes(&asked, &HashSet::new());
        homes.iter_mut().for_each(|nodes| nodes.retain(|node| Some(*node) != own));
        // No node has this place, so that none is taken for this one.
        let nobody = usize::MAX;
        let said = self.inner.ask_homes(&view, nobody, &asked, &homes, &Avoided::default()).await;
        let may_be = |said: &Said| matches!(said, Said::Nothing | Said::Here { .. });
        said.iter().map(|said| said.iter().any(may_be)).collect()
    }
}
