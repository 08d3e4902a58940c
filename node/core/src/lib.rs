//! The trade of a node on ports.
pub mod patient;
