//! An order for a deployment: a request that was checked, with all defaults filled in.

use std::time::Duration;

use muster_api::{
    Labels, Name, SshKey, UserData,
    deployment::{CreateDeployment, DeploymentSource, OnHostStart, OnReadyTimeout, Placement, Probe, Ready, Runtime},
    disk::CreateDisk,
    error::FieldError,
    firmware::{Firmware, FirmwareChoice},
    network::CreateNic,
    node_protocol::seed::Seed,
    protection::Protect,
    ssh_key::SSH_KEYS_MAX,
    units::{exact_duration, exact_size},
};

use super::{cards, deployment::MEMBERS_MAX, disk_plan, protection, versions::SIZE_BYTES_MAX};

/// Memory of a member where the request does not say, bytes.
pub const MEMORY_BYTES: u64 = 512 << 20;
/// Least memory of a member, bytes.
const MEMORY_BYTES_MIN: u64 = 1 << 20;
/// Most memory of a member, bytes.
const MEMORY_BYTES_MAX: u64 = 64 << 40;
/// Most virtual processors of a member.
const CPUS_MAX: u32 = 1024;
/// How long a member may take to be ready where neither the request nor the configuration says it.
pub const READY_TIMEOUT: Duration = Duration::from_secs(300);
/// Longest time that a request may ask to wait.
pub const TIME_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// The same in seconds.
const SECONDS_MAX: u64 = TIME_MAX.as_secs();
/// Shortest deadline of an operation where the request does not say, seconds.
const DEADLINE_S: u64 = 600;
/// How much longer than its members' own time an operation may take, seconds.
const DEADLINE_MORE_S: u64 = 300;
/// What a console prints when its guest is ready, where the request does not say.
const MARKER: &str = "MUSTER-READY";
/// Disk sizes are a multiple of this, bytes: QEMU with direct I/O refuses others.
const BLOCK_BYTES: u64 = 4096;

/// A request that was checked.
#[derive(Clone, Debug)]
pub struct Order {
    /// The name that the request gives.
    pub name: Option<Name>,
    /// What the disks start as.
    pub source: DeploymentSource,
    /// How many members; `None` for as many as the snapshot has.
    pub count: Option<u64>,
    /// Fewest members that count as a success.
    pub min_count: Option<u64>,
    /// Virtual processors of each member.
    pub cpus: u32,
    /// Memory of each member, bytes; `None` for what the image needs, at least [`MEMORY_BYTES`].
    pub memory_bytes: Option<u64>,
    /// Size of each boot disk, bytes, a multiple of 4096; `None` for the size of its source.
    pub disk_bytes: Option<u64>,
    /// What runs the members: libvirt, or nothing, so that they are only disks.
    pub runtime: Runtime,
    /// When a member counts as ready; all its fields are set.
    pub ready: Ready,
    /// Where members may be placed.
    pub placement: Placement,
    /// Disks of each member beside the boot disk. Sizes are multiples of 4096 bytes.
    pub disks: Vec<CreateDisk>,
    /// Network cards of each member; `None` for those that members have by default.
    pub nics: Option<Vec<CreateNic>>,
    /// What starts the boot loaders of the members; `None` for what the source tells.
    pub firmware: Option<Firmware>,
    /// Whether each member has a TPM; `None` if the request does not say.
    pub tpm: Option<bool>,
    /// How long its operations may take, seconds.
    pub deadline_s: u64,
    /// What becomes of a member that runs and is not ready in time.
    pub on_ready_timeout: OnReadyTimeout,
    /// What becomes of a member that ran when its host went down.
    pub on_host_start: OnHostStart,
    /// How its members are protected against the loss of their hosts; `None` if they are not.
    pub protect: Option<Protect>,
    /// Labels of the deployment and of its members.
    pub labels: Labels,
    /// The keys that the request gives.
    pub ssh_keys: Option<Vec<SshKey>>,
    /// The user data that the request gives.
    pub user_data: Option<UserData>,
}

/// Why a request is no order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotAnOrder {
    /// It uses these fields, which are reserved.
    Reserved(Vec<&'static str>),
    /// These fields do not fit.
    Fields(Vec<FieldError>),
}

