//! Reports: what nodes say is true of their instances. A report tells states, not changes, so one may be lost or come
//! twice. Nothing is written when nothing changed.

use std::collections::{BTreeMap, BTreeSet};

use muster_api::{
    DiskId, InstanceId, NodeId,
    guest::Guest,
    node_protocol::{AbsentDisk, DiskReport, Observed, Report, Wanted},
};

use super::{
    App, AppError, disks as app_disks,
    found::{Noted, gone},
    incarnations::{self, AheadDisk, StrayDisk},
    instances::{self as app_instances, Changed},
};
use crate::{
    domain::{disk_life::is_disk_size, instance::Edge},
    store::{
        Tx,
        disks::{self, LeftRow},
        events::{self, NewEvent},
        found::{self, FoundRow},
        guests,
        instances::{self, DiskRow, InstanceRow},
        nodes,
    },
    wake::Loop,
};

/// What a report changes. `stale` counts the instances whose report was ignored.
#[derive(Default)]
struct News<'a> {
    changed: Vec<Changed>,
    disks: Vec<DiskReport>,
    /// Events of disks whose state is another one now, without their actor.
    told: Vec<NewEvent>,
    /// Disks that are larger on their node than the database knows, with their sizes there, bytes.
    larger: Vec<(DiskId, u64)>,
    /// Disks that their node does not have and never had, as they are now.
    absent: Vec<DiskRow>,
    /// Whether something is new of a disk that is being detached.
    leaving: bool,
    /// Disks that have left an instance and of which its node has no copy any more.
    left: Vec<LeftRow>,
    /// What guest agents told otherwise than before; `None` for guests that have ended.
    guests: Vec<(InstanceId, Option<&'a Guest>)>,
    /// Disks that are further on the node than here.
    ahead: Vec<AheadDisk<'a>>,
    /// Disks of instances that are not known at all.
    strays: Vec<StrayDisk>,
    /// A disk of an instance that is not known as such, or not in its state, and cannot be taken over, in a sentence.
    unsettled: Option<String>,
    /// Instances that the node holds and that are not known here.
    found: Vec<Noted<'a>>,
    /// Found instances of which the node has nothing any more.
    gone: Vec<FoundRow>,
    /// What shows that the database is an older copy, in a sentence. It counts only from a node that has learned of the
    /// present incarnation.
    evidence: Option<String>,
    /// An instance that was made in the present incarnation and that this database does not know, in a sentence. It shows
    /// the same, whatever the node has learned.
    lost: Option<String>,
    stale: u64,
    /// Whether the report has all instances of the node, as of its newest desired state.
    is_whole: bool,
}

impl News<'_> {
    /// Takes what a node said of a disk that it does not have, if it is new. While the node does not know that the guest is not to
    /// have the disk, it may still make it.
    fn hear_of_absent(&mut self, known: &DiskRow, absent: &AbsentDisk, desired_revision: u64) {
        let knows = desired_revision >= known.leaving_revision;
        let in_guest = if known.leaving_since.is_some() && knows { Some(false) } else { known.in_guest };
        let now = DiskRow { in_guest, said: absent.detail.clone(), ..known.clone() };
        if known.path.is_none() && now != *known {
            self.leaving |= known.leaving_since.is_some();
            self.absent.push(now);
        }
    }

    /// Takes what a node said of a disk, if it is new.
    fn hear_of(&mut self, row: &InstanceRow, known: &DiskRow, report: DiskReport) {
        // Disks never shrink, so the database is an older copy, or was one.
        let larger = report.size_bytes.filter(|bytes| *bytes > known.size_bytes);
        self.larger.extend(larger.filter(|bytes| is_disk_size(*bytes)).map(|bytes| (known.id, bytes)));
        if !known.differs(&report) {
            return;
        }
        let now = known.told(&report);
        self.leaving |= known.leaving_since.is_some();
        // That an instance gets its disks when it starts is told by its own events.
        let is_start = known.path.is_none() && row.life.steps.disk_at.is_none();
        if now.state() != known.state() && !is_start {
            self.told.push(app_disks::event(&now, row, ""));
        }
        self.disks.push(report);
    }

    fn is_none(&self) -> bool {
        let known = self.changed.is_empty() && self.disks.is_empty() && self.larger.is_empty() && self.ahead.is_empty();
        let known = known && self.absent.is_empty() && self.strays.is_empty();
        known && self.guests.is_empty() && self.found.is_empty() && self.gone.is_empty() && self.left.is_empty()
    }
}

