//! A hypervisor in memory for tests. It has the same contract as [`super::libvirt`] and passes the same suite, and it
//! fails when a test tells it to.
//!
//! A [`FakeHost`] is the machine, and [`FakeHost::hypervisor`] one agent's view of it: several agents can share a
//! machine, as they do in the quickstart. Its guests boot at once. They print a banner on the console, their guest
//! agent answers, and they obey the power button, unless a test sets it otherwise.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    fs::OpenOptions,
    io::{self, Write as _},
    os::fd::{AsRawFd as _, OwnedFd},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use futures::future::BoxFuture;
use muster_api::{DiskId, InstanceId};
use serde_json::{Value, json};
use storage_core::lock;
use tokio::{io::AsyncWriteExt as _, net::UnixStream, sync::watch};

use super::{
    Acceleration, DiskSpec, Domain, DomainState, Ending, Hypervisor, HypervisorError, InstanceSpec, Owner, PauseReason,
    Started, console,
};

/// The machine that the fake domains run on. Clones are the same machine.
#[derive(Clone)]
pub struct FakeHost {
    world: Arc<Mutex<World>>,
    changed: watch::Sender<u64>,
}

/// How the guests of a test behave.
#[derive(Clone, Debug)]
pub struct Guests {
    /// Text they print on the console at each start.
    pub banner: String,
    /// Whether the guest agent answers.
    pub agent: bool,
    /// Whether they turn off when the power button is pressed.
    pub obeys: bool,
    /// Whether they let go of a disk when they are asked to.
    pub lets_go: bool,
}

/// The guest agent of a fake guest, and the file systems that it freezes.
#[derive(Clone, Debug, Default)]
pub struct FakeAgent {
    /// How it takes commands, by their names. Those not named are carried out and answered.
    pub takes: HashMap<&'static str, Takes>,
    /// Whether its one file system is frozen.
    pub frozen: bool,
    /// How often it was frozen.
    pub freezes: u64,
    /// What it answers to commands that ask for something, by their names, as JSON.
    pub answers: HashMap<&'static str, Value>,
    /// The commands that it got, in their order.
    pub got: Vec<Value>,
    /// Commands that it has not looked at yet, because it hung.
    late: VecDeque<Value>,
}

/// How a guest agent takes a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// It answers that it does not do this.
    Refuses,
    /// It does nothing and does not answer.
    Hangs,
    /// It does not answer in time, and carries the command out when it looks at the next one.
    Late,
    /// It carries the command out, and the answer is lost.
    Mute,
    /// It carries the command out, answers, and does not answer anything from then on.
    Dies,
}

impl FakeAgent {
    /// Carries out a command. An error is what the guest agent answers instead.
    fn do_it(&mut self, command: &Value) -> Result<Value, String> {
        let name = command["execute"].as_str().unwrap_or_default();
        match name {
            "guest-ping" => Ok(json!({})),
            "guest-fsfreeze-status" => Ok(json!(if self.frozen { "frozen" } else { "thawed" })),
            "guest-fsfreeze-thaw" => Ok(json!(u64::from(std::mem::take(&mut self.frozen)))),
            _ if self.frozen => Err(format!("Command {name} has been disabled: the agent is in frozen state")),
            "guest-fsfreeze-freeze" => {
                (self.frozen, self.freezes) = (true, self.freezes + 1);
                Ok(json!(1))
            }
            _ => self.answers.get(name).cloned().ok_or_else(|| format!("The command {name} has not been found")),
        }
    }

    /// The answer to a command; `None` if none comes.
    fn answer(&mut self, command: Value) -> Option<Result<Value, String>> {
        let name = command["execute"].as_str().unwrap_or_default().to_owned();
        let takes = self.takes.get(&*name).copied();
        self.got.push(command.clone());
        match takes {
            Some(Takes::Hangs) => return None,
            Some(Takes::Late) => {
                self.late.push_back(command);
                return None;
            }
            Some(Takes::Refuses) => return Some(Err(format!("Command {name} has been disabled"))),
            None | Some(Takes::Mute | Takes::Dies) => {}
        }
        while let Some(late) = self.late.pop_front() {
            drop(self.do_it(&late));
        }
        let done = self.do_it(&command);
        if takes == Some(Takes::Dies) {
            self.takes = COMMANDS.iter().map(|name| (*name, Takes::Hangs)).collect();
        }
        (takes != Some(Takes::Mute)).then_some(done)
    }
}