#[derive(Default)]
struct Complaints(Vec<FieldError>);

impl Complaints {
    fn add(&mut self, pointer: &str, code: &str, detail: impl Into<String>) {
        self.0.push(FieldError { pointer: pointer.to_owned(), code: code.to_owned(), detail: detail.into() });
    }

    /// Complains unless `value` is within the bounds, which are written as `text` says.
    fn within(&mut self, pointer: &str, value: u64, low: u64, high: u64, text: fn(u64) -> String) {
        if value < low || value > high {
            self.add(pointer, "out_of_range", format!("{} to {}, got {}", text(low), text(high), text(value)));
        }
    }
}

/// The number of members of a request: 1 to 10000.
pub fn count(pointer: &str, value: i64) -> Result<u64, FieldError> {
    u64::try_from(value).ok().filter(|count| (1..=MEMBERS_MAX).contains(count)).ok_or_else(|| FieldError {
        pointer: pointer.to_owned(),
        code: "out_of_range".to_owned(),
        detail: format!("1 to {MEMBERS_MAX}, got {value}"),
    })
}

/// How long an operation may take whose members may take `timeout_s` to be ready, both in seconds.
#[must_use]
pub fn deadline_for(timeout_s: u64) -> u64 {
    DEADLINE_S.max(timeout_s.saturating_add(DEADLINE_MORE_S))
}

/// A number of seconds as people read it.
#[must_use]
pub fn seconds_text(seconds: u64) -> String {
    exact_duration(Duration::from_secs(seconds))
}

/// A time of a request in seconds: 1 to a week.
pub fn seconds(pointer: &str, value: u64) -> Result<u64, FieldError> {
    if (1..=SECONDS_MAX).contains(&value) {
        return Ok(value);
    }
    let detail = format!("{} to {}, got {}", seconds_text(1), seconds_text(SECONDS_MAX), seconds_text(value));
    Err(FieldError { pointer: pointer.to_owned(), code: "out_of_range".to_owned(), detail })
}

impl Order {
    /// Checks a request. An error lists all fields that do not fit. Members may take `ready_timeout` to be ready where the
    /// request does not say it.
    pub fn read(wanted: CreateDeployment, ready_timeout: Duration) -> Result<Self, NotAnOrder> {
        let reserved = reserved_fields(&wanted);
        if !reserved.is_empty() {
            return Err(NotAnOrder::Reserved(reserved));
        }
        let mut wrong = Complaints::default();
        check_boot_source(&wanted.source, &mut wrong);
        let count = check_count(&wanted, &mut wrong);
        let min_count = wanted.min_count.and_then(|min| check_min_count(min, count, &mut wrong));
        let cpus = wanted.cpus.unwrap_or(1);
        wrong.within("/cpus", u64::from(cpus), 1, u64::from(CPUS_MAX), |n| n.to_string());
        if let Some(bytes) = wanted.memory_bytes {
            wrong.within("/memory_bytes", bytes, MEMORY_BYTES_MIN, MEMORY_BYTES_MAX, exact_size);
        }
        let disk_bytes = wanted.disk_bytes.map(|bytes| {
            wrong.within("/disk_bytes", bytes, 1, SIZE_BYTES_MAX, exact_size);
            rounded(bytes)
        });
        let runtime = wanted.runtime.unwrap_or_default();
        let ready = check_ready(wanted.ready, runtime, ready_timeout, &mut wrong);
        let placement = wanted.placement.unwrap_or_default();
        check_placement(&placement, &mut wrong);
        check_seed(wanted.ssh_keys.as_deref(), wanted.user_data.as_ref(), runtime, &mut wrong);
        wrong.0.extend(disk_plan::check(&wanted.disks));
        let disks = wanted.disks.into_iter();
        let disks = disks.map(|disk| CreateDisk { size_bytes: rounded(disk.size_bytes), ..disk }).collect();
        check_machine(wanted.firmware, wanted.tpm, runtime, &mut wrong);
        wrong.0.extend(cards::check(wanted.nics.as_deref().unwrap_or_default(), runtime));
        wrong.0.extend(wanted.protect.iter().flat_map(|protect| protection::check("/protect", protect)));
        let timeout_s = ready.timeout_s.expect("`check_ready` fills it in");
        let deadline_s = wanted.deadline_s.unwrap_or_else(|| deadline_for(timeout_s));
        if wanted.deadline_s.is_some() {
            wrong.within("/deadline_s", deadline_s, 1, SECONDS_MAX, seconds_text);
        }
        if !wrong.0.is_empty() {
            return Err(NotAnOrder::Fields(wrong.0));
        }
        Ok(Self {
            name: wanted.name,
            source: wanted.source,
            count,
            min_count,
            cpus,
            memory_bytes: wanted.memory_bytes,
            disk_bytes,
            runtime,
            ready,
            placement,
            disks,
            nics: wanted.nics,
            firmware: wanted.firmware.unwrap_or_default().said(),
            tpm: wanted.tpm,
            deadline_s,
            on_ready_timeout: wanted.on_ready_timeout.unwrap_or_default(),
            on_host_start: wanted.on_host_start.unwrap_or_default(),
            protect: wanted.protect,
            labels: wanted.labels,
            ssh_keys: wanted.ssh_keys,
            user_data: wanted.user_data,
        })
    }

