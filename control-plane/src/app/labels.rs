//! Labels of things of all kinds.

use muster_api::{Labels, LabelsPatch};

use super::AppError;

/// The labels of a thing after a PATCH.
pub(super) fn patched(before: &Labels, patch: &LabelsPatch) -> Result<Labels, AppError> {
    patch.apply(before).map_err(|why| AppError::invalid("/labels", "invalid", why))
}
