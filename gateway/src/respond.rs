//! The only place where a failure becomes HTTP.
//!
//! The law: a closed code, plain words without personal data, and a reference that finds the story in the log; never
//! internal text. What the caller may not know to exist answers 404. Three dialects: a page, a FHIR
//! OperationOutcome (R4, `http.html#2.21.0.4`), a DICOMweb status (PS3.18 section 8.5).

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use hie_protocol::refusal::Class;
use serde_json::json;

use crate::console::page::ProblemPage;
use crate::gate::Gate;
use crate::ports::PortError;

/// MIME type of FHIR JSON.
pub const FHIR_JSON: &str = "application/fhir+json; charset=utf-8";

/// The dialect in which a route speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// HTML for people.
    Page,
    /// FHIR JSON.
    Fhir,
    /// DICOMweb.
    Dicom,
}

/// What went wrong, as HTTP sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The class of a port's error.
    Of(Class),
    /// No or wrong credential.
    NotSignedIn,
    /// The route is known to the caller, the role is not enough.
    RoleMissing,
    /// The form is not this session's, or too old.
    StaleForm,
    /// Too many attempts; seconds to wait.
    TooMany(u64),
    /// The body is over its limit.
    TooLarge,
    /// The body's MIME type is not one of those that are read.
    MediaType,
    /// None of the MIME types that the caller accepts is available.
    NotAcceptable,
    /// Nothing here, or nothing that the caller may know of.
    Nothing,
    /// The path does not do this method.
    Method,
    /// The content is well formed but breaks a rule.
    Rule,
    /// The state has changed meanwhile.
    Conflict,
    /// The range asked for is outside the content.
    Range,
}

impl Fault {
    /// HTTP status.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Of(Class::Invalid) => StatusCode::BAD_REQUEST,
            Self::Of(Class::Refused) | Self::Nothing => StatusCode::NOT_FOUND,
            Self::Of(Class::Unavailable) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Of(Class::Misbehaved) => StatusCode::BAD_GATEWAY,
            Self::Of(Class::Broken) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NotSignedIn => StatusCode::UNAUTHORIZED,
            Self::RoleMissing | Self::StaleForm => StatusCode::FORBIDDEN,
            Self::TooMany(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Rule => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Conflict => StatusCode::CONFLICT,
            Self::Range => StatusCode::RANGE_NOT_SATISFIABLE,
        }
    }

    /// FHIR issue type (`http://hl7.org/fhir/issue-type`).
    #[must_use]
    pub const fn issue(self) -> &'static str {
        match self {
            Self::Of(Class::Invalid) | Self::Range => "invalid",
            Self::Of(Class::Refused) | Self::Nothing => "not-found",
            Self::Of(Class::Unavailable) => "transient",
            Self::Of(Class::Misbehaved | Class::Broken) => "exception",
            Self::NotSignedIn => "login",
            Self::RoleMissing | Self::StaleForm => "forbidden",
            Self::TooMany(_) => "throttled",
            Self::TooLarge => "too-long",
            Self::MediaType | Self::NotAcceptable | Self::Method => "not-supported",
            Self::Rule => "business-rule",
            Self::Conflict => "conflict",
        }
    }

    /// Words for the caller where the port gave none, or where its words are not for outside.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Of(Class::Invalid) => "The request could not be read. Check it and send it again.",
            Self::Of(Class::Refused) | Self::Nothing => "There is nothing here that you can see.",
            Self::Of(Class::Unavailable) => "This cannot be answered now. Try again.",
            Self::Of(Class::Misbehaved) => {
                "Another organisation sent an answer that could not be used. Try again, or phone them."
            }
            Self::Of(Class::Broken) => "Something failed here. Your IT team can find it by the reference.",
            Self::NotSignedIn => "Sign in first.",
            Self::RoleMissing => "Your role does not include this.",
            Self::StaleForm => "This form is too old. Open the page again and repeat.",
            Self::TooMany(_) => "Too many attempts. Wait a little and try again.",
            Self::TooLarge => "The content is larger than what is taken here.",
            Self::MediaType => "This content type is not read here.",
            Self::NotAcceptable => "None of the content types that you accept is available.",
            Self::Method => "This address does not do that.",
            Self::Rule => "The content breaks a rule.",
            Self::Conflict => "This has changed meanwhile. Look again and repeat.",
            Self::Range => "The range is outside the content.",
        }
    }
}

