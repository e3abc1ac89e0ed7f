//! Everything that versions need: what a sweep must keep (I6), what an audit must find, what a delete frees.

use std::collections::HashSet;

use super::{Lookup, MissingPages, Pages};
use crate::{Corrupt, Descriptor, ObjectName};

/// Collects the objects that versions reach. Subtrees that several versions share are walked once.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    names: HashSet<ObjectName>,
    /// Pages of which everything below them is collected.
    complete: HashSet<ObjectName>,
}

impl Reach {
    /// A collection that reaches nothing yet.
    pub fn new() -> Reach {
        Reach::default()
    }

    /// Adds everything that one version reaches: its descriptor, pages, chunks and packs. If pages are missing, what
    /// could be found is added; call it again with those pages.
    ///
    /// # Errors
    /// When a page is not of the level that its place needs.
    pub fn add(&mut self, descriptor: &Descriptor, pages: &Pages<'_>) -> Result<Lookup<()>, Corrupt> {
        let mut missing = MissingPages::default();
        self.names.insert(descriptor.name());
        if let (Some(root), Some(level)) = (descriptor.root, descriptor.height().checked_sub(1)) {
            self.below(&root, level, pages, &mut missing)?;
        }
        Ok(Lookup::unless(missing, || ()))
    }

    /// Whether a version added so far reaches the object.
    pub fn contains(&self, name: &ObjectName) -> bool {
        self.names.contains(name)
    }

    /// The objects reached, in no particular order.
    pub fn names(&self) -> &HashSet<ObjectName> {
        &self.names
    }

    /// Collects a page and everything below it. The answer is whether nothing was missing.
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
