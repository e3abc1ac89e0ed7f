//! What the controller is told: flag before environment (`MUSTER_CONTROLLER_…`) before TOML before default.
//!
//! `deploy/config/control-plane.example.toml` lists every key with its default; a test compares the two.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::store::DatabaseUrl;

/// A setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {why}", path.display())]
    File {
        /// File.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A value does not fit.
    #[error("{key}: {why}")]
    Value {
        /// The setting, as in the TOML file.
        key: &'static str,
        /// Why.
        why: String,
    },
}

/// The effective configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where CA, keys, the first token and, by default, the database are kept.
    pub data_dir: PathBuf,
    /// The doors.
    pub doors: Doors,
    /// The database; none means `DATA/muster.db`.
    pub database: Option<DatabaseUrl>,
    /// The pool.
    pub pool: Pool,
    /// The log.
    pub log: Log,
}

/// The doors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doors {
    /// For people and for joining.
    pub listen: SocketAddr,
    /// For joined nodes, always mutual TLS; none means the next port.
    pub node_listen: Option<SocketAddr>,
    /// How the people's door is reached from outside, if that differs.
    pub public_url: Option<String>,
    /// Certificate chain for the people's door; none means one by the cluster's CA.
    pub tls_cert: Option<PathBuf>,
    /// Its key.
    pub tls_key: Option<PathBuf>,
    /// Makes the people's door plain.
    pub insecure_http: bool,
    /// A door of its own for `/metrics`, without a token.
    pub metrics_listen: Option<SocketAddr>,
}

/// The pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Copies wanted of every object.
    pub min_copies: u32,
}

/// The log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// What is logged, as `RUST_LOG`.
    pub filter: String,
    /// How.
    pub format: LogFormat,
}

/// How the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// The people's door where nothing else is said.
pub const DEFAULT_PORT: u16 = 7400;

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: "/var/lib/muster/controller".into(),
            doors: Doors {
                listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), DEFAULT_PORT),
                node_listen: None,
                public_url: None,
                tls_cert: None,
                tls_key: None,
                insecure_http: false,
                metrics_listen: None,
            },
            database: None,
            pool: Pool { min_copies: 2 },
            log: Log { filter: "info".to_owned(), format: LogFormat::Text },
        }
    }
}

impl Config {
    /// Where the database is.
    #[must_use]
    pub fn database_url(&self) -> DatabaseUrl {
        self.database.clone().unwrap_or_else(|| DatabaseUrl::Sqlite(self.data_dir.join("muster.db")))
    }

    /// Where joined nodes knock.
    #[must_use]
    pub fn node_listen(&self) -> SocketAddr {
        self.doors.node_listen.unwrap_or_else(|| {
            let listen = self.doors.listen;
            // Port 0 asks for any free port; so does the node door then.
            let port = if listen.port() == 0 { 0 } else { listen.port().wrapping_add(1) };
            SocketAddr::new(listen.ip(), port)
        })
    }

