//! The two write policies on a disk whose chunks are not on its node yet. `contiguous` is the paper's second strategy: a
//! write that would leave a gap in its chunk fetches the chunk first. `bitmap`, the default, never fetches for a write of
//! whole blocks.

use std::{fs::File, os::unix::fs::FileExt as _, path::PathBuf, time::Instant};

use muster_tests::{Cluster, ClusterOptions, Pattern};

use crate::{Table, median};

const BYTES: u64 = 128 << 20;
const BLOCK: u64 = 4096;
/// Two writes in each chunk of 256 KiB, on average.
const WRITES: u64 = BYTES / (128 << 10);

/// Seconds that a guest's small writes took, and those of reading the whole disk afterwards.
struct Took {
    writes: f64,
    read: f64,
}

/// Deploys a disk on a node that has run none, writes single blocks all over it, and reads it.
async fn round(cluster: &Cluster, number: u64) -> Took {
    let instance = cluster.api.deploy_files(&format!("web-{number}"), "base", 1).await.remove(0);
    let path = PathBuf::from(instance.disks[0].path.clone().expect("operators see the path"));
    let disk = File::options().read(true).write(true).open(path).expect("open the disk");
    let block = vec![7; usize::try_from(BLOCK).expect("fits")];
    let begun = Instant::now();
    for n in 0..WRITES {
        // An odd factor visits the blocks in a scattered order, none twice.
        let at = (n * 2_654_435_761) % (BYTES / BLOCK) * BLOCK;
        disk.write_all_at(&block, at).expect("write");
    }
    let writes = begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    let mut piece = vec![0; 1 << 20];
    for at in (0..BYTES).step_by(piece.len()) {
        disk.read_exact_at(&mut piece, at).expect("read");
    }
    Took { writes, read: begun.elapsed().as_secs_f64() }
}

/// Nodes of each cluster. Instances spread over them, so that each round is on a node whose cache is empty.
const NODES: usize = 3;

/// A cluster of agents with this write policy. Each chunk of the image is in the pool's share of two of them.
async fn cluster(policy: &str) -> Cluster {
    let mut options = ClusterOptions::files(NODES).as_processes();
    options.agent.more = vec!["--write-policy".into(), policy.into()];
    let cluster = Cluster::start(options).await;
    let file = cluster.dir.join("image.raw");
    Pattern { seed: 81, size: BYTES, data: vec![(0, BYTES)] }.write(&file);
    cluster.api.import("base", &file).await;
    cluster
}

pub(crate) fn run(table: &mut Table) {
    crate::runtime().block_on(async {
        let (contiguous, bitmap) = (cluster("contiguous").await, cluster("bitmap").await);
        let mut pairs = Vec::new();
        for number in 0..NODES as u64 {
            pairs.push((round(&contiguous, number).await, round(&bitmap, number).await));
        }
        let mut row = |what: &str, pick: fn(&Took) -> f64| {
            let of = |value: fn((f64, f64)) -> f64| {
                median(pairs.iter().map(|(ours, theirs)| value((pick(ours), pick(theirs)))).collect())
            };
            table.row(
                what,
                format!("{:.0} ms", of(|p| p.0) * 1e3),
                format!("{:.0} ms with bitmap", of(|p| p.1) * 1e3),
                Some(of(|p| p.0 / p.1)),
                "none",
            );
        };
        row("1,024 writes of 4 KiB all over a cold disk of 128 MiB, contiguous (time)", |took| took.writes);
        row("reading that disk afterwards, contiguous (time)", |took| took.read);
    });
}
