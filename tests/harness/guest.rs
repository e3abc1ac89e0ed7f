//! Guests of the demo image, steered through libvirt and the guest agent with `virsh`, as an operator would.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use rustix::process::Pid;
use serde_json::{Value, json};

use crate::guest_time::qemu_processes;

const URI: &str = "qemu:///system";

/// Longest boot, in time that the guest could use ([`crate::eventually_for_guests`]).
pub const BOOT: Duration = Duration::from_secs(180);

/// The field `ready` of deployments in tests: an instance is ready when its guest agent answers. The timeout is wall
/// time and longer than the runner lets a test take, so that [`BOOT`] is what decides.
#[must_use]
pub fn ready() -> Value {
    json!({ "probe": "guest_agent", "timeout_s": 1800 })
}

/// Makes the demo image with its own script, which keeps it in a cache, and answers its path.
///
/// # Panics
/// When the script fails.
#[must_use]
pub fn demo_image() -> PathBuf {
    demo_image_of("1GiB")
}

/// The same with a disk of this size, for example `256MiB`.
///
/// # Panics
/// When the script fails.
#[must_use]
pub fn demo_image_of(size: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the project's root");
    let out = std::env::temp_dir().join(format!("muster-demo-{size}-{}.raw", std::process::id()));
    let made = Command::new(root.join("deploy/demo-image.sh"))
        .args(["--size", size])
        .arg(&out)
        .output()
        .expect("run demo-image.sh");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    out
}

/// Runs `virsh` on the libvirtd at `uri`.
pub(crate) fn virsh(uri: &str, arguments: &[&str]) -> Result<String, String> {
    let done = Command::new("virsh").args(["-c", uri]).args(arguments).output().map_err(|e| e.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if done.status.success() { Ok(text(&done.stdout)) } else { Err(text(&done.stderr)) }
}

/// Names of the running domains that have a disk below `dir`.
#[must_use]
pub fn domains_under(dir: &Path) -> Vec<String> {
    let Ok(names) = virsh(URI, &["list", "--all", "--name"]) else { return Vec::new() };
    let below = |name: &&str| {
        let disks = virsh(URI, &["domblklist", name]).unwrap_or_default();
        disks.contains(&dir.display().to_string())
    };
    names.lines().map(str::trim).filter(|n| !n.is_empty()).filter(below).map(str::to_owned).collect()
}

/// Cuts the power of all domains below `dir`, which a failed test may have left.
pub fn destroy_domains_under(dir: &Path) {
    for name in domains_under(dir) {
        drop(virsh(URI, &["destroy", &name]));
    }
}

/// The name of the domain that uses this disk file.
///
/// # Errors
/// No domain uses it.
pub fn domain_of(disk: &Path) -> Result<String, String> {
    domains_under(disk).pop().ok_or_else(|| format!("no domain uses {}", disk.display()))
}

/// The QEMU processes that have a file below `path` on their command line.
#[must_use]
pub fn processes_under(path: &Path) -> Vec<Pid> {
    qemu_processes(&path.display().to_string()).into_iter().filter_map(Pid::from_raw).collect()
}

/// Runs a shell command in the guest through its agent and answers its standard output once it has ended.
///
/// # Errors
/// When the agent does not answer, the command fails, or it has not ended in time.
pub fn run(domain: &str, script: &str) -> Result<String, String> {
    let start = json!({ "execute": "guest-exec", "arguments": { "path": "/bin/sh", "arg": ["-c", script], "capture-output": true } });
    let answer: Value = agent(domain, &start)?;
    let pid = answer["return"]["pid"].as_i64().ok_or_else(|| format!("no pid in {answer}"))?;
    // A guest that is kept busy by its neighbours may take minutes for a command of a second.
    let until = Instant::now() + Duration::from_secs(180);
    loop {
        let ask = json!({ "execute": "guest-exec-status", "arguments": { "pid": pid } });
        let state = agent(domain, &ask)?["return"].clone();
        if state["exited"] == json!(true) {
            let out = decode(state["out-data"].as_str().unwrap_or_default());
            return match state["exitcode"].as_i64() {
                Some(0) => Ok(out),
                code => Err(format!(
                    "'{script}' ended with {code:?}: {out}{}",
                    decode(state["err-data"].as_str().unwrap_or_default())
                )),
            };
        }
        if Instant::now() > until {
            return Err(format!("'{script}' has not ended within 180 s"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn agent(domain: &str, command: &Value) -> Result<Value, String> {
    let text = virsh(URI, &["qemu-agent-command", domain, "--timeout", "20", &command.to_string()])?;
    serde_json::from_str(&text).map_err(|e| format!("{e} in {text}"))
}

fn decode(base64: &str) -> String {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(base64).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}
