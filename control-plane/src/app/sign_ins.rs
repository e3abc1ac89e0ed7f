//! Failed sign-ins, counted per address. A good token is always accepted; an address that keeps sending bad ones is
//! told to wait.
//!
//! The secret of a token has 32 random bytes, so nobody guesses one: the count bounds the log lines and the work that a
//! broken caller causes.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::Mutex,
};

use muster_api::Timestamp;
use storage_core::lock;

/// Failures at once before an address has to wait.
const BURST: i64 = 30;
/// After this time one more failure is allowed, microseconds.
const EVERY_MICROS: i64 = 1_000_000;
/// Most addresses that are remembered. Further ones share one count until others are forgotten.
const ADDRESSES_MAX: usize = 4096;

/// Recent failures by address: the microsecond at which the address has waited for all of them.
#[derive(Debug, Default)]
pub struct SignIns(Mutex<HashMap<IpAddr, i64>>);

impl SignIns {
    /// Counts a failure. True when the address has to wait.
    pub(super) fn too_many(&self, address: IpAddr, now: Timestamp) -> bool {
        let now = now.micros();
        let mut waited = lock(&self.0);
        let mut key = network(address);
        if waited.len() >= ADDRESSES_MAX && !waited.contains_key(&key) {
            waited.retain(|_, at| *at > now);
            if waited.len() >= ADDRESSES_MAX {
                key = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
            }
        }
        let at = waited.entry(key).or_insert(now);
        let next = (*at).max(now) + EVERY_MICROS;
        // A clock that was turned back must not lock anybody out for long.
        if next > now + BURST * EVERY_MICROS {
            *at = (*at).min(now + BURST * EVERY_MICROS);
            return true;
        }
        *at = next;
        false
    }
}

/// The key of the count: an IPv4 address, or the network (64 bits) of an IPv6 address.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) >> 64 << 64).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failures(ins: &SignIns, address: &str, at_s: i64, count: usize) -> usize {
        let address = address.parse().expect("an address");
        (0..count).filter(|_| !ins.too_many(address, Timestamp::from_micros(at_s * 1_000_000))).count()
    }

    #[test]
    fn an_address_waits_after_its_burst_and_others_do_not() {
        let ins = SignIns::default();
        assert_eq!(failures(&ins, "192.0.2.1", 100, 100), 30);
        assert_eq!(failures(&ins, "::ffff:192.0.2.1", 100, 1), 0, "the same address in IPv6 notation");
        assert_eq!(failures(&ins, "192.0.2.2", 100, 1), 1);
        assert_eq!(failures(&ins, "192.0.2.1", 110, 100), 10);
        assert_eq!(failures(&ins, "192.0.2.1", 10_000, 100), 30);
        assert_eq!(failures(&ins, "2001:db8::1", 100, 20) + failures(&ins, "2001:db8::2", 100, 20), 30);
        // The clock is turned back by an hour: the address waits no longer than a burst takes.
        failures(&ins, "192.0.2.1", 6_400, 1);
        assert_eq!(failures(&ins, "192.0.2.1", 6_430, 100), 30);
    }

    #[test]
    fn the_table_has_a_bounded_size() {
        let ins = SignIns::default();
        for n in 0..20_000_u32 {
            ins.too_many(IpAddr::V4(n.into()), Timestamp::from_micros(1));
        }
        assert!(ins.0.lock().expect("whole").len() <= ADDRESSES_MAX + 1);
        assert!(
            ins.too_many(IpAddr::V4(u32::MAX.into()), Timestamp::from_micros(1)),
            "addresses beyond the limit share one count"
        );
        assert!(!ins.too_many(IpAddr::V4(u32::MAX.into()), Timestamp::from_micros(3_600_000_000)));
    }
}
