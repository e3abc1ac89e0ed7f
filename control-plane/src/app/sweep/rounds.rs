//! The loop of the sweep: whether it may go on, whether a round is due, and what became of the one that nodes carry out.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use muster_api::{
    NodeId, Timestamp,
    node_protocol::{Incarnation, sweep::SweepDone},
    operation::{Operation, OperationState, Progress, Target, WaitingOn},
    pool::{DEFAULT_POOL, SweepState},
};
use serde_json::{Value, json};
use storage_core::{
    cause::explain,
    census::{self, Census, History},
    units::u64_from,
};

use super::{
    super::{
        App, AppError,
        caller::DEFAULT_PROJECT,
        sight::POOL,
        sweeping::{Named, Opened},
    },
    marking::with,
};
use crate::{
    domain::sweep::{Due, Outlook},
    store::{
        Tx,
        events::{self, NewEvent},
        nodes::{self, NodeRow},
        operations::{self, Outcome},
        roots::{self, Roots},
        sweep::{self, Holder, SweepRow},
        uploads,
    },
};

/// The index of what is needed, in the data folder.
const FILE: &str = "sweep.redb";
/// Why nothing is swept after a restore, and what to do.
pub(super) const RESTORED: &str = "the database was restored, and may not know all that is needed: see what was found on \
    nodes, then allow the sweep with `muster pool sweep --after-restore`";
/// How long after a start nobody is told that nodes have yet to report: they do so within this time, milliseconds.
const REPORTS_WITHIN_MS: i64 = 60_000;
/// How long nodes may take for a round before the next one may begin all the same. A node that judges all its objects needs
/// some minutes for ten million.
const CARRY_OUT_WITHIN: Duration = Duration::from_hours(1);

/// A wait of more than so many milliseconds is told as an event. Most uploads end sooner.
const WAITS_LONG_MS: i64 = 3600 * 1000;

/// What a pass looks at first.
struct Look {
    row: SweepRow,
    current: u64,
    nodes: Vec<NodeRow>,
    operation: Option<Operation>,
}

impl Look {
    /// Nodes that are there and have not carried out the round.
    fn awaited<'a>(&'a self, named: &'a Named) -> impl Iterator<Item = &'a NodeRow> {
        self.nodes.iter().filter(|node| named.awaits(node))
    }
}

/// Whether a round was begun.
enum Begun {
    /// Its roots are listed.
    Round(u64, Box<Roots>),
    /// It cannot begin now, for the reason in this sentence.
    Held(String),
}

impl App {
    /// One pass. Returns how many nodes it looked at, and how many rounds it began.
    pub async fn sweep_pass(&self) -> anyhow::Result<(usize, usize)> {
        let passed = self.sweep_on().await;
        if let Err(error) = &passed {
            // After an error of the disk the index answers nothing any more before it is opened again.
            self.close_census().await;
            self.sweep.stand(SweepState::Held, Some(format!("the controller failed: {error:#}")), self.clock.now());
        }
        passed
    }

    /// Names nothing to nodes, and closes the index.
    async fn close_census(&self) {
        self.sweep.name_none();
        *self.sweep.census.lock().await = None;
    }

    async fn sweep_on(&self) -> anyhow::Result<(usize, usize)> {
        let of = self.incarnation();
        let look = self.store.read("sweep.look", look).await?;
        let seen = look.nodes.len();
        if let Some(reason) = self.held(&look, of) {
            self.hold(&look, reason).await?;
            return Ok((seen, 0));
        }
        let census = self.census(of).await?;
        let progress = with(&census, Census::progress).await?;
        if progress.begun > look.current {
            let evidence =
                format!("round {} of the sweep was begun, and the newest one here is {}", progress.begun, look.current);
            self.leave_old_history(of, of, &evidence).await?;
            return Ok((seen, 0));
        }
        if progress.begun == look.current && progress.finished < look.current {
            // The marking of this round was broken off.
            return Ok((seen, self.go_round(&look, &census, of).await?));
        }
        let named = match self.sweep.named(of) {
            Some(named) if named.round == look.current => Some(named),
            _ if progress.finished == look.current => Some(self.name(&census, of, look.current, progress.objects)),
            _ => None,
        };
        if let Some(named) = &named
            && !self.is_over(&look, named).await?
        {
            return Ok((seen, 0));
        }
        self.settle(&look, of).await?;
        if self.is_due(&look, &census).await? {
            return Ok((seen, self.go_round(&look, &census, of).await?));
        }
        if named.is_none_or(|named| look.awaited(&named).next().is_none()) {
            self.sweep.stand(SweepState::Idle, None, self.clock.now());
        }
        Ok((seen, 0))
    }