    /// What the guests are told. What the request does not give is taken over from the deployment that was forked.
    #[must_use]
    pub fn seed(&self, forked: Seed) -> Seed {
        if self.runtime == Runtime::None {
            return Seed::default();
        }
        let lines = |keys: &Vec<SshKey>| keys.iter().map(ToString::to_string).collect();
        let text = |data: &UserData| Some(data.as_str().to_owned()).filter(|text| !text.is_empty());
        Seed {
            ssh_keys: self.ssh_keys.as_ref().map_or(forked.ssh_keys, lines),
            user_data: self.user_data.as_ref().map_or(forked.user_data, text),
        }
    }
}

fn reserved_fields(wanted: &CreateDeployment) -> Vec<&'static str> {
    let fields = [("instance_type", wanted.instance_type.is_some()), ("on_node_loss", wanted.on_node_loss.is_some())];
    fields.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect()
}

fn check_count(wanted: &CreateDeployment, wrong: &mut Complaints) -> Option<u64> {
    match wanted.count {
        Some(value) => count("/count", value).map_err(|e| wrong.0.push(e)).ok(),
        None if wanted.source.snapshot.is_none() => {
            wrong.add("/count", "missing", "say how many: count is required unless the source is a snapshot");
            None
        }
        None => None,
    }
}

fn check_min_count(min: i64, count: Option<u64>, wrong: &mut Complaints) -> Option<u64> {
    let most = count.unwrap_or(MEMBERS_MAX);
    let fits = u64::try_from(min).ok().filter(|min| (1..=most).contains(min));
    if fits.is_none() {
        wrong.add("/min_count", "out_of_range", format!("1 to count, got {min}"));
    }
    fits
}

/// The next size that a disk may have: a multiple of 4096 bytes.
#[must_use]
pub const fn rounded(bytes: u64) -> u64 {
    match bytes.checked_next_multiple_of(BLOCK_BYTES) {
        Some(rounded) => rounded,
        None => bytes,
    }
}

fn check_boot_source(source: &DeploymentSource, wrong: &mut Complaints) {
    match (&source.snapshot, &source.image, source.version) {
        (Some(_), None, None) => {}
        (None, image, version) if image.is_some() || version.is_some() => {
            wrong.0.extend(disk_plan::check_source("/source", image.is_some(), version));
        }
        _ => wrong.add("/source", "invalid", "exactly one of image (with or without version), version, snapshot"),
    }
}

