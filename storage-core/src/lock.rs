//! The one way this project takes a lock that a panic may have poisoned.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Takes a lock, also one whose holder panicked. Use it where every critical section leaves its value whole at each
/// step, so that a panic in one of them breaks nothing for the others.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
