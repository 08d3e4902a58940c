//! FHIR R4 (4.0.1) JSON under `/fhir`.
//!
//! The law: the gateway translates and filters, it never decides. What a port returns is narrowed by the search
//! parameters as FHIR defines them, never widened; whatever is missing from an answer is named in it (law 5); no URL
//! made here holds a patient's data (law 9).

pub mod bundle;
pub mod capability;
pub mod negotiate;
pub mod pages;
pub mod parameters;
pub mod request_id;

use std::sync::Arc;

use axum::extract::State;
use axum::http::Method;
use axum::http::header::{CONTENT_TYPE, ETAG};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use hie_protocol::vocabulary::Role;
use serde_json::Value;

use crate::fhir::pages::Pages;
use crate::fhir::parameters::Search;
use crate::gate::Gate;
use crate::mhd::{iti67_find_document_references as iti67, iti68_retrieve_document as iti68};
use crate::pcf::iti108_access_consent as iti108;
use crate::pdqm::iti78_patient_demographics_query as iti78;
use crate::ports::Caller;
use crate::respond::{Dialect, FHIR_JSON};
use crate::routes::{Access, Declares, Route};

/// Roles that read clinical data over the API.
pub const READERS: &[Role] = &[Role::Physician, Role::Nurse, Role::Pharmacist, Role::System];
/// Roles that look patients up over the API.
pub const PATIENT_READERS: &[Role] = &[
    Role::Physician,
    Role::Nurse,
    Role::Pharmacist,
    Role::System,
    Role::ConsentAdministrator,
];
/// Roles that record the patient's choices.
pub const CONSENT_WRITERS: &[Role] = &[Role::ConsentAdministrator];
/// Roles that read the patient's choices.
pub const CONSENT_READERS: &[Role] = &[Role::ConsentAdministrator, Role::Physician, Role::Nurse, Role::System];

/// The FHIR part of the table of routes.
#[must_use]
pub fn routes() -> Vec<Route> {
    let pages = Arc::new(Pages::default());
    let mut routes = vec![
        Route::new(
            Dialect::Fhir,
            Method::GET,
            "/fhir/metadata",
            "capabilities",
            Access::Open,
            capability::metadata,
        ),
        route(Method::GET, "/fhir/Patient/{id}", "ITI-78", PATIENT_READERS)
            .with(iti78::read)
            .declaring(declares("Patient", "read", &[])),
        route(Method::GET, "/fhir/DocumentReference/{id}", "ITI-67", READERS)
            .with(iti67::read)
            .declaring(declares("DocumentReference", "read", &[])),
        route(Method::GET, "/fhir/Binary/{id}", "ITI-68", READERS)
            .with(iti68::retrieve)
            .declaring(declares("Binary", "read", &[])),
        route(Method::POST, "/fhir/Consent", "ITI-108", CONSENT_WRITERS)
            .with(iti108::create)
            .declaring(declares("Consent", "create", &[]))
            .body_max(iti108::CONSENT_BYTES_MAX),
        route(Method::GET, "/fhir/Consent/{id}", "ITI-108", CONSENT_READERS)
            .with(iti108::read)
            .declaring(declares("Consent", "read", &[])),
    ];
    for (method, path) in [(Method::GET, "/fhir/Patient"), (Method::POST, "/fhir/Patient/_search")] {
        let pages = pages.clone();
        let handler =
            move |gate: State<Gate>, caller: Caller, search: Search| iti78::search(gate, caller, search, pages.clone());
        let declared = declares("Patient", "search-type", iti78::PARAMETERS);
        routes.push(
            route(method, path, "ITI-78", PATIENT_READERS)
                .with(handler)
                .declaring(declared),
        );
    }
    for (method, path) in [
        (Method::GET, "/fhir/DocumentReference"),
        (Method::POST, "/fhir/DocumentReference/_search"),
    ] {
        let pages = pages.clone();
        let handler =
            move |gate: State<Gate>, caller: Caller, search: Search| iti67::search(gate, caller, search, pages.clone());
        let declared = declares("DocumentReference", "search-type", iti67::PARAMETERS);
        routes.push(route(method, path, "ITI-67", READERS).with(handler).declaring(declared));
    }
    for (method, path) in [(Method::GET, "/fhir/Consent"), (Method::POST, "/fhir/Consent/_search")] {
        let pages = pages.clone();
        let handler = move |gate: State<Gate>, caller: Caller, search: Search| {
            iti108::search(gate, caller, search, pages.clone())
        };
        let declared = declares("Consent", "search-type", iti108::PARAMETERS);
        routes.push(
            route(method, path, "ITI-108", CONSENT_READERS)
                .with(handler)
                .declaring(declared),
        );
    }
    routes
}

const fn declares(
    resource: &'static str,
    interaction: &'static str,
    search: &'static [(&'static str, &'static str)],
) -> Declares {
    Declares {
        resource,
        interaction,
        search,
    }
}

const fn route(method: Method, path: &'static str, transaction: &'static str, access: &'static [Role]) -> RouteOf {
    RouteOf {
        method,
        path,
        transaction,
        access,
    }
}

struct RouteOf {
    method: Method,
    path: &'static str,
    transaction: &'static str,
    access: &'static [Role],
}

impl RouteOf {
    fn with<H: axum::handler::Handler<T, Gate>, T: 'static>(self, handler: H) -> Route {
        Route::new(
            Dialect::Fhir,
            self.method,
            self.path,
            self.transaction,
            Access::Api(self.access),
            handler,
        )
    }
}

/// A resource as an answer; its version becomes the ETag.
#[must_use]
pub fn answer(status: StatusCode, resource: &Value) -> Response {
    let mut response = (status, [(CONTENT_TYPE, FHIR_JSON)], resource.to_string()).into_response();
    let version = resource.pointer("/meta/versionId").and_then(Value::as_str);
    if let Some(tag) = version.and_then(|version| HeaderValue::try_from(format!("W/\"{version}\"")).ok()) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}
