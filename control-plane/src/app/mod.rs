//! Use cases: one function each, read as a sentence: transaction, load, decide, save, wake.
//!
//! `impl App` is spread over one file or folder per noun. A function that changes something takes the [`Caller`] and,
//! where the call may carry an idempotency key, runs inside [`App::once`], so that key, effect and event are one
//! transaction:
//!
//! ```ignore
//! impl App {
//!     pub async fn create_image(&self, caller: &Caller, once: &Once, wanted: CreateImage) -> Result<Answer, AppError> {
//!         let project = caller.one_project()?;
//!         self.once(once, "images.create", async |tx| {
//!             if let Some(existing) = images::by_name(tx, project, &name).await? {
//!                 return Err(AppError::NameTaken { kind: "image", name, existing: existing.id.to_string() });
//!             }
//!             …
//!             // slow work instead: let op = begin_operation(tx, &caller.origin(), NewOperation { … }).await?;
//!             //                    Ok(Answer::accepted(&op)?)
//!             Ok(Answer::created(&image.view(), format!("/v1/images/{}", image.id))?)
//!         }).await
//!     }
//! }
//! ```
//!
//! The files form no circle (`tests/integration/modules.rs` checks it). From the bottom: [`error`], `slots`, `sign_ins`,
//! `heartbeats`, `boot_turns`, `counted`, `known`, `lost_objects`, `moved`, `repository_known` and `sweeping` know no other file, `labels` and [`caller`] only errors, and
//! `console_tickets` only callers; then [`App`] itself; `authentication`, [`idempotency`], [`list`] and `find` are what every use case begins with; the nouns come last.

mod authentication;
pub mod boot_turns;
pub mod boots;
pub mod caller;
pub mod commits;
pub mod console_tickets;
pub mod counted;
pub mod deployments;
mod disk_starts;
pub mod disks;
pub mod error;
pub mod events;
pub(crate) mod find;
pub mod found;
mod freed;
pub mod heartbeats;
pub mod idempotency;
pub mod images;
mod incarnations;
pub mod instances;
pub mod known;
mod labels;
pub mod list;
mod lost;
pub mod lost_objects;
pub mod membership;
pub mod moved;
pub mod networks;
pub mod newest_record;
mod nics;
pub mod nodes;
pub mod operations;
pub(crate) mod protection;
pub mod reports;
pub mod repository;
pub mod repository_known;
pub(crate) mod retention;
pub mod security_groups;
pub mod sessions;
mod sight;
pub mod sign_ins;
pub mod slots;
pub mod snapshots;
pub mod summary;
pub mod sweep;
pub mod sweeping;
pub mod tokens;
mod traffic;
pub mod uploads;
pub mod versions;

use std::{
    collections::HashMap,
    ops::Deref,
    sync::{Arc, Mutex, atomic::AtomicU64},
};

use muster_api::{ClusterId, NodeId, SessionId, Timestamp, TokenId, node_protocol::Incarnation};
use muster_pool::{PoolClient, tls};
use tokio_util::sync::CancellationToken;

pub(crate) use self::error::{at, check_if_match};
pub use self::{
    caller::{Caller, Scope},
    error::{AppError, StoreError},
    idempotency::{Answer, Asked, Once},
    operations::begin_operation,
};
use crate::{
    ca::Authority,
    clock::Clock,
    config::Config,
    store::{Store, old_versions::OldVersions, sessions::SessionRow, tokens::TokenRow},
    wake::Statuses,
};

/// The controller. Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Inner>);

/// What an [`App`] is made of.
pub struct Inner {
    /// The database.
    pub store: Store,
    /// Tells the time. Tests move it by hand.
    pub clock: Arc<dyn Clock>,
    /// The effective configuration. It stays the same until the process ends.
    pub config: Config,
    /// Id of the cluster.
    pub cluster: ClusterId,
    /// Which state of the database this is; see [`App::incarnation`].
    pub incarnation: Mutex<Incarnation>,
    /// Signs certificates and membership records.
    pub ca: Arc<Authority>,
    /// The certificate of the CA, for checking what it signed.
    pub trusted_ca: tls::Ca,
    /// Client of the pool on the nodes. It follows the membership record.
    pub pool: PoolClient,
    /// SHA-256 of the public key with which this controller calls nodes, hex.
    pub client_key_sha256: String,
    /// Port of the node door.
    pub node_port: u16,
    /// When this process began to listen.
    pub started_at: Timestamp,
    /// Cancelled when the doors close, so that waiting calls end early.
    pub closing: CancellationToken,
    /// Uploads of image content under way in this process, by project.
    pub imports: slots::Slots,
    /// Walks through the trees of versions, by project. A walk fetches up to all pages of a tree.
    pub walks: slots::Slots,
    /// Streams of events and consoles that are followed, by token.
    pub streams: slots::Slots,
    /// Tickets for consoles that were not used yet.
    pub console_tickets: console_tickets::ConsoleTickets,
    /// What the members of deployments were counted to lately.
    pub counted: counted::Counted,
    /// Tokens that were read lately.
    pub known_tokens: known::Known<TokenId, TokenRow>,
    /// Sessions that were read lately.
    pub known_sessions: known::Known<SessionId, SessionRow>,
    /// When sessions were last used. The database does not have these times yet.
    pub used_sessions: Mutex<HashMap<SessionId, Timestamp>>,
    /// Recent failed sign-ins, by address.
    pub sign_ins: sign_ins::SignIns,
    /// The newest membership record, as far as this process knows.
    pub newest_record: Mutex<newest_record::NewestRecord>,
    /// The oldest membership epoch that is open, as far as this process knows; 0 at first.
    pub oldest_open_epoch: AtomicU64,
    /// Objects that nobody has, and the versions that need them.
    pub lost: lost_objects::LostObjects,
    /// How far rows of deleted versions were looked through.
    pub old_versions: Mutex<OldVersions>,
    /// How the reconcile loops fare.
    pub loops: Statuses,
    /// The newest heartbeat of each node.
    pub heartbeats: heartbeats::Heartbeats,
    /// What the nodes moved lately.
    pub traffics: moved::Traffics,
    /// Which boot orders were taken lately.
    pub boot_turns: boot_turns::Turns,
    /// What this process knows of the sweep.
    pub sweep: sweeping::Sweeping,
    /// What this process knows of the repository of the pool.
    pub repository: Mutex<repository_known::RepositoryKnown>,
    /// Nodes with whose identity another agent was refused lately: when, and what to tell of it.
    pub refused_runs: Mutex<HashMap<NodeId, (Timestamp, String)>>,
    /// Keys of nodes that the database does not know, with their last call.
    pub unlisted: Mutex<HashMap<String, Timestamp>>,
}

impl Deref for App {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl App {
    /// Puts the parts together. No loop runs yet.
    #[must_use]
    pub fn new(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }
}