impl App {
    /// Takes a report. What it says of an older generation or start, or of another node's instance, is ignored.
    pub async fn report(&self, node: NodeId, report: &Report) -> Result<(), AppError> {
        let ours = self.incarnation();
        let (unchanged, is_whole, unsettled, evidence, lost) = self
            .store
            .read("reports.compare", async |tx| {
                let news = news(tx, node, report).await?;
                metrics::counter!("muster_reports_stale_total").increment(news.stale);
                Ok::<_, AppError>((news.is_none(), news.is_whole, news.unsettled, news.evidence, news.lost))
            })
            .await?;
        // After a restore, nodes report things of the history before until they have learned of the new one.
        let of_ours = match self.heartbeats.last(node) {
            Some((_, beat)) => beat.incarnation == ours,
            // What is taken now would be no evidence afterwards. The report is sent again, after the first heartbeat.
            None if evidence.is_some() => {
                let detail = "this controller was just started and has no heartbeat of the node yet".to_owned();
                return Err(AppError::Unavailable(detail));
            }
            None => false,
        };
        if let Some(evidence) = evidence.filter(|_| of_ours).or(lost) {
            self.leave_old_history(ours, ours, &evidence).await?;
        }
        if !unchanged {
            self.take_report(node, report).await?;
        }
        // The database may not know the version that such a disk builds on, so that nothing says what to keep for it (I6).
        if is_whole || unsettled.is_some() {
            self.sweep.note_unsettled(node, unsettled);
        }
        if is_whole && of_ours {
            self.sweep.note_report(node, ours);
        }
        Ok(())
    }

    async fn take_report(&self, node: NodeId, report: &Report) -> Result<(), AppError> {
        self.store
            .run_tx("reports.take", async |tx| {
                let news = news(tx, node, report).await?;
                let Some(reporter) = nodes::load(tx, node).await? else { return Ok(()) };
                let actor = format!("node:{}", reporter.name);
                app_instances::save(tx, &actor, &news.changed).await?;
                instances::save_reported(tx, &news.disks.iter().collect::<Vec<_>>()).await?;
                if !news.disks.is_empty() {
                    tx.wake(Loop::Restores);
                }
                let told = news.told.iter().map(|event| NewEvent { actor: actor.clone(), ..event.clone() });
                events::append_many(tx, told.collect()).await?;
                for left in &news.left {
                    disks::forget_left(tx, left.instance, left.disk).await?;
                    tx.bump_desired(node);
                }
                for disk in &news.absent {
                    disks::save_absence(tx, disk).await?;
                }
                if news.leaving {
                    tx.wake(Loop::Disks);
                }
                guests::save_reported(tx, &news.guests).await?;
                for disk in news.ahead {
                    disk.adopt(tx).await?;
                }
                for disk in news.strays {
                    disk.adopt(tx).await?;
                }
                for (disk, size_bytes) in &news.larger {
                    disks::raise_size(tx, *disk, *size_bytes).await?;
                    tx.bump_desired(node);
                }
                for found in &news.found {
                    found.save(tx, node, &actor).await?;
                }
                for row in &news.gone {
                    gone(tx, row, &actor).await?;
                }
                Ok(())
            })
            .await
    }
}

/// The report of a disk. One of an older desired state does not know that the guest is not to have the disk, so it cannot say
/// that the guest has let it go. If that is known already, nothing of such a report counts: a newer one came before it. Nor does
/// what is said of a copy that a restore gave up.
fn report_in_time(known: &DiskRow, report: &DiskReport, desired_revision: u64) -> Option<DiskReport> {
    if known.is_given_up(report) {
        return None;
    }
    let is_late = desired_revision < known.leaving_revision;
    if !is_late {
        return Some(report.clone());
    }
    (known.in_guest != Some(false)).then(|| DiskReport { in_guest: known.in_guest, ..report.clone() })
}

fn unsettled(instance: &InstanceRow, disk: &DiskReport) -> String {
    format!(
        "the node of instance '{}' has disk {} for it, which the database knows otherwise or not at all: attach that disk to the \
         instance, or delete the instance",
        instance.name, disk.disk
    )
}

fn not_taken_over(instance: &InstanceRow, disk: &DiskReport, why: &str) -> String {
    format!(
        "disk {} of instance '{}' is in a state on its node that cannot be taken over ({why}): restore a snapshot of it in place \
         with discard_current, or delete the instance",
        disk.disk, instance.name
    )
}

