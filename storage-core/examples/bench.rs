//! Measures what the storage core costs on this machine, compared with plain writes to its disk.
//!
//! `cargo run --release -p storage-core --example bench -- [FOLDER] [MIB]`. FOLDER (default: the system's temporary
//! folder) is on the disk to be measured and is left as it was. MIB (default 1024) is how much is written. Ratios compare
//! with plain writes and fdatasync of the same bytes in the same batches, run in turn, best of three.

use std::{
    collections::{BTreeMap, HashMap},
    error::Error,
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use storage_core::{
    ByteLen, ChunkIndex, ChunkSize, ChunkStore, Compression, Descriptor, Kind, ObjectName, Record, Salt, SegmentStore,
    store::Options,
    tree::{self, Leaf, Lookup, Page},
};

const CHUNK: ChunkSize = ChunkSize::DEFAULT;
const MIB: usize = 1 << 20;

type Done = Result<(), Box<dyn Error>>;

fn main() -> Done {
    let mut args = std::env::args().skip(1).peekable();
    if args.next_if_eq("--idle").is_some() {
        let store = SegmentStore::open(Path::new(&args.next().ok_or("no folder")?), Options::default())?;
        let names = store.list(None, 1000)?;
        names.iter().try_for_each(|l| store.load(&l.name).map(drop))?;
        println!("{}", memory());
        return Ok(());
    }
    let temporary = tempfile::tempdir_in(args.next().map_or_else(std::env::temp_dir, PathBuf::from))?;
    let mib: usize = args.next().map_or(Ok(1024), |n| n.parse())?;
    println!("in {}, {mib} MiB", temporary.path().display());
    encoding()?;
    for batch_mib in [64, 4] {
        throughput(temporary.path(), mib, batch_mib)?;
    }
    small_batches(temporary.path())?;
    touching(temporary.path(), mib)?;
    reading_and_opening(temporary.path(), mib)?;
    trees()?;
    Ok(())
}

fn noise(seed: usize, len: usize) -> Bytes {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes.into()
}

/// Something like program text: compresses to about half.
fn prose(seed: usize, len: usize) -> Bytes {
    let random = noise(seed, len / 8);
    random.iter().flat_map(|b| format!("{:08}", u32::from(*b) * 7919).into_bytes()).take(len).collect::<Vec<_>>().into()
}

fn chunks(bodies: &[Bytes], compression: Compression) -> Vec<Record> {
    bodies.iter().map(|b| Record::encode_bytes(Kind::Chunk, Salt::SHARED, Some(CHUNK), b, compression)).collect()
}

fn rate(bytes: usize, took: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "printed with three digits")]
    let mib = bytes as f64 / MIB as f64;
    mib / took.as_secs_f64()
}

fn encoding() -> Done {
    let count = 400;
    for (what, body) in [("incompressible", noise(1, CHUNK.as_usize())), ("compressible", prose(1, CHUNK.as_usize()))] {
        let timed = |work: &dyn Fn()| {
            let start = Instant::now();
            (0..count).for_each(|_| work());
            rate(count * CHUNK.as_usize(), start.elapsed())
        };
        let hash =
            timed(&|| assert_ne!(ObjectName::of_chunk(Salt::SHARED, CHUNK, &body), ObjectName::from_bytes([0; 32])));
        let plain = timed(&|| drop(chunks(std::slice::from_ref(&body), Compression::Off)));
        let auto = timed(&|| drop(chunks(std::slice::from_ref(&body), Compression::Auto)));
        let record = chunks(std::slice::from_ref(&body), Compression::Auto).remove(0);
        let wire = Bytes::from(record.to_bytes());
        let verify = timed(&|| drop(Record::decode(&wire).and_then(|r| r.verify())));
        let percent = record.stored().len() * 100 / body.len();
        println!(
            "encode {what:14} hash {hash:5.0}, encode raw {plain:5.0}, encode auto {auto:5.0} ({percent} %), verify {verify:5.0} MiB/s"
        );
    }
    Ok(())
}

