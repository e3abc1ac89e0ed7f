//! Everything that can end a command, and the exit code of each.

use std::{fmt, io, path::PathBuf};

use muster_api::{ErrorCode, Problem, deployment::ReasonCount, operation::Operation};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{
    answer::{Misfit, Object},
    cells,
    places::Words,
};

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line or the settings make no sense.
    #[error("{0}")]
    Usage(String),
    /// The interface reserves the command, but it is not built yet.
    #[error("`muster {0}` is reserved and not built yet")]
    NotBuiltYet(String),
    /// The controller refused.
    #[error("{}", problem_text(&.0.read, &.0.sent, Words::default()))]
    Refused(Box<Object<Problem>>),
    /// The operation failed or was cancelled.
    #[error("{}", operation_text(.0))]
    Unsuccessful(Box<Object<Operation>>),
    /// Waiting ended before the work did.
    #[error("{}", still_text(&.operation.read, *.why))]
    StillGoing {
        /// The operation as last seen.
        operation: Box<Object<Operation>>,
        /// What ended the waiting.
        why: Ended,
    },
    /// The controller cannot be reached.
    #[error("cannot reach {url}: {reason}{hint}")]
    Unreachable {
        /// The controller's address.
        url: String,
        /// The innermost cause.
        reason: String,
        /// What is behind it, if that is known.
        hint: Hint,
    },
    /// What answered does not look like a controller.
    #[error("{url} did not answer like a Muster controller: {reason}")]
    Odd {
        /// The address that answered.
        url: String,
        /// What was wrong with the answer.
        reason: String,
    },
    /// An answer does not have the form of its type.
    #[error(transparent)]
    Misfit(#[from] Misfit),
    /// The person pressed Ctrl-C; true if that was while a change was being sent.
    #[error("interrupted{}", if *.0 { "; it is not known whether the controller accepted the request" } else { "" })]
    Interrupted(bool),
    /// The person answered no.
    #[error("nothing was changed")]
    Declined,
    /// A local file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another local error: what failed, and what the system said.
    #[error("{0}: {1}")]
    Io(String, io::Error),
    /// The bytes received are not those of the version.
    #[error("the content of {name} has digest {got}, expected {expected}; nothing was written")]
    WrongDigest {
        /// Name of the version.
        name: String,
        /// BLAKE3 of the bytes received, hex.
        got: String,
        /// BLAKE3 of the version, hex.
        expected: String,
    },
    /// Some of several things failed, which was told already; with the exit code.
    #[error("some of it failed")]
    Told(u8),
    /// Waiting ended before a thing was in the state that was waited for.
    #[error("{0}")]
    NotYet(String),
    /// A thing took another way than the one that was waited for.
    #[error("{0}")]
    Otherwise(String),
    /// A transfer broke off and could not be continued.
    #[error("{0}")]
    BrokenOff(String),
}

/// What is behind a connection that does not come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hint {
    /// Nothing that is known.
    None,
    /// The certificate is not one of a CA that is trusted here.
    UnknownCa,
    /// The address begins with `https://`, and the port speaks plain HTTP.
    PlainHttp,
    /// The address begins with `http://`, and the port speaks TLS.
    Tls,
    /// The certificate is for other names.
    OtherName,
    /// The port is one of those on which daemons talk to each other.
    NodePort,
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "",
            Self::UnknownCa => "\n  give its CA with --ca FILE, or sign in with `muster login URL`",
            Self::PlainHttp => "\n  this port speaks plain HTTP: give its address with http://",
            Self::Tls => "\n  this port speaks TLS: give its address with https://, and its CA with --ca FILE",
            Self::OtherName => {
                "\n  use one of these names in the address; --public-url of the controller adds one to its certificate"
            }
            Self::NodePort => {
                "\n  daemons talk to each other on this port: the controller's port for people is usually 7400"
            }
        })
    }
}

/// What ended the waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Interrupt,
    Timeout,
    LostContact,
    Unreadable,
}

