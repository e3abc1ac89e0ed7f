//! Which addresses the two ends of an uplink have. Pure.
//!
//! Each uplink has a /30 of 169.254.0.0/16, which nothing routes. Several agents on one host, and networks with the
//! same subnet, each need one of their own: where to begin to look is a function of the uplink's name, and the first
//! that no interface of the host has is taken. If two agents take the same one at the same moment, the next look finds
//! that and one moves on.

use std::{collections::BTreeSet, net::Ipv4Addr};

/// Number of /30 in 169.254.0.0/16.
const SLOTS: u16 = 1 << 14;

/// The addresses of an uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot(u16);

impl Slot {
    /// The slot that has this address; `None` if it is not in the range.
    pub(super) fn of(address: Ipv4Addr) -> Option<Self> {
        let [a, b, c, d] = address.octets();
        (a == 169 && b == 254).then_some(Self(u16::from_be_bytes([c, d]) >> 2))
    }

    /// Addresses in the first and last 256 are reserved. 169.254.169.0/24 has the metadata servers of other clouds.
    fn is_usable(self) -> bool {
        let [.., third, _] = self.outer().octets();
        !matches!(third, 0 | 169 | 255)
    }

    fn address(self, last: u16) -> Ipv4Addr {
        let [c, d] = ((self.0 << 2) | last).to_be_bytes();
        Ipv4Addr::new(169, 254, c, d)
    }

    /// The address of the host's end.
    pub(super) fn outer(self) -> Ipv4Addr {
        self.address(1)
    }

    /// The address of the namespace's end.
    pub(super) fn inner(self) -> Ipv4Addr {
        self.address(2)
    }
}

/// A slot for the uplink with this name that is not among those taken; `None` if all are.
pub(super) fn choose(name: &str, taken: &BTreeSet<Slot>) -> Option<Slot> {
    let first = name.bytes().fold(0u16, |sum, byte| sum.wrapping_mul(31).wrapping_add(u16::from(byte)));
    (0..SLOTS).map(|step| Slot(first.wrapping_add(step) % SLOTS)).find(|slot| slot.is_usable() && !taken.contains(slot))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_uplink_gets_a_slot_of_its_own_until_there_is_none() {
        let mut taken: BTreeSet<Slot> = (0..SLOTS).map(Slot).filter(|slot| slot.is_usable()).collect();
        assert_eq!(taken.len(), 253 * 64);
        let free: Vec<Slot> = taken.iter().copied().step_by(2000).collect();
        taken.retain(|slot| !free.contains(slot));
        for _ in &free {
            let slot = choose("mu0123456789abc", &taken).expect("one is free");
            assert!(free.contains(&slot) && taken.insert(slot));
            assert_eq!((Slot::of(slot.outer()), Slot::of(slot.inner())), (Some(slot), Some(slot)));
        }
        assert_eq!(choose("mu0123456789abc", &taken), None);
        assert_ne!(choose("mu0123456789abc", &BTreeSet::new()), choose("mu0123456789abd", &BTreeSet::new()));
        assert_eq!(Slot::of(Ipv4Addr::new(10, 0, 0, 1)), None);
    }
}
