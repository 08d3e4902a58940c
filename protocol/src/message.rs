//! Messages of the control channel: one request, one response, each a deterministic CBOR frame.
//!
//! Index messages are datagrams that ride in a request and are answered `Taken`; their answers come back as
//! datagrams of their own, so that the federation logic sees the same traffic over a real network and in
//! simulation (SPEC P-MSG).

use core::fmt;

use serde::{Deserialize, Serialize};

use crate::bytes::Bytes;
use crate::cbor::{self, FRAME_BYTES_MAX, FrameError};
use crate::charter::APPROVALS_MAX;
use crate::id::{
    ConsentEpoch, ContentHash, Correlation, DocumentId, IndexKey, Millis, OrgId, PublicKey, RecordHandle, Sequence,
    SetHash, Ticket, TreeHash,
};
use crate::oprf::{EVALUATE_BATCH_MAX, SHARES_MAX};
use crate::record::{ImagingSummary, SignedRecord};
use crate::refusal::Refusal;
use crate::sign::DOMAIN_RECEIPT;
use crate::version::{ProtocolVersion, V1, V2, VERSIONS_MAX};
use crate::vocabulary::{Confidentiality, DocumentClass, Purpose, Sensitivity};

/// Most records in one store message.
pub const STORE_RECORDS_MAX: usize = 256;
/// Most records in one store message to a member that speaks version 1.
pub const STORE_RECORDS_V1_MAX: usize = 64;
/// Most keys in one lookup.
pub const LOOKUP_KEYS_MAX: usize = 64;
/// Most records in one answer to a lookup.
pub const FOUND_RECORDS_MAX: usize = 256;
/// Most organisations in each list of a beat.
pub const BEAT_ORGS_MAX: usize = 1024;
/// Most ranges in one comparison, and in one split of a range.
pub const COMPARE_RANGES_MAX: usize = 64;
/// Most entries in one answer to a comparison, over all its ranges.
pub const COMPARED_ENTRIES_MAX: usize = 4096;
/// Most records in one page of a pull.
pub const PULLED_RECORDS_MAX: usize = 1024;
/// Most signed digests in one page of a pull.
pub const PULLED_DIGESTS_MAX: usize = 256;
/// Most blinded elements in one request to an authority that speaks version 1.
pub const EVALUATE_BATCH_V1_MAX: usize = 64;
/// Most documents in one answer to `open`.
pub const GRANTS_MAX: usize = 512;

/// What one node asks of another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// First request on a channel.
    Hello {
        /// Versions spoken, newest first.
        versions: Vec<ProtocolVersion>,
        /// Registry version in force here.
        registry: u64,
        /// Clock of the sender, for the skew warning.
        clock: Millis,
    },
    /// Asks for the registry if newer than `have`.
    Registry {
        /// Version held.
        have: u64,
    },
    /// Hands over a signed registry.
    RegistryPush {
        /// Signed registry.
        signed: Bytes,
        /// Officers' approvals of its charter; from version 2.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        approvals: Vec<Bytes>,
    },
    /// A datagram of the index.
    Index(IndexMessage),
    /// Asks a token authority to evaluate blinded elements.
    Evaluate {
        /// Signed claim for the authority.
        claim: Bytes,
        /// Key epoch.
        epoch: u32,
        /// Blinded elements.
        blinded: Vec<PublicKey>,
        /// Index of the share that is meant, while the key has two sharings; from version 2.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        share: Option<u16>,
    },
    /// A seat asks a dealer for its part of a resharing; from version 2.
    Reshare {
        /// Key epoch.
        epoch: u32,
        /// Generation of the resharing in the registry.
        generation: u32,
    },
    /// Asks a custodian to open a patient's record.
    Open(Box<Open>),
}