impl Failure {
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }

    /// Whether the reader of our standard output went away, as in `muster image ls | head -1`. That is no failure.
    pub(crate) fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Io(_, e) | Self::File { source: e, .. } if e.kind() == io::ErrorKind::BrokenPipe)
    }

    /// 0 done, 1 refused or failed, 2 wrong usage, 3 still going on.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            closed if closed.is_closed_pipe() => 0,
            Self::Usage(_) => 2,
            Self::Told(code) => *code,
            Self::StillGoing { .. } | Self::NotYet(_) | Self::Interrupted(true) => 3,
            Self::Interrupted(false) => 130,
            _ => 1,
        }
    }

    /// What is told of it, in the words of the command that failed.
    pub(crate) fn text(&self, words: Words) -> String {
        match self {
            Self::Refused(problem) => problem_text(&problem.read, &problem.sent, words),
            other => other.to_string(),
        }
    }

    /// The operation that failed or goes on, as it was sent.
    pub(crate) fn operation(&self) -> Option<&Value> {
        match self {
            Self::StillGoing { operation, .. } | Self::Unsuccessful(operation) => Some(&operation.sent),
            _ => None,
        }
    }

    /// The stable code of a refusal.
    pub(crate) fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused(problem) => Some(problem.read.code),
            _ => None,
        }
    }
}

/// `detail (code)`, where the request does not fit, what stands in the way, and the request id. Nothing is said twice.
fn problem_text(problem: &Problem, sent: &Value, words: Words) -> String {
    let code = match problem.code {
        // The word itself may mean something to the person.
        ErrorCode::Unknown => sent.get("code").and_then(Value::as_str).unwrap_or("unknown"),
        known => known.as_str(),
    };
    let detail = words.rename(&problem.detail);
    let places = problem.errors.iter().map(|place| (words.option(&place.pointer), &place.detail));
    // The detail of an invalid request only repeats its places.
    let mut said = match (problem.code, problem.errors.as_slice()) {
        (ErrorCode::Invalid, [only]) => format!("{}: {} ({code})", words.option(&only.pointer), only.detail),
        (ErrorCode::Invalid, [_, ..]) => {
            let lines = places.map(|(place, detail)| format!("\n  {place}: {detail}"));
            format!("the request does not fit ({code}){}", lines.collect::<String>())
        }
        _ => {
            let more = places.filter(|(_, more)| !detail.contains(*more));
            let lines = more.map(|(place, more)| format!("\n  {place}: {more}"));
            format!("{detail} ({code}){}", lines.collect::<String>())
        }
    };
    for ReasonCount { reason, count, detail: sentence } in
        more::<Vec<ReasonCount>>(problem, "reasons").unwrap_or_default()
    {
        if !detail.contains(&sentence.unwrap_or_else(|| format!("{reason} ({count})"))) {
            said += &format!("\n  {count} x {reason}");
        }
    }
    for (key, label) in [("existing", "the existing one"), ("operation", "running operation"), ("state", "state")] {
        if let Some(value) = more::<String>(problem, key) {
            said += &format!("\n  {label}: {value}");
        }
    }
    if let Some(allowed) = more::<Vec<String>>(problem, "allowed").filter(|allowed| !allowed.is_empty()) {
        said += &format!("\n  allowed: {}", allowed.join(", "));
    }
    if problem.code == ErrorCode::Unauthenticated {
        said += "\n  sign in with `muster login URL`, or give a token: --token TOKEN, --token @FILE or MUSTER_TOKEN";
    }
    if let Some(id) = &problem.request_id {
        said += &format!("\n  request id: {id}");
    }
    said
}

/// A field that only some codes have.
fn more<T: DeserializeOwned>(problem: &Problem, key: &str) -> Option<T> {
    T::deserialize(problem.more.get(key)?).ok()
}

