//! What one directive says about one request, in three-valued logic (Kleene): yes, no, unsure.
//!
//! A permit applies only where every criterion, its own and its ancestors', says yes; a deny applies wherever none
//! says no. An unread provision is at most unsure. So nothing unknown ever widens (SPEC C-CLOSED).
//! Among siblings a deny wins; an exception wins over its parent (SPEC C-NESTED).

use std::collections::BTreeSet;

use hie_protocol::vocabulary::{Confidentiality, DocumentClass, Purpose, Sensitivity};

use crate::decide::Reason;
use crate::directive::{Action, Actor, Author, Code, Directive, Effect, Part, Provision, Span};
use crate::request::{ConsentRequest, ItemFacts};

/// Kleene truth; the order makes `min` the conjunction and `max` the disjunction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Truth {
    No,
    Unsure,
    Yes,
}

impl From<bool> for Truth {
    fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

/// What a directive says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Finding {
    /// It permits, naming these.
    pub permit: Option<Named>,
    /// It denies.
    pub deny: Option<Refused>,
    /// A permit in it was passed over because it was not understood or could not be judged.
    pub passed_over: bool,
}

/// What a permit names explicitly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Named {
    /// Restricted data, by confidentiality or by the sensitivity the document carries.
    pub restricted: bool,
    /// Sensitivities.
    pub sensitivity: BTreeSet<Sensitivity>,
}

/// What a deny is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Refused {
    /// Why.
    pub reasons: BTreeSet<Reason>,
    /// It names the asker: organisation, user or role.
    pub names_asker: bool,
    /// It names purpose PATRQT.
    pub names_patient_request: bool,
    /// It denies emergencies as well.
    pub even_emergency: bool,
}

/// What the ancestors of a provision leave of its scope.
#[derive(Clone, Copy)]
struct Scope {
    rest: Truth,
    labels: Truth,
    names_asker: bool,
    even_emergency: bool,
}

const WHOLE: Scope = Scope {
    rest: Truth::Yes,
    labels: Truth::Yes,
    names_asker: false,
    even_emergency: false,
};

/// What the directive says about the request. The root provision speaks before the base policy.
pub(crate) fn directive(directive: &Directive, request: &ConsentRequest) -> Finding {
    if !directive.in_force {
        return Finding::default();
    }
    let mut said = directive
        .provision
        .as_ref()
        .map(|root| provision(root, request, WHOLE))
        .unwrap_or_default();
    let silent = said.permit.is_none() && said.deny.is_none();
    if let (true, Some(base)) = (silent, &directive.base) {
        let passed_over = said.passed_over;
        said = provision(base, request, WHOLE);
        said.passed_over |= passed_over;
    }
    said
}

/// Depth is bounded by [`crate::directive::PROVISION_DEPTH_MAX`] for every directive that was read from FHIR.
fn provision(rule: &Provision, request: &ConsentRequest, above: Scope) -> Finding {
    let own_labels = labels(rule, &request.item);
    let labels = own_labels.unwrap_or(above.labels);
    let actors = any_of(&rule.actors, |actor| actor_is(actor, request));
    let mut rest = above.rest.min(actors).min(others(rule, request));
    if rule.unread {
        rest = rest.min(Truth::Unsure);
    }
    let truth = rest.min(labels);
    let recipient = rule.actors.iter().any(|actor| actor.part == Part::Recipient);
    let names_asker = above.names_asker || (recipient && actors == Truth::Yes);
    let even_emergency =
        rule.effect == Effect::Deny && truth != Truth::No && (above.even_emergency || denies_emergency(rule));
    let below = Scope {
        rest,
        labels,
        names_asker,
        even_emergency,
    };
    let mut exceptions = Finding::default();
    if rest != Truth::No {
        for exception in &rule.exceptions {
            exceptions.join(provision(exception, request, below));
        }
    }
    if exceptions.deny.is_some() || exceptions.permit.is_some() {
        return exceptions;
    }
    let mut said = Finding {
        passed_over: exceptions.passed_over,
        ..Finding::default()
    };
    match (rule.effect, truth) {
        (_, Truth::No) => {}
        (Effect::Permit, Truth::Yes) => said.permit = Some(names(rule)),
        (Effect::Permit, Truth::Unsure) => said.passed_over = true,
        (Effect::Deny, _) => {
            said.deny = Some(Refused {
                reasons: reasons(rule, request),
                names_asker,
                names_patient_request: rule.purposes.contains(&Purpose::PatientRequest),
                even_emergency,
            });
        }
    }
    said
}