/// The commands that a guest agent knows which died.
const COMMANDS: [&str; 7] = [
    "guest-ping",
    "guest-info",
    "guest-exec",
    "guest-exec-status",
    "guest-fsfreeze-status",
    "guest-fsfreeze-freeze",
    "guest-fsfreeze-thaw",
];

impl Default for Guests {
    fn default() -> Self {
        Self { banner: "MUSTER-READY\n".to_owned(), agent: true, obeys: true, lets_go: true }
    }
}

#[derive(Default)]
struct World {
    guests: Guests,
    agents: FakeAgent,
    domains: BTreeMap<(String, InstanceId), Running>,
    endings: HashMap<(InstanceId, u64), Ending>,
    reboots: HashMap<(InstanceId, u64), u64>,
    faults: HashMap<&'static str, VecDeque<HypervisorError>>,
    hanging: BTreeSet<InstanceId>,
    list_takes: Duration,
    starts: u64,
    resumes: u64,
    /// Whether domains have real taps.
    taps: bool,
    /// Whether a resumed domain runs, or is paused again.
    room: bool,
}

struct Running {
    spec: InstanceSpec,
    state: DomainState,
    guests: Guests,
    agent: FakeAgent,
    /// Disks that it was asked to let go of.
    asked: BTreeSet<DiskId>,
    /// Sizes that it was told since its start.
    sizes: BTreeMap<DiskId, u64>,
    /// The taps of its cards are there as long as these are open, wherever they were moved.
    _taps: Vec<OwnedFd>,
}

/// The hypervisor of one owner on a [`FakeHost`].
#[derive(Clone)]
pub struct FakeHypervisor {
    host: FakeHost,
    owner: Owner,
}

impl Default for FakeHost {
    fn default() -> Self {
        Self { world: Arc::new(Mutex::new(World { room: true, ..World::default() })), changed: watch::Sender::new(0) }
    }
}

impl FakeHost {
    fn world(&self) -> MutexGuard<'_, World> {
        lock(&self.world)
    }

    fn bump(&self) {
        self.changed.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// The hypervisor of this owner.
    #[must_use]
    pub fn hypervisor(&self, owner: Owner) -> FakeHypervisor {
        FakeHypervisor { host: self.clone(), owner }
    }

    /// Sets how guests behave that are started from now on.
    pub fn set_guests(&self, guests: Guests) {
        self.world().guests = guests;
    }

    /// Sets what the guest agents are like of guests that are started from now on.
    pub fn set_guest_agents(&self, agents: FakeAgent) {
        self.world().agents = agents;
    }

    /// Lets domains have real taps for their cards. The process needs to be root.
    pub fn set_makes_taps(&self) {
        self.world().taps = true;
    }

    /// Lets the next call of this kind fail: `list`, `start`, `shut down`, `destroy`, `resume`, `plug`,
    /// `unplug`, `resize` or `agent`.
    pub fn fail_next(&self, what: &'static str, error: HypervisorError) {
        self.world().faults.entry(what).or_default().push_back(error);
    }

    /// Lets every list of the domains take so long.
    pub fn set_list_takes(&self, time: Duration) {
        self.world().list_takes = time;
    }

    /// Lets calls on this instance hang until [`Self::unhang`].
    pub fn hang(&self, instance: InstanceId) {
        self.world().hanging.insert(instance);
    }

    /// Lets calls on this instance go on.
    pub fn unhang(&self, instance: InstanceId) {
        self.world().hanging.remove(&instance);
        self.bump();
    }

    /// Ends the domain of an instance, as if by itself.
    pub fn end(&self, instance: InstanceId, ending: Ending) {
        self.world().end(instance, ending);
        self.bump();
    }

    /// Restarts the guest of an instance, as if by itself.
    pub fn reboot(&self, instance: InstanceId) {
        let mut world = self.world();
        let boots: Vec<u64> =
            world.domains.iter().filter(|((_, of), _)| *of == instance).map(|(_, running)| running.spec.boot).collect();
        for boot in boots {
            *world.reboots.entry((instance, boot)).or_default() += 1;
        }
        drop(world);
        self.bump();
    }

    /// Pauses the domain of an instance. Until [`Self::make_room`], a resumed domain is paused again at once.
    pub fn pause(&self, instance: InstanceId, reason: &PauseReason) {
        let mut world = self.world();
        world.room = false;
        for ((_, of), running) in &mut world.domains {
            if *of == instance {
                running.state = DomainState::Paused(reason.clone());
            }
        }
        drop(world);
        self.bump();
    }

    /// Lets resumed domains run from now on.
    pub fn make_room(&self) {
        self.world().room = true;
    }

    /// Lets `look` see and change the guest agent of an instance. It is a new one after each start.
    ///
    /// # Panics
    /// When the instance has no domain.
    pub fn guest_agent<T>(&self, instance: InstanceId, look: impl FnOnce(&mut FakeAgent) -> T) -> T {
        let mut world = self.world();
        let running = world.domains.iter_mut().find(|((_, of), _)| *of == instance).map(|(_, running)| running);
        look(&mut running.expect("the instance has a domain").agent)
    }

    /// Lets the guest of an instance let go of the disks that it was asked for, as a slow one does.
    pub fn let_go(&self, instance: InstanceId) {
        for running in
            self.world().domains.iter_mut().filter(|((_, of), _)| *of == instance).map(|(_, running)| running)
        {
            let asked = std::mem::take(&mut running.asked);
            running.spec.disks.retain(|disk| !asked.contains(&disk.disk));
        }
        self.bump();
    }

    /// The sizes that the guest of an instance was told since its start, by disk.
    #[must_use]
    pub fn told_sizes(&self, instance: InstanceId) -> BTreeMap<DiskId, u64> {
        let world = self.world();
        let running = world.domains.iter().filter(|((_, of), _)| *of == instance).map(|(_, running)| running);
        running.flat_map(|running| running.sizes.clone()).collect()
    }

    /// Prints on the console of an instance.
    ///
    /// # Errors
    /// An I/O error.
    pub fn print(&self, instance: InstanceId, text: &str) -> std::io::Result<()> {
        let logs: Vec<_> = self
            .world()
            .domains
            .iter()
            .filter(|((_, of), _)| *of == instance)
            .map(|(_, running)| running.spec.console_log.clone())
            .collect();
        logs.iter().try_for_each(|log| append(log, text))
    }

    /// The specs of all domains that exist now, of any owner.
    #[must_use]
    pub fn running(&self) -> Vec<InstanceSpec> {
        self.world().domains.values().map(|running| running.spec.clone()).collect()
    }

    /// Number of domains started so far.
    #[must_use]
    pub fn starts(&self) -> u64 {
        self.world().starts
    }

    /// Number of resume calls so far.
    #[must_use]
    pub fn resumes(&self) -> u64 {
        self.world().resumes
    }
}

