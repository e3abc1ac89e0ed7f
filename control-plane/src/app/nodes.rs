//! Nodes: joining, staying in touch, being looked at and taken out.
//!
//! ```text
//!  join ──► joining ──heartbeat──► ready ◄──heartbeat── silent        DELETE (nothing on it) ──► deleted
//!                                    └──30 s without──────┘
//! ```
//! Heartbeats stay in memory and reach the database in batches; what others act on (state, address, offer, weight) is
//! stored at once, because it changes seldom. Silence changes only the node's row; that its instances are `unknown`
//! follows from it in the instances loop.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
};

use muster_api::{
    Labels, NodeId, Page, Ref, Timestamp, TokenId,
    node::{Capacity, Node, NodeState, PoolUse},
    node_protocol::{
        Desired, Heartbeat, HeartbeatAnswer, JoinAnswer, JoinRequest, NODE_PROTOCOL, RenewAnswer, RenewRequest,
        SILENT_AFTER_S,
    },
    operation::Target,
    token::{JoinToken, Role},
};
use serde_json::json;

use super::{Answer, App, AppError, Caller, Once, access::matches_secret, check_if_match, etag, membership};
use crate::{
    ca::{CsrError, Subject},
    http::ListQuery,
    reconcile::Loop,
    store::{
        Tx, column,
        events::{self, NewEvent},
        instances::{self, Promised},
        nodes::{self, NodeRow},
        tokens,
    },
};

/// Deleted nodes are shown for this long.
const DELETED_SHOWN_MS: i64 = 24 * 3600 * 1000;
/// How much later than heard the database knows of a heartbeat that changed nothing.
const FLUSH_EVERY_MS: i64 = 5_000;

/// A node that is calling, known by its key.
#[derive(Clone, Debug)]
pub struct NodeCaller {
    /// Node.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Whether its certificate has ended: only renewing is allowed then.
    pub expired: bool,
}

/// What nodes said last, in memory.
#[derive(Debug, Default)]
pub struct Heartbeats(Mutex<HashMap<NodeId, Heard>>);

#[derive(Clone, Debug)]
struct Heard {
    at: Timestamp,
    beat: Heartbeat,
    flushed: Option<Timestamp>,
}

impl Heartbeats {
    fn hear(&self, node: NodeId, at: Timestamp, beat: Heartbeat) -> Option<Heartbeat> {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = heard.remove(&node);
        let flushed = before.as_ref().and_then(|b| b.flushed);
        heard.insert(node, Heard { at, beat, flushed });
        before.map(|b| b.beat)
    }

    fn last(&self, node: NodeId) -> Option<(Timestamp, Heartbeat)> {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.get(&node).map(|h| (h.at, h.beat.clone()))
    }

    fn forget(&self, node: NodeId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&node);
    }

    /// Takes what has to reach the database now.
    fn due(&self, now: Timestamp) -> Vec<(NodeId, Timestamp, Heartbeat)> {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let due = |h: &Heard| h.flushed.is_none_or(|f| h.at > f && now.ms_since(f) >= FLUSH_EVERY_MS);
        let taken = heard.iter_mut().filter(|(_, h)| due(h)).map(|(id, h)| {
            h.flushed = Some(h.at);
            (*id, h.at, h.beat.clone())
        });
        taken.collect()
    }
}

/// How events name a node.
#[must_use]
pub fn target(row: &NodeRow) -> Target {
    Target { kind: "node".to_owned(), id: row.id.to_string(), name: row.name.clone() }
}

fn state_event(row: &NodeRow, actor: &str) -> NewEvent {
    NewEvent {
        actor: actor.to_owned(),
        labels: row.labels.clone(),
        node: Some(row.id),
        data: json!({ "state": row.state, "reason": row.reason, "schedulable": row.schedulable }),
        ..NewEvent::new("node.state", "default", target(row))
    }
}

/// What a bad join token is told, whatever is wrong with it.
const JOIN_TOKEN_REFUSED: &str = "the join token is unknown, revoked or expired";

/// Whether new instances may be placed on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedulable {
    /// They may.
    Yes,
    /// They may not.
    No,
}

