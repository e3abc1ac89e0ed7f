//! Everything that can end a command, and the exit code each ends it with.

use std::{io, path::PathBuf};

use serde_json::Value;

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command line or the settings do not make sense.
    #[error("{0}")]
    Usage(String),
    /// The shape is reserved, nothing behind it yet.
    #[error("`muster {0}` is reserved and not built yet")]
    NotBuiltYet(String),
    /// The controller refused: its problem document.
    #[error("{}", problem_text(.0))]
    Refused(Value),
    /// The operation ended without doing what was asked.
    #[error("{}", operation_text(.0))]
    Unsuccessful(Value),
    /// Waiting ended before the work did.
    #[error("{}", still_text(.operation, *.why))]
    StillGoing {
        /// As last seen.
        operation: Value,
        /// What ended the waiting.
        why: Ended,
    },
    /// The controller cannot be reached.
    #[error("cannot reach {url}: {reason}{hint}")]
    Unreachable {
        /// Where.
        url: String,
        /// The innermost cause.
        reason: String,
        /// What could be done about it, or nothing.
        hint: &'static str,
    },
    /// The answer is not one of this API.
    #[error("{url} did not answer like a Muster controller: {reason}")]
    Odd {
        /// Where.
        url: String,
        /// What was wrong.
        reason: String,
    },
    /// Ctrl-C before the controller answered.
    #[error("{}", if *.0 { "interrupted; whether the request was accepted is not known" } else { "interrupted" })]
    Interrupted(bool),
    /// The person said no.
    #[error("nothing was changed")]
    Declined,
    /// A local file.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Some other local trouble.
    #[error("{0}: {1}")]
    Io(String, io::Error),
    /// The bytes received are not those of the version.
    #[error("the content of {name} has digest {got}, expected {expected}; nothing was written")]
    WrongDigest {
        /// What was exported.
        name: String,
        /// BLAKE3 of what came.
        got: String,
        /// BLAKE3 the version has.
        expected: String,
    },
    /// A transfer broke off and could not be taken up again.
    #[error("{0}")]
    BrokenOff(String),
}

/// What ended the waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Interrupt,
    Timeout,
    LostContact,
}

impl Failure {
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }

    /// Whether the other end of our standard output went away, as in `muster image ls | head -1`.
    fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Io(_, e) | Self::File { source: e, .. } if e.kind() == io::ErrorKind::BrokenPipe)
    }

    /// 0 done, 1 refused or failed, 2 usage, 3 still going on.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            closed if closed.is_closed_pipe() => 0,
            Self::Usage(_) => 2,
            Self::StillGoing { .. } | Self::Interrupted(true) => 3,
            Self::Interrupted(false) => 130,
            _ => 1,
        }
    }

    /// Whether there is anything to say about it.
    pub(crate) fn is_silent(&self) -> bool {
        self.is_closed_pipe()
    }

    /// The stable code of a refusal.
    pub(crate) fn code(&self) -> Option<&str> {
        match self {
            Self::Refused(problem) => problem.get("code").and_then(Value::as_str),
            _ => None,
        }
    }
}

fn text<'a>(value: &'a Value, pointer: &str) -> Option<&'a str> {
    value.pointer(pointer).and_then(Value::as_str)
}

/// `detail (code)`, the places of the request, the counted reasons, and the request id.
fn problem_text(problem: &Value) -> String {
    let mut said = text(problem, "/detail").or_else(|| text(problem, "/title")).unwrap_or("refused").to_owned();
    if let Some(code) = text(problem, "/code") {
        said += &format!(" ({code})");
    }
    let list = |key: &str| problem.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for place in list("errors") {
        let (at, detail) = (text(place, "/pointer").unwrap_or(""), text(place, "/detail").unwrap_or(""));
        said += &format!("\n  {at}: {detail}");
    }
    for reason in list("reasons") {
        let count = reason.get("count").and_then(Value::as_u64).unwrap_or(1);
        said += &format!("\n  {count} x {}", text(reason, "/reason").unwrap_or("?"));
    }
    for (key, label) in [("existing", "the existing one"), ("operation", "running operation"), ("state", "state")] {
        if let Some(value) = text(problem, &format!("/{key}")) {
            said += &format!("\n  {label}: {value}");
        }
    }
    let allowed: Vec<&str> = list("allowed").iter().filter_map(Value::as_str).collect();
    if !allowed.is_empty() {
        said += &format!("\n  allowed: {}", allowed.join(", "));
    }
    if let Some(id) = text(problem, "/request_id") {
        said += &format!("\n  request id: {id}");
    }
    said
}

fn name_of(operation: &Value) -> String {
    let what = text(operation, "/kind").unwrap_or("operation");
    format!("{what} {}", text(operation, "/target/name").unwrap_or(""))
}

fn operation_text(operation: &Value) -> String {
    let state = text(operation, "/state").unwrap_or("failed");
    match operation.get("error").filter(|e| !e.is_null()) {
        Some(problem) => format!("{} {state}: {}", name_of(operation), problem_text(problem)),
        None => format!("{} {state}", name_of(operation)),
    }
}

fn still_text(operation: &Value, why: Ended) -> String {
    let why = match why {
        Ended::Interrupt => "stopped waiting",
        Ended::Timeout => "waited long enough",
        Ended::LostContact => "lost contact with the controller",
    };
    let id = text(operation, "/id").unwrap_or("?");
    format!("{why}; {} goes on: muster operation wait {id}", name_of(operation))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_refusal_shows_everything_one_can_act_on() {
        let refusal = Failure::Refused(json!({
            "title": "invalid", "status": 422, "code": "invalid", "detail": "the request does not fit",
            "request_id": "r-1", "errors": [{"pointer": "/count", "code": "out_of_range", "detail": "1 to 10000"}],
        }));
        assert_eq!(refusal.to_string(), "the request does not fit (invalid)\n  /count: 1 to 10000\n  request id: r-1");
        assert_eq!(refusal.exit_code(), 1);
    }

    #[test]
    fn counted_reasons_are_listed() {
        let refusal = Failure::Refused(json!({
            "code": "no_capacity", "detail": "2 of 4 fit", "reasons": [{"reason": "memory", "count": 3}],
        }));
        assert_eq!(refusal.to_string(), "2 of 4 fit (no_capacity)\n  3 x memory");
    }

    #[test]
    fn exit_codes_tell_work_from_refusal() {
        let operation = json!({"id": "o1", "kind": "deployment.create", "target": {"name": "web"}});
        let still = Failure::StillGoing { operation, why: Ended::Timeout };
        assert_eq!(still.exit_code(), 3);
        assert!(still.to_string().ends_with("deployment.create web goes on: muster operation wait o1"));
        assert_eq!(Failure::Usage("x".into()).exit_code(), 2);
        assert_eq!(Failure::Io("stdout".into(), io::ErrorKind::BrokenPipe.into()).exit_code(), 0);
    }
}
