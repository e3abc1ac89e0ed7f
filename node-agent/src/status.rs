//! `muster-agent status`: asks the agent that runs on a data folder, over a socket in that folder.

use std::{
    io::{self, Read as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use muster_api::{
    ClusterId, NodeId, Timestamp,
    condition::Condition,
    node::{PoolUse, Repair, Scrub},
    node_protocol::{InstanceReport, Offer},
};
use serde::Serialize;
use tokio::{io::AsyncWriteExt as _, net::UnixListener, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{fenced::Fenced, sweep::SweepStatus};

/// Longest time for one connection. Connections are answered one after the other.
const ANSWER: Duration = Duration::from_secs(2);

/// What an agent says about itself.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Version of the running agent, as in its package.
    pub version: &'static str,
    /// Id of the node, given at its join.
    pub node: NodeId,
    /// Name of the node, given at its join.
    pub name: String,
    /// Id of the cluster it has joined.
    pub cluster: ClusterId,
    /// `HOST:PORT` of the controller's node door.
    pub controller: String,
    /// Whether the last heartbeat was answered.
    pub connected: bool,
    /// When a heartbeat was last answered; none since the start.
    pub last_answer_at: Option<Timestamp>,
    /// `IP:PORT` at which other nodes reach it.
    pub advertise: String,
    /// Revision of the desired state it works on.
    pub desired_revision: u64,
    /// Membership epoch it works with.
    pub membership_epoch: u64,
    /// What it offers to instances.
    pub offer: Offer,
    /// `IP:PORT` at which it takes packets of the tunnels between networks; none if it can have no networks.
    pub tunnel: Option<String>,
    /// Why networks of this node are not as wanted, or why it can have none.
    pub network_troubles: Vec<String>,
    /// Its share of the pool.
    pub pool: PoolUse,
    /// How far it is with sending copies that other nodes lack; none before its first pass.
    pub repair: Option<Repair>,
    /// How far it is with reading and hashing its share of the pool.
    pub scrub: Scrub,
    /// The round of the sweep that it carries out, and the last one.
    pub sweep: SweepStatus,
    /// What an operator should know.
    pub conditions: Vec<Condition>,
    /// What to do, because the controller's database does not know this node; none while it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unlisted: Option<String>,
    /// When and in which words it learned that it was declared dead. Then its guests are off for good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fenced: Option<Fenced>,
    /// Instances as they were last reported to the controller.
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

/// Answers everyone who connects until `cancel`. The agent also works when the socket cannot be made.
pub async fn serve(data_dir: PathBuf, status: impl Fn() -> Status + Send, cancel: CancellationToken) {
    let path = socket(&data_dir);
    // An earlier process left it. The lock on the data folder says that no other agent runs.
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
        let text = serde_json::to_string_pretty(&status()).expect("a status is JSON");
        let _asker_gone = timeout(ANSWER, stream.write_all(text.as_bytes())).await;
    }
    let _gone_already = std::fs::remove_file(&path);
}
