//! What an audit entry says: a closed set of kinds, the actor, the reason, the outcome and the counterpart.
//!
//! An event's canonical bytes are its deterministic CBOR; the leaf of the tree is the RFC 6962 hash of exactly
//! those bytes. Fields are only ever added, with a new [`EVENT_VERSION`]: an old entry keeps its bytes for ever.

use core::fmt;

use hie_protocol::cbor::{self, FrameError};
use hie_protocol::claim::{BreakGlass, Claim};
use hie_protocol::id::{Correlation, DocumentId, Millis, NodeKey, OrgId, TreeHash};
use hie_protocol::vocabulary::{Purpose, Role};
use serde::{Deserialize, Serialize};

/// Version of the event's shape, inside its canonical bytes.
pub const EVENT_VERSION: u8 = 1;
/// Largest canonical event, in bytes.
pub const EVENT_BYTES_MAX: usize = 64 * 1024;
/// Most documents that one event names; a larger disclosure is several events.
pub const EVENT_DOCUMENTS_MAX: usize = 512;
/// Most characters of any text of an event.
pub const EVENT_TEXT_CHARS_MAX: usize = 400;
/// Most denial reasons of an event.
pub const EVENT_REASONS_MAX: usize = 32;

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $tag:literal, $code:literal;)+) => {
        /// What happened.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum EventKind {
            $($(#[$doc])* $variant,)+
        }

        impl EventKind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Number in the index of kinds; never reused.
            #[must_use]
            pub const fn tag(self) -> u8 {
                match self { $(Self::$variant => $tag),+ }
            }

            /// Code, as in the canonical bytes.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$variant => $code),+ }
            }
        }
    };
}

kinds! {
    /// A user here asked the region about a patient.
    QuestionAsked = 1, "question-asked";
    /// Another organisation asked here, and was answered.
    QuestionAnswered = 2, "question-answered";
    /// Documents of ours left for another organisation.
    DisclosureSent = 3, "disclosure-sent";
    /// Documents of another organisation arrived here.
    DisclosureReceived = 4, "disclosure-received";
    /// A user here opened documents of this organisation.
    RecordOpened = 5, "record-opened";
    /// Patients or documents came in from this organisation's own systems.
    Imported = 6, "imported";
    /// Index records were published or withdrawn.
    Published = 7, "published";
    /// A patient's choice was recorded.
    ConsentRecorded = 8, "consent-recorded";
    /// A patient's choice was revoked.
    ConsentRevoked = 9, "consent-revoked";
    /// A user declared emergency access.
    EmergencyDeclared = 10, "emergency-declared";
    /// Emergency access opened something that was closed.
    EmergencyUsed = 11, "emergency-used";
    /// Somebody signed in.
    SignedIn = 12, "signed-in";
    /// A sign-in failed.
    SignInFailed = 13, "sign-in-failed";
    /// Somebody signed out.
    SignedOut = 14, "signed-out";
    /// A peer, certificate or claim was refused.
    PeerRefused = 15, "peer-refused";
    /// Configuration or registry changed.
    ConfigurationChanged = 16, "configuration-changed";
    /// The audit log was searched.
    AuditSearched = 17, "audit-searched";
    /// An account or API client was made, changed or closed.
    AccountChanged = 18, "account-changed";
    /// The node started.
    Started = 19, "started";
    /// The node stopped in order.
    Stopped = 20, "stopped";
    /// Patients were searched here.
    PatientsSearched = 21, "patients-searched";
    /// Patients were linked, unlinked, merged or unmerged.
    PatientsLinked = 22, "patients-linked";
    /// A patient's data was erased.
    Erased = 23, "erased";
    /// A received copy was deleted at the end of its lease or after a revocation.
    CopyDeleted = 24, "copy-deleted";
    /// A token authority evaluated blinded tokens for a member.
    TokensEvaluated = 25, "tokens-evaluated";
    /// The token budget of a member or user was used up, or is used at an unusual rate.
    BudgetAlarm = 40, "budget-alarm";
    /// Another organisation's node broke the protocol, as its own answer proves.
    PeerMisbehaved = 41, "peer-misbehaved";
}

/// How it ended (DICOM audit outcome 0, 4, 8, 12).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// As asked.
    Success,
    /// Refused by policy, or nothing found that may be shown.
    Denied,
    /// Not completed: time, network, a malformed request.
    Failed,
    /// The node itself failed.
    Broken,
}

/// A patient in the audit log: [`crate::vault::Vault::pseudonym`] of the patient key, which only this node
/// reverses and which names nobody once the patient is erased.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PatientRef(#[serde(with = "id16")] pub [u8; 16]);

impl fmt::Debug for PatientRef {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "PatientRef({})", hex::encode(self.0))
    }
}

mod id16 {
    use hie_protocol::bytes;
    use serde::{Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(id: &[u8; 16], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(id)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 16], D::Error> {
        bytes::deserialize(from)?
            .try_into()
            .map_err(|_| D::Error::custom("16 bytes expected"))
    }
}

/// Who did it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// Organisation.
    pub org: OrgId,
    /// Node; none when it is this node's own user.
    pub node: Option<NodeKey>,
    /// Account name at that organisation; empty for the node itself.
    pub user: String,
    /// Name as shown.
    pub user_name: String,
    /// Role in use.
    pub role: Role,
}

