//! The one integration binary: tidy rules, simulation and stories.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod simulation;
mod spec;
mod stories;
mod tidy;