/// What the other node answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Response {
    /// Answer to `Hello`.
    Hello {
        /// Version chosen.
        version: ProtocolVersion,
        /// Registry version in force there.
        registry: u64,
        /// Clock of the answerer.
        clock: Millis,
    },
    /// The signed registry, or none when `have` is current.
    Registry {
        /// Signed registry.
        signed: Option<Bytes>,
        /// Officers' approvals of its charter; from version 2.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        approvals: Vec<Bytes>,
    },
    /// The datagram was taken in.
    Taken,
    /// Evaluated elements and the batched proof.
    Evaluated {
        /// Index of the authority's share.
        index: u16,
        /// Evaluated elements in the order asked.
        elements: Vec<PublicKey>,
        /// DLEQ proof (c, s), 64 bytes.
        proof: Bytes,
    },
    /// Answer to `Open`.
    Opened(Box<Opened>),
    /// A dealer's part for the seat that asked; from version 2.
    Reshared {
        /// Commitments to the coefficients of the dealer's polynomial.
        commitments: Vec<PublicKey>,
        /// Value of the polynomial at the seat: a scalar, 32 bytes.
        share: SecretBytes,
    },
    /// A refusal.
    Refused(Refusal),
}

/// Datagrams between index holders, owners and askers. `id` pairs answers with questions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IndexMessage {
    /// The owner asks a holder to keep records.
    Store {
        /// Question id of the sender.
        id: u64,
        /// At most [`STORE_RECORDS_MAX`].
        records: Vec<SignedRecord>,
    },
    /// The holder has synced what it accepted.
    Stored {
        /// Question id.
        id: u64,
        /// One for each record, in order.
        outcomes: Vec<StoreOutcome>,
    },
    /// Asks for everything under some keys.
    Lookup {
        /// Question id of the sender.
        id: u64,
        /// At most [`LOOKUP_KEYS_MAX`]; exactly one with `after`.
        keys: Vec<IndexKey>,
        /// Go on behind this record; from version 2.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<Cursor>,
    },
    /// Everything the holder has under those keys and may show, tombstones included.
    Found {
        /// Question id.
        id: u64,
        /// For each key asked, in order.
        records: Vec<Vec<SignedRecord>>,
        /// False when the answer was cut at a limit: then it does not count as an answer.
        whole: bool,
        /// Where to go on when one key was asked and its records did not fit; from version 2.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next: Option<Cursor>,
    },
    /// What a member says of itself to every other member, again and again; from version 2.
    Beat {
        /// Grows with every beat of the sender, across restarts.
        beat: u64,
        /// As owner: holders that have not confirmed everything that the sender has acknowledged to its callers.
        behind: Vec<OrgId>,
        /// As holder: owners whose last beat heard here names the sender as behind.
        lacking: Vec<OrgId>,
        /// The last beat heard of each member, in the order of their ids.
        seen: Vec<Seen>,
    },
    /// The owner describes its records placed at the holder, range by range; from version 2.
    Compare {
        /// Question id of the owner.
        id: u64,
        /// Registry version under which the records are placed.
        version: u64,
        /// At most [`COMPARE_RANGES_MAX`].
        ranges: Vec<RangeDigest>,
    },
    /// What the holder has of the owner's records in each range; from version 2.
    Compared {
        /// Question id.
        id: u64,
        /// One for each range, in order; none at all when the holder's registry has another version.
        ranges: Vec<Comparison>,
    },
    /// The owner hands a holder its signed digest of what the holder confirmed; from version 2.
    Digest {
        /// A signed [`crate::digest::ShardDigest`].
        signed: Bytes,
    },
    /// A holder asks another for the records that both are to hold; from version 2.
    Pull {
        /// Question id of the sender.
        id: u64,
        /// Registry version under which the records are placed.
        version: u64,
        /// Go on behind this record.
        after: Option<Place>,
    },
    /// A page of what the holder has of the records placed at the asker; from version 2.
    Pulled {
        /// Question id.
        id: u64,
        /// In the order of [`Place`], at most [`PULLED_RECORDS_MAX`].
        records: Vec<SignedRecord>,
        /// Where to go on; none behind the last page.
        next: Option<Place>,
        /// Whether the sender holds everything under the keys of this page.
        whole: bool,
        /// Digests that owners signed for the sender and for the asker, with the first page.
        digests: Vec<Bytes>,
    },
}

impl IndexMessage {
    /// The lowest protocol version whose speakers understand this message.
    #[must_use]
    pub fn since(&self) -> ProtocolVersion {
        match self {
            Self::Stored { .. } | Self::Lookup { after: None, .. } | Self::Found { next: None, .. } => V1,
            Self::Store { records, .. } if records.len() <= STORE_RECORDS_V1_MAX => V1,
            _ => V2,
        }
    }
}

