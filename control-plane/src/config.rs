//! The configuration of the controller. A flag overrides its environment variable (`MUSTER_CONTROLLER_…`), which
//! overrides the TOML file, which overrides the default.
//!
//! `deploy/config/control-plane.example.toml` documents every key with its default. Tests compare it with [`Config`].

pub mod repository;

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use ipnet::Ipv4Net;
use muster_api::{
    node_protocol::SILENT_AFTER_S,
    units::{exact_duration, parse_duration},
};
use serde::{Deserialize, Deserializer, de};

use self::repository::{Repository, RepositorySettings, Wrong, secret};
use crate::{
    domain::{
        instance::{STOP_TIMEOUT, STOP_TIMEOUT_MAX},
        network::{DEFAULT_SUBNET, check_subnet},
        order::{READY_TIMEOUT, TIME_MAX},
    },
    store::DatabaseUrl,
};

/// Why a configuration cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The TOML file cannot be read or parsed.
    #[error("cannot read {}: {why}", path.display())]
    File {
        /// Path of the file.
        path: PathBuf,
        /// The error, for people.
        why: String,
    },
    /// The value of a setting is invalid.
    #[error("{key}: {why}")]
    Value {
        /// Name of the setting in the TOML file.
        key: &'static str,
        /// What is wrong with it, for people.
        why: String,
    },
}

/// The effective configuration, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Folder for the CA, keys, the first token and, by default, the database.
    pub data_dir: PathBuf,
    /// Listeners and their TLS.
    pub doors: Doors,
    /// The database; `None`: `muster.db` in `data_dir`. See [`Self::database_url`].
    pub database: Option<DatabaseUrl>,
    /// Settings of the pool.
    pub pool: Pool,
    /// What instances get where a request does not say it.
    pub instances: Instances,
    /// Settings of networks.
    pub networks: Networks,
    /// Settings of the sessions of browsers.
    pub sessions: Sessions,
    /// Settings of uploads.
    pub uploads: Uploads,
    /// Settings of the log.
    pub log: Log,
}

/// Listeners and their TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doors {
    /// Address of the public listener: the API for people, and joining of nodes.
    pub listen: SocketAddr,
    /// Address of the listener for joined nodes, always with mutual TLS; `None`: the port after `listen`. See
    /// [`Config::node_listen`].
    pub node_listen: Option<SocketAddr>,
    /// URL under which people reach the public listener, if it differs from its address.
    pub public_url: Option<String>,
    /// Certificate chain of the public listener, PEM; `None`: the cluster's CA issues one.
    pub tls_cert: Option<PathBuf>,
    /// Private key of `tls_cert`, PEM.
    pub tls_key: Option<PathBuf>,
    /// Whether the public listener is plain HTTP.
    pub insecure_http: bool,
    /// Address of a listener that only serves `/metrics`, without a token; `None`: there is none.
    pub metrics_listen: Option<SocketAddr>,
    /// Longest time in which the body of a call has to come, in seconds. Image content has limits of its own.
    pub body_within_s: u64,
}

impl Doors {
    /// Whether people reach the public listener by TLS: its own, or that of a proxy which `public_url` names.
    #[must_use]
    pub fn have_tls(&self) -> bool {
        !self.insecure_http || self.public_url().is_some_and(|url| url.scheme() == "https")
    }

    /// Whether a page of this origin (`Origin` of a request) is one of ours. `host` is the `Host` of the request.
    #[must_use]
    pub fn is_own_origin(&self, origin: &str, host: Option<&str>) -> bool {
        let scheme = if self.have_tls() { "https" } else { "http" };
        host.is_some_and(|host| origin.eq_ignore_ascii_case(&format!("{scheme}://{host}")))
            || self.public_url().is_some_and(|url| origin == url.origin().ascii_serialization())
    }

    fn public_url(&self) -> Option<reqwest::Url> {
        self.public_url.as_deref().and_then(|url| reqwest::Url::parse(url).ok())
    }
}