fn operation_text(operation: &Object<Operation>) -> String {
    let Operation { kind, target, state, error, .. } = &operation.read;
    let said = format!("{kind} {} {}", target.name, cells::word(state));
    match error {
        Some(problem) => {
            format!(
                "{said}: {}",
                problem_text(problem, operation.sent.get("error").unwrap_or(&Value::Null), Words::default())
            )
        }
        None => said,
    }
}

fn still_text(operation: &Operation, why: Ended) -> String {
    let why = match why {
        Ended::Interrupt => "stopped waiting",
        Ended::Timeout => "waited long enough",
        Ended::LostContact => "lost contact with the controller",
        Ended::Unreadable => "cannot read what the controller answers",
    };
    let Operation { id, kind, target, .. } = operation;
    format!("{why}; {kind} {} goes on:\n  muster operation wait {id}", target.name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(problem: &Problem) -> Failure {
        let sent = serde_json::to_value(problem).expect("JSON");
        Failure::Refused(Box::new(Object::problem(sent).expect("a problem")))
    }

    #[test]
    fn a_refusal_shows_everything_one_can_act_on() {
        let mut problem = Problem::new(ErrorCode::Invalid, "the request does not fit");
        problem.request_id = Some("r-1".to_owned());
        let problem = problem.at("/count", "out_of_range", "1 to 10000");
        let refusal = refused(&problem);
        assert_eq!(refusal.to_string(), "/count: 1 to 10000 (invalid)\n  request id: r-1");
        assert_eq!(refusal.exit_code(), 1);
        let both = refused(&problem.at("/cpus", "out_of_range", "1 to 1024")).to_string();
        assert!(both.starts_with("the request does not fit (invalid)\n  /count: 1 to 10000\n  /cpus: 1 to"), "{both}");
    }

    #[test]
    fn nothing_is_said_twice() {
        let missing = "there is no image 'x'";
        let problem = Problem::new(ErrorCode::NotFound, missing).at("/source/image", "not_found", missing);
        assert_eq!(refused(&problem).to_string(), format!("{missing} (not_found)"));
        let sentence = "3 nodes cannot run virtual machines: deploy with --runtime none";
        let reasons = json!([{"reason": "runtime", "count": 3, "detail": sentence}]);
        let problem = Problem::new(ErrorCode::NoCapacity, format!("0 of 2 fit; {sentence}")).with("reasons", reasons);
        assert_eq!(refused(&problem).to_string(), format!("0 of 2 fit; {sentence} (no_capacity)"));
    }

    #[test]
    fn counted_reasons_are_listed() {
        let problem = Problem::new(ErrorCode::NoCapacity, "2 of 4 fit");
        let refusal = refused(&problem.with("reasons", json!([{"reason": "memory", "count": 3}])));
        assert_eq!(refusal.to_string(), "2 of 4 fit (no_capacity)\n  3 x memory");
    }

    #[test]
    fn work_that_goes_on_has_another_exit_code_than_a_refusal() {
        let id = "01900000-0000-7000-8000-000000000001";
        let sent = json!({"id": id, "project": "default", "kind": "deployment.create",
            "target": {"kind": "deployment", "id": "d", "name": "web"}, "state": "running", "phase": "starting",
            "progress": {"done": 0, "total": 2, "failed": 0, "unit": "instances"}, "waiting_on": [], "deadline": null,
            "error": null, "result": null, "requested_by": "me", "request_id": "r",
            "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z", "started_at": null,
            "finished_at": null});
        let operation = Box::new(Object::of(sent).expect("an operation"));
        let still = Failure::StillGoing { operation, why: Ended::Timeout };
        assert_eq!(still.exit_code(), 3);
        assert!(still.to_string().ends_with(&format!("deployment.create web goes on:\n  muster operation wait {id}")));
        assert_eq!(Failure::Usage("x".into()).exit_code(), 2);
        assert_eq!(Failure::Io("stdout".into(), io::ErrorKind::BrokenPipe.into()).exit_code(), 0);
    }
}
