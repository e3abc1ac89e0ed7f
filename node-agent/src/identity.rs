//! Who this node is: its key, its certificate, its cluster; how it joins and how it stays a member.
//!
//! ```text
//! DATA/identity/node.key       made once, never leaves the node
//! DATA/identity/identity.json  store id from the start; node, name, cluster and node door once joined
//! DATA/identity/ca.pem, node.crt
//! ```
//! Joining can be repeated at any point: key and store id are durable before the first request, and the same store id
//! joins once. The people's door is trusted when its chain leads to the CA whose fingerprint the join token carries (or
//! is publicly trusted, or is plain http because the operator said so); whatever it answers, the CA it names must have that
//! fingerprint. The certificate is renewed with the same key when a third of its life is left.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use muster_api::{
    ClusterId, NodeId, StoreId,
    node_protocol::{Incarnation, JoinAnswer, JoinRequest, NODE_PROTOCOL, Offer, RenewRequest},
    token::JoinToken,
};
use muster_pool::{
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
};

/// Longest a join request may take.
const JOIN: Duration = Duration::from_secs(20);

/// Why the node has no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file of the identity.
    #[error("{op} {file}: {source}")]
    File {
        /// What was tried.
        op: &'static str,
        /// Which.
        file: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// `identity.json` cannot be read.
    #[error("{file} is not an identity: {source}")]
    Format {
        /// Which.
        file: PathBuf,
        /// Why not.
        source: serde_json::Error,
    },
    /// Keys or certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The key or the request for a certificate.
    #[error("cannot make a key or a request for a certificate: {0}")]
    Key(#[from] rcgen::Error),
    /// Configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The controller said no, or cannot be asked.
    #[error("cannot join: {0}")]
    Controller(#[from] ControllerError),
    /// The door answered with a CA other than the token's.
    #[error("the controller at {url} named a CA with the fingerprint {got}, the join token expects {expected}")]
    WrongCa {
        /// Door.
        url: String,
        /// Token's.
        expected: String,
        /// Answer's.
        got: String,
    },
    /// The door's certificate leads neither to the token's CA nor to a public one. Waiting does not mend that.
    #[error(
        "the controller at {url} is not the one the join token is for ({why}): expected a CA with the fingerprint {expected}; check --controller, or get a token from that controller"
    )]
    Untrusted {
        /// Door.
        url: String,
        /// The token's CA.
        expected: String,
        /// What TLS says.
        why: rustls::CertificateError,
    },
    /// The data folder belongs to another cluster than the token.
    #[error("{data_dir} belongs to cluster {have}, the join token is for cluster {asked}: use another --data-dir")]
    OtherCluster {
        /// Folder.
        data_dir: PathBuf,
        /// Its cluster.
        have: ClusterId,
        /// The token's.
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

/// What a joined node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// Its id.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Host the controller was joined at.
    pub controller_host: String,
    /// Port of its node door.
    pub node_port: u16,
    /// The database's state when it joined.
    pub incarnation: Incarnation,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    store: StoreId,
    joined: Option<Joined>,
}

/// A node that has joined, ready to speak.
#[derive(Clone, Debug)]
pub struct NodeIdentity {
    /// The id of its pool.
    pub store: StoreId,
    /// Node, name, cluster, node door.
    pub joined: Joined,
    /// Key and certificate; replaced by renewals.
    pub tls: Identity,
    /// The cluster's CA.
    pub ca: Ca,
    dir: PathBuf,
    key_pem: String,
}

/// What is known before joining.
#[derive(Debug)]
pub struct Candidate {
    dir: PathBuf,
    stored: Stored,
    key_pem: String,
}

impl Candidate {
    /// Opens or makes `DATA/identity`.
    ///
    /// # Errors
    /// When it cannot be made or read.
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
            Some(text) => serde_json::from_str(&text).map_err(|source| IdentityError::Format { file: json, source })?,
            None => {
                let stored = Stored { store: StoreId::generate(), joined: None };
                write_stored(&dir, &stored)?;
                stored
            }
        };
        Ok(Self { dir, stored, key_pem })
    }

    /// What the node is, if it has joined.
    #[must_use]
    pub const fn joined(&self) -> Option<&Joined> {
        self.stored.joined.as_ref()
    }

    /// The identity of a node that has joined; none before.
    ///
    /// # Errors
    /// When its files cannot be read, or the configuration's token is for another cluster.
    pub fn identity(&self, config: &Config) -> Result<Option<NodeIdentity>, IdentityError> {
        let Some(mut joined) = self.stored.joined.clone() else { return Ok(None) };
        // A token that is no longer there is not needed any more.
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
        let certificate_pem = must(&self.dir.join("node.crt"))?;
        let ca_pem = must(&self.dir.join("ca.pem"))?;
        Ok(Some(NodeIdentity {
            store: self.stored.store,
            joined,
            tls: Identity::from_pem(&certificate_pem, &self.key_pem)?,
            ca: Ca::from_pem(&ca_pem)?,
            dir: self.dir.clone(),
            key_pem: self.key_pem.clone(),
        }))
    }

    /// Asks the people's door for a certificate, once. What it answers is durable before this returns.
    ///
    /// # Errors
    /// When it cannot be asked ([`IdentityError::passes`]) or refuses.
    pub async fn join(&mut self, config: &Config, advertise: &str, offer: Offer) -> Result<(), IdentityError> {
        let controller = config.controller.as_ref().ok_or(ConfigError::Missing("controller"))?;
        let token = config.join_token()?.ok_or(ConfigError::Missing("join_token"))?;
        let expected: String = token.ca_sha256.iter().map(|byte| format!("{byte:02x}")).collect();
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
        };
        let answer = ask(controller, &token, &expected, &request).await?;
        let ca = Ca::from_pem(&answer.ca_pem)?;
        if ca.sha256() != expected {
            return Err(IdentityError::WrongCa { url: controller.url.clone(), expected, got: ca.sha256() });
        }
        // Refuses a certificate that is not for this key before anything is written.
        Identity::from_pem(&answer.certificate_pem, &self.key_pem)?;
        replace(&self.dir.join("ca.pem"), answer.ca_pem.as_bytes())?;
        replace(&self.dir.join("node.crt"), answer.certificate_pem.as_bytes())?;
        // Last: from here on the node has joined.
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

