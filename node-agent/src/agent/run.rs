//! Every task of the agent: how they are started, and the order in which they end.

use std::{future::Future, sync::Arc, time::Duration};

use axum::{Router, routing::get};
use muster_pool::{
    ServeLimits, serve,
    tls::{ClientCertificates, server_config},
};
use storage_core::store::{ChunkStore as _, StoreError};
use tokio::{
    net::TcpListener,
    task::{JoinError, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{Agent, AgentError, loops::Loops};
use crate::{
    check::DataLock,
    consoles::{Consoles, Opener},
    cuts::{CutParts, Cuts},
    host::Host,
    latest::Latest as _,
    peer::server::{PeerServerParts, routes},
    status,
};

/// How long work under way may take to finish.
const WORK_END: Duration = Duration::from_secs(5);
/// How long guests may take to turn themselves off.
const GUESTS_END: Duration = Duration::from_secs(30);
/// How long the host may take beyond that to cut the power of those that did not.
const POWER_END: Duration = Duration::from_secs(10);
/// How long disks may take to flush and unmount.
const DISKS_END: Duration = Duration::from_secs(30);

impl Agent {
    /// Works until `cancel`, then ends in order.
    ///
    /// # Errors
    /// When a part that must not end ended. Everything is closed in order all the same.
    pub async fn run(self, cancel: CancellationToken) -> Result<(), AgentError> {
        let loops = self.loops.clone();
        let joined = &loops.identity.joined;
        info!(
            node.id = %joined.node, node.name = %joined.name, cluster.id = %joined.cluster,
            advertise = %loops.advertise, "node {} works", joined.name
        );
        // What takes on work ends first, what serves it ends last.
        let (mut working, mut serving) = (Tasks::default(), Tasks::default());
        let lock = self.start(&mut working, &mut serving).await?;
        let mut superseded = loops.superseded.subscribe();
        let ended = tokio::select! {
            () = cancel.cancelled() => Ok(()),
            replaced = superseded.wait_for(Option::is_some) => {
                let what = replaced.ok().and_then(|what| what.clone()).expect("it was waited for, and `loops` has the sender");
                Err(AgentError::Superseded(what))
            }
            early = working.ended() => Err(early),
            early = serving.ended() => Err(early),
        };
        if let Err(error) = &ended {
            error!(%error, "the agent ends because one of its parts did");
        }
        info!("the agent ends: guests, report, disks, peers");
        if !working.end(WORK_END).await {
            warn!("work under way did not end in time and is dropped");
        }
        loops.end_host().await;
        serving.end(ServeLimits::default().drain + Duration::from_secs(2)).await;
        loops.sync_pool().await;
        drop(lock);
        info!("the agent has ended");
        ended
    }

    /// Starts every task. Gives the lock of the data folder, which is held until all of them have ended.
    async fn start(self, working: &mut Tasks, serving: &mut Tasks) -> Result<DataLock, AgentError> {
        let Self { loops, lock, listener, metrics } = self;
        let tls = server_config(&loops.identity.tls, &loops.identity.ca, ClientCertificates::Current)?;
        let console_dir = loops.config.data_dir.join("console");
        let cuts = Arc::new(loops.cuts());
        let router = routes(PeerServerParts {
            chunks: loops.share.clone(),
            losses: loops.share.losses().clone(),
            repair: loops.repair_asked.clone(),
            pool: loops.pool.clone(),
            cuts: cuts.clone(),
            console_dir: console_dir.clone(),
            consoles: Consoles::new(opener(loops.host.clone()), console_dir, working.cancel.clone()),
            machines: loops.host.machines(),
        });
        let (cancel, limits) = (serving.cancel.clone(), ServeLimits::default());
        serving.spawn("peer server", serve(listener, Some(tls), router, cancel.clone(), limits));
        let (dir, asked) = (loops.config.data_dir.clone(), loops.clone());
        serving.spawn("status socket", status::serve(dir, move || asked.status(), cancel.clone()));
        if let (Some(address), Some(metrics)) = (loops.config.metrics_listen, metrics) {
            let listener = TcpListener::bind(address).await.map_err(|source| AgentError::Listen { address, source })?;
            let router = Router::new().route("/metrics", get(move || async move { metrics.render() }));
            serving.spawn("metrics", serve(listener, None, router, cancel, ServeLimits::default()));
        }
        let cancel = working.cancel.clone();
        let listed = loops.clone();
        working.spawn("cuts", async move {
            tokio::select! { () = cancel.cancelled() => {}, () = listed.while_listed(cuts.run(cancel.clone())) => {} }
        });
        for (name, task) in loops.all() {
            let cancel = working.cancel.clone();
            working.spawn(name, async move {
                tokio::select! { () = cancel.cancelled() => {}, () = task => {} }
            });
        }
        Ok(lock)
    }
}

/// Opens doors of the guests of this host.
fn opener(host: Arc<dyn Host>) -> Opener {
    Arc::new(move |instance, door| {
        let host = host.clone();
        Box::pin(async move { host.open_door(instance, door).await })
    })
}

impl Loops {
    fn cuts(&self) -> Cuts {
        Cuts::new(CutParts {
            node: self.identity.joined.node,
            disks: self.host.cuts(),
            freezes: self.freezes.clone(),
            peers: Arc::new(self.pool.clone()),
            controller: self.controller.clone(),
            known: self.known.subscribe(),
        })
    }

    /// Stops the guests, reports how they ended, and closes their disks.
    async fn end_host(&self) {
        if self.fenced().is_some() || self.superseded.latest().is_some() {
            // What it says is not heard any more, and its disks may be used elsewhere. Guests that could not be stopped
            // before are tried once again.
            if let Ok(Err(left)) = timeout(GUESTS_END + POWER_END, self.host.cut_off()).await {
                error!("not everything is stopped and unmounted: {left}");
            }
            return self.close_disks().await;
        }
        match timeout(GUESTS_END + POWER_END, self.host.stop_guests(GUESTS_END)).await {
            Ok(last) => self.last_report(last).await,
            Err(_elapsed) => {
                error!("guests did not end in time");
                // The controller must not take them for stopped.
                return self.close_disks().await;
            }
        }
        self.close_disks().await;
        self.farewell().await;
    }

    async fn close_disks(&self) {
        if timeout(DISKS_END, self.host.close()).await.is_err() {
            error!("disks did not close in time; what was acknowledged is replayed at the next start");
        }
    }

    async fn sync_pool(&self) {
        let share = self.share.clone();
        let synced = tokio::task::spawn_blocking(move || {
            share.sync()?;
            share.look_for_losses().map_err(|source| StoreError::Io { op: "write", file: "losses".to_owned(), source })
        })
        .await;
        if !matches!(synced, Ok(Ok(()))) {
            warn!(?synced, "the last sync of the pool failed; nothing that was acknowledged depends on it");
        }
    }
}

/// Tasks that are cancelled together. When one of them ends by itself, the agent ends.
#[derive(Default)]
struct Tasks {
    running: JoinSet<&'static str>,
    cancel: CancellationToken,
}

impl Tasks {
    fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.running.spawn(async move {
            task.await;
            name
        });
    }

    /// Waits for a task that ends although nobody cancelled it.
    async fn ended(&mut self) -> AgentError {
        match self.running.join_next().await {
            Some(Ok(task)) => AgentError::Task { task, detail: "it returned".to_owned() },
            Some(Err(error)) => AgentError::Task { task: "a task", detail: error.to_string() },
            None => std::future::pending().await,
        }
    }

    /// Cancels all tasks. Those that have not ended within `limit` are dropped. Says whether all ended by themselves.
    async fn end(&mut self, limit: Duration) -> bool {
        self.cancel.cancel();
        let drained = async {
            while let Some(ended) = self.running.join_next().await {
                log_panic(ended);
            }
        };
        let in_time = timeout(limit, drained).await.is_ok();
        self.running.shutdown().await;
        in_time
    }
}

fn log_panic(ended: Result<&'static str, JoinError>) {
    if let Err(error) = ended {
        warn!(%error, "a task ended badly");
    }
}
