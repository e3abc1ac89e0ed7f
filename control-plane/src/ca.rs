//! The cluster's own CA. It issues certificates that are valid for 90 days, and signs membership records.
//!
//! Its files are `DIR/ca.pem` (0644, the certificate that clients trust) and `DIR/ca.key` (0600). They are made at the
//! first start and never replaced, because join tokens, nodes and clients remember the certificate's fingerprint.

use std::{
    io::Write as _,
    net::IpAddr,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use muster_api::{NodeId, Timestamp};
use muster_pool::transport::node_tls_name;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _, SanType, SigningKey as _,
};
use sha2::{Digest as _, Sha256};
use storage_core::membership::{Membership, SignedMembership};
use time::{Duration, OffsetDateTime};

/// Days a certificate is valid. It is renewed when a third of them is left.
pub const CERTIFICATE_DAYS: i64 = 90;
/// Days before its making from which a certificate is valid. The clock of the other side may be that far behind: a node
/// must be able to tell that its clock is wrong, and go on reading.
const BACKDATED_DAYS: i64 = 7;
/// Years the CA itself is valid. It is long because every node must join again when the CA is replaced.
const CA_YEARS: i64 = 30;

/// The CA with its key.
pub struct Authority {
    ca_pem: String,
    sha256: [u8; 32],
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("sha256", &hex::encode(self.sha256)).finish_non_exhaustive()
    }
}

/// Why a certificate request is refused.
#[derive(Debug, thiserror::Error)]
pub enum CsrError {
    /// It is not a PKCS#10 request, or is not signed by the key it contains.
    #[error("the certificate request cannot be used: {0}")]
    Unusable(String),
}

/// The holder of a certificate.
#[derive(Clone, Debug)]
pub enum Subject {
    /// A node, as client and server.
    Node(NodeId),
    /// The controller, as server for nodes and as their client.
    Controller,
    /// The controller, as server for people under these host names and IP addresses.
    People(Vec<String>),
}

impl Authority {
    /// Opens the CA in the folder `dir`, or makes it there. `now` is the time of day, from which a new CA is valid.
    ///
    /// # Errors
    /// A file cannot be read or written, or key and certificate do not belong together.
    pub fn open_or_create(dir: &Path, now: Timestamp) -> anyhow::Result<Self> {
        let (cert, key) = (dir.join("ca.pem"), dir.join("ca.key"));
        match (cert.exists(), key.exists()) {
            (true, true) => Self::open(&cert, &key),
            // `create` writes the key first, so a key without a certificate was never used.
            (false, _) => Self::create(&cert, &key, now),
            (true, false) => bail!("{} is missing: the CA of the cluster cannot sign without its key", key.display()),
        }
    }

    fn open(cert: &Path, key: &Path) -> anyhow::Result<Self> {
        let ca_pem = std::fs::read_to_string(cert).with_context(|| format!("read {}", cert.display()))?;
        let key_pem = std::fs::read_to_string(key).with_context(|| format!("read {}", key.display()))?;
        Self::from_pem(ca_pem, &key_pem).with_context(|| format!("use {} with {}", cert.display(), key.display()))
    }

    fn from_pem(ca_pem: String, key_pem: &str) -> anyhow::Result<Self> {
        let key = KeyPair::from_pem(key_pem)?;
        let der = muster_pool::tls::certificates("CA certificate", &ca_pem)?
            .into_iter()
            .next()
            .context("there is no certificate in it")?;
        let listed = muster_pool::tls::fingerprint(&der)?;
        if listed != hex::encode(Sha256::digest(key.subject_public_key_info())) {
            bail!("key and certificate do not belong together");
        }
        let sha256 = Sha256::digest(&der).into();
        Ok(Self { issuer: Issuer::from_ca_cert_der(&der, key)?, ca_pem, sha256 })
    }

