//! Sets up logs and metrics, and names all metrics. Only `main` calls the functions here, once per process.

use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::{EnvFilter, filter::ParseError};

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// One line of text each, for people.
    #[default]
    Text,
    /// One JSON object each, for programs.
    Json,
}

/// 1 while the controller answers, else 0.
pub const CONTROLLER_CONNECTED: &str = "muster_agent_controller_connected";
/// 1 once the node was declared dead, else absent.
pub const FENCED: &str = "muster_agent_fenced";
/// Revision of the desired state that the agent works on.
pub const DESIRED_REVISION: &str = "muster_agent_desired_revision";
/// Epoch of the membership record that the agent works with.
pub const MEMBERSHIP_EPOCH: &str = "muster_agent_membership_epoch";
/// Bytes stored in this node's share of the pool.
pub const POOL_USED_BYTES: &str = "muster_agent_pool_used_bytes";
/// Most bytes this node's share of the pool may take.
pub const POOL_LIMIT_BYTES: &str = "muster_agent_pool_limit_bytes";
/// Number of objects in this node's share of the pool.
pub const POOL_OBJECTS: &str = "muster_agent_pool_objects";
/// Copies of objects that were found damaged and dropped since the agent started.
pub const POOL_BAD_COPIES: &str = "muster_agent_pool_bad_copies";
/// Objects that this node's share of the pool lost and that were neither stored again nor acknowledged.
pub const POOL_LOST_OBJECTS: &str = "muster_agent_pool_lost_objects";
/// Their stored bytes.
pub const POOL_LOST_BYTES: &str = "muster_agent_pool_lost_bytes";
/// Objects that the newest pass of the repair has not compared with other nodes yet.
pub const REPAIR_UNCHECKED_OBJECTS: &str = "muster_agent_repair_unchecked_objects";
/// Copies that other nodes lack, that this one has to send, and that it has not sent.
pub const REPAIR_MISSING_OBJECTS: &str = "muster_agent_repair_missing_objects";
/// Their stored bytes.
pub const REPAIR_MISSING_BYTES: &str = "muster_agent_repair_missing_bytes";
/// Nodes that did not answer in the newest pass of the repair.
pub const REPAIR_SILENT_NODES: &str = "muster_agent_repair_silent_nodes";
/// Copies that the repair has sent since the agent started.
pub const REPAIR_COPIED_OBJECTS: &str = "muster_agent_repair_copied_objects_total";
/// Their stored bytes.
pub const REPAIR_COPIED_BYTES: &str = "muster_agent_repair_copied_bytes_total";
/// Copies that belong to other nodes, which do not all have them yet, as far as the present pass knows.
pub const HAND_OVER_SURPLUS_OBJECTS: &str = "muster_agent_hand_over_surplus_objects";
/// Copies that were dropped since the agent started, because the nodes that they belong to have them.
pub const HANDED_OVER_OBJECTS: &str = "muster_agent_handed_over_objects_total";
/// Their stored bytes.
pub const HANDED_OVER_BYTES: &str = "muster_agent_handed_over_bytes_total";
/// Stored bytes of this node's share of the pool that the scrub has hashed since the agent started.
pub const POOL_SCRUBBED_BYTES: &str = "muster_agent_pool_scrubbed_bytes_total";
/// How much of the pool the round of the scrub that goes on has read, 0 to 1.
pub const POOL_SCRUB_DONE: &str = "muster_agent_pool_scrub_done";
/// When the last full round of the scrub ended, in seconds since 1970; absent before the first.
pub const POOL_SCRUB_ENDED_S: &str = "muster_agent_pool_scrub_ended_seconds";
/// Copies that the scrub found no good since the agent started, by `what`: `bad` (rotten or gone), `unreadable`.
pub const POOL_SCRUB_FOUND: &str = "muster_agent_pool_scrub_found_total";
/// Copies that the disk does not read. They do not count.
pub const POOL_UNREADABLE_COPIES: &str = "muster_agent_pool_unreadable_copies";
/// Bytes that the cache gave back since the agent started because the disk filled up.
pub const CACHE_GIVEN_BACK_BYTES: &str = "muster_agent_cache_given_back_bytes_total";
/// Bytes of memory that objects take which disks have read from this node's share of the pool.
pub const POOL_MEMORY_BYTES: &str = "muster_agent_pool_memory_bytes";
/// Objects that disks have read from this node's share of the pool since the agent started, each time they were not in memory.
pub const POOL_OWN_READS: &str = "muster_agent_pool_own_reads_total";
/// Objects of this node's share of the pool that the sweep has dropped since the agent started.
pub const POOL_SWEPT_OBJECTS: &str = "muster_agent_pool_swept_objects_total";
/// Their stored bytes.
pub const POOL_SWEPT_BYTES: &str = "muster_agent_pool_swept_bytes_total";
/// Bytes that the sweep has given back to the disk since the agent started.
pub const POOL_RECLAIMED_BYTES: &str = "muster_agent_pool_reclaimed_bytes_total";
/// The last round of the sweep that the agent has carried out.
pub const SWEEP_ROUND: &str = "muster_agent_sweep_round";
/// Objects that this node has to write to the repository and has not written.
pub const REPOSITORY_BEHIND_OBJECTS: &str = "muster_agent_repository_behind_objects";
/// Their stored bytes.
pub const REPOSITORY_BEHIND_BYTES: &str = "muster_agent_repository_behind_bytes";
/// How long the oldest of them has waited, seconds.
pub const REPOSITORY_BEHIND_SECONDS: &str = "muster_agent_repository_behind_seconds";
/// 1 while the repository cannot be used, else 0.
pub const REPOSITORY_FAILING: &str = "muster_agent_repository_failing";
/// Objects of which this node gave its copy up, because the repository has them.
pub const REPOSITORY_EVICTED_OBJECTS: &str = "muster_agent_repository_evicted_objects";
/// Stored bytes of those copies.
pub const REPOSITORY_EVICTED_BYTES: &str = "muster_agent_repository_evicted_bytes";
/// Objects that the repository has no good body of, and that no node has.
pub const REPOSITORY_MISSING_OBJECTS: &str = "muster_agent_repository_missing_objects";
/// Objects that this node has written to the repository since the agent started.
pub const REPOSITORY_UPLOADED_OBJECTS: &str = "muster_agent_repository_uploaded_objects_total";
/// Bytes of their bodies.
pub const REPOSITORY_UPLOADED_BYTES: &str = "muster_agent_repository_uploaded_bytes_total";
/// Objects that this node has read from the repository since the agent started.
pub const REPOSITORY_FETCHED_OBJECTS: &str = "muster_agent_repository_fetched_objects_total";
/// Bytes of their bodies.
pub const REPOSITORY_FETCHED_BYTES: &str = "muster_agent_repository_fetched_bytes_total";
/// Objects that this node has deleted in the repository since the agent started.
pub const REPOSITORY_DELETED_OBJECTS: &str = "muster_agent_repository_deleted_objects_total";
/// Bodies read from the repository since the agent started that were not the object.
pub const REPOSITORY_BAD_BODIES: &str = "muster_agent_repository_bad_bodies_total";
/// Calls to the repository that failed since the agent started.
pub const REPOSITORY_ERRORS: &str = "muster_agent_repository_errors_total";
/// Chunks that were dropped from the cache since the agent started because their bytes were damaged.
pub const CACHE_BAD_CHUNKS: &str = "muster_agent_cache_bad_chunks_total";
/// Bytes of objects that this node fetched from other nodes since the agent started.
pub const FETCHED_BYTES: &str = "muster_agent_fetched_bytes_total";
/// Bytes of objects that this node gave to other nodes and to controllers since the agent started.
pub const SERVED_BYTES: &str = "muster_agent_served_bytes_total";
/// Bytes that guests and programs read from this node's disks since the agent started.
pub const READ_BYTES: &str = "muster_agent_disks_read_bytes_total";
/// Bytes that they wrote.
pub const WRITTEN_BYTES: &str = "muster_agent_disks_written_bytes_total";
/// Boot orders that were recorded since the agent started, by what became of them: `told`, `refused`, `lost` (the controller
/// did not answer), `unwanted` (it is too old to take them).
pub const BOOT_ORDERS: &str = "muster_agent_boot_orders_total";
/// Bytes that came from other nodes for starts before their guests asked for them, since the agent started.
pub const PREFETCHED_BYTES: &str = "muster_agent_prefetched_bytes_total";
/// Times that this was broken off since the agent started, by why: `no_room` (the cache would have to drop what was read lately, or the
/// disk is near full), `failed`.
pub const PREFETCHES_BROKEN_OFF: &str = "muster_agent_prefetches_broken_off_total";
/// Objects that came so.
pub const PREFETCHED_OBJECTS: &str = "muster_agent_prefetched_objects_total";
/// Rounds of freezing guests for a cut since the agent started, by what became of them: `frozen`, `failed`.
pub const FREEZES: &str = "muster_agent_freezes_total";
/// Free bytes on the file system of the data folder.
pub const FREE_BYTES: &str = "muster_agent_free_bytes";
/// Number of instances on this node, by state.
pub const INSTANCES: &str = "muster_agent_instances";
/// Number of conditions that hold, by kind.
pub const CONDITIONS: &str = "muster_agent_conditions";
/// Serial consoles, screens and ports of guests that clients have open.
pub const CONSOLES: &str = "muster_agent_consoles";
/// How often clients opened consoles since the agent started, by kind.
pub const CONSOLES_OPENED: &str = "muster_agent_consoles_opened_total";
/// Networks that cards of this node are in.
pub const NETWORKS: &str = "muster_agent_networks";
/// Cards of instances in networks on this node.
pub const CARDS: &str = "muster_agent_network_cards";
/// Frames of guests that were dropped since the agent started because their sender was not who it said. Counted once a
/// minute.
pub const SPOOFED_FRAMES: &str = "muster_agent_network_spoofed_frames_total";
/// Servers of addresses and names that ended by themselves and were started again.
pub const DNSMASQ_RESTARTS: &str = "muster_agent_network_dnsmasq_restarts_total";
/// Threads that serve disks. They follow the requests under way, not the number of disks.
pub const SERVING_THREADS: &str = "muster_agent_serving_threads";

/// Starts logging to standard error.
///
/// # Errors
/// [`ParseError`] if `filter` is not in the syntax of `RUST_LOG`.
pub fn log(filter: &str, format: LogFormat) -> Result<(), ParseError> {
    // The client of the repository tells of each repetition, hundreds of lines a minute while the store is away. We tell why calls
    // failed. `object_store=info` in the filter brings them back.
    let filter = EnvFilter::builder().parse(format!("object_store=warn,{filter}"))?;
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(ansi).with_writer(std::io::stderr);
    // This fails if a subscriber is installed already. That one then receives the lines.
    let _already = match format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    Ok(())
}

/// Starts collecting metrics. The handle renders them in the text format of Prometheus.
///
/// # Errors
/// [`BuildError`] if a recorder is installed already.
pub fn metrics() -> Result<PrometheusHandle, BuildError> {
    PrometheusBuilder::new().install_recorder()
}
