//! [`Networks`]: which of them are due, one task for each, and what instances ask of them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use metrics::{counter, gauge};
use muster_api::{
    MacAddress, NetworkId,
    node_protocol::network::{NetworksAssignment, NicAssignment},
};
use rustix::net::sockopt;
use serde::Deserialize;
use storage_core::{cause::explain, lock};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::{Instant, timeout},
};
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::{
    NetworkError, NetworkParts,
    commands::{CommandError, inside, ip_batch, within},
    dnsmasq::Dnsmasq,
    host_side::HostSide,
    names, segment,
    segment::Segment,
    spoofing::SPOOFED,
    wanted::{self, Form, Wanted},
};
use crate::{
    hypervisor::{CardSpec, Owner},
    telemetry,
};

/// Time after which a network is made sure from its beginning although nothing changed.
const SURE_EVERY: Duration = Duration::from_secs(60);
/// Most cards that are put in their places by one call of the programs, which has to end in time.
const TOGETHER: usize = 64;
/// First and longest wait after a failure. It doubles in between.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_LAST: Duration = Duration::from_secs(10);
/// How often a guest is asked whether it is still there, on a connection where nothing goes on.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// Longest wait for a guest to take a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// The networks of a node. Clones are the same.
#[derive(Clone)]
pub struct Networks {
    inner: Arc<Inner>,
}

struct Inner {
    parts: NetworkParts,
    /// None on a host that can have no networks.
    host: Option<HostSide>,
    told: Mutex<Told>,
    /// By namespace: one that is to be removed is known by nothing else.
    places: Mutex<HashMap<String, Arc<Place>>>,
    /// Namespaces that are being removed, and those that could not be, with the time of the next try.
    going: Mutex<HashMap<String, Instant>>,
    tasks: TaskTracker,
}

/// What the controller said last.
#[derive(Default)]
struct Told {
    said: NetworksAssignment,
    wanted: BTreeMap<NetworkId, Result<Arc<Wanted>, String>>,
    /// Set once the agent ends. Then nothing is made any more.
    closed: bool,
}

impl Told {
    /// A network that did not change stays the same value.
    fn take(&mut self, said: &NetworksAssignment, owner: Owner) {
        let mut before = std::mem::take(&mut self.wanted);
        for (network, checked) in wanted::check(said, owner.node) {
            let same = before.remove(&network).filter(|before| match (before, &checked) {
                (Ok(before), Ok(now)) => **before == *now,
                (Err(before), Err(now)) => before == now,
                (Ok(_), Err(_)) | (Err(_), Ok(_)) => false,
            });
            self.wanted.insert(network, same.unwrap_or_else(|| checked.map(Arc::new)));
        }
        self.said = said.clone();
    }

    fn good(&self) -> Vec<Arc<Wanted>> {
        self.wanted.values().filter_map(|wanted| wanted.as_ref().ok().cloned()).collect()
    }
}

/// One network as this process knows it.
#[derive(Default)]
struct Place {
    /// Held while something is done with the network. It has the rules that are loaded in its namespace.
    loaded: tokio::sync::Mutex<Option<String>>,
    /// Cards that wait for their place.
    waiting: Mutex<BTreeSet<MacAddress>>,
    /// Cards that somebody else tried to put in their place, and why that failed.
    failed: Mutex<BTreeMap<MacAddress, CommandError>>,
    standing: Mutex<Standing>,
}

#[derive(Default)]
struct Standing {
    /// What was made last, and when.
    made: Option<(Arc<Wanted>, Instant)>,
    trouble: Option<NetworkError>,
    failures: u32,
    retry_at: Option<Instant>,
    /// A task is under way.
    busy: bool,
    /// Frames that were dropped because of their sender, as last read.
    spoofed: u64,
}

impl Place {
    /// Forgets what was made.
    fn forget(&self) {
        let mut standing = lock(&self.standing);
        *standing = Standing { busy: standing.busy, ..Standing::default() };
    }
}

impl Standing {
    /// Whether this was made, and not too long ago.
    fn is_made(&self, wanted: &Arc<Wanted>) -> bool {
        self.made.as_ref().is_some_and(|(made, at)| Arc::ptr_eq(made, wanted) && at.elapsed() < SURE_EVERY)
    }

    fn waits(&self) -> bool {
        self.retry_at.is_some_and(|at| at > Instant::now())
    }
}

/// Frees a network also when its task panics.
struct Idle(Arc<Place>);

impl Drop for Idle {
    fn drop(&mut self) {
        lock(&self.0.standing).busy = false;
    }
}

