//! What the console of an instance printed: the end of it, or all that comes from now on.
//!
//! The node of the instance has the output. For a follower it is asked regularly for what is new since the place that its
//! last answer told. So a node keeps nothing for followers, and reads nothing twice. One answer at a time is in memory, and the
//! next look waits until the client has taken it. A follower ends with the client, the token or session, and the instance.

use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use http::Method;
use muster_api::{
    ErrorCode, InstanceId, NodeId, Ref,
    deployment::Runtime,
    peer_protocol::{LogPart, log_after_path, log_path},
};
use muster_pool::{Call, PoolError};
use storage_core::units::usize_from;
use tokio::time::{Instant, sleep};

use super::super::{App, AppError, Caller, events::no_stream, find, slots::Slot};
use crate::store::instances::InstanceRow;

/// How long a node may take to answer with a console log.
const LOG_WAIT: Duration = Duration::from_secs(6);
/// Pause between two looks for a follower.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Pause between two looks once nothing was printed for [`QUIET_LOOKS`] looks, or while the node does not answer.
const LOOK_SELDOM: Duration = Duration::from_secs(2);
/// Looks without new output after which looks become seldom.
const QUIET_LOOKS: u32 = 20;
/// How often a follower looks whether the instance is still there, and on which node.
const FIND_NODE_EVERY: Duration = Duration::from_secs(5);
/// Most output that one look brings, bytes.
const PART_BYTES_MAX: u64 = 1 << 20;
/// When a follower's stream ends. The client may open the next one.
const FOLLOWED_FOR: Duration = Duration::from_secs(3600);

impl App {
    /// The last `tail_bytes` of what the instance's console printed. Its node is asked for them.
    pub async fn instance_log(
        &self,
        caller: &Caller,
        wanted: &Ref<InstanceId>,
        tail_bytes: u64,
    ) -> Result<Bytes, AppError> {
        let row = self.with_console(caller, wanted).await?;
        // Without a node it has not run, so it printed nothing.
        let Some(node) = row.life.node else { return Ok(Bytes::new()) };
        let call = Call {
            method: Method::GET,
            path: &log_path(row.id, tail_bytes),
            json: None,
            limit: LOG_WAIT,
            answer_bytes_max: usize_from(tail_bytes).max(64 << 10),
        };
        self.pool.call(node, call).await.map_err(|error| silent(&row, node, &error))
    }

    /// The last `tail_bytes` of the output, at most 1 MiB, and then what is printed, as it comes. A follower may read slowly,
    /// and the controller holds what it has not read.
    pub async fn follow_instance_log(
        &self,
        caller: Caller,
        wanted: &Ref<InstanceId>,
        tail_bytes: u64,
    ) -> Result<impl Stream<Item = Bytes> + Send + use<>, AppError> {
        let row = self.with_console(&caller, wanted).await?;
        let slot = self.streams.take(&caller.token.to_string()).map_err(no_stream)?;
        let mut followed = Followed {
            app: self.clone(),
            caller: caller.clone(),
            instance: row.id,
            node: row.life.node,
            found_at: Instant::now(),
            place: None,
            first_bytes: tail_bytes.min(PART_BYTES_MAX),
            quiet: 0,
            _slot: slot,
        };
        let first = match row.life.node {
            Some(node) => followed.look(node).await.map_err(|error| silent(&row, node, &error))?,
            None => Bytes::new(),
        };
        let app = self.clone();
        let ended = async move {
            tokio::select! {
                () = app.token_ended(&caller) => {}
                () = app.closing.cancelled() => {}
                () = sleep(FOLLOWED_FOR) => {}
            }
        };
        let later = stream::unfold(followed, |mut f| async move { f.next().await.map(|bytes| (bytes, f)) });
        let first = stream::iter((!first.is_empty()).then_some(first));
        Ok(first.chain(later).take_until(ended))
    }