impl World {
    fn end(&mut self, instance: InstanceId, ending: Ending) {
        let ended: Vec<_> = self.domains.keys().filter(|(_, of)| *of == instance).cloned().collect();
        for key in ended {
            if let Some(running) = self.domains.remove(&key) {
                self.endings.insert((instance, running.spec.boot), ending);
            }
        }
    }
}

fn append(log: &std::path::Path, text: &str) -> std::io::Result<()> {
    OpenOptions::new().create(true).append(true).open(log)?.write_all(text.as_bytes())
}

/// Makes a tap, which is there until the file is closed.
fn tap(name: &str) -> io::Result<OwnedFd> {
    let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    let mut request =
        libc::ifreq { ifr_name: [0; libc::IFNAMSIZ], ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: TAP_FLAGS } };
    if name.len() >= libc::IFNAMSIZ {
        return Err(io::Error::other(format!("{name} is too long")));
    }
    for (to, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([byte]);
    }
    // SAFETY: the file is open, and the request is a valid `ifreq` with a name that ends in 0.
    let made = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if made == 0 { Ok(file.into()) } else { Err(io::Error::last_os_error()) }
}

/// A tap that gives whole frames and nothing before them.
#[expect(clippy::cast_possible_truncation, reason = "the kernel's flags fit into its own field")]
const TAP_FLAGS: libc::c_short = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;

/// A connection whose other end says something and then repeats what it hears.
fn echo(greeting: &'static str) -> UnixStream {
    let (here, mut there) = UnixStream::pair().expect("a pair of sockets");
    tokio::spawn(async move {
        let _ = there.write_all(greeting.as_bytes()).await;
        let (mut from, mut to) = there.split();
        let _ = tokio::io::copy(&mut from, &mut to).await;
    });
    here
}

impl FakeHypervisor {
    fn key(&self, instance: InstanceId) -> (String, InstanceId) {
        (format!("{} {}", self.owner.cluster, self.owner.node), instance)
    }

