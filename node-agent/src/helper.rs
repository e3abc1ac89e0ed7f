//! How an agent starts its helper processes: the [holder](crate::holder), the one that makes the
//! [first reads](crate::fuse::first_reads), and short ones that do one thing.

use std::{
    ffi::OsString,
    io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The program that becomes a helper process: `program args… NAME OPTION PATH`. `NAME` is a subcommand of muster-agent.
#[derive(Clone, Debug)]
pub struct HelperProgram {
    /// Path of the executable.
    pub program: PathBuf,
    /// Arguments that come before `NAME`.
    pub args: Vec<OsString>,
}

impl HelperProgram {
    /// The executable of this process.
    ///
    /// # Errors
    /// When its path is unknown.
    pub fn own_executable() -> io::Result<Self> {
        Ok(Self { program: std::env::current_exe()?, args: Vec::new() })
    }

    /// The command that starts the helper `name`, in a process group of its own, with no input and no output.
    pub(crate) fn command(&self, name: &str, option: &str, path: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args).args([name, option]).arg(path).current_dir("/").process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }
}
