//! The contract in one file, so that a change shows in the diff. `MUSTER_UPDATE_GOLDEN=1` writes the file again.

use std::collections::BTreeSet;

use serde_json::Value;

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
    let document = serde_json::to_value(muster_controller::http::document()).expect("JSON");
    let mut wanted = BTreeSet::new();
    collect(&document, &mut wanted);
    assert!(wanted.len() > 20, "{wanted:?}");
    for reference in wanted {
        let pointer = reference.trim_start_matches('#');
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
}

#[test]
fn every_operation_has_an_id_of_its_own() {
    let document = serde_json::to_value(muster_controller::http::document()).expect("JSON");
    let paths = document["paths"].as_object().expect("paths");
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
