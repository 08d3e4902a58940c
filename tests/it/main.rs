//! The one integration binary: tidy rules, simulation and stories.

<<<<<<< HEAD
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod tidy;
=======

mod simulation;
>>>>>>> federation
