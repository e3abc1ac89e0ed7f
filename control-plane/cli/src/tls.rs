//! Looks at the certificates that a controller shows, before it is trusted.

use std::{io, sync::Arc, time::Duration};

use muster_api::cause::plain;
use pem::{EncodeConfig, LineEnding, Pem};
use reqwest::Url;
use rustls::{
    AlertDescription, CertificateError, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use sha2::{Digest, Sha256};

use crate::failure::{Failure, Hint};

/// How long a server may take to show its certificates.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);

/// SHA-256 of a certificate, lower-case hex.
pub(crate) fn fingerprint(certificate: &[u8]) -> String {
    Sha256::digest(certificate).iter().map(|b| format!("{b:02x}")).collect()
}

/// Parses a fingerprint as people paste it: with or without colons, in upper or lower case.
pub(crate) fn parse_fingerprint(text: &str) -> Result<String, Failure> {
    let bare = text.trim().trim_start_matches("sha256:").trim_start_matches("SHA256:");
    let hex: String = bare.chars().filter(|c| *c != ':').collect::<String>().to_ascii_lowercase();
    match hex.len() == 64 && hex.chars().all(|c| c.is_ascii_hexdigit()) {
        true => Ok(hex),
        false => Err(Failure::Usage(format!("expected the 64 hex digits of a SHA-256, got '{text}'"))),
    }
}

pub(crate) fn to_pem(certificate: &[u8]) -> String {
    let lines = EncodeConfig::new().set_line_ending(LineEnding::LF);
    pem::encode_config(&Pem::new("CERTIFICATE", certificate), lines)
}

/// Returns the certificate chain that a server shows, no matter who signed it. Nothing is sent over this connection.
pub(crate) async fn shown_chain(url: &Url) -> Result<Vec<Vec<u8>>, Failure> {
    let failed = |reason: String, hint| Failure::Unreachable { url: url.to_string(), reason, hint };
    let unreachable = |reason: String| failed(reason, Hint::None);
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(host.clone()).map_err(|e| unreachable(e.to_string()))?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| unreachable(e.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Look(provider)))
        .with_no_client_auth();
    let port = url.port_or_known_default().unwrap_or(443);
    let handshake = async {
        let tcp = tokio::net::TcpStream::connect((host.as_str(), port)).await?;
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await
    };
    let outcome = tokio::time::timeout(LOOK_TIMEOUT, handshake).await;
    let stream = outcome.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    let stream = stream.map_err(|e| {
        let of_tls = e.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        failed(plain(&e), of_tls.map_or(Hint::None, hint))
    })?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    Ok(chain.iter().map(|certificate| certificate.to_vec()).collect())
}

/// Whether a server speaks TLS on the port of an address, whatever the address begins with.
pub(crate) async fn speaks(url: &Url) -> bool {
    shown_chain(url).await.is_ok()
}

/// What is behind an error of TLS.
pub(crate) fn hint(error: &rustls::Error) -> Hint {
    match error {
        // Certificates for what daemons say to each other are for names that no network has.
        rustls::Error::InvalidCertificate(CertificateError::NotValidForNameContext { presented, .. }) => {
            if presented.iter().any(|name| name.contains(".muster\"")) { Hint::NodePort } else { Hint::OtherName }
        }
        rustls::Error::InvalidCertificate(_) => Hint::UnknownCa,
        // What it sent is no message of TLS.
        rustls::Error::InvalidMessage(_) => Hint::PlainHttp,
        rustls::Error::AlertReceived(AlertDescription::CertificateRequired) => Hint::NodePort,
        _ => Hint::None,
    }
}

/// Accepts any certificate. It must not be used for a connection that sends anything.
#[derive(Debug)]
struct Look(Arc<CryptoProvider>);

impl ServerCertVerifier for Look {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_tls_say_what_is_behind_them() {
        let for_name = |name: &str| {
            let expected = ServerName::try_from("127.0.0.1").expect("a name");
            let presented = vec![format!("DnsName(\"{name}\")")];
            rustls::Error::InvalidCertificate(CertificateError::NotValidForNameContext { expected, presented })
        };
        for (error, behind) in [
            (for_name("controller.muster"), Hint::NodePort),
            (for_name("0190.node.muster"), Hint::NodePort),
            (for_name("muster.example"), Hint::OtherName),
            (rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer), Hint::UnknownCa),
            (rustls::Error::AlertReceived(AlertDescription::CertificateRequired), Hint::NodePort),
            (rustls::Error::HandshakeNotComplete, Hint::None),
        ] {
            assert_eq!(hint(&error), behind, "{error}");
        }
    }

    #[test]
    fn fingerprints_are_parsed_in_every_common_form() {
        let hex = fingerprint(b"abc");
        assert_eq!(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        let pairs: Vec<&str> = hex.as_bytes().chunks(2).filter_map(|p| std::str::from_utf8(p).ok()).collect();
        assert_eq!(parse_fingerprint(&pairs.join(":").to_uppercase()).expect("colons"), hex);
        assert_eq!(parse_fingerprint(&format!("sha256:{hex}")).expect("prefix"), hex);
        assert!(parse_fingerprint("abcd").is_err());
    }
}
