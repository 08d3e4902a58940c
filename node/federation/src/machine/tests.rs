#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod asking;
mod beats;
mod holding;
mod members;
mod owning;
mod region;
