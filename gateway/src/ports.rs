//! What the gateway asks of the node: its ports. The gateway owns these traits; the node's desk implements them.
//!
//! Every call carries a [`Caller`]; every federated answer says how whole it is (law 5). No port gives a
//! document without the custodian's decision and audit entry behind it: the desk delegates to the exchange.

use core::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use hie_protocol::claim::BreakGlass;
use hie_protocol::id::{ContentHash, Millis, OrgId};
use hie_protocol::message::{Demographics, DocumentMeta, MatchGrade, Obligation};
use hie_protocol::refusal::Class;
use hie_protocol::retrieval::StudyManifest;
use hie_protocol::vocabulary::{Purpose, Role};
use serde_json::Value;

/// Who is signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Account name.
    pub account: String,
    /// Name as shown.
    pub name: String,
    /// Department or line of work as shown, for example "Emergency".
    pub department: Option<String>,
    /// Roles, at least one.
    pub roles: Vec<Role>,
}

/// Who asks and why; made by the session or the API's authentication, never by a request body.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who.
    pub principal: Principal,
    /// Role in use.
    pub role: Role,
    /// Purpose of use.
    pub purpose: Purpose,
    /// Declared emergency access for the subject in hand.
    pub break_glass: Option<BreakGlass>,
}

/// How a caller proves who it is.
#[derive(Clone)]
pub enum Credential {
    /// Account and password (console sign-in, HTTP Basic).
    Password {
        /// Account name.
        account: String,
        /// Password.
        password: String,
    },
    /// Token of an API client (HTTP Bearer).
    Token(String),
}

impl fmt::Debug for Credential {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Credential(hidden)")
    }
}

/// A failure as the edge maps it: the class decides the status, `what` is safe to show, `reference` finds the story in the log.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{what}")]
pub struct PortError {
    /// Who must act.
    pub class: Class,
    /// Plain words without personal data: what happened and what to do.
    pub what: String,
}

/// Result of a port.
pub type Answer<T> = Result<T, PortError>;

/// Names a person in this node's memory for one user: opaque, random, without personal data.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubjectRef(pub String);

/// Names a document of some organisation for one subject: opaque, random, durable.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DocumentRef(pub String);

/// Search for a person.
#[derive(Clone, Default)]
pub struct PersonQuery {
    /// One box: name, birth date, number in any order; the desk takes it apart.
    pub text: Option<String>,
    /// Fields, where the form or FHIR search gave them.
    pub demographics: Demographics,
    /// Also ask the region.
    pub region: bool,
}

/// One person found.
#[derive(Clone)]
pub struct PersonHit {
    /// To open.
    pub subject: SubjectRef,
    /// As known here or as the certain custodian said.
    pub demographics: Demographics,
    /// How sure.
    pub grade: MatchGrade,
    /// What differs from the question, in words.
    pub differs: Vec<String>,
    /// Record number at this organisation, if any.
    pub record_number: Option<String>,
    /// Logical id of the Patient at this node, if this organisation knows the person.
    pub patient: Option<String>,
    /// Names of the organisations that know the person (this one included).
    pub known_at: Vec<String>,
}

/// What one organisation's part of an answer looks like; always exactly one state (UX E5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OrgState {
    /// Asked, not yet answered.
    Waiting,
    /// Answered with documents.
    Answered,
    /// Answered: no record of this patient (or none that may be mentioned).
    NoRecord,
    /// Answered, some withheld (only where the region lets that be said).
    SomeWithheld,
    /// Answered: probably this patient, a human must confirm.
    IdentityNotAgreed,
    /// Refused the question.
    Refused,
    /// Did not answer in time (milliseconds waited).
    TimedOut(u64),
    /// Not reachable, since when if known.
    Offline(Option<Millis>),
}

impl OrgState {
    /// Whether the organisation's part is missing from the answer.
    #[must_use]
    pub const fn is_silent(&self) -> bool {
        matches!(self, Self::TimedOut(_) | Self::Offline(_))
    }
}

/// An organisation in an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrgAnswer {
    /// Id (home community id).
    pub org: OrgId,
    /// Name as shown.
    pub name: String,
    /// State.
    pub state: OrgState,
    /// Milliseconds from the question to the answer.
    pub elapsed_ms: Option<u64>,
    /// Phone for questions, shown beside a gap.
    pub phone: Option<String>,
}

