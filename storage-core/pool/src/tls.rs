//! How daemons prove to each other who they are: keys, certificates and the cluster's CA.
//!
//! * Every connection between daemons is mutual TLS. The *server* proves a name ([`crate::transport::node_tls_name`] or
//!   [`crate::transport::CONTROLLER_TLS_NAME`]) under the cluster's CA. The address of a name comes from a
//!   [`crate::transport::NameTable`], which is filled from the membership record, never from DNS.
//! * The *client* proves a key under the same CA. [`PeerCaller`] carries its fingerprint to the handlers, which look it
//!   up in the signed membership record. A certificate alone gives no access.
//! * An [`Identity`] can be replaced while servers and clients use it. The next handshake uses the new certificate.
//!
//! [`install_provider`] is called first in every `main` and test.

use std::{fmt, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, DistinguishedName, RootCertStore,
    ServerConfig, SignatureScheme, WantsVerifier,
    client::{
        ResolvesClientCert, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{
        CertificateDer, PrivateKeyDer, ServerName, UnixTime,
        pem::{self, PemObject},
    },
    server::{
        ClientHello, ParsedCertificate, ResolvesServerCert, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};
use sha2::{Digest, Sha256};

/// Why a key or certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The text is not PEM, or is PEM of another kind.
    #[error("cannot read the {what} as PEM: {source}")]
    Pem {
        /// The text that was read.
        what: &'static str,
        /// The error of the PEM reader.
        source: pem::Error,
    },
    /// The text has no certificate.
    #[error("there is no certificate in the {0}")]
    Empty(&'static str),
    /// Key and certificate do not belong together, or the TLS library refuses them.
    #[error("cannot use the {what}: {source}")]
    Refused {
        /// What was refused, for people.
        what: &'static str,
        /// The error of the TLS library.
        source: rustls::Error,
    },
    /// The certificate's structure cannot be read.
    #[error("cannot read the certificate: {0}")]
    Certificate(String),
    /// A verifier could not be built.
    #[error("cannot build a verifier: {0}")]
    Verifier(String),
}

/// Makes aws-lc-rs the cryptography provider of this process. Safe to call more than once.
pub fn install_provider() {
    // An error means that a provider is installed already. It is the same one, because no other code installs one.
    let _already_there = aws_lc_rs::default_provider().install_default();
}

fn provider() -> Arc<CryptoProvider> {
    CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(aws_lc_rs::default_provider()))
}

/// SHA-256 of a certificate's public key (SubjectPublicKeyInfo, DER) in lower-case hex. The membership record lists these.
///
/// # Errors
/// When the certificate cannot be read.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> Result<String, TlsError> {
    let parsed = ParsedCertificate::try_from(certificate).map_err(unusable)?;
    Ok(hex::encode(Sha256::digest(parsed.subject_public_key_info().as_ref())))
}

fn unusable(source: rustls::Error) -> TlsError {
    TlsError::Refused { what: "certificate", source }
}

/// SHA-256 of a whole certificate (DER) in lower-case hex. A join token names the CA by it.
#[must_use]
pub fn certificate_sha256(certificate: &CertificateDer<'_>) -> String {
    hex::encode(Sha256::digest(certificate.as_ref()))
}

/// The certificates in a PEM text.
///
/// # Errors
/// When the text is not PEM or has no certificate.
pub fn certificates(what: &'static str, text: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(text.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|source| TlsError::Pem { what, source })?;
    if chain.is_empty() { Err(TlsError::Empty(what)) } else { Ok(chain) }
}

/// The time during which a certificate is valid, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// First second at which the certificate is valid.
    pub not_before_s: i64,
    /// Last second at which the certificate is valid.
    pub not_after_s: i64,
}

