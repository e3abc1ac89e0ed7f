//! Agent and holder stay small.

use std::time::Duration;

use muster_tests::{Cluster, ClusterOptions, Pattern, cluster::resident, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn agent_and_holder_with_ten_idle_disks_stay_under_100_mib() {
    let cluster = Cluster::start(ClusterOptions::files(1)).await;
    let file = cluster.dir.join("image.raw");
    Pattern::striped(41, 64 << 20, 1 << 20, 2 << 20).write(&file);
    cluster.api.import("base", &file).await;
    for disk in cluster.api.deploy_files("web", "base", 10).await {
        std::fs::read(disk.disks[0].path.clone().expect("a path")).expect("read the disk once");
    }
    let marker = cluster.agents[0].dir.display().to_string();
    eventually("at rest", Duration::from_secs(20), async || {
        let bytes = resident(&marker);
        assert!(bytes > 0, "nothing found");
        if bytes < 100 << 20 { Ok(()) } else { Err(format!("{} MiB", bytes >> 20)) }
    })
    .await;
}
