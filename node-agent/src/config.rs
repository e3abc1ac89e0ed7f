//! The configuration of the agent. A flag overrides its environment variable (`MUSTER_AGENT_…`), which overrides the
//! TOML file (`--config`), which overrides the default.
//!
//! [`Settings`] is one of these layers: every key is optional, and flags and file have the same keys. [`Config`] is the
//! checked result. Sizes are texts such as `256KiB`, and shares of a file system texts such as `5%`. A secret is given
//! as `@FILE` or in the environment, and is never printed. Unknown keys are refused.
//!
//! `deploy/config/node-agent.example.toml` documents every key with its default. Tests compare it with [`Config`].

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use clap::ValueEnum;
use muster_api::{
    DottedName,
    deployment::Runtime,
    token::JoinToken,
    units::{parse_duration, parse_size},
};
use serde::{Deserialize, Deserializer, de};

use crate::{data_disk::Reserves, hypervisor::probe, mirror::WritePolicy, telemetry::LogFormat};

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The TOML file, or the file of a secret, cannot be read.
    #[error("cannot read {file}: {source}")]
    Read {
        /// Path of the file that cannot be read.
        file: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The TOML file cannot be parsed, or has an unknown key or an invalid value.
    #[error("{file} is not a configuration of muster-agent: {source}")]
    Parse {
        /// Path of the TOML file.
        file: PathBuf,
        /// The error with its place; boxed because it is large.
        source: Box<toml::de::Error>,
    },
    /// A required setting is missing; its key is given.
    #[error("{0} is missing: give --{flag}, {env} or the key in the file", flag = .0.replace('_', "-"), env = env_name(.0))]
    Missing(&'static str),
    /// The value of a setting is invalid.
    #[error("{key}: {detail}")]
    Invalid {
        /// Key of the setting, as in the TOML file.
        key: &'static str,
        /// What is wrong with it, for people.
        detail: String,
    },
}

fn env_name(key: &str) -> String {
    format!("MUSTER_AGENT_{}", key.to_ascii_uppercase())
}

/// A number of bytes, given as `4096`, `256KiB` or `1.5GiB`. K, M, G and T are binary units, kB, MB, GB and TB decimal
/// ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_size(text).map(Self)
    }
}

/// A span of time, given as `30s`, `5m`, `2h` or `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period(pub Duration);

impl FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_duration(text).map(Self)
    }
}

/// A part of a file system: a percentage such as `5%`, or a [`Size`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Percentage of the file system's size, 0 to 100.
    Percent(u64),
    /// A number of bytes, whatever the size of the file system is.
    Bytes(u64),
}

impl Share {
    /// The share in bytes, on a file system of `total_bytes`.
    #[must_use]
    pub fn of(self, total_bytes: u64) -> u64 {
        match self {
            Self::Percent(percent) => {
                let bytes = u128::from(total_bytes) * u128::from(percent) / 100;
                u64::try_from(bytes).expect("at most 100 % of `total_bytes`")
            }
            Self::Bytes(bytes) => bytes,
        }
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_suffix('%') {
            None => text.parse::<Size>().map(|size| Self::Bytes(size.0)),
            Some(number) => match number.trim().parse() {
                Ok(percent) if percent <= 100 => Ok(Self::Percent(percent)),
                _ => Err(format!("expected a share such as 5%, got '{text}'")),
            },
        }
    }
}

macro_rules! deserialize_from_text {
    ($($name:ident),*) => {$(
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
                String::deserialize(input)?.parse().map_err(de::Error::custom)
            }
        }
    )*};
}

deserialize_from_text!(Size, Period, Share);

/// A secret as it was given: the text itself, or `@FILE`. `Debug` prints the file, but never the text.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The secret, without white space around it. Reads the file if it is in one.
    ///
    /// # Errors
    /// [`ConfigError::Read`] if the file cannot be read.
    pub fn reveal(&self) -> Result<String, ConfigError> {
        let text = match self.0.strip_prefix('@') {
            None => self.0.clone(),
            Some(file) => std::fs::read_to_string(file)
                .map_err(|source| ConfigError::Read { file: PathBuf::from(file), source })?,
        };
        Ok(text.trim().to_owned())
    }
}

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
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

/// Which kinds of instances a node offers to run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum RuntimeChoice {
    /// Virtual machines under libvirt, and instances that are plain disk files.
    #[default]
    Libvirt,
    /// Only instances that are plain disk files.
    None,
}

