//! Which resources are documents, and what a document says of itself.
//!
//! Three kinds carry one: a DocumentReference with inline data or with a Binary (or document Bundle) of the same
//! input, a Composition that opens a document Bundle (the Bundle's own bytes are the document), and a
//! DiagnosticReport with a presented form. Identifiers are stable over re-import.

use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::fhir::import::pool::{BundleDocument, Item, Pool, name_of};
use crate::fhir::import::{DocumentIntake, ImagingStudyIntake, PatientIntake, Refusals};
use crate::fhir::resource::{self, Coding, PatientFacts, Period};

/// Longest DICOM UID (PS3.5 section 9).
const UID_MAX: usize = 64;
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Which documents the current patient already has.
#[derive(Default)]
pub struct Shelf {
    person: String,
    ids: BTreeSet<String>,
}

impl Shelf {
    /// Starts a patient: resource ids are unique only beside the patient's own identifier.
    pub fn open(&mut self, patient: &Value, facts: &PatientFacts) {
        self.person = facts
            .identifiers
            .first()
            .map_or_else(|| name_of(patient), |id| format!("{}|{}", id.system, id.value));
        self.ids.clear();
    }

    fn id(&self, item: &Item, part: usize) -> String {
        let value = &item.value;
        let own = Some(resource::at(value, "masterIdentifier")).filter(|id| id.is_object());
        let own = own.or_else(|| resource::list(value, "identifier").first());
        let key = own.and_then(|id| {
            let value = resource::text(id, "value")?;
            Some(format!("{}|{value}", resource::text(id, "system").unwrap_or_default()))
        });
        let key = key.unwrap_or_else(|| format!("{}|{}", self.person, name_of(value)));
        stable(&format!("{}\n{key}\n{part}", item.kind))
    }
}

fn stable(text: &str) -> String {
    hex::encode(Sha256::digest(text.as_bytes()).get(..16).unwrap_or_default())
}

/// Adds the documents and the imaging study that `item` carries.
pub fn collect(pool: &Pool, item: &Item, shelf: &mut Shelf, intake: &mut PatientIntake, refusals: &mut Refusals) {
    let found: Vec<Result<DocumentIntake, String>> = match item.kind.as_str() {
        "DocumentReference" => from_reference(pool, item, shelf),
        "Composition" => from_composition(pool, item).into_iter().map(Ok).collect(),
        "DiagnosticReport" => from_report(pool, item, shelf),
        "ImagingStudy" => {
            match study(&item.value) {
                Ok(study) => intake.imaging.push(study),
                Err(reason) => refusals.reject(item.place.clone(), reason.to_owned()),
            }
            Vec::new()
        }
        _ => Vec::new(),
    };
    for document in found {
        match document {
            Ok(document) => {
                if shelf.ids.insert(document.id.clone()) {
                    intake.documents.push(document);
                }
            }
            Err(reason) => refusals.reject(item.place.clone(), reason),
        }
    }
}

/// The resource without inline bytes, which live in the document.
pub fn without_data(value: &Value) -> Value {
    let mut value = value.clone();
    let strip = |attachment: Option<&mut Value>| {
        if let Some(map) = attachment.and_then(Value::as_object_mut) {
            map.remove("data");
        }
    };
    match resource::kind(&value) {
        Some("DocumentReference") => {
            for content in value
                .get_mut("content")
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                strip(content.get_mut("attachment"));
            }
        }
        Some("DiagnosticReport") => {
            for form in value
                .get_mut("presentedForm")
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                strip(Some(form));
            }
        }
        _ => {}
    }
    value
}

fn from_reference(pool: &Pool, item: &Item, shelf: &Shelf) -> Vec<Result<DocumentIntake, String>> {
    let value = &item.value;
    let status = resource::text(value, "status");
    if status == Some("entered-in-error") {
        return vec![Err(
            "the DocumentReference is marked entered-in-error: it is not kept".to_owned()
        )];
    }
    let contents = resource::list(value, "content");
    if contents.is_empty() {
        return vec![Err(
            "the DocumentReference has no content: add the attachment".to_owned()
        )];
    }
    let context = resource::at(value, "context");
    let mut labels = resource::codings(value, "securityLabel");
    labels.extend(security(value));
    let read = |(part, content): (usize, &Value)| {
        let attachment = resource::at(content, "attachment");
        let (bytes, content_type) = attached(pool, item, attachment)?;
        let created = resource::text(attachment, "creation").or_else(|| resource::text(value, "date"));
        let title = resource::text(attachment, "title").or_else(|| resource::text(value, "description"));
        Ok(DocumentIntake {
            id: shelf.id(item, part),
            source: "DocumentReference",
            status: status.map(str::to_owned),
            content_type,
            bytes,
            title: title
                .map(str::to_owned)
                .or_else(|| resource::concept(value, "type").words().map(str::to_owned)),
            type_: resource::codings(value, "type").into_iter().next(),
            category: resource::codings(value, "category").into_iter().next(),
            format: Coding::read(resource::at(content, "format")),
            created: created.map(str::to_owned),
            period: resource::period(context, "period"),
            author: authors(pool, item),
            security_labels: labels.clone(),
            facility_type: resource::codings(context, "facilityType").into_iter().next(),
            practice_setting: resource::codings(context, "practiceSetting").into_iter().next(),
            language: language(attachment, value),
        })
    };
    contents
        .iter()
        .take(resource::ITEMS_MAX)
        .enumerate()
        .map(read)
        .collect()
}

