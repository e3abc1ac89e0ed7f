//! A database that turns out to be an older copy than its nodes have seen, and what they hold beyond it.
//!
//! At a start the high-water file tells (`history.rs` of the crate). A whole data folder that was put back has an old file
//! as well. Then the nodes tell: they have seen a later incarnation, membership record, generation, boot or version than the database
//! knows. At the first such word the controller begins a new incarnation, because counters of two histories cannot be compared.
//! Then it adopts what the node holds, so that nothing is ordered back to a state that it has left.

use muster_api::{
    CommitId, VersionId,
    node_protocol::{DiskReport, Incarnation, InstanceReport},
    operation::Target,
    version::VersionState,
};
use serde_json::json;
use storage_core::lock;

use super::{App, AppError, disk_starts::state_of, disks as app_disks};
use crate::{
    domain::{disk_life::is_disk_size, names::made_up, versions::Content},
    store::{
        Tx, cluster, deployments,
        disks::{self, AnyDisk},
        events::{self, NewEvent},
        instances::{self, DiskRow, InstanceRow, NewHead},
        nodes,
        versions::{self, NewVersion, VersionRow},
    },
};

/// A node that claims to have seen an incarnation so far ahead is not believed.
const AHEAD_MAX: u64 = 1_000;

impl App {
    /// Which state of the database this is.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        *lock(&self.incarnation)
    }

    /// Begins another incarnation, later than `ours` and `seen`: `evidence` shows that the database is an older copy. If
    /// that has happened since `ours` was read, the one that was begun then is kept.
    ///
    /// # Errors
    /// When `seen` is not to be believed, or the database fails.
    pub(crate) async fn leave_old_history(
        &self,
        ours: Incarnation,
        seen: Incarnation,
        evidence: &str,
    ) -> Result<(), AppError> {
        if seen.number.saturating_sub(ours.number) > AHEAD_MAX {
            let detail = format!("incarnation {} is too far ahead of {} to be believed", seen.number, ours.number);
            return Err(AppError::invalid("/incarnation", "invalid", detail));
        }
        let random = getrandom::u64().map_err(|e| anyhow::anyhow!("no random number: {e}"))?;
        let next = Incarnation { number: ours.number.max(seen.number) + 1, random };
        let evidence = evidence.to_owned();
        let app = self.clone();
        // A task of its own: a caller that goes away between the commit and what follows it must not part the two.
        let begun = tokio::spawn(async move { app.begin_incarnation(ours, next, &evidence).await });
        begun.await.map_err(|error| anyhow::anyhow!("beginning an incarnation failed: {error}"))?
    }

    async fn begin_incarnation(&self, ours: Incarnation, next: Incarnation, evidence: &str) -> Result<(), AppError> {
        let holds = self
            .store
            .run_tx("cluster.restored", async |tx| {
                let row = cluster::load(tx).await?.expect("a controller does not start without the cluster's row");
                if row.incarnation != ours {
                    return Ok(row.incarnation);
                }
                cluster::begin_incarnation(tx, next).await?;
                nodes::bump_all_desired(tx).await?;
                // An epoch that no node was told in the history before.
                self.refresh_membership(tx).await?;
                Ok::<_, AppError>(next)
            })
            .await?;
        {
            let mut known = lock(&self.incarnation);
            if holds.number <= known.number {
                return Ok(());
            }
            *known = holds;
        }
        self.store.set_history(holds.into());
        tracing::warn!(
            "the database is an older copy than its nodes have seen ({evidence}): it goes on as incarnation {}, and what \
             nodes hold beyond it is adopted",
            holds.number
        );
        self.follow_membership().await
    }
}

/// What a report shows that the database does not know and must have known, in a sentence.
pub(super) fn evidence(row: &InstanceRow, report: &InstanceReport, ahead: bool) -> Option<String> {
    let name = &row.name;
    let life = &row.life;
    if report.generation > life.generation {
        return Some(format!("{name} has generation {} on its node, {} here", report.generation, life.generation));
    }
    if report.generation == life.generation && report.boot > life.boot {
        return Some(format!("{name} was started {} times on its node, {} times here", report.boot, life.boot));
    }
    ahead.then(|| format!("a disk of {name} has a version on its node that it does not have here"))
}

