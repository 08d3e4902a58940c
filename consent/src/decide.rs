//! The decision: total, closed, independent of the order of the directives (SPEC C-TOTAL, C-ORDER).

use std::collections::{BTreeMap, BTreeSet};

use hie_protocol::claim::{BreakGlassReason, CLOCK_SKEW_MS_MAX};
use hie_protocol::id::{ConsentEpoch, DocumentId, Millis, OrgId};
use hie_protocol::message::Obligation;
use hie_protocol::registry::ConsentModel;
use hie_protocol::vocabulary::{Confidentiality, Purpose, Role, Sensitivity};

use crate::directive::{Directive, Provision};
use crate::evaluate::{self, Named, Refused};
use crate::request::{ConsentRequest, EmergencyDeclaration, Footing, ItemFacts, RegionRules};

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

/// One of the two keys of a document (ARCHITECTURE law 1). Only [`decide`] mints it (SPEC C-MINT).
///
/// Nobody else can build one:
///
/// ```compile_fail,E0451
/// use hie_consent::decide::{Basis, Permit};
/// use hie_protocol::id::{ConsentEpoch, DocumentId, Millis, OrgId};
/// use hie_protocol::vocabulary::Purpose;
///
/// let forged = Permit {
///     document: DocumentId::new([1; 16]),
///     epoch: ConsentEpoch(1),
///     audience: OrgId::parse("urn:oid:2.999.1").unwrap(),
///     purpose: Purpose::Treatment,
///     obligations: Vec::new(),
///     basis: Basis::RegionDefault,
///     expires: Millis(1),
/// };
/// ```
///
/// It cannot be copied, so it opens once:
///
/// ```compile_fail,E0277
/// fn copies<T: Clone>() {}
/// copies::<hie_consent::decide::Permit>();
/// ```
///
/// It cannot be written down, so it never leaves the process:
///
/// ```compile_fail,E0277
/// fn writes<T: serde::Serialize>() {}
/// writes::<hie_consent::decide::Permit>();
/// ```
///
/// Nor read back:
///
/// ```compile_fail,E0277
/// fn reads<T: serde::de::DeserializeOwned>() {}
/// reads::<hie_consent::decide::Permit>();
/// ```
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

impl Reason {
    /// Every reason.
    pub const ALL: &'static [Self] = &[
        Self::OrganisationExcluded,
        Self::UserExcluded,
        Self::RoleExcluded,
        Self::PurposeExcluded,
        Self::DataExcluded,
        Self::EverybodyExcluded,
        Self::EmergencyExcluded,
        Self::DirectiveNotUnderstood,
        Self::NoPermission,
        Self::PurposeNotForRole,
        Self::UnknownPurpose,
        Self::UnknownRole,
        Self::UnknownLabel,
        Self::UnknownConfidentiality,
        Self::VeryRestricted,
        Self::RestrictedNotNamed,
        Self::SubstanceUseNotNamed,
        Self::PsychotherapyNotNamed,
        Self::BreakGlassNotAllowed,
        Self::BreakGlassNotDeclared,
        Self::BreakGlassExpired,
        Self::NoEvidenceOfTreatment,
        Self::NotThePatient,
    ];

    /// The closed code of the reason, for audit entries and `--json`.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::OrganisationExcluded => "organisation-excluded",
            Self::UserExcluded => "user-excluded",
            Self::RoleExcluded => "role-excluded",
            Self::PurposeExcluded => "purpose-excluded",
            Self::DataExcluded => "data-excluded",
            Self::EverybodyExcluded => "everybody-excluded",
            Self::EmergencyExcluded => "emergency-excluded",
            Self::DirectiveNotUnderstood => "directive-not-understood",
            Self::NoPermission => "no-permission",
            Self::PurposeNotForRole => "purpose-not-for-role",
            Self::UnknownPurpose => "unknown-purpose",
            Self::UnknownRole => "unknown-role",
            Self::UnknownLabel => "unknown-label",
            Self::UnknownConfidentiality => "unknown-confidentiality",
            Self::VeryRestricted => "very-restricted",
            Self::RestrictedNotNamed => "restricted-not-named",
            Self::SubstanceUseNotNamed => "substance-use-not-named",
            Self::PsychotherapyNotNamed => "psychotherapy-not-named",
            Self::BreakGlassNotAllowed => "break-glass-not-allowed",
            Self::BreakGlassNotDeclared => "break-glass-not-declared",
            Self::BreakGlassExpired => "break-glass-expired",
            Self::NoEvidenceOfTreatment => "no-evidence-of-treatment",
            Self::NotThePatient => "not-the-patient",
        }
    }
}

impl Basis {
    /// The closed code of the basis, for audit entries and `--json`.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Directive(_) => "directive",
            Self::RegionDefault => "region-default",
            Self::OwnRecord => "own-record",
            Self::PatientAccess => "patient-access",
            Self::BreakGlass => "break-glass",
        }
    }
}

