//! Slow work as callers see it: begin, look, wait, cancel.

use super::AppError;
use crate::store::{
    Tx,
    operations::{self, NewOperation, Origin},
};
use muster_api::operation::Operation;

/// Begins an operation, or says which one runs on the target already.
pub async fn begin_operation(tx: &mut Tx, origin: &Origin, new: NewOperation) -> Result<Operation, AppError> {
    if let Some(operation) = operations::running_on(tx, &new.target.kind, &new.target.id).await? {
        return Err(AppError::Busy { operation });
    }
    Ok(operations::create(tx, origin, new).await?)
}