/// Settings of the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Number of copies wanted of every object, 1 to 7.
    pub min_copies: u32,
    /// Who shares the objects of equal content.
    pub share: Share,
    /// Time after which a silent node owns no objects any more, so that others copy what it has.
    pub out_after: Duration,
    /// Time between two rounds of the sweep; whole seconds, 10 s to 7 days.
    pub sweep_every: Duration,
    /// The S3-compatible store that has all objects, too; `None`: there is none.
    pub repository: Option<Repository>,
}

/// Who shares the objects of equal content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Share {
    /// All projects: equal content is stored once. Whoever uploads content can tell from the time it takes whether the
    /// cluster had it.
    #[default]
    Cluster,
    /// Only the images of one project: what two projects have is stored twice, and no upload tells what others have.
    Project,
}

/// Settings of uploads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uploads {
    /// The slowest pace at which content may come, in bytes per second.
    pub min_bytes_per_s: u64,
    /// The time over which the pace is taken, in seconds.
    pub pace_over_s: u64,
}

/// What instances get where a request does not say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instances {
    /// How long a guest may take to turn off before its power is cut; whole seconds, at most 1 h.
    pub stop_timeout: Duration,
    /// How long an instance may take to be ready; whole seconds, 1 s to 7 days.
    pub ready_timeout: Duration,
    /// How long a console stays open while nothing goes through it; whole seconds, 10 s to 7 days.
    pub console_idle_timeout: Duration,
}

/// Settings of networks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Networks {
    /// The subnet of networks whose request names none, and of the network `default` of each project.
    pub default_subnet: Ipv4Net,
    /// Most networks of one project. The network `default` is made in any case.
    pub max_per_project: u64,
    /// Most security groups of one project. The group `default` is made in any case.
    pub max_groups_per_project: u64,
    /// The ports of nodes that can lead to instances.
    pub published_ports: PortRange,
}

/// A range of ports, written `FIRST-LAST`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// Whether the port is in it.
    #[must_use]
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    /// All ports in it.
    #[must_use]
    pub const fn ports(self) -> RangeInclusive<u16> {
        self.first..=self.last
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let range = text.split_once('-').and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
        match range {
            Some((first, last)) if 0 < first && first <= last => Ok(Self { first, last }),
            _ => Err(format!("expected a range of ports such as 30000-32767, got '{text}'")),
        }
    }
}

/// Settings of the sessions of browsers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sessions {
    /// How long a session lasts after somebody signed in, at most until its token ends; whole seconds, 1 min to 30 days.
    pub ttl: Duration,
}

/// Settings of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Which lines are logged, in the syntax of `RUST_LOG`.
    pub filter: String,
    /// How the lines are written.
    pub format: LogFormat,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// One line of text each, for people.
    #[default]
    Text,
    /// One JSON object each, for programs.
    Json,
}

/// Default port of the public listener. The node listener takes the next port.
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
                body_within_s: 30,
            },
            database: None,
            pool: Pool {
                min_copies: 2,
                share: Share::Cluster,
                out_after: Duration::from_secs(600),
                sweep_every: Duration::from_secs(600),
                repository: None,
            },
            uploads: Uploads { min_bytes_per_s: 4096, pace_over_s: 60 },
            instances: Instances {
                stop_timeout: STOP_TIMEOUT,
                ready_timeout: READY_TIMEOUT,
                console_idle_timeout: Duration::from_secs(30 * 60),
            },
            networks: Networks {
                default_subnet: DEFAULT_SUBNET,
                max_per_project: 100,
                max_groups_per_project: 200,
                published_ports: PortRange { first: 30_000, last: 32_767 },
            },
            sessions: Sessions { ttl: Duration::from_secs(12 * 3600) },
            log: Log { filter: "info".to_owned(), format: LogFormat::Text },
        }
    }
}

impl Config {
    /// The configured database, or the default one in the data folder.
    #[must_use]
    pub fn database_url(&self) -> DatabaseUrl {
        self.database.clone().unwrap_or_else(|| DatabaseUrl::Sqlite(self.data_dir.join("muster.db")))
    }

    /// The configured address of the node listener, or the port after the public one.
    #[must_use]
    pub fn node_listen(&self) -> SocketAddr {
        self.doors.node_listen.unwrap_or_else(|| {
            let listen = self.doors.listen;
            // Port 0 asks for any free port, then for both listeners.
            let port = match listen.port() {
                0 => 0,
                port => port.checked_add(1).expect("`check` refuses port 65535 without node_listen"),
            };
            SocketAddr::new(listen.ip(), port)
        })
    }

