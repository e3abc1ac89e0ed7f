//! What only one version reaches: the bytes its deletion would give back, and the bytes its publish brought.

use std::collections::HashMap;

use futures::StreamExt as _;
use muster_pool::PoolClient;
use storage_core::{Compression, Descriptor, Kind, ObjectName, Record, tree::Reach};
use tokio::time::Instant;

use super::{ReadError, pages::PageSource};
use crate::domain::versions::Content;

/// Objects measured at a time.
const MEASURE: usize = 32;

/// Pages looked at for one answer: 256 GiB of data at the default chunk size, some 100 MiB of memory for 2 s.
const PAGES_MAX: usize = 4096;

/// Stored bytes of one copy of the objects that these versions reach and `kept` do not.
///
/// `reached_bytes` is what all of `gone` takes together, where that is known: then nothing has to be measured as long
/// as they share nothing. Otherwise each object is fetched, because no table says how large it is.
///
/// # Errors
/// Objects that cannot be had by the deadline: then it is not known.
pub async fn exclusive_bytes(
    pool: &PoolClient,
    gone: &[Content],
    reached_bytes: Option<u64>,
    kept: &[Descriptor],
    deadline: Instant,
) -> Result<u64, ReadError> {
    let mut pages = PageSource::bounded(pool.clone(), PAGES_MAX);
    for content in gone {
        pages.add_root(content)?;
    }
    let gone: Vec<Descriptor> = gone.iter().map(|content| *content.descriptor()).collect();
    let going = reach(&mut pages, &gone, deadline).await?;
    let staying = reach(&mut pages, kept, deadline).await?;
    let all = going.names().len();
    let exclusive: Vec<ObjectName> = going.names().iter().filter(|name| !staying.contains(name)).copied().collect();
    match reached_bytes {
        _ if exclusive.is_empty() => Ok(0),
        Some(bytes) if exclusive.len() == all => Ok(bytes),
        _ => measure(pool, &exclusive, deadline).await,
    }
}

/// Stored bytes of the objects of one import that nothing in `kept` reaches.
///
/// # Errors
/// Pages that cannot be had by the deadline: then it is not known.
pub async fn new_bytes(
    pool: &PoolClient,
    objects: &HashMap<ObjectName, u32>,
    kept: &[Descriptor],
    deadline: Instant,
) -> Result<u64, ReadError> {
    let mut pages = PageSource::bounded(pool.clone(), PAGES_MAX);
    let staying = reach(&mut pages, kept, deadline).await?;
    Ok(objects.iter().filter(|(name, _)| !staying.contains(name)).map(|(_, bytes)| u64::from(*bytes)).sum())
}

async fn reach(pages: &mut PageSource, roots: &[Descriptor], deadline: Instant) -> Result<Reach, ReadError> {
    let mut reach = Reach::new();
    for root in roots {
        pages.with(deadline, |pages| reach.add(root, pages)).await?;
    }
    Ok(reach)
}

async fn measure(pool: &PoolClient, names: &[ObjectName], deadline: Instant) -> Result<u64, ReadError> {
    // Owned parts: what borrows through the stream's closure cannot move between threads as far as rustc can tell.
    let parts: Vec<(PoolClient, Vec<ObjectName>)> =
        names.chunks(MEASURE).map(|names| (pool.clone(), names.to_vec())).collect();
    let mut sizes = futures::stream::iter(parts)
        .map(move |(pool, names)| async move {
            let got = pool.get(&names, deadline).await?;
            let sizes = tokio::task::spawn_blocking(move || {
                // The name is of the bytes, the stored form is the copy's own; all nodes of this release make the same.
                got.iter().map(|got| stored_bytes(got.object.kind, &got.object.body)).sum::<u64>()
            });
            Ok::<u64, ReadError>(sizes.await?)
        })
        .buffer_unordered(2);
    let mut total = 0;
    while let Some(bytes) = sizes.next().await {
        total += bytes?;
    }
    Ok(total)
}

fn stored_bytes(kind: Kind, body: &[u8]) -> u64 {
    let compression = match kind {
        Kind::Chunk | Kind::Pack => Compression::Auto,
        Kind::Page | Kind::Descriptor => return body.len() as u64,
    };
    // The chunk's padded size only goes into its name, which is not looked at here.
    let chunk = (kind == Kind::Chunk).then_some(storage_core::ChunkSize::MAX);
    let record = Record::encode(kind, storage_core::Salt::SHARED, chunk, body, compression);
    record.stored().len() as u64
}