fn check_ready(wanted: Option<Ready>, runtime: Runtime, timeout: Duration, wrong: &mut Complaints) -> Ready {
    let given = wanted.unwrap_or(Ready { probe: Probe::Running, marker: None, timeout_s: None });
    if runtime == Runtime::None && given.probe != Probe::Running {
        wrong.add("/ready/probe", "invalid", "runtime none is ready when its file is there: only running");
    }
    match &given.marker {
        Some(_) if given.probe != Probe::Console => {
            wrong.add("/ready/marker", "invalid", "only with probe console");
        }
        Some(marker) if marker.is_empty() || marker.len() > 256 => {
            wrong.add("/ready/marker", "out_of_range", format!("1 to 256 bytes, got {}", marker.len()));
        }
        _ => {}
    }
    let timeout_s = given.timeout_s.unwrap_or(timeout.as_secs());
    wrong.within("/ready/timeout_s", timeout_s, 1, SECONDS_MAX, seconds_text);
    let marker = match given.probe {
        Probe::Console => Some(given.marker.unwrap_or_else(|| MARKER.to_owned())),
        Probe::Running | Probe::GuestAgent => None,
    };
    Ready { probe: given.probe, marker, timeout_s: Some(timeout_s) }
}

fn check_placement(placement: &Placement, wrong: &mut Complaints) {
    if placement.max_per_node == Some(0) {
        wrong.add("/placement/max_per_node", "out_of_range", "at least 1, got 0");
    }
    if placement.zones.as_ref().is_some_and(Vec::is_empty) {
        wrong.add("/placement/zones", "invalid", "name a zone, or leave it out");
    }
    if placement.nodes.as_ref().is_some_and(Vec::is_empty) {
        wrong.add("/placement/nodes", "invalid", "name a node, or leave it out");
    }
}

fn check_seed(keys: Option<&[SshKey]>, data: Option<&UserData>, runtime: Runtime, wrong: &mut Complaints) {
    let keys = keys.map_or(0, <[SshKey]>::len);
    if keys > SSH_KEYS_MAX {
        wrong.add("/ssh_keys", "out_of_range", format!("at most {SSH_KEYS_MAX} keys, got {keys}"));
    }
    if runtime == Runtime::None {
        let given = [("/ssh_keys", keys > 0), ("/user_data", data.is_some_and(|data| !data.as_str().is_empty()))];
        for (pointer, _) in given.into_iter().filter(|(_, given)| *given) {
            wrong.add(pointer, "invalid", "runtime none has no guest that could be told: leave this out");
        }
    }
}

