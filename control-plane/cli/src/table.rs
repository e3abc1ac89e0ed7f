//! Tables for people: which columns they have, in which order their rows stand, and how they fit a terminal.
//!
//! `-o table` shows the columns that people look for, `-o wide` shows all. A table that is wider than the terminal has its
//! long cells shortened: ids to their last twelve digits, which commands take as well, then names and texts. Files and
//! pipes get every cell whole, and so does `-o wide`.

use console::{Alignment, measure_text_width, pad_str, truncate_str};

use crate::cells::printable;

/// One column of a table of `T`.
pub(crate) struct Column<T> {
    pub(crate) title: &'static str,
    align: Alignment,
    /// Whether only `-o wide` shows it.
    pub(crate) only_wide: bool,
    shortened: Shortened,
    pub(crate) cell: fn(&T) -> String,
}

/// How cells of a column are shortened where the table does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shortened {
    Never,
    /// To the last group of digits of a UUID.
    Id,
    /// In the middle, because both ends tell names apart.
    Name,
    /// At the end.
    Text,
}

/// A column of short words.
pub(crate) const fn words<T>(title: &'static str, cell: fn(&T) -> String) -> Column<T> {
    Column { title, align: Alignment::Left, only_wide: false, shortened: Shortened::Never, cell }
}

/// A column of numbers, aligned at the right.
pub(crate) const fn numbers<T>(title: &'static str, cell: fn(&T) -> String) -> Column<T> {
    Column { align: Alignment::Right, ..words(title, cell) }
}

/// A column of names.
pub(crate) const fn names<T>(title: &'static str, cell: fn(&T) -> String) -> Column<T> {
    Column { shortened: Shortened::Name, ..words(title, cell) }
}

/// A column of texts of any length.
pub(crate) const fn texts<T>(title: &'static str, cell: fn(&T) -> String) -> Column<T> {
    Column { shortened: Shortened::Text, ..words(title, cell) }
}

/// A column of ids that a command takes in their short form.
pub(crate) const fn ids<T>(title: &'static str, cell: fn(&T) -> String) -> Column<T> {
    Column { shortened: Shortened::Id, ..words(title, cell) }
}

/// A column that only `-o wide` shows.
pub(crate) const fn wide<T>(column: Column<T>) -> Column<T> {
    Column { only_wide: true, ..column }
}

/// The order of the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// By the first column, in which `web.2` stands before `web.10`.
    Name,
    /// As the controller lists them, oldest first.
    Time,
}

/// Length of the last group of digits of a UUID.
pub(crate) const SHORT_ID: usize = 12;
/// A column is not made narrower than this.
const NARROWEST: usize = 8;
/// Columns between two cells.
const GAP: usize = 2;

/// A table that is laid out.
pub(crate) struct Layout {
    /// The header, then the rows.
    pub(crate) lines: Vec<String>,
    /// Where the column `STATE` begins in each line.
    pub(crate) state_at: Option<usize>,
}

/// Lays out a table in at most `limit` columns, as far as its cells can be shortened.
pub(crate) fn lay_out<T>(columns: &[&Column<T>], rows: Vec<Vec<String>>, limit: Option<usize>) -> Layout {
    let mut rows: Vec<Vec<String>> =
        rows.into_iter().map(|row| row.iter().map(|cell| printable(cell, false)).collect()).collect();
    let mut widths: Vec<usize> = columns.iter().map(|column| column.title.len()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(measure_text_width(cell));
        }
    }
    if let Some(limit) = limit {
        narrow(columns, &mut widths, limit);
    }
    for row in &mut rows {
        for ((cell, column), width) in row.iter_mut().zip(columns).zip(&widths) {
            if measure_text_width(cell) > *width {
                *cell = shorten(cell, column.shortened, *width);
            }
        }
    }
    let header = columns.iter().map(|column| column.title.to_owned()).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(columns).zip(&widths);
        let cells = cells.map(|((cell, column), width)| pad_str(cell, *width, column.align, None).into_owned());
        cells.collect::<Vec<_>>().join(&" ".repeat(GAP)).trim_end().to_owned()
    };
    let state = columns.iter().position(|column| column.title == "STATE");
    let state_at = state.map(|at| widths.iter().take(at).map(|width| width + GAP).sum());
    Layout { lines: std::iter::once(&header).chain(&rows).map(line).collect(), state_at }
}

