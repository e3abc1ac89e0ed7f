//! Logs and metrics: set up once per process by `main`, never by the library. The names of all metrics are here.

use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::{EnvFilter, filter::ParseError};

use crate::config::LogFormat;

/// 1 while the controller answers.
pub const CONTROLLER_CONNECTED: &str = "muster_agent_controller_connected";
/// Revision of the desired state that is worked on.
pub const DESIRED_REVISION: &str = "muster_agent_desired_revision";
/// Membership epoch.
pub const MEMBERSHIP_EPOCH: &str = "muster_agent_membership_epoch";
/// Bytes of this node's share of the pool.
pub const POOL_USED_BYTES: &str = "muster_agent_pool_used_bytes";
/// Most they may become.
pub const POOL_LIMIT_BYTES: &str = "muster_agent_pool_limit_bytes";
/// Objects in it.
pub const POOL_OBJECTS: &str = "muster_agent_pool_objects";
/// Copies found bad and dropped since the start.
pub const POOL_BAD_COPIES: &str = "muster_agent_pool_bad_copies";
/// Free on the file system.
pub const FREE_BYTES: &str = "muster_agent_free_bytes";
/// Instances here, by state.
pub const INSTANCES: &str = "muster_agent_instances";
/// Conditions that hold, by kind.
pub const CONDITIONS: &str = "muster_agent_conditions";

/// Starts logging to standard error.
///
/// # Errors
/// When `filter` is not one.
pub fn log(filter: &str, format: LogFormat) -> Result<(), ParseError> {
    let filter = EnvFilter::builder().parse(filter)?;
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(ansi).with_writer(std::io::stderr);
    // An error means that somebody logs already; then that is where lines go.
    let _already = match format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    Ok(())
}

/// Starts collecting metrics; the handle prints them.
///
/// # Errors
/// When a recorder is there already.
pub fn metrics() -> Result<PrometheusHandle, BuildError> {
    PrometheusBuilder::new().install_recorder()
}
