//! The two column types, TEXT and BIGINT: what is stored in them and how it is read.
//!
//! Ids, hashes, words and JSON are TEXT; counts, sizes, flags and times (microseconds) are BIGINT. [`Column`] says
//! which of them a Rust type is.
//!
//! ```ignore
//! let image = Image { id: column::read(&row, "id")?, size: column::read(&row, "size_bytes")?, … };
//! sqlx::query(INSERT).bind(image.id.to_string()).bind(column::int(image.size)).bind(column::json_text(&labels)?)
//! ```

use std::{fmt, net::Ipv4Addr, str::FromStr};

use ipnet::{Ipv4Net, Ipv6Net};
use muster_api::{
    ClusterId, CommitId, DeploymentId, DiskId, ImageId, InstanceId, Labels, NetworkId, NodeId, OperationId, Problem,
    Reason, RunId, SecurityGroupId, SessionId, SignInLinkId, SnapshotId, StoreId, Timestamp, TokenId, UploadId,
    VersionId,
    deployment::{DeploymentSource, DeploymentState, OnHostStart, OnReadyTimeout, Placement, Ready, Runtime, Timing},
    firmware::{BootKind, Firmware},
    guest::Guest,
    image::ImageState,
    instance::InstanceState,
    network::{NetworkMode, NetworkState},
    node::{NodeState, PoolUse, SalvageState},
    node_protocol::{GuestLacks, InstanceReport, Wanted, network::PortProtocol},
    operation::OperationState,
    protection::Keep,
    snapshot::{Consistency, SnapshotState},
    token::Role,
    version::VersionState,
};
use serde::{
    Serialize,
    de::{DeserializeOwned, IntoDeserializer as _},
};
use serde_json::Value;
use sqlx::{Row as _, ValueRef as _, any::AnyRow};

use super::StoreError;
use crate::domain::{images::Properties, restore::Step as RestoreStep};

/// One value of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cell {
    /// A column of type TEXT; `None` is NULL.
    Text(Option<String>),
    /// A column of type BIGINT; `None` is NULL. Booleans are 0 and 1.
    Int(Option<i64>),
}

/// A type that is stored in one column.
pub trait Column: Sized {
    /// What an absent value is stored as.
    const NULL: Cell;

    /// Reads the column of this name.
    fn read(row: &AnyRow, column: &str) -> Result<Self, StoreError>;

    /// The value as it is stored.
    fn cell(&self) -> Result<Cell, StoreError>;
}

/// Reads the column of this name.
pub fn read<T: Column>(row: &AnyRow, column: &str) -> Result<T, StoreError> {
    T::read(row, column)
}

fn bad(column: &str, why: impl fmt::Display) -> StoreError {
    StoreError::BadRow { column: column.to_owned(), why: why.to_string() }
}

/// The text of a TEXT column as it lies in the row. Most columns are made from it without a copy of it.
fn text<'r>(row: &'r AnyRow, column: &str) -> Result<&'r str, StoreError> {
    as_it_is(row, column)
}

/// A TEXT column that reads as `T`.
pub fn parse<T: FromStr<Err: fmt::Display>>(row: &AnyRow, column: &str) -> Result<T, StoreError> {
    text(row, column)?.parse().map_err(|e| bad(column, e))
}

impl<T: Column> Column for Option<T> {
    const NULL: Cell = T::NULL;

    fn read(row: &AnyRow, column: &str) -> Result<Self, StoreError> {
        if row.try_get_raw(column)?.is_null() { Ok(None) } else { T::read(row, column).map(Some) }
    }

    fn cell(&self) -> Result<Cell, StoreError> {
        self.as_ref().map_or(Ok(T::NULL), T::cell)
    }
}

impl<T: Serialize + DeserializeOwned> Column for Vec<T> {
    const NULL: Cell = Cell::Text(None);

    fn read(row: &AnyRow, column: &str) -> Result<Self, StoreError> {
        from_json(row, column)
    }

    fn cell(&self) -> Result<Cell, StoreError> {
        Ok(json_text(self)?.into())
    }
}

