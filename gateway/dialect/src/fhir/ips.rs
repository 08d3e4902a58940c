//! The on-demand patient summary: an HL7 IPS 2.0 document Bundle assembled from one organisation's resources.
//!
//! The law: the summary says what the source says. It never invents a statement of absence: a section without
//! entries says *unavailable*, unless the source itself recorded that nothing is known. Every reference in the
//! Bundle resolves inside it or is cut down to its display text. What a limit leaves out is counted in the
//! section's narrative. Current entries (allergies, active medication, active problems) are never left out.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::fhir::resource::{self, Concept, LOINC};

/// Most results (laboratory Observations and DiagnosticReports), newest first; the members of a chosen panel or report
/// come along.
pub const RESULTS_MAX: usize = 60;
/// Most immunizations, procedures, encounters and imaging studies each, newest first.
pub const HISTORY_MAX: usize = 60;
/// Most past medications and past problems each, newest first; current ones are all kept.
pub const PAST_MAX: usize = 40;
/// Section code for allergies.
pub const ALLERGIES: &str = "48765-2";
/// Section code for medication.
pub const MEDICATIONS: &str = "10160-0";
/// Section code for problems.
pub const PROBLEMS: &str = "11450-4";
/// Section code for past problems.
pub const PAST_PROBLEMS: &str = "11348-0";
/// Section code for results.
pub const RESULTS: &str = "30954-2";
/// Section code for immunizations.
pub const IMMUNIZATIONS: &str = "11369-6";
/// Section code for procedures.
pub const PROCEDURES: &str = "47519-4";
/// Section code for encounters.
pub const ENCOUNTERS: &str = "46240-8";
/// Section code for imaging studies.
pub const IMAGING: &str = "18748-4";

/// Supporting types that follow by reference into the Bundle.
const FOLLOWED: [&str; 10] = [
    "Device",
    "Location",
    "Medication",
    "Observation",
    "Organization",
    "Practitioner",
    "PractitionerRole",
    "RelatedPerson",
    "Specimen",
    "Substance",
];

/// What a summary is made from.
pub struct SummaryInput<'a> {
    /// The custodian's name.
    pub organisation_name: &'a str,
    /// The custodian's id, `urn:oid:...`.
    pub organisation_urn: &'a str,
    /// The Patient resource.
    pub patient: &'a Value,
    /// The patient's resources with relative references, as import gives them.
    pub resources: &'a [Value],
    /// The moment of assembly, FHIR instant.
    pub now: &'a str,
    /// UUID of the Bundle to be; everything inside is named from it.
    pub bundle_id: &'a str,
}

/// Assembles the summary as a document Bundle.
pub fn assemble(input: &SummaryInput<'_>) -> Value {
    let mut book = Book::new(input);
    let sections: Vec<Value> = PLANS.iter().map(|plan| book.section(plan)).collect();
    book.follow();
    let patient = book.entry(input.patient, book.patient_url.clone());
    let organisation = organisation(input, &book.organisation_url);
    let composition = composition(input, &book, sections);
    let provenance = provenance(input, &book);
    let mut entries = vec![composition, patient, organisation];
    let chosen: Vec<usize> = book.chosen.iter().copied().collect();
    for at in chosen {
        if let Some(value) = input.resources.get(at) {
            entries.push(book.entry(value, book.url_of(value)));
        }
    }
    entries.push(provenance);
    json!({
        "resourceType": "Bundle",
        "id": input.bundle_id,
        "meta": {"profile": ["http://hl7.org/fhir/uv/ips/StructureDefinition/Bundle-uv-ips"]},
        "identifier": {"system": "urn:ietf:rfc:3986", "value": format!("urn:uuid:{}", input.bundle_id)},
        "type": "document",
        "timestamp": input.now,
        "entry": entries,
    })
}

/// True for the FHIR codes that say "nothing known" about allergies.
pub fn is_no_known_allergy(code: &Concept) -> bool {
    const SNOMED_NONE: [&str; 5] = ["716186003", "409137002", "428607008", "429625007", "428197003"];
    code.codings.iter().any(|coding| {
        (coding.system == resource::SNOMED && SNOMED_NONE.contains(&coding.code.as_str()))
            || coding.code.starts_with("no-known-") && coding.code.ends_with("allergies")
    })
}

