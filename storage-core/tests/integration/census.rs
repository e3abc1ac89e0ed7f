//! The census against a plain set: versions that share pages, chunks and packs come and go in any order, the counting is
//! broken off and begun again between any two batches, and at the end of each round exactly what the roots reach is counted.
#![expect(clippy::indexing_slicing, reason = "tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use proptest::prelude::*;
use storage_core::{
    ByteLen, ChunkSize, Descriptor, ObjectName, Salt,
    census::{Census, CensusError, Direction, History},
    tree::{Leaf, Page, Patched, Run, RunSource},
};

const CHUNK: ChunkSize = ChunkSize::MIN;
const HISTORY: History = History { number: 1, random: 7 };

fn name(n: u8) -> ObjectName {
    ObjectName::from_bytes([n; 32])
}

/// All pages that were ever made: the pool.
#[derive(Default)]
struct Pages(BTreeMap<ObjectName, Page>);

impl Pages {
    fn keep(&mut self, page: Page) -> ObjectName {
        let name = page.name(Salt::SHARED);
        self.0.insert(name, page);
        name
    }

    /// A disk whose leaf pages are made of these chunks; `None` for a page of zeros. More than one makes a tree of two levels.
    fn version(&mut self, leaves: &[Vec<u8>]) -> Descriptor {
        let size = ByteLen(leaves.len() as u64 * 256 * CHUNK.bytes());
        let mut children = Vec::new();
        for (slot, chunks) in leaves.iter().enumerate() {
            let entries = (0u8..).zip(chunks).map(|(slot, n)| (slot, leaf(*n)));
            if let Some(page) = Page::leaf(entries) {
                children.push((u8::try_from(slot).expect("few"), self.keep(page)));
            }
        }
        let root = match children[..] {
            [] => None,
            [(0, only)] if leaves.len() == 1 => Some(only),
            _ => Page::inner(1, children).map(|page| self.keep(page)),
        };
        Descriptor { root, ..Descriptor::empty(size, CHUNK, Salt::SHARED) }
    }

    /// What a root reaches, by walking all of it.
    fn reach(&self, root: &Descriptor, into: &mut BTreeSet<ObjectName>) {
        into.insert(root.name());
        let mut pages: Vec<ObjectName> = root.root.into_iter().collect();
        while let Some(name) = pages.pop() {
            into.insert(name);
            let page = &self.0[&name];
            pages.extend(page.children().map(|(_, child)| *child));
            into.extend(page.entries().flat_map(|(_, leaf)| leaf.objects().copied()));
        }
    }
}

/// Chunks below 20 are whole, the others are patched over one of these, with a pack that several share.
fn leaf(n: u8) -> Leaf {
    if n < 20 {
        return Leaf::Whole(name(n));
    }
    let run = Run { first: 0, count: 1, source: RunSource::Pack { pack: 0, block: 0 } };
    Leaf::Patched(Box::new(Patched::new(Some(name(n % 20)), vec![name(100 + n % 3)], vec![run]).expect("one run")))
}

fn all_names(pages: &Pages, versions: &[Descriptor]) -> BTreeSet<ObjectName> {
    let mut all: BTreeSet<ObjectName> = (0..=u8::MAX).map(name).collect();
    versions.iter().for_each(|version| pages.reach(version, &mut all));
    all
}

/// Counts at most `batches` batches of `size` pages. Returns whether nothing is left to do in this direction.
fn count(census: &Census, pages: &Pages, direction: Direction, size: usize, batches: &mut usize) -> bool {
    loop {
        let work = census.work(direction, size).expect("readable");
        if work.is_empty() {
            return true;
        }
        if *batches == 0 {
            return false;
        }
        *batches -= 1;
        let fetched: Vec<_> = work.iter().map(|page| (*page, pages.0[page].clone())).collect();
        census.apply(&fetched).expect("fits");
    }
}

/// Which children are counted first. The result is the same; leaving first is for pages of versions that go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    EnterFirst,
    LeaveFirst,
}

