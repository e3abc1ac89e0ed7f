//! The accept loop of both daemons, for plain TCP, TLS and mutual TLS. Every wait in it has a limit (I10).
//!
//! ```text
//! accept -> handshake (10 s) -> headers (60 s, also between requests) -> handler -> ... -> graceful end on shutdown
//! ```
//! Each connection has its own task. A peer that stops half-way holds one slot until its limit and delays no other (I11).

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, extract::ConnectInfo};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use crate::tls::{PeerCaller, Validity, fingerprint};

/// Limits of one listener. They keep slow and idle callers from blocking it.
#[derive(Clone, Copy, Debug)]
pub struct ServeLimits {
    /// Most connections at a time. Further ones wait in the kernel's queue.
    pub connections: usize,
    /// Longest time for a TLS handshake.
    pub handshake: Duration,
    /// Longest wait for the headers of a request, also of the next one on an idle connection.
    pub headers: Duration,
    /// Time without an acknowledged byte after which the kernel closes a connection.
    pub dead_after: Duration,
    /// Longest time that running requests may take once the server stops.
    pub drain: Duration,
}

impl Default for ServeLimits {
    fn default() -> Self {
        Self {
            // Enough for 1,000 nodes with a few idle connections each. A connection costs some 50 KiB.
            connections: 4096,
            handshake: Duration::from_secs(10),
            headers: Duration::from_secs(60),
            dead_after: Duration::from_secs(30),
            drain: Duration::from_secs(10),
        }
    }
}

/// Serves `router` on `listener` until `cancel`, then waits for the running requests. Requests have [`ConnectInfo`] and,
/// over mutual TLS, [`PeerCaller`] as extensions.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    router: Router,
    cancel: CancellationToken,
    limits: ServeLimits,
) {
    let slots = Arc::new(Semaphore::new(limits.connections));
    let tasks = TaskTracker::new();
    let hurry = CancellationToken::new();
    loop {
        let accepted = tokio::select! {
            () = cancel.cancelled() => break,
            accepted = async {
                let slot = slots.clone().acquire_owned().await;
                (listener.accept().await, slot)
            } => accepted,
        };
        let (stream, address, slot) = match accepted {
            (Ok((stream, address)), Ok(slot)) => (stream, address, slot),
            (Err(error), _) => {
                // There are no file descriptors left, or the caller went away before it was accepted. Go on, but not at
                // full speed.
                warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
            (Ok(_), Err(_closed)) => break,
        };
        let (tls, router, cancel, hurry) = (tls.clone(), router.clone(), cancel.clone(), hurry.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = hurry.cancelled() => {}
                () = connection(stream, address, tls, router, cancel, limits) => {}
            }
            drop(slot);
        });
    }
    drop(listener);
    tasks.close();
    if timeout(limits.drain, tasks.wait()).await.is_err() {
        warn!(connections = tasks.len(), "some connections did not end in time and are closed now");
        hurry.cancel();
        tasks.wait().await;
    }
}

async fn connection(
    stream: TcpStream,
    address: SocketAddr,
    tls: Option<Arc<ServerConfig>>,
    router: Router,
    cancel: CancellationToken,
    limits: ServeLimits,
) {
    let dead_after = u32::try_from(limits.dead_after.as_millis()).unwrap_or(u32::MAX);
    let tuned = stream.set_nodelay(true).and_then(|()| {
        rustix::net::sockopt::set_tcp_user_timeout(&stream, dead_after)?;
        rustix::net::sockopt::set_socket_keepalive(&stream, true)?;
        Ok(())
    });
    if let Err(error) = tuned {
        debug!(%address, %error, "a connection could not be tuned");
    }
    let Some(config) = tls else { return http(stream, address, None, router, cancel, limits).await };
    match timeout(limits.handshake, TlsAcceptor::from(config).accept(stream)).await {
        Ok(Ok(stream)) => {
            let certified = certified(&stream);
            http(stream, address, certified, router, cancel, limits).await;
        }
        Ok(Err(error)) => debug!(%address, %error, "a TLS handshake failed"),
        Err(_elapsed) => debug!(%address, "a TLS handshake took too long"),
    }
}

/// The key and the validity of the caller's certificate. A connection may outlive the certificate, so each request asks
/// anew whether it has expired.
#[derive(Clone)]
struct Certified {
    key_sha256: String,
    validity: Validity,
}

impl Certified {
    fn caller(&self) -> PeerCaller {
        let now_s = i64::try_from(rustls::pki_types::UnixTime::now().as_secs()).unwrap_or(i64::MAX);
        PeerCaller { key_sha256: self.key_sha256.clone(), expired: self.validity.expired(now_s) }
    }
}

fn certified(stream: &TlsStream<TcpStream>) -> Option<Certified> {
    let certificate = stream.get_ref().1.peer_certificates()?.first()?;
    Some(Certified { key_sha256: fingerprint(certificate).ok()?, validity: Validity::of(certificate).ok()? })
}

async fn http(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    address: SocketAddr,
    certified: Option<Certified>,
    router: Router,
    cancel: CancellationToken,
    limits: ServeLimits,
) {
    let service = tower::service_fn(move |mut request: http::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(address));
        if let Some(certified) = &certified {
            request.extensions_mut().insert(certified.caller());
        }
        tower::ServiceExt::oneshot(router.clone(), request)
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits.headers).max_headers(100);
    let served = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)).with_upgrades();
    let mut served = std::pin::pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = cancel.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        debug!(%address, %error, "a connection ended");
    }
}
