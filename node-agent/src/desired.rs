//! The desired state of this node: which answers of the controller are accepted, and how the last one is kept on disk.
//!
//! Three counters protect against answers of a controller whose database was reset or restored. Epochs and generations
//! are only compared within one incarnation of the database.
//!
//! | counter | in the answer it is older | in the answer it is newer |
//! |---|---|---|
//! | incarnation | the whole answer is refused, also if the number is the same and `random` differs | all other counters start anew |
//! | membership epoch | the record known here stays | accepted if the CA signed it |
//! | generation of an instance | the assignment known here stays | accepted |
//!
//! The accepted state is durable in `DATA/desired.json` before the agent works on it. So an agent that starts while the
//! controller is away goes on with it.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::{Path, PathBuf},
};

use muster_api::{
    ClusterId, DiskId,
    node_protocol::{Assignment, CutKey, CutOrder, Desired, Incarnation, network::NetworksAssignment},
};
use muster_pool::{
    membership::{MembershipError, verify},
    tls::Ca,
};
use serde::{Deserialize, Serialize};
use storage_core::membership::{Membership, SignedMembership};
use tracing::warn;

use crate::{identity::replace_file, sealed};

/// Why an answer of the controller is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It comes from an older incarnation of the database than this node has seen.
    #[error("the controller's database is at incarnation {got}, this node has seen {seen}")]
    OlderIncarnation {
        /// Incarnation that the answer has.
        got: u64,
        /// Newest incarnation seen by this node.
        seen: u64,
    },
    /// It has the incarnation that this node has seen, but comes from another database.
    #[error("the controller's database claims incarnation {0}, but is not the one this node has seen")]
    OtherHistory(u64),
}

/// The accepted desired state, and what is needed to check the next one.
#[derive(Clone, Debug)]
pub struct Known {
    /// The desired state. Its `membership` is the signed form of the record below.
    pub desired: Desired,
    /// The verified membership record; `None` before the first one.
    pub membership: Option<Membership>,
    /// Whether it came from the controller since this process started, not from disk. Only then may cuts begin.
    pub fresh: bool,
}

impl Known {
    /// The state of a node before the first answer of the controller.
    #[must_use]
    pub fn nothing(incarnation: Incarnation) -> Self {
        let membership = SignedMembership { record: String::new(), signature: String::new() };
        let desired = Desired {
            revision: 0,
            incarnation,
            membership,
            assignments: Vec::new(),
            cuts: Vec::new(),
            versions: BTreeMap::new(),
            seeds: BTreeMap::new(),
            networks: NetworksAssignment::default(),
        };
        Self { desired, membership: None, fresh: false }
    }

    /// The cut order with this snapshot and attempt, if there is one.
    #[must_use]
    pub fn cut(&self, key: CutKey) -> Option<&CutOrder> {
        self.desired.cuts.iter().find(|order| order.key() == key)
    }

    /// Checks an answer of the controller and returns the state that follows from it.
    ///
    /// # Errors
    /// [`Refusal`] if the answer is of an older incarnation or from another database. The known state stays then.
    pub fn accept(&self, mut answer: Desired, ca: &Ca, cluster: ClusterId) -> Result<Self, Refusal> {
        let (seen, got) = (self.desired.incarnation, answer.incarnation);
        if got.number < seen.number {
            return Err(Refusal::OlderIncarnation { got: got.number, seen: seen.number });
        }
        if got.number == seen.number && got.random != seen.random {
            return Err(Refusal::OtherHistory(got.number));
        }
        let same_incarnation = got.number == seen.number;
        let membership = match self.newer_membership(&answer.membership, ca, cluster, same_incarnation) {
            Some(record) => Some(record),
            None => {
                answer.membership = self.desired.membership.clone();
                self.membership.clone()
            }
        };
        if same_incarnation {
            self.keep_newer_generations(&mut answer);
        }
        Ok(Self { desired: answer, membership, fresh: true })
    }

    /// This state as far as it may be worked with although it could not be stored: without orders to take disks away that
    /// `before` lacks. An agent that is started again with the stored state would give a guest such a disk, after it had said that
    /// no guest has it any more.
    #[must_use]
    pub fn not_stored(mut self, before: &Self) -> Self {
        let known: HashMap<_, &Assignment> = before.desired.assignments.iter().map(|a| (a.instance, a)).collect();
        for assignment in &mut self.desired.assignments {
            let have = known.get(&assignment.instance);
            let was_out =
                |disk: DiskId| have.is_some_and(|have| have.disks.iter().any(|had| had.disk == disk && !had.in_guest));
            for disk in &mut assignment.disks {
                disk.in_guest |= !was_out(disk.disk);
            }
            assignment.left.retain(|left| have.is_some_and(|have| have.left.contains(left)));
        }
        self
    }

    /// Verifies a membership record; `None` if the known one stays.
    fn newer_membership(
        &self,
        signed: &SignedMembership,
        ca: &Ca,
        cluster: ClusterId,
        same_incarnation: bool,
    ) -> Option<Membership> {
        let record = match verify(signed, ca, cluster) {
            Ok(record) => record,
            Err(error) => {
                warn!(%error, "a membership record was not accepted");
                return None;
            }
        };
        if let Some(have) = &self.membership
            && same_incarnation
            && record.epoch < have.epoch
        {
            warn!(epoch = record.epoch, have = have.epoch, "an older membership record was not accepted");
            return None;
        }
        Some(record)
    }

    /// Replaces assignments in the answer by the known ones where those have a newer generation.
    fn keep_newer_generations(&self, answer: &mut Desired) {
        let known: HashMap<_, &Assignment> = self.desired.assignments.iter().map(|a| (a.instance, a)).collect();
        for assignment in &mut answer.assignments {
            let Some(have) = known.get(&assignment.instance) else { continue };
            if assignment.generation >= have.generation {
                continue;
            }
            warn!(
                instance.id = %assignment.instance, generation = assignment.generation, have = have.generation,
                "an assignment of an older generation was not accepted"
            );
            *assignment = (*have).clone();
            // The version it starts from may not be in the answer.
            for disk in &have.disks {
                if let Some(root) = self.desired.versions.get(&disk.version) {
                    answer.versions.entry(disk.version).or_insert_with(|| root.clone());
                }
            }
            if let Some((of, seed)) = have.seed.and_then(|of| self.desired.seeds.get_key_value(&of)) {
                answer.seeds.entry(*of).or_insert_with(|| seed.clone());
            }
        }
    }
}

/// The file `DATA/desired.json`, which holds the accepted desired state.
#[derive(Clone, Debug)]
pub struct DesiredFile {
    file: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    desired: Desired,
}

impl DesiredFile {
    /// The file in this data folder.
    #[must_use]
    pub fn new(data_dir: &Path) -> Self {
        Self { file: data_dir.join("desired.json") }
    }

    /// Reads the stored state; `None` if there is none. A file that cannot be read counts as none, which is safe: the
    /// controller sends the state again, and the disks keep their generations themselves.
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
        match sealed::open::<Stored>(&text) {
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

    /// Stores the accepted state durably.
    ///
    /// # Errors
    /// An I/O error. The old file stays then.
    pub fn store(&self, known: &Known) -> io::Result<()> {
        let stored = Stored { desired: known.desired.clone() };
        replace_file(&self.file, &sealed::seal(&stored)?)
    }
}
