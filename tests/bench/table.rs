//! The table of results, printed as Markdown.

use std::fmt;

/// The rows as they are printed: five cells each.
pub(crate) struct Table(Vec<[String; 5]>);

impl Table {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds a row: what, ours, the reference, their ratio, the target.
    pub(crate) fn row(&mut self, what: &str, ours: String, reference: String, ratio: Option<f64>, target: &str) {
        let ratio = ratio.map_or_else(|| "-".to_owned(), |r| format!("{r:.2}"));
        eprintln!("  {what}: {ours} | {reference} | {ratio} | {target}");
        self.0.push([what.to_owned(), ours, reference, ratio, target.to_owned()]);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| what | Muster | reference | ratio | target |\n|---|---|---|---|---|")?;
        for row in &self.0 {
            writeln!(f, "| {} |", row.join(" | "))?;
        }
        Ok(())
    }
}
