//! The tokens that calls were sent with lately, and when they stop being good.
//!
//! Not every call reads its token from the database again. What was read counts for a second. Revoking a token ends that
//! at once in this process; another controller notices within the second.

use std::{
    collections::HashMap,
    sync::Mutex,
    time::{Duration, Instant},
};

use muster_api::TokenId;
use storage_core::lock;

use crate::store::tokens::TokenRow;

/// How long a token counts as it was read. Another controller may have revoked it since.
pub(crate) const KNOWN_FOR: Duration = Duration::from_secs(1);
/// Tokens that are remembered before old ones are dropped.
const KNOWN_MAX: usize = 4096;

/// Tokens as they were read lately.
#[derive(Debug, Default)]
pub struct KnownTokens(Mutex<HashMap<TokenId, Known>>);

/// A token as it was read.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    /// Its row.
    pub row: TokenRow,
    /// When the reading began.
    pub read_at: Instant,
    /// How many times tokens had been revoked in this process by then.
    pub revoked: u64,
}

impl KnownTokens {
    /// The token, if it was read lately and none was revoked since: `revoked` is how many have been.
    pub(crate) fn get(&self, id: TokenId, revoked: u64) -> Option<TokenRow> {
        let known = lock(&self.0);
        let known = known.get(&id).filter(|known| known.revoked == revoked && known.read_at.elapsed() < KNOWN_FOR)?;
        Some(known.row.clone())
    }

    /// Remembers a token.
    pub(crate) fn put(&self, known: Known) {
        let mut all = lock(&self.0);
        if all.len() >= KNOWN_MAX {
            all.retain(|_, known| known.read_at.elapsed() < KNOWN_FOR);
        }
        all.insert(known.row.id, known);
    }
}