macro_rules! settings {
    ($($(#[$doc:meta])* $name:ident: $type:ty, $env:literal, $value:literal;)*) => {
        /// One layer of the configuration: flags with environment, or the TOML file. Both have the same keys.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, clap::Args)]
        #[serde(deny_unknown_fields)]
        pub struct Settings {
            $($(#[$doc])* #[arg(long, env = $env, value_name = $value, hide_env_values = true)] pub $name: Option<$type>,)*
        }

        impl Settings {
            /// The names of all keys.
            pub const KEYS: &'static [&'static str] = &[$(stringify!($name)),*];

            /// This layer, with missing values taken from `below`.
            #[must_use]
            pub fn or(self, below: Self) -> Self {
                Self { $($name: self.$name.or(below.$name),)* }
            }
        }
    };
}

settings! {
    /// Folder for everything the agent keeps
    data_dir: PathBuf, "MUSTER_AGENT_DATA_DIR", "DIR";
    /// URL of the controller's API, needed to join: https://HOST:PORT
    controller: String, "MUSTER_AGENT_CONTROLLER", "URL";
    /// Join token, needed once: TOKEN or @FILE
    join_token: Secret, "MUSTER_AGENT_JOIN_TOKEN", "TOKEN|@FILE";
    /// Address where other nodes and the controller reach this node [default: 0.0.0.0:7450]
    listen: SocketAddr, "MUSTER_AGENT_LISTEN", "IP:PORT";
    /// That address as others see it, if it differs; required with 0.0.0.0
    advertise: SocketAddr, "MUSTER_AGENT_ADVERTISE", "IP:PORT";
    /// UDP port for tunnels of networks [default: the number of the port of advertise]
    tunnel_port: u16, "MUSTER_AGENT_TUNNEL_PORT", "PORT";
    /// Name of the node [default: the controller chooses one]
    name: String, "MUSTER_AGENT_NAME", "NAME";
    /// Failure domain of the node [default: none]
    zone: String, "MUSTER_AGENT_ZONE", "NAME";
    /// Which kinds of instances the node offers to run [default: libvirt]
    runtime: RuntimeChoice, "MUSTER_AGENT_RUNTIME", "RUNTIME";
    /// What executes the instructions of guests [default: auto]
    hypervisor: probe::Choice, "MUSTER_AGENT_HYPERVISOR", "HYPERVISOR";
    /// URI of libvirt [default: qemu:///system]
    libvirt_uri: String, "MUSTER_AGENT_LIBVIRT_URI", "URI";
    /// Virtual processors that instances may use [default: the host's]
    cpus: u32, "MUSTER_AGENT_CPUS", "N";
    /// Memory that instances may use [default: the host's]
    memory: Size, "MUSTER_AGENT_MEMORY", "SIZE";
    /// Most space for this node's part of the pool [default: 50%]
    pool_size: Share, "MUSTER_AGENT_POOL_SIZE", "SIZE|N%";
    /// Most memory for objects that disks read from this node's part of the pool; 0: they are stored in the cache [default: 64MiB]
    pool_memory: Size, "MUSTER_AGENT_POOL_MEMORY", "SIZE";
    /// Most space for the cache of clean chunks [default: 20%]
    cache_size: Share, "MUSTER_AGENT_CACHE_SIZE", "SIZE|N%";
    /// Free space that only writes of guests may use [default: 5% and at least 2GiB]
    keep_free: Share, "MUSTER_AGENT_KEEP_FREE", "SIZE|N%";
    /// Free space on top of that which new instances may use as well, and new objects may not [default: as much as keep_free]
    mirror_reserve: Share, "MUSTER_AGENT_MIRROR_RESERVE", "SIZE|N%";
    /// Time in which all objects of this node's part of the pool are read and hashed once [default: 7d]
    scrub_every: Period, "MUSTER_AGENT_SCRUB_EVERY", "TIME";
    /// Most bytes per second that this reads [default: 32MiB]
    scrub_bytes_per_s: Size, "MUSTER_AGENT_SCRUB_BYTES_PER_S", "SIZE";
    /// Most bytes per second that the repair sends to other nodes [default: 64MiB]
    repair_bytes_per_s: Size, "MUSTER_AGENT_REPAIR_BYTES_PER_S", "SIZE";
    /// Most bytes per second that scheduled snapshots store [default: 16MiB]
    background_bytes_per_s: Size, "MUSTER_AGENT_BACKGROUND_BYTES_PER_S", "SIZE";
    /// What a write does that leaves a gap in a chunk [default: bitmap]
    write_policy: WritePolicy, "MUSTER_AGENT_WRITE_POLICY", "POLICY";
    /// Address where only /metrics is served, without a token [default: none]
    metrics_listen: SocketAddr, "MUSTER_AGENT_METRICS_LISTEN", "IP:PORT";
    /// Which lines are logged: error, warn, info, debug, or directives such as muster_agent=debug,info [default: info]
    log: String, "MUSTER_AGENT_LOG", "FILTER";
    /// How log lines are written [default: text]
    log_format: LogFormat, "MUSTER_AGENT_LOG_FORMAT", "FORMAT";
}

impl Settings {
    /// Reads the layer in a TOML file.
    ///
    /// # Errors
    /// [`ConfigError::Read`] or [`ConfigError::Parse`].
    pub fn from_file(file: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(file).map_err(|source| ConfigError::Read { file: file.to_owned(), source })?;
        toml::from_str(&text).map_err(|e| ConfigError::Parse { file: file.to_owned(), source: Box::new(e) })
    }
}

/// The URL of the controller's API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerUrl {
    /// The URL, without a slash at its end.
    pub url: String,
    /// Its host name or IP address; an IPv6 address without brackets.
    pub host: String,
    /// Whether its scheme is `http`.
    pub plain: bool,
}

impl FromStr for ControllerUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("expected a URL such as https://controller:7400, got '{text}': {why}");
        let url = reqwest::Url::parse(text).map_err(|e| wrong(&e.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong("it is neither http nor https"));
        }
        let host = url.host_str().ok_or_else(|| wrong("it has no host"))?;
        Ok(Self {
            url: text.trim_end_matches('/').to_owned(),
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            plain: url.scheme() == "http",
        })
    }
}