fn from_report(pool: &Pool, item: &Item, shelf: &Shelf) -> Vec<Result<DocumentIntake, String>> {
    let value = &item.value;
    let read = |(part, form): (usize, &Value)| {
        let (bytes, content_type) = attached(pool, item, form)?;
        let words = resource::concept(value, "code");
        let created = resource::text(form, "creation").or_else(|| resource::text(value, "issued"));
        let period = resource::period(value, "effectivePeriod");
        let day = resource::text(value, "effectiveDateTime").map(str::to_owned);
        let author = resource::list(value, "performer")
            .iter()
            .find_map(|who| whose(pool, item, who));
        Ok(DocumentIntake {
            id: shelf.id(item, part),
            source: "DiagnosticReport",
            status: resource::text(value, "status").map(str::to_owned),
            content_type,
            bytes,
            title: resource::text(form, "title")
                .or_else(|| words.words())
                .map(str::to_owned),
            type_: resource::codings(value, "code").into_iter().next(),
            category: resource::codings(value, "category").into_iter().next(),
            format: None,
            created: created.map(str::to_owned),
            period: Period {
                start: period.start.or_else(|| day.clone()),
                end: period.end.or(day),
            },
            author,
            security_labels: security(value),
            facility_type: None,
            practice_setting: None,
            language: language(form, value),
        })
    };
    if resource::text(value, "status") == Some("entered-in-error") {
        return Vec::new();
    }
    resource::list(value, "presentedForm")
        .iter()
        .take(resource::ITEMS_MAX)
        .enumerate()
        .map(read)
        .collect()
}

fn from_composition(pool: &Pool, item: &Item) -> Option<DocumentIntake> {
    let document = pool.documents.iter().find(|document| document.scope == item.scope)?;
    let first = pool
        .items
        .iter()
        .find(|other| other.scope == item.scope && other.kind == "Composition");
    if first.is_none_or(|first| first.place != item.place) {
        return None;
    }
    let referred = document.url.as_deref().is_some_and(|url| {
        pool.items
            .iter()
            .filter(|other| other.kind == "DocumentReference")
            .any(|other| {
                resource::list(&other.value, "content").iter().any(|content| {
                    resource::text(resource::at(content, "attachment"), "url").is_some_and(|link| link == url)
                })
            })
    });
    if referred {
        return None;
    }
    let value = &item.value;
    let mut labels: Vec<Coding> = resource::text(value, "confidentiality")
        .map(|code| Coding {
            system: resource::CONFIDENTIALITY.to_owned(),
            code: code.to_owned(),
            display: None,
        })
        .into_iter()
        .collect();
    labels.extend(security(value));
    labels.extend(security(&document.bundle));
    let event = resource::list(value, "event").first();
    Some(DocumentIntake {
        id: bundle_id(document, item),
        source: "Composition",
        status: resource::text(value, "status").map(str::to_owned),
        content_type: "application/fhir+json".to_owned(),
        bytes: document.bytes.clone(),
        title: resource::text(value, "title").map(str::to_owned),
        type_: resource::codings(value, "type").into_iter().next(),
        category: resource::codings(value, "category").into_iter().next(),
        format: None,
        created: resource::text(value, "date")
            .or_else(|| resource::text(&document.bundle, "timestamp"))
            .map(str::to_owned),
        period: event.map(|event| resource::period(event, "period")).unwrap_or_default(),
        author: authors(pool, item),
        security_labels: labels,
        facility_type: None,
        practice_setting: None,
        language: resource::text(value, "language").map(str::to_owned),
    })
}

/// A document Bundle is named by its identifier, which is globally unique by rule (R4 documents, section 2.4).
fn bundle_id(document: &BundleDocument, item: &Item) -> String {
    let identifier = resource::at(&document.bundle, "identifier");
    let key = match resource::text(identifier, "value") {
        Some(value) => format!("{}|{value}", resource::text(identifier, "system").unwrap_or_default()),
        None => hex::encode(Sha256::digest(&document.bytes)),
    };
    stable(&format!("{}\n{key}\n0", item.kind))
}

