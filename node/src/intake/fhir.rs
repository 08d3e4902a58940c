//! FHIR in: Bundles, resources and ndjson become patients with documents, clinical resources and one summary.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use hie_gateway_dialect::fhir::guard::Limits;
use hie_gateway_dialect::fhir::import::{DocumentIntake, ImagingStudyIntake, Importer, PatientIntake};
use hie_gateway_dialect::fhir::resource::{ACT_CODE, CONFIDENTIALITY, Coding as FhirCoding, PatientFacts};
use hie_node_core::ids::PatientKey;
use hie_node_core::record::publish::{Body, COMMIT_DOCUMENTS_MAX, Intake, NewDocument, Occasion};
use hie_protocol::id::{DocumentId, OrgId};
use hie_protocol::message::{Coding, Demographics, DocumentMeta, PersonAddress, PersonIdentifier, PersonName};
use hie_protocol::record::ImagingSummary;
use hie_protocol::vocabulary::{Confidentiality, DocumentClass, Sensitivity};
use serde_json::{Value, json};

use super::{Tally, files, is_fhir_name};
use crate::alarm::Alarm;
use crate::fault::{Exit, Fault, Outcome};
use crate::moment::read_fhir;
use crate::order::Lines;

/// Clinical resources of one commit.
pub const RESOURCES_PER_COMMIT: usize = 400;

/// What one commit takes: documents, and clinical resources by their names.
type Package = (Vec<NewDocument>, Vec<(String, Value)>);

/// What the intake of FHIR needs.
#[derive(Clone)]
pub struct FhirIntake {
    /// Raised when the store fails.
    pub alarm: Alarm,
    /// The records.
    pub intake: Arc<Intake>,
    /// This organisation.
    pub organisation: OrgId,
    /// Its name, for the summary's title.
    pub name: String,
}

/// Demographics as the matching and the wire have them.
#[must_use]
pub fn demographics(facts: &PatientFacts) -> Demographics {
    let some = |texts: &[String]| Some(texts.join(" ")).filter(|text| !text.is_empty());
    let name = |name: &hie_gateway_dialect::fhir::resource::NameFacts| {
        let family = name.family.clone().or_else(|| name.text.clone())?;
        Some(PersonName {
            family,
            given: name.given.clone(),
            prefix: some(&name.prefix),
            suffix: some(&name.suffix),
        })
    };
    Demographics {
        names: facts.names.iter().filter_map(name).collect(),
        birth_date: facts.birth_date.clone(),
        sex: facts.sex.clone(),
        identifiers: facts
            .identifiers
            .iter()
            .map(|identifier| PersonIdentifier {
                system: identifier.system.clone(),
                value: identifier.value.clone(),
            })
            .collect(),
        addresses: facts
            .addresses
            .iter()
            .map(|address| PersonAddress {
                lines: address.lines.clone(),
                city: address.city.clone(),
                state: address.state.clone(),
                postal_code: address.postal_code.clone(),
            })
            .collect(),
        telecoms: facts.telecoms.iter().map(|telecom| telecom.value.clone()).collect(),
    }
}

/// Imports every FHIR file below a path. Files of one folder that are ndjson belong together (a bulk export).
pub async fn import(
    this: &FhirIntake,
    path: &Path,
    dry_run: bool,
    occasion: &Occasion,
    lines: &Lines,
) -> Outcome<Exit> {
    let found: Vec<_> = files(path)?.into_iter().filter(|file| is_fhir_name(file)).collect();
    if found.is_empty() {
        return Err(Fault::new(
            Exit::Usage,
            format!("{} holds no FHIR files.", path.display()),
            "their names end in .json, .ndjson, or the same with .gz",
            "Check the path.",
        ));
    }
    let mut tally = Tally::default();
    let bulk = |file: &Path| file.to_string_lossy().contains(".ndjson");
    let mut groups: Vec<Vec<std::path::PathBuf>> = Vec::new();
    for file in found {
        match groups.last_mut() {
            Some(group)
                if bulk(&file)
                    && group
                        .last()
                        .is_some_and(|last| bulk(last) && last.parent() == file.parent()) =>
            {
                group.push(file)
            }
            _ => groups.push(vec![file]),
        }
    }
    let total = groups.len() as u64;
    for (done, group) in groups.into_iter().enumerate() {
        lines.progress(done as u64, total, "").await;
        one_group(this, &group, dry_run, occasion, lines, &mut tally).await?;
    }
    lines.progress(total, total, "").await;
    Ok(tally.close(lines).await)
}

