//! `[pool.repository]`: where the repository is, and what opens it.

use std::{fmt, path::PathBuf};

use serde::{Deserialize, Deserializer, de};
use storage_core::repository::{RepositoryKeys, RepositorySettings as Opened, WriteMode};

/// What is wrong with a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// Name of the setting in the TOML file.
    pub key: &'static str,
    /// What is wrong with it, for people.
    pub why: String,
}

/// Region that requests are signed for where nothing else is said. Most stores other than AWS take any.
pub const DEFAULT_REGION: &str = "us-east-1";

/// A secret as it was given: the text itself, or `@FILE`. `Debug` prints the file, but never the text.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The secret, without white space around it. Reads the file if it is in one.
    fn reveal(&self) -> Result<String, String> {
        secret(&self.0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.strip_prefix('@') {
            Some(file) => write!(f, "@{file}"),
            None => f.write_str("***"),
        }
    }
}

/// The repository of the pool, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    /// Name of the bucket.
    pub bucket: String,
    /// What all keys begin with; empty: nothing.
    pub prefix: String,
    /// URL of the store; `None`: that of AWS in the region.
    pub endpoint: Option<String>,
    /// Region that requests are signed for.
    pub region: String,
    /// Id of the access key.
    pub access_key: Secret,
    /// The secret access key.
    pub secret_key: Secret,
    /// Session token that goes with temporary keys.
    pub session_token: Option<Secret>,
    /// Certificates of CAs that its own is checked against, besides those of the system; PEM.
    pub ca_file: Option<PathBuf>,
    /// Whether the endpoint may be plain HTTP.
    pub allow_http: bool,
    /// When new objects are written.
    pub write: WriteMode,
    /// Whether nodes whose disks fill up may give up copies of objects that it has.
    pub evict: bool,
}

impl Repository {
    /// What a client is opened with. Reads all files, so that new keys in them are found.
    ///
    /// # Errors
    /// What cannot be read, for people.
    pub fn settings(&self) -> Result<Opened, String> {
        let ca_pem = match &self.ca_file {
            Some(file) => {
                Some(std::fs::read_to_string(file).map_err(|e| format!("cannot read {}: {e}", file.display()))?)
            }
            None => None,
        };
        let filled = |what: &str, text: String| match text.is_empty() {
            true => Err(format!("the {what} is empty")),
            false => Ok(text),
        };
        Ok(Opened {
            bucket: self.bucket.clone(),
            prefix: self.prefix.clone(),
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
            write: self.write,
            evict: self.evict,
            allow_http: self.allow_http,
            ca_pem,
            keys: RepositoryKeys {
                access_key_id: filled("access key", self.access_key.reveal()?)?,
                secret_access_key: filled("secret key", self.secret_key.reveal()?)?,
                session_token: self.session_token.as_ref().map(Secret::reveal).transpose()?,
            },
        })
    }
}

/// The settings of the repository from one source.
#[derive(Clone, Default, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct RepositorySettings {
    /// S3-compatible store that has all objects, too: s3://BUCKET/PREFIX [default: none]
    #[arg(
        id = "repository_url",
        long = "repository-url",
        value_name = "URL",
        env = "MUSTER_CONTROLLER_REPOSITORY_URL"
    )]
    pub url: Option<String>,
    /// URL of that store [default: that of AWS in the region]
    #[arg(
        id = "repository_endpoint",
        long = "repository-endpoint",
        value_name = "URL",
        env = "MUSTER_CONTROLLER_REPOSITORY_ENDPOINT"
    )]
    pub endpoint: Option<String>,
    /// Region of the bucket [default: us-east-1]
    #[arg(
        id = "repository_region",
        long = "repository-region",
        value_name = "NAME",
        env = "MUSTER_CONTROLLER_REPOSITORY_REGION"
    )]
    pub region: Option<String>,
    /// Id of the access key, or @FILE
    #[arg(
        id = "repository_access_key",
        long = "repository-access-key",
        value_name = "ID|@FILE",
        env = "MUSTER_CONTROLLER_REPOSITORY_ACCESS_KEY",
        hide_env_values = true
    )]
    pub access_key: Option<String>,
    /// The secret access key: @FILE, or in the environment
    #[arg(
        id = "repository_secret_key",
        long = "repository-secret-key",
        value_name = "@FILE",
        env = "MUSTER_CONTROLLER_REPOSITORY_SECRET_KEY",
        hide_env_values = true
    )]
    pub secret_key: Option<String>,
    /// Session token that goes with temporary keys: @FILE, or in the environment
    #[arg(
        id = "repository_session_token",
        long = "repository-session-token",
        value_name = "@FILE",
        env = "MUSTER_CONTROLLER_REPOSITORY_SESSION_TOKEN",
        hide_env_values = true
    )]
    pub session_token: Option<String>,
    /// Certificates of CAs of that store, PEM
    #[arg(
        id = "repository_ca_file",
        long = "repository-ca-file",
        value_name = "FILE",
        env = "MUSTER_CONTROLLER_REPOSITORY_CA_FILE"
    )]
    pub ca_file: Option<PathBuf>,
    /// Reach that store by plain HTTP; only for test networks
    #[arg(
        id = "repository_allow_http",
        long = "repository-allow-http",
        env = "MUSTER_CONTROLLER_REPOSITORY_ALLOW_HTTP",
        num_args = 0..=1,
        default_missing_value = "true",
        value_name = "BOOL"
    )]
    pub allow_http: Option<bool>,
    /// When that store gets new objects: behind or through [default: behind]
    #[arg(
        id = "repository_write",
        long = "repository-write",
        value_name = "WHEN",
        env = "MUSTER_CONTROLLER_REPOSITORY_WRITE",
        value_parser = write_mode
    )]
    #[serde(deserialize_with = "write_mode_in_file")]
    pub write: Option<WriteMode>,
    /// Whether nodes whose disks fill up may give up copies of what that store has [default: false]
    #[arg(
        id = "repository_evict",
        long = "repository-evict",
        env = "MUSTER_CONTROLLER_REPOSITORY_EVICT",
        num_args = 0..=1,
        default_missing_value = "true",
        value_name = "BOOL"
    )]
    pub evict: Option<bool>,
}

