//! Import over public examples and hand-made cases.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Importer, Intake, import};
use crate::corpus;
use crate::fhir::clinical;
use crate::fhir::guard::{self, Limits};
use crate::fhir::ips::{self, SummaryInput};
use crate::fhir::resource::Concept;

fn take(value: &Value) -> Intake {
    import(value.to_string().as_bytes(), &Limits::default()).unwrap()
}

fn rows<'c>(codes: impl Iterator<Item = &'c Concept>) -> BTreeSet<String> {
    codes
        .map(|code| {
            let coding = &code.codings[0];
            let system = match coding.system.as_str() {
                "http://snomed.info/sct" => "sct",
                "http://www.nlm.nih.gov/research/umls/rxnorm" => "rxnorm",
                other => other,
            };
            format!(
                "{system}|{}|{}",
                coding.code,
                coding.display.as_deref().unwrap_or_default()
            )
        })
        .collect()
}

fn set(text: &str) -> BTreeSet<String> {
    text.split(" || ")
        .filter(|text| !text.is_empty())
        .map(str::to_owned)
        .collect()
}

fn assembled(intake: &super::PatientIntake) -> Value {
    ips::assemble(&SummaryInput {
        organisation_name: "City General",
        organisation_urn: "urn:oid:2.999.7.11",
        patient: &intake.patient,
        resources: &intake.resources,
        now: "2026-01-01T10:00:00Z",
        bundle_id: "9b5c4e2a-7a2b-4c58-9d6a-2f8f9a1f0001",
    })
}

/// Every reference in a document Bundle resolves inside it.
pub fn assert_closed(bundle: &Value) {
    let urls: BTreeSet<&str> = bundle["entry"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["fullUrl"].as_str().unwrap())
        .collect();
    assert_eq!(urls.len(), bundle["entry"].as_array().unwrap().len());
    fn walk(value: &Value, urls: &BTreeSet<&str>) {
        if let Some(reference) = value.get("reference").and_then(Value::as_str) {
            assert!(
                reference.starts_with('#') || urls.contains(reference),
                "{reference} does not resolve"
            );
        }
        match value {
            Value::Array(items) => items.iter().for_each(|item| walk(item, urls)),
            Value::Object(map) => map.values().for_each(|item| walk(item, urls)),
            _ => {}
        }
    }
    walk(bundle, &urls);
}

#[test]
fn the_facts_of_64_synthea_patients_survive_import_summary_and_reading() {
    let Some(folder) = corpus::folder("01-synthea-r4") else {
        return;
    };
    let expected = corpus::csv(&folder.join("expected-patients.csv"));
    assert_eq!(expected.len(), 64);
    for row in expected {
        let path = folder.parent().unwrap().join(&row["file"]);
        let intake = import(&std::fs::read(&path).unwrap(), &Limits::default()).unwrap();
        assert!(intake.rejected.is_empty(), "{:?}", intake.rejected.first());
        assert_eq!(intake.patients.len(), 1);
        let patient = &intake.patients[0];
        assert!(
            patient
                .facts
                .identifiers
                .iter()
                .any(|id| id.type_code.as_deref() == Some("MR") && id.value == row["mrn"])
        );
        assert!(patient.facts.identifiers.iter().any(|id| id.value == row["ssn"]));
        assert!(
            patient.facts.names[0].family.as_deref() == Some(&row["family"]),
            "family"
        );
        assert!(
            patient.facts.birth_date.as_deref() == Some(&row["birthDate"])
                && patient.facts.sex.as_deref() == Some(&row["gender"])
        );
        for (column, kind) in [
            ("n_encounter", "Encounter"),
            ("n_condition", "Condition"),
            ("n_observation", "Observation"),
            ("n_procedure", "Procedure"),
        ] {
            let count = patient
                .resources
                .iter()
                .filter(|value| value["resourceType"] == kind)
                .count();
            assert_eq!(count.to_string(), row[column], "{kind}");
        }
        let studies: BTreeSet<String> = patient
            .imaging
            .iter()
            .map(|study| {
                format!(
                    "urn:oid:{}|{}|{}",
                    study.study_uid,
                    &study.started.as_deref().unwrap()[..10],
                    study.modalities.join("+")
                )
            })
            .collect();
        assert_eq!(studies, set(&row["imaging_studies"]));
        let bundle = assembled(patient);
        assert_closed(&bundle);
        let summary = clinical::read(bundle.to_string().as_bytes(), &Limits::default()).unwrap();
        assert_eq!(
            rows(summary.allergies.iter().map(|row| &row.code)),
            set(&row["allergies"])
        );
        assert_eq!(
            rows(
                summary
                    .medications
                    .iter()
                    .filter(|row| row.current)
                    .map(|row| &row.code)
            ),
            set(&row["active_medications"])
        );
        assert_eq!(
            rows(summary.problems.iter().filter(|row| row.current).map(|row| &row.code)),
            set(&row["active_conditions"])
        );
        assert!(summary.no_known_allergies.is_none(), "a statement was invented");
        assert!(!summary.results.is_empty() && !summary.visits.is_empty());
        assert!(summary.medications.iter().all(|row| row.recorder.is_some()));
    }
}

