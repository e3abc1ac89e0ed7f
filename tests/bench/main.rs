//! Measures the numbers of README. Every row is measured in turn with its reference in the same run; the table has the
//! medians.
//!
//! `tests/bench.sh [ROW …]` prints the table, or only the rows `import`, `deploy`, `mount`, `first`, `policy`, `memory`,
//! `commit`, `cut`, `beside`, `scattered`, `sweep`, `versions`, `links`, `members`, `repair`, `boots`, `api` that are named. `storage` names all rows about
//! what the pool keeps. No number is stored here.

mod api;
mod boots;
mod commit;
mod deploy;
mod import;
mod links;
mod mount;
mod policy;
mod repair;
mod scattered;
mod sweep;
mod table;
mod versions;

use table::Table;

type Row = (&'static str, fn(&mut Table));

const ROWS: [Row; 17] = [
    ("import", import::run),
    ("deploy", deploy::run),
    ("mount", mount::run),
    ("first", mount::first_reads),
    ("policy", policy::run),
    ("memory", deploy::memory),
    ("commit", commit::run),
    ("cut", commit::cut),
    ("beside", commit::beside),
    ("scattered", scattered::run),
    ("sweep", sweep::run),
    ("versions", versions::run),
    ("links", links::run),
    ("members", links::members),
    ("repair", repair::run),
    ("boots", boots::run),
    ("api", api::run),
];

/// A name of several rows.
const STORAGE: (&str, [&str; 7]) = ("storage", ["scattered", "sweep", "versions", "cut", "links", "members", "repair"]);

fn main() {
    let mut wanted: Vec<String> = std::env::args().skip(1).collect();
    if links::pushes(&wanted) {
        return;
    }
    if wanted.iter().any(|name| name == STORAGE.0) {
        wanted.retain(|name| name != STORAGE.0);
        wanted.extend(STORAGE.1.map(str::to_owned));
    }
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
