//! New content of an image: begin an upload, import, publish.
//!
//! ```text
//!  begin ───────► import ──────────────► publish            one transaction each; the lease is renewed in between
//!   │ image busy    │ refused, broken     │ image deleted, upload ended meanwhile
//!   ▼ 409           ▼ end upload, 4xx     ▼ end upload, 404
//! ```
//! I3: the version's row is written in the transaction that checks that the upload is live, and only after everything
//! it names is durable. I9: the same bytes again are the newest version again, so a repeated PUT does nothing twice.
//! The import runs in a task of its own: a caller who goes away breaks the body off, not the bookkeeping.

use std::{fmt, time::Duration};

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use muster_api::{
    ErrorCode, ImageId, Labels, Problem, Ref, VersionId, firmware::Firmware, image::ImageState, version::Version,
};
use muster_pool::PoolError;
use storage_core::{ChunkSize, Salt};
use tokio::time::Instant;

use super::{
    App, AppError, Caller, check_if_match, find,
    images::{existing, tell_published},
    slots::Slot,
};
use crate::{
    config::Share,
    domain::versions::SIZE_BYTES_MAX,
    export::reach,
    ingest::{
        encoding::Encoding,
        import::{Imported, IngestError, Stated, Target, import},
        pace::{PaceError, Slowest},
        qcow2::Qcow2Error,
        spool::SpoolError,
    },
    store::{
        images::{self, ImageRow},
        uploads::{self, NewUpload, Upload, UploadTarget},
        versions::{self, NewVersion, Of},
    },
};

/// Upload lease, milliseconds. The importing task renews it every third of this period.
const LEASE_MS: i64 = 90_000;
/// Most uploads at a time. Each of them holds at most some 64 MiB of memory, and far less when its sender is slow.
pub(crate) const UPLOADS_MAX: usize = 32;
/// Most uploads of one project at a time.
pub(crate) const UPLOADS_PER_PROJECT_MAX: usize = 8;
/// Longest time for which a refused body is still read, so that the sender gets to read the refusal.
const LINGER: Duration = Duration::from_secs(5);
/// Most bytes that are read of a refused body.
const LINGER_BYTES: usize = 256 << 20;
/// Longest time spent on counting what an import brought that the project did not have.
const COUNT_WITHIN: Duration = Duration::from_secs(2);
/// Most versions of the project that are compared for that count.
const COUNT_ROOTS_MAX: i64 = 1000;

/// What became of the content that was sent.
#[derive(Debug)]
pub enum Put {
    /// It is a new version.
    Published(Version),
    /// The newest version has these bytes already; nothing changed.
    Same(Version),
}

impl App {
    /// Ends the uploads of the process before, at the start: nobody is left who could finish them or read their spool
    /// files.
    pub async fn forget_broken_uploads(&self) -> Result<(), AppError> {
        let ended = self.store.run_tx("uploads.end_imports", async |tx| uploads::end_imports(tx).await).await?;
        if ended > 0 {
            tracing::info!(uploads = ended, "ended uploads that the process before did not finish");
        }
        let folder = self.spool();
        let cleared = tokio::task::spawn_blocking(move || crate::ingest::spool::clear(&folder)).await;
        if let Err(error) = cleared.map_err(std::io::Error::other).and_then(|cleared| cleared) {
            tracing::warn!(error = &error as &dyn std::error::Error, "the spool cannot be cleared");
        }
        Ok(())
    }

    fn spool(&self) -> std::path::PathBuf {
        self.config.data_dir.join("spool")
    }

