//! Guests of the demo image, steered through libvirt and the guest agent with `virsh`, as an operator would.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::Pid;
use serde_json::{Value, json};

const URI: &str = "qemu:///system";

/// The demo image, made once per machine by its own script.
///
/// # Panics
/// When the script fails: a missing part fails the test.
#[must_use]
pub fn demo_image() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the project's root");
    let out = std::env::temp_dir().join(format!("muster-demo-{}.raw", std::process::id()));
    let made = Command::new(root.join("deploy/demo-image.sh")).arg(&out).output().expect("run demo-image.sh");
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

/// Destroys what a failed test left.
pub fn destroy_domains_under(dir: &Path) {
    for name in domains_under(dir) {
        drop(virsh(URI, &["destroy", &name]));
    }
}

/// The domain that uses this disk file.
///
/// # Errors
/// None does.
pub fn domain_of(disk: &Path) -> Result<String, String> {
    domains_under(disk).pop().ok_or_else(|| format!("no domain uses {}", disk.display()))
}

/// The QEMU processes that have something below `path` open by name: whichever libvirtd started them, and whether it
/// lives or not.
#[must_use]
pub fn processes_under(path: &Path) -> Vec<Pid> {
    let path = path.display().to_string();
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw));
    pids.filter(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        line.split('\0').next().is_some_and(|program| program.contains("qemu-system")) && line.contains(&path)
    })
    .collect()
}

/// Runs a shell command in the guest through its agent and answers its standard output once it has ended.
///
/// # Errors
/// The agent does not answer, or the command failed.
pub fn run(domain: &str, script: &str) -> Result<String, String> {
    let start = json!({ "execute": "guest-exec", "arguments": { "path": "/bin/sh", "arg": ["-c", script], "capture-output": true } });
    let answer: Value = agent(domain, &start)?;
    let pid = answer["return"]["pid"].as_i64().ok_or_else(|| format!("no pid in {answer}"))?;
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
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
        if std::time::Instant::now() > until {
            return Err(format!("'{script}' has not ended within 60 s"));
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
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
