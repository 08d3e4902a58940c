//! The summary of one organisation.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use serde_json::{Value, json};

use super::{ALLERGIES, PAST_MAX, PROBLEMS, RESULTS_MAX, SummaryInput, assemble};
use crate::fhir::clinical;
use crate::fhir::resource::Concept;

fn summary(resources: &[Value]) -> Value {
    let patient = json!({"resourceType": "Patient", "id": "p", "name": [{"family": "Test"}]});
    assemble(&SummaryInput {
        organisation_name: "A & B <Clinic>",
        organisation_urn: "urn:oid:2.999.1",
        patient: &patient,
        resources,
        now: "2026-01-01T10:00:00Z",
        bundle_id: "9b5c4e2a-7a2b-4c58-9d6a-2f8f9a1f0001",
    })
}

fn section<'b>(bundle: &'b Value, code: &str) -> &'b Value {
    let sections = bundle["entry"][0]["resource"]["section"].as_array().unwrap();
    sections
        .iter()
        .find(|section| Concept::read(&section["code"]).has_code(code))
        .unwrap()
}

#[test]
fn an_empty_record_says_unavailable_and_invents_nothing() {
    let bundle = summary(&[]);
    assert_eq!(
        section(&bundle, ALLERGIES)["emptyReason"]["coding"][0]["code"],
        "unavailable"
    );
    let read = clinical::read_value(&bundle).unwrap();
    assert!(read.no_known_allergies.is_none() && read.allergies.is_empty());
    assert_eq!(read.organisation.as_deref(), Some("A & B <Clinic>"));
}

#[test]
fn the_sources_own_statement_of_absence_is_kept() {
    let bundle = summary(&[
        json!({"resourceType": "Composition", "id": "c", "date": "2025-01-01", "section": [{
            "code": {"coding": [{"system": "http://loinc.org", "code": ALLERGIES}]},
            "emptyReason": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/list-empty-reason", "code": "nilknown"}]},
        }]}),
    ]);
    assert_eq!(
        section(&bundle, ALLERGIES)["emptyReason"]["coding"][0]["code"],
        "nilknown"
    );
    assert_eq!(
        clinical::read_value(&bundle)
            .unwrap()
            .no_known_allergies
            .unwrap()
            .source,
        "section"
    );
}

#[test]
fn limits_drop_only_the_past_and_say_so() {
    let condition = |at: usize, status: &str| {
        json!({
            "resourceType": "Condition", "id": format!("{status}{at}"), "subject": {"reference": "Patient/p"},
            "clinicalStatus": {"coding": [{"code": status}]}, "code": {"text": "x"}, "onsetDateTime": format!("20{:02}", at % 100),
        })
    };
    let mut resources: Vec<Value> = (0..PAST_MAX + 5).map(|at| condition(at, "resolved")).collect();
    resources.extend((0..PAST_MAX + 5).map(|at| condition(at, "active")));
    resources.extend((0..RESULTS_MAX + 1).map(|at| {
        json!({
            "resourceType": "Observation", "id": format!("o{at}"), "category": [{"coding": [{"code": "laboratory"}]}],
            "effectiveDateTime": format!("{}-01-01", 1900 + at),
        })
    }));
    let bundle = summary(&resources);
    let problems = section(&bundle, PROBLEMS);
    assert_eq!(problems["entry"].as_array().unwrap().len(), 2 * PAST_MAX + 5);
    assert!(problems["text"]["div"].as_str().unwrap().contains("5 older entries"));
    let read = clinical::read_value(&bundle).unwrap();
    assert_eq!(read.problems.iter().filter(|row| row.current).count(), PAST_MAX + 5);
    assert_eq!(read.results.len(), RESULTS_MAX);
    assert!(
        read.results.iter().all(|row| row.date.as_deref() != Some("1900-01-01")),
        "the oldest is the one left out"
    );
}

#[test]
fn narrative_is_escaped_and_errors_are_left_out() {
    let bundle = summary(&[
        json!({"resourceType": "Condition", "id": "a", "code": {"text": "<script>alert('&')</script>"}}),
        json!({"resourceType": "Condition", "id": "b", "code": {"text": "gone"}, "verificationStatus": {"coding": [{"code": "entered-in-error"}]}}),
    ]);
    let div = section(&bundle, PROBLEMS)["text"]["div"].as_str().unwrap();
    assert!(div.contains("&lt;script&gt;alert(&#39;&amp;&#39;)") && !div.contains("<script") && !div.contains("gone"));
}

#[test]
fn every_entry_has_its_provenance_and_outside_references_are_cut() {
    let bundle = summary(&[json!({
        "resourceType": "Condition", "id": "a", "code": {"text": "x"}, "subject": {"reference": "Patient/p"},
        "recorder": {"reference": "Practitioner/gone", "display": "Dr Gone"}, "encounter": {"reference": "Encounter/gone"},
    })]);
    let entries = bundle["entry"].as_array().unwrap();
    let condition = entries
        .iter()
        .find(|entry| entry["resource"]["resourceType"] == "Condition")
        .unwrap();
    assert_eq!(condition["resource"]["recorder"], json!({"display": "Dr Gone"}));
    assert_eq!(condition["resource"]["subject"]["reference"], entries[1]["fullUrl"]);
    let provenance = &entries.last().unwrap()["resource"];
    assert!(
        provenance["target"]
            .as_array()
            .unwrap()
            .iter()
            .any(|target| target["reference"] == condition["fullUrl"])
    );
    assert_eq!(provenance["agent"][0]["who"]["reference"], entries[2]["fullUrl"]);
    assert_eq!(summary(&[]), summary(&[]), "the same input gives the same Bundle");
}
