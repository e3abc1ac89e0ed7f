//! Rows as structs: [`Row`] reads one, [`TableRow`] also inserts it. A struct whose fields are the columns of its table
//! gets both from [`columns!`].

use sqlx::{
    Any, AssertSqlSafe,
    any::{AnyArguments, AnyRow},
    query::Query,
};

use super::{StoreError, Tx, column::Cell};

/// A struct that is read from one row.
pub(super) trait Row: Sized {
    /// `SELECT … FROM …`, without conditions.
    const SELECT: &'static str;

    /// Reads what [`Self::SELECT`] selected.
    fn from_row(row: &AnyRow) -> Result<Self, StoreError>;
}

/// A struct with all columns that a new row of its table needs.
pub(super) trait TableRow: Row {
    /// `INSERT INTO … (…)`, without values.
    const INSERT: &'static str;

    /// The values of a new row, in the order of [`Self::INSERT`].
    fn cells(&self) -> Result<Vec<Cell>, StoreError>;
}

/// Implements [`Row`] and [`TableRow`] for a struct whose fields are columns of `table`.
macro_rules! columns {
    ($table:literal, $row:ident: $first:ident $(, $field:ident)* $(,)?) => {
        impl $crate::store::row::Row for $row {
            const SELECT: &'static str =
                concat!("SELECT ", stringify!($first) $(, ", ", stringify!($field))*, " FROM ", $table);

            fn from_row(row: &sqlx::any::AnyRow) -> Result<Self, $crate::store::StoreError> {
                Ok(Self {
                    $first: $crate::store::column::read(row, stringify!($first))?,
                    $($field: $crate::store::column::read(row, stringify!($field))?,)*
                })
            }
        }

        impl $crate::store::row::TableRow for $row {
            const INSERT: &'static str = concat!(
                "-- ", $table, ".insert\nINSERT INTO ", $table, " (", stringify!($first) $(, ", ", stringify!($field))*, ")"
            );

            fn cells(&self) -> Result<Vec<$crate::store::column::Cell>, $crate::store::StoreError> {
                use $crate::store::column::Column as _;
                Ok(vec![self.$first.cell()? $(, self.$field.cell()?)*])
            }
        }
    };
}
pub(super) use columns;

/// A query with these values for `$1, $2, …`.
pub(super) fn query(sql: String, values: impl IntoIterator<Item = Cell>) -> Query<'static, Any, AnyArguments> {
    values.into_iter().fold(sqlx::query(AssertSqlSafe(sql)), |query, cell| match cell {
        Cell::Text(text) => query.bind(text),
        Cell::Int(number) => query.bind(number),
    })
}

/// Selects rows. The SQL text begins with the comment `-- name`; `rest` follows the columns and the table.
pub(super) async fn select<T: Row>(
    tx: &mut Tx,
    name: &str,
    rest: &str,
    values: impl IntoIterator<Item = Cell>,
) -> Result<Vec<T>, StoreError> {
    let query = query(format!("-- {name}\n{} {rest}", T::SELECT), values);
    query.fetch_all(tx.conn()).await?.iter().map(T::from_row).collect()
}

/// As [`select`], for at most one row.
pub(super) async fn select_one<T: Row>(
    tx: &mut Tx,
    name: &str,
    rest: &str,
    values: impl IntoIterator<Item = Cell>,
) -> Result<Option<T>, StoreError> {
    Ok(select(tx, name, rest, values).await?.pop())
}