/// The effective configuration: command line, environment and file, with defaults for the rest. It is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Folder for everything the agent keeps; absolute.
    pub data_dir: PathBuf,
    /// Needed until the node has joined. Afterwards its host overrides the one that was joined at.
    pub controller: Option<ControllerUrl>,
    /// Needed until the node has joined.
    pub join_token: Option<Secret>,
    /// Address of the peer server.
    pub listen: SocketAddr,
    /// Address of the peer server as other nodes see it; `None`: that of `listen`.
    pub advertise: Option<SocketAddr>,
    /// UDP port at which it takes packets of the tunnels between networks; `None`: the number of the port of `advertise`.
    pub tunnel_port: Option<u16>,
    /// Wanted name of the node; `None`: the controller chooses one.
    pub name: Option<DottedName>,
    /// Failure domain of the node, 1 to 55 visible ASCII characters.
    pub zone: Option<String>,
    /// Which kinds of instances the node offers to run.
    pub runtime: RuntimeChoice,
    /// What executes the instructions of guests.
    pub hypervisor: probe::Choice,
    /// URI of the libvirt daemon that runs the guests; `qemu:///system` if not set.
    pub libvirt_uri: String,
    /// Virtual processors that instances may use, at least 1; `None`: the host's.
    pub cpus: Option<u32>,
    /// Memory in bytes that instances may use; `None`: the host's.
    pub memory_bytes: Option<u64>,
    /// Most space for this node's part of the pool.
    pub pool_size: Share,
    /// Most bytes of memory for objects that disks read from this node's part of the pool; 0: they are stored in the cache.
    pub pool_memory_bytes: u64,
    /// Most space for the cache of clean chunks.
    pub cache_size: Share,
    /// Free space that only writes of guests may use; `None`: see [`Self::keep_free_bytes`].
    pub keep_free: Option<Share>,
    /// Free space on top of that which new instances may use as well; `None`: see [`Self::reserves`].
    pub mirror_reserve: Option<Share>,
    /// Time in which all objects of its part of the pool are read and hashed once; longer than 0.
    pub scrub_every: Duration,
    /// Most bytes per second that this reads, at least 1.
    pub scrub_bytes_per_s: u64,
    /// Most bytes per second that the repair sends to other nodes, at least 1.
    pub repair_bytes_per_s: u64,
    /// Most bytes per second that scheduled snapshots store, one copy counted, at least 1.
    pub background_bytes_per_s: u64,
    /// What a write does that leaves a gap in a chunk.
    pub write_policy: WritePolicy,
    /// Address where only `/metrics` is served; `None`: nowhere.
    pub metrics_listen: Option<SocketAddr>,
    /// Which lines are logged: in the syntax of `RUST_LOG`.
    pub log: String,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// Whether to take over a data folder that was moved or copied; only given on the command line.
    pub adopt: bool,
    /// Executable of muster-agent to start helper processes with; `None`: that of this process. Set by tests, whose process
    /// is another program.
    pub helper_program: Option<PathBuf>,
}

