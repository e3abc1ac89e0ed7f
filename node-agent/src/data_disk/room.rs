//! [`Room`]: what a node still takes on, by how much of its file system is free. Pure.

/// Free space that is kept for those who must be able to write longest, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reserves {
    /// `keep_free`: what only writes of the guests that are here may use.
    pub keep_free_bytes: u64,
    /// `mirror_reserve`: on top of that, what new instances may use as well.
    pub mirror_bytes: u64,
}

impl Reserves {
    /// With no more than this free, the pool takes no new objects.
    #[must_use]
    pub fn objects_bytes(&self) -> u64 {
        self.keep_free_bytes.saturating_add(self.mirror_bytes)
    }

    /// With no more than this free, the node takes no new instances.
    #[must_use]
    pub fn instances_bytes(&self) -> u64 {
        self.keep_free_bytes
    }

    /// With less than this free, copies are given up of objects that the repository has, where that is wanted. The cache has
    /// given way by then, and no object was refused yet.
    #[must_use]
    pub fn evict_bytes(&self) -> u64 {
        let objects = self.objects_bytes();
        objects.saturating_add(objects / 12)
    }

    /// They are given up until so much is free. The cache may take some of it again.
    #[must_use]
    pub fn evicted_bytes(&self) -> u64 {
        let objects = self.objects_bytes();
        objects.saturating_add(objects / 4)
    }

    /// With less than this free, the cache gives way. It is more than where the pool opens again: as long as there is a cache,
    /// no object is refused for it.
    #[must_use]
    pub fn cache_bytes(&self) -> u64 {
        let objects = self.objects_bytes();
        objects.saturating_add(objects / 8)
    }
}

/// What a node still takes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    /// Both new objects and new instances.
    #[default]
    Plenty,
    /// No new objects.
    NoObjects,
    /// No new objects and no new instances. Only the guests that are here go on writing.
    NoInstances,
}

impl Room {
    /// The next value. What was closed opens again only with a sixteenth more than its reserve free, so that a node at a
    /// reserve does not change its mind all the time.
    #[must_use]
    pub fn next(self, free_bytes: u64, reserves: &Reserves) -> Self {
        let closed = |reserve: u64, before: bool| {
            let slack = if before { reserve / 16 } else { 0 };
            free_bytes <= reserve.saturating_add(slack)
        };
        if closed(reserves.instances_bytes(), self == Self::NoInstances) {
            Self::NoInstances
        } else if closed(reserves.objects_bytes(), self != Self::Plenty) {
            Self::NoObjects
        } else {
            Self::Plenty
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESERVES: Reserves = Reserves { keep_free_bytes: 1600, mirror_bytes: 1600 };

    fn path(frees: &[u64]) -> Vec<Room> {
        let mut room = Room::default();
        let mut step = |free: &u64| {
            room = room.next(*free, &RESERVES);
            room
        };
        frees.iter().map(&mut step).collect()
    }

    #[test]
    fn objects_are_refused_first_then_instances_and_both_open_later_than_they_close() {
        use Room::{NoInstances, NoObjects, Plenty};
        assert_eq!(path(&[9000, 3201, 3200, 3400, 3401]), [Plenty, Plenty, NoObjects, NoObjects, Plenty]);
        assert_eq!(path(&[1601, 1600, 1700, 1701, 3400]), [NoObjects, NoInstances, NoInstances, NoObjects, NoObjects]);
        assert_eq!(path(&[0, 9000]), [NoInstances, Plenty]);
    }

    #[test]
    fn the_cache_gives_way_before_an_object_is_refused() {
        let opens = RESERVES.objects_bytes() + RESERVES.objects_bytes() / 16;
        assert!(RESERVES.cache_bytes() > opens);
        assert!(RESERVES.evicted_bytes() > RESERVES.cache_bytes());
        assert!(RESERVES.cache_bytes() > RESERVES.evict_bytes() && RESERVES.evict_bytes() > opens);
    }

    #[test]
    fn without_reserves_only_a_full_file_system_refuses() {
        let none = Reserves::default();
        assert_eq!(Room::Plenty.next(1, &none), Room::Plenty);
        assert_eq!(Room::Plenty.next(0, &none), Room::NoInstances);
        assert_eq!(none.cache_bytes(), 0);
    }
}
