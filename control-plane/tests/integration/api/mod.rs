//! The API through the real router, in-process, on a real SQLite file.

mod access;
mod daemon;
mod drains;
mod events;
mod flips;
mod idempotency;
mod images;
mod networks;
mod nodes;
mod openapi;
mod operations;
mod repository;
mod restored;
mod sessions;
mod shapes;
mod world;
