//! Lists: every list answer has this one shape.

use serde::{Deserialize, Serialize};

/// One page of a list, oldest first. Page tokens and `as_of` are opaque; `GET /v1/events?after=as_of` misses nothing
/// that happened after the page was read.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Page<T> {
    /// At most `limit` things.
    pub items: Vec<T>,
    /// Give it as `page_token` for the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_page_token: Option<String>,
    /// The event position this page is true at.
    pub as_of: String,
}
