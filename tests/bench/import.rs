//! Imports a raw image of 2 GiB with 440 MiB of data. The reference is hashing and copying the same file.

use std::{fs::File, path::Path, process::Command, time::Instant};

use muster_tests::{Cluster, ClusterOptions};
use serde_json::{Value, json};

use crate::{Table, median};

const SIZE: u64 = 2 << 30;
const DATA: u64 = 440 << 20;
const RUN: u64 = 4 << 20;

/// Makes the image: 110 runs of 4 MiB spread over the file, half of them like text, half of them incompressible.
fn make(path: &Path) {
    use std::os::unix::fs::FileExt as _;
    let file = File::create(path).expect("create the image");
    file.set_len(SIZE).expect("size the image");
    let mut word = 0x9E37_79B9_7F4A_7C15_u64;
    let runs = DATA / RUN;
    for run in 0..runs {
        let wanted = usize::try_from(RUN).expect("fits");
        let mut bytes = Vec::with_capacity(wanted + 64);
        while bytes.len() < wanted {
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            if run % 2 == 0 {
                bytes.extend_from_slice(&word.to_le_bytes());
            } else {
                bytes.extend_from_slice(format!("{:08x} lib muster ", word & 0xffff).as_bytes());
            }
        }
        bytes.truncate(wanted);
        file.write_all_at(&bytes, run * (SIZE / runs)).expect("write the image");
    }
    file.sync_all().expect("sync the image");
}

fn seconds(mut command: Command) -> f64 {
    let begun = Instant::now();
    let done = command.output().expect("run the reference");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    begun.elapsed().as_secs_f64()
}

pub(crate) fn run(table: &mut Table) {
    crate::runtime().block_on(async {
        let cluster = Cluster::start(ClusterOptions::files(3).as_processes()).await;
        let (file, copy) = (cluster.dir.join("image.raw"), cluster.dir.join("copy.raw"));
        make(&file);
        let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..3 {
            let mut hash = Command::new("b3sum");
            hash.arg(&file);
            let mut dd = Command::new("dd");
            dd.arg(format!("if={}", file.display()))
                .arg(format!("of={}", copy.display()))
                .args(["bs=1M", "conv=fsync"]);
            let reference = seconds(hash) + seconds(dd);
            std::fs::remove_file(&copy).expect("remove the copy");
            let name = format!("image-{round}");
            let _: Value = cluster.api.post("/v1/images", json!({ "name": name })).await.ok();
            // Later imports would find their objects stored already, so each round gets content of its own.
            let salt = File::options().write(true).open(&file).expect("open the image");
            salt_every_chunk(&salt, round);
            let begun = Instant::now();
            let done = tokio::process::Command::new(muster_tests::binary("muster"))
                .args(["image", "import", &format!("{name}-cli")])
                .arg(&file)
                .env("MUSTER_URL", &cluster.api.url)
                .env("MUSTER_TOKEN", &cluster.api.token)
                .env("MUSTER_CA", cluster.controller_dir().join("ca.pem"))
                .output()
                .await
                .expect("run muster");
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            let import = begun.elapsed().as_secs_f64();
            ratios.push(reference / import);
            ours.push(import);
            theirs.push(reference);
        }
        table.row(
            "import, 2 GiB raw with 440 MiB of data (speed)",
            format!("{:.2} s", median(ours)),
            format!("{:.2} s b3sum + dd conv=fsync", median(theirs)),
            Some(median(ratios)),
            ">= 0.5",
        );
    });
}

/// Changes eight bytes in every chunk with data, so that no object of an earlier round can be used again.
fn salt_every_chunk(file: &File, round: u64) {
    use std::os::unix::fs::FileExt as _;
    let runs = DATA / RUN;
    for run in 0..runs {
        for chunk in 0..RUN / (256 << 10) {
            let at = run * (SIZE / runs) + chunk * (256 << 10);
            file.write_all_at(&(round * 0x0101_0101_0101 + at + 1).to_le_bytes(), at).expect("salt the image");
        }
    }
    file.sync_all().expect("sync the image");
}