    /// The default, changed by the TOML file if there is one, changed by `given` (flags and environment).
    pub fn load(file: Option<&Path>, given: Settings) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        if let Some(path) = file {
            let failed = |why: String| ConfigError::File { path: path.to_owned(), why };
            let text = std::fs::read_to_string(path).map_err(|e| failed(e.to_string()))?;
            config.apply(Settings::from_toml(&text).map_err(failed)?)?;
        }
        config.apply(given)?;
        config.check()?;
        Ok(config)
    }

    fn apply(&mut self, given: Settings) -> Result<(), ConfigError> {
        set(&mut self.data_dir, given.data_dir);
        set(&mut self.doors.listen, given.listen);
        set_some(&mut self.doors.node_listen, given.node_listen);
        set_some(&mut self.doors.public_url, given.public_url);
        set_some(&mut self.doors.tls_cert, given.tls_cert);
        set_some(&mut self.doors.tls_key, given.tls_key);
        set(&mut self.doors.insecure_http, given.insecure_http);
        set_some(&mut self.doors.metrics_listen, given.metrics_listen);
        if let Some(text) = given.database {
            let text = secret(&text).map_err(|why| ConfigError::Value { key: "database", why })?;
            self.database = Some(text.parse().map_err(|why| ConfigError::Value { key: "database", why })?);
        }
        set(&mut self.pool.min_copies, given.min_copies);
        set(&mut self.log.filter, given.log_filter);
        set(&mut self.log.format, given.log_format);
        Ok(())
    }

    fn check(&self) -> Result<(), ConfigError> {
        let wrong = |key, why: &str| Err(ConfigError::Value { key, why: why.to_owned() });
        if self.doors.tls_cert.is_some() != self.doors.tls_key.is_some() {
            return wrong("tls_cert", "certificate and key come together: give both or none");
        }
        if self.doors.insecure_http && self.doors.tls_cert.is_some() {
            return wrong("insecure_http", "a plain door has no certificate: give one or the other");
        }
        if !(1..=7).contains(&self.pool.min_copies) {
            return wrong("pool.min_copies", "1 to 7 copies");
        }
        if self.doors.node_listen.is_none() && self.doors.listen.port() == u16::MAX {
            return wrong("node_listen", "there is no next port after 65535: say which one");
        }
        if let Some(url) = &self.doors.public_url
            && reqwest::Url::parse(url).ok().and_then(|u| u.host_str().map(str::to_owned)).is_none()
        {
            return wrong("public_url", "not a URL with a host");
        }
        if tracing_subscriber::EnvFilter::try_new(&self.log.filter).is_err() {
            return wrong("log.filter", "not a filter like info or muster_controller=debug,info");
        }
        Ok(())
    }
}

fn set<T>(to: &mut T, from: Option<T>) {
    if let Some(value) = from {
        *to = value;
    }
}

fn set_some<T>(to: &mut Option<T>, from: Option<T>) {
    if from.is_some() {
        *to = from;
    }
}

/// A value that may be kept in a file: `@FILE` is its content.
fn secret(text: &str) -> Result<String, String> {
    match text.strip_prefix('@') {
        None => Ok(text.to_owned()),
        Some(path) => {
            let content = std::fs::read_to_string(path).map_err(|e| format!("cannot read {path}: {e}"))?;
            Ok(content.trim().to_owned())
        }
    }
}

