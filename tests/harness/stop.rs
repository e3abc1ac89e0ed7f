//! Ends the threads of a test when the test fails.

use std::sync::atomic::{AtomicBool, Ordering};

/// Sets a flag when it is dropped.
///
/// A scope waits for its threads before it lets a panic through. Threads that work until a flag is set would then work
/// for ever, and a test that failed would look like one that hangs.
pub struct StopOnDrop<'a>(pub &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
