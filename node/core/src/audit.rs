//! The audit log: append-only, one RFC 6962 tree for each node, durable before anything is released.
//!
//! - An entry, its tree nodes, its index entries and the caller's own writes become true in one synced commit;
//!   only then is a [`receipt::Receipt`] minted (laws 1, 6, 7).
//! - Signed checkpoints (C2SP) follow at most [`log::CHECKPOINT_MS_MAX`] behind an entry.
//! - On open the whole tree is recomputed and compared with the last checkpoint; a mismatch refuses to run and
//!   names the entry.
//! - The log never forgets: a patient's erasure leaves entries about a reference that names nobody.

pub mod event;
pub mod receipt;
