//! The calls in a document.

use http::Method;
use utoipa::openapi::{PathItem, path::Operation};

/// Tag of calls that are not built yet.
pub(crate) const RESERVED: &str = "reserved";

/// The calls of a path.
pub(super) fn calls(item: &PathItem) -> impl Iterator<Item = (Method, &Operation)> {
    [
        (Method::GET, &item.get),
        (Method::PUT, &item.put),
        (Method::POST, &item.post),
        (Method::PATCH, &item.patch),
        (Method::DELETE, &item.delete),
        (Method::HEAD, &item.head),
    ]
    .into_iter()
    .filter_map(|(method, operation)| Some((method, operation.as_ref()?)))
}

/// The same, to change them.
pub(super) fn calls_mut(item: &mut PathItem) -> impl Iterator<Item = (Method, &mut Operation)> {
    [
        (Method::GET, &mut item.get),
        (Method::PUT, &mut item.put),
        (Method::POST, &mut item.post),
        (Method::PATCH, &mut item.patch),
        (Method::DELETE, &mut item.delete),
        (Method::HEAD, &mut item.head),
    ]
    .into_iter()
    .filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

/// The tag of a call. Each has one.
pub(super) fn tag(operation: &Operation) -> &str {
    operation.tags.iter().flatten().next().expect("every call has a tag")
}
