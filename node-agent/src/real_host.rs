//! The [`Host`] of a real node: mirrored disks, and the hypervisor where one is wanted.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::future::{BoxFuture, join_all};
use muster_api::{
    CommitId, DiskId, InstanceId, Timestamp,
    deployment::Runtime,
    node_protocol::{Assignment, CutDisk, CutMember, Desired, DiskReport, InstanceReport, Observed, Wanted},
};
use tokio::sync::watch;

use crate::{
    agent::{AgentError, HostParts},
    check, clock,
    config::{DeltaIoChoice, WritePolicyChoice},
    cuts::{CutKey, CutRefusal, DiskCuts, SavedCommit},
    holder::{Holder, Start},
    host::Host,
    mirror::{self, DeltaIo, DiskError, Disks, WritePolicy},
};

/// Opens disks and hypervisor.
pub(crate) async fn open(parts: HostParts) -> Result<Arc<dyn Host>, AgentError> {
    let HostParts { config, identity, pool, keep_free_bytes, cache_bytes_max } = parts;
    let start = match &config.holder_program {
        Some(program) => Start { program: program.clone(), args: vec!["holder".into()], env: Vec::new() },
        None => Start::own_executable().map_err(|e| AgentError::Disks(e.to_string()))?,
    };
    let holder = Holder::new(config.data_dir.join("holder.sock"), start);
    let mut settings = mirror::Config::new(config.data_dir.clone(), identity.joined.cluster, identity.joined.node);
    settings.write_policy = match config.write_policy {
        WritePolicyChoice::Bitmap => WritePolicy::Bitmap,
        WritePolicyChoice::Contiguous => WritePolicy::Contiguous,
    };
    settings.delta_io = match config.delta_io {
        DeltaIoChoice::Buffered => DeltaIo::Buffered,
        DeltaIoChoice::Direct => DeltaIo::Direct,
    };
    settings.cache_bytes_max = cache_bytes_max;
    settings.keep_free_bytes = keep_free_bytes;
    settings.owner = check::disk_owner(&config);
    let disks = Disks::open(settings, pool, holder).await.map_err(|e| AgentError::Disks(explain(&e)))?;
    let changed = watch::Sender::new(0);
    Ok(Arc::new(RealHost { disks, changed, times: Mutex::default() }))
}

struct RealHost {
    disks: Arc<Disks>,
    changed: watch::Sender<u64>,
    /// When an instance's files were first seen to be there, per start.
    times: Mutex<HashMap<(InstanceId, u64), Timestamp>>,
}

impl Host for RealHost {
    fn pass(&self, desired: Arc<Desired>) -> BoxFuture<'_, Vec<InstanceReport>> {
        Box::pin(async move { join_all(desired.assignments.iter().map(|a| self.instance(&desired, a))).await })
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn cuts(&self) -> Arc<dyn DiskCuts> {
        Arc::new(MirrorCuts(self.disks.clone()))
    }

    fn cache_bytes(&self) -> u64 {
        self.disks.cache_bytes()
    }

    fn runtimes(&self) -> Vec<Runtime> {
        vec![Runtime::None]
    }

    fn hypervisor(&self) -> Option<String> {
        None
    }

    fn hypervisor_trouble(&self) -> Option<String> {
        None
    }

    fn stop_guests(&self, _limit: Duration) -> BoxFuture<'_, Vec<InstanceReport>> {
        Box::pin(async { Vec::new() })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move { self.disks.shutdown().await })
    }
}

