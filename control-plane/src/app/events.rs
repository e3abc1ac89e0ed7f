//! The event stream. It reads events from the database in `seq` order, and commits wake it. A client that resumes with
//! the last id it saw misses nothing; one that was away for longer than events are kept is told to list again.

use std::{collections::VecDeque, time::Duration};

use futures::{Stream, StreamExt as _, stream};
use muster_api::{
    ErrorCode, Page, deployment::DeploymentState, event::Event, image::ImageState, instance::InstanceState,
    node::NodeState, operation::OperationState, snapshot::SnapshotState, version::VersionState,
};

use super::{
    App, AppError, Caller,
    list::{Filter, Position, in_history, opened},
    sight::{POOL, Sight},
    slots::{Full, Slot},
};
use crate::store::{
    Tx, deployments,
    events::{self, StoredEvent},
    nodes, words,
};

/// Most events that are read at once.
const BATCH: usize = 500;
/// How often a stream looks without having been woken, because another controller may have written.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Most streams at a time. Each of them reads the database whenever something happens.
pub(crate) const STREAMS_MAX: usize = 1024;
/// Most streams of one token at a time.
pub(crate) const STREAMS_PER_TOKEN_MAX: usize = 64;

/// One item of an event stream.
#[derive(Clone, Debug)]
pub enum Sent {
    /// An event that the caller may see and that passes the filter.
    Event(Box<Event>),
    /// Events were missed and are gone: the client has to list again and go on from this position.
    Reset(String),
}

struct Subscription {
    app: App,
    caller: Caller,
    filter: Filter,
    after: i64,
    ready: VecDeque<Sent>,
    watch: tokio::sync::watch::Receiver<u64>,
    _slot: Slot,
}

impl App {
    /// The events after position `after` that the caller may see and `filter` wants. `None`: from now on. The stream ends
    /// when the caller's token does.
    pub async fn subscribe(
        &self,
        caller: Caller,
        after: Option<Position>,
        filter: Filter,
    ) -> Result<impl Stream<Item = Sent> + Send + use<>, AppError> {
        filter.allowed_to(&caller)?;
        let slot = self.streams.take(&caller.token.to_string()).map_err(no_stream)?;
        // Watched before the first read, so that what is committed after it wakes the stream.
        let watch = self.store.wakes().watch_events();
        let (now, kept_after, filter) = self
            .store
            .read("events.begin", async |tx| {
                let filter = resolve(tx, &caller, filter).await?;
                Ok::<_, AppError>((tx.as_of().await?, events::kept_after(tx).await?, filter))
            })
            .await?;
        let mut ready = VecDeque::new();
        let after = match after {
            None => now.seq,
            Some(after) => match in_history(after, now) {
                Ok(after) if after >= kept_after => after,
                // The position is older than what is kept, or the database was replaced by an older copy since.
                _ => {
                    ready.push_back(Sent::Reset(self.store.seal().token(now)));
                    now.seq
                }
            },
        };
        let ended = {
            let (app, caller) = (self.clone(), caller.clone());
            async move { app.token_ended(&caller).await }
        };
        let subscription = Subscription { app: self.clone(), caller, filter, after, ready, watch, _slot: slot };
        let events = stream::unfold(subscription, |mut s| async move { s.next().await.map(|sent| (sent, s)) });
        Ok(events.take_until(ended))
    }

    /// The position that an answer of this cluster gave.
    pub fn position(&self, text: &str) -> Result<Position, AppError> {
        opened(&self.store.seal(), text)
    }

    /// One page of the events that are kept, oldest first, for clients that look once and do not follow.
    pub async fn events_page(
        &self,
        caller: &Caller,
        after: Option<&str>,
        limit: usize,
        filter: Filter,
    ) -> Result<Page<Event>, AppError> {
        filter.allowed_to(caller)?;
        let project = caller.list_project();
        self.store
            .read("events.page", async |tx| {
                let filter = resolve(tx, caller, filter.clone()).await?;
                let sight = Sight::of(tx, caller.is_operator()).await?;
                let now = tx.as_of().await?;
                let after = after.map_or(Ok(0), |after| in_history(self.position(after)?, now))?;
                let mut after = after.max(events::kept_after(tx).await?);
                let mut items = Vec::new();
                // A filter that matches little reads much, at most all events that are kept.
                let mut asked = limit.max(100);
                loop {
                    let rows = events::after(tx, after, project, &filter.targets, asked).await?;
                    let full = rows.len() == asked;
                    asked = BATCH;
                    for row in rows {
                        after = row.seq;
                        if wants(caller, &filter, &row) {
                            items.push(sight.event(row.event));
                        }
                        if items.len() == limit {
                            let next_page_token = Some(tx.token(tx.at(after)));
                            return Ok(Page { items, next_page_token, as_of: tx.token(now) });
                        }
                    }
                    if !full {
                        return Ok::<_, AppError>(Page { items, next_page_token: None, as_of: tx.token(now) });
                    }
                }
            })
            .await
    }
}

