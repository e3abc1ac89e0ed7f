//! Fetching what the cache does not have: one fetch for all that ask for the same object at the same time.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use metrics::counter;
use muster_pool::Got;
use storage_core::{ChunkSize, Kind, ObjectName, Salt, lock, tree::Page, units::usize_from};
use tokio::{sync::watch, time::Instant};

use super::{Body, Cache, own::OwnBody, slots::Content};
use crate::{
    mirror::{error::Fault, patience::landing},
    telemetry,
};

/// Why objects are fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// A guest waits for them, or a commit.
    Demand,
    /// A guest may ask for them soon.
    Prefetch,
}

/// Fetches that began because somebody waits for the objects.
#[derive(Clone, Default)]
pub(super) struct Demand(Arc<()>);

impl Demand {
    /// One more, until the answer is dropped.
    fn begin(&self) -> Self {
        self.clone()
    }

    pub(super) fn is_any(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

/// How a fetch of one object ended.
pub(super) type Landed = Result<Fetched, Fault>;

#[derive(Clone)]
pub(crate) struct Fetched {
    pub(crate) body: Body,
    /// Bytes that came from other nodes.
    pub(crate) network_bytes: u64,
}

/// An object that is being fetched, and who is to be told.
struct Flight {
    name: ObjectName,
    kind: Kind,
    landed: watch::Sender<Option<Landed>>,
}

impl Cache {
    /// Pages, chunks and packs of a tree with chunks of `size`, by name. Fetches those that are missing, in one batch; several
    /// callers that ask for the same object share one fetch. Pages are in [`Pages`] then.
    ///
    /// Fails with [`Fault::Unavailable`] when no node gives an object before the deadline.
    pub(crate) async fn get_or_fetch(
        self: &Arc<Self>,
        objects: &BTreeMap<ObjectName, Kind>,
        salt: Salt,
        size: ChunkSize,
        deadline: Instant,
        why: Why,
    ) -> Result<HashMap<ObjectName, Fetched>, Fault> {
        let mut found = HashMap::new();
        // A fetch of another caller fails at that caller's deadline. This one may have time left for its own.
        while !self.fetch_more(objects, &mut found, salt, size, deadline, why).await? {}
        Ok(found)
    }

    /// Adds objects that are not in `found` yet. Returns whether all are there now.
    async fn fetch_more(
        self: &Arc<Self>,
        objects: &BTreeMap<ObjectName, Kind>,
        found: &mut HashMap<ObjectName, Fetched>,
        salt: Salt,
        size: ChunkSize,
        deadline: Instant,
        why: Why,
    ) -> Result<bool, Fault> {
        let mut waiting = Vec::new();
        let mut mine = Vec::new();
        for name in objects.keys() {
            if !found.contains_key(name)
                && let Some(body) = self.get(name)
            {
                found.insert(*name, Fetched { body, network_bytes: 0 });
            }
        }
        {
            let mut inner = lock(&self.inner);
            for (name, kind) in objects {
                if found.contains_key(name) {
                    continue;
                }
                // A flight that ended has put its page there before it was taken off the list.
                if *kind == Kind::Page
                    && let Some(page) = self.pages.get(name)
                {
                    let body = Body::Memory(page.encode().into());
                    found.insert(*name, Fetched { body, network_bytes: 0 });
                } else if let Some(flight) = inner.flights.get(name) {
                    waiting.push((*name, flight.clone(), false));
                } else if inner.slots.contains_key(name) || self.own.has(name) {
                    // A flight ended since the look above. The next look finds what it brought.
                } else {
                    let (landed, flight) = watch::channel(None);
                    inner.flights.insert(*name, flight.clone());
                    mine.push(Flight { name: *name, kind: *kind, landed });
                    waiting.push((*name, flight, true));
                }
            }
        }
        if !mine.is_empty() {
            // A task of its own: the fetch goes on for the other callers even if this one is dropped.
            let cache = self.clone();
            let demand = (why == Why::Demand).then(|| self.demand.begin());
            self.runtime.spawn(async move {
                let _demand = demand;
                cache.fly(mine, salt, size, deadline).await;
            });
        }
        for (name, mut flight, first) in waiting {
            let landed = tokio::time::timeout_at(deadline, flight.wait_for(Option::is_some)).await;
            let landed = landed.map(|landed| landed.map(|landed| landed.clone().expect("it was waited for")));
            let mut fetched = match landed {
                Ok(Ok(Err(Fault::Unavailable(_) | Fault::Lost(_)))) if !first => continue,
                Ok(Ok(landed)) => landed?,
                Ok(Err(_)) => return Err(Fault::Unavailable("the fetch was given up".to_owned())),
                Err(_) => return Err(Fault::Unavailable(format!("object {name}: the deadline passed"))),
            };
            if !first {
                // The caller that started the fetch counts these bytes.
                fetched.network_bytes = 0;
            }
            found.insert(name, fetched);
        }
        Ok(objects.keys().all(|name| found.contains_key(name)))
    }

    /// Fetches objects and tells those that wait for them.
    async fn fly(self: Arc<Self>, flights: Vec<Flight>, salt: Salt, size: ChunkSize, deadline: Instant) {
        let names: Vec<_> = flights.iter().map(|flight| flight.name).collect();
        let kinds: HashMap<_, _> = flights.iter().map(|flight| (flight.name, flight.kind)).collect();
        let mut landed = match self.pool.get(&names, landing(deadline)).await {
            Ok(got) => self.land_all(got, kinds, salt, size).await,
            Err(error) => Err(error.into()),
        };
        for Flight { name, landed: sender, .. } in flights {
            let result = match &mut landed {
                Ok(landed) => landed
                    .remove(&name)
                    .unwrap_or_else(|| Err(Fault::Unavailable(format!("the pool did not return object {name}")))),
                Err(fault) => Err(fault.clone()),
            };
            // End the flight before telling its waiters: a later caller finds the slot, or starts a new fetch.
            lock(&self.inner).flights.remove(&name);
            sender.send_replace(Some(result));
        }
    }

    /// Takes in what was fetched. Objects that stay in memory are taken in at once. The others get slots, for which it may have to
    /// wait for the disk.
    async fn land_all(
        self: &Arc<Self>,
        got: Vec<Got>,
        kinds: HashMap<ObjectName, Kind>,
        salt: Salt,
        size: ChunkSize,
    ) -> Result<HashMap<ObjectName, Landed>, Fault> {
        let mut landed = HashMap::new();
        let mut for_slots = Vec::new();
        for Got { object, network_bytes } in got {
            let (name, is_own) = (object.name, network_bytes == 0);
            let content = Content { name, kind: object.kind, salt };
            let kind = kinds.get(&name).copied();
            let bytes_max =
                if object.kind == Kind::Page { usize_from(Kind::Page.bytes_max().into()) } else { size.as_usize() };
            if kind != Some(object.kind) || object.body.len() > bytes_max {
                let what = kind.map_or("wanted".to_owned(), |kind| format!("a {kind:?} of at most {size} bytes"));
                landed.insert(name, Err(Fault::Corrupt(format!("object {name} is not {what}"))));
            } else if object.kind == Kind::Page {
                landed.insert(name, self.land_page(name, object.body, network_bytes));
            } else if is_own && self.keep_own(content, size, &object.body) {
                landed.insert(name, Ok(Fetched { body: Body::Memory(object.body), network_bytes }));
            } else {
                for_slots.push((content, object.body, network_bytes));
            }
        }
        if for_slots.is_empty() {
            return Ok(landed);
        }
        let cache = self.clone();
        let store = move |(content, body, network_bytes): (Content, Bytes, u64)| {
            let stored = cache.insert(content.name, content.kind, salt, size, &body);
            (content.name, Ok(Fetched { body: stored, network_bytes }))
        };
        let storing = tokio::task::spawn_blocking(move || for_slots.into_iter().map(store).collect::<Vec<_>>());
        let failed = |error| Fault::Io(format!("the task that stores fetched objects failed: {error}"));
        landed.extend(storing.await.map_err(failed)?);
        Ok(landed)
    }

    /// Keeps a page, decoded, for all disks of the node.
    fn land_page(&self, name: ObjectName, body: Bytes, network_bytes: u64) -> Landed {
        let page = Page::decode(&body).map_err(|e| Fault::Corrupt(format!("page {name}: {e}")))?;
        self.pages.insert(name, Arc::new(page));
        Ok(Fetched { body: Body::Memory(body), network_bytes })
    }

    /// Keeps an object of this node's own share in memory. Returns false when it is to get a slot.
    fn keep_own(&self, content: Content, size: ChunkSize, body: &Bytes) -> bool {
        counter!(telemetry::POOL_OWN_READS).increment(1);
        self.own.keep(OwnBody { content, size, bytes: body.clone() }, std::time::Instant::now())
    }
}