/// A place among the records of one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Owner.
    pub owner: OrgId,
    /// Handle.
    pub handle: RecordHandle,
}

/// A place among all records of a holder: ordered by key, then handle, then owner.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// Index key.
    pub key: IndexKey,
    /// Handle.
    pub handle: RecordHandle,
    /// Owner.
    pub owner: OrgId,
}

/// The last beat heard of a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The member.
    pub org: OrgId,
    /// Its beat.
    pub beat: u64,
}

/// One owner's records whose index keys lie in a range, in short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeDigest {
    /// First index key of the range.
    pub from: IndexKey,
    /// Last index key of the range, included.
    pub to: IndexKey,
    /// How many records.
    pub count: u64,
    /// Which versions: the [`crate::digest::VersionSum`] of all.
    pub hash: SetHash,
}

/// What a holder says of one range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Comparison {
    /// It has exactly these versions.
    Same,
    /// It differs; here are the parts of the range as the holder has them, in order and without gaps.
    Split(Vec<RangeDigest>),
    /// It differs; here is everything that the holder has of the owner in the range.
    Entries(Vec<RecordVersion>),
    /// Too much was asked at once: ask for this range again.
    Later,
}

/// A version of a record of a known owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RecordVersion {
    /// Index key.
    pub key: IndexKey,
    /// Handle.
    pub handle: RecordHandle,
    /// Sequence.
    pub sequence: Sequence,
}

/// What became of one record at a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StoreOutcome {
    /// Synced, or already held with this or a higher sequence.
    Held,
    /// Not signed by its owner, expired, or over a limit.
    Refused,
    /// The holder does not place this key here (its registry differs).
    Misplaced,
}

/// The demographics a question carries to a custodian: everything the asker knows.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Demographics {
    /// Names, current first.
    pub names: Vec<PersonName>,
    /// Birth date as `YYYY-MM-DD`, `YYYY-MM` or `YYYY`.
    pub birth_date: Option<String>,
    /// FHIR administrative gender.
    pub sex: Option<String>,
    /// Identifiers.
    pub identifiers: Vec<PersonIdentifier>,
    /// Addresses, current first.
    pub addresses: Vec<PersonAddress>,
    /// Telephone numbers and e-mail addresses.
    pub telecoms: Vec<String>,
}

/// A person's name.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PersonName {
    /// Family name.
    pub family: String,
    /// Given names in order.
    pub given: Vec<String>,
    /// Prefixes and suffixes, as shown.
    pub prefix: Option<String>,
    /// Suffix such as Jr.
    pub suffix: Option<String>,
}

/// An identifier with its assigning authority.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersonIdentifier {
    /// URI of the assigning authority.
    pub system: String,
    /// Value.
    pub value: String,
}

/// A postal address.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PersonAddress {
    /// Street lines.
    pub lines: Vec<String>,
    /// City.
    pub city: Option<String>,
    /// State or region.
    pub state: Option<String>,
    /// Postal code.
    pub postal_code: Option<String>,
}

/// Asks a custodian to open a patient's record.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// Signed claim for this custodian.
    pub claim: Bytes,
    /// Who is meant.
    pub demographics: Demographics,
    /// The custodian's pointer handles that led here.
    pub handles: Vec<RecordHandle>,
    /// Only these documents, or all when empty.
    pub documents: Vec<DocumentId>,
}

/// How sure the custodian is that its patient is the one meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MatchGrade {
    /// Certain.
    Certain,
    /// Probable: a human must confirm.
    Probable,
}

/// A custodian's answer. The same shape and size class whether nothing is known or nothing may be said.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// Match, or none: no record here, or none that may be mentioned.
    pub matched: Option<MatchGrade>,
    /// The custodian's own demographics of a certain match, so that the asker can compare.
    pub demographics: Option<Demographics>,
    /// Documents granted.
    pub grants: Vec<Grant>,
    /// Whether an emergency declaration would open more, where the region lets that be said.
    pub more_on_emergency: bool,
    /// Obligations of this release, closed words (`notify-patient`, `review`, `no-redisclosure`).
    pub obligations: Vec<Obligation>,
    /// Consent epoch.
    pub epoch: ConsentEpoch,
    /// Signed [`Receipt`] of the custodian's audit entry for this question.
    pub receipt: Bytes,
}