/// Too many streams of others may end while the client tries again. Its own do not, so that is another code.
pub(super) fn no_stream(full: Full) -> AppError {
    match full {
        Full::All => {
            AppError::Unavailable("too many streams of events and consoles are followed: try again".to_owned())
        }
        Full::Own(count) => {
            let said = format!("this token follows {count} streams of events and consoles, which is the most: end one");
            AppError::code(ErrorCode::TooManyRequests, said)
        }
    }
}

impl Subscription {
    async fn next(&mut self) -> Option<Sent> {
        loop {
            if let Some(sent) = self.ready.pop_front() {
                return Some(sent);
            }
            if self.app.closing.is_cancelled() || !self.app.is_still_good(&self.caller).await {
                return None;
            }
            self.watch.mark_unchanged();
            match self.read().await {
                // A full batch: more may be waiting already.
                Ok(true) => continue,
                Ok(false) if !self.ready.is_empty() => continue,
                Ok(false) => {}
                Err(error) => tracing::warn!("an event stream could not read and tries again: {error:#}"),
            }
            tokio::select! {
                () = self.app.closing.cancelled() => return None,
                _ = tokio::time::timeout(LOOK_EVERY, self.watch.changed()) => {}
            }
        }
    }

    /// Reads one batch. True when it was full.
    async fn read(&mut self) -> Result<bool, AppError> {
        let (after, project, targets) = (self.after, self.caller.list_project(), &self.filter.targets);
        let operator = self.caller.is_operator();
        let (rows, kept_after, now, sight) = self
            .app
            .store
            .read("events.after", async |tx| {
                let rows = events::after(tx, after, project, targets, BATCH).await?;
                let sight = if rows.is_empty() { Sight::All } else { Sight::of(tx, operator).await? };
                Ok::<_, AppError>((rows, events::kept_after(tx).await?, tx.as_of().await?, sight))
            })
            .await?;
        if after < kept_after {
            // The client reads so slowly that events were dropped before it had them.
            self.after = now.seq;
            self.ready.push_back(Sent::Reset(self.app.store.seal().token(now)));
            return Ok(false);
        }
        let full = rows.len() == BATCH;
        // Everything up to `now` was read, also the events of other projects.
        self.after = if full { rows.last().map_or(now.seq, |row| row.seq) } else { now.seq };
        let wanted = rows.into_iter().filter(|row| wants(&self.caller, &self.filter, row));
        self.ready.extend(wanted.map(|row| Sent::Event(Box::new(sight.event(row.event)))));
        Ok(full)
    }
}

/// Turns the names in the filter into ids, so that a stream still follows a thing after it was renamed or deleted.
async fn resolve(tx: &mut Tx, caller: &Caller, mut filter: Filter) -> Result<Filter, AppError> {
    filter.states_among(&states())?;
    for wanted in &mut filter.nodes {
        if let Some(row) = nodes::by_name(tx, wanted).await? {
            *wanted = row.id.to_string();
        }
    }
    let Some(project) = caller.list_project() else { return Ok(filter) };
    for wanted in &mut filter.deployments {
        if let Some(row) = deployments::by_name(tx, project, wanted).await? {
            *wanted = row.id.to_string();
        }
    }
    Ok(filter)
}

/// The states of all kinds of things.
fn states() -> Vec<&'static str> {
    let mut states = [
        words::of::<DeploymentState>(),
        words::of::<ImageState>(),
        words::of::<InstanceState>(),
        words::of::<NodeState>(),
        words::of::<OperationState>(),
        words::of::<SnapshotState>(),
        words::of::<VersionState>(),
    ]
    .concat();
    states.sort_unstable();
    states.dedup();
    states
}

fn wants(caller: &Caller, filter: &Filter, row: &StoredEvent) -> bool {
    let target = &row.event.target;
    // Only operators may know of nodes and of the pool.
    if !caller.is_operator() && ["node", POOL].contains(&target.kind.as_str()) {
        return false;
    }
    let state = row.event.data.get("state").and_then(|s| s.as_str());
    let related = |wanted: &[String], id: Option<&str>, kind: &str| {
        wanted.is_empty()
            || wanted.iter().any(|w| Some(w.as_str()) == id)
            || target.kind == kind && wanted.iter().any(|w| *w == target.id || *w == target.name)
    };
    (filter.states.is_empty() || state.is_some_and(|s| filter.states.iter().any(|w| w == s)))
        && filter.keeps_labels(&row.labels)
        && related(&filter.deployments, row.deployment.as_deref(), "deployment")
        && related(&filter.nodes, row.node.as_deref(), "node")
}