/// A failure with its words and reference.
#[derive(Clone, Debug)]
pub struct Problem {
    /// What.
    pub fault: Fault,
    /// Plain words, without personal data.
    pub words: String,
    /// Finds the story in the log.
    pub reference: String,
}

impl Problem {
    /// A failure with the standard words.
    #[must_use]
    pub fn of(gate: &Gate, fault: Fault) -> Self {
        Self::with(gate, fault, fault.words())
    }

    /// A failure with words of one's own: safe to show, without personal data.
    #[must_use]
    pub fn with(gate: &Gate, fault: Fault, words: &str) -> Self {
        let reference = gate
            .ports
            .node
            .random()
            .iter()
            .take(3)
            .map(|byte| format!("{byte:02X}"))
            .collect::<String>();
        if fault.status().is_server_error() {
            tracing::warn!(reference, fault = ?fault, words, "answered with a failure");
        } else {
            tracing::info!(reference, fault = ?fault, "answered with a refusal");
        }
        Self {
            fault,
            words: words.to_owned(),
            reference,
        }
    }

    /// A port's failure. The words of *Invalid* and *Unavailable* are shown; the others' go to the log alone.
    #[must_use]
    pub fn from_port(gate: &Gate, error: &PortError) -> Self {
        let fault = Fault::Of(error.class);
        match error.class {
            Class::Invalid | Class::Unavailable => Self::with(gate, fault, &error.what),
            Class::Refused | Class::Misbehaved | Class::Broken => {
                let problem = Self::of(gate, fault);
                tracing::info!(reference = problem.reference, class = ?error.class, what = error.what, "cause of a failure");
                problem
            }
        }
    }

    /// The HTTP answer in a dialect.
    #[must_use]
    pub fn respond(&self, gate: &Gate, dialect: Dialect) -> Response {
        let status = self.fault.status();
        let mut response = match dialect {
            Dialect::Page => {
                let page = ProblemPage {
                    organisation: &gate.settings.organisation,
                    words: &self.words,
                    reference: &self.reference,
                };
                page.respond(status)
            }
            Dialect::Fhir => (status, [(CONTENT_TYPE, FHIR_JSON)], self.outcome().to_string()).into_response(),
            // PS3.18 asks for the status; the payload of a failure is for people.
            Dialect::Dicom => {
                let text = format!("{} (reference {})\n", self.words, self.reference);
                (status, [(CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
            }
        };
        let headers = response.headers_mut();
        if self.fault == Fault::NotSignedIn && dialect != Dialect::Page {
            headers.append(
                WWW_AUTHENTICATE,
                HeaderValue::from_static("Basic realm=\"hie\", charset=\"UTF-8\""),
            );
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"hie\""));
        }
        if let Fault::TooMany(seconds) = self.fault {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }

    /// The FHIR OperationOutcome.
    #[must_use]
    pub fn outcome(&self) -> serde_json::Value {
        json!({
            "resourceType": "OperationOutcome",
            "issue": [{
                "severity": "error",
                "code": self.fault.issue(),
                "details": { "text": self.words },
                "diagnostics": format!("reference {}", self.reference),
            }],
        })
    }
}

/// A port's failure in a dialect.
#[must_use]
pub fn failed(gate: &Gate, dialect: Dialect, error: &PortError) -> Response {
    Problem::from_port(gate, error).respond(gate, dialect)
}

/// A fault with its standard words in a dialect.
#[must_use]
pub fn refused(gate: &Gate, dialect: Dialect, fault: Fault) -> Response {
    Problem::of(gate, fault).respond(gate, dialect)
}
