//! [`RepositoryError`]: why the repository could not do what was asked.

use storage_core::cause::explain;

/// Longest text of a store's own that is told, characters.
const TOLD_MAX: usize = 400;
/// Codes of refused keys. The client tells them as refusals for some questions and as any failure for others, such as listings.
const REFUSALS: [&str; 7] = [
    "AccessDenied",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "UserSuspended",
];

/// Why the repository could not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RepositoryError {
    /// Its client cannot be built.
    #[error("the settings of the repository cannot be used: {0}")]
    Settings(String),
    /// It does not accept the keys, or they may not do this. New keys help.
    #[error("the repository refuses the keys: {0}")]
    Refused(String),
    /// The clocks differ too much for it to accept a signature. Clocks that are right help.
    #[error("the clock of this machine and the repository's are too far apart: {0}: let both follow NTP")]
    Clock(String),
    /// The note in it says that it is another cluster's.
    #[error("the repository belongs to cluster {0}: give this cluster a prefix or a bucket of its own")]
    OtherCluster(String),
    /// It was not reached, did not answer in time, or cannot do it now. Asking again later may work.
    #[error("the repository cannot be asked: {0}")]
    Unavailable(String),
}

impl RepositoryError {
    pub(super) fn late() -> Self {
        Self::Unavailable("it did not answer in time".to_owned())
    }

    pub(super) fn busy() -> Self {
        Self::Unavailable("too much is asked of it already".to_owned())
    }

    /// `None` for an object that is not there. A missing bucket is an error.
    pub(super) fn absent_or<T>(error: object_store::Error) -> Result<Option<T>, Self> {
        match &error {
            object_store::Error::NotFound { .. } if !explain(&error).contains("NoSuchBucket") => Ok(None),
            _ => Err(error.into()),
        }
    }
}

impl From<object_store::Error> for RepositoryError {
    fn from(error: object_store::Error) -> Self {
        use object_store::Error::{PermissionDenied, Unauthenticated};
        let text = explain(&error);
        let (said, code) = (said(&text), between(&text, "<Code>", "</Code>"));
        if code == Some("RequestTimeTooSkewed") {
            return Self::Clock(said);
        }
        let is_refused = matches!(error, PermissionDenied { .. } | Unauthenticated { .. })
            || code.is_some_and(|code| REFUSALS.contains(&code));
        if is_refused { Self::Refused(said) } else { Self::Unavailable(said) }
    }
}

fn between<'t>(text: &'t str, from: &str, to: &str) -> Option<&'t str> {
    let rest = text.split_once(from)?.1;
    rest.split_once(to).map(|(inside, _)| inside)
}

/// What was asked and why that failed, of `Error performing PUT URL in 1.3s, after 8 retries, max_retries: 8 … - HTTP error: WHY`:
/// the rest is another one each time.
fn without_figures(text: &str) -> Option<String> {
    let (question, rest) = text.split_once("Error performing ")?.1.split_once(" in ")?;
    let why = rest.split_once(" - ")?.1;
    Some(format!("{question}: {}", why.trim_start_matches("HTTP error: ")))
}

/// What the store itself said, where the text has it, else the text; of bounded length. S3 answers errors in XML.
fn said(text: &str) -> String {
    let said = match (between(text, "<Code>", "</Code>"), between(text, "<Message>", "</Message>")) {
        (Some(code), Some(message)) if !message.is_empty() => format!("{code}: {message}"),
        (Some(code), _) => code.to_owned(),
        _ => without_figures(text).unwrap_or_else(|| text.to_owned()),
    };
    said.chars().take(TOLD_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_store_said_is_told_and_not_all_of_its_answer() {
        let text = "Error performing GET: status 403: <Error><Code>AccessDenied</Code><Message>No.</Message><Key>k</Key></Error>";
        assert_eq!(said(text), "AccessDenied: No.");
        let bare = "status 404: <Error><Code>NoSuchBucket</Code><Message></Message><BucketName>b</BucketName></Error>";
        assert_eq!(said(bare), "NoSuchBucket", "Ceph has codes without messages");
        let nobody = "Generic S3 error: Error performing PUT http://s3/b/k in 1.344884716s, after 8 retries, max_retries: 8, \
                      retry_timeout: 60s  - HTTP error: error sending request: tcp connect error: Connection refused";
        assert_eq!(said(nobody), "PUT http://s3/b/k: error sending request: tcp connect error: Connection refused");
        assert_eq!(said("connection refused"), "connection refused");
        assert_eq!(said(&"x".repeat(5000)).len(), TOLD_MAX);
    }
}
