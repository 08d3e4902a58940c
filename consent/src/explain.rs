//! Plain words for decisions, and what directives mean for the index. No personal data in any sentence.

use std::collections::BTreeSet;

use hie_protocol::id::{Millis, OrgId};
use hie_protocol::message::Obligation;
use hie_protocol::registry::ConsentModel;
use hie_protocol::vocabulary::{Confidentiality, Purpose, Sensitivity};

use crate::decide::{Basis, Decision, Reason};
use crate::directive::{Directive, Effect, Part, Provision};
use crate::evaluate::{self, Truth};
use crate::request::{ItemFacts, RegionRules};

/// One plain sentence for each reason, or for the basis and each obligation.
#[must_use]
pub fn decision(decision: &Decision) -> Vec<&'static str> {
    match decision {
        Decision::Denied(denial) => denial.reasons.iter().map(|found| reason(*found)).collect(),
        Decision::Permitted(permit) => {
            let duties = permit.obligations().iter().map(|duty| obligation(*duty));
            core::iter::once(basis(permit.basis())).chain(duties).collect()
        }
    }
}

/// One plain sentence for a reason.
#[must_use]
pub const fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::OrganisationExcluded => "The patient excluded your organisation.",
        Reason::UserExcluded => "The patient excluded you.",
        Reason::RoleExcluded => "The patient excluded users with your role.",
        Reason::PurposeExcluded => "The patient does not allow use for this purpose.",
        Reason::DataExcluded => "The patient does not allow this document to be shared.",
        Reason::EverybodyExcluded => "The patient does not share this record with anybody.",
        Reason::EmergencyExcluded => "The patient refused access in emergencies too.",
        Reason::DirectiveNotUnderstood => {
            "A choice of the patient could not be fully understood, so it is read as a refusal. Ask the consent administrator."
        }
        Reason::NoPermission => "The patient has not given permission for this.",
        Reason::PurposeNotForRole => "Your role may not ask for this purpose.",
        Reason::UnknownPurpose => "The purpose of use is not known here.",
        Reason::UnknownRole => "Your role is not known here.",
        Reason::UnknownLabel => "The document carries a security label that is not known here.",
        Reason::UnknownConfidentiality => "The confidentiality of the document is not known.",
        Reason::VeryRestricted => "Very restricted documents are not shared.",
        Reason::RestrictedNotNamed => "Restricted documents need a permission of the patient that names them.",
        Reason::SubstanceUseNotNamed => {
            "Substance-use treatment records need the patient's written consent (42 CFR Part 2)."
        }
        Reason::PsychotherapyNotNamed => "Psychotherapy notes need a permission of the patient that names them.",
        Reason::BreakGlassNotAllowed => "This region does not allow emergency access.",
        Reason::BreakGlassNotDeclared => "Emergency access needs a declaration with a reason.",
        Reason::BreakGlassExpired => "The declaration of emergency is no longer valid. Declare it again.",
        Reason::NoEvidenceOfTreatment => "Your organisation has not shown that it treats the patient.",
        Reason::NotThePatient => "Only the patient may read the record on the patient's own behalf.",
    }
}

/// One plain sentence for a basis.
#[must_use]
pub const fn basis(basis: &Basis) -> &'static str {
    match basis {
        Basis::Directive(_) => "The patient gave permission.",
        Basis::RegionDefault => "The region shares for treatment unless the patient says no.",
        Basis::OwnRecord => "Your organisation holds this record and treats the patient.",
        Basis::PatientAccess => "Patients may read their own record.",
        Basis::BreakGlass => "Emergency access was declared.",
    }
}

/// One plain sentence for an obligation.
#[must_use]
pub const fn obligation(obligation: Obligation) -> &'static str {
    match obligation {
        Obligation::Review => "A privacy officer will review this access.",
        Obligation::NotifyPatient => "The patient will be told of this access.",
        Obligation::NoRedisclosure => "You must not disclose this document further (42 CFR Part 2).",
        Obligation::DeleteAfterUse => "The copy will be deleted after use.",
    }
}

