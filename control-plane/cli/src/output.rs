//! Standard output: tables for people, the API's objects for programs. Standard error: notes, questions, failures.

use std::{
    io::{self, IsTerminal, Write},
    time::{SystemTime, UNIX_EPOCH},
};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{args::Format, failure::Failure, units};

/// Writes bytes as they are.
pub(crate) fn bytes(content: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(content).and_then(|()| out.flush()).map_err(stdout_failed)
}

fn stdout_failed(e: io::Error) -> Failure {
    Failure::Io("standard output".to_owned(), e)
}

/// Lines on standard error about what goes on; none with `--quiet`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Notes {
    pub(crate) quiet: bool,
}

impl Notes {
    pub(crate) fn say(self, text: &str) {
        if !self.quiet {
            // Nobody is left to tell when standard error is closed.
            let _ = writeln!(io::stderr().lock(), "{}", printable(text, true));
        }
    }
}

/// Where answers go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Out {
    pub(crate) format: Format,
    color: bool,
    pub(crate) notes: Notes,
}

/// One column of a table: how a thing's cell is read from the API's object.
#[derive(Clone, Copy)]
pub(crate) struct Column {
    pub(crate) title: &'static str,
    pub(crate) align: CellAlignment,
    pub(crate) cell: fn(&Value) -> String,
}

/// A column of words.
pub(crate) const fn words(title: &'static str, cell: fn(&Value) -> String) -> Column {
    Column { title, align: CellAlignment::Left, cell }
}

/// A column of numbers.
pub(crate) const fn numbers(title: &'static str, cell: fn(&Value) -> String) -> Column {
    Column { title, align: CellAlignment::Right, cell }
}

impl Out {
    pub(crate) fn new(format: Format, quiet: bool) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty())
            || std::env::var_os("TERM").is_some_and(|t| t == "dumb");
        let color = io::stdout().is_terminal() && !plain;
        Self { format, color, notes: Notes { quiet } }
    }

    pub(crate) fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// One object of the API (JSON), or what people want to see of it.
    pub(crate) fn thing(self, object: &Value, table: impl FnOnce() -> String) -> Result<(), Failure> {
        match self.format {
            Format::Json => self.line(&serde_json::to_string_pretty(object).unwrap_or_default()),
            Format::Table => self.line(table().trim_end()),
        }
    }

    /// A sentence for people; nothing for programs.
    pub(crate) fn sentence(self, text: &str) -> Result<(), Failure> {
        match self.format {
            Format::Json => Ok(()),
            Format::Table => self.line(text),
        }
    }

    pub(crate) fn line(self, text: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        writeln!(out, "{text}").and_then(|()| out.flush()).map_err(stdout_failed)
    }

    /// Says on standard error why the command failed.
    pub(crate) fn failure(self, failure: &Failure) {
        if failure.is_silent() {
            return;
        }
        if self.is_json() {
            // The thing itself, where programs look for results; the words go to standard error.
            if let Failure::StillGoing { operation, .. } | Failure::Unsuccessful(operation) = failure {
                let _ = self.line(&serde_json::to_string_pretty(operation).unwrap_or_default());
            }
            if let Failure::Refused(problem) = failure {
                let text = serde_json::to_string_pretty(problem).unwrap_or_default();
                let _ = writeln!(io::stderr().lock(), "{text}");
                return;
            }
        }
        let _ = writeln!(io::stderr().lock(), "muster: {}", printable(&failure.to_string(), true));
    }

    /// A table in the quiet style: no lines, states coloured at a terminal.
    pub(crate) fn table(self, columns: &[Column], rows: &[Value]) -> String {
        let cells = rows.iter().map(|row| columns.iter().map(|c| (c.cell)(row)).collect()).collect();
        self.grid(columns, cells)
    }

    fn grid(self, columns: &[Column], rows: Vec<Vec<String>>) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(columns.iter().map(|c| c.title));
        for row in rows {
            table.add_row(row.iter().map(|cell| printable(cell, false)));
        }
        for (index, column) in columns.iter().enumerate() {
            if let Some(of_table) = table.column_mut(index) {
                of_table.set_padding((0, 2));
                of_table.set_cell_alignment(column.align);
            }
        }
        let state = columns.iter().position(|c| c.title == "STATE");
        let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
        let offset = state.and_then(|_| lines.first()?.find("STATE"));
        lines.iter().enumerate().map(|(n, line)| self.colored(n, line, offset) + "\n").collect()
    }

    /// The header is dim, a state that wants attention has a colour. Widths are counted before colours come in.
    fn colored(self, number: usize, line: &str, offset: Option<usize>) -> String {
        if !self.color {
            return line.to_owned();
        }
        if number == 0 {
            return format!("\x1b[2m{line}\x1b[0m");
        }
        let Some((before, rest)) = offset.and_then(|at| line.split_at_checked(at)) else { return line.to_owned() };
        let end = rest.find(' ').unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        match state_color(word) {
            Some(color) => format!("{before}\x1b[{color}m{word}\x1b[0m{after}"),
            None => line.to_owned(),
        }
    }

    /// `key  value` lines; empty values are left out.
    pub(crate) fn facts(self, facts: &[(&str, String)]) -> String {
        let shown: Vec<_> = facts.iter().filter(|(_, value)| !value.is_empty()).collect();
        let width = shown.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
        shown
            .iter()
            .map(|(key, value)| {
                let value = printable(value, false);
                match (self.color, *key == "state", state_color(&value)) {
                    (true, true, Some(color)) => format!("{key:width$}  \x1b[{color}m{value}\x1b[0m\n"),
                    (true, ..) => format!("\x1b[2m{key:width$}\x1b[0m  {value}\n"),
                    (false, ..) => format!("{key:width$}  {value}\n"),
                }
            })
            .collect()
    }
}

