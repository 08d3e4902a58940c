//! Taking in: patients, documents and study instances of this organisation's own systems.
//!
//! Entry, mark for the index and audit leaf become true in one commit. The mark says that the patient's index
//! records must be brought up to date; it stays until a write quorum of index holders has them, so that a
//! crash at any point loses nothing that was acknowledged. Everything is idempotent by its source id.

use core::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use hie_protocol::id::{ContentHash, Correlation, DocumentId, Millis, OrgId};
use hie_protocol::message::{Demographics, DocumentMeta};
use hie_protocol::refusal::Class;
use hie_protocol::vocabulary::{Confidentiality, DocumentClass};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::audit::AuditError;
use crate::audit::event::{Actor, AuditEvent, EventKind};
use crate::audit::log::AuditLog;
use crate::catalogue::Table;
use crate::content::{self, ContentError, ContentRef, ContentStore, INLINE_BYTES_MAX};
use crate::ids::PatientKey;
use crate::kv::Batch;
use crate::patient::index::{Outcome, PatientError, PatientIndex, Registered};
use crate::ports::{NoRandomness, Random, blocking, random_bytes};
use crate::record::entry::{Entry, PRESENT, Place, RecordError, Records};
use crate::record::study::{Added, NewInstance, da_millis};
use crate::vault::KeyScope;

/// Most documents or resources of one commit.
pub const COMMIT_DOCUMENTS_MAX: usize = 256;
/// Most bytes of clinical resources in one commit.
pub const COMMIT_RESOURCE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Largest document, in bytes.
pub const DOCUMENT_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Why something is not taken in.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// The patient.
    #[error("the patient cannot be taken in")]
    Patient(#[from] PatientError),
    /// The record.
    #[error("the document cannot be taken in")]
    Record(#[from] RecordError),
    /// The content.
    #[error("the content cannot be taken in")]
    Content(#[from] ContentError),
    /// The audit log.
    #[error("the intake cannot be recorded in the audit log")]
    Audit(#[from] AuditError),
    /// No random bytes.
    #[error("no id can be made")]
    Random(#[from] NoRandomness),
    /// A limit.
    #[error("over the limit of {what}; split it")]
    Limit {
        /// Which.
        what: &'static str,
    },
}

impl IntakeError {
    /// Who must act.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Patient(error) => error.class(),
            Self::Record(error) => error.class(),
            Self::Content(error) => error.class(),
            Self::Audit(error) => error.class(),
            Self::Random(_) => Class::Broken,
            Self::Limit { .. } => Class::Invalid,
        }
    }
}

/// Where the bytes of a new document are.
#[derive(Clone)]
pub enum Body {
    /// Here.
    Bytes(Bytes),
    /// Already durable in the content store under the patient's key ([`Intake::store`]).
    Stored(ContentRef),
    /// Assembled when it is retrieved: the patient's summary.
    OnDemand,
}

/// A document to take in.
#[derive(Clone)]
pub struct NewDocument {
    /// Its name at its source; the same name is the same document.
    pub source: String,
    /// What it is. Id, size and hash are set here and ignored when given.
    pub meta: DocumentMeta,
    /// Its bytes.
    pub body: Body,
    /// Replaced or withdrawn at its source.
    pub superseded: bool,
    /// It carries a security label outside the protocol's vocabulary.
    pub unknown_labels: bool,
    /// The organisation that wrote it.
    pub author_org: Option<OrgId>,
    /// Who wrote it.
    pub authors: Vec<String>,
}

/// What became of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Its id.
    pub document: DocumentId,
    /// Whether anything changed.
    pub changed: bool,
}

/// Who takes something in, for the audit log.
#[derive(Clone, Debug)]
pub struct Occasion {
    /// Who.
    pub actor: Actor,
    /// Names the import or message.
    pub correlation: Correlation,
    /// When.
    pub now: Millis,
}

/// Takes in patients, documents and instances.
pub struct Intake {
    records: Records,
    patients: Arc<PatientIndex>,
    contents: Arc<dyn ContentStore>,
    audit: Arc<AuditLog>,
    random: Arc<dyn Random>,
    /// Held by one writer from reading to commit.
    writer: Mutex<()>,
}

impl fmt::Debug for Intake {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Intake")
    }
}