/// Goes on with a round as far as `batches` allow. Returns whether it was finished.
fn go_on(
    census: &Census,
    pages: &Pages,
    round: u64,
    roots: &[Descriptor],
    order: Order,
    size: usize,
    batches: &mut usize,
) -> bool {
    let names: BTreeSet<ObjectName> = roots.iter().map(Descriptor::name).collect();
    census.begin(round).expect("in order");
    let difference = census.difference(&names).expect("readable");
    let entering: Vec<Descriptor> =
        roots.iter().filter(|root| difference.entering.contains(&root.name())).copied().collect();
    census.enter(&entering).expect("entered");
    if order == Order::EnterFirst && !count(census, pages, Direction::Enter, size, batches) {
        return false;
    }
    census.leave(&difference.leaving).expect("left");
    for direction in [Direction::Leave, Direction::Enter] {
        if !count(census, pages, direction, size, batches) {
            return false;
        }
    }
    census.finish(round).expect("nothing is left");
    true
}

fn reached(pages: &Pages, roots: &[Descriptor]) -> BTreeSet<ObjectName> {
    let mut reached = BTreeSet::new();
    roots.iter().for_each(|root| pages.reach(root, &mut reached));
    reached
}

fn needed(census: &Census, names: &BTreeSet<ObjectName>) -> BTreeSet<ObjectName> {
    let names: Vec<ObjectName> = names.iter().copied().collect();
    let needed = census.needed(&names).expect("readable");
    names.into_iter().zip(needed).filter(|(_, needed)| *needed).map(|(name, _)| name).collect()
}

fn dead(census: &Census) -> BTreeSet<ObjectName> {
    let mut all = Vec::new();
    loop {
        let part = census.dead(all.last(), 3).expect("readable");
        if part.is_empty() {
            return all.into_iter().collect();
        }
        all.extend(part);
    }
}

fn open(file: &Path) -> Census {
    Census::open(file, HISTORY).expect("opened")
}

/// A try to carry out a round.
#[derive(Clone, Debug)]
struct Try {
    /// Which of the versions are roots when it begins, one bit each.
    roots: u16,
    order: Order,
    /// Pages in a batch.
    size: usize,
    /// Batches until it is broken off.
    batches: usize,
    /// Whether the index is closed and opened again after it.
    reopen: bool,
}

fn tries() -> impl Strategy<Value = Vec<Try>> {
    let batches = prop_oneof![1 => Just(usize::MAX), 1 => 0..4usize];
    let order = prop_oneof![3 => Just(Order::EnterFirst), 1 => Just(Order::LeaveFirst)];
    let one = (any::<u16>(), order, 1..4usize, batches, any::<bool>());
    let one = one.prop_map(|(roots, order, size, batches, reopen)| Try { roots, order, size, batches, reopen });
    prop::collection::vec(one, 1..14)
}