/// Whether everybody answered. There is no third constructor (law 5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Completeness {
    /// Every organisation asked, and every index holder needed, answered.
    Complete {
        /// When.
        as_of: Millis,
    },
    /// Some did not answer.
    Partial {
        /// Exactly those.
        silent: Vec<OrgAnswer>,
        /// When.
        as_of: Millis,
    },
}

/// A document as a card or a FHIR DocumentReference shows it.
#[derive(Clone)]
pub struct DocumentCard {
    /// To retrieve.
    pub reference: DocumentRef,
    /// Custodian.
    pub org: OrgId,
    /// Custodian's name.
    pub org_name: String,
    /// What the custodian says.
    pub meta: DocumentMeta,
}

/// What happens while a record opens, organisation by organisation.
#[derive(Clone)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all events are the large variant, one for each organisation"
)]
pub enum RecordEvent {
    /// The organisations that will be asked.
    Asking(Vec<OrgAnswer>),
    /// One organisation's answer; its summary as an IPS document Bundle (JSON bytes) when it granted one.
    Organisation {
        /// State and time.
        answer: OrgAnswer,
        /// Granted documents.
        documents: Vec<DocumentCard>,
        /// The patient as that organisation knows her.
        demographics: Option<Demographics>,
        /// Summary.
        summary: Option<Bytes>,
        /// Obligations of the release.
        obligations: Vec<Obligation>,
        /// A declaration of emergency access would open more.
        more_on_emergency: bool,
    },
    /// All answered or the deadline passed.
    Done(Completeness),
}

/// Content that streams.
pub struct Body {
    /// MIME type.
    pub content_type: String,
    /// Bytes in all.
    pub size: u64,
    /// SHA-256 of all, verified as it passes: a mismatch ends the stream with an error.
    pub hash: ContentHash,
    /// Chunks.
    pub stream: BoxStream<'static, Answer<Bytes>>,
}

/// Filters of ITI-67, already parsed; none means any.
#[derive(Clone, Default, Debug)]
pub struct DocumentFilter {
    /// Type codes `(system, code)`; an empty system means any.
    pub kind: Vec<(String, String)>,
    /// Category codes.
    pub category: Vec<(String, String)>,
    /// Format codes.
    pub format: Vec<(String, String)>,
    /// Security label codes.
    pub security_label: Vec<(String, String)>,
    /// Creation time from, to (inclusive, exclusive).
    pub created: (Option<Millis>, Option<Millis>),
    /// Service period overlaps from, to.
    pub period: (Option<Millis>, Option<Millis>),
    /// Only these home communities.
    pub communities: Vec<OrgId>,
}

/// Which patient a FHIR search is about.
#[derive(Clone)]
pub enum PatientSelector {
    /// Logical id at this node.
    Id(String),
    /// Business identifier.
    Identifier {
        /// System.
        system: String,
        /// Value.
        value: String,
    },
}

/// Answer of a document search.
pub struct DocumentsAnswer {
    /// Logical id of the patient at this node.
    pub patient: Option<String>,
    /// Documents.
    pub documents: Vec<DocumentCard>,
    /// Whole or not.
    pub completeness: Completeness,
}

/// People: local and across the region.
pub trait People: Send + Sync + 'static {
    /// Finds people. Audited.
    fn find<'a>(
        &'a self,
        caller: &'a Caller,
        query: PersonQuery,
    ) -> BoxFuture<'a, Answer<(Vec<PersonHit>, Completeness)>>;
    /// Who a subject is, or none if the handle is not this user's.
    fn subject<'a>(&'a self, caller: &'a Caller, subject: &'a SubjectRef) -> BoxFuture<'a, Answer<Option<PersonHit>>>;
    /// FHIR Patient resources of this node that match; `id` reads one.
    fn patients<'a>(
        &'a self,
        caller: &'a Caller,
        query: PersonQuery,
        id: Option<String>,
    ) -> BoxFuture<'a, Answer<Vec<Value>>>;
}

