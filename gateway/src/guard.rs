//! Stands before every handler: who is this, may they, is the form theirs, is it in time and within size.
//!
//! The law: a handler of an [`Access::Session`] or [`Access::Api`] route never runs without a [`Caller`]; a
//! console form is never read without the session's token; a missing role in the console looks like an unknown path.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Form;
use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, FromRequest, FromRequestParts, Request, State};
use axum::http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, COOKIE, LOCATION};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hie_protocol::claim::{BreakGlass, BreakGlassReason, CLAIM_TEXT_CHARS_MAX};
use hie_protocol::refusal::Class;
use hie_protocol::vocabulary::{Purpose, Role};

use crate::console::sign_in::{THEME_COOKIE, Theme};
use crate::gate::Gate;
use crate::ports::{Caller, Credential, Principal, SubjectRef};
use crate::respond::{Dialect, Fault, Problem};
use crate::routes::{Access, FORM_BYTES_MAX};
use crate::session::{COOKIE_PLAIN, COOKIE_SECURE, Session, same_secret};

/// Header in which an API client states its purpose of use (HL7 v3 PurposeOfUse code).
pub const PURPOSE: &str = "x-hie-purpose";
/// Header in which an API client declares emergency access: `life-at-risk`, `care-now` or `risk-to-others`.
pub const EMERGENCY_REASON: &str = "x-hie-emergency-reason";
/// Header with a few words beside [`EMERGENCY_REASON`].
pub const EMERGENCY_WORDS: &str = "x-hie-emergency-words";
/// Largest `Authorization` value, in bytes.
pub const AUTHORIZATION_BYTES_MAX: usize = 8192;
/// Name of the form field with the session's token.
pub const FORM_TOKEN: &str = "form_token";

/// What the guard of one route enforces.
#[derive(Clone)]
pub struct Rule {
    /// The gate.
    pub gate: Gate,
    /// Who may.
    pub requires: Access,
    /// Dialect of refusals.
    pub dialect: Dialect,
    /// Time until the answer starts.
    pub deadline: Duration,
    /// Largest body.
    pub body_bytes_max: usize,
}

/// Fields of a console form, in order; the form token is checked and taken out.
#[derive(Clone, Default)]
pub struct Fields(Vec<(String, String)>);

impl Fields {
    /// The first value of a field, without spaces around it; none when it is empty.
    #[must_use]
    pub fn one(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .filter(|(key, _)| key == name)
            .map(|(_, value)| value.trim())
            .find(|value| !value.is_empty())
    }

