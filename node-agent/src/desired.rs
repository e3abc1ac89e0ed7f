//! What this node was last told to be: accepted by rule, kept on disk, handed to whoever works on it.
//!
//! Three counters guard it, each compared by itself within one incarnation of the database:
//!
//! | counter | older than seen | newer |
//! |---|---|---|
//! | incarnation | the whole answer is refused; the same number with another random likewise | all others start anew |
//! | membership epoch | the record that is here stays | taken if the CA signed it |
//! | generation of an instance | that assignment stays as it is here | taken |
//!
//! The accepted state is durable in `DATA/desired.json` before anyone works on it, so an agent that starts while the controller is away
//! goes on with it.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
};

use muster_api::{
    ClusterId,
    node_protocol::{Assignment, CutOrder, Desired, Incarnation},
};
use muster_pool::{
    membership::{MembershipError, verify},
    tls::Ca,
};
use serde::{Deserialize, Serialize};
use storage_core::membership::{Membership, SignedMembership};
use tracing::warn;

use crate::identity::replace_file;

/// Why an answer of the controller is not taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// An older state of the database than one seen here.
    #[error("the controller's database is at incarnation {got}, this node has seen {seen}")]
    OlderIncarnation {
        /// Number in the answer.
        got: u64,
        /// Number seen.
        seen: u64,
    },
    /// Another history with the same number.
    #[error("the controller's database claims incarnation {0}, but is not the one this node has seen")]
    OtherHistory(u64),
}

/// The desired state as accepted, with what has to be remembered to accept the next one.
#[derive(Clone, Debug)]
pub struct Known {
    /// What should be. Its membership text is the signed one of `membership`.
    pub desired: Desired,
    /// The verified record; none before the first one.
    pub membership: Option<Membership>,
    /// Whether it came from the controller in this process's life, not from disk: only then may cuts be begun.
    pub fresh: bool,
}

impl Known {
    /// What a node knows before it was told anything.
    #[must_use]
    pub fn nothing(incarnation: Incarnation) -> Self {
        let membership = SignedMembership { record: String::new(), signature: String::new() };
        let desired = Desired {
            revision: 0,
            incarnation,
            membership,
            assignments: Vec::new(),
            cuts: Vec::new(),
            versions: std::collections::BTreeMap::new(),
        };
        Self { desired, membership: None, fresh: false }
    }

    /// The order with this snapshot and attempt.
    #[must_use]
    pub fn cut(&self, key: crate::cuts::CutKey) -> Option<&CutOrder> {
        self.desired.cuts.iter().find(|order| (order.snapshot, order.attempt) == key)
    }

    /// What follows from an answer of the controller.
    ///
    /// # Errors
    /// When it is of an older incarnation or of another history; what is known stays.
    pub fn accept(&self, mut answer: Desired, ca: &Ca, cluster: ClusterId) -> Result<Self, Refusal> {
        let (seen, got) = (self.desired.incarnation, answer.incarnation);
        if got.number < seen.number {
            return Err(Refusal::OlderIncarnation { got: got.number, seen: seen.number });
        }
        if got.number == seen.number && got.random != seen.random {
            return Err(Refusal::OtherHistory(got.number));
        }
        let same = got.number == seen.number;
        let membership = match verify(&answer.membership, ca, cluster) {
            Ok(record) => match &self.membership {
                Some(have) if same && record.epoch < have.epoch => {
                    warn!(epoch = record.epoch, have = have.epoch, "an older membership record was not taken");
                    answer.membership = self.desired.membership.clone();
                    self.membership.clone()
                }
                _ => Some(record),
            },
            Err(error) => {
                warn!(%error, "a membership record was not taken");
                answer.membership = self.desired.membership.clone();
                self.membership.clone()
            }
        };
        if same {
            let have: HashMap<_, &Assignment> = self.desired.assignments.iter().map(|a| (a.instance, a)).collect();
            for assignment in &mut answer.assignments {
                if let Some(have) = have.get(&assignment.instance)
                    && assignment.generation < have.generation
                {
                    warn!(
                        instance.id = %assignment.instance, generation = assignment.generation, have = have.generation,
                        "an assignment of an older generation was not taken"
                    );
                    *assignment = (*have).clone();
                    // Its base may no longer be among the answer's versions.
                    for disk in &have.disks {
                        if let Some(root) = self.desired.versions.get(&disk.version) {
                            answer.versions.entry(disk.version).or_insert_with(|| root.clone());
                        }
                    }
                }
            }
        }
        Ok(Self { desired: answer, membership, fresh: true })
    }
}

/// `DATA/desired.json`.
#[derive(Clone, Debug)]
pub struct DesiredFile {
    file: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    desired: Desired,
}

impl DesiredFile {
    /// In a data folder.
    #[must_use]
    pub fn new(data_dir: &Path) -> Self {
        Self { file: data_dir.join("desired.json") }
    }

    /// What was stored last; none before the first. A file that cannot be read is as good as none: the controller has
    /// the truth and the disks keep their generations themselves.
    #[must_use]
    pub fn load(&self, ca: &Ca, cluster: ClusterId) -> Option<Known> {
        let text = match std::fs::read(&self.file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                warn!(file = %self.file.display(), %error, "the last desired state cannot be read");
                return None;
            }
        };
        match serde_json::from_slice::<Stored>(&text) {
            Ok(Stored { desired }) => {
                let membership = match verify(&desired.membership, ca, cluster) {
                    Ok(record) => Some(record),
                    Err(MembershipError::Signature) if desired.membership.record.is_empty() => None,
                    Err(error) => {
                        warn!(%error, "the last membership record is not used");
                        None
                    }
                };
                Some(Known { desired, membership, fresh: false })
            }
            Err(error) => {
                warn!(file = %self.file.display(), %error, "the last desired state cannot be read");
                None
            }
        }
    }

    /// Stores what was accepted, durably.
    ///
    /// # Errors
    /// When the file cannot be written; the old one stays.
    pub fn store(&self, known: &Known) -> io::Result<()> {
        let stored = Stored { desired: known.desired.clone() };
        replace_file(&self.file, &serde_json::to_vec(&stored).map_err(io::Error::other)?)
    }
}