#[test]
fn bulk_files_of_one_type_each_come_together() {
    let Some(folder) = corpus::folder("01-synthea-bulk-2025") else {
        return;
    };
    let mut importer = Importer::new(Limits::default());
    for path in corpus::files(&folder)
        .iter()
        .filter(|path| path.to_str().unwrap().ends_with(".ndjson.gz"))
    {
        importer
            .add(
                path.file_name().unwrap().to_str().unwrap(),
                &std::fs::read(path).unwrap(),
            )
            .unwrap();
    }
    let intake = importer.finish();
    assert_eq!(intake.patients.len(), 13);
    let documents: usize = intake.patients.iter().map(|patient| patient.documents.len()).sum();
    assert!(documents > 100, "{documents}");
    assert!(intake.patients.iter().all(|patient| {
        patient
            .resources
            .iter()
            .any(|value| value["resourceType"] == "Practitioner")
    }));
    assert!(
        intake
            .patients
            .iter()
            .any(|patient| patient.documents.iter().any(|document| document.author.is_some()))
    );
    for patient in &intake.patients {
        let name = format!("Patient/{}", patient.patient["id"].as_str().unwrap());
        for value in &patient.resources {
            let subject = value["subject"]["reference"]
                .as_str()
                .or_else(|| value["patient"]["reference"].as_str());
            assert!(
                subject.is_none_or(|subject| subject == name),
                "a resource of another patient"
            );
        }
        assert_closed(&assembled(patient));
    }
}

#[test]
fn every_public_example_gives_a_clear_result() {
    let Some(folder) = corpus::folder("02-fhir") else {
        return;
    };
    let (mut patients, mut refused) = (0, 0);
    for path in corpus::files(&folder) {
        if !path.to_str().unwrap().trim_end_matches(".gz").ends_with(".json") {
            continue;
        }
        match import(&std::fs::read(&path).unwrap(), &Limits::default()) {
            Ok(intake) => {
                patients += intake.patients.len();
                let clear = !intake.patients.is_empty() || !intake.rejected.is_empty() || !intake.ignored.is_empty();
                let empty = matches!(guard::parse(&corpus::read(&path), &Limits::default()), Ok(value) if value.get("entry").is_none());
                assert!(clear || empty, "{} gave nothing", path.display());
                for patient in &intake.patients {
                    let bundle = assembled(patient);
                    assert_closed(&bundle);
                    clinical::read_value(&bundle).unwrap();
                }
            }
            Err(error) => {
                refused += 1;
                assert!(!error.to_string().is_empty());
            }
        }
    }
    assert!(patients > 20 && refused > 3, "{patients} {refused}");
}