async fn ask(
    controller: &ControllerUrl,
    token: &JoinToken,
    ca_sha256: &str,
    request: &JoinRequest,
) -> Result<JoinAnswer, IdentityError> {
    let builder = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).timeout(JOIN);
    let builder = if controller.plain {
        warn!(url = %controller.url, "joining without TLS: whoever is on this network can read the join token");
        builder
    } else {
        builder.tls_backend_preconfigured(pinned_client_config(ca_sha256)?)
    };
    let unavailable = |e: reqwest::Error| ControllerError::Unavailable(explain(&e));
    let http = builder.build().map_err(unavailable)?;
    let sent = http.post(format!("{}/node/v1/join", controller.url)).bearer_auth(token).json(request).send().await;
    let answer = sent.map_err(|e| match refused_certificate(&e) {
        Some(why) => IdentityError::Untrusted { url: controller.url.clone(), expected: ca_sha256.to_owned(), why },
        None => unavailable(e).into(),
    })?;
    if answer.status().is_success() { Ok(read(answer).await?) } else { Err(refused(answer).await.into()) }
}

/// What was wrong with the door's certificate, if that is why there is no answer.
fn refused_certificate(error: &reqwest::Error) -> Option<rustls::CertificateError> {
    causes(error).find_map(|cause| match cause.downcast_ref() {
        Some(rustls::Error::InvalidCertificate(why)) => Some(why.clone()),
        _ => None,
    })
}

impl NodeIdentity {
    /// `HOST:PORT` of the controller's node door.
    #[must_use]
    pub fn node_door(&self) -> String {
        let host = &self.joined.controller_host;
        // A bare IPv6 address needs its brackets back.
        if host.contains(':') {
            format!("[{host}]:{}", self.joined.node_port)
        } else {
            format!("{host}:{}", self.joined.node_port)
        }
    }

    /// Whether a third or less of the certificate's life is left.
    ///
    /// # Errors
    /// When the certificate cannot be read.
    pub fn wants_renewal(&self) -> Result<bool, IdentityError> {
        Ok(self.tls.validity()?.wants_renewal(clock::now_s()))
    }

    /// Gets a new certificate for the same key and puts it in place, on disk and in all running connections' factories.
    ///
    /// # Errors
    /// When the controller cannot be asked or refuses, or its certificate does not fit; the old one stays.
    pub async fn renew(&self, controller: &dyn ControllerClient) -> Result<(), IdentityError> {
        let request = RenewRequest { csr_pem: csr(&self.key_pem, &node_tls_name(self.joined.node))? };
        let answer = controller.renew(request).await?;
        self.tls.replace(&answer.certificate_pem, &self.key_pem)?;
        replace(&self.dir.join("node.crt"), answer.certificate_pem.as_bytes())?;
        info!(node.id = %self.joined.node, "the certificate was renewed");
        Ok(())
    }
}

/// A request for a certificate; the controller takes the key from it and nothing else.
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
    let text =
        serde_json::to_vec_pretty(stored).map_err(|source| IdentityError::Format { file: file.clone(), source })?;
    replace(&file, &text)
}

fn replace(file: &Path, bytes: &[u8]) -> Result<(), IdentityError> {
    replace_file(file, bytes).map_err(|e| file_error("write", file, e))
}

/// Replaces a file as a whole, durably, readable by its owner only: after a crash there is the old or the new one.
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
