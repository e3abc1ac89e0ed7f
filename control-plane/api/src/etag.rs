//! Etags of resources. The content of a version has another etag, which is made from its hash.

/// The `etag` of a resource at this revision: the number in double quotes. Clients send it back in `If-Match`.
#[must_use]
pub fn of_revision(revision: i64) -> String {
    format!("\"{revision}\"")
}
