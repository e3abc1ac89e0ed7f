//! Bodies of objects that this node's own share of the pool has. They stay decoded in memory for a while. The disk of the node
//! has them already, so they get no slot in the cache.
//!
//! ```text
//! share --read, hashed, decoded--> memory --not read for 20 s--> forgotten
//!                                    |
//!                                    +--pushed out by others--> noted --needed again within 20 s--> slot of the cache
//! ```
//!
//! A read of 4 KiB that is not in memory decodes a whole chunk, which takes a processor some hundred microseconds. A start of a
//! guest does that once per chunk, and several starts side by side share it. What is read again and again and does not fit into
//! memory gets a slot after its second decoding: there a second copy on the disk costs less than decoding. The scrub takes it
//! back when nobody reads it any more.
//!
//! When the share loses an object, its body in memory stays good: it was hashed, and names are those of bytes.

use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use storage_core::{ChunkSize, ObjectName, lock, units::u64_from};

use super::slots::Content;

/// A body that nobody reads for so long leaves memory. One that was pushed out and is needed again within this time gets a slot.
const SOON: Duration = Duration::from_secs(20);
/// Most names of bodies that were pushed out. 16 Ki of them take some 2 MiB.
const PUSHED_MAX: usize = 16 << 10;
/// What a body takes in memory besides its bytes, about. It bounds the number of small ones.
const ENTRY_BYTES: u64 = 512;

/// The bodies in memory.
pub(super) struct OwnBodies {
    /// 0: none is kept, and all get slots.
    bytes_max: u64,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    bodies: HashMap<ObjectName, Entry>,
    /// The names in `bodies`, in the order in which they are pushed out.
    order: VecDeque<ObjectName>,
    bytes: u64,
    pushed: Pushed,
}

struct Entry {
    body: Arc<OwnBody>,
    read_at: Instant,
    /// Whether it was read since it was put at the end of `order`.
    read: bool,
}

/// The body of an object of this node's own share, in memory.
pub(crate) struct OwnBody {
    pub(super) content: Content,
    pub(super) size: ChunkSize,
    pub(super) bytes: Bytes,
}

impl OwnBody {
    /// Hashes the body now (I4). An error when it does not match its name.
    pub(super) fn prove(&self) -> io::Result<()> {
        self.content.check(self.size, &self.bytes)
    }

    fn cost(&self) -> u64 {
        u64_from(self.bytes.len()) + ENTRY_BYTES
    }
}

impl OwnBodies {
    pub(super) fn new(bytes_max: u64) -> Self {
        Self { bytes_max, inner: Mutex::default() }
    }

    /// Whether own objects are kept in memory at all.
    pub(super) fn is_on(&self) -> bool {
        self.bytes_max > 0
    }

    /// The body. That counts as a read.
    pub(super) fn get(&self, name: &ObjectName, now: Instant) -> Option<Arc<OwnBody>> {
        let mut inner = lock(&self.inner);
        let entry = inner.bodies.get_mut(name)?;
        (entry.read_at, entry.read) = (now, true);
        Some(entry.body.clone())
    }

    /// Whether the body is in memory. Does not count as a read.
    pub(super) fn has(&self, name: &ObjectName) -> bool {
        lock(&self.inner).bodies.contains_key(name)
    }

    /// Keeps a body that was just read from the share and hashed. Returns false when it is to get a slot instead.
    pub(super) fn keep(&self, body: OwnBody, now: Instant) -> bool {
        let (name, cost) = (body.content.name, body.cost());
        if cost > self.bytes_max {
            return false;
        }
        let mut inner = lock(&self.inner);
        if inner.pushed.take(&name, now) {
            return false;
        }
        if let Some(there) = inner.bodies.get_mut(&name) {
            // Another fetch brought the same.
            there.read_at = now;
            return true;
        }
        // Before the new one joins the order: it is not to go because all others were read.
        while inner.bytes + cost > self.bytes_max {
            inner.push_out(now);
        }
        inner.bytes += cost;
        inner.order.push_back(name);
        inner.bodies.insert(name, Entry { body: Arc::new(body), read_at: now, read: false });
        true
    }

    /// Forgets one body, because it is damaged.
    pub(super) fn forget(&self, name: &ObjectName) {
        let mut inner = lock(&self.inner);
        if let Some(entry) = inner.bodies.remove(name) {
            inner.bytes -= entry.body.cost();
            inner.order.retain(|other| other != name);
        }
    }

    /// Forgets what nobody has read for a while. Returns whether the last body left with that.
    pub(super) fn forget_idle(&self, now: Instant) -> bool {
        let mut inner = lock(&self.inner);
        inner.pushed.forget_old(now);
        let Inner { bodies, order, bytes, .. } = &mut *inner;
        let had_any = !bodies.is_empty();
        bodies.retain(|_, entry| {
            let stays = now.saturating_duration_since(entry.read_at) < SOON;
            if !stays {
                *bytes -= entry.body.cost();
            }
            stays
        });
        order.retain(|name| bodies.contains_key(name));
        if order.is_empty() {
            // Not even the room for names is kept.
            (*bodies, *order) = (HashMap::new(), VecDeque::new());
        }
        had_any && order.is_empty()
    }

    /// Bytes in memory, about.
    pub(super) fn bytes(&self) -> u64 {
        lock(&self.inner).bytes
    }
}

