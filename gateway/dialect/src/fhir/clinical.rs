//! A patient summary read back into rows for people: ours, or any other IPS document.
//!
//! The law: a row repeats what its entry says and points at it; nothing is merged, ranked or inferred here. An
//! entry marked entered-in-error makes no row. "No known allergies" is a statement with a date and a recorder, and
//! is kept apart from the absence of rows. A refuted allergy is kept, apart from the valid ones.

use std::collections::HashMap;

use serde_json::Value;

use crate::fhir::clinical::words::{contained, dose, first_code, first_words, notes, range_words, taken, value_words};
use crate::fhir::guard::{self, FhirError, Limits};
use crate::fhir::ips;
use crate::fhir::resource::{self, Concept, LOINC, PatientFacts, Period, hide};

mod words;

/// Most rows that one section of a summary may have.
pub const ROWS_MAX: usize = 5_000;

/// Who recorded an entry, as far as the source says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecorderRole {
    /// A physician.
    Doctor,
    /// A nurse.
    Nurse,
    /// A pharmacist.
    Pharmacist,
    /// A professional of unstated kind.
    Clinician,
    /// The patient.
    Patient,
    /// A relative or carer.
    RelatedPerson,
    /// A device or program.
    Device,
    /// An organisation.
    Organisation,
}

/// Who recorded an entry.
#[derive(Clone, PartialEq, Eq)]
pub struct Recorder {
    /// Their role.
    pub role: RecorderRole,
    /// Their name.
    pub name: Option<String>,
}

/// A statement that nothing is known.
#[derive(Clone, PartialEq, Eq)]
pub struct Statement {
    /// What exactly is stated not to be known.
    pub what: Concept,
    /// When it was recorded.
    pub recorded: Option<String>,
    /// Who said so.
    pub recorder: Option<Recorder>,
    /// The entry's reference, or `section` when the section itself says so.
    pub source: String,
}

/// One reaction to a substance.
#[derive(Clone, PartialEq, Eq)]
pub struct Reaction {
    /// Manifestations in words.
    pub manifestations: Vec<String>,
    /// `mild`, `moderate`, `severe`.
    pub severity: Option<String>,
    /// Free description.
    pub description: Option<String>,
}

/// One allergy or intolerance.
#[derive(Clone, PartialEq, Eq)]
pub struct AllergyRow {
    /// The substance or allergy.
    pub code: Concept,
    /// `active`, `inactive`, `resolved`.
    pub status: Option<String>,
    /// `confirmed`, `unconfirmed`, `presumed`, `refuted`.
    pub verification: Option<String>,
    /// `low`, `high`, `unable-to-assess`.
    pub criticality: Option<String>,
    /// `allergy` or `intolerance`.
    pub kind: Option<String>,
    /// `food`, `medication`, `environment`, `biologic`.
    pub categories: Vec<String>,
    /// Reactions.
    pub reactions: Vec<Reaction>,
    /// When it began.
    pub onset: Option<String>,
    /// When it was recorded.
    pub recorded: Option<String>,
    /// Who recorded it.
    pub recorder: Option<Recorder>,
    /// Notes, as typed.
    pub notes: Vec<String>,
    /// Reference of the original entry.
    pub source: String,
}

/// One medication order or statement.
#[derive(Clone, PartialEq, Eq)]
pub struct MedicationRow {
    /// The medication.
    pub code: Concept,
    /// FHIR status (`active`, `stopped`, `completed`, `on-hold`, ...).
    pub status: Option<String>,
    /// True when the status counts as current.
    pub current: bool,
    /// True for a prescription (MedicationRequest), false for a statement of use.
    pub ordered: bool,
    /// Dose instruction as text, else dose and timing spelled out.
    pub dose: Option<String>,
    /// Route in words.
    pub route: Option<String>,
    /// Dose form in words.
    pub form: Option<String>,
    /// Reason in words.
    pub reason: Option<String>,
    /// When it was ordered or asserted.
    pub recorded: Option<String>,
    /// When it is taken.
    pub period: Period,
    /// Who ordered or asserted it.
    pub recorder: Option<Recorder>,
    /// Notes, as typed.
    pub notes: Vec<String>,
    /// Reference of the original entry.
    pub source: String,
}