/// Records across the region.
pub trait Records: Send + Sync + 'static {
    /// Opens a subject's record: asks every organisation that points to it, streams the answers.
    fn open<'a>(
        &'a self,
        caller: &'a Caller,
        subject: &'a SubjectRef,
    ) -> BoxFuture<'a, Answer<BoxStream<'static, RecordEvent>>>;
    /// Document search for FHIR (ITI-67). Unknown patient: an empty, complete answer.
    fn documents<'a>(
        &'a self,
        caller: &'a Caller,
        patient: PatientSelector,
        filter: DocumentFilter,
    ) -> BoxFuture<'a, Answer<DocumentsAnswer>>;
    /// What a document is.
    fn card<'a>(&'a self, caller: &'a Caller, document: &'a DocumentRef) -> BoxFuture<'a, Answer<DocumentCard>>;
    /// Content of a document from byte `from` on, wherever it is held.
    fn content<'a>(&'a self, caller: &'a Caller, document: &'a DocumentRef, from: u64) -> BoxFuture<'a, Answer<Body>>;
    /// A study's manifest.
    fn study<'a>(&'a self, caller: &'a Caller, document: &'a DocumentRef) -> BoxFuture<'a, Answer<StudyManifest>>;
    /// The n-th instance of a study in manifest order (a DICOM part-10 file).
    fn instance<'a>(&'a self, caller: &'a Caller, document: &'a DocumentRef, index: u32)
    -> BoxFuture<'a, Answer<Body>>;
}

/// What became of one stored DICOM instance.
#[derive(Clone, Debug)]
pub struct StoredInstance {
    /// SOP class, empty when unreadable.
    pub sop_class: String,
    /// SOP instance, empty when unreadable.
    pub sop_instance: String,
    /// Study, empty when unreadable.
    pub study: String,
    /// DICOM failure reason (PS3.18 table I.2-2) and words, or none when stored durably.
    pub failure: Option<(u16, String)>,
}

/// A level of QIDO-RS with its parents.
#[derive(Clone, Debug, Default)]
pub struct ImagingQuery {
    /// Study UID, when the level is below it or it is a filter.
    pub study: Option<String>,
    /// Series UID.
    pub series: Option<String>,
    /// SOP Instance UID.
    pub instance: Option<String>,
    /// Matching attributes: `(ggggeeee, value)`; wildcards `*` `?`, ranges with `-` on dates.
    pub matching: Vec<(String, String)>,
    /// Extra attributes to return.
    pub include: Vec<String>,
    /// First result.
    pub offset: usize,
    /// Most results.
    pub limit: usize,
}

/// Level of a DICOM query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImagingLevel {
    /// Study.
    Study,
    /// Series.
    Series,
    /// Instance.
    Instance,
}

/// This node's own archive, for DICOMweb.
pub trait Archive: Send + Sync + 'static {
    /// Stores one instance (part-10 bytes); returns after it is durable. `study` is set for STOW to a study.
    fn store<'a>(
        &'a self,
        caller: &'a Caller,
        study: Option<String>,
        bytes: Bytes,
    ) -> BoxFuture<'a, Answer<StoredInstance>>;
    /// QIDO-RS: DICOM JSON objects and whether more follow.
    fn query<'a>(
        &'a self,
        caller: &'a Caller,
        level: ImagingLevel,
        query: ImagingQuery,
    ) -> BoxFuture<'a, Answer<(Vec<Value>, bool)>>;
    /// Instances below a study, series or one instance, in viewing order; each decided and audited.
    /// An empty list: nothing here that the caller may know of.
    fn retrieve<'a>(&'a self, caller: &'a Caller, query: ImagingQuery) -> BoxFuture<'a, Answer<Vec<InstanceContent>>>;
}

/// An instance to send.
#[derive(Clone)]
pub struct InstanceContent {
    /// Study.
    pub study: String,
    /// Series.
    pub series: String,
    /// Instance.
    pub instance: String,
    /// SOP class.
    pub sop_class: String,
    /// Transfer syntax as stored.
    pub transfer_syntax: String,
    /// Size in bytes.
    pub size: u64,
    /// Reads the part-10 bytes; permit and receipt are already behind it.
    pub read: Arc<dyn Fn() -> BoxFuture<'static, Answer<Body>> + Send + Sync>,
}

/// Patient's choices.
pub trait Consents: Send + Sync + 'static {
    /// Records a FHIR Consent; returns it with its id once it is durable and in force here.
    fn create<'a>(&'a self, caller: &'a Caller, consent: Value) -> BoxFuture<'a, Answer<Value>>;
    /// Searches by patient (and status). `id` reads one.
    fn search<'a>(
        &'a self,
        caller: &'a Caller,
        patient: Option<PatientSelector>,
        status: Option<String>,
        id: Option<String>,
    ) -> BoxFuture<'a, Answer<Vec<Value>>>;
    /// Who could see what, and why, for a local patient: rows of (who, what, permitted, why) in words.
    fn preview<'a>(
        &'a self,
        caller: &'a Caller,
        patient: PatientSelector,
        draft: Option<Value>,
    ) -> BoxFuture<'a, Answer<Vec<ConsentRow>>>;
}

