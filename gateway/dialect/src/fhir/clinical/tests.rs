//! Rows from summaries.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use serde_json::{Value, json};

use super::{RecorderRole, read, read_value};
use crate::fhir::guard::Limits;

fn document(mut entries: Vec<Value>) -> Value {
    let mut all = vec![
        json!({"fullUrl": "urn:uuid:c", "resource": {"resourceType": "Composition", "date": "2026-01-01", "subject": {"reference": "urn:uuid:p"}, "author": [{"display": "Elsewhere"}]}}),
        json!({"fullUrl": "urn:uuid:p", "resource": {"resourceType": "Patient", "id": "p", "name": [{"family": "Test"}]}}),
    ];
    all.append(&mut entries);
    json!({"resourceType": "Bundle", "type": "document", "entry": all})
}

fn coded(system: &str, code: &str) -> Value {
    json!({"coding": [{"system": system, "code": code}]})
}

#[test]
fn allergies_are_kept_apart_by_what_is_known_of_them() {
    let allergy = |id: &str, verification: &str, code: Value| {
        json!({"fullUrl": format!("urn:uuid:{id}"), "resource": {
            "resourceType": "AllergyIntolerance", "verificationStatus": coded("v", verification), "code": code, "recordedDate": "2020-01-01",
            "recorder": {"reference": "urn:uuid:d"},
            "reaction": [{"manifestation": [{"text": "Anaphylaxis"}], "severity": "severe"}],
        }})
    };
    let summary = read_value(&document(vec![
        allergy("a", "confirmed", json!({"text": "Penicillin"})),
        allergy("b", "refuted", json!({"text": "Latex"})),
        allergy("e", "entered-in-error", json!({"text": "Nothing"})),
        allergy("n", "confirmed", coded("http://snomed.info/sct", "716186003")),
        json!({"fullUrl": "urn:uuid:d", "resource": {"resourceType": "Practitioner", "name": [{"prefix": ["Dr"], "family": "Who"}], "qualification": [{"code": coded("http://terminology.hl7.org/CodeSystem/v2-0360", "MD")}]}}),
    ]))
    .unwrap();
    assert_eq!((summary.allergies.len(), summary.refuted_allergies.len()), (1, 1));
    let row = &summary.allergies[0];
    assert!(row.code.words() == Some("Penicillin") && row.source == "urn:uuid:a");
    assert!(
        row.reactions[0].severity.as_deref() == Some("severe") && row.reactions[0].manifestations == ["Anaphylaxis"]
    );
    let recorder = row.recorder.as_ref().unwrap();
    assert!(recorder.role == RecorderRole::Doctor && recorder.name.as_deref() == Some("Dr Who"));
    let none = summary.no_known_allergies.as_ref().unwrap();
    assert!(none.recorded.as_deref() == Some("2020-01-01") && none.source == "urn:uuid:n");
    assert!(!format!("{summary:?} {row:?}").contains("Penicillin"));
}

#[test]
fn medication_rows_have_dose_route_and_recorder() {
    let summary = read_value(&document(vec![
        json!({"fullUrl": "urn:uuid:m", "resource": {
            "resourceType": "MedicationRequest", "status": "active", "medicationReference": {"reference": "#med"},
            "contained": [{"resourceType": "Medication", "id": "med", "code": {"text": "Warfarin"}, "form": {"text": "tablet"}}],
            "requester": {"reference": "Patient/p"}, "authoredOn": "2025-01-01",
            "dosageInstruction": [{"route": {"text": "oral"}, "timing": {"repeat": {"frequency": 2, "period": 1, "periodUnit": "d"}}, "doseAndRate": [{"doseQuantity": {"value": 0.5, "unit": "mg"}}]}],
        }}),
        json!({"fullUrl": "urn:uuid:n", "resource": {"resourceType": "MedicationStatement", "status": "stopped", "medicationCodeableConcept": {"text": "Aspirin"}}}),
    ]))
    .unwrap();
    let row = &summary.medications[0];
    assert!(
        row.current && row.ordered && row.code.words() == Some("Warfarin") && row.form.as_deref() == Some("tablet")
    );
    assert!(
        row.dose.as_deref() == Some("0.5 mg, 2 times every 1 days"),
        "{}",
        row.dose.as_deref().unwrap_or_default()
    );
    assert!(row.recorder.as_ref().unwrap().role == RecorderRole::Patient);
    assert!(!summary.medications[1].current && !summary.medications[1].ordered);
}

#[test]
fn results_have_value_range_and_interpretation() {
    let summary = read_value(&document(vec![json!({"fullUrl": "urn:uuid:o", "resource": {
        "resourceType": "Observation", "status": "final", "category": [coded("c", "laboratory")], "code": {"text": "INR"},
        "valueQuantity": {"value": 4.1, "unit": "1"}, "interpretation": [coded("i", "H")],
        "referenceRange": [{"low": {"value": 2, "unit": "1"}, "high": {"value": 3, "unit": "1"}}],
    }})]))
    .unwrap();
    let row = &summary.results[0];
    assert!(
        row.value.as_deref() == Some("4.1 1")
            && row.range.as_deref() == Some("2 1 to 3 1")
            && row.interpretation.as_deref() == Some("H")
    );
}

#[test]
fn what_is_no_document_is_refused() {
    for bad in [
        "{}",
        "{\"resourceType\":\"Bundle\",\"type\":\"searchset\"}",
        "{\"resourceType\":\"Bundle\",\"type\":\"document\",\"entry\":[5]}",
        "nope",
    ] {
        assert!(read(bad.as_bytes(), &Limits::default()).is_err(), "{bad}");
    }
    let mut other = document(Vec::new());
    other["entry"][0]["resource"]["subject"]["reference"] = "urn:uuid:elsewhere".into();
    assert!(read_value(&other).is_err());
}
