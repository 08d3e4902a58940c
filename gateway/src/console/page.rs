//! The frame around every page, and how a template becomes a response.

use askama::Template;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use hie_protocol::vocabulary::Role;

use crate::console::{AUDITORS, FINDERS, OPERATORS};
use crate::gate::Gate;
use crate::guard::SignedIn;
use crate::session::IDLE_MS_MAX;

/// MIME type of pages.
pub const HTML: &str = "text/html; charset=utf-8";

/// An entry of the navigation.
pub struct NavItem {
    /// Where.
    pub href: &'static str,
    /// Words.
    pub label: &'static str,
    /// The page in hand.
    pub here: bool,
}

/// What stands around a page.
pub struct Frame {
    /// This organisation's name.
    pub organisation: String,
    /// Name and department of the user, empty when nobody is signed in.
    pub user: String,
    /// Navigation by role.
    pub nav: Vec<NavItem>,
    /// Token of the session's forms.
    pub form_token: String,
    /// `light`, `dark`, or empty for the system's choice.
    pub theme: &'static str,
    /// Seconds without use after which the screen locks.
    pub idle_seconds: u64,
}

impl Frame {
    /// The frame of a signed-in user on the page at `here`.
    #[must_use]
    pub fn of(gate: &Gate, signed_in: &SignedIn, here: &str) -> Self {
        let principal = &signed_in.session.principal;
        let user = match &principal.department {
            Some(department) => format!("{}, {department}", principal.name),
            None => principal.name.clone(),
        };
        let items: [(&'static str, &'static str, &'static [Role]); 3] = [
            ("/find", "Find a patient", FINDERS),
            ("/access-log", "Access log", AUDITORS),
            ("/node", "This node", OPERATORS),
        ];
        let nav = items
            .into_iter()
            .filter(|(_, _, roles)| signed_in.session.has_any(roles))
            .map(|(href, label, _)| NavItem {
                href,
                label,
                here: href == here,
            })
            .collect();
        Self {
            organisation: gate.settings.organisation.clone(),
            user,
            nav,
            form_token: signed_in.session.form_token.clone(),
            theme: signed_in.theme.attribute(),
            idle_seconds: IDLE_MS_MAX / 1000,
        }
    }

    /// The frame when nobody is signed in.
    #[must_use]
    pub fn outside(organisation: &str) -> Self {
        Self {
            organisation: organisation.to_owned(),
            user: String::new(),
            nav: Vec::new(),
            form_token: String::new(),
            theme: "",
            idle_seconds: 0,
        }
    }
}

/// A page that says what went wrong.
pub struct ProblemPage<'p> {
    /// This organisation's name.
    pub organisation: &'p str,
    /// Plain words.
    pub words: &'p str,
    /// Finds the story in the log.
    pub reference: &'p str,
}

#[derive(Template)]
#[template(path = "problem.html")]
struct ProblemTemplate<'p> {
    frame: Frame,
    words: &'p str,
    reference: &'p str,
}

impl ProblemPage<'_> {
    /// The response with a status.
    #[must_use]
    pub fn respond(&self, status: StatusCode) -> Response {
        let frame = Frame::outside(self.organisation);
        page(
            status,
            &ProblemTemplate {
                frame,
                words: self.words,
                reference: self.reference,
            },
        )
    }
}

/// Renders a template. A template cannot fail on our own values; if it does, the page says so without a template.
pub fn page(status: StatusCode, template: &impl Template) -> Response {
    match template.render() {
        Ok(html) => (status, [(CONTENT_TYPE, HTML)], html).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page could not be rendered");
            (
                StatusCode::INTERNAL_SERVER_ERROR,
                [(CONTENT_TYPE, "text/plain; charset=utf-8")],
                "This page could not be made.\n",
            )
                .into_response()
        }
    }
}

/// Renders a page with status 200.
pub fn ok(template: &impl Template) -> Response {
    page(StatusCode::OK, template)
}