/// Port of an agent's server for its peers, unless `listen` names another one.
pub const DEFAULT_PORT: u16 = 7450;

impl Config {
    /// The default configuration with this data folder.
    #[must_use]
    pub fn new(data_dir: PathBuf) -> Self {
        Self {
            data_dir,
            controller: None,
            join_token: None,
            listen: SocketAddr::from(([0, 0, 0, 0], DEFAULT_PORT)),
            advertise: None,
            tunnel_port: None,
            name: None,
            zone: None,
            runtime: RuntimeChoice::default(),
            hypervisor: probe::Choice::default(),
            libvirt_uri: "qemu:///system".to_owned(),
            cpus: None,
            memory_bytes: None,
            pool_size: Share::Percent(50),
            pool_memory_bytes: 32 << 20,
            cache_size: Share::Percent(20),
            keep_free: None,
            mirror_reserve: None,
            scrub_every: Duration::from_secs(7 * 86_400),
            scrub_bytes_per_s: 32 << 20,
            repair_bytes_per_s: 64 << 20,
            background_bytes_per_s: 16 << 20,
            write_policy: WritePolicy::default(),
            metrics_listen: None,
            log: "info".to_owned(),
            log_format: LogFormat::default(),
            adopt: false,
            helper_program: None,
        }
    }

    /// Checks the combined layers and fills in the defaults.
    ///
    /// # Errors
    /// [`ConfigError::Missing`] or [`ConfigError::Invalid`].
    pub fn resolve(settings: Settings) -> Result<Self, ConfigError> {
        let invalid = |key: &'static str, detail: String| ConfigError::Invalid { key, detail };
        let data_dir = settings.data_dir.ok_or(ConfigError::Missing("data_dir"))?;
        let data_dir = std::path::absolute(&data_dir).map_err(|e| invalid("data_dir", e.to_string()))?;
        let default = Self::new(data_dir);
        let controller =
            settings.controller.map(|text| text.parse().map_err(|detail| invalid("controller", detail))).transpose()?;
        let name = settings
            .name
            .map(|text| text.parse::<DottedName>().map_err(|e| invalid("name", e.to_string())))
            .transpose()?;
        if let Some(zone) = &settings.zone
            && (zone.is_empty() || zone.len() > 55 || !zone.chars().all(|c| c.is_ascii_graphic()))
        {
            return Err(invalid("zone", format!("a zone has 1 to 55 visible ASCII characters, got '{zone}'")));
        }
        if settings.cpus == Some(0) {
            return Err(invalid("cpus", "a node offers at least 1; to keep instances away, cordon it".to_owned()));
        }
        if settings.repair_bytes_per_s == Some(Size(0)) {
            return Err(invalid("repair_bytes_per_s", "without any, lost copies would never be made again".to_owned()));
        }
        if settings.scrub_bytes_per_s == Some(Size(0)) {
            return Err(invalid("scrub_bytes_per_s", "without any, rot would never be found".to_owned()));
        }
        if settings.scrub_every.is_some_and(|period| period.0.is_zero()) {
            return Err(invalid("scrub_every", "it must be some time, such as 7d".to_owned()));
        }
        if settings.background_bytes_per_s == Some(Size(0)) {
            return Err(invalid(
                "background_bytes_per_s",
                "without any, scheduled snapshots would never end".to_owned(),
            ));
        }
        if settings.advertise.is_some_and(|a| a.ip().is_unspecified() || a.port() == 0) {
            return Err(invalid("advertise", "it must be an address and a port that other nodes can reach".to_owned()));
        }
        if settings.tunnel_port == Some(0) {
            return Err(invalid("tunnel_port", "other nodes must know it, so it cannot be 0".to_owned()));
        }
        if settings.advertise.is_none() && settings.listen.unwrap_or(default.listen).ip().is_unspecified() {
            return Err(invalid(
                "advertise",
                "listen has no particular address: give the address where other nodes reach this one".to_owned(),
            ));
        }
        Ok(Self {
            controller,
            join_token: settings.join_token,
            listen: settings.listen.unwrap_or(default.listen),
            advertise: settings.advertise,
            tunnel_port: settings.tunnel_port,
            name,
            zone: settings.zone,
            runtime: settings.runtime.unwrap_or(default.runtime),
            hypervisor: settings.hypervisor.unwrap_or(default.hypervisor),
            libvirt_uri: settings.libvirt_uri.unwrap_or(default.libvirt_uri),
            cpus: settings.cpus,
            memory_bytes: settings.memory.map(|size| size.0),
            pool_size: settings.pool_size.unwrap_or(default.pool_size),
            pool_memory_bytes: settings.pool_memory.map_or(default.pool_memory_bytes, |size| size.0),
            cache_size: settings.cache_size.unwrap_or(default.cache_size),
            keep_free: settings.keep_free,
            mirror_reserve: settings.mirror_reserve,
            scrub_every: settings.scrub_every.map_or(default.scrub_every, |period| period.0),
            scrub_bytes_per_s: settings.scrub_bytes_per_s.map_or(default.scrub_bytes_per_s, |size| size.0),
            repair_bytes_per_s: settings.repair_bytes_per_s.map_or(default.repair_bytes_per_s, |size| size.0),
            background_bytes_per_s: settings
                .background_bytes_per_s
                .map_or(default.background_bytes_per_s, |size| size.0),
            write_policy: settings.write_policy.unwrap_or(default.write_policy),
            metrics_listen: settings.metrics_listen,
            log: settings.log.unwrap_or(default.log),
            log_format: settings.log_format.unwrap_or(default.log_format),
            adopt: false,
            helper_program: None,
            data_dir: default.data_dir,
        })
    }