    /// All values of a field.
    pub fn all<'f>(&'f self, name: &'f str) -> impl Iterator<Item = &'f str> {
        self.0
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

/// The signed-in user of a console request with the role that the route asks for.
#[derive(Clone)]
pub struct SignedIn {
    /// The session.
    pub session: Session,
    /// Light or dark.
    pub theme: Theme,
    roles: &'static [Role],
    now: hie_protocol::id::Millis,
}

impl SignedIn {
    /// The caller, for no subject in particular.
    #[must_use]
    pub fn caller(&self) -> Caller {
        self.session.caller(self.roles, None, self.now)
    }

    /// The caller about a subject: live emergency access goes along.
    #[must_use]
    pub fn caller_about(&self, subject: &SubjectRef) -> Caller {
        self.session.caller(self.roles, Some(subject), self.now)
    }
}

/// Remote address, where the listener told it.
#[derive(Clone, Copy)]
pub struct Remote(pub Option<SocketAddr>);

/// Checks a request against its route's rule and runs the handler within the deadline.
pub async fn check(State(rule): State<Rule>, request: Request, next: Next) -> Response {
    let (gate, dialect) = (rule.gate.clone(), rule.dialect);
    match admit(&rule, request).await {
        Ok(request) => match tokio::time::timeout(rule.deadline, next.run(request)).await {
            Ok(response) => response,
            Err(_) => Problem::of(&gate, Fault::Of(Class::Unavailable)).respond(&gate, dialect),
        },
        Err(refusal) => *refusal,
    }
}

type Admission<T> = Result<T, Box<Response>>;

async fn admit(rule: &Rule, mut request: Request) -> Admission<Request> {
    let gate = &rule.gate;
    let refuse = |fault| Box::new(Problem::of(gate, fault).respond(gate, rule.dialect));
    let length = request
        .headers()
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse::<usize>().ok());
    if length.is_some_and(|length| length > rule.body_bytes_max) {
        return Err(refuse(Fault::TooLarge));
    }
    let remote = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0);
    request.extensions_mut().insert(Remote(remote));
    match rule.requires {
        Access::Open => {
            if rule.dialect == Dialect::Page && request.method() == Method::POST {
                request = read_form(gate, request, None).await?;
            }
        }
        Access::Session(roles) => {
            let now = gate.now();
            // A stream that reconnects by itself is no use by a person.
            let stream = request
                .headers()
                .get(ACCEPT)
                .is_some_and(|value| value.as_bytes() == b"text/event-stream");
            let session = cookie(gate, request.headers()).and_then(|token| gate.sessions.find(token, now, !stream));
            let Some(session) = session else {
                return Err(Box::new(
                    (StatusCode::SEE_OTHER, [(LOCATION, "/sign-in")]).into_response(),
                ));
            };
            if !session.has_any(roles) {
                return Err(refuse(Fault::Nothing));
            }
            if request.method() == Method::POST {
                request = read_form(gate, request, Some(&session)).await?;
            }
            let theme = cookie_named(request.headers(), THEME_COOKIE)
                .map(Theme::of)
                .unwrap_or_default();
            let signed_in = SignedIn {
                session,
                theme,
                roles,
                now,
            };
            request.extensions_mut().insert(signed_in.caller());
            request.extensions_mut().insert(signed_in);
        }
        Access::Api(roles) => {
            let caller = api_caller(gate, request.headers(), remote, roles).await;
            let caller = caller.map_err(|problem| Box::new(problem.respond(gate, rule.dialect)))?;
            request.extensions_mut().insert(caller);
        }
    }
    Ok(request)
}

fn cookie<'h>(gate: &Gate, headers: &'h HeaderMap) -> Option<&'h str> {
    cookie_named(
        headers,
        if gate.settings.secure {
            COOKIE_SECURE
        } else {
            COOKIE_PLAIN
        },
    )
}

fn cookie_named<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

/// Reads a form, refuses one from another site or without the session's token.
async fn read_form(gate: &Gate, request: Request, session: Option<&Session>) -> Admission<Request> {
    let refuse = |fault| Box::new(Problem::of(gate, fault).respond(gate, Dialect::Page));
    let site = request
        .headers()
        .get("sec-fetch-site")
        .map(|value| value.as_bytes().to_vec());
    if site.is_some_and(|site| site != b"same-origin" && site != b"none") {
        return Err(refuse(Fault::StaleForm));
    }
    let (mut parts, body) = request.into_parts();
    let bytes = to_bytes(body, FORM_BYTES_MAX)
        .await
        .map_err(|_| refuse(Fault::TooLarge))?;
    let whole = Request::from_parts(parts.clone(), Body::from(bytes));
    let Form(mut fields) = Form::<Vec<(String, String)>>::from_request(whole, &())
        .await
        .map_err(|_| refuse(Fault::Of(Class::Invalid)))?;
    if let Some(session) = session {
        let token = fields
            .iter()
            .find(|(name, _)| name == FORM_TOKEN)
            .map(|(_, value)| value.as_str());
        if !token.is_some_and(|token| same_secret(token, &session.form_token)) {
            return Err(refuse(Fault::StaleForm));
        }
    }
    fields.retain(|(name, _)| name != FORM_TOKEN);
    parts.extensions.insert(Fields(fields));
    Ok(Request::from_parts(parts, Body::empty()))
}

async fn api_caller(
    gate: &Gate,
    headers: &HeaderMap,
    remote: Option<SocketAddr>,
    roles: &[Role],
) -> Result<Caller, Problem> {
    let credential = headers
        .get(AUTHORIZATION)
        .filter(|value| value.len() <= AUTHORIZATION_BYTES_MAX)
        .and_then(|value| value.to_str().ok())
        .and_then(credential)
        .ok_or_else(|| Problem::of(gate, Fault::NotSignedIn))?;
    let principal = authenticate(gate, credential, remote).await?;
    let role = principal
        .roles
        .iter()
        .copied()
        .find(|role| roles.is_empty() || roles.contains(role));
    let role = role.ok_or_else(|| Problem::of(gate, Fault::RoleMissing))?;
    let (purpose, break_glass) = purpose(gate, headers)?;
    Ok(Caller {
        principal,
        role,
        purpose,
        break_glass,
    })
}

