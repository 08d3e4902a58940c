//! One table of routes: it serves, and the CapabilityStatement is derived from it.
//!
//! The law: no path is served that is not in the table; who may use it, how large its body may be and how long it may
//! take stand beside it and are enforced before its handler runs.

use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::handler::Handler;
use axum::http::Method;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter, on};
use hie_protocol::vocabulary::Role;

use crate::console;
use crate::dicomweb;
use crate::fhir::{self, request_id};
use crate::gate::Gate;
use crate::guard;
use crate::headers;
use crate::respond::{Dialect, Fault, refused};

/// Largest form, in bytes.
pub const FORM_BYTES_MAX: usize = 64 * 1024;
/// Time a handler has until its answer starts, unless its route says otherwise.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Roles that treat patients.
pub const CLINICIANS: &[Role] = &[Role::Physician, Role::Nurse, Role::Pharmacist];

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody: sign-in, style sheet, liveness, `metadata`.
    Open,
    /// A console session with one of these roles; all signed-in users when the list is empty. Forms carry the
    /// session's token. A missing role looks like an unknown path.
    Session(&'static [Role]),
    /// HTTP Basic or Bearer with one of these roles; all when the list is empty.
    Api(&'static [Role]),
}

/// What a FHIR route declares in the CapabilityStatement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Declares {
    /// Resource type.
    pub resource: &'static str,
    /// Interaction (`read`, `search-type`, `create`, ...) or operation name starting with `$`.
    pub interaction: &'static str,
    /// Search parameters: name and type.
    pub search: &'static [(&'static str, &'static str)],
}

/// One route.
pub struct Route {
    /// Method.
    pub method: Method,
    /// Path in axum's form.
    pub path: &'static str,
    /// Transaction that it implements, for example `ITI-67`; `console` for pages.
    pub transaction: &'static str,
    /// Dialect of its failures.
    pub dialect: Dialect,
    /// Who may use it.
    pub requires: Access,
    /// Largest request body, in bytes.
    pub body_bytes_max: usize,
    /// Time until the answer starts.
    pub deadline: Duration,
    /// For the CapabilityStatement.
    pub declares: Option<Declares>,
    handler: MethodRouter<Gate>,
}

impl Route {
    /// A route of the console.
    pub fn page<H: Handler<T, Gate>, T: 'static>(
        method: Method,
        path: &'static str,
        requires: Access,
        handler: H,
    ) -> Self {
        Self::new(Dialect::Page, method, path, "console", requires, handler)
    }

    /// A route of a dialect.
    pub fn new<H: Handler<T, Gate>, T: 'static>(
        dialect: Dialect,
        method: Method,
        path: &'static str,
        transaction: &'static str,
        requires: Access,
        handler: H,
    ) -> Self {
        let filter = MethodFilter::try_from(method.clone()).unwrap_or(MethodFilter::GET);
        Self {
            method,
            path,
            transaction,
            dialect,
            requires,
            body_bytes_max: FORM_BYTES_MAX,
            deadline: DEADLINE,
            declares: None,
            handler: on(filter, handler),
        }
    }

    /// Declares a FHIR interaction.
    #[must_use]
    pub const fn declaring(mut self, declares: Declares) -> Self {
        self.declares = Some(declares);
        self
    }

    /// Sets the largest body.
    #[must_use]
    pub const fn body_max(mut self, bytes: usize) -> Self {
        self.body_bytes_max = bytes;
        self
    }

    /// Sets the deadline.
    #[must_use]
    pub const fn within(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }
}

/// Every route of this gateway.
#[must_use]
pub fn table() -> Vec<Route> {
    let mut table = console::routes();
    table.extend(fhir::routes());
    table.extend(dicomweb::routes());
    table
}

/// The service: the table behind its guards.
pub fn router(gate: Gate) -> Router {
    let mut router = Router::new();
    for route in table() {
        let rule = guard::Rule {
            gate: gate.clone(),
            requires: route.requires,
            dialect: route.dialect,
            deadline: route.deadline,
            body_bytes_max: route.body_bytes_max,
        };
        let handler = route
            .handler
            .route_layer(from_fn_with_state(rule, guard::check))
            .route_layer(DefaultBodyLimit::max(route.body_bytes_max));
        router = router.route(route.path, handler);
    }
    router
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn(request_id::pass))
        .layer(from_fn_with_state(gate.clone(), headers::secure))
        .with_state(gate)
}

fn dialect_of(path: &str) -> Dialect {
    match path.split('/').nth(1) {
        Some("fhir") => Dialect::Fhir,
        Some("dicom-web") => Dialect::Dicom,
        _ => Dialect::Page,
    }
}

async fn unknown(State(gate): State<Gate>, uri: axum::http::Uri) -> Response {
    refused(&gate, dialect_of(uri.path()), Fault::Nothing)
}

async fn wrong_method(State(gate): State<Gate>, uri: axum::http::Uri) -> Response {
    refused(&gate, dialect_of(uri.path()), Fault::Method)
}
