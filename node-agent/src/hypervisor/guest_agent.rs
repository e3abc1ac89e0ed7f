//! What guest agents (qemu-guest-agent) are asked: whether they answer, to freeze and thaw file systems, to run commands,
//! and facts about the guest.
//!
//! Promises:
//! - Every question has a time limit (I10).
//! - What a guest says is the word of a stranger. Texts are cleaned and cut, lists are cut, and an answer that is too long
//!   or no answer at all is an error. Nothing is decided by it but whether a snapshot, a command or a probe succeeds.

use std::{net::IpAddr, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use muster_api::{
    InstanceId,
    guest::{Guest, GuestFileSystem, GuestInterface, GuestOs},
    peer_protocol::{ExecAnswer, ExecEnded, ExecRequest},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{Hypervisor, HypervisorError};

/// How long a probe waits for an answer.
const PING: Duration = Duration::from_secs(2);
/// How long a question is waited for that costs the guest nothing.
const ASK: Duration = Duration::from_secs(5);
/// Most bytes of an answer about the guest.
const FACTS_BYTES_MAX: usize = 256 << 10;
/// Most bytes of each of the two outputs of a command that are handed on.
const OUTPUT_BYTES_MAX: usize = 1 << 20;
/// First and longest pause between two looks at a command that runs.
const LOOK_FIRST: Duration = Duration::from_millis(50);
const LOOK_LAST: Duration = Duration::from_secs(1);
/// Most network cards and file systems of a guest that are told, and most addresses of a card.
const LIST_MAX: usize = 16;
const ADDRESSES_MAX: usize = 8;
/// Most characters of a text that a guest tells.
const TEXT_MAX: usize = 128;

/// Asks one question and reads the answer.
async fn ask<T: DeserializeOwned>(
    hypervisor: &dyn Hypervisor,
    instance: InstanceId,
    command: &'static str,
    arguments: Option<Value>,
    (limit, bytes_max): (Duration, usize),
) -> Result<T, HypervisorError> {
    #[derive(Deserialize)]
    struct Answer<T> {
        #[serde(rename = "return")]
        value: T,
    }
    let mut question = json!({ "execute": command });
    if let Some(arguments) = arguments {
        question["arguments"] = arguments;
    }
    let answer = hypervisor.agent(instance, question.to_string(), limit).await?;
    let refused = |detail: String| HypervisorError::AgentRefused { instance, detail };
    if answer.len() > bytes_max {
        return Err(refused(format!("its answer to {command} has {} bytes, at most {bytes_max}", answer.len())));
    }
    let answer: Answer<T> = serde_json::from_str(&answer)
        .map_err(|error| refused(format!("its answer to {command} cannot be read: {error}")))?;
    Ok(answer.value)
}

/// Checks that the guest agent answers within 2 s.
///
/// # Errors
/// [`HypervisorError::NoAgent`] if it does not, or another error if it could not be asked.
pub async fn ping(hypervisor: &dyn Hypervisor, instance: InstanceId) -> Result<(), HypervisorError> {
    ask::<Value>(hypervisor, instance, "guest-ping", None, (PING, FACTS_BYTES_MAX)).await.map(drop)
}

/// Whether somebody has the file systems of the guest frozen, as its agent knows it.
///
/// # Errors
/// When the agent does not answer or does not tell.
pub async fn is_frozen(hypervisor: &dyn Hypervisor, instance: InstanceId) -> Result<bool, HypervisorError> {
    let status: String = ask(hypervisor, instance, "guest-fsfreeze-status", None, (ASK, FACTS_BYTES_MAX)).await?;
    Ok(status == "frozen")
}

/// Freezes all file systems of the guest. Returns how many were frozen.
///
/// # Errors
/// When the agent refuses or does not answer within `limit`. In the second case they may be frozen all the same, now or
/// later.
pub async fn freeze(
    hypervisor: &dyn Hypervisor,
    instance: InstanceId,
    limit: Duration,
) -> Result<u64, HypervisorError> {
    ask(hypervisor, instance, "guest-fsfreeze-freeze", None, (limit, FACTS_BYTES_MAX)).await
}

/// Thaws all file systems of the guest. Returns how many were frozen until now.
///
/// # Errors
/// When the agent refuses or does not answer within `limit`.
pub async fn thaw(hypervisor: &dyn Hypervisor, instance: InstanceId, limit: Duration) -> Result<u64, HypervisorError> {
    ask(hypervisor, instance, "guest-fsfreeze-thaw", None, (limit, FACTS_BYTES_MAX)).await
}

/// Runs a command in the guest and waits until it ends or its time is over.
pub async fn exec(hypervisor: &dyn Hypervisor, instance: InstanceId, request: &ExecRequest) -> ExecAnswer {
    run(hypervisor, instance, request).await.unwrap_or_else(|error| match error {
        HypervisorError::NotRunning(_) => ExecAnswer::NotRunning,
        HypervisorError::AgentRefused { detail, .. } => ExecAnswer::Refused(clean(&detail, 4 * TEXT_MAX)),
        other => ExecAnswer::NoGuestAgent(clean(&other.to_string(), 4 * TEXT_MAX)),
    })
}

async fn run(
    hypervisor: &dyn Hypervisor,
    instance: InstanceId,
    request: &ExecRequest,
) -> Result<ExecAnswer, HypervisorError> {
    #[derive(Deserialize)]
    struct Begun {
        pid: i64,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Status {
        exited: bool,
        exitcode: Option<i64>,
        signal: Option<i64>,
        out_data: Option<String>,
        err_data: Option<String>,
        #[serde(default)]
        out_truncated: bool,
        #[serde(default)]
        err_truncated: bool,
    }
    let until = Instant::now() + Duration::from_secs(request.timeout_s);
    let Some((path, rest)) = request.command.split_first() else {
        return Ok(ExecAnswer::Refused("no command was given".to_owned()));
    };
    let mut arguments = json!({ "path": path, "arg": rest, "capture-output": true });
    if let Some(stdin) = &request.stdin_base64 {
        arguments["input-data"] = json!(stdin);
    }
    let Begun { pid } = ask(hypervisor, instance, "guest-exec", Some(arguments), (ASK, FACTS_BYTES_MAX)).await?;
    let mut pause = LOOK_FIRST;
    loop {
        // A guest agent sends all that a command printed at once; the hypervisor bounds that.
        let arguments = Some(json!({ "pid": pid }));
        let status: Status = ask(hypervisor, instance, "guest-exec-status", arguments, (ASK, usize::MAX)).await?;
        if status.exited {
            let (stdout_base64, cut) = beginning(status.out_data.as_deref());
            let (stderr_base64, also_cut) = beginning(status.err_data.as_deref());
            let truncated = cut || also_cut || status.out_truncated || status.err_truncated;
            let (exit_code, signal) = (status.exitcode, status.signal);
            return Ok(ExecAnswer::Ended(ExecEnded { exit_code, signal, stdout_base64, stderr_base64, truncated }));
        }
        let now = Instant::now();
        if now >= until {
            return Ok(ExecAnswer::StillRuns);
        }
        sleep(pause.min(until - now)).await;
        pause = (pause * 2).min(LOOK_LAST);
    }
}

/// The beginning of an output in base64, and whether there was more. What is no base64 counts as nothing.
fn beginning(output: Option<&str>) -> (String, bool) {
    let bytes = STANDARD.decode(output.unwrap_or_default()).unwrap_or_default();
    let kept = &bytes[..bytes.len().min(OUTPUT_BYTES_MAX)];
    (STANDARD.encode(kept), kept.len() < bytes.len())
}

/// Asks the guest about itself. What its agent does not tell now stays as in `before`.
///
/// # Errors
/// When the agent does not answer.
pub async fn facts(hypervisor: &dyn Hypervisor, instance: InstanceId, before: Guest) -> Result<Guest, HypervisorError> {
    const LIMITS: (Duration, usize) = (ASK, FACTS_BYTES_MAX);
    #[derive(Deserialize)]
    struct Info {
        version: String,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct Os {
        pretty_name: Option<String>,
        id: Option<String>,
        version_id: Option<String>,
        kernel_release: Option<String>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "kebab-case")]
    struct HostName {
        host_name: String,
    }
    let mut guest = Guest { answers: true, ..before };
    match ask::<Info>(hypervisor, instance, "guest-info", None, LIMITS).await {
        Ok(info) => guest.agent_version = text(&info.version),
        // Also that is an answer.
        Err(HypervisorError::AgentRefused { .. }) => {}
        Err(error) => return Err(error),
    }
    // A guest agent may know or allow only some of these, and while it has the file systems frozen it answers none.
    if let Ok(os) = ask::<Os>(hypervisor, instance, "guest-get-osinfo", None, LIMITS).await {
        let said = |said: Option<String>| said.as_deref().and_then(text);
        guest.os = Some(GuestOs {
            name: said(os.pretty_name),
            id: said(os.id),
            version: said(os.version_id),
            kernel: said(os.kernel_release),
        });
    }
    if let Ok(HostName { host_name }) = ask(hypervisor, instance, "guest-get-host-name", None, LIMITS).await {
        guest.host_name = text(&host_name);
    }
    if let Ok(cards) = ask::<Vec<Card>>(hypervisor, instance, "guest-network-get-interfaces", None, LIMITS).await {
        guest.interfaces = interfaces(cards);
    }
    if let Ok(mounted) = ask::<Vec<Mounted>>(hypervisor, instance, "guest-get-fsinfo", None, LIMITS).await {
        guest.file_systems = file_systems(mounted);
    }
    Ok(guest)
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Card {
    name: String,
    hardware_address: Option<String>,
    #[serde(default)]
    ip_addresses: Vec<Address>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Address {
    ip_address: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Mounted {
    mountpoint: String,
    #[serde(rename = "type")]
    kind: String,
    total_bytes: Option<u64>,
    used_bytes: Option<u64>,
}

fn interfaces(cards: Vec<Card>) -> Vec<GuestInterface> {
    let card = |card: Card| {
        let said = card.ip_addresses.iter().filter_map(|said| said.ip_address.parse::<IpAddr>().ok());
        let addresses: Vec<IpAddr> = said.filter(|address| !address.is_loopback()).take(ADDRESSES_MAX).collect();
        let is_own = addresses.is_empty() && !card.ip_addresses.is_empty();
        let mac = card.hardware_address.and_then(|mac| mac.parse().ok());
        text(&card.name).filter(|name| !is_own && name != "lo").map(|name| GuestInterface { name, mac, addresses })
    };
    cards.into_iter().filter_map(card).take(LIST_MAX).collect()
}

fn file_systems(mounted: Vec<Mounted>) -> Vec<GuestFileSystem> {
    let file_system = |mounted: Mounted| {
        let (mount, kind) = (text(&mounted.mountpoint)?, text(&mounted.kind)?);
        let size_bytes = mounted.total_bytes.filter(|size| *size > 0);
        // Rounded, so that a guest that writes a little all the time is not reported all the time.
        let step = size_bytes.map_or(1, |size| size.div_ceil(100));
        let used_bytes = mounted.used_bytes.map(|used| used / step * step);
        Some(GuestFileSystem { mount, kind, size_bytes, used_bytes })
    };
    let mut all: Vec<_> = mounted.into_iter().filter_map(file_system).collect();
    all.sort_by(|a, b| a.mount.cmp(&b.mount));
    all.truncate(LIST_MAX);
    all
}

/// A text of a guest, cleaned and cut; `None` if nothing is left.
fn text(said: &str) -> Option<String> {
    Some(clean(said, TEXT_MAX)).filter(|text| !text.is_empty())
}

/// A text without anything that moves a cursor or hides what is there: control characters, and what changes the
/// direction of text.
fn clean(said: &str, chars_max: usize) -> String {
    let is_harmless = |c: &char| {
        !c.is_control()
            && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    said.trim().chars().filter(is_harmless).take(chars_max).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_guest_tells_is_cleaned_and_cut() {
        assert_eq!(text("Debian\u{1b}[2J 12\r\n\u{202e}"), Some("Debian[2J 12".to_owned()));
        assert_eq!(text(" \n\u{7} "), None);
        assert_eq!(text(&"ü".repeat(1000)).map(|text| text.chars().count()), Some(TEXT_MAX));
    }

    #[test]
    fn cards_of_the_guest_itself_are_left_out_and_lists_are_cut() {
        let address = |text: &str| Address { ip_address: text.to_owned() };
        let card = |name: &str, addresses: &[&str]| Card {
            name: name.to_owned(),
            hardware_address: Some("52:00:00:01:02:03".to_owned()),
            ip_addresses: addresses.iter().map(|text| address(text)).collect(),
        };
        let cards = vec![card("lo", &["127.0.0.1", "::1"]), card("eth0", &["10.77.0.5", "not an address", "fe80::1"])];
        let told = interfaces(cards);
        assert_eq!(told.len(), 1);
        assert_eq!((&*told[0].name, told[0].addresses.len(), told[0].mac.is_some()), ("eth0", 2, true));
        let many = interfaces((0..100).map(|n| card(&format!("eth{n}"), &["10.0.0.1"; 100])).collect());
        assert_eq!((many.len(), many[0].addresses.len()), (LIST_MAX, ADDRESSES_MAX));
    }

    #[test]
    fn a_little_more_use_of_a_file_system_is_no_news() {
        let used = |used| {
            let mounted = Mounted {
                mountpoint: "/".to_owned(),
                kind: "ext4".to_owned(),
                total_bytes: Some(1 << 30),
                used_bytes: Some(used),
            };
            file_systems(vec![mounted]).remove(0).used_bytes
        };
        assert_eq!(used(500 << 20), used((500 << 20) + 4096));
        assert_ne!(used(500 << 20), used(600 << 20));
    }

    #[test]
    fn long_output_is_cut_and_says_so() {
        let output = STANDARD.encode(vec![7; OUTPUT_BYTES_MAX + 1]);
        let (kept, cut) = beginning(Some(&output));
        assert!(cut);
        assert_eq!(STANDARD.decode(kept).map(|bytes| bytes.len()), Ok(OUTPUT_BYTES_MAX));
        assert_eq!(beginning(None), (String::new(), false));
        assert_eq!(beginning(Some("?")), (String::new(), false));
    }

    proptest! {
        #[test]
        fn a_text_of_a_guest_has_no_control_characters_and_an_end(said: String) {
            if let Some(text) = text(&said) {
                prop_assert!(text.chars().count() <= TEXT_MAX && text.chars().all(|c| !c.is_control()));
            }
        }
    }
}