impl Finding {
    /// Joins siblings: a deny wins.
    fn join(&mut self, other: Self) {
        self.passed_over |= other.passed_over;
        if let Some(deny) = other.deny {
            let mine = self.deny.get_or_insert_default();
            mine.reasons.extend(deny.reasons);
            mine.names_asker |= deny.names_asker;
            mine.names_patient_request |= deny.names_patient_request;
            mine.even_emergency |= deny.even_emergency;
        }
        if let Some(permit) = other.permit {
            let mine = self.permit.get_or_insert_default();
            mine.restricted |= permit.restricted;
            mine.sensitivity.extend(permit.sensitivity);
        }
        if self.deny.is_some() {
            self.permit = None;
        }
    }
}

fn names(rule: &Provision) -> Named {
    let restricted = rule
        .confidentiality
        .iter()
        .any(|named| matches!(named, Confidentiality::Restricted | Confidentiality::VeryRestricted));
    Named {
        restricted: restricted || !rule.sensitivity.is_empty(),
        sensitivity: rule.sensitivity.iter().copied().collect(),
    }
}

fn denies_emergency(rule: &Provision) -> bool {
    let named = |purpose| rule.purposes.contains(&purpose);
    rule.even_emergency || named(Purpose::BreakGlass) || named(Purpose::EmergencyTreatment)
}

fn reasons(rule: &Provision, request: &ConsentRequest) -> BTreeSet<Reason> {
    let mut found = BTreeSet::new();
    let mut when = |holds: bool, reason: Reason| {
        if holds {
            found.insert(reason);
        }
    };
    when(rule.unread, Reason::DirectiveNotUnderstood);
    for actor in rule.actors.iter().filter(|actor| actor_is(actor, request) != Truth::No) {
        let recipient = actor.part == Part::Recipient;
        when(
            recipient && actor.org.is_some() && actor.user.is_none(),
            Reason::OrganisationExcluded,
        );
        when(recipient && actor.user.is_some(), Reason::UserExcluded);
        when(recipient && actor.role.is_some(), Reason::RoleExcluded);
        when(!recipient, Reason::DataExcluded);
    }
    when(!rule.purposes.is_empty(), Reason::PurposeExcluded);
    when(names_data(rule), Reason::DataExcluded);
    if found.is_empty() {
        found.insert(Reason::EverybodyExcluded);
    }
    found
}

/// Whether the rule restricts itself to some of the data.
pub(crate) fn names_data(rule: &Provision) -> bool {
    !(rule.confidentiality.is_empty()
        && rule.sensitivity.is_empty()
        && rule.classes.is_empty()
        && rule.codes.is_empty()
        && rule.data_period.is_none()
        && rule.documents.is_empty()
        && rule.authors.is_empty())
}

/// Alternatives of one criterion; an empty criterion always holds.
fn any_of<T>(values: &[T], test: impl Fn(&T) -> Truth) -> Truth {
    if values.is_empty() {
        Truth::Yes
    } else {
        values.iter().map(test).max().unwrap_or(Truth::Unsure)
    }
}

/// Every criterion but actors and labels.
fn others(rule: &Provision, request: &ConsentRequest) -> Truth {
    Truth::from(rule.period.is_none_or(|period| period.contains(request.now)))
        .min(any_of(&rule.actions, |action| {
            Truth::from(matches!(action, Action::Access | Action::Use | Action::Disclose))
        }))
        .min(any_of(&rule.purposes, |named| purpose_covers(*named, request.purpose)))
        .min(data(rule, &request.item))
}