/// How types are stored: as TEXT or BIGINT, what reads them, what makes a cell of them.
macro_rules! stored {
    ($($null:ident: $($type:ty),+ => $read:expr, $cell:expr;)*) => {$($(
        impl Column for $type {
            const NULL: Cell = Cell::$null(None);

            fn read(row: &AnyRow, column: &str) -> Result<Self, StoreError> {
                $read(row, column)
            }

            fn cell(&self) -> Result<Cell, StoreError> {
                $cell(self)
            }
        }
    )+)*};
}

stored! {
    Text: String => as_it_is, |text: &Self| Ok(text.as_str().into());
    Int: i64 => as_it_is, |number: &Self| Ok((*number).into());
    // 0 or 1.
    Int: bool => |row, column| Ok(i64::read(row, column)? != 0), |flag: &Self| Ok((*flag).into());
    // Never negative.
    Int: u64 => count, |count: &Self| Ok(int(*count).into());
    Int: u32, u16 => count, |count: &Self| Ok(i64::from(*count).into());
    Int: Timestamp => |row, column| i64::read(row, column).map(Self::from_micros),
        |time: &Self| Ok(time.micros().into());
    Text: ClusterId, CommitId, DeploymentId, DiskId, ImageId, InstanceId, NodeId, OperationId, SnapshotId, StoreId,
        TokenId, RunId, SessionId, SignInLinkId, UploadId, VersionId, NetworkId, SecurityGroupId, Reason, Role, Ipv4Addr,
        Ipv4Net, Ipv6Net => parse, |id: &Self| Ok(id.to_string().into());
    // Enums whose JSON form is a string (`#[serde(rename_all = "snake_case")]`).
    Text: BootKind, Consistency, DeploymentState, Firmware, GuestLacks, ImageState, InstanceState, NetworkMode, NetworkState,
        NodeState, OnHostStart, OnReadyTimeout, OperationState, PortProtocol, RestoreStep, Runtime, SalvageState, SnapshotState, VersionState, Wanted => from_word, |word: &Self| Ok(word_text(word)?.into());
    Text: DeploymentSource, Guest, InstanceReport, Keep, Labels, Placement, PoolUse, Problem, Properties, Ready, Timing, Value => from_json,
        |value: &Self| Ok(json_text(value)?.into());
}

fn as_it_is<'r, T>(row: &'r AnyRow, column: &str) -> Result<T, StoreError>
where
    T: sqlx::Decode<'r, sqlx::Any> + sqlx::Type<sqlx::Any>,
{
    row.try_get(column).map_err(StoreError::from)
}

fn count<T: TryFrom<i64, Error: fmt::Display>>(row: &AnyRow, column: &str) -> Result<T, StoreError> {
    T::try_from(i64::read(row, column)?).map_err(|e| bad(column, e))
}

fn from_word<T: DeserializeOwned>(row: &AnyRow, column: &str) -> Result<T, StoreError> {
    T::deserialize(text(row, column)?.into_deserializer()).map_err(|e: serde::de::value::Error| bad(column, e))
}

fn from_json<T: DeserializeOwned>(row: &AnyRow, column: &str) -> Result<T, StoreError> {
    serde_json::from_str(text(row, column)?).map_err(|e| bad(column, e))
}

/// For binding: JSON text.
pub fn json_text<T: Serialize + ?Sized>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|e| bad("(json)", e))
}

/// For binding: the word of an enum whose JSON form is a string.
pub fn word_text<T: Serialize>(value: T) -> Result<String, StoreError> {
    match serde_json::to_value(value) {
        Ok(Value::String(word)) => Ok(word),
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

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(Some(text))
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(Some(text.to_owned()))
    }
}

impl From<Option<String>> for Cell {
    fn from(text: Option<String>) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Cell {
    fn from(number: i64) -> Self {
        Self::Int(Some(number))
    }
}

impl From<bool> for Cell {
    fn from(flag: bool) -> Self {
        Self::Int(Some(i64::from(flag)))
    }
}
