//! Locks of this process.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex also after a holder panicked. Only for data that is whole at every point where a holder may panic.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
