//! Idempotency keys: a call that is repeated with the same key and body gets the answer of the first one. An operation
//! in that answer is shown as it is now.
//!
//! The key, the effect and the event are one transaction, and one transaction writes at a time. Of many calls with one
//! key, in parallel or across a crash, exactly one has the effect; the others find the row that it left. A call that is
//! refused leaves no row.

use muster_api::{ErrorCode, OperationId, TokenId, operation::Operation};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{App, AppError, Caller, check_if_match, sight::Sight};
use crate::store::{
    Tx,
    idempotency::{self, Remembered},
    operations,
};

/// The `Idempotency-Key` of a call, if it had one, and a hash of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Once {
    /// Project that the key belongs to; `*` for all projects.
    pub project: String,
    /// The key; `None` if the call had none.
    pub key: Option<String>,
    /// SHA-256 of method, path, query and body, hex. The same key with another hash is refused.
    pub request_sha256: String,
    /// Whether the caller may see which nodes an operation waits for.
    pub operator: bool,
}

impl Once {
    /// The same for a call whose answer only callers with this token may get.
    #[must_use]
    pub(super) fn for_token(&self, token: TokenId) -> Self {
        let request_sha256 = hex::encode(Sha256::digest(format!("{} of {token}", self.request_sha256)));
        Self { request_sha256, ..self.clone() }
    }
}

/// A change of a thing: who asks, of what, and once.
#[derive(Clone, Debug)]
pub struct Asked<T> {
    /// Who asks; the token decides the projects.
    pub caller: Caller,
    /// The idempotency key and the digest of the request.
    pub once: Once,
    /// The thing, as the path names it.
    pub thing: T,
    /// The `If-Match` header; `None` for a change whatever the revision is.
    pub if_match: Option<String>,
}

impl<T> Asked<T> {
    /// Refuses if `If-Match` names another revision than the thing has.
    pub(crate) fn check_if_match(&self, revision: i64) -> Result<(), AppError> {
        check_if_match(self.if_match.as_deref(), revision)
    }
}

/// The answer to a change. It is sent, and stored with the key.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Status code for HTTP.
    pub status: u16,
    /// JSON body; null for none.
    pub body: Value,
    /// Path for the `Location` header.
    pub location: Option<String>,
    /// The operation that the call began.
    pub operation: Option<OperationId>,
    /// Whether an earlier call had the effect and this is its answer.
    pub replayed: bool,
}

impl Answer {
    fn new(status: u16, body: &impl Serialize) -> Result<Self, AppError> {
        let body = serde_json::to_value(body).map_err(anyhow::Error::from)?;
        Ok(Self { status, body, location: None, operation: None, replayed: false })
    }

    /// 200 with `body`. Fails only if `body` cannot be JSON.
    pub fn ok(body: &impl Serialize) -> Result<Self, AppError> {
        Self::new(200, body)
    }

    /// 201 with `body`, and the path of the new thing.
    pub fn created(body: &impl Serialize, location: impl Into<String>) -> Result<Self, AppError> {
        Ok(Self { location: Some(location.into()), ..Self::new(201, body)? })
    }

    /// 202 with the operation, and its path.
    pub fn accepted(operation: &Operation) -> Result<Self, AppError> {
        let location = Some(format!("/v1/operations/{}", operation.id));
        Ok(Self { location, operation: Some(operation.id), ..Self::new(202, operation)? })
    }

    /// 202 with a thing that is on its way to another state, and its path.
    pub fn on_its_way(body: &impl Serialize, location: impl Into<String>) -> Result<Self, AppError> {
        Ok(Self { location: Some(location.into()), ..Self::new(202, body)? })
    }

    /// 204 without a body: nothing is left to show.
    #[must_use]
    pub const fn no_content() -> Self {
        Self { status: 204, body: Value::Null, location: None, operation: None, replayed: false }
    }
}

impl App {
    /// Runs `effect` in a write transaction. With a key it runs once: later calls get the stored answer.
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
        Some(operation) => {
            let shown = Sight::of(tx, once.operator).await?.operation(operation);
            serde_json::to_value(shown).map_err(anyhow::Error::from)?
        }
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