async fn news<'a>(tx: &mut Tx, node: NodeId, report: &'a Report) -> Result<News<'a>, AppError> {
    let ids: Vec<InstanceId> =
        report.instances.iter().map(|one| one.instance).collect::<BTreeSet<_>>().into_iter().collect();
    let mut rows: BTreeMap<InstanceId, InstanceRow> =
        instances::load_many(tx, &ids).await?.into_iter().map(|row| (row.id, row)).collect();
    let known_disks: BTreeMap<DiskId, DiskRow> =
        instances::disks_of(tx, &ids).await?.into_values().flatten().map(|disk| (disk.id, disk)).collect();
    let told = guests::load_many(tx, &ids).await?;
    let left = disks::left_by(tx, &ids).await?;
    let mut held = found::on_node(tx, node).await?;
    let desired_revision = report.desired_revision;
    let has_heard_all = desired_revision == nodes::desired_revision(tx, node).await?;
    // A report of an older desired state lacks what the node has not heard of yet.
    let is_whole = report.full && has_heard_all;
    let mut news = News { is_whole, ..News::default() };
    for one in &report.instances {
        let row = rows.remove(&one.instance);
        if row.as_ref().is_none_or(|row| row.life.is_outdated_by(node, one)) {
            let known = held.remove(&one.instance);
            match Noted::find(tx, node, one, known.as_ref()).await? {
                Some(noted) => {
                    news.lost = news.lost.or(noted.evidence(tx, row.as_ref()).await?);
                    news.found.push(noted);
                }
                None if one.state == Observed::Gone => news.gone.extend(known),
                None => news.stale += u64::from(one.found.is_none() && known.is_none()),
            }
            continue;
        }
        let Some(row) = row.filter(|row| row.life.node == Some(node)) else {
            news.stale += 1;
            continue;
        };
        if one.generation == row.life.generation {
            let known = |disk: DiskId| known_disks.get(&disk).filter(|known| known.instance == row.id);
            for report in &one.disks {
                let Some(known) = known(report.disk) else {
                    let leaves = left.get(&row.id).into_iter().flatten().any(|left| left.is(report));
                    // A report of before may have a disk that is deleted since.
                    if has_heard_all && !leaves && row.life.wanted != Wanted::Gone {
                        match StrayDisk::find(tx, &row, report).await? {
                            Some(stray) => news.strays.push(stray),
                            None => news.unsettled = Some(unsettled(&row, report)),
                        }
                    }
                    continue;
                };
                if let Some(report) = report_in_time(known, report, desired_revision) {
                    news.hear_of(&row, known, report);
                }
            }
            for absent in &one.absent {
                if let Some(known) = known(absent.disk) {
                    news.hear_of_absent(known, absent, desired_revision);
                }
            }
            let gone = |left: &&LeftRow| {
                let has_heard = left.node == node && desired_revision >= left.told_revision;
                has_heard && one.disks.iter().all(|disk| !left.is(disk))
            };
            news.left.extend(left.get(&row.id).into_iter().flatten().filter(gone).cloned());
        }
        let mut ahead = false;
        for report in one.disks.iter().filter(|_| one.generation >= row.life.generation) {
            let Some(known) = known_disks.get(&report.disk).filter(|known| known.instance == row.id) else { continue };
            if known.is_given_up(report) {
                continue;
            }
            match AheadDisk::find(tx, &row, known, report).await? {
                Ok(Some(disk)) => {
                    news.ahead.push(disk);
                    ahead = true;
                }
                Ok(None) => {}
                Err(why) => news.unsettled = Some(not_taken_over(&row, report, &why)),
            }
        }
        news.evidence = news.evidence.or_else(|| incarnations::evidence(&row, one, ahead));
        if !row.life.concerns(one) {
            news.stale += 1;
            continue;
        }
        if told.get(&row.id) != one.guest.as_ref() {
            news.guests.push((row.id, one.guest.as_ref()));
        }
        news.changed.extend(Changed::by(row, &Edge::Report(one), tx).ok().flatten());
    }
    if is_whole {
        news.gone.extend(held.into_values());
        let reported: BTreeSet<InstanceId> = ids.into_iter().collect();
        for row in instances::on_node(tx, node).await? {
            if !reported.contains(&row.id) {
                news.changed.extend(Changed::by(row, &Edge::Missing, tx).ok().flatten());
            }
        }
    }
    Ok(news)
}