/// Every criterion about the document but its labels.
pub(crate) fn data(rule: &Provision, item: &ItemFacts) -> Truth {
    any_of(&rule.classes, |class| class_is(class, item))
        .min(any_of(&rule.codes, |code| code_is(code, item)))
        .min(rule.data_period.map_or(Truth::Yes, |span| dated_within(&span, item)))
        .min(written_or_listed(rule, item))
}

/// TREAT covers emergencies, ETREAT covers the declared ones (HL7 v3 ActReason hierarchy).
fn purpose_covers(named: Purpose, asked: Purpose) -> Truth {
    if named == Purpose::Unknown || asked == Purpose::Unknown {
        return Truth::Unsure;
    }
    let covers = match named {
        Purpose::Treatment => {
            matches!(
                asked,
                Purpose::Treatment | Purpose::EmergencyTreatment | Purpose::BreakGlass
            )
        }
        Purpose::EmergencyTreatment => matches!(asked, Purpose::EmergencyTreatment | Purpose::BreakGlass),
        _ => named == asked,
    };
    Truth::from(covers)
}

fn actor_is(actor: &Actor, request: &ConsentRequest) -> Truth {
    let item = &request.item;
    match actor.part {
        Part::Recipient => {
            let org = actor
                .org
                .as_ref()
                .map_or(Truth::Yes, |org| Truth::from(*org == request.asker_org));
            let role = actor.role.map_or(Truth::Yes, |role| Truth::from(role == request.role));
            let user = match &actor.user {
                None => Truth::Yes,
                Some(user) if *user != request.asker_user => Truth::No,
                Some(_) if actor.org.is_none() && request.asker_org != request.custodian => Truth::Unsure,
                Some(_) => Truth::Yes,
            };
            org.min(role).min(user)
        }
        Part::Custodian => {
            let org = actor
                .org
                .as_ref()
                .map_or(Truth::Unsure, |org| Truth::from(*org == request.custodian));
            if actor.user.is_some() || actor.role.is_some() {
                org.min(Truth::Unsure)
            } else {
                org
            }
        }
        Part::Author => {
            let org = actor.org.as_ref().map(|org| author_is(&Author::Org(org.clone()), item));
            let user = actor
                .user
                .as_ref()
                .map(|user| author_is(&Author::Person(user.clone()), item));
            let known = org.into_iter().chain(user).min().unwrap_or(Truth::Unsure);
            if actor.role.is_some() {
                known.min(Truth::Unsure)
            } else {
                known
            }
        }
    }
}

fn author_is(author: &Author, item: &ItemFacts) -> Truth {
    match author {
        Author::Org(org) => item
            .author_org
            .as_ref()
            .map_or(Truth::Unsure, |known| Truth::from(known == org)),
        Author::Person(_) if item.authors.is_empty() => Truth::Unsure,
        Author::Person(person) => Truth::from(item.authors.contains(person)),
    }
}

fn written_or_listed(rule: &Provision, item: &ItemFacts) -> Truth {
    if rule.documents.is_empty() && rule.authors.is_empty() {
        return Truth::Yes;
    }
    let listed = Truth::from(rule.documents.contains(&item.document));
    rule.authors
        .iter()
        .map(|author| author_is(author, item))
        .fold(listed, Truth::max)
}

/// A code matches itself. A document without any coding of that system may be anything.
fn code_is(code: &Code, item: &ItemFacts) -> Truth {
    if item.codings.contains(code) {
        return Truth::Yes;
    }
    if item.codings.iter().any(|known| known.system == code.system) {
        Truth::No
    } else {
        Truth::Unsure
    }
}

fn class_is(class: &Code, item: &ItemFacts) -> Truth {
    if class.system == RESOURCE_TYPES {
        let imaging = item.class == DocumentClass::Imaging;
        return match class.code.as_str() {
            "ImagingStudy" => Truth::from(imaging),
            "DocumentReference" => Truth::from(!imaging),
            _ => Truth::Unsure,
        };
    }
    code_is(class, item)
}