/// A disk that is further on its node than in the database.
pub(super) struct AheadDisk<'a> {
    instance: InstanceRow,
    disk: DiskRow,
    report: &'a DiskReport,
    how: Ahead,
}

/// How a disk is further.
enum Ahead {
    /// Its newest version is not in the database. The node has told what it consists of, and the commit that made it.
    Unknown(CommitId, Content),
    /// Another content was put in place of it, a version that the database knows, under this later generation: a snapshot
    /// was restored in place since the copy of the database.
    Restored(Box<VersionRow>, u64),
}

impl<'a> AheadDisk<'a> {
    /// `None` if the disk is where the database has it, or behind that.
    ///
    /// # Errors
    /// The inner error says, in words, why what the node holds cannot be taken over. Its node keeps it.
    pub(super) async fn find(
        tx: &mut Tx,
        instance: &InstanceRow,
        disk: &DiskRow,
        report: &'a DiskReport,
    ) -> Result<Result<Option<Self>, String>, AppError> {
        if report.version == disk.version {
            return Ok(Ok(None));
        }
        let how = match (versions::load(tx, report.version).await?, &report.ahead) {
            // A copy of the present generation may be late: newer versions of the disk were published since.
            (Some(row), _) => match report.generation.filter(|written| *written > instance.life.generation) {
                None => return Ok(Ok(None)),
                // I12: a node says nothing about versions of other projects.
                Some(_) if row.version.project != instance.project => {
                    return Ok(Err(format!("its version {} belongs to another project", report.version)));
                }
                Some(written) => Ahead::Restored(Box::new(row), written),
            },
            (None, None) => return Ok(Ok(None)),
            (None, Some(root)) => {
                let content = match Content::from_root(root) {
                    Ok(content) => content,
                    Err(error) => return Ok(Err(format!("its version {}: {error}", report.version))),
                };
                let Some(commit) = root.commit else {
                    return Ok(Err(format!("its version {} is none of the disk's own", report.version)));
                };
                if versions::by_commit(tx, commit).await?.is_some() {
                    return Ok(Err(format!("its version {} has the commit of another one", report.version)));
                }
                Ahead::Unknown(commit, content)
            }
        };
        Ok(Ok(Some(Self { instance: instance.clone(), disk: disk.clone(), report, how })))
    }

    /// Makes the version that the node holds known, and the newest of its disk.
    pub(super) async fn adopt(self, tx: &mut Tx) -> Result<(), AppError> {
        let Self { instance, disk, report, how } = self;
        let bytes = match &how {
            Ahead::Unknown(_, content) => content.size_bytes(),
            Ahead::Restored(row, _) => row.content.size_bytes(),
        };
        // The node was told to grow it.
        let size_bytes = bytes.max(report.size_bytes.unwrap_or(0));
        if size_bytes > disk.size_bytes {
            disks::grow(tx, &AnyDisk::Attached(disk.clone()), size_bytes).await?;
        }
        match how {
            Ahead::Unknown(commit, content) => {
                insert_version(tx, &instance, &disk, (report.version, commit), content).await?;
                let head = NewHead {
                    disk: disk.id,
                    base: disk.version,
                    version: report.version,
                    dirty_bytes: disk.unsaved_bytes,
                };
                instances::advance_heads(tx, &[head]).await?;
                events::append(tx, adopted_event(&instance, &disk, report.version)).await?;
            }
            Ahead::Restored(row, written) => {
                disks::put_in_place(tx, disk.id, (report.version, row.version.created_at), written).await?;
                let mut event = app_disks::event(&disk, &instance, "muster");
                (event.data["version"], event.data["adopted"]) = (json!(report.version), true.into());
                events::append(tx, event).await?;
            }
        }
        if let Some(node) = instance.life.node {
            tx.bump_desired(node);
        }
        tracing::warn!(version.id = %report.version, disk.id = %disk.id, "a version of {} that its node holds is adopted", instance.name);
        Ok(())
    }
}