/// True for any coded statement of absence or of missing information (IPS absent-unknown code system, SNOMED).
pub fn is_absence(code: &Concept) -> bool {
    const SNOMED_NONE: [&str; 2] = ["160245001", "787481004"];
    is_no_known_allergy(code)
        || code.codings.iter().any(|coding| {
            coding.system == "http://hl7.org/fhir/uv/ips/CodeSystem/absent-unknown-uv-ips"
                || (coding.system == resource::SNOMED && SNOMED_NONE.contains(&coding.code.as_str()))
        })
}

/// Status of a medication record that counts as current.
pub fn is_current_medication(resource: &Value) -> bool {
    resource::text(resource, "status") == Some("active")
}

/// Clinical status of a problem that counts as current; no status counts as current, for safety.
pub fn is_current_problem(condition: &Value) -> bool {
    let status = resource::concept(condition, "clinicalStatus");
    status.codings.is_empty()
        || ["active", "recurrence", "relapse"]
            .iter()
            .any(|code| status.has_code(code))
}

/// True for a laboratory Observation or report.
pub fn is_laboratory(resource: &Value) -> bool {
    resource::codings(resource, "category")
        .iter()
        .any(|coding| matches!(coding.code.as_str(), "laboratory" | "LAB"))
}

/// The date by which a record is sorted and shown.
pub fn date_of(resource: &Value) -> Option<String> {
    const KEYS: [&str; 14] = [
        "effectiveDateTime",
        "effectivePeriod",
        "effectiveInstant",
        "authoredOn",
        "occurrenceDateTime",
        "performedDateTime",
        "performedPeriod",
        "period",
        "started",
        "onsetDateTime",
        "onsetPeriod",
        "recordedDate",
        "issued",
        "dateAsserted",
    ];
    resource::moment(resource, &KEYS)
}

struct Plan {
    code: &'static str,
    title: &'static str,
    display: &'static str,
    kinds: &'static [&'static str],
    keep: fn(&Value) -> bool,
    current: fn(&Value) -> bool,
    past_max: usize,
    required: bool,
}

fn always(_: &Value) -> bool {
    true
}

fn never(_: &Value) -> bool {
    false
}

fn medication_kept(value: &Value) -> bool {
    !matches!(
        resource::text(value, "status"),
        Some("draft" | "cancelled" | "not-taken")
    ) && !matches!(resource::text(value, "intent"), Some("proposal" | "option"))
}

const PLANS: [Plan; 8] = [
    Plan {
        code: ALLERGIES,
        title: "Allergies and Intolerances",
        display: "Allergies and adverse reactions Document",
        kinds: &["AllergyIntolerance"],
        keep: always,
        current: always,
        past_max: 0,
        required: true,
    },
    Plan {
        code: MEDICATIONS,
        title: "Medication Summary",
        display: "History of Medication use Narrative",
        kinds: &["MedicationRequest", "MedicationStatement"],
        keep: medication_kept,
        current: is_current_medication,
        past_max: PAST_MAX,
        required: true,
    },
    Plan {
        code: PROBLEMS,
        title: "Problem List",
        display: "Problem list - Reported",
        kinds: &["Condition"],
        keep: always,
        current: is_current_problem,
        past_max: PAST_MAX,
        required: true,
    },
    Plan {
        code: IMMUNIZATIONS,
        title: "Immunizations",
        display: "History of Immunization note",
        kinds: &["Immunization"],
        keep: always,
        current: never,
        past_max: HISTORY_MAX,
        required: false,
    },
    Plan {
        code: RESULTS,
        title: "Results",
        display: "Relevant diagnostic tests/laboratory data note",
        kinds: &["Observation", "DiagnosticReport"],
        keep: is_laboratory,
        current: never,
        past_max: RESULTS_MAX,
        required: false,
    },
    Plan {
        code: PROCEDURES,
        title: "History of Procedures",
        display: "History of Procedures Document",
        kinds: &["Procedure"],
        keep: always,
        current: never,
        past_max: HISTORY_MAX,
        required: false,
    },
    Plan {
        code: ENCOUNTERS,
        title: "Encounters",
        display: "History of Hospitalizations+Outpatient visits Narrative",
        kinds: &["Encounter"],
        keep: always,
        current: never,
        past_max: HISTORY_MAX,
        required: false,
    },
    Plan {
        code: IMAGING,
        title: "Imaging Studies",
        display: "Diagnostic imaging study",
        kinds: &["ImagingStudy"],
        keep: always,
        current: never,
        past_max: HISTORY_MAX,
        required: false,
    },
];