impl RepositorySettings {
    /// This layer, with missing values taken from `below`.
    pub(super) fn or(self, below: Self) -> Self {
        Self {
            url: self.url.or(below.url),
            endpoint: self.endpoint.or(below.endpoint),
            region: self.region.or(below.region),
            access_key: self.access_key.or(below.access_key),
            secret_key: self.secret_key.or(below.secret_key),
            session_token: self.session_token.or(below.session_token),
            ca_file: self.ca_file.or(below.ca_file),
            allow_http: self.allow_http.or(below.allow_http),
            write: self.write.or(below.write),
            evict: self.evict.or(below.evict),
        }
    }

    /// The repository that all layers together describe; `None` without a URL.
    pub(super) fn checked(self) -> Result<Option<Repository>, Wrong> {
        let wrong = |key, why: &str| Err(Wrong { key, why: why.to_owned() });
        let Self { url, endpoint, region, access_key, secret_key, session_token, ca_file, allow_http, write, evict } =
            self;
        let Some(url) = url.filter(|url| !url.is_empty()) else {
            let is_nothing = endpoint.is_none()
                && access_key.is_none()
                && secret_key.is_none()
                && write.is_none()
                && evict.is_none();
            let why = "it is missing, and other settings of the repository are there: give s3://BUCKET/PREFIX, or none of them";
            return if is_nothing { Ok(None) } else { wrong("pool.repository.url", why) };
        };
        let Some((bucket, prefix)) = place(&url) else {
            return wrong("pool.repository.url", "it is not a URL such as s3://bucket/prefix");
        };
        let allow_http = allow_http.unwrap_or(false);
        if let Some(endpoint) = &endpoint {
            match reqwest::Url::parse(endpoint) {
                Ok(url) if !url.has_host() => return wrong("pool.repository.endpoint", "it has no host"),
                Ok(url) if url.scheme() == "http" && !allow_http => {
                    let why = "it is plain HTTP, so keys and data would cross the network unprotected: say https, or allow_http";
                    return wrong("pool.repository.endpoint", why);
                }
                Ok(url) if !matches!(url.scheme(), "http" | "https") => {
                    return wrong("pool.repository.endpoint", "it is neither http nor https");
                }
                Ok(_) => {}
                Err(error) => return wrong("pool.repository.endpoint", &error.to_string()),
            }
        }
        let Some(access_key) = access_key else {
            return wrong("pool.repository.access_key", "it is missing: the id of an access key, or @FILE");
        };
        let Some(secret_key) = secret_key else {
            return wrong("pool.repository.secret_key", "it is missing: @FILE, or the environment");
        };
        Ok(Some(Repository {
            bucket,
            prefix,
            endpoint,
            region: region.unwrap_or_else(|| DEFAULT_REGION.to_owned()),
            access_key: Secret(access_key),
            secret_key: Secret(secret_key),
            session_token: session_token.map(Secret),
            ca_file,
            allow_http,
            write: write.unwrap_or_default(),
            evict: evict.unwrap_or(false),
        }))
    }
}