/// Organisations that are denied everything at `now`, sorted: the excluded ones of an index label.
///
/// It may name too many, never too few of those that a rule denies the whole record by their id alone.
#[must_use]
pub fn excluded_organisations(directives: &[Directive], now: Millis) -> Vec<OrgId> {
    let mut found = BTreeSet::new();
    for directive in directives.iter().filter(|directive| directive.in_force) {
        let roots = directive.base.iter().chain(&directive.provision);
        let mut waiting: Vec<&Provision> = roots.collect();
        while let Some(rule) = waiting.pop() {
            if !valid(rule, now) || (evaluate::names_data(rule) && !rule.unread) {
                continue;
            }
            waiting.extend(&rule.exceptions);
            if closes(rule) {
                let whole = |part: Part, user: bool, role: bool| part == Part::Recipient && !user && !role;
                let orgs = rule
                    .actors
                    .iter()
                    .filter(|actor| whole(actor.part, actor.user.is_some(), actor.role.is_some()));
                found.extend(orgs.filter_map(|actor| actor.org.clone()));
            }
        }
    }
    found.into_iter().collect()
}

/// Whether a locator of the document may be published at all (SPEC C-DISCOVER).
///
/// Not where its labels deny everybody, not where the patient denies everybody without leaving any exception,
/// and in an opt-in region not before a permission of the patient reaches it.
#[must_use]
pub fn discoverable(directives: &[Directive], rules: &RegionRules, item: &ItemFacts, now: Millis) -> bool {
    let unknown = item.unknown_labels || item.sensitivity.contains(&Sensitivity::Unknown);
    let closed = matches!(
        item.confidentiality,
        Confidentiality::VeryRestricted | Confidentiality::Unknown
    );
    if unknown || closed {
        return false;
    }
    let in_force = || directives.iter().filter(|directive| directive.in_force);
    let reaches = |rule: &Provision| {
        valid(rule, now)
            && evaluate::data(rule, item) != Truth::No
            && evaluate::labels(rule, item).unwrap_or(Truth::Yes) != Truth::No
    };
    let closed_to_all = |directive: &Directive| {
        let rule = directive.provision.as_ref().or(directive.base.as_ref());
        rule.is_some_and(|rule| rule.actors.is_empty() && closes(rule) && reaches(rule)) && !leaves_open(directive)
    };
    if in_force().any(closed_to_all) {
        return false;
    }
    let permitted = |named: Option<Sensitivity>| {
        in_force().any(|directive| {
            let roots = directive.base.iter().chain(&directive.provision);
            let mut waiting: Vec<&Provision> = roots.collect();
            while let Some(rule) = waiting.pop() {
                let names = named.is_none_or(|label| rule.sensitivity.contains(&label));
                if rule.effect == Effect::Permit && !rule.unread && names && reaches(rule) {
                    return true;
                }
                waiting.extend(&rule.exceptions);
            }
            false
        })
    };
    if item.sensitivity.contains(&Sensitivity::PsychotherapyNote) && !permitted(Some(Sensitivity::PsychotherapyNote)) {
        return false;
    }
    rules.default == ConsentModel::OptOut || permitted(None)
}

/// A deny that leaves treatment no way: no purpose named, or treatment among them; no exception that permits.
fn closes(rule: &Provision) -> bool {
    rule.effect == Effect::Deny
        && (rule.unread || rule.purposes.is_empty() || rule.purposes.contains(&Purpose::Treatment))
        && !rule
            .exceptions
            .iter()
            .any(|exception| exception.effect == Effect::Permit)
}

/// Some exception of the directive permits somebody: the record must stay findable for them.
fn leaves_open(directive: &Directive) -> bool {
    let mut roots = directive.base.iter().chain(&directive.provision);
    roots.any(|rule| {
        rule.exceptions
            .iter()
            .any(|exception| exception.effect == Effect::Permit)
    })
}