async fn one_group(
    this: &FhirIntake,
    group: &[std::path::PathBuf],
    dry_run: bool,
    occasion: &Occasion,
    lines: &Lines,
    tally: &mut Tally,
) -> Outcome<()> {
    let paths = group.to_vec();
    let read = tokio::task::spawn_blocking(move || {
        let mut importer = Importer::new(Limits::default());
        let mut refused = Vec::new();
        for path in &paths {
            let place = path.display().to_string();
            match std::fs::read(path) {
                Ok(bytes) => {
                    if let Err(error) = importer.add(&place, &bytes) {
                        refused.push((place, error.to_string()));
                    }
                }
                Err(error) => refused.push((place, error.to_string())),
            }
        }
        (importer.finish(), refused)
    });
    let (intake, refused) = read.await.map_err(Fault::because(
        Exit::Failed,
        "The reader of FHIR files failed.",
        "Report this.",
    ))?;
    for (place, reason) in refused {
        tally.reject(place, reason, lines).await;
    }
    for rejected in intake.rejected {
        tally.reject(rejected.place, rejected.reason, lines).await;
    }
    let file = group.first().map(|path| path.display().to_string()).unwrap_or_default();
    for patient in intake.patients {
        if dry_run {
            tally.patients = tally.patients.saturating_add(1);
            continue;
        }
        if let Err(reason) = one_patient(this, patient, occasion, lines, tally).await? {
            tally.reject(file.clone(), reason, lines).await;
        }
    }
    Ok(())
}

/// Stores one patient; a refusal of this patient is the inner error, a failure of the store the outer.
async fn one_patient(
    this: &FhirIntake,
    patient: PatientIntake,
    occasion: &Occasion,
    lines: &Lines,
    tally: &mut Tally,
) -> Outcome<Result<(), String>> {
    let who = demographics(&patient.facts);
    let id = patient.patient.get("id").and_then(Value::as_str).unwrap_or_default();
    let source = format!("fhir|{id}");
    let (intake, value, asked, at) = (
        Arc::clone(&this.intake),
        patient.patient.clone(),
        who.clone(),
        occasion.clone(),
    );
    let registered = tokio::task::spawn_blocking(move || intake.patient(&source, &value, &asked, &at));
    let registered = registered
        .await
        .map_err(Fault::because(Exit::Failed, "Storing failed.", "Report this."))?;
    let key = match registered {
        Ok(registered) => registered.patient,
        Err(error) => return refusal_or_failure(&this.alarm, &error),
    };
    tally.patients = tally.patients.saturating_add(1);
    let name = who.names.first();
    let identifiers: Vec<String> = who
        .identifiers
        .iter()
        .map(|one| format!("{}|{}", one.system, one.value))
        .collect();
    let shown = json!({ "patient": {
        "id": key.to_hex(), "family": name.map(|name| name.family.clone()), "given": name.and_then(|name| name.given.first().cloned()),
        "birth_date": who.birth_date, "sex": who.sex, "identifiers": identifiers,
    }});
    lines.data(format!("patient   {}", key.to_hex()), shown).await;
    let mut documents: Vec<NewDocument> = vec![this.summary(key)];
    documents.extend(patient.documents.into_iter().map(self::document));
    documents.extend(patient.imaging.iter().map(imaging));
    let resources: Vec<(String, Value)> = patient.resources.into_iter().filter_map(named).collect();
    let mut packages: Vec<Package> = Vec::new();
    for chunk in resources.chunks(RESOURCES_PER_COMMIT) {
        packages.push((Vec::new(), chunk.to_vec()));
    }
    for chunk in documents.chunks(COMMIT_DOCUMENTS_MAX) {
        packages.push((chunk.to_vec(), Vec::new()));
    }
    for (documents, resources) in packages {
        match this.intake.documents(key, documents, resources, occasion).await {
            Ok(taken) => {
                for one in taken {
                    let count = if one.changed {
                        &mut tally.documents
                    } else {
                        &mut tally.unchanged
                    };
                    *count = count.saturating_add(1);
                }
            }
            Err(error) => return refusal_or_failure(&this.alarm, &error),
        }
    }
    Ok(Ok(()))
}