impl App {
    /// A key asks to belong. The token's use, the node's row and the new membership epoch are one transaction; the same
    /// pool with the same key asked again (the answer was lost) gets the same node.
    pub async fn join(&self, bearer: &str, wanted: JoinRequest) -> Result<JoinAnswer, AppError> {
        let token: JoinToken =
            bearer.parse().map_err(|_| AppError::Unauthenticated("joining takes a join token: mjt1_…".to_owned()))?;
        if token.cluster != self.cluster.id || token.ca_sha256 != self.ca.sha256() {
            return Err(AppError::Unauthenticated(format!(
                "this join token is for cluster {}, this is cluster {}",
                token.cluster, self.cluster.id
            )));
        }
        if !self.genuine(token.id, &token.secret) {
            // Before the turn to write is taken: this door is open to everybody.
            return Err(AppError::Unauthenticated(JOIN_TOKEN_REFUSED.to_owned()));
        }
        check_protocol(wanted.protocol)?;
        check_address(&wanted.advertise, "/advertise")?;
        let id = NodeId::generate();
        let (row, certificate_pem) = self
            .store
            .run_tx("nodes.join", async |tx| {
                self.check_join_token(tx, &token).await?;
                let known = nodes::by_store(tx, wanted.store).await?;
                let id = known.as_ref().map_or(id, |row| row.id);
                let (certificate, key_sha256) = self.sign(&wanted.csr_pem, id, tx.now())?;
                if let Some(row) = known {
                    // The answer to the first join was lost: not a second join, so it costs no use of the token.
                    if row.key_sha256 == key_sha256 && row.state != NodeState::Deleted {
                        return Ok((row, certificate));
                    }
                    return Err(AppError::code(
                        muster_api::ErrorCode::Forbidden,
                        format!(
                            "store {} has joined before, as node '{}': an agent with a fresh data folder can join",
                            wanted.store, row.name
                        ),
                    ));
                }
                if !tokens::take_use(tx, token.id).await? {
                    return Err(AppError::Unauthenticated("the join token is used up".to_owned()));
                }
                let row = self.admit(tx, id, key_sha256, &wanted).await?;
                Ok::<_, AppError>((row, certificate))
            })
            .await?;
        self.follow_membership().await?;
        tracing::info!(node.id = %row.id, "node '{}' joined at {}", row.name, row.address);
        Ok(JoinAnswer {
            node: row.id,
            name: row.name,
            cluster: self.cluster.id,
            ca_pem: self.ca.ca_pem().to_owned(),
            certificate_pem,
            node_port: self.node_port,
            incarnation: self.incarnation(),
        })
    }

    async fn check_join_token(&self, tx: &mut Tx, token: &JoinToken) -> Result<TokenId, AppError> {
        let refused = || AppError::Unauthenticated(JOIN_TOKEN_REFUSED.to_owned());
        let row = tokens::load(tx, token.id).await?.ok_or_else(refused)?;
        if row.role != Role::Node || !matches_secret(&row, token.secret.as_bytes()) || row.expires_at <= tx.now() {
            return Err(refused());
        }
        Ok(row.id)
    }

    fn sign(&self, csr_pem: &str, node: NodeId, now: Timestamp) -> Result<(String, String), AppError> {
        self.ca
            .sign_request(csr_pem, &Subject::Node(node), now)
            .map_err(|e: CsrError| AppError::invalid("/csr_pem", "invalid", e.to_string()))
    }

