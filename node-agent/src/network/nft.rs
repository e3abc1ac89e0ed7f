//! The little of nft's language that all rulesets here share. Pure.

use std::fmt::{Display, Write as _};

/// Writes a named set. One without elements has no `elements`, because nft takes no empty list.
pub(super) fn set(out: &mut String, name: &str, of: &str, elements: &[String]) {
    collection(out, "set", name, of, elements);
}

/// Writes a named map.
pub(super) fn map(out: &mut String, name: &str, of: &str, elements: &[String]) {
    collection(out, "map", name, of, elements);
}

fn collection(out: &mut String, kind: &str, name: &str, of: &str, elements: &[String]) {
    let _ = writeln!(out, "\t{kind} {name} {{");
    let _ = writeln!(out, "\t\ttype {of}");
    if !elements.is_empty() {
        let _ = writeln!(out, "\t\telements = {{ {} }}", elements.join(", "));
    }
    out.push_str("\t}\n");
}

/// Writes a chain. A base chain begins with its `type` line.
pub(super) fn chain(out: &mut String, name: &str, rules: &[impl Display]) {
    let _ = writeln!(out, "\tchain {name} {{");
    for rule in rules {
        let _ = writeln!(out, "\t\t{rule}");
    }
    out.push_str("\t}\n");
}

/// Writes a table in place of the one with its name. nft does both in one step, and connections under way go on.
pub(super) fn table(out: &mut String, family: &str, name: &str, inside: &str) {
    let _ = write!(out, "table {family} {name}\ndelete table {family} {name}\ntable {family} {name} {{\n{inside}}}\n");
}