/// Makes columns narrower until the table fits: ids first, then the widest name or text, one step after the other.
fn narrow<T>(columns: &[&Column<T>], widths: &mut [usize], limit: usize) {
    let too_wide = |widths: &[usize]| widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1) > limit;
    if too_wide(widths) {
        for (column, width) in columns.iter().zip(widths.iter_mut()) {
            if column.shortened == Shortened::Id {
                *width = (*width).min(SHORT_ID);
            }
        }
    }
    while too_wide(widths) {
        let may_shrink = columns.iter().zip(widths.iter_mut()).filter(|(column, width)| {
            matches!(column.shortened, Shortened::Name | Shortened::Text) && **width > NARROWEST.max(column.title.len())
        });
        let Some((_, widest)) = may_shrink.max_by_key(|(_, width)| **width) else { return };
        *widest -= 1;
    }
}

fn shorten(cell: &str, how: Shortened, width: usize) -> String {
    let length = cell.chars().count();
    match how {
        Shortened::Never => cell.to_owned(),
        Shortened::Id => cell.chars().skip(length.saturating_sub(width)).collect(),
        Shortened::Text => truncate_str(cell, width, "…").into_owned(),
        Shortened::Name => {
            let end = (width - 1) / 2;
            let (begin, end) = (cell.chars().take(width - 1 - end), cell.chars().skip(length.saturating_sub(end)));
            begin.chain(['…']).chain(end).collect()
        }
    }
}

/// A piece of a name, for sorting names as people do.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Piece {
    Number(u128),
    Text(String),
}

/// Splits a name into numbers and the texts between them, so that `web.2` is less than `web.10`.
pub(crate) fn pieces(name: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut rest = name;
    while let Some(first) = rest.chars().next() {
        let is_number = first.is_ascii_digit();
        let end = rest.find(|c: char| c.is_ascii_digit() != is_number).unwrap_or(rest.len());
        let (piece, after) = rest.split_at(end);
        pieces.push(match piece.parse() {
            Ok(number) if is_number => Piece::Number(number),
            _ => Piece::Text(piece.to_owned()),
        });
        rest = after;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    type Row = (&'static str, &'static str, &'static str);

    const COLUMNS: [Column<Row>; 3] = [
        ids("ID", |row| row.0.to_owned()),
        words("STATE", |row| row.1.to_owned()),
        names("NAME", |row| row.2.to_owned()),
    ];

    fn laid_out(limit: Option<usize>) -> Layout {
        let row = ["01900000-0000-7000-8000-0123456789ab", "ready", "a-deployment-with-a-long-name.12"];
        lay_out(&COLUMNS.each_ref(), vec![row.map(str::to_owned).to_vec()], limit)
    }

    #[test]
    fn ids_are_shortened_first_and_names_in_the_middle() {
        let row = |limit| laid_out(limit).lines.pop().expect("a row");
        let whole = "01900000-0000-7000-8000-0123456789ab  ready  a-deployment-with-a-long-name.12";
        assert_eq!((row(None), row(Some(77))), (whole.to_owned(), whole.to_owned()));
        assert_eq!(row(Some(76)), "0123456789ab  ready  a-deployment-with-a-long-name.12");
        assert_eq!(row(Some(40)), "0123456789ab  ready  a-deploym…g-name.12");
        assert_eq!(row(Some(10)), "0123456789ab  ready  a-de….12", "what tells rows apart stays");
        assert_eq!(laid_out(Some(40)).state_at, Some(14));
    }

    #[test]
    fn names_are_sorted_as_people_do() {
        let mut names = ["web.10", "web.2", "db.1", "web.2a", "web"];
        names.sort_by_cached_key(|name| pieces(name));
        assert_eq!(names, ["db.1", "web", "web.2", "web.2a", "web.10"]);
        let long = "9".repeat(60);
        assert_eq!(pieces(&format!("a{long}")), [Piece::Text("a".to_owned()), Piece::Text(long)]);
    }
}