/// Judges one request. Total: every input has a decision; whatever cannot be judged is denied.
pub fn decide(directives: &[Directive], rules: &RegionRules, request: &ConsentRequest) -> Decision {
    let judged = judge(directives, rules, request);
    if let (Some(basis), true) = (judged.basis, judged.reasons.is_empty()) {
        return Decision::Permitted(Permit {
            document: request.item.document,
            epoch: request.epoch,
            audience: request.asker_org.clone(),
            purpose: request.purpose,
            obligations: obligations(&basis, &request.item),
            basis,
            expires: lease_end(directives, rules, request),
        });
    }
    Decision::Denied(Denial {
        reasons: judged.reasons.into_iter().collect(),
        directives: judged.denied_by.into_iter().collect(),
        opened_by_break_glass: opened_by_declaration(directives, rules, request),
    })
}

/// Everything found, before it becomes a decision. A basis counts only where no reason stands against it.
#[derive(Default)]
struct Judged {
    reasons: BTreeSet<Reason>,
    denied_by: BTreeSet<String>,
    basis: Option<Basis>,
}

/// What all directives say together, independent of their order.
#[derive(Default)]
struct Said {
    permits: BTreeMap<String, Named>,
    denies: Vec<(String, Refused)>,
    passed_over: bool,
}

fn judge(directives: &[Directive], rules: &RegionRules, request: &ConsentRequest) -> Judged {
    let mut judged = Judged::default();
    label_reasons(&request.item, &mut judged.reasons);
    let Some(footing) = footing(rules, request, &mut judged.reasons) else {
        return judged;
    };
    let said = listen(directives, request);
    let own_record = request.asker_org == request.custodian && footing == Footing::ByDefault;
    for (id, refused) in &said.denies {
        let counts = match footing {
            Footing::ByDeclaration => refused.even_emergency,
            Footing::OwnAccess => refused.names_asker || refused.names_patient_request,
            Footing::ByDefault if own_record => refused.names_asker,
            Footing::ByDefault | Footing::ByDirective => true,
        };
        if counts {
            judged.denied_by.insert(id.clone());
            judged.reasons.extend(refused.reasons.iter().copied());
            if footing == Footing::ByDeclaration {
                judged.reasons.insert(Reason::EmergencyExcluded);
            }
        }
    }
    sensitive_reasons(request, footing, &said, &mut judged.reasons);
    let demands_evidence = rules.evidence_required && request.purpose == Purpose::Treatment && !own_record;
    if footing == Footing::ByDefault && demands_evidence && !request.evidence_of_treatment {
        judged.reasons.insert(Reason::NoEvidenceOfTreatment);
    }
    judged.basis = basis(rules, footing, own_record, &said);
    // A refusal that is spelled out says more than the lack of a permission.
    if judged.basis.is_none() && judged.denied_by.is_empty() {
        judged.reasons.insert(Reason::NoPermission);
    }
    if said.passed_over && !judged.reasons.is_empty() {
        judged.reasons.insert(Reason::DirectiveNotUnderstood);
    }
    judged
}

fn listen(directives: &[Directive], request: &ConsentRequest) -> Said {
    let mut said = Said::default();
    for directive in directives {
        let finding = evaluate::directive(directive, request);
        said.passed_over |= finding.passed_over;
        if let Some(named) = finding.permit {
            let known = said.permits.entry(directive.id.clone()).or_default();
            known.restricted |= named.restricted;
            known.sensitivity.extend(named.sensitivity);
        }
        if let Some(refused) = finding.deny {
            said.denies.push((directive.id.clone(), refused));
        }
    }
    said
}

/// Labels that no directive and no emergency opens.
fn label_reasons(item: &ItemFacts, reasons: &mut BTreeSet<Reason>) {
    if item.unknown_labels || item.sensitivity.contains(&Sensitivity::Unknown) {
        reasons.insert(Reason::UnknownLabel);
    }
    match item.confidentiality {
        Confidentiality::Unknown => {
            reasons.insert(Reason::UnknownConfidentiality);
        }
        Confidentiality::VeryRestricted => {
            reasons.insert(Reason::VeryRestricted);
        }
        _ => {}
    }
}

/// The footing, or none with the reason why the question may not be asked.
fn footing(rules: &RegionRules, request: &ConsentRequest, reasons: &mut BTreeSet<Reason>) -> Option<Footing> {
    if request.role == Role::Unknown {
        reasons.insert(Reason::UnknownRole);
    }
    if request.purpose == Purpose::Unknown {
        reasons.insert(Reason::UnknownPurpose);
    }
    if !reasons.is_disjoint(&BTreeSet::from([Reason::UnknownRole, Reason::UnknownPurpose])) {
        return None;
    }
    let Some(footing) = rules.footing(request.role, request.purpose) else {
        reasons.insert(Reason::PurposeNotForRole);
        return None;
    };
    // INVARIANT: purpose BTG and the footing of a declaration go together, whatever table the region wrote.
    if (request.purpose == Purpose::BreakGlass) != (footing == Footing::ByDeclaration) {
        reasons.insert(Reason::PurposeNotForRole);
        return None;
    }
    if footing == Footing::OwnAccess && !(request.asker_is_patient && request.role == Role::Patient) {
        reasons.insert(Reason::NotThePatient);
    }
    if footing == Footing::ByDeclaration {
        reasons.extend(declaration_fault(rules, request));
    }
    Some(footing)
}

