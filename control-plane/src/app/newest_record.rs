//! The newest membership record that this process knows, to be compared with what nodes say that they use (`membership.rs`).

use muster_api::node_protocol::Heartbeat;

/// Which record it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewestRecord {
    /// Its epoch; 0 before the first.
    pub(super) epoch: u64,
    /// The digest of its signed text ([`muster_pool::membership::digest`]).
    pub(super) digest: String,
}

impl NewestRecord {
    /// Whether a node uses a newer record than this, or another one of the same epoch.
    pub(super) fn is_behind(&self, beat: &Heartbeat) -> bool {
        let is_other = || beat.membership_record.as_ref().is_some_and(|digest| *digest != self.digest);
        beat.membership_epoch > self.epoch || (beat.membership_epoch == self.epoch && is_other())
    }
}
