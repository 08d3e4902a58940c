//! The door: the only way from a stored document to bytes that leave (law 1).
//!
//! It takes the consent permit and the audit receipt by value. Neither can be made outside its own module:
//!
//! ```compile_fail,E0451
//! use hie_consent::decide::Permit;
//! fn forge(document: hie_protocol::id::DocumentId) -> Permit {
//!     Permit { document, ..todo!() }
//! }
//! ```
//!
//! ```compile_fail,E0451
//! use hie_node_core::audit::receipt::Receipt;
//! fn forge() -> Receipt {
//!     Receipt { index: 0, ..todo!() }
//! }
//! ```
//!
//! and neither opens twice:
//!
//! ```compile_fail,E0382
//! use hie_consent::decide::Permit;
//! use hie_node_core::audit::receipt::Receipt;
//! use hie_node_core::record::entry::Entry;
//! use hie_node_core::record::release::Door;
//! async fn twice(door: &Door, permit: Permit, first: Receipt, second: Receipt, entry: &Entry) {
//!     let _one = door.open(permit, first, entry, 0).await;
//!     let _two = door.open(permit, second, entry, 0).await;
//! }
//! ```
//!
//! ```compile_fail,E0382
//! use hie_consent::decide::Permit;
//! use hie_node_core::audit::receipt::Receipt;
//! use hie_node_core::record::entry::Entry;
//! use hie_node_core::record::release::Door;
//! async fn twice(door: &Door, one: Permit, two: Permit, receipt: Receipt, entry: &Entry) {
//!     let _one = door.open(one, receipt, entry, 0).await;
//!     let _two = door.open(two, receipt, entry, 0).await;
//! }
//! ```
//!
//! A permit carries the consent epoch it was decided under. The door reads the epoch before every piece of at
//! most one MiB and ends the stream with an error as soon as it moved or the permit's lease is over (law 8).

use core::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use hie_consent::decide::Permit;
use hie_protocol::id::{ConsentEpoch, ContentHash, Millis, TransferHash};
use hie_protocol::refusal::Class;
use hie_protocol::retrieval::{EPOCH_CHECK_BYTES, StudyManifest};
use sha2::{Digest, Sha256};

use crate::audit::receipt::Receipt;
use crate::content::{self, ContentError, ContentStore};
use crate::patient::index::{PatientError, PatientIndex};
use crate::policy::epoch::Watch;
use crate::policy::store::{Policies, PolicyError};
use crate::ports::{Clock, blocking};
use crate::record::entry::{Entry, Place, RecordError, Records};
use crate::record::study::StudyInstance;
use crate::record::summary::{Summaries, SummaryError};
use crate::vault::KeyScope;

/// Largest piece that leaves between two looks at the consent epoch, in bytes.
const PIECE_BYTES: usize = 128 * 1024;
const _: () = assert!(
    (PIECE_BYTES as u64) < EPOCH_CHECK_BYTES,
    "a piece must be smaller than the distance of two checks"
);

