//! `GET /fhir/metadata`: the CapabilityStatement, derived from the table of routes and never a list of its own.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Map, Value, json};

use crate::fhir::bundle::instant;
use crate::fhir::negotiate::Json;
use crate::gate::Gate;
use crate::routes::{self, Declares};

/// Codes of `http://hl7.org/fhir/restful-interaction` that a resource of ours may declare.
const INTERACTIONS: &[&str] = &["read", "search-type", "create", "update", "delete"];

/// Answers with the CapabilityStatement.
pub async fn metadata(State(gate): State<Gate>, _json: Json) -> Response {
    let declared: Vec<Declares> = routes::table().iter().filter_map(|route| route.declares).collect();
    let mut statement = statement(&declared, &gate.settings.fhir_base, &gate.settings.organisation);
    if let Some(map) = statement.as_object_mut() {
        map.insert("date".to_owned(), instant(gate.now()).into());
    }
    super::answer(StatusCode::OK, &statement)
}

/// The CapabilityStatement of a set of declarations.
#[must_use]
pub fn statement(declared: &[Declares], base: &str, organisation: &str) -> Value {
    let mut by_resource: BTreeMap<&str, Vec<&Declares>> = BTreeMap::new();
    for declares in declared {
        by_resource.entry(declares.resource).or_default().push(declares);
    }
    let resources: Vec<Value> = by_resource.iter().map(|(kind, all)| resource(kind, all)).collect();
    json!({
        "resourceType": "CapabilityStatement",
        "status": "active",
        "kind": "instance",
        "fhirVersion": "4.0.1",
        "format": ["json"],
        "implementation": { "description": format!("Health information exchange node of {organisation}"), "url": base },
        "software": { "name": "hie", "version": env!("CARGO_PKG_VERSION") },
        "rest": [{
            "mode": "server",
            "documentation": "JSON only: application/fhir+xml is answered 406. An answer that misses organisations carries an \
                OperationOutcome with one warning for each. X-HIE-Purpose states the purpose of use; TREAT is assumed.",
            "security": {
                "cors": false,
                "service": [{ "coding": [{ "system": "http://terminology.hl7.org/CodeSystem/restful-security-service", "code": "Basic" }] }],
                "description": "HTTP Basic or Bearer over TLS.",
            },
            "resource": resources,
        }],
    })
}

fn resource(kind: &str, declared: &[&Declares]) -> Value {
    let mut interactions: Vec<&str> = Vec::new();
    let mut operations: Vec<&str> = Vec::new();
    let mut parameters: BTreeMap<&str, &str> = BTreeMap::new();
    for declares in declared {
        let list = if INTERACTIONS.contains(&declares.interaction) {
            &mut interactions
        } else {
            &mut operations
        };
        if !list.contains(&declares.interaction) {
            list.push(declares.interaction);
        }
        parameters.extend(declares.search.iter().copied());
    }
    let code = |code: &&str| json!({ "code": code });
    let operation = |name: &&str| json!({ "name": name.trim_start_matches('$'), "definition": format!("OperationDefinition/{}", name.trim_start_matches('$')) });
    json!({
        "type": kind,
        "interaction": interactions.iter().map(code).collect::<Vec<_>>(),
        "operation": operations.iter().map(operation).collect::<Vec<_>>(),
        "versioning": "no-version",
        "referencePolicy": ["logical", "local"],
        "searchParam": parameters.iter().map(|(name, kind)| json!({ "name": name, "type": kind })).collect::<Vec<_>>(),
    })
    .without_empty()
}

trait WithoutEmpty {
    /// The object without its empty arrays, which FHIR does not know.
    fn without_empty(self) -> Self;
}

impl WithoutEmpty for Value {
    fn without_empty(self) -> Self {
        match self {
            Self::Object(map) => {
                let kept = map
                    .into_iter()
                    .filter(|(_, value)| value.as_array().is_none_or(|array| !array.is_empty()));
                Self::Object(kept.collect::<Map<_, _>>())
            }
            other => other,
        }
    }
}
