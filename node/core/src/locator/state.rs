//! What this node publishes of a patient: the record key, the token outputs, and a stable handle for each record.
//!
//! Outputs of the oblivious function are kept (sealed under the patient's key), so that publishing again asks
//! no authority. Each token has a handle of its own: a dump of the index does not link a patient's tokens.

use core::fmt;
use std::sync::Arc;

use hie_protocol::id::{ContentHash, DocumentId, IndexKey, OrgId, RecordHandle};
use serde::{Deserialize, Serialize};

use crate::catalogue::Table;
use crate::ids::PatientKey;
use crate::kv::{Batch, Kv, KvError};
use crate::ports::{NoRandomness, Random, random_bytes};
use crate::vault::{KeyScope, Vault, VaultError};
use crate::versioned::{self, Stored, VersionedError};

/// A token of the patient and its pointer.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRow {
    /// Input of the function.
    pub input: String,
    /// Its output, 64 bytes.
    #[serde(with = "hie_protocol::bytes")]
    pub output: Vec<u8>,
    /// Name of the pointer.
    pub handle: RecordHandle,
    /// Digest of what a write quorum has; none when nothing is published.
    pub told: Option<ContentHash>,
}

/// A document of the patient and its locator.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentRow {
    /// The document.
    pub document: DocumentId,
    /// Name of the locator.
    pub handle: RecordHandle,
    /// Digest of what a write quorum has; none when nothing is published.
    pub told: Option<ContentHash>,
}

/// Everything published of one patient.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocatorRow {
    /// Leads from a pointer to the locators, 32 bytes.
    #[serde(with = "hie_protocol::bytes")]
    pub record_key: Vec<u8>,
    /// Tokens.
    pub tokens: Vec<TokenRow>,
    /// Documents.
    pub documents: Vec<DocumentRow>,
    /// Organisations that the published labels exclude.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub excluded: Vec<OrgId>,
    /// Records under names that are used no more: each is deleted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retired: Vec<RetiredRow>,
}

/// A record that was published under a name that is used no more.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetiredRow {
    /// Where it is stored.
    pub key: IndexKey,
    /// Its name.
    pub handle: RecordHandle,
}

impl Stored for LocatorRow {
    const VERSION: u8 = 1;
}

impl fmt::Debug for LocatorRow {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "LocatorRow({} tokens, {} documents)",
            self.tokens.len(),
            self.documents.len()
        )
    }
}

/// Why the state cannot be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// The store.
    #[error("what is published cannot be read or written")]
    Store(#[from] KvError),
    /// The vault.
    #[error("what is published cannot be opened or sealed")]
    Vault(#[from] VaultError),
    /// A stored value.
    #[error("what is published is malformed")]
    Value(#[from] VersionedError),
    /// No random bytes.
    #[error("no handle can be made")]
    Random(#[from] NoRandomness),
}

/// The table.
#[derive(Clone)]
pub struct LocatorStates {
    kv: Arc<dyn Kv>,
    vault: Arc<Vault>,
}

impl fmt::Debug for LocatorStates {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("LocatorStates")
    }
}

impl LocatorStates {
    /// The table in the store.
    #[must_use]
    pub fn new(kv: Arc<dyn Kv>, vault: Arc<Vault>) -> Self {
        Self { kv, vault }
    }

    /// What is published of a patient, or a new empty state. Errors: [`StateError`].
    pub fn read(&self, patient: PatientKey, random: &dyn Random) -> Result<LocatorRow, StateError> {
        match self.kv.get(Table::Locators, &patient.0)? {
            Some(sealed) => {
                let plain = self
                    .vault
                    .open_value(KeyScope::Patient(patient), Table::Locators, &patient.0, &sealed)?;
                Ok(versioned::decode(&plain)?)
            }
            None => {
                let record_key = random_bytes::<32>(random)?.to_vec();
                Ok(LocatorRow {
                    record_key,
                    tokens: Vec::new(),
                    documents: Vec::new(),
                    excluded: Vec::new(),
                    retired: Vec::new(),
                })
            }
        }
    }

    /// Writes the state, synced, together with `batch`. Errors: [`StateError`].
    pub fn write(&self, patient: PatientKey, row: &LocatorRow, mut batch: Batch) -> Result<(), StateError> {
        let plain = versioned::encode(row)?;
        let sealed = self
            .vault
            .seal(KeyScope::Patient(patient), Table::Locators, &patient.0, &plain)?;
        batch.put(Table::Locators, patient.0, sealed);
        Ok(self.kv.commit(batch)?)
    }
}