/// What one source says: flags with environment, or a TOML file. Absent means nothing is said.
#[derive(Clone, Default, clap::Args)]
pub struct Settings {
    /// Folder for CA, keys, the first token and, by default, the database
    #[arg(long, value_name = "DIR", env = "MUSTER_CONTROLLER_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// The door for people and for joining [default: 127.0.0.1:7400]
    #[arg(long, value_name = "IP:PORT", env = "MUSTER_CONTROLLER_LISTEN")]
    pub listen: Option<SocketAddr>,
    /// The door for joined nodes, always mutual TLS [default: the next port]
    #[arg(long, value_name = "IP:PORT", env = "MUSTER_CONTROLLER_NODE_LISTEN")]
    pub node_listen: Option<SocketAddr>,
    /// How the people's door is reached from outside, if that differs
    #[arg(long, value_name = "URL", env = "MUSTER_CONTROLLER_PUBLIC_URL")]
    pub public_url: Option<String>,
    /// Certificate chain of the people's door [default: one by the cluster's CA]
    #[arg(long, value_name = "FILE", env = "MUSTER_CONTROLLER_TLS_CERT")]
    pub tls_cert: Option<PathBuf>,
    /// Key of that certificate
    #[arg(long, value_name = "FILE", env = "MUSTER_CONTROLLER_TLS_KEY")]
    pub tls_key: Option<PathBuf>,
    /// sqlite:PATH, or @FILE with it inside [default: sqlite:DATA/muster.db]
    #[arg(long, value_name = "URL", env = "MUSTER_CONTROLLER_DATABASE", hide_env_values = true)]
    pub database: Option<String>,
    /// Make the people's door plain HTTP: for loopback and test networks only
    #[arg(long, env = "MUSTER_CONTROLLER_INSECURE_HTTP", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub insecure_http: Option<bool>,
    /// A door of its own for /metrics, without a token
    #[arg(long, value_name = "IP:PORT", env = "MUSTER_CONTROLLER_METRICS_LISTEN")]
    pub metrics_listen: Option<SocketAddr>,
    /// Copies wanted of every object [default: 2]
    #[arg(long, value_name = "N", env = "MUSTER_CONTROLLER_MIN_COPIES")]
    pub min_copies: Option<u32>,
    /// What is logged [default: info]
    #[arg(long, value_name = "FILTER", env = "MUSTER_CONTROLLER_LOG")]
    pub log_filter: Option<String>,
    /// How the log looks [default: text]
    #[arg(long, value_name = "FORMAT", env = "MUSTER_CONTROLLER_LOG_FORMAT")]
    pub log_format: Option<LogFormat>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("data_dir", &self.data_dir).finish_non_exhaustive()
    }
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    data_dir: Option<PathBuf>,
    listen: Option<SocketAddr>,
    node_listen: Option<SocketAddr>,
    public_url: Option<String>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    insecure_http: Option<bool>,
    metrics_listen: Option<SocketAddr>,
    database: Option<String>,
    pool: FilePool,
    log: FileLog,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FilePool {
    min_copies: Option<u32>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct FileLog {
    filter: Option<String>,
    format: Option<LogFormat>,
}

impl Settings {
    fn from_toml(text: &str) -> Result<Self, String> {
        let file: File = toml::from_str(text).map_err(|e| e.to_string())?;
        Ok(Self {
            data_dir: file.data_dir,
            listen: file.listen,
            node_listen: file.node_listen,
            public_url: file.public_url,
            tls_cert: file.tls_cert,
            tls_key: file.tls_key,
            database: file.database,
            insecure_http: file.insecure_http,
            metrics_listen: file.metrics_listen,
            min_copies: file.pool.min_copies,
            log_filter: file.log.filter,
            log_format: file.log.format,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/config/control-plane.example.toml");

    #[test]
    fn the_example_is_the_default() {
        let config = Config::load(Some(Path::new(EXAMPLE)), Settings::default()).expect("the example");
        assert_eq!(config, Config::default());
    }

    #[test]
    fn the_example_names_every_key() {
        // Keys without a default stand behind `#`; with the marks taken away the file must still parse.
        let text = std::fs::read_to_string(EXAMPLE).expect("the example");
        let all: String =
            text.lines().map(|l| l.strip_prefix("#: ").unwrap_or(l)).fold(String::new(), |t, l| t + l + "\n");
        let said = Settings::from_toml(&all).expect("the example with all keys");
        let Settings {
            data_dir,
            listen,
            node_listen,
            public_url,
            tls_cert,
            tls_key,
            database,
            insecure_http,
            metrics_listen,
            min_copies,
            log_filter,
            log_format,
        } = said;
        assert!(data_dir.is_some() && listen.is_some() && node_listen.is_some() && public_url.is_some());
        assert!(tls_cert.is_some() && tls_key.is_some() && database.is_some() && insecure_http.is_some());
        assert!(metrics_listen.is_some() && min_copies.is_some() && log_filter.is_some() && log_format.is_some());
    }

    #[test]
    fn flags_go_before_the_file() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("c.toml");
        std::fs::write(&file, "listen = \"127.0.0.1:1\"\nnode_listen = \"127.0.0.1:9\"\n[pool]\nmin_copies = 3\n")
            .expect("written");
        let given = Settings { listen: Some("127.0.0.1:2".parse().expect("an address")), ..Settings::default() };
        let config = Config::load(Some(&file), given).expect("a configuration");
        assert_eq!((config.doors.listen.port(), config.node_listen().port(), config.pool.min_copies), (2, 9, 3));
    }

    #[test]
    fn what_cannot_be_is_refused_and_named() {
        let key = |given: Settings| match Config::load(None, given) {
            Err(ConfigError::Value { key, .. }) => key,
            other => panic!("{other:?}"),
        };
        assert_eq!(key(Settings { tls_cert: Some("x".into()), ..Settings::default() }), "tls_cert");
        assert_eq!(key(Settings { min_copies: Some(0), ..Settings::default() }), "pool.min_copies");
        assert_eq!(key(Settings { database: Some("mysql://x".into()), ..Settings::default() }), "database");
        assert_eq!(key(Settings { public_url: Some("nowhere".into()), ..Settings::default() }), "public_url");
        assert!(Settings::from_toml("lisen = 'x'").expect_err("unknown").contains("lisen"));
    }
}
