//! Runs a command in the guest of an instance, through its node and its guest agent.
//!
//! A command cannot be taken back, so a call that is repeated with its key does not run it twice: it is refused, because
//! nobody kept what the first one printed. What is run is written down as an event before it is, without its arguments,
//! which may have secrets.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::Method;
use muster_api::{
    ErrorCode, InstanceId, NodeId, Problem, Ref,
    error::FieldError,
    guest::{Encoding, Exec, Executed},
    instance::InstanceState,
    peer_protocol::{ExecAnswer, ExecEnded, ExecRequest, exec_path},
};
use muster_pool::{Call, PoolError};
use serde_json::{Value, json};

use super::{
    super::{Answer, App, AppError, Asked, find},
    change::event_of,
    log::check_guest,
};
use crate::{
    domain::instance::word,
    store::{events, instances::InstanceRow},
};

/// Most bytes of the program and its arguments together.
const COMMAND_BYTES_MAX: usize = 64 << 10;
/// Most bytes of the standard input.
const STDIN_BYTES_MAX: usize = 256 << 10;
/// How long a command is waited for where the request does not say, seconds, and the longest time.
const TIMEOUT_S: u64 = 30;
pub(crate) const TIMEOUT_S_MAX: u64 = 300;
/// How much longer than the command its node may take: for the questions to a guest agent that hangs.
const NODE_EXTRA: Duration = Duration::from_secs(30);
/// Largest answer of a node: both outputs in base64.
const ANSWER_BYTES_MAX: usize = 4 << 20;

impl App {
    /// Runs a command and waits for its end.
    pub async fn exec(&self, asked: &Asked<Ref<InstanceId>>, wanted: &Exec) -> Result<Executed, AppError> {
        let request = checked(wanted)?;
        let begun = self
            .once(&asked.once, "instances.exec", async |tx| {
                let row = find::instance(tx, &asked.caller, &asked.thing).await?;
                asked.check_if_match(row.revision)?;
                let node = check_runs(&row)?;
                let data = json!({ "program": request.command.first() });
                let told = event_of("instance.exec", &row, &asked.caller.name, data);
                events::append_many(tx, vec![told]).await?;
                Answer::ok(&json!({ "instance": row.id, "name": row.name, "node": node }))
            })
            .await?;
        if begun.replayed {
            let detail = "a command was begun with this Idempotency-Key, and what it printed was not kept: take another \
                          key to run it again";
            return Err(AppError::code(ErrorCode::KeyReused, detail));
        }
        let (instance, name, node) = place(&begun.body)?;
        let call = Call {
            method: Method::POST,
            path: &exec_path(instance),
            json: Some(serde_json::to_vec(&request).map_err(anyhow::Error::from)?),
            limit: Duration::from_secs(request.timeout_s) + NODE_EXTRA,
            answer_bytes_max: ANSWER_BYTES_MAX,
        };
        let answer = self.pool.call(node, call).await.map_err(|error| silent(&name, node, &error))?;
        let answer: ExecAnswer = serde_json::from_slice(&answer)
            .map_err(|error| anyhow::anyhow!("the answer of node {node} to a command cannot be read: {error}"))?;
        outcome(&name, instance, answer)
    }
}

/// The request for the node, if the caller's is one.
fn checked(wanted: &Exec) -> Result<ExecRequest, AppError> {
    let mut wrong = Vec::new();
    let mut add = |pointer: &str, code: &str, detail: String| {
        wrong.push(FieldError { pointer: pointer.to_owned(), code: code.to_owned(), detail });
    };
    if wanted.command.first().is_none_or(String::is_empty) {
        add("/command", "missing", "it needs a program, and may have arguments".to_owned());
    }
    let bytes: usize = wanted.command.iter().map(String::len).sum();
    if bytes > COMMAND_BYTES_MAX {
        add("/command", "out_of_range", format!("at most {COMMAND_BYTES_MAX} bytes in all, got {bytes}"));
    }
    if wanted.command.iter().any(|part| part.contains('\0')) {
        add("/command", "invalid", "no program takes a zero byte in an argument".to_owned());
    }
    let timeout_s = wanted.timeout_s.unwrap_or(TIMEOUT_S);
    if !(1..=TIMEOUT_S_MAX).contains(&timeout_s) {
        add("/timeout_s", "out_of_range", format!("1 to {TIMEOUT_S_MAX}, got {timeout_s}"));
    }
    let stdin = wanted.stdin.as_ref().map(|stdin| wanted.encoding.decode(stdin));
    match &stdin {
        Some(None) => add("/stdin", "invalid", "it is no base64".to_owned()),
        Some(Some(bytes)) if bytes.len() > STDIN_BYTES_MAX => {
            add("/stdin", "out_of_range", format!("at most {STDIN_BYTES_MAX} bytes, got {}", bytes.len()));
        }
        _ => {}
    }
    if !wrong.is_empty() {
        return Err(AppError::Invalid(wrong));
    }
    let stdin_base64 = stdin.flatten().map(|bytes| STANDARD.encode(bytes));
    Ok(ExecRequest { command: wanted.command.clone(), stdin_base64, timeout_s })
}

/// The node of an instance whose guest runs.
fn check_runs(row: &InstanceRow) -> Result<NodeId, AppError> {
    check_guest(row, "it runs no commands")?;
    match (row.life.state, row.life.node) {
        (InstanceState::Unknown, _) => {
            Err(AppError::Unavailable(format!("{} is unknown: its node is silent", row.name)))
        }
        (InstanceState::Running, Some(node)) => Ok(node),
        (state, _) => {
            Err(AppError::WrongState { kind: "instance", state: word(state).to_owned(), allowed: vec!["running"] })
        }
    }
}

