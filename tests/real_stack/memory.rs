//! Limits of the daemons' memory.

use std::{fs::File, os::unix::fs::FileExt as _, path::Path, process::Command, time::Duration};

use futures::stream;
use muster_api::{
    image::{Image, ImageState},
    version::Version,
};
use muster_tests::{Cluster, ClusterOptions, Pattern, cluster::resident, eventually};
use reqwest::{Body, Method};
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn agent_and_holder_with_ten_idle_disks_stay_under_100_mib() {
    let cluster = Cluster::start(ClusterOptions::files(1).as_processes()).await;
    let file = cluster.dir.join("image.raw");
    Pattern::striped(41, 64 << 20, 1 << 20, 2 << 20).write(&file);
    cluster.api.import("base", &file).await;
    for disk in cluster.api.deploy_files("web", "base", 10).await {
        std::fs::read(disk.disks[0].path.clone().expect("a path")).expect("read the disk once");
    }
    let marker = cluster.agents[0].dir.display().to_string();
    // Objects of the node's own share stay in memory for 20 s after they were read.
    eventually("at rest", Duration::from_secs(100), async || {
        let bytes = resident(&marker);
        assert!(bytes > 0, "nothing found");
        if bytes < 100 << 20 { Ok(()) } else { Err(format!("{} MiB", bytes >> 20)) }
    })
    .await;
}

/// An image of 2 GiB with 440 MiB of data: once as raw, of which every byte crosses the network, and once as qcow2.
#[tokio::test(flavor = "multi_thread")]
async fn a_controller_takes_2_gib_in_less_than_256_mib() {
    let cluster = Cluster::start(ClusterOptions::files(2).as_processes()).await;
    let (raw, qcow2) = (cluster.dir.join("image.raw"), cluster.dir.join("image.qcow2"));
    let data = (0..110).map(|run| (run * 18 * MIB, 4 * MIB)).collect();
    let image = Pattern { seed: 42, size: 2048 * MIB, data };
    image.write(&raw);
    let converted =
        Command::new("qemu-img").args(["convert", "-f", "raw", "-O", "qcow2"]).arg(&raw).arg(&qcow2).status();
    assert!(converted.expect("run qemu-img").success());
    for (name, file) in [("raw", &raw), ("qcow2", &qcow2)] {
        let api = &cluster.api;
        let _: Value = api.post("/v1/images", json!({ "name": name })).await.ok();
        let put = api.request(Method::PUT, &format!("/v1/images/{name}/content?format={name}"));
        let version: Version = api.send(put.body(streamed(file))).await.ok();
        let peak = cluster.controller_peak_resident();
        assert!(peak < 256 * MIB, "{} MiB were resident at the most while {name} was taken", peak >> 20);
        assert_eq!(version.size_bytes, image.size);
        let now: Image = api.get(&format!("/v1/images/{name}")).await.ok();
        assert_eq!((now.state, now.newest_version), (ImageState::Ready, Some(version.id)));
        // Read back the last run of data and a part of the hole before it.
        let (at, length) = image.data.last().map(|&(at, length)| (at - MIB, length + MIB)).expect("data");
        let get = api.request(Method::GET, &format!("/v1/versions/{}/content", version.id));
        let get = get.header("range", format!("bytes={at}-{}", at + length - 1));
        let got = get.send().await.expect("an answer").bytes().await.expect("the range");
        assert_eq!(got.len() as u64, length);
        image.check(at, &got);
    }
}

/// The file as the body of a request, with one piece in memory at a time.
fn streamed(file: &Path) -> Body {
    let file = File::open(file).expect("open the image");
    Body::wrap_stream(stream::try_unfold((file, 0_u64), async |(file, at)| {
        tokio::task::spawn_blocking(move || {
            let mut piece = vec![0; 1 << 20];
            let length = file.read_at(&mut piece, at)?;
            piece.truncate(length);
            Ok::<_, std::io::Error>((length > 0).then_some((piece, (file, at + length as u64))))
        })
        .await?
    }))
}
