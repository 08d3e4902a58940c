//! Reading real and broken Consents.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::PathBuf;

use hie_protocol::id::{ConsentEpoch, DocumentId, Millis, OrgId};
use hie_protocol::registry::{BreakGlassRules, ConsentModel};
use hie_protocol::vocabulary::{Confidentiality, DocumentClass, Purpose, Role, Sensitivity};
use serde_json::{Value, json};

use super::{read, time};
use crate::decide::{Decision, decide};
use crate::directive::PROVISION_DEPTH_MAX;
use crate::request::{ConsentRequest, ItemFacts, RegionRules};

fn request(now: &str) -> ConsentRequest {
    ConsentRequest {
        asker_org: OrgId::parse("urn:oid:2.999.2").unwrap(),
        asker_user: "dr-grey".to_owned(),
        role: Role::Physician,
        purpose: Purpose::Treatment,
        break_glass: None,
        evidence_of_treatment: true,
        asker_is_patient: false,
        item: ItemFacts::normal(DocumentId::new([1; 16]), DocumentClass::Note),
        custodian: OrgId::parse("urn:oid:2.999.1").unwrap(),
        now: time::instant_range(now).map_or(Millis(0), |range| range.0),
        epoch: ConsentEpoch(1),
    }
}

fn permits(consent: &Value, model: ConsentModel, request: &ConsentRequest) -> bool {
    let custodian = OrgId::parse("urn:oid:2.999.1").unwrap();
    let directive = read(consent, &|name| {
        (name == "Organization/f001").then(|| custodian.clone())
    })
    .unwrap();
    let rules = RegionRules::new(
        model,
        BreakGlassRules {
            allowed: true,
            minutes: 240,
            tell_withheld: true,
        },
    );
    matches!(decide(&[directive], &rules, request), Decision::Permitted(_))
}

/// The corpus folder, or none where it is absent (an error in continuous integration).
fn corpus(folder: &str) -> Option<PathBuf> {
    let root = std::env::var("HIE_TEST_DATA").unwrap_or_else(|_| "../../shared/data".to_owned());
    let path = PathBuf::from(root).join(folder);
    if path.is_dir() {
        return Some(path);
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "the corpus {} is absent",
        path.display()
    );
    println!("skipped: the corpus {} is absent", path.display());
    None
}

/// File, whether an opt-in region permits a physician's treatment with it, whether an opt-out region does.
const EXPECTED: [(&str, &str, bool, bool); 17] = [
    ("02-fhir/ihe-pcf", "ex-consent-advanced-normal-focused-psy", true, true),
    ("02-fhir/ihe-pcf", "ex-consent-advanced-normal-restricted", true, true),
    ("02-fhir/ihe-pcf", "ex-consent-advanced-normal", true, true),
    ("02-fhir/ihe-pcf", "ex-consent-basic-reject", false, false),
    ("02-fhir/ihe-pcf", "ex-consent-basic-treat", true, true),
    ("02-fhir/ihe-pcf", "ex-consent-expired-treat", false, true),
    ("02-fhir/ihe-pcf", "ex-consent-intermediate-data", false, true),
    (
        "02-fhir/ihe-pcf",
        "ex-consent-intermediate-not-authoredby",
        false,
        false,
    ),
    ("02-fhir/ihe-pcf", "ex-consent-intermediate-purpose", true, true),
    ("02-fhir/ihe-pcf", "ex-consent-intermediate-timeframe", false, true),
    ("02-fhir/ihe-pcf", "ex-dissent-intermediate-break-glass", false, false),
    ("02-fhir/r4-core-examples", "consent-example-Emergency", false, false),
    ("02-fhir/r4-core-examples", "consent-example-basic", false, true),
    ("02-fhir/r4-core-examples", "consent-example-notAuthor", false, false),
    ("02-fhir/r4-core-examples", "consent-example-notThem", false, true),
    ("02-fhir/r4-core-examples", "consent-example-notTime", false, true),
    ("02-fhir/r4-core-examples", "consent-example-signature", false, true),
];

