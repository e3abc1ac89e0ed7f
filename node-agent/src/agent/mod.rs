//! The agent put together: how it starts, its loops, how it ends. Every task of the agent is spawned in `run`.
//!
//! ```text
//! heartbeat (3 s) --newer revision, epoch or incarnation--> desired (long-poll) --accept, store--> known
//!                                                                                             |   |
//!            report (level, retried) <-- instances <-- work (host.pass) <----------------------+   +--> membership of the pool
//!            cuts (coordinator and member) <----------------------------------------------------------+
//! peer server, renewal of the certificate, status socket, /metrics
//! ```
//! All of it is level-triggered: a lost message costs a delay and nothing else. While the controller is away the agent
//! goes on with the last desired state and membership, also after a restart (`desired.rs` of this crate).
//!
//! The end (SIGTERM): no new work; guests are asked to turn off (30 s); the last report; disks are flushed and unmounted;
//! only then the peer server closes, so that nodes that go down together can still read from each other. kill -9 is as
//! correct, only slower.
//!
//! A node that was declared dead (`fenced`) stops its guests, unmounts its disks and calls nobody any more (`fence`).
//!
//! Reading order: `build` (up to the first task), `run` (tasks and the end), `loops` (what the loops share), then one
//! file per loop: `heartbeat`, `follow` (the desired state), `work` (passes and reports), `boots` (what starts read first), `prefetch` (what
//! they will read),
//! `upkeep` (certificate, pool). `unexplained` tells what lies here and belongs to nothing.

mod boots;
mod build;
mod fence;
mod follow;
mod heartbeat;
mod loops;
mod prefetch;
mod run;
mod salvage;
mod unexplained;
mod unlisted;
mod upkeep;
mod work;

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc};

use metrics_exporter_prometheus::PrometheusHandle;
use muster_pool::{PoolClient, tls::TlsError};
use storage_core::store::{ChunkStore, StoreError};
use tokio::net::TcpListener;

use self::loops::Loops;
use crate::{
    check::DataLock,
    host::HostError,
    identity::{IdentityError, NodeIdentity},
    run::RunError,
};

/// Why an agent does not start, or ends.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The data folder cannot be used.
    #[error("cannot {op} {path}: {source}")]
    DataDir {
        /// What was tried, as a verb.
        op: &'static str,
        /// The file or folder it was tried on.
        path: PathBuf,
        /// The error of the file system.
        source: io::Error,
    },
    /// Another agent runs on this data folder.
    #[error("another muster-agent runs on {0}")]
    Locked(PathBuf),
    /// The data folder was moved or copied, or its run cannot be written down.
    #[error(transparent)]
    Run(#[from] RunError),
    /// Another agent process acts as this node.
    #[error("{0}")]
    Superseded(String),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address to listen on, as configured.
        address: SocketAddr,
        /// The error of the network.
        source: io::Error,
    },
    /// The node has no identity and cannot get one, or its key or certificate is broken.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The pool's store cannot be opened.
    #[error("this node's share of the pool cannot be opened: {0}")]
    Store(#[from] StoreError),
    /// The disks, or the host around them, cannot be opened.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A task ended that must run until the agent ends.
    #[error("{task} ended: {detail}")]
    Task {
        /// Name of the task, for the log.
        task: &'static str,
        /// How it ended: it returned, or it panicked with this message.
        detail: String,
    },
}

/// An agent that has joined its cluster and holds its data folder. [`Agent::run`] makes it work.
pub struct Agent {
    loops: Arc<Loops>,
    lock: DataLock,
    listener: TcpListener,
    metrics: Option<PrometheusHandle>,
}

impl Agent {
    /// Serves these metrics on the address of the configuration, if it has one.
    #[must_use]
    pub fn with_metrics(self, metrics: PrometheusHandle) -> Self {
        Self { metrics: Some(metrics), ..self }
    }

    /// What the node was told at its join, with its key and certificate.
    #[must_use]
    pub fn identity(&self) -> &NodeIdentity {
        &self.loops.identity
    }

    /// `IP:PORT` at which other nodes reach this one.
    #[must_use]
    pub fn advertise(&self) -> &str {
        &self.loops.advertise
    }

    /// This node's client of the pool.
    #[must_use]
    pub fn pool(&self) -> &PoolClient {
        &self.loops.pool
    }

    /// This node's share of the pool.
    #[must_use]
    pub fn share(&self) -> Arc<dyn ChunkStore> {
        self.loops.share.clone()
    }
}
