//! A deterministic simulator of the federated index: many nodes, virtual time, one seed.
//!
//! Everything that can go wrong between organisations goes wrong here on purpose: loss, duplication,
//! reordering, partitions in both directions or in one, crashes that forget what was not synced, power cuts of
//! several nodes at once, clocks that differ, drift and step, members that join, leave, are put out and intrude,
//! and one that lies. An oracle with its own truth judges every answer. One seed gives one run, always the same.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test rig: a broken assumption must stop the run"
)]

pub mod climate;
pub mod crowd;
pub mod disk;
mod faults;
pub mod liar;
mod network;
pub mod node;
mod office;
pub mod oracle;
pub mod planted;
pub mod rng;
mod trace;
pub mod workload;
pub mod world;
