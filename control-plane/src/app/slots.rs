//! Bounded work of a kind: so much at a time, and of one owner so much that it does not keep the others out (I11).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// How much of a kind of work goes on in this process, by owner.
#[derive(Clone, Debug)]
pub struct Slots {
    all_max: usize,
    each_max: usize,
    taken: Arc<Mutex<HashMap<String, usize>>>,
}

/// Why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// All are taken.
    All,
    /// The owner has this many, its share.
    Own(usize),
}

/// One of them; given back when dropped.
#[derive(Debug)]
pub struct Slot {
    slots: Slots,
    owner: String,
}

impl Slots {
    /// At most `all_max` at a time, and `each_max` of one owner.
    #[must_use]
    pub fn new(all_max: usize, each_max: usize) -> Self {
        Self { all_max, each_max, taken: Arc::default() }
    }

    /// Takes one, or says why there is none.
    pub fn take(&self, owner: &str) -> Result<Slot, Full> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
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
        let mut taken = self.slots.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = taken.get_mut(&self.owner) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                taken.remove(&self.owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_more_than_its_share_and_what_is_dropped_is_free_again() {
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