/// One problem or diagnosis.
#[derive(Clone, PartialEq, Eq)]
pub struct ProblemRow {
    /// The problem.
    pub code: Concept,
    /// `active`, `recurrence`, `relapse`, `inactive`, `remission`, `resolved`.
    pub status: Option<String>,
    /// `confirmed`, `provisional`, ...
    pub verification: Option<String>,
    /// True when the status counts as current.
    pub current: bool,
    /// Severity in words.
    pub severity: Option<String>,
    /// When it began.
    pub onset: Option<String>,
    /// When it ended.
    pub ended: Option<String>,
    /// When it was recorded.
    pub recorded: Option<String>,
    /// Who recorded it.
    pub recorder: Option<Recorder>,
    /// Notes, as typed.
    pub notes: Vec<String>,
    /// Reference of the original entry.
    pub source: String,
}

/// One result.
#[derive(Clone, PartialEq, Eq)]
pub struct ResultRow {
    /// What was measured.
    pub code: Concept,
    /// FHIR status.
    pub status: Option<String>,
    /// Value with unit, in words; components joined.
    pub value: Option<String>,
    /// Reference range in words.
    pub range: Option<String>,
    /// Interpretation code (`H`, `L`, `N`, ...).
    pub interpretation: Option<String>,
    /// When it was taken.
    pub date: Option<String>,
    /// Who is responsible.
    pub recorder: Option<Recorder>,
    /// Reference of the original entry.
    pub source: String,
}

/// One visit, procedure, immunization or imaging study.
#[derive(Clone, PartialEq, Eq)]
pub struct EventRow {
    /// What it was.
    pub code: Concept,
    /// FHIR status.
    pub status: Option<String>,
    /// Encounter class, procedure category or modality in words.
    pub class: Option<String>,
    /// When.
    pub period: Period,
    /// Why.
    pub reason: Option<String>,
    /// Where or by whom.
    pub place: Option<String>,
    /// Who recorded it.
    pub recorder: Option<Recorder>,
    /// Study Instance UID, for imaging.
    pub study_uid: Option<String>,
    /// Reference of the original entry.
    pub source: String,
}

/// A summary as rows.
#[derive(Default)]
pub struct Summary {
    /// The patient as the summary's source knows them.
    pub patient: PatientFacts,
    /// Name of the custodian or first author.
    pub organisation: Option<String>,
    /// When the summary was made.
    pub made: Option<String>,
    /// Valid allergies.
    pub allergies: Vec<AllergyRow>,
    /// Allergies that a test or clinician refuted.
    pub refuted_allergies: Vec<AllergyRow>,
    /// A statement that no allergies are known: general, or for drugs, food or environment only.
    pub no_known_allergies: Option<Statement>,
    /// Medication, current and past.
    pub medications: Vec<MedicationRow>,
    /// Problems, current and past.
    pub problems: Vec<ProblemRow>,
    /// Results.
    pub results: Vec<ResultRow>,
    /// Visits.
    pub visits: Vec<EventRow>,
    /// Imaging studies.
    pub imaging: Vec<EventRow>,
    /// Immunizations.
    pub immunizations: Vec<EventRow>,
    /// Procedures.
    pub procedures: Vec<EventRow>,
}

hide!(
    Recorder,
    Statement,
    Reaction,
    AllergyRow,
    MedicationRow,
    ProblemRow,
    ResultRow,
    EventRow,
    Summary
);

/// Reads the bytes of a document Bundle.
pub fn read(bytes: &[u8], limits: &Limits) -> Result<Summary, FhirError> {
    read_value(&guard::parse(bytes, limits)?)
}

