//! The certificates of the controller's listeners. They are valid for 90 days and renewed while the daemon runs.
//!
//! | listener | certificate | asks clients for one |
//! |---|---|---|
//! | public (`listen`) | `--tls-cert`; else by the cluster's CA, for the listen address, host names and public URL; none with `--insecure-http` | no |
//! | node (`node_listen`) | by the cluster's CA, for `controller.muster`; its key is in the membership record | always |

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use muster_api::Timestamp;
use muster_pool::tls::{self, Ca, ClientCertificates, Identity};
use rcgen::KeyPair;
use rustls::ServerConfig;

use crate::{
    ca::{self, Authority, Subject},
    clock::Clock,
    config::Doors,
};

/// Time between two checks whether a certificate needs renewal.
const LOOK_EVERY: Duration = Duration::from_secs(600);

/// Where the certificate of the public listener comes from.
enum People {
    /// There is none: plain HTTP.
    Plain,
    /// The files of the configuration.
    Files,
    /// The cluster's CA.
    Issued { names: Vec<String>, key: KeyPair },
}

/// Keys and certificates of both listeners.
pub struct Identities {
    people: Option<Identity>,
    people_from: People,
    node: Identity,
    node_key: KeyPair,
    trusted: Ca,
    doors: Doors,
}

impl Identities {
    /// Reads or issues the certificates. The key of the node listener is kept in the folder `dir`, because the
    /// membership record lists it.
    ///
    /// # Errors
    /// A file cannot be read or written, or a certificate cannot be used.
    pub fn new(dir: &Path, authority: &Authority, doors: &Doors, now: Timestamp) -> anyhow::Result<Self> {
        let node_key = ca::key_or_create(&dir.join("controller.key"))?;
        let chain = authority.issue(&node_key, &Subject::Controller, now)?;
        let node = Identity::from_pem(&chain, &node_key.serialize_pem())?;
        let (people, people_from) = if doors.insecure_http {
            (None, People::Plain)
        } else if let Some((chain, key)) = files(doors)? {
            (Some(Identity::from_pem(&chain, &key).context("use tls_cert with tls_key")?), People::Files)
        } else {
            let (names, key) = (names(doors), KeyPair::generate()?);
            let chain = authority.issue(&key, &Subject::People(names.clone()), now)?;
            (Some(Identity::from_pem(&chain, &key.serialize_pem())?), People::Issued { names, key })
        };
        let trusted = Ca::from_pem(authority.ca_pem())?;
        Ok(Self { people, people_from, node, node_key, trusted, doors: doors.clone() })
    }

    /// TLS settings of the public listener; `None` for plain HTTP.
    ///
    /// # Errors
    /// The certificate cannot be used.
    pub fn people_config(&self) -> anyhow::Result<Option<Arc<ServerConfig>>> {
        Ok(self.people.as_ref().map(tls::people_server_config).transpose()?)
    }

    /// TLS settings of the node listener. It accepts expired certificates of nodes, so that a node that was off for
    /// long can renew its own.
    ///
    /// # Errors
    /// The certificate cannot be used.
    pub fn node_config(&self) -> anyhow::Result<Arc<ServerConfig>> {
        Ok(tls::server_config(&self.node, &self.trusted, ClientCertificates::CurrentOrExpired)?)
    }

    /// The identity that the controller shows to nodes, as their server and as their client.
    #[must_use]
    pub fn node_identity(&self) -> &Identity {
        &self.node
    }

    /// The certificate of the CA, as nodes and clients trust it.
    #[must_use]
    pub fn trusted(&self) -> &Ca {
        &self.trusted
    }

    /// Renews certificates that have less than a third of their life left, and reads the configured files again.
    ///
    /// # Errors
    /// A file cannot be read, or a certificate cannot be used.
    pub fn renew(&self, authority: &Authority, now: Timestamp) -> anyhow::Result<()> {
        let now_s = now.micros() / 1_000_000;
        if self.node.validity()?.wants_renewal(now_s) {
            let chain = authority.issue(&self.node_key, &Subject::Controller, now)?;
            self.node.replace(&chain, &self.node_key.serialize_pem())?;
            tracing::info!("renewed the certificate of the node listener");
        }
        let Some(people) = &self.people else { return Ok(()) };
        match &self.people_from {
            People::Plain => {}
            People::Files => {
                if let Some((chain, key)) = files(&self.doors)? {
                    people.replace(&chain, &key)?;
                }
            }
            People::Issued { names, key } => {
                if people.validity()?.wants_renewal(now_s) {
                    let chain = authority.issue(key, &Subject::People(names.clone()), now)?;
                    people.replace(&chain, &key.serialize_pem())?;
                    tracing::info!("renewed the certificate of the public listener");
                }
            }
        }
        Ok(())
    }
}

/// Calls [`Identities::renew`] every ten minutes, for as long as the daemon runs.
pub async fn keep_renewed(identities: Arc<Identities>, authority: Arc<Authority>, clock: Arc<dyn Clock>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if let Err(error) = identities.renew(&authority, clock.now()) {
            tracing::error!("a certificate could not be renewed and will be tried again: {error:#}");
        }
    }
}

fn files(doors: &Doors) -> anyhow::Result<Option<(String, String)>> {
    let (Some(cert), Some(key)) = (&doors.tls_cert, &doors.tls_key) else { return Ok(None) };
    let read = |path: &Path| std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()));
    Ok(Some((read(cert)?, read(key)?)))
}

/// Host names and IP addresses that people may use for this host: the listen address, its host name, loopback, and the
/// host of the public URL.
fn names(doors: &Doors) -> Vec<String> {
    let mut names = BTreeSet::from(["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()]);
    if doors.listen.ip().is_unspecified() {
        names.extend(outward(doors.listen.is_ipv6()).map(|ip| ip.to_string()));
    } else {
        names.insert(doors.listen.ip().to_string());
    }
    if let Some(host) = hostname::get().ok().and_then(|h| h.into_string().ok()) {
        if let Some((short, _)) = host.split_once('.') {
            names.insert(short.to_ascii_lowercase());
        }
        names.insert(host.to_ascii_lowercase());
    }
    let url = doors.public_url.as_deref().and_then(|url| reqwest::Url::parse(url).ok());
    if let Some(host) = url.as_ref().and_then(reqwest::Url::host_str) {
        names.insert(host.trim_matches(['[', ']']).to_owned());
    }
    let usable = |name: &String| {
        !name.is_empty()
            && (name.parse::<IpAddr>().is_ok() || name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b)))
    };
    names.into_iter().filter(usable).collect()
}

/// The address from which this host would reach the internet. Connecting a UDP socket sends no packet.
fn outward(v6: bool) -> Option<IpAddr> {
    let (from, to) = if v6 { ("[::]:0", "[2001:db8::1]:9") } else { ("0.0.0.0:0", "192.0.2.1:9") };
    let socket = UdpSocket::bind(from).ok()?;
    socket.connect(to).ok()?;
    socket.local_addr().ok().map(|address: SocketAddr| address.ip())
}