/// The bytes of an attachment: its own, or those of a Binary or document Bundle in the same input.
fn attached(pool: &Pool, item: &Item, attachment: &Value) -> Result<(Vec<u8>, String), String> {
    let stated = resource::text(attachment, "contentType");
    let pair = |bytes: Vec<u8>, kind: Option<&str>| {
        if bytes.is_empty() {
            return Err("the attachment is empty: send its data".to_owned());
        }
        Ok((bytes, kind.or(stated).unwrap_or("application/octet-stream").to_owned()))
    };
    if let Some(data) = attachment.get("data") {
        return pair(decode(data)?, stated);
    }
    let Some(url) = resource::text(attachment, "url") else {
        return Err("the attachment has neither data nor url: send its data".to_owned());
    };
    if let Some(document) = pool
        .documents
        .iter()
        .find(|document| document.url.as_deref() == Some(url))
    {
        return pair(document.bytes.clone(), stated.or(Some("application/fhir+json")));
    }
    let binary = pool
        .resolve(item.scope, url)
        .and_then(|at| pool.items.get(at))
        .filter(|target| target.kind == "Binary");
    match binary {
        Some(binary) => pair(
            decode(resource::at(&binary.value, "data"))?,
            resource::text(&binary.value, "contentType"),
        ),
        None => {
            Err("the attachment has only a URL, which is never fetched: send its data inline or as a Binary".to_owned())
        }
    }
}

fn decode(data: &Value) -> Result<Vec<u8>, String> {
    let text = data.as_str().ok_or("the attachment's data is no text: send base64")?;
    let compact: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    BASE64
        .decode(compact)
        .map_err(|_| "the attachment's data is no valid base64: encode it again".to_owned())
}

fn authors(pool: &Pool, item: &Item) -> Option<String> {
    let names: Vec<String> = resource::list(&item.value, "author")
        .iter()
        .take(8)
        .filter_map(|who| whose(pool, item, who))
        .collect();
    (!names.is_empty()).then(|| names.join(", "))
}

fn whose(pool: &Pool, item: &Item, who: &Value) -> Option<String> {
    if let Some(display) = resource::text(who, "display") {
        return Some(display.to_owned());
    }
    let reference = resource::text(who, "reference")?;
    if let Some(local) = reference.strip_prefix('#') {
        let contained = resource::list(&item.value, "contained");
        return contained
            .iter()
            .find(|one| resource::text(one, "id") == Some(local))
            .and_then(resource::person_name);
    }
    let target = pool.items.get(pool.resolve(item.scope, reference)?)?;
    if target.kind == "PractitionerRole" {
        return whose(pool, target, resource::at(&target.value, "practitioner"));
    }
    resource::person_name(&target.value)
}

fn security(value: &Value) -> Vec<Coding> {
    resource::coding_list(resource::at(value, "meta"), "security")
}

fn language(attachment: &Value, value: &Value) -> Option<String> {
    resource::text(attachment, "language")
        .or_else(|| resource::text(value, "language"))
        .map(str::to_owned)
}

fn study(value: &Value) -> Result<ImagingStudyIntake, &'static str> {
    let uid = resource::list(value, "identifier").iter().find_map(|identifier| {
        let uid = resource::text(identifier, "value")?;
        let uid = uid.strip_prefix("urn:oid:").unwrap_or(uid);
        let dicom = matches!(
            resource::text(identifier, "system"),
            Some("urn:dicom:uid" | "urn:ietf:rfc:3986")
        );
        (dicom && is_uid(uid)).then(|| uid.to_owned())
    });
    let study_uid = uid.ok_or("the ImagingStudy has no Study Instance UID (system urn:dicom:uid): add it")?;
    let series = resource::list(value, "series");
    let mut modalities: Vec<String> = resource::coding_list(value, "modality")
        .into_iter()
        .map(|coding| coding.code)
        .collect();
    modalities.extend(
        series
            .iter()
            .filter_map(|one| Coding::read(resource::at(one, "modality")))
            .map(|coding| coding.code),
    );
    modalities.sort();
    modalities.dedup();
    let number = |value: &Value, key: &str| value.get(key).and_then(Value::as_u64);
    let instances = series.iter().map(|one| {
        number(one, "numberOfInstances").unwrap_or(u64::try_from(resource::list(one, "instance").len()).unwrap_or(0))
    });
    let words = resource::list(value, "procedureCode")
        .iter()
        .find_map(|code| resource::Concept::read(code).words().map(str::to_owned));
    let title = series
        .iter()
        .flat_map(|one| resource::list(one, "instance"))
        .find_map(|one| resource::text(one, "title"));
    Ok(ImagingStudyIntake {
        study_uid,
        started: resource::text(value, "started").map(str::to_owned),
        modalities,
        description: resource::text(value, "description")
            .map(str::to_owned)
            .or(words)
            .or_else(|| title.map(str::to_owned)),
        series_count: number(value, "numberOfSeries").unwrap_or(u64::try_from(series.len()).unwrap_or(0)),
        instance_count: number(value, "numberOfInstances").unwrap_or_else(|| instances.fold(0, u64::saturating_add)),
        security_labels: security(value),
    })
}

/// DICOM UID: digits and dots, at most 64 (PS3.5 section 9.1).
fn is_uid(uid: &str) -> bool {
    (1..=UID_MAX).contains(&uid.len())
        && uid
            .split('.')
            .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
}