impl Networks {
    /// The networks of a node, of which none is made yet.
    #[must_use]
    pub fn new(parts: NetworkParts) -> Self {
        let host = parts.tunnel.as_ref().ok().map(|tunnel| HostSide::new(parts.owner, *tunnel));
        Self {
            inner: Arc::new(Inner {
                parts,
                host,
                told: Mutex::default(),
                places: Mutex::default(),
                going: Mutex::default(),
                tasks: TaskTracker::new(),
            }),
        }
    }

    /// `IP:PORT` at which this node takes tunnel packets; or why it can have no networks.
    ///
    /// # Errors
    /// What the host lacks, in a sentence.
    pub fn tunnel(&self) -> Result<SocketAddr, String> {
        self.inner.parts.tunnel.clone()
    }

    /// Takes what the controller wants, and starts what has to be done. Never waits. It is called at every pass.
    pub fn pass(&self, said: &NetworksAssignment) {
        let inner = &self.inner;
        if inner.host.is_none() {
            return;
        }
        let all: Vec<(NetworkId, Option<Arc<Wanted>>)> = {
            let mut told = lock(&inner.told);
            if told.closed {
                return;
            }
            if told.said != *said {
                told.take(said, inner.parts.owner);
            }
            gauge!(telemetry::NETWORKS).set(count(told.wanted.len()));
            gauge!(telemetry::CARDS).set(count(told.good().iter().map(|wanted| wanted.here.len()).sum()));
            told.wanted.iter().map(|(network, wanted)| (*network, wanted.as_ref().ok().cloned())).collect()
        };
        let names: HashSet<String> =
            all.iter().map(|(network, _)| names::namespace(inner.parts.owner, *network)).collect();
        for (network, wanted) in all {
            if let Some(wanted) = wanted {
                inner.start(network, &wanted);
            }
        }
        inner.remove_others(&names);
    }

    /// Waits until a network is as wanted now.
    ///
    /// # Errors
    /// [`NetworkError`] if it cannot be made. It is tried again at later passes.
    pub async fn ensure(&self, network: NetworkId) -> Result<(), NetworkError> {
        self.inner.wanted(network)?;
        let place = self.inner.place_of(network);
        self.inner.make(network, &place).await
    }

    /// What the hypervisor needs to know of a card.
    ///
    /// # Errors
    /// [`NetworkError`] if the network or the card in it is not known.
    pub fn card(&self, nic: NicAssignment) -> Result<CardSpec, NetworkError> {
        let wanted = self.inner.wanted(nic.network)?;
        if !wanted.here.iter().any(|card| card.mac == nic.mac) {
            return Err(NetworkError::NoCard { title: wanted.title.clone(), mac: nic.mac });
        }
        Ok(CardSpec { tap: names::tap(self.inner.parts.owner.node, nic.mac), mac: nic.mac, mtu: wanted.mtu })
    }

    /// Puts the tap of a card, which the hypervisor made in the host's own namespace, into its network.
    ///
    /// # Errors
    /// [`NetworkError`] if the network cannot be made, or the tap is not there.
    pub async fn attach(&self, nic: NicAssignment) -> Result<(), NetworkError> {
        self.card(nic)?;
        self.ensure(nic.network).await?;
        let wanted = self.inner.wanted(nic.network)?;
        let step = |source| NetworkError::Step { title: wanted.title.clone(), source };
        let place = self.inner.place_of(nic.network);
        lock(&place.failed).remove(&nic.mac);
        lock(&place.waiting).insert(nic.mac);
        let _held = place.loaded.lock().await;
        if !lock(&place.waiting).contains(&nic.mac) {
            // It was done together with another card.
            return lock(&place.failed).remove(&nic.mac).map_or(Ok(()), |error| Err(step(error)));
        }
        let others: Vec<MacAddress> = lock(&place.waiting).iter().copied().filter(|mac| *mac != nic.mac).collect();
        let together: Vec<MacAddress> = others.into_iter().take(TOGETHER - 1).chain([nic.mac]).collect();
        // If one of them cannot be put in its place, each is tried alone.
        if self.inner.put_in_place(&wanted, &together).await?.is_err() {
            for mac in &together {
                if let Err(error) = self.inner.put_in_place(&wanted, &[*mac]).await? {
                    lock(&place.failed).insert(*mac, error);
                }
            }
        }
        lock(&place.waiting).retain(|mac| !together.contains(mac));
        lock(&place.failed).remove(&nic.mac).map_or(Ok(()), |error| Err(step(error)))
    }

