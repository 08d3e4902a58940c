//! From any FHIR JSON input to the patients in it, what belongs to each, and what was refused.
//!
//! The law: one broken part is refused alone, with its place and reason, and the rest goes on. Nothing that belongs
//! to one patient ever reaches another: a resource is given to the patient that its `subject` or `patient` resolves
//! to, and supporting resources (practitioners, organisations, encounters, medications) follow by reference only. A
//! reference that two resources could answer is not guessed. An attachment that has only a URL is never fetched.
//!
//! ```text
//!  bytes -> guard -> Bundle | resource | ndjson -> pool -> resolve -> owners -> PatientIntake
//! ```
//!
//! Several files that belong together (a bulk export has one file per type) go through one [`Importer`].

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::fhir::guard::{self, FhirError, Limits};
use crate::fhir::resource::{self, Coding, PatientFacts, Period, hide};

mod check;
mod documents;
mod pool;

use documents::Shelf;
use pool::{Item, Pool};

/// Largest accepted output of a gzip input, in bytes.
pub const UNPACKED_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Deepest accepted nesting of Bundles in Bundles.
pub const BUNDLE_DEPTH_MAX: usize = 4;
/// Largest number of refused parts that are listed one by one; the rest is counted.
pub const REJECTED_MAX: usize = 10_000;

/// Elements that name the patient of a resource.
const SUBJECTS: [&str; 4] = ["subject", "patient", "beneficiary", "for"];
/// Claims and cover are no clinical record; they are left out on purpose.
const FINANCIAL: [&str; 12] = [
    "Account",
    "ChargeItem",
    "Claim",
    "ClaimResponse",
    "Coverage",
    "CoverageEligibilityRequest",
    "CoverageEligibilityResponse",
    "EnrollmentRequest",
    "ExplanationOfBenefit",
    "Invoice",
    "PaymentNotice",
    "PaymentReconciliation",
];
/// Types that serve patients' resources and belong to nobody.
const SUPPORTING: [&str; 13] = [
    "Binary",
    "Device",
    "Endpoint",
    "HealthcareService",
    "Location",
    "Medication",
    "Organization",
    "OrganizationAffiliation",
    "Practitioner",
    "PractitionerRole",
    "Substance",
    "Specimen",
    "Provenance",
];

/// The result of an import.
#[derive(Debug, Default)]
pub struct Intake {
    /// One entry per patient.
    pub patients: Vec<PatientIntake>,
    /// Parts that were refused, each with place and reason.
    pub rejected: Vec<Rejected>,
    /// Parts that are sound but no patient's clinical record, counted by type and reason.
    pub ignored: Vec<Ignored>,
}

/// One refused part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Input name as given by the caller, line or entry number and resource type.
    pub place: String,
    /// What is wrong and what to do.
    pub reason: String,
}

/// Sound parts that were left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ignored {
    /// Resource type.
    pub kind: String,
    /// Why.
    pub reason: &'static str,
    /// How many.
    pub count: usize,
}

/// One patient and everything that belongs to them.
pub struct PatientIntake {
    /// The Patient resource; its `id` and all references among `resources` are relative (`Type/id`).
    pub patient: Value,
    /// The same, read.
    pub facts: PatientFacts,
    /// Clinical resources and what they refer to, without the patient and the documents' bytes.
    pub resources: Vec<Value>,
    /// Documents with their bytes.
    pub documents: Vec<DocumentIntake>,
    /// Imaging studies that the input describes.
    pub imaging: Vec<ImagingStudyIntake>,
}

/// One document, as its DocumentReference, Composition or report describes it.
#[derive(Clone, PartialEq, Eq)]
pub struct DocumentIntake {
    /// Stable over re-import: 32 hex digits over the document's identifiers, else over patient and resource id.
    pub id: String,
    /// `DocumentReference`, `Composition` or `DiagnosticReport`.
    pub source: &'static str,
    /// FHIR status of the source resource (`current`, `superseded`, `final`, ...).
    pub status: Option<String>,
    /// MIME type.
    pub content_type: String,
    /// The document itself.
    pub bytes: Vec<u8>,
    /// Title for people.
    pub title: Option<String>,
    /// Kind of document (LOINC).
    pub type_: Option<Coding>,
    /// Class of document.
    pub category: Option<Coding>,
    /// Technical format.
    pub format: Option<Coding>,
    /// Creation, FHIR date or dateTime.
    pub created: Option<String>,
    /// The service period that it documents.
    pub period: Period,
    /// Author as one line.
    pub author: Option<String>,
    /// Confidentiality and sensitivity codings.
    pub security_labels: Vec<Coding>,
    /// Kind of facility.
    pub facility_type: Option<Coding>,
    /// Practice setting.
    pub practice_setting: Option<Coding>,
    /// BCP 47 language.
    pub language: Option<String>,
}

