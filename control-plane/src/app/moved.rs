//! How many bytes nodes moved in the last hour, from the counters in their heartbeats.
//!
//! Kept in memory only, some 20 KiB for each node: after a start of the controller the past is not known. Counters of another
//! agent process, or after a silence, tell nothing of the time between: they are where counting begins anew.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Mutex,
};

use muster_api::{
    NodeId, Timestamp,
    node_protocol::{LINKS_MAX, Moved, SILENT_AFTER_S},
    traffic::{Traffic, TrafficSeries},
};
use storage_core::{lock, units::usize_from};

/// Length of the steps that are kept, seconds.
const STEP_S: i64 = 10;
/// How long steps are kept, minutes.
pub(crate) const KEPT_MIN: i64 = 60;
/// Up to so many minutes are told in steps of [`STEP_S`], more in steps of a minute.
const FINE_MIN: i64 = 10;
/// How long links are kept, minutes.
const LINKS_KEPT_MIN: i64 = 10;

/// What every node moved lately.
#[derive(Debug, Default)]
pub struct Traffics(Mutex<HashMap<NodeId, Told>>);

/// What one node told.
#[derive(Debug, Default)]
struct Told {
    last: Option<(i64, Moved)>,
    /// The steps in which it told something, oldest first.
    steps: VecDeque<(i64, Amounts)>,
    /// By minute, oldest first.
    links: VecDeque<(i64, Links)>,
}

/// Bytes that were fetched and served, by the other node.
type Links = BTreeMap<NodeId, (u64, u64)>;

/// Bytes fetched, served, read and written.
type Amounts = [u64; 4];

fn amounts(moved: &Moved) -> Amounts {
    [moved.fetched_bytes, moved.served_bytes, moved.read_bytes, moved.written_bytes]
}

fn seconds(at: Timestamp) -> i64 {
    at.micros().div_euclid(1_000_000)
}

impl Traffics {
    /// Takes the counters of a heartbeat.
    pub(crate) fn hear(&self, node: NodeId, at: Timestamp, mut moved: Moved) {
        moved.links.truncate(LINKS_MAX);
        lock(&self.0).entry(node).or_default().hear(seconds(at), moved);
    }

    pub(crate) fn forget(&self, node: NodeId) {
        lock(&self.0).remove(&node);
    }

    /// What all nodes moved in the last minutes, or one node.
    pub(crate) fn series(&self, now: Timestamp, minutes: i64, only: Option<NodeId>) -> Traffic {
        let step_s = if minutes <= FINE_MIN { STEP_S } else { 60 };
        let to = seconds(now).div_euclid(step_s) * step_s;
        let from = to - minutes * 60;
        let mut series: [Vec<Option<u64>>; 4] =
            std::array::from_fn(|_| vec![None; usize_from((minutes * 60 / step_s).unsigned_abs())]);
        let mut nodes = 0;
        for (_, told) in lock(&self.0).iter().filter(|(node, _)| only.is_none_or(|only| only == **node)) {
            let within = told.steps.iter().map(|(step, amounts)| (step * STEP_S, amounts));
            let within = within.filter(|(at, _)| (from..to).contains(at));
            let mut has_told = false;
            for (at, amounts) in within {
                has_told = true;
                let n = usize_from(((at - from) / step_s).unsigned_abs());
                for (series, amount) in series.iter_mut().zip(amounts) {
                    let sum = series[n].get_or_insert(0);
                    *sum = sum.saturating_add(*amount);
                }
            }
            nodes += u64::from(has_told);
        }
        let [fetched_bytes, served_bytes, read_bytes, written_bytes] = series;
        let at = |s: i64| Timestamp::from_micros(s * 1_000_000);
        let series = TrafficSeries { fetched_bytes, served_bytes, read_bytes, written_bytes };
        Traffic { step_s: step_s.unsigned_abs(), from: at(from), to: at(to), nodes, series }
    }

