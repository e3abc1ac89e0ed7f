//! Limits on one kind of work: how much of it goes on at a time in all, and how much of it for one owner, so that no
//! owner keeps the others out (I11).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use storage_core::lock;

/// How much of one kind of work goes on in this process, by owner. Clones share the count.
#[derive(Clone, Debug)]
pub struct Slots {
    all_max: usize,
    each_max: usize,
    taken: Arc<Mutex<HashMap<String, usize>>>,
}

/// Why no slot is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// All slots are taken, whoever has them.
    All,
    /// The owner has this many slots, the most it may have.
    Own(usize),
}

/// A taken slot. It is given back when dropped.
#[derive(Debug)]
pub struct Slot {
    slots: Slots,
    owner: String,
}

impl Slots {
    /// At most `all_max` slots are taken at a time, and `each_max` of them by one owner.
    #[must_use]
    pub fn new(all_max: usize, each_max: usize) -> Self {
        Self { all_max, each_max, taken: Arc::default() }
    }

    /// Takes a slot for the owner.
    ///
    /// # Errors
    /// Why no slot is free.
    pub fn take(&self, owner: &str) -> Result<Slot, Full> {
        let mut taken = lock(&self.taken);
        let all: usize = taken.values().sum();
        let own = taken.get(owner).copied().unwrap_or(0);
        if own >= self.each_max {
            return Err(Full::Own(own));
        }
        if all >= self.all_max {
            return Err(Full::All);
        }
        taken.insert(owner.to_owned(), own + 1);
        Ok(Slot { slots: self.clone(), owner: owner.to_owned() })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = lock(&self.slots.taken);
        let own = taken.get_mut(&self.owner).expect("an owner is listed while it has slots");
        *own -= 1;
        if *own == 0 {
            taken.remove(&self.owner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_takes_at_most_its_share_and_a_dropped_slot_is_free_again() {
        let slots = Slots::new(3, 2);
        let first = slots.take("a").expect("one");
        let _second = slots.take("a").expect("two");
        assert_eq!(slots.take("a").err(), Some(Full::Own(2)));
        let _third = slots.take("b").expect("three");
        assert_eq!(slots.take("c").err(), Some(Full::All));
        drop(first);
        slots.take("c").expect("free again");
    }
}
