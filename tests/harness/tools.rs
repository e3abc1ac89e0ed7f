//! Programs in Python and JavaScript that tests use: linters of `/openapi.json` and generators of clients.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// The folder with their versions and settings, and with the programs that use the clients.
pub const CLIENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/clients");

/// The programs that `tests/clients/tools.sh` has installed.
#[derive(Clone, Debug)]
pub struct Tools {
    dir: PathBuf,
}

impl Tools {
    /// Finds them in the target folder of this test.
    ///
    /// # Panics
    /// When they are not there, or are others than the lock files say.
    #[must_use]
    pub fn find() -> Self {
        let own = std::env::current_exe().expect("the test's own path");
        let mut folders = own.ancestors().map(|folder| folder.join("api-tools"));
        let dir = folders.find(|dir| dir.join("package.json").exists()).unwrap_or_default();
        for lock in ["requirements.txt", "package-lock.json"] {
            let wanted = std::fs::read(Path::new(CLIENTS).join(lock)).expect("a lock file");
            let same = std::fs::read(dir.join(lock)).is_ok_and(|there| there == wanted);
            assert!(same, "the linters and client generators of {lock} are not installed: run tests/clients/tools.sh");
        }
        Self { dir }
    }

    /// A module of Python, run as a program.
    #[must_use]
    pub fn python(&self, module: &str) -> Command {
        let mut command = self.with_path("python3");
        command.args(["-m", module]);
        command
    }

    /// A program in JavaScript by its path below `node_modules`, or by its whole path.
    #[must_use]
    pub fn node(&self, script: impl AsRef<Path>) -> Command {
        let mut command = self.with_path(self.dir.join("node"));
        command.arg(self.modules().join(script));
        command
    }

    /// The folder of the packages for JavaScript.
    #[must_use]
    pub fn modules(&self) -> PathBuf {
        self.dir.join("node_modules")
    }

    /// The folder of the packages for Python.
    #[must_use]
    pub fn packages(&self) -> PathBuf {
        self.dir.join("python")
    }

    fn with_path(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::iter::once(self.packages().join("bin")).chain(std::env::split_paths(&path));
        let mut command = Command::new(program);
        command.env("PATH", std::env::join_paths(folders).expect("folders have no colon"));
        command.env("PYTHONPATH", self.packages()).env("PYTHONDONTWRITEBYTECODE", "1");
        command.env("REDOCLY_TELEMETRY", "off").env("REDOCLY_SUPPRESS_UPDATE_NOTICE", "true");
        command
    }
}

/// Runs a program to its end and answers what it printed.
///
/// # Panics
/// When it fails, or does not end within two minutes.
pub async fn run(command: Command) -> String {
    run_within(Duration::from_secs(120), command).await
}

/// Runs a program that may take long to its end and answers what it printed.
///
/// # Panics
/// When it fails, or does not end in time.
pub async fn run_within(limit: Duration, command: Command) -> String {
    let shown = format!("{command:?}");
    let mut command = tokio::process::Command::from(command);
    let ended = command.stdin(std::process::Stdio::null()).kill_on_drop(true).output();
    let ended = tokio::time::timeout(limit, ended).await;
    let output = ended.unwrap_or_else(|_| panic!("no end after {limit:?}: {shown}")).expect("it starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{}: {shown}\n{out}\n{err}", output.status);
    out
}
