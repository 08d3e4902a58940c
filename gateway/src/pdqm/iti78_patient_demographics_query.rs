//! ITI-78 Mobile Patient Demographics Query (PDQm 3.2.0, 2:3.78): `Patient` search and read.
//!
//! The law: the port finds candidates of this organisation, and only those that meet every parameter as FHIR defines
//! it are answered. A search without a criterion is refused: this is a question about a patient, not an export.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use hie_gateway_dialect::fhir::resource::{is_id, list, text};
use hie_protocol::message::{Demographics, PersonAddress, PersonIdentifier, PersonName};
use serde_json::Value;

use crate::fhir::bundle::Asked;
use crate::fhir::negotiate::Json;
use crate::fhir::pages::Pages;
use crate::fhir::parameters::{ParameterError, Search};
use crate::gate::Gate;
use crate::pdqm::matching::Criteria;
use crate::ports::{Caller, PersonQuery};
use crate::respond::{Dialect, Fault, Problem, failed, refused};

/// Search parameters.
pub const PARAMETERS: &[(&str, &str)] = &[
    ("_id", "token"),
    ("active", "token"),
    ("address", "string"),
    ("address-city", "string"),
    ("address-country", "string"),
    ("address-postalcode", "string"),
    ("address-state", "string"),
    ("birthdate", "date"),
    ("family", "string"),
    ("gender", "token"),
    ("given", "string"),
    ("identifier", "token"),
    ("mothersMaidenName", "string"),
    ("telecom", "token"),
];

/// Most names that the alternatives of family and given make together.
const NAMES_MAX: usize = 32;
/// What 2:3.78.4.1.3 says of an assigning authority that is not known.
const UNKNOWN_DOMAIN: &str = "targetSystem not found";

/// Searches.
pub async fn search(State(gate): State<Gate>, caller: Caller, search: Search, pages: Arc<Pages>) -> Response {
    match find(&gate, &caller, search, &pages).await {
        Ok(response) | Err(response) => response,
    }
}

async fn find(gate: &Gate, caller: &Caller, search: Search, pages: &Pages) -> Result<Response, Response> {
    let bad = |error: ParameterError| error.respond(gate);
    let asked = Asked::new(gate, caller, "Patient", PARAMETERS, search, pages).map_err(bad)?;
    let criteria = Criteria::read(&asked.search).map_err(bad)?;
    if criteria.is_empty() {
        return Err(bad(ParameterError::Nothing(
            "_id, identifier, family, given, birthdate, telecom, address",
        )));
    }
    let demographics = demographics(&asked.search).map_err(bad)?;
    let id = asked.search.one("_id").filter(|id| is_id(id)).map(str::to_owned);
    let query = PersonQuery {
        text: None,
        demographics,
        region: false,
    };
    let found = gate.ports.people.patients(caller, query, id).await;
    let found = found.map_err(|error| failed(gate, Dialect::Fhir, &error))?;
    let mut patients: Vec<Value> = found.into_iter().filter(|patient| criteria.meets(patient)).collect();
    let domains = criteria.domains();
    if !domains.is_empty() && !patients.is_empty() {
        // The node keeps no list of assigning authorities: one that none of the patients has is not known here.
        let known = patients.iter().any(|patient| {
            list(patient, "identifier")
                .iter()
                .any(|identifier| in_domains(identifier, &domains))
        });
        if !known {
            return Err(Problem::with(gate, Fault::Nothing, UNKNOWN_DOMAIN).respond(gate, Dialect::Fhir));
        }
        patients.iter_mut().for_each(|patient| keep_domains(patient, &domains));
    }
    Ok(asked.respond(&patients, None))
}

fn in_domains(identifier: &Value, domains: &[String]) -> bool {
    text(identifier, "system").is_some_and(|system| domains.iter().any(|domain| domain == system))
}

/// `identifier=system|` limits the identifiers that come back to these assigning authorities.
fn keep_domains(patient: &mut Value, domains: &[String]) {
    let Some(map) = patient.as_object_mut() else { return };
    if let Some(identifiers) = map.get_mut("identifier").and_then(Value::as_array_mut) {
        identifiers.retain(|identifier| in_domains(identifier, domains));
        if identifiers.is_empty() {
            map.remove("identifier");
        }
    }
}

/// What the port can look up; the criteria decide afterwards.
fn demographics(search: &Search) -> Result<Demographics, ParameterError> {
    let strings = |name: &'static str| -> Result<Vec<String>, ParameterError> {
        let mut all: Vec<String> = search.all(name)?.into_iter().flatten().collect();
        let exact = search
            .given
            .iter()
            .filter(|(given, _)| given.strip_suffix(":exact") == Some(name))
            .map(|(_, value)| value.clone());
        all.extend(exact);
        Ok(all)
    };
    let (families, given) = (strings("family")?, strings("given")?);
    let mut names: Vec<PersonName> = families
        .iter()
        .take(NAMES_MAX)
        .map(|family| PersonName {
            family: family.clone(),
            given: given.clone(),
            ..PersonName::default()
        })
        .collect();
    if names.is_empty() && !given.is_empty() {
        names.push(PersonName {
            given,
            ..PersonName::default()
        });
    }
    let identifiers = search
        .tokens("identifier")?
        .into_iter()
        .flatten()
        .filter(|token| !token.code.is_empty());
    let first = |name: &'static str| Ok::<_, ParameterError>(strings(name)?.into_iter().next());
    let address = PersonAddress {
        lines: strings("address")?,
        city: first("address-city")?,
        state: first("address-state")?,
        postal_code: first("address-postalcode")?,
    };
    let has_address = address != PersonAddress::default();
    // A prefix or a partial date is a range; only a whole day is a fact to look up by.
    let day = search
        .one("birthdate")
        .map(|date| date.strip_prefix("eq").unwrap_or(date))
        .filter(|date| date.len() == 10);
    Ok(Demographics {
        names,
        birth_date: day.map(str::to_owned),
        sex: search.one("gender").map(str::to_owned),
        identifiers: identifiers
            .map(|token| PersonIdentifier {
                system: token.system.unwrap_or_default(),
                value: token.code,
            })
            .collect(),
        addresses: if has_address { vec![address] } else { Vec::new() },
        telecoms: search
            .tokens("telecom")?
            .into_iter()
            .flatten()
            .map(|token| token.code)
            .collect(),
    })
}

/// Reads one Patient.
pub async fn read(State(gate): State<Gate>, caller: Caller, _json: Json, Path(id): Path<String>) -> Response {
    if !is_id(&id) {
        return refused(&gate, Dialect::Fhir, Fault::Nothing);
    }
    match gate
        .ports
        .people
        .patients(&caller, PersonQuery::default(), Some(id.clone()))
        .await
    {
        Ok(patients) => match patients.iter().find(|patient| text(patient, "id") == Some(id.as_str())) {
            Some(patient) => crate::fhir::answer(StatusCode::OK, patient),
            None => refused(&gate, Dialect::Fhir, Fault::Nothing),
        },
        Err(error) => failed(&gate, Dialect::Fhir, &error),
    }
}