/// The code system of FHIR resource types, as `provision.class` names them.
const RESOURCE_TYPES: &str = "http://hl7.org/fhir/resource-types";

/// Yes when all of the document's dates lie inside, no when none can.
fn dated_within(span: &Span, item: &ItemFacts) -> Truth {
    let (first, last) = match (item.period, item.created) {
        (Some((first, last)), _) => (first.min(last), last.max(first)),
        (None, Some(created)) => (created, created),
        (None, None) => return Truth::Unsure,
    };
    let after = span.to.is_some_and(|to| to < first);
    let before = span.from.is_some_and(|from| last < from);
    if after || before {
        Truth::No
    } else if span.contains(first) && span.contains(last) {
        Truth::Yes
    } else {
        Truth::Unsure
    }
}

/// The security label criterion: none when the rule names no label.
pub(crate) fn labels(rule: &Provision, item: &ItemFacts) -> Option<Truth> {
    if rule.confidentiality.is_empty() && rule.sensitivity.is_empty() {
        return None;
    }
    let rank = |label: Confidentiality| Confidentiality::ALL.iter().position(|known| *known == label);
    let named = || rule.confidentiality.iter().filter_map(|label| rank(*label));
    let unknown = item.unknown_labels
        || item.confidentiality == Confidentiality::Unknown
        || item.sensitivity.contains(&Sensitivity::Unknown)
        || rule.confidentiality.contains(&Confidentiality::Unknown)
        || rule.sensitivity.contains(&Sensitivity::Unknown);
    let own = rank(item.confidentiality);
    let holds = match rule.effect {
        Effect::Permit => {
            let within = own.is_some_and(|own| named().max().is_some_and(|highest| own <= highest));
            let each = |carried: &Sensitivity| rule.sensitivity.iter().any(|named| permit_covers(*named, *carried));
            within || (!item.sensitivity.is_empty() && item.sensitivity.iter().all(each))
        }
        Effect::Deny => {
            let within = own.is_some_and(|own| named().min().is_some_and(|lowest| own >= lowest));
            let each = |carried: &Sensitivity| rule.sensitivity.iter().any(|named| deny_covers(*named, *carried));
            within || item.sensitivity.iter().any(each)
        }
    };
    Some(match (holds, unknown) {
        (true, false) => Truth::Yes,
        (false, false) => Truth::No,
        (_, true) => Truth::Unsure,
    })
}

/// Substance use of any kind (42 CFR Part 2).
pub(crate) const fn is_substance_use(label: Sensitivity) -> bool {
    matches!(
        label,
        Sensitivity::SubstanceUse | Sensitivity::AlcoholUse | Sensitivity::OpioidUse
    )
}

/// A permit that names substance use names its kinds; all else must be named itself.
pub(crate) fn permit_covers(named: Sensitivity, carried: Sensitivity) -> bool {
    named == carried || (named == Sensitivity::SubstanceUse && is_substance_use(carried))
}

/// A deny reaches every label its own may include (HL7 v3 ActCode hierarchy, read widely).
fn deny_covers(named: Sensitivity, carried: Sensitivity) -> bool {
    use Sensitivity as S;
    named == carried
        || match named {
            S::SubstanceUse => is_substance_use(carried),
            S::AlcoholUse | S::OpioidUse => carried == S::SubstanceUse,
            S::MentalHealth | S::Psychiatry => {
                matches!(carried, S::MentalHealth | S::Psychiatry | S::PsychotherapyNote)
            }
            S::SexualHealth => matches!(carried, S::ReproductiveHealth | S::SexuallyTransmitted | S::Hiv),
            S::SexuallyTransmitted => carried == S::Hiv,
            S::SexualDomesticViolence => carried == S::DomesticViolence,
            S::DomesticViolence => carried == S::SexualDomesticViolence,
            S::Genetic => carried == S::SickleCell,
            _ => false,
        }
}
