//! The identity of this node: its key, its certificate and its cluster; how it joins, and how it stays a member.
//!
//! ```text
//! DATA/identity/node.key       made once, never leaves the node
//! DATA/identity/identity.json  store id; after joining also node id, name, cluster and the controller's node port
//! DATA/identity/ca.pem         certificate of the cluster's CA, once joined
//! DATA/identity/node.crt       certificate of the node, once joined
//! ```
//! Joining can be repeated whenever it failed: key and store id are durable before the first request, and the
//! controller joins a store id only once.
//!
//! The controller is trusted if its certificate chain contains the CA whose fingerprint is in the join token, if it is
//! publicly trusted, or if the operator gave an `http` URL. In each case, the CA in its answer must have that
//! fingerprint. The node renews its certificate with the same key when a third of its life is left.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use muster_api::{
    ClusterId, NodeId, StoreId,
    node_protocol::{FormerNode, Incarnation, JoinAnswer, JoinRequest, NODE_PROTOCOL, Offer, RenewRequest},
    token::JoinToken,
};
use muster_pool::{
    checksum,
    tls::{Ca, Identity, TlsError, pinned_client_config},
    transport::node_tls_name,
};
use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use serde::{Deserialize, Serialize};
use storage_core::cause::{causes, explain};
use tracing::{info, warn};

use crate::{
    clock,
    config::{Config, ConfigError, ControllerUrl},
    controller::{ControllerClient, ControllerError, read, refused},
    sealed,
};

/// Longest time a join request may take.
const JOIN_LIMIT: Duration = Duration::from_secs(20);

/// Why the node has no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file of the identity cannot be read or written.
    #[error("cannot {op} {file}: {source}")]
    File {
        /// What was tried: `make`, `read` or `write`.
        op: &'static str,
        /// Path of the file or folder.
        file: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// `identity.json` is there and is damaged, or not of this form.
    #[error("{file} is not an identity: {source}")]
    Format {
        /// Path of `identity.json`.
        file: PathBuf,
        /// What is wrong with its content.
        source: io::Error,
    },
    /// A key or certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Key and certificate of the node, or the CA's, are damaged.
    #[error("{files} cannot be used: {why}; put a copy back, or give the node a fresh --data-dir and a join token")]
    Unusable {
        /// Paths of the files, for people.
        files: String,
        /// What is wrong.
        why: TlsError,
    },
    /// The key or the certificate request cannot be made.
    #[error("cannot make a key or a certificate request: {0}")]
    Key(#[from] rcgen::Error),
    /// A setting that joining needs is missing or invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The controller refused, or cannot be reached.
    #[error("cannot join: {0}")]
    Controller(#[from] ControllerError),
    /// The controller answered with another CA than that of the join token.
    #[error("the controller at {url} named a CA with the fingerprint {got}, the join token expects {expected}")]
    WrongCa {
        /// URL at which the node tried to join.
        url: String,
        /// Fingerprint in the join token, hex.
        expected: String,
        /// Fingerprint of the CA in the answer, hex.
        got: String,
    },
    /// The controller made another node of it, which an older controller does.
    #[error(
        "the controller at {url} made it node {got}, and it is node {expected}: update the controller, and remove node {got}"
    )]
    OtherNode {
        /// URL at which the node joined again.
        url: String,
        /// The node that it is.
        expected: NodeId,
        /// The node in the answer.
        got: NodeId,
    },
    /// The controller's certificate is neither from the CA of the join token nor publicly trusted. Trying again is
    /// useless.
    #[error(
        "the controller at {url} is not the one the join token is for ({why}): expected a CA with the fingerprint {expected}; check --controller, or get a token from that controller"
    )]
    Untrusted {
        /// URL at which the node tried to join.
        url: String,
        /// Fingerprint in the join token, hex.
        expected: String,
        /// The error of the TLS library.
        why: rustls::CertificateError,
    },
    /// The data folder belongs to another cluster than the token.
    #[error("{data_dir} belongs to cluster {have}, the join token is for cluster {asked}: use another --data-dir")]
    OtherCluster {
        /// The data folder that has another cluster's identity.
        data_dir: PathBuf,
        /// The cluster it belongs to.
        have: ClusterId,
        /// The cluster of the token.
        asked: ClusterId,
    },
}

