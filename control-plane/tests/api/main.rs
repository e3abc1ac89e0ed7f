//! The API through the real router, in-process.

mod images;