    /// Why nothing may be swept at all, in a sentence.
    fn held(&self, look: &Look, of: Incarnation) -> Option<String> {
        let unsettled = self.sweep.unsettled(look.nodes.iter().map(|node| node.id));
        unsettled
            .or_else(|| self.unreported(&look.nodes, of))
            .or_else(|| (!look.row.is_allowed_in(of)).then(|| RESTORED.to_owned()))
    }

    /// The nodes that did not tell yet what they hold, in a sentence.
    pub(super) fn unreported(&self, nodes: &[NodeRow], of: Incarnation) -> Option<String> {
        if let Some(unlisted) = self.unlisted_nodes(nodes) {
            return Some(unlisted);
        }
        let silent: Vec<&str> = nodes
            .iter()
            .filter(|node| node.fenced_at.is_none() && !self.sweep.has_reported(node.id, of))
            .map(|node| node.name.as_str())
            .collect();
        let (first, others) = silent.split_first()?;
        let others = if others.is_empty() { String::new() } else { format!(" (and {} more)", others.len()) };
        Some(format!(
            "node '{first}'{others} did not tell yet what it holds, since the controller began or its database was restored: \
             start it, or declare it dead if its host is gone"
        ))
    }

    /// Names nothing to nodes, and tells why.
    async fn hold(&self, look: &Look, reason: String) -> Result<(), AppError> {
        let now = self.clock.now();
        self.sweep.name_none();
        self.sweep.stand(SweepState::Held, Some(reason.clone()), now);
        if now.ms_since(self.started_at) > REPORTS_WITHIN_MS {
            self.warn(&reason).await?;
        }
        self.note_operation(look, "waiting", vec![(reason, None)]).await
    }

    /// Tells once that nothing is swept, for this reason.
    async fn warn(&self, reason: &str) -> Result<(), AppError> {
        if self.sweep.warns(reason) {
            tracing::warn!("the sweep is held: {reason}");
            let told = event("pool.sweep_held", json!({ "reason": reason }));
            self.store.run_tx("sweep.held", async |tx| Ok::<_, AppError>(events::append(tx, told).await?)).await?;
        }
        Ok(())
    }

    /// The counts of this incarnation. Those of another one are thrown away.
    async fn census(&self, of: Incarnation) -> anyhow::Result<Arc<Census>> {
        let mut opened = self.sweep.census.lock().await;
        if let Some(known) = opened.as_ref().filter(|known| known.of == of) {
            return Ok(known.census.clone());
        }
        // The database of the index is closed with the last user of it, and cannot be opened before.
        self.sweep.name_none();
        *opened = None;
        let (file, history) = (self.sweep_file(), History { number: of.number, random: of.random });
        let census = Arc::new(tokio::task::spawn_blocking(move || Census::open(&file, history)).await??);
        *opened = Some(Opened { census: census.clone(), of });
        Ok(census)
    }

    /// Begins the counts anew.
    async fn renew_census(&self, of: Incarnation) -> anyhow::Result<()> {
        let mut opened = self.sweep.census.lock().await;
        let (file, history) = (self.sweep_file(), History { number: of.number, random: of.random });
        let census = Arc::new(tokio::task::spawn_blocking(move || Census::make(&file, history)).await??);
        *opened = Some(Opened { census, of });
        Ok(())
    }

    fn sweep_file(&self) -> PathBuf {
        self.config.data_dir.join(FILE)
    }

    /// Nodes are to carry out a round whose counts are complete.
    fn name(&self, census: &Arc<Census>, of: Incarnation, round: u64, needed: u64) -> Named {
        let named = Named::new(round, of, census.clone(), needed);
        self.sweep.name(named.clone());
        self.sweep.stand(SweepState::Sweeping, None, self.clock.now());
        metrics::gauge!("muster_sweep_round").set(precise(round));
        metrics::gauge!("muster_sweep_needed_objects").set(precise(needed));
        tracing::info!(sweep.round = round, needed, "nodes carry out a round of the sweep");
        named
    }

