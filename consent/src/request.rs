//! What is asked, and the rules of the region it is judged by.
//!
//! Everything the judge needs is in these values: the time and the consent epoch are arguments, never read.

use core::fmt;
use std::collections::BTreeMap;

use hie_protocol::claim::BreakGlassReason;
use hie_protocol::id::{ConsentEpoch, DocumentId, Millis, OrgId};
use hie_protocol::registry::{BreakGlassRules, ConsentModel};
use hie_protocol::vocabulary::{Confidentiality, DocumentClass, Purpose, Role, Sensitivity};

use crate::directive::Code;

/// One question: may this asker have this document now?
#[derive(Clone, PartialEq, Eq)]
pub struct ConsentRequest {
    /// The asking organisation, from the channel's certificate.
    pub asker_org: OrgId,
    /// The user's account name at the asking organisation.
    pub asker_user: String,
    /// The user's role.
    pub role: Role,
    /// Purpose of use.
    pub purpose: Purpose,
    /// Declaration of emergency access. Counts with purpose BTG only.
    pub break_glass: Option<EmergencyDeclaration>,
    /// The asker showed evidence of treatment (an encounter).
    pub evidence_of_treatment: bool,
    /// The asker is the patient whose record it is, proved by sign-in; a role alone proves nothing.
    pub asker_is_patient: bool,
    /// What is asked for.
    pub item: ItemFacts,
    /// The organisation that holds it and decides.
    pub custodian: OrgId,
    /// The time of the decision.
    pub now: Millis,
    /// The patient's consent epoch at the custodian, read together with the directives.
    pub epoch: ConsentEpoch,
}

/// A declaration of emergency access, as the claim carries it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EmergencyDeclaration {
    /// When it was made.
    pub declared: Millis,
    /// Why.
    pub reason: BreakGlassReason,
}

/// What the custodian knows about the document or study.
#[derive(Clone, PartialEq, Eq)]
pub struct ItemFacts {
    /// Its id.
    pub document: DocumentId,
    /// Kind.
    pub class: DocumentClass,
    /// Class, type, category and format codings (system, code).
    pub codings: Vec<Code>,
    /// Confidentiality.
    pub confidentiality: Confidentiality,
    /// Sensitivity labels.
    pub sensitivity: Vec<Sensitivity>,
    /// It carries a security label that this version does not know.
    pub unknown_labels: bool,
    /// When it was created.
    pub created: Option<Millis>,
    /// Service period.
    pub period: Option<(Millis, Millis)>,
    /// The organisation that wrote it.
    pub author_org: Option<OrgId>,
    /// The persons who wrote it, by the ids the custodian uses (a Practitioner's logical id or account name).
    pub authors: Vec<String>,
}

impl ItemFacts {
    /// A document about which nothing but its id and class is known: normal confidentiality, no labels.
    #[must_use]
    pub const fn normal(document: DocumentId, class: DocumentClass) -> Self {
        Self {
            document,
            class,
            codings: Vec::new(),
            confidentiality: Confidentiality::Normal,
            sensitivity: Vec::new(),
            unknown_labels: false,
            created: None,
            period: None,
            author_org: None,
            authors: Vec::new(),
        }
    }
}

/// On what footing a role may ask for a purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Footing {
    /// The region's default consent model decides where the patient said nothing.
    ByDefault,
    /// Only with a directive of the patient that permits it.
    ByDirective,
    /// The patient's own access.
    OwnAccess,
    /// Only with a declaration of emergency.
    ByDeclaration,
}

/// The rules of the region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionRules {
    /// What holds where the patient has recorded no choice.
    pub default: ConsentModel,
    /// Emergency access.
    pub break_glass: BreakGlassRules,
    /// Whether another organisation must show evidence of treatment for purpose TREAT.
    pub evidence_required: bool,
    /// Which role may ask for which purpose on which footing; an absent pair is never permitted.
    pub table: BTreeMap<(Role, Purpose), Footing>,
}

impl RegionRules {
    /// The region's model with the standard table of roles and purposes (SPEC C-TABLE).
    #[must_use]
    pub fn new(default: ConsentModel, break_glass: BreakGlassRules) -> Self {
        Self {
            default,
            break_glass,
            evidence_required: false,
            table: standard_table(),
        }
    }

    /// The footing of a role and a purpose; unknown ones have none.
    #[must_use]
    pub fn footing(&self, role: Role, purpose: Purpose) -> Option<Footing> {
        if role == Role::Unknown || purpose == Purpose::Unknown {
            return None;
        }
        self.table.get(&(role, purpose)).copied()
    }
}

/// Clinicians treat; physicians and nurses declare emergencies; the patient reads; all else needs a directive.
fn standard_table() -> BTreeMap<(Role, Purpose), Footing> {
    let mut table = BTreeMap::new();
    for role in [Role::Physician, Role::Nurse, Role::Pharmacist] {
        for purpose in [Purpose::Treatment, Purpose::EmergencyTreatment] {
            table.insert((role, purpose), Footing::ByDefault);
        }
    }
    for role in [Role::Physician, Role::Nurse] {
        table.insert((role, Purpose::BreakGlass), Footing::ByDeclaration);
    }
    for role in [Role::Physician, Role::Nurse, Role::Pharmacist, Role::System] {
        for purpose in [
            Purpose::Operations,
            Purpose::Payment,
            Purpose::Research,
            Purpose::PublicHealth,
        ] {
            table.insert((role, purpose), Footing::ByDirective);
        }
    }
    table.insert((Role::Patient, Purpose::PatientRequest), Footing::OwnAccess);
    table
}

impl fmt::Debug for ConsentRequest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "ConsentRequest({} -> {}, {:?}, {:?})",
            self.asker_org, self.custodian, self.role, self.purpose
        )
    }
}

impl fmt::Debug for ItemFacts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "ItemFacts({:?})", self.document)
    }
}