    /// The beginning of every call: hangs or fails if a test asked for it.
    async fn enter(&self, what: &'static str, instance: Option<InstanceId>) -> Result<(), HypervisorError> {
        let mut changed = self.host.changed.subscribe();
        while instance.is_some_and(|i| self.host.world().hanging.contains(&i)) {
            if changed.changed().await.is_err() {
                break;
            }
        }
        match self.host.world().faults.get_mut(what).and_then(VecDeque::pop_front) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn with<T>(
        &self,
        instance: InstanceId,
        f: impl FnOnce(&mut Running, bool) -> Result<T, HypervisorError>,
    ) -> Result<T, HypervisorError> {
        let mut world = self.host.world();
        let room = world.room;
        let running = world.domains.get_mut(&self.key(instance)).ok_or(HypervisorError::NotRunning(instance))?;
        f(running, room)
    }
}

impl Hypervisor for FakeHypervisor {
    fn acceleration(&self) -> Acceleration {
        Acceleration::Qemu
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Domain>, HypervisorError>> {
        Box::pin(async move {
            let takes = self.host.world().list_takes;
            tokio::time::sleep(takes).await;
            self.enter("list", None).await?;
            let (owner, world) = (format!("{} {}", self.owner.cluster, self.owner.node), self.host.world());
            let ours = world.domains.iter().filter(|((of, _), _)| *of == owner);
            Ok(ours
                .map(|(_, running)| Domain {
                    instance: running.spec.instance,
                    generation: running.spec.generation,
                    boot: running.spec.boot,
                    run: running.spec.run,
                    state: running.state.clone(),
                    disks: running.spec.disks.iter().map(|disk| disk.disk).collect(),
                })
                .collect())
        })
    }

    fn start(&self, spec: InstanceSpec) -> BoxFuture<'_, Result<Started, HypervisorError>> {
        Box::pin(async move {
            let instance = spec.instance;
            self.enter("start", Some(instance)).await?;
            let mut world = self.host.world();
            if let Some(running) = world.domains.get(&self.key(instance)) {
                let there = &running.spec;
                return if (there.generation, there.boot, there.run) == (spec.generation, spec.boot, spec.run) {
                    Ok(Started::Already)
                } else {
                    Err(HypervisorError::OtherStart { instance, generation: there.generation, boot: there.boot })
                };
            }
            let guests = world.guests.clone();
            let console = |source| HypervisorError::Console { path: spec.console_log.clone(), source };
            console::begin(&spec.console_log, spec.boot).map_err(console)?;
            append(&spec.console_log, &guests.banner).map_err(console)?;
            world.endings.retain(|(of, boot), _| *of != instance || *boot > spec.boot);
            world.reboots.retain(|(of, boot), _| *of != instance || *boot > spec.boot);
            let taps = if world.taps { spec.cards.iter().map(|card| tap(&card.tap)).collect() } else { Ok(Vec::new()) };
            let no_tap = |source: io::Error| HypervisorError::Refused {
                what: "start",
                instance,
                detail: format!("no tap: {source}"),
            };
            let taps = taps.map_err(no_tap)?;
            world.starts += 1;
            let paused = DomainState::Paused(PauseReason::Other("User".to_owned()));
            let state = if spec.cards.is_empty() { DomainState::Running } else { paused };
            let agent = world.agents.clone();
            let (asked, sizes) = (BTreeSet::new(), BTreeMap::new());
            let running = Running { spec, state, guests, agent, asked, sizes, _taps: taps };
            let key = self.key(instance);
            world.domains.insert(key, running);
            drop(world);
            self.host.bump();
            Ok(Started::Now)
        })
    }

    fn request_shutdown(&self, instance: InstanceId) -> BoxFuture<'_, Result<(), HypervisorError>> {
        Box::pin(async move {
            self.enter("shut down", Some(instance)).await?;
            if self.with(instance, |running, _| Ok(running.guests.obeys))? {
                self.host.world().end(instance, Ending::Shutdown);
                self.host.bump();
            }
            Ok(())
        })
    }

