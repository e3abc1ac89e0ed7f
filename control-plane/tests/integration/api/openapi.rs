//! The contract in one file, so that a change shows in the diff. `MUSTER_UPDATE_GOLDEN=1` writes the file again.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::contract::{DOCUMENT, misfits, resolve};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/openapi.json");

#[test]
fn the_document_is_the_golden_one() {
    let document = muster_controller::http::document();
    let now = serde_json::to_string_pretty(&document).expect("JSON") + "\n";
    if std::env::var_os("MUSTER_UPDATE_GOLDEN").is_some() {
        std::fs::write(GOLDEN, &now).expect("written");
    }
    let golden = std::fs::read_to_string(GOLDEN).unwrap_or_default();
    let differs = now.lines().zip(golden.lines()).enumerate().find(|(_, (now, golden))| now != golden);
    let at = differs.map(|(line, (now, golden))| format!("line {}: {now} (golden: {golden})", line + 1));
    assert!(now == golden, "the contract changed; if that is wanted, run with MUSTER_UPDATE_GOLDEN=1\n{at:?}");
}

#[test]
fn every_reference_leads_somewhere() {
    let document = &*DOCUMENT;
    let mut wanted = BTreeSet::new();
    collect(document, &mut wanted);
    assert!(wanted.len() > 20, "{wanted:?}");
    for reference in wanted {
        let pointer = reference.trim_start_matches('#');
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
}

#[test]
fn every_call_that_is_built_says_what_it_does_and_answers() {
    for (path, item) in DOCUMENT["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("calls") {
            let reserved = operation["tags"] == json!(["reserved"]);
            let responses = operation["responses"].as_object().expect("responses");
            assert_eq!(
                responses.keys().any(|status| status.starts_with('2') || status == "101"),
                !reserved,
                "{method} {path}"
            );
            for says in ["summary", "description", "operationId"] {
                assert!(operation[says].as_str().is_some_and(|text| !text.is_empty()), "{method} {path} has no {says}");
            }
            let described = responses.values().map(resolve).all(|response| response["description"] != "");
            assert!(described, "{method} {path} has a response without description");
        }
    }
}

#[test]
fn every_body_in_json_has_an_example_that_fits() {
    let mut seen = 0;
    let contents = |part: &'static Value| {
        let content = resolve(part)["content"].as_object();
        content.into_iter().flatten().filter(|(media, _)| media.ends_with("json"))
    };
    for (path, item) in DOCUMENT["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("calls") {
            let answers = operation["responses"].as_object().expect("responses").values();
            for (media, content) in answers.chain(operation.get("requestBody")).flat_map(contents) {
                let example = content.get("example");
                let Some(example) = example else {
                    assert_eq!(path, "/openapi.json", "{method} {path}: {media} has no example");
                    continue;
                };
                let wrong = misfits(&content["schema"], example);
                assert!(wrong.is_empty(), "{method} {path}: {}", wrong.join("\n"));
                seen += 1;
            }
        }
    }
    assert!(seen > 100, "{seen}");
}

/// The router takes its paths from the descriptions, except these.
#[test]
fn every_route_is_in_the_document_but_those_of_nodes_and_of_the_dashboard() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http");
    let mut bare = BTreeSet::new();
    for entry in std::fs::read_dir(folder).expect("the folder of the doors") {
        let path = entry.expect("an entry").path();
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        let file = path.file_name().expect("a name").display();
        let routes = text.split(".route(\"").skip(1).filter_map(|rest| rest.split('"').next());
        bare.extend(routes.filter(|route| !route.starts_with("/node/v1/")).map(|route| format!("{file} {route}")));
    }
    // `/` is of a test.
    let wanted = ["health.rs /healthz", "health.rs /metrics", "mod.rs /"];
    assert_eq!(bare.iter().map(String::as_str).collect::<Vec<_>>(), wanted);
}

#[test]
fn every_operation_has_an_id_of_its_own() {
    let paths = DOCUMENT["paths"].as_object().expect("paths");
    let ids: Vec<&str> = paths
        .values()
        .flat_map(|item| item.as_object().expect("operations").values())
        .filter_map(|operation| operation["operationId"].as_str())
        .collect();
    assert!(ids.len() > 40, "{ids:?}");
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{ids:?}");
}

fn collect(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get("$ref") {
                into.insert(reference.clone());
            }
            map.values().for_each(|v| collect(v, into));
        }
        Value::Array(items) => items.iter().for_each(|v| collect(v, into)),
        _ => {}
    }
}
