//! What nodes ask and tell of the round that they carry out.

use std::sync::Arc;

use muster_api::{
    ErrorCode,
    node_protocol::sweep::{NAMES_MAX, SweepDone},
};
use storage_core::{
    ObjectName,
    census::{Census, CensusError},
};

use super::super::{App, AppError, nodes::NodeCaller, sweeping::Named};
use crate::wake::Loop;

impl App {
    /// The next objects that nothing needs since this round, in order; none at the end.
    pub async fn sweep_dead(&self, round: u64, after: Option<ObjectName>) -> Result<Vec<ObjectName>, AppError> {
        self.of_round(round, move |census| census.dead(after.as_ref(), NAMES_MAX)).await
    }

    /// Which of these objects nothing needs, in the order in which they were asked for.
    pub async fn sweep_judge(&self, round: u64, names: Vec<ObjectName>) -> Result<Vec<ObjectName>, AppError> {
        self.of_round(round, move |census| {
            let needed = census.needed(&names)?;
            Ok(names.into_iter().zip(needed).filter(|(_, needed)| !needed).map(|(name, _)| name).collect())
        })
        .await
    }

    /// A node has carried out the round. A repeated call changes nothing.
    pub fn sweep_done(&self, node: &NodeCaller, round: u64, done: SweepDone) -> Result<(), AppError> {
        self.named_round(round)?;
        if self.sweep.done(node.id, round, done) {
            metrics::counter!("muster_sweep_dropped_objects_total").increment(done.objects);
            metrics::counter!("muster_sweep_dropped_bytes_total").increment(done.bytes);
            metrics::counter!("muster_sweep_reclaimed_bytes_total").increment(done.reclaimed_bytes);
        }
        self.store.wakes().reconcile(Loop::Sweep);
        Ok(())
    }

    /// Asks the counts of a round that nodes carry out.
    async fn of_round<T: Send + 'static>(
        &self,
        round: u64,
        ask: impl FnOnce(&Census) -> Result<T, CensusError> + Send + 'static,
    ) -> Result<T, AppError> {
        let census: Arc<Census> = self.named_round(round)?.census;
        let asked = tokio::task::spawn_blocking(move || ask(&census)).await;
        let answer = asked.map_err(anyhow::Error::from)?.map_err(anyhow::Error::from)?;
        // The next round may have begun to be counted meanwhile, and then the answer is of neither.
        self.named_round(round)?;
        Ok(answer)
    }

    fn named_round(&self, round: u64) -> Result<Named, AppError> {
        let named = self.sweep.named(self.incarnation()).filter(|named| named.round == round);
        named.ok_or_else(|| {
            let detail = format!("round {round} of the sweep is not the one that is carried out now: give it up");
            AppError::code(ErrorCode::WrongState, detail)
        })
    }
}
