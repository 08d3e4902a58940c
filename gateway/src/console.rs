//! The pages for people (UX B): server-rendered, working without JavaScript, no personal data in any address or title.

pub mod access_log;
pub mod assets;
pub mod consent;
pub mod document;
pub mod emergency;
pub mod find;
pub mod node;
pub mod opened;
pub mod page;
pub mod record;
pub mod sign_in;
pub mod study;
pub mod words;

use axum::http::Method;
use axum::response::{IntoResponse, Redirect, Response};
use hie_protocol::vocabulary::Role;

use crate::guard::SignedIn;
use crate::routes::{Access, CLINICIANS, Route};

const DOCUMENT: &str = "/record/{subject}/document/{document}";
const ORIGINAL: &str = "/record/{subject}/document/{document}/original";
const STUDY: &str = "/record/{subject}/study/{document}";
const PICTURE: &str = "/record/{subject}/study/{document}/picture";

/// Roles of the node page.
pub const OPERATORS: &[Role] = &[Role::Operator];
/// Roles of the access log.
pub const AUDITORS: &[Role] = &[Role::Auditor];
/// Roles of the consent page.
pub const CONSENT_ADMINISTRATORS: &[Role] = &[Role::ConsentAdministrator];
/// Roles that look people up.
pub const FINDERS: &[Role] = &[
    Role::Physician,
    Role::Nurse,
    Role::Pharmacist,
    Role::ConsentAdministrator,
];

/// The console's part of the table of routes.
#[must_use]
pub fn routes() -> Vec<Route> {
    let mut routes = vec![
        Route::page(Method::GET, "/", Access::Session(&[]), home),
        Route::page(Method::GET, "/sign-in", Access::Open, sign_in::show),
        Route::page(Method::POST, "/sign-in", Access::Open, sign_in::submit),
        Route::page(Method::POST, "/sign-out", Access::Session(&[]), sign_in::leave),
        Route::page(Method::POST, "/theme", Access::Session(&[]), sign_in::theme),
        Route::page(Method::GET, "/find", Access::Session(FINDERS), find::show),
        Route::page(Method::POST, "/find", Access::Session(FINDERS), find::submit),
    ];
    routes.extend(record_routes());
    routes.extend(office_routes());
    routes.extend(assets::routes());
    routes
}

/// Pages about one patient's record, for those who treat.
fn record_routes() -> Vec<Route> {
    const WHO: Access = Access::Session(CLINICIANS);
    vec![
        Route::page(Method::POST, "/record", WHO, find::open),
        Route::page(Method::GET, "/record/{subject}", WHO, record::show),
        Route::page(Method::GET, "/record/{subject}/events", WHO, record::events),
        Route::page(Method::GET, "/record/{subject}/plain", WHO, record::plain),
        Route::page(Method::POST, "/record/{subject}/close", WHO, record::close),
        Route::page(Method::GET, "/record/{subject}/emergency", WHO, emergency::show),
        Route::page(Method::POST, "/record/{subject}/emergency", WHO, emergency::submit),
        Route::page(Method::GET, DOCUMENT, WHO, document::show),
        Route::page(Method::GET, ORIGINAL, WHO, document::original),
        Route::page(Method::GET, STUDY, WHO, study::show),
        Route::page(Method::GET, PICTURE, WHO, study::picture),
    ]
}

/// Pages of the consent administrator, the auditor and the operator.
fn office_routes() -> Vec<Route> {
    const CONSENT: Access = Access::Session(CONSENT_ADMINISTRATORS);
    const AUDIT: Access = Access::Session(AUDITORS);
    vec![
        Route::page(Method::POST, "/consent", CONSENT, find::choices),
        Route::page(Method::GET, "/consent/{subject}", CONSENT, consent::show),
        Route::page(Method::POST, "/consent/{subject}", CONSENT, consent::submit),
        Route::page(Method::GET, "/access-log", AUDIT, access_log::show),
        Route::page(Method::POST, "/access-log", AUDIT, access_log::submit),
        Route::page(Method::GET, "/node", Access::Session(OPERATORS), node::show),
        Route::page(Method::GET, "/livez", Access::Open, node::live),
        Route::page(Method::GET, "/readyz", Access::Open, node::ready),
    ]
}

/// Sends a user to the page of their work.
async fn home(signed_in: SignedIn) -> Response {
    let session = &signed_in.session;
    let to = if session.has_any(CLINICIANS) || session.has_any(CONSENT_ADMINISTRATORS) {
        "/find"
    } else if session.has_any(AUDITORS) {
        "/access-log"
    } else if session.has_any(OPERATORS) {
        "/node"
    } else {
        "/sign-in"
    };
    Redirect::to(to).into_response()
}

#[cfg(test)]
mod tests;