    /// What went between a node and others lately, most bytes first.
    pub(crate) fn links(&self, now: Timestamp, node: NodeId) -> Vec<(NodeId, (u64, u64))> {
        let since = seconds(now).div_euclid(60) - LINKS_KEPT_MIN;
        let mut sums: BTreeMap<NodeId, (u64, u64)> = BTreeMap::new();
        if let Some(told) = lock(&self.0).get(&node) {
            for (peer, bytes) in told.links.iter().filter(|(minute, _)| *minute > since).flat_map(|(_, peers)| peers) {
                add(sums.entry(*peer).or_default(), *bytes);
            }
        }
        let mut sums: Vec<_> = sums.into_iter().collect();
        sums.sort_by_key(|(_, (fetched, served))| std::cmp::Reverse(fetched.saturating_add(*served)));
        sums.truncate(LINKS_MAX);
        sums
    }
}

/// A node says what it likes, so nothing here may overflow.
fn add(sum: &mut (u64, u64), bytes: (u64, u64)) {
    *sum = (sum.0.saturating_add(bytes.0), sum.1.saturating_add(bytes.1));
}

impl Told {
    fn hear(&mut self, at_s: i64, moved: Moved) {
        let before = self.last.replace((at_s, moved.clone()));
        let Some((before_s, before)) = before else { return };
        let (was, is) = (amounts(&before), amounts(&moved));
        let heard_on = (0..=SILENT_AFTER_S.cast_signed()).contains(&(at_s - before_s));
        if !heard_on || before.run != moved.run || was.iter().zip(&is).any(|(was, is)| is < was) {
            return;
        }
        let new: Amounts = std::array::from_fn(|n| is[n] - was[n]);
        // What came late is spread over the steps since the last heartbeat.
        let (first, last) = (before_s.div_euclid(STEP_S) + 1, at_s.div_euclid(STEP_S));
        let first = first.min(last);
        let steps = (last - first + 1).unsigned_abs();
        for step in first..=last {
            let rest = u64::from(step == last);
            let part = new.map(|bytes| bytes / steps + rest * (bytes % steps));
            match self.steps.back_mut() {
                Some((known, sums)) if *known == step => {
                    sums.iter_mut().zip(part).for_each(|(sum, n)| *sum = sum.saturating_add(n));
                }
                _ => self.steps.push_back((step, part)),
            }
        }
        // One hour, the step that is under way, and one more, because the hour that is told ends with a full minute.
        let kept_from = last - (KEPT_MIN + 1) * 60 / STEP_S - 1;
        while self.steps.front().is_some_and(|(step, _)| *step < kept_from) {
            self.steps.pop_front();
        }
        self.note_links(at_s.div_euclid(60), &before, &moved);
    }