/// One imaging study as an ImagingStudy resource describes it.
#[derive(Clone, PartialEq, Eq)]
pub struct ImagingStudyIntake {
    /// Study Instance UID.
    pub study_uid: String,
    /// FHIR dateTime.
    pub started: Option<String>,
    /// DICOM modality codes.
    pub modalities: Vec<String>,
    /// Words for people.
    pub description: Option<String>,
    /// Number of series.
    pub series_count: u64,
    /// Number of instances.
    pub instance_count: u64,
    /// Confidentiality and sensitivity codings.
    pub security_labels: Vec<Coding>,
}

hide!(PatientIntake, DocumentIntake, ImagingStudyIntake);

/// Imports one input: JSON (any Bundle or a single resource) or ndjson, plain or gzip.
pub fn import(bytes: &[u8], limits: &Limits) -> Result<Intake, FhirError> {
    let mut importer = Importer::new(limits.clone());
    importer.add("input", bytes)?;
    Ok(importer.finish())
}

/// Collects inputs that belong together, then sorts them by patient.
pub struct Importer {
    limits: Limits,
    pool: Pool,
    refusals: Refusals,
    scopes: usize,
}

impl Importer {
    /// An empty importer; `limits` bind each JSON value (a file, or a line of ndjson).
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            pool: Pool::default(),
            refusals: Refusals::default(),
            scopes: 0,
        }
    }

    /// Adds one input. `place` names it in refusals (it must hold no personal data if the caller prints them).
    ///
    /// An error means that nothing of this input could be read; broken parts are listed by [`Importer::finish`].
    pub fn add(&mut self, place: &str, bytes: &[u8]) -> Result<(), FhirError> {
        let unpacked;
        let bytes = if guard::is_gzip(bytes) {
            unpacked = guard::gunzip(bytes, UNPACKED_BYTES_MAX)?;
            unpacked.as_slice()
        } else {
            bytes
        };
        match guard::parse(bytes, &self.limits) {
            Ok(value) => {
                self.scopes = self.scopes.saturating_add(1);
                let raw = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
                self.take(value, place, Some(raw), self.scopes, 0);
                Ok(())
            }
            Err(error) => self.add_lines(place, bytes, error),
        }
    }

    /// Sorts everything added by patient.
    pub fn finish(self) -> Intake {
        let Self {
            mut pool, mut refusals, ..
        } = self;
        pool.link();
        let patients = pool.patients(&mut refusals);
        let owners = owners(&pool, &patients, &mut refusals);
        let mut shelf = Shelf::default();
        let mut intake = Intake::default();
        let mut used = BTreeSet::new();
        for patient in patients {
            let members = members(&pool, &owners, patient);
            used.extend(members.iter().copied());
            intake
                .patients
                .push(gather(&pool, patient, &members, &mut shelf, &mut refusals));
        }
        for (at, item) in pool.items.iter().enumerate() {
            if SUPPORTING.contains(&item.kind.as_str()) && !used.contains(&at) {
                refusals.ignore(&item.kind, "no patient's resource refers to it");
            }
        }
        intake.rejected = refusals.rejected;
        intake.ignored = refusals
            .ignored
            .into_iter()
            .map(|((kind, reason), count)| Ignored { kind, reason, count })
            .collect();
        intake
    }

    fn add_lines(&mut self, place: &str, bytes: &[u8], whole: FhirError) -> Result<(), FhirError> {
        let is_resource = |line: Result<Value, FhirError>| line.is_ok_and(|value| resource::kind(&value).is_some());
        let mut lines = guard::lines(bytes).filter(|(_, line)| line.starts_with(b"{") && line.ends_with(b"}"));
        if !lines.any(|(_, line)| is_resource(guard::parse(line, &self.limits))) {
            return Err(whole);
        }
        self.scopes = self.scopes.saturating_add(1);
        let scope = self.scopes;
        for (number, line) in guard::lines(bytes) {
            let place = format!("{place}, line {number}");
            match guard::parse(line, &self.limits) {
                Ok(value) => self.take(value, &place, Some(line), scope, 0),
                Err(error) => self.refusals.reject(place, error.to_string()),
            }
        }
        Ok(())
    }

    fn take(&mut self, value: Value, place: &str, raw: Option<&[u8]>, scope: usize, depth: usize) {
        match resource::kind(&value) {
            Some("Bundle") => self.take_bundle(value, None, place, raw, depth),
            Some(_) => self.take_resource(value, None, place, scope),
            None => self
                .refusals
                .reject(place.to_owned(), "no FHIR resource: it has no resourceType".to_owned()),
        }
    }

    fn take_bundle(&mut self, mut bundle: Value, url: Option<String>, place: &str, raw: Option<&[u8]>, depth: usize) {
        if depth >= BUNDLE_DEPTH_MAX {
            let reason = format!("Bundles nested deeper than {BUNDLE_DEPTH_MAX}: send the inner Bundle by itself");
            return self.refusals.reject(place.to_owned(), reason);
        }
        self.scopes = self.scopes.saturating_add(1);
        let scope = self.scopes;
        let document = resource::text(&bundle, "type") == Some("document");
        let bytes = document.then(|| raw.map_or_else(|| bundle.to_string().into_bytes(), <[u8]>::to_vec));
        let entries = match bundle.get_mut("entry").map(Value::take) {
            Some(Value::Array(entries)) => entries,
            None => Vec::new(),
            Some(_) => {
                return self.refusals.reject(
                    place.to_owned(),
                    "Bundle.entry is no array: send a valid Bundle".to_owned(),
                );
            }
        };
        if let Some(bytes) = bytes {
            let first = entries.first().map(|entry| resource::at(entry, "resource"));
            if first.and_then(resource::kind) == Some("Composition") {
                self.pool.open_document(bundle, url, bytes, scope);
            } else {
                let reason = "a document Bundle must start with its Composition: its resources are read, the document is not kept";
                self.refusals.reject(place.to_owned(), reason.to_owned());
            }
        }
        for (at, entry) in entries.into_iter().enumerate() {
            self.take_entry(entry, &format!("{place}, entry {}", at.saturating_add(1)), scope, depth);
        }
    }

    fn take_entry(&mut self, mut entry: Value, place: &str, scope: usize, depth: usize) {
        let url = resource::text(&entry, "fullUrl").map(str::to_owned);
        if resource::text(resource::at(&entry, "request"), "method") == Some("DELETE") {
            return self.refusals.reject(
                place.to_owned(),
                "a DELETE entry is not imported: remove the record by its own command".to_owned(),
            );
        }
        let Some(value) = entry.get_mut("resource").map(Value::take) else {
            if entry.is_object() {
                return self.refusals.ignore("Bundle.entry", "an entry without a resource");
            }
            return self
                .refusals
                .reject(place.to_owned(), "a Bundle entry must be an object".to_owned());
        };
        match resource::kind(&value) {
            Some("Bundle") => self.take_bundle(value, url, place, None, depth.saturating_add(1)),
            Some(_) => self.take_resource(value, url, place, scope),
            None => self
                .refusals
                .reject(place.to_owned(), "no FHIR resource: it has no resourceType".to_owned()),
        }
    }

    fn take_resource(&mut self, value: Value, url: Option<String>, place: &str, scope: usize) {
        let kind = resource::kind(&value).unwrap_or_default().to_owned();
        let place = if resource::is_type(&kind) {
            format!("{place} ({kind})")
        } else {
            place.to_owned()
        };
        if let Err(reason) = check::shape(&value) {
            return self.refusals.reject(place, reason);
        }
        if FINANCIAL.contains(&kind.as_str()) {
            return self.refusals.ignore(&kind, "claims and cover are no clinical record");
        }
        if let Err(reason) = self.pool.push(value, kind, url, place.clone(), scope) {
            self.refusals.reject(place, reason);
        }
    }
}

