//! The cluster's own CA: it issues certificates of 90 days and signs membership records.
//!
//! Files: `DIR/ca.pem` (0644, what clients trust), `DIR/ca.key` (0600). Made at the first start, never replaced: join
//! tokens, nodes and clients hold its fingerprint.

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

/// Days a certificate is valid. Renewed with a third of them left.
pub const CERTIFICATE_DAYS: i64 = 90;
/// Years the CA itself is valid: replacing it means joining every node again.
const CA_YEARS: i64 = 30;

/// Signs for the cluster.
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

/// A certificate request that cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum CsrError {
    /// Not a request, or not signed by its key.
    #[error("the certificate request cannot be used: {0}")]
    Unusable(String),
}

/// What a certificate is for.
#[derive(Clone, Debug)]
pub enum Subject {
    /// A node: client and server.
    Node(NodeId),
    /// The controller at the node door, and as a client of the nodes.
    Controller,
    /// The people's door: these names and addresses.
    People(Vec<String>),
}

impl Authority {
    /// Opens the CA in `dir`, or makes it.
    pub fn open_or_create(dir: &Path, now: Timestamp) -> anyhow::Result<Self> {
        let (cert, key) = (dir.join("ca.pem"), dir.join("ca.key"));
        match (cert.exists(), key.exists()) {
            (true, true) => Self::open(&cert, &key),
            // The key is written first: a certificate without a key was never used for anything.
            (false, _) => Self::create(&cert, &key, now),
            (true, false) => bail!("{} is missing: the cluster's CA cannot sign without its key", key.display()),
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
            .context("no certificate in it")?;
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
        // A short name of its own, so that a person sees two clusters' CAs apart.
        let short = hex::encode(Sha256::digest(key.subject_public_key_info()))[..8].to_owned();
        params.distinguished_name = named(&format!("Muster CA {short}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let start = instant(now)?;
        params.not_before = start - Duration::hours(1);
        params.not_after = start + Duration::days(365 * CA_YEARS);
        let certificate = params.self_signed(&key)?;
        write_file(key_path, key.serialize_pem().as_bytes(), 0o600)?;
        write_file(cert, certificate.pem().as_bytes(), 0o644)?;
        Self::from_pem(certificate.pem(), &key.serialize_pem())
    }

    /// The CA's certificate, PEM.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// SHA-256 of the CA's certificate, DER.
    #[must_use]
    pub const fn sha256(&self) -> [u8; 32] {
        self.sha256
    }

    /// Signs a certificate for the key of a PKCS#10 request, which proves that the asker has the key. What else the
    /// request says is ignored. Returns the certificate, PEM, and the SHA-256 of the key.
    pub fn sign_request(&self, csr_pem: &str, subject: &Subject, now: Timestamp) -> Result<(String, String), CsrError> {
        let unusable = |e: rcgen::Error| CsrError::Unusable(e.to_string());
        let request = CertificateSigningRequestParams::from_pem(csr_pem).map_err(unusable)?;
        let key_sha256 = hex::encode(Sha256::digest(request.public_key.subject_public_key_info()));
        let params = params(subject, now).map_err(|e| CsrError::Unusable(format!("{e:#}")))?;
        let certificate = params.signed_by(&request.public_key, &self.issuer).map_err(unusable)?;
        Ok((certificate.pem(), key_sha256))
    }

    /// Signs a certificate for an own key. Returns certificate and CA certificate as one chain, PEM: a joining agent
    /// looks for the CA in the chain.
    pub fn issue(&self, key: &KeyPair, subject: &Subject, now: Timestamp) -> anyhow::Result<String> {
        let certificate = params(subject, now)?.signed_by(key, &self.issuer)?;
        Ok(format!("{}{}", certificate.pem(), self.ca_pem))
    }

    /// A secret only the holder of the CA's key can make, for `what` and `input`.
    #[must_use]
    pub fn derive(&self, what: &str, input: &[u8]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("muster 2026-11 secrets of the cluster's CA");
        // Lengths first, so that no two triples read the same.
        for part in [self.issuer.key().serialized_der(), what.as_bytes(), input] {
            hasher.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
            hasher.update(part);
        }
        hasher.finalize().into()
    }

    /// Signs a membership record.
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
    // An hour back: the other side's clock may be behind.
    params.not_before = start - Duration::hours(1);
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

/// The key in `path`, made there (0600) if it is not there.
pub fn key_or_create(path: &Path) -> anyhow::Result<KeyPair> {
    if path.exists() {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        return KeyPair::from_pem(&text).with_context(|| format!("use {}", path.display()));
    }
    let key = KeyPair::generate()?;
    write_file(path, key.serialize_pem().as_bytes(), 0o600)?;
    Ok(key)
}

/// Writes a file so that after a crash either the old or the new content is there, never a part.
pub fn write_file(path: &Path, content: &[u8], mode: u32) -> anyhow::Result<()> {
    let dir = path.parent().context("a file has a folder")?;
    let temporary: PathBuf = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut file =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
        // The file may have been left by an earlier try with another mode.
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
