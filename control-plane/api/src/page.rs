//! Pages: the shape of every answer that is a list.

use serde::{Deserialize, Serialize};

/// One page of a list, oldest first. Page tokens and `as_of` are opaque. `GET /v1/events?after=AS_OF` gives everything
/// that happened after the page was read.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Page<T> {
    /// At most `limit` resources.
    pub items: Vec<T>,
    /// Give it as `page_token` to get the next page; absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub next_page_token: Option<String>,
    /// Position in the stream of events at which the page was read.
    pub as_of: String,
}