    /// The defaults, overridden by the TOML file if there is one, overridden by `given` (flags and environment).
    ///
    /// # Errors
    /// [`ConfigError`] if the file cannot be read, or a value is invalid.
    pub fn load(file: Option<&Path>, given: Settings) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        let (mut given, mut repository) = (given, RepositorySettings::default());
        if let Some(path) = file {
            let failed = |why: String| ConfigError::File { path: path.to_owned(), why };
            let text = std::fs::read_to_string(path).map_err(|e| failed(e.to_string()))?;
            let mut in_file: Settings = toml::from_str(&text).map_err(|e| failed(e.to_string()))?;
            repository = std::mem::take(&mut in_file.pool.repository);
            config.apply(in_file)?;
        }
        // Its settings make sense only together.
        config.pool.repository = std::mem::take(&mut given.pool.repository)
            .or(repository)
            .checked()
            .map_err(|Wrong { key, why }| ConfigError::Value { key, why })?;
        config.apply(given)?;
        config.check()?;
        Ok(config)
    }

    fn apply(&mut self, given: Settings) -> Result<(), ConfigError> {
        set(&mut self.data_dir, given.data_dir);
        set(&mut self.doors.listen, given.listen);
        set(&mut self.doors.node_listen, given.node_listen.map(Some));
        set(&mut self.doors.public_url, given.public_url.map(Some));
        set(&mut self.doors.tls_cert, given.tls_cert.map(Some));
        set(&mut self.doors.tls_key, given.tls_key.map(Some));
        set(&mut self.doors.insecure_http, given.insecure_http);
        set(&mut self.doors.metrics_listen, given.metrics_listen.map(Some));
        if let Some(text) = given.database {
            let text = secret(&text).map_err(|why| ConfigError::Value { key: "database", why })?;
            self.database = Some(text.parse().map_err(|why| ConfigError::Value { key: "database", why })?);
        }
        set(&mut self.doors.body_within_s, given.body_within_s);
        set(&mut self.pool.min_copies, given.pool.min_copies);
        set(&mut self.pool.share, given.pool.share);
        set(&mut self.pool.out_after, given.pool.out_after);
        set(&mut self.pool.sweep_every, given.pool.sweep_every);
        set(&mut self.uploads.min_bytes_per_s, given.uploads.min_bytes_per_s);
        set(&mut self.uploads.pace_over_s, given.uploads.pace_over_s);
        set(&mut self.instances.stop_timeout, given.instances.stop_timeout);
        set(&mut self.instances.ready_timeout, given.instances.ready_timeout);
        set(&mut self.instances.console_idle_timeout, given.instances.console_idle_timeout);
        set(&mut self.networks.default_subnet, given.networks.default_subnet);
        set(&mut self.networks.max_per_project, given.networks.max_per_project);
        set(&mut self.networks.max_groups_per_project, given.networks.max_groups_per_project);
        set(&mut self.networks.published_ports, given.networks.published_ports);
        set(&mut self.sessions.ttl, given.sessions.ttl);
        set(&mut self.log.filter, given.log.filter);
        set(&mut self.log.format, given.log.format);
        Ok(())
    }

    fn check(&self) -> Result<(), ConfigError> {
        let wrong = |key, why: &str| Err(ConfigError::Value { key, why: why.to_owned() });
        if self.doors.tls_cert.is_some() != self.doors.tls_key.is_some() {
            return wrong("tls_cert", "a certificate needs its key and a key its certificate: give both or none");
        }
        if self.doors.insecure_http && self.doors.tls_cert.is_some() {
            return wrong("insecure_http", "plain HTTP has no certificate: give one of insecure_http and tls_cert");
        }
        if !(1..=7).contains(&self.pool.min_copies) {
            return wrong("pool.min_copies", "it must be from 1 to 7");
        }
        let Instances { stop_timeout, ready_timeout, console_idle_timeout } = self.instances;
        for (key, time, least, most) in [
            ("instances.stop_timeout", stop_timeout, Duration::ZERO, STOP_TIMEOUT_MAX),
            ("instances.ready_timeout", ready_timeout, Duration::from_secs(1), TIME_MAX),
            ("instances.console_idle_timeout", console_idle_timeout, Duration::from_secs(10), TIME_MAX),
            ("pool.out_after", self.pool.out_after, Duration::from_secs(SILENT_AFTER_S), TIME_MAX),
            ("pool.sweep_every", self.pool.sweep_every, Duration::from_secs(10), TIME_MAX),
            ("sessions.ttl", self.sessions.ttl, Duration::from_secs(60), Duration::from_secs(30 * 86_400)),
        ] {
            if time.subsec_nanos() != 0 || !(least..=most).contains(&time) {
                let [least, most, got] = [least, most, time].map(exact_duration);
                return wrong(key, &format!("it must be whole seconds from {least} to {most}, got {got}"));
            }
        }
        for (key, seconds) in
            [("body_within_s", self.doors.body_within_s), ("uploads.pace_over_s", self.uploads.pace_over_s)]
        {
            if !(1..=3600).contains(&seconds) {
                return wrong(key, "it must be from 1 to 3600 seconds");
            }
        }
        if let Some(error) = check_subnet("", self.networks.default_subnet) {
            return wrong("networks.default_subnet", &error.detail);
        }
        if self.doors.node_listen.is_none() && self.doors.listen.port() == u16::MAX {
            return wrong("node_listen", "there is no port after 65535: give node_listen");
        }
        if self.doors.public_url.is_some() && !self.doors.public_url().is_some_and(|url| url.has_host()) {
            return wrong("public_url", "it is not a URL with a host");
        }
        if tracing_subscriber::EnvFilter::try_new(&self.log.filter).is_err() {
            return wrong("log.filter", "it is not a filter such as info or muster_controller=debug,info");
        }
        Ok(())
    }
}