impl IdentityError {
    /// Whether trying again later can help.
    #[must_use]
    pub const fn passes(&self) -> bool {
        matches!(self, Self::Controller(ControllerError::Unavailable(_)))
    }
}

/// What the controller told the node when it joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// Id of the node, given by the controller.
    pub node: NodeId,
    /// Name of the node: the one it asked for, or one that the controller made up.
    pub name: String,
    /// Cluster that the node joined. Join tokens of other clusters are refused.
    pub cluster: ClusterId,
    /// Host of the controller: from the URL that was joined at, or from today's `controller` setting.
    pub controller_host: String,
    /// Port where the controller listens for joined nodes.
    pub node_port: u16,
    /// Incarnation of the controller's database at that time.
    pub incarnation: Incarnation,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    store: StoreId,
    joined: Option<Joined>,
}

/// The identity of a node that has joined.
#[derive(Clone, Debug)]
pub struct NodeIdentity {
    /// Id of its store, its share of the pool.
    pub store: StoreId,
    /// What the controller told it when it joined.
    pub joined: Joined,
    /// Key and certificate. A renewal replaces the certificate in all clones.
    pub tls: Identity,
    /// Certificate of the cluster's CA.
    pub ca: Ca,
    dir: PathBuf,
    key_pem: String,
}

/// The content of `DATA/identity`, of a node that may not have joined yet.
#[derive(Debug)]
pub struct Candidate {
    dir: PathBuf,
    stored: Stored,
    key_pem: String,
}

impl Candidate {
    /// Opens `DATA/identity`, or makes it with a new key and store id.
    ///
    /// # Errors
    /// [`IdentityError::File`] or [`IdentityError::Format`].
    pub fn open(data_dir: &Path) -> Result<Self, IdentityError> {
        let dir = data_dir.join("identity");
        fs::DirBuilder::new().mode(0o700).recursive(true).create(&dir).map_err(|e| file_error("make", &dir, e))?;
        let key_file = dir.join("node.key");
        let key_pem = match read_text(&key_file)? {
            Some(text) => text,
            None => {
                let text = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?.serialize_pem();
                replace(&key_file, text.as_bytes())?;
                text
            }
        };
        let json = dir.join("identity.json");
        let stored = match read_text(&json)? {
            Some(text) => {
                sealed::open(text.as_bytes()).map_err(|source| IdentityError::Format { file: json, source })?
            }
            None => {
                let stored = Stored { store: StoreId::generate(), joined: None };
                write_stored(&dir, &stored)?;
                stored
            }
        };
        Ok(Self { dir, stored, key_pem })
    }

    /// What the controller told the node, if it has joined.
    #[must_use]
    pub const fn joined(&self) -> Option<&Joined> {
        self.stored.joined.as_ref()
    }

    /// The identity of the node; `None` if it has not joined yet.
    ///
    /// # Errors
    /// The files cannot be read or used, or the configured join token is for another cluster.
    pub fn identity(&self, config: &Config) -> Result<Option<NodeIdentity>, IdentityError> {
        let Some(mut joined) = self.stored.joined.clone() else { return Ok(None) };
        // A joined node needs no token, so one that cannot be read any more is ignored.
        if let Ok(Some(token)) = config.join_token()
            && token.cluster != joined.cluster
        {
            return Err(IdentityError::OtherCluster {
                data_dir: config.data_dir.clone(),
                have: joined.cluster,
                asked: token.cluster,
            });
        }
        if let Some(controller) = &config.controller {
            joined.controller_host.clone_from(&controller.host);
        }
        let must = |file: &Path| {
            read_text(file)?.ok_or_else(|| file_error("read", file, io::Error::from(io::ErrorKind::NotFound)))
        };
        let (key, certificate, ca) = (self.dir.join("node.key"), self.dir.join("node.crt"), self.dir.join("ca.pem"));
        let (certificate_pem, ca_pem) = (must(&certificate)?, must(&ca)?);
        let unusable = |files: [&Path; 2]| {
            let files = files.map(|file| file.display().to_string()).join(" with ");
            move |why| IdentityError::Unusable { files, why }
        };
        let tls = Identity::from_pem(&certificate_pem, &self.key_pem).map_err(unusable([&certificate, &key]))?;
        let authority = Ca::from_pem(&ca_pem)
            .and_then(|authority| authority.check_issued(&tls).map(|()| authority))
            .map_err(unusable([&certificate, &ca]))?;
        Ok(Some(NodeIdentity {
            store: self.stored.store,
            joined,
            tls,
            ca: authority,
            dir: self.dir.clone(),
            key_pem: self.key_pem.clone(),
        }))
    }