/// What the receiver of a release must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Obligation {
    /// The access is reviewed by a privacy officer.
    Review,
    /// The patient is told.
    NotifyPatient,
    /// Must not be disclosed further (42 CFR Part 2).
    NoRedisclosure,
    /// The copy is deleted at the end of its lease.
    DeleteAfterUse,
}

/// One granted document.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// What it is.
    pub document: DocumentMeta,
    /// Right to retrieve it over the bulk lane.
    pub ticket: Ticket,
}

/// Everything the custodian says about a granted document.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentMeta {
    /// The custodian's id.
    pub id: DocumentId,
    /// Kind.
    pub class: DocumentClass,
    /// Type coding.
    pub kind: Option<Coding>,
    /// Category coding.
    pub category: Option<Coding>,
    /// Format coding.
    pub format: Option<Coding>,
    /// Title.
    pub title: String,
    /// Author as shown.
    pub author: Option<String>,
    /// MIME type.
    pub content_type: String,
    /// Creation time.
    pub created: Option<Millis>,
    /// Service period.
    pub period: Option<(Millis, Millis)>,
    /// Size in bytes; none for an on-demand document.
    pub size: Option<u64>,
    /// SHA-256; none for an on-demand document.
    pub hash: Option<ContentHash>,
    /// Confidentiality.
    pub confidentiality: Confidentiality,
    /// Sensitivity codes.
    pub sensitivity: Vec<Sensitivity>,
    /// For imaging.
    pub imaging: Option<ImagingSummary>,
}

/// A coded value.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coding {
    /// Code system URI.
    pub system: String,
    /// Code.
    pub code: String,
    /// Display text.
    pub display: Option<String>,
}

/// Proof that the custodian's audit log holds an entry for a disclosure; signed in its own domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Whose log.
    pub log: OrgId,
    /// Position of the entry.
    pub index: u64,
    /// RFC 6962 leaf hash of the entry.
    pub leaf: TreeHash,
    /// Which question.
    pub correlation: Correlation,
    /// For whom.
    pub audience: OrgId,
    /// Why.
    pub purpose: Purpose,
    /// When it was durable.
    pub at: Millis,
}

impl Receipt {
    /// Signs the receipt. Errors: [`crate::sign::SignError`].
    pub fn sign(&self, node: &dyn crate::sign::Signer) -> Result<Vec<u8>, crate::sign::SignError> {
        crate::sign::sign(DOMAIN_RECEIPT, cbor::encode(self)?, node)
    }

    /// Verifies a receipt signed by an active node of `log`. Errors: [`crate::sign::SignError`].
    pub fn verify(bytes: &[u8], registry: &crate::registry::Registry) -> Result<Self, crate::sign::SignError> {
        let verified = crate::sign::verify(DOMAIN_RECEIPT, bytes, 2048, |node| registry.active_key(node))?;
        let receipt: Self = cbor::decode(&verified.payload, 2048)?;
        let owner = registry.node(&verified.node).map(|(member, _)| &member.org);
        if owner == Some(&receipt.log) {
            Ok(receipt)
        } else {
            Err(crate::sign::SignError::UnknownSigner(verified.node))
        }
    }
}

/// Bytes that are wiped when dropped and that `Debug` does not show.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretBytes(#[serde(with = "crate::bytes")] pub Vec<u8>);

impl Drop for SecretBytes {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.0);
    }
}

/// Largest number of entries that any list of a message may have, checked after decoding.
trait Limits {
    fn within_limits(&self) -> bool;
}

impl Limits for Request {
    fn within_limits(&self) -> bool {
        match self {
            Self::Hello { versions, .. } => versions.len() <= VERSIONS_MAX,
            Self::Index(message) => message.within_limits(),
            Self::Evaluate { blinded, .. } => blinded.len() <= EVALUATE_BATCH_MAX,
            Self::Open(open) => open.handles.len() <= 64 && open.documents.len() <= GRANTS_MAX,
            Self::RegistryPush { approvals, .. } => approvals.len() <= APPROVALS_MAX,
            Self::Registry { .. } | Self::Reshare { .. } => true,
        }
    }
}

