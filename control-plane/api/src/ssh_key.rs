//! Public keys of SSH that may sign in to a guest.
//!
//! A key is checked once, where it enters. Nothing here ever tells the text of what was refused: somebody may have pasted a
//! private key.

use std::{fmt, str::FromStr};

use base64::{
    Engine as _,
    prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD},
};
use serde::{Deserialize, Deserializer, Serialize, de};
use sha2::{Digest as _, Sha256};

/// Most keys of a deployment.
pub const SSH_KEYS_MAX: usize = 32;
/// Longest line of a key, in bytes. An RSA key of 16384 bits has 2800.
pub const SSH_KEY_BYTES_MAX: usize = 4096;

/// The types of keys that OpenSSH takes today, and how many fields the body of each has after its type.
const TYPES: [(&str, usize); 7] = [
    ("ssh-ed25519", 1),
    ("ssh-rsa", 2),
    ("ecdsa-sha2-nistp256", 2),
    ("ecdsa-sha2-nistp384", 2),
    ("ecdsa-sha2-nistp521", 2),
    ("sk-ssh-ed25519@openssh.com", 2),
    ("sk-ecdsa-sha2-nistp256@openssh.com", 3),
];

/// Why a text is not the public key of somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SshKeyError {
    /// It is the secret half of a pair.
    #[error(
        "this is a private key, which nobody else may have: give the public one, whose file ends in .pub, and make a new \
         pair, because this one has left your machine"
    )]
    Private,
    /// It has more than one line.
    #[error("a public key is one line, got several: give each key by itself")]
    Lines,
    /// It is too long; its length in bytes is given.
    #[error("a public key has at most {SSH_KEY_BYTES_MAX} bytes, got {0}")]
    Length(usize),
    /// It has control characters.
    #[error("a public key has no control characters")]
    Control,
    /// It has options such as `command="…"` in front.
    #[error("a public key without options is expected: it begins with its type, for example ssh-ed25519")]
    Options,
    /// Its type is not known, or not used any more.
    #[error(
        "expected a public key of the type ssh-ed25519, ssh-rsa, ecdsa-sha2-nistp256, -nistp384 or -nistp521, \
         sk-ssh-ed25519@openssh.com or sk-ecdsa-sha2-nistp256@openssh.com, for example the content of \
         ~/.ssh/id_ed25519.pub"
    )]
    Type,
    /// What follows the type is not such a key.
    #[error("what follows the type of the public key is damaged or cut off: copy the whole line")]
    Body,
}

/// A public key as one line of `authorized_keys` has it, without options: type, body, comment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(transparent)]
#[schema(value_type = String, max_length = 4096)]
pub struct SshKey(String);

impl SshKey {
    /// The line.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How clients show it.
    #[must_use]
    pub fn facts(&self) -> SshKeyFacts {
        let (kind, rest) = self.0.split_once(' ').expect("a checked key has a type and a body");
        let (body, comment) = rest.split_once(' ').unwrap_or((rest, ""));
        let hash = Sha256::digest(BASE64_STANDARD.decode(body).expect("the body of a checked key is base64"));
        SshKeyFacts {
            key_type: kind.to_owned(),
            fingerprint: format!("SHA256:{}", BASE64_STANDARD_NO_PAD.encode(hash)),
            comment: comment.to_owned(),
            public_key: self.0.clone(),
        }
    }
}

impl FromStr for SshKey {
    type Err = SshKeyError;

    fn from_str(text: &str) -> Result<Self, SshKeyError> {
        let is_private =
            ["PRIVATE KEY", "BEGIN SSH2 ENCRYPTED", "PuTTY-User-Key-File"].iter().any(|of| text.contains(of));
        if is_private {
            return Err(SshKeyError::Private);
        }
        let line = text.trim();
        if line.contains(['\n', '\r']) {
            return Err(SshKeyError::Lines);
        }
        if line.len() > SSH_KEY_BYTES_MAX {
            return Err(SshKeyError::Length(line.len()));
        }
        // The last two are no characters, and readers of YAML refuse them.
        if line.chars().any(|c| (c.is_control() && c != '\t') || matches!(c, '\u{fffe}' | '\u{ffff}')) {
            return Err(SshKeyError::Control);
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let known = |word: &str| TYPES.iter().find(|(name, _)| *name == word);
        let Some((name, fields)) = words.first().and_then(|word| known(word)) else {
            let later = words.iter().skip(1).any(|word| known(word).is_some());
            return Err(if later { SshKeyError::Options } else { SshKeyError::Type });
        };
        let body = words.get(1).copied().unwrap_or_default();
        let bytes = BASE64_STANDARD.decode(body).map_err(|_| SshKeyError::Body)?;
        let mut rest = bytes.as_slice();
        let has_type = field(&mut rest) == Some(name.as_bytes());
        let has_fields = (0..*fields).all(|_| field(&mut rest).is_some_and(|field| !field.is_empty()));
        if !has_type || !has_fields || !rest.is_empty() {
            return Err(SshKeyError::Body);
        }
        Ok(Self(words.join(" ")))
    }
}

/// Takes a field with its length in front from the body of a key.
fn field<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    let (field, after) = after.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    *rest = after;
    Some(field)
}