/// Why a document is not released.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// Permit, receipt and document do not belong together.
    #[error("the {0} does not open this document")]
    WrongKey(&'static str),
    /// The patient's choices changed, or the lease of the permit is over.
    #[error("the permit is no longer in force; ask again")]
    Revoked,
    /// The document has no such part.
    #[error("the document has no such part")]
    NoSuchPart,
    /// The range begins behind the end.
    #[error("the range begins behind the end")]
    Range,
    /// The content store.
    #[error("the content cannot be read")]
    Content(#[from] ContentError),
    /// The tables.
    #[error("the record cannot be read")]
    Record(#[from] RecordError),
    /// The patient.
    #[error("the patient cannot be read")]
    Patient(#[from] PatientError),
    /// The consent epoch.
    #[error("the consent epoch cannot be read")]
    Policy(#[from] PolicyError),
    /// The summary.
    #[error("the summary is not available")]
    Summary(#[from] SummaryError),
}

impl ReleaseError {
    /// Who must act.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Revoked | Self::NoSuchPart => Class::Refused,
            Self::Range => Class::Invalid,
            Self::WrongKey(_) => Class::Broken,
            Self::Content(error) => error.class(),
            Self::Record(error) => error.class(),
            Self::Patient(error) => error.class(),
            Self::Policy(error) => error.class(),
            Self::Summary(error) => error.class(),
        }
    }
}

/// Bytes on their way out.
pub struct Released {
    /// MIME type.
    pub content_type: String,
    /// Bytes of the whole item.
    pub size: u64,
    /// First byte that follows.
    pub from: u64,
    /// SHA-256 of the whole item.
    pub hash: ContentHash,
    /// BLAKE3 of the whole item, where it was computed when the item was stored.
    pub transfer: Option<TransferHash>,
    /// Epoch of the permit.
    pub epoch: ConsentEpoch,
    /// The bytes, in pieces of at most 256 KiB; ends with an error when the permit ends.
    pub stream: BoxStream<'static, Result<Bytes, ReleaseError>>,
}

impl fmt::Debug for Released {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "Released({} of {} bytes)",
            self.size.saturating_sub(self.from),
            self.size
        )
    }
}

/// What the door needs to read.
#[derive(Clone)]
pub struct Door {
    records: Records,
    contents: Arc<dyn ContentStore>,
    patients: Arc<PatientIndex>,
    policies: Arc<Policies>,
    summaries: Arc<dyn Summaries>,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for Door {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Door")
    }
}

/// The terms of a permit that was handed in, for as long as its bytes flow. Not `Clone` outside the door.
#[derive(Clone)]
struct Term {
    epoch: ConsentEpoch,
    expires: Millis,
    watch: Watch,
    clock: Arc<dyn Clock>,
}

impl Term {
    fn holds(&self) -> Result<(), ReleaseError> {
        let in_force = self.watch.now() == self.epoch && self.clock.now() <= self.expires;
        if in_force { Ok(()) } else { Err(ReleaseError::Revoked) }
    }
}

impl Door {
    /// Puts the door before the records.
    #[must_use]
    pub fn new(
        records: Records,
        contents: Arc<dyn ContentStore>,
        patients: Arc<PatientIndex>,
        policies: Arc<Policies>,
        summaries: Arc<dyn Summaries>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            records,
            contents,
            patients,
            policies,
            summaries,
            clock,
        }
    }

    fn admit(&self, permit: &Permit, receipt: &Receipt, entry: &Entry) -> Result<Term, ReleaseError> {
        if permit.document() != entry.id() || entry.superseded {
            return Err(ReleaseError::WrongKey("permit"));
        }
        if !receipt.covers(&entry.id()) {
            return Err(ReleaseError::WrongKey("receipt"));
        }
        let watch = self.policies.watch(entry.patient)?;
        let term = Term {
            epoch: permit.epoch(),
            expires: permit.expires(),
            watch,
            clock: Arc::clone(&self.clock),
        };
        term.holds()?;
        Ok(term)
    }

    /// Releases a document from byte `from` on. Errors: every [`ReleaseError`].
    pub async fn open(
        &self,
        permit: Permit,
        receipt: Receipt,
        entry: &Entry,
        from: u64,
    ) -> Result<Released, ReleaseError> {
        let term = self.admit(&permit, &receipt, entry)?;
        let content_type = entry.meta.content_type.clone();
        match entry.place {
            Place::Inline => {
                let (records, entry) = (self.records.clone(), entry.clone());
                let bytes = blocking(move || records.inline(&entry))
                    .await?
                    .ok_or(ReleaseError::NoSuchPart)?;
                whole(content_type, Bytes::copy_from_slice(&bytes), from, term)
            }
            Place::OnDemand => whole(content_type, self.assemble(entry).await?, from, term),
            Place::Content(content) => self.stored(entry, &content, content_type, from, term).await,
            Place::Study => Err(ReleaseError::NoSuchPart),
        }
    }

    /// Releases a study: its manifest at once, its instances one by one as they are read.
    /// Errors: every [`ReleaseError`].
    pub async fn open_study(
        &self,
        permit: Permit,
        receipt: Receipt,
        entry: &Entry,
    ) -> Result<ReleasedStudy, ReleaseError> {
        let term = self.admit(&permit, &receipt, entry)?;
        let uid = entry
            .meta
            .imaging
            .as_ref()
            .map(|imaging| imaging.study_uid.clone())
            .ok_or(ReleaseError::NoSuchPart)?;
        let (records, wanted) = (self.records.clone(), entry.clone());
        let read = move || Ok::<_, RecordError>((records.manifest(&wanted)?, records.instances(&uid)?));
        let (manifest, instances) = blocking(read).await?;
        let manifest = manifest.ok_or(ReleaseError::NoSuchPart)?;
        Ok(ReleasedStudy {
            door: self.clone(),
            entry: entry.clone(),
            manifest,
            instances,
            term,
        })
    }

    async fn assemble(&self, entry: &Entry) -> Result<Bytes, ReleaseError> {
        let (records, patients, summaries) = (
            self.records.clone(),
            Arc::clone(&self.patients),
            Arc::clone(&self.summaries),
        );
        let (patient, now) = (entry.patient, self.clock.now());
        blocking(move || {
            let person = patients.person(patient)?.ok_or(ReleaseError::NoSuchPart)?;
            let resources = records.resources(patient)?;
            Ok(Bytes::from(summaries.assemble(&person.patient, &resources, now)?))
        })
        .await
    }

    async fn stored(
        &self,
        entry: &Entry,
        content: &content::ContentRef,
        content_type: String,
        from: u64,
        term: Term,
    ) -> Result<Released, ReleaseError> {
        let scope = KeyScope::Patient(entry.patient);
        let plain = content::read(&*self.contents, &self.records.vault, scope, content, from).await?;
        let epoch = term.epoch;
        let stream = guarded(plain.map(|piece| piece.map_err(ReleaseError::Content)).boxed(), term);
        Ok(Released {
            content_type,
            size: content.size,
            from,
            hash: content.hash,
            transfer: content.transfer,
            epoch,
            stream,
        })
    }
}

