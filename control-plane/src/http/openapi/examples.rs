//! An example for each body. The file beside this one has one of each type; a test checks that all of them fit.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};
use utoipa::openapi::{Content, RefOr};

static EXAMPLES: LazyLock<Map<String, Value>> =
    LazyLock::new(|| serde_json::from_str(include_str!("examples.json")).expect("the examples are JSON"));

/// Gives a body the example of its type.
pub(super) fn add(content: &mut RefOr<Content>) {
    if let RefOr::T(content) = content
        && let Some(RefOr::Ref(schema)) = &content.schema
    {
        content.example = schema.ref_location.rsplit('/').next().and_then(of);
    }
}

fn of(name: &str) -> Option<Value> {
    match name.strip_prefix("Page_") {
        Some(item) => of(item).map(|item| json!({ "items": [item], "as_of": "c8b0239c-00000000000c" })),
        None => EXAMPLES.get(name).cloned(),
    }
}