impl fmt::Display for SshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for SshKey {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        String::deserialize(input)?.parse().map_err(de::Error::custom)
    }
}

/// A public key, and what people know it by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SshKeyFacts {
    /// Type of the key, for example `ssh-ed25519`.
    #[serde(rename = "type")]
    pub key_type: String,
    /// SHA-256 of the key, as `ssh-keygen -l` prints it.
    pub fingerprint: String,
    /// The comment at the end of its line; empty if there is none.
    pub comment: String,
    /// The whole line.
    pub public_key: String,
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const ED25519: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f me@laptop";

    fn body(parts: &[&[u8]]) -> String {
        let mut bytes = Vec::new();
        for part in parts {
            bytes.extend(u32::try_from(part.len()).unwrap().to_be_bytes());
            bytes.extend(*part);
        }
        BASE64_STANDARD.encode(bytes)
    }

    #[test]
    fn each_known_type_is_taken_and_its_spaces_are_tidied() {
        assert_eq!(ED25519.parse::<SshKey>().unwrap().as_str(), ED25519);
        let spaced = format!("  {}\t \n", ED25519.replace(' ', "  "));
        assert_eq!(spaced.parse::<SshKey>().unwrap().as_str(), ED25519);
        for (name, fields) in TYPES {
            let parts: Vec<&[u8]> = std::iter::once(name.as_bytes()).chain(vec![&b"x"[..]; fields]).collect();
            let line = format!("{name} {}", body(&parts));
            assert_eq!(line.parse::<SshKey>().unwrap().facts().comment, "");
        }
    }

    #[test]
    fn what_is_no_public_key_is_refused_for_its_reason_and_never_echoed() {
        let long = format!("{ED25519}{}", "x".repeat(SSH_KEY_BYTES_MAX));
        let other_type = format!("ssh-rsa {}", body(&[b"ssh-ed25519", b"x"]));
        let more = format!("ssh-ed25519 {}", body(&[b"ssh-ed25519", b"x", b"y"]));
        let dss = format!("ssh-dss {}", body(&[b"ssh-dss", b"x", b"x", b"x", b"x"]));
        let cases = [
            (
                "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjE\n-----END OPENSSH PRIVATE KEY-----\n",
                SshKeyError::Private,
            ),
            ("-----BEGIN RSA PRIVATE KEY-----", SshKeyError::Private),
            ("PuTTY-User-Key-File-3: ssh-ed25519", SshKeyError::Private),
            (&format!("{ED25519}\n{ED25519}"), SshKeyError::Lines),
            (&long, SshKeyError::Length(long.len())),
            (&format!("{ED25519}\u{1b}[2J"), SshKeyError::Control),
            (&format!("{ED25519}\u{ffff}"), SshKeyError::Control),
            (&format!("command=\"sh\" {ED25519}"), SshKeyError::Options),
            (&dss, SshKeyError::Type),
            ("", SshKeyError::Type),
            ("hunter2", SshKeyError::Type),
            ("ssh-ed25519", SshKeyError::Body),
            ("ssh-ed25519 AAAA", SshKeyError::Body),
            ("ssh-ed25519 not-base64!", SshKeyError::Body),
            (&other_type, SshKeyError::Body),
            (&more, SshKeyError::Body),
        ];
        for (text, why) in cases {
            let error = text.parse::<SshKey>().unwrap_err();
            assert_eq!(error, why, "{text}");
            assert!(!error.to_string().contains("b3Blb") && !error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_key_is_shown_with_the_fingerprint_that_ssh_keygen_prints() {
        let facts = ED25519.parse::<SshKey>().unwrap().facts();
        assert_eq!((facts.key_type.as_str(), facts.comment.as_str()), ("ssh-ed25519", "me@laptop"));
        assert_eq!(facts.fingerprint, "SHA256:ZkAslGjFiUHdGf/WUL8rQvkib4PTvQatUV0OUQSncCA");
    }
}