impl Inner {
    /// Pushes out the first body in the order that was not read since it was put there. There is one at least.
    fn push_out(&mut self, now: Instant) {
        while let Some(name) = self.order.pop_front() {
            let entry = self.bodies.get_mut(&name).expect("the order has only names of bodies");
            if std::mem::take(&mut entry.read) {
                self.order.push_back(name);
                continue;
            }
            self.bytes -= entry.body.cost();
            self.bodies.remove(&name);
            self.pushed.add(name, now);
            return;
        }
    }
}

/// The names of bodies that were pushed out a short time ago.
#[derive(Default)]
struct Pushed {
    at: HashMap<ObjectName, Instant>,
    /// Oldest first. It may have names that were taken or pushed out again since.
    order: VecDeque<(ObjectName, Instant)>,
}

impl Pushed {
    fn add(&mut self, name: ObjectName, now: Instant) {
        self.at.insert(name, now);
        self.order.push_back((name, now));
        if self.order.len() > PUSHED_MAX {
            self.forget_first();
        }
    }

    /// Whether the body was pushed out a short time ago. It is not noted any more then.
    fn take(&mut self, name: &ObjectName, now: Instant) -> bool {
        self.at.remove(name).is_some_and(|at| now.saturating_duration_since(at) < SOON)
    }

    fn forget_old(&mut self, now: Instant) {
        while self.order.front().is_some_and(|(_, at)| now.saturating_duration_since(*at) >= SOON) {
            self.forget_first();
        }
        if self.order.is_empty() {
            *self = Self::default();
        }
    }

    fn forget_first(&mut self) {
        if let Some((name, at)) = self.order.pop_front()
            && self.at.get(&name) == Some(&at)
        {
            self.at.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use storage_core::{Kind, Salt};

    use super::*;

    const BODY: usize = 10_000;

    fn body(n: u8) -> OwnBody {
        let bytes = Bytes::from(vec![n; BODY]);
        let name = ObjectName::of(Kind::Pack, Salt::SHARED, &bytes);
        OwnBody { content: Content { name, kind: Kind::Pack, salt: Salt::SHARED }, size: ChunkSize::MIN, bytes }
    }

    fn name(n: u8) -> ObjectName {
        body(n).content.name
    }

    fn room_for(bodies: u64) -> OwnBodies {
        OwnBodies::new(bodies * body(1).cost())
    }

    #[test]
    fn what_is_pushed_out_and_needed_again_soon_gets_a_slot_once() {
        let (own, now) = (room_for(2), Instant::now());
        assert!(own.keep(body(1), now) && own.keep(body(2), now) && own.keep(body(3), now));
        assert!(!own.has(&name(1)) && own.has(&name(2)) && own.has(&name(3)), "the first had to go");
        assert!(!own.keep(body(1), now + SOON / 2), "it gets a slot");
        assert!(own.keep(body(1), now + SOON / 2), "its slot was evicted since, so that it begins anew");
        assert!(own.keep(body(2), now + 2 * SOON), "it was pushed out long ago");
        assert_eq!(own.bytes(), 2 * body(1).cost());
    }

    #[test]
    fn what_is_read_stays_longer_than_what_is_not_and_leaves_when_nobody_reads_it() {
        let (own, now) = (room_for(3), Instant::now());
        for n in 1..=3 {
            assert!(own.keep(body(n), now));
        }
        assert_eq!(own.get(&name(1), now).expect("there").bytes, body(1).bytes);
        assert!(own.keep(body(4), now));
        assert!(own.has(&name(1)) && !own.has(&name(2)));
        // All were read: the one that waits for longest goes.
        for n in [1, 3, 4] {
            assert!(own.get(&name(n), now + SOON / 2).is_some());
        }
        assert!(own.keep(body(5), now + SOON / 2));
        assert!(!own.has(&name(3)) && own.has(&name(4)) && own.has(&name(1)));

        assert!(!own.forget_idle(now + SOON));
        assert_eq!(own.bytes(), 3 * body(1).cost(), "all were read since");
        assert!(own.forget_idle(now + 2 * SOON) && !own.forget_idle(now + 2 * SOON));
        assert_eq!((own.bytes(), own.has(&name(1))), (0, false));
        assert!(own.keep(body(1), now + 2 * SOON), "idleness is no reason for a slot");
    }

    #[test]
    fn names_of_what_was_pushed_out_are_bounded() {
        let mut pushed = Pushed::default();
        let now = Instant::now();
        let name = |n: usize| ObjectName::of(Kind::Pack, Salt::SHARED, &n.to_le_bytes());
        for n in 0..PUSHED_MAX + 10 {
            pushed.add(name(n), now);
        }
        assert_eq!((pushed.at.len(), pushed.order.len()), (PUSHED_MAX, PUSHED_MAX));
        assert!(!pushed.take(&name(9), now) && pushed.take(&name(10), now));
        // Pushed out twice: the second time counts.
        pushed.add(name(11), now + SOON / 2);
        pushed.forget_old(now + SOON);
        assert!(pushed.take(&name(11), now + SOON));
        pushed.forget_old(now + 2 * SOON);
        assert!(pushed.at.is_empty() && pushed.order.is_empty());
    }

    #[test]
    fn without_memory_all_get_slots_and_what_is_larger_than_the_memory_does_too() {
        let now = Instant::now();
        assert!(!OwnBodies::new(0).is_on() && !OwnBodies::new(0).keep(body(1), now));
        assert!(!OwnBodies::new(BODY as u64).keep(body(1), now));
    }

    #[test]
    fn a_body_that_changed_in_memory_does_not_match_its_name() {
        body(1).prove().expect("good");
        let damaged = OwnBody { bytes: body(2).bytes, ..body(1) };
        damaged.prove().expect_err("bad");
    }
}
