//! An entry as an IHE BALP AuditEvent (FHIR R4) and as one sentence for people.
//!
//! BALP patterns: PatientQuery for searches and questions, PatientRead for records opened here, PrivacyDisclosure
//! Source and Recipient for what leaves and arrives, AuthZconsent for a decision on a choice, DICOM codes for
//! sign-in and node events. The question's id is the entity of type XrequestId in every entry, so that both sides
//! of an exchange pair. The patient is named by her reference in this log, never by name.

use hie_protocol::claim::BreakGlassReason;
use hie_protocol::id::OrgId;
use serde_json::{Map, Value, json};

use super::event::{AuditEvent, Basis, EventKind, Outcome};
use super::search::AuditEntry;

mod instant;
mod sentence;

pub use instant::instant;
pub use sentence::{Names, sentence};

const DCM: &str = "http://dicom.nema.org/resources/ontology/DCM";
const EVENT_TYPE: &str = "http://terminology.hl7.org/CodeSystem/audit-event-type";
const RESTFUL: &str = "http://hl7.org/fhir/restful-interaction";
const LIFECYCLE: &str = "http://terminology.hl7.org/CodeSystem/iso-21089-lifecycle";
const ENTITY_TYPE: &str = "http://terminology.hl7.org/CodeSystem/audit-entity-type";
const OBJECT_ROLE: &str = "http://terminology.hl7.org/CodeSystem/object-role";
const ACT_REASON: &str = "http://terminology.hl7.org/CodeSystem/v3-ActReason";
const PARTICIPATION: &str = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType";
const BALP_ENTITY: &str = "https://profiles.ihe.net/ITI/BALP/CodeSystem/BasicAuditEntityType";
const BALP_PROFILE: &str = "https://profiles.ihe.net/ITI/BALP/StructureDefinition/IHE.BasicAudit.";
const ROLES: &str = "urn:hie:role";
const RECEIPT: &str = "urn:hie:audit-receipt";

/// How a kind of entry is coded.
struct Pattern {
    /// BALP profile, where one fits.
    profile: Option<&'static str>,
    kind: (&'static str, &'static str),
    subtype: (&'static str, &'static str),
    action: &'static str,
}

const fn pattern(kind: EventKind) -> Pattern {
    const fn of(
        profile: Option<&'static str>,
        kind: (&'static str, &'static str),
        subtype: (&'static str, &'static str),
        action: &'static str,
    ) -> Pattern {
        Pattern {
            profile,
            kind,
            subtype,
            action,
        }
    }
    const REST: (&str, &str) = (EVENT_TYPE, "rest");
    match kind {
        EventKind::QuestionAsked | EventKind::QuestionAnswered | EventKind::PatientsSearched => {
            of(Some("PatientQuery"), REST, (RESTFUL, "search"), "E")
        }
        EventKind::RecordOpened => of(Some("PatientRead"), REST, (RESTFUL, "read"), "R"),
        EventKind::DisclosureSent => of(
            Some("PrivacyDisclosure.Source"),
            (DCM, "110106"),
            (LIFECYCLE, "disclose"),
            "R",
        ),
        EventKind::DisclosureReceived => of(
            Some("PrivacyDisclosure.Recipient"),
            (DCM, "110107"),
            (LIFECYCLE, "disclose"),
            "C",
        ),
        EventKind::EmergencyDeclared | EventKind::EmergencyUsed => of(None, (DCM, "110113"), (DCM, "110127"), "E"),
        EventKind::Imported | EventKind::Published | EventKind::ConsentRecorded => {
            of(Some("PatientCreate"), REST, (RESTFUL, "create"), "C")
        }
        EventKind::ConsentRevoked | EventKind::PatientsLinked => {
            of(Some("PatientUpdate"), REST, (RESTFUL, "update"), "U")
        }
        EventKind::Erased | EventKind::CopyDeleted => of(Some("PatientDelete"), REST, (RESTFUL, "delete"), "D"),
        EventKind::SignedIn | EventKind::SignInFailed => of(None, (DCM, "110114"), (DCM, "110122"), "E"),
        EventKind::SignedOut => of(None, (DCM, "110114"), (DCM, "110123"), "E"),
        EventKind::PeerRefused | EventKind::PeerMisbehaved => of(None, (DCM, "110113"), (DCM, "110126"), "E"),
        EventKind::BudgetAlarm => of(None, (DCM, "110113"), (DCM, "110127"), "E"),
        EventKind::ConfigurationChanged => of(None, (DCM, "110113"), (DCM, "110128"), "U"),
        EventKind::AccountChanged => of(None, (DCM, "110113"), (DCM, "110137"), "U"),
        EventKind::AuditSearched => of(None, (DCM, "110101"), (RESTFUL, "search"), "R"),
        EventKind::Started => of(None, (DCM, "110100"), (DCM, "110120"), "E"),
        EventKind::Stopped => of(None, (DCM, "110100"), (DCM, "110121"), "E"),
        EventKind::TokensEvaluated => of(None, REST, (RESTFUL, "operation"), "E"),
    }
}

