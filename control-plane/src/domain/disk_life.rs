//! The life of a disk: what it is doing, what its size may become, and how it leaves its instance.
//!
//! ```text
//!             attach            grow
//!  (made) ──► attaching ──► attached ◄──► growing
//!                  ▲           │ detach
//!                  │           ▼
//!                  ├─────── detaching ──► detached ──► (deleted)
//!                  └──────────────────────────┘
//! ```
//! A disk that is detached is taken from its guest first. Then a snapshot of its instance saves what it holds, unless it
//! holds nothing that its newest version lacks. So what the guest wrote last is in it, and nothing is lost.

use muster_api::{
    disk::DiskState,
    error::FieldError,
    instance::InstanceState,
    node_protocol::GuestLacks,
    units::{exact_duration, exact_size},
};
use storage_core::BLOCK_BYTES;

use super::versions::SIZE_BYTES_MAX;

/// How long to wait until another snapshot is taken after one that failed, or that left something out, milliseconds.
pub const AGAIN_AFTER_MS: i64 = 30_000;

/// The most disks of a project that belong to no instance or are being detached. Nobody has to clear them up before an instance
/// goes, so they would pile up unseen.
pub const DETACHED_MAX: u64 = 1_000;

/// What is known of a disk of an instance.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// The size that it is to have, bytes.
    pub size_bytes: u64,
    /// The size that it has on its node, if the node told.
    pub reported_bytes: Option<u64>,
    /// Whether its node told that it is there.
    pub is_there: bool,
    /// Whether a guest has it or may get it, if the node told.
    pub in_guest: Option<bool>,
    /// What a guest that runs has yet to get of it, if the node told.
    pub guest_lacks: Option<GuestLacks>,
    /// Whether it is to leave its instance.
    pub is_leaving: bool,
}

/// What a disk of an instance is doing. It claims no more than its node told.
#[must_use]
pub fn state(seen: &Seen) -> DiskState {
    if seen.is_leaving {
        DiskState::Detaching
    } else if !seen.is_there || seen.in_guest == Some(false) || seen.guest_lacks == Some(GuestLacks::Disk) {
        DiskState::Attaching
    } else if seen.guest_lacks == Some(GuestLacks::Size)
        || seen.reported_bytes.is_some_and(|bytes| bytes < seen.size_bytes)
    {
        DiskState::Growing
    } else {
        DiskState::Attached
    }
}

/// Whether a disk can have this size, bytes.
#[must_use]
pub const fn is_disk_size(bytes: u64) -> bool {
    bytes <= SIZE_BYTES_MAX && bytes.is_multiple_of(BLOCK_BYTES)
}

/// Why a disk of `size_bytes` cannot become one of `wanted` bytes.
#[must_use]
pub fn check_growth(size_bytes: u64, wanted: u64) -> Option<FieldError> {
    let (code, detail) = if wanted < size_bytes {
        let (least, got) = (exact_size(size_bytes), exact_size(wanted));
        ("out_of_range", format!("a disk only grows: at least {least}, what it has; got {got}"))
    } else if wanted > SIZE_BYTES_MAX {
        ("out_of_range", format!("at most {}, got {}", exact_size(SIZE_BYTES_MAX), exact_size(wanted)))
    } else if !wanted.is_multiple_of(BLOCK_BYTES) {
        ("invalid", format!("a multiple of {BLOCK_BYTES}, got {wanted}"))
    } else {
        return None;
    };
    Some(FieldError { pointer: "/size_bytes".to_owned(), code: code.to_owned(), detail })
}

/// Why a version of `version_bytes` cannot be one of a disk that is to have `disk_bytes` and whose version before had
/// `base_bytes`: a disk grows from the one size to the other, and its node may not have come that far.
#[must_use]
pub fn check_version(base_bytes: u64, disk_bytes: u64, version_bytes: u64) -> Option<String> {
    let fits = (base_bytes..=disk_bytes).contains(&version_bytes);
    let detail =
        || format!("the disk has {disk_bytes} bytes, its version before {base_bytes}, this version {version_bytes}");
    (!fits).then(detail)
}

/// What is known of a disk that is being detached.
#[derive(Clone, Debug)]
pub struct Leaving {
    /// The state of its instance.
    pub instance: InstanceState,
    /// What its node says of it, in a sentence.
    pub said: Option<String>,
    /// Whether a guest has it or may get it, if the node told.
    pub in_guest: Option<bool>,
    /// Whether its node ever told that it is there. If not, `in_guest` is `Some(false)` once the node told that it is not.
    pub was_there: bool,
    /// Whether its node knows of its newest version.
    pub knows_newest: bool,
    /// Bytes written since that version, as the node told together with the version.
    pub unsaved_bytes: u64,
    /// Whether a snapshot under way has it.
    pub is_being_cut: bool,
    /// The last snapshot that was taken to save it.
    pub last: Option<Last>,
}

/// A snapshot that was taken to save a disk and has ended.
#[derive(Clone, Debug)]
pub struct Last {
    /// How long ago it ended, milliseconds.
    pub ended_ms_ago: i64,
    /// Why nothing was published; `None` if it succeeded.
    pub failed: Option<String>,
}

/// What comes next for a disk that is being detached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing yet, for this reason.
    Wait(String),
    /// A snapshot of its instance saves what it holds.
    Save,
    /// It leaves its instance: its newest version has all that it holds.
    Leave,
}