/// A value that may be a secret: the text itself, or the content of FILE for `@FILE`.
pub(super) fn secret(text: &str) -> Result<String, String> {
    match text.strip_prefix('@') {
        None => Ok(text.to_owned()),
        Some(path) => {
            let content = std::fs::read_to_string(path).map_err(|e| format!("cannot read {path}: {e}"))?;
            Ok(content.trim().to_owned())
        }
    }
}

/// Bucket and prefix of `s3://BUCKET/PREFIX`.
fn place(url: &str) -> Option<(String, String)> {
    let rest = url.strip_prefix("s3://")?;
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let prefix = prefix.trim_end_matches('/');
    let is_bucket = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let is_part = |part: &str| {
        !part.is_empty()
            && part != "."
            && part != ".."
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-._=".contains(c))
    };
    let fits =
        !bucket.is_empty() && bucket.chars().all(is_bucket) && (prefix.is_empty() || prefix.split('/').all(is_part));
    (fits && prefix.len() <= 500).then(|| (bucket.to_owned(), prefix.to_owned()))
}

fn write_mode(text: &str) -> Result<WriteMode, String> {
    match text {
        "behind" => Ok(WriteMode::Behind),
        "through" => Ok(WriteMode::Through),
        _ => Err(format!("expected behind or through, got '{text}'")),
    }
}

fn write_mode_in_file<'de, D: Deserializer<'de>>(input: D) -> Result<Option<WriteMode>, D::Error> {
    write_mode(&String::deserialize(input)?).map(Some).map_err(de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Result<Option<Repository>, Wrong> {
        toml::from_str::<RepositorySettings>(text).expect("keys and values").checked()
    }

    const KEYS: &str = "access_key = 'id'\nsecret_key = 'hidden'\n";

    #[test]
    fn a_url_and_keys_are_enough_and_nothing_is_no_repository() {
        assert_eq!(said(""), Ok(None));
        let repository = said(&format!("url = 's3://bucket/a/b/'\n{KEYS}")).expect("fits").expect("some");
        assert_eq!((repository.bucket.as_str(), repository.prefix.as_str()), ("bucket", "a/b"));
        assert_eq!((repository.region.as_str(), repository.write), (DEFAULT_REGION, WriteMode::Behind));
        assert!(!repository.evict);
        let evicting = said(&format!("url = 's3://bucket'\nevict = true\n{KEYS}")).expect("fits").expect("some");
        assert!(evicting.settings().expect("reads").evict);
        assert!(!format!("{repository:?}").contains("hidden"));
        assert_eq!(repository.settings().expect("reads").url(), "s3://bucket/a/b");
    }

    #[test]
    fn what_does_not_fit_is_refused_with_its_key() {
        let key = |text: &str| match said(text) {
            Err(Wrong { key, .. }) => key,
            other => panic!("{other:?}"),
        };
        assert_eq!(key(KEYS), "pool.repository.url");
        assert_eq!(key("url = 's3://b'\nsecret_key = 'x'"), "pool.repository.access_key");
        assert_eq!(key("url = 's3://b'\naccess_key = 'x'"), "pool.repository.secret_key");
        for url in ["https://b", "s3://", "s3://b/../c", "s3://b//c", "s3://b/a b"] {
            assert_eq!(key(&format!("url = '{url}'\n{KEYS}")), "pool.repository.url", "{url}");
        }
        for endpoint in ["http://plain:9000", "ftp://x", "nothing"] {
            let text = format!("url = 's3://b'\nendpoint = '{endpoint}'\n{KEYS}");
            assert_eq!(key(&text), "pool.repository.endpoint", "{endpoint}");
        }
        let allowed = said(&format!("url = 's3://b'\nendpoint = 'http://plain:9000'\nallow_http = true\n{KEYS}"));
        assert!(allowed.expect("fits").is_some());
        assert!(toml::from_str::<RepositorySettings>("write = 'sometimes'").is_err());
    }

    #[test]
    fn new_keys_in_files_are_found() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("key");
        std::fs::write(&file, "first\n").expect("writes");
        let text = format!("url = 's3://b'\naccess_key = 'id'\nsecret_key = '@{}'", file.display());
        let repository = said(&text).expect("fits").expect("some");
        let secret = || repository.settings().map(|settings| settings.keys.secret_access_key);
        assert_eq!(secret().as_deref(), Ok("first"));
        std::fs::write(&file, "second\n").expect("writes");
        assert_eq!(secret().as_deref(), Ok("second"));
        std::fs::write(&file, "\n").expect("writes");
        assert!(secret().expect_err("empty").contains("empty"));
        std::fs::remove_file(&file).expect("removes");
        assert!(secret().is_err());
    }
}