/// A refused part goes to the list; a failed store ends the import, which can be run again.
fn refusal_or_failure<T>(
    alarm: &Alarm,
    error: &hie_node_core::record::publish::IntakeError,
) -> Outcome<Result<T, String>> {
    use hie_protocol::refusal::Class;
    match error.class() {
        Class::Invalid | Class::Refused | Class::Misbehaved => Ok(Err(crate::fault::chain(error))),
        Class::Unavailable | Class::Broken => {
            let why = crate::fault::chain(error);
            alarm.raise(&why);
            let fix = "Mend the store, then run the import again.";
            Err(Fault::new(Exit::Failed, "The store failed.", why, fix))
        }
    }
}

/// A clinical resource under its name at the source.
fn named(resource: Value) -> Option<(String, Value)> {
    let kind = resource.get("resourceType")?.as_str()?;
    let id = resource.get("id")?.as_str()?;
    Some((format!("{kind}/{id}"), resource))
}

fn coding(coding: &FhirCoding) -> Coding {
    Coding {
        system: coding.system.clone(),
        code: coding.code.clone(),
        display: coding.display.clone(),
    }
}

/// Confidentiality, sensitivity, and whether a label is unknown (which denies).
#[must_use]
pub fn labels(labels: &[FhirCoding]) -> (Confidentiality, Vec<Sensitivity>, bool) {
    let mut confidentiality = Confidentiality::Normal;
    let mut sensitivity = Vec::new();
    let mut unknown = false;
    for label in labels {
        match label.system.as_str() {
            CONFIDENTIALITY => match Confidentiality::from_code(&label.code) {
                Confidentiality::Unknown => unknown = true,
                known => confidentiality = confidentiality.max(known),
            },
            ACT_CODE if label.code == "42CFRPart2" => sensitivity.push(Sensitivity::SubstanceUse),
            ACT_CODE => match Sensitivity::from_code(&label.code) {
                Sensitivity::Unknown => unknown = true,
                known => sensitivity.push(known),
            },
            _ => unknown = true,
        }
    }
    sensitivity.sort();
    sensitivity.dedup();
    (confidentiality, sensitivity, unknown)
}

/// The class of a document by its type: reports and notes are told apart by their LOINC class where it is sure.
fn class_of(document: &DocumentIntake) -> DocumentClass {
    if document.source == "DiagnosticReport" {
        return DocumentClass::Report;
    }
    let code = document.type_.as_ref().map_or("", |coding| coding.code.as_str());
    match code {
        "60591-5" => DocumentClass::Summary,
        "11502-2" | "18748-4" | "11526-1" | "18725-2" => DocumentClass::Report,
        "11506-3" | "18842-5" | "34117-2" | "34133-9" | "11488-4" | "28570-0" | "34111-5" => DocumentClass::Note,
        _ => DocumentClass::Other,
    }
}

fn document(document: DocumentIntake) -> NewDocument {
    let (confidentiality, sensitivity, unknown_labels) = labels(&document.security_labels);
    let moment = |text: &Option<String>| text.as_deref().and_then(read_fhir);
    let period = match (moment(&document.period.start), moment(&document.period.end)) {
        (Some(start), Some(end)) => Some((start, end)),
        (Some(start), None) => Some((start, start)),
        _ => None,
    };
    let class = class_of(&document);
    let title = document
        .title
        .clone()
        .or_else(|| document.type_.as_ref().and_then(|coding| coding.display.clone()));
    let meta = DocumentMeta {
        id: DocumentId::new([0; 16]),
        class,
        kind: document.type_.as_ref().map(coding),
        category: document.category.as_ref().map(coding),
        format: document.format.as_ref().map(coding),
        title: title.unwrap_or_else(|| "Document without title".to_owned()),
        author: document.author.clone(),
        content_type: document.content_type.clone(),
        created: moment(&document.created),
        period,
        size: None,
        hash: None,
        confidentiality,
        sensitivity,
        imaging: None,
    };
    let gone = matches!(
        document.status.as_deref(),
        Some("superseded" | "entered-in-error" | "cancelled")
    );
    NewDocument {
        source: format!("document|{}", document.id),
        meta,
        body: Body::Bytes(Bytes::from(document.bytes)),
        superseded: gone,
        unknown_labels,
        author_org: None,
        authors: document.author.into_iter().collect(),
    }
}