    /// Sends one join request to the controller. Its answer is durable before this returns. `advertise` is the
    /// `IP:PORT` where other nodes reach this one.
    ///
    /// # Errors
    /// The controller refused or cannot be reached (see [`IdentityError::passes`]), or its answer cannot be used.
    pub async fn join(&mut self, config: &Config, advertise: &str, offer: Offer) -> Result<(), IdentityError> {
        let request = JoinRequest {
            protocol: NODE_PROTOCOL,
            name: config.name.clone(),
            store: self.stored.store,
            csr_pem: csr(&self.key_pem, "muster node")?,
            advertise: advertise.to_owned(),
            zone: config.zone.clone(),
            offer,
            runtimes: config.runtimes(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            was: None,
        };
        let (controller, answer) = ask_with_token(config, &request).await?;
        // A certificate that is not for this key is refused before anything is written.
        Identity::from_pem(&answer.certificate_pem, &self.key_pem)?;
        replace(&self.dir.join("ca.pem"), answer.ca_pem.as_bytes())?;
        replace(&self.dir.join("node.crt"), answer.certificate_pem.as_bytes())?;
        // Written last, because from here on the node counts as joined.
        self.stored.joined = Some(Joined {
            node: answer.node,
            name: answer.name,
            cluster: answer.cluster,
            controller_host: controller.host.clone(),
            node_port: answer.node_port,
            incarnation: answer.incarnation,
        });
        write_stored(&self.dir, &self.stored)
    }
}

/// Sends a join request with the configured token, and checks that the answer names the CA that the token is for.
async fn ask_with_token<'c>(
    config: &'c Config,
    request: &JoinRequest,
) -> Result<(&'c ControllerUrl, JoinAnswer), IdentityError> {
    let controller = config.controller.as_ref().ok_or(ConfigError::Missing("controller"))?;
    let token = config.join_token()?.ok_or(ConfigError::Missing("join_token"))?;
    let expected = hex::encode(token.ca_sha256);
    let answer = ask(controller, &token, &expected, request).await?;
    let ca = Ca::from_pem(&answer.ca_pem)?;
    if ca.sha256() != expected {
        return Err(IdentityError::WrongCa { url: controller.url.clone(), expected, got: ca.sha256() });
    }
    Ok((controller, answer))
}

async fn ask(
    controller: &ControllerUrl,
    token: &JoinToken,
    ca_sha256: &str,
    request: &JoinRequest,
) -> Result<JoinAnswer, IdentityError> {
    let builder = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).timeout(JOIN_LIMIT);
    let builder = if controller.plain {
        warn!(url = %controller.url, "joining without TLS: everyone on this network can read the join token");
        builder
    } else {
        builder.tls_backend_preconfigured(pinned_client_config(ca_sha256)?)
    };
    let unavailable = |e: reqwest::Error| ControllerError::Unavailable(explain(&e));
    let http = builder.build().map_err(unavailable)?;
    let request = http.post(format!("{}/node/v1/join", controller.url)).bearer_auth(token).json(request);
    let answer = checksum::send(request).await.map_err(|e| match refused_certificate(&e) {
        Some(why) => IdentityError::Untrusted { url: controller.url.clone(), expected: ca_sha256.to_owned(), why },
        None => unavailable(e).into(),
    })?;
    if answer.status().is_success() { Ok(read(answer).await?) } else { Err(refused(answer).await.into()) }
}

/// What is wrong with the controller's certificate, if that is why the request failed.
fn refused_certificate(error: &reqwest::Error) -> Option<rustls::CertificateError> {
    causes(error).find_map(|cause| match cause.downcast_ref() {
        Some(rustls::Error::InvalidCertificate(why)) => Some(why.clone()),
        _ => None,
    })
}

