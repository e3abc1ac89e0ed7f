//! Follows the README as a newcomer does: starts the quickstart and runs the tutorial's commands as they are written
//! there. A second quickstart runs beside it on the same libvirtd. Neither disturbs the other, and nothing is left
//! behind.

use std::{
    path::Path,
    process::{Output, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the project's root")
}

/// A running quickstart. Dropping it sends SIGTERM, upon which the script cleans up.
struct Quickstart(Child);

impl Quickstart {
    fn start(more: &[&str]) -> Self {
        // A shell that runs the tests in the background makes them ignore SIGINT; the quickstart must not inherit that.
        let child = Command::new("env")
            .arg("--default-signal=INT")
            .arg(root().join("deploy/quickstart.sh"))
            .args(["--nodes", "1", "--count", "1"])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        Self(child.expect("start the quickstart"))
    }

    fn signal(&self, signal: Signal) {
        let pid = self.0.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(pid) = pid {
            kill_process(pid, signal).ok();
        }
    }

    /// Reads its messages until it is up, and answers the path of the file with its settings.
    async fn up(&mut self, said: &mut BufReader<tokio::process::ChildStderr>) -> String {
        let mut all = String::new();
        loop {
            let line = all.len();
            let read = said.read_line(&mut all).await.expect("its words");
            assert!(read > 0, "it ended before it was up:\n{all}");
            if let Some(file) = all[line..].trim().strip_prefix(". ").filter(|f| f.ends_with("/env")) {
                return file.to_owned();
            }
        }
    }
}

impl Drop for Quickstart {
    fn drop(&mut self) {
        self.signal(Signal::TERM);
    }
}

/// The commands of the README's tutorial as one script. Only the folders are replaced: the one with the quickstart's
/// settings, and the one in which the tutorial puts its files.
fn tutorial(settings: &str, files: &Path) -> String {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("README.md");
    let (_, from) = readme.split_once("\n## Tutorial\n").expect("README.md has a tutorial");
    let (text, _) = from.split_once("\n## ").expect("and something after it");
    let mut script = String::new();
    let mut inside = false;
    for line in text.lines() {
        match line {
            "```sh" => inside = true,
            "```" => inside = false,
            _ if inside => script.extend([line, "\n"]),
            _ => {}
        }
    }
    let script = script.replace("/var/tmp/muster-quickstart.XXXXXX/env", settings);
    assert!(script.contains(settings), "the tutorial takes the settings over:\n{script}");
    script
        .replace("/var/tmp/mine", &files.join("mine").display().to_string())
        .replace("/var/tmp/exported", &files.join("exported").display().to_string())
}

fn words(done: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tutorial_works_as_written_beside_another_quickstart() {
    let files = tempfile::tempdir().expect("a folder");
    let mut first = Quickstart::start(&[]);
    let mut second = Quickstart::start(&["--exit"]);
    let mut said = BufReader::new(first.0.stderr.take().expect("piped"));
    let mut other = second.0.stderr.take().expect("piped");

    let the_other = tokio::spawn(async move {
        let mut text = String::new();
        let read = other.read_to_string(&mut text).await;
        (second.0.wait().await, read, text)
    });
    let settings = timeout(Duration::from_secs(300), first.up(&mut said)).await.expect("it is up in time");

    let script = Command::new("bash")
        .args(["-euxo", "pipefail", "-c", &tutorial(&settings, files.path())])
        .current_dir(root())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let done = timeout(Duration::from_secs(300), script).await.expect("the tutorial ends in time").expect("it ran");
    assert!(done.status.success(), "{}\n{}", done.status, words(&done));
    let proofs =
        ["MUSTER-READY demo-0 boot 1", "MUSTER-READY trial-0 boot 2", "hello from web-0", "hello from trial-0"];
    for proof in proofs {
        assert!(words(&done).contains(proof), "no '{proof}' in\n{}", words(&done));
    }
    // Each guest has a host key of its own, also the fork, whose disk came with the key of another guest.
    let said_by_all = words(&done);
    let host_key = |guest: &str| {
        let (_, rest) =
            said_by_all.split_once(&format!("MUSTER-HOST-KEY {guest} ")).expect("the console says the host key");
        rest.split_whitespace().next().expect("a fingerprint").to_owned()
    };
    assert_ne!(host_key("web-0"), host_key("trial-0"));
    let left: Vec<_> =
        std::fs::read_dir(files.path()).expect("the folder").map(|f| f.expect("a name").path()).collect();
    assert!(left.is_empty(), "the tutorial leaves {left:?}");

    first.signal(Signal::INT);
    let status = timeout(Duration::from_secs(120), first.0.wait()).await.expect("it ends in time").expect("it ran");
    let mut rest = String::new();
    said.read_to_string(&mut rest).await.expect("its last words");
    assert!(status.success(), "Ctrl-C is its normal end:\n{rest}");
    let data = Path::new(&settings).parent().expect("the data folder");
    assert!(!data.exists(), "{} is left:\n{rest}", data.display());

    let (status, read, text) = timeout(Duration::from_secs(540), the_other).await.expect("in time").expect("no panic");
    read.expect("its words");
    assert!(status.expect("it ran").success(), "{text}");
}