/// The entry as FHIR JSON; `log` is the organisation whose log it is.
#[must_use]
pub fn audit_event(entry: &AuditEntry, log: &OrgId) -> Value {
    let event = &entry.event;
    let pattern = pattern(event.kind);
    let mut resource = Map::new();
    resource.insert("resourceType".to_owned(), json!("AuditEvent"));
    resource.insert("id".to_owned(), json!(entry.index.to_string()));
    // BALP demands the patient in every Patient* pattern: an entry without one claims no profile.
    if let Some(profile) = pattern.profile.filter(|_| event.patient.is_some()) {
        resource.insert(
            "meta".to_owned(),
            json!({ "profile": [format!("{BALP_PROFILE}{profile}")] }),
        );
    }
    resource.insert("type".to_owned(), coding(pattern.kind));
    resource.insert(
        "subtype".to_owned(),
        json!([coding(pattern.subtype), { "system": "urn:hie:audit-kind", "code": event.kind.code() }]),
    );
    resource.insert("action".to_owned(), json!(pattern.action));
    resource.insert("recorded".to_owned(), json!(instant(event.at)));
    let outcome = match event.outcome {
        Outcome::Success => "0",
        Outcome::Denied => "4",
        Outcome::Failed => "8",
        Outcome::Broken => "12",
    };
    resource.insert("outcome".to_owned(), json!(outcome));
    if !event.reasons.is_empty() || event.detail.is_some() {
        let words: Vec<&str> = event.detail.iter().chain(&event.reasons).map(String::as_str).collect();
        resource.insert("outcomeDesc".to_owned(), json!(words.join("; ")));
    }
    if let Some(purpose) = event.purpose {
        resource.insert(
            "purposeOfEvent".to_owned(),
            json!([{ "coding": [coding((ACT_REASON, purpose.code()))] }]),
        );
    }
    resource.insert("agent".to_owned(), Value::Array(agents(event, log)));
    resource.insert(
        "source".to_owned(),
        json!({ "site": log.as_str(), "observer": organisation(log), "type": [{ "system": "http://terminology.hl7.org/CodeSystem/security-source-type", "code": "4" }] }),
    );
    resource.insert("entity".to_owned(), Value::Array(entities(entry)));
    Value::Object(resource)
}

fn coding((system, code): (&str, &str)) -> Value {
    json!({ "system": system, "code": code })
}

fn organisation(org: &OrgId) -> Value {
    json!({ "identifier": { "system": "urn:ietf:rfc:3986", "value": org.as_str() } })
}

