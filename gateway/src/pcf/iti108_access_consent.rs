//! ITI-108 Access Consent (PCF 1.1, 2:3.108): create, read and search `Consent`.
//!
//! The law: a Consent that cannot be read whole is not taken; one that is taken is durable and in force when 201 is sent.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use hie_gateway_dialect::fhir::guard::{self, FhirError, Limits};
use hie_gateway_dialect::fhir::resource::{is_id, text};
use hie_protocol::refusal::Class;
use serde_json::{Value, json};

use crate::fhir::bundle::Asked;
use crate::fhir::negotiate::{self, Json};
use crate::fhir::pages::Pages;
use crate::fhir::parameters::{ParameterError, Search, escape, prefers};
use crate::gate::Gate;
use crate::ports::Caller;
use crate::respond::{Dialect, FHIR_JSON, Fault, Problem, failed, refused};

/// Search parameters.
pub const PARAMETERS: &[(&str, &str)] = &[
    ("_id", "token"),
    ("patient", "reference"),
    ("patient.identifier", "token"),
    ("status", "token"),
];
/// Largest Consent, in bytes.
pub const CONSENT_BYTES_MAX: usize = 512 * 1024;
/// Most JSON values in one Consent.
pub const CONSENT_NODES_MAX: usize = 50_000;
const LIMITS: Limits = Limits {
    bytes: CONSENT_BYTES_MAX,
    depth: guard::DEPTH_MAX,
    string_bytes: CONSENT_BYTES_MAX,
    nodes: CONSENT_NODES_MAX,
};

/// Records a Consent.
pub async fn create(
    State(gate): State<Gate>,
    caller: Caller,
    _json: Json,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    match record(&gate, &caller, &headers, body).await {
        Ok(response) | Err(response) => response,
    }
}

async fn record(
    gate: &Gate,
    caller: &Caller,
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Response> {
    let refuse = |fault, words: &str| Problem::with(gate, fault, words).respond(gate, Dialect::Fhir);
    let kind = negotiate::content_type(headers);
    if !matches!(kind.as_str(), "application/fhir+json" | "application/json") {
        return Err(refuse(Fault::MediaType, "Send the Consent as application/fhir+json."));
    }
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => refuse(Fault::TooLarge, Fault::TooLarge.words()),
        _ => refuse(Fault::Of(Class::Invalid), "The body broke off. Send it again."),
    })?;
    let consent = guard::parse(&body, &LIMITS).map_err(|error| match error {
        FhirError::TooLarge { .. } => refuse(Fault::TooLarge, Fault::TooLarge.words()),
        error => refuse(Fault::Of(Class::Invalid), &error.to_string()),
    })?;
    let faults = hie_consent::fhir::read(&consent, &|_| None).err().unwrap_or_default();
    if !faults.is_empty() {
        return Err(unreadable(gate, &faults));
    }
    let created = gate.ports.consents.create(caller, consent).await;
    let created = created.map_err(|error| failed(gate, Dialect::Fhir, &error))?;
    Ok(announce(gate, headers, &created))
}

/// 422 with one issue for each fault: the place in the resource, never its value.
fn unreadable(gate: &Gate, faults: &[hie_consent::fhir::Fault]) -> Response {
    let problem = Problem::of(gate, Fault::Rule);
    let issue = |fault: &hie_consent::fhir::Fault| {
        json!({ "severity": "error", "code": "invalid", "expression": [fault.path], "details": { "text": fault.reason },
            "diagnostics": format!("reference {}", problem.reference) })
    };
    let outcome = json!({ "resourceType": "OperationOutcome", "issue": faults.iter().map(issue).collect::<Vec<_>>() });
    (
        StatusCode::UNPROCESSABLE_ENTITY,
        [(CONTENT_TYPE, FHIR_JSON)],
        outcome.to_string(),
    )
        .into_response()
}

fn announce(gate: &Gate, headers: &HeaderMap, created: &Value) -> Response {
    let id = text(created, "id").unwrap_or_default();
    let base = &gate.settings.fhir_base;
    // One version is kept for reading: the address names the resource, not a version.
    let location = format!("{base}/Consent/{}", escape(id));
    let mut response = crate::fhir::answer(StatusCode::CREATED, created);
    if prefers(headers, "return=minimal") {
        *response.body_mut() = axum::body::Body::empty();
        response.headers_mut().remove(CONTENT_TYPE);
    } else if prefers(headers, "return=OperationOutcome") {
        let outcome = json!({ "resourceType": "OperationOutcome", "issue": [{ "severity": "information", "code": "informational",
            "details": { "text": "The Consent is recorded and in force." } }] });
        *response.body_mut() = axum::body::Body::from(outcome.to_string());
    }
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

/// Reads one Consent.
pub async fn read(State(gate): State<Gate>, caller: Caller, _json: Json, Path(id): Path<String>) -> Response {
    if !is_id(&id) {
        return refused(&gate, Dialect::Fhir, Fault::Nothing);
    }
    match gate.ports.consents.search(&caller, None, None, Some(id.clone())).await {
        Ok(found) => match found.iter().find(|consent| text(consent, "id") == Some(id.as_str())) {
            Some(consent) => crate::fhir::answer(StatusCode::OK, consent),
            None => refused(&gate, Dialect::Fhir, Fault::Nothing),
        },
        Err(error) => failed(&gate, Dialect::Fhir, &error),
    }
}

/// Searches the choices of one patient.
pub async fn search(State(gate): State<Gate>, caller: Caller, search: Search, pages: Arc<Pages>) -> Response {
    match find(&gate, &caller, search, &pages).await {
        Ok(response) | Err(response) => response,
    }
}

async fn find(gate: &Gate, caller: &Caller, search: Search, pages: &Pages) -> Result<Response, Response> {
    let bad = |error: ParameterError| error.respond(gate);
    let asked = Asked::new(gate, caller, "Consent", PARAMETERS, search, pages).map_err(bad)?;
    let ids = asked.search.all("_id").map_err(bad)?;
    let statuses = asked.search.tokens("status").map_err(bad)?;
    let patient = match asked.search.patient() {
        Ok(patient) => Some(patient),
        // By id alone is a read in the form of a search.
        Err(_) if !ids.is_empty() && !asked.search.given.iter().any(|(name, _)| name.starts_with("patient")) => None,
        Err(error) => return Err(bad(error)),
    };
    let single = match statuses.as_slice() {
        [group] => match group.as_slice() {
            [token] => Some(token.code.clone()),
            _ => None,
        },
        _ => None,
    };
    let id = asked.search.one("_id").filter(|id| is_id(id)).map(str::to_owned);
    let found = match (&patient, &id) {
        (None, None) => Vec::new(),
        _ => gate
            .ports
            .consents
            .search(caller, patient, single, id)
            .await
            .map_err(|error| failed(gate, Dialect::Fhir, &error))?,
    };
    let meets = |consent: &Value| {
        let (id, status) = (
            text(consent, "id").unwrap_or_default(),
            text(consent, "status").unwrap_or_default(),
        );
        ids.iter().all(|group| group.iter().any(|wanted| wanted == id))
            && statuses
                .iter()
                .all(|group| group.iter().any(|token| token.code == status))
    };
    let found: Vec<Value> = found.into_iter().filter(|consent| meets(consent)).collect();
    Ok(asked.respond(&found, None))
}
