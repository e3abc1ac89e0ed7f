//! Fetching what the cache does not have: one fetch for all that ask for the same object at the same time.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use muster_pool::Got;
use storage_core::{ChunkSize, Kind, ObjectName, Salt, lock};
use tokio::{sync::watch, time::Instant};

use super::{Body, Cache};
use crate::mirror::{error::Fault, patience::landing};

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
    /// Chunks and packs of a tree with chunks of `size`, by name. Fetches those that are missing, in one batch; several
    /// callers that ask for the same object share one fetch.
    ///
    /// Fails with [`Fault::Unavailable`] when no node gives an object before the deadline.
    pub(crate) async fn get_or_fetch(
        self: &Arc<Self>,
        objects: &BTreeMap<ObjectName, Kind>,
        salt: Salt,
        size: ChunkSize,
        deadline: Instant,
    ) -> Result<HashMap<ObjectName, Fetched>, Fault> {
        let mut found = HashMap::new();
        // A fetch of another caller fails at that caller's deadline. This one may have time left for its own.
        while !self.fetch_more(objects, &mut found, salt, size, deadline).await? {}
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
            for (name, kind) in objects.iter().filter(|(name, _)| !found.contains_key(*name)) {
                if let Some(flight) = inner.flights.get(name) {
                    waiting.push((*name, flight.clone(), false));
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
            self.runtime.spawn(async move { cache.fly(mine, salt, size, deadline).await });
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
        let got = self.pool.get(&names, landing(deadline)).await;
        let cache = self.clone();
        // Writing the slots may wait for the disk.
        let landing = tokio::task::spawn_blocking(move || -> Result<HashMap<ObjectName, Landed>, Fault> {
            let got = got?;
            let land = |got: Got| {
                let kind = kinds.get(&got.object.name).copied();
                (got.object.name, cache.land(got, kind, salt, size))
            };
            Ok(got.into_iter().map(land).collect())
        });
        let failed = |error| Err(Fault::Io(format!("the task that stores fetched objects failed: {error}")));
        let mut landed = landing.await.unwrap_or_else(failed);
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

    /// Stores a fetched object, which must be of this kind and not longer than a chunk.
    fn land(&self, got: Got, kind: Option<Kind>, salt: Salt, size: ChunkSize) -> Landed {
        let object = got.object;
        if kind != Some(object.kind) || object.body.len() > size.as_usize() {
            let what = kind.map_or("wanted".to_owned(), |kind| format!("a {kind:?} of at most {size} bytes"));
            return Err(Fault::Corrupt(format!("object {} is not {what}", object.name)));
        }
        let body = self.insert(object.name, object.kind, salt, size, &object.body);
        Ok(Fetched { body, network_bytes: got.network_bytes })
    }
}
