//! The shape that a resource must have before anything reads it: elements that this node uses have the right JSON
//! type, and codes and dates that decide something are valid. Reasons name the element, never its value.

use serde_json::Value;

use crate::fhir::resource::{self, is_date, is_id, is_type};

const PATIENT_LISTS: [&str; 4] = ["identifier", "name", "address", "telecom"];
const CLINICAL: [&str; 13] = [
    "AllergyIntolerance",
    "Condition",
    "DiagnosticReport",
    "DocumentReference",
    "Encounter",
    "ImagingStudy",
    "Immunization",
    "MedicationAdministration",
    "MedicationDispense",
    "MedicationRequest",
    "MedicationStatement",
    "Observation",
    "Procedure",
];
const OBJECTS: [&str; 7] = [
    "code",
    "clinicalStatus",
    "verificationStatus",
    "vaccineCode",
    "medicationCodeableConcept",
    "subject",
    "patient",
];
const LISTS: [&str; 10] = [
    "category",
    "reaction",
    "note",
    "content",
    "presentedForm",
    "series",
    "result",
    "dosageInstruction",
    "contained",
    "extension",
];
const DATES: [&str; 8] = [
    "recordedDate",
    "authoredOn",
    "onsetDateTime",
    "effectiveDateTime",
    "occurrenceDateTime",
    "performedDateTime",
    "started",
    "date",
];

/// Refuses a resource whose shape would be misread.
pub fn shape(value: &Value) -> Result<(), String> {
    let kind = resource::kind(value).unwrap_or_default();
    if !is_type(kind) {
        return Err("the resourceType is no FHIR type name".to_owned());
    }
    match value.get("id") {
        None => {}
        Some(Value::String(id)) if is_id(id) => {}
        Some(_) => {
            return Err(format!(
                "{kind}.id is no FHIR id (1 to 64 of A-Z a-z 0-9 - .): correct it"
            ));
        }
    }
    if value.get("meta").is_some_and(|meta| !meta.is_object()) {
        return Err(format!("{kind}.meta is no object"));
    }
    match kind {
        "Patient" => patient(value),
        _ if CLINICAL.contains(&kind) => clinical(kind, value),
        _ => Ok(()),
    }
}

fn patient(value: &Value) -> Result<(), String> {
    for key in PATIENT_LISTS {
        objects("Patient", value, key)?;
    }
    date("Patient", value, "birthDate")?;
    match value.get("gender") {
        None => {}
        Some(Value::String(code)) if ["male", "female", "other", "unknown"].contains(&code.as_str()) => {}
        Some(_) => return Err("Patient.gender is none of male, female, other, unknown: correct it".to_owned()),
    }
    let named = |key: &str| {
        resource::list(value, key)
            .iter()
            .any(|item| item.as_object().is_some_and(|map| !map.is_empty()))
    };
    if named("name") || named("identifier") {
        Ok(())
    } else {
        Err("a Patient with neither a name nor an identifier can never be matched: add one".to_owned())
    }
}

fn clinical(kind: &str, value: &Value) -> Result<(), String> {
    if value.get("status").is_some_and(|status| !status.is_string()) {
        return Err(format!("{kind}.status is no text"));
    }
    for key in OBJECTS {
        if value.get(key).is_some_and(|item| !item.is_object()) {
            return Err(format!("{kind}.{key} is no object"));
        }
    }
    for key in LISTS {
        // AllergyIntolerance.category is a list of codes, every other list holds objects.
        if kind == "AllergyIntolerance" && key == "category" {
            if value.get(key).is_some_and(|item| !item.is_array()) {
                return Err(format!("{kind}.{key} is no array"));
            }
        } else {
            objects(kind, value, key)?;
        }
    }
    for key in DATES {
        date(kind, value, key)?;
    }
    Ok(())
}

fn objects(kind: &str, value: &Value, key: &str) -> Result<(), String> {
    match value.get(key) {
        None => Ok(()),
        // MedicationStatement.category, DocumentReference.content etc. are lists; a lone object occurs in R4 for
        // MedicationStatement.category and MedicationDispense.category.
        Some(Value::Object(_)) if key == "category" => Ok(()),
        Some(Value::Array(items)) if items.iter().all(Value::is_object) => Ok(()),
        Some(_) => Err(format!("{kind}.{key} is no array of objects")),
    }
}

fn date(kind: &str, value: &Value, key: &str) -> Result<(), String> {
    match value.get(key) {
        None => Ok(()),
        Some(Value::String(text)) if is_date(text) => Ok(()),
        Some(_) => Err(format!(
            "{kind}.{key} is no FHIR date: write YYYY, YYYY-MM, YYYY-MM-DD or a dateTime"
        )),
    }
}