    /// Whether the round that nodes carry out leaves room for the next one. Tells what it did once all are done that are there.
    async fn is_over(&self, look: &Look, named: &Named) -> Result<bool, AppError> {
        let awaited: Vec<&NodeRow> = look.awaited(named).collect();
        if !awaited.is_empty() {
            self.sweep.stand(SweepState::Sweeping, None, self.clock.now());
            let waiting = awaited.iter().map(|node| (format!("{}: sweeping", node.name), Some(node.id))).collect();
            self.note_operation(look, "sweeping", waiting).await?;
            let began = look.row.begun_at.unwrap_or(self.started_at);
            let most_ms = i64::try_from(CARRY_OUT_WITHIN.as_millis()).expect("an hour");
            return Ok(self.clock.now().ms_since(began) >= most_ms);
        }
        if self.sweep.note_over(named.round) {
            let SweepDone { objects, bytes, reclaimed_bytes, .. } = self.sweep.sum_from(named.round);
            tracing::info!(
                sweep.round = named.round,
                objects,
                bytes,
                reclaimed_bytes,
                "all nodes carried out the round"
            );
            if objects > 0 || reclaimed_bytes > 0 {
                let data = json!({ "round": named.round, "objects": objects, "bytes": bytes,
                    "reclaimed_bytes": reclaimed_bytes });
                let told = event("pool.swept", data);
                self.store.run_tx("sweep.over", async |tx| Ok::<_, AppError>(events::append(tx, told).await?)).await?;
            }
        }
        Ok(true)
    }

    /// Ends the operation of an operator who waits for rounds that are over by now, or who waits no longer.
    async fn settle(&self, look: &Look, of: Incarnation) -> Result<(), AppError> {
        let Some(operation) = &look.operation else { return Ok(()) };
        let asked = look.row.asked_round;
        let named = self.sweep.named(of);
        let is_done = named.as_ref().is_some_and(|named| named.round >= asked && look.awaited(named).next().is_none());
        let sum = self.sweep.sum_from(asked.saturating_sub(1));
        let result = json!({ "round": look.current, "objects": sum.objects, "bytes": sum.bytes,
            "reclaimed_bytes": sum.reclaimed_bytes });
        let outcome = if is_done {
            Outcome::Succeeded(Some(result))
        } else if operation.state == OperationState::Cancelling {
            Outcome::Cancelled(Some(result))
        } else {
            return Ok(());
        };
        self.store
            .run_tx("sweep.settle", async |tx| {
                sweep::ask(tx, 0).await?;
                Ok(operations::finish(tx, operation.id, outcome).await?)
            })
            .await
    }

    /// Whether the next round begins.
    async fn is_due(&self, look: &Look, census: &Arc<Census>) -> anyhow::Result<bool> {
        let now = self.clock.now();
        let outlook = Outlook {
            now,
            since: look.row.begun_at.unwrap_or(self.started_at),
            every: self.config.pool.sweep_every,
            current: look.current,
            asked: look.row.asked_round,
            had_work: look.row.had_work || with(census, Census::progress).await?.begun == 0,
        };
        match outlook.due() {
            Due::No => Ok(false),
            Due::Yes => Ok(true),
            Due::IfWork => {
                // Looking means listing all roots, so it is not done in each pass.
                let again = Outlook { since: self.sweep.looked_at().unwrap_or(outlook.since), ..outlook };
                if again.due() == Due::No {
                    return Ok(false);
                }
                self.sweep.look_at(now);
                let since = outlook.since;
                let (roots, wasted) = self
                    .store
                    .read("sweep.work", async |tx| {
                        Ok::<_, AppError>((roots::list(tx).await?, sweep::wasted_since(tx, since).await?))
                    })
                    .await?;
                let difference = with(census, move |census| census.difference(&roots.names)).await?;
                Ok(wasted || !difference.leaving.is_empty())
            }
        }
    }

    /// Begins a round or goes on with one whose marking was broken off, marks it and names it to nodes. Returns how many
    /// rounds it named.
    async fn go_round(&self, look: &Look, census: &Arc<Census>, of: Incarnation) -> anyhow::Result<usize> {
        let progress = with(census, Census::progress).await?;
        let begun = self.store.run_tx("sweep.begin", async |tx| begin(tx, &progress).await).await?;
        let (round, roots) = match begun {
            Begun::Round(round, roots) => (round, *roots),
            Begun::Held(reason) => {
                self.wait(look, reason).await?;
                return Ok(0);
            }
        };
        // From here on the counts are those of no round.
        self.sweep.name_none();
        self.sweep.stand(SweepState::Marking, None, self.clock.now());
        let began = Instant::now();
        let (needed, has_work) = match self.mark(census, round, roots).await {
            Ok(marked) => marked,
            Err(error) => {
                if error.is_of_the_disk() {
                    self.close_census().await;
                } else if error.needs_new_census() {
                    tracing::error!(error = &error as &dyn std::error::Error, "the index of the sweep is made anew");
                    self.renew_census(of).await?;
                }
                self.wait(look, format!("round {round} cannot be counted: {}", explain(&error))).await?;
                return Ok(0);
            }
        };
        metrics::histogram!("muster_sweep_mark_seconds").record(began.elapsed().as_secs_f64());
        if has_work {
            self.store.run_tx("sweep.work", async |tx| sweep::note_work(tx).await).await?;
        }
        if self.incarnation() == of {
            self.name(census, of, round, needed);
        }
        Ok(1)
    }

