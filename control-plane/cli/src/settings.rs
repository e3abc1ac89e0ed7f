//! Where the controller is and who asks: options, then environment, then a profile of `config.toml`.
//!
//! A profile's token and CA belong to the profile's address: they are never sent to another one that was given by
//! option or environment.

use std::{
    collections::BTreeMap,
    env, fmt, fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use reqwest::Url;
use serde::{Deserialize, Serialize};

use crate::{args::Global, failure::Failure};

/// A token: never printed by accident.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into().trim().to_owned())
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What a command needs to talk to a controller.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) url: Url,
    pub(crate) token: Option<Secret>,
    /// PEM text of the CA the controller is checked with; none: the system's.
    pub(crate) ca_pem: Option<String>,
    pub(crate) project: Option<String>,
    /// How long a controller that does not answer is tried; none: the client's own patience.
    pub(crate) retry_for: Option<Duration>,
}

/// `~/.config/muster/config.toml`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Profiles {
    /// The one in use unless `--profile` names another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<String>,
    #[serde(default)]
    pub(crate) profiles: BTreeMap<String, Profile>,
}

/// One controller and one way to sign in.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Profile {
    pub(crate) url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<Secret>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) project: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ca_pem: Option<String>,
}

/// Name of the profile that `muster login` writes when nobody names one.
pub(crate) const DEFAULT_PROFILE: &str = "default";

impl Profiles {
    /// `$MUSTER_CONFIG`, else under `$XDG_CONFIG_HOME` or `~/.config`.
    pub(crate) fn path() -> Option<PathBuf> {
        let set = |name: &str| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        set("MUSTER_CONFIG").or_else(|| {
            let base = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")))?;
            Some(base.join("muster").join("config.toml"))
        })
    }

    /// The file's content; nothing there is an empty one.
    pub(crate) fn load() -> Result<Self, Failure> {
        let Some(path) = Self::path() else { return Ok(Self::default()) };
        match fs::read_to_string(&path) {
            Ok(text) => toml::from_str(&text)
                .map_err(|e| Failure::Usage(format!("{} cannot be read: {}", path.display(), e.message()))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(Failure::file(path)(e)),
        }
    }

    /// Replaces the file in one step; only its owner can read it.
    pub(crate) fn save(&self) -> Result<PathBuf, Failure> {
        let path = Self::path().ok_or_else(|| Failure::Usage("set HOME or MUSTER_CONFIG to keep a profile".into()))?;
        let text = toml::to_string_pretty(self).map_err(|e| Failure::Io("profile".into(), io::Error::other(e)))?;
        if let Some(dir) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(Failure::file(dir))?;
        }
        let fresh = path.with_extension(format!("toml.{}", std::process::id()));
        let written = write_private(&fresh, text.as_bytes()).and_then(|()| fs::rename(&fresh, &path));
        written.map_err(|e| {
            // The write's error is the one to tell.
            let _ = fs::remove_file(&fresh);
            Failure::file(&path)(e)
        })?;
        Ok(path)
    }
}

fn write_private(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    io::Write::write_all(&mut file, text)?;
    file.sync_all()
}

/// The text itself, or the content of the file after `@`.
pub(crate) fn read_secret(text: &str) -> Result<Secret, Failure> {
    let Some(path) = text.strip_prefix('@') else { return Ok(Secret::new(text)) };
    let secret = Secret::new(fs::read_to_string(path).map_err(Failure::file(path))?);
    match secret.reveal().is_empty() {
        true => Err(Failure::Usage(format!("{path} is empty, expected a token"))),
        false => Ok(secret),
    }
}

/// Reads an address as people type it: with a scheme, without a query.
pub(crate) fn parse_url(text: &str) -> Result<Url, Failure> {
    let wrong = |why: &str| Failure::Usage(format!("'{text}' is not a controller's address: {why}"));
    let url = Url::parse(text).map_err(|e| wrong(&e.to_string()))?;
    match url.scheme() {
        "http" | "https" => {}
        _ => return Err(wrong("it starts with https:// or http://")),
    }
    if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("it has a host and a port, nothing else"));
    }
    Ok(url)
}

impl Settings {
    /// Puts together what options, environment and profile say.
    pub(crate) fn resolve(global: &Global) -> Result<Self, Failure> {
        let chosen = global.profile.as_deref();
        let profile = match (&global.url, chosen) {
            // An address from elsewhere makes the profile's file irrelevant, even a broken one.
            (Some(_), None) => None,
            _ => {
                let profiles = Profiles::load()?;
                let name = chosen.or(profiles.current.as_deref()).unwrap_or(DEFAULT_PROFILE);
                match profiles.profiles.get(name) {
                    Some(profile) => Some(profile.clone()),
                    None if chosen.is_some() => {
                        return Err(Failure::Usage(format!(
                            "there is no profile '{name}': muster login --profile {name} URL"
                        )));
                    }
                    None => None,
                }
            }
        };
        let url = match (&global.url, &profile) {
            (Some(url), _) => parse_url(url)?,
            (None, Some(profile)) => parse_url(&profile.url)?,
            (None, None) => {
                return Err(Failure::Usage(
                    "no controller is known: `muster login URL`, or set MUSTER_URL or --url".into(),
                ));
            }
        };
        let own = profile.filter(|p| parse_url(&p.url).is_ok_and(|known| known == url));
        let token = match &global.token {
            Some(text) => Some(read_secret(text)?),
            None => own.as_ref().and_then(|p| p.token.clone()),
        };
        let ca_pem = match &global.ca {
            Some(path) => Some(fs::read_to_string(path).map_err(Failure::file(path))?),
            None => own.as_ref().and_then(|p| p.ca_pem.clone()),
        };
        let project = global.project.clone().or_else(|| own.and_then(|p| p.project));
        Ok(Self { url, token, ca_pem, project, retry_for: global.retry_for })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked_before_a_token_is_sent_there() {
        assert!(parse_url("https://muster.example:8443").is_ok());
        assert!(parse_url("http://127.0.0.1:8080/").is_ok());
        for bad in ["muster.example", "ftp://muster.example", "https://u:p@muster.example", "https://h/?a=b", ""] {
            assert!(parse_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_secret_never_shows_in_debug_output() {
        assert_eq!(format!("{:?}", Secret::new("mst1_abc\n")), "***");
        assert_eq!(Secret::new("mst1_abc\n").reveal(), "mst1_abc");
    }
}
