//! Measures the numbers of README. Every row is measured in turn with its reference in the same run; the table has the
//! medians.
//!
//! `tests/bench.sh [ROW …]` prints the table, or only the rows `import`, `deploy`, `mount`, `first`, `policy`, `memory`,
//! `commit`, `cut`, `beside`, `storage`, `sweep`, `api` that are named. `sweep` is a part of `storage`. No number is stored here.

mod api;
mod commit;
mod deploy;
mod import;
mod mount;
mod policy;
mod scattered;
mod sweep;
mod table;

use table::Table;

type Row = (&'static str, fn(&mut Table));

const ROWS: [Row; 13] = [
    ("import", import::run),
    ("deploy", deploy::run),
    ("mount", mount::run),
    ("first", mount::first_reads),
    ("policy", policy::run),
    ("memory", deploy::memory),
    ("commit", commit::run),
    ("cut", commit::cut),
    ("beside", commit::beside),
    ("storage", scattered::run),
    ("storage", sweep::run),
    ("sweep", sweep::run),
    ("api", api::run),
];

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    if let Some(unknown) = wanted.iter().find(|w| ROWS.iter().all(|(name, _)| name != w)) {
        let names: Vec<_> = ROWS.iter().map(|(name, _)| *name).collect();
        eprintln!("no row '{unknown}'; there are: {}", names.join(", "));
        std::process::exit(2);
    }
    let mut table = Table::new();
    for (name, run) in ROWS {
        // `sweep` is measured with `storage`, unless it is asked for alone.
        if (wanted.is_empty() && name != "sweep") || wanted.iter().any(|w| w == name) {
            eprintln!("measuring {name} …");
            run(&mut table);
        }
    }
    print!("{table}");
}

/// A runtime for one row.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime")
}

/// The middle one of the values when they are sorted.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