    /// Tells what the next round waits for.
    async fn wait(&self, look: &Look, reason: String) -> Result<(), AppError> {
        let now = self.clock.now();
        if self.sweep.stand(SweepState::Held, Some(reason.clone()), now) {
            tracing::info!("the sweep waits: {reason}");
        }
        if self.sweep.standing().is_some_and(|standing| now.ms_since(standing.since) > WAITS_LONG_MS) {
            self.warn(&reason).await?;
        }
        self.note_operation(look, "waiting", vec![(reason, None)]).await
    }

    /// Tells an operator who waits for rounds how far they are, and ends the wait if it was cancelled.
    async fn note_operation(
        &self,
        look: &Look,
        phase: &str,
        waiting: Vec<(String, Option<NodeId>)>,
    ) -> Result<(), AppError> {
        let Some(operation) = &look.operation else { return Ok(()) };
        let (total, now) = (u64_from(look.nodes.len()), self.clock.now());
        let nodes = waiting.iter().filter(|(_, node)| node.is_some()).count();
        let progress = Progress { done: total - u64_from(nodes), total, failed: 0, unit: "nodes".to_owned() };
        let waiting: Vec<WaitingOn> = waiting
            .into_iter()
            .map(|(what, node)| WaitingOn { what, node, node_name: None, since: now, deadline: operation.deadline })
            .collect();
        self.store
            .run_tx("sweep.progress", async |tx| {
                if operation.state == OperationState::Cancelling {
                    sweep::ask(tx, 0).await?;
                    return Ok(operations::finish(tx, operation.id, Outcome::Cancelled(None)).await?);
                }
                Ok(operations::note(tx, operation, phase, &progress, &waiting).await?)
            })
            .await
    }
}

async fn look(tx: &mut Tx) -> Result<Look, AppError> {
    let operation = match operations::running_on(tx, POOL, DEFAULT_POOL).await? {
        Some(id) => operations::load(tx, id).await?,
        None => None,
    };
    Ok(Look {
        row: sweep::load(tx).await?,
        current: uploads::current_round(tx).await?,
        nodes: nodes::listed(tx).await?,
        operation,
    })
}

/// Begins the round after the newest one, in the transaction that lists its roots. A round that was begun and of which not all
/// is counted is gone on with: its roots may be listed again, because all uploads that live now were begun in it or in the
/// round before.
async fn begin(tx: &mut Tx, counted: &census::Progress) -> Result<Begun, AppError> {
    uploads::end_overdue(tx).await?;
    let current = uploads::current_round(tx).await?;
    let is_broken_off = counted.begun == current && counted.finished < current;
    if !is_broken_off && let Some(holder) = sweep::holder(tx).await? {
        return Ok(Begun::Held(waits_for(&holder)));
    }
    let roots = roots::list(tx).await?;
    if let Some(unknown) = roots.unknown {
        return Ok(Begun::Held(format!("{unknown}: its node has to tell it")));
    }
    if is_broken_off {
        return Ok(Begun::Round(current, Box::new(roots)));
    }
    let since = sweep::load(tx).await?.begun_at.unwrap_or(Timestamp::from_micros(0));
    let wasted = sweep::wasted_since(tx, since).await?;
    sweep::note_round(tx, wasted).await?;
    let begun = uploads::begin_round(tx).await?;
    let mut round = begun.expect("nothing holds it: that was looked up in this transaction");
    if counted.begun == 0 {
        // Nobody knows what died since the rounds before. Nodes that miss a number judge all their objects.
        round = uploads::begin_round(tx).await?.unwrap_or(round);
    }
    Ok(Begun::Round(round, Box::new(roots)))
}

fn waits_for(holder: &Holder) -> String {
    let Holder { target_kind, target_name, project, begun_at, .. } = holder;
    let what = match target_kind.as_str() {
        "disk" => format!("a disk of '{target_name}' that a dead node saves"),
        kind => format!("{kind} '{target_name}'"),
    };
    format!("the upload to {what} in project {project} has to end first; it began at {begun_at}")
}

/// The pool as the target of operations and events.
pub(super) fn target() -> Target {
    Target { kind: POOL.to_owned(), id: DEFAULT_POOL.to_owned(), name: DEFAULT_POOL.to_owned() }
}

pub(super) fn event(kind: &'static str, data: Value) -> NewEvent {
    NewEvent { data, ..NewEvent::new(kind, DEFAULT_PROJECT, target()) }
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^53 objects")]
fn precise(number: u64) -> f64 {
    number as f64
}
