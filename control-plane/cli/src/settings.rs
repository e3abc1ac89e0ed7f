//! The controller's address and how to sign in: from options, else the environment, else a profile of `config.toml`.
//!
//! The token and CA of a profile belong to its address. If an option or the environment gives another address, they are
//! not used.

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

/// A token. `Debug` does not print it.
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

/// What a command needs to speak to a controller.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) url: Url,
    pub(crate) token: Option<Secret>,
    /// PEM text of the CA that the controller is checked with. None means the system's CAs.
    pub(crate) ca_pem: Option<String>,
    pub(crate) project: Option<String>,
    /// How long to retry a controller that does not answer. None means the client's default.
    pub(crate) retry_for: Option<Duration>,
}

/// The content of `~/.config/muster/config.toml`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Profiles {
    /// The profile in use unless `--profile` names another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<String>,
    #[serde(default)]
    pub(crate) profiles: BTreeMap<String, Profile>,
}

/// One controller and the token to sign in with.
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

/// Name of the profile that `muster login` writes unless `--profile` is given.
pub(crate) const DEFAULT_PROFILE: &str = "default";

impl Profiles {
    /// `$MUSTER_CONFIG`, else a path under `$XDG_CONFIG_HOME` or `~/.config`.
    pub(crate) fn path() -> Option<PathBuf> {
        let set = |name: &str| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        set("MUSTER_CONFIG").or_else(|| {
            let base = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")))?;
            Some(base.join("muster").join("config.toml"))
        })
    }

    /// Reads the file. If it does not exist, there are no profiles.
    pub(crate) fn load() -> Result<Self, Failure> {
        let Some(path) = Self::path() else { return Ok(Self::default()) };
        match fs::read_to_string(&path) {
            Ok(text) => toml::from_str(&text)
                .map_err(|e| Failure::Usage(format!("{} cannot be read: {}", path.display(), e.message()))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(e) => Err(Failure::file(path)(e)),
        }
    }

    /// Replaces the file in one step. Only its owner can read it.
    pub(crate) fn save(&self) -> Result<PathBuf, Failure> {
        let path = Self::path().ok_or_else(|| Failure::Usage("set HOME or MUSTER_CONFIG to keep a profile".into()))?;
        let text = toml::to_string_pretty(self).map_err(|e| Failure::Io("profile".into(), io::Error::other(e)))?;
        if let Some(dir) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(Failure::file(dir))?;
        }
        let fresh = path.with_extension(format!("toml.{}", std::process::id()));
        let written = write_private(&fresh, text.as_bytes()).and_then(|()| fs::rename(&fresh, &path));
        written.map_err(|e| {
            // If this fails too, the person must still hear of the first error.
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

/// Reads a token: the text itself, or the content of the file after `@`.
pub(crate) fn read_secret(text: &str) -> Result<Secret, Failure> {
    let Some(path) = text.strip_prefix('@') else { return Ok(Secret::new(text)) };
    let secret = Secret::new(fs::read_to_string(path).map_err(Failure::file(path))?);
    match secret.reveal().is_empty() {
        true => Err(Failure::Usage(format!("{path} is empty, expected a token"))),
        false => Ok(secret),
    }
}

/// Parses the address of a controller: with a scheme, without a query.
pub(crate) fn parse_url(text: &str) -> Result<Url, Failure> {
    let wrong = |why: &str| Failure::Usage(format!("'{text}' is not a controller's address: {why}"));
    let url = Url::parse(text).map_err(|e| wrong(&e.to_string()))?;
    match url.scheme() {
        "http" | "https" => {}
        _ => return Err(wrong("an address starts with https:// or http://")),
    }
    if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("an address has a host, a port and a path, nothing else"));
    }
    Ok(url)
}

impl Settings {
    /// Puts together what options, environment and profile say.
    pub(crate) fn resolve(global: &Global) -> Result<Self, Failure> {
        let profile = chosen_profile(global)?;
        let Some(address) = global.url.as_ref().or(profile.as_ref().map(|p| &p.url)) else {
            let text = "no controller is known: run `muster login URL`, or set MUSTER_URL or --url";
            return Err(Failure::Usage(text.to_owned()));
        };
        let url = parse_url(address)?;
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

/// Finds the profile to use, if there is one.
fn chosen_profile(global: &Global) -> Result<Option<Profile>, Failure> {
    let chosen = global.profile.as_deref();
    if global.url.is_some() && chosen.is_none() {
        // The profile is not needed, so a broken file does not matter.
        return Ok(None);
    }
    let Profiles { current, mut profiles } = Profiles::load()?;
    let name = chosen.or(current.as_deref()).unwrap_or(DEFAULT_PROFILE);
    match profiles.remove(name) {
        None if chosen.is_some() => {
            Err(Failure::Usage(format!("there is no profile '{name}': run `muster login --profile {name} URL`")))
        }
        found => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_with_more_than_host_port_and_path_are_refused() {
        assert!(parse_url("https://muster.example:7400").is_ok());
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