fn set<T>(to: &mut T, from: Option<T>) {
    if let Some(value) = from {
        *to = value;
    }
}

/// The settings from one source: from flags and environment, or from the TOML file. `None`: the source does not have
/// it.
#[derive(Clone, Default, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Folder for CA, keys, the first token and, by default, the database
    #[arg(long, value_name = "DIR", env = "MUSTER_CONTROLLER_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address of the API for people and for joining nodes [default: 127.0.0.1:7400]
    #[arg(long, value_name = "IP:PORT", env = "MUSTER_CONTROLLER_LISTEN")]
    pub listen: Option<SocketAddr>,
    /// Address for joined nodes, always with mutual TLS [default: the port after --listen]
    #[arg(long, value_name = "IP:PORT", env = "MUSTER_CONTROLLER_NODE_LISTEN")]
    pub node_listen: Option<SocketAddr>,
    /// URL under which people reach the API, if it differs from --listen
    #[arg(long, value_name = "URL", env = "MUSTER_CONTROLLER_PUBLIC_URL")]
    pub public_url: Option<String>,
    /// Certificate chain of the API, PEM [default: issued by the cluster's CA]
    #[arg(long, value_name = "FILE", env = "MUSTER_CONTROLLER_TLS_CERT")]
    pub tls_cert: Option<PathBuf>,
    /// Private key of that certificate, PEM
    #[arg(long, value_name = "FILE", env = "MUSTER_CONTROLLER_TLS_KEY")]
    pub tls_key: Option<PathBuf>,
    /// The database: sqlite:PATH, or @FILE for a file with that text [default: muster.db in the data folder]
    #[arg(long, value_name = "URL", env = "MUSTER_CONTROLLER_DATABASE", hide_env_values = true)]
    pub database: Option<String>,
    /// Serve the API as plain HTTP; only for loopback and test networks
    #[arg(long, env = "MUSTER_CONTROLLER_INSECURE_HTTP", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub insecure_http: Option<bool>,
    /// Address where only /metrics is served, without a token
    #[arg(long, value_name = "IP:PORT", env = "MUSTER_CONTROLLER_METRICS_LISTEN")]
    pub metrics_listen: Option<SocketAddr>,
    /// Seconds in which the body of a call has to come [default: 30]
    #[arg(long, value_name = "S", env = "MUSTER_CONTROLLER_BODY_WITHIN_S")]
    pub body_within_s: Option<u64>,
    /// Settings of the pool
    #[command(flatten)]
    pub pool: PoolSettings,
    /// What instances get where a request does not say it
    #[command(flatten)]
    pub instances: InstancesSettings,
    /// Settings of networks
    #[command(flatten)]
    pub networks: NetworksSettings,
    /// Settings of the sessions of browsers
    #[command(flatten)]
    pub sessions: SessionsSettings,
    /// Settings of uploads
    #[command(flatten)]
    pub uploads: UploadSettings,
    /// Settings of the log
    #[command(flatten)]
    pub log: LogSettings,
}

