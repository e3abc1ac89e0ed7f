//! `muster console`, `muster ssh` and `muster instance connect`: ways into running guests.

use clap::Args;

/// Ctrl-], as in telnet and virsh.
const DETACH_KEY: &str = "^]";

#[derive(Args, Debug)]
pub(crate) struct Console {
    /// Instance as DEPLOYMENT.N or id
    pub(crate) instance: String,
    /// Only watch
    #[arg(long, conflicts_with = "take")]
    pub(crate) read_only: bool,
    /// Take the keyboard from whoever types
    #[arg(long)]
    pub(crate) take: bool,
    /// The key that leaves the console: ^ and a letter or one of [ \ ] ^ _
    #[arg(long, value_name = "KEY", default_value = DETACH_KEY, value_parser = control_key)]
    pub(crate) detach_key: u8,
}

#[derive(Args, Debug)]
#[command(override_usage = "muster ssh [OPTIONS] [USER@]INSTANCE [-- SSH-OPTION-OR-COMMAND...]")]
pub(crate) struct Ssh {
    /// Instance as DEPLOYMENT.N or id, with the user to sign in as [default: the image's default user]
    #[arg(value_name = "[USER@]INSTANCE")]
    pub(crate) to: String,
    /// File of the private key to sign in with [default: what ssh finds by itself]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) identity: Option<std::path::PathBuf>,
    /// Port of the SSH server in the guest
    #[arg(short, long, default_value_t = 22, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: u16,
    /// Options for ssh, and a command to run in the guest, after --
    #[arg(last = true, value_name = "SSH-OPTION-OR-COMMAND")]
    pub(crate) rest: Vec<std::ffi::OsString>,
}

#[derive(Args, Debug)]
pub(crate) struct Connect {
    /// Instance as DEPLOYMENT.N or id
    pub(crate) instance: String,
    /// TCP port of the guest
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: u16,
}

/// The byte that a terminal sends for a key that is pressed with Ctrl.
fn control_key(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        [b'^', key] if matches!(key.to_ascii_uppercase(), b'A'..=b'Z' | b'['..=b'_') => {
            Ok(key.to_ascii_uppercase() & 0x1f)
        }
        _ => Err("a key is written as ^ and a letter or one of [ \\ ] ^ _, for example ^]".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_byte_that_a_terminal_sends() {
        for (text, byte) in [("^]", 0x1d), ("^a", 1), ("^A", 1), ("^_", 0x1f)] {
            assert_eq!(control_key(text), Ok(byte), "{text}");
        }
        for bad in ["", "^", "]", "^1", "^é", "^ab", "ctrl-]"] {
            assert!(control_key(bad).is_err(), "{bad}");
        }
    }
}
