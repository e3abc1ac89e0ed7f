//! The controller as the agent sees it: a few calls, each with a limit, and three ways to fail.
//!
//! [`HttpController`] is the real one, over mutual TLS to the node door. Tests use [`scripted::ScriptedController`].
//! Nothing here retries: the loops in `agent` and `cuts` do.

pub mod scripted;

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use futures::future::BoxFuture;
use http::header::CONTENT_TYPE;
use muster_api::{
    CommitId, DiskId, ErrorCode, InstanceId, Problem, RunId, SnapshotId,
    node_protocol::{
        CommitOutcome, CommitTrouble, CutReport, Desired, HAS_OWN_PAGES_HEADER, Heartbeat, HeartbeatAnswer, RUN_HEADER,
        RenewAnswer, RenewRequest, Report, RunStart, SalvageOrder, SalvageReport, StagedCommit,
        boot::{BootOrder, BootReport},
        repository::RepositoryOrder,
        sweep::{SweepDone, names_from_bytes, names_to_bytes},
    },
};
use muster_pool::{
    checksum,
    tls::{Ca, Identity, TlsError},
    transport::{CONTROLLER_TLS_NAME, NameTable, http_client, is_untimely, untimely_http_client},
};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::{Serialize, de::DeserializeOwned};
use storage_core::{ObjectName, cause::explain};
use time::{OffsetDateTime, format_description::well_known::Rfc2822};

use crate::clock;

/// Longest a short call may take.
const CALL: Duration = Duration::from_secs(15);
/// Most bytes of an answer. The desired state of thousands of instances is far smaller.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// Why a call to the controller failed, by what helps against it.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// It was not reached, did not answer in time, or answered that it cannot do this now. Asking again later may work.
    #[error("the controller cannot be asked: {0}")]
    Unavailable(String),
    /// It understood the request and refused it. Asking the same again does not help.
    #[error("the controller refused: {0}")]
    Refused(Box<Problem>),
    /// Its answer cannot be read.
    #[error("the controller's answer cannot be read: {0}")]
    Garbled(String),
}

impl ControllerError {
    /// What the controller says if it refused because this node was declared dead.
    #[must_use]
    pub fn fenced(&self) -> Option<&str> {
        match self {
            Self::Refused(problem) if problem.code == ErrorCode::Fenced => Some(&problem.detail),
            Self::Refused(_) | Self::Unavailable(_) | Self::Garbled(_) => None,
        }
    }

    /// The code of a refusal; none for the other errors.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused(problem) => Some(problem.code),
            Self::Unavailable(_) | Self::Garbled(_) => None,
        }
    }
}

/// The future answer of a call.
pub type Call<'a, T> = BoxFuture<'a, Result<T, ControllerError>>;

