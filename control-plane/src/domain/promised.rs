//! What nodes promise to the instances on them, and how that changes when instances come and go.

use std::collections::BTreeMap;

use muster_api::{NodeId, deployment::Runtime};

/// What a node has promised to the instances on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Promised {
    /// How many instances are on it.
    pub instances: u64,
    /// Their virtual processors. Instances with runtime `none` have none.
    pub cpus: u64,
    /// Their memory, bytes. Instances with runtime `none` have none.
    pub memory_bytes: u64,
}

impl Promised {
    /// What one instance is promised.
    #[must_use]
    pub fn to_one(runtime: Runtime, cpus: u32, memory_bytes: u64) -> Self {
        match runtime {
            Runtime::Libvirt => Self { instances: 1, cpus: u64::from(cpus), memory_bytes },
            Runtime::None => Self { instances: 1, cpus: 0, memory_bytes: 0 },
        }
    }

    /// This after instances came and went.
    ///
    /// # Panics
    /// If more went than there was.
    #[must_use]
    pub fn after(self, change: Change) -> Self {
        let sum = |promised: u64, change: i64| {
            promised.checked_add_signed(change).expect("no more is taken back than was promised")
        };
        Self {
            instances: sum(self.instances, change.instances),
            cpus: sum(self.cpus, change.cpus),
            memory_bytes: sum(self.memory_bytes, change.memory_bytes),
        }
    }
}

/// What is added to what a node has promised; negative for what is taken back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// How many more instances are on the node.
    pub instances: i64,
    /// Virtual processors.
    pub cpus: i64,
    /// Memory, bytes.
    pub memory_bytes: i64,
}

/// What instances that come to nodes and leave them change.
#[derive(Clone, Debug, Default)]
pub struct Changes(BTreeMap<NodeId, Change>);

impl Changes {
    /// An instance that was on one node, or on none, is on another one now, or on none.
    pub fn moved(&mut self, from: Option<NodeId>, to: Option<NodeId>, promised: Promised) {
        if from == to {
            return;
        }
        let signed = |number: u64| i64::try_from(number).expect("no node has 2^63 of anything");
        for (node, sign) in [(from, -1), (to, 1)] {
            let Some(node) = node else { continue };
            let change = self.0.entry(node).or_default();
            change.instances += sign * signed(promised.instances);
            change.cpus += sign * signed(promised.cpus);
            change.memory_bytes += sign * signed(promised.memory_bytes);
        }
    }

    /// What changes on this node.
    #[must_use]
    pub fn of(&self, node: NodeId) -> Change {
        self.0.get(&node).copied().unwrap_or_default()
    }

    /// The nodes on which something changes.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, Change)> {
        self.0.iter().map(|(node, change)| (*node, *change)).filter(|(_, change)| *change != Change::default())
    }
}