    fn note_links(&mut self, minute: i64, before: &Moved, moved: &Moved) {
        if self.links.back().is_none_or(|(known, _)| *known != minute) {
            self.links.push_back((minute, BTreeMap::new()));
        }
        while self.links.front().is_some_and(|(known, _)| *known < minute - LINKS_KEPT_MIN) {
            self.links.pop_front();
        }
        let (_, peers) = self.links.back_mut().expect("it was just added");
        for link in &moved.links {
            if peers.len() >= LINKS_MAX && !peers.contains_key(&link.node) {
                continue;
            }
            // One that was not told before has moved little until now, or this is its first byte.
            let Some(was) = before.links.iter().find(|was| was.node == link.node) else { continue };
            let fetched = link.fetched_bytes.saturating_sub(was.fetched_bytes);
            let served = link.served_bytes.saturating_sub(was.served_bytes);
            if fetched > 0 || served > 0 {
                add(peers.entry(link.node).or_default(), (fetched, served));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use muster_api::{RunId, node_protocol::MovedBetween};

    use super::*;

    fn at(s: i64) -> Timestamp {
        Timestamp::from_micros(s * 1_000_000)
    }

    fn moved(run: RunId, bytes: u64, links: Vec<MovedBetween>) -> Moved {
        Moved { run, fetched_bytes: bytes, served_bytes: 0, read_bytes: 0, written_bytes: 2 * bytes, links }
    }

    #[test]
    fn what_counters_grow_by_is_told_in_steps_and_the_unknown_is_null() {
        let (traffics, node, run) = (Traffics::default(), NodeId::generate(), RunId::generate());
        let hear = |s, run, bytes| traffics.hear(node, at(s), moved(run, bytes, Vec::new()));
        // The first heartbeat only tells where counting begins.
        hear(600, run, 1000);
        hear(603, run, 1010);
        // It came late: spread over the steps 610 and 620.
        hear(625, run, 1031);
        let minute = traffics.series(at(630), 1, None);
        assert_eq!((minute.step_s, minute.from, minute.to, minute.nodes), (10, at(570), at(630), 1));
        assert_eq!(minute.series.fetched_bytes, [None, None, None, Some(10), Some(10), Some(11)]);
        assert_eq!(minute.series.written_bytes, [None, None, None, Some(20), Some(21), Some(21)]);
        // Another process, counters that go back, and a silence: nothing is known of the time between.
        let other = RunId::generate();
        hear(630, other, 5000);
        hear(633, other, 4000);
        hear(900, other, 9000);
        assert_eq!(traffics.series(at(910), 5, None).series.fetched_bytes[2..], [None; 28]);
        // An hour is told in minutes, and another node has not told anything.
        let hour = traffics.series(at(910), 60, None);
        assert_eq!((hour.step_s, hour.series.fetched_bytes.len(), hour.to), (60, 60, at(900)));
        assert_eq!(hour.series.fetched_bytes[55], Some(31), "10 min 0 s to 11 min 0 s");
        assert_eq!(traffics.series(at(910), 60, Some(NodeId::generate())).nodes, 0);
        traffics.forget(node);
        assert_eq!(traffics.series(at(910), 60, None).nodes, 0);
    }

    #[test]
    fn what_is_kept_of_a_node_does_not_grow() {
        let (traffics, node, run) = (Traffics::default(), NodeId::generate(), RunId::generate());
        // It names other nodes all the time, and more of them than it may.
        let peers: Vec<NodeId> = (0..1000).map(|_| NodeId::generate()).collect();
        for n in 0..3000 {
            let link = |peer: &NodeId| MovedBetween { node: *peer, fetched_bytes: n, served_bytes: 0 };
            let first = usize_from(n / 2 * 7 % 900);
            traffics.hear(
                node,
                at(n.cast_signed() * 3),
                moved(run, n, peers[first..first + 100].iter().map(link).collect()),
            );
        }
        let told = &lock(&traffics.0)[&node];
        assert!(told.steps.len() <= 370, "{}", told.steps.len());
        assert!(told.links.len() <= 11 && told.links.iter().all(|(_, peers)| peers.len() <= LINKS_MAX));
        assert!(told.last.as_ref().is_some_and(|(_, moved)| moved.links.len() <= LINKS_MAX));
    }

    #[test]
    fn numbers_that_cannot_be_true_break_nothing() {
        let (traffics, peer, run) = (Traffics::default(), NodeId::generate(), RunId::generate());
        let nodes = [NodeId::generate(), NodeId::generate()];
        for node in nodes {
            for (s, bytes) in [(600, 0), (603, u64::MAX), (604, 0), (605, u64::MAX)] {
                let link = MovedBetween { node: peer, fetched_bytes: bytes, served_bytes: bytes };
                let counters = Moved { written_bytes: bytes, ..moved(run, 0, vec![link]) };
                traffics.hear(node, at(s), counters);
            }
        }
        assert_eq!(traffics.series(at(660), 10, None).series.written_bytes.iter().flatten().max(), Some(&u64::MAX));
        assert_eq!(traffics.links(at(660), nodes[0]), [(peer, (u64::MAX, u64::MAX))]);
    }

    #[test]
    fn links_are_added_up_over_ten_minutes_with_the_most_bytes_first() {
        let (traffics, node, run) = (Traffics::default(), NodeId::generate(), RunId::generate());
        let (one, two) = (NodeId::generate(), NodeId::generate());
        for (s, fetched, served) in [(0, 100, 0), (3, 150, 5), (6, 160, 500), (20, 160, 500)] {
            let links = vec![
                MovedBetween { node: one, fetched_bytes: fetched, served_bytes: 0 },
                MovedBetween { node: two, fetched_bytes: 0, served_bytes: served },
            ];
            traffics.hear(node, at(s), moved(run, fetched, links));
        }
        assert_eq!(traffics.links(at(30), node), [(two, (0, 500)), (one, (60, 0))]);
        assert_eq!(traffics.links(at(700), node), []);
        assert_eq!(traffics.links(at(30), one), []);
    }
}