/// Up to three leaf pages of few different contents, so that versions share some of them.
fn disks() -> impl Strategy<Value = Vec<Vec<Vec<u8>>>> {
    let leaf = prop::collection::vec(0..30u8, 0..4);
    let leaf = prop_oneof![leaf, Just(vec![1, 2, 3]), Just(vec![1, 1, 25])];
    prop::collection::vec(prop::collection::vec(leaf, 1..4), 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn exactly_what_the_roots_reach_is_counted(disks in disks(), tries in tries()) {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("census.redb");
        let mut pages = Pages::default();
        let versions: Vec<Descriptor> = disks.iter().map(|leaves| pages.version(leaves)).collect();
        let all = all_names(&pages, &versions);
        let mut census = open(&file);
        let (mut round, mut before) = (1, BTreeSet::new());
        let last = Try { roots: 0b1010_1010_1010, order: Order::EnterFirst, size: 2, batches: usize::MAX, reopen: false };
        for Try { roots, order, size, mut batches, reopen } in tries.into_iter().chain([last]) {
            let bits = versions.iter().enumerate().filter(|(n, _)| roots >> n & 1 == 1);
            let roots: Vec<Descriptor> = bits.map(|(_, version)| *version).collect();
            if go_on(&census, &pages, round, &roots, order, size, &mut batches) {
                let now = reached(&pages, &roots);
                prop_assert_eq!(&needed(&census, &all), &now, "round {}", round);
                prop_assert_eq!(census.progress().expect("readable").objects, now.len() as u64);
                let dead = dead(&census);
                prop_assert!(dead.is_disjoint(&now), "what is needed is not dead");
                prop_assert!(before.difference(&now).all(|name| dead.contains(name)), "what nothing reaches any more is dead");
                (round, before) = (round + 1, now);
            }
            if reopen {
                drop(census);
                census = open(&file);
            }
        }
        // With no roots nothing is left over.
        prop_assert!(go_on(&census, &pages, round, &[], Order::EnterFirst, 5, &mut usize::MAX.clone()));
        prop_assert_eq!(census.progress().expect("readable").objects, 0);
    }
}

#[test]
fn a_page_that_was_never_had_is_not_needed_to_let_its_version_go() {
    let folder = tempfile::tempdir().expect("a folder");
    let census = open(&folder.path().join("census.redb"));
    let mut pages = Pages::default();
    let (whole, lost) = (pages.version(&[vec![1, 2]]), pages.version(&[vec![3], vec![4]]));
    let both = BTreeSet::from([whole.name(), lost.name()]);
    census.begin(1).expect("in order");
    assert_eq!(census.difference(&both).expect("readable").entering.len(), 2);
    census.enter(&[whole, lost]).expect("entered");
    let root = whole.root.expect("not zeros");
    census.apply(&[(root, pages.0[&root].clone())]).expect("fits");
    assert_eq!(census.work(Direction::Enter, 10).expect("readable"), [lost.root.expect("not zeros")]);
    assert!(matches!(census.finish(1), Err(CensusError::Order { .. })), "what is not counted is not known to be dead");
    // Its version is deleted, and the round is begun again.
    census.begin(1).expect("the same round");
    let difference = census.difference(&BTreeSet::from([whole.name()])).expect("readable");
    census.leave(&difference.leaving).expect("left");
    assert_eq!(census.finish(1).expect("no work is left").objects, 4);
}

#[test]
fn a_page_of_another_level_is_refused_and_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let census = open(&folder.path().join("census.redb"));
    let mut pages = Pages::default();
    let (flat, tall) = (pages.version(&[vec![1, 2]]), pages.version(&[vec![3], vec![4]]));
    let wrong = Descriptor { root: flat.root, ..tall };
    census.begin(1).expect("in order");
    census.enter(&[wrong]).expect("entered");
    let root = flat.root.expect("not zeros");
    let refused = census.apply(&[(root, pages.0[&root].clone())]);
    assert!(matches!(refused, Err(CensusError::Page { page, .. }) if page == root), "{refused:?}");
    let left = census.work(Direction::Enter, 10).expect("readable");
    assert_eq!((left, census.progress().expect("readable").objects), (vec![root], 2));
}

#[test]
fn an_index_of_another_history_or_with_a_flipped_bit_is_made_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("census.redb");
    let mut pages = Pages::default();
    let version = pages.version(&[vec![1, 2]]);
    let build = |history| {
        let census = Census::open(&file, history).expect("opened");
        let found = census.progress().expect("readable");
        assert!(go_on(&census, &pages, 5, &[version], Order::EnterFirst, 10, &mut usize::MAX.clone()));
        found
    };
    let new = build(HISTORY);
    assert_eq!((new.finished, new.begun, new.objects), (0, 0, 0));
    let known = build(HISTORY);
    assert_eq!((known.finished, known.begun, known.objects), (5, 5, 4));
    assert_eq!(build(History { number: 1, random: 8 }).objects, 0);
    // Every byte that is not zero is part of something; a flip in any of them must not change a count.
    let bytes = std::fs::read(&file).expect("readable");
    for at in (0..bytes.len()).filter(|at| bytes[*at] != 0).step_by(97) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 4;
        std::fs::write(&file, damaged).expect("written");
        let census = Census::open(&file, History { number: 1, random: 8 }).expect("opened");
        let progress = census.progress().expect("readable");
        assert!(
            progress.objects == 0 || needed(&census, &reached(&pages, &[version])).len() == 4,
            "byte {at}: {progress:?}"
        );
    }
}

#[test]
fn a_round_before_the_one_that_was_begun_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let census = open(&folder.path().join("census.redb"));
    census.begin(3).expect("in order");
    assert!(matches!(census.begin(2), Err(CensusError::Order { begun: 3, .. })));
}