/// The name under which the description of a study is stored.
#[must_use]
pub fn imaging_source(study_uid: &str) -> String {
    format!("imaging-study|{}", study_uid.trim_start_matches("urn:oid:"))
}

/// An ImagingStudy whose images are elsewhere or follow: a document that describes it.
fn imaging(study: &ImagingStudyIntake) -> NewDocument {
    let (confidentiality, sensitivity, unknown_labels) = labels(&study.security_labels);
    let created = study.started.as_deref().and_then(read_fhir);
    let count = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
    let uid = study.study_uid.trim_start_matches("urn:oid:").to_owned();
    let description = json!({
        "resourceType": "ImagingStudy", "status": "available",
        "identifier": [{ "system": "urn:dicom:uid", "value": format!("urn:oid:{uid}") }],
        "started": study.started, "description": study.description,
        "modality": study.modalities.iter().map(|code| json!({ "system": "http://dicom.nema.org/resources/ontology/DCM", "code": code })).collect::<Vec<_>>(),
        "numberOfSeries": study.series_count, "numberOfInstances": study.instance_count,
    });
    let meta = DocumentMeta {
        id: DocumentId::new([0; 16]),
        class: DocumentClass::Imaging,
        kind: Some(Coding {
            system: "http://loinc.org".into(),
            code: "18748-4".into(),
            display: Some("Diagnostic imaging study".into()),
        }),
        category: None,
        format: None,
        title: study
            .description
            .clone()
            .unwrap_or_else(|| format!("Imaging study ({})", study.modalities.join(", "))),
        author: None,
        content_type: "application/fhir+json".to_owned(),
        created,
        period: created.map(|at| (at, at)),
        size: None,
        hash: None,
        confidentiality,
        sensitivity,
        imaging: Some(ImagingSummary {
            study_uid: uid.clone(),
            modalities: study.modalities.clone(),
            body_part: None,
            series: count(study.series_count),
            instances: 0,
        }),
    };
    NewDocument {
        source: imaging_source(&uid),
        meta,
        body: Body::Bytes(Bytes::from(description.to_string())),
        superseded: false,
        unknown_labels,
        author_org: None,
        authors: Vec::new(),
    }
}

impl FhirIntake {
    /// The patient's on-demand summary.
    fn summary(&self, patient: PatientKey) -> NewDocument {
        let meta = DocumentMeta {
            id: DocumentId::new([0; 16]),
            class: DocumentClass::Summary,
            kind: Some(Coding {
                system: "http://loinc.org".into(),
                code: "60591-5".into(),
                display: Some("Patient summary Document".into()),
            }),
            category: None,
            format: Some(Coding {
                system: "http://ihe.net/fhir/ihe.formatcode.fhir/CodeSystem/formatcode".into(),
                code: "urn:ihe:pcc:ips:2020".into(),
                display: None,
            }),
            title: format!("Patient summary, {}", self.name),
            author: Some(self.name.clone()),
            content_type: "application/fhir+json".to_owned(),
            created: None,
            period: None,
            size: None,
            hash: None,
            confidentiality: Confidentiality::Normal,
            sensitivity: Vec::new(),
            imaging: None,
        };
        NewDocument {
            source: format!("summary|{}", patient.to_hex()),
            meta,
            body: Body::OnDemand,
            superseded: false,
            unknown_labels: false,
            author_org: Some(self.organisation.clone()),
            authors: Vec::new(),
        }
    }
}