    fn create(cert: &Path, key_path: &Path, now: Timestamp) -> anyhow::Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        // Part of the key's hash is in the name, so that people can tell the CAs of two clusters apart.
        let short = hex::encode(Sha256::digest(key.subject_public_key_info()))[..8].to_owned();
        params.distinguished_name = named(&format!("Muster CA {short}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let start = instant(now)?;
        params.not_before = start - Duration::days(BACKDATED_DAYS);
        params.not_after = start + Duration::days(365 * CA_YEARS);
        let certificate = params.self_signed(&key)?;
        write_file(key_path, key.serialize_pem().as_bytes(), 0o600)?;
        write_file(cert, certificate.pem().as_bytes(), 0o644)?;
        Self::from_pem(certificate.pem(), &key.serialize_pem())
    }

    /// The certificate of the CA, PEM.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// SHA-256 of the certificate of the CA in DER, its fingerprint.
    #[must_use]
    pub const fn sha256(&self) -> [u8; 32] {
        self.sha256
    }

    /// Signs a certificate for the key of a PKCS#10 request (PEM). The request proves that its sender has the key; its
    /// other fields are ignored. Returns the certificate (PEM), and the SHA-256 of the key (hex).
    ///
    /// # Errors
    /// [`CsrError`] if the request cannot be used.
    pub fn sign_request(&self, csr_pem: &str, subject: &Subject, now: Timestamp) -> Result<(String, String), CsrError> {
        let unusable = |e: rcgen::Error| CsrError::Unusable(e.to_string());
        let request = CertificateSigningRequestParams::from_pem(csr_pem).map_err(unusable)?;
        let key_sha256 = hex::encode(Sha256::digest(request.public_key.subject_public_key_info()));
        let params = params(subject, now).map_err(|e| CsrError::Unusable(format!("{e:#}")))?;
        let certificate = params.signed_by(&request.public_key, &self.issuer).map_err(unusable)?;
        Ok((certificate.pem(), key_sha256))
    }

    /// Signs a certificate for a key of the controller. Returns the certificate and that of the CA as one chain (PEM),
    /// because a joining agent looks for the CA in the chain.
    ///
    /// # Errors
    /// A name of the subject cannot be in a certificate.
    pub fn issue(&self, key: &KeyPair, subject: &Subject, now: Timestamp) -> anyhow::Result<String> {
        let certificate = params(subject, now)?.signed_by(key, &self.issuer)?;
        Ok(format!("{}{}", certificate.pem(), self.ca_pem))
    }

    /// Derives a secret for the purpose `what` from `input`. Only the holder of the CA's key can compute it.
    #[must_use]
    pub fn derive(&self, what: &str, input: &[u8]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("muster 2026-11 secrets of the cluster's CA");
        // The length precedes each part, so that no two triples hash the same bytes.
        for part in [self.issuer.key().serialized_der(), what.as_bytes(), input] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        hasher.finalize().into()
    }

    /// Signs the JSON text of a membership record.
    ///
    /// # Errors
    /// The key cannot sign.
    pub fn sign_membership(&self, membership: &Membership) -> anyhow::Result<SignedMembership> {
        let record = serde_json::to_string(membership)?;
        let signature = self.issuer.key().sign(record.as_bytes())?;
        Ok(SignedMembership { record, signature: hex::encode(signature) })
    }
}

fn params(subject: &Subject, now: Timestamp) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::default();
    let names = match subject {
        Subject::Node(node) => vec![node_tls_name(*node)],
        Subject::Controller => vec![muster_pool::transport::CONTROLLER_TLS_NAME.to_owned()],
        Subject::People(names) => names.clone(),
    };
    params.distinguished_name = named(names.first().map_or("muster", String::as_str));
    for name in &names {
        params.subject_alt_names.push(match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.as_str().try_into().with_context(|| format!("the name {name}"))?),
        });
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = match subject {
        Subject::People(_) => vec![ExtendedKeyUsagePurpose::ServerAuth],
        _ => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
    };
    params.use_authority_key_identifier_extension = true;
    let start = instant(now)?;
    params.not_before = start - Duration::days(BACKDATED_DAYS);
    params.not_after = start + Duration::days(CERTIFICATE_DAYS);
    Ok(params)
}

