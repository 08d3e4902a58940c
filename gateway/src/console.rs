//! The pages for people (UX B): server-rendered, working without JavaScript, no personal data in any address or title.

pub mod assets;
pub mod node;
pub mod opened;
pub mod page;
pub mod sign_in;
pub mod words;

use axum::http::Method;
use axum::response::{IntoResponse, Redirect, Response};
use hie_protocol::vocabulary::Role;

use crate::guard::SignedIn;
use crate::routes::{Access, CLINICIANS, Route};

/// Roles of the node page.
pub const OPERATORS: &[Role] = &[Role::Operator];
/// Roles of the access log.
pub const AUDITORS: &[Role] = &[Role::Auditor];
/// Roles of the consent page.
pub const CONSENT_ADMINISTRATORS: &[Role] = &[Role::ConsentAdministrator];
/// Roles that look people up.
pub const FINDERS: &[Role] = &[Role::Physician, Role::Nurse, Role::Pharmacist, Role::ConsentAdministrator];

/// The console's part of the table of routes.
#[must_use]
pub fn routes() -> Vec<Route> {
    let mut routes = vec![
        Route::page(Method::GET, "/", Access::Session(&[]), home),
        Route::page(Method::GET, "/sign-in", Access::Open, sign_in::show),
        Route::page(Method::POST, "/sign-in", Access::Open, sign_in::submit),
        Route::page(Method::POST, "/sign-out", Access::Session(&[]), sign_in::leave),
        Route::page(Method::POST, "/theme", Access::Session(&[]), sign_in::theme),
        Route::page(Method::GET, "/node", Access::Session(OPERATORS), node::show),
        Route::page(Method::GET, "/livez", Access::Open, node::live),
        Route::page(Method::GET, "/readyz", Access::Open, node::ready),
    ];
    routes.extend(assets::routes());
    routes
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
