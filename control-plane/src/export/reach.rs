//! Finds the objects that only some versions reach: the bytes that deleting these versions would free, and the bytes
//! that publishing a version added.

use std::collections::HashMap;

use futures::StreamExt as _;
use muster_pool::PoolClient;
use storage_core::{Compression, Descriptor, Kind, ObjectName, Record, tree::Reach};
use tokio::time::Instant;

use super::{ReadError, pages::PageSource};
use crate::domain::versions::Content;

/// Number of objects fetched at a time to measure them.
const MEASURE: usize = 32;

/// Most pages read for one answer: enough for 256 GiB of data at the default chunk size. They take some 100 MiB of
/// memory for about 2 s.
const PAGES_MAX: usize = 4096;

/// Stored bytes (one copy) of the objects that the versions `gone` reach and the versions `kept` do not.
///
/// `reached_bytes` are the stored bytes of all objects that `gone` reach, if known. If `kept` share none of them, that
/// is the answer. Otherwise the objects are fetched and measured, because no table has their sizes.
///
/// # Errors
/// [`ReadError`] if objects cannot be read by the deadline, or there are too many pages.
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

/// Stored bytes (one copy) of those `objects` of an import that no version in `kept` reaches.
///
/// # Errors
/// [`ReadError`] if pages cannot be read by the deadline, or there are too many.
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
    // The parts are owned: with borrowed ones, rustc does not see that the stream is `Send`.
    let parts: Vec<(PoolClient, Vec<ObjectName>)> =
        names.chunks(MEASURE).map(|names| (pool.clone(), names.to_vec())).collect();
    let mut sizes = futures::stream::iter(parts)
        .map(move |(pool, names)| async move {
            let got = pool.get(&names, deadline).await?;
            let sizes = tokio::task::spawn_blocking(move || {
                // The pool returns the plain bytes. Encoding them again gives the stored size, as all nodes of a
                // release compress alike.
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
    // The chunk size only affects the name, which is not used here.
    let chunk = (kind == Kind::Chunk).then_some(storage_core::ChunkSize::MAX);
    let record = Record::encode(kind, storage_core::Salt::SHARED, chunk, body, compression);
    record.stored().len() as u64
}