    /// Takes new content for an image.
    pub async fn put_content<B, E>(
        &self,
        caller: &Caller,
        image: &Ref<ImageId>,
        if_match: Option<&str>,
        stated: Stated,
        body: B,
    ) -> Result<Put, AppError>
    where
        B: Stream<Item = Result<Bytes, E>> + Send + Unpin + 'static,
        E: fmt::Display + Send + 'static,
    {
        let begun = self.begin_upload(caller, image, if_match).await;
        let (row, upload, slot) = match begun {
            Ok(begun) => begun,
            Err(refused) => {
                linger(body);
                return Err(refused);
            }
        };
        let (app, actor) = (self.clone(), caller.name.clone());
        let (mut body, caller) = (body, caller.clone());
        let task = tokio::spawn(async move {
            let _slot = slot;
            let done = tokio::select! {
                done = app.take_content(&actor, &row, upload, stated, &mut body) => done,
                () = app.token_ended(&caller) => Err(caller.refused()),
            };
            if done.is_err() {
                let ended = app.store.run_tx("uploads.end", async |tx| uploads::end(tx, upload.id).await).await;
                if let Err(error) = ended {
                    // The end of its lease ends it.
                    tracing::warn!(upload.id = %upload.id, error = &error as &dyn std::error::Error, "an upload is not ended");
                }
                linger(body);
            }
            done
        });
        task.await.map_err(|e| AppError::Internal(anyhow::Error::new(e).context("an import failed")))?
    }

    async fn begin_upload(
        &self,
        caller: &Caller,
        image: &Ref<ImageId>,
        if_match: Option<&str>,
    ) -> Result<(ImageRow, Upload, Slot), AppError> {
        let (row, upload) = self
            .store
            .run_tx("uploads.begin", async |tx| {
                let row = find::image(tx, caller, image).await?;
                check_if_match(if_match, row.revision)?;
                uploads::end_overdue(tx).await?;
                let target_id = row.image.id.to_string();
                if uploads::live_of(tx, UploadTarget::Image, &target_id).await?.is_some() {
                    let said = format!("another upload to image {} is under way: wait for it", row.image.name);
                    return Err(AppError::code(ErrorCode::Busy, said));
                }
                if !self.has_nodes() {
                    return Err(no_nodes());
                }
                let until = tx.now().plus_ms(LEASE_MS);
                let project = row.image.project.clone();
                let new = NewUpload { project, target: UploadTarget::Image, target_id, until };
                let upload = uploads::begin(tx, &new).await?;
                Ok((row, upload))
            })
            .await?;
        match self.imports.take(&row.image.project) {
            Ok(slot) => Ok((row, upload, slot)),
            Err(_) => {
                self.store.run_tx("uploads.end", async |tx| uploads::end(tx, upload.id).await).await?;
                Err(AppError::Unavailable("too many uploads are under way: try again".to_owned()))
            }
        }
    }

    async fn take_content<B, E>(
        &self,
        actor: &str,
        row: &ImageRow,
        upload: Upload,
        stated: Stated,
        body: &mut B,
    ) -> Result<Put, AppError>
    where
        B: Stream<Item = Result<Bytes, E>> + Send + Unpin,
        E: fmt::Display,
    {
        let chunk = ChunkSize::from_bytes(row.image.chunk_bytes)
            .map_err(|e| AppError::Internal(anyhow::Error::new(e).context("chunk size of an image")))?;
        let target = Target {
            pool: self.pool.clone(),
            round: upload.round,
            chunk,
            salt: self.salt_of(&row.image.project),
            slowest: Slowest {
                bytes_per_s: self.config.uploads.min_bytes_per_s,
                over: Duration::from_secs(self.config.uploads.pace_over_s),
            },
        };
        let begun = Instant::now();
        let imported = {
            let spool = self.spool();
            let importing = import(&target, stated, &spool, body);
            tokio::select! {
                imported = importing => imported.map_err(|e| self.refusal(e))?,
                lost = self.keep_lease(upload) => return Err(lost),
            }
        };
        let put = tokio::select! {
            put = self.publish_import(actor, row, upload, imported) => put?,
            lost = self.keep_lease(upload) => return Err(lost),
        };
        if let Put::Published(version) = &put {
            tracing::info!(
                image.id = %row.image.id,
                version.id = %version.id,
                size_bytes = version.size_bytes,
                stored_bytes = version.stored_bytes,
                seconds = begun.elapsed().as_secs_f64(),
                "published {}",
                version.name
            );
            metrics::counter!("muster_imported_bytes_total").increment(version.size_bytes);
            metrics::histogram!("muster_import_seconds").record(begun.elapsed().as_secs_f64());
        }
        Ok(put)
    }

