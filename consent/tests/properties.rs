//! Laws of the judge over arbitrary inputs (SPEC C-TOTAL, C-CLOSED, C-MONOTONE, C-ORDER).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::{Strategy, any};
use proptest::sample::select;
use proptest::{prop_assert, prop_assert_eq, proptest};
use serde_json::{Value, json};

use hie_consent::decide::{Decision, decide};
use hie_consent::directive::{Actor, Author, Code, Directive, DirectiveSource, Effect, Part, Provision, Span};
use hie_consent::explain;
use hie_consent::fhir;
use hie_consent::request::{ConsentRequest, EmergencyDeclaration, ItemFacts, RegionRules};
use hie_protocol::claim::BreakGlassReason;
use hie_protocol::id::{ConsentEpoch, DocumentId, Millis, OrgId};
use hie_protocol::registry::{BreakGlassRules, ConsentModel};
use hie_protocol::vocabulary::{Confidentiality, DocumentClass, Purpose, Role, Sensitivity};

/// Small worlds, so that values meet; one in many is unknown.
fn org() -> impl Strategy<Value = OrgId> {
    (1_u8..4).prop_map(|arc| OrgId::parse(&format!("urn:oid:2.999.{arc}")).unwrap())
}

fn user() -> impl Strategy<Value = String> {
    select(vec!["a", "b"]).prop_map(str::to_owned)
}

fn role() -> impl Strategy<Value = Role> {
    select([Role::ALL, &[Role::Physician, Role::Physician, Role::Unknown]].concat())
}

fn purpose() -> impl Strategy<Value = Purpose> {
    select(
        [
            Purpose::ALL,
            &[Purpose::Treatment, Purpose::BreakGlass, Purpose::Unknown],
        ]
        .concat(),
    )
}

fn confidentiality() -> impl Strategy<Value = Confidentiality> {
    select(
        [
            Confidentiality::ALL,
            &[
                Confidentiality::Normal,
                Confidentiality::Normal,
                Confidentiality::Unknown,
            ],
        ]
        .concat(),
    )
}

fn sensitivity() -> impl Strategy<Value = Sensitivity> {
    select([Sensitivity::ALL, &[Sensitivity::Unknown]].concat())
}

fn instant() -> impl Strategy<Value = Millis> {
    select(vec![0_u64, 1, 1000, 100_000, 4_000_000, u64::MAX]).prop_map(Millis)
}

fn span() -> impl Strategy<Value = Span> {
    (of(instant()), of(instant())).prop_map(|(from, to)| Span { from, to })
}

fn code() -> impl Strategy<Value = Code> {
    (
        select(vec!["s", "http://hl7.org/fhir/resource-types"]),
        select(vec!["x", "ImagingStudy"]),
    )
        .prop_map(|(system, code)| Code::new(system, code))
}

fn document() -> impl Strategy<Value = DocumentId> {
    (0_u8..2).prop_map(|byte| DocumentId::new([byte; 16]))
}

fn actor() -> impl Strategy<Value = Actor> {
    (
        select(vec![Part::Recipient, Part::Recipient, Part::Custodian, Part::Author]),
        of(org()),
        of(user()),
        of(role()),
    )
        .prop_map(|(part, org, user, role)| Actor { part, org, user, role })
}

fn author() -> impl Strategy<Value = Author> {
    (any::<bool>(), org(), user())
        .prop_map(|(is_org, org, user)| if is_org { Author::Org(org) } else { Author::Person(user) })
}

fn flat(effects: Vec<Effect>) -> impl Strategy<Value = Provision> {
    let who = (
        vec(actor(), 0..2),
        vec(purpose(), 0..3),
        vec(confidentiality(), 0..2),
        vec(sensitivity(), 0..2),
    );
    let what = (
        vec(code(), 0..2),
        vec(code(), 0..2),
        vec(document(), 0..2),
        vec(author(), 0..2),
    );
    let when = (
        of(span()),
        of(span()),
        select(vec![false, false, false, true]),
        any::<bool>(),
    );
    (select(effects), who, what, when).prop_map(|(effect, who, what, when)| {
        let mut rule = Provision::new(effect);
        (rule.actors, rule.purposes, rule.confidentiality, rule.sensitivity) = who;
        (rule.classes, rule.codes, rule.documents, rule.authors) = what;
        (rule.period, rule.data_period, rule.unread, rule.even_emergency) = when;
        rule
    })
}