    async fn admit(
        &self,
        tx: &mut Tx,
        id: NodeId,
        key_sha256: String,
        wanted: &JoinRequest,
    ) -> Result<NodeRow, AppError> {
        let name = match &wanted.name {
            Some(name) => name.to_string(),
            None => format!("node-{}", &id.uuid().simple().to_string()[20..]),
        };
        if let Some(other) = nodes::by_name(tx, &name).await? {
            return Err(AppError::NameTaken { kind: "node", name, existing: other.id.to_string() });
        }
        if nodes::by_key(tx, &key_sha256).await?.is_some() {
            return Err(AppError::Forbidden("another node has this key: every agent makes its own".to_owned()));
        }
        let now = tx.now();
        let row = NodeRow {
            id,
            name,
            labels: Labels::default(),
            state: NodeState::Joining,
            reason: None,
            schedulable: true,
            zone: wanted.zone.clone(),
            address: wanted.advertise.clone(),
            store: wanted.store,
            key_sha256,
            // Until its first heartbeat tells how large its pool is.
            weight: 1,
            accepting: true,
            cpus: wanted.offer.cpus,
            memory_bytes: wanted.offer.memory_bytes,
            pool: PoolUse::default(),
            conditions: Vec::new(),
            runtimes: wanted.runtimes.clone(),
            hypervisor: None,
            agent_version: wanted.agent_version.clone(),
            protocol: wanted.protocol,
            desired_revision: 1,
            created_at: now,
            updated_at: now,
            last_seen_at: None,
            revision: 1,
            seq: tx.next_seq().await?,
        };
        nodes::insert(tx, &row).await?;
        events::append(tx, state_event(&row, &format!("node:{}", row.name))).await?;
        self.refresh_membership(tx).await?;
        Ok(row)
    }

    /// Who is calling at the node door: a listed node, known by its key.
    pub async fn node_caller(&self, key_sha256: &str, expired: bool) -> Result<NodeCaller, AppError> {
        let row = self.store.read("nodes.by_key", async |tx| nodes::by_key(tx, key_sha256).await).await?;
        match row {
            Some(row) => Ok(NodeCaller { id: row.id, name: row.name, expired }),
            None => Err(AppError::Unauthenticated(
                "this key belongs to no node of this cluster: the node was removed or never joined".to_owned(),
            )),
        }
    }

    /// A new certificate for the same key.
    pub fn renew(&self, node: &NodeCaller, key_sha256: &str, wanted: &RenewRequest) -> Result<RenewAnswer, AppError> {
        let (certificate_pem, key) = self.sign(&wanted.csr_pem, node.id, self.clock.now())?;
        if key != key_sha256 {
            return Err(AppError::Forbidden(
                "a certificate is renewed for the key that is listed, not another".to_owned(),
            ));
        }
        Ok(RenewAnswer { certificate_pem })
    }

    /// A sign of life. What others act on is stored at once, the rest in batches.
    pub async fn heartbeat(&self, node: &NodeCaller, beat: Heartbeat) -> Result<HeartbeatAnswer, AppError> {
        check_protocol(beat.protocol)?;
        check_address(&beat.advertise, "/advertise")?;
        let ours = self.incarnation();
        let theirs = beat.incarnation;
        // The same number with another random is another history; a higher one means that this database is a stale
        // copy. Either way the node must not be told what this database wants.
        if theirs.number > ours.number || (theirs.number == ours.number && theirs.random != ours.random) {
            return Err(AppError::code(
                muster_api::ErrorCode::Stale,
                format!(
                    "the node has seen incarnation {} of the database, this is {} of another history",
                    theirs.number, ours.number
                ),
            ));
        }
        let now = self.clock.now();
        let row = self.store.read("nodes.load", async |tx| nodes::load(tx, node.id).await).await?;
        let row = row.ok_or_else(|| AppError::not_found("node", node.id))?;
        self.heartbeats.hear(node.id, now, beat.clone());
        if changed(&row, &beat).is_some() {
            self.take_over(node, &beat).await?;
        }
        Ok(HeartbeatAnswer {
            incarnation: ours,
            desired_revision: row.desired_revision,
            membership_epoch: self.pool.membership().epoch,
        })
    }

    async fn take_over(&self, node: &NodeCaller, beat: &Heartbeat) -> Result<(), AppError> {
        self.store
            .run_tx("nodes.heard", async |tx| {
                let Some(row) = nodes::load(tx, node.id).await? else { return Ok(()) };
                let Some(next) = changed(&row, beat) else { return Ok(()) };
                let next = NodeRow { last_seen_at: Some(tx.now()), ..next };
                nodes::save(tx, &next).await?;
                if next.state != row.state {
                    events::append(tx, state_event(&next, &format!("node:{}", next.name))).await?;
                    tracing::info!(node.id = %next.id, "node '{}' is ready", next.name);
                }
                // Room appeared, or a silent node is back.
                tx.wake(Loop::Instances);
                tx.wake(Loop::Deployments);
                if next.state == NodeState::Ready {
                    nodes::bump_desired(tx, next.id).await?;
                }
                self.refresh_membership(tx).await
            })
            .await?;
        self.follow_membership().await
    }