    /// Renews the lease. Returns only when somebody else has ended the upload, with the refusal for the sender.
    async fn keep_lease(&self, upload: Upload) -> AppError {
        let third = Duration::from_millis(LEASE_MS.unsigned_abs() / 3);
        loop {
            tokio::time::sleep(third).await;
            let renewed = self
                .store
                .run_tx("uploads.renew", async |tx| {
                    let until = tx.now().plus_ms(LEASE_MS);
                    uploads::renew(tx, upload.id, until).await
                })
                .await;
            match renewed {
                Ok(true) => {}
                Ok(false) => return ended(),
                // The next attempt is soon enough: the lease has two thirds left.
                Err(error) => {
                    tracing::warn!(upload.id = %upload.id, error = &error as &dyn std::error::Error, "a lease is not renewed");
                }
            }
        }
    }

    async fn publish_import(
        &self,
        actor: &str,
        row: &ImageRow,
        upload: Upload,
        imported: Imported,
    ) -> Result<Put, AppError> {
        let stored_bytes = self.newly_stored(&row.image.project, &imported).await?;
        let reached_bytes = imported.tally.objects().map(|_| imported.tally.bytes());
        let image = row.image.id;
        self.store
            .run_tx("versions.publish_import", async |tx| {
                let now = existing(tx, image).await?;
                if now.image.state == ImageState::Deleted {
                    return Err(AppError::not_found("image", &now.image.name));
                }
                // I3, I6: if the upload was ended or is too old, the sweep may have taken its objects.
                uploads::live(tx, upload.id).await?.ok_or_else(ended)?;
                uploads::end(tx, upload.id).await?;
                if let Some(newest) = versions::newest(tx, image).await?
                    && newest.content == imported.content
                {
                    return Ok(Put::Same(newest.version));
                }
                let number = images::take_number(tx, &now).await?;
                let new = NewVersion {
                    id: VersionId::generate(),
                    project: now.image.project.clone(),
                    labels: Labels::default(),
                    of: Of::Image { image, number },
                    parent: None,
                    content: imported.content.clone(),
                    digest: imported.digest.map(|digest| digest.to_hex().to_string()),
                    stored_bytes,
                    reached_bytes,
                    boot: imported.boot,
                    firmware: Firmware::of(imported.boot),
                    upload: Some(upload.id),
                };
                versions::insert(tx, &new).await?;
                let published = versions::load(tx, new.id).await?;
                tell_published(tx, actor, published.as_ref()).await?;
                published
                    .map(|row| Put::Published(row.version))
                    .ok_or_else(|| AppError::Internal(anyhow::anyhow!("a version that was inserted is not there")))
            })
            .await
    }

    /// Bytes of the import that the project did not have. What other projects have stored does not change the number
    /// (I12). All bytes count as new if the count takes too long.
    async fn newly_stored(&self, project: &str, imported: &Imported) -> Result<u64, AppError> {
        let all = imported.tally.bytes();
        let Some(objects) = imported.tally.objects() else { return Ok(all) };
        let kept = self
            .store
            .read("versions.live", async |tx| versions::live_roots(tx, Some(project), COUNT_ROOTS_MAX).await)
            .await?;
        let deadline = Instant::now() + COUNT_WITHIN;
        let counted = reach::new_bytes(&self.pool, objects, &kept, deadline);
        Ok(tokio::time::timeout_at(deadline, counted).await.ok().and_then(Result::ok).unwrap_or(all))
    }

    fn refusal(&self, error: IngestError) -> AppError {
        let said = error.to_string();
        match error {
            IngestError::Format(_) | IngestError::Encoding(_) => AppError::code(ErrorCode::BadImage, said),
            IngestError::TooLarge(_) | IngestError::Qcow2(Qcow2Error::TooLarge(_)) => {
                AppError::code(ErrorCode::TooLarge, said)
            }
            IngestError::Qcow2(Qcow2Error::Io(e)) | IngestError::Spool(SpoolError::Io(e)) => {
                AppError::Internal(anyhow::Error::new(e).context("the spool of an upload failed"))
            }
            IngestError::Qcow2(_) => AppError::code(ErrorCode::BadImage, said),
            IngestError::DigestMismatch { .. } => AppError::code(ErrorCode::DigestMismatch, said),
            IngestError::Body(PaceError::Broken(_)) => AppError::BadRequest(said),
            IngestError::Body(PaceError::TooSlow { .. }) => AppError::code(ErrorCode::RequestTimeout, said),
            IngestError::Spool(SpoolError::Full { free_bytes, .. }) => {
                tracing::error!(free_bytes, "an upload was refused: the controller's disk is full");
                no_room("controller_disk_full", "the controller has no room to take the file in".to_owned())
            }
            IngestError::Pool(error) => self.pool_refusal(&error),
            IngestError::Tree(_)
            | IngestError::Page(_)
            | IngestError::Content(_)
            | IngestError::Stopped
            | IngestError::Thread(_) => AppError::Internal(anyhow::Error::new(error).context("an import failed")),
        }
    }

