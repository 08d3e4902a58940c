//! Runs every decision table of `consent/cases` (SPEC C-TABLE and the rules named in each file).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;

use serde_json::Value;

use hie_consent::decide::{Decision, decide};
use hie_consent::directive::{Actor, Author, Code, Directive, DirectiveSource, Effect, Part, Provision, Span};
use hie_consent::fhir::{self, time::instant_range};
use hie_consent::request::{ConsentRequest, EmergencyDeclaration, ItemFacts, RegionRules};
use hie_protocol::claim::BreakGlassReason;
use hie_protocol::id::{ConsentEpoch, DocumentId, Millis, OrgId};
use hie_protocol::registry::{BreakGlassRules, ConsentModel};
use hie_protocol::vocabulary::{Confidentiality, DocumentClass, Purpose, Role, Sensitivity};

const ORGANISATIONS: [(&str, &str); 4] = [
    ("mercy", "urn:oid:2.999.1"),
    ("north", "urn:oid:2.999.2"),
    ("clinic", "urn:oid:2.999.3"),
    ("imaging", "urn:oid:2.999.4"),
];

fn org(name: &str) -> OrgId {
    let known = ORGANISATIONS.iter().find(|(known, _)| *known == name);
    OrgId::parse(known.unwrap_or_else(|| panic!("unknown organisation {name}")).1).unwrap()
}

fn resolve(reference: &str) -> Option<OrgId> {
    let name = reference.strip_prefix("Organization/")?;
    ORGANISATIONS.iter().any(|(known, _)| *known == name).then(|| org(name))
}

fn texts<'a>(value: &'a Value, key: &str) -> Vec<&'a str> {
    let list = value
        .get(key)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    list.iter().map(|text| text.as_str().unwrap()).collect()
}

fn at(text: &str) -> Millis {
    instant_range(text).unwrap_or_else(|| panic!("not a date: {text}")).0
}

fn span(value: &Value, key: &str) -> Option<Span> {
    let span = value.get(key)?;
    let end = |index: usize| {
        span.get(index)
            .and_then(Value::as_str)
            .map(|text| instant_range(text).unwrap())
    };
    Some(Span {
        from: end(0).map(|range| range.0),
        to: end(1).map(|range| range.1),
    })
}

fn known_keys(value: &Value, known: &[&str]) {
    for key in value.as_object().unwrap().keys() {
        assert!(known.contains(&key.as_str()), "unknown key {key}");
    }
}

fn codes(value: &Value, key: &str) -> Vec<Code> {
    let list = value
        .get(key)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    list.iter()
        .map(|pair| Code::new(pair[0].as_str().unwrap(), pair[1].as_str().unwrap()))
        .collect()
}

fn rule(value: &Value) -> Provision {
    known_keys(
        value,
        &[
            "id",
            "in_force",
            "effect",
            "orgs",
            "users",
            "roles",
            "purposes",
            "confidentiality",
            "sensitivity",
            "period",
            "data_period",
            "codes",
            "documents",
            "author_orgs",
            "authors",
            "unread",
            "except",
        ],
    );
    let effect = if value["effect"] == "permit" {
        Effect::Permit
    } else {
        Effect::Deny
    };
    assert!(value["effect"] == "permit" || value["effect"] == "deny");
    let mut rule = Provision::new(effect);
    let actor = Actor {
        part: Part::Recipient,
        org: None,
        user: None,
        role: None,
    };
    rule.actors.extend(texts(value, "orgs").iter().map(|name| Actor {
        org: Some(org(name)),
        ..actor.clone()
    }));
    rule.actors.extend(texts(value, "roles").iter().map(|role| Actor {
        role: Some(Role::from_code(role)),
        ..actor.clone()
    }));
    for user in texts(value, "users") {
        let (user, at) = user.split_once('@').unwrap();
        rule.actors.push(Actor {
            org: Some(org(at)),
            user: Some(user.to_owned()),
            ..actor.clone()
        });
    }
    rule.purposes = texts(value, "purposes").into_iter().map(Purpose::from_code).collect();
    rule.confidentiality = texts(value, "confidentiality")
        .into_iter()
        .map(Confidentiality::from_code)
        .collect();
    rule.sensitivity = texts(value, "sensitivity")
        .into_iter()
        .map(Sensitivity::from_code)
        .collect();
    rule.period = span(value, "period");
    rule.data_period = span(value, "data_period");
    rule.codes = codes(value, "codes");
    rule.documents = texts(value, "documents")
        .iter()
        .map(|hex| DocumentId::from_hex(hex).unwrap())
        .collect();
    rule.authors
        .extend(texts(value, "author_orgs").iter().map(|name| Author::Org(org(name))));
    rule.authors.extend(
        texts(value, "authors")
            .iter()
            .map(|name| Author::Person((*name).to_owned())),
    );
    rule.unread = value.get("unread").is_some_and(|unread| unread == true);
    let exceptions = value
        .get("except")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    rule.exceptions = exceptions.iter().map(self::rule).collect();
    rule
}

fn directive(value: &Value, index: usize) -> Directive {
    if value.get("resourceType").is_some() {
        return fhir::read(value, &resolve).unwrap_or_else(|faults| panic!("{faults:?}"));
    }
    let id = format!("directive-{index}");
    let mut found = Directive::new(
        &id,
        DirectiveSource {
            resource: id.clone(),
            version: "1".to_owned(),
        },
        rule(value),
    );
    found.in_force = value.get("in_force").is_none_or(|in_force| in_force == true);
    found
}