/// Reads a document Bundle. Other Bundles and resources are refused.
pub fn read_value(bundle: &Value) -> Result<Summary, FhirError> {
    let refuse = |reason: &str| FhirError::Content {
        reason: reason.to_owned(),
        remedy: "ask for an IPS document Bundle",
    };
    if resource::kind(bundle) != Some("Bundle") || resource::text(bundle, "type") != Some("document") {
        return Err(refuse("no document Bundle"));
    }
    let shelf = Shelf::open(bundle);
    let composition = shelf
        .entries
        .first()
        .map(|(_, value)| *value)
        .filter(|value| resource::kind(value) == Some("Composition"));
    let composition = composition.ok_or_else(|| refuse("the document does not start with a Composition"))?;
    let patient = shelf
        .find(resource::at(composition, "subject"))
        .filter(|value| resource::kind(value) == Some("Patient"))
        .ok_or_else(|| refuse("the document's patient is not in the Bundle"))?;
    let mut summary = Summary {
        patient: PatientFacts::read(patient),
        organisation: shelf.name(resource::at(composition, "custodian")).or_else(|| {
            resource::list(composition, "author")
                .iter()
                .find_map(|who| shelf.name(who))
        }),
        made: resource::text(composition, "date").map(str::to_owned),
        ..Summary::default()
    };
    let listed = section_members(&shelf, composition, ips::RESULTS);
    for (url, value) in &shelf.entries {
        let erroneous = resource::text(value, "status") == Some("entered-in-error")
            || resource::concept(value, "verificationStatus").has_code("entered-in-error");
        if !erroneous {
            shelf.sort_in(&mut summary, url, value, listed.as_deref());
        }
    }
    if summary.no_known_allergies.is_none() {
        summary.no_known_allergies = section_statement(&shelf, composition);
    }
    Ok(summary)
}

struct Shelf<'v> {
    entries: Vec<(String, &'v Value)>,
    by_url: HashMap<String, usize>,
    by_name: HashMap<String, usize>,
}

impl<'v> Shelf<'v> {
    fn open(bundle: &'v Value) -> Self {
        let mut shelf = Self {
            entries: Vec::new(),
            by_url: HashMap::new(),
            by_name: HashMap::new(),
        };
        for entry in resource::list(bundle, "entry") {
            let value = resource::at(entry, "resource");
            let Some(kind) = resource::kind(value) else { continue };
            let at = shelf.entries.len();
            let name = resource::text(value, "id").map(|id| format!("{kind}/{id}"));
            let url = resource::text(entry, "fullUrl")
                .map(str::to_owned)
                .or_else(|| name.clone())
                .unwrap_or_default();
            shelf.by_url.entry(url.clone()).or_insert(at);
            if let Some(name) = name {
                shelf.by_name.entry(name).or_insert(at);
            }
            shelf.entries.push((url, value));
        }
        shelf
    }

    fn number(&self, reference: &str) -> Option<usize> {
        self.by_url.get(reference).copied().or_else(|| {
            let (kind, id) = resource::relative(reference)?;
            self.by_name.get(&format!("{kind}/{id}")).copied()
        })
    }

