//! Failed sign-ins, counted per address: a good token always passes, who keeps showing bad ones is told to wait.
//!
//! Nobody guesses 32 bytes; what this bounds is the noise and work of a caller that cannot stop. A token the CA never
//! made is refused without the database (see [`App::genuine`]).

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{Mutex, PoisonError},
};

use muster_api::{ErrorCode, Timestamp, TokenId, token::Secret};
use subtle::ConstantTimeEq as _;

use super::{App, AppError};
use crate::ca::Authority;

/// Failures in a row before an address has to wait.
const BURST: i64 = 30;
/// One more is free after so much time.
const EVERY_MICROS: i64 = 1_000_000;
/// Most addresses remembered; further ones share one count until others are forgotten.
const ADDRESSES_MAX: usize = 4096;

/// The failures of late, by address: when it will have paid for all of them.
#[derive(Debug, Default)]
pub struct SignIns(Mutex<HashMap<IpAddr, i64>>);

impl SignIns {
    /// Counts a failure. Whether the address has to wait.
    fn too_many(&self, address: IpAddr, now: Timestamp) -> bool {
        let now = now.micros();
        let mut paid = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = network(address);
        if paid.len() >= ADDRESSES_MAX && !paid.contains_key(&key) {
            paid.retain(|_, at| *at > now);
            if paid.len() >= ADDRESSES_MAX {
                key = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
            }
        }
        let at = paid.entry(key).or_insert(now);
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

/// Who is counted together: an address of version 4, or the 64 bits of a network of version 6.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) >> 64 << 64).into()),
    }
}

/// The secret of a token: derived from its id by the CA's key.
pub(crate) fn secret_of(authority: &Authority, id: TokenId) -> Secret {
    Secret::from_bytes(authority.derive("token secret", id.uuid().as_bytes()))
}

impl App {
    /// Whether this cluster's CA made the token; whether it is still good stands in the database.
    pub(crate) fn genuine(&self, id: TokenId, secret: &Secret) -> bool {
        secret_of(&self.ca, id).as_bytes().ct_eq(secret.as_bytes()).into()
    }

    /// What a failed call from this address is told: as it is, or 429 if it was a bad token once too often.
    pub fn sign_in_failed(&self, error: AppError, from: Option<SocketAddr>) -> AppError {
        match (&error, from) {
            (AppError::Unauthenticated(_), Some(from)) if self.sign_ins.too_many(from.ip(), self.clock.now()) => {
                metrics::counter!("muster_sign_ins_limited_total").increment(1);
                let said =
                    format!("{error}; too many such calls from this address: a good token is let in at any time");
                AppError::code(ErrorCode::TooManyRequests, said)
            }
            _ => error,
        }
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
        assert_eq!(failures(&ins, "::ffff:192.0.2.1", 100, 1), 0, "the same address, written otherwise");
        assert_eq!(failures(&ins, "192.0.2.2", 100, 1), 1);
        assert_eq!(failures(&ins, "192.0.2.1", 110, 100), 10);
        assert_eq!(failures(&ins, "192.0.2.1", 10_000, 100), 30);
        assert_eq!(failures(&ins, "2001:db8::1", 100, 20) + failures(&ins, "2001:db8::2", 100, 20), 30);
        // Turned back by an hour: it waits no longer than a burst takes.
        failures(&ins, "192.0.2.1", 6_400, 1);
        assert_eq!(failures(&ins, "192.0.2.1", 6_430, 100), 30);
    }

    #[test]
    fn the_table_does_not_grow_with_attackers() {
        let ins = SignIns::default();
        for n in 0..20_000_u32 {
            ins.too_many(IpAddr::V4(n.into()), Timestamp::from_micros(1));
        }
        assert!(ins.0.lock().expect("whole").len() <= ADDRESSES_MAX + 1);
        assert!(ins.too_many(IpAddr::V4(u32::MAX.into()), Timestamp::from_micros(1)), "all others share one count");
        assert!(!ins.too_many(IpAddr::V4(u32::MAX.into()), Timestamp::from_micros(3_600_000_000)));
    }
}
