//! The dashboard in Debian's Chromium against a real controller and agents. What is proved is in the scripts of
//! `control-plane/dashboard/e2e`; here each gets a cluster of its own. Screenshots, also those of a page that failed, are
//! in `target/dashboard-screenshots`.

use std::{path::Path, time::Duration};

use muster_tests::{Cluster, ClusterOptions, Pattern, Tools, guest, tools::run_within};
use serde_json::json;

const MIB: u64 = 1 << 20;

/// The folder with the scripts. Their packages are beside it.
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../control-plane/dashboard/e2e");

const SCREENSHOTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/dashboard-screenshots");

/// Runs a script against a cluster to its end. `image` is what it uploads, if it does.
async fn prove(cluster: &Cluster, script: &str, image: Option<&Path>, limit: Duration) {
    let packages = Path::new(SCRIPTS).with_file_name("node_modules").join("playwright-core");
    assert!(packages.exists(), "the packages of the dashboard are not installed: run tests/dashboard.sh");
    let mut command = Tools::find().node(Path::new(SCRIPTS).join(script));
    command.env("NODE_EXTRA_CA_CERTS", cluster.controller_dir().join("ca.pem"));
    command.env("MUSTER_URL", &cluster.api.url).env("MUSTER_TOKEN", &cluster.api.token);
    command.env("MUSTER_OUT", SCREENSHOTS);
    if let Some(image) = image {
        command.env("MUSTER_IMAGE", image);
    }
    println!("{}", run_within(limit, command).await);
}

/// Proves something for which no guest has to boot.
async fn prove_with_files(script: &str) {
    let cluster = Cluster::start(ClusterOptions::files(2)).await;
    prove(&cluster, script, None, Duration::from_secs(900)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_new_uploads_deploys_watches_guests_boot_snapshots_forks_and_deletes() {
    let cluster = Cluster::start(ClusterOptions::guests(2)).await;
    // A small disk: the browser sends all of it, zeros too.
    let image = guest::demo_image_of("256MiB");
    prove(&cluster, "tour.mjs", Some(image.as_path()), Duration::from_secs(40 * 60)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_sees_nothing_of_another_project() {
    prove_with_files("tenant.mjs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tabs_share_one_stream_and_show_what_they_missed_while_it_was_lost() {
    prove_with_files("live.mjs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_is_made_grown_moved_to_another_instance_and_deleted() {
    prove_with_files("disks.mjs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wizard_and_the_palette_work_without_a_mouse() {
    prove_with_files("keyboard.mjs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_is_accessible_in_both_themes_and_fits_a_phone() {
    prove_with_files("looks.mjs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_texts_stay_texts_and_pages_of_other_sites_can_do_nothing() {
    prove_with_files("security.mjs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_overview_is_there_within_a_second_and_350_kib() {
    prove_with_files("first-load.mjs").await;
}

/// The daemons are processes, so that they are those of the release.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_instances_never_keep_the_page_busy_for_200_ms() {
    let cluster = Cluster::start(ClusterOptions::files(3).as_processes()).await;
    let file = cluster.dir.join("image.raw");
    Pattern::striped(1, MIB, 4096, MIB).write(&file);
    cluster.api.import("tiny", &file).await;
    let body = json!({ "name": "many", "source": { "image": "tiny" }, "count": 10_000, "runtime": "none" });
    cluster.api.done("/v1/deployments", body, Duration::from_secs(900)).await;
    prove(&cluster, "many.mjs", None, Duration::from_secs(300)).await;
}
