//! Small files that the agent keeps, as JSON with a checksum: a flipped bit in a number is damage, not another number.
//!
//! ```text
//! {"crc32c":"0a1b2c3d","content":{...}}        the checksum covers the text of the content as it is in the file
//! ```
//! A file of an earlier build has no checksum: it is the content alone.

use std::io;

use serde::{Serialize, de::DeserializeOwned};

const BEFORE_CHECKSUM: &str = "{\"crc32c\":\"";
const BEFORE_CONTENT: &str = "\",\"content\":";

/// The bytes of a file with this content.
///
/// # Errors
/// When the content is no JSON, which no type of the agent is.
pub(crate) fn seal<T: Serialize>(content: &T) -> io::Result<Vec<u8>> {
    let content = serde_json::to_string(content)?;
    let checksum = crc32c::crc32c(content.as_bytes());
    Ok(format!("{BEFORE_CHECKSUM}{checksum:08x}{BEFORE_CONTENT}{content}}}").into_bytes())
}

/// The content of a file's bytes.
///
/// # Errors
/// When the file is damaged, or has other content.
pub(crate) fn open<T: DeserializeOwned>(file: &[u8]) -> io::Result<T> {
    let Some((stated, content)) = parts(file) else { return unsealed(file) };
    let checksum = format!("{:08x}", crc32c::crc32c(content));
    if checksum.as_bytes() != stated {
        let stated = String::from_utf8_lossy(stated);
        return Err(io::Error::other(format!("it is damaged: its checksum is {checksum}, expected {stated}")));
    }
    Ok(serde_json::from_slice(content)?)
}

/// The content of a file without a checksum.
fn unsealed<T: DeserializeOwned>(file: &[u8]) -> io::Result<T> {
    // With a flipped bit in one of its own keys, a sealed file would be an empty one to a type that lets fields be missing.
    let of_seal = |value: &serde_json::Value| value.get("crc32c").is_some() || value.get("content").is_some();
    if serde_json::from_slice(file).is_ok_and(|value| of_seal(&value)) {
        return Err(io::Error::other("it is damaged: it has a part of a seal"));
    }
    Ok(serde_json::from_slice(file)?)
}

/// Checksum and content of a file that has both.
fn parts(file: &[u8]) -> Option<(&[u8], &[u8])> {
    let (stated, rest) = file.strip_prefix(BEFORE_CHECKSUM.as_bytes())?.split_at_checked(8)?;
    Some((stated, rest.strip_prefix(BEFORE_CONTENT.as_bytes())?.strip_suffix(b"}")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Deserialize, Serialize)]
    struct Content {
        generation: u64,
        name: Option<String>,
    }

    #[test]
    fn no_flipped_bit_gives_other_content() {
        let content = Content { generation: 17, name: Some("web.0".to_owned()) };
        let file = seal(&content).expect("JSON");
        assert_eq!(open::<Content>(&file).expect("whole"), content);
        for (at, bit) in (0..file.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut damaged = file.clone();
            damaged[at] ^= 1 << bit;
            assert!(open::<Content>(&damaged).is_err(), "{}", String::from_utf8_lossy(&damaged));
        }
    }

    /// Every field may be missing.
    #[derive(Debug, Default, PartialEq, serde::Deserialize, Serialize)]
    #[serde(default)]
    struct Loose {
        revision: u64,
        place: Option<String>,
    }

    #[test]
    fn no_flipped_bit_makes_a_sealed_file_an_empty_one() {
        let file = seal(&Loose { revision: 3, place: Some("here".to_owned()) }).expect("JSON");
        for (at, bit) in (0..file.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut damaged = file.clone();
            damaged[at] ^= 1 << bit;
            assert!(open::<Loose>(&damaged).is_err(), "{}", String::from_utf8_lossy(&damaged));
        }
        assert_eq!(open::<Loose>(b"{}").expect("JSON"), Loose::default(), "an earlier build had no seal");
    }

    #[test]
    fn a_file_of_an_earlier_build_is_its_content() {
        let content = Content { generation: 17, name: None };
        assert_eq!(open::<Content>(b"{\"generation\":17,\"name\":null}").expect("JSON"), content);
    }
}