impl Limits for IndexMessage {
    fn within_limits(&self) -> bool {
        match self {
            Self::Store { records, .. } => records.len() <= STORE_RECORDS_MAX,
            Self::Stored { outcomes, .. } => outcomes.len() <= STORE_RECORDS_MAX,
            Self::Lookup { keys, .. } => keys.len() <= LOOKUP_KEYS_MAX,
            Self::Found { records, .. } => {
                records.len() <= LOOKUP_KEYS_MAX && records.iter().map(Vec::len).sum::<usize>() <= FOUND_RECORDS_MAX
            }
            Self::Beat {
                behind, lacking, seen, ..
            } => [behind.len(), lacking.len(), seen.len()]
                .iter()
                .all(|len| *len <= BEAT_ORGS_MAX),
            Self::Compare { ranges, .. } => ranges.len() <= COMPARE_RANGES_MAX,
            Self::Compared { ranges, .. } => {
                let entries = |range: &Comparison| match range {
                    Comparison::Entries(entries) => entries.len(),
                    Comparison::Split(_) | Comparison::Same | Comparison::Later => 0,
                };
                let splits =
                    |range: &Comparison| !matches!(range, Comparison::Split(parts) if parts.len() > COMPARE_RANGES_MAX);
                ranges.len() <= COMPARE_RANGES_MAX
                    && ranges.iter().all(splits)
                    && ranges.iter().map(entries).sum::<usize>() <= COMPARED_ENTRIES_MAX
            }
            Self::Digest { .. } | Self::Pull { .. } => true,
            Self::Pulled { records, digests, .. } => {
                records.len() <= PULLED_RECORDS_MAX && digests.len() <= PULLED_DIGESTS_MAX
            }
        }
    }
}

impl Limits for Response {
    fn within_limits(&self) -> bool {
        match self {
            Self::Evaluated { elements, .. } => elements.len() <= EVALUATE_BATCH_MAX,
            Self::Opened(opened) => opened.grants.len() <= GRANTS_MAX,
            Self::Registry { approvals, .. } => approvals.len() <= APPROVALS_MAX,
            Self::Reshared { commitments, share } => {
                commitments.len() <= usize::from(SHARES_MAX) && share.0.len() == 32
            }
            _ => true,
        }
    }
}

impl Request {
    /// Writes the frame. Errors: [`FrameError`].
    pub fn encode(&self) -> Result<Vec<u8>, FrameError> {
        cbor::encode(self)
    }

    /// Reads a frame and checks every list against its limit. Errors: [`FrameError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        limited(bytes)
    }
}

impl Request {
    /// The first version that knows this message: it goes to no node that speaks an older one.
    #[must_use]
    pub fn since(&self) -> ProtocolVersion {
        match self {
            Self::Index(message) => message.since(),
            Self::Evaluate { share: Some(_), .. } => V2,
            Self::Evaluate { blinded, .. } if blinded.len() > EVALUATE_BATCH_V1_MAX => V2,
            Self::RegistryPush { approvals, .. } if !approvals.is_empty() => V2,
            Self::Hello { .. }
            | Self::Registry { .. }
            | Self::RegistryPush { .. }
            | Self::Evaluate { .. }
            | Self::Open(_) => V1,
            Self::Reshare { .. } => V2,
        }
    }
}

impl Response {
    /// Writes the frame. Errors: [`FrameError`].
    pub fn encode(&self) -> Result<Vec<u8>, FrameError> {
        cbor::encode(self)
    }

    /// Reads a frame and checks every list against its limit. Errors: [`FrameError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        limited(bytes)
    }
}

fn limited<T: Limits + Serialize + serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, FrameError> {
    let message: T = cbor::decode(bytes, FRAME_BYTES_MAX)?;
    if message.within_limits() {
        Ok(message)
    } else {
        Err(FrameError::Shape {
            expected: core::any::type_name::<T>(),
        })
    }
}

macro_rules! hidden_debug {
    ($($name:ident),+ $(,)?) => {
        $(impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(concat!(stringify!($name), "(hidden)"))
            }
        })+
    };
}

hidden_debug!(
    SecretBytes,
    Demographics,
    PersonName,
    PersonIdentifier,
    PersonAddress,
    Open,
    Opened,
    Grant,
    DocumentMeta,
    Coding
);