fn declaration_fault(rules: &RegionRules, request: &ConsentRequest) -> Option<Reason> {
    if !rules.break_glass.allowed {
        return Some(Reason::BreakGlassNotAllowed);
    }
    let Some(declaration) = request.break_glass else {
        return Some(Reason::BreakGlassNotDeclared);
    };
    let begun = declaration.declared <= request.now.plus(CLOCK_SKEW_MS_MAX);
    let running = request.now < declaration_end(rules, declaration.declared);
    (!(begun && running)).then_some(Reason::BreakGlassExpired)
}

const fn declaration_end(rules: &RegionRules, declared: Millis) -> Millis {
    declared.plus((rules.break_glass.minutes as u64).saturating_mul(60_000))
}

/// Documents that need a permission which names them, unless an emergency or the patient opens them.
fn sensitive_reasons(request: &ConsentRequest, footing: Footing, said: &Said, reasons: &mut BTreeSet<Reason>) {
    let item = &request.item;
    let named = |carried: Sensitivity| {
        let mut all = said.permits.values().flat_map(|permit| permit.sensitivity.iter());
        all.any(|named| evaluate::permit_covers(*named, carried))
    };
    // An emergency lifts refusals, but not for psychotherapy notes: there any refusal takes the permission away.
    let refused = footing == Footing::ByDeclaration && !said.denies.is_empty();
    let psychotherapy = item.sensitivity.contains(&Sensitivity::PsychotherapyNote);
    if psychotherapy && (refused || !named(Sensitivity::PsychotherapyNote)) {
        reasons.insert(Reason::PsychotherapyNotNamed);
    }
    if matches!(footing, Footing::ByDeclaration | Footing::OwnAccess) {
        return;
    }
    let mut substance = item
        .sensitivity
        .iter()
        .filter(|label| evaluate::is_substance_use(**label));
    if !substance.all(|label| named(*label)) {
        reasons.insert(Reason::SubstanceUseNotNamed);
    }
    let restricted = item.confidentiality == Confidentiality::Restricted;
    if restricted && !said.permits.values().any(|permit| permit.restricted) {
        reasons.insert(Reason::RestrictedNotNamed);
    }
}

fn basis(rules: &RegionRules, footing: Footing, own_record: bool, said: &Said) -> Option<Basis> {
    let by_directive = || said.permits.keys().next().cloned().map(Basis::Directive);
    match footing {
        Footing::ByDeclaration => Some(Basis::BreakGlass),
        Footing::OwnAccess => Some(Basis::PatientAccess),
        Footing::ByDirective => by_directive(),
        Footing::ByDefault => by_directive().or(match rules.default {
            _ if own_record => Some(Basis::OwnRecord),
            ConsentModel::OptOut => Some(Basis::RegionDefault),
            ConsentModel::OptIn => None,
        }),
    }
}

fn obligations(basis: &Basis, item: &ItemFacts) -> Vec<Obligation> {
    let mut found = BTreeSet::new();
    if *basis == Basis::BreakGlass {
        found.extend([
            Obligation::Review,
            Obligation::NotifyPatient,
            Obligation::DeleteAfterUse,
        ]);
    }
    if item.sensitivity.iter().any(|label| evaluate::is_substance_use(*label)) {
        found.insert(Obligation::NoRedisclosure);
    }
    found.into_iter().collect()
}

/// The lease ends with the declaration, and before any directive starts or ends.
fn lease_end(directives: &[Directive], rules: &RegionRules, request: &ConsentRequest) -> Millis {
    let mut end = request.now.plus(LEASE_MS_MAX);
    if let (Purpose::BreakGlass, Some(declaration)) = (request.purpose, request.break_glass) {
        end = end.min(declaration_end(rules, declaration.declared));
    }
    for directive in directives.iter().filter(|directive| directive.in_force) {
        let mut waiting: Vec<&Provision> = directive.base.iter().chain(&directive.provision).collect();
        while let Some(rule) = waiting.pop() {
            let starts = rule.period.and_then(|period| period.from);
            let stops = rule.period.and_then(|period| period.to).map(|last| last.plus(1));
            let changes = starts.into_iter().chain(stops).filter(|change| *change > request.now);
            end = changes.fold(end, Millis::min);
            waiting.extend(&rule.exceptions);
        }
    }
    end
}

/// Whether the same user, declaring an emergency now, would get the document.
fn opened_by_declaration(directives: &[Directive], rules: &RegionRules, request: &ConsentRequest) -> bool {
    let clinical = matches!(
        request.purpose,
        Purpose::Treatment | Purpose::EmergencyTreatment | Purpose::BreakGlass
    );
    if !clinical {
        return false;
    }
    let declared = ConsentRequest {
        purpose: Purpose::BreakGlass,
        break_glass: Some(EmergencyDeclaration {
            declared: request.now,
            reason: BreakGlassReason::CareNow,
        }),
        ..request.clone()
    };
    let judged = judge(directives, rules, &declared);
    judged.basis.is_some() && judged.reasons.is_empty()
}
