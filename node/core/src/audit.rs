//! The audit log: append-only, one RFC 6962 tree for each node, durable before anything is released.
//!
//! - An entry, its tree nodes, its index entries and the caller's own writes become true in one synced commit;
//!   only then is a [`receipt::Receipt`] minted (laws 1, 6, 7).
//! - Signed checkpoints (C2SP) follow at most [`log::CHECKPOINT_MS_MAX`] behind an entry.
//! - On open the whole tree is recomputed and compared with the last checkpoint; a mismatch refuses to run and
//!   names the entry.
//! - The log never forgets: a patient's erasure leaves entries about a reference that names nobody.

pub mod event;
pub mod log;
pub mod receipt;
pub mod render;
pub mod search;
pub mod verify;

mod tables;

use hie_protocol::checkpoint::CheckpointError;
use hie_protocol::checkpoint::note::NoteError;
use hie_protocol::merkle::MerkleError;
use hie_protocol::refusal::Class;

use self::event::EventError;
use crate::kv::KvError;
use crate::vault::VaultError;

/// Why the log does not append, open or answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuditError {
    /// An entry is not what it was when it was written.
    #[error(
        "the audit log was altered at entry {index}; the node does not run on it: keep the disk as evidence and \
         restore the node from a backup"
    )]
    Altered {
        /// First entry that does not fit.
        index: u64,
    },
    /// Entries are missing at the end.
    #[error(
        "the audit log ends at entry {size} but its checkpoint covers {expected}; the node does not run on it: keep \
         the disk as evidence and restore the node from a backup"
    )]
    Truncated {
        /// Entries present.
        size: u64,
        /// Entries signed for.
        expected: u64,
    },
    /// The stored checkpoint is not one of this node's.
    #[error(
        "the checkpoint of the audit log at size {size} is not signed by this node; was the node's key replaced? \
         The node does not run on it"
    )]
    CheckpointForged {
        /// Size in the checkpoint's place.
        size: u64,
    },
    /// The log has no key to sign with.
    #[error("the audit log was opened without a key of the node")]
    NoKey,
    /// Over a limit of one call.
    #[error("too many events or writes in one append to the audit log")]
    Limit,
    /// Too many appends wait.
    #[error("the audit log is busy; try again")]
    Busy,
    /// A cosignature without its witness's signature.
    #[error("the cosignature is not of the witness that sent it")]
    Cosignature,
    /// The event itself.
    #[error("the event cannot be written")]
    Event(#[from] EventError),
    /// Checkpoint form or signature.
    #[error("a checkpoint is refused")]
    Checkpoint(#[from] CheckpointError),
    /// Key form.
    #[error("a key of the log is refused")]
    Note(#[from] NoteError),
    /// The tree.
    #[error("the audit tree refuses")]
    Tree(#[from] MerkleError),
    /// The vault.
    #[error("an entry cannot be sealed or opened")]
    Vault(#[from] VaultError),
    /// The store.
    #[error("the audit log cannot be stored or read")]
    Store(#[from] KvError),
}

impl AuditError {
    /// Who must act.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Limit | Self::Event(_) => Class::Invalid,
            Self::Busy => Class::Unavailable,
            Self::Cosignature | Self::Checkpoint(_) => Class::Misbehaved,
            Self::Vault(error) => error.class(),
            Self::Store(error) => error.class(),
            _ => Class::Broken,
        }
    }
}

#[cfg(test)]
mod tests;