    /// Connects to a TCP port of the guest with this card, from within its network, as the gateway. Security groups decide
    /// about what is forwarded, so they are not asked.
    ///
    /// # Errors
    /// [`NetworkError`] if the network or the card is not known, the card has no address here, or the guest does not
    /// answer.
    pub async fn connect(&self, nic: NicAssignment, port: u16) -> Result<TcpStream, NetworkError> {
        let wanted = self.inner.wanted(nic.network)?;
        let title = || wanted.title.clone();
        let card = wanted.here.iter().find(|card| card.mac == nic.mac);
        let card = card.ok_or_else(|| NetworkError::NoCard { title: title(), mac: nic.mac })?;
        let Some(address) = card.v4 else { return Err(NetworkError::NoAddress { title: title() }) };
        let failed = |detail: String| NetworkError::NoAnswer { title: title(), port, detail };
        let namespace = names::namespace(self.inner.parts.owner, nic.network);
        // A socket stays in the namespace that it was made in.
        let made = tokio::task::spawn_blocking(move || inside(&namespace, TcpSocket::new_v4).flatten());
        let socket = made.await.map_err(io::Error::other).flatten().map_err(|error| failed(error.to_string()))?;
        let stream = match timeout(CONNECT_WITHIN, socket.connect((address, port).into())).await {
            Ok(connected) => connected.map_err(|error| failed(error.to_string()))?,
            Err(_elapsed) => return Err(failed(format!("no answer within {} s", CONNECT_WITHIN.as_secs()))),
        };
        // A keystroke is sent at once, and a guest that is gone is noticed. Without these it works, only not as well.
        let tuned = stream.set_nodelay(true).and_then(|()| {
            sockopt::set_socket_keepalive(&stream, true)?;
            sockopt::set_tcp_keepidle(&stream, KEEPALIVE)?;
            sockopt::set_tcp_keepintvl(&stream, KEEPALIVE)?;
            sockopt::set_tcp_keepcnt(&stream, 3)?;
            Ok(())
        });
        if let Err(error) = tuned {
            debug!(%error, "a connection to a guest could not be tuned");
        }
        Ok(stream)
    }

    /// Why networks are not as wanted, a sentence for each.
    #[must_use]
    pub fn troubles(&self) -> Vec<String> {
        let invalid: Vec<String> = {
            let told = lock(&self.inner.told);
            let invalid = |(network, wanted): (&NetworkId, &Result<Arc<Wanted>, String>)| {
                let detail = wanted.as_ref().err()?.clone();
                Some(NetworkError::Invalid { network: *network, detail }.to_string())
            };
            told.wanted.iter().filter_map(invalid).collect()
        };
        let places: Vec<Arc<Place>> = lock(&self.inner.places).values().cloned().collect();
        let failed = places.iter().filter_map(|place| Some(explain(lock(&place.standing).trouble.as_ref()?)));
        invalid.into_iter().chain(failed).collect()
    }

    /// Waits until no task is under way.
    pub async fn settle(&self) {
        let idle = || {
            let places = lock(&self.inner.places);
            self.inner.tasks.is_empty() && !places.values().any(|place| lock(&place.standing).busy)
        };
        while !idle() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Removes everything that this node has made, because its agent ends. Networks in which guests still have cards
    /// stay.
    pub async fn close(&self) {
        let inner = &self.inner;
        let Some(host) = &inner.host else { return };
        {
            let mut told = lock(&inner.told);
            told.closed = true;
            told.wanted.clear();
        }
        self.settle().await;
        let removals = inner.namespaces().into_iter().map(|namespace| inner.remove(namespace));
        let stays = futures::future::join_all(removals).await.into_iter().filter(|gone| !gone).count();
        if stays == 0
            && let Err(error) = host.close().await
        {
            tracing::warn!(%error, "this node's packet filter stays on the host");
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "metrics are floating point")]
fn count(n: usize) -> f64 {
    n as f64
}

impl Inner {
    fn place(&self, namespace: String) -> Arc<Place> {
        lock(&self.places).entry(namespace).or_default().clone()
    }

    fn place_of(&self, network: NetworkId) -> Arc<Place> {
        self.place(names::namespace(self.parts.owner, network))
    }

    fn folder(&self, namespace: &str) -> PathBuf {
        self.parts.data_dir.join("networks").join(namespace)
    }

    /// What is wanted of a network now.
    fn wanted(&self, network: NetworkId) -> Result<Arc<Wanted>, NetworkError> {
        if let Err(why) = &self.parts.tunnel {
            return Err(NetworkError::Unable(why.clone()));
        }
        match lock(&self.told).wanted.get(&network) {
            Some(Ok(wanted)) => Ok(wanted.clone()),
            Some(Err(detail)) => Err(NetworkError::Invalid { network, detail: detail.clone() }),
            None => Err(NetworkError::Unknown(network)),
        }
    }

    fn segment<'a>(
        &'a self,
        wanted: &'a Wanted,
        overlay: &'a wanted::Overlay,
        all: &'a [Arc<Wanted>],
    ) -> Result<Segment<'a>, NetworkError> {
        let unable = |why: &str| NetworkError::Unable(why.to_owned());
        let namespace = names::namespace(self.parts.owner, wanted.network);
        Ok(Segment {
            owner: self.parts.owner,
            tunnel: *self.parts.tunnel.as_ref().map_err(|why| unable(why))?,
            host: self.host.as_ref().ok_or_else(|| unable("it was not asked for"))?,
            folder: self.folder(&namespace),
            namespace,
            wanted,
            overlay,
            all,
        })
    }

