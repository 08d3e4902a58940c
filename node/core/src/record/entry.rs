//! Document entries: what this node holds, under a random id that stays through every update.
//!
//! A document is found again by its source id, so that an import run twice changes nothing. Entries are
//! sealed under their patient's key; the patient key itself is random and stands in front.

use core::fmt;
use std::sync::Arc;

use hie_consent::directive::Code;
use hie_consent::request::ItemFacts;
use hie_protocol::id::{DocumentId, Millis, OrgId};
use hie_protocol::message::DocumentMeta;
use hie_protocol::refusal::Class;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::catalogue::Table;
use crate::content::ContentRef;
use crate::ids::PatientKey;
use crate::kv::{Batch, Kv, KvError, Scan};
use crate::ports::NoRandomness;
use crate::vault::{KeyScope, Vault, VaultError};
use crate::versioned::{self, Stored, VersionedError};

/// Most documents of one patient that are listed.
pub const DOCUMENTS_PER_PATIENT_MAX: usize = 4096;
/// Value of a table whose keys say everything.
pub(crate) const PRESENT: u8 = 1;

/// Where the bytes of a document are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// In a table, because it is small.
    Inline,
    /// In the content store.
    Content(ContentRef),
    /// Assembled when it is retrieved.
    OnDemand,
    /// A study: its instances are contents of their own.
    Study,
}

/// A document as this node holds it.
#[derive(Clone, Serialize, Deserialize)]
pub struct Entry {
    /// Whose.
    pub patient: PatientKey,
    /// What it is; id, size and hash included.
    pub meta: DocumentMeta,
    /// Where its bytes are.
    pub place: Place,
    /// Replaced or withdrawn: neither listed nor released.
    pub superseded: bool,
    /// It carries a security label that is not in the protocol's vocabulary: the judge denies it.
    pub unknown_labels: bool,
    /// The organisation that wrote it.
    pub author_org: Option<OrgId>,
    /// Who wrote it, by the ids of this organisation.
    pub authors: Vec<String>,
    /// Its name at its source.
    pub source: String,
    /// When it was stored.
    pub stored: Millis,
}

impl Stored for Entry {
    const VERSION: u8 = 1;
}

impl fmt::Debug for Entry {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Entry({:?}, {:?})", self.meta.id, self.meta.class)
    }
}

impl Entry {
    /// The id.
    #[must_use]
    pub const fn id(&self) -> DocumentId {
        self.meta.id
    }

    /// What the judge is told.
    #[must_use]
    pub fn facts(&self) -> ItemFacts {
        let meta = &self.meta;
        let codings = [&meta.kind, &meta.category, &meta.format];
        ItemFacts {
            document: meta.id,
            class: meta.class,
            codings: codings
                .into_iter()
                .flatten()
                .map(|coding| Code::new(&coding.system, &coding.code))
                .collect(),
            confidentiality: meta.confidentiality,
            sensitivity: meta.sensitivity.clone(),
            unknown_labels: self.unknown_labels,
            created: meta.created,
            period: meta.period,
            author_org: self.author_org.clone(),
            authors: self.authors.clone(),
        }
    }
}

/// Why records cannot be read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The study belongs to another patient, or an instance came again with other bytes.
    #[error("{what}; correct it at the source")]
    Conflict {
        /// What does not fit.
        what: &'static str,
    },
    /// A limit.
    #[error("over the limit of {what}")]
    Limit {
        /// Which.
        what: &'static str,
    },
    /// The store.
    #[error("the records cannot be read or written")]
    Store(#[from] KvError),
    /// The vault.
    #[error("the records cannot be opened or sealed")]
    Vault(#[from] VaultError),
    /// A stored value.
    #[error("a stored record cannot be read")]
    Value(#[from] VersionedError),
    /// No random bytes.
    #[error("no document id can be made")]
    Random(#[from] NoRandomness),
}

impl RecordError {
    /// Who must act.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Conflict { .. } | Self::Limit { .. } => Class::Invalid,
            Self::Store(error) => error.class(),
            Self::Vault(error) => error.class(),
            Self::Value(_) | Self::Random(_) => Class::Broken,
        }
    }
}

/// The table of entries.
#[derive(Clone)]
pub struct Records {
    pub(crate) kv: Arc<dyn Kv>,
    pub(crate) vault: Arc<Vault>,
}

impl fmt::Debug for Records {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Records")
    }
}

impl Records {
    /// Records over the store.
    #[must_use]
    pub fn new(kv: Arc<dyn Kv>, vault: Arc<Vault>) -> Self {
        Self { kv, vault }
    }

