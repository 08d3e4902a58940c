//! The desk: what the gateway may ask of this node, each port a small struct over the trade and the region.
//!
//! A port decides nothing itself: it asks the judge, the audit log and the door, and turns their answers into
//! words that are safe to show.

pub mod accounts;
pub mod archive;
pub mod caller;
pub mod consents;
pub mod log;
pub mod pictures;
pub mod state;
