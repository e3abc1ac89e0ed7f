//! [`RepositoryError`]: why the repository could not do what was asked.

use storage_core::cause::explain;

/// Longest text of a store's own that is told, characters.
const TOLD_MAX: usize = 400;

/// Why the repository could not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RepositoryError {
    /// Its client cannot be built.
    #[error("the settings of the repository cannot be used: {0}")]
    Settings(String),
    /// It does not accept the keys, or they may not do this. New keys help.
    #[error("the repository refuses the keys: {0}")]
    Refused(String),
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
        let is_refused = matches!(error, PermissionDenied { .. } | Unauthenticated { .. })
            || ["ExpiredToken", "InvalidToken", "InvalidAccessKeyId"].iter().any(|code| text.contains(code));
        let said = said(&text);
        if is_refused { Self::Refused(said) } else { Self::Unavailable(said) }
    }
}

/// What the store itself said, where the text has it, else the text; of bounded length. S3 answers errors in XML.
fn said(text: &str) -> String {
    let between = |from: &str, to: &str| {
        let rest = text.split_once(from)?.1;
        rest.split_once(to).map(|(inside, _)| inside)
    };
    let said = match (between("<Code>", "</Code>"), between("<Message>", "</Message>")) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code.to_owned(),
        _ => text.to_owned(),
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
        assert_eq!(said("connection refused"), "connection refused");
        assert_eq!(said(&"x".repeat(5000)).len(), TOLD_MAX);
    }
}
