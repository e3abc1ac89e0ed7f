use muster_pool::tls::install_provider;
use rcgen::{BasicConstraints, IsCa, Issuer};
use uuid::Uuid;

use super::*;

/// The folder of a node that has joined, with a CA of its own.
fn joined() -> tempfile::TempDir {
    install_provider();
    let data = tempfile::tempdir().expect("a folder");
    let mut candidate = Candidate::open(data.path()).expect("a new identity");
    let mut of_ca = CertificateParams::default();
    of_ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    of_ca.distinguished_name.push(DnType::CommonName, "test CA");
    let ca_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
    let ca_pem = of_ca.self_signed(&ca_key).expect("a CA").pem();
    let node = NodeId::from(Uuid::from_u128(7));
    let params = CertificateParams::new([node_tls_name(node)]).expect("a name");
    let key = KeyPair::from_pem(&candidate.key_pem).expect("its key");
    let certificate = params.signed_by(&key, &Issuer::from_params(&of_ca, &ca_key)).expect("a certificate").pem();
    replace(&candidate.dir.join("ca.pem"), ca_pem.as_bytes()).expect("writes");
    replace(&candidate.dir.join("node.crt"), certificate.as_bytes()).expect("writes");
    candidate.stored.joined = Some(Joined {
        node,
        name: "a".to_owned(),
        cluster: ClusterId::from(Uuid::from_u128(8)),
        controller_host: "controller.example".to_owned(),
        node_port: 7443,
        incarnation: Incarnation { number: 2, random: 99 },
    });
    write_stored(&candidate.dir, &candidate.stored).expect("writes");
    data
}

/// What a start of the agent finds in the folder.
fn found(data: &Path, config: &Config) -> Result<NodeIdentity, IdentityError> {
    Candidate::open(data)?.identity(config).map(|identity| identity.expect("it has joined"))
}

#[test]
fn no_flipped_bit_in_the_files_of_an_identity_makes_it_another_one() {
    let data = joined();
    let config = Config::new(data.path().to_owned());
    let told = |identity: &NodeIdentity| {
        (identity.store, identity.joined.clone(), identity.tls.key_sha256().expect("a key"), identity.ca.sha256())
    };
    let right = told(&found(data.path(), &config).expect("whole"));
    let folder = data.path().join("identity");
    let files = fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let files: Vec<PathBuf> = files.collect();
    assert_eq!(files.len(), 4, "a file that is new here is sealed, or signed: {files:?}");
    for file in files {
        let whole = fs::read(&file).expect("reads");
        let mut refused = 0;
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << (at % 8);
            fs::write(&file, damaged).expect("writes");
            match found(data.path(), &config) {
                Ok(identity) => assert_eq!(told(&identity), right, "{} at {at}", file.display()),
                Err(_) => refused += 1,
            }
        }
        assert!(refused * 10 > whole.len() * 8, "{}: {refused} of {}", file.display(), whole.len());
        fs::write(&file, whole).expect("writes");
    }
    assert_eq!(told(&found(data.path(), &config).expect("whole again")), right);
}