    /// Reads an entry; none when unknown or its patient was erased. Errors: [`RecordError`].
    pub fn entry(&self, document: &DocumentId) -> Result<Option<Entry>, RecordError> {
        let Some(stored) = self.kv.get(Table::Records, document.as_bytes())? else {
            return Ok(None);
        };
        let Some((patient, sealed)) = owned(&stored) else {
            return Ok(None);
        };
        self.open(patient, Table::Records, document.as_bytes(), sealed)
    }

    /// The entries of a patient that are not superseded, newest first. Errors: [`RecordError`].
    pub fn of_patient(&self, patient: PatientKey) -> Result<Vec<Entry>, RecordError> {
        let pairs = self
            .kv
            .scan(&Scan::of(Table::DocumentsByPatient, &patient.0).limit(DOCUMENTS_PER_PATIENT_MAX))?;
        let mut entries = Vec::with_capacity(pairs.len());
        for (key, _) in pairs {
            let Some(document) = key.get(16..).and_then(|bytes| DocumentId::from_slice(bytes).ok()) else {
                continue;
            };
            entries.extend(
                self.entry(&document)?
                    .filter(|entry| !entry.superseded && entry.patient == patient),
            );
        }
        entries.sort_by_key(|entry| core::cmp::Reverse((entry.meta.created, entry.meta.id)));
        Ok(entries)
    }

    /// The document of a source id. Errors: [`RecordError::Store`].
    pub fn by_source(&self, source: &str) -> Result<Option<DocumentId>, RecordError> {
        let stored = self.kv.get(Table::DocumentSources, &self.source_key(source))?;
        Ok(stored.and_then(|bytes| DocumentId::from_slice(&bytes).ok()))
    }

    /// Writes an entry and, when its place is [`Place::Inline`], its bytes. Errors: [`RecordError`].
    pub fn put(&self, entry: &Entry, inline: Option<&[u8]>, batch: &mut Batch) -> Result<(), RecordError> {
        let id = entry.meta.id;
        self.seal(entry.patient, Table::Records, id.as_bytes(), entry, batch)?;
        batch.put(
            Table::DocumentsByPatient,
            [entry.patient.0.as_slice(), id.as_bytes()].concat(),
            [PRESENT],
        );
        batch.put(Table::DocumentSources, self.source_key(&entry.source), *id.as_bytes());
        match inline {
            Some(bytes) if entry.place == Place::Inline => {
                let scope = KeyScope::Patient(entry.patient);
                let sealed = self.vault.seal(scope, Table::RecordContents, id.as_bytes(), bytes)?;
                batch.put(Table::RecordContents, *id.as_bytes(), sealed);
            }
            _ => batch.delete(Table::RecordContents, *id.as_bytes()),
        }
        Ok(())
    }

    /// The bytes of an inlined document. Private to the door and the tables of this module.
    pub(super) fn inline(&self, entry: &Entry) -> Result<Option<Zeroizing<Vec<u8>>>, RecordError> {
        let id = entry.meta.id;
        let Some(sealed) = self.kv.get(Table::RecordContents, id.as_bytes())? else {
            return Ok(None);
        };
        Ok(Some(self.vault.open_value(
            KeyScope::Patient(entry.patient),
            Table::RecordContents,
            id.as_bytes(),
            &sealed,
        )?))
    }

    /// Seals a value of a patient, her key in front.
    pub(super) fn seal<T: Stored>(
        &self,
        patient: PatientKey,
        table: Table,
        key: &[u8],
        value: &T,
        batch: &mut Batch,
    ) -> Result<(), RecordError> {
        let sealed = self
            .vault
            .seal(KeyScope::Patient(patient), table, key, &versioned::encode(value)?)?;
        batch.put(table, key, [patient.0.as_slice(), &sealed].concat());
        Ok(())
    }

    /// Opens what [`Self::seal`] made; none for an erased patient.
    pub(super) fn open<T: Stored>(
        &self,
        patient: PatientKey,
        table: Table,
        key: &[u8],
        sealed: &[u8],
    ) -> Result<Option<T>, RecordError> {
        match self.vault.open_value(KeyScope::Patient(patient), table, key, sealed) {
            Ok(plain) => Ok(Some(versioned::decode(&plain)?)),
            Err(VaultError::Erased) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn source_key(&self, source: &str) -> [u8; 16] {
        self.vault.blind_key("document-source", source.as_bytes())
    }
}

/// Splits a value written by [`Records::seal`] into patient and sealed bytes.
pub(super) fn owned(stored: &[u8]) -> Option<(PatientKey, &[u8])> {
    let (patient, sealed) = stored.split_at_checked(16)?;
    Some((PatientKey::from_slice(patient)?, sealed))
}