impl fmt::Debug for Actor {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Actor({}, {:?})", self.org, self.role)
    }
}

impl Actor {
    /// The node itself, or a program of it.
    #[must_use]
    pub fn system(org: OrgId, name: &str) -> Self {
        Self {
            org,
            node: None,
            user: String::new(),
            user_name: name.to_owned(),
            role: Role::System,
        }
    }

    /// Who a verified claim names.
    #[must_use]
    pub fn of_claim(claim: &Claim) -> Self {
        Self {
            org: claim.org.clone(),
            node: Some(claim.node),
            user: claim.user.clone(),
            user_name: claim.user_name.clone(),
            role: claim.role,
        }
    }
}

/// The other side of an exchange, and its own audit entry when it gave a receipt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counterpart {
    /// Organisation.
    pub org: OrgId,
    /// Its audit entry.
    pub entry: Option<CounterpartEntry>,
}

/// An entry of another organisation's log, as its signed receipt names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterpartEntry {
    /// Position.
    pub index: u64,
    /// Leaf hash.
    pub leaf: TreeHash,
}

/// On what ground the decision stands.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Basis {
    /// A directive of the patient: its id.
    Directive(String),
    /// The region's default.
    Default,
    /// Emergency access.
    Emergency,
    /// This organisation's own treatment of its own patient.
    OwnPatient,
}

impl fmt::Debug for Basis {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Directive(_) => "Directive",
            Self::Default => "Default",
            Self::Emergency => "Emergency",
            Self::OwnPatient => "OwnPatient",
        })
    }
}

/// One entry of the log.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEvent {
    /// [`EVENT_VERSION`].
    pub version: u8,
    /// What.
    pub kind: EventKind,
    /// When, by this node's clock.
    pub at: Millis,
    /// Question that joins entries across organisations.
    pub correlation: Correlation,
    /// Who.
    pub actor: Actor,
    /// Why.
    pub purpose: Option<Purpose>,
    /// About whom.
    pub patient: Option<PatientRef>,
    /// Which documents, in the words of their custodian; at most [`EVENT_DOCUMENTS_MAX`].
    pub documents: Vec<DocumentId>,
    /// How it ended.
    pub outcome: Outcome,
    /// The other side.
    pub counterpart: Option<Counterpart>,
    /// Ground of the decision.
    pub basis: Option<Basis>,
    /// Why something was withheld, closed words of the judge.
    pub reasons: Vec<String>,
    /// Emergency declaration.
    pub emergency: Option<BreakGlass>,
    /// What changed or was searched, in words without personal data.
    pub detail: Option<String>,
}

impl fmt::Debug for AuditEvent {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "AuditEvent({:?}, {:?}, {:?})",
            self.kind, self.correlation, self.outcome
        )
    }
}

/// Why an event cannot be written or read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// Over a limit.
    #[error("an audit event is over its limit of {what}")]
    Limit {
        /// Which limit.
        what: &'static str,
    },
    /// Not canonical bytes.
    #[error("an audit event is malformed")]
    Form(#[from] FrameError),
}

impl AuditEvent {
    /// A successful event with everything else empty.
    #[must_use]
    pub fn new(kind: EventKind, at: Millis, correlation: Correlation, actor: Actor) -> Self {
        Self {
            version: EVENT_VERSION,
            kind,
            at,
            correlation,
            actor,
            purpose: None,
            patient: None,
            documents: Vec::new(),
            outcome: Outcome::Success,
            counterpart: None,
            basis: None,
            reasons: Vec::new(),
            emergency: None,
            detail: None,
        }
    }

    /// The canonical bytes. Errors: [`EventError`].
    pub fn canonical(&self) -> Result<Vec<u8>, EventError> {
        let within = |holds: bool, what| if holds { Ok(()) } else { Err(EventError::Limit { what }) };
        within(self.documents.len() <= EVENT_DOCUMENTS_MAX, "documents")?;
        within(self.reasons.len() <= EVENT_REASONS_MAX, "reasons")?;
        let words = self.emergency.iter().map(|emergency| &emergency.words);
        let texts = [&self.actor.user, &self.actor.user_name].into_iter();
        let mut texts = texts.chain(&self.reasons).chain(&self.detail).chain(words);
        within(
            texts.all(|text| text.chars().count() <= EVENT_TEXT_CHARS_MAX),
            "characters of a text",
        )?;
        let bytes = cbor::encode(self)?;
        within(bytes.len() <= EVENT_BYTES_MAX, "bytes")?;
        Ok(bytes)
    }

    /// Reads canonical bytes. Errors: [`EventError::Form`].
    pub fn from_canonical(bytes: &[u8]) -> Result<Self, EventError> {
        Ok(cbor::decode(bytes, EVENT_BYTES_MAX)?)
    }
}