#[test]
fn an_ips_document_is_kept_as_its_bytes_and_its_facts_are_read() {
    let Some(folder) = corpus::folder("02-fhir/ips-2.0.0") else {
        return;
    };
    let bytes = std::fs::read(folder.join("Bundle-IPS-examples-Bundle-01.json")).unwrap();
    let intake = import(&bytes, &Limits::default()).unwrap();
    let patient = &intake.patients[0];
    assert_eq!(patient.documents.len(), 1);
    assert!(patient.documents[0].bytes == bytes && patient.documents[0].content_type == "application/fhir+json");
    assert_eq!(patient.documents[0].type_.as_ref().unwrap().code, "60591-5");
    let again = import(&bytes, &Limits::default()).unwrap();
    assert_eq!(again.patients[0].documents[0].id, patient.documents[0].id);
    for summary in [
        clinical::read(&bytes, &Limits::default()).unwrap(),
        clinical::read_value(&assembled(patient)).unwrap(),
    ] {
        assert_eq!(rows(summary.allergies.iter().map(|row| &row.code)).len(), 1);
        assert!(summary.no_known_allergies.as_ref().unwrap().what.has_code("429625007"));
        let drugs: Vec<_> = summary.medications.iter().filter(|row| row.current).collect();
        assert_eq!(drugs.len(), 2);
        assert!(
            drugs
                .iter()
                .all(|row| row.code.words().is_some() && row.route.as_deref() == Some("Oral use")),
            "medicationReference"
        );
        assert!(summary.results.len() >= 7, "{}", summary.results.len());
    }
    let none = clinical::read(
        &std::fs::read(folder.join("Bundle-bundle-no-info-required-sections.json")).unwrap(),
        &Limits::default(),
    )
    .unwrap();
    assert!(none.allergies.is_empty() && none.no_known_allergies.is_none() && none.immunizations.len() == 2);
}

fn patient(id: &str) -> Value {
    json!({"resourceType": "Patient", "id": id, "identifier": [{"system": "urn:a", "value": id}], "name": [{"family": "Test"}]})
}

#[test]
fn one_broken_entry_is_refused_alone() {
    let intake = take(&json!({"resourceType": "Bundle", "type": "collection", "entry": [
        {"resource": patient("p1")},
        {"resource": {"resourceType": "Condition", "subject": {"reference": "Patient/p1"}, "recordedDate": "yesterday"}},
        {"resource": {"resourceType": "Condition", "subject": {"reference": "Patient/other"}}},
        {"resource": {"id": "x"}},
        5,
        {"resource": {"resourceType": "Patient", "birthDate": "1990-01-01"}},
        {"resource": {"resourceType": "Condition", "id": "good", "subject": {"reference": "Patient/p1"}}},
        {"resource": {"resourceType": "ValueSet"}},
    ]}));
    assert_eq!(intake.patients.len(), 1);
    assert_eq!(intake.patients[0].resources.len(), 1);
    let places: Vec<&str> = intake.rejected.iter().map(|one| one.place.as_str()).collect();
    assert_eq!(places.len(), 5, "{:?}", intake.rejected);
    assert!(places.contains(&"input, entry 2 (Condition)"), "{places:?}");
    assert_eq!(intake.ignored.len(), 1);
}

#[test]
fn references_of_every_form_resolve_and_ambiguous_ones_do_not() {
    let practitioner = json!({"resourceType": "Practitioner", "id": "d1", "identifier": [{"system": "urn:npi", "value": "9"}], "name": [{"family": "Doe"}]});
    for reference in [
        "urn:uuid:33333333-0000-4000-8000-000000000000",
        "Practitioner/d1",
        "https://ehr.example/fhir/Practitioner/d1/_history/2",
        "Practitioner?identifier=urn:npi|9",
        "Practitioner?identifier=urn:npi%7C9",
    ] {
        let intake = take(&json!({"resourceType": "Bundle", "type": "transaction", "entry": [
            {"fullUrl": "urn:uuid:11111111-0000-4000-8000-000000000000", "resource": {"resourceType": "Patient", "name": [{"family": "T"}]}},
            {"fullUrl": "urn:uuid:33333333-0000-4000-8000-000000000000", "resource": practitioner},
            {"resource": {"resourceType": "Condition", "subject": {"reference": "urn:uuid:11111111-0000-4000-8000-000000000000"}, "recorder": {"reference": reference}}},
        ]}));
        let resources = &intake.patients[0].resources;
        assert_eq!(resources.len(), 2, "{reference}");
        let condition = resources
            .iter()
            .find(|value| value["resourceType"] == "Condition")
            .unwrap();
        assert_eq!(condition["recorder"]["reference"], "Practitioner/d1");
        assert_eq!(
            condition["subject"]["reference"],
            "Patient/11111111-0000-4000-8000-000000000000"
        );
    }
    let mut importer = Importer::new(Limits::default());
    for (place, id) in [("a", "1"), ("b", "2")] {
        let mut person = patient("p");
        person["identifier"][0]["value"] = id.into();
        importer.add(place, person.to_string().as_bytes()).unwrap();
    }
    importer
        .add(
            "c",
            br#"{"resourceType":"Condition","subject":{"reference":"Patient/p"}}"#,
        )
        .unwrap();
    let intake = importer.finish();
    assert!(
        intake.patients.iter().all(|patient| patient.resources.is_empty()),
        "a guess was made"
    );
    assert!(intake.rejected.iter().any(|one| one.place == "c (Condition)"));
}

