//! A node joins, is known by its key, and renews its certificate.
//!
//! A node that joined after the copy of a restored database is not known. Its calls are refused as `unlisted`. With a join token
//! it joins again as the node that it was: its certificate, which this CA signed for its id, and its key prove that. So its
//! guests, its disks and its share of the pool are what they were.

use muster_api::{
    ErrorCode, Labels, NodeId, Timestamp,
    node::{NodeState, PoolUse},
    node_protocol::{FormerNode, JoinAnswer, JoinRequest, RenewAnswer, RenewRequest},
    token::{JoinToken, Role},
};

use muster_pool::transport::node_tls_name;

use super::{
    super::{App, AppError, authentication::matches_secret},
    NodeCaller,
    fence::fenced,
    heartbeat::{check_address, check_protocol},
    state_event,
};
use crate::{
    ca::{CsrError, Subject},
    domain::names::made_up,
    store::{
        Tx, cluster, events,
        nodes::{self, NodeRow},
        tokens,
    },
};

/// What the bearer of a bad join token is told. It is the same for every fault, so that it helps nobody to guess.
const JOIN_TOKEN_REFUSED: &str = "the join token is unknown, revoked or expired";

impl App {
    /// Lets a node join. The use of the token, the node's row and the new membership epoch are one transaction. A node
    /// that asks again with the same store and key, because the answer was lost, stays the same node.
    pub async fn join(&self, bearer: &str, wanted: JoinRequest) -> Result<JoinAnswer, AppError> {
        let token = self.read_join_token(bearer)?;
        check_protocol(wanted.protocol)?;
        check_address(&wanted.advertise, "/advertise")?;
        let was = wanted.was.as_ref().map(|was| self.check_former(was)).transpose()?;
        let of = self.incarnation();
        let id = was.as_ref().map_or_else(NodeId::generate, |(id, _)| *id);
        let (row, certificate_pem) = self
            .store
            .run_tx("nodes.join", async |tx| {
                let made_at = check_join_token(tx, &token).await?;
                let known = nodes::by_store(tx, wanted.store).await?;
                let id = known.as_ref().map_or(id, |row| row.id);
                let (certificate, key_sha256) = self.sign(&wanted.csr_pem, id, tx.now())?;
                if was.as_ref().is_some_and(|(_, key)| *key != key_sha256) {
                    return Err(AppError::Forbidden("the certificate that was sent is not of this key".to_owned()));
                }
                if let Some(row) = known {
                    if row.fenced_at.is_some() {
                        return Err(fenced(&row));
                    }
                    // The answer to the first join was lost. This is no second join, so it costs no use of the token.
                    if row.key_sha256 == key_sha256 && row.state != NodeState::Deleted {
                        return Ok((row, certificate));
                    }
                    return Err(AppError::code(
                        ErrorCode::Forbidden,
                        format!(
                            "store {} has joined before, as node '{}': an agent with a fresh data folder can join",
                            wanted.store, row.name
                        ),
                    ));
                }
                if was.is_some() && nodes::load(tx, id).await?.is_some() {
                    return Err(AppError::Forbidden(format!("node {id} is known, with another store or key")));
                }
                // A removed node may still have a token that came back with the backup: somebody has to ask for it now.
                if was.is_some() && cluster::restored_at(tx).await?.is_some_and(|restored_at| made_at <= restored_at) {
                    let detail =
                        "a node that the database does not know takes a join token that was made since it was restored";
                    return Err(AppError::Unauthenticated(detail.to_owned()));
                }
                if !tokens::take_use(tx, token.id).await? {
                    return Err(AppError::Unauthenticated("the join token is used up".to_owned()));
                }
                let row = self.admit(tx, id, key_sha256, &wanted, was.is_some()).await?;
                Ok::<_, AppError>((row, certificate))
            })
            .await?;
        self.follow_membership().await?;
        if row.id == id && was.is_none() {
            // It holds nothing yet, so the sweep need not wait for its first report.
            self.sweep.note_report(id, of);
        }
        tracing::info!(node.id = %row.id, "node '{}' joined at {}", row.name, row.address);
        Ok(JoinAnswer {
            node: row.id,
            name: row.name,
            cluster: self.cluster,
            ca_pem: self.ca.ca_pem().to_owned(),
            certificate_pem,
            node_port: self.node_port,
            incarnation: self.incarnation(),
        })
    }