/// A released study: one permit and one receipt open all of its instances.
pub struct ReleasedStudy {
    door: Door,
    entry: Entry,
    manifest: StudyManifest,
    instances: Vec<StudyInstance>,
    term: Term,
}

impl fmt::Debug for ReleasedStudy {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "ReleasedStudy({} instances)", self.instances.len())
    }
}

impl ReleasedStudy {
    /// Series and instances in viewing order.
    #[must_use]
    pub const fn manifest(&self) -> &StudyManifest {
        &self.manifest
    }

    /// Number of instances.
    #[must_use]
    pub fn len(&self) -> usize {
        self.instances.len()
    }

    /// Whether there is no instance.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.instances.is_empty()
    }

    /// Epoch of the permit.
    #[must_use]
    pub const fn epoch(&self) -> ConsentEpoch {
        self.term.epoch
    }

    /// Whether the permit is still in force. Errors: [`ReleaseError::Revoked`].
    pub fn holds(&self) -> Result<(), ReleaseError> {
        self.term.holds()
    }

    /// The `index`-th instance from byte `from` on. Errors: every [`ReleaseError`].
    pub async fn instance(&self, index: u32, from: u64) -> Result<Released, ReleaseError> {
        self.term.holds()?;
        let at = usize::try_from(index).unwrap_or(usize::MAX);
        let instance = self.instances.get(at).ok_or(ReleaseError::NoSuchPart)?;
        let content_type = "application/dicom".to_owned();
        self.door
            .stored(&self.entry, &instance.content, content_type, from, self.term.clone())
            .await
    }
}

fn whole(content_type: String, bytes: Bytes, from: u64, term: Term) -> Result<Released, ReleaseError> {
    let size = bytes.len() as u64;
    let start = usize::try_from(from)
        .ok()
        .filter(|start| *start <= bytes.len())
        .ok_or(ReleaseError::Range)?;
    let hash = ContentHash::new(Sha256::digest(&bytes).into());
    let epoch = term.epoch;
    let stream = guarded(futures::stream::iter([Ok(bytes.slice(start..))]).boxed(), term);
    Ok(Released {
        content_type,
        size,
        from,
        hash,
        transfer: None,
        epoch,
        stream,
    })
}

/// Cuts the bytes into pieces and looks at the permit before each.
fn guarded(
    mut plain: BoxStream<'static, Result<Bytes, ReleaseError>>,
    term: Term,
) -> BoxStream<'static, Result<Bytes, ReleaseError>> {
    async_stream::try_stream! {
        while let Some(chunk) = plain.next().await {
            let mut chunk = chunk?;
            while !chunk.is_empty() {
                term.holds()?;
                yield chunk.split_to(chunk.len().min(PIECE_BYTES));
            }
        }
    }
    .boxed()
}
