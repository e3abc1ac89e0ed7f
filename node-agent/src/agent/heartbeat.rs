//! Heartbeats: they tell the controller that this node lives, and tell this node when the long-poll has missed something.

use std::{sync::atomic::Ordering, time::Duration};

use metrics::{counter, gauge};
use muster_api::{
    ErrorCode, NodeId,
    condition::ConditionKind,
    node_protocol::{HEARTBEAT_S, Heartbeat, HeartbeatAnswer, LINKS_MAX, Moved, MovedBetween, NODE_PROTOCOL, Observed},
};
use muster_pool::{PeerBytes, membership::digest};
use storage_core::{ObjectName, lock, store::ChunkStore as _, units::u64_from};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{debug, info, warn};

use super::{
    build::note_accepted,
    loops::{Contact, Loops, Standing},
};
use crate::{clock, controller::ControllerError, latest::Latest as _, sweep::Named, telemetry};

/// A heartbeat that takes longer is given up: the next one is long due.
const ANSWER: Duration = Duration::from_secs(HEARTBEAT_S * 2);

/// Longest wait for the answer to the last heartbeat.
const FAREWELL: Duration = Duration::from_secs(2);

impl Loops {
    pub(super) async fn heartbeats(&self) {
        let mut tick = interval(Duration::from_secs(HEARTBEAT_S));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let heartbeat = self.heartbeat();
            self.publish_metrics(&heartbeat);
            if self.registered.load(Ordering::Acquire) || self.register().await {
                self.beat(heartbeat).await;
            }
            self.standing.send_if_modified(|standing| {
                let first = *standing == Standing::NotAsked && self.superseded.latest().is_none();
                if first {
                    *standing = Standing::Listed;
                }
                first
            });
        }
    }

    async fn beat(&self, heartbeat: Heartbeat) {
        match timeout(ANSWER, self.controller.heartbeat(heartbeat)).await {
            Ok(Ok(answer)) => self.answered(&answer),
            Ok(Err(error)) if error.code() == Some(ErrorCode::Superseded) => {
                // A restored database may not know this run yet: asked once more before the guests are stopped.
                self.register().await;
            }
            Ok(Err(error)) => self.refused(&error).await,
            Err(_elapsed) => self.lost("it did not answer a heartbeat in time"),
        }
    }

    /// Registers this run. Returns whether it may act; if another one does, the agent ends.
    async fn register(&self) -> bool {
        let start = self.run.start(self.known.latest().desired.incarnation, &self.advertise);
        match timeout(ANSWER, self.controller.start_run(start)).await {
            Ok(Ok(())) => {
                note_accepted(&self.run);
                self.registered.store(true, Ordering::Release);
                return true;
            }
            Ok(Err(ControllerError::Refused(problem))) if problem.code == ErrorCode::Superseded => {
                self.superseded.send_replace(Some(problem.detail));
            }
            Ok(Err(error)) => self.refused(&error).await,
            Err(_elapsed) => self.lost("it did not answer the registration of this agent in time"),
        }
        false
    }

    /// A call of this node was refused, or not answered.
    async fn refused(&self, error: &ControllerError) {
        self.heed(error);
        self.lost(&error.to_string());
        if self.unlisted.heed(error, &self.identity, &self.config, (&self.advertise, self.offer)).await {
            // The row of the node is new, and knows no run.
            self.registered.store(false, Ordering::Release);
        }
    }

    fn answered(&self, answer: &HeartbeatAnswer) {
        self.unlisted.listed();
        let now = Contact { connected: true, last_answer_at: Some(clock::now()) };
        if !std::mem::replace(&mut *lock(&self.contact), now).connected {
            info!("the controller answers");
        }
        let known = self.known.latest();
        let desired = &known.desired;
        // The long-poll brings every newer revision. It cannot see a newer membership record, nor another history of
        // the database, whose revisions cannot be compared with ours.
        if answer.incarnation != desired.incarnation
            || answer.membership_epoch > self.membership_epoch()
            || answer.desired_revision < desired.revision
        {
            debug!(?answer, "the desired state is asked for again");
            self.refetch.notify_one();
        }
        if answer.incarnation == desired.incarnation {
            self.pool.close_epochs_before(answer.oldest_open_epoch);
        }
        if answer.wants_full_report {
            self.report_all.notify_one();
        }
        // I6: what another history of the database does not need, this one may.
        let incarnation = answer.incarnation;
        let round = answer.sweep.filter(|_| incarnation == desired.incarnation);
        if let Some(round) = round {
            self.pool.heard_round(round.round);
        }
        self.keeper.heard(answer.repository);
        self.sweeper.heard(round.map(|round| Named { incarnation, round }));
    }

    fn lost(&self, error: &str) {
        if std::mem::take(&mut lock(&self.contact).connected) {
            warn!(error, "the controller does not answer; the node goes on with the last desired state");
        } else {
            debug!(error, "the controller does not answer");
        }
    }

    fn heartbeat(&self) -> Heartbeat {
        // Epochs are compared within one incarnation, so the two have to belong together.
        let known = self.known.latest();
        Heartbeat {
            protocol: NODE_PROTOCOL,
            incarnation: known.desired.incarnation,
            membership_epoch: known.membership.as_ref().map_or(0, |record| record.epoch),
            membership_record: known.membership.as_ref().map(|_| digest(&known.desired.membership)),
            advertise: self.advertise.clone(),
            offer: self.offer,
            pool: self.pool_use(),
            conditions: self.conditions(),
            runtimes: self.host.runtimes(),
            hypervisor: self.host.hypervisor(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            traffic: Some(self.moved()),
            features: self.host.features(),
            repair: self.repair.progress(),
            gone: self.gone(),
            scrub: Some(self.scrubber.progress()),
            repository: self.keeper.usage(),
            tunnel: self.host.tunnel().ok().map(|tunnel| tunnel.to_string()),
            unexplained: Some(self.unexplained()),
            stopping: false,
        }
    }

    /// What is lost with the last copy, as far as this node knows. The controller bears a name that comes twice.
    fn gone(&self) -> Vec<ObjectName> {
        let mut gone = self.repair.gone();
        gone.extend(self.keeper.lost());
        gone
    }

    /// What moved since this process began.
    fn moved(&self) -> Moved {
        let traffic = self.pool.traffic();
        let (read_bytes, written_bytes) = self.host.moved_bytes();
        let link = |(node, bytes): (NodeId, PeerBytes)| MovedBetween {
            node,
            fetched_bytes: bytes.fetched,
            served_bytes: bytes.served,
        };
        let mut links: Vec<MovedBetween> = traffic.peers().into_iter().map(link).collect();
        let fetched_bytes = links.iter().map(|link| link.fetched_bytes).sum();
        links.sort_by_key(|link| std::cmp::Reverse(link.fetched_bytes + link.served_bytes));
        links.truncate(LINKS_MAX);
        Moved { run: self.run.id(), fetched_bytes, served_bytes: traffic.served(), read_bytes, written_bytes, links }
    }

    /// Tells the controller, once, that this agent ends in order: its guests are off and its disks are closed.
    pub(super) async fn farewell(&self) {
        let last = Heartbeat { stopping: true, ..self.heartbeat() };
        if !matches!(timeout(FAREWELL, self.controller.heartbeat(last)).await, Ok(Ok(_))) {
            warn!("the controller did not hear that this agent ends: it will count as silent");
        }
    }

    fn publish_metrics(&self, heartbeat: &Heartbeat) {
        // Counts are far below the 53 bits that a gauge holds exactly.
        #[expect(clippy::cast_precision_loss, reason = "metrics are floating point")]
        let number = |n: u64| n as f64;
        let flag = |on: bool| f64::from(u8::from(on));
        gauge!(telemetry::CONTROLLER_CONNECTED).set(flag(self.contact().connected));
        gauge!(telemetry::DESIRED_REVISION).set(number(self.known.latest().desired.revision));
        gauge!(telemetry::MEMBERSHIP_EPOCH).set(number(heartbeat.membership_epoch));
        gauge!(telemetry::POOL_USED_BYTES).set(number(heartbeat.pool.used_bytes));
        gauge!(telemetry::POOL_LIMIT_BYTES).set(number(heartbeat.pool.limit_bytes));
        gauge!(telemetry::POOL_OBJECTS).set(number(heartbeat.pool.objects));
        gauge!(telemetry::POOL_BAD_COPIES).set(number(self.share.usage().bad_copies));
        gauge!(telemetry::POOL_UNREADABLE_COPIES).set(number(u64_from(self.share.unreadable().len())));
        gauge!(telemetry::POOL_LOST_OBJECTS).set(number(heartbeat.pool.lost_objects));
        gauge!(telemetry::POOL_LOST_BYTES).set(number(heartbeat.pool.lost_bytes));
        // Seconds since 1970 fit as well.
        let ended = heartbeat.scrub.and_then(|scrub| scrub.last).and_then(|round| round.ended_at);
        if let Some(ended) = ended {
            gauge!(telemetry::POOL_SCRUB_ENDED_S).set(number((ended.micros() / 1_000_000).unsigned_abs()));
        }
        if let Some(repair) = &heartbeat.repair {
            gauge!(telemetry::REPAIR_UNCHECKED_OBJECTS).set(number(repair.unchecked_objects));
            gauge!(telemetry::REPAIR_MISSING_OBJECTS).set(number(repair.missing.objects));
            gauge!(telemetry::REPAIR_MISSING_BYTES).set(number(repair.missing.bytes));
            gauge!(telemetry::REPAIR_SILENT_NODES).set(number(repair.silent_nodes));
            counter!(telemetry::REPAIR_COPIED_OBJECTS).absolute(repair.copied.objects);
            counter!(telemetry::REPAIR_COPIED_BYTES).absolute(repair.copied.bytes);
            gauge!(telemetry::HAND_OVER_SURPLUS_OBJECTS).set(number(repair.surplus.objects));
            counter!(telemetry::HANDED_OVER_OBJECTS).absolute(repair.handed_over.objects);
            counter!(telemetry::HANDED_OVER_BYTES).absolute(repair.handed_over.bytes);
        }
        if let Some(repository) = &heartbeat.repository {
            gauge!(telemetry::REPOSITORY_BEHIND_OBJECTS).set(number(repository.behind.objects));
            gauge!(telemetry::REPOSITORY_BEHIND_BYTES).set(number(repository.behind.bytes));
            gauge!(telemetry::REPOSITORY_BEHIND_SECONDS).set(number(repository.oldest_behind_s.unwrap_or(0)));
            gauge!(telemetry::REPOSITORY_FAILING).set(flag(repository.trouble.is_some()));
            gauge!(telemetry::REPOSITORY_EVICTED_OBJECTS).set(number(repository.evicted.objects));
            gauge!(telemetry::REPOSITORY_EVICTED_BYTES).set(number(repository.evicted.bytes));
            gauge!(telemetry::REPOSITORY_MISSING_OBJECTS).set(number(repository.missing_objects));
            counter!(telemetry::REPOSITORY_UPLOADED_OBJECTS).absolute(repository.uploaded.objects);
            counter!(telemetry::REPOSITORY_UPLOADED_BYTES).absolute(repository.uploaded.bytes);
            counter!(telemetry::REPOSITORY_FETCHED_OBJECTS).absolute(repository.fetched.objects);
            counter!(telemetry::REPOSITORY_FETCHED_BYTES).absolute(repository.fetched.bytes);
            counter!(telemetry::REPOSITORY_DELETED_OBJECTS).absolute(repository.deleted_objects);
            counter!(telemetry::REPOSITORY_BAD_BODIES).absolute(repository.bad_bodies);
            counter!(telemetry::REPOSITORY_ERRORS).absolute(repository.errors);
        }
        if let Some(moved) = &heartbeat.traffic {
            counter!(telemetry::FETCHED_BYTES).absolute(moved.fetched_bytes);
            counter!(telemetry::SERVED_BYTES).absolute(moved.served_bytes);
            counter!(telemetry::READ_BYTES).absolute(moved.read_bytes);
            counter!(telemetry::WRITTEN_BYTES).absolute(moved.written_bytes);
        }
        gauge!(telemetry::FREE_BYTES).set(number(heartbeat.pool.free_bytes));
        let instances = self.passed.latest().instances.clone();
        for state in Observed::ALL {
            let count: u64 = instances.iter().map(|report| u64::from(report.state == state)).sum();
            gauge!(telemetry::INSTANCES, "state" => state.as_str()).set(number(count));
        }
        for kind in ConditionKind::KNOWN {
            let holds = heartbeat.conditions.iter().any(|c| c.kind == *kind);
            gauge!(telemetry::CONDITIONS, "kind" => kind.to_string()).set(flag(holds));
        }
    }
}
