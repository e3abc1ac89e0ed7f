//! An agent process registers as the one that acts as its node, and calls of any other are refused (I8).

use muster_api::{
    ErrorCode, NodeId, Problem, RunId,
    node_protocol::{RunStart, SILENT_AFTER_S},
};
use storage_core::lock;

use super::{
    super::{App, AppError},
    NodeCaller,
    heartbeat::check_protocol,
    state_event,
};
use crate::{
    domain::run::{Current, Verdict, judge},
    store::{
        events,
        nodes::{self, NodeRow},
    },
};

/// How long a refused process is shown as a condition of its node, milliseconds. It is refused again at each try.
const SHOWN_MS: i64 = 600_000;

impl App {
    /// Registers a start. From then on, calls of other runs of the node are refused.
    pub async fn start_run(&self, node: &NodeCaller, start: &RunStart) -> Result<(), AppError> {
        check_protocol(start.protocol)?;
        let ours = self.incarnation();
        match self.register(node, start).await? {
            Verdict::OldDatabase => {
                let evidence = format!("node '{}' runs an agent that was accepted and is not known here", node.name);
                self.leave_old_history(ours, start.incarnation, &evidence).await?;
                self.register(node, start).await.map(|_accepted| ())
            }
            _ => Ok(()),
        }
    }

    async fn register(&self, node: &NodeCaller, start: &RunStart) -> Result<Verdict, AppError> {
        let (verdict, row) = self
            .store
            .run_tx("nodes.run", async |tx| {
                let row = nodes::load(tx, node.id).await?.ok_or_else(|| AppError::not_found("node", node.id))?;
                let heard_ms_ago = self.last_seen(&row).max(row.run_at).map(|at| tx.now().ms_since(at));
                let current = row.run.map(|run| Current { run, heard_ms_ago, stopped: row.stopped_at.is_some() });
                let verdict = judge(current, start, start.incarnation == self.incarnation());
                if verdict == Verdict::Accepted && row.run != Some(start.run) {
                    let next = NodeRow { run: Some(start.run), run_at: Some(tx.now()), ..row };
                    nodes::save(tx, &next).await?;
                    events::append(tx, state_event(&next, &format!("node:{}", next.name))).await?;
                    return Ok((verdict, next));
                }
                Ok::<_, AppError>((verdict, row))
            })
            .await?;
        match verdict {
            Verdict::Accepted => {
                tracing::info!(node.id = %node.id, run.id = %start.run, "an agent of node '{}' starts at {}", row.name, start.advertise);
                Ok(verdict)
            }
            Verdict::OldDatabase => Ok(verdict),
            Verdict::Wait => Err(AppError::Unavailable(format!(
                "the agent of node '{}' that was heard a moment ago may still run: this one is asked to try again",
                row.name
            ))),
            Verdict::Alive | Verdict::Replaced => {
                self.note_refused_run(node.id, start);
                Err(replaced(&row, verdict))
            }
        }
    }

    /// Refuses a call of a run that does not act as the node. `None`: an agent that does not tell its run.
    pub fn check_run(&self, row: &NodeRow, run: Option<RunId>) -> Result<(), AppError> {
        match row.run {
            Some(current) if run != Some(current) => Err(replaced(row, Verdict::Replaced)),
            _ => Ok(()),
        }
    }

    fn note_refused_run(&self, node: NodeId, start: &RunStart) {
        let detail = format!(
            "another agent with this node's identity was refused, at {}: its data folder is a copy, or an older state, of \
             this node's; stop it",
            start.advertise
        );
        tracing::warn!(node.id = %node, run.id = %start.run, "{detail}");
        lock(&self.refused_runs).insert(node, (self.clock.now(), detail));
    }

    /// What to know about a process that used this node's identity lately and was refused: its data folder is a copy.
    pub(crate) fn refused_run(&self, node: NodeId) -> Option<String> {
        let now = self.clock.now();
        let mut refused = lock(&self.refused_runs);
        refused.retain(|_, (at, _)| now.ms_since(*at) < SHOWN_MS);
        refused.get(&node).map(|(_, detail)| detail.clone())
    }
}

fn replaced(row: &NodeRow, verdict: Verdict) -> AppError {
    let since = row.run_at.map(|at| at.to_string()).unwrap_or_default();
    let (name, address) = (&row.name, &row.address);
    let detail = match verdict {
        Verdict::Alive => format!(
            "node '{name}' is at work at {address}, or was less than {SILENT_AFTER_S} s ago: if that is another copy of this data \
             folder, stop that agent first, or give this one a fresh folder; else start it again in {SILENT_AFTER_S} s"
        ),
        _ => format!(
            "another agent acts as node '{name}' since {since}, at {address}, and this data folder knows nothing of it: it is \
             a copy or an older state; what it wrote since stays in it"
        ),
    };
    Problem::new(ErrorCode::Superseded, detail).into()
}