/// What an agent asks of its controller.
pub trait ControllerClient: Send + Sync {
    /// Registers this process as the one that acts as the node.
    fn start_run(&self, start: RunStart) -> Call<'_, ()>;
    /// Tells that this node lives and what changes slowly.
    fn heartbeat(&self, heartbeat: Heartbeat) -> Call<'_, HeartbeatAnswer>;
    /// Waits for a desired state with a revision above `after`; none when there is none within `wait`.
    fn desired(&self, after: u64, wait: Duration) -> Call<'_, Option<Desired>>;
    /// Reports the instances of this node.
    fn report(&self, report: Report) -> Call<'_, ()>;
    /// Tells in which order a start of an instance first read the chunks of a disk.
    fn boot(&self, instance: InstanceId, report: BootReport) -> Call<'_, ()>;
    /// Asks what a start is likely to read of a disk; none if nothing is known.
    fn boot_order(&self, instance: InstanceId, disk: DiskId) -> Call<'_, Option<BootOrder>>;
    /// Reports how a cut went that this node coordinated.
    fn cut_report(&self, snapshot: SnapshotId, report: CutReport) -> Call<'_, ()>;
    /// Stages a commit. All its objects must be durable (I3).
    fn stage(&self, commit: CommitId, staged: StagedCommit) -> Call<'_, CommitOutcome>;
    /// Tells why a commit cannot be saved or staged.
    fn commit_trouble(&self, commit: CommitId, trouble: CommitTrouble) -> Call<'_, CommitOutcome>;
    /// Asks what became of a commit.
    fn outcome(&self, commit: CommitId) -> Call<'_, CommitOutcome>;
    /// Asks which disks are awaited of this node, which was declared dead; `None` if none is.
    fn salvage_order(&self) -> Call<'_, Option<SalvageOrder>>;
    /// Tells how the saving of one of these disks went.
    fn salvaged(&self, disk: DiskId, report: SalvageReport) -> Call<'_, ()>;
    /// Asks for the next objects after `after`, in order, that nothing needs since a round of the sweep; empty at the end.
    fn sweep_dead(&self, round: u64, after: Option<ObjectName>) -> Call<'_, Vec<ObjectName>>;
    /// Asks about objects of this node, in order. The answer has those that nothing needs.
    fn sweep_judge(&self, round: u64, names: Vec<ObjectName>) -> Call<'_, Vec<ObjectName>>;
    /// Tells what a round of the sweep did on this node.
    fn sweep_done(&self, round: u64, done: SweepDone) -> Call<'_, ()>;
    /// Asks for the repository of the pool.
    fn repository(&self) -> Call<'_, RepositoryOrder>;
    /// Asks for a new certificate for this node's key.
    fn renew(&self, request: RenewRequest) -> Call<'_, RenewAnswer>;
    /// Seconds that the controller's clock is ahead of this node's, as of its last answer; none before the first.
    fn clock_offset_s(&self) -> Option<i64>;
}

/// Calls the controller at its node door.
///
/// While its certificate is not valid by this node's clock, its answers are not trusted, so nothing is asked of it. But it
/// is still told that this node lives and how its instances are, so that it can show `clock_off`.
pub struct HttpController {
    http: reqwest::Client,
    /// For telling while this node's clock is wrong.
    untimely: reqwest::Client,
    run: RunId,
    offset_s: AtomicI64,
}

const OFFSET_UNKNOWN: i64 = i64::MIN;
/// Calls that only tell something, so that they make sense although their answer is not used.
const TOLD: [&str; 2] = ["heartbeat", "report"];

impl HttpController {
    /// Calls `address` (`HOST:PORT` of the node door) with this node's identity, as the process `run`.
    ///
    /// # Errors
    /// When the TLS client cannot be built.
    pub fn new(identity: &Identity, ca: &Ca, address: &str, run: RunId) -> Result<Self, TlsError> {
        let names = NameTable::new();
        names.set(CONTROLLER_TLS_NAME, address);
        let untimely = untimely_http_client(identity, ca, names.clone())?;
        Ok(Self { http: http_client(identity, ca, names)?, untimely, run, offset_s: AtomicI64::new(OFFSET_UNKNOWN) })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&(impl Serialize + Sync)>,
        limit: Duration,
    ) -> Result<Response, ControllerError> {
        self.send_as(method, path, limit, |request| body.iter().fold(request, |request, body| request.json(body))).await
    }

