//! Idempotency keys: the same key and body get the first accepted answer, its operation as it is now.
//!
//! The key, the effect and the event are one transaction, and there is one writer at a time: of many calls with one
//! key, in parallel or across a crash, exactly one has the effect and all others find its row. Refusals leave none.

use muster_api::{ErrorCode, OperationId, operation::Operation};
use serde::Serialize;
use serde_json::Value;

use super::{App, AppError, operations::visible};
use crate::store::{
    Tx,
    idempotency::{self, Remembered},
    operations,
};

/// The `Idempotency-Key` of a call, if it had one, and what it was about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Once {
    /// Project the key belongs to.
    pub project: String,
    /// The key.
    pub key: Option<String>,
    /// SHA-256 of method, path, query and body, hex.
    pub request_sha256: String,
    /// Whether the caller may see where the parts of an operation are.
    pub operator: bool,
}

impl Once {
    /// A call without a key.
    #[must_use]
    pub fn without_key() -> Self {
        Self { project: String::new(), key: None, request_sha256: String::new(), operator: false }
    }
}

/// An answer to a change: what is sent, and what is remembered with the key.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Body; null for none.
    pub body: Value,
    /// Relative `Location`.
    pub location: Option<String>,
    /// The operation that was begun.
    pub operation: Option<OperationId>,
    /// Whether it was remembered rather than done now.
    pub replayed: bool,
}

impl Answer {
    fn new(status: u16, body: &impl Serialize) -> Result<Self, AppError> {
        let body = serde_json::to_value(body).map_err(anyhow::Error::from)?;
        Ok(Self { status, body, location: None, operation: None, replayed: false })
    }

    /// 200 with the thing.
    pub fn ok(body: &impl Serialize) -> Result<Self, AppError> {
        Self::new(200, body)
    }

    /// 201 with the thing and where it is.
    pub fn created(body: &impl Serialize, location: impl Into<String>) -> Result<Self, AppError> {
        Ok(Self { location: Some(location.into()), ..Self::new(201, body)? })
    }

    /// 202 with the operation.
    pub fn accepted(operation: &Operation) -> Result<Self, AppError> {
        let location = Some(format!("/v1/operations/{}", operation.id));
        Ok(Self { location, operation: Some(operation.id), ..Self::new(202, operation)? })
    }

    /// 204.
    #[must_use]
    pub const fn no_content() -> Self {
        Self { status: 204, body: Value::Null, location: None, operation: None, replayed: false }
    }
}

impl App {
    /// Runs `effect` in a write transaction, once per key. Without a key it simply runs.
    pub async fn once<F>(&self, once: &Once, name: &'static str, effect: F) -> Result<Answer, AppError>
    where
        F: AsyncFnOnce(&mut Tx) -> Result<Answer, AppError>,
    {
        self.store
            .run_tx(name, async |tx| {
                let Some(key) = &once.key else { return effect(tx).await };
                if let Some(remembered) = idempotency::load(tx, &once.project, key).await? {
                    return replay(tx, once, remembered).await;
                }
                let answer = effect(tx).await?;
                let remembered = Remembered {
                    request_sha256: once.request_sha256.clone(),
                    status: answer.status,
                    body: answer.body.to_string(),
                    location: answer.location.clone(),
                    operation: answer.operation,
                };
                idempotency::insert(tx, &once.project, key, &remembered).await?;
                Ok(answer)
            })
            .await
    }
}

async fn replay(tx: &mut Tx, once: &Once, remembered: Remembered) -> Result<Answer, AppError> {
    if remembered.request_sha256 != once.request_sha256 {
        return Err(AppError::code(
            ErrorCode::KeyReused,
            "this Idempotency-Key was used for another request: take a fresh key for each change",
        ));
    }
    let now = match remembered.operation {
        Some(id) => operations::load(tx, id).await?,
        None => None,
    };
    let body = match now {
        Some(operation) => serde_json::to_value(visible(operation, once.operator)).map_err(anyhow::Error::from)?,
        None => serde_json::from_str(&remembered.body).map_err(anyhow::Error::from)?,
    };
    Ok(Answer {
        status: remembered.status,
        body,
        location: remembered.location,
        operation: remembered.operation,
        replayed: true,
    })
}