/// The Bundle in the making.
struct Book<'a> {
    input: &'a SummaryInput<'a>,
    by_name: HashMap<String, usize>,
    chosen: BTreeSet<usize>,
    patient_name: String,
    patient_url: String,
    organisation_url: String,
}

impl<'a> Book<'a> {
    fn new(input: &'a SummaryInput<'a>) -> Self {
        let by_name = input
            .resources
            .iter()
            .enumerate()
            .map(|(at, value)| (name_of(value), at))
            .collect();
        let patient_name = name_of(input.patient);
        Self {
            patient_url: url(input.bundle_id, &patient_name),
            organisation_url: url(input.bundle_id, "custodian"),
            input,
            by_name,
            chosen: BTreeSet::new(),
            patient_name,
        }
    }

    fn url_of(&self, value: &Value) -> String {
        url(self.input.bundle_id, &name_of(value))
    }

    fn section(&mut self, plan: &Plan) -> Value {
        let (mut current, mut past) = (Vec::new(), Vec::new());
        for (at, value) in self.input.resources.iter().enumerate() {
            let kind = resource::kind(value).unwrap_or_default();
            if !plan.kinds.contains(&kind) || is_error(value) || !(plan.keep)(value) {
                continue;
            }
            if (plan.current)(value) {
                current.push(at)
            } else {
                past.push(at)
            }
        }
        let newest = |list: &mut Vec<usize>| {
            list.sort_by_cached_key(|at| {
                std::cmp::Reverse(self.input.resources.get(*at).and_then(date_of).unwrap_or_default())
            });
        };
        newest(&mut current);
        newest(&mut past);
        let left_out = past.len().saturating_sub(plan.past_max);
        past.truncate(plan.past_max);
        let members: Vec<usize> = current.into_iter().chain(past).collect();
        let mut section = Map::new();
        section.insert("title".to_owned(), plan.title.into());
        section.insert(
            "code".to_owned(),
            json!({"coding": [{"system": LOINC, "code": plan.code, "display": plan.display}]}),
        );
        if members.is_empty() {
            let (reason, words) = self.empty(plan);
            section.insert("text".to_owned(), narrative(&format!("<p>{}</p>", escape(&words))));
            section.insert("emptyReason".to_owned(), reason);
        } else {
            section.insert("text".to_owned(), narrative(&self.table(&members, left_out)));
            let links: Vec<Value> = members
                .iter()
                .filter_map(|at| self.input.resources.get(*at))
                .map(|value| json!({"reference": self.url_of(value)}))
                .collect();
            section.insert("entry".to_owned(), links.into());
        }
        self.chosen.extend(members);
        Value::Object(section)
    }

    /// The source's own statement about an empty section, from its newest Composition, else "unavailable".
    fn empty(&self, plan: &Plan) -> (Value, String) {
        let mut newest: BTreeMap<String, &Value> = BTreeMap::new();
        for value in self
            .input
            .resources
            .iter()
            .filter(|value| resource::kind(value) == Some("Composition"))
        {
            for section in resource::list(value, "section") {
                if resource::concept(section, "code").has(LOINC, plan.code) && section.get("emptyReason").is_some() {
                    newest.insert(resource::text(value, "date").unwrap_or_default().to_owned(), section);
                }
            }
        }
        if let Some((_, section)) = newest.pop_last() {
            let reason = resource::at(section, "emptyReason");
            let words = Concept::read(reason)
                .words()
                .unwrap_or("No information available")
                .to_owned();
            return (reason.clone(), words);
        }
        let words = if plan.required {
            "No information available"
        } else {
            "No entries held by this organisation"
        };
        let coding = json!({
            "system": "http://terminology.hl7.org/CodeSystem/list-empty-reason", "code": "unavailable", "display": "Unavailable"
        });
        (json!({"coding": [coding], "text": words}), words.to_owned())
    }