/// The settings of the pool from one source.
#[derive(Clone, Default, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct PoolSettings {
    /// Number of copies of every object, 1 to 7 [default: 2]
    #[arg(long, value_name = "N", env = "MUSTER_CONTROLLER_MIN_COPIES")]
    pub min_copies: Option<u32>,
    /// Who shares the objects of equal content; with project, uploads tell nothing about other projects [default: cluster]
    #[arg(long, value_name = "WHO", env = "MUSTER_CONTROLLER_SHARE")]
    pub share: Option<Share>,
    /// Time after which others copy what a silent node has [default: 10m]
    #[arg(long, value_name = "TIME", env = "MUSTER_CONTROLLER_OUT_AFTER", value_parser = parse_duration)]
    #[serde(deserialize_with = "duration")]
    pub out_after: Option<Duration>,
    /// Time between two rounds that give back what nothing needs any more [default: 10m]
    #[arg(long, value_name = "TIME", env = "MUSTER_CONTROLLER_SWEEP_EVERY", value_parser = parse_duration)]
    #[serde(deserialize_with = "duration")]
    pub sweep_every: Option<Duration>,
    /// The S3-compatible store that has all objects, too
    #[command(flatten)]
    pub repository: RepositorySettings,
}

/// The settings of uploads from one source.
#[derive(Clone, Default, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct UploadSettings {
    /// Bytes per second that the content of an image has to come with [default: 4096]
    #[arg(long = "upload-min-bytes-per-s", value_name = "N", env = "MUSTER_CONTROLLER_UPLOAD_MIN_BYTES_PER_S")]
    pub min_bytes_per_s: Option<u64>,
    /// Seconds over which that pace is taken [default: 60]
    #[arg(long = "upload-pace-over-s", value_name = "S", env = "MUSTER_CONTROLLER_UPLOAD_PACE_OVER_S")]
    pub pace_over_s: Option<u64>,
}

/// What instances get where a request does not say it, from one source.
#[derive(Clone, Default, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct InstancesSettings {
    /// Time a guest has to turn off before its power is cut, where a request does not say it [default: 30s]
    #[arg(long, value_name = "TIME", env = "MUSTER_CONTROLLER_STOP_TIMEOUT", value_parser = parse_duration)]
    #[serde(deserialize_with = "duration")]
    pub stop_timeout: Option<Duration>,
    /// Time an instance has to become ready, where a request does not say it [default: 5m]
    #[arg(long, value_name = "TIME", env = "MUSTER_CONTROLLER_READY_TIMEOUT", value_parser = parse_duration)]
    #[serde(deserialize_with = "duration")]
    pub ready_timeout: Option<Duration>,
    /// Time after which a console is closed that nothing goes through [default: 30m]
    #[arg(long, value_name = "TIME", env = "MUSTER_CONTROLLER_CONSOLE_IDLE_TIMEOUT", value_parser = parse_duration)]
    #[serde(deserialize_with = "duration")]
    pub console_idle_timeout: Option<Duration>,
}

