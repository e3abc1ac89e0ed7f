//! Certificates that are not valid at the time that a node's clock tells. Most often that clock is wrong.

use std::{error::Error, time::Duration};

use rustls::{AlertDescription, CertificateError, Error as Tls, pki_types::UnixTime};
use storage_core::cause::causes;
use tokio::time::Instant;

/// How long a failure counts. Then the next request tells whether it is still so.
const COUNTS: Duration = Duration::from_secs(60);

/// A connection that failed because a certificate was not valid at the time of one of its ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Untimely {
    /// By this node's clock, the other node's certificate is valid only from this second on.
    NotYet { from_s: u64 },
    /// By this node's clock, the other node's certificate has ended at this second.
    Ended { at_s: u64 },
    /// By the other node's clock, this node's certificate is not valid.
    Refused,
}

impl Untimely {
    /// What the error of a connection says about it; none for every other error.
    pub(crate) fn of(error: &(dyn Error + 'static)) -> Option<Self> {
        causes(error).find_map(|cause| match cause.downcast_ref::<Tls>()? {
            Tls::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. }) => {
                Some(Self::NotYet { from_s: not_before.as_secs() })
            }
            Tls::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. }) => {
                Some(Self::Ended { at_s: not_after.as_secs() })
            }
            // An end that refuses a certificate for its time says this in both cases.
            Tls::AlertReceived(AlertDescription::CertificateExpired) => Some(Self::Refused),
            _ => None,
        })
    }

    /// Whether it would still happen, as far as this node knows. It was seen at `seen`.
    pub(crate) fn lasts(&self, seen: Instant) -> bool {
        let now_s = UnixTime::now().as_secs();
        let untimely = match self {
            Self::NotYet { from_s } => now_s < *from_s,
            Self::Ended { at_s } => now_s > *at_s,
            Self::Refused => true,
        };
        untimely && seen.elapsed() < COUNTS
    }

    /// In a sentence.
    pub(crate) fn describe(&self, node: &str) -> String {
        let now_s = UnixTime::now().as_secs();
        match self {
            Self::NotYet { from_s } => {
                let ahead_s = from_s.saturating_sub(now_s);
                format!("the certificate of node {node} is valid only in {ahead_s} s by this node's clock")
            }
            Self::Ended { at_s } => {
                let ago_s = now_s.saturating_sub(*at_s);
                format!("the certificate of node {node} has ended {ago_s} s ago by this node's clock")
            }
            Self::Refused => format!("this node's certificate is not valid by the clock of node {node}"),
        }
    }
}
