//! A patient's directive as a value: a base policy and a tree of provisions (FHIR R4 Consent.provision).
//!
//! Within one criterion the values are alternatives; different criteria must all hold; an empty criterion holds
//! always. A nested provision is an exception to its parent. A provision that was not read whole carries
//! [`Provision::unread`]: as a permit it never applies, as a deny it applies to all it could mean (SPEC C-CLOSED).

use core::fmt;

use hie_protocol::id::{DocumentId, Millis, OrgId};
use hie_protocol::vocabulary::{Confidentiality, Purpose, Role, Sensitivity};

/// Deepest nesting of provisions that is read; deeper ones make their parent unread.
pub const PROVISION_DEPTH_MAX: usize = 8;
/// Most provisions of one directive.
pub const PROVISIONS_MAX: usize = 512;
/// Most values of one criterion.
pub const CRITERION_VALUES_MAX: usize = 256;

/// Permit or deny.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// Lets the document go.
    Permit,
    /// Holds it back.
    Deny,
}

/// The stored Consent resource a directive was read from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DirectiveSource {
    /// Logical id of the Consent resource.
    pub resource: String,
    /// Its version (`meta.versionId`), empty when it has none.
    pub version: String,
}

/// A patient's recorded choice.
#[derive(Clone, PartialEq, Eq)]
pub struct Directive {
    /// Name in decisions and audit entries; holds no personal data.
    pub id: String,
    /// Where it was read from.
    pub source: DirectiveSource,
    /// Whether its status makes it count (`active`, scope of privacy).
    pub in_force: bool,
    /// The overarching policy: decides where [`Self::provision`] says nothing.
    pub base: Option<Provision>,
    /// The root provision.
    pub provision: Option<Provision>,
}

/// A rule: effect, criteria, and exceptions to it.
#[derive(Clone, PartialEq, Eq)]
pub struct Provision {
    /// What it does where its criteria hold.
    pub effect: Effect,
    /// Something in it was not understood.
    pub unread: bool,
    /// Denies emergency access as well (policy `deny`, or purpose BTG or ETREAT named in a deny).
    pub even_emergency: bool,
    /// When the rule is valid.
    pub period: Option<Span>,
    /// Who.
    pub actors: Vec<Actor>,
    /// What is done with the data.
    pub actions: Vec<Action>,
    /// Why.
    pub purposes: Vec<Purpose>,
    /// Confidentiality of the data: in a permit the highest named and all below, in a deny the lowest named and all above.
    pub confidentiality: Vec<Confidentiality>,
    /// Sensitivity of the data. With [`Self::confidentiality`] it forms one criterion, the security label.
    pub sensitivity: Vec<Sensitivity>,
    /// Class codes (system, code).
    pub classes: Vec<Code>,
    /// Type codes (system, code).
    pub codes: Vec<Code>,
    /// When the data came to be.
    pub data_period: Option<Span>,
    /// These documents. With [`Self::authors`] it forms one criterion, the data.
    pub documents: Vec<DocumentId>,
    /// Data written by these.
    pub authors: Vec<Author>,
    /// Exceptions.
    pub exceptions: Vec<Provision>,
}

/// A stretch of time with inclusive ends; an absent end is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Span {
    /// First millisecond.
    pub from: Option<Millis>,
    /// Last millisecond.
    pub to: Option<Millis>,
}

impl Span {
    /// Whether the instant lies inside.
    #[must_use]
    pub fn contains(&self, at: Millis) -> bool {
        self.from.is_none_or(|from| from <= at) && self.to.is_none_or(|to| at <= to)
    }
}

/// The part an actor plays (HL7 v3 ParticipationType).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Receives the data (IRCP, PRCP).
    Recipient,
    /// Holds the data (CST).
    Custodian,
    /// Wrote the data (AUT).
    Author,
}

/// An actor: everything named here must hold together.
#[derive(Clone, PartialEq, Eq)]
pub struct Actor {
    /// Its part.
    pub part: Part,
    /// The organisation.
    pub org: Option<OrgId>,
    /// The user: account name or practitioner id. Without [`Self::org`], a permit takes it as a user of the custodian.
    pub user: Option<String>,
    /// The role.
    pub role: Option<Role>,
}

/// Who wrote the data.
#[derive(Clone, PartialEq, Eq)]
pub enum Author {
    /// An organisation.
    Org(OrgId),
    /// A person, by the id the custodian uses.
    Person(String),
}

/// What is done with the data (consentaction).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// `collect`.
    Collect,
    /// `access`.
    Access,
    /// `use`.
    Use,
    /// `disclose`.
    Disclose,
    /// `correct`.
    Correct,
}

/// A code in a system.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code {
    /// Code system URI.
    pub system: String,
    /// Code.
    pub code: String,
}

impl Code {
    /// A code in a system.
    #[must_use]
    pub fn new(system: &str, code: &str) -> Self {
        Self {
            system: system.to_owned(),
            code: code.to_owned(),
        }
    }
}

impl Provision {
    /// A rule without criteria: it holds always.
    #[must_use]
    pub const fn new(effect: Effect) -> Self {
        Self {
            effect,
            unread: false,
            even_emergency: false,
            period: None,
            actors: Vec::new(),
            actions: Vec::new(),
            purposes: Vec::new(),
            confidentiality: Vec::new(),
            sensitivity: Vec::new(),
            classes: Vec::new(),
            codes: Vec::new(),
            data_period: None,
            documents: Vec::new(),
            authors: Vec::new(),
            exceptions: Vec::new(),
        }
    }

    /// Whether the rule restricts its scope by nothing but time.
    #[must_use]
    pub fn is_for_all(&self) -> bool {
        self.actors.is_empty() && self.is_all_data()
    }

    /// Whether the rule names no data, purpose or action: it concerns the whole record.
    #[must_use]
    pub fn is_all_data(&self) -> bool {
        self.actions.is_empty()
            && self.purposes.is_empty()
            && self.confidentiality.is_empty()
            && self.sensitivity.is_empty()
            && self.classes.is_empty()
            && self.codes.is_empty()
            && self.data_period.is_none()
            && self.documents.is_empty()
            && self.authors.is_empty()
    }
}

impl Directive {
    /// A directive in force with one root provision.
    #[must_use]
    pub fn new(id: &str, source: DirectiveSource, provision: Provision) -> Self {
        Self {
            id: id.to_owned(),
            source,
            in_force: true,
            base: None,
            provision: Some(provision),
        }
    }

    /// Stands for a stored Consent that cannot be read at all: it may mean any refusal, so it denies everything.
    /// A declared emergency opens it.
    #[must_use]
    pub fn unreadable(id: &str, source: DirectiveSource) -> Self {
        let mut provision = Provision::new(Effect::Deny);
        provision.unread = true;
        Self::new(id, source, provision)
    }
}

impl fmt::Debug for Directive {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Directive({}, in force: {})", self.id, self.in_force)
    }
}

impl fmt::Debug for Provision {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "Provision({:?}, unread: {}, {} exceptions)",
            self.effect,
            self.unread,
            self.exceptions.len()
        )
    }
}

impl fmt::Debug for Actor {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Actor({:?})", self.part)
    }
}

impl fmt::Debug for Author {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Author(hidden)")
    }
}