/// The settings of networks from one source.
#[derive(Clone, Default, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct NetworksSettings {
    /// Subnet of networks whose request names none, and of the network default of each project [default: 10.77.0.0/16]
    #[arg(long, value_name = "SUBNET", env = "MUSTER_CONTROLLER_DEFAULT_SUBNET")]
    pub default_subnet: Option<Ipv4Net>,
    /// Most networks of one project [default: 100]
    #[arg(long = "networks-per-project", value_name = "N", env = "MUSTER_CONTROLLER_NETWORKS_PER_PROJECT")]
    pub max_per_project: Option<u64>,
    /// Most security groups of one project [default: 200]
    #[arg(
        long = "security-groups-per-project",
        value_name = "N",
        env = "MUSTER_CONTROLLER_SECURITY_GROUPS_PER_PROJECT"
    )]
    pub max_groups_per_project: Option<u64>,
    /// Ports of nodes that can lead to instances [default: 30000-32767]
    #[arg(long, value_name = "FIRST-LAST", env = "MUSTER_CONTROLLER_PUBLISHED_PORTS")]
    #[serde(deserialize_with = "port_range")]
    pub published_ports: Option<PortRange>,
}

/// The settings of the sessions of browsers from one source.
#[derive(Clone, Default, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct SessionsSettings {
    /// Time after which a browser has to sign in again, at most until its token ends [default: 12h]
    #[arg(id = "session_ttl", long = "session-ttl", value_name = "TIME", env = "MUSTER_CONTROLLER_SESSION_TTL", value_parser = parse_duration)]
    #[serde(deserialize_with = "duration")]
    pub ttl: Option<Duration>,
}

fn duration<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Duration>, D::Error> {
    parse_duration(&String::deserialize(input)?).map(Some).map_err(de::Error::custom)
}

fn port_range<'de, D: Deserializer<'de>>(input: D) -> Result<Option<PortRange>, D::Error> {
    String::deserialize(input)?.parse().map(Some).map_err(de::Error::custom)
}

/// The settings of the log from one source.
#[derive(Clone, Default, Deserialize, clap::Args)]
#[serde(default, deny_unknown_fields)]
pub struct LogSettings {
    /// Which lines are logged, such as info or muster_controller=debug,info [default: info]
    #[arg(long = "log-filter", value_name = "FILTER", env = "MUSTER_CONTROLLER_LOG")]
    pub filter: Option<String>,
    /// How log lines are written [default: text]
    #[arg(long = "log-format", value_name = "FORMAT", env = "MUSTER_CONTROLLER_LOG_FORMAT")]
    pub format: Option<LogFormat>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/config/control-plane.example.toml");

    #[test]
    fn the_example_file_has_the_defaults() {
        let config = Config::load(Some(Path::new(EXAMPLE)), Settings::default()).expect("the example");
        assert_eq!(config, Config::default());
    }

