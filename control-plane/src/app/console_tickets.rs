//! Tickets for consoles: leave to open one, once and soon. A browser cannot send a token with a WebSocket, so a call with
//! the token gets a ticket, and its URL opens the console.
//!
//! They are kept in memory, as hashes. A controller that starts anew knows none, and clients ask for new ones.

use std::{collections::HashMap, sync::Mutex};

use muster_api::{InstanceId, Timestamp, console::OpenConsole};
use sha2::{Digest as _, Sha256};
use storage_core::lock;

use super::Caller;

/// How long a ticket is good.
const LIVES_MS: i64 = 60_000;
/// Most tickets of one token that wait to be used. The next one takes the oldest back.
const PER_TOKEN_MAX: usize = 64;

/// What a ticket opens, and for whom.
#[derive(Clone, Debug)]
pub struct Ticket {
    /// Who asked for it. The console ends with this token or session.
    pub caller: Caller,
    /// The instance.
    pub instance: InstanceId,
    /// What of it to open.
    pub open: OpenConsole,
}

/// The tickets that were not used yet.
#[derive(Debug, Default)]
pub struct ConsoleTickets(Mutex<HashMap<[u8; 32], (Timestamp, Ticket)>>);

impl ConsoleTickets {
    /// Keeps a ticket under its secret, and tells until when.
    pub(super) fn give(&self, secret: &str, ticket: Ticket, now: Timestamp) -> Timestamp {
        let mut tickets = lock(&self.0);
        tickets.retain(|_, (expires_at, _)| *expires_at > now);
        let own = tickets.iter().filter(|(_, (_, kept))| kept.caller.token == ticket.caller.token);
        let own: Vec<_> = own.map(|(hash, (expires_at, _))| (*expires_at, *hash)).collect();
        if own.len() >= PER_TOKEN_MAX
            && let Some((_, oldest)) = own.iter().min()
        {
            tickets.remove(oldest);
        }
        let expires_at = now.plus_ms(LIVES_MS);
        tickets.insert(hashed(secret), (expires_at, ticket));
        expires_at
    }

    /// Takes a ticket, which is used up by that; `None` if there is no such ticket any more.
    pub(super) fn take(&self, secret: &str, now: Timestamp) -> Option<Ticket> {
        let (expires_at, ticket) = lock(&self.0).remove(&hashed(secret))?;
        (expires_at > now).then_some(ticket)
    }
}

fn hashed(secret: &str) -> [u8; 32] {
    Sha256::digest(secret).into()
}