    /// Puts the taps of these cards into their network. The outer error says that the network cannot be used.
    async fn put_in_place(
        &self,
        wanted: &Wanted,
        cards: &[MacAddress],
    ) -> Result<Result<(), CommandError>, NetworkError> {
        match &wanted.form {
            Form::HostBridge(bridge) => {
                let tap = |mac: &MacAddress| names::tap(self.parts.owner.node, *mac);
                let line = |mac| format!("link set {} mtu {} master {} up", tap(mac), wanted.mtu, bridge.as_str());
                Ok(ip_batch(None, &cards.iter().map(line).collect::<Vec<_>>()).await)
            }
            Form::Overlay(overlay) => {
                let all = lock(&self.told).good();
                Ok(self.segment(wanted, overlay, &all)?.attach(cards).await)
            }
        }
    }

    /// Starts a task for a network, if something is to be done and none is under way.
    fn start(self: &Arc<Self>, network: NetworkId, wanted: &Arc<Wanted>) {
        let place = self.place_of(network);
        {
            let mut standing = lock(&place.standing);
            let is_served = matches!(wanted.form, Form::HostBridge(_)) || self.dnsmasq(network).is_alive();
            if standing.busy || standing.waits() || (standing.is_made(wanted) && is_served) {
                return;
            }
            if !is_served {
                standing.made = None;
            }
            standing.busy = true;
        }
        let inner = self.clone();
        self.tasks.spawn(async move {
            let _idle = Idle(place.clone());
            // Its trouble is kept in its place.
            let _kept = inner.make(network, &place).await;
        });
    }

    fn dnsmasq(&self, network: NetworkId) -> Dnsmasq {
        let namespace = names::namespace(self.parts.owner, network);
        let folder = self.folder(&namespace);
        Dnsmasq::new(namespace, folder)
    }

    /// Makes a network as it is wanted once its turn has come, and nothing if that was done meanwhile.
    async fn make(&self, network: NetworkId, place: &Place) -> Result<(), NetworkError> {
        let mut loaded = place.loaded.lock().await;
        let wanted = self.wanted(network)?;
        {
            let standing = lock(&place.standing);
            if standing.is_made(&wanted) {
                return Ok(());
            }
            // Many instances may wait for a network that cannot be made.
            if let Some(trouble) = standing.trouble.clone().filter(|_| standing.waits()) {
                return Err(trouble);
            }
        }
        let is_late = lock(&place.standing).made.as_ref().is_none_or(|(_, at)| at.elapsed() >= SURE_EVERY);
        let made = self.make_now(&wanted, &mut loaded, is_late).await;
        let mut standing = lock(&place.standing);
        match &made {
            Ok(()) => {
                if standing.trouble.take().is_some() {
                    tracing::info!(network.id = %network, "{} is as wanted again", wanted.title);
                }
                (standing.made, standing.failures, standing.retry_at) = (Some((wanted, Instant::now())), 0, None);
            }
            Err(error) => {
                let said = explain(error);
                // Logged once, not at every try.
                if standing.trouble.as_ref().map(|trouble| explain(trouble)) != Some(said.clone()) {
                    tracing::warn!(network.id = %network, "{said}");
                }
                let wait = RETRY_FIRST.saturating_mul(1 << standing.failures.min(10)).min(RETRY_LAST);
                standing.retry_at = Some(Instant::now() + wait);
                standing.failures = standing.failures.saturating_add(1);
                standing.made = None;
                standing.trouble = Some(error.clone());
            }
        }
        made
    }