fn throughput(folder: &Path, mib: usize, batch_mib: usize) -> Done {
    let per_batch = batch_mib * MIB / CHUNK.as_usize();
    let batches = mib / batch_mib;
    let mut best = [0f64; 3];
    for attempt in 0..3 {
        // Hashing is measured above, so objects are named before the clock for the store starts.
        let file = folder.join("plain");
        let mut out = File::create(&file)?;
        let mut spent = [Duration::ZERO; 3];
        let fresh = tempfile::tempdir_in(folder)?;
        let store = SegmentStore::open(fresh.path(), Options::default())?;
        for batch in 0..batches {
            let seed = (attempt * batches + batch) * per_batch;
            let bodies: Vec<Bytes> = (seed..seed + per_batch).map(|n| noise(n, CHUNK.as_usize())).collect();
            let start = Instant::now();
            bodies.iter().try_for_each(|body| out.write_all(body))?;
            out.sync_data()?;
            spent[0] += start.elapsed();

            let start = Instant::now();
            let records = chunks(&bodies, Compression::Auto);
            spent[2] += start.elapsed();
            let start = Instant::now();
            store.put(1, &records)?;
            store.sync()?;
            spent[1] += start.elapsed();
        }
        spent[2] += spent[1];
        for (best, spent) in best.iter_mut().zip(spent) {
            *best = best.max(rate(batches * batch_mib * MIB, spent));
        }
        drop(store);
        std::fs::remove_file(file)?;
    }
    let [plain, put, whole] = best;
    println!(
        "batches of {batch_mib:2} MiB   write+fdatasync {plain:5.0}, put+sync {put:5.0} (ratio {:.2}), hash+probe+put+sync {whole:5.0} MiB/s (ratio {:.2})",
        put / plain,
        whole / plain
    );
    Ok(())
}

fn small_batches(folder: &Path) -> Done {
    let fresh = tempfile::tempdir_in(folder)?;
    let store = SegmentStore::open(fresh.path(), Options::default())?;
    let mut out = File::create(fresh.path().join("plain"))?;
    let count = 200u32;
    let (mut plain, mut put, mut touch) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    for n in 0..count {
        let records = chunks(&[noise(n as usize, 8192)], Compression::Auto);
        let start = Instant::now();
        out.write_all(records.first().map_or(&[][..], |r| r.stored()))?;
        out.sync_data()?;
        plain += start.elapsed();
        let start = Instant::now();
        store.put(1, &records)?;
        store.sync()?;
        put += start.elapsed();
        let start = Instant::now();
        store.touch(2, &records.iter().map(Record::name).collect::<Vec<_>>())?;
        store.sync()?;
        touch += start.elapsed();
    }
    println!(
        "one 8 KiB object   write+fdatasync {:?}, put+sync {:?}, touch+sync {:?}",
        plain / count,
        put / count,
        touch / count
    );
    Ok(())
}

/// What a sender waits for when it puts what is there already, by a process that has not read it yet and by one that has.
fn touching(folder: &Path, mib: usize) -> Done {
    for (what, body) in [("incompressible", noise as fn(usize, usize) -> Bytes), ("compressible", prose)] {
        let fresh = tempfile::tempdir_in(folder)?;
        let store = SegmentStore::open(fresh.path(), Options::default())?;
        let count = mib * MIB / CHUNK.as_usize();
        let mut names = Vec::new();
        for n in 0..count {
            let records = chunks(&[body(n, CHUNK.as_usize())], Compression::Auto);
            names.extend(records.iter().map(Record::name));
            store.put(1, &records)?;
        }
        store.close()?;
        let store = SegmentStore::open(fresh.path(), Options::default())?;
        let mut rates = Vec::new();
        for round in 2..5 {
            let start = Instant::now();
            for part in names.chunks(256) {
                store.touch(round, part)?;
                store.sync()?;
            }
            rates.push(rate(count * CHUNK.as_usize(), start.elapsed()));
        }
        println!("touch {what:14}  first {:.0}, later {:.0} MiB/s of chunks", rates[0], rates[1].max(rates[2]));
    }
    Ok(())
}