fn tree(effects: Vec<Effect>) -> impl Strategy<Value = Provision> {
    flat(effects.clone()).prop_recursive(3, 12, 3, move |inner| {
        (flat(effects.clone()), vec(inner, 0..3)).prop_map(|(mut rule, exceptions)| {
            rule.exceptions = exceptions;
            rule
        })
    })
}

fn directive(effects: Vec<Effect>) -> impl Strategy<Value = Directive> {
    let trees = (of(tree(effects.clone())), of(tree(effects)));
    (trees, select(vec![true, true, true, false]), 0_u8..4).prop_map(|((base, provision), in_force, id)| Directive {
        id: format!("d{id}"),
        source: DirectiveSource {
            resource: format!("d{id}"),
            version: String::new(),
        },
        in_force,
        base,
        provision,
    })
}

fn directives() -> impl Strategy<Value = Vec<Directive>> {
    vec(directive(vec![Effect::Permit, Effect::Permit, Effect::Deny]), 0..4)
}

fn rules() -> impl Strategy<Value = RegionRules> {
    let models = select(vec![ConsentModel::OptIn, ConsentModel::OptOut]);
    (models, any::<bool>(), select(vec![0, 1, 240, u32::MAX]), any::<bool>()).prop_map(
        |(model, allowed, minutes, evidence)| {
            let mut rules = RegionRules::new(
                model,
                BreakGlassRules {
                    allowed,
                    minutes,
                    tell_withheld: true,
                },
            );
            rules.evidence_required = evidence;
            rules
        },
    )
}

fn item() -> impl Strategy<Value = ItemFacts> {
    let labels = (
        confidentiality(),
        vec(sensitivity(), 0..3),
        select(vec![false, false, false, true]),
    );
    let dates = (of(instant()), of((instant(), instant())));
    (
        document(),
        labels,
        dates,
        vec(code(), 0..3),
        of(org()),
        vec(user(), 0..2),
    )
        .prop_map(|(document, labels, dates, codings, author_org, authors)| {
            let mut item = ItemFacts::normal(document, DocumentClass::Note);
            (item.confidentiality, item.sensitivity, item.unknown_labels) = labels;
            (item.created, item.period) = dates;
            (item.codings, item.author_org, item.authors) = (codings, author_org, authors);
            item
        })
}

fn request() -> impl Strategy<Value = ConsentRequest> {
    let who = (org(), user(), role(), purpose(), org());
    (who, of(instant()), any::<bool>(), any::<bool>(), item(), instant()).prop_map(
        |((asker_org, asker_user, role, purpose, custodian), declared, evidence, patient, item, now)| ConsentRequest {
            asker_org,
            asker_user,
            role,
            purpose,
            break_glass: declared.map(|declared| EmergencyDeclaration {
                declared,
                reason: BreakGlassReason::CareNow,
            }),
            evidence_of_treatment: evidence,
            asker_is_patient: patient,
            item,
            custodian,
            now,
            epoch: ConsentEpoch(1),
        },
    )
}

/// A JSON value that looks more or less like a Consent.
fn consent() -> impl Strategy<Value = Value> {
    let keys = [
        "type",
        "period",
        "actor",
        "purpose",
        "securityLabel",
        "provision",
        "data",
        "code",
        "start",
        "end",
        "reference",
        "coding",
        "system",
        "identifier",
        "value",
        "meaning",
        "role",
    ];
    let words = [
        "permit",
        "deny",
        "TREAT",
        "2022-13",
        "2022",
        "urn:oid:2.999.1",
        "Organization/1",
        "IRCP",
        "instance",
        "http://terminology.hl7.org/CodeSystem/v3-ActReason",
        "#x",
        "Practitioner/9",
    ];
    let leaf = select(words.to_vec()).prop_map(Value::from);
    let value = leaf.prop_recursive(6, 48, 4, move |inner| {
        let object = vec((select(keys.to_vec()), inner.clone()), 0..4).prop_map(|entries| {
            entries
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect()
        });
        proptest::prop_oneof![object.prop_map(Value::Object), vec(inner, 0..3).prop_map(Value::Array)]
    });
    value.prop_map(|provision| {
        let scope = json!({"coding": [{"system": "http://terminology.hl7.org/CodeSystem/consentscope", "code": "patient-privacy"}]});
        json!({"resourceType": "Consent", "id": "c", "status": "active", "scope": scope, "patient": {}, "provision": provision})
    })
}

