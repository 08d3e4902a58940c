//! What the targets share: one region with fixed keys, whose bytes are the same in every run.

pub mod region;
pub mod same;