impl NodeIdentity {
    /// `HOST:PORT` where the controller listens for joined nodes.
    #[must_use]
    pub fn node_door(&self) -> String {
        let host = &self.joined.controller_host;
        // An IPv6 address is kept without the brackets that it needs here.
        if host.contains(':') {
            format!("[{host}]:{}", self.joined.node_port)
        } else {
            format!("{host}:{}", self.joined.node_port)
        }
    }

    /// Joins again as the node that this is, because the controller's database does not know it any more. Takes the join token
    /// that is configured now.
    ///
    /// # Errors
    /// As for [`Candidate::join`]. The node stays what it was then.
    pub async fn rejoin(&self, config: &Config, advertise: &str, offer: Offer) -> Result<(), IdentityError> {
        let file = self.dir.join("node.crt");
        let certificate_pem = fs::read_to_string(&file).map_err(|e| file_error("read", &file, e))?;
        let request = JoinRequest {
            protocol: NODE_PROTOCOL,
            name: self.joined.name.parse().ok().or_else(|| config.name.clone()),
            store: self.store,
            csr_pem: csr(&self.key_pem, &node_tls_name(self.joined.node))?,
            advertise: advertise.to_owned(),
            zone: config.zone.clone(),
            offer,
            runtimes: config.runtimes(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            was: Some(FormerNode { node: self.joined.node, certificate_pem }),
        };
        let (controller, answer) = ask_with_token(config, &request).await?;
        if answer.node != self.joined.node {
            return Err(IdentityError::OtherNode {
                url: controller.url.clone(),
                expected: self.joined.node,
                got: answer.node,
            });
        }
        self.tls.replace(&answer.certificate_pem, &self.key_pem)?;
        replace(&file, answer.certificate_pem.as_bytes())
    }

    /// Whether a third or less of the certificate's life is left.
    ///
    /// # Errors
    /// [`IdentityError::Tls`] if the certificate cannot be parsed.
    pub fn wants_renewal(&self) -> Result<bool, IdentityError> {
        Ok(self.tls.validity()?.wants_renewal(clock::now_s()))
    }

    /// Gets a new certificate for the same key. New connections use it from then on, and it is written to disk.
    ///
    /// # Errors
    /// The controller refused or cannot be reached, or its certificate cannot be used. The old certificate stays then.
    pub async fn renew(&self, controller: &dyn ControllerClient) -> Result<(), IdentityError> {
        let request = RenewRequest { csr_pem: csr(&self.key_pem, &node_tls_name(self.joined.node))? };
        let answer = controller.renew(request).await?;
        self.tls.replace(&answer.certificate_pem, &self.key_pem)?;
        replace(&self.dir.join("node.crt"), answer.certificate_pem.as_bytes())?;
        info!(node.id = %self.joined.node, "the certificate was renewed");
        Ok(())
    }
}

/// A certificate request, PEM. The controller uses only the key in it.
fn csr(key_pem: &str, common_name: &str) -> Result<String, IdentityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, common_name);
    Ok(params.serialize_request(&KeyPair::from_pem(key_pem)?)?.pem()?)
}

fn file_error(op: &'static str, file: &Path, source: io::Error) -> IdentityError {
    IdentityError::File { op, file: file.to_owned(), source }
}

fn read_text(file: &Path) -> Result<Option<String>, IdentityError> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(file_error("read", file, e)),
    }
}

fn write_stored(dir: &Path, stored: &Stored) -> Result<(), IdentityError> {
    let file = dir.join("identity.json");
    let text = sealed::seal(stored).map_err(|source| IdentityError::Format { file: file.clone(), source })?;
    replace(&file, &text)
}

fn replace(file: &Path, bytes: &[u8]) -> Result<(), IdentityError> {
    replace_file(file, bytes).map_err(|e| file_error("write", file, e))
}

/// Replaces a file durably, readable by its owner only. After a crash it has either the old or the new content.
pub(crate) fn replace_file(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = file.with_extension("new");
    let mut out = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    out.write_all(bytes)?;
    out.sync_all()?;
    fs::rename(&beside, file)?;
    match file.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