#[test]
fn spec_c_fhir_published_examples_have_a_sensible_outcome() {
    for (folder, name, opt_in, opt_out) in EXPECTED {
        let Some(folder) = corpus(folder) else { return };
        let bytes = std::fs::read(folder.join(format!("Consent-{name}.json"))).unwrap();
        let consent: Value = serde_json::from_slice(&bytes).unwrap();
        let request = request("2026-06-01");
        assert_eq!(
            permits(&consent, ConsentModel::OptIn, &request),
            opt_in,
            "{name}, opt-in"
        );
        assert_eq!(
            permits(&consent, ConsentModel::OptOut, &request),
            opt_out,
            "{name}, opt-out"
        );
    }
}

#[test]
fn published_examples_in_detail() {
    let Some(folder) = corpus("02-fhir/ihe-pcf") else {
        return;
    };
    let load = |name: &str| -> Value {
        serde_json::from_slice(&std::fs::read(folder.join(format!("Consent-{name}.json"))).unwrap()).unwrap()
    };
    let opt_in = |name: &str, request: &ConsentRequest| permits(&load(name), ConsentModel::OptIn, request);
    assert!(opt_in("ex-consent-expired-treat", &request("2022-12-31")));
    let mut dated = request("2026-06-01");
    dated.item.created = time::instant_range("2022-05-05").map(|range| range.0);
    assert!(opt_in("ex-consent-intermediate-timeframe", &dated));
    let mut written = request("2026-06-01");
    written.item.authors = vec!["somebody-else".to_owned()];
    assert!(opt_in("ex-consent-intermediate-not-authoredby", &written));
    written.item.authors = vec!["ex-practitioner".to_owned()];
    assert!(!opt_in("ex-consent-intermediate-not-authoredby", &written));
    let mut restricted = request("2026-06-01");
    restricted.item.confidentiality = Confidentiality::Restricted;
    assert!(opt_in("ex-consent-advanced-normal-restricted", &restricted));
    assert!(!opt_in("ex-consent-advanced-normal", &restricted));
    restricted.item.sensitivity = vec![Sensitivity::Psychiatry];
    assert!(!opt_in("ex-consent-advanced-normal-focused-psy", &restricted));
    (restricted.asker_org, restricted.asker_user) = (restricted.custodian.clone(), "ex-practitioner".to_owned());
    assert!(opt_in("ex-consent-advanced-normal-focused-psy", &restricted));
}

#[test]
fn faults_name_their_place() {
    let faults = |value: Value| {
        read(&value, &|_| None)
            .unwrap_err()
            .into_iter()
            .map(|fault| fault.path)
            .collect::<Vec<_>>()
    };
    assert_eq!(faults(json!({"resourceType": "Patient"})), ["Consent.resourceType"]);
    assert_eq!(faults(json!([])), ["Consent.resourceType"]);
    assert_eq!(
        faults(json!({"resourceType": "Consent", "status": "perhaps", "dateTime": "soon", "provision": 1})),
        [
            "Consent.status",
            "Consent.scope",
            "Consent.patient",
            "Consent.dateTime",
            "Consent.provision"
        ]
    );
}

#[test]
fn nesting_beyond_the_limit_is_unread() {
    let mut provision = json!({"type": "permit"});
    for _ in 0..PROVISION_DEPTH_MAX + 4 {
        provision = json!({"type": "permit", "provision": [provision]});
    }
    let scope = json!({"coding": [{"system": super::CONSENT_SCOPE, "code": "patient-privacy"}]});
    let consent =
        json!({"resourceType": "Consent", "status": "active", "scope": scope, "patient": {}, "provision": provision});
    let mut rule = read(&consent, &|_| None).unwrap().provision.unwrap();
    let mut depth = 1;
    while let Some(exception) = rule.exceptions.pop() {
        depth += 1;
        rule = exception;
    }
    assert!(rule.unread);
    assert_eq!(depth, PROVISION_DEPTH_MAX + 1);
}