fn state_color(word: &str) -> Option<u8> {
    match word {
        "failed" | "silent" | "degraded" => Some(31),
        "unknown" | "paused" | "cancelled" | "cancelling" | "joining" => Some(33),
        _ => None,
    }
}

/// Text that came from elsewhere, without what could steer a terminal.
pub(crate) fn printable(text: &str, keep_lines: bool) -> String {
    text.chars().map(|c| if c.is_control() && !(keep_lines && c == '\n') { ' ' } else { c }).collect()
}

/// A list: one JSON array of all pages, printed as they come, or one table.
pub(crate) struct List<'a> {
    out: Out,
    columns: &'a [Column],
    rows: Vec<Vec<String>>,
    written: u64,
}

impl<'a> List<'a> {
    pub(crate) fn new(out: Out, columns: &'a [Column]) -> Self {
        Self { out, columns, rows: Vec::new(), written: 0 }
    }

    /// One more page.
    pub(crate) fn page(&mut self, items: Vec<Value>) -> Result<(), Failure> {
        for item in items {
            match self.out.format {
                Format::Table => self.rows.push(self.columns.iter().map(|c| (c.cell)(&item)).collect()),
                Format::Json => {
                    let before = if self.written == 0 { "[\n" } else { ",\n" };
                    let text = serde_json::to_string_pretty(&item).unwrap_or_default();
                    bytes(format!("{before}{text}").as_bytes())?;
                }
            }
            self.written += 1;
        }
        Ok(())
    }

    /// The end of the array, or the table.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        match self.out.format {
            Format::Json if self.written == 0 => self.out.line("[]"),
            Format::Json => self.out.line("\n]"),
            Format::Table => self.out.line(self.out.grid(self.columns, self.rows).trim_end()),
        }
    }
}

/// Asks at the terminal; anything but yes is no. None when nobody is there to ask.
pub(crate) async fn ask(question: &str) -> Option<bool> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return None;
    }
    let _ = write!(io::stderr().lock(), "{} [y/N] ", printable(question, true));
    let answer = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        io::stdin().read_line(&mut line).map(|_| line)
    });
    let answer = answer.await.ok()?.ok()?;
    Some(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// Text at a JSON pointer; empty when there is none.
pub(crate) fn text(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Bool(true)) => "yes".to_owned(),
        Some(Value::Bool(false)) => "no".to_owned(),
        _ => String::new(),
    }
}