    /// The salt in the names of the objects of a project. With a salt of its own it shares no object with others, so that no
    /// upload is quicker because somebody else has the content (I12).
    pub(super) fn salt_of(&self, project: &str) -> Salt {
        match self.config.pool.share {
            Share::Cluster => Salt::SHARED,
            Share::Project => {
                let secret = self.ca.derive("salt of a project", project.as_bytes());
                Salt(*secret.first_chunk().expect("a secret has 32 bytes"))
            }
        }
    }

    /// Whether any node takes new objects.
    fn has_nodes(&self) -> bool {
        self.pool.membership().members.iter().any(|member| member.accepting)
    }

    fn pool_refusal(&self, error: &PoolError) -> AppError {
        tracing::warn!(error = error as &dyn std::error::Error, "an import could not be stored");
        match error {
            _ if !self.has_nodes() => no_nodes(),
            PoolError::NotEnoughCopies { full: true, .. } => {
                no_room("pool_full", "the pool has no room for this content".to_owned())
            }
            PoolError::Repository(_) => AppError::Unavailable(
                "the repository of the pool takes nothing now, and nothing is published before it has it: try again; operators \
                 see the reason in `muster pool show`"
                    .to_owned(),
            ),
            _ => AppError::Unavailable("too few nodes answer to store this content safely: try again".to_owned()),
        }
    }
}

/// Refuses a body that says that it is too long. Content that cannot be compressed gets a little longer by the encoding:
/// 1/256 is what zstd says.
pub(crate) fn refuse_too_long(stated_bytes: u64, encoding: Encoding) -> Result<(), AppError> {
    let most = match encoding {
        Encoding::Identity => SIZE_BYTES_MAX,
        Encoding::Zstd => SIZE_BYTES_MAX + SIZE_BYTES_MAX / 256 + (1 << 20),
    };
    if stated_bytes <= most {
        return Ok(());
    }
    Err(AppError::code(ErrorCode::TooLarge, IngestError::TooLarge(stated_bytes).to_string()))
}

fn ended() -> AppError {
    AppError::code(ErrorCode::Stale, "the upload was ended meanwhile: send the content again")
}

fn no_nodes() -> AppError {
    let said = "there is no node to store content on: let one join first";
    let reasons = serde_json::json!([{ "reason": "no_nodes", "count": 1 }]);
    Problem::new(ErrorCode::NoNodes, said).with("reasons", reasons).into()
}

fn no_room(reason: &str, said: String) -> AppError {
    let reasons = serde_json::json!([{ "reason": reason, "count": 1 }]);
    Problem::new(ErrorCode::NoCapacity, said).with("reasons", reasons).into()
}

/// Reads a little more of a refused body while the refusal is on its way. A sender whose connection is cut while it sends
/// may never read the refusal.
pub(crate) fn linger<B, E>(mut body: B)
where
    B: Stream<Item = Result<Bytes, E>> + Send + Unpin + 'static,
    E: Send + 'static,
{
    let drain = async move {
        let mut bytes = 0;
        while let Some(Ok(frame)) = body.next().await {
            bytes += frame.len();
            if bytes > LINGER_BYTES {
                break;
            }
        }
    };
    // It does not matter how it ends.
    tokio::spawn(tokio::time::timeout(LINGER, drain));
}

/// Reads a SHA-256 as the query states it: 64 hex digits.
///
/// # Errors
/// The text is no SHA-256.
pub fn parse_sha256(text: &str) -> Result<[u8; 32], String> {
    let bytes = hex::decode(text).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
    bytes.ok_or_else(|| format!("expected 64 hex digits, got '{text}'"))
}