/// What was answered inside of the transaction.
fn place(body: &Value) -> Result<(InstanceId, String, NodeId), AppError> {
    let part = |name: &str| body[name].clone();
    let read = || -> Result<_, serde_json::Error> {
        Ok((
            serde_json::from_value(part("instance"))?,
            serde_json::from_value(part("name"))?,
            serde_json::from_value(part("node"))?,
        ))
    };
    read().map_err(|error| AppError::Internal(error.into()))
}

fn silent(name: &str, node: NodeId, error: &PoolError) -> AppError {
    tracing::warn!(node.id = %node, "no answer to a command for {name}: {error}");
    let detail = format!("the node of {name} does not answer: it is not known whether the command was begun");
    AppError::Unavailable(detail)
}

fn outcome(name: &str, instance: InstanceId, answer: ExecAnswer) -> Result<Executed, AppError> {
    let refused = |code, detail: String| Problem::new(code, detail).with("instance", instance.to_string()).into();
    match answer {
        ExecAnswer::Ended(ended) => executed(&ended),
        ExecAnswer::StillRuns => Ok(Executed {
            exit_code: None,
            signal: None,
            timed_out: true,
            stdout: String::new(),
            stderr: String::new(),
            encoding: Encoding::Text,
            truncated: false,
        }),
        ExecAnswer::NotRunning => Err(refused(ErrorCode::WrongState, format!("the guest of {name} does not run"))),
        ExecAnswer::NoGuestAgent(said) => {
            let detail = format!(
                "the guest agent of {name} does not answer, and it is not known whether the command was begun: {said}; \
                 commands need qemu-guest-agent in the guest"
            );
            Err(refused(ErrorCode::NoGuestAgent, detail))
        }
        ExecAnswer::Refused(said) => {
            let hint = if is_forbidden(&said) {
                "; the guest forbids it: take guest-exec and guest-exec-status off the list of blocked commands, in \
                 /etc/sysconfig/qemu-ga on RHEL and its kin, in /etc/qemu/qemu-ga.conf on Debian and Ubuntu"
            } else {
                ""
            };
            Err(refused(ErrorCode::GuestRefused, format!("the guest agent of {name} did not run it: {said}{hint}")))
        }
    }
}

/// Whether a guest agent says that it may not run commands at all, and not that it cannot run this one.
fn is_forbidden(said: &str) -> bool {
    said.contains("disabled") || said.contains("not been found") || said.contains("not allowed")
}

fn executed(ended: &ExecEnded) -> Result<Executed, AppError> {
    let bytes = |base64: &str| {
        STANDARD.decode(base64).map_err(|error| anyhow::anyhow!("what a command printed came as no base64: {error}"))
    };
    let (stdout, stderr) = (bytes(&ended.stdout_base64)?, bytes(&ended.stderr_base64)?);
    let (exit_code, signal, truncated) = (ended.exit_code, ended.signal, ended.truncated);
    let made = |stdout, stderr, encoding| Executed {
        exit_code,
        signal,
        timed_out: false,
        stdout,
        stderr,
        encoding,
        truncated,
    };
    Ok(match (String::from_utf8(stdout), String::from_utf8(stderr)) {
        (Ok(stdout), Ok(stderr)) => made(stdout, stderr, Encoding::Text),
        _ => made(ended.stdout_base64.clone(), ended.stderr_base64.clone(), Encoding::Base64),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_that_is_no_text_comes_in_base64() {
        let ended = |stdout: &[u8]| ExecEnded {
            exit_code: Some(3),
            signal: None,
            stdout_base64: STANDARD.encode(stdout),
            stderr_base64: String::new(),
            truncated: false,
        };
        let text = executed(&ended("grüß dich\n".as_bytes())).expect("read");
        assert_eq!((&*text.stdout, text.encoding, text.exit_code), ("grüß dich\n", Encoding::Text, Some(3)));
        let bytes = executed(&ended(&[0xff, 0])).expect("read");
        assert_eq!((&*bytes.stdout, bytes.encoding), ("/wA=", Encoding::Base64));
        let broken = ExecEnded { stdout_base64: "?".to_owned(), ..ended(b"") };
        executed(&broken).expect_err("output that cannot be read is not taken for none");
    }

    #[test]
    fn a_guest_that_forbids_commands_is_told_apart_from_a_program_that_is_not_there() {
        let id = InstanceId::generate();
        let told =
            |said: &str| outcome("web.0", id, ExecAnswer::Refused(said.to_owned())).expect_err("refused").to_string();
        assert!(told("Command guest-exec has been disabled").contains("qemu-ga.conf"));
        assert!(!told("Failed to execute child process \u{201c}frob\u{201d} (No such file)").contains("qemu-ga.conf"));
    }

    #[test]
    fn a_request_that_is_none_says_where() {
        let none = Exec { command: vec![], timeout_s: Some(301), stdin: Some("?".into()), encoding: Encoding::Base64 };
        let Err(AppError::Invalid(wrong)) = checked(&none) else { panic!("invalid") };
        let pointers: Vec<&str> = wrong.iter().map(|field| &*field.pointer).collect();
        assert_eq!(pointers, ["/command", "/timeout_s", "/stdin"]);
    }
}