/// A count at a JSON pointer; zero when there is none.
pub(crate) fn count(value: &Value, pointer: &str) -> u64 {
    value.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
}

/// A size at a JSON pointer.
pub(crate) fn size(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_u64).map(units::bytes).unwrap_or_default()
}

/// `12 ms` at a JSON pointer that may have a fraction.
pub(crate) fn millis(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer).and_then(Value::as_f64) {
        Some(ms) if ms < 100.0 => format!("{ms:.1} ms"),
        Some(ms) => format!("{:.2} s", ms / 1000.0),
        None => String::new(),
    }
}

/// How long ago the instant at a JSON pointer was.
pub(crate) fn age(value: &Value, pointer: &str) -> String {
    let parsed = value.pointer(pointer).and_then(Value::as_str).and_then(|t| OffsetDateTime::parse(t, &Rfc3339).ok());
    let Some(then) = parsed.map(OffsetDateTime::unix_timestamp) else { return String::new() };
    #[expect(clippy::disallowed_methods, reason = "the age of a thing as people see it; nothing is decided by it")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    match u64::try_from(then) {
        Ok(then) if then <= now => units::age(now - then),
        Ok(then) => format!("in {}", units::age(then - now)),
        Err(_) => String::new(),
    }
}

/// `k=v k=v` of an object of strings.
pub(crate) fn labels(value: &Value, pointer: &str) -> String {
    let Some(Value::Object(map)) = value.pointer(pointer) else { return String::new() };
    let pairs = map.iter().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()));
    pairs.collect::<Vec<_>>().join(" ")
}

/// `running 3, failed 1` of an object of counts.
pub(crate) fn counts(value: &Value, pointer: &str) -> String {
    let Some(Value::Object(map)) = value.pointer(pointer) else { return String::new() };
    let pairs = map.iter().filter_map(|(k, v)| v.as_u64().filter(|n| *n > 0).map(|n| format!("{k} {n}")));
    pairs.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn plain() -> Out {
        Out { format: Format::Table, color: false, notes: Notes { quiet: true } }
    }

    const COLUMNS: [Column; 3] = [
        words("NAME", |v| text(v, "/name")),
        words("STATE", |v| text(v, "/state")),
        numbers("SIZE", |v| size(v, "/b")),
    ];

    #[test]
    fn tables_have_no_lines_and_right_aligned_numbers() {
        let rows = [
            json!({"name": "a", "state": "ready", "b": 512}),
            json!({"name": "longer", "state": "failed", "b": 1 << 20}),
        ];
        let expected = "NAME    STATE    SIZE\na       ready   512 B\nlonger  failed  1 MiB\n";
        assert_eq!(plain().table(&COLUMNS, &rows), expected);
    }

    #[test]
    fn colors_do_not_move_columns() {
        let rows = [json!({"name": "a", "state": "failed", "b": 1})];
        let colored = Out { color: true, ..plain() }.table(&COLUMNS, &rows);
        assert!(colored.contains("\x1b[31mfailed\x1b[0m"), "{colored:?}");
        let stripped = colored.replace("\x1b[31m", "").replace("\x1b[2m", "").replace("\x1b[0m", "");
        assert_eq!(stripped, plain().table(&COLUMNS, &rows));
    }

    #[test]
    fn foreign_text_cannot_steer_the_terminal() {
        let rows = [json!({"name": "x\u{1b}[2J\ny", "state": "ready", "b": 1})];
        let shown = plain().table(&COLUMNS, &rows);
        assert!(!shown.contains('\u{1b}') && shown.lines().count() == 2, "{shown:?}");
    }

    #[test]
    fn facts_leave_out_what_is_not_there() {
        let facts = [("name", "web".to_owned()), ("reason", String::new()), ("state", "ready".to_owned())];
        assert_eq!(plain().facts(&facts), "name   web\nstate  ready\n");
    }
}