fn valid(rule: &Provision, now: Millis) -> bool {
    rule.period.is_none_or(|period| period.contains(now))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use hie_protocol::id::{DocumentId, Millis, OrgId};
    use hie_protocol::registry::{BreakGlassRules, ConsentModel};
    use hie_protocol::vocabulary::{Confidentiality, DocumentClass, Purpose, Sensitivity};

    use super::{discoverable, excluded_organisations, reason};
    use crate::decide::Reason;
    use crate::directive::{Actor, Directive, DirectiveSource, Effect, Part, Provision, Span};
    use crate::request::{ItemFacts, RegionRules};

    const NOW: Millis = Millis(1000);

    fn org(arc: u8) -> OrgId {
        OrgId::parse(&format!("urn:oid:2.999.{arc}")).unwrap()
    }

    fn to(mut rule: Provision, arc: u8) -> Provision {
        rule.actors.push(Actor {
            part: Part::Recipient,
            org: Some(org(arc)),
            user: None,
            role: None,
        });
        rule
    }

    fn directive(rule: Provision) -> Directive {
        Directive::new(
            "d",
            DirectiveSource {
                resource: "d".to_owned(),
                version: String::new(),
            },
            rule,
        )
    }

    #[test]
    fn every_reason_has_its_own_sentence_and_code() {
        let mut sentences: Vec<_> = Reason::ALL.iter().map(|found| reason(*found)).collect();
        let mut codes: Vec<_> = Reason::ALL.iter().map(|found| found.code()).collect();
        assert!(sentences.iter().all(|sentence| sentence.ends_with('.')));
        for list in [&mut sentences, &mut codes] {
            list.sort_unstable();
            list.dedup();
            assert_eq!(list.len(), Reason::ALL.len());
        }
    }

    #[test]
    fn spec_c_excluded_names_organisations_denied_the_whole_record() {
        let mut nested = Provision::new(Effect::Permit);
        nested.exceptions.push(to(Provision::new(Effect::Deny), 1));
        let mut labelled = to(Provision::new(Effect::Deny), 2);
        labelled.sensitivity.push(Sensitivity::Hiv);
        let mut over = to(Provision::new(Effect::Deny), 3);
        over.period = Some(Span {
            from: None,
            to: Some(Millis(999)),
        });
        let mut research = to(Provision::new(Effect::Deny), 4);
        research.purposes.push(Purpose::Research);
        let all = [to(Provision::new(Effect::Deny), 5), nested, labelled, over, research].map(directive);
        assert_eq!(excluded_organisations(&all, NOW), [org(1), org(5)]);
    }

    #[test]
    fn spec_c_discover_nothing_that_everybody_is_denied() {
        let glass = BreakGlassRules {
            allowed: true,
            minutes: 240,
            tell_withheld: true,
        };
        let out = RegionRules::new(ConsentModel::OptOut, glass.clone());
        let into = RegionRules::new(ConsentModel::OptIn, glass);
        let item = ItemFacts::normal(DocumentId::new([1; 16]), DocumentClass::Note);
        assert!(discoverable(&[], &out, &item, NOW));
        assert!(!discoverable(&[], &into, &item, NOW));
        assert!(discoverable(
            &[directive(to(Provision::new(Effect::Permit), 1))],
            &into,
            &item,
            NOW
        ));
        assert!(!discoverable(
            &[directive(Provision::new(Effect::Deny))],
            &out,
            &item,
            NOW
        ));
        assert!(discoverable(
            &[directive(to(Provision::new(Effect::Deny), 1))],
            &out,
            &item,
            NOW
        ));
        let mut exception = Provision::new(Effect::Deny);
        exception.exceptions.push(to(Provision::new(Effect::Permit), 1));
        assert!(discoverable(&[directive(exception)], &out, &item, NOW));
        let mut hiv = Provision::new(Effect::Deny);
        hiv.sensitivity.push(Sensitivity::Hiv);
        let mut carries = item.clone();
        carries.sensitivity.push(Sensitivity::Hiv);
        assert!(discoverable(&[directive(hiv.clone())], &out, &item, NOW));
        assert!(!discoverable(&[directive(hiv)], &out, &carries, NOW));
        carries.sensitivity = vec![Sensitivity::PsychotherapyNote];
        assert!(!discoverable(&[], &out, &carries, NOW));
        carries.sensitivity.clear();
        carries.confidentiality = Confidentiality::VeryRestricted;
        assert!(!discoverable(&[], &out, &carries, NOW));
    }
}