fn check_machine(firmware: Option<FirmwareChoice>, tpm: Option<bool>, runtime: Runtime, wrong: &mut Complaints) {
    if runtime == Runtime::None {
        let given = [("/firmware", firmware.unwrap_or_default().said().is_some()), ("/tpm", tpm == Some(true))];
        for (pointer, _) in given.into_iter().filter(|(_, given)| *given) {
            wrong.add(pointer, "invalid", "runtime none has no machine that could have it: leave this out");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(body: serde_json::Value) -> Result<Order, NotAnOrder> {
        Order::read(serde_json::from_value(body).expect("the JSON fits the type"), READY_TIMEOUT)
    }

    fn pointers(body: serde_json::Value) -> Vec<String> {
        match read(body) {
            Err(NotAnOrder::Fields(errors)) => errors.into_iter().map(|e| e.pointer).collect(),
            other => panic!("expected complaints, got {other:?}"),
        }
    }

    #[test]
    fn fields_that_are_left_out_get_their_defaults() {
        let order = read(json!({"source": {"image": "debian"}, "count": 4})).expect("fits");
        assert_eq!((order.cpus, order.memory_bytes, order.deadline_s), (1, None, 600));
        assert_eq!((order.ready.probe, order.ready.timeout_s, order.ready.marker), (Probe::Running, Some(300), None));
        let console = read(json!({"source": {"image": "d"}, "count": 1, "ready": {"probe": "console"}})).expect("fits");
        assert_eq!(console.ready.marker.as_deref(), Some("MUSTER-READY"));
        let slow = read(json!({"source": {"image": "d"}, "count": 1, "ready": {"timeout_s": 900}})).expect("fits");
        assert_eq!(slow.deadline_s, 1200, "the operation outlives its members' own time");
    }

    #[test]
    fn each_complaint_names_its_field() {
        let source = json!({"image": "debian"});
        for count in [0, -1, 10_001, 1_000_000] {
            assert_eq!(pointers(json!({"source": source, "count": count})), ["/count"]);
        }
        assert_eq!(pointers(json!({"source": source})), ["/count"]);
        assert_eq!(pointers(json!({"source": {}, "count": 1})), ["/source"]);
        assert_eq!(pointers(json!({"source": {"image": "a", "snapshot": "b"}, "count": 1})), ["/source"]);
        assert_eq!(pointers(json!({"source": {"version": 3}, "count": 1})), ["/source/version"]);
        assert_eq!(pointers(json!({"source": {"image": "a", "version": 0}, "count": 1})), ["/source/version"]);
        assert_eq!(pointers(json!({"source": source, "count": 2, "min_count": 3})), ["/min_count"]);
        let many = json!({"source": source, "count": 0, "cpus": 0, "memory_bytes": 0, "disk_bytes": 0, "runtime": "none",
            "ready": {"probe": "console"}, "placement": {"max_per_node": 0, "zones": []}, "deadline_s": 0});
        assert_eq!(
            pointers(many),
            [
                "/count",
                "/cpus",
                "/memory_bytes",
                "/disk_bytes",
                "/ready/probe",
                "/placement/max_per_node",
                "/placement/zones",
                "/deadline_s"
            ]
        );
    }

    #[test]
    fn complaints_have_sizes_and_times_for_people() {
        let source = json!({"image": "debian"});
        let body = json!({"source": source, "count": 1, "memory_bytes": 1000, "deadline_s": 691_200});
        let Err(NotAnOrder::Fields(errors)) = read(body) else { panic!("it does not fit") };
        let details: Vec<_> = errors.into_iter().map(|error| error.detail).collect();
        assert_eq!(details, ["1 MiB to 64 TiB, got 1000 B", "1s to 7d, got 8d"]);
    }

    #[test]
    fn reserved_fields_are_never_ignored() {
        let got = read(json!({"source": {"image": "a"}, "count": 0, "instance_type": "a", "on_node_loss": {}}));
        assert!(matches!(got, Err(NotAnOrder::Reserved(names)) if names == ["instance_type", "on_node_loss"]));
    }

    #[test]
    fn a_fork_is_told_what_was_forked_is_told_unless_the_request_says_otherwise() {
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f me@laptop";
        let forked = Seed { ssh_keys: vec!["old".to_owned()], user_data: Some("#!/bin/old".to_owned()) };
        let seed = |more: serde_json::Value| {
            let mut body = json!({"source": {"snapshot": "s"}});
            body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            read(body).expect("fits").seed(forked.clone())
        };
        assert_eq!(seed(json!({})), forked);
        assert_eq!(seed(json!({"ssh_keys": [key]})), Seed { ssh_keys: vec![key.to_owned()], ..forked.clone() });
        assert_eq!(seed(json!({"ssh_keys": []})), Seed { ssh_keys: Vec::new(), ..forked.clone() });
        assert_eq!(seed(json!({"user_data": ""})), Seed { user_data: None, ..forked.clone() });
        assert_eq!(seed(json!({"ssh_keys": [], "user_data": "#!/bin/new"})).user_data.as_deref(), Some("#!/bin/new"));
        assert_eq!(seed(json!({"runtime": "none"})), Seed::default(), "without a guest nobody is told anything");
        let none =
            json!({"source": {"image": "a"}, "count": 1, "runtime": "none", "ssh_keys": [key], "user_data": "#!x"});
        assert_eq!(pointers(none), ["/ssh_keys", "/user_data"]);
        let many = json!({"source": {"image": "a"}, "count": 1, "ssh_keys": vec![key; SSH_KEYS_MAX + 1]});
        assert_eq!(pointers(many), ["/ssh_keys"]);
    }

    #[test]
    fn a_fork_needs_no_count() {
        assert_eq!(read(json!({"source": {"snapshot": "s"}})).expect("fits").count, None);
    }

    #[test]
    fn a_disk_is_a_multiple_of_a_block() {
        let order = read(json!({"source": {"image": "a"}, "count": 1, "disk_bytes": 4097})).expect("fits");
        assert_eq!(order.disk_bytes, Some(8192));
    }
}
