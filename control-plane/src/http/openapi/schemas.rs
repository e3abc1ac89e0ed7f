//! What the derived schemas do not say by themselves.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use muster_api::ErrorCode;
use serde::Serialize;
use serde_json::Value;
use utoipa::openapi::{
    Components, OpenApi, PathItem, Ref, RefOr, Schema, Type,
    path::Operation,
    schema::{ArrayBuilder, ArrayItems, SchemaType},
};

use super::calls::calls;

/// Corrects the schemas of the types.
pub(super) fn tidy(document: &mut OpenApi) {
    let operations: Vec<&Operation> = document.paths.paths.values().flat_map(operations).collect();
    let components = document.components.get_or_insert_default();
    let asked = reached(operations.iter().map(|operation| &operation.request_body), components);
    let answered = reached(operations.iter().map(|operation| &operation.responses), components);
    for (name, schema) in &mut components.schemas {
        let RefOr::T(Schema::Object(object)) = schema else { continue };
        if name == "ErrorCode" {
            let meanings = ErrorCode::ALL.iter().fold(String::new(), |mut text, (code, meaning)| {
                let _ = write!(text, "\n- `{code}` ({}): {}", code.status(), meaning.trim());
                text
            });
            object.description.get_or_insert_default().push_str(&format!("\n{meanings}"));
        }
        if name == "Problem" {
            let loss = ArrayBuilder::new().items(Ref::from_schema_name("Loss"));
            let loss = loss.description(Some("With `data_loss`: what would be given up."));
            object.properties.insert("loss".to_owned(), loss.into());
        }
        for schema in object.properties.values_mut() {
            lift_description(schema);
        }
        // A page of images has images, and not objects that look like them.
        if let Some(item) = name.strip_prefix("Page_")
            && let Some(RefOr::T(Schema::Array(items))) = object.properties.get_mut("items")
        {
            items.items = ArrayItems::RefOrSchema(Box::new(RefOr::Ref(Ref::from_schema_name(item))));
        }
        // Answers have every field that can be null. Those that may be missing are never null.
        if answered.contains(name) && !asked.contains(name) {
            let nullable = object.properties.iter().filter(|(_, schema)| can_be_null(schema));
            let sent: BTreeSet<String> = nullable.map(|(field, _)| field.clone()).collect();
            object.required.retain(|field| !sent.contains(field));
            object.required.extend(sent);
        }
    }
}

/// The tags whose things have an etag: `deployments`, because the type `Deployment` has that field.
pub(super) fn with_etag(document: &OpenApi) -> BTreeSet<String> {
    let schemas = document.components.iter().flat_map(|components| &components.schemas);
    let things = schemas.filter(|(_, schema)| match schema {
        RefOr::T(Schema::Object(object)) => object.properties.contains_key("etag"),
        _ => false,
    });
    things.map(|(name, _)| format!("{}s", kebab(name))).collect()
}

/// `SecurityGroup` as it is written in paths: `security-group`.
fn kebab(name: &str) -> String {
    let words = name.chars().enumerate().flat_map(|(n, c)| {
        let dash = (n > 0 && c.is_ascii_uppercase()).then_some('-');
        dash.into_iter().chain([c.to_ascii_lowercase()])
    });
    words.collect()
}

/// The type of the states of each kind of thing: `InstanceState` of `Instance`.
pub(super) fn states(document: &OpenApi) -> BTreeMap<String, Ref> {
    let schemas = document.components.iter().flat_map(|components| &components.schemas);
    let states = schemas.filter_map(|(name, schema)| match schema {
        RefOr::T(Schema::Object(object)) => match object.properties.get("state") {
            Some(RefOr::Ref(state)) => Some((name.clone(), Ref::new(&state.ref_location))),
            _ => None,
        },
        _ => None,
    });
    states.collect()
}

fn operations(item: &PathItem) -> impl Iterator<Item = &Operation> {
    calls(item).map(|(_, operation)| operation)
}

/// What a field means is said beside its alternatives, and not in the one that is not null.
fn lift_description(schema: &mut RefOr<Schema>) {
    if let RefOr::T(Schema::OneOf(one)) = schema
        && let Some(RefOr::Ref(value)) = one.items.iter_mut().find(|item| !can_be_null(item))
        && !value.description.is_empty()
    {
        one.description = Some(std::mem::take(&mut value.description));
    }
}

/// Whether the value may be null.
pub(super) fn can_be_null(schema: &RefOr<Schema>) -> bool {
    let has_null = |schema_type: &SchemaType| match schema_type {
        SchemaType::Type(only) => *only == Type::Null,
        SchemaType::Array(types) => types.contains(&Type::Null),
        SchemaType::AnyValue => false,
    };
    match schema {
        RefOr::T(Schema::Object(object)) => has_null(&object.schema_type),
        RefOr::T(Schema::Array(array)) => has_null(&array.schema_type),
        RefOr::T(Schema::OneOf(one)) => one.items.iter().any(can_be_null),
        _ => false,
    }
}

/// The names of all schemas that these parts of the document lead to.
fn reached<P: Serialize>(parts: impl Iterator<Item = P>, components: &Components) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut left: Vec<String> = parts.flat_map(|part| named_by(&part)).collect();
    while let Some(name) = left.pop() {
        if let Some(schema) = components.schemas.get(&name)
            && found.insert(name)
        {
            left.extend(named_by(schema));
        }
    }
    found
}

/// The names of the schemas that a part of the document refers to.
fn named_by(part: &impl Serialize) -> Vec<String> {
    fn collect(value: &Value, into: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                let reference = map.get("$ref").and_then(Value::as_str);
                into.extend(reference.and_then(|text| text.strip_prefix("#/components/schemas/")).map(str::to_owned));
                map.values().for_each(|value| collect(value, into));
            }
            Value::Array(items) => items.iter().for_each(|item| collect(item, into)),
            _ => {}
        }
    }
    let mut names = Vec::new();
    collect(&serde_json::to_value(part).expect("the document is JSON"), &mut names);
    names
}
