//! The steps of a run. Which step comes at which number is a function of the seed and the number alone; what a step
//! picks (a disk, a version, a place) is drawn as a number and resolved in what exists then.

use std::fmt;

/// Seeded random numbers (splitmix64).
#[derive(Clone)]
pub(super) struct Random(u64);

impl Random {
    /// The numbers of one step: what was drawn before it does not matter.
    pub(super) fn of_step(seed: u64, step: u64) -> Self {
        let mut seeds = Self(seed);
        let seed = seeds.next();
        Self(seed ^ step.wrapping_mul(0xA076_1D64_78BD_642F))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, limit: usize) -> usize {
        assert!(limit > 0, "there is nothing to pick from");
        (self.next() % limit as u64) as usize
    }

    pub(super) fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }

    pub(super) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    pub(super) fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..length.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).collect();
        bytes.truncate(length);
        bytes
    }
}

/// A place on a disk: where it begins and how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) at: usize,
    pub(super) length: usize,
}

impl Place {
    /// A place on a disk of `size` bytes: within a block, whole blocks, across a chunk boundary, long, or up to the end.
    pub(super) fn draw(random: &mut Random, size: usize) -> Self {
        let (block, chunk) = (4096, 65536);
        let length = match random.below(6) {
            0 => 1 + random.below(block),
            1 => block * (1 + random.below(4)),
            2 => 1 + random.below(3 * block),
            3 => 1 + random.below(5 * chunk),
            4 => chunk * (1 + random.below(4)),
            _ => 1 + random.below(chunk),
        };
        let length = length.min(size);
        let room = size - length;
        let at = match random.below(8) {
            0 | 1 => random.below(room + 1),
            2 | 3 => random.below(room / block + 1) * block,
            4 => random.below(room / chunk + 1) * chunk,
            // Some bytes before the boundary of a chunk.
            5 | 6 => (random.below(size / chunk + 1) * chunk).saturating_sub(1 + random.below(length)).min(room),
            _ => room,
        };
        Self { at, length }
    }
}

/// What a daemon is to which a fault happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Victim {
    Agent,
    Holder,
    /// The agent and its holder, at once.
    Both,
    Controller,
}

/// Files of an agent in which bits are flipped, by the names that they have below its data folder.
pub(super) const FLIPPED: [&str; 13] = [
    "cache/slots-",
    "cache/names-",
    "pool/segment-",
    "pool/index.redb",
    ".bits",
    "meta.json",
    "desired.json",
    "instances/",
    "run.json",
    "pool-losses.json",
    "identity/identity.json",
    "identity/node.",
    "identity/ca.pem",
];

/// Files of the controller in which bits are flipped. Its database is no such file: it has no checksums.
pub(super) const FLIPPED_OF_CONTROLLER: [&str; 5] =
    ["high-water.json", "ca.pem", "ca.key", "controller.key", "admin.token"];

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Write {
        zeros: bool,
        flushed: bool,
    },
    /// Makes a place zeros without sending any: PUNCH_HOLE or ZERO_RANGE.
    Discard {
        punch: bool,
    },
    WritePastTheEnd,
    Read,
    ReadWhole,
    Flush,
    Snapshot {
        while_writing: bool,
    },
    Export {
        ranges: bool,
    },
    Fork,
    /// `larger`: with disks that are larger than the image, by an odd number of bytes.
    Deploy {
        larger: bool,
    },
    ImportAgain,
    Stop,
    Start,
    DeleteInstance,
    DeleteDeployment,
    DeleteVersion,
    DeleteSnapshot,
    /// SIGKILL, perhaps while a program writes; then some steps on what is left; then the start.
    Kill {
        victim: Victim,
        writing: bool,
        steps_away: usize,
    },
    /// SIGTERM, some steps, and the start.
    EndAndStart {
        victim: Victim,
        steps_away: usize,
    },
    KillDuringSnapshot {
        victim: Victim,
        after_ms: u64,
    },
    /// Bits of one kind of file of one agent flip while it does not run.
    Flip {
        file: &'static str,
        killed: bool,
        bits: usize,
    },
    /// The same for a file of the controller.
    FlipOfController {
        file: &'static str,
        bits: usize,
    },
    /// An agent is started on a copy of another one's data folder.
    CopiedFolder {
        adopt: bool,
    },
    /// The database of the controller is replaced by an older copy, by `restore` or by hand.
    OldDatabase {
        restore: bool,
        steps_between: usize,
    },
}

impl Op {
    /// The step with this number.
    pub(super) fn draw(random: &mut Random) -> Self {
        match random.below(100) {
            0..42 => Self::draw_io(random),
            42..50 => Self::Snapshot { while_writing: random.one_in(4) },
            50..55 => Self::Export { ranges: random.one_in(2) },
            55..58 => Self::Fork,
            58..61 => Self::Deploy { larger: random.one_in(2) },
            61..63 => Self::ImportAgain,
            63..66 => Self::Stop,
            66..69 => Self::Start,
            69..71 => Self::DeleteInstance,
            71 => Self::DeleteDeployment,
            72..74 => Self::DeleteVersion,
            74..76 => Self::DeleteSnapshot,
            _ => Self::draw_fault(random),
        }
    }

    /// A step that uses one disk only.
    pub(super) fn draw_io(random: &mut Random) -> Self {
        match random.below(20) {
            0..9 => Self::Write { zeros: random.one_in(6), flushed: random.one_in(6) },
            9..12 => Self::Discard { punch: random.one_in(2) },
            12 => Self::WritePastTheEnd,
            13..16 => Self::Read,
            16 => Self::ReadWhole,
            _ => Self::Flush,
        }
    }

    fn draw_fault(random: &mut Random) -> Self {
        let daemon = *random.pick(&[
            Victim::Agent,
            Victim::Agent,
            Victim::Holder,
            Victim::Both,
            Victim::Both,
            Victim::Controller,
        ]);
        let agent_or_controller = *random.pick(&[Victim::Agent, Victim::Agent, Victim::Controller]);
        let steps = random.below(4);
        match random.below(24) {
            0..7 => Self::Kill { victim: daemon, writing: random.one_in(2), steps_away: steps },
            7..10 => Self::EndAndStart { victim: agent_or_controller, steps_away: steps },
            10..13 => Self::KillDuringSnapshot { victim: daemon, after_ms: random.next() % 120 },
            13..21 => Self::Flip {
                file: FLIPPED[random.below(FLIPPED.len())],
                killed: random.one_in(2),
                bits: 1 + random.below(3),
            },
            21 if random.one_in(2) => {
                let file = FLIPPED_OF_CONTROLLER[random.below(FLIPPED_OF_CONTROLLER.len())];
                Self::FlipOfController { file, bits: 1 + random.below(3) }
            }
            21 => Self::CopiedFolder { adopt: random.one_in(2) },
            _ => Self::OldDatabase { restore: random.one_in(2), steps_between: 2 + steps },
        }
    }

    /// Whether it breaks something on purpose.
    pub(super) fn is_fault(&self) -> bool {
        matches!(
            self,
            Self::Kill { .. }
                | Self::EndAndStart { .. }
                | Self::KillDuringSnapshot { .. }
                | Self::Flip { .. }
                | Self::FlipOfController { .. }
                | Self::CopiedFolder { .. }
                | Self::OldDatabase { .. }
        )
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}