/// Refused and left-out parts, bounded.
#[derive(Default)]
struct Refusals {
    rejected: Vec<Rejected>,
    ignored: BTreeMap<(String, &'static str), usize>,
}

impl Refusals {
    fn reject(&mut self, place: String, reason: String) {
        if self.rejected.len() < REJECTED_MAX {
            self.rejected.push(Rejected { place, reason });
        } else {
            self.ignore("any", "refused beyond the listed 10000");
        }
    }

    fn ignore(&mut self, kind: &str, reason: &'static str) {
        let kind = if resource::is_type(kind) || kind.contains("entry") {
            kind
        } else {
            "any"
        };
        let count = self.ignored.entry((kind.to_owned(), reason)).or_default();
        *count = count.saturating_add(1);
    }
}

/// The patient (as item number) of each item that has one.
fn owners(pool: &Pool, patients: &[usize], refusals: &mut Refusals) -> Vec<Option<usize>> {
    let known: BTreeSet<usize> = patients.iter().copied().collect();
    let mut owners = Vec::with_capacity(pool.items.len());
    for item in &pool.items {
        owners.push(owner(pool, item, &known, refusals));
    }
    // A Provenance names what it is about, not whose it is: it follows its targets when they agree.
    let provenance: Vec<(usize, Option<usize>)> = pool
        .items
        .iter()
        .enumerate()
        .filter(|(_, item)| item.kind == "Provenance")
        .map(|(at, item)| {
            let of: BTreeSet<Option<usize>> = item
                .targets
                .iter()
                .filter_map(|target| {
                    if known.contains(target) {
                        Some(Some(*target))
                    } else {
                        owners.get(*target).copied()
                    }
                })
                .filter(Option::is_some)
                .collect();
            (
                at,
                if of.len() == 1 {
                    of.into_iter().next().flatten()
                } else {
                    None
                },
            )
        })
        .collect();
    for (at, owner) in provenance {
        if let Some(slot) = owners.get_mut(at) {
            *slot = owner;
        }
    }
    owners
}

fn owner(pool: &Pool, item: &Item, known: &BTreeSet<usize>, refusals: &mut Refusals) -> Option<usize> {
    if item.kind == "Patient" {
        return None;
    }
    if let Some(subject) = item.subject {
        if known.contains(&subject) {
            return Some(subject);
        }
        let patient = pool.items.get(subject).is_some_and(|item| item.kind == "Patient");
        if patient {
            refusals.reject(
                item.place.clone(),
                "its patient was refused: correct the Patient and import again".to_owned(),
            );
        } else {
            refusals.ignore(&item.kind, "its subject is no patient");
        }
        return None;
    }
    if item.has_subject && !SUPPORTING.contains(&item.kind.as_str()) {
        let reason = "its patient is not in the input, or not uniquely: send the Patient resource along with it";
        refusals.reject(item.place.clone(), reason.to_owned());
    } else if !SUPPORTING.contains(&item.kind.as_str()) {
        refusals.ignore(&item.kind, "it is about no patient");
    }
    None
}

/// The patient's own items and all that they refer to, never another patient's.
fn members(pool: &Pool, owners: &[Option<usize>], patient: usize) -> BTreeSet<usize> {
    let mut members: BTreeSet<usize> = owners
        .iter()
        .enumerate()
        .filter(|(_, owner)| **owner == Some(patient))
        .map(|(at, _)| at)
        .collect();
    let mut open: Vec<usize> = members.iter().copied().chain([patient]).collect();
    while let Some(at) = open.pop() {
        for target in pool
            .items
            .get(at)
            .map(|item| item.targets.as_slice())
            .unwrap_or_default()
        {
            let free = owners.get(*target).copied().flatten().is_none();
            let supporting = pool
                .items
                .get(*target)
                .is_some_and(|item| SUPPORTING.contains(&item.kind.as_str()));
            if free && supporting && members.insert(*target) {
                open.push(*target);
            }
        }
    }
    members
}

fn gather(
    pool: &Pool,
    patient: usize,
    members: &BTreeSet<usize>,
    shelf: &mut Shelf,
    refusals: &mut Refusals,
) -> PatientIntake {
    let value = pool
        .items
        .get(patient)
        .map(|item| item.value.clone())
        .unwrap_or_default();
    let facts = PatientFacts::read(&value);
    let mut intake = PatientIntake {
        patient: value,
        facts,
        resources: Vec::new(),
        documents: Vec::new(),
        imaging: Vec::new(),
    };
    shelf.open(&intake.patient, &intake.facts);
    for item in members.iter().filter_map(|at| pool.items.get(*at)) {
        documents::collect(pool, item, shelf, &mut intake, refusals);
        if item.kind != "Binary" {
            intake.resources.push(documents::without_data(&item.value));
        }
    }
    intake
}

#[cfg(test)]
mod tests;
