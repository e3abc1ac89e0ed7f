//! Standard output: tables for people, the API's objects for programs. Standard error: notes, questions, failures.

use std::io::{self, IsTerminal, Write};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use textwrap::{Options, WordSplitter};

use crate::{
    answer,
    args::Format,
    cells::printable,
    failure::Failure,
    places::Words,
    table::{Column, Order, lay_out, pieces},
};

/// Writes bytes to standard output.
pub(crate) fn bytes(content: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(content).and_then(|()| out.flush()).map_err(stdout_failed)
}

pub(crate) fn stdout_failed(e: io::Error) -> Failure {
    Failure::Io("standard output".to_owned(), e)
}

/// Prints notes about the work on standard error, unless `--quiet` is given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Notes {
    pub(crate) quiet: bool,
}

impl Notes {
    pub(crate) fn say(self, text: &str) {
        if !self.quiet {
            // If standard error is closed, there is nobody to tell.
            let _ = writeln!(io::stderr().lock(), "{}", for_stderr(text));
        }
    }
}

/// Says something at a terminal in raw mode, where a line does not begin at the left by itself.
pub(crate) fn in_raw_terminal(text: &str) {
    // If standard error is closed, there is nobody to tell.
    let _ = write!(io::stderr().lock(), "\r\n{}\r\n", printable(text, false));
}

/// A text as it is printed on standard error.
fn for_stderr(text: &str) -> String {
    wrapped(&printable(text, true), width_of(&console::Term::stderr()), "  ")
}

/// Prints answers in the format that was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Out {
    pub(crate) format: Format,
    color: bool,
    /// Columns that tables and texts may have; none if nothing is shortened.
    width: Option<usize>,
    words: Words,
    pub(crate) notes: Notes,
}

fn cells<T>(columns: &[&Column<T>], row: &T) -> Vec<String> {
    columns.iter().map(|column| (column.cell)(row)).collect()
}

/// Columns of the terminal that `term` is, if it is one and says so.
fn width_of(term: &console::Term) -> Option<usize> {
    let (_, columns) = term.size_checked()?;
    Some(usize::from(columns)).filter(|columns| *columns > 0)
}

/// Breaks the lines of a text between words, so that none has more than `limit` columns. Later lines of a paragraph begin
/// with `indent`.
fn wrapped(text: &str, limit: Option<usize>, indent: &str) -> String {
    let Some(limit) = limit else { return text.to_owned() };
    let how = Options::new(limit).subsequent_indent(indent).break_words(false);
    let how = how.word_splitter(WordSplitter::NoHyphenation);
    text.lines().map(|line| textwrap::fill(line, &how)).collect::<Vec<_>>().join("\n")
}

/// JSON laid out for reading.
fn pretty(sent: &Value) -> String {
    serde_json::to_string_pretty(sent).expect("a JSON value can be written")
}