impl Validity {
    /// Reads the validity of a certificate.
    ///
    /// # Errors
    /// When the certificate cannot be read.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, TlsError> {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate.as_ref())
            .map_err(|e| TlsError::Certificate(e.to_string()))?;
        let validity = parsed.validity();
        Ok(Self { not_before_s: validity.not_before.timestamp(), not_after_s: validity.not_after.timestamp() })
    }

    /// Whether less than a third of the validity is left at `now_s`.
    #[must_use]
    pub fn wants_renewal(self, now_s: i64) -> bool {
        let life = self.not_after_s.saturating_sub(self.not_before_s);
        self.not_after_s.saturating_sub(now_s) < life / 3
    }

    /// Whether the validity has ended at `now_s`.
    #[must_use]
    pub fn expired(self, now_s: i64) -> bool {
        now_s > self.not_after_s
    }
}

/// A private key with its certificate chain. All clones share one pair, which [`Identity::replace`] changes.
#[derive(Clone)]
pub struct Identity {
    current: Arc<ArcSwap<CertifiedKey>>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("key_sha256", &self.key_sha256().ok()).finish_non_exhaustive()
    }
}

impl Identity {
    /// From a certificate chain (own certificate first) and its private key, both PEM.
    ///
    /// # Errors
    /// When one cannot be read or they do not belong together.
    pub fn from_pem(chain_pem: &str, key_pem: &str) -> Result<Self, TlsError> {
        Ok(Self { current: Arc::new(ArcSwap::from_pointee(Self::certified(chain_pem, key_pem)?)) })
    }

    fn certified(chain_pem: &str, key_pem: &str) -> Result<CertifiedKey, TlsError> {
        let chain = certificates("certificate chain", chain_pem)?;
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
            .map_err(|source| TlsError::Pem { what: "private key", source })?;
        let refused = |source| TlsError::Refused { what: "key with its certificate", source };
        let pair = CertifiedKey::from_der(chain, key, &provider()).map_err(refused)?;
        pair.keys_match().map_err(refused)?;
        Ok(pair)
    }

    /// Puts a new chain and key in place. Running servers and clients use them from the next handshake on.
    ///
    /// # Errors
    /// When one cannot be read or they do not belong together. The old pair stays in use.
    pub fn replace(&self, chain_pem: &str, key_pem: &str) -> Result<(), TlsError> {
        self.current.store(Arc::new(Self::certified(chain_pem, key_pem)?));
        Ok(())
    }

    /// The key's [`fingerprint`].
    ///
    /// # Errors
    /// When the certificate cannot be read.
    pub fn key_sha256(&self) -> Result<String, TlsError> {
        fingerprint(self.current.load().end_entity_cert().map_err(unusable)?)
    }

    /// The validity of the certificate.
    ///
    /// # Errors
    /// When the certificate cannot be read.
    pub fn validity(&self) -> Result<Validity, TlsError> {
        Validity::of(self.current.load().end_entity_cert().map_err(unusable)?)
    }
}

/// Answers each handshake with the identity's current certificate.
#[derive(Debug)]
struct Shown(Identity);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current.load_full())
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current.load_full())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// The cluster's certificate authority. All certificate chains must lead to it, and it signs the membership record.
#[derive(Clone, Debug)]
pub struct Ca {
    roots: Arc<RootCertStore>,
    certificate: CertificateDer<'static>,
}