    /// What every desired state begins with: its revision, the database's state and the membership record.
    pub async fn desired_frame(&self, tx: &mut Tx, node: NodeId) -> Result<Desired, AppError> {
        let revision = nodes::desired_revision(tx, node).await?;
        let membership = nodes::membership(tx).await?.map(|(_, signed)| signed);
        Ok(Desired {
            revision,
            incarnation: self.incarnation(),
            membership: membership.ok_or_else(|| anyhow::anyhow!("there is no membership record"))?,
            assignments: Vec::new(),
            cuts: Vec::new(),
            versions: BTreeMap::new(),
        })
    }

    /// Everything wanted of a node.
    pub async fn desired(&self, node: &NodeCaller) -> Result<Desired, AppError> {
        self.store
            .read("nodes.desired", async |tx| {
                let mut desired = self.desired_frame(tx, node.id).await?;
                super::desired::fill(tx, node.id, &mut desired).await?;
                Ok(desired)
            })
            .await
    }

    /// Returns when the node's desired state has another revision than `after`, or false when time is up.
    pub async fn wait_desired(&self, node: NodeId, after: u64, wait: std::time::Duration) -> Result<bool, AppError> {
        let mut watch = self.store.wakes().watch_node(node);
        let end = tokio::time::Instant::now() + wait;
        loop {
            watch.mark_unchanged();
            // Not just "above": after a restore the revision may be lower than one the node has seen.
            let now =
                self.store.read("nodes.desired_revision", async |tx| nodes::desired_revision(tx, node).await).await?;
            if now != after {
                return Ok(true);
            }
            // Another controller's change wakes nobody here: look at least every few seconds.
            let next = end.min(tokio::time::Instant::now() + std::time::Duration::from_secs(5));
            tokio::select! {
                () = self.closing.cancelled() => return Ok(false),
                changed = tokio::time::timeout_at(next, watch.changed()) => {
                    if changed.is_err() && tokio::time::Instant::now() >= end {
                        return Ok(false);
                    }
                }
            }
        }
    }

    /// One pass of the nodes loop: flushes heartbeats, notices silence, follows the membership record.
    pub async fn watch_nodes(&self) -> Result<crate::reconcile::driver::Counts, AppError> {
        let now = self.clock.now();
        let due = self.heartbeats.due(now);
        if !due.is_empty() {
            self.store
                .run_tx("nodes.flush", async |tx| {
                    for (id, at, beat) in &due {
                        nodes::flush(tx, *id, *at, &beat.pool, &beat.conditions).await?;
                    }
                    Ok::<_, AppError>(())
                })
                .await?;
        }
        let rows = self.store.read("nodes.listed", async |tx| nodes::listed(tx).await).await?;
        let silent: Vec<NodeId> = rows.iter().filter(|row| self.is_silent(row, now)).map(|row| row.id).collect();
        if !silent.is_empty() {
            self.silence(&silent).await?;
        }
        self.follow_membership().await?;
        Ok(crate::reconcile::driver::Counts { seen: rows.len(), acted: due.len() + silent.len() })
    }

    fn last_seen(&self, row: &NodeRow) -> Option<Timestamp> {
        self.heartbeats.last(row.id).map(|(at, _)| at).max(row.last_seen_at)
    }

    fn is_silent(&self, row: &NodeRow, now: Timestamp) -> bool {
        // A controller that was off has heard nobody: everyone gets their 30 s from its start.
        let since = self.last_seen(row).max(Some(self.started_at)).unwrap_or(self.started_at);
        row.state == NodeState::Ready && now.ms_since(since) > i64::try_from(SILENT_AFTER_S * 1000).unwrap_or(i64::MAX)
    }

