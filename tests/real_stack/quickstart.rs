//! The README's first command, twice at once on one libvirtd: neither sees the other, and nothing is left.

use std::{path::Path, process::Stdio, time::Duration};

#[tokio::test(flavor = "multi_thread")]
async fn two_quickstarts_do_not_see_each_other() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the project's root");
    let start = || {
        tokio::process::Command::new(root.join("deploy/quickstart.sh"))
            .args(["--nodes", "1", "--count", "1", "--memory", "128MiB", "--exit"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start the quickstart")
            .wait_with_output()
    };
    let both = tokio::time::timeout(Duration::from_secs(540), futures::future::join(start(), start())).await;
    let (first, second) = both.expect("both end in time");
    for done in [first.expect("it ran"), second.expect("it ran")] {
        let text = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert!(done.status.success(), "{text}");
        let dir = text.split_whitespace().find_map(|w| w.strip_suffix("/env")).unwrap_or_default().to_owned();
        assert!(dir.is_empty() || !Path::new(&dir).join("controller").exists(), "{dir} is left\n{text}");
    }
}