    /// Reads a join token and checks all that needs no database. This door is open to everybody, so a bad token must
    /// not take a turn to write.
    fn read_join_token(&self, bearer: &str) -> Result<JoinToken, AppError> {
        let token: JoinToken =
            bearer.parse().map_err(|_| AppError::Unauthenticated("joining takes a join token: mjt1_…".to_owned()))?;
        if token.cluster != self.cluster || token.ca_sha256 != self.ca.sha256() {
            return Err(AppError::Unauthenticated(format!(
                "this join token is for cluster {}, this is cluster {}",
                token.cluster, self.cluster
            )));
        }
        if !self.genuine(token.id, &token.secret) {
            return Err(AppError::Unauthenticated(JOIN_TOKEN_REFUSED.to_owned()));
        }
        Ok(token)
    }

    /// The id and the key of a node that says that it was in this cluster.
    fn check_former(&self, was: &FormerNode) -> Result<(NodeId, String), AppError> {
        let key = self.trusted_ca.check_node(&was.certificate_pem, &node_tls_name(was.node));
        let refused = |error| AppError::Forbidden(format!("it was not node {} of this cluster: {error}", was.node));
        Ok((was.node, key.map_err(refused)?))
    }

    /// Signs a certificate for the node. Returns it as PEM, with the SHA-256 of its public key in hex.
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
        was_here: bool,
    ) -> Result<NodeRow, AppError> {
        let made_up = made_up("node", id.uuid());
        let mut name = wanted.name.as_ref().map_or_else(|| made_up.clone(), ToString::to_string);
        if let Some(other) = nodes::by_name(tx, &name).await? {
            if !was_here {
                return Err(AppError::NameTaken { kind: "node", name, existing: other.id.to_string() });
            }
            // It may have replaced a host of that name, which the backup still lists.
            name = made_up;
        }
        if let Some(dead) = nodes::fenced_by_key(tx, &key_sha256).await? {
            return Err(fenced(&dead));
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
            tunnel: None,
            features: Vec::new(),
            run: None,
            run_at: None,
            stopped_at: None,
            fenced_at: None,
            draining_at: None,
            drained_at: None,
            revision: 1,
            seq: tx.next_seq().await?,
        };
        nodes::insert(tx, &row).await?;
        events::append(tx, state_event(&row, &format!("node:{}", row.name))).await?;
        self.refresh_membership(tx).await?;
        Ok(row)
    }

    /// The node that calls at the node door with this key, whichever process of it calls. One that was declared dead is
    /// refused as `fenced`, also when it was removed since.
    pub async fn node_caller(&self, key_sha256: &str, expired: bool) -> Result<(NodeCaller, NodeRow), AppError> {
        let row = self
            .store
            // Every call of a node begins with it, and a heartbeat must not wait for other work.
            .read_for_heartbeat("nodes.by_key", async |tx| {
                if let Some(row) = nodes::fenced_by_key(tx, key_sha256).await? {
                    return Err(fenced(&row));
                }
                match nodes::by_key(tx, key_sha256).await? {
                    None if nodes::had_key(tx, key_sha256).await? => Err(not_a_node()),
                    row => Ok(row),
                }
            })
            .await?;
        let Some(row) = row else {
            self.note_unlisted(key_sha256);
            return Err(unlisted());
        };
        Ok((NodeCaller { id: row.id, name: row.name.clone(), expired }, row))
    }

    /// Makes a new certificate for the same key.
    pub fn renew(&self, node: &NodeCaller, key_sha256: &str, wanted: &RenewRequest) -> Result<RenewAnswer, AppError> {
        let (certificate_pem, key) = self.sign(&wanted.csr_pem, node.id, self.clock.now())?;
        if key != key_sha256 {
            return Err(AppError::Forbidden(
                "a certificate is renewed for the key that is listed, not another".to_owned(),
            ));
        }
        Ok(RenewAnswer { certificate_pem })
    }
}

/// The refusal of a call of a node that was removed.
pub(super) fn not_a_node() -> AppError {
    AppError::Unauthenticated("this key belongs to no node of this cluster any more: the node was removed".to_owned())
}

/// The refusal of a call with a certificate of this CA whose key the database never had.
fn unlisted() -> AppError {
    let detail = "the controller's database does not know this node: it was replaced by a copy from before the node joined. \
        Nothing of the node is deleted. Make a join token (`muster token create --role node`) and give it to the node's agent, \
        which keeps its data folder: it becomes the same node again";
    AppError::code(ErrorCode::Unlisted, detail)
}

/// Refuses a token that lets no node in. Returns when it was made.
async fn check_join_token(tx: &mut Tx, token: &JoinToken) -> Result<Timestamp, AppError> {
    let refused = || AppError::Unauthenticated(JOIN_TOKEN_REFUSED.to_owned());
    let row = tokens::load(tx, token.id).await?.ok_or_else(refused)?;
    if row.role != Role::Node || !matches_secret(&row.secret_sha256, &token.secret) || row.expires_at <= tx.now() {
        return Err(refused());
    }
    Ok(row.created_at)
}
