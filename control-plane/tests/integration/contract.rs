//! Holds answers against the contract. Both test worlds give every answer of the people's door to [`check`], so each test
//! of the API is also a test of `/openapi.json`: status, media type, headers and body must be as the document says.

use std::sync::LazyLock;

use axum::http::{HeaderMap, Method, header};
use muster_api::Timestamp;
use serde_json::Value;

/// The contract.
pub(crate) static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| serde_json::to_value(muster_controller::http::document()).expect("the document is JSON"));

/// Paths of the people's door that are not in the contract: the nodes' own protocol, and the dashboard.
const OTHERS: [&str; 3] = ["/node/v1/", "/ui/", "/"];

/// Headers that mean something to a client. An answer that has one must be described with it.
const HEADERS: [&str; 9] = [
    "accept-ranges",
    "content-range",
    "etag",
    "idempotent-replay",
    "location",
    "retry-after",
    "set-cookie",
    "www-authenticate",
    "x-request-id",
];

/// Panics if the contract does not have this answer.
#[track_caller]
pub(crate) fn check(method: &Method, path: &str, status: u16, headers: &HeaderMap, body: &[u8]) {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let Some((template, item)) = item_of(path) else {
        let known = OTHERS.iter().any(|other| path == *other || other.len() > 1 && path.starts_with(other));
        assert!(known || status == 404, "{method} {path}: {status}, but the contract has no such path");
        return;
    };
    let of_method =
        if method == Method::HEAD && item.get("head").is_none() { "get" } else { &method.as_str().to_lowercase() };
    let Some(operation) = item.get(of_method) else {
        assert_eq!(status, 405, "{method} {template}: the contract has no such method");
        return;
    };
    let Some(response) = operation["responses"].get(status.to_string()).map(resolve) else {
        let body = String::from_utf8_lossy(body);
        panic!("{method} {template} answers {status}, which is not among its responses in the contract: {body}");
    };
    let described = |name: &str| {
        response["headers"].as_object().is_some_and(|all| all.keys().any(|key| key.eq_ignore_ascii_case(name)))
    };
    for name in HEADERS.into_iter().filter(|name| headers.contains_key(*name)) {
        assert!(
            described(name),
            "{method} {template} {status}: the contract does not say that it has the header {name}"
        );
    }
    assert!(headers.contains_key("x-request-id"), "{method} {template} {status}: no X-Request-Id");
    if method == Method::HEAD {
        return;
    }
    let media = text(header::CONTENT_TYPE.as_str()).split(';').next().unwrap_or_default();
    let Some(contents) = response["content"].as_object() else {
        assert!(body.is_empty(), "{method} {template} {status}: the contract has no body here");
        return;
    };
    let content = contents.get(media);
    let content = content
        .unwrap_or_else(|| panic!("{method} {template} {status}: '{media}', but the contract has {contents:#?}"));
    if media.ends_with("json") {
        let value: Value = serde_json::from_slice(body).unwrap_or_else(|e| panic!("{method} {template} {status}: {e}"));
        let wrong = misfits(&content["schema"], &value);
        assert!(
            wrong.is_empty(),
            "{method} {template} {status} does not fit the contract:\n{}\n{value:#}",
            wrong.join("\n")
        );
    }
}

/// The path of the contract that a request path belongs to, and what is there. A path without parameters goes first.
fn item_of(path: &str) -> Option<(&'static str, &'static Value)> {
    let fits = |template: &str| {
        let (mut wanted, mut given) = (template.split('/'), path.split('/'));
        let parts = wanted.by_ref().zip(given.by_ref());
        let same =
            parts.into_iter().all(|(wanted, given)| wanted == given || wanted.starts_with('{') && !given.is_empty());
        same && template.matches('/').count() == path.matches('/').count()
    };
    let paths = DOCUMENT["paths"].as_object().expect("the document has paths");
    let found = paths.iter().filter(|(template, _)| fits(template));
    found.min_by_key(|(template, _)| template.matches('{').count()).map(|(template, item)| (template.as_str(), item))
}

