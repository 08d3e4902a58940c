//! The harness of the project: what the tests share.

pub mod region;
pub mod sim;
pub mod stage;