    /// The join token, if one was given. Reads its file if it is in one.
    ///
    /// # Errors
    /// [`ConfigError::Read`], or [`ConfigError::Invalid`] if it is not a join token.
    pub fn join_token(&self) -> Result<Option<JoinToken>, ConfigError> {
        let Some(secret) = &self.join_token else { return Ok(None) };
        let token = secret.reveal()?.parse::<JoinToken>();
        token.map(Some).map_err(|e| ConfigError::Invalid { key: "join_token", detail: e.to_string() })
    }

    /// Bytes of free space that only writes of guests may use, on a file system of `total_bytes`. The default is 5 %
    /// and at least 2 GiB; a configured value has no minimum.
    #[must_use]
    pub fn keep_free_bytes(&self, total_bytes: u64) -> u64 {
        match self.keep_free {
            Some(share) => share.of(total_bytes),
            None => Share::Percent(5).of(total_bytes).max(2 << 30),
        }
    }

    /// What is kept free on a file system of `total_bytes`. The mirror reserve is by default as large as `keep_free`.
    #[must_use]
    pub fn reserves(&self, total_bytes: u64) -> Reserves {
        let keep_free_bytes = self.keep_free_bytes(total_bytes);
        let mirror_bytes = self.mirror_reserve.map_or(keep_free_bytes, |share| share.of(total_bytes));
        Reserves { keep_free_bytes, mirror_bytes }
    }

