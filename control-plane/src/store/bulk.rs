//! Many rows in few statements, by `VALUES` lists of bounded length. All full batches have the same SQL text.
//!
//! Both databases name the columns of a `VALUES` list `column1, column2, …`, so one text serves
//! `UPDATE t SET … FROM (VALUES …) AS v WHERE t.id = v.column1` on both.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use sqlx::any::AnyRow;

use super::{
    StoreError, Tx,
    column::{self, Cell},
    row::{self, Row, TableRow},
};

/// Most parameters of one statement. SQLite looks up each `$n` in a list, when it prepares the statement and when a
/// value is bound, so the time grows with the square of their number: 10,000 instances took 15 s with 4,000 parameters.
const PARAMETERS_MAX: usize = 320;

/// Runs `head VALUES (…), (…) tail` until all rows were in it. Returns how many rows the database changed.
pub(crate) async fn run(tx: &mut Tx, head: &str, rows: Vec<Vec<Cell>>, tail: &str) -> Result<u64, StoreError> {
    let Some(width) = rows.first().map(Vec::len).filter(|width| *width > 0) else { return Ok(0) };
    let batch = (PARAMETERS_MAX / width).max(1);
    let mut touched = 0;
    let mut rows = rows.into_iter().peekable();
    while rows.peek().is_some() {
        let batch: Vec<Vec<Cell>> = rows.by_ref().take(batch).collect();
        let mut sql = String::with_capacity(head.len() + tail.len() + batch.len() * width * 6);
        sql.push_str(head);
        sql.push_str(" VALUES ");
        for row in 0..batch.len() {
            for column in 0..width {
                let before = if column > 0 {
                    ", "
                } else if row > 0 {
                    "), ("
                } else {
                    "("
                };
                // Writing to a String does not fail.
                let _ = write!(sql, "{before}${}", row * width + column + 1);
            }
        }
        sql.push(')');
        sql.push_str(tail);
        touched += row::query(sql, batch.into_iter().flatten()).execute(tx.conn()).await?.rows_affected();
    }
    Ok(touched)
}

/// Inserts rows.
pub(super) async fn insert<T: TableRow>(tx: &mut Tx, rows: &[T]) -> Result<(), StoreError> {
    let cells = rows.iter().map(T::cells).collect::<Result<_, _>>()?;
    run(tx, T::INSERT, cells, "").await?;
    Ok(())
}

/// The rows with these ids that exist.
pub(super) async fn load_many<T: Row, Id: ToString>(tx: &mut Tx, name: &str, ids: &[Id]) -> Result<Vec<T>, StoreError> {
    let rows = select_in(tx, &format!("-- {name}\n{} WHERE id", T::SELECT), ids, "").await?;
    rows.iter().map(T::from_row).collect()
}

/// Runs `head IN ($1, $2, …) tail` for ids, in batches. Returns all rows that were found.
pub(crate) async fn select_in<T: ToString>(
    tx: &mut Tx,
    head: &str,
    ids: &[T],
    tail: &str,
) -> Result<Vec<AnyRow>, StoreError> {
    let mut found = Vec::new();
    for batch in ids.chunks(PARAMETERS_MAX) {
        let mut sql = format!("{head} IN (");
        for n in 1..=batch.len() {
            let _ = write!(sql, "{}${n}", if n > 1 { ", " } else { "" });
        }
        sql.push(')');
        sql.push_str(tail);
        let ids = batch.iter().map(|id| id.to_string().into());
        found.extend(row::query(sql, ids).fetch_all(tx.conn()).await?);
    }
    Ok(found)
}

/// Which rows a list wants. Values of one filter are alternatives; an empty filter wants any.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// The project; `None` for all.
    pub project: Option<String>,
    /// In one of these states.
    pub states: Vec<String>,
    /// With these labels, as key and value. Values of one key are alternatives; different keys must all hold.
    pub labels: Vec<(String, String)>,
    /// These deployments, or things of these deployments; ids.
    pub deployments: Vec<String>,
    /// On one of these nodes; ids.
    pub nodes: Vec<String>,
    /// With a card in one of these networks; ids.
    pub networks: Vec<String>,
    /// Also those that are deleted.
    pub deleted: bool,
}

/// The conditions of a list: equality filters, values of one filter joined by OR.
#[derive(Debug, Default)]
pub(crate) struct Conditions {
    sql: String,
    cells: Vec<Cell>,
}

