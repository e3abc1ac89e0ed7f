//! How the daemons of a cluster reach each other: names instead of addresses, one HTTP client, answers of limited size.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use storage_core::{NodeId, cause::explain, lock};

use crate::{
    checksum::check_answer,
    tls::{Ca, Identity, TlsError, client_config, untimely_client_config},
    untimely::Untimely,
};

/// Host name in the controller's certificate for the listener that nodes use.
pub const CONTROLLER_TLS_NAME: &str = "controller.muster";

/// Host name in a node's certificate.
#[must_use]
pub fn node_tls_name(node: NodeId) -> String {
    format!("{node}.node.muster")
}

/// The addresses of the names in the cluster. Daemons find each other only through this table.
#[derive(Clone, Debug, Default)]
pub struct NameTable {
    addresses: Arc<Mutex<HashMap<String, String>>>,
}

impl NameTable {
    /// A table without names.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the address of `name` (`IP:PORT` or `HOST:PORT`).
    pub fn set(&self, name: &str, address: &str) {
        let mut table = lock(&self.addresses);
        table.insert(name.to_ascii_lowercase(), address.to_owned());
    }

    /// Replaces the whole table by these names and addresses.
    pub fn replace(&self, entries: impl IntoIterator<Item = (String, String)>) {
        let table = entries.into_iter().map(|(name, address)| (name.to_ascii_lowercase(), address)).collect();
        *lock(&self.addresses) = table;
    }

    /// The address of `name`, in any case; `None` if it is not in the table.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<String> {
        lock(&self.addresses).get(&name.to_ascii_lowercase()).cloned()
    }
}

impl reqwest::dns::Resolve for NameTable {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let known = self.get(name.as_str());
        let name = name.as_str().to_owned();
        Box::pin(async move {
            let address = known.ok_or_else(|| format!("no address is known for the name {name}"))?;
            let found: Vec<SocketAddr> = match address.parse::<SocketAddr>() {
                Ok(address) => vec![address],
                Err(_) => tokio::net::lookup_host(&address).await?.collect(),
            };
            Ok(Box::new(found.into_iter()) as reqwest::dns::Addrs)
        })
    }
}

/// An HTTP client for one cluster: mutual TLS, addresses from `names` only, no proxy, connects limited in time.
///
/// # Errors
/// When the client cannot be built.
pub fn http_client(identity: &Identity, ca: &Ca, names: NameTable) -> Result<reqwest::Client, TlsError> {
    http_client_with(client_config(identity, ca)?, names)
}

/// As [`http_client`], for servers whose certificate is not valid by this node's clock ([`untimely_client_config`]).
///
/// # Errors
/// When the client cannot be built.
pub fn untimely_http_client(identity: &Identity, ca: &Ca, names: NameTable) -> Result<reqwest::Client, TlsError> {
    http_client_with(untimely_client_config(identity, ca)?, names)
}

/// Whether a call failed because a certificate was not valid at the time of one of its ends.
#[must_use]
pub fn is_untimely(error: &(dyn std::error::Error + 'static)) -> bool {
    Untimely::of(error).is_some()
}

fn http_client_with(tls: rustls::ClientConfig, names: NameTable) -> Result<reqwest::Client, TlsError> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .dns_resolver(Arc::new(names))
        .no_proxy()
        .https_only(true)
        // The client of the repository brings HTTP/2 into the library. Nodes and controllers do not speak it.
        .http1_only()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(Duration::from_secs(3))
        // This is below the servers' idle limit, so that a request seldom meets a connection that is just being closed.
        .pool_idle_timeout(Duration::from_secs(20))
        .pool_max_idle_per_host(16)
        .tcp_user_timeout(Duration::from_secs(15))
        .tcp_nodelay(true)
        .build()
        .map_err(|e| TlsError::Verifier(e.to_string()))
}

/// The text for a refused request, from the problem document that the node answered.
pub(crate) fn refusal(status: http::StatusCode, body: &[u8]) -> String {
    format!("it answered {status}: {}", detail(body))
}

/// What a problem document says, in a sentence; the beginning of a body that is none.
pub(crate) fn detail(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Problem {
        detail: String,
    }
    match serde_json::from_slice::<Problem>(body) {
        Ok(problem) => problem.detail,
        Err(_) => String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned(),
    }
}

/// The whole body of an answer, at most `bytes_max`, as the sender made it.
pub(crate) async fn bounded(mut answer: reqwest::Response, bytes_max: usize) -> Result<Bytes, String> {
    let mut body = BytesMut::new();
    while let Some(piece) = answer.chunk().await.map_err(|e| explain(&e))? {
        if body.len() + piece.len() > bytes_max {
            return Err(format!("its answer is over {bytes_max} bytes"));
        }
        body.extend_from_slice(&piece);
    }
    check_answer(answer.status(), answer.headers(), &body).map_err(|e| e.to_string())?;
    Ok(body.freeze())
}
