//! A document as a FHIR R4 DocumentReference (MHD 4.2, Minimal Metadata with UnContained Reference).
//!
//! The law: it says what the custodian said and nothing more. FHIR's `attachment.hash` is SHA-1; custodians
//! state SHA-256, so `hash` is absent and the SHA-256 stands in an extension as an RFC 6920 name.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hie_protocol::id::DocumentId;
use hie_protocol::message::Coding;
use hie_protocol::vocabulary::Confidentiality;
use serde_json::{Map, Value, json};

use crate::fhir::bundle::instant;
use crate::fhir::parameters::escape;
use crate::ports::DocumentCard;

/// MHD's extension for the community that holds a document.
pub const HOME_COMMUNITY: &str = "https://profiles.ihe.net/ITI/MHD/StructureDefinition/ihe-homeCommunityId";
/// Extension of an attachment: the name of its content, `ni:///sha-256;...` (RFC 6920).
pub const CONTENT_NAME: &str = "urn:hie:fhir:attachment-content-name";
/// System of identifiers that are URIs.
pub const URI: &str = "urn:ietf:rfc:3986";
/// HL7 v3 confidentiality codes.
pub const CONFIDENTIALITY: &str = "http://terminology.hl7.org/CodeSystem/v3-Confidentiality";
/// HL7 v3 ActCode: sensitivity codes.
pub const ACT_CODE: &str = "http://terminology.hl7.org/CodeSystem/v3-ActCode";

/// A DocumentReference; `subject` as this node may name the patient.
#[must_use]
pub fn resource(card: &DocumentCard, subject: Value, base: &str) -> Value {
    let meta = &card.meta;
    let mut map = Map::new();
    let mut put = |key: &str, value: Value| map.insert(key.to_owned(), value);
    put("resourceType", "DocumentReference".into());
    put("id", card.reference.0.clone().into());
    put(
        "extension",
        json!([{ "url": HOME_COMMUNITY, "valueIdentifier": { "system": URI, "value": card.org.as_str() } }]),
    );
    put(
        "masterIdentifier",
        json!({ "system": URI, "value": uuid_urn(&meta.id) }),
    );
    put("status", "current".into());
    if let Some(kind) = &meta.kind {
        put("type", json!({ "coding": [coding(kind)] }));
    }
    if let Some(category) = &meta.category {
        put("category", json!([{ "coding": [coding(category)] }]));
    }
    put("subject", subject);
    if let Some(created) = meta.created {
        put("date", instant(created).into());
    }
    if let Some(author) = meta.author.as_ref().filter(|author| !author.trim().is_empty()) {
        put("author", json!([{ "display": author }]));
    }
    put(
        "custodian",
        json!({ "type": "Organization", "identifier": { "system": URI, "value": card.org.as_str() }, "display": card.org_name }),
    );
    put("securityLabel", security_labels(card));
    let mut content = json!({ "attachment": attachment(card, base) });
    if let (Some(format), Some(content)) = (&meta.format, content.as_object_mut()) {
        content.insert("format".to_owned(), coding(format));
    }
    put("content", json!([content]));
    let mut context = Map::new();
    if let Some((start, end)) = meta.period {
        context.insert(
            "period".to_owned(),
            json!({ "start": instant(start), "end": instant(end) }),
        );
    }
    if let Some(imaging) = &meta.imaging {
        let study = json!({ "type": "ImagingStudy", "identifier": { "system": "urn:dicom:uid", "value": format!("urn:oid:{}", imaging.study_uid) } });
        context.insert("related".to_owned(), json!([study]));
    }
    if !context.is_empty() {
        put("context", context.into());
    }
    Value::Object(map)
}

fn attachment(card: &DocumentCard, base: &str) -> Value {
    let meta = &card.meta;
    let mut map = Map::new();
    if let Some(hash) = &meta.hash {
        let name = format!("ni:///sha-256;{}", URL_SAFE_NO_PAD.encode(hash.as_bytes()));
        map.insert(
            "extension".to_owned(),
            json!([{ "url": CONTENT_NAME, "valueUri": name }]),
        );
    }
    map.insert("contentType".to_owned(), meta.content_type.clone().into());
    map.insert(
        "url".to_owned(),
        format!("{base}/Binary/{}", escape(&card.reference.0)).into(),
    );
    // FHIR R4 has 31 bits for a size; a larger one is left out rather than cut.
    if let Some(size) = meta.size.and_then(|size| i32::try_from(size).ok()) {
        map.insert("size".to_owned(), size.into());
    }
    if !meta.title.trim().is_empty() {
        map.insert("title".to_owned(), meta.title.clone().into());
    }
    if let Some(created) = meta.created {
        map.insert("creation".to_owned(), instant(created).into());
    }
    Value::Object(map)
}

fn security_labels(card: &DocumentCard) -> Value {
    let labels = labels(card).into_iter();
    labels
        .map(|(system, code)| json!({ "coding": [{ "system": system, "code": code }] }))
        .collect::<Vec<_>>()
        .into()
}

/// The document's labels `(system, code)`; a code that this version does not know counts as very restricted.
#[must_use]
pub fn labels(card: &DocumentCard) -> Vec<(&'static str, &'static str)> {
    let confidentiality = match card.meta.confidentiality {
        Confidentiality::Unknown => Confidentiality::VeryRestricted,
        known => known,
    };
    let known = card
        .meta
        .sensitivity
        .iter()
        .filter(|sensitivity| **sensitivity != hie_protocol::vocabulary::Sensitivity::Unknown);
    let sensitivity = known.map(|sensitivity| (ACT_CODE, sensitivity.code()));
    core::iter::once((CONFIDENTIALITY, confidentiality.code()))
        .chain(sensitivity)
        .collect()
}

fn coding(coding: &Coding) -> Value {
    let mut map = Map::new();
    if !coding.system.is_empty() {
        map.insert("system".to_owned(), coding.system.clone().into());
    }
    map.insert("code".to_owned(), coding.code.clone().into());
    if let Some(display) = &coding.display {
        map.insert("display".to_owned(), display.clone().into());
    }
    Value::Object(map)
}

/// A document id as `urn:uuid:`.
#[must_use]
pub fn uuid_urn(id: &DocumentId) -> String {
    let hex = id.to_hex();
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    format!(
        "urn:uuid:{}-{}-{}-{}-{}",
        part(0, 8),
        part(8, 12),
        part(12, 16),
        part(16, 20),
        part(20, 32)
    )
}