#[test]
fn a_resource_never_reaches_another_patient() {
    let intake = take(&json!({"resourceType": "Bundle", "type": "collection", "entry": [
        {"resource": patient("p1")}, {"resource": patient("p2")},
        {"resource": {"resourceType": "Observation", "id": "o2", "subject": {"reference": "Patient/p2"}}},
        {"resource": {"resourceType": "Observation", "id": "o1", "subject": {"reference": "Patient/p1"}, "hasMember": [{"reference": "Observation/o2"}]}},
    ]}));
    let ids: Vec<Vec<&str>> = intake
        .patients
        .iter()
        .map(|one| {
            one.resources
                .iter()
                .map(|value| value["id"].as_str().unwrap())
                .collect()
        })
        .collect();
    assert_eq!(ids, [vec!["o1"], vec!["o2"]]);
}

#[test]
fn documents_come_from_data_and_binaries_and_never_from_urls() {
    let reference = |id: &str, attachment: Value| {
        json!({"resource": {
            "resourceType": "DocumentReference", "id": id, "status": "current", "subject": {"reference": "Patient/p1"},
            "securityLabel": [{"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v3-Confidentiality", "code": "R"}]}],
            "content": [{"attachment": attachment}],
        }})
    };
    let bundle = json!({"resourceType": "Bundle", "type": "transaction", "entry": [
        {"resource": patient("p1")},
        reference("a", json!({"contentType": "text/plain", "data": "aGVs\nbG8"})),
        reference("b", json!({"url": "urn:uuid:55555555-0000-4000-8000-000000000000"})),
        {"fullUrl": "urn:uuid:55555555-0000-4000-8000-000000000000", "resource": {"resourceType": "Binary", "contentType": "text/html", "data": "aGk="}},
        reference("c", json!({"contentType": "text/plain", "url": "https://files.example/1"})),
        reference("d", json!({"contentType": "text/plain", "data": "@@@"})),
        {"resource": {"resourceType": "DiagnosticReport", "id": "r", "status": "final", "subject": {"reference": "Patient/p1"}, "presentedForm": [{"contentType": "application/pdf", "data": "JVBERg=="}]}},
    ]});
    let intake = take(&bundle);
    let documents = &intake.patients[0].documents;
    let found: BTreeSet<(&str, &[u8])> = documents
        .iter()
        .map(|one| (one.content_type.as_str(), one.bytes.as_slice()))
        .collect();
    assert_eq!(
        found,
        [
            ("text/plain", &b"hello"[..]),
            ("text/html", b"hi"),
            ("application/pdf", b"%PDF")
        ]
        .into()
    );
    assert_eq!(
        documents
            .iter()
            .filter(|one| one.security_labels.iter().any(|label| label.code == "R"))
            .count(),
        2
    );
    assert_eq!(intake.rejected.len(), 2, "{:?}", intake.rejected);
    assert!(intake.rejected.iter().any(|one| one.reason.contains("never fetched")));
    let ids = |intake: &Intake| {
        intake.patients[0]
            .documents
            .iter()
            .map(|one| one.id.clone())
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(ids(&take(&bundle)), ids(&intake));
    assert!(!format!("{:?}", intake.patients[0].documents).contains("hello"));
}

#[test]
fn ndjson_goes_on_after_a_bad_line() {
    let text = format!("{}\n{{broken\n{}\n", patient("p1"), patient("p2"));
    let intake = import(text.as_bytes(), &Limits::default()).unwrap();
    assert_eq!((intake.patients.len(), intake.rejected.len()), (2, 1));
    assert!(intake.rejected[0].place == "input, line 2", "{:?}", intake.rejected);
    assert!(import(b"{broken\n{too}", &Limits::default()).is_err());
}
