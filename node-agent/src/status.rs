//! `muster-agent status`: how the agent on a data folder is, over a socket in that folder.

use std::{
    io::{self, Read as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use muster_api::{
    ClusterId, NodeId, Timestamp,
    node::{Condition, PoolUse},
    node_protocol::{InstanceReport, Offer},
};
use serde::Serialize;
use tokio::{io::AsyncWriteExt as _, net::UnixListener, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// Connections are answered one after the other, each within this time.
const ANSWER: Duration = Duration::from_secs(2);

/// How an agent is.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Its version.
    pub version: &'static str,
    /// Node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Cluster.
    pub cluster: ClusterId,
    /// Node door of its controller.
    pub controller: String,
    /// Whether the last heartbeat was answered.
    pub connected: bool,
    /// When one was last.
    pub last_answer_at: Option<Timestamp>,
    /// Where peers reach it.
    pub advertise: String,
    /// Revision of the desired state it works on.
    pub desired_revision: u64,
    /// Membership epoch it works with.
    pub membership_epoch: u64,
    /// What it offers.
    pub offer: Offer,
    /// Its share of the pool.
    pub pool: PoolUse,
    /// What an operator should know.
    pub conditions: Vec<Condition>,
    /// Instances as last reported.
    pub instances: Vec<InstanceReport>,
}

fn socket(data_dir: &Path) -> PathBuf {
    data_dir.join("agent.sock")
}

/// Asks the agent that runs on `data_dir`; its answer is JSON.
///
/// # Errors
/// When none runs there, or it does not answer.
pub fn ask(data_dir: &Path) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket(data_dir))?;
    stream.set_read_timeout(Some(ANSWER * 2))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// Answers everyone who connects until `cancel`. Without the socket the agent works all the same.
pub async fn serve(data_dir: PathBuf, status: impl Fn() -> Status + Send, cancel: CancellationToken) {
    let path = socket(&data_dir);
    // Left by an earlier process; the lock says that there is no other.
    let _was_not_there = std::fs::remove_file(&path);
    let listener = match UnixListener::bind(&path) {
        Ok(listener) => listener,
        Err(error) => {
            warn!(socket = %path.display(), %error, "status cannot be asked");
            return cancel.cancelled().await;
        }
    };
    loop {
        let accepted = tokio::select! { () = cancel.cancelled() => break, accepted = listener.accept() => accepted };
        let Ok((mut stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let text = serde_json::to_string_pretty(&status()).unwrap_or_default();
        let _asker_gone = timeout(ANSWER, stream.write_all(text.as_bytes())).await;
    }
    let _gone_already = std::fs::remove_file(&path);
}