    fn table(&self, members: &[usize], left_out: usize) -> String {
        let mut html = String::from("<table><thead><tr><th>What</th><th>Status</th><th>Date</th></tr></thead><tbody>");
        for value in members.iter().filter_map(|at| self.input.resources.get(*at)) {
            let what = self.words(value);
            let status = status_of(value).unwrap_or_default();
            let date = date_of(value).unwrap_or_default();
            html.push_str(&format!(
                "<tr><td>{}</td><td>{}</td><td>{}</td></tr>",
                escape(&what),
                escape(&status),
                escape(&date)
            ));
        }
        html.push_str("</tbody></table>");
        if left_out > 0 {
            html.push_str(&format!(
                "<p>{left_out} older entries are not part of this summary.</p>"
            ));
        }
        html
    }

    fn words(&self, value: &Value) -> String {
        let named = ["code", "medicationCodeableConcept", "vaccineCode"]
            .iter()
            .find_map(|key| resource::concept(value, key).words().map(str::to_owned));
        let medication = || {
            let link = resource::at(value, "medicationReference");
            let target = resource::text(link, "reference").and_then(|name| self.by_name.get(name));
            let target = target.and_then(|at| self.input.resources.get(*at));
            target
                .and_then(|target| resource::concept(target, "code").words().map(str::to_owned))
                .or_else(|| resource::text(link, "display").map(str::to_owned))
        };
        let typed = || {
            resource::list(value, "type")
                .iter()
                .find_map(|one| Concept::read(one).words().map(str::to_owned))
        };
        named
            .or_else(medication)
            .or_else(typed)
            .or_else(|| resource::text(value, "description").map(str::to_owned))
            .unwrap_or_else(|| resource::kind(value).unwrap_or_default().to_owned())
    }

    /// Adds what the chosen resources refer to.
    fn follow(&mut self) {
        let mut open: Vec<usize> = self.chosen.iter().copied().collect();
        let mut patient_links = Vec::new();
        references(self.input.patient, &mut patient_links);
        self.admit(&patient_links, &mut open);
        while let Some(at) = open.pop() {
            let mut links = Vec::new();
            if let Some(value) = self.input.resources.get(at) {
                references(value, &mut links);
            }
            self.admit(&links, &mut open);
        }
    }

    fn admit(&mut self, links: &[String], open: &mut Vec<usize>) {
        for link in links {
            let Some(at) = self.by_name.get(link).copied() else {
                continue;
            };
            let Some(value) = self.input.resources.get(at) else {
                continue;
            };
            let followed = FOLLOWED.contains(&resource::kind(value).unwrap_or_default()) && !is_error(value);
            if followed && self.chosen.insert(at) {
                open.push(at);
            }
        }
    }

    /// One entry: references inside the Bundle become its urls, all others are cut to their display.
    fn entry(&self, value: &Value, url: String) -> Value {
        let mut value = value.clone();
        let narrative = resource::text(resource::at(&value, "text"), "status");
        // A narrative that only repeats the data is dropped; one that adds to it stays.
        if narrative != Some("additional")
            && let Some(map) = value.as_object_mut()
        {
            map.remove("text");
        }
        self.relink(&mut value);
        json!({"fullUrl": url, "resource": value})
    }

    fn relink(&self, value: &mut Value) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| self.relink(item)),
            Value::Object(map) => {
                if let Some(reference) = map.get("reference").and_then(Value::as_str).map(str::to_owned)
                    && !reference.starts_with('#')
                {
                    if let Some(url) = self.inside(&reference) {
                        map.insert("reference".to_owned(), url.into());
                    } else {
                        map.remove("reference");
                        if !map.contains_key("display") && !map.contains_key("identifier") {
                            map.insert("display".to_owned(), "not part of this summary".into());
                        }
                    }
                }
                map.values_mut().for_each(|item| self.relink(item));
            }
            _ => {}
        }
    }

    fn inside(&self, reference: &str) -> Option<String> {
        if reference == self.patient_name {
            return Some(self.patient_url.clone());
        }
        let at = self.by_name.get(reference)?;
        self.chosen.contains(at).then(|| url(self.input.bundle_id, reference))
    }
}