fn reading_and_opening(folder: &Path, mib: usize) -> Done {
    let fresh = tempfile::tempdir_in(folder)?;
    let store = SegmentStore::open(fresh.path(), Options::default())?;
    let count = mib * MIB / CHUNK.as_usize();
    let mut names = Vec::new();
    for n in 0..count {
        let records = chunks(&[noise(n, CHUNK.as_usize())], Compression::Off);
        names.extend(records.iter().map(Record::name));
        store.put(1, &records)?;
    }
    store.sync()?;
    let start = Instant::now();
    for name in &names {
        store.load(name)?.ok_or("lost")?;
    }
    println!("read warm          {:.0} MiB/s, hashed", rate(count * CHUNK.as_usize(), start.elapsed()));
    let start = Instant::now();
    for name in &names {
        store.contains(name)?;
    }
    println!("contains           {:?} each", start.elapsed() / u32::try_from(count)?);

    // Many small objects show what the index costs.
    let small = 200_000usize;
    let start = Instant::now();
    for batch in 0..small / 1000 {
        let page = |n| {
            let body = noise(1 << 40 | (batch * 1000 + n), 40);
            Record::encode_bytes(Kind::Page, Salt::SHARED, None, &body, Compression::Off)
        };
        store.put(1, &(0..1000).map(page).collect::<Vec<_>>())?;
        store.sync()?;
    }
    println!("{small} small     put+sync {:?} each, in batches of 1000", start.elapsed() / u32::try_from(small)?);
    store.close()?;
    let start = Instant::now();
    let store = SegmentStore::open(fresh.path(), Options::default())?;
    let index_mib = std::fs::metadata(fresh.path().join("index.redb"))?.len() / (1 << 20);
    println!("open, clean        {:?}, index {index_mib} MiB", start.elapsed());
    drop(store);
    std::fs::remove_file(fresh.path().join("index.redb"))?;
    let start = Instant::now();
    let store = SegmentStore::open(fresh.path(), Options::default())?;
    println!("open, no index     {:?}, {} objects", start.elapsed(), store.usage().objects);
    store.close()?;
    // Memory is measured in a new process that does nothing else.
    let idle = std::process::Command::new(std::env::current_exe()?).arg("--idle").arg(fresh.path()).output()?;
    println!("open and idle      {}", String::from_utf8_lossy(&idle.stdout).trim());
    Ok(())
}

fn trees() -> Done {
    for gib in [2u64, 64, 1024] {
        let size = ByteLen(gib << 30);
        let empty = Descriptor::empty(size, CHUNK, Salt::SHARED);
        let name = |n: u64| Some(Leaf::Whole(ObjectName::of(Kind::Chunk, Salt::SHARED, &n.to_le_bytes())));
        let full: BTreeMap<_, _> = (0..empty.chunks()).map(|n| (ChunkIndex(n), name(n))).collect();
        let start = Instant::now();
        let Lookup::Found(base) = tree::commit(&empty, size, &full, &|_| None)? else { return Err("missing".into()) };
        let imported = start.elapsed();
        let bytes: usize = base.pages.iter().map(|(_, bytes)| bytes.len()).sum();
        let mut pages: HashMap<ObjectName, Arc<Page>> = HashMap::new();
        for (name, bytes) in &base.pages {
            pages.insert(*name, Arc::new(Page::decode(bytes)?));
        }
        let get = |name: &ObjectName| pages.get(name).cloned();

        let count = 100_000;
        let start = Instant::now();
        for n in 0..count {
            let index = n * 7919 % empty.chunks();
            let range = ChunkIndex(index)..ChunkIndex(index + 1);
            let Lookup::Found(_) = tree::lookup(&base.descriptor, range, &get)? else { return Err("missing".into()) };
        }
        let lookup = start.elapsed() / u32::try_from(count)?;
        let dirty: BTreeMap<_, _> = (0..60).map(|n| (ChunkIndex(n * 7919 % empty.chunks()), name(n + 1))).collect();
        let start = Instant::now();
        let Lookup::Found(next) = tree::commit(&base.descriptor, size, &dirty, &get)? else {
            return Err("missing".into());
        };
        println!(
            "tree of {gib:4} GiB    from nothing {imported:.1?} ({} KiB of pages), lookup {lookup:?}, commit of 60 scattered chunks {:.1?} ({} pages)",
            bytes / 1024,
            start.elapsed(),
            next.pages.len()
        );
    }
    Ok(())
}

fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let lines = status.lines().filter(|line| line.starts_with("VmRSS") || line.starts_with("VmHWM"));
    lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>().join(", ")
}