    fn find(&self, link: &Value) -> Option<&'v Value> {
        let at = self.number(resource::text(link, "reference")?)?;
        self.entries.get(at).map(|(_, value)| *value)
    }

    fn name(&self, link: &Value) -> Option<String> {
        let found = self.find(link);
        let inner = found.filter(|value| resource::kind(value) == Some("PractitionerRole"));
        let found = inner
            .and_then(|role| self.find(resource::at(role, "practitioner")))
            .or(found);
        found
            .and_then(resource::person_name)
            .or_else(|| resource::text(link, "display").map(str::to_owned))
    }

    fn recorder(&self, value: &Value, keys: &[&str]) -> Option<Recorder> {
        let link = keys.iter().find_map(|key| match value.get(*key) {
            Some(Value::Array(items)) => items.first().map(|item| item.get("actor").unwrap_or(item)),
            other => other,
        })?;
        let name = self.name(link);
        let found = self.find(link);
        let stated = resource::text(link, "type").or_else(|| {
            resource::text(link, "reference")
                .and_then(resource::relative)
                .map(|(kind, _)| kind)
        });
        let role = match found.and_then(resource::kind).or(stated) {
            Some("Patient") => RecorderRole::Patient,
            Some("RelatedPerson") => RecorderRole::RelatedPerson,
            Some("Device") => RecorderRole::Device,
            Some("Organization") => RecorderRole::Organisation,
            Some("Practitioner" | "PractitionerRole") => {
                found.map_or(RecorderRole::Clinician, |who| self.profession(who))
            }
            _ if name.is_some() => RecorderRole::Clinician,
            _ => return None,
        };
        Some(Recorder { role, name })
    }

    fn profession(&self, who: &Value) -> RecorderRole {
        let mut codings = resource::codings(who, "code");
        codings.extend(
            resource::list(who, "qualification")
                .iter()
                .flat_map(|one| resource::codings(one, "code")),
        );
        if resource::kind(who) == Some("Practitioner") {
            let id = resource::text(who, "id").unwrap_or_default();
            for (_, role) in self
                .entries
                .iter()
                .filter(|(_, value)| resource::kind(value) == Some("PractitionerRole"))
            {
                let same = self
                    .find(resource::at(role, "practitioner"))
                    .is_some_and(|one| resource::text(one, "id") == Some(id));
                if same {
                    codings.extend(resource::codings(role, "code"));
                }
            }
        }
        // SNOMED occupations, HL7 v2-0360 degrees and HL7 practitioner roles.
        let any = |codes: &[&str]| codings.iter().any(|coding| codes.contains(&coding.code.as_str()));
        if any(&["158965000", "309343006", "59058001", "MD", "DO", "doctor"]) {
            RecorderRole::Doctor
        } else if any(&["106292003", "224535009", "RN", "NP", "nurse"]) {
            RecorderRole::Nurse
        } else if any(&["46255001", "RPH", "PHARMD", "pharmacist"]) {
            RecorderRole::Pharmacist
        } else {
            RecorderRole::Clinician
        }
    }

    fn sort_in(&self, summary: &mut Summary, url: &str, value: &Value, results: Option<&[usize]>) {
        match resource::kind(value).unwrap_or_default() {
            "AllergyIntolerance" => self.allergy(summary, url, value),
            "MedicationRequest" | "MedicationStatement" => push(&mut summary.medications, self.medication(url, value)),
            "Condition" => push(&mut summary.problems, self.problem(url, value)),
            "Observation" | "DiagnosticReport" => {
                let listed = results.map_or_else(
                    || ips::is_laboratory(value),
                    |listed| self.number(url).is_some_and(|at| listed.contains(&at)),
                );
                if listed {
                    push(&mut summary.results, self.result(url, value));
                }
            }
            "Encounter" => push(&mut summary.visits, Some(self.visit(url, value))),
            "ImagingStudy" => push(&mut summary.imaging, Some(self.imaging(url, value))),
            "Immunization" => push(&mut summary.immunizations, self.event(url, value, "vaccineCode")),
            "Procedure" => push(&mut summary.procedures, self.event(url, value, "code")),
            _ => {}
        }
    }

    fn allergy(&self, summary: &mut Summary, url: &str, value: &Value) {
        let code = resource::concept(value, "code");
        let recorder = self.recorder(value, &["recorder", "asserter"]);
        let recorded = resource::text(value, "recordedDate").map(str::to_owned);
        let verification = first_code(value, "verificationStatus");
        if ips::is_absence(&code) {
            let general = ips::is_no_known_allergy(&code);
            let wider = summary.no_known_allergies.is_none() || code.has(resource::SNOMED, "716186003");
            if general && wider && verification.as_deref() != Some("refuted") {
                summary.no_known_allergies = Some(Statement {
                    what: code,
                    recorded,
                    recorder,
                    source: url.to_owned(),
                });
            }
            return;
        }
        let reactions = resource::list(value, "reaction")
            .iter()
            .take(resource::ITEMS_MAX)
            .map(|reaction| Reaction {
                manifestations: resource::list(reaction, "manifestation")
                    .iter()
                    .filter_map(|one| Concept::read(one).words().map(str::to_owned))
                    .collect(),
                severity: resource::text(reaction, "severity").map(str::to_owned),
                description: resource::text(reaction, "description").map(str::to_owned),
            });
        let row = AllergyRow {
            code,
            status: first_code(value, "clinicalStatus"),
            criticality: resource::text(value, "criticality").map(str::to_owned),
            kind: resource::text(value, "type").map(str::to_owned),
            categories: resource::texts(value, "category"),
            reactions: reactions.collect(),
            onset: resource::moment(value, &["onsetDateTime", "onsetPeriod"]),
            recorded,
            recorder,
            notes: notes(value),
            source: url.to_owned(),
            verification,
        };
        let refuted = row.verification.as_deref() == Some("refuted");
        push(
            if refuted {
                &mut summary.refuted_allergies
            } else {
                &mut summary.allergies
            },
            Some(row),
        );
    }

    fn medication(&self, url: &str, value: &Value) -> Option<MedicationRow> {
        let mut code = resource::concept(value, "medicationCodeableConcept");
        let mut form = None;
        let link = resource::at(value, "medicationReference");
        if code.is_empty() {
            if let Some(medication) = self.find(link).or_else(|| contained(value, link)) {
                code = resource::concept(medication, "code");
                form = resource::concept(medication, "form").words().map(str::to_owned);
            }
            if code.is_empty() {
                code.text = resource::text(link, "display").map(str::to_owned);
            }
        }
        if ips::is_absence(&code) {
            return None;
        }
        let ordered = resource::kind(value) == Some("MedicationRequest");
        let dosage = resource::list(value, if ordered { "dosageInstruction" } else { "dosage" });
        let reason = ["reasonCode", "reason"].iter().find_map(|key| {
            resource::list(value, key)
                .iter()
                .find_map(|one| Concept::read(one).words().map(str::to_owned))
        });
        Some(MedicationRow {
            code,
            status: resource::text(value, "status").map(str::to_owned),
            current: ips::is_current_medication(value),
            ordered,
            dose: dose(dosage),
            route: dosage
                .iter()
                .find_map(|one| resource::concept(one, "route").words().map(str::to_owned)),
            form,
            reason,
            recorded: resource::moment(value, &["authoredOn", "dateAsserted"]),
            period: taken(value),
            recorder: self.recorder(value, &["requester", "recorder", "informationSource"]),
            notes: notes(value),
            source: url.to_owned(),
        })
    }

    fn problem(&self, url: &str, value: &Value) -> Option<ProblemRow> {
        let code = resource::concept(value, "code");
        if ips::is_absence(&code) {
            return None;
        }
        let verification = first_code(value, "verificationStatus");
        Some(ProblemRow {
            code,
            status: first_code(value, "clinicalStatus"),
            current: ips::is_current_problem(value) && verification.as_deref() != Some("refuted"),
            verification,
            severity: resource::concept(value, "severity").words().map(str::to_owned),
            onset: resource::moment(value, &["onsetDateTime", "onsetPeriod", "onsetString"]),
            ended: resource::moment(value, &["abatementDateTime", "abatementPeriod", "abatementString"]),
            recorded: resource::text(value, "recordedDate").map(str::to_owned),
            recorder: self.recorder(value, &["recorder", "asserter"]),
            notes: notes(value),
            source: url.to_owned(),
        })
    }

    fn result(&self, url: &str, value: &Value) -> Option<ResultRow> {
        let code = resource::concept(value, "code");
        if ips::is_absence(&code) {
            return None;
        }
        let parts = resource::list(value, "component")
            .iter()
            .take(resource::ITEMS_MAX)
            .filter_map(|part| {
                Some(format!(
                    "{} {}",
                    resource::concept(part, "code").words()?,
                    value_words(part)?
                ))
            });
        let own = value_words(value).or_else(|| resource::text(value, "conclusion").map(str::to_owned));
        let parts: Vec<String> = own.into_iter().chain(parts).collect();
        Some(ResultRow {
            code,
            status: resource::text(value, "status").map(str::to_owned),
            value: (!parts.is_empty()).then(|| parts.join("; ")),
            range: resource::list(value, "referenceRange").first().and_then(range_words),
            interpretation: resource::codings(value, "interpretation")
                .into_iter()
                .next()
                .map(|coding| coding.code),
            date: ips::date_of(value),
            recorder: self.recorder(value, &["performer"]),
            source: url.to_owned(),
        })
    }

    fn visit(&self, url: &str, value: &Value) -> EventRow {
        let class = resource::Coding::read(resource::at(value, "class"));
        EventRow {
            code: resource::list(value, "type")
                .first()
                .map(Concept::read)
                .unwrap_or_default(),
            status: resource::text(value, "status").map(str::to_owned),
            class: class.map(|class| class.display.unwrap_or(class.code)),
            period: resource::period(value, "period"),
            reason: first_words(value, "reasonCode"),
            place: self.name(resource::at(value, "serviceProvider")).or_else(|| {
                resource::list(value, "location")
                    .iter()
                    .find_map(|one| self.name(resource::at(one, "location")))
            }),
            recorder: resource::list(value, "participant")
                .iter()
                .find_map(|one| self.recorder(one, &["individual"])),
            study_uid: None,
            source: url.to_owned(),
        }
    }

    fn imaging(&self, url: &str, value: &Value) -> EventRow {
        let series = resource::list(value, "series");
        let modality = resource::coding_list(value, "modality").into_iter().next().or_else(|| {
            series
                .iter()
                .find_map(|one| resource::Coding::read(resource::at(one, "modality")))
        });
        let uid = resource::list(value, "identifier")
            .iter()
            .find_map(|one| resource::text(one, "value")?.strip_prefix("urn:oid:"));
        let mut code = resource::list(value, "procedureCode")
            .first()
            .map(Concept::read)
            .unwrap_or_default();
        if code.is_empty() {
            let title = series
                .iter()
                .flat_map(|one| resource::list(one, "instance"))
                .find_map(|one| resource::text(one, "title"));
            code.text = resource::text(value, "description").or(title).map(str::to_owned);
        }
        EventRow {
            code,
            status: resource::text(value, "status").map(str::to_owned),
            class: modality.map(|modality| modality.code),
            period: Period {
                start: resource::text(value, "started").map(str::to_owned),
                end: None,
            },
            reason: first_words(value, "reasonCode"),
            place: self.name(resource::at(value, "location")),
            recorder: self.recorder(value, &["interpreter", "referrer"]),
            study_uid: uid.map(str::to_owned),
            source: url.to_owned(),
        }
    }

    fn event(&self, url: &str, value: &Value, key: &str) -> Option<EventRow> {
        let code = resource::concept(value, key);
        if ips::is_absence(&code) {
            return None;
        }
        let mut period = resource::period(value, "performedPeriod");
        period.start = period.start.or_else(|| {
            resource::moment(
                value,
                &[
                    "occurrenceDateTime",
                    "occurrenceString",
                    "performedDateTime",
                    "performedString",
                ],
            )
        });
        Some(EventRow {
            code,
            status: resource::text(value, "status").map(str::to_owned),
            class: resource::concept(value, "category").words().map(str::to_owned),
            period,
            reason: first_words(value, "reasonCode"),
            place: self.name(resource::at(value, "location")),
            recorder: self.recorder(value, &["recorder", "asserter", "performer"]),
            study_uid: None,
            source: url.to_owned(),
        })
    }
}

