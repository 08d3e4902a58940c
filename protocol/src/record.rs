//! Index records: pointers and locators, signed by their owner, sealed against their holders.
//!
//! ```text
//! token --PRF--> index key ----> Pointer { handle, label, sealed { record key, kinds, years } }
//!                seal key  ------------------------^
//! record key --HKDF--> locator key -> Locator { handle, label, sealed { document, class, ... } }
//!                      locator seal key ---------------^
//! ```
//!
//! A holder sees: key, owner, handle, sequence, label, expiry, and bytes it cannot open. One writer per
//! record: (owner, key, handle) with the highest sequence wins; deletion is a signed tombstone (SPEC P-REC).

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::bytes::Bytes;
use crate::cbor;
use crate::id::{ConsentEpoch, ContentHash, DocumentId, IndexKey, Millis, NodeKey, OrgId, RecordHandle, Sequence};
use crate::registry::{Registry, Standing};
use crate::sign::{self, DOMAIN_RECORD, SignError, Signer};
use crate::vocabulary::{Confidentiality, DocumentClass, Sensitivity};

/// Largest signed index record, in bytes.
pub const RECORD_BYTES_MAX: usize = 4096;
/// Largest sealed part, in bytes.
pub const SEALED_BYTES_MAX: usize = 2048;
/// Most organisations that one label excludes.
pub const EXCLUDED_MAX: usize = 32;

/// Readable disclosure label. A holder uses it only to hold back, never to grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// Confidentiality of what the record points to.
    pub confidentiality: Confidentiality,
    /// Organisations that must not see the record, sorted.
    pub excluded: Vec<OrgId>,
    /// Consent epoch at the owner when the record was signed.
    pub epoch: ConsentEpoch,
}

impl Label {
    /// A label that excludes nobody.
    #[must_use]
    pub const fn open(epoch: ConsentEpoch) -> Self {
        Self {
            confidentiality: Confidentiality::Normal,
            excluded: Vec::new(),
            epoch,
        }
    }
}

/// Live bytes or a tombstone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecordContent {
    /// Sealed for whoever can derive the seal key: 12 bytes nonce, then ChaCha20-Poly1305 ciphertext.
    Live(Bytes),
    /// Deleted by the owner.
    Tombstone,
}

/// What an owner signs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexRecord {
    /// Owner.
    pub owner: OrgId,
    /// Where it is stored.
    pub key: IndexKey,
    /// Its name under that key.
    pub handle: RecordHandle,
    /// The owner's durable counter.
    pub sequence: Sequence,
    /// Disclosure label.
    pub label: Label,
    /// The holder forgets it after this time unless the owner renews it.
    pub expires: Millis,
    /// Content.
    pub content: RecordContent,
}

/// Identity of a record at every holder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId {
    /// Where it is stored.
    pub key: IndexKey,
    /// Owner.
    pub owner: OrgId,
    /// Its name under that key.
    pub handle: RecordHandle,
}

/// A signed record as it travels and is stored: COSE_Sign1 over the deterministic CBOR of [`IndexRecord`].
pub type SignedRecord = Bytes;

/// Why a record is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Envelope or signature.
    #[error("the record is not signed by its owner")]
    Signed(#[from] SignError),
    /// Content form.
    #[error("the record is malformed")]
    Frame(#[from] cbor::FrameError),
    /// The signer is a member, but not the owner.
    #[error("{signer} signed a record of {owner}")]
    NotOwner {
        /// Organisation of the signing key.
        signer: OrgId,
        /// Owner written in the record.
        owner: OrgId,
    },
    /// The owner no longer takes part.
    #[error("the owner {0} is revoked")]
    Revoked(OrgId),
    /// A limit is exceeded.
    #[error("the record exceeds the limit of its {0}")]
    Limit(&'static str),
    /// The record is past its expiry.
    #[error("the record is expired")]
    Expired,
}

/// A record whose signature and owner were checked against the registry. Cannot be made otherwise.
#[derive(Clone, PartialEq, Eq)]
pub struct VerifiedRecord {
    record: IndexRecord,
    signed: SignedRecord,
}

impl fmt::Debug for VerifiedRecord {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "VerifiedRecord({}, {:?}, {:?})",
            self.record.owner, self.record.handle, self.record.sequence
        )
    }
}

impl IndexRecord {
    /// Identity of the record.
    #[must_use]
    pub fn id(&self) -> RecordId {
        RecordId {
            key: self.key,
            owner: self.owner.clone(),
            handle: self.handle,
        }
    }

