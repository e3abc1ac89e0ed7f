//! What can go wrong with the database.

use std::{fmt, sync::Arc};

use sqlx::any::AnyQueryResult;

/// What can go wrong between this program and its database.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The row changed since it was read. The caller has to load it again.
    #[error("{table} {id} was changed by somebody else meanwhile")]
    Conflict {
        /// Name of the table.
        table: &'static str,
        /// Id of the row; of the first one if many rows were saved together.
        id: String,
    },
    /// A column holds what this program cannot read.
    #[error("column {column} cannot be read: {why}")]
    BadRow {
        /// Name of the column, with or without its table; `(json)` if a value cannot be written as JSON.
        column: String,
        /// Why it cannot be read.
        why: String,
    },
    /// The database cannot be opened or brought up to date.
    #[error("{0}")]
    Setup(String),
    /// The database was written by a newer release.
    #[error("the database has schema {found}, this program knows up to {known}: start the newer release again")]
    Newer {
        /// Number of the newest migration in the database.
        found: i64,
        /// Number of the newest migration that this program knows.
        known: i64,
    },
    /// The database refused or failed.
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    /// A commit failed that others share.
    #[error(transparent)]
    Shared(Arc<StoreError>),
}

impl StoreError {
    /// A [`Self::Conflict`] unless a save changed its row.
    pub(super) fn unless_saved(done: &AnyQueryResult, table: &'static str, id: impl ToString) -> Result<(), Self> {
        match done.rows_affected() {
            1 => Ok(()),
            _ => Err(Self::Conflict { table, id: id.to_string() }),
        }
    }

    /// Whether a UNIQUE constraint refused it.
    #[must_use]
    pub fn is_unique_violation(&self) -> bool {
        matches!(self, Self::Database(sqlx::Error::Database(e)) if e.is_unique_violation())
    }
}

/// The error of a transaction's closure.
pub trait TxError: From<StoreError> + fmt::Debug {}

impl<E: From<StoreError> + fmt::Debug> TxError for E {}
