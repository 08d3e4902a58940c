//! Proof that an audit entry is durable: the second key of the document's door (law 1).
//!
//! Only the log mints a [`Receipt`], after the sync. It cannot be made:
//!
//! ```compile_fail,E0451
//! use hie_node_core::audit::receipt::Receipt;
//! use hie_protocol::id::{Millis, TreeHash};
//! let forged = Receipt { index: 0, leaf: TreeHash::new([0; 32]), at: Millis(0) };
//! ```
//!
//! nor copied:
//!
//! ```compile_fail,E0599
//! fn twice(receipt: hie_node_core::audit::receipt::Receipt) {
//!     let second = receipt.clone();
//! }
//! ```
//!
//! nor used twice:
//!
//! ```compile_fail,E0382
//! fn open(_: hie_node_core::audit::receipt::Receipt) {}
//! fn twice(receipt: hie_node_core::audit::receipt::Receipt) {
//!     open(receipt);
//!     open(receipt);
//! }
//! ```

use std::sync::Arc;

use hie_protocol::id::{Correlation, DocumentId, Millis, OrgId, TreeHash};
use hie_protocol::message;
use hie_protocol::sign::{SignError, Signer};
use hie_protocol::vocabulary::Purpose;

use super::event::{AuditEvent, EventKind, Outcome};

/// The entry is in the log, and synced.
#[derive(Debug)]
#[must_use = "a receipt is the proof that an entry is durable"]
pub struct Receipt {
    log: Arc<OrgId>,
    index: u64,
    leaf: TreeHash,
    at: Millis,
    kind: EventKind,
    outcome: Outcome,
    correlation: Correlation,
    documents: Vec<DocumentId>,
}

impl Receipt {
    /// Minted by the log alone, for an entry that is durable.
    pub(super) fn mint(log: Arc<OrgId>, index: u64, leaf: TreeHash, event: &AuditEvent) -> Self {
        Self {
            log,
            index,
            leaf,
            at: event.at,
            kind: event.kind,
            outcome: event.outcome,
            correlation: event.correlation,
            documents: event.documents.clone(),
        }
    }

    /// Position of the entry.
    #[must_use]
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// RFC 6962 leaf hash of the entry.
    #[must_use]
    pub const fn leaf(&self) -> TreeHash {
        self.leaf
    }

    /// Time of the entry.
    #[must_use]
    pub const fn at(&self) -> Millis {
        self.at
    }

    /// What the entry says happened.
    #[must_use]
    pub const fn kind(&self) -> EventKind {
        self.kind
    }

    /// Question of the entry.
    #[must_use]
    pub const fn correlation(&self) -> Correlation {
        self.correlation
    }

    /// Whether the entry says that this document is released: the door asks before it opens.
    #[must_use]
    pub fn covers(&self, document: &DocumentId) -> bool {
        let releases = matches!(
            self.kind,
            EventKind::DisclosureSent
                | EventKind::RecordOpened
                | EventKind::EmergencyUsed
                | EventKind::QuestionAnswered
        );
        releases && self.outcome == Outcome::Success && self.documents.contains(document)
    }

    /// The signed receipt that travels with the data to `audience` ([`message::Receipt`]).
    ///
    /// Errors: [`SignError`].
    pub fn sign(&self, audience: &OrgId, purpose: Purpose, signer: &dyn Signer) -> Result<Vec<u8>, SignError> {
        let receipt = message::Receipt {
            log: OrgId::clone(&self.log),
            index: self.index,
            leaf: self.leaf,
            correlation: self.correlation,
            audience: audience.clone(),
            purpose,
            at: self.at,
        };
        receipt.sign(signer)
    }
}