/// Marks a patient's index records as out of date.
pub(crate) fn mark(patient: PatientKey, random: &dyn Random, batch: &mut Batch) -> Result<(), NoRandomness> {
    let mark: [u8; 8] = random_bytes(random)?;
    batch.put(Table::PublishQueue, [patient.0.as_slice(), &mark].concat(), [PRESENT]);
    Ok(())
}

impl Intake {
    /// Intake into the records.
    #[must_use]
    pub fn new(
        records: Records,
        patients: Arc<PatientIndex>,
        contents: Arc<dyn ContentStore>,
        audit: Arc<AuditLog>,
        random: Arc<dyn Random>,
    ) -> Self {
        Self {
            records,
            patients,
            contents,
            audit,
            random,
            writer: Mutex::new(()),
        }
    }

    /// Registers a patient under her source id. Blocks for one sync. Errors: [`IntakeError`].
    pub fn patient(
        &self,
        source: &str,
        patient: &Value,
        demographics: &Demographics,
        occasion: &Occasion,
    ) -> Result<Registered, IntakeError> {
        let _writer = self.patients.write_lock();
        let mut batch = Batch::new();
        let registered = self.patients.register(source, patient, demographics, &mut batch)?;
        if registered.outcome == Outcome::Unchanged {
            return Ok(registered);
        }
        mark(registered.patient, &*self.random, &mut batch)?;
        let mut event = self.event(EventKind::Imported, registered.patient, occasion);
        event.detail = Some(match registered.outcome {
            Outcome::New => "patient registered".to_owned(),
            Outcome::Linked => "source record linked to a known patient".to_owned(),
            Outcome::Updated | Outcome::Unchanged => "patient updated".to_owned(),
        });
        let _receipts = self.audit.append(vec![event], batch)?;
        Ok(registered)
    }

    /// Stores the bytes of a document or instance durably under the patient's key. Errors: [`IntakeError`].
    pub async fn store(&self, patient: PatientKey, bytes: content::ByteStream<'_>) -> Result<ContentRef, IntakeError> {
        let scope = KeyScope::Patient(patient);
        Ok(content::write(
            &*self.contents,
            &self.records.vault,
            &*self.random,
            scope,
            bytes,
            DOCUMENT_BYTES_MAX,
        )
        .await?)
    }

    /// Takes in documents and clinical resources `(name at the source, resource)` of one patient in one commit.
    /// Larger contents go to the content store first. Errors: [`IntakeError`].
    pub async fn documents(
        self: &Arc<Self>,
        patient: PatientKey,
        documents: Vec<NewDocument>,
        resources: Vec<(String, Value)>,
        occasion: &Occasion,
    ) -> Result<Vec<Taken>, IntakeError> {
        if documents.len() > COMMIT_DOCUMENTS_MAX {
            return Err(IntakeError::Limit {
                what: "documents of one commit",
            });
        }
        let mut ready: Vec<NewDocument> = Vec::with_capacity(documents.len());
        for mut document in documents {
            // One name is one document: within a package the last one counts.
            ready.retain(|earlier| earlier.source != document.source);
            if let Body::Bytes(bytes) = &document.body
                && bytes.len() > INLINE_BYTES_MAX
                && !self.is_known(&document.source, bytes)?
            {
                let plain = stream::iter([Ok(bytes.clone())]).boxed();
                document.body = Body::Stored(self.store(patient, plain).await?);
            }
            ready.push(document);
        }
        let (intake, occasion) = (Arc::clone(self), occasion.clone());
        blocking(move || intake.commit_documents(patient, ready, &resources, &occasion)).await
    }

    fn is_known(&self, source: &str, bytes: &Bytes) -> Result<bool, IntakeError> {
        let Some(document) = self.records.by_source(source)? else {
            return Ok(false);
        };
        let hash = hash_of(bytes);
        Ok(self
            .records
            .entry(&document)?
            .is_some_and(|entry| entry.meta.hash == Some(hash)))
    }

