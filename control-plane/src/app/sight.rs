//! What a caller may learn from texts and events of things that they may see (I12). Tenants learn neither the names nor the
//! number of nodes. Fields that name nodes are left out by the views; this file is about sentences, which agents and
//! programs below them write, and about who did something.

use std::collections::HashSet;

use muster_api::{condition::Condition, event::Event, operation::Operation};
use serde_json::Value;

use super::StoreError;
use crate::store::{Tx, nodes};

/// Kind of the pool as a target of operations and events. What comes back of it tells of all projects, so only operators see
/// them.
pub(crate) const POOL: &str = "pool";
/// Who is said to have done what a node did.
const SYSTEM: &str = "system";
/// What is said in place of a node's name, id or address.
const A_NODE: &str = "a node";

/// How much one caller sees.
#[derive(Clone, Debug)]
pub(crate) enum Sight {
    /// Operators see everything.
    All,
    /// Tenants see sentences without these words, which name nodes.
    Without(HashSet<String>),
}

impl Sight {
    /// What an operator or a tenant sees.
    pub(crate) async fn of(tx: &mut Tx, operator: bool) -> Result<Self, StoreError> {
        if operator { Ok(Self::All) } else { Ok(Self::Without(nodes::words(tx).await?)) }
    }

    /// The sentence as the caller sees it.
    pub(crate) fn text(&self, text: String) -> String {
        match self {
            Self::All => text,
            Self::Without(words) => without(&text, words),
        }
    }

    /// The conditions as the caller sees them.
    pub(crate) fn conditions(&self, mut conditions: Vec<Condition>) -> Vec<Condition> {
        conditions.iter_mut().for_each(|one| one.detail = self.text(std::mem::take(&mut one.detail)));
        conditions
    }

    /// The operation as the caller sees it. The nodes it waits for are shown to operators only; entries that differ in
    /// nothing else are one then.
    pub(crate) fn operation(&self, mut operation: Operation) -> Operation {
        if matches!(self, Self::All) {
            return operation;
        }
        for waiting in &mut operation.waiting_on {
            (waiting.node, waiting.node_name) = (None, None);
            waiting.what = self.text(std::mem::take(&mut waiting.what));
        }
        operation.waiting_on.dedup_by(|next, before| next.what == before.what);
        if let Some(error) = &mut operation.error {
            error.detail = self.text(std::mem::take(&mut error.detail));
            error.more.values_mut().for_each(|value| self.value(value));
        }
        operation.result.iter_mut().for_each(|result| self.value(result));
        operation
    }

    /// The event as the caller sees it.
    pub(crate) fn event(&self, mut event: Event) -> Event {
        if let Self::Without(_) = self {
            if event.actor.starts_with("node:") {
                event.actor = SYSTEM.to_owned();
            }
            self.value(&mut event.data);
        }
        event
    }

    /// Every sentence in a value. Ids and names of things are single words and stay.
    fn value(&self, value: &mut Value) {
        match value {
            Value::String(text) if text.contains(' ') => *text = self.text(std::mem::take(text)),
            Value::Array(all) => all.iter_mut().for_each(|value| self.value(value)),
            Value::Object(fields) => fields.values_mut().for_each(|value| self.value(value)),
            _ => {}
        }
    }
}

/// The text with [`A_NODE`] in place of each of the words.
fn without(text: &str, words: &HashSet<String>) -> String {
    // Letters of names, ids and addresses. A point or a colon at the end belongs to the sentence.
    let is_part = |c: char| c.is_alphanumeric() || "._-:[]".contains(c);
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(begins) = rest.find(is_part) {
        let (before, from) = rest.split_at(begins);
        let (word, after) = from.split_at(from.find(|c| !is_part(c)).unwrap_or(from.len()));
        let bare = word.trim_end_matches(['.', ':', '-', ']']);
        let named = [bare, host(bare), bare.trim_end_matches(".node.muster")].iter().any(|name| words.contains(*name));
        out.push_str(before);
        if named {
            out.push_str(A_NODE);
            out.push_str(&word[bare.len()..]);
        } else {
            out.push_str(word);
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// An address without its port.
fn host(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_names_no_node_by_name_id_or_address() {
        let words = ["n1", "rack-7.n2", "0195-aa", "10.0.0.7", "10.0.0.7:7500"].map(str::to_owned).into();
        let sight = Sight::Without(words);
        for (text, shown) in [
            ("n1: it answered 507", "a node: it answered 507"),
            ("asked rack-7.n2, n1.", "asked a node, a node."),
            ("node 0195-aa: no answer from 10.0.0.7:7500", "node a node: no answer from a node"),
            ("10.0.0.7:99 (0195-aa.node.muster)", "a node (a node)"),
            ("web-n1.0 and n10 are others", "web-n1.0 and n10 are others"),
            ("", ""),
        ] {
            assert_eq!(sight.text(text.to_owned()), shown);
        }
        assert_eq!(Sight::All.text("n1 is full".to_owned()), "n1 is full");
    }
}