    async fn silence(&self, ids: &[NodeId]) -> Result<(), AppError> {
        self.store
            .run_tx("nodes.silence", async |tx| {
                for id in ids {
                    let Some(row) = nodes::load(tx, *id).await? else { continue };
                    if !self.is_silent(&row, tx.now()) {
                        continue;
                    }
                    let reason = Some(format!("not heard from for {SILENT_AFTER_S} s"));
                    let next = NodeRow { state: NodeState::Silent, reason, last_seen_at: self.last_seen(&row), ..row };
                    nodes::save(tx, &next).await?;
                    events::append(tx, state_event(&next, "muster")).await?;
                    tracing::warn!(node.id = %next.id, "node '{}' is silent", next.name);
                }
                tx.wake(Loop::Instances);
                tx.wake(Loop::Deployments);
                Ok(())
            })
            .await
    }

    /// The nodes, for operators.
    pub async fn nodes(&self, caller: &Caller, list: &ListQuery) -> Result<Page<Node>, AppError> {
        caller.require_operator()?;
        list.filter.only(&["state", "label"])?;
        let since = list.deleted.then(|| self.clock.now().plus_ms(-DELETED_SHOWN_MS));
        self.store
            .read("nodes.list", async |tx| {
                let promised = instances::promised(tx).await?;
                let mut pager = list.pager(tx).await?;
                while let Some((after, n)) = pager.wants() {
                    let rows = nodes::list(tx, after, since, n).await?;
                    pager.take(
                        rows,
                        |row| row.seq,
                        |row| {
                            let state = column::word_text(row.state).unwrap_or_default();
                            list.filter.keeps(&state, &row.labels).then(|| self.node_view(&row, &promised))
                        },
                    );
                }
                Ok(pager.page())
            })
            .await
    }

    /// One node, for operators.
    pub async fn node(&self, caller: &Caller, node: &Ref<NodeId>) -> Result<Node, AppError> {
        caller.require_operator()?;
        self.store
            .read("nodes.show", async |tx| {
                let row = find(tx, node).await?;
                let promised = instances::promised(tx).await?;
                Ok(self.node_view(&row, &promised))
            })
            .await
    }

    fn node_view(&self, row: &NodeRow, promised: &BTreeMap<NodeId, Promised>) -> Node {
        let promised = promised.get(&row.id).copied().unwrap_or_default();
        let fresh = self.heartbeats.last(row.id).filter(|_| row.state != NodeState::Deleted);
        let (pool, conditions) = match &fresh {
            Some((_, beat)) => (beat.pool, beat.conditions.clone()),
            None => (row.pool, row.conditions.clone()),
        };
        Node {
            id: row.id,
            name: row.name.clone(),
            project: "default".to_owned(),
            labels: row.labels.clone(),
            state: row.state,
            reason: row.reason.clone(),
            created_at: row.created_at,
            updated_at: row.updated_at,
            etag: etag(row.revision),
            schedulable: row.schedulable,
            zone: row.zone.clone(),
            address: row.address.clone(),
            conditions,
            capacity: Capacity {
                cpus: row.cpus,
                cpus_used: u32::try_from(promised.cpus).unwrap_or(u32::MAX),
                memory_bytes: row.memory_bytes,
                memory_used_bytes: promised.memory_bytes,
            },
            pool,
            runtimes: row.runtimes.iter().filter_map(|r| column::word_text(*r).ok()).collect(),
            hypervisor: row.hypervisor.clone(),
            instances: promised.instances,
            agent_version: row.agent_version.clone(),
            last_seen_at: self.last_seen(row),
        }
    }

    /// Takes or gives back a node's place in scheduling. Says the wanted state: doing it twice does nothing.
    pub async fn cordon(
        &self,
        caller: &Caller,
        once: &Once,
        if_match: Option<&str>,
        node: &Ref<NodeId>,
        wanted: Schedulable,
    ) -> Result<Answer, AppError> {
        caller.require_operator()?;
        let schedulable = wanted == Schedulable::Yes;
        self.once(once, "nodes.cordon", async |tx| {
            let mut row = find(tx, node).await?;
            check_if_match(if_match, row.revision)?;
            if row.state == NodeState::Deleted {
                return Err(AppError::not_found("node", node));
            }
            if row.schedulable != schedulable {
                row.schedulable = schedulable;
                nodes::save(tx, &row).await?;
                row.revision += 1;
                row.updated_at = tx.now();
                events::append(tx, state_event(&row, &caller.name)).await?;
                tx.wake(Loop::Deployments);
            }
            let promised = instances::promised(tx).await?;
            Answer::ok(&self.node_view(&row, &promised))
        })
        .await
    }

