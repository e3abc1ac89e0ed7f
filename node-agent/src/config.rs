//! What an agent is told at start: flag before environment (`MUSTER_AGENT_…`) before TOML (`--config`) before default.
//!
//! [`Settings`] is one layer, everything optional, with the same keys as flags and in the file; [`Config`] is the result,
//! checked once. Sizes are texts such as `256KiB`, shares of the file system `5%`; a secret is `@FILE` or in the
//! environment, and never printed. Unknown keys are refused. `deploy/config/node-agent.example.toml` lists every key.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use clap::ValueEnum;
use muster_api::{DottedName, deployment::Runtime, token::JoinToken, units::parse_size};
use serde::{Deserialize, Deserializer, de};

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {file}: {source}")]
    Read {
        /// Which.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not a configuration.
    #[error("{file} is not a configuration of muster-agent: {source}")]
    Parse {
        /// Which.
        file: PathBuf,
        /// Where and why; boxed, as it carries the place.
        source: Box<toml::de::Error>,
    },
    /// A value that must be given.
    #[error("{0} is missing: give --{flag}, {env} or the key in the file", flag = .0.replace('_', "-"), env = env_name(.0))]
    Missing(&'static str),
    /// A value that cannot be.
    #[error("{key}: {detail}")]
    Invalid {
        /// Its key.
        key: &'static str,
        /// What is wrong.
        detail: String,
    },
}

fn env_name(key: &str) -> String {
    format!("MUSTER_AGENT_{}", key.to_ascii_uppercase())
}

/// A number of bytes: `4096`, `256KiB`, `1.5GiB`; K, M, G, T are binary, kB, MB, GB, TB decimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        parse_size(text).map(Self)
    }
}

/// A part of a file system: `5%`, or a [`Size`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Hundredths of it.
    Percent(u64),
    /// So many bytes.
    Bytes(u64),
}