    async fn send_as(
        &self,
        method: Method,
        path: &str,
        limit: Duration,
        with_body: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Response, ControllerError> {
        let request = |http: &reqwest::Client| {
            let request = http.request(method.clone(), format!("https://{CONTROLLER_TLS_NAME}/node/v1/{path}"));
            with_body(request.timeout(limit).header(RUN_HEADER, self.run.to_string()))
        };
        let answer = match checksum::send(request(&self.http)).await {
            Ok(answer) => answer,
            Err(error) => {
                if TOLD.contains(&path)
                    && is_untimely(&error)
                    && let Ok(answer) = checksum::send(request(&self.untimely)).await
                {
                    self.note_time(&answer);
                }
                return Err(ControllerError::Unavailable(explain(&error)));
            }
        };
        self.note_time(&answer);
        if answer.status().is_success() { Ok(answer) } else { Err(refused(answer).await) }
    }

    fn note_time(&self, answer: &Response) {
        if let Some(date) = answer.headers().get(http::header::DATE).and_then(|d| d.to_str().ok())
            && let Ok(theirs) = OffsetDateTime::parse(date, &Rfc2822)
        {
            self.offset_s.store(theirs.unix_timestamp() - clock::now_s(), Ordering::Relaxed);
        }
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&(impl Serialize + Sync)>,
    ) -> Result<T, ControllerError> {
        read(self.send(method, path, body, CALL).await?).await
    }
}

const NOTHING: Option<&()> = None;

impl ControllerClient for HttpController {
    fn start_run(&self, start: RunStart) -> Call<'_, ()> {
        Box::pin(async move { self.send(Method::POST, "runs", Some(&start), CALL).await.map(drop) })
    }

    fn heartbeat(&self, heartbeat: Heartbeat) -> Call<'_, HeartbeatAnswer> {
        Box::pin(async move { self.call(Method::POST, "heartbeat", Some(&heartbeat)).await })
    }

    fn desired(&self, after: u64, wait: Duration) -> Call<'_, Option<Desired>> {
        Box::pin(async move {
            let path = format!("desired?after={after}&wait_s={}", wait.as_secs());
            // The first answer to a process has all pages: it knows none, and may have missed the end of its last commit.
            let has_own_pages = after > 0;
            let with_header = |request: RequestBuilder| match has_own_pages {
                true => request.header(HAS_OWN_PAGES_HEADER, "1"),
                false => request,
            };
            let answer = self.send_as(Method::GET, &path, wait + CALL, with_header).await?;
            if answer.status() == StatusCode::NO_CONTENT { Ok(None) } else { read(answer).await.map(Some) }
        })
    }

    fn report(&self, report: Report) -> Call<'_, ()> {
        Box::pin(async move { self.send(Method::POST, "report", Some(&report), CALL).await.map(drop) })
    }

    fn boot(&self, instance: InstanceId, report: BootReport) -> Call<'_, ()> {
        Box::pin(
            async move { self.send(Method::POST, &format!("boots/{instance}"), Some(&report), CALL).await.map(drop) },
        )
    }

    fn boot_order(&self, instance: InstanceId, disk: DiskId) -> Call<'_, Option<BootOrder>> {
        Box::pin(async move {
            let answer = self.send(Method::GET, &format!("boots/{instance}/{disk}"), NOTHING, CALL).await?;
            if answer.status() == StatusCode::NO_CONTENT { Ok(None) } else { read(answer).await.map(Some) }
        })
    }

    fn cut_report(&self, snapshot: SnapshotId, report: CutReport) -> Call<'_, ()> {
        Box::pin(
            async move { self.send(Method::POST, &format!("cuts/{snapshot}"), Some(&report), CALL).await.map(drop) },
        )
    }

    fn stage(&self, commit: CommitId, staged: StagedCommit) -> Call<'_, CommitOutcome> {
        Box::pin(async move { self.call(Method::PUT, &format!("commits/{commit}"), Some(&staged)).await })
    }

    fn commit_trouble(&self, commit: CommitId, trouble: CommitTrouble) -> Call<'_, CommitOutcome> {
        Box::pin(async move { self.call(Method::POST, &format!("commits/{commit}"), Some(&trouble)).await })
    }

    fn outcome(&self, commit: CommitId) -> Call<'_, CommitOutcome> {
        Box::pin(async move { self.call(Method::GET, &format!("commits/{commit}"), NOTHING).await })
    }

    fn salvage_order(&self) -> Call<'_, Option<SalvageOrder>> {
        Box::pin(async move {
            let answer = self.send(Method::GET, "salvage", NOTHING, CALL).await?;
            if answer.status() == StatusCode::NO_CONTENT { Ok(None) } else { read(answer).await.map(Some) }
        })
    }

    fn salvaged(&self, disk: DiskId, report: SalvageReport) -> Call<'_, ()> {
        Box::pin(
            async move { self.send(Method::POST, &format!("salvage/{disk}"), Some(&report), CALL).await.map(drop) },
        )
    }

    fn sweep_dead(&self, round: u64, after: Option<ObjectName>) -> Call<'_, Vec<ObjectName>> {
        Box::pin(async move {
            let after = after.map_or_else(String::new, |name| format!("?after={name}"));
            names(self.send(Method::GET, &format!("sweep/{round}/dead{after}"), NOTHING, CALL).await?).await
        })
    }

    fn sweep_judge(&self, round: u64, asked: Vec<ObjectName>) -> Call<'_, Vec<ObjectName>> {
        Box::pin(async move {
            let body = names_to_bytes(&asked);
            let path = format!("sweep/{round}/judge");
            let answer = self.send_as(Method::POST, &path, CALL, |request| {
                request.header(CONTENT_TYPE, "application/octet-stream").body(body.clone())
            });
            names(answer.await?).await
        })
    }

    fn sweep_done(&self, round: u64, done: SweepDone) -> Call<'_, ()> {
        let path = format!("sweep/{round}/done");
        Box::pin(async move { self.send(Method::POST, &path, Some(&done), CALL).await.map(drop) })
    }

    fn repository(&self) -> Call<'_, RepositoryOrder> {
        Box::pin(async move { self.call(Method::GET, "repository", NOTHING).await })
    }

    fn renew(&self, request: RenewRequest) -> Call<'_, RenewAnswer> {
        Box::pin(async move { self.call(Method::POST, "renew", Some(&request)).await })
    }

    fn clock_offset_s(&self) -> Option<i64> {
        Some(self.offset_s.load(Ordering::Relaxed)).filter(|s| *s != OFFSET_UNKNOWN)
    }
}