/// Makes a version that a node holds known, as one of a disk.
async fn insert_version(
    tx: &mut Tx,
    instance: &InstanceRow,
    disk: &DiskRow,
    (version, commit): (VersionId, CommitId),
    content: Content,
) -> Result<(), AppError> {
    let firmware = deployments::firmware_of(tx, &[instance.id]).await?.remove(&instance.id);
    let firmware = firmware.expect("an instance that was loaded has a deployment");
    let version =
        NewVersion::of_disk(version, disk.project.clone(), state_of(instance, disk, Some(commit)), firmware, content);
    Ok(versions::insert(tx, &version).await?)
}

/// A disk that an instance has on its node and that the database has nowhere: it was made since the copy of the database.
pub(super) struct StrayDisk {
    instance: InstanceRow,
    report: DiskReport,
    size_bytes: u64,
    /// Its version and the commit that made it, if the database does not know them.
    unknown: Option<(CommitId, Content)>,
}

impl StrayDisk {
    /// `None` if it is not taken over: the database knows it as a detached disk or as another instance's, or its version is not
    /// known and the node cannot show it. Its node keeps it then, and says so in a condition of the instance.
    pub(super) async fn find(
        tx: &mut Tx,
        instance: &InstanceRow,
        report: &DiskReport,
    ) -> Result<Option<Self>, AppError> {
        let Some(size_bytes) = report.size_bytes.filter(|bytes| is_disk_size(*bytes)) else { return Ok(None) };
        if disks::load_attached(tx, report.disk).await?.is_some() || disks::load(tx, report.disk).await?.is_some() {
            return Ok(None);
        }
        let unknown = match (versions::load(tx, report.version).await?, &report.ahead) {
            // I12: a node says nothing about versions of other projects.
            (Some(row), _) if row.version.project == instance.project && row.version.state == VersionState::Ready => {
                None
            }
            (Some(_), _) => return Ok(None),
            (None, None) => return Ok(None),
            (None, Some(root)) => {
                let Ok(content) = Content::from_root(root) else { return Ok(None) };
                // A blank one has no commit. As a version of the disk it needs the id of one.
                let commit = root.commit.unwrap_or_else(CommitId::generate);
                if versions::by_commit(tx, commit).await?.is_some() {
                    return Ok(None);
                }
                Some((commit, content))
            }
        };
        Ok(Some(Self { instance: instance.clone(), report: report.clone(), size_bytes, unknown }))
    }

    /// Makes it one of the instance, under a made-up name: only the lost database knew its own.
    pub(super) async fn adopt(self, tx: &mut Tx) -> Result<(), AppError> {
        let Self { instance, report, size_bytes, unknown } = self;
        let (number, seq) = (disks::next_number(tx, instance.id).await?, tx.next_seq().await?);
        let begin = (report.version, size_bytes);
        let name = made_up("found", report.disk.uuid());
        let row = DiskRow::new(&instance, name, number, begin, tx.now(), seq);
        let row = DiskRow { id: report.disk, ..row.told(&report) };
        if let Some((commit, content)) = unknown {
            insert_version(tx, &instance, &row, (report.version, commit), content).await?;
        }
        disks::insert(tx, &row).await?;
        if let Some(node) = instance.life.node {
            tx.bump_desired(node);
        }
        let mut event = app_disks::event(&row, &instance, "muster");
        event.data["adopted"] = true.into();
        events::append(tx, event).await?;
        tracing::warn!(disk.id = %row.id, "a disk of {} that its node holds is adopted as '{}'", instance.name, row.name);
        Ok(())
    }
}

fn adopted_event(instance: &InstanceRow, disk: &DiskRow, version: VersionId) -> NewEvent {
    let name = versions::disk_version_name(None, &instance.name, &disk.name);
    let target = Target { kind: "version".to_owned(), id: version.to_string(), name };
    NewEvent {
        data: json!({ "state": "ready", "instance": instance.id, "disk": disk.id, "adopted": true }),
        ..NewEvent::new("version.adopted", instance.project.clone(), target)
    }
}
