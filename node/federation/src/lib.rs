//! The federated index of one node as a deterministic machine: owner, holder and asker in one `step`.
//!
//! ```text
//!   input + now + what is kept  --->  Federation::step  --->  effects in order
//! ```
//!
//! The machine owns no clock, disk, network, key or random source. A shell (the peer process, or a
//! simulator) carries out the effects and feeds back what happened. Two machines with equal inputs give
//! equal effects, byte for byte (SPEC Part I, F rules).

pub mod asker;
pub mod beat;
pub mod config;
pub mod holder;
pub mod machine;
pub mod membership;
pub mod owner;
pub mod placement;
pub mod port;
pub mod table;
