//! The reasons for which instances, cuts and snapshots are in the state they are in: words that programs match on.

use crate::words::words;

words! {
    /// Why an instance, a cut or a snapshot is in its state.
    pub enum Reason {
        /// The controller found no node with room for the instance.
        NoCapacity = "no_capacity",
        /// The instance's node has not been heard from.
        NodeSilent = "node_silent",
        /// An operator declared the instance's node dead. It can be recovered elsewhere from what was last saved.
        NodeLost = "node_lost",
        /// The hypervisor, or the disk, refused the start.
        StartFailed = "start_failed",
        /// The instance was not running before its deadline.
        NotStartedInTime = "not_started_in_time",
        /// The instance runs, and was not ready within its time. It is asked on.
        NotReady = "not_ready",
        /// The instance ran, but was not ready within its time, and was stopped because its deployment says so.
        NotReadyInTime = "not_ready_in_time",
        /// The guest turned itself off.
        GuestEnded = "guest_ended",
        /// Its power was cut: by a stop that it did not obey in time or that asked for it, or by somebody on the host.
        PowerCut = "power_cut",
        /// The guest restarted itself, for example after its kernel panicked. Only told as what happened last.
        GuestRebooted = "guest_rebooted",
        /// The guest panicked, or its QEMU process died.
        GuestCrashed = "guest_crashed",
        /// The node's agent was stopped and stopped its guests. They start again with it.
        AgentStopped = "agent_stopped",
        /// The instance's host was restarted, and its deployment says that it stays off then.
        HostRestarted = "host_restarted",
        /// The disk went away under the guest (its agent was killed), or the node no longer has it.
        DiskLost = "disk_lost",
        /// The node has no space left for what the guest or the cut writes.
        DiskFull = "disk_full" | "no_space",
        /// The disk failed for good: a flush failed, or an object of it is corrupt.
        DiskFailed = "disk_failed",
        /// A call for the disk failed. It is tried again.
        DiskError = "disk_error",
        /// A disk on its node holds what the version lacks that the controller has for it: the controller's database is an older
        /// copy. Nothing of it is given up by itself.
        DiskDiverged = "disk_diverged",
        /// Bytes of the disk are on other nodes, which cannot be asked because a clock is wrong: certificates are not valid at
        /// its time. The guest goes on when it is right.
        ClockOff = "clock_off",
        /// A network that the instance has a card in could not be made on its node. It is tried again.
        NetworkFailed = "network_failed",
        /// A file of the node could not be read or written. It is tried again.
        Io = "io",
        /// A call to the hypervisor failed. It is tried again.
        Hypervisor = "hypervisor",
        /// The hypervisor does not answer, so nothing new is known.
        HypervisorSilent = "hypervisor_silent",
        /// The hypervisor paused the guest for another reason than its disk.
        Paused = "paused",
        /// Another node, or the pool, did not answer in time.
        Unreachable = "unreachable" | "pool_unreachable",
        /// Writes were held for the longest time allowed, and the flip had not come by then.
        HoldExpired = "hold_expired",
        /// The file systems of a guest could not be frozen, or were thawed before the cut.
        FreezeFailed = "freeze_failed",
        /// Something else is being done with the disk.
        Busy = "busy",
        /// The node was not told to do this: no such disk, cut or commit is assigned to it.
        NotAssigned = "not_assigned",
        /// The request cannot be carried out by anyone.
        Invalid = "invalid",
        /// A member of the snapshot was lost or deleted.
        MemberLost = "member_lost",
        /// The snapshot was not ready before its deadline.
        Deadline = "deadline",
        /// The snapshot's upload was ended, so the sweep may have removed its objects.
        UploadEnded = "upload_ended",
        /// The snapshot was deleted while it was under way.
        Deleted = "deleted",
        /// The operation was cancelled.
        Cancelled = "cancelled",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_is_read_as_its_case_and_an_unknown_one_is_kept() {
        for reason in Reason::KNOWN {
            let text = serde_json::to_string(reason).expect("JSON");
            assert_eq!(text, format!("\"{reason}\""));
            assert_eq!(serde_json::from_str::<Reason>(&text).expect("a word"), *reason);
        }
        let newer: Reason = serde_json::from_str("\"moon_phase\"").expect("a word");
        assert_eq!(newer, Reason::Unknown("moon_phase".to_owned()));
        assert_eq!(serde_json::to_string(&newer).expect("JSON"), "\"moon_phase\"");
    }

    #[test]
    fn words_of_older_agents_are_read_as_the_words_of_today() {
        assert_eq!(Reason::from("no_space".to_owned()), Reason::DiskFull);
        assert_eq!(Reason::from("pool_unreachable".to_owned()), Reason::Unreachable);
    }
}