fn denied(decision: &Decision) -> bool {
    matches!(decision, Decision::Denied(_))
}

proptest! {
    #![proptest_config(proptest::test_runner::Config { cases: 2000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn spec_c_total_every_input_has_an_explained_decision(directives in directives(), rules in rules(), request in request()) {
        let decision = decide(&directives, &rules, &request);
        match &decision {
            Decision::Denied(denial) => {
                prop_assert!(!denial.reasons.is_empty());
                prop_assert!(denial.reasons.is_sorted() && denial.directives.is_sorted());
            }
            Decision::Permitted(permit) => {
                prop_assert_eq!(permit.audience(), &request.asker_org);
                prop_assert!(permit.expires() > request.now || request.now.0 == u64::MAX);
            }
        }
        prop_assert!(!explain::decision(&decision).is_empty());
        prop_assert!(explain::excluded_organisations(&directives, request.now).is_sorted());
        if explain::discoverable(&directives, &rules, &request.item, request.now) {
            prop_assert!(request.item.confidentiality != Confidentiality::Unknown && !request.item.unknown_labels);
        }
    }

    #[test]
    fn spec_c_deny_unknown_anything(directives in directives(), rules in rules(), request in request(), which in 0_u8..5) {
        let mut request = request;
        match which {
            0 => request.role = Role::Unknown,
            1 => request.purpose = Purpose::Unknown,
            2 => request.item.unknown_labels = true,
            3 => request.item.confidentiality = Confidentiality::Unknown,
            _ => request.item.sensitivity.push(Sensitivity::Unknown),
        }
        prop_assert!(denied(&decide(&directives, &rules, &request)));
    }

    #[test]
    fn spec_c_monotone_a_deny_never_opens(
        directives in directives(), more in directive(vec![Effect::Deny]), rules in rules(), request in request(), at in 0_usize..4,
    ) {
        let before = denied(&decide(&directives, &rules, &request));
        let mut with = directives;
        with.insert(at.min(with.len()), more);
        prop_assert!(!before || denied(&decide(&with, &rules, &request)));
    }

    #[test]
    fn spec_c_closed_an_unread_root_never_opens(
        directives in directives(), more in directive(vec![Effect::Permit, Effect::Deny]), rules in rules(), request in request(),
    ) {
        let before = denied(&decide(&directives, &rules, &request));
        let mut more = more;
        for rule in more.base.iter_mut().chain(&mut more.provision) {
            rule.unread = true;
        }
        let mut with = directives;
        with.push(more);
        prop_assert!(!before || denied(&decide(&with, &rules, &request)));
    }

    #[test]
    fn spec_c_order_does_not_matter(directives in directives(), rules in rules(), request in request(), turn in 0_usize..4) {
        let first = decide(&directives, &rules, &request);
        let mut turned = directives;
        let length = turned.len();
        if length > 0 {
            turned.rotate_left(turn % length);
        }
        prop_assert_eq!(&first, &decide(&turned, &rules, &request));
        turned.reverse();
        prop_assert_eq!(&first, &decide(&turned, &rules, &request));
    }

    #[test]
    fn spec_c_part2_substance_use_leaves_with_its_duty(directives in directives(), rules in rules(), request in request()) {
        let mut request = request;
        request.item.sensitivity.push(Sensitivity::OpioidUse);
        if let Decision::Permitted(permit) = decide(&directives, &rules, &request) {
            prop_assert!(permit.obligations().contains(&hie_protocol::message::Obligation::NoRedisclosure));
        }
    }

    #[test]
    fn spec_c_fhir_hostile_consents_are_read_or_refused(consent in consent(), rules in rules(), request in request()) {
        match fhir::read(&consent, &|_| None) {
            Ok(directive) => { let _ = decide(&[directive], &rules, &request); }
            Err(faults) => prop_assert!(!faults.is_empty() && faults.len() <= fhir::FAULTS_MAX),
        }
    }
}