    /// The instance, if it has a console.
    async fn with_console(&self, caller: &Caller, wanted: &Ref<InstanceId>) -> Result<InstanceRow, AppError> {
        let row = self.store.read("instances.log", async |tx| find::instance(tx, caller, wanted).await).await?;
        check_guest(&row, "it has no console")?;
        Ok(row)
    }
}

/// Refuses an instance without a guest. `so` says what follows from that, for example `it has no console`.
pub(super) fn check_guest(row: &InstanceRow, so: &str) -> Result<(), AppError> {
    if row.runtime == Runtime::None {
        let detail = format!("{} has runtime none: it is a disk file without a guest, so {so}", row.name);
        return Err(AppError::code(ErrorCode::WrongState, detail));
    }
    Ok(())
}

/// The refusal while the node of an instance cannot be asked.
fn silent(row: &InstanceRow, node: NodeId, error: &PoolError) -> AppError {
    tracing::warn!(instance.id = %row.id, node.id = %node, "no console log: {error}");
    AppError::Unavailable(format!("the node of {} does not answer: try again", row.name))
}

/// One who follows a console.
struct Followed {
    app: App,
    caller: Caller,
    instance: InstanceId,
    /// `None` while it is placed on no node.
    node: Option<NodeId>,
    /// When `node` was read.
    found_at: Instant,
    /// After what was sent; `None` before the first answer of this node.
    place: Option<String>,
    /// How much of what was printed before is sent.
    first_bytes: u64,
    /// Looks since something was printed.
    quiet: u32,
    _slot: Slot,
}

impl Followed {
    /// The next output; `None` once the instance is gone.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            sleep(if self.quiet < QUIET_LOOKS { LOOK_EVERY } else { LOOK_SELDOM }).await;
            if self.found_at.elapsed() >= FIND_NODE_EVERY && !self.find_node().await {
                return None;
            }
            let Some(node) = self.node else { continue };
            match self.look(node).await {
                Ok(bytes) if bytes.is_empty() => self.quiet += 1,
                Ok(bytes) => {
                    self.quiet = 0;
                    return Some(bytes);
                }
                Err(error) => {
                    self.quiet = QUIET_LOOKS;
                    tracing::debug!(instance.id = %self.instance, node.id = %node, "a follower waits for a node: {error}");
                }
            }
        }
    }

    /// Asks the node for what was printed since the last look.
    async fn look(&mut self, node: NodeId) -> Result<Bytes, PoolError> {
        let bytes_max = if self.place.is_some() { PART_BYTES_MAX } else { self.first_bytes };
        let call = Call {
            method: Method::GET,
            path: &log_after_path(self.instance, self.place.as_deref(), bytes_max),
            json: None,
            limit: LOG_WAIT,
            // A little more than was asked for may come after the node has shortened the log.
            answer_bytes_max: usize_from(bytes_max.max(PART_BYTES_MAX)) + (64 << 10),
        };
        let body = self.app.pool.call(node, call).await?;
        let part = LogPart::decode(&body);
        let part = part.ok_or_else(|| PoolError::Peer { node, reason: "it sent no part of a log".to_owned() })?;
        self.place = Some(part.place);
        Ok(part.bytes.into())
    }

    /// Reads where the instance is. False once it is gone.
    async fn find_node(&mut self) -> bool {
        let (caller, instance) = (&self.caller, Ref::Id(self.instance));
        let read = self.app.store.read("instances.log", async |tx| find::instance(tx, caller, &instance).await).await;
        match read {
            Ok(row) if row.life.node == self.node => {}
            // Its log begins anew on another node.
            Ok(row) => (self.node, self.place, self.first_bytes) = (row.life.node, None, PART_BYTES_MAX),
            Err(AppError::NotFound { .. }) => return false,
            Err(error) => tracing::warn!("a follower could not read its instance and tries again: {error:#}"),
        }
        self.found_at = Instant::now();
        true
    }
}
