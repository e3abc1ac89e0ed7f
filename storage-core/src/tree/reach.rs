//! Everything versions need: what a sweep must keep (I6), what an audit must find, what a delete gives back.

use std::collections::HashSet;

use super::{Lookup, MissingPages, Pages};
use crate::{Corrupt, Descriptor, ObjectName};

/// Collects the objects that versions reach. Subtrees that versions share are walked once.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    names: HashSet<ObjectName>,
    /// Pages with everything below them collected.
    complete: HashSet<ObjectName>,
}

impl Reach {
    /// Nothing yet.
    pub fn new() -> Reach {
        Reach::default()
    }

    /// Adds all that one version reaches: its descriptor, pages, chunks and packs. With pages missing, what could be
    /// found is added; call it again once they are there.
    pub fn add(&mut self, descriptor: &Descriptor, pages: &Pages<'_>) -> Result<Lookup<()>, Corrupt> {
        let mut missing = MissingPages::default();
        self.names.insert(descriptor.name());
        if let (Some(root), Some(level)) = (descriptor.root, descriptor.height().checked_sub(1)) {
            self.below(&root, level, pages, &mut missing)?;
        }
        Ok(Lookup::unless(missing, || ()))
    }

    /// Whether an object was reached.
    pub fn contains(&self, name: &ObjectName) -> bool {
        self.names.contains(name)
    }

    /// The objects reached, in no order.
    pub fn names(&self) -> &HashSet<ObjectName> {
        &self.names
    }

    /// Whether everything below the page is collected now.
    fn below(
        &mut self,
        name: &ObjectName,
        level: u8,
        pages: &Pages<'_>,
        missing: &mut MissingPages,
    ) -> Result<bool, Corrupt> {
        self.names.insert(*name);
        if self.complete.contains(name) {
            return Ok(true);
        }
        let Some(page) = missing.page(pages, name, level)? else { return Ok(false) };
        self.names.extend(page.entries().flat_map(|(_, leaf)| leaf.objects()));
        let mut complete = true;
        for (_, child) in page.children() {
            complete &= self.below(child, level - 1, pages, missing)?;
        }
        if complete {
            self.complete.insert(*name);
        }
        Ok(complete)
    }
}

/// Everything these versions reach.
pub fn reach(roots: &[Descriptor], pages: &Pages<'_>) -> Result<Lookup<HashSet<ObjectName>>, Corrupt> {
    let mut reach = Reach::new();
    let mut missing = MissingPages::default();
    for root in roots {
        if let Lookup::Missing(names) = reach.add(root, pages)? {
            missing.0.extend(names);
        }
    }
    Ok(Lookup::unless(missing, || reach.names))
}
