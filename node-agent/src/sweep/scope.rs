//! How much a node has to do in a round.

use muster_api::node_protocol::{
    Incarnation,
    sweep::{SweepDone, SweepRound},
};
use storage_core::store::Listed;

use super::note::Note;

/// Rounds in which every object of a node is asked about once, whatever happened to it.
const SLICES: u64 = 64;

/// A round that the controller's heartbeats name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    /// The history of the database that the round is of.
    pub incarnation: Incarnation,
    /// The round.
    pub round: SweepRound,
}

/// What a node has to do in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Only to say that it is done: it has carried out this round.
    Told(SweepDone),
    /// Nothing: it has carried out a later round of the same history, so this one is not believed.
    Past,
    /// To drop the dead of the round, and to ask about those of its objects that came of age and about one slice of all.
    Next,
    /// To ask about all its objects: it missed rounds, and so the dead of them, or it got copies of old objects.
    All,
}

impl Scope {
    /// `oldest_put` is the lowest stamp that anything was put with since the last round that was carried out.
    pub(super) fn of(note: Option<&Note>, named: Named, oldest_put: u64) -> Self {
        let round = named.round.round;
        match note {
            Some(note) if note.incarnation != named.incarnation => Self::All,
            Some(note) if note.round == round => Self::Told(note.done),
            Some(note) if note.round > round => Self::Past,
            // A copy that came back with an older stamp would not be asked about before its slice.
            Some(note) if note.round + 1 == round && oldest_put.saturating_add(1) >= named.round.below() => Self::Next,
            Some(_) | None => Self::All,
        }
    }

    /// Whether the controller is asked about an object of this node. Those with a stamp that protects it are never asked about.
    pub(super) fn covers(self, object: &Listed, round: SweepRound) -> bool {
        let is_old_enough = object.round < round.below();
        let in_slice = || u64::from(object.name.as_bytes()[0]) % SLICES == round.round % SLICES;
        match self {
            Self::Told(_) | Self::Past => false,
            Self::Next => is_old_enough && (came_of_age(object, round) || in_slice()),
            Self::All => is_old_enough,
        }
    }

    /// Whether an object that is covered is asked about only because its slice has its turn. If nothing needs it, an earlier
    /// round should have given it up.
    pub(super) fn is_by_chance(self, object: &Listed, round: SweepRound) -> bool {
        self == Self::Next && !came_of_age(object, round)
    }
}

/// Objects of this age were protected by their stamp until now, so that no earlier round asked about them.
fn came_of_age(object: &Listed, round: SweepRound) -> bool {
    object.round + 1 == round.below()
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage_core::{Kind, ObjectName};

    const INCARNATION: Incarnation = Incarnation { number: 3, random: 9 };

    fn named(round: u64) -> Named {
        Named { incarnation: INCARNATION, round: SweepRound { round } }
    }

    fn object(first_byte: u8, round: u64) -> Listed {
        let mut name = [7; 32];
        name[0] = first_byte;
        Listed { name: ObjectName::from_bytes(name), round, stored_bytes: 1, kind: Kind::Chunk }
    }

    #[test]
    fn only_the_round_after_the_last_one_of_the_same_history_is_cheap() {
        let done = SweepDone { objects: 1, bytes: 2, reclaimed_bytes: 3, unexplained_bytes: 0 };
        let note = Note { incarnation: INCARNATION, round: 8, done };
        let restored = Note { incarnation: Incarnation { number: 2, random: 1 }, ..note };
        for (note, round, oldest_put, scope) in [
            (None, 9, u64::MAX, Scope::All),
            (Some(note), 7, u64::MAX, Scope::Past),
            (Some(note), 8, 1, Scope::Told(done)),
            (Some(note), 9, u64::MAX, Scope::Next),
            (Some(note), 9, 7, Scope::Next),
            (Some(note), 9, 6, Scope::All),
            (Some(note), 10, u64::MAX, Scope::All),
            (Some(restored), 7, u64::MAX, Scope::All),
            (Some(restored), 8, u64::MAX, Scope::All),
            (Some(restored), 9, u64::MAX, Scope::All),
        ] {
            assert_eq!(Scope::of(note.as_ref(), named(round), oldest_put), scope, "{note:?}, {round}, {oldest_put}");
        }
    }

    #[test]
    fn every_object_is_asked_about_when_it_comes_of_age_and_once_in_64_rounds() {
        let rounds = |object: &Listed, from: u64, scope: Scope| -> Vec<u64> {
            (from..from + 64).filter(|round| scope.covers(object, SweepRound { round: *round })).collect()
        };
        // With stamp 100 it is protected in rounds up to 101.
        assert_eq!(rounds(&object(37, 100), 90, Scope::Next), [101 + 1], "it came of age");
        assert_eq!(rounds(&object(37, 100), 103, Scope::Next), [128 + 37], "its slice");
        assert_eq!(rounds(&object(37 + 128, 100), 103, Scope::Next), [128 + 37]);
        let (of_age, slice) = (SweepRound { round: 102 }, SweepRound { round: 165 });
        let by_chance = |scope: Scope, round| scope.is_by_chance(&object(37, 100), round);
        assert!(by_chance(Scope::Next, slice) && !by_chance(Scope::Next, of_age) && !by_chance(Scope::All, slice));
        assert_eq!(rounds(&object(37, 100), 90, Scope::All), (102..154).collect::<Vec<_>>());
        assert_eq!(rounds(&object(0, 0), 0, Scope::All), (2..64).collect::<Vec<_>>(), "no round is below the first");
    }
}