/// What comes next for a disk that is being detached.
#[must_use]
pub fn next(disk: &Leaving) -> Next {
    let wait = |why: &str| Next::Wait(why.to_owned());
    if !disk.was_there && disk.in_guest == Some(false) {
        return Next::Leave;
    }
    match disk.instance {
        InstanceState::Unknown => return wait("the node of its instance is silent"),
        InstanceState::Migrating => return wait("its instance moves to another node"),
        InstanceState::Pending => return wait("its instance waits for a node"),
        _ if !disk.was_there => {
            return wait("its node has not told yet whether it has it; an agent that never does is too old: update it");
        }
        InstanceState::Failed => return wait("its instance has failed: start it, stop it or recover it"),
        _ => {}
    }
    if disk.in_guest != Some(false) {
        let said = disk.said.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default();
        return Next::Wait(format!("its guest has not let it go yet{said}"));
    }
    if disk.is_being_cut {
        return wait("a snapshot saves what it holds");
    }
    if !disk.knows_newest {
        return wait("its node has not taken its newest version over yet");
    }
    if disk.unsaved_bytes == 0 {
        return Next::Leave;
    }
    match &disk.last {
        Some(last) if last.ended_ms_ago < AGAIN_AFTER_MS => {
            let why = last.failed.as_deref().unwrap_or("it was written to since the last one");
            let after = exact_duration(std::time::Duration::from_millis(AGAIN_AFTER_MS.unsigned_abs()));
            Next::Wait(format!("what it holds is saved again {after} after the last snapshot: {why}"))
        }
        _ => Next::Save,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_claims_no_more_than_the_node_told() {
        let there = Seen {
            size_bytes: 8192,
            reported_bytes: Some(8192),
            is_there: true,
            in_guest: Some(true),
            guest_lacks: None,
            is_leaving: false,
        };
        let lacks = |what| Seen { guest_lacks: Some(what), ..there };
        for (seen, expected) in [
            (there, DiskState::Attached),
            (Seen { is_there: false, ..there }, DiskState::Attaching),
            (Seen { in_guest: Some(false), ..there }, DiskState::Attaching),
            (Seen { reported_bytes: Some(4096), ..there }, DiskState::Growing),
            (lacks(GuestLacks::Disk), DiskState::Attaching),
            (lacks(GuestLacks::Size), DiskState::Growing),
            // An old agent tells neither.
            (Seen { reported_bytes: None, in_guest: None, ..there }, DiskState::Attached),
            (Seen { is_leaving: true, ..there }, DiskState::Detaching),
            (Seen { is_leaving: true, is_there: false, ..there }, DiskState::Detaching),
        ] {
            assert_eq!(state(&seen), expected, "{seen:?}");
        }
    }

    #[test]
    fn a_disk_grows_in_blocks_up_to_the_limit() {
        assert_eq!(check_growth(8192, 8192), None);
        assert_eq!(check_growth(8192, 16 << 40), None);
        for wanted in [0, 4096, 8193, (16 << 40) + 4096] {
            assert!(check_growth(8192, wanted).is_some(), "{wanted}");
        }
    }

    #[test]
    fn a_version_has_a_size_that_the_disk_had_on_its_way() {
        for fits in [4096, 8192, 16_384] {
            assert_eq!(check_version(4096, 16_384, fits), None);
        }
        assert!(check_version(8192, 16_384, 4096).is_some() && check_version(8192, 16_384, 20_480).is_some());
    }

    #[test]
    fn a_disk_leaves_once_its_guest_let_it_go_and_everything_is_saved() {
        let clean = Leaving {
            instance: InstanceState::Running,
            said: None,
            in_guest: Some(false),
            was_there: true,
            knows_newest: true,
            unsaved_bytes: 0,
            is_being_cut: false,
            last: None,
        };
        let dirty = Leaving { unsaved_bytes: 4096, ..clean.clone() };
        let recent = |failed: Option<&str>| Some(Last { ended_ms_ago: 1, failed: failed.map(str::to_owned) });
        assert_eq!(next(&clean), Next::Leave);
        assert_eq!(next(&dirty), Next::Save);
        let old = Some(Last { ended_ms_ago: AGAIN_AFTER_MS, failed: None });
        assert_eq!(next(&Leaving { last: old, ..dirty.clone() }), Next::Save);
        for waiting in [
            Leaving { in_guest: Some(true), ..clean.clone() },
            Leaving { in_guest: None, ..clean.clone() },
            Leaving { is_being_cut: true, ..clean.clone() },
            Leaving { knows_newest: false, ..clean.clone() },
            Leaving { instance: InstanceState::Unknown, ..clean.clone() },
            Leaving { instance: InstanceState::Failed, ..clean.clone() },
            Leaving { last: recent(None), ..dirty.clone() },
            Leaving { last: recent(Some("the pool is full")), ..dirty },
        ] {
            assert!(matches!(next(&waiting), Next::Wait(_)), "{waiting:?}");
        }
        for instance in [InstanceState::Starting, InstanceState::Running, InstanceState::Failed] {
            let absent = Leaving { instance, was_there: false, knows_newest: false, ..clean.clone() };
            assert_eq!(next(&absent), Next::Leave);
            assert!(matches!(next(&Leaving { in_guest: None, ..absent }), Next::Wait(_)));
        }
        let refuses = Leaving { in_guest: Some(true), said: Some("no answer".to_owned()), ..clean };
        assert!(matches!(next(&refuses), Next::Wait(why) if why.ends_with(": no answer")));
    }
}
