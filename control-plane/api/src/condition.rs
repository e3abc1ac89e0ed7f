//! Conditions: what people should know about a node or an instance and its state does not say.

use serde::{Deserialize, Serialize};

use crate::words::words;

words! {
    /// What is to be known.
    pub enum ConditionKind {
        /// Node: the file system is down to its reserves, or the pool has reached its limit, so the pool takes no new objects.
        DiskFull = "disk_full",
        /// Node: the file system is down to what is kept free for the guests that are there, so no new instances are placed
        /// on it.
        NodeFull = "node_full",
        /// Node: its disk failed for good. It takes neither objects nor instances, and other nodes copy what it has.
        DiskFailed = "disk_failed",
        /// Node: its clock and the controller's differ by more than five seconds, or certificates of other nodes are not valid at
        /// its time.
        ClockOff = "clock_off",
        /// Node: guests are emulated, because KVM cannot be used.
        NoKvm = "no_kvm",
        /// Node: libvirt does not answer, so no guests can be started.
        HypervisorSilent = "hypervisor_silent" | "no_libvirt",
        /// Node: FUSE cannot be used, so there are no disks.
        NoFuse = "no_fuse",
        /// Node: the kernel is too old for guests to survive a restart of the agent.
        OldKernel = "old_kernel",
        /// Node, and each instance on it: another agent with the node's identity was refused lately, so there is a copy of
        /// its data folder.
        IdentityCopied = "identity_copied",
        /// Node: objects of its share of the pool are lost there. How many: [`crate::node::PoolUse::lost_objects`].
        /// Instance: its disk needs objects of which no node has a good copy.
        ObjectsLost = "objects_lost",
        /// Instance: since its start its guest has written nothing to its console and hardly used its disk, for a minute or
        /// more. It may not boot.
        GuestSilent = "guest_silent",
        /// Instance: its file systems may still be frozen after a snapshot, because its guest agent has not answered since.
        /// What writes in the guest waits.
        GuestFrozen = "guest_frozen",
        /// Instance: a disk of it is on its node that the controller does not know as its own and could not take over, because its
        /// database is an older copy.
        DiskUnknown = "disk_unknown",
        /// Instance: a disk of it is on its node in a state that the controller does not know and could not take over, because its
        /// database is an older copy. The node keeps it, and the instance cannot start with it.
        DiskDiverged = "disk_diverged",
    }
}

/// Something that people should know about a node or an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Condition {
    /// A stable word. Of a node: `disk_full`, `node_full`, `disk_failed`, `clock_off`, `no_kvm`, `hypervisor_silent`, `no_fuse`, `old_kernel`,
    /// `identity_copied`, `objects_lost`. Of an instance: `identity_copied`, `objects_lost`,
    /// `guest_silent`, `guest_frozen`, `disk_unknown`, `disk_diverged`.
    #[schema(value_type = String)]
    pub kind: ConditionKind,
    /// The condition in a sentence, for people.
    pub detail: String,
}