    #[test]
    fn the_example_file_has_every_key() {
        // Keys without a default are commented out with `#: `. Without these marks the file must still parse.
        let text = std::fs::read_to_string(EXAMPLE).expect("the example");
        let all: String =
            text.lines().map(|l| l.strip_prefix("#: ").unwrap_or(l)).fold(String::new(), |t, l| t + l + "\n");
        let said: Settings = toml::from_str(&all).expect("the example with all keys");
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
            body_within_s,
            pool: PoolSettings { min_copies, share, out_after, sweep_every, repository },
            uploads: UploadSettings { min_bytes_per_s, pace_over_s },
            instances: InstancesSettings { stop_timeout, ready_timeout, console_idle_timeout },
            networks: NetworksSettings { default_subnet, max_per_project, max_groups_per_project, published_ports },
            sessions: SessionsSettings { ttl },
            log: LogSettings { filter, format },
        } = said;
        assert!(data_dir.is_some() && listen.is_some() && node_listen.is_some() && public_url.is_some());
        assert!(tls_cert.is_some() && tls_key.is_some() && database.is_some() && insecure_http.is_some());
        assert!(default_subnet.is_some() && max_per_project.is_some());
        assert!(max_groups_per_project.is_some() && published_ports.is_some());
        assert!(stop_timeout.is_some() && ready_timeout.is_some() && console_idle_timeout.is_some() && ttl.is_some());
        let RepositorySettings {
            url,
            endpoint,
            region,
            access_key,
            secret_key,
            session_token,
            ca_file,
            allow_http,
            write,
            evict,
        } = repository;
        assert!(
            url.is_some() && endpoint.is_some() && region.is_some() && access_key.is_some() && secret_key.is_some()
        );
        assert!(session_token.is_some() && ca_file.is_some() && allow_http.is_some() && write.is_some());
        assert!(evict.is_some());
        assert!(body_within_s.is_some() && share.is_some() && min_bytes_per_s.is_some() && pace_over_s.is_some());
        assert!(
            out_after.is_some()
                && sweep_every.is_some()
                && metrics_listen.is_some()
                && min_copies.is_some()
                && filter.is_some()
                && format.is_some()
        );
    }

    #[test]
    fn the_help_has_the_defaults() {
        let help = <Settings as clap::Args>::augment_args(clap::Command::new("test")).render_help().to_string();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        let Config { doors, pool, log, uploads, instances, networks, sessions, .. } = Config::default();
        let Instances { stop_timeout, ready_timeout, console_idle_timeout } = instances;
        let times = [stop_timeout, ready_timeout, console_idle_timeout, sessions.ttl, pool.out_after, pool.sweep_every]
            .map(exact_duration);
        let numbers = [doors.body_within_s, pool.min_copies.into(), uploads.min_bytes_per_s, uploads.pace_over_s];
        let limits = [networks.max_per_project, networks.max_groups_per_project];
        let words = [doors.listen.to_string(), log.filter, "cluster".to_owned(), networks.default_subnet.to_string()];
        let ranges = [networks.published_ports.to_string()];
        let numbers = numbers.into_iter().chain(limits).map(|number| number.to_string());
        for default in numbers.chain(words).chain(ranges).chain(times) {
            assert!(help.contains(&format!("[default: {default}]")), "{default}: {help}");
        }
    }

    #[test]
    fn flags_override_the_file() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("c.toml");
        std::fs::write(&file, "listen = \"127.0.0.1:1\"\nnode_listen = \"127.0.0.1:9\"\n[pool]\nmin_copies = 3\n[instances]\nstop_timeout = \"90s\"\n")
            .expect("written");
        let given = Settings { listen: Some("127.0.0.1:2".parse().expect("an address")), ..Settings::default() };
        let config = Config::load(Some(&file), given).expect("a configuration");
        assert_eq!((config.doors.listen.port(), config.node_listen().port(), config.pool.min_copies), (2, 9, 3));
        assert_eq!(config.instances.stop_timeout, Duration::from_secs(90));
    }

    #[test]
    fn an_invalid_value_is_refused_with_its_key() {
        let key = |given: Settings| match Config::load(None, given) {
            Err(ConfigError::Value { key, .. }) => key,
            other => panic!("{other:?}"),
        };
        assert_eq!(key(Settings { tls_cert: Some("x".into()), ..Settings::default() }), "tls_cert");
        assert_eq!(
            key(Settings {
                pool: PoolSettings { min_copies: Some(0), ..PoolSettings::default() },
                ..Settings::default()
            }),
            "pool.min_copies"
        );
        for (time, fits) in [("0s", true), ("1h", true), ("61m", false), ("1500ms", false)] {
            let stop_timeout = Some(parse_duration(time).expect("a time"));
            let instances = InstancesSettings { stop_timeout, ..InstancesSettings::default() };
            let loaded = Config::load(None, Settings { instances, ..Settings::default() });
            assert_eq!(loaded.is_ok(), fits, "{time}: {loaded:?}");
        }
        let none = InstancesSettings { ready_timeout: Some(Duration::ZERO), ..InstancesSettings::default() };
        assert_eq!(key(Settings { instances: none, ..Settings::default() }), "instances.ready_timeout");
        let public = NetworksSettings { default_subnet: "8.8.0.0/16".parse().ok(), ..NetworksSettings::default() };
        assert_eq!(key(Settings { networks: public, ..Settings::default() }), "networks.default_subnet");
        assert_eq!(key(Settings { database: Some("mysql://x".into()), ..Settings::default() }), "database");
        assert_eq!(key(Settings { public_url: Some("nowhere".into()), ..Settings::default() }), "public_url");
        let unknown = toml::from_str::<Settings>("lisen = 'x'").err().expect("unknown");
        assert!(unknown.to_string().contains("lisen"));
    }
}