    /// Whether the record is deleted.
    #[must_use]
    pub const fn is_tombstone(&self) -> bool {
        matches!(self.content, RecordContent::Tombstone)
    }

    /// Signs the record as its owner. Errors: [`RecordError::Signed`], [`RecordError::Limit`].
    pub fn sign(self, owner: &dyn Signer) -> Result<VerifiedRecord, RecordError> {
        self.check()?;
        let signed = sign::sign(DOMAIN_RECORD, cbor::encode(&self)?, owner)?;
        if signed.len() > RECORD_BYTES_MAX {
            return Err(RecordError::Limit("bytes"));
        }
        Ok(VerifiedRecord {
            record: self,
            signed: Bytes(signed),
        })
    }

    fn check(&self) -> Result<(), RecordError> {
        if self.label.excluded.len() > EXCLUDED_MAX {
            return Err(RecordError::Limit("excluded organisations"));
        }
        match &self.content {
            RecordContent::Live(sealed) if sealed.0.len() > SEALED_BYTES_MAX => Err(RecordError::Limit("sealed bytes")),
            _ => Ok(()),
        }
    }
}

impl VerifiedRecord {
    /// Verifies a signed record against the registry: the signing node belongs to the owner, and the owner
    /// is not revoked. Errors: every [`RecordError`] but `Expired`.
    pub fn verify(signed: &SignedRecord, registry: &Registry) -> Result<Self, RecordError> {
        let find = |node: &NodeKey| registry.node(node).map(|(_, entry)| entry.public);
        let verified = sign::verify(DOMAIN_RECORD, &signed.0, RECORD_BYTES_MAX, find)?;
        let record: IndexRecord = cbor::decode(&verified.payload, RECORD_BYTES_MAX)?;
        record.check()?;
        let (member, _) = registry
            .node(&verified.node)
            .ok_or(SignError::UnknownSigner(verified.node))?;
        if member.org != record.owner {
            return Err(RecordError::NotOwner {
                signer: member.org.clone(),
                owner: record.owner,
            });
        }
        // What a suspended member published stays: whoever finds it learns of a gap that has a name.
        if matches!(member.standing, Standing::Revoked(_)) {
            return Err(RecordError::Revoked(record.owner));
        }
        Ok(Self {
            record,
            signed: signed.clone(),
        })
    }

    /// The record.
    #[must_use]
    pub const fn record(&self) -> &IndexRecord {
        &self.record
    }

    /// The signed bytes.
    #[must_use]
    pub const fn signed(&self) -> &SignedRecord {
        &self.signed
    }
}

/// What a pointer seals: readable by whoever knows the token's fields.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PointerSecret {
    /// Leads to the owner's locators for this patient.
    #[serde(with = "crate::bytes")]
    pub record_key: Vec<u8>,
    /// Kinds of documents held.
    pub classes: Vec<DocumentClass>,
    /// First and last year of them, if known.
    pub years: Option<(u16, u16)>,
}

/// What a locator seals.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocatorSecret {
    /// The owner's document id.
    pub document: DocumentId,
    /// Kind.
    pub class: DocumentClass,
    /// Type coding `(system, code)`, for example LOINC.
    pub kind: Option<(String, String)>,
    /// MIME type.
    pub content_type: String,
    /// Creation time.
    pub created: Option<Millis>,
    /// Start and end of the service period.
    pub period: Option<(Millis, Millis)>,
    /// Size in bytes; none for an on-demand document.
    pub size: Option<u64>,
    /// SHA-256; none for an on-demand document.
    pub hash: Option<ContentHash>,
    /// Sensitivity codes, so that the asker can see what kind of access is needed.
    pub sensitivity: Vec<Sensitivity>,
    /// For imaging: what the study holds.
    pub imaging: Option<ImagingSummary>,
}

/// An imaging study in short.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImagingSummary {
    /// Study Instance UID.
    pub study_uid: String,
    /// Modalities (DICOM CS values).
    pub modalities: Vec<String>,
    /// Body part examined.
    pub body_part: Option<String>,
    /// Number of series.
    pub series: u32,
    /// Number of instances.
    pub instances: u32,
}

macro_rules! hidden_debug {
    ($($name:ident),+) => {
        $(impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(concat!(stringify!($name), "(hidden)"))
            }
        })+
    };
}

hidden_debug!(PointerSecret, LocatorSecret, ImagingSummary);
