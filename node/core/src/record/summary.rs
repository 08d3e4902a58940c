//! The clinical resources of a patient, kept for the summary that is assembled when somebody opens it.
//!
//! What a summary looks like (an IPS document Bundle) is not known here: a port assembles it.

use hie_protocol::id::Millis;
use hie_protocol::refusal::Class;
use serde_json::Value;

use crate::catalogue::Table;
use crate::ids::PatientKey;
use crate::kv::{Batch, SCAN_LIMIT_MAX, Scan};
use crate::record::entry::{RecordError, Records};
use crate::vault::{KeyScope, VaultError};

/// Largest resource kept, in bytes; a larger one is a document, not a fact.
pub const RESOURCE_BYTES_MAX: usize = 128 * 1024;
/// Most resources of one patient.
pub const RESOURCES_MAX: usize = 20_000;

/// Why no summary can be assembled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no summary can be assembled: {what}")]
pub struct SummaryError {
    /// In words without personal data.
    pub what: String,
}

impl SummaryError {
    /// Who must act.
    #[must_use]
    pub const fn class(&self) -> Class {
        Class::Broken
    }
}

/// Assembles a summary document from a patient and her clinical resources.
pub trait Summaries: Send + Sync + 'static {
    /// The bytes of the document. Errors: [`SummaryError`].
    fn assemble(&self, patient: &Value, resources: &[Value], now: Millis) -> Result<Vec<u8>, SummaryError>;
}

impl Records {
    /// Keeps a resource under its name (type and id at the source); the same name replaces it.
    /// Errors: [`RecordError`].
    pub fn put_resource(
        &self,
        patient: PatientKey,
        name: &str,
        resource: &Value,
        batch: &mut Batch,
    ) -> Result<(), RecordError> {
        let bytes = resource.to_string().into_bytes();
        if bytes.len() > RESOURCE_BYTES_MAX {
            return Err(RecordError::Limit {
                what: "bytes of a clinical resource",
            });
        }
        let key = [patient.0.as_slice(), &self.vault.blind_key("resource", name.as_bytes())].concat();
        let sealed = self
            .vault
            .seal(KeyScope::Patient(patient), Table::PatientResources, &key, &bytes)?;
        batch.put(Table::PatientResources, key, sealed);
        Ok(())
    }

    /// The clinical resources of a patient. Errors: [`RecordError`].
    pub fn resources(&self, patient: PatientKey) -> Result<Vec<Value>, RecordError> {
        let mut found = Vec::new();
        let mut after: Vec<u8> = Vec::new();
        loop {
            let scan = Scan::of(Table::PatientResources, &patient.0);
            let pairs = self
                .kv
                .scan(&if after.is_empty() { scan } else { scan.after(&after) })?;
            let whole = pairs.len() < SCAN_LIMIT_MAX;
            for (key, sealed) in pairs {
                match self
                    .vault
                    .open_value(KeyScope::Patient(patient), Table::PatientResources, &key, &sealed)
                {
                    Ok(plain) => found.extend(serde_json::from_slice::<Value>(&plain).ok()),
                    Err(VaultError::Erased) => return Ok(Vec::new()),
                    Err(error) => return Err(error.into()),
                }
                after = key;
            }
            if whole || found.len() >= RESOURCES_MAX {
                return Ok(found);
            }
        }
    }
}
