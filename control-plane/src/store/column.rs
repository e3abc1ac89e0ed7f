//! The two column types, TEXT and BIGINT: what is stored in them and how it is read.
//!
//! Ids, hashes, words and JSON are TEXT; counts, sizes, flags and times (microseconds) are BIGINT.
//!
//! ```ignore
//! let image = Image { id: column::parse(&row, "id")?, size: column::count(&row, "size_bytes")?, … };
//! sqlx::query(INSERT).bind(image.id.to_string()).bind(column::int(image.size)).bind(column::json_text(&labels)?)
//! ```

use std::{fmt, str::FromStr};

use muster_api::Timestamp;
use serde::{Serialize, de::DeserializeOwned};
use sqlx::{Row as _, any::AnyRow};

use super::StoreError;

fn bad(column: &str, why: impl fmt::Display) -> StoreError {
    StoreError::BadRow { column: column.to_owned(), why: why.to_string() }
}

/// A TEXT column that is never null.
pub fn text(row: &AnyRow, column: &str) -> Result<String, StoreError> {
    row.try_get(column).map_err(StoreError::from)
}

/// A TEXT column that may be null.
pub fn opt_text(row: &AnyRow, column: &str) -> Result<Option<String>, StoreError> {
    row.try_get(column).map_err(StoreError::from)
}

/// A TEXT column that reads as `T`: an id, a word.
pub fn parse<T: FromStr<Err: fmt::Display>>(row: &AnyRow, column: &str) -> Result<T, StoreError> {
    text(row, column)?.parse().map_err(|e| bad(column, e))
}

/// As [`parse`]; `None` for null.
pub fn opt_parse<T: FromStr<Err: fmt::Display>>(row: &AnyRow, column: &str) -> Result<Option<T>, StoreError> {
    opt_text(row, column)?.map(|t| t.parse().map_err(|e| bad(column, e))).transpose()
}

/// A BIGINT column as it is.
pub fn number(row: &AnyRow, column: &str) -> Result<i64, StoreError> {
    row.try_get(column).map_err(StoreError::from)
}

/// A BIGINT column as it is; `None` for null.
pub fn opt_number(row: &AnyRow, column: &str) -> Result<Option<i64>, StoreError> {
    row.try_get(column).map_err(StoreError::from)
}

/// A BIGINT column that is never negative. A value that does not fit `T` is an error.
pub fn count<T: TryFrom<i64, Error: fmt::Display>>(row: &AnyRow, column: &str) -> Result<T, StoreError> {
    T::try_from(number(row, column)?).map_err(|e| bad(column, e))
}

/// As [`count`]; `None` for null.
pub fn opt_count<T: TryFrom<i64, Error: fmt::Display>>(row: &AnyRow, column: &str) -> Result<Option<T>, StoreError> {
    opt_number(row, column)?.map(|n| T::try_from(n).map_err(|e| bad(column, e))).transpose()
}

/// A BIGINT column that is 0 or 1.
pub fn flag(row: &AnyRow, column: &str) -> Result<bool, StoreError> {
    Ok(number(row, column)? != 0)
}

/// A BIGINT column with a time.
pub fn time(row: &AnyRow, column: &str) -> Result<Timestamp, StoreError> {
    number(row, column).map(Timestamp::from_micros)
}

/// As [`time`]; `None` for null.
pub fn opt_time(row: &AnyRow, column: &str) -> Result<Option<Timestamp>, StoreError> {
    Ok(opt_number(row, column)?.map(Timestamp::from_micros))
}

/// A TEXT column with JSON.
pub fn json<T: DeserializeOwned>(row: &AnyRow, column: &str) -> Result<T, StoreError> {
    serde_json::from_str(&text(row, column)?).map_err(|e| bad(column, e))
}

/// As [`json`]; `None` for null.
pub fn opt_json<T: DeserializeOwned>(row: &AnyRow, column: &str) -> Result<Option<T>, StoreError> {
    opt_text(row, column)?.map(|t| serde_json::from_str(&t).map_err(|e| bad(column, e))).transpose()
}

/// A word of an enum whose JSON form is a string (`#[serde(rename_all = "snake_case")]`).
pub fn word<T: DeserializeOwned>(row: &AnyRow, column: &str) -> Result<T, StoreError> {
    serde_json::from_value(serde_json::Value::String(text(row, column)?)).map_err(|e| bad(column, e))
}

/// For binding: JSON text.
pub fn json_text<T: Serialize + ?Sized>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|e| bad("(json)", e))
}

/// For binding: the word of an enum whose JSON form is a string.
pub fn word_text<T: Serialize>(value: T) -> Result<String, StoreError> {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => Ok(word),
        Ok(other) => Err(bad("(word)", format!("expected a word, got {other}"))),
        Err(e) => Err(bad("(word)", e)),
    }
}

/// For binding: a count or size. Nothing that is counted reaches 2^63. Nodes report some of the numbers, so a larger
/// one is stored as that bound and is no bug here.
#[must_use]
pub fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// For binding: a count or size that may be absent.
#[must_use]
pub fn opt_int(value: Option<u64>) -> Option<i64> {
    value.map(int)
}

/// For binding: a time that may be absent.
#[must_use]
pub fn opt_micros(value: Option<Timestamp>) -> Option<i64> {
    value.map(Timestamp::micros)
}