fn push<T>(rows: &mut Vec<T>, row: Option<T>) {
    if rows.len() < ROWS_MAX {
        rows.extend(row);
    }
}

/// The entries of a section, if the Composition has that section with entries.
fn section_members(shelf: &Shelf<'_>, composition: &Value, code: &str) -> Option<Vec<usize>> {
    let section = resource::list(composition, "section")
        .iter()
        .find(|section| resource::concept(section, "code").has(LOINC, code))?;
    let mut members = Vec::new();
    let mut open: Vec<&Value> = resource::list(section, "entry").iter().collect();
    // A panel stands for its members.
    while let Some(link) = open.pop() {
        let Some(at) = resource::text(link, "reference").and_then(|reference| shelf.number(reference)) else {
            continue;
        };
        if members.contains(&at) || members.len() >= ROWS_MAX {
            continue;
        }
        members.push(at);
        if let Some((_, value)) = shelf.entries.get(at) {
            open.extend(resource::list(value, "hasMember"));
            open.extend(resource::list(value, "result"));
        }
    }
    Some(members)
}

/// The allergy section itself may say that nothing is known (`nilknown`).
fn section_statement(shelf: &Shelf<'_>, composition: &Value) -> Option<Statement> {
    let section = resource::list(composition, "section")
        .iter()
        .find(|section| resource::concept(section, "code").has(LOINC, ips::ALLERGIES))?;
    let what = resource::concept(section, "emptyReason");
    what.has_code("nilknown").then(|| Statement {
        what,
        recorded: resource::text(composition, "date").map(str::to_owned),
        recorder: shelf.recorder(composition, &["author"]),
        source: "section".to_owned(),
    })
}

#[cfg(test)]
mod tests;
