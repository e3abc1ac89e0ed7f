//! What a guest does at its first boot, as its user wrote it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, de};

/// Most bytes of user data.
pub const USER_DATA_BYTES_MAX: usize = 64 << 10;

/// Why a text cannot be user data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserDataError {
    /// It is too long; its length in bytes is given.
    #[error("user data has at most 64 KiB, got {0} bytes: let it fetch what is longer")]
    Length(usize),
    /// It has a NUL character.
    #[error("user data is text, and this has a NUL character")]
    Nul,
    /// No program in a guest would know what to do with it.
    #[error(
        "user data begins with #cloud-config (cloud-config), with #! (a script) or with the headers of a MIME message, which \
         have MIME-Version; this begins with none of them"
    )]
    Kind,
}

/// User data: cloud-config, a script, or a MIME message with several parts. It may have secrets, so its `Debug` tells only
/// its length. Empty text says that there is none, where otherwise one would be taken over.
#[derive(Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(transparent)]
#[schema(value_type = String, max_length = 65536)]
pub struct UserData(String);

impl UserData {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether cloud-init would know the text for one of its kinds.
fn has_known_kind(text: &str) -> bool {
    let first = text.lines().next().unwrap_or_default();
    let is_header = |name: &str| first.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
    let is_mime = (is_header("content-type:") || is_header("mime-version:"))
        && text
            .lines()
            .take_while(|line| !line.is_empty())
            .any(|line| line.get(..13).is_some_and(|start| start.eq_ignore_ascii_case("mime-version:")));
    first.trim_end() == "#cloud-config" || first.starts_with("#!") || is_mime
}

impl FromStr for UserData {
    type Err = UserDataError;

    fn from_str(text: &str) -> Result<Self, UserDataError> {
        if text.len() > USER_DATA_BYTES_MAX {
            return Err(UserDataError::Length(text.len()));
        }
        if text.contains('\0') {
            return Err(UserDataError::Nul);
        }
        if !text.is_empty() && !has_known_kind(text) {
            return Err(UserDataError::Kind);
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for UserData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserData({} bytes)", self.0.len())
    }
}

impl<'de> Deserialize<'de> for UserData {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        String::deserialize(input)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_kinds_are_taken_as_they_are() {
        for text in [
            "",
            "#cloud-config\npackages: [nginx]\n",
            "#cloud-config",
            "#cloud-config \r\nruncmd: []\r\n",
            "#!/bin/sh\necho hello\n",
            "Content-Type: multipart/mixed; boundary=\"x\"\nMIME-Version: 1.0\n\n--x--\n",
            "mime-version: 1.0\ncontent-type: text/x-shellscript\n\n#!/bin/sh\n",
        ] {
            assert_eq!(text.parse::<UserData>().as_ref().map(UserData::as_str), Ok(text));
        }
    }

    #[test]
    fn anything_else_is_refused_for_its_reason() {
        for (text, why) in [
            ("packages: [nginx]", UserDataError::Kind),
            ("#cloud-configuration", UserDataError::Kind),
            ("\n#cloud-config", UserDataError::Kind),
            ("Content-Type: multipart/mixed\n\nMIME-Version: 1.0", UserDataError::Kind),
            ("#!/bin/sh\n\0", UserDataError::Nul),
        ] {
            assert_eq!(text.parse::<UserData>(), Err(why), "{text:?}");
        }
        let full = format!("#!{}", "é".repeat((USER_DATA_BYTES_MAX - 2) / 2));
        assert!(full.parse::<UserData>().is_ok(), "64 KiB fit");
        assert_eq!(format!("{full}x").parse::<UserData>(), Err(UserDataError::Length(USER_DATA_BYTES_MAX + 1)));
    }

    #[test]
    fn nothing_of_it_gets_into_a_log() {
        let data: UserData = "#!/bin/sh\nPASSWORD=hunter2".parse().expect("a script");
        assert_eq!(format!("{data:?}"), "UserData(26 bytes)");
    }
}