    fn destroy(&self, instance: InstanceId) -> BoxFuture<'_, Result<(), HypervisorError>> {
        Box::pin(async move {
            self.enter("destroy", Some(instance)).await?;
            let mut world = self.host.world();
            if let Some(running) = world.domains.remove(&self.key(instance)) {
                world.endings.insert((instance, running.spec.boot), Ending::Destroyed);
            }
            drop(world);
            self.host.bump();
            Ok(())
        })
    }

    fn discard(&self, _: InstanceId) -> BoxFuture<'_, Result<(), HypervisorError>> {
        Box::pin(async { Ok(()) })
    }

    fn process(&self, _: InstanceId) -> BoxFuture<'_, Result<Option<u32>, HypervisorError>> {
        Box::pin(async { Ok(None) })
    }

    fn plug(&self, instance: InstanceId, disk: DiskSpec) -> BoxFuture<'_, Result<(), HypervisorError>> {
        Box::pin(async move {
            self.enter("plug", Some(instance)).await?;
            self.with(instance, |running, _| {
                if running.spec.disks.iter().all(|has| has.disk != disk.disk) {
                    running.spec.disks.push(disk);
                }
                Ok(())
            })?;
            self.host.bump();
            Ok(())
        })
    }

    fn unplug(&self, instance: InstanceId, disk: DiskId) -> BoxFuture<'_, Result<(), HypervisorError>> {
        Box::pin(async move {
            self.enter("unplug", Some(instance)).await?;
            self.with(instance, |running, _| {
                if running.guests.lets_go {
                    running.spec.disks.retain(|has| has.disk != disk);
                } else {
                    running.asked.insert(disk);
                }
                Ok(())
            })?;
            self.host.bump();
            Ok(())
        })
    }

    fn resize(
        &self,
        instance: InstanceId,
        disk: DiskId,
        size_bytes: u64,
    ) -> BoxFuture<'_, Result<(), HypervisorError>> {
        Box::pin(async move {
            self.enter("resize", Some(instance)).await?;
            self.with(instance, |running, _| {
                if running.spec.disks.iter().all(|has| has.disk != disk) {
                    let detail = format!("it does not have disk {disk}");
                    return Err(HypervisorError::Without { what: "such disk", detail });
                }
                running.sizes.insert(disk, size_bytes);
                Ok(())
            })
        })
    }

    fn resume(&self, instance: InstanceId) -> BoxFuture<'_, Result<(), HypervisorError>> {
        Box::pin(async move {
            self.enter("resume", Some(instance)).await?;
            self.host.world().resumes += 1;
            self.with(instance, |running, room| {
                if room {
                    running.state = DomainState::Running;
                }
                Ok(())
            })?;
            self.host.bump();
            Ok(())
        })
    }

    fn agent(
        &self,
        instance: InstanceId,
        command: String,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<String, HypervisorError>> {
        Box::pin(async move {
            self.enter("agent", Some(instance)).await?;
            let command: Value = serde_json::from_str(&command).expect("a command is JSON");
            let answer = self.with(instance, |running, _| {
                if running.state != DomainState::Running {
                    return Err(HypervisorError::NotRunning(instance));
                }
                Ok(if running.guests.agent { Some(running.agent.answer(command)) } else { None })
            })?;
            match answer {
                Some(Some(Ok(value))) => Ok(json!({ "return": value }).to_string()),
                Some(Some(Err(detail))) => Err(HypervisorError::AgentRefused { instance, detail }),
                Some(None) => {
                    tokio::time::sleep(timeout).await;
                    Err(HypervisorError::NoAgent { instance, detail: format!("no answer within {timeout:?}") })
                }
                // libvirt sees that nobody has the guest's end of the channel open.
                None => Err(HypervisorError::NoAgent { instance, detail: "it is not connected".to_owned() }),
            }
        })
    }

    fn open_serial(&self, instance: InstanceId) -> BoxFuture<'_, Result<UnixStream, HypervisorError>> {
        Box::pin(async move {
            self.enter("serial", Some(instance)).await?;
            self.with(instance, |_, _| Ok(echo("")))
        })
    }

    fn open_screen(&self, instance: InstanceId) -> BoxFuture<'_, Result<UnixStream, HypervisorError>> {
        Box::pin(async move {
            self.enter("screen", Some(instance)).await?;
            self.with(instance, |_, _| Ok(echo("RFB 003.008\n")))
        })
    }

    fn ending(&self, instance: InstanceId, boot: u64) -> Option<Ending> {
        self.host.world().endings.get(&(instance, boot)).copied()
    }

    fn reboots(&self, instance: InstanceId, boot: u64) -> u64 {
        self.host.world().reboots.get(&(instance, boot)).copied().unwrap_or(0)
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.host.changed.subscribe()
    }
}