    /// `sure` says that everything is made again, also what should be there.
    async fn make_now(&self, wanted: &Wanted, loaded: &mut Option<String>, sure: bool) -> Result<(), NetworkError> {
        let step = |source| NetworkError::Step { title: wanted.title.clone(), source };
        let all = lock(&self.told).good();
        match &wanted.form {
            Form::HostBridge(bridge) => {
                let there = PathBuf::from("/sys/class/net").join(bridge.as_str()).join("bridge").exists();
                if !there {
                    let detail = format!("this host has no bridge {}", bridge.as_str());
                    return Err(step(CommandError::new("looking for its bridge", detail)));
                }
                match &self.host {
                    Some(host) => host.refresh(&all, sure).await.map_err(step),
                    None => Ok(()),
                }
            }
            Form::Overlay(overlay) => {
                let segment = self.segment(wanted, overlay, &all)?;
                if sure {
                    segment.host.refresh(&all, true).await.map_err(step)?;
                    self.count_spoofed(wanted.network, &segment.namespace).await;
                }
                let before = loaded.take();
                let known = before.as_deref().filter(|_| !sure);
                *loaded = Some(segment.make(known, before.is_none()).await.map_err(step)?);
                Ok(())
            }
        }
    }

    /// Adds what was dropped since the last look to the metric. A namespace without the counter is a new one.
    async fn count_spoofed(&self, network: NetworkId, namespace: &str) {
        #[derive(Deserialize)]
        struct Listed {
            nftables: Vec<Entry>,
        }
        #[derive(Deserialize)]
        struct Entry {
            counter: Option<Counter>,
        }
        #[derive(Deserialize)]
        struct Counter {
            packets: u64,
        }
        let args = ["-j", "list", "counter", "bridge", names::TABLE, SPOOFED];
        let Ok(json) = within(namespace, "nft", &args, "").await else { return };
        let Ok(Listed { nftables }) = serde_json::from_str::<Listed>(&json) else { return };
        let packets: u64 = nftables.into_iter().filter_map(|entry| entry.counter).map(|counter| counter.packets).sum();
        let place = self.place_of(network);
        let mut standing = lock(&place.standing);
        counter!(telemetry::SPOOFED_FRAMES).increment(packets.saturating_sub(standing.spoofed));
        standing.spoofed = packets;
    }

    /// All namespaces of this node that are there.
    fn namespaces(&self) -> Vec<String> {
        let prefix = names::namespace_prefix(self.parts.owner);
        let entries = std::fs::read_dir("/run/netns").into_iter().flatten();
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.filter(|name| name.starts_with(&prefix)).collect()
    }

    /// Starts the removal of all namespaces of this node but these.
    fn remove_others(self: &Arc<Self>, wanted: &HashSet<String>) {
        for namespace in self.namespaces() {
            let mut going = lock(&self.going);
            if wanted.contains(&namespace) || going.get(&namespace).is_some_and(|at| *at > Instant::now()) {
                continue;
            }
            // As long as the removal is under way, and then for a while if it fails.
            going.insert(namespace.clone(), Instant::now() + SURE_EVERY);
            drop(going);
            let inner = self.clone();
            self.tasks.spawn(async move {
                let gone = inner.remove(namespace.clone()).await;
                let mut going = lock(&inner.going);
                if gone {
                    going.remove(&namespace);
                } else {
                    going.insert(namespace, Instant::now() + RETRY_LAST);
                }
            });
        }
        lock(&self.places).retain(|namespace, place| wanted.contains(namespace) || Arc::strong_count(place) > 1);
    }

    /// Removes a namespace, unless its network is wanted again. Returns whether it is gone.
    async fn remove(&self, namespace: String) -> bool {
        let Some(host) = &self.host else { return true };
        // Not while something is done with its network, and nothing is while this goes on.
        let place = self.place(namespace.clone());
        let mut loaded = place.loaded.lock().await;
        let all = {
            let told = lock(&self.told);
            if told.wanted.keys().any(|network| names::namespace(self.parts.owner, *network) == namespace) {
                return false;
            }
            told.good()
        };
        *loaded = None;
        place.forget();
        match segment::remove(host, &namespace, self.folder(&namespace), &all).await {
            Ok(()) => {
                tracing::info!("the network in {namespace} is gone");
                true
            }
            Err(error) => {
                tracing::warn!(%error, "the network in {namespace} stays; its removal is tried again");
                false
            }
        }
    }
}