impl Share {
    /// Bytes of a file system of `total_bytes`.
    #[must_use]
    pub fn of(self, total_bytes: u64) -> u64 {
        match self {
            Self::Percent(percent) => {
                u64::try_from(u128::from(total_bytes) * u128::from(percent) / 100).unwrap_or(u64::MAX)
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

deserialize_from_text!(Size, Share);

/// A secret as it is given: the text itself or `@FILE`. `Debug` does not print it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The secret itself, without white space around it.
    ///
    /// # Errors
    /// When the file it is in cannot be read.
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

macro_rules! words {
    ($($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ValueEnum)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }
    )*};
}

words! {
    /// The most a node does for its instances.
    RuntimeChoice {
        /// Virtual machines under libvirt, and plain disk files.
        #[default]
        Libvirt,
        /// Plain disk files only.
        None,
    }

    /// What runs guests.
    HypervisorChoice {
        /// KVM where a probe boot works, plain QEMU elsewhere.
        #[default]
        Auto,
        /// KVM or nothing.
        Kvm,
        /// QEMU's emulation.
        Qemu,
    }

    /// How writes that leave gaps are treated.
    WritePolicyChoice {
        /// A bit per block.
        #[default]
        Bitmap,
        /// One contiguous region per chunk: the gap's chunk is fetched first.
        Contiguous,
    }

    /// Whether deltas go through the page cache.
    DeltaIoChoice {
        /// They do.
        #[default]
        Buffered,
        /// Opened with `O_DIRECT`.
        Direct,
    }

    /// How log lines look.
    LogFormat {
        /// For people.
        #[default]
        Text,
        /// For programs.
        Json,
    }
}

macro_rules! settings {
    ($($(#[$doc:meta])* $name:ident: $type:ty, $env:literal, $value:literal;)*) => {
        /// One layer of configuration: flags with environment, or the file. Same keys in both.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, clap::Args)]
        #[serde(deny_unknown_fields)]
        pub struct Settings {
            $($(#[$doc])* #[arg(long, env = $env, value_name = $value, hide_env_values = true)] pub $name: Option<$type>,)*
        }

        impl Settings {
            /// Every key there is.
            pub const KEYS: &'static [&'static str] = &[$(stringify!($name)),*];

            /// This layer, and `below` where it says nothing.
            #[must_use]
            pub fn or(self, below: Self) -> Self {
                Self { $($name: self.$name.or(below.$name),)* }
            }
        }
    };
}

settings! {
    /// Everything this agent keeps is below this folder
    data_dir: PathBuf, "MUSTER_AGENT_DATA_DIR", "DIR";
    /// People's door of the controller, for joining: https://HOST:PORT
    controller: String, "MUSTER_AGENT_CONTROLLER", "URL";
    /// Token of role node, needed once: TOKEN or @FILE
    join_token: Secret, "MUSTER_AGENT_JOIN_TOKEN", "TOKEN|@FILE";
    /// Where peers reach this node
    listen: SocketAddr, "MUSTER_AGENT_LISTEN", "IP:PORT";
    /// The same as other nodes see it, where that differs
    advertise: SocketAddr, "MUSTER_AGENT_ADVERTISE", "IP:PORT";
    /// Wanted name of the node; made up if left out
    name: String, "MUSTER_AGENT_NAME", "NAME";
    /// Failure domain
    zone: String, "MUSTER_AGENT_ZONE", "NAME";
    /// The most this node does for instances
    runtime: RuntimeChoice, "MUSTER_AGENT_RUNTIME", "RUNTIME";
    /// What runs guests
    hypervisor: HypervisorChoice, "MUSTER_AGENT_HYPERVISOR", "HYPERVISOR";
    /// Where libvirt is
    libvirt_uri: String, "MUSTER_AGENT_LIBVIRT_URI", "URI";
    /// Virtual processors offered to instances; default: the host's
    cpus: u32, "MUSTER_AGENT_CPUS", "N";
    /// Memory offered to instances; default: the host's
    memory: Size, "MUSTER_AGENT_MEMORY", "SIZE";
    /// Most the pool may take here
    pool_size: Share, "MUSTER_AGENT_POOL_SIZE", "SIZE|N%";
    /// Most the cache of clean chunks may take
    cache_size: Share, "MUSTER_AGENT_CACHE_SIZE", "SIZE|N%";
    /// Free space nothing but a guest's write touches; default 5 % and at least 2 GiB
    keep_free: Share, "MUSTER_AGENT_KEEP_FREE", "SIZE|N%";
    /// How writes that leave gaps are treated
    write_policy: WritePolicyChoice, "MUSTER_AGENT_WRITE_POLICY", "POLICY";
    /// Whether deltas go through the page cache
    delta_io: DeltaIoChoice, "MUSTER_AGENT_DELTA_IO", "WAY";
    /// Serve /metrics here, without a token; default: nowhere
    metrics_listen: SocketAddr, "MUSTER_AGENT_METRICS_LISTEN", "IP:PORT";
    /// What is logged: error, warn, info, debug, or directives of tracing-subscriber
    log: String, "MUSTER_AGENT_LOG", "FILTER";
    /// How log lines look
    log_format: LogFormat, "MUSTER_AGENT_LOG_FORMAT", "FORMAT";
}

impl Settings {
    /// The layer a file gives.
    ///
    /// # Errors
    /// When it cannot be read, or has unknown keys or values.
    pub fn from_file(file: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(file).map_err(|source| ConfigError::Read { file: file.to_owned(), source })?;
        toml::from_str(&text).map_err(|e| ConfigError::Parse { file: file.to_owned(), source: Box::new(e) })
    }
}

/// The people's door of the controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerUrl {
    /// Without a slash at its end.
    pub url: String,
    /// Host name or address, without brackets.
    pub host: String,
    /// Whether it is plain http.
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

/// The configuration of an agent, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Everything this agent keeps is below this folder.
    pub data_dir: PathBuf,
    /// Needed until the node has joined; afterwards it overrides where the controller was then.
    pub controller: Option<ControllerUrl>,
    /// Needed until the node has joined.
    pub join_token: Option<Secret>,
    /// Where the peer server listens.
    pub listen: SocketAddr,
    /// What other nodes are told; none: where it listens.
    pub advertise: Option<SocketAddr>,
    /// Wanted name.
    pub name: Option<DottedName>,
    /// Failure domain.
    pub zone: Option<String>,
    /// The most this node does for instances.
    pub runtime: RuntimeChoice,
    /// What runs guests.
    pub hypervisor: HypervisorChoice,
    /// Where libvirt is.
    pub libvirt_uri: String,
    /// Virtual processors offered; none: the host's.
    pub cpus: Option<u32>,
    /// Memory offered; none: the host's.
    pub memory_bytes: Option<u64>,
    /// Most the pool may take.
    pub pool_size: Share,
    /// Most the cache may take.
    pub cache_size: Share,
    /// Free space nothing but a guest's write touches; none: 5 % and at least 2 GiB.
    pub keep_free: Option<Share>,
    /// How writes that leave gaps are treated.
    pub write_policy: WritePolicyChoice,
    /// Whether deltas go through the page cache.
    pub delta_io: DeltaIoChoice,
    /// Where metrics are served.
    pub metrics_listen: Option<SocketAddr>,
    /// What is logged.
    pub log: String,
    /// How log lines look.
    pub log_format: LogFormat,
    /// The muster-agent executable to start the holder from; none: this one. For tests, which are another.
    pub holder_program: Option<PathBuf>,
}

/// Port of an agent's server for its peers, unless `listen` names another one.
pub const DEFAULT_PORT: u16 = 7450;

impl Config {
    /// The defaults, for a data folder.
    #[must_use]
    pub fn new(data_dir: PathBuf) -> Self {
        Self {
            data_dir,
            controller: None,
            join_token: None,
            listen: SocketAddr::from(([0, 0, 0, 0], DEFAULT_PORT)),
            advertise: None,
            name: None,
            zone: None,
            runtime: RuntimeChoice::default(),
            hypervisor: HypervisorChoice::default(),
            libvirt_uri: "qemu:///system".to_owned(),
            cpus: None,
            memory_bytes: None,
            pool_size: Share::Percent(50),
            cache_size: Share::Percent(20),
            keep_free: None,
            write_policy: WritePolicyChoice::default(),
            delta_io: DeltaIoChoice::default(),
            metrics_listen: None,
            log: "info".to_owned(),
            log_format: LogFormat::default(),
            holder_program: None,
        }
    }

    /// The configuration the layers add up to.
    ///
    /// # Errors
    /// When something is missing or cannot be.
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
            return Err(invalid("cpus", "a node offers at least 1; cordon it to keep instances away".to_owned()));
        }
        if settings.advertise.is_some_and(|a| a.ip().is_unspecified() || a.port() == 0) {
            return Err(invalid("advertise", "other nodes need an address and a port they can reach".to_owned()));
        }
        if settings.advertise.is_none() && settings.listen.unwrap_or(default.listen).ip().is_unspecified() {
            return Err(invalid(
                "advertise",
                "listen has no particular address, so say where other nodes reach this one".to_owned(),
            ));
        }
        Ok(Self {
            controller,
            join_token: settings.join_token,
            listen: settings.listen.unwrap_or(default.listen),
            advertise: settings.advertise,
            name,
            zone: settings.zone,
            runtime: settings.runtime.unwrap_or(default.runtime),
            hypervisor: settings.hypervisor.unwrap_or(default.hypervisor),
            libvirt_uri: settings.libvirt_uri.unwrap_or(default.libvirt_uri),
            cpus: settings.cpus,
            memory_bytes: settings.memory.map(|size| size.0),
            pool_size: settings.pool_size.unwrap_or(default.pool_size),
            cache_size: settings.cache_size.unwrap_or(default.cache_size),
            keep_free: settings.keep_free,
            write_policy: settings.write_policy.unwrap_or(default.write_policy),
            delta_io: settings.delta_io.unwrap_or(default.delta_io),
            metrics_listen: settings.metrics_listen,
            log: settings.log.unwrap_or(default.log),
            log_format: settings.log_format.unwrap_or(default.log_format),
            holder_program: None,
            data_dir: default.data_dir,
        })
    }

    /// The join token, if one was given.
    ///
    /// # Errors
    /// When it cannot be read or is not a join token.
    pub fn join_token(&self) -> Result<Option<JoinToken>, ConfigError> {
        let Some(secret) = &self.join_token else { return Ok(None) };
        let token = secret.reveal()?.parse::<JoinToken>();
        token.map(Some).map_err(|e| ConfigError::Invalid { key: "join_token", detail: e.to_string() })
    }

    /// Free bytes nothing but a guest's write touches, on a file system of `total_bytes`.
    #[must_use]
    pub fn keep_free_bytes(&self, total_bytes: u64) -> u64 {
        match self.keep_free {
            Some(share) => share.of(total_bytes),
            None => Share::Percent(5).of(total_bytes).max(2 << 30),
        }
    }

    /// Runtimes this node offers, as long as the parts for them are there.
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
    fn the_example_gives_the_defaults() {
        let example: Settings = toml::from_str(EXAMPLE).expect("the example file");
        let data_dir = example.data_dir.clone().expect("data_dir");
        let resolved = Config::resolve(Settings { advertise: given().advertise, ..example }).expect("resolves");
        assert_eq!(Config { advertise: None, ..resolved }, Config::new(data_dir));
    }

    #[test]
    fn the_example_lists_every_key() {
        // Keys without a default are there as comments: `# key = value`.
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
    fn a_higher_layer_wins_and_the_lower_fills_in() {
        let file: Settings = toml::from_str("name = 'low'\nzone = 'z'\ncpus = 2").expect("settings");
        let flags = Settings { name: Some("high".to_owned()), ..given() };
        let config = Config::resolve(flags.or(file)).expect("resolves");
        assert_eq!(config.name.expect("name").as_str(), "high");
        assert_eq!((config.zone.as_deref(), config.cpus), (Some("z"), Some(2)));
    }

    #[test]
    fn unknown_keys_and_bad_values_are_refused_by_name() {
        let unknown = toml::from_str::<Settings>("data_dri = '/x'").expect_err("unknown").to_string();
        assert!(unknown.contains("data_dri"), "{unknown}");
        assert!(toml::from_str::<Settings>("keep_free = '101%'").is_err());
        assert!(toml::from_str::<Settings>("memory = '1 parsec'").is_err());
        for (settings, key) in [
            (Settings { name: Some("No Name".to_owned()), ..given() }, "name"),
            (Settings { controller: Some("ftp://x".to_owned()), ..given() }, "controller"),
            (Settings { cpus: Some(0), ..given() }, "cpus"),
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
    fn the_default_floor_has_a_minimum_and_a_stated_one_has_none() {
        let mut config = Config::new("/x".into());
        assert_eq!(config.keep_free_bytes(10 << 30), 2 << 30);
        assert_eq!(config.keep_free_bytes(100 << 30), 5 << 30);
        config.keep_free = Some(Share::Bytes(0));
        assert_eq!(config.keep_free_bytes(10 << 30), 0);
    }

    #[test]
    fn a_secret_is_read_from_its_file_and_never_printed() {
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