impl Conditions {
    /// The conditions that all lists have: place, project, labels, whether deleted rows are shown.
    pub(crate) fn of_list(filter: &Filter, after: i64) -> Result<Self, StoreError> {
        let mut conditions = Self::default();
        conditions.compare("seq", ">", after);
        if let Some(project) = &filter.project {
            conditions.compare("project", "=", project.as_str());
        }
        if !filter.deleted {
            conditions.fixed("state <> 'deleted'");
        }
        conditions.labelled("labels", &filter.labels)?;
        Ok(conditions)
    }

    /// `column comparison value`
    pub(crate) fn compare(&mut self, column: &str, comparison: &str, value: impl Into<Cell>) {
        let n = self.push(value.into());
        let and = self.and();
        let _ = write!(self.sql, "{and}{column} {comparison} ${n}");
    }

    /// The column has one of the values. No condition when there are none.
    pub(crate) fn one_of(&mut self, column: &str, values: &[String]) {
        if !values.is_empty() {
            let and = self.and();
            let _ = write!(self.sql, "{and}{column}");
            self.among(values);
        }
    }

    /// The column is among what `select IN (values)` finds. No condition when there are no values.
    pub(crate) fn one_in(&mut self, column: &str, select: &str, values: &[String]) {
        if !values.is_empty() {
            let and = self.and();
            let _ = write!(self.sql, "{and}{column} IN ({select}");
            self.among(values);
            self.sql.push(')');
        }
    }

    fn among(&mut self, values: &[String]) {
        self.sql.push_str(" IN (");
        for (index, value) in values.iter().enumerate() {
            let n = self.push(value.as_str().into());
            let _ = write!(self.sql, "{}${n}", if index > 0 { ", " } else { "" });
        }
        self.sql.push(')');
    }

    /// A condition without values: `condition` is put into the SQL as it is.
    pub(super) fn fixed(&mut self, condition: &str) {
        let and = self.and();
        self.sql.push_str(and);
        self.sql.push_str(condition);
    }

    /// The labels. Values of one key are alternatives, different keys must all hold. Labels are stored as JSON without
    /// spaces, so the text has `"key":"value"` exactly when the label is there (quotes inside keys and values are
    /// escaped). REPLACE distinguishes capitals on both databases; LIKE does not.
    fn labelled(&mut self, column: &str, labels: &[(String, String)]) -> Result<(), StoreError> {
        let keys: BTreeSet<&String> = labels.iter().map(|(key, _)| key).collect();
        for key in keys {
            let and = self.and();
            let _ = write!(self.sql, "{and}(");
            for (index, (key, value)) in labels.iter().filter(|(other, _)| other == key).enumerate() {
                let text = format!("{}:{}", column::json_text(key)?, column::json_text(value)?);
                let n = self.push(text.into());
                let or = if index > 0 { " OR " } else { "" };
                let _ = write!(self.sql, "{or}{column} <> REPLACE({column}, ${n}, '')");
            }
            self.sql.push(')');
        }
        Ok(())
    }

    fn and(&self) -> &'static str {
        if self.sql.is_empty() { " WHERE " } else { " AND " }
    }

    fn push(&mut self, cell: Cell) -> usize {
        self.cells.push(cell);
        self.cells.len()
    }

    /// The rows after these conditions, in list order.
    pub(super) async fn fetch<T: Row>(self, tx: &mut Tx, name: &str, limit: i64) -> Result<Vec<T>, StoreError> {
        self.rows(tx, name, T::SELECT, limit).await?.iter().map(T::from_row).collect()
    }

    /// As [`Self::fetch`], as they come from the database.
    pub(super) async fn rows(
        mut self,
        tx: &mut Tx,
        name: &str,
        select: &str,
        limit: i64,
    ) -> Result<Vec<AnyRow>, StoreError> {
        let n = self.push(limit.into());
        let sql = format!("-- {name}\n{select}{} ORDER BY seq LIMIT ${n}", self.sql);
        Ok(row::query(sql, self.cells).fetch_all(tx.conn()).await?)
    }
}

/// How many rows of a table are in each state, in one project or in all. Deleted ones are not counted.
pub(super) async fn by_state(
    tx: &mut Tx,
    table: &str,
    project: Option<&str>,
) -> Result<BTreeMap<String, u64>, StoreError> {
    let mut conditions = Conditions::default();
    conditions.fixed("state <> 'deleted'");
    if let Some(project) = project {
        conditions.compare("project", "=", project);
    }
    let sql = format!(
        "-- {table}.by_state\nSELECT state, CAST(COUNT(*) AS BIGINT) AS n FROM {table}{} GROUP BY state",
        conditions.sql
    );
    let rows = row::query(sql, conditions.cells).fetch_all(tx.conn()).await?;
    rows.iter().map(|row| Ok((column::read(row, "state")?, column::read(row, "n")?))).collect()
}