impl Ca {
    /// From the CA's certificate, in PEM. Further certificates in the text are not trusted.
    ///
    /// # Errors
    /// When it cannot be read or used as a trust anchor, or is damaged: it has to carry the CA's own signature.
    pub fn from_pem(ca_pem: &str) -> Result<Self, TlsError> {
        let certificate =
            certificates("CA certificate", ca_pem)?.into_iter().next().ok_or(TlsError::Empty("CA certificate"))?;
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone()).map_err(|source| TlsError::Refused { what: "CA certificate", source })?;
        let ca = Self { roots: Arc::new(roots), certificate };
        let (_, parsed) = x509_parser::parse_x509_certificate(&ca.certificate)
            .map_err(|e| TlsError::Certificate(format!("of the CA: {e}")))?;
        if !ca.signed(parsed.tbs_certificate.as_ref(), &parsed.signature_value.data) {
            return Err(TlsError::Certificate("of the CA: it does not have the signature of its own key".to_owned()));
        }
        Ok(ca)
    }

    /// SHA-256 of the CA's certificate. Join tokens carry it.
    #[must_use]
    pub fn sha256(&self) -> String {
        certificate_sha256(&self.certificate)
    }

    /// The CA as the trust anchor of other verifiers.
    #[must_use]
    pub fn roots(&self) -> Arc<RootCertStore> {
        self.roots.clone()
    }

    /// Checks that this CA signed the certificate of `identity`, which may have expired. One that it did not sign is damaged
    /// or belongs to another cluster, and nobody in this one would accept it.
    ///
    /// # Errors
    /// [`TlsError::Refused`] when it did not.
    pub fn check_issued(&self, identity: &Identity) -> Result<(), TlsError> {
        let pair = identity.current.load();
        let own = pair.end_entity_cert().map_err(unusable)?;
        self.check_certificate(own, &pair.cert[1..])
    }

    fn check_certificate(&self, own: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<(), TlsError> {
        let last_moment = u64::try_from(Validity::of(own)?.not_after_s).unwrap_or_default();
        let last_moment = UnixTime::since_unix_epoch(Duration::from_secs(last_moment));
        let verified = self.verifier()?.verify_client_cert(own, others, last_moment);
        verified.map(drop).map_err(|source| TlsError::Refused { what: "certificate with that of the CA", source })
    }

    /// Checks that this CA made the certificate (PEM) for the node of this name in the cluster. It may have expired. Returns the
    /// SHA-256 of its key, hex.
    ///
    /// # Errors
    /// [`TlsError`] when it did not, or made it for somebody else.
    pub fn check_node(&self, certificate_pem: &str, name: &str) -> Result<String, TlsError> {
        let chain = certificates("certificate", certificate_pem)?;
        let own = chain.first().ok_or(TlsError::Empty("certificate"))?;
        self.check_certificate(own, &[])?;
        let name = ServerName::try_from(name).map_err(|e| TlsError::Certificate(e.to_string()))?;
        let parsed = ParsedCertificate::try_from(own).map_err(unusable)?;
        rustls::client::verify_server_name(&parsed, &name)
            .map_err(|source| TlsError::Refused { what: "certificate with the id of the node", source })?;
        fingerprint(own)
    }

    /// Verifies certificates of clients.
    fn verifier(&self) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let builder = WebPkiClientVerifier::builder_with_provider(self.roots.clone(), provider());
        builder.build().map_err(|e| TlsError::Verifier(e.to_string()))
    }

    /// Whether `signature` (ECDSA, DER) of `message` was made with this CA's key.
    #[must_use]
    pub fn signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let Ok((_, parsed)) = x509_parser::parse_x509_certificate(self.certificate.as_ref()) else { return false };
        let key = &parsed.public_key().subject_public_key.data;
        let provider = provider();
        provider
            .signature_verification_algorithms
            .mapping
            .iter()
            .filter(|(scheme, _)| *scheme == SignatureScheme::ECDSA_NISTP256_SHA256)
            .flat_map(|(_, algorithms)| algorithms.iter())
            .any(|algorithm| algorithm.verify_signature(key, message, signature).is_ok())
    }
}

/// Which client certificates a server accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificates {
    /// Those that are valid now.
    Current,
    /// Also those that have expired, which [`PeerCaller::expired`] tells. The controller's listener for nodes needs
    /// this, so that a node that was off for long can renew its certificate.
    CurrentOrExpired,
}

/// Server side of mutual TLS. A client without a certificate of `ca` does not get past the handshake.
///
/// # Errors
/// When the verifier cannot be built.
pub fn server_config(identity: &Identity, ca: &Ca, accept: ClientCertificates) -> Result<Arc<ServerConfig>, TlsError> {
    let strict = ca.verifier()?;
    let verifier: Arc<dyn ClientCertVerifier> = match accept {
        ClientCertificates::Current => strict,
        ClientCertificates::CurrentOrExpired => Arc::new(ForgivesExpiry(strict)),
    };
    server_config_with(identity, verifier)
}