/// What a reference leads to; anything else as it is.
pub(crate) fn resolve(part: &'static Value) -> &'static Value {
    match part["$ref"].as_str() {
        None => part,
        Some(reference) => {
            let target = DOCUMENT.pointer(reference.trim_start_matches('#'));
            resolve(target.unwrap_or_else(|| panic!("{reference} leads nowhere")))
        }
    }
}

/// Where a value does not fit a schema of the contract. It knows the keywords that the contract uses, and panics at any
/// other. A field that the schema does not name does not fit: the API may not send what it does not describe.
pub(crate) fn misfits(schema: &'static Value, value: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    fit(schema, value, "", &mut wrong);
    wrong
}

fn fit(schema: &'static Value, value: &Value, at: &str, wrong: &mut Vec<String>) {
    let schema = resolve(schema).as_object().expect("a schema is an object");
    let mut tell = |what: String| wrong.push(format!("{at}: {what}, got {value}"));
    let mut inner = Vec::new();
    for (keyword, says) in schema {
        match keyword.as_str() {
            // The pattern of names only says what the length and the type of the request say as well.
            "description" | "title" | "examples" | "default" | "propertyNames" | "pattern" => {}
            "minLength" if chars(value).is_some_and(|count| Some(count) < says.as_u64()) => {
                tell(format!("at least {says} characters"))
            }
            "maxLength" if chars(value).is_some_and(|count| Some(count) > says.as_u64()) => {
                tell(format!("at most {says} characters"))
            }
            "minLength" | "maxLength" => {}
            "maxItems" if value.as_array().is_some_and(|items| Some(items.len() as u64) > says.as_u64()) => {
                tell(format!("at most {says} items"))
            }
            "minItems" if value.as_array().is_some_and(|items| Some(items.len() as u64) < says.as_u64()) => {
                tell(format!("at least {says} items"))
            }
            "maxItems" | "minItems" => {}
            "type" => {
                let types = says.as_array().map_or_else(|| vec![says], |all| all.iter().collect());
                if !types.iter().any(|name| is_a(name.as_str().expect("a type has a name"), value)) {
                    tell(format!("expected {says}"));
                }
            }
            "enum" if !says.as_array().is_some_and(|words| words.contains(value)) => {
                tell(format!("expected one of {says}"))
            }
            "enum" => {}
            "format" if !value.is_null() && !has_format(says.as_str().unwrap_or_default(), value) => {
                tell(format!("expected a {says}"))
            }
            "format" => {}
            "minimum" if value.as_f64().is_some_and(|number| number < says.as_f64().expect("a number")) => {
                tell(format!("at least {says}"))
            }
            "maximum" if value.as_f64().is_some_and(|number| number > says.as_f64().expect("a number")) => {
                tell(format!("at most {says}"))
            }
            "minimum" | "maximum" => {}
            "required" => {
                let missing = says
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .filter(|name| value.get(name).is_none());
                missing.for_each(|name| tell(format!("'{name}' is missing")));
            }
            "properties" => {
                for (name, schema) in says.as_object().expect("an object") {
                    if let Some(value) = value.get(name) {
                        fit(schema, value, &format!("{at}/{name}"), &mut inner);
                    }
                }
            }
            "additionalProperties" => {}
            "items" => {
                for (n, item) in value.as_array().into_iter().flatten().enumerate() {
                    fit(says, item, &format!("{at}/{n}"), &mut inner);
                }
            }
            "oneOf" => {
                let tries = says.as_array().expect("a list").iter().map(|schema| misfits(schema, value));
                let tries: Vec<_> = tries.collect();
                if tries.iter().filter(|wrong| wrong.is_empty()).count() != 1 {
                    tell(format!("expected exactly one of the alternatives: {tries:?}"));
                }
            }
            other => panic!("{at}: this checker does not know the keyword '{other}' yet"),
        }
    }
    let named = schema.get("properties").and_then(Value::as_object);
    for (name, value) in value.as_object().into_iter().flatten() {
        if named.is_some_and(|named| named.contains_key(name)) {
            continue;
        }
        match schema.get("additionalProperties") {
            Some(Value::Bool(true)) => {}
            Some(says @ Value::Object(_)) => fit(says, value, &format!("{at}/{name}"), &mut inner),
            _ if named.is_some() => tell(format!("'{name}' is not in the contract")),
            _ => {}
        }
    }
    wrong.extend(inner);
}

fn chars(value: &Value) -> Option<u64> {
    value.as_str().and_then(|text| text.chars().count().try_into().ok())
}

fn is_a(name: &str, value: &Value) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("there is no type '{other}'"),
    }
}

fn has_format(name: &str, value: &Value) -> bool {
    let text = value.as_str();
    match name {
        "uuid" => text.is_some_and(|text| uuid::Uuid::try_parse(text).is_ok()),
        "date-time" => serde_json::from_value::<Timestamp>(value.clone()).is_ok(),
        "int32" => value.as_i64().is_some_and(|number| i32::try_from(number).is_ok()),
        "int64" | "double" => value.is_number(),
        "binary" => text.is_some(),
        other => panic!("there is no format '{other}'"),
    }
}