    fn commit_documents(
        &self,
        patient: PatientKey,
        documents: Vec<NewDocument>,
        resources: &[(String, Value)],
        occasion: &Occasion,
    ) -> Result<Vec<Taken>, IntakeError> {
        let _writer = self.lock();
        let mut batch = Batch::new();
        for (name, resource) in resources {
            self.records.put_resource(patient, name, resource, &mut batch)?;
            if batch.bytes() > COMMIT_RESOURCE_BYTES_MAX {
                return Err(IntakeError::Limit {
                    what: "bytes of clinical resources in one commit",
                });
            }
        }
        let mut taken = Vec::with_capacity(documents.len());
        for document in documents {
            taken.push(self.one(patient, document, occasion.now, &mut batch)?);
        }
        let changed: Vec<DocumentId> = taken.iter().filter(|one| one.changed).map(|one| one.document).collect();
        if changed.is_empty() && resources.is_empty() {
            return Ok(taken);
        }
        let mut event = self.event(EventKind::Imported, patient, occasion);
        event.detail = Some(format!(
            "{} documents, {} clinical resources",
            changed.len(),
            resources.len()
        ));
        if !changed.is_empty() {
            mark(patient, &*self.random, &mut batch)?;
        }
        event.documents = changed;
        let _receipts = self.audit.append(vec![event], batch)?;
        Ok(taken)
    }

    fn one(&self, patient: PatientKey, new: NewDocument, now: Millis, batch: &mut Batch) -> Result<Taken, IntakeError> {
        let known = self.records.by_source(&new.source)?;
        let before = known
            .map(|document| self.records.entry(&document))
            .transpose()?
            .flatten();
        if before.as_ref().is_some_and(|entry| entry.patient != patient) {
            return Err(RecordError::Conflict {
                what: "the source id names a document of another patient",
            }
            .into());
        }
        let document = known.map_or_else(|| random_bytes(&*self.random).map(DocumentId::new), Ok)?;
        let (place, size, hash, inline) = match (&new.body, before.as_ref()) {
            (Body::OnDemand, _) => (Place::OnDemand, None, None, None),
            (Body::Stored(content), _) => (Place::Content(*content), Some(content.size), Some(content.hash), None),
            (Body::Bytes(bytes), Some(entry)) if entry.meta.hash == Some(hash_of(bytes)) => {
                (entry.place, entry.meta.size, entry.meta.hash, None)
            }
            (Body::Bytes(bytes), _) => (
                Place::Inline,
                Some(bytes.len() as u64),
                Some(hash_of(bytes)),
                Some(bytes.clone()),
            ),
        };
        let meta = DocumentMeta {
            id: document,
            size,
            hash,
            ..new.meta
        };
        let entry = Entry {
            patient,
            meta,
            place,
            superseded: new.superseded,
            unknown_labels: new.unknown_labels,
            author_org: new.author_org,
            authors: new.authors,
            source: new.source,
            stored: before.as_ref().map_or(now, |entry| entry.stored),
        };
        let same = before.as_ref().is_some_and(|before| {
            before.meta == entry.meta
                && before.superseded == entry.superseded
                && before.unknown_labels == entry.unknown_labels
                && before.authors == entry.authors
                && before.author_org == entry.author_org
        });
        if same {
            return Ok(Taken {
                document,
                changed: false,
            });
        }
        let kept = if entry.place == Place::Inline && inline.is_none() {
            self.records.inline(&entry)?.map(|bytes| Bytes::copy_from_slice(&bytes))
        } else {
            inline
        };
        self.records.put(&entry, kept.as_deref(), batch)?;
        Ok(Taken {
            document,
            changed: true,
        })
    }