fn named(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text);
    name
}

fn instant(now: Timestamp) -> anyhow::Result<OffsetDateTime> {
    Ok(OffsetDateTime::from_unix_timestamp(now.micros() / 1_000_000)?)
}

/// Reads the private key in the file `path` (PEM), or makes it there with mode 0600.
///
/// # Errors
/// The file cannot be read or written, or has no key.
pub fn key_or_create(path: &Path) -> anyhow::Result<KeyPair> {
    if path.exists() {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        return KeyPair::from_pem(&text).with_context(|| format!("use {}", path.display()));
    }
    let key = KeyPair::generate()?;
    write_file(path, key.serialize_pem().as_bytes(), 0o600)?;
    Ok(key)
}

/// Writes a file durably. After a crash it has either the old or the new content, never a part of it.
///
/// # Errors
/// An I/O error, with the path.
pub fn write_file(path: &Path, content: &[u8], mode: u32) -> anyhow::Result<()> {
    let dir = path.parent().context("a file has a folder")?;
    let temporary: PathBuf = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut file =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
        // An earlier try may have left the file with another mode.
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        std::fs::File::open(dir)?.sync_all()
    };
    write().with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority() -> (tempfile::TempDir, Authority) {
        let dir = tempfile::tempdir().expect("a folder");
        let now = Timestamp::from_micros(1_800_000_000_000_000);
        let authority = Authority::open_or_create(dir.path(), now).expect("a CA");
        (dir, authority)
    }

    #[test]
    fn the_ca_is_made_once_and_its_key_is_private() {
        let (dir, first) = authority();
        let again = Authority::open_or_create(dir.path(), Timestamp::from_micros(0)).expect("the CA");
        assert_eq!(first.sha256(), again.sha256());
        let mode = std::fs::metadata(dir.path().join("ca.key")).expect("a key").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_request_gets_a_certificate_of_90_days_for_its_key() {
        muster_pool::tls::install_provider();
        let (_dir, ca) = authority();
        let now = Timestamp::from_micros(1_800_000_000_000_000);
        let key = KeyPair::generate().expect("a key");
        let csr = CertificateParams::default().serialize_request(&key).expect("a request").pem().expect("PEM");
        let (pem, key_sha256) = ca.sign_request(&csr, &Subject::Node(NodeId::generate()), now).expect("signed");
        let identity = muster_pool::tls::Identity::from_pem(&pem, &key.serialize_pem()).expect("they belong together");
        assert_eq!(identity.key_sha256().expect("a fingerprint"), key_sha256);
        let validity = identity.validity().expect("a validity");
        assert_eq!(validity.not_after_s, 1_800_000_000 + 90 * 86_400);
        assert_eq!(validity.not_before_s, 1_800_000_000 - 7 * 86_400);
        assert!(!validity.wants_renewal(1_800_000_000) && validity.wants_renewal(1_800_000_000 + 61 * 86_400));
        assert!(ca.sign_request("nonsense", &Subject::Controller, now).is_err());
    }

    #[test]
    fn a_membership_record_is_signed_over_its_exact_bytes() {
        muster_pool::tls::install_provider();
        let (_dir, ca) = authority();
        let trusted = muster_pool::tls::Ca::from_pem(ca.ca_pem()).expect("the CA");
        let record = Membership {
            cluster: muster_api::ClusterId::generate(),
            epoch: 1,
            min_copies: 2,
            members: vec![],
            clients: vec![],
        };
        let mut signed = ca.sign_membership(&record).expect("signed");
        let read = |signed: &_| muster_pool::membership::verify(signed, &trusted, record.cluster);
        assert_eq!(read(&signed).expect("good"), record);
        signed.record = signed.record.replace("\"min_copies\":2", "\"min_copies\":1");
        assert!(read(&signed).is_err());
    }
}