/// The two sides of the event and the person behind it.
fn agents(event: &AuditEvent, log: &OrgId) -> Vec<Value> {
    let other = event
        .counterpart
        .as_ref()
        .map_or(&event.actor.org, |counterpart| &counterpart.org);
    let (source, destination) = match event.kind {
        EventKind::DisclosureReceived | EventKind::QuestionAnswered => (other, log),
        EventKind::DisclosureSent | EventKind::QuestionAsked => (log, other),
        _ => (&event.actor.org, log),
    };
    let side = |code: &str, org: &OrgId| {
        json!({
            "type": { "coding": [coding((DCM, code))] },
            "who": organisation(org),
            "requestor": false,
            "network": { "address": org.as_str(), "type": "5" },
        })
    };
    let actor = &event.actor;
    let name = if actor.user.is_empty() {
        actor.org.as_str()
    } else {
        actor.user.as_str()
    };
    let mut person = json!({
        "type": { "coding": [coding((PARTICIPATION, "IRCP"))] },
        "who": { "identifier": { "system": actor.org.as_str(), "value": name }, "display": actor.user_name },
        "requestor": true,
        "role": [{ "coding": [coding((ROLES, actor.role.code()))] }],
    });
    if let (Some(purpose), Some(person)) = (event.purpose, person.as_object_mut()) {
        person.insert(
            "purposeOfUse".to_owned(),
            json!([{ "coding": [coding((ACT_REASON, purpose.code()))] }]),
        );
    }
    vec![side("110153", source), side("110152", destination), person]
}

/// An entity that is named by an identifier.
fn identified(system: &str, value: String, kind: (&str, &str), role: Option<&str>) -> Map<String, Value> {
    let mut entity = Map::new();
    entity.insert(
        "what".to_owned(),
        json!({ "identifier": { "system": system, "value": value } }),
    );
    entity.insert("type".to_owned(), coding(kind));
    if let Some(role) = role {
        entity.insert("role".to_owned(), coding((OBJECT_ROLE, role)));
    }
    entity
}

fn entities(entry: &AuditEntry) -> Vec<Value> {
    let event = &entry.event;
    let mut entities = Vec::new();
    let correlation = event.correlation.to_hex();
    entities.push(Value::Object(identified(
        "urn:hie:correlation",
        correlation,
        (BALP_ENTITY, "XrequestId"),
        None,
    )));
    if let Some(patient) = event.patient {
        let reference = hex::encode(patient.0);
        entities.push(Value::Object(identified(
            "urn:hie:audit-patient",
            reference,
            (ENTITY_TYPE, "1"),
            Some("1"),
        )));
    }
    for document in &event.documents {
        let id = document.to_hex();
        entities.push(Value::Object(identified(
            "urn:hie:document",
            id,
            (ENTITY_TYPE, "2"),
            Some("3"),
        )));
    }
    if let Some(Basis::Directive(directive)) = &event.basis {
        let consent = identified("urn:hie:consent", directive.clone(), (ENTITY_TYPE, "2"), Some("4"));
        entities.push(Value::Object(consent));
    }
    if let Some(counterpart) = &event.counterpart
        && let Some(theirs) = counterpart.entry
    {
        let place = format!("{}#{}", counterpart.org, theirs.index);
        let mut receipt = identified(RECEIPT, place, (ENTITY_TYPE, "4"), Some("17"));
        receipt.insert(
            "detail".to_owned(),
            json!([{ "type": "leaf", "valueString": theirs.leaf.to_hex() }]),
        );
        entities.push(Value::Object(receipt));
    }
    let mut own = identified(RECEIPT, format!("#{}", entry.index), (ENTITY_TYPE, "4"), Some("17"));
    let mut details = vec![json!({ "type": "leaf", "valueString": entry.leaf.to_hex() })];
    if let Some(emergency) = &event.emergency {
        let reason = match emergency.reason {
            BreakGlassReason::LifeAtRisk => "life-at-risk",
            BreakGlassReason::CareNow => "care-now",
            BreakGlassReason::RiskToOthers => "risk-to-others",
        };
        details.push(json!({ "type": "emergency-reason", "valueString": reason }));
        if !emergency.words.is_empty() {
            details.push(json!({ "type": "emergency-words", "valueString": emergency.words }));
        }
    }
    own.insert("detail".to_owned(), Value::Array(details));
    entities.push(Value::Object(own));
    entities
}

#[cfg(test)]
mod tests;