impl RealHost {
    async fn instance(&self, desired: &Desired, wanted: &Assignment) -> InstanceReport {
        let mut report = InstanceReport {
            instance: wanted.instance,
            generation: wanted.generation,
            boot: wanted.boot,
            state: Observed::Gone,
            reason: None,
            detail: None,
            disk_at: None,
            started_at: None,
            ready_at: None,
            disks: Vec::new(),
        };
        for disk in &wanted.disks {
            let done = match (wanted.wanted, desired.versions.get(&disk.version)) {
                (Wanted::Gone, _) => self.disks.remove(disk.disk).await.map(|()| None),
                (_, Some(root)) => {
                    let want = mirror::DiskWant {
                        disk: disk.disk,
                        instance: wanted.instance,
                        generation: wanted.generation,
                        size_bytes: disk.size_bytes,
                        version: disk.version,
                        root: root.clone(),
                    };
                    self.disks.ensure(&want).await.map(Some)
                }
                (_, None) => Err(DiskError::Invalid { disk: disk.disk, what: "its version was not sent".to_owned() }),
            };
            match done {
                Ok(None) => {}
                Ok(Some(status)) => report.disks.push(DiskReport {
                    disk: disk.disk,
                    path: status.path.display().to_string(),
                    version: status.version,
                    unsaved_bytes: status.unsaved_bytes,
                    fetched_bytes: status.fetched_bytes,
                    local_bytes: status.local_bytes,
                }),
                Err(error) => {
                    report.state = Observed::Failed;
                    (report.reason, report.detail) = (Some(error.reason().to_owned()), Some(explain(&error)));
                    return report;
                }
            }
        }
        if wanted.wanted != Wanted::Gone {
            let running = wanted.wanted == Wanted::Running;
            report.state = if running { Observed::Running } else { Observed::Stopped };
            let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
            let at = Some(*times.entry((wanted.instance, wanted.boot)).or_insert_with(clock::now));
            report.disk_at = at;
            (report.started_at, report.ready_at) = if running { (at, at) } else { (None, None) };
        }
        report
    }
}

fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// [`Disks`] as cuts see them.
struct MirrorCuts(Arc<Disks>);

fn refusal(error: &DiskError) -> CutRefusal {
    let no_commit = matches!(error, DiskError::NoCommit { .. } | DiskError::NotFound(_));
    CutRefusal { no_commit, ..CutRefusal::new(error.reason(), explain(error)) }
}

impl DiskCuts for MirrorCuts {
    fn prepare(&self, key: CutKey, disks: Vec<CutDisk>) -> BoxFuture<'_, Result<(), CutRefusal>> {
        Box::pin(async move { self.0.prepare(key, &disks).await.map_err(|e| refusal(&e)) })
    }

    fn hold(&self, key: CutKey, max_pause: Duration) -> BoxFuture<'_, Result<(), CutRefusal>> {
        Box::pin(async move { self.0.hold(key, max_pause).await.map_err(|e| refusal(&e)) })
    }

    fn flip(&self, key: CutKey) -> BoxFuture<'_, Result<Vec<CutMember>, CutRefusal>> {
        Box::pin(async move { self.0.flip(key).await.map_err(|e| refusal(&e)) })
    }

    fn abort(&self, key: CutKey) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Err(error) = self.0.abort(key).await {
                // The controller abandons the attempt as well; its outcome is asked for until that is recorded.
                tracing::warn!(snapshot.id = %key.0, attempt = key.1, error = explain(&error), "a cut was not given up cleanly");
            }
        })
    }

    fn save(&self, disk: DiskId, commit: CommitId, round: u64) -> BoxFuture<'_, Result<SavedCommit, CutRefusal>> {
        Box::pin(async move {
            let saved = self.0.save(disk, commit, round).await.map_err(|e| refusal(&e))?;
            let mirror::Saved { base, root, dirty_bytes, stored_bytes } = saved;
            Ok(SavedCommit { base, root, dirty_bytes, stored_bytes })
        })
    }

    fn abandon(&self, disk: DiskId, commit: CommitId) -> BoxFuture<'_, Result<(), CutRefusal>> {
        Box::pin(async move { self.0.abandon(disk, commit).await.map_err(|e| refusal(&e)) })
    }

    fn commits(&self) -> Vec<(DiskId, CommitId)> {
        self.0.commits()
    }
}