/// Checks a credential behind the brake on failures. Wrong and unknown look alike.
pub async fn authenticate(
    gate: &Gate,
    credential: Credential,
    remote: Option<SocketAddr>,
) -> Result<Principal, Problem> {
    let now = gate.now();
    let mut keys = Vec::new();
    if let Credential::Password { account, .. } = &credential {
        keys.push(format!("account {}", account.to_lowercase()));
    }
    keys.extend(remote.map(|remote| format!("address {}", remote.ip())));
    let wait = keys
        .iter()
        .map(|key| gate.attempts.wait_ms(key, now))
        .max()
        .unwrap_or_default();
    if wait > 0 {
        return Err(Problem::of(gate, Fault::TooMany(wait.div_ceil(1000))));
    }
    match gate.ports.accounts.authenticate(credential).await {
        Ok(principal) => {
            keys.iter().for_each(|key| gate.attempts.succeeded(key));
            Ok(principal)
        }
        Err(error) if matches!(error.class, Class::Refused | Class::Invalid) => {
            keys.iter().for_each(|key| gate.attempts.failed(key, now));
            Err(Problem::of(gate, Fault::NotSignedIn))
        }
        Err(error) => Err(Problem::from_port(gate, &error)),
    }
}

fn credential(value: &str) -> Option<Credential> {
    let (scheme, rest) = value.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(Credential::Token(rest.trim().to_owned()));
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
    let (account, password) = pair.split_once(':')?;
    Some(Credential::Password {
        account: account.to_owned(),
        password: password.to_owned(),
    })
}

fn purpose(gate: &Gate, headers: &HeaderMap) -> Result<(Purpose, Option<BreakGlass>), Problem> {
    let invalid = |words: &str| Problem::with(gate, Fault::Of(Class::Invalid), words);
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("\u{0}"));
    let purpose = text(PURPOSE).map_or(Purpose::Treatment, Purpose::from_code);
    let reason = match text(EMERGENCY_REASON) {
        None => None,
        Some("life-at-risk") => Some(BreakGlassReason::LifeAtRisk),
        Some("care-now") => Some(BreakGlassReason::CareNow),
        Some("risk-to-others") => Some(BreakGlassReason::RiskToOthers),
        Some(_) => {
            return Err(invalid(
                "X-HIE-Emergency-Reason is life-at-risk, care-now or risk-to-others.",
            ));
        }
    };
    match (purpose, reason) {
        (Purpose::Unknown, _) => Err(invalid("X-HIE-Purpose is not a purpose of use that is known here.")),
        (Purpose::BreakGlass, Some(reason)) => {
            let words = text(EMERGENCY_WORDS).unwrap_or_default().trim().to_owned();
            if words.is_empty() || words.chars().count() > CLAIM_TEXT_CHARS_MAX || words.contains('\u{0}') {
                return Err(invalid("Emergency access needs a few words in X-HIE-Emergency-Words."));
            }
            Ok((
                purpose,
                Some(BreakGlass {
                    reason,
                    words,
                    declared: gate.now(),
                }),
            ))
        }
        (Purpose::BreakGlass, None) | (_, Some(_)) => {
            Err(invalid("Purpose BTG and X-HIE-Emergency-Reason go together."))
        }
        (purpose, None) => Ok((purpose, None)),
    }
}

macro_rules! from_extensions {
    ($($kind:ty),+) => { $(
        impl FromRequestParts<Gate> for $kind {
            type Rejection = Response;

            async fn from_request_parts(parts: &mut Parts, gate: &Gate) -> Result<Self, Response> {
                // INVARIANT: the guard of every route that needs it has put it there; without it, fail closed.
                let found = parts.extensions.get::<Self>().cloned();
                found.ok_or_else(|| Problem::of(gate, Fault::NotSignedIn).respond(gate, Dialect::Page))
            }
        }
    )+ };
}

from_extensions!(Caller, SignedIn, Fields, Remote);
