//! Measures what a round of the sweep costs by the number of objects that are needed.
//!
//! `cargo run --release -p storage-core --example census -- [NAMES] [FOLDER]`. NAMES (default 1000000) chunks are reached by one
//! version. Then a second version changes 100 of its leaf pages in one chunk each and comes, and goes again. The times have the
//! making of the pages in them, and no fetching.

use std::{
    collections::{BTreeSet, HashMap},
    error::Error,
    path::PathBuf,
    time::Instant,
};

use storage_core::{
    ByteLen, ChunkSize, Descriptor, ObjectName, Salt,
    census::{Census, Direction, History},
    tree::{Leaf, Page},
};

/// Pages handed in at a time, as by the controller.
const BATCH: usize = 2048;
const SLOTS: u64 = 256;

/// The pages of a tree of three levels, by their names: leaf pages are made anew from their numbers.
#[derive(Default)]
struct Pages {
    leaves: HashMap<ObjectName, (u64, u64)>,
    inner: HashMap<ObjectName, Page>,
}

impl Pages {
    /// A leaf page of a version: the first `changed` pages have another first chunk.
    fn leaf(number: u64, seed: u64) -> Page {
        let name = |chunk: u64, seed: u64| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(&chunk.to_le_bytes()).update(&seed.to_le_bytes());
            ObjectName::from_bytes(*hasher.finalize().as_bytes())
        };
        let entries = (0..SLOTS).map(|slot| {
            let seed = if slot == 0 { seed } else { 0 };
            (u8::try_from(slot).expect("below 256"), Leaf::Whole(name(number * SLOTS + slot, seed)))
        });
        Page::leaf(entries).expect("not empty")
    }

    fn version(&mut self, leaves: u64, changed: u64) -> Descriptor {
        let mut below: Vec<ObjectName> = Vec::new();
        for number in 0..leaves {
            let seed = u64::from(number < changed);
            let name = Self::leaf(number, seed).name(Salt::SHARED);
            self.leaves.insert(name, (number, seed));
            below.push(name);
        }
        for level in 1..=2 {
            below = below
                .chunks(256)
                .map(|children| {
                    let page = Page::inner(level, (0u8..=255).zip(children.iter().copied())).expect("not empty");
                    let name = page.name(Salt::SHARED);
                    self.inner.insert(name, page);
                    name
                })
                .collect();
        }
        let size = ByteLen(leaves.max(257) * SLOTS * ChunkSize::DEFAULT.bytes());
        Descriptor { root: below.first().copied(), ..Descriptor::empty(size, ChunkSize::DEFAULT, Salt::SHARED) }
    }

    fn get(&self, name: &ObjectName) -> Page {
        match self.leaves.get(name) {
            Some((number, seed)) => Self::leaf(*number, *seed),
            None => self.inner.get(name).expect("a page of a version").clone(),
        }
    }
}

fn count(census: &Census, pages: &Pages, direction: Direction) -> Result<(), Box<dyn Error>> {
    loop {
        let work = census.work(direction, BATCH)?;
        if work.is_empty() {
            return Ok(());
        }
        let fetched: Vec<_> = work.iter().map(|page| (*page, pages.get(page))).collect();
        census.apply(&fetched)?;
    }
}

fn round(census: &Census, pages: &Pages, number: u64, roots: &[Descriptor]) -> Result<(), Box<dyn Error>> {
    let started = Instant::now();
    census.begin(number)?;
    let difference = census.difference(&roots.iter().map(Descriptor::name).collect::<BTreeSet<_>>())?;
    let entering: Vec<_> = roots.iter().filter(|root| difference.entering.contains(&root.name())).copied().collect();
    census.enter(&entering)?;
    count(census, pages, Direction::Enter)?;
    census.leave(&difference.leaving)?;
    count(census, pages, Direction::Leave)?;
    let progress = census.finish(number)?;
    println!(
        "round {number}: {:.2} s, {} roots, {} objects needed, {} dead; {}",
        started.elapsed().as_secs_f64(),
        progress.roots,
        progress.objects,
        progress.dead,
        memory()
    );
    Ok(())
}

fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or("no memory figure").to_owned()
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let names: u64 = args.next().map_or(Ok(1_000_000), |text| text.parse())?;
    let folder = tempfile::tempdir_in(args.next().map_or_else(std::env::temp_dir, PathBuf::from))?;
    let file = folder.path().join("census.redb");
    let history = History { number: 1, random: 1 };
    let leaves = names.div_ceil(SLOTS);
    let mut pages = Pages::default();
    let (base, changed) = (pages.version(leaves, 0), pages.version(leaves, 100));
    println!("{} chunks, {leaves} leaf pages; before anything is counted: {}", leaves * SLOTS, memory());
    let census = Census::open(&file, history)?;
    round(&census, &pages, 1, &[base])?;
    round(&census, &pages, 2, &[base, changed])?;
    round(&census, &pages, 3, &[base])?;
    round(&census, &pages, 4, &[base])?;
    let started = Instant::now();
    let asked: Vec<ObjectName> =
        (0..8192u64).map(|n| ObjectName::from_bytes(*blake3::hash(&n.to_le_bytes()).as_bytes())).collect();
    census.needed(&asked)?;
    println!("8192 names judged in {:.1} ms", started.elapsed().as_secs_f64() * 1e3);
    println!("the index has {} MiB", std::fs::metadata(&file)?.len() >> 20);
    drop(census);
    let started = Instant::now();
    let census = Census::open(&file, history)?;
    println!("opened in {:.2} s: {} objects", started.elapsed().as_secs_f64(), census.progress()?.objects);
    round(&census, &pages, 5, &[])?;
    Ok(())
}
