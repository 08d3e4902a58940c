//! A deterministic simulator of the federated index: many nodes, virtual time, one seed.
//!
//! Everything that can go wrong between organisations goes wrong here on purpose: loss, duplication,
//! reordering, partitions, crashes that forget what was not synced, power cuts of several nodes at once,
//! clocks that differ and step, members that come and go, and one that lies. An oracle with its own truth
//! judges every answer. One seed gives one run, always the same.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test rig: a broken assumption must stop the run"
)]

pub mod disk;
pub mod liar;
pub mod node;
pub mod oracle;
pub mod planted;
pub mod rng;
pub mod workload;
pub mod world;