    /// Takes a node out that holds nothing: no instance is assigned to it and its pool is empty.
    pub async fn delete_node(
        &self,
        caller: &Caller,
        once: &Once,
        if_match: Option<&str>,
        node: &Ref<NodeId>,
        dry_run: bool,
    ) -> Result<Answer, AppError> {
        caller.require_operator()?;
        let answer = self
            .once(once, "nodes.delete", async |tx| {
                let row = find(tx, node).await?;
                check_if_match(if_match, row.revision)?;
                if row.state == NodeState::Deleted {
                    return Err(AppError::not_found("node", node));
                }
                let holds = instances::promised(tx).await?.get(&row.id).map_or(0, |p| p.instances);
                let objects = self.heartbeats.last(row.id).map_or(row.pool.objects, |(_, beat)| beat.pool.objects);
                if holds > 0 || objects > 0 {
                    return Err(AppError::NotBuiltYet(format!(
                        "deleting a node that still has {holds} instances and {objects} objects (draining)"
                    )));
                }
                if dry_run {
                    return Answer::ok(&json!({ "freed_bytes": 0 }));
                }
                let next = NodeRow { state: NodeState::Deleted, reason: None, schedulable: false, ..row };
                nodes::save(tx, &next).await?;
                events::append(tx, state_event(&next, &caller.name)).await?;
                self.refresh_membership(tx).await?;
                self.heartbeats.forget(next.id);
                Ok(Answer::no_content())
            })
            .await?;
        self.follow_membership().await?;
        Ok(answer)
    }
}

async fn find(tx: &mut Tx, node: &Ref<NodeId>) -> Result<NodeRow, AppError> {
    let row = match node {
        Ref::Id(id) => nodes::load(tx, *id).await?,
        Ref::Name(name) => nodes::by_name(tx, name).await?,
    };
    row.ok_or_else(|| AppError::not_found("node", node))
}

/// The row as the heartbeat makes it, if that differs in what others act on.
fn changed(row: &NodeRow, beat: &Heartbeat) -> Option<NodeRow> {
    let state = match row.state {
        NodeState::Joining | NodeState::Silent => NodeState::Ready,
        other => other,
    };
    let reason = if state == row.state { row.reason.clone() } else { None };
    let next = NodeRow {
        state,
        reason,
        address: beat.advertise.clone(),
        cpus: beat.offer.cpus,
        memory_bytes: beat.offer.memory_bytes,
        weight: membership::weight(row.weight, &beat.pool),
        conditions: beat.conditions.clone(),
        runtimes: beat.runtimes.clone(),
        hypervisor: beat.hypervisor.clone(),
        agent_version: beat.agent_version.clone(),
        protocol: beat.protocol,
        ..row.clone()
    };
    // The pool's use changes all the time and nobody acts on it: that is for the batches.
    if next == *row { None } else { Some(NodeRow { pool: beat.pool, ..next }) }
}

fn check_protocol(protocol: u32) -> Result<(), AppError> {
    // One minor version older works; there is none yet.
    if protocol == NODE_PROTOCOL {
        return Ok(());
    }
    let detail =
        format!("this controller speaks node protocol {NODE_PROTOCOL}, the agent {protocol}: update the older one");
    Err(AppError::invalid("/protocol", "invalid", detail))
}

fn check_address(text: &str, pointer: &str) -> Result<(), AppError> {
    match text.parse::<std::net::SocketAddr>() {
        Ok(address) if address.ip().is_unspecified() || address.port() == 0 => {
            Err(AppError::invalid(pointer, "invalid", format!("peers cannot reach {address}: say --advertise IP:PORT")))
        }
        Ok(_) => Ok(()),
        Err(e) => Err(AppError::invalid(pointer, "invalid", format!("'{text}' is not IP:PORT: {e}"))),
    }
}