/// A row of the consent preview.
#[derive(Clone)]
pub struct ConsentRow {
    /// Organisation or user class.
    pub who: String,
    /// Kind of documents and how many.
    pub what: String,
    /// Whether it opens.
    pub permitted: bool,
    /// Why, in words.
    pub why: String,
}

/// Search of the access log.
#[derive(Clone, Default)]
pub struct AccessQuery {
    /// Patient name, account name or id in one box.
    pub text: Option<String>,
    /// Only emergency access.
    pub emergency_only: bool,
    /// From, to.
    pub period: (Option<Millis>, Option<Millis>),
    /// Entries before this index (cursor paging).
    pub before: Option<u64>,
    /// Most entries.
    pub limit: usize,
}

/// One access as a sentence.
#[derive(Clone)]
pub struct AccessEntry {
    /// Position in the log.
    pub index: u64,
    /// When.
    pub at: Millis,
    /// One sentence: who, from where, did what, why.
    pub sentence: String,
    /// Emergency access.
    pub emergency: bool,
    /// Correlation across organisations, hex.
    pub correlation: String,
    /// IHE BALP AuditEvent.
    pub event: Value,
}

/// What can be proved about a page of the log.
#[derive(Clone)]
pub struct AccessProof {
    /// Size of the log the page was read from.
    pub size: u64,
    /// Checkpoint in C2SP signed-note form.
    pub checkpoint: String,
    /// Whether every entry of the page was checked against the tree.
    pub whole: bool,
}

/// The audit log, for auditors.
pub trait AccessLog: Send + Sync + 'static {
    /// Searches; itself audited.
    fn search<'a>(
        &'a self,
        caller: &'a Caller,
        query: AccessQuery,
    ) -> BoxFuture<'a, Answer<(Vec<AccessEntry>, AccessProof)>>;
}

/// Accounts.
pub trait Accounts: Send + Sync + 'static {
    /// Checks a credential. Wrong and unknown look alike; repeated failures slow down. Audited.
    fn authenticate(&self, credential: Credential) -> BoxFuture<'_, Answer<Principal>>;
}

/// State of this node, for the status page and `/readyz`.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// This organisation's name.
    pub name: String,
    /// The region's name.
    pub region: String,
    /// End of the certificate.
    pub certificate_until: Option<Millis>,
    /// Red things first, in sentences with the fix.
    pub needs_you: Vec<String>,
    /// Peers: name, reachable, words.
    pub peers: Vec<(String, bool, String)>,
    /// Counts: patients, documents, studies, audit entries, outbox waiting.
    pub counts: Vec<(String, u64)>,
    /// Ready to serve.
    pub ready: bool,
}

/// The node itself.
pub trait NodeState: Send + Sync + 'static {
    /// Health now.
    fn health(&self) -> BoxFuture<'_, Health>;
    /// The region's other organisations, by name, for a patient's choices.
    fn organisations(&self) -> BoxFuture<'_, Vec<(OrgId, String)>>;
    /// The time, so that tests own the clock.
    fn now(&self) -> Millis;
    /// Random bytes for session tokens.
    fn random(&self) -> [u8; 32];
}

/// How a frame is windowed: centre and width in stored units.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// Centre.
    pub centre: f64,
    /// Width, above zero.
    pub width: f64,
}

/// Draws pictures. The node runs the decoder in a separate, limited process: a malformed picture costs its own
/// page an error text and nothing else.
pub trait FrameRenderer: Send + Sync + 'static {
    /// Draws frame `frame` (from zero) of a DICOM part-10 file as PNG bytes, at most `px_max` wide and high.
    fn render(&self, part10: Bytes, frame: u32, px_max: u32, window: Option<Window>) -> BoxFuture<'_, Answer<Bytes>>;
}

/// Everything the gateway may ask of the node.
#[derive(Clone)]
pub struct Ports {
    /// People.
    pub people: Arc<dyn People>,
    /// Records across the region.
    pub records: Arc<dyn Records>,
    /// This node's archive.
    pub archive: Arc<dyn Archive>,
    /// Patient's choices.
    pub consents: Arc<dyn Consents>,
    /// The audit log.
    pub access_log: Arc<dyn AccessLog>,
    /// Accounts.
    pub accounts: Arc<dyn Accounts>,
    /// The node itself.
    pub node: Arc<dyn NodeState>,
    /// Pictures.
    pub frames: Arc<dyn FrameRenderer>,
}