fn region(value: &Value) -> RegionRules {
    known_keys(value, &["default", "break_glass", "minutes", "evidence_required"]);
    let default = match value["default"].as_str().unwrap() {
        "opt-in" => ConsentModel::OptIn,
        "opt-out" => ConsentModel::OptOut,
        other => panic!("{other}"),
    };
    let allowed = value.get("break_glass").is_none_or(|allowed| allowed == true);
    let minutes = value.get("minutes").and_then(Value::as_u64).unwrap_or(240);
    let break_glass = BreakGlassRules {
        allowed,
        minutes: u32::try_from(minutes).unwrap(),
        tell_withheld: true,
    };
    let mut rules = RegionRules::new(default, break_glass);
    rules.evidence_required = value.get("evidence_required").is_some_and(|required| required == true);
    rules
}

fn request(value: &Value) -> ConsentRequest {
    known_keys(
        value,
        &[
            "from",
            "user",
            "role",
            "purpose",
            "now",
            "declared",
            "evidence",
            "is_patient",
            "custodian",
            "document",
            "class",
            "codings",
            "confidentiality",
            "sensitivity",
            "unknown_labels",
            "created",
            "service",
            "author_org",
            "authors",
        ],
    );
    let text = |key: &str, default: &'static str| {
        value
            .get(key)
            .map_or(default.to_owned(), |text| text.as_str().unwrap().to_owned())
    };
    let document = DocumentId::from_hex(&text("document", "000000000000000000000000000000aa")).unwrap();
    let mut item = ItemFacts::normal(document, DocumentClass::from_code(&text("class", "note")));
    item.codings = codes(value, "codings");
    item.confidentiality = Confidentiality::from_code(&text("confidentiality", "N"));
    item.sensitivity = texts(value, "sensitivity")
        .into_iter()
        .map(Sensitivity::from_code)
        .collect();
    item.unknown_labels = value.get("unknown_labels").is_some_and(|unknown| unknown == true);
    item.created = value.get("created").map(|created| at(created.as_str().unwrap()));
    item.period = span(value, "service").map(|span| (span.from.unwrap(), span.to.unwrap()));
    item.author_org = value.get("author_org").map(|name| org(name.as_str().unwrap()));
    item.authors = texts(value, "authors").into_iter().map(str::to_owned).collect();
    ConsentRequest {
        asker_org: org(&text("from", "north")),
        asker_user: text("user", "dr-grey"),
        role: Role::from_code(&text("role", "physician")),
        purpose: Purpose::from_code(&text("purpose", "TREAT")),
        break_glass: value.get("declared").map(|declared| EmergencyDeclaration {
            declared: at(declared.as_str().unwrap()),
            reason: BreakGlassReason::LifeAtRisk,
        }),
        evidence_of_treatment: value.get("evidence").is_some_and(|evidence| evidence == true),
        asker_is_patient: value.get("is_patient").is_some_and(|patient| patient == true),
        item,
        custodian: org(&text("custodian", "mercy")),
        now: at(&text("now", "2026-06-01T12:00:00Z")),
        epoch: ConsentEpoch(7),
    }
}

fn judge(case: &Value) -> Result<(), String> {
    known_keys(
        case,
        &[
            "name",
            "region",
            "directives",
            "request",
            "expect",
            "basis",
            "reasons",
            "obligations",
            "opened_by_break_glass",
            "expires",
        ],
    );
    let list = case
        .get("directives")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let mut directives: Vec<Directive> = list
        .iter()
        .enumerate()
        .map(|(index, value)| directive(value, index + 1))
        .collect();
    let request = request(&case["request"]);
    let rules = region(&case["region"]);
    let decision = decide(&directives, &rules, &request);
    directives.reverse();
    assert_eq!(
        decision,
        decide(&directives, &rules, &request),
        "the order of directives matters"
    );
    let same = |what: &str, expected: Option<&Value>, found: Value| match expected {
        Some(expected) if *expected != found => Err(format!("{what}: expected {expected}, found {found}")),
        _ => Ok(()),
    };
    match (&decision, case["expect"].as_str().unwrap()) {
        (Decision::Permitted(permit), "permit") => {
            assert_eq!(permit.audience(), &request.asker_org);
            assert_eq!(permit.epoch(), request.epoch);
            assert_eq!(permit.document(), request.item.document);
            assert!(permit.expires() > request.now);
            let duties = serde_json::to_value(permit.obligations()).unwrap();
            same(
                "obligations",
                Some(case.get("obligations").unwrap_or(&Value::Array(Vec::new()))),
                duties,
            )?;
            same(
                "expires",
                case.get("expires")
                    .map(|text| Value::from(at(text.as_str().unwrap()).0))
                    .as_ref(),
                permit.expires().0.into(),
            )?;
            same("basis", Some(&case["basis"]), permit.basis().code().into())
        }
        (Decision::Denied(denial), "deny") => {
            let reasons = denial.reasons.iter().map(|reason| reason.code()).collect::<Vec<_>>();
            same("reasons", Some(&case["reasons"]), reasons.into())?;
            same(
                "opened_by_break_glass",
                case.get("opened_by_break_glass"),
                denial.opened_by_break_glass.into(),
            )
        }
        (other, expected) => Err(format!("expected {expected}, found {other:?}")),
    }
}

#[test]
fn spec_c_table_every_case_is_decided_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    let mut failures = Vec::new();
    let mut count = 0_usize;
    for file in files {
        let cases: Vec<Value> = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        for case in cases {
            count += 1;
            if let Err(failure) = judge(&case) {
                failures.push(format!(
                    "{} / {}: {failure}",
                    file.file_stem().unwrap().display(),
                    case["name"]
                ));
            }
        }
    }
    assert!(
        failures.is_empty(),
        "{} of {count} cases:\n{}",
        failures.len(),
        failures.join("\n")
    );
    assert!(count >= 60, "{count} cases only");
}
