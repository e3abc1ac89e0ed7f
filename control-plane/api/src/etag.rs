//! Etags of the things that lists and single answers show. Contents have another one, made of their hash.

/// The `etag` of a row's revision: the number in double quotes, as `If-Match` repeats it.
#[must_use]
pub fn of_revision(revision: i64) -> String {
    format!("\"{revision}\"")
}