    /// The runtimes this node is configured to offer.
    #[must_use]
    pub fn runtimes(&self) -> Vec<Runtime> {
        match self.runtime {
            RuntimeChoice::Libvirt => vec![Runtime::Libvirt, Runtime::None],
            RuntimeChoice::None => vec![Runtime::None],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../deploy/config/node-agent.example.toml");

    fn given() -> Settings {
        toml::from_str("data_dir = '/var/lib/muster'\nadvertise = '10.0.0.1:7450'").expect("settings")
    }

    #[test]
    fn the_example_file_has_the_defaults() {
        let example: Settings = toml::from_str(EXAMPLE).expect("the example file");
        let data_dir = example.data_dir.clone().expect("data_dir");
        let resolved = Config::resolve(Settings { advertise: given().advertise, ..example }).expect("resolves");
        assert_eq!(Config { advertise: None, ..resolved }, Config::new(data_dir));
    }

    #[test]
    fn the_example_file_has_every_key() {
        // Keys without a default are commented out: `# key = value`.
        let all: String = EXAMPLE
            .lines()
            .map(|line| line.strip_prefix("# ").filter(|rest| rest.contains(" = ")).unwrap_or(line))
            .map(|line| format!("{line}\n"))
            .collect();
        let table: toml::Table = all.parse().expect("the example with its comments taken off");
        let mut listed: Vec<&str> = table.keys().map(String::as_str).collect();
        let mut keys = Settings::KEYS.to_vec();
        listed.sort_unstable();
        keys.sort_unstable();
        assert_eq!(listed, keys);
        let settings: Settings = toml::from_str(&all).expect("every value in it is good");
        Config::resolve(settings).expect("resolves");
    }

    #[test]
    fn the_help_has_the_defaults() {
        let help = <Settings as clap::Args>::augment_args(clap::Command::new("test")).render_help().to_string();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        let Config { listen, libvirt_uri, log, .. } = Config::new("/x".into());
        for default in [listen.to_string(), libvirt_uri, log] {
            assert!(help.contains(&format!("[default: {default}]")), "{default}: {help}");
        }
    }

    #[test]
    fn a_higher_layer_overrides_a_lower_one() {
        let file: Settings = toml::from_str("name = 'low'\nzone = 'z'\ncpus = 2").expect("settings");
        let flags = Settings { name: Some("high".to_owned()), ..given() };
        let config = Config::resolve(flags.or(file)).expect("resolves");
        assert_eq!(config.name.expect("name").as_str(), "high");
        assert_eq!((config.zone.as_deref(), config.cpus), (Some("z"), Some(2)));
    }

    #[test]
    fn unknown_keys_and_bad_values_are_named_in_the_error() {
        let unknown = toml::from_str::<Settings>("data_dri = '/x'").expect_err("unknown").to_string();
        assert!(unknown.contains("data_dri"), "{unknown}");
        assert!(toml::from_str::<Settings>("keep_free = '101%'").is_err());
        assert!(toml::from_str::<Settings>("memory = '1 parsec'").is_err());
        for (settings, key) in [
            (Settings { name: Some("No Name".to_owned()), ..given() }, "name"),
            (Settings { controller: Some("ftp://x".to_owned()), ..given() }, "controller"),
            (Settings { cpus: Some(0), ..given() }, "cpus"),
            (Settings { repair_bytes_per_s: Some(Size(0)), ..given() }, "repair_bytes_per_s"),
            (Settings { scrub_bytes_per_s: Some(Size(0)), ..given() }, "scrub_bytes_per_s"),
            (Settings { scrub_every: Some(Period(Duration::ZERO)), ..given() }, "scrub_every"),
            (Settings { background_bytes_per_s: Some(Size(0)), ..given() }, "background_bytes_per_s"),
            (Settings { advertise: None, ..given() }, "advertise"),
            (Settings { data_dir: None, ..given() }, "data_dir"),
        ] {
            let error = Config::resolve(settings).expect_err(key).to_string();
            assert!(error.contains(key), "{error}");
        }
    }

    #[test]
    fn shares_are_percents_or_sizes() {
        assert_eq!("5%".parse::<Share>().expect("share").of(1000), 50);
        assert_eq!("1KiB".parse::<Share>().expect("share").of(1000), 1024);
    }

    #[test]
    fn only_the_default_of_keep_free_has_a_minimum() {
        let mut config = Config::new("/x".into());
        assert_eq!(config.keep_free_bytes(10 << 30), 2 << 30);
        assert_eq!(config.keep_free_bytes(100 << 30), 5 << 30);
        config.keep_free = Some(Share::Bytes(0));
        assert_eq!(config.keep_free_bytes(10 << 30), 0);
        assert_eq!(config.reserves(10 << 30), Reserves::default());
        config.keep_free = Some(Share::Percent(2));
        assert_eq!(config.reserves(1000), Reserves { keep_free_bytes: 20, mirror_bytes: 20 });
        config.mirror_reserve = Some(Share::Percent(3));
        assert_eq!(config.reserves(1000), Reserves { keep_free_bytes: 20, mirror_bytes: 30 });
    }

    #[test]
    fn a_secret_is_read_from_its_file_and_not_printed() {
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("token");
        std::fs::write(&file, "hush\n").expect("write");
        let secret: Secret = format!("@{}", file.display()).parse().expect("secret");
        assert_eq!(secret.reveal().expect("reveal"), "hush");
        assert_eq!(format!("{:?}", "hush".parse::<Secret>().expect("secret")), "***");
        let config = Config { join_token: Some("hush".parse().expect("secret")), ..Config::new("/x".into()) };
        assert!(!format!("{config:?}").contains("hush"));
    }
}
