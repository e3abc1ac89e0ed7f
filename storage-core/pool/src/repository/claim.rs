//! Whose repository it is: a note below the prefix has the id of the cluster.
//!
//! The controller claims the place before it tells nodes of it. Where there is no note yet, it writes one, only if there is
//! still none (`If-None-Match`), so that of two clusters that claim at once only one gets the place. A store that does not know
//! this condition overwrites; then the note is read again, and who finds the other's gives up.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use object_store::{ObjectStore as _, ObjectStoreExt as _, PutMode, PutOptions, path::Path};
use storage_core::ClusterId;
use tokio::time::{Instant, timeout_at};

use super::{Repository, RepositoryError};

/// Most bytes of the note that are told.
const NOTE_BYTES_MAX: u64 = 4096;

impl Repository {
    /// Makes sure that the place is this cluster's. It may be written then.
    ///
    /// # Errors
    /// [`RepositoryError::OtherCluster`], or when the repository cannot be asked until `deadline`.
    pub async fn claim(&self, cluster: ClusterId, deadline: Instant) -> Result<(), RepositoryError> {
        let claimed = timeout_at(deadline, self.claim_now(&cluster.to_string())).await;
        self.note(claimed.unwrap_or_else(|_| Err(RepositoryError::late())))?;
        self.claimed.store(true, Ordering::Release);
        Ok(())
    }

    /// The controller has claimed it: whoever was told the settings by it may write.
    pub fn assume_claimed(&self) {
        self.claimed.store(true, Ordering::Release);
    }

    /// Asks for the note, to find out whether the repository works.
    ///
    /// # Errors
    /// When it cannot be asked until `deadline`.
    pub async fn check(&self, deadline: Instant) -> Result<(), RepositoryError> {
        let asked = timeout_at(deadline, self.owner()).await;
        self.note(asked.unwrap_or_else(|_| Err(RepositoryError::late()))).map(drop)
    }

    async fn claim_now(&self, cluster: &str) -> Result<(), RepositoryError> {
        if self.owner().await?.is_none() {
            let key = Path::from(self.settings.owner_key());
            let note = Bytes::from(format!("{cluster}\n"));
            let create = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            match self.store.put_opts(&key, note.into(), create).await {
                Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        match self.owner().await? {
            Some(owner) if owner == cluster => Ok(()),
            Some(owner) => Err(RepositoryError::OtherCluster(owner)),
            None => Err(RepositoryError::Unavailable("its note was written and is not there".to_owned())),
        }
    }

    pub(super) async fn owner(&self) -> Result<Option<String>, RepositoryError> {
        let key = Path::from(self.settings.owner_key());
        let answer = match self.store.get(&key).await {
            Ok(answer) => answer,
            Err(error) => return RepositoryError::absent_or(error),
        };
        if answer.meta.size > NOTE_BYTES_MAX {
            return Err(RepositoryError::OtherCluster("(a note that is too long)".to_owned()));
        }
        let note = answer.bytes().await?;
        Ok(Some(String::from_utf8_lossy(&note).trim().to_owned()))
    }
}