    /// Takes in one instance of a study whose bytes are stored. Blocks for one sync. Errors: [`IntakeError`].
    pub fn instance(
        &self,
        patient: PatientKey,
        new: &NewInstance,
        labels: &StudyLabels,
        occasion: &Occasion,
    ) -> Result<Taken, IntakeError> {
        let _writer = self.lock();
        let source = format!("dicom-study|{}", new.study_uid);
        let known = self.records.by_source(&source)?;
        let document = known.map_or_else(|| random_bytes(&*self.random).map(DocumentId::new), Ok)?;
        let mut batch = Batch::new();
        let (imaging, bytes) = match self.records.add_instance(patient, document, new, &mut batch)? {
            Added::Unchanged => {
                return Ok(Taken {
                    document,
                    changed: false,
                });
            }
            Added::Stored(imaging, bytes) => (imaging, bytes),
        };
        let before = known
            .map(|document| self.records.entry(&document))
            .transpose()?
            .flatten();
        let first = before.is_none();
        let mut entry = before.unwrap_or_else(|| study_entry(patient, document, source, new, labels, occasion.now));
        entry.meta.imaging = Some(imaging);
        entry.meta.size = Some(bytes);
        self.records.put(&entry, None, &mut batch)?;
        mark(patient, &*self.random, &mut batch)?;
        let mut event = self.event(EventKind::Imported, patient, occasion);
        event.documents = vec![document];
        event.detail = Some(if first { "study begun" } else { "instance added" }.to_owned());
        let _receipts = self.audit.append(vec![event], batch)?;
        Ok(Taken {
            document,
            changed: true,
        })
    }

    /// Withdraws the document of a source: it is neither listed nor released from then on. Says whether there was
    /// one in force. Blocks for one sync. Errors: [`IntakeError`].
    pub fn retire(&self, patient: PatientKey, source: &str, occasion: &Occasion) -> Result<bool, IntakeError> {
        let _writer = self.lock();
        let Some(document) = self.records.by_source(source)? else {
            return Ok(false);
        };
        let Some(entry) = self.records.entry(&document)? else {
            return Ok(false);
        };
        if entry.superseded || entry.patient != patient {
            return Ok(false);
        }
        let kept = self.records.inline(&entry)?.map(|bytes| Bytes::copy_from_slice(&bytes));
        let retired = Entry {
            superseded: true,
            ..entry
        };
        let mut batch = Batch::new();
        self.records.put(&retired, kept.as_deref(), &mut batch)?;
        mark(patient, &*self.random, &mut batch)?;
        let mut event = self.event(EventKind::Imported, patient, occasion);
        event.documents = vec![document];
        event.detail = Some("document withdrawn".to_owned());
        let _receipts = self.audit.append(vec![event], batch)?;
        Ok(true)
    }

    fn event(&self, kind: EventKind, patient: PatientKey, occasion: &Occasion) -> AuditEvent {
        let mut event = AuditEvent::new(kind, occasion.now, occasion.correlation, occasion.actor.clone());
        event.patient = Some(self.audit.patient_ref(patient));
        event
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a study is labelled with when its first instance arrives.
#[derive(Clone)]
pub struct StudyLabels {
    /// Title as shown.
    pub title: String,
    /// Author as shown.
    pub author: Option<String>,
    /// Confidentiality.
    pub confidentiality: Confidentiality,
    /// The organisation that made it.
    pub author_org: Option<OrgId>,
}

fn study_entry(
    patient: PatientKey,
    document: DocumentId,
    source: String,
    new: &NewInstance,
    labels: &StudyLabels,
    now: Millis,
) -> Entry {
    let created = new.study_date.as_deref().and_then(da_millis);
    let meta = DocumentMeta {
        id: document,
        class: DocumentClass::Imaging,
        kind: None,
        category: None,
        format: None,
        title: labels.title.clone(),
        author: labels.author.clone(),
        content_type: "application/dicom".to_owned(),
        created,
        period: created.map(|day| (day, day)),
        size: None,
        hash: None,
        confidentiality: labels.confidentiality,
        sensitivity: Vec::new(),
        imaging: None,
    };
    Entry {
        patient,
        meta,
        place: Place::Study,
        superseded: false,
        unknown_labels: false,
        author_org: labels.author_org.clone(),
        authors: Vec::new(),
        source,
        stored: now,
    }
}

fn hash_of(bytes: &Bytes) -> ContentHash {
    ContentHash::new(Sha256::digest(bytes).into())
}