fn composition(input: &SummaryInput<'_>, book: &Book<'_>, sections: Vec<Value>) -> Value {
    let who = json!({"reference": book.organisation_url, "display": input.organisation_name});
    json!({
        "fullUrl": url(input.bundle_id, "composition"),
        "resource": {
            "resourceType": "Composition",
            "id": uuid(input.bundle_id, "composition"),
            "meta": {"profile": ["http://hl7.org/fhir/uv/ips/StructureDefinition/Composition-uv-ips"]},
            "status": "final",
            "type": {"coding": [{"system": LOINC, "code": "60591-5", "display": "Patient summary Document"}]},
            "subject": {"reference": book.patient_url},
            "date": input.now,
            "author": [who],
            "title": format!("Patient summary, {}", input.organisation_name),
            "custodian": who,
            "section": sections,
        }
    })
}

fn organisation(input: &SummaryInput<'_>, full_url: &str) -> Value {
    json!({
        "fullUrl": full_url,
        "resource": {
            "resourceType": "Organization",
            "id": uuid(input.bundle_id, "custodian"),
            "identifier": [{"system": "urn:ietf:rfc:3986", "value": input.organisation_urn}],
            "name": input.organisation_name,
        }
    })
}

fn provenance(input: &SummaryInput<'_>, book: &Book<'_>) -> Value {
    let targets = book
        .chosen
        .iter()
        .filter_map(|at| input.resources.get(*at))
        .map(|value| book.url_of(value));
    let targets: Vec<Value> = [url(input.bundle_id, "composition"), book.patient_url.clone()]
        .into_iter()
        .chain(targets)
        .map(|url| json!({"reference": url}))
        .collect();
    let kind = json!({"coding": [{
        "system": "http://terminology.hl7.org/CodeSystem/provenance-participant-type", "code": "custodian", "display": "Custodian"
    }]});
    json!({
        "fullUrl": url(input.bundle_id, "provenance"),
        "resource": {
            "resourceType": "Provenance",
            "id": uuid(input.bundle_id, "provenance"),
            "target": targets,
            "recorded": input.now,
            "agent": [{"type": kind, "who": {"reference": book.organisation_url, "display": input.organisation_name}}],
        }
    })
}

fn is_error(value: &Value) -> bool {
    resource::text(value, "status") == Some("entered-in-error")
        || resource::concept(value, "verificationStatus").has_code("entered-in-error")
}

fn status_of(value: &Value) -> Option<String> {
    let clinical = resource::concept(value, "clinicalStatus");
    let coded = clinical.codings.into_iter().next().map(|coding| coding.code);
    coded.or_else(|| resource::text(value, "status").map(str::to_owned))
}

fn references(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| references(item, out)),
        Value::Object(map) => {
            out.extend(map.get("reference").and_then(Value::as_str).map(str::to_owned));
            map.values().for_each(|item| references(item, out));
        }
        _ => {}
    }
}

fn name_of(value: &Value) -> String {
    format!(
        "{}/{}",
        resource::kind(value).unwrap_or_default(),
        resource::text(value, "id").unwrap_or_default()
    )
}

fn url(bundle: &str, name: &str) -> String {
    format!("urn:uuid:{}", uuid(bundle, name))
}

/// A name-based UUID (RFC 9562 version 8) over Bundle id and resource name.
fn uuid(bundle: &str, name: &str) -> String {
    let mut bytes = [0_u8; 16];
    let digest = Sha256::digest(format!("ips\n{bundle}\n{name}").as_bytes());
    for (to, from) in bytes.iter_mut().zip(digest.iter()) {
        *to = *from;
    }
    bytes[6] = (bytes[6] & 0x0f) | 0x80;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let text = hex::encode(bytes);
    let part = |from: usize, to: usize| text.get(from..to).unwrap_or_default();
    format!(
        "{}-{}-{}-{}-{}",
        part(0, 8),
        part(8, 12),
        part(12, 16),
        part(16, 20),
        part(20, 32)
    )
}

fn narrative(inner: &str) -> Value {
    json!({"status": "generated", "div": format!("<div xmlns=\"http://www.w3.org/1999/xhtml\">{inner}</div>")})
}

/// Escapes text for XHTML content; control characters, which XML 1.0 forbids, become spaces.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            letter if letter.is_control() && letter != '\n' => out.push(' '),
            letter => out.push(letter),
        }
    }
    out
}

#[cfg(test)]
mod tests;
