//! The decision: total, closed, independent of the order of the directives (SPEC C-TOTAL, C-ORDER).

use core::fmt;

use hie_protocol::id::{ConsentEpoch, DocumentId, Millis, OrgId};
use hie_protocol::message::Obligation;
use hie_protocol::vocabulary::Purpose;

use crate::directive::Directive;
use crate::request::{ConsentRequest, RegionRules};

/// Longest life of a permit, in milliseconds (ARCHITECTURE law 8: lease of at most 15 minutes).
pub const LEASE_MS_MAX: u64 = 15 * 60 * 1000;

/// What the judge says.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a decision that nobody reads protects nobody"]
pub enum Decision {
    /// The document may go, under the permit's terms.
    Permitted(Permit),
    /// It stays.
    Denied(Denial),
}

/// One of the two keys of a document (ARCHITECTURE law 1). Only [`decide`] mints it.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a permit is taken by value where the document is opened"]
pub struct Permit {
    document: DocumentId,
    epoch: ConsentEpoch,
    audience: OrgId,
    purpose: Purpose,
    obligations: Vec<Obligation>,
    basis: Basis,
    expires: Millis,
}

impl Permit {
    /// The document it opens.
    #[must_use]
    pub const fn document(&self) -> DocumentId {
        self.document
    }

    /// The consent epoch it was decided under.
    #[must_use]
    pub const fn epoch(&self) -> ConsentEpoch {
        self.epoch
    }

    /// The organisation it is for.
    #[must_use]
    pub const fn audience(&self) -> &OrgId {
        &self.audience
    }

    /// The purpose it is for.
    #[must_use]
    pub const fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// What the receiver must do, sorted.
    #[must_use]
    pub fn obligations(&self) -> &[Obligation] {
        &self.obligations
    }

    /// Why it was given.
    #[must_use]
    pub const fn basis(&self) -> &Basis {
        &self.basis
    }

    /// The end of its lease.
    #[must_use]
    pub const fn expires(&self) -> Millis {
        self.expires
    }
}

/// Why a permit was given.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Basis {
    /// The patient's directive of that id permits it.
    Directive(String),
    /// The region's default: sharing for treatment unless the patient says no.
    RegionDefault,
    /// The custodian's own users read their own record for treatment.
    OwnRecord,
    /// The patient reads their own record.
    PatientAccess,
    /// A declared emergency.
    BreakGlass,
}

/// A refusal with every reason found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// Reasons, sorted, at least one.
    pub reasons: Vec<Reason>,
    /// Ids of the directives that deny, sorted: the audit entry names them, the asker never sees them.
    pub directives: Vec<String>,
    /// A declaration of emergency by an authorised clinician would open it.
    pub opened_by_break_glass: bool,
}

/// Why a document is held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// A directive excludes the asking organisation.
    OrganisationExcluded,
    /// A directive excludes the asking user.
    UserExcluded,
    /// A directive excludes the asking role.
    RoleExcluded,
    /// A directive excludes the purpose.
    PurposeExcluded,
    /// A directive excludes this document by id, code, label, date or author.
    DataExcluded,
    /// A directive excludes everybody.
    EverybodyExcluded,
    /// A directive denies, and denies emergencies too.
    EmergencyExcluded,
    /// A directive, or a part of one, could not be understood and may mean a refusal.
    DirectiveNotUnderstood,
    /// The region shares with the patient's permission only, and none is recorded for this.
    NoPermission,
    /// The role may never ask for this purpose.
    PurposeNotForRole,
    /// The purpose is unknown.
    UnknownPurpose,
    /// The role is unknown.
    UnknownRole,
    /// The document carries a label this version does not know.
    UnknownLabel,
    /// The confidentiality is unknown.
    UnknownConfidentiality,
    /// Very restricted documents are never shared.
    VeryRestricted,
    /// Restricted documents need a permission that names them.
    RestrictedNotNamed,
    /// Substance-use records need a permission that names them (42 CFR Part 2).
    SubstanceUseNotNamed,
    /// Psychotherapy notes need a permission that names them.
    PsychotherapyNotNamed,
    /// The region does not allow emergency access.
    BreakGlassNotAllowed,
    /// Emergency access was asked without a declaration.
    BreakGlassNotDeclared,
    /// The declaration has ended, or lies in the future.
    BreakGlassExpired,
    /// No evidence of treatment where the region demands it.
    NoEvidenceOfTreatment,
    /// A patient's access by somebody who is not that patient.
    NotThePatient,
}

/// Judges one request. Total: every input has a decision, whatever cannot be judged is denied.
pub fn decide(directives: &[Directive], rules: &RegionRules, request: &ConsentRequest) -> Decision {
    let _ = (directives, rules, &request.item, fmt::Error);
    Decision::Denied(Denial { reasons: vec![Reason::DirectiveNotUnderstood], directives: Vec::new(), opened_by_break_glass: false })
}
