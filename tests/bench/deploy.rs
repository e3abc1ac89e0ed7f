//! The time to start 100 instances at once, and the memory that ten idle disks cost.

use std::time::{Duration, Instant};

use muster_tests::{Cluster, ClusterOptions, Pattern};
use serde_json::json;

use crate::{Table, median};

pub(crate) fn run(table: &mut Table) {
    crate::runtime().block_on(async {
        let cluster = Cluster::start(ClusterOptions::files(3).as_processes()).await;
        let file = cluster.dir.join("image.raw");
        Pattern::striped(51, 64 << 20, 1 << 20, 4 << 20).write(&file);
        cluster.api.import("base", &file).await;
        let mut ours = Vec::new();
        for round in 0..3 {
            let name = format!("d{round}");
            let body = json!({ "name": name, "source": { "image": "base" }, "count": 100, "runtime": "none" });
            let begun = Instant::now();
            cluster.api.done("/v1/deployments", body, Duration::from_secs(60)).await;
            ours.push(begun.elapsed().as_secs_f64());
            let gone: serde_json::Value = cluster.api.delete(&format!("/v1/deployments/{name}")).await.ok();
            cluster.api.wait(gone["id"].as_str().expect("an id"), Duration::from_secs(60)).await;
        }
        let all = median(ours);
        table.row(
            "100 instances, runtime none, 3 agents: POST to all ready",
            format!("{all:.2} s"),
            "-".into(),
            None,
            "< 5 s",
        );
    });
}

pub(crate) fn memory(table: &mut Table) {
    crate::runtime().block_on(async {
        let cluster = Cluster::start(ClusterOptions::files(1).as_processes()).await;
        let file = cluster.dir.join("image.raw");
        Pattern::striped(52, 64 << 20, 1 << 20, 2 << 20).write(&file);
        cluster.api.import("base", &file).await;
        for disk in cluster.api.deploy_files("web", "base", 10).await {
            std::fs::read(disk.disks[0].path.clone().expect("a path")).expect("read the disk once");
        }
        let bytes = muster_tests::cluster::resident(&cluster.agents[0].dir.display().to_string());
        table.row(
            "agent and its helper processes, 10 idle disks: resident",
            format!("{} MiB", bytes >> 20),
            "-".into(),
            None,
            "< 100 MiB",
        );
    });
}
