//! The repository of record: an S3-compatible store outside of the nodes that has every object of the pool, too. This module
//! has what all parts say about it: where it is, how it is written, and under which keys it has what. `FORMAT.md` has the
//! table.
//!
//! The keys and bodies follow from the objects alone. So a cluster whose nodes are all gone is rebuilt from the repository
//! and a backup of the database.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::ObjectName;

/// When the repository gets new objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WriteMode {
    /// Soon after they are in the pool. A loss of all nodes costs what was not written yet.
    #[default]
    Behind,
    /// Before anything that needs them is published.
    Through,
}

impl WriteMode {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Behind => "behind",
            Self::Through => "through",
        }
    }
}

/// What opens the repository. `Debug` prints no secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryKeys {
    /// Id of the access key.
    pub access_key_id: String,
    /// The secret access key.
    pub secret_access_key: String,
    /// Session token that goes with temporary keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_token: Option<String>,
}

impl fmt::Debug for RepositoryKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RepositoryKeys").finish_non_exhaustive()
    }
}

/// Where the repository is and how it is used. It has secrets: it is kept in files of mode 0600 and is never logged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositorySettings {
    /// Name of the bucket.
    pub bucket: String,
    /// What all keys begin with, without slashes at its ends; empty: nothing.
    pub prefix: String,
    /// URL of the store; `None`: that of AWS in the region.
    pub endpoint: Option<String>,
    /// Region that requests are signed for.
    pub region: String,
    /// When new objects are written.
    pub write: WriteMode,
    /// Whether nodes whose disks fill up may give up copies of objects that the repository has.
    #[serde(default)]
    pub evict: bool,
    /// Whether the endpoint may be plain HTTP.
    pub allow_http: bool,
    /// Certificates of CAs that its own is checked against, besides those of the system; PEM.
    pub ca_pem: Option<String>,
    /// What opens it.
    pub keys: RepositoryKeys,
}

impl RepositorySettings {
    /// The place, for people: `s3://BUCKET/PREFIX`.
    #[must_use]
    pub fn url(&self) -> String {
        let slash = if self.prefix.is_empty() { "" } else { "/" };
        format!("s3://{}{slash}{}", self.bucket, self.prefix)
    }

    /// Whether both mean the same objects. Keys, certificates and the way of writing may differ.
    #[must_use]
    pub fn is_same_place(&self, other: &Self) -> bool {
        (&self.bucket, &self.prefix, &self.endpoint) == (&other.bucket, &other.prefix, &other.endpoint)
    }

    /// Key of an object: `PREFIX/objects/` with the first two digits of the name, a slash, and the name.
    #[must_use]
    pub fn object_key(&self, name: &ObjectName) -> String {
        let [first, ..] = name.as_bytes();
        format!("{}{name}", self.shelf_key(*first))
    }

    /// What the keys of all objects begin with whose names begin with this byte.
    #[must_use]
    pub fn shelf_key(&self, first: u8) -> String {
        format!("{}{first:02x}/", self.key("objects/"))
    }

    /// Key of the note that says whose repository it is.
    #[must_use]
    pub fn owner_key(&self) -> String {
        self.key("muster-cluster")
    }

    fn key(&self, rest: &str) -> String {
        let slash = if self.prefix.is_empty() { "" } else { "/" };
        format!("{}{slash}{rest}", self.prefix)
    }
}

/// The name of the object under a key; none if the key is not that of an object.
#[must_use]
pub fn name_of_key(key: &str) -> Option<ObjectName> {
    let (rest, name) = key.rsplit_once('/')?;
    let (objects, shelf) = rest.rsplit_once('/')?;
    let is_ours =
        (objects == "objects" || objects.ends_with("/objects")) && name.starts_with(shelf) && shelf.len() == 2;
    is_ours.then(|| name.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(prefix: &str) -> RepositorySettings {
        RepositorySettings {
            bucket: "b".to_owned(),
            prefix: prefix.to_owned(),
            endpoint: None,
            region: "us-east-1".to_owned(),
            write: WriteMode::Behind,
            evict: false,
            allow_http: false,
            ca_pem: None,
            keys: RepositoryKeys {
                access_key_id: "id".to_owned(),
                secret_access_key: "hidden".to_owned(),
                session_token: Some("hidden".to_owned()),
            },
        }
    }

    #[test]
    fn the_key_of_an_object_gives_its_name_back() {
        let name = ObjectName::from_bytes([0xab; 32]);
        for (prefix, key) in [("", "objects/ab/"), ("a/b", "a/b/objects/ab/")] {
            let settings = settings(prefix);
            assert_eq!(settings.object_key(&name), format!("{key}{name}"));
            assert_eq!(settings.shelf_key(0xab), key);
            assert_eq!(name_of_key(&settings.object_key(&name)), Some(name));
        }
        for other in ["objects/ab/x", "muster-cluster", "objects/ac/", ""] {
            assert_eq!(name_of_key(other), None, "{other}");
        }
        assert_eq!(name_of_key(&format!("objects/ac/{name}")), None, "it is on the wrong shelf");
        assert_eq!(name_of_key(&format!("myobjects/ab/{name}")), None);
    }

    #[test]
    fn secrets_are_never_printed() {
        assert!(!format!("{:?}", settings("p")).contains("hidden"));
    }
}
