//! The built-in CA.

/// Signs.
#[derive(Debug)]
pub struct Authority;