impl Out {
    pub(crate) fn new(format: Format, quiet: bool, words: Words) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty())
            || std::env::var_os("TERM").is_some_and(|t| t == "dumb");
        let color = io::stdout().is_terminal() && !plain;
        let width = width_of(&console::Term::stdout()).filter(|_| format == Format::Table);
        Self { format, color, width, words, notes: Notes { quiet } }
    }

    pub(crate) fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// Prints an object of the API: as it was sent for programs, as `text` describes it for people.
    pub(crate) fn object<T>(self, sent: &Value, text: impl FnOnce(&T) -> String) -> Result<(), Failure>
    where
        T: Serialize + DeserializeOwned,
    {
        match self.format {
            Format::Json => self.json(sent),
            Format::Table | Format::Wide => self.text(&text(&answer::read(sent)?)),
        }
    }

    /// Prints a text for people. Lines of several are tables or facts, which are laid out already.
    pub(crate) fn text(self, text: &str) -> Result<(), Failure> {
        let text = text.trim_end();
        if text.contains('\n') { self.line(text) } else { self.line(&wrapped(text, self.width, "  ")) }
    }

    /// Prints JSON laid out for reading.
    pub(crate) fn json(self, sent: &Value) -> Result<(), Failure> {
        self.line(&pretty(sent))
    }

    /// Cuts a line off where the terminal ends.
    pub(crate) fn cut(self, line: &str) -> String {
        self.width.map_or_else(|| line.to_owned(), |width| console::truncate_str(line, width, "…").into_owned())
    }

    pub(crate) fn line(self, text: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        writeln!(out, "{text}").and_then(|()| out.flush()).map_err(stdout_failed)
    }

    /// Prints why the command failed.
    pub(crate) fn failure(self, failure: &Failure) {
        // Programs look for the operation on standard output; the words still go to standard error.
        if let Some(operation) = failure.operation().filter(|_| self.is_json()) {
            let _ = self.json(operation);
        }
        self.tell(failure);
    }

    /// Prints on standard error why something failed. Nobody is told if writing fails.
    pub(crate) fn tell(self, failure: &Failure) {
        if failure.is_closed_pipe() || matches!(failure, Failure::Told(_)) {
            return;
        }
        if let (true, Failure::Refused(problem)) = (self.is_json(), failure) {
            let _ = writeln!(io::stderr().lock(), "{}", pretty(&problem.sent));
            return;
        }
        let _ = writeln!(io::stderr().lock(), "{}", for_stderr(&format!("muster: {}", failure.text(self.words))));
    }

    /// A table; at a terminal some states have a colour.
    pub(crate) fn table<T>(self, columns: &[Column<T>], rows: &[T]) -> String {
        let columns = self.shown(columns);
        let rows = rows.iter().map(|row| cells(&columns, row)).collect();
        self.grid(&columns, rows)
    }

    /// As [`Self::table`], with an empty line above; nothing if there are no rows.
    pub(crate) fn section<T>(self, columns: &[Column<T>], rows: &[T]) -> String {
        if rows.is_empty() { String::new() } else { format!("\n{}", self.table(columns, rows)) }
    }

    fn shown<T>(self, columns: &[Column<T>]) -> Vec<&Column<T>> {
        columns.iter().filter(|column| !column.only_wide || self.format == Format::Wide).collect()
    }

    fn grid<T>(self, columns: &[&Column<T>], rows: Vec<Vec<String>>) -> String {
        let layout = lay_out(columns, rows, self.width);
        let lines = layout.lines.iter().enumerate();
        lines.map(|(n, line)| self.colored(n, line, layout.state_at) + "\n").collect()
    }

    /// Makes the header dim and colours states that need attention. The line is laid out already, because escape
    /// sequences would count as width. `offset` is the column where the states begin.
    fn colored(self, number: usize, line: &str, offset: Option<usize>) -> String {
        if !self.color {
            return line.to_owned();
        }
        if number == 0 {
            return format!("\x1b[2m{line}\x1b[0m");
        }
        let at = offset.and_then(|at| line.char_indices().nth(at));
        let Some((before, rest)) = at.map(|(at, _)| line.split_at(at)) else { return line.to_owned() };
        let end = rest.find(' ').unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        match state_color(word) {
            Some(color) => format!("{before}\x1b[{color}m{word}\x1b[0m{after}"),
            None => line.to_owned(),
        }
    }

    /// A sentence of a list, after a mark.
    pub(crate) fn item(self, mark: char, text: &str) -> String {
        wrapped(&format!("{mark} {}", printable(text, false)), self.width, "    ") + "\n"
    }

    /// One `key  value` line each; empty values are left out.
    pub(crate) fn facts(self, facts: &[(&str, String)]) -> String {
        let shown: Vec<_> = facts.iter().filter(|(_, value)| !value.is_empty()).collect();
        let width = shown.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
        shown
            .iter()
            .map(|(key, value)| {
                let room = self.width.map(|all| all.saturating_sub(width + 2).max(20));
                let value = wrapped(&printable(value, false), room, "");
                let value = value.replace('\n', &format!("\n{:width$}  ", ""));
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

/// Prints a list: as one JSON array, page by page as it comes and in the controller's order, or as one table at the end.
pub(crate) struct List<'a, T> {
    out: Out,
    columns: Vec<&'a Column<T>>,
    order: Order,
    rows: Vec<Vec<String>>,
    written: u64,
}

impl<'a, T: Serialize + DeserializeOwned> List<'a, T> {
    pub(crate) fn new(out: Out, columns: &'a [Column<T>], order: Order) -> Self {
        Self { out, columns: out.shown(columns), order, rows: Vec::new(), written: 0 }
    }

    pub(crate) fn page(&mut self, items: Vec<Value>) -> Result<(), Failure> {
        for item in items {
            match self.out.format {
                Format::Table | Format::Wide => self.rows.push(cells(&self.columns, &answer::read(&item)?)),
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

    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        if self.order == Order::Name {
            self.rows.sort_by_cached_key(|row| row.first().map(|name| pieces(name)));
        }
        match self.out.format {
            Format::Json if self.written == 0 => self.out.line("[]"),
            Format::Json => self.out.line("\n]"),
            Format::Table | Format::Wide => self.out.line(self.out.grid(&self.columns, self.rows).trim_end()),
        }
    }
}

/// Whether somebody at a terminal can be asked.
pub(crate) fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks a question at the terminal. Every answer but yes means no.
pub(crate) async fn ask(question: &str) -> bool {
    let _ = write!(io::stderr().lock(), "{} ", for_stderr(&format!("{question} [y/N]")));
    let answer = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        io::stdin().read_line(&mut line).map(|_| line)
    });
    let answer = answer.await.ok().and_then(Result::ok).unwrap_or_default();
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        table::{numbers, wide, words},
        units,
    };

    fn plain() -> Out {
        Out { format: Format::Table, color: false, width: None, words: Words::default(), notes: Notes { quiet: true } }
    }

    type Row = (&'static str, &'static str, u64);

    const COLUMNS: [Column<Row>; 3] = [
        words("NAME", |row| row.0.to_owned()),
        words("STATE", |row| row.1.to_owned()),
        numbers("SIZE", |row| units::bytes(row.2)),
    ];

    #[test]
    fn tables_have_no_lines_and_right_aligned_numbers() {
        let rows = [("a", "ready", 512), ("longer", "failed", 1 << 20)];
        let expected = "NAME    STATE    SIZE\na       ready   512 B\nlonger  failed  1 MiB\n";
        assert_eq!(plain().table(&COLUMNS, &rows), expected);
    }

    #[test]
    fn colors_do_not_move_columns() {
        let rows = [("a", "failed", 1)];
        let colored = Out { color: true, ..plain() }.table(&COLUMNS, &rows);
        assert!(colored.contains("\x1b[31mfailed\x1b[0m"), "{colored:?}");
        let stripped = colored.replace("\x1b[31m", "").replace("\x1b[2m", "").replace("\x1b[0m", "");
        assert_eq!(stripped, plain().table(&COLUMNS, &rows));
    }

    #[test]
    fn control_characters_in_answers_do_not_reach_the_terminal() {
        let rows = [("x\u{1b}[2J\ny", "ready", 1)];
        let shown = plain().table(&COLUMNS, &rows);
        assert!(!shown.contains('\u{1b}') && shown.lines().count() == 2, "{shown:?}");
    }

    #[test]
    fn facts_are_wrapped_between_words_beside_their_key() {
        let out = Out { width: Some(32), ..plain() };
        let facts = [("name", "web".to_owned()), ("detail", "the disk is full: free some room-y_space".to_owned())];
        let expected = "name    web\ndetail  the disk is full: free\n        some room-y_space\n";
        assert_eq!(out.facts(&facts), expected);
    }

    #[test]
    fn only_wide_tables_have_all_columns() {
        let columns = [words::<Row>("NAME", |row| row.0.to_owned()), wide(words("STATE", |row| row.1.to_owned()))];
        let rows = [("a", "ready", 1)];
        assert_eq!(plain().table(&columns, &rows), "NAME\na\n");
        assert_eq!(Out { format: Format::Wide, ..plain() }.table(&columns, &rows), "NAME  STATE\na     ready\n");
    }

    #[test]
    fn empty_facts_are_left_out() {
        let facts = [("name", "web".to_owned()), ("reason", String::new()), ("state", "ready".to_owned())];
        assert_eq!(plain().facts(&facts), "name   web\nstate  ready\n");
    }
}