/// The error for an answer without success.
pub(crate) async fn refused(answer: Response) -> ControllerError {
    let status = answer.status();
    let body = match bytes(answer).await {
        Ok(body) => body,
        Err(error) => return error,
    };
    let problem = serde_json::from_slice::<Problem>(&body).unwrap_or_else(|_| {
        let text = String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned();
        Problem::new(ErrorCode::Unknown, format!("it answered {status}: {text}"))
    });
    match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => ControllerError::Unavailable(problem.detail),
        _ if status.is_server_error() => ControllerError::Unavailable(problem.detail),
        _ => ControllerError::Refused(Box::new(problem)),
    }
}

/// Reads a JSON answer of bounded length.
pub(crate) async fn read<T: DeserializeOwned>(answer: Response) -> Result<T, ControllerError> {
    serde_json::from_slice(&bytes(answer).await?).map_err(|e| ControllerError::Garbled(e.to_string()))
}

/// Reads an answer that has names of objects.
async fn names(answer: Response) -> Result<Vec<ObjectName>, ControllerError> {
    names_from_bytes(&bytes(answer).await?).map_err(ControllerError::Garbled)
}

async fn bytes(mut answer: Response) -> Result<Vec<u8>, ControllerError> {
    let mut body = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(|e| ControllerError::Unavailable(explain(&e)))? {
        if body.len() + piece.len() > ANSWER_BYTES_MAX {
            return Err(ControllerError::Garbled(format!("it is over {ANSWER_BYTES_MAX} bytes")));
        }
        body.extend_from_slice(&piece);
    }
    checksum::check_answer(answer.status(), answer.headers(), &body)
        .map_err(|e| ControllerError::Unavailable(e.to_string()))?;
    Ok(body)
}