/// Server side of TLS without client certificates, for the listener that people and programs use.
///
/// # Errors
/// When the library refuses its own defaults.
pub fn people_server_config(identity: &Identity) -> Result<Arc<ServerConfig>, TlsError> {
    server_config_with(identity, WebPkiClientVerifier::no_client_auth())
}

fn server_config_with(
    identity: &Identity,
    verifier: Arc<dyn ClientCertVerifier>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|source| TlsError::Refused { what: "protocol versions", source })?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(Shown(identity.clone())));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Client side of mutual TLS.
///
/// # Errors
/// When the library refuses its own defaults.
pub fn client_config(identity: &Identity, ca: &Ca) -> Result<ClientConfig, TlsError> {
    Ok(client_builder()?
        .with_root_certificates(ca.roots.clone())
        .with_client_cert_resolver(Arc::new(Shown(identity.clone()))))
}

/// As [`client_config`], for a server whose certificate may have ended or not begun by this node's clock. For what a node
/// tells the controller while its own clock is wrong: such an answer must not be acted on, because a certificate that
/// has ended may be in other hands.
///
/// # Errors
/// When the library refuses its own defaults.
pub fn untimely_client_config(identity: &Identity, ca: &Ca) -> Result<ClientConfig, TlsError> {
    let strict = WebPkiServerVerifier::builder_with_provider(ca.roots.clone(), provider())
        .build()
        .map_err(|e| TlsError::Verifier(e.to_string()))?;
    Ok(client_builder()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ForgivesTime(strict)))
        .with_client_cert_resolver(Arc::new(Shown(identity.clone()))))
}

/// Client side for joining. The server's chain must lead to a CA certificate in it with this SHA-256, or it must be
/// publicly trusted.
///
/// # Errors
/// When the library refuses its own defaults.
pub fn pinned_client_config(ca_sha256: &str) -> Result<ClientConfig, TlsError> {
    let verifier = PinnedCa { ca_sha256: ca_sha256.to_ascii_lowercase(), provider: provider() };
    Ok(client_builder()?.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
}

fn client_builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, TlsError> {
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|source| TlsError::Refused { what: "protocol versions", source })
}

/// Accepts a client certificate that has expired: it is checked as of its last second.
#[derive(Debug)]
struct ForgivesExpiry(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for ForgivesExpiry {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        match self.0.verify_client_cert(end_entity, intermediates, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            )) => {
                let then = last_second(end_entity)?;
                self.0.verify_client_cert(end_entity, intermediates, then)
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// Accepts a server certificate at any time: it is checked as of its last second.
#[derive(Debug)]
struct ForgivesTime(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for ForgivesTime {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, last_second(end_entity)?)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// The last second at which a certificate is valid.
fn last_second(certificate: &CertificateDer<'_>) -> Result<UnixTime, rustls::Error> {
    let ended = Validity::of(certificate).ok().and_then(|v| u64::try_from(v.not_after_s).ok());
    let ended = ended.ok_or(rustls::Error::InvalidCertificate(CertificateError::BadEncoding))?;
    Ok(UnixTime::since_unix_epoch(Duration::from_secs(ended)))
}

#[derive(Debug)]
struct PinnedCa {
    ca_sha256: String,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedCa {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let pinned = intermediates.iter().find(|c| certificate_sha256(c) == self.ca_sha256);
        let Some(pinned) = pinned else {
            // It is not the cluster's own CA. A publicly trusted certificate is as good, because the agent checks the CA
            // that the server then answers against the fingerprint again (identity.rs of the agent).
            return rustls_platform_verifier::Verifier::new(self.provider.clone())?.verify_server_cert(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
            );
        };
        let mut roots = RootCertStore::empty();
        roots.add(pinned.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|e| rustls::Error::General(e.to_string()))?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// The other end of a mutual TLS connection. [`crate::serve`] adds it to every request as an extension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCaller {
    /// The caller's key [`fingerprint`], to be looked up in the membership record.
    pub key_sha256: String,
    /// Whether the caller's certificate has expired: before the connection began, where
    /// [`ClientCertificates::CurrentOrExpired`] is accepted, or since.
    pub expired: bool,
}
